/** What targets charge for bits: bytes that are promised and kept, and time that is bought only where fewer bits save it. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { openSamples } from '../../../src/calibration/samples.ts';
import { compile, type Compilation, type CompileOptions } from '../../../src/compile.ts';
import { constantOf, type Node, type Value } from '../../../src/ir/graph.ts';
import { bitsOf } from '../../../src/ir/dtype.ts';
import type { Explanation } from '../../../src/passes/allocation/explain.ts';

const example = (path: string): string => new URL(`../../../examples/${path}`, import.meta.url).pathname;
const compiled = (budget: string, targets: readonly string[], more: Partial<CompileOptions> = {}): Promise<Compilation> => compile(readFileSync(example('models/glyph-cnn.onnx')), {
  name: 'net', targets, bits: 'mixed', effort: 'low', allocation: { budget, measure: 'output-error', samples: 8, keep: budget.startsWith('size') ? ['logits=8'] : [] },
  openSamples: (inputs) => openSamples(example('data/calib.npy'), inputs, { count: 8 }), normalization: { mean: [127.5], std: [127.5], dtype: 'u8' }, ...more,
});
const allocationOf = ({ records }: Compilation): Explanation => records.find(({ pass }) => pass === 'allocate-bits')!.parts['allocation'] as Explanation;

it.each([['cpu', 100_000], ['wasm', 48_000], ['accel', 52_000]] as const)('the weights in the artefact of %s take what the programme promised, within one percent', async (target, most) => {
  const result = await compiled(`size=${most}`, [target]);
  const [{ predicted }] = allocationOf(result).limits;
  const [{ weightBytes }] = result.targets;
  expect(weightBytes).toBeLessThanOrEqual(most);
  expect(Math.abs(predicted / weightBytes - 1)).toBeLessThan(0.01);
  expect(new Set(allocationOf(result).layers.map(({ chosen }) => chosen)).size).toBeGreaterThan(1);
}, 240_000);

describe('a budget of latency', () => {
  const bitsOfWeight = ({ inputs }: Node): number => bitsOf(constantOf(inputs['weight'] as Value)!.type.dtype);
  const isLayer = ({ op }: Node): boolean => op === 'conv_acc' || op === 'linear_acc';
  const isLast = ({ inputs }: Node): boolean => Number((inputs['weight'] as Value).type.shape[0]) === 10;

  it('leaves eight bits where fewer take as long, but for what no clock can tell apart', async () => {
    const layers = allocationOf(await compiled('latency=100us', ['wasm'], {
      timeOf: (node) => (isLayer(node) ? (bitsOfWeight(node) < 8 ? 0.98 : 1) : 0),
    })).layers;
    expect(layers.map(({ chosen }) => chosen)).toEqual(layers.map(() => 'w8a8'));
    expect(layers.every(({ choices }) => choices.length === 1)).toBe(true);
  }, 240_000);

  it('takes bits from the layers alone in which that saves time', async () => {
    const timeOf = (node: Node): number => (isLayer(node) ? (isLast(node) ? bitsOfWeight(node) : 1) : 0);
    const { layers, limits } = allocationOf(await compiled('latency=14us', ['wasm'], { timeOf }));
    const last = layers.filter(({ choices }) => choices.length > 1);
    expect(last).toHaveLength(1);
    expect(last[0].chosen).not.toBe('w8a8');
    expect(layers.filter((layer) => !last.includes(layer)).map(({ chosen }) => chosen)).toEqual(Array.from({ length: layers.length - 1 }, () => 'w8a8'));
    expect(limits[0].predicted).toBeLessThanOrEqual(14);
    expect(limits[0].real).toBe(limits[0].predicted);
  }, 240_000);
});
