import { expect, it } from 'vitest';
import { dequantized, quantized } from '../../src/calibration/codes.ts';
import { perChannel, perTensor } from '../../src/ir/quant.ts';
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
