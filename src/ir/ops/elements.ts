/**
 * Walking the elements of tensors for reference meanings: every layout op and every broadcast is one list of offsets into its
 * operand, so each op's own file holds only its mathematics.
 */
import { allocate, type TypedArray } from '../dtype.ts';
import { broadcastShapes, isStatic, normalAxis, printShape, sizeOf, staticShape, stridesOf, type Dim, type Shape, type StaticShape } from '../dim.ts';
import { misuse } from '../op.ts';
import { tensorType, type Tensor, type TensorType } from '../type.ts';

/** Offsets start + Σ index[a]·strides[a] for every index of `shape`, in row-major order. */
export const viewOffsets = (shape: StaticShape, strides: readonly number[], start = 0): Int32Array => {
  const offsets = new Int32Array(sizeOf(shape));
  if (offsets.length === 0) return offsets;
  const index = new Int32Array(shape.length);
  let at = start;
  for (let i = 0; ; ) {
    offsets[i] = at;
    if (++i === offsets.length) return offsets;
    for (let axis = shape.length - 1; ; axis--) {
      at += strides[axis];
      if (++index[axis] < shape[axis]) break;
      at -= shape[axis] * strides[axis];
      index[axis] = 0;
    }
  }
};

/** For each element of `to`, the offset of its source in a tensor of shape `from`, by numpy broadcasting. */
export const broadcastOffsets = (from: Shape, to: Shape): Int32Array => {
  const [source, target] = [staticShape(from), staticShape(to)];
  const strides = stridesOf(source);
  const lead = target.length - source.length;
  return viewOffsets(target, target.map((_, axis) => (axis < lead || source[axis - lead] === 1 ? 0 : strides[axis - lead])));
};

/** The elements at `offsets`, as a tensor of type `type`; any element type. */
export const pick = (source: TypedArray, offsets: Int32Array, type: TensorType): Tensor => {
  const data = allocate(type.dtype, offsets.length);
  for (let i = 0; i < offsets.length; i++) data[i] = source[offsets[i]];
  return { type, data };
};

/** A real tensor of the given shape from a function of the flat index. */
export const fill = (shape: Shape, at: (index: number) => number): Tensor => {
  const data = new Float32Array(sizeOf(shape));
  for (let i = 0; i < data.length; i++) data[i] = at(i);
  return { type: tensorType('f32', shape), data };
};

/** Real elements of a tensor; ops call it on operands that their `infer` required to be f32. */
export const reals = (tensor: Tensor): Float32Array => {
  if (!(tensor.data instanceof Float32Array)) throw new TypeError(`real elements were expected, not ${tensor.type.dtype}`);
  return tensor.data;
};

/** The shape of an operand that must hold real numbers. */
export const realShape = (type: TensorType, slot: string): Shape =>
  type.dtype === 'f32' ? type.shape : misuse(`"${slot}" must hold real numbers, not ${type.dtype}`);

export const broadcastOf = (...shapes: readonly Shape[]): Shape =>
  shapes.reduce((a, b) => broadcastShapes(a, b) ?? misuse(`the shapes [${printShape(a)}] and [${printShape(b)}] do not broadcast`));

export const axisOf = (axis: number, rank: number): number =>
  normalAxis(axis, rank) ?? misuse(`axis ${axis} is outside a tensor of rank ${rank}`);

/** Distinct axes counted from the start, in ascending order. */
export const axesOf = (axes: readonly number[], rank: number): readonly number[] => {
  const normal = axes.map((axis) => axisOf(axis, rank));
  if (new Set(normal).size !== normal.length) misuse(`axes [${axes.join(', ')}] name one axis twice`);
  return normal.sort((a, b) => a - b);
};

export const rankOf = (shape: Shape, rank: number, slot: string): Shape =>
  shape.length === rank ? shape : misuse(`"${slot}" must have rank ${rank}, but its shape is [${printShape(shape)}]`);

export const staticDim = (dim: Dim, what: string): number =>
  isStatic(dim) ? dim : misuse(`${what} must be a known number; bind its symbol`);

/** Number of elements before, along and after one axis. */
export const splitAt = (shape: Shape, axis: number): { readonly outer: number; readonly length: number; readonly inner: number } =>
  ({ outer: sizeOf(shape.slice(0, axis)), length: staticShape(shape)[axis], inner: sizeOf(shape.slice(axis + 1)) });
