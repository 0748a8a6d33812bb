import fc from 'fast-check';
import { expect, it } from 'vitest';
import { dequantized, quantized } from '../../src/calibration/codes.ts';
import { perChannel, perTensor, quantizeReal } from '../../src/ir/quant.ts';
import { f32, tensor, tensorType } from '../../src/ir/type.ts';

it('rounds half up, in float64, and saturates', () => {
  const type = tensorType('i8', [8], perTensor('i8', 0.5, -3, [-100, 100]));
  const codes = quantized(tensor(f32(8), Float32Array.of(0, 0.25, -0.25, 0.24999, -0.75, 1e9, -1e9, 51.5)), type);
  expect(codes).toEqual(tensor(type, Int8Array.of(-3, -2, -3, -3, -4, 100, -100, 100)));
  expect(dequantized(codes)).toEqual(tensor(f32(8), Float32Array.of(0, 0.5, 0, 0, -0.5, 51.5, -48.5, 51.5)));
});

it('each channel has its scale, whichever axis it is', () => {
  const first = tensorType('i4', [2, 3], perChannel([1, 0.5], 0, [-7, 7]));
  expect(quantized(tensor(f32(2, 3), Float32Array.of(1, 2, 3, 1, 2, 3)), first).data).toEqual(Int8Array.of(1, 2, 3, 2, 4, 6));
  const middle = tensorType('i8', [2, 2, 2], perChannel([1, 0.25], 1, [-127, 127]));
  const codes = quantized(tensor(f32(2, 2, 2), new Float32Array(8).fill(1)), middle);
  expect(codes.data).toEqual(Int8Array.of(1, 1, 4, 4, 1, 1, 4, 4));
  expect(dequantized(codes).data).toEqual(new Float32Array(8).fill(1));
});

it('what is not quantised stays', () => {
  const tokens = tensor(tensorType('i64', [1]), BigInt64Array.of(7n));
  expect(quantized(tokens, tokens.type)).toBe(tokens);
  expect(dequantized(tokens)).toBe(tokens);
});

it('long runs have the codes of the rule, number by number', () => {
  const scales = [0.5, 1 / 3, 1e-3, 7e4].map(Math.fround);
  fc.assert(fc.property(
    fc.constantFrom('i8', 'u8', 'i4', 'i16'), fc.constantFrom(...scales), fc.integer({ min: -5, max: 7 }), fc.array(fc.float(), { minLength: 60, maxLength: 200 }),
    (dtype, scale, zero, some) => {
      const [low, high] = dtype === 'u8' ? [0, 250] : dtype === 'i4' ? [-7, 7] : dtype === 'i8' ? [-128, 127] : [-32768, 32000];
      // ties and ends of the range beside whatever comes
      const reals = Float32Array.from(some, (x, i) => (i % 3 === 0 ? (i % 40 - 20 + 0.5) * scale : i % 3 === 1 ? x % (300 * scale) : x));
      const type = tensorType(dtype, [reals.length], perTensor(dtype, scale, zero, [low, high]));
      const expected = Int32Array.from(reals, (x) => quantizeReal(x, scale, zero, low, high));
      expect(Int32Array.from(quantized(tensor(f32(reals.length), reals), type).data as Int16Array)).toEqual(expected);
    }), { numRuns: 200 });
});

it('runs longer than the kernel takes at a time', () => {
  const reals = Float32Array.from({ length: 20_001 }, (_, i) => Math.fround((i % 1000) / 7 - 60));
  const type = tensorType('i8', [reals.length], perTensor('i8', 0.5, 2, [-128, 127]));
  expect(quantized(tensor(f32(reals.length), reals), type).data).toEqual(Int8Array.from(reals, (x) => quantizeReal(x, 0.5, 2, -128, 127)));
});
