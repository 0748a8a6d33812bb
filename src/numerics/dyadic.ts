/**
 * The one rescaling rule: clamp((acc·M + C) >> s, low, high), with a 64-bit product and sum, floor shift, one rounding, half up
 * (C holds the rounding half). Here is its exact arithmetic on doubles and 32-bit integers: a 64-bit integer is a pair (hi, lo),
 * hi signed and lo in [0, 2^32), so that no inner loop touches BigInt.
 */

const TWO32 = 4294967296;

/**
 * High word of the 64-bit product a·b of integers, for |a|, |b| ≤ 2^32 and |a·b| < 2^63. The double product is off by at most 2^10
 * while the low word, taken apart exactly, makes the difference a multiple of 2^32: rounding the quotient is exact.
 */
export const highWord = (a: number, b: number): number => Math.floor((a * b - lowWord(a, b)) / TWO32 + 0.5);
/** Low word of the 64-bit product a·b, in [0, 2^32). */
export const lowWord = (a: number, b: number): number => Math.imul(a, b) >>> 0;

const powersOfTwo = Float64Array.from({ length: 33 }, (_, n) => 2 ** n);

/** (hi·2^32 + lo) >> shift for 0 ≤ shift ≤ 62, of a sum that fits 64 bits; exact where the result is below 2^53. lo may hold a carry. */
export const shiftWords = (hi: number, lo: number, shift: number): number => {
  const carry = Math.floor(lo / TWO32);
  return shift >= 32
    ? (hi + carry) >> (shift - 32)
    : (hi + carry) * powersOfTwo[32 - shift] + ((lo - carry * TWO32) >>> shift);
};

/** (a·b + 2^(shift−1)) >> shift for shift ≥ 1: the product rounded half up. Ranges as for `highWord`. */
export const mulShiftRound = (a: number, b: number, shift: number): number =>
  shift > 32 ? shiftWords(highWord(a, b) + powersOfTwo[shift - 33], lowWord(a, b), shift)
    : shiftWords(highWord(a, b), lowWord(a, b) + powersOfTwo[shift - 1], shift);
/** (a·b) >> shift. Ranges as for `highWord`. */
export const mulShift = (a: number, b: number, shift: number): number => shiftWords(highWord(a, b), lowWord(a, b), shift);

export const highOf = (value: bigint): number => Number(value >> 32n);
export const lowOf = (value: bigint): number => Number(value & 0xffffffffn);
/** 64-bit constants as words: `hi` signed, `lo` in [0, 2^32). */
export interface Words {
  readonly hi: Int32Array;
  readonly lo: Uint32Array;
}
export const wordsOf = (values: BigInt64Array): Words =>
  ({ hi: Int32Array.from(values, highOf), lo: Uint32Array.from(values, lowOf) });

export const clamp = (value: number, low: number, high: number): number => (value < low ? low : value > high ? high : value);

/** (acc·mul + add) >> shift; acc and mul are 32-bit integers, the sum fits 64 bits, 1 ≤ shift ≤ 62, and the result is below 2^53. */
export const dyadic = (acc: number, mul: number, add: bigint, shift: number): number => dyadicWords(acc, mul, highOf(add), lowOf(add), shift);

/** `dyadic` with the constant taken apart. */
export const dyadicWords = (acc: number, mul: number, addHi: number, addLo: number, shift: number): number =>
  shiftWords(highWord(acc, mul) + addHi, lowWord(acc, mul) + addLo, shift);

/** (x·mulX + y·mulY + add) >> shift: two operands, one rounding. */
export const dyadicWords2 = (x: number, mulX: number, y: number, mulY: number, addHi: number, addLo: number, shift: number): number =>
  shiftWords(highWord(x, mulX) + highWord(y, mulY) + addHi, lowWord(x, mulX) + lowWord(y, mulY) + addLo, shift);
