/**
 * Rescaling to codes: integer multiply, add and shift, each with one rounding (half up: the rounding half is part of `add`).
 * Constants are operands: `mul` i32 and `add` i64, one entry or one for each channel (last axis of x). That no sum leaves 64 bits is
 * checked by the verifier from the intervals of x and y.
 */
import { clamp as clampCode, dyadicWords, dyadicWords2, highOf, lowOf, wordsOf } from '../../numerics/dyadic.ts';
import { defineOp, int, int64, misuse } from '../op.ts';
import { broadcastOffsets } from './elements.ts';
import {
  channelsOf, clampedType, codesOf, codeTensor, expectBroadcast, expectDType, expectPerChannel, expectShift, fixedShape, isWord, packed, shapeOf, to,
} from './kernel-checks.ts';

const limits = { low: int('least code'), high: int('greatest code'), to };

/** y = clamp(((x << preShift)·mul[c] + add[c]) >> shift, low, high) with 32 ≤ shift ≤ 62 and 0 ≤ mul < 2^31 */
export const requantize = defineOp({
  name: 'requantize',
  summary: 'an accumulator rescaled to codes by a multiply, an add and a shift',
  reads: 'codes',
  operands: { x: 'one', mul: 'one', add: 'one' },
  attrs: { shift: int('bits dropped, 32 to 62'), preShift: int('bits that x is shifted left first, for factors of a half and more', 0), ...limits },
  infer: ({ x, mul, add }, { shift, preShift, low, high, to }) => {
    expectDType('x', x, isWord, 'codes of at most 32 bits');
    expectShift('shift', shift, 32);
    if (preShift < 0 || preShift > 31) misuse(`"preShift" must lie in 0…31, not ${preShift}`);
    const shape = fixedShape('x', x);
    expectPerChannel('mul', mul, 'i32', channelsOf(shape));
    expectPerChannel('add', add, 'i64', channelsOf(shape));
    return codeTensor(clampedType(low, high, to), shape);
  },
  evaluate: ({ x, mul, add }, { shift, preShift, low, high }, type) => {
    const codes = codesOf(x);
    const channels = channelsOf(shapeOf(x));
    const muls = perChannel(codesOf(mul), channels);
    const { hi, lo } = wordsOf(perChannel(add.data as BigInt64Array, channels));
    const out = new Int32Array(codes.length);
    for (let at = 0; at < out.length; at += channels) {
      for (let c = 0; c < channels; c++) {
        out[at + c] = clampCode(dyadicWords(codes[at + c] << preShift, muls[c], hi[c], lo[c], shift), low, high);
      }
    }
    return packed(type, out);
  },
});

/** What 1 in `error` of a `requantize_words` stands for, in steps of the output, and the most that `error` may be: a 32nd of a step. */
export const WORDS_ERROR_UNIT = 2 ** -20;
export const MOST_WORDS_ERROR = 2 ** 15;

/**
 * y = clamp(((x >> drop)·mul[c] + add[c]) >> shift, low, high), all in 32 bits. It stands in for a `requantize` whose real numbers it
 * follows to within `error` before it rounds; the rounding half, and what the dropped bits take away on average, are part of `add`.
 */
export const requantizeWords = defineOp({
  name: 'requantize_words',
  summary: 'an accumulator rescaled to codes with products of 32 bits, near enough to the exact form',
  reads: 'codes',
  operands: { x: 'one', mul: 'one', add: 'one' },
  attrs: {
    drop: int('bits of x dropped first, 0 to 30', 0), shift: int('bits dropped, 1 to 31'),
    error: int('proven bound of the distance to the real numbers before rounding, where the result is not low or high: 2^-20 steps of the output'), ...limits,
  },
  infer: ({ x, mul, add }, { drop, shift, error, low, high, to }) => {
    expectDType('x', x, isWord, 'codes of at most 32 bits');
    if (shift < 1 || shift > 31) misuse(`"shift" must lie in 1…31, not ${shift}`);
    if (drop < 0 || drop > 30) misuse(`"drop" must lie in 0…30, not ${drop}`);
    if (error < 0 || error > MOST_WORDS_ERROR) misuse(`"error" must lie in 0…${MOST_WORDS_ERROR}, a 32nd of a step, not ${error}`);
    const shape = fixedShape('x', x);
    expectPerChannel('mul', mul, 'i32', channelsOf(shape));
    expectPerChannel('add', add, 'i32', channelsOf(shape));
    return codeTensor(clampedType(low, high, to), shape);
  },
  evaluate: ({ x, mul, add }, { drop, shift, low, high }, type) => {
    const codes = codesOf(x);
    const channels = channelsOf(shapeOf(x));
    const [muls, adds] = [perChannel(codesOf(mul), channels), perChannel(codesOf(add), channels)];
    return packed(type, codes.map((code, i) => clampCode((Math.imul(code >> drop, muls[i % channels]) + adds[i % channels]) >> shift, low, high)));
  },
});

/** z = clamp((x·mulX[c] + y·mulY[c] + add[c]) >> shift, low, high) with 1 ≤ shift ≤ 62 and |mul| < 2^31; y is broadcast to x */
export const requantizeAdd = defineOp({
  name: 'requantize_add',
  summary: 'two operands, each with its factor, summed and rescaled with one rounding',
  reads: 'codes',
  operands: { x: 'one', y: 'one', mulX: 'one', mulY: 'one', add: 'one' },
  attrs: { shift: int('bits dropped, 1 to 62; below 32 the shifted sum fits 32 bits'), ...limits },
  infer: ({ x, y, mulX, mulY, add }, { shift, low, high, to }) => {
    expectDType('x', x, isWord, 'codes of at most 32 bits');
    expectDType('y', y, isWord, 'codes of at most 32 bits');
    expectShift('shift', shift, 1);
    const shape = fixedShape('x', x);
    expectBroadcast(x, y);
    expectPerChannel('mulX', mulX, 'i32', channelsOf(shape));
    expectPerChannel('mulY', mulY, 'i32', channelsOf(shape));
    expectPerChannel('add', add, 'i64', channelsOf(shape));
    return codeTensor(clampedType(low, high, to), shape);
  },
  evaluate: ({ x, y, mulX, mulY, add }, { shift, low, high }, type) => {
    const shape = shapeOf(x);
    const channels = channelsOf(shape);
    const [left, right, from] = [codesOf(x), codesOf(y), broadcastOffsets(y.type.shape, shape)];
    const [mulsX, mulsY] = [perChannel(codesOf(mulX), channels), perChannel(codesOf(mulY), channels)];
    const { hi, lo } = wordsOf(perChannel(add.data as BigInt64Array, channels));
    const out = new Int32Array(left.length);
    for (let at = 0; at < out.length; at += channels) {
      for (let c = 0; c < channels; c++) {
        const sum = dyadicWords2(left[at + c], mulsX[c], right[from[at + c]], mulsY[c], hi[c], lo[c], shift);
        out[at + c] = clampCode(sum, low, high);
      }
    }
    return packed(type, out);
  },
});

/** z = clamp(((x − zeroX)·(y − zeroY)·mul + add) >> shift, low, high) with 1 ≤ shift ≤ 62 and 0 ≤ mul < 2^31; y is broadcast to x */
export const requantizeMul = defineOp({
  name: 'requantize_mul',
  summary: 'the product of two operands rescaled with one rounding',
  reads: 'codes',
  operands: { x: 'one', y: 'one' },
  attrs: {
    zeroX: int('zero point of x', 0), zeroY: int('zero point of y', 0),
    mul: int('multiplier'), add: int64('zero point of the output and rounding half'),
    shift: int('bits dropped, 1 to 62; below 32 the shifted sum fits 32 bits'), ...limits,
  },
  infer: ({ x, y }, { mul, shift, low, high, to }) => {
    expectDType('x', x, isWord, 'codes of at most 32 bits');
    expectDType('y', y, isWord, 'codes of at most 32 bits');
    expectShift('shift', shift, 1);
    if (mul < 0 || mul >= 2 ** 31) misuse(`"mul" must lie in 0…2^31−1, not ${mul}`);
    expectBroadcast(x, y);
    return codeTensor(clampedType(low, high, to), fixedShape('x', x));
  },
  evaluate: ({ x, y }, { zeroX, zeroY, mul, add, shift, low, high }, type) => {
    const [left, right, from] = [codesOf(x), codesOf(y), broadcastOffsets(y.type.shape, x.type.shape)];
    const [hi, lo] = [highOf(add), lowOf(add)];
    const out = left.map((code, i) => clampCode(dyadicWords((code - zeroX) * (right[from[i]] - zeroY), mul, hi, lo, shift), low, high));
    return packed(type, out);
  },
});

/** y = clamp(x, low, high); the codes keep their dtype and meaning */
export const clamp = defineOp({
  name: 'clamp',
  summary: 'codes limited to a range',
  reads: 'codes',
  operands: { x: 'one' },
  attrs: { low: int('least code'), high: int('greatest code') },
  infer: ({ x }, { low, high }) => {
    expectDType('x', x, isWord, 'codes of at most 32 bits');
    if (low > high) misuse(`the range [${low}, ${high}] is empty`);
    return codeTensor(x.dtype, fixedShape('x', x));
  },
  evaluate: ({ x }, { low, high }, type) => packed(type, codesOf(x).map((code) => clampCode(code, low, high))),
});

/** One entry for each channel, a single one repeated. */
const perChannel = <T extends Int32Array | BigInt64Array>(entries: T, channels: number): T =>
  (entries.length === channels ? entries : entries instanceof Int32Array
    ? new Int32Array(channels).fill(entries[0]) : new BigInt64Array(channels).fill(entries[0] as bigint)) as T;
