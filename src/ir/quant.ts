import { rangeOf, type IntegerDType } from './dtype.ts';

/**
 * How integer codes stand for real numbers, as part of a tensor's type: real = (code − zero) · scale. Scales are real numbers
 * representable in float32; the integer multipliers of kernels are derived from them in float64.
 */
export interface UniformQuant {
  readonly kind: 'uniform';
  /** one scale, or one for each index of `axis`; each > 0 and equal to its float32 rounding */
  readonly scale: number | readonly number[];
  readonly zero: number | readonly number[];
  /** the axis that `scale` (and `zero`) run along when they are lists */
  readonly axis: number | null;
  /** least and greatest code in use, within the dtype */
  readonly low: number;
  readonly high: number;
}
export type QuantType = UniformQuant;

/** One scale and zero for the whole tensor, using all codes of `dtype` unless told otherwise. */
export const perTensor = (dtype: IntegerDType, scale: number, zero: number, range: readonly [number, number] = rangeOf(dtype)): UniformQuant =>
  ({ kind: 'uniform', scale: Math.fround(scale), zero, axis: null, low: range[0], high: range[1] });

/** Symmetric codes with one scale for each index of `axis`: the usual form of weights. */
export const perChannel = (scales: readonly number[], axis: number, range: readonly [number, number]): UniformQuant =>
  ({ kind: 'uniform', scale: scales.map(Math.fround), zero: 0, axis, low: range[0], high: range[1] });

export const scaleAt = (quant: UniformQuant, index: number): number =>
  typeof quant.scale === 'number' ? quant.scale : quant.scale[index];
export const zeroAt = (quant: UniformQuant, index: number): number =>
  typeof quant.zero === 'number' ? quant.zero : quant.zero[index];

/** Scale of a per-tensor type. Callers hold a type for which `isPerTensor` is true. */
export const scaleOf = (quant: UniformQuant): number => {
  if (typeof quant.scale !== 'number') throw new RangeError('a per-tensor scale was expected');
  return quant.scale;
};
export const zeroOf = (quant: UniformQuant): number => {
  if (typeof quant.zero !== 'number') throw new RangeError('a per-tensor zero point was expected');
  return quant.zero;
};
export const isPerTensor = (quant: UniformQuant): boolean => quant.axis === null;

/** The boundary rule: float64, floor(x/scale + 1/2) + zero, saturated. NaN is the caller's error. */
export const quantizeReal = (real: number, scale: number, zero: number, low: number, high: number): number =>
  Math.min(high, Math.max(low, Math.floor(real / scale + 0.5) + zero));
