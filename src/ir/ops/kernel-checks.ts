/** What the kernel declarations share: checks of operand types, window geometry, and codes as 32-bit integers. */
import { broadcastShapes, equalShapes, isStaticShape, printShape, staticShape, type StaticShape } from '../dim.ts';
import { allocate, bitsOf, isInteger, narrowest, rangeOf, type DType, type IntegerDType } from '../dtype.ts';
import { misuse, oneOf } from '../op.ts';
import { tensorType, type Tensor, type TensorType } from '../type.ts';

/** Codes that a kernel reads as an activation: at most 16 bits. */
export const isActivation = (dtype: DType): boolean => isInteger(dtype) && dtype !== 'bool' && dtype !== 'u16' && bitsOf(dtype) <= 16;
/** Codes that a kernel reads from a weight: signed, two to eight bits. */
export const isWeight = (dtype: DType): boolean => isInteger(dtype) && dtype[0] === 'i' && bitsOf(dtype) <= 8;
/** Codes that fit a signed 32-bit register. */
export const isWord = (dtype: DType): boolean => isInteger(dtype) && dtype !== 'i64' && dtype !== 'u32';
export const isByte = (dtype: DType): boolean => isInteger(dtype) && dtype !== 'bool' && bitsOf(dtype) <= 8;

export const expectDType = (slot: string, type: TensorType, fits: (dtype: DType) => boolean, expected: string): void => {
  if (!fits(type.dtype)) misuse(`operand "${slot}" must hold ${expected}, not ${type.dtype}`);
};

/** The shape as integers, of the given rank where one is asked for. */
export const fixedShape = (slot: string, { shape }: TensorType, rank?: number): StaticShape => {
  if (!isStaticShape(shape)) return misuse(`the shape [${printShape(shape)}] of operand "${slot}" still has symbols`);
  if (rank !== undefined && shape.length !== rank) misuse(`operand "${slot}" must have ${rank} axes, not [${printShape(shape)}]`);
  return shape;
};

/** A constant with one entry, or one for each of `channels`. */
export const expectPerChannel = (slot: string, type: TensorType, dtype: DType, channels: number): void => {
  if (type.dtype !== dtype) misuse(`operand "${slot}" must be ${dtype}, not ${type.dtype}`);
  const shape = fixedShape(slot, type, 1);
  if (shape[0] !== 1 && shape[0] !== channels) misuse(`operand "${slot}" must have 1 or ${channels} entries, not ${shape[0]}`);
};

export const expectLength = (attr: string, list: readonly number[], length: number, least: number): void => {
  const fits = list.length === length && list.every((entry) => entry >= least);
  if (!fits) misuse(`"${attr}" must be ${length} integers ≥ ${least}, not [${list.join(', ')}]`);
};

/** The last axis: the channels. A scalar has one. */
export const channelsOf = (shape: StaticShape): number => shape.at(-1) ?? 1;

/** The dtype of an output clamped to [low, high]. */
export const outputTypes = ['narrowest', 'i8', 'u8', 'i16', 'u16', 'i32'] as const;
export type OutputDType = (typeof outputTypes)[number];
export const to = oneOf<OutputDType>('dtype of the output; narrowest: the first of i8, i16, i32 that holds [low, high]', outputTypes, 'narrowest');
export const clampedType = (low: number, high: number, dtype: OutputDType): IntegerDType => {
  if (low > high) return misuse(`the range [${low}, ${high}] is empty`);
  if (low < -(2 ** 31) || high >= 2 ** 31) misuse(`the range [${low}, ${high}] does not fit 32 bits`);
  if (dtype === 'narrowest') return narrowest(low, high);
  const [least, greatest] = rangeOf(dtype);
  if (low < least || high > greatest) misuse(`the range [${low}, ${high}] does not fit ${dtype}`);
  return dtype;
};

/** Multiplier shifts that one 64-bit product allows. */
export const expectShift = (attr: string, shift: number, least: number): void => {
  if (shift < least || shift > 62) misuse(`"${attr}" must lie in ${least}…62, not ${shift}`);
};

export interface Window {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  /** top, left, bottom, right */
  readonly pads: readonly number[];
  readonly dilations: readonly number[];
}

/** [N, H, W, C] under a window → [N, OH, OW, channels]. */
export const windowShape = (slot: string, x: TensorType, { kernel, strides, pads, dilations }: Window, channels: number): StaticShape => {
  const [n, ...size] = fixedShape(slot, x, 4);
  expectLength('strides', strides, 2, 1);
  expectLength('pads', pads, 4, 0);
  expectLength('dilations', dilations, 2, 1);
  const out = kernel.map((taps, axis) => {
    const room = size[axis] + pads[axis] + pads[axis + 2] - ((taps - 1) * dilations[axis] + 1);
    if (room < 0) misuse(`a window of ${kernel.join('×')} does not fit into ${size[0]}×${size[1]} with its padding`);
    return Math.floor(room / strides[axis]) + 1;
  });
  return [n, out[0], out[1], channels];
};

/** The codes as 32-bit integers: one array class in all inner loops, whatever the dtype. */
export const codesOf = ({ data }: Tensor): Int32Array =>
  data instanceof Int32Array ? data : new Int32Array(data as Int8Array);

/** Stores 32-bit codes, all within the range of the type's dtype, as that dtype. */
export const packed = (type: TensorType, codes: Int32Array): Tensor => {
  const data = allocate(type.dtype, codes.length);
  (data as Int32Array).set(codes);
  return { type, data };
};

/** `y` broadcast by numpy rules must give the shape of `x`. */
export const expectBroadcast = (x: TensorType, y: TensorType): void => {
  const joined = broadcastShapes(x.shape, y.shape);
  if (joined === null || !equalShapes(joined, x.shape)) {
    misuse(`operand "y" [${printShape(y.shape)}] does not broadcast to "x" [${printShape(x.shape)}]`);
  }
};

export const expectCode = (attr: string, code: number, slot: string, { dtype }: TensorType): void => {
  const [low, high] = rangeOf(dtype as IntegerDType);
  if (code < low || code > high) misuse(`"${attr}" is ${code}, which operand "${slot}" of ${dtype} cannot hold`);
};

/** The inferred type of codes; what they stand for is the lowering's to say. */
export const codeTensor = (dtype: DType, shape: StaticShape): TensorType => tensorType(dtype, shape);
export const shapeOf = ({ type }: Tensor): StaticShape => staticShape(type.shape);

/** The image with its border of `code` written out; the same array where there is no border. */
export const padImage = (
  codes: Int32Array, batch: number, height: number, width: number, channels: number, [top, left, bottom, right]: readonly number[], code: number,
): Int32Array => {
  if (top + left + bottom + right === 0) return codes;
  const [rows, columns] = [height + top + bottom, width + left + right];
  const out = new Int32Array(batch * rows * columns * channels).fill(code);
  for (let n = 0; n < batch; n++) for (let row = 0; row < height; row++) {
    const from = (n * height + row) * width * channels;
    out.set(codes.subarray(from, from + width * channels), ((n * rows + row + top) * columns + left) * channels);
  }
  return out;
};
