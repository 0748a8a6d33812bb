/**
 * Integer constants of softmax, attention and layer norm from real scales. Each returns what its kernel needs, tables as arrays and
 * attributes as a record, or null where the numbers do not fit the kernel's widths.
 */
import { chooseDyadic } from './choose-dyadic.ts';
import { powerTable, type PowerForm } from './power-weights.ts';
import { exp } from './real-math.ts';

/** Entries of the exponential table of attention; the last one is 0. */
const EXP_LENGTH = 2816;
/** Steps of the exponent in the table: 1/256. */
const EXP_STEPS = 256;
/** Greatest exponential of attention, that of the greatest logit. */
const EXP_ONE = 32767;
/** The number 1 of the softmax tables. */
const Q30 = 2 ** 30;

/** E[z] = round(32767·e^(−z/256)) for z = 0…2814, and 0 for all that is smaller. One table serves every attention. */
export const expTable = (): Int16Array =>
  Int16Array.from({ length: EXP_LENGTH }, (_, z) => (z === EXP_LENGTH - 1 ? 0 : Math.floor(EXP_ONE * exp(-z / EXP_STEPS) + 0.5)));

export interface OutputCodes {
  readonly scaleOut: number;
  readonly zeroOut: number;
  readonly low: number;
  readonly high: number;
}
export interface RowRescale {
  readonly newtonSteps: number;
  readonly mulOut: number;
  readonly shiftOut: number;
  readonly zero: number;
  readonly low: number;
  readonly high: number;
}

/** Newton steps of a reciprocal: an error of 2^-18 is enough for eight bits of output, 2^-30 for all. */
const stepsFor = ({ low, high }: OutputCodes): number => (high - low < 256 ? 1 : 2);

/** The largest mulOut·2^-shiftOut ≈ ratio with mulOut < 2^31 whose row shifts shiftOut + 31 − lz(S) stay within 32…62. */
const rowRescale = (ratio: number, leastSum: number, greatestSum: number, output: OutputCodes): RowRescale | null => {
  const most = Math.min(62, 62 - 31 + Math.clz32(greatestSum));
  for (let shiftOut = most; shiftOut >= 1 && shiftOut + 31 - Math.clz32(leastSum) >= 32; shiftOut--) {
    const mulOut = Math.floor(ratio * 2 ** shiftOut + 0.5);
    if (mulOut < 2 ** 31) return { newtonSteps: stepsFor(output), mulOut, shiftOut, zero: output.zeroOut, low: output.low, high: output.high };
  }
  return null;
};

export interface SoftmaxRequest extends OutputCodes {
  /** storage bits of the input: 8 or 16 */
  readonly bits: 8 | 16;
  readonly scaleIn: number;
  /** elements of a row */
  readonly length: number;
}
export interface SoftmaxConstants {
  readonly fine: Int32Array;
  readonly coarse: Int32Array | null;
  readonly attrs: RowRescale & { readonly eShift: number };
}
/** Tables fine[d] = round(2^30·e^(−scale·d)), coarse[d] = round(2^30·e^(−scale·256·d)), and the rest of a `softmax`. */
export const chooseSoftmax = ({ bits, scaleIn, length, ...output }: SoftmaxRequest): SoftmaxConstants | null => {
  const powers = (step: number): Int32Array => Int32Array.from({ length: 256 }, (_, d) => Math.floor(Q30 * exp(-step * d) + 0.5));
  let eShift = 0;
  while (length * Math.floor(Q30 / 2 ** eShift) >= 2 ** 32) eShift++;
  const one = Math.floor(Q30 / 2 ** eShift);
  const rescale = eShift > 30 ? null : rowRescale(1 / output.scaleOut, one, length * one, output);
  return rescale && { fine: powers(scaleIn), coarse: bits === 8 ? null : powers(scaleIn * 256), attrs: { ...rescale, newtonSteps: 2, eShift } };
};

export interface AttentionRequest extends OutputCodes {
  readonly scaleQ: number;
  readonly scaleK: number;
  readonly scaleV: number;
  /** factor of q·k before the softmax: 1/√depth */
  readonly logitScale: number;
  /** channels of q and k in one head */
  readonly depth: number;
  /** keys that a query may attend to */
  readonly keys: number;
  /** greatest |code| of q, k and v */
  readonly magnitudeQ: number;
  readonly magnitudeK: number;
  readonly magnitudeV: number;
  /** weights that are powers of two, with codes of so many bits; the exponentials themselves by default */
  readonly powers?: { readonly form: PowerForm; readonly bits: number } | null;
}
export interface AttentionConstants {
  readonly exp: Int16Array;
  readonly attrs: RowRescale & { readonly mulLogit: number; readonly addLogit: bigint; readonly shiftLogit: number; readonly eShift: number };
}
/** The constants of `attention_int`, or null where logits or sums do not fit 32 bits. */
export const chooseAttention = (request: AttentionRequest): AttentionConstants | null => {
  const { scaleQ, scaleK, scaleV, logitScale, depth, keys, magnitudeQ, magnitudeK, magnitudeV, powers = null, ...output } = request;
  const logit = depth * magnitudeQ * magnitudeK;
  if (logit >= 2 ** 31 || keys * EXP_ONE >= 2 ** 32) return null;
  const factor = EXP_STEPS * logitScale * scaleQ * scaleK;
  let shiftLogit = 62;
  const multiplier = (): number => Math.floor(factor * 2 ** shiftLogit + 0.5);
  const fits = (): boolean => multiplier() < 2 ** 31 && BigInt(2 * logit) * BigInt(multiplier()) + (1n << BigInt(shiftLogit - 1)) < 1n << 63n;
  while (shiftLogit > 1 && !fits()) shiftLogit--;
  let eShift = 0;
  while (keys * (EXP_ONE >> eShift) * magnitudeV >= 2 ** 31) eShift++;
  if (eShift > 14 || !fits()) return null;
  // powers of two are made small enough at once: a shift would cut what they are made of
  const made = powers === null ? null : powerTable(powers.form, powers.bits, EXP_ONE >> eShift);
  if (made === null && powers !== null) return null;
  if (made !== null) eShift = 0;
  const one = made?.one ?? EXP_ONE >> eShift;
  const rescale = rowRescale(scaleV / output.scaleOut, one, keys * one, output);
  return rescale && { exp: made?.table ?? expTable(), attrs: { mulLogit: multiplier(), addLogit: 1n << BigInt(shiftLogit - 1), shiftLogit, eShift, ...rescale } };
};

export interface LayerNormRequest extends OutputCodes {
  /** real factors and offsets per channel */
  readonly gamma: ArrayLike<number>;
  readonly beta: ArrayLike<number>;
  readonly epsilon: number;
  readonly scaleIn: number;
  readonly channels: number;
  /** greatest difference of two input codes */
  readonly spanIn: number;
}
export interface LayerNormConstants {
  readonly mul: Int32Array;
  readonly add: BigInt64Array;
  readonly attrs: {
    readonly epsilon: bigint;
    readonly newtonSteps: number;
    readonly fraction: number;
    readonly shift: number;
    readonly low: number;
    readonly high: number;
  };
}
/** Most binary digits that the normalised value keeps. */
const MAX_FRACTION = 24;
/** The constants of `layer_norm_int`, or null where a row does not fit its widths. */
export const chooseLayerNorm = ({ gamma, beta, epsilon, scaleIn, channels, spanIn, ...output }: LayerNormRequest): LayerNormConstants | null => {
  const offset = Math.max(1, Math.floor((channels / scaleIn) ** 2 * epsilon + 0.5));
  const variance = channels ** 2 * (spanIn / 2) ** 2;
  if (channels * spanIn >= 2 ** 31 || variance + offset >= 2 ** 62) return null;
  const rootBits = (33 - Math.clz32(channels - 1)) >> 1; // √channels ≤ 2^rootBits
  const fraction = Math.min(MAX_FRACTION, 30 - rootBits);
  const reach = 2 ** (fraction + rootBits);
  const found = chooseDyadic({
    scales: Array.from(gamma, (value) => value / output.scaleOut / 2 ** fraction), offsets: Array.from(beta, (value) => value / output.scaleOut),
    least: [-reach], greatest: [reach], zero: output.zeroOut, low: output.low, high: output.high,
  });
  if (found === null || found.preShift !== 0) return null;
  return {
    mul: found.mul, add: found.add,
    attrs: { epsilon: BigInt(offset), newtonSteps: stepsFor(output), fraction, shift: found.shift, low: output.low, high: output.high },
  };
};
