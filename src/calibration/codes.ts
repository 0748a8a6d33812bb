/** Between real tensors and their codes, by the rule of the boundary (ir/quant.ts). */
import { sizeOf } from '../ir/dim.ts';
import { allocate } from '../ir/dtype.ts';
import { quantizeReal, scaleAt, zeroAt } from '../ir/quant.ts';
import { tensor, tensorType, type Tensor, type TensorType } from '../ir/type.ts';

/** Codes of real numbers by floor(x/scale + 1/2) + zero in float64, saturated; a type without quantisation keeps the tensor as it is. */
export const quantized = (real: Tensor, type: TensorType): Tensor => {
  const { quant } = type;
  if (quant === null) return real;
  const { data } = real;
  const codes = allocate(type.dtype, data.length);
  const inner = quant.axis === null ? data.length : sizeOf(type.shape.slice(quant.axis + 1));
  const channels = quant.axis === null ? 1 : (type.shape[quant.axis] as number);
  for (let i = 0; i < data.length; i++) {
    const c = Math.floor(i / inner) % channels;
    codes[i] = quantizeReal(Number(data[i]), scaleAt(quant, c), zeroAt(quant, c), quant.low, quant.high);
  }
  return tensor(type, codes);
};

/** The real numbers (code − zero)·scale, rounded to float32; a tensor that is not quantised as it is. */
export const dequantized = (codes: Tensor): Tensor => {
  const { type: { quant, shape }, data } = codes;
  if (quant === null) return codes;
  const reals = new Float32Array(data.length);
  const inner = quant.axis === null ? data.length : sizeOf(shape.slice(quant.axis + 1));
  const channels = quant.axis === null ? 1 : (shape[quant.axis] as number);
  for (let i = 0; i < data.length; i++) {
    const c = Math.floor(i / inner) % channels;
    reals[i] = (Number(data[i]) - zeroAt(quant, c)) * scaleAt(quant, c);
  }
  return tensor(tensorType('f32', shape), reals);
};
