// The size of a layer's weights is told from its shape alone, and it is the size in the programs.
import { describe, expect, it } from 'vitest';
import { kernelGraph, type KernelShape } from '../../src/bench/kernels.ts';
import { variants } from '../../src/backends/c/variants.ts';
import { lower, programOf, simd128, weightBytes, type Target, type WeightLayer } from '../../src/backends/index.ts';
import { packCodes, packedLength, storedWidth } from '../../src/backends/schedules/codes.ts';

const conv = (channels: number, outputs: number, kernel: readonly number[], group = 1, dilations = [1, 1]): KernelShape =>
  ({ op: 'conv', batch: 1, height: 9, width: 8, channels, outputs, kernel, strides: [1, 1], pads: [1, 1, 1, 1], dilations, group });
const shapes: readonly KernelShape[] = [
  { op: 'linear', rows: 3, depth: 192, columns: 64 }, { op: 'linear', rows: 1, depth: 45, columns: 19 }, { op: 'linear', rows: 2, depth: 9, columns: 5 },
  conv(16, 32, [3, 3]), conv(3, 24, [3, 3]), conv(12, 36, [3, 3], 3), conv(8, 16, [3, 2], 1, [1, 2]), conv(40, 40, [3, 3], 40), conv(6, 6, [3, 3], 6),
];
const layerOf = (shape: KernelShape): WeightLayer => {
  if (shape.op === 'linear') return { weight: [shape.columns, shape.depth] };
  if (shape.op !== 'conv') throw new Error('a layer with weights');
  const { outputs, kernel, channels, group, dilations, strides, pads } = shape;
  return { weight: [outputs, ...kernel, channels / group], group, dilations, strides, pads };
};
/** The stored weights of a program, by content. */
const stored = (shape: KernelShape, weightBits: number, target: Target): readonly string[] =>
  lower(programOf(kernelGraph({ shape, weightBits, activationBits: 8 })), target).constants
    .filter(({ name, e }) => name === 'weight' && e === 'i8').map(({ data }) => Buffer.from(data as Int8Array).toString('latin1'));

describe.each([2, 3, 4, 5, 6, 7, 8])('%i bits', (bits) => {
  it('in WebAssembly', () => {
    for (const shape of shapes) expect(weightBytes(layerOf(shape), bits, 'wasm'), JSON.stringify(shape)).toBe(stored(shape, bits, simd128)[0].length);
  });
  it('in the C, where versions of one family share what is equal', () => {
    for (const shape of shapes) {
      const byFamily = [...new Set(variants.map(({ family }) => family))].map((family) =>
        [...new Set(variants.filter((variant) => variant.family === family).flatMap(({ schedule }) => stored(shape, bits, schedule)))].reduce((sum, { length }) => sum + length, 0));
      expect(weightBytes(layerOf(shape), bits, 'cpu'), JSON.stringify(shape)).toBe(Math.max(...byFamily));
    }
  });
  it('bits/8 of a byte a weight, once rows and columns fill their panels', () => {
    for (const target of ['cpu', 'wasm']) expect(weightBytes({ weight: [64, 3, 3, 64] }, bits, target)).toBe((64 * 9 * 64 * storedWidth(bits)) / 8);
  });
  it('no gaps, whatever the length', () => {
    const width = storedWidth(bits);
    for (const length of [1, 7, 8, 63, 64, 65, 128, 200, 512, 515]) for (const block of [8, 64, length]) {
      const codes = new Int8Array(length);
      expect(packCodes(codes, block, width).length).toBe(packedLength(length, block, width));
      expect(packedLength(length, block, width)).toBeLessThanOrEqual(Math.ceil(length / 8) * width);
    }
  });
});
