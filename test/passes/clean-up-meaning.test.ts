/** The clean-up passes keep the meaning: every golden case computes the same real numbers before and after. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { staticShape } from '../../src/ir/dim.ts';
import type { TypedArray } from '../../src/ir/dtype.ts';
import { evaluateGraph } from '../../src/ir/evaluate.ts';
import type { Graph } from '../../src/ir/graph.ts';
import { parseGraph } from '../../src/ir/parse.ts';
import type { Tensor } from '../../src/ir/type.ts';
import { canonicalizePasses } from '../../src/passes/canonicalize.ts';
import { bareContext } from '../../src/passes/pass.ts';

const here = dirname(fileURLToPath(import.meta.url));
/** Reproducible numbers of both signs, none of them special. */
const sample = (graph: Graph): Record<string, Tensor> => Object.fromEntries(graph.inputs.map(({ name, type }, k) => [name, {
  type, data: Float32Array.from({ length: staticShape(type.shape).reduce((size, dim) => size * dim, 1) }, (_, i) => 3 * Math.sin(1.7 * i + k + 0.3)),
}]));
const numbers = (data: TypedArray): number[] => Array.from(data as ArrayLike<number | bigint>, Number);
/** Largest difference that float32 roundings in another order may make, relative to the largest output. */
const TOLERANCE = 1e-5;

describe('before and after', () => {
  for (const pass of canonicalizePasses) {
    const folder = join(here, pass.name);
    for (const file of readdirSync(folder).filter((name) => name.endsWith('.lbir'))) {
      test(`${pass.name}/${file}`, async () => {
        const graph = parseGraph(readFileSync(join(folder, file), 'utf8').split('// ---- after')[0]) as Graph<'float'>;
        const inputs = sample(graph);
        const expected = evaluateGraph(graph, inputs);
        let after: Graph = graph;
        for (const each of canonicalizePasses) after = await each.run(after, {}, bareContext());
        for (const form of [await pass.run(graph, {}, bareContext()), after]) {
          for (const [name, { type, data }] of evaluateGraph(form, inputs)) {
            const want = expected.get(name)!;
            expect(type.shape).toEqual(want.type.shape);
            const size = Math.max(...numbers(want.data).map(Math.abs));
            const worst = Math.max(...numbers(data).map((x, i) => Math.abs(x - Number(want.data[i]))));
            expect(worst).toBeLessThanOrEqual(TOLERANCE * size);
          }
        }
      });
    }
  }
});
