// Weights take in a program as many bits as they have: planes of codes without gaps.
import { describe, expect, it } from 'vitest';
import { kernelGraph, type KernelShape } from '../../src/bench/kernels.ts';
import { lower, portableC, programOf, simd128, type Target } from '../../src/backends/index.ts';
import { packCodes, packedLength, storedWidth } from '../../src/backends/schedules/codes.ts';

const shape: KernelShape = { op: 'conv', batch: 1, height: 9, width: 8, channels: 64, outputs: 64, kernel: [3, 3], strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], group: 1 };
const storedBytes = (weightBits: number, target: Target): number => lower(programOf(kernelGraph({ shape, weightBits, activationBits: 8 })), target).constants
  .filter(({ name, e }) => name === 'weight' && e === 'i8').reduce((sum, { data }) => sum + data!.byteLength, 0);

describe.each([2, 3, 4, 5, 6, 7, 8])('%i bits', (bits) => {
  it('bits/8 of a byte a weight, once rows and columns fill their panels', () => {
    for (const target of [portableC, simd128]) expect(storedBytes(bits, target)).toBe((64 * 9 * 64 * storedWidth(bits)) / 8);
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
