// Damaged and hostile models: every one ends in a result or in diagnostics of ours, soon, in little memory.
import { readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { compile } from '../../src/compile.ts';
import { syntheticSamples } from '../../src/calibration/samples.ts';
import { CompileError } from '../../src/ir/diagnostic.ts';
import { createRandom } from '../../src/numerics/random.ts';
import { decodeModel, encodeModel } from '../../src/onnx/protobuf.ts';
import type { ModelProto } from '../../src/onnx/schema.ts';
import { example } from '../cli/lowbitc.ts';

const bytesOf = (path: string): Uint8Array => new Uint8Array(readFileSync(path));
const cnn = bytesOf(example('models/glyph-cnn.onnx'));
const vit = bytesOf(example('models/glyph-vit.onnx'));

type Random = ReturnType<typeof createRandom>;
const flipBits = (bytes: Uint8Array, random: Random): Uint8Array => {
  const copy = bytes.slice();
  for (let n = 1 + random.below(8); n > 0; n--) copy[random.below(copy.length)] ^= 1 << random.below(8);
  return copy;
};
const truncate = (bytes: Uint8Array, random: Random): Uint8Array => bytes.slice(0, random.below(bytes.length));
/** A varint of nine full bytes wherever it falls: lengths, counts and tags of absurd size. */
const bomb = (bytes: Uint8Array, random: Random): Uint8Array => {
  const copy = bytes.slice();
  const at = random.below(copy.length - 10);
  copy.fill(0xff, at, at + 8);
  copy[at + 8] = 0x7f;
  return copy;
};
/** Changes of the graph itself: cycles, unknown names, names given twice, operators and attributes that are not. */
const rewire = (bytes: Uint8Array, random: Random): Uint8Array => {
  const model = decodeModel(bytes) as unknown as { graph: { node: { input: string[]; output: string[]; opType: string; attribute?: { name: string; ints: unknown[]; i: unknown }[] }[] } };
  const { node } = model.graph;
  const pick = () => node[random.below(node.length)];
  const [a, b] = [pick(), pick()];
  a.attribute ??= [];
  const edits = [
    () => { a.input[0] = b.output[0]; },
    () => { a.output[0] = b.output[0]; },
    () => { a.input[0] = 'nowhere'; },
    () => { a.input = []; },
    () => { a.opType = b.opType; },
    () => { a.opType = 'NoSuchOperator'; },
    () => { a.attribute = b.attribute ?? []; },
    () => { for (const attribute of a.attribute ?? []) attribute.ints = [-1, 2 ** 31, 0, 7]; },
    () => { for (const attribute of a.attribute ?? []) attribute.i = -7; },
    () => { node.reverse(); },
  ];
  edits[random.below(edits.length)]();
  return encodeModel(model as unknown as ModelProto);
};

/** Milliseconds that one model may take, and megabytes that the process may grow in all. */
const mostMilliseconds = 10_000;
const mostMegabytes = 1000;

describe.each<[string, (bytes: Uint8Array, random: Random) => Uint8Array]>([
  ['bit flips', flipBits], ['truncations', truncate], ['length bombs', bomb], ['changed graphs', rewire],
])('%s', (name, mutate) => {
  test('75 models', async () => {
    const before = process.memoryUsage().rss;
    const random = createRandom(name.length);
    for (let n = 0; n < 75; n++) {
      const source = n % 5 === 0 ? vit : cnn;
      const bytes = mutate(source, random);
      const start = performance.now();
      try {
        await compile(bytes, { name: 'm', targets: [], openSamples: (inputs) => syntheticSamples(inputs, 1, 0) });
      } catch (cause) {
        const path = join(tmpdir(), `${name.replace(' ', '-')}-${n}.onnx`);
        if (!(cause instanceof CompileError) || cause.kind === 'internal') writeFileSync(path, bytes);
        expect(cause, `${path}: ${(cause as Error).stack}`).toBeInstanceOf(CompileError);
        expect((cause as CompileError).kind, `${path}: ${(cause as CompileError).message}`).not.toBe('internal');
      }
      expect(performance.now() - start, `model ${n}`).toBeLessThan(mostMilliseconds);
    }
    expect((process.memoryUsage().rss - before) / 1e6).toBeLessThan(mostMegabytes);
  }, 300_000);
});
