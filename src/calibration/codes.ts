/** Between real tensors and their codes, by the rule of the boundary (ir/quant.ts). */
import { sizeOf } from '../ir/dim.ts';
import { allocate } from '../ir/dtype.ts';
import { scaleAt, zeroAt } from '../ir/quant.ts';
import { hasKernel, roundGroups } from '../numerics/codes-kernel.ts';
import { tensor, tensorType, type Tensor, type TensorType } from '../ir/type.ts';

/** Calls `visit` with each run of elements [from, to) that share a scale and zero. */
const eachRun = ({ quant, shape }: TensorType, length: number, visit: (from: number, to: number, scale: number, zero: number) => void): void => {
  const { axis } = quant!;
  const run = axis === null ? length : sizeOf(shape.slice(axis + 1));
  const channels = axis === null ? 1 : (shape[axis] as number);
  for (let from = 0, n = 0; from < length; from += run, n++) visit(from, from + run, scaleAt(quant!, n % channels), zeroAt(quant!, n % channels));
};

type Numbers = { [i: number]: number };
/** `quantizeReal` (ir/quant.ts) of a run. A function of its own, with what the loop reads as locals, is what engines compile well. */
const quantizeRun = (reals: Numbers, codes: Numbers, from: number, to: number, scale: number, zero: number, low: number, high: number): void => {
  for (let i = from; i < to; i++) {
    const code = Math.floor(reals[i] / scale + 0.5) + zero;
    codes[i] = code < low ? low : code > high ? high : code;
  }
};
const dequantizeRun = (codes: Numbers, reals: Float32Array, from: number, to: number, scale: number, zero: number): void => {
  for (let i = from; i < to; i++) reals[i] = (codes[i] - zero) * scale;
};

/** Numbers from which on a run is worth copying to the kernel. */
const KERNEL_LENGTH = 64;

/** Codes of real numbers by floor(x/scale + 1/2) + zero in float64, saturated; a type without quantisation keeps the tensor as it is. */
export const quantized = (real: Tensor, type: TensorType): Tensor => {
  const { quant } = type;
  if (quant === null) return real;
  const { data } = real;
  const codes = allocate(type.dtype, data.length);
  const { low, high } = quant;
  const byKernel = data instanceof Float32Array && hasKernel(codes);
  eachRun(type, data.length, (from, to, scale, zero) => {
    const rest = byKernel && to - from >= KERNEL_LENGTH ? roundGroups(data, codes, from, to, scale, zero, low, high) : from;
    quantizeRun(data as Numbers, codes as Numbers, rest, to, scale, zero, low, high);
  });
  return tensor(type, codes);
};

/** The real numbers (code − zero)·scale, rounded to float32; a tensor that is not quantised as it is. */
export const dequantized = (codes: Tensor): Tensor => {
  const { type, data } = codes;
  if (type.quant === null) return codes;
  const reals = new Float32Array(data.length);
  eachRun(type, data.length, (from, to, scale, zero) => dequantizeRun(data as Numbers, reals, from, to, scale, zero));
  return tensor(tensorType('f32', type.shape), reals);
};
