/** Integer types of activations, made from ranges. Every range holds 0. */
import { rangeOf, type IntegerDType } from '../ir/dtype.ts';
import type { Node, Value } from '../ir/graph.ts';
import { quantizeReal, type UniformQuant } from '../ir/quant.ts';
import { tensorType, type TensorType } from '../ir/type.ts';
import type { Range } from '../calibration/range.ts';

/** Headroom of 16-bit values over the calibrated range: a quarter of their codes, for inputs beyond the calibration set. */
const WIDE_HEADROOM = 1.25;

/** The least range that holds all of these. */
export const unionOf = (ranges: readonly Range[]): Range =>
  ({ low: Math.min(0, ...ranges.map(({ low }) => low)), high: Math.max(0, ...ranges.map(({ high }) => high)) });

/** What a ReLU or clip lets through. */
export const activationBounds = (node: Node): { floor: number; ceiling: number } =>
  node.op === 'relu' ? { floor: 0, ceiling: Infinity } : { floor: node.attrs.low as number, ceiling: node.attrs.high as number };

export const withShape = (type: TensorType, value: Value): TensorType => tensorType(type.dtype, value.type.shape, type.quant);

/** A value that is 0 throughout, or too small for a float32 step, has step 1. */
const scaleFor = (span: number, codes: number): number => Math.fround(span / codes) || 1;

export const symmetricType = (dtype: IntegerDType, largest: number, codes = rangeOf(dtype)[1]): TensorType =>
  tensorType(dtype, [], { kind: 'uniform', scale: scaleFor(largest, codes), zero: 0, axis: null, low: -codes, high: codes });

export const wideType = (range: Range, codes?: number): TensorType => symmetricType('i16', Math.max(range.high, -range.low) * WIDE_HEADROOM, codes);

/** 2 to 8 bits, stored as bytes. */
export const narrowType = (range: Range, bits: number, symmetric: boolean): TensorType => {
  const [low, high] = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1];
  if (symmetric) return symmetricType('i8', Math.max(range.high, -range.low), high);
  const scale = scaleFor(range.high - range.low, high - low);
  const zero = Math.min(high, Math.max(low, low - Math.floor(range.low / scale + 0.5)));
  return tensorType('i8', [], { kind: 'uniform', scale, zero, axis: null, low, high });
};

/** The type with its codes limited to what the activation lets through. */
export const limitedType = (type: TensorType, activation: Node): TensorType => {
  const quant = type.quant as UniformQuant;
  const { floor, ceiling } = activationBounds(activation);
  const code = (real: number): number => quantizeReal(real, quant.scale as number, quant.zero as number, quant.low, quant.high);
  return tensorType(type.dtype, type.shape, { ...quant, low: code(floor), high: code(ceiling) });
};

/** Softmax results: 1 is code 65535, so the scale is the float32 next to 1/65535. */
export const probabilities = tensorType('u16', [], { kind: 'uniform', scale: Math.fround(1 / 65535), zero: 0, axis: null, low: 0, high: 65535 });

/** Integer data that the caller hands in as it is: code = value. */
export const codesOfData = (dtype: 'u8' | 'i16'): TensorType =>
  tensorType(dtype, [], { kind: 'uniform', scale: 1, zero: 0, axis: null, low: rangeOf(dtype)[0], high: rangeOf(dtype)[1] });
