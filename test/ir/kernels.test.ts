/** What each kernel computes: every file of `kernels/` holds a graph, its inputs and the codes that must come out. */
import { describe, expect, it } from 'vitest';
import { sizeOf } from '../../src/ir/dim.ts';
import { allocate } from '../../src/ir/dtype.ts';
import { evaluateGraph } from '../../src/ir/evaluate.ts';
import { parseGraph } from '../../src/ir/parse.ts';
import { printGraph } from '../../src/ir/print.ts';
import { tensor } from '../../src/ir/type.ts';
import { verify } from '../../src/ir/verify.ts';
import { casesIn, readCase, tensorsOf, withoutComments } from './cases.ts';

describe('kernels', () => {
  it.each(casesIn('kernels'))('%s', (file) => {
    const text = readCase('kernels', file);
    const graph = parseGraph(text);
    const given = tensorsOf(text);
    expect(verify(graph)).toEqual([]);
    expect(printGraph(graph)).toBe(withoutComments(text));
    const inputs = Object.fromEntries(graph.inputs.map(({ name, type }) => {
      const data = allocate(type.dtype, sizeOf(type.shape));
      (data as Int32Array).set(given.get(name)!);
      return [name, tensor(type, data)];
    }));
    const outputs = evaluateGraph(graph, inputs);
    for (const [name, { data }] of outputs) expect(Array.from(data as Int32Array), `%${name}`).toEqual(given.get(name));
  });
});
