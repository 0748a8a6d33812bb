import { allocate, type DType, type TypedArray } from './dtype.ts';
import { equalShapes, printShape, sizeOf, type Shape } from './dim.ts';
import type { QuantType } from './quant.ts';

export interface TensorType {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly quant: QuantType | null;
}

export const tensorType = (dtype: DType, shape: Shape, quant: QuantType | null = null): TensorType => ({ dtype, shape, quant });
export const f32 = (...shape: Shape): TensorType => tensorType('f32', shape);

/** The type of the real numbers that a quantised tensor stands for. */
export const realType = (type: TensorType): TensorType => (type.quant === null ? type : tensorType('f32', type.shape));

export const equalTypes = (a: TensorType, b: TensorType): boolean =>
  a.dtype === b.dtype && equalShapes(a.shape, b.shape) && JSON.stringify(a.quant) === JSON.stringify(b.quant);

/** A tensor value: `data` in row-major order, one element a code. Never written after it was made. */
export interface Tensor {
  readonly type: TensorType;
  readonly data: TypedArray;
}

export const tensor = (type: TensorType, data: TypedArray): Tensor => {
  if (data.length !== sizeOf(type.shape)) throw new RangeError(`${data.length} elements for the shape [${printShape(type.shape)}]`);
  return { type, data };
};
export const zeros = (type: TensorType): Tensor => ({ type, data: allocate(type.dtype, sizeOf(type.shape)) });

const levels = new WeakMap<TypedArray, Int8Array>();
/** The distinct codes of a tensor of bytes, ascending; found once for each array. */
export const levelsOf = ({ data }: Tensor): Int8Array => {
  let known = levels.get(data);
  if (known === undefined) levels.set(data, (known = Int8Array.from(new Set(data as Int8Array)).sort()));
  return known;
};
