/** The rescaling rule and the run-time reciprocals: exact arithmetic against BigInt, published vectors, stated errors. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { clamp, dyadic, dyadicWords2, highOf, highWord, lowOf, lowWord, mulShift, mulShiftRound } from '../../src/numerics/dyadic.ts';
import { reciprocal, reciprocalSeeds } from '../../src/numerics/reciprocal.ts';
import { rsqrt, rsqrtSeeds } from '../../src/numerics/rsqrt.ts';

const word = fc.oneof(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), fc.constantFrom(-(2 ** 31), 2 ** 31 - 1, -1, 0, 1, 65535, 65536, -65536));
const multiplier = fc.oneof(fc.integer({ min: 0, max: 2 ** 31 - 1 }), fc.constantFrom(0, 1, 2 ** 30, 2 ** 31 - 1));
const unsigned = fc.oneof(fc.integer({ min: 0, max: 2 ** 32 - 1 }), fc.constantFrom(2 ** 32 - 1, 2 ** 31, 2 ** 32));
const signed64 = fc.bigInt({ min: -(1n << 62n), max: (1n << 62n) - 1n });

describe('64-bit arithmetic on pairs of words', () => {
  it('high and low word of a product equal BigInt', () => {
    fc.assert(fc.property(word, multiplier, (a, b) => {
      expect((BigInt(highWord(a, b)) << 32n) + BigInt(lowWord(a, b))).toBe(BigInt(a) * BigInt(b));
    }), { numRuns: 20000 });
  });

  it('holds for unsigned words below 2^63 too', () => {
    fc.assert(fc.property(unsigned, multiplier, (a, b) => {
      expect((BigInt(highWord(a, b)) << 32n) + BigInt(lowWord(a, b))).toBe(BigInt(a) * BigInt(b));
    }), { numRuns: 20000 });
  });

  it('dyadic equals (acc·M + C) >> s', () => {
    fc.assert(fc.property(word, multiplier, signed64, fc.integer({ min: 32, max: 62 }), (acc, mul, add, shift) => {
      expect(BigInt(dyadic(acc, mul, add, shift))).toBe((BigInt(acc) * BigInt(mul) + add) >> BigInt(shift));
    }), { numRuns: 20000 });
  });

  it('dyadic is exact below shift 32 where the result fits 53 bits', () => {
    fc.assert(fc.property(word, multiplier, signed64, fc.integer({ min: 11, max: 31 }), (acc, mul, add, shift) => {
      expect(BigInt(dyadic(acc, mul, add, shift))).toBe((BigInt(acc) * BigInt(mul) + add) >> BigInt(shift));
    }), { numRuns: 20000 });
  });

  it('the two-operand form equals (x·Mx + y·My + C) >> s, multipliers of either sign', () => {
    const small = fc.integer({ min: -(2 ** 30), max: 2 ** 30 });
    fc.assert(fc.property(word, small, word, small, fc.bigInt({ min: -(1n << 61n), max: 1n << 61n }), fc.integer({ min: 32, max: 62 }), (x, a, y, b, add, shift) => {
      expect(BigInt(dyadicWords2(x, a, y, b, highOf(add), lowOf(add), shift))).toBe((BigInt(x) * BigInt(a) + BigInt(y) * BigInt(b) + add) >> BigInt(shift));
    }), { numRuns: 20000 });
  });

  it('mulShift and mulShiftRound floor and round half up', () => {
    fc.assert(fc.property(word, multiplier, fc.integer({ min: 11, max: 62 }), (a, b, shift) => {
      const [product, s] = [BigInt(a) * BigInt(b), BigInt(shift)];
      expect(BigInt(mulShift(a, b, shift))).toBe(product >> s);
      expect(BigInt(mulShiftRound(a, b, shift))).toBe((product + (1n << (s - 1n))) >> s);
    }), { numRuns: 20000 });
  });
});

describe('published vectors', () => {
  it('r = 0.0123456789, zero point -3, bias 1234.56 accumulator units, s = 32', () => {
    const codes = [-12000, -9999, -1, 0, 1, 5000, 9337, 20000].map((acc) => clamp(dyadic(acc, 53024287, 54724245670n, 32), -128, 127));
    expect(codes).toEqual([-128, -111, 12, 12, 12, 74, 127, 127]);
  });

  it('the reciprocal of 123456', () => {
    const { y, lz } = reciprocal(123456, 1);
    expect([y, lz]).toEqual([1139980630, 15]);
    expect(y * 2 ** -47).toBeCloseTo(8.1000496e-6, 13);
  });

  it.each([
    [2, 1518491482, 1518500250, 1], [100, 1717970892, 1717986918, 4], [123456789, 1583294246, 1583296752, 14],
  ])('the reciprocal root of %i', (d, once, twice, k) => {
    expect(rsqrt(BigInt(d), 1)).toEqual({ y: once, k });
    expect(rsqrt(BigInt(d), 2)).toEqual({ y: twice, k });
  });

  it('seeds have 256 and 192 entries in (2^30, 2^31)', () => {
    expect([reciprocalSeeds.length, rsqrtSeeds.length]).toEqual([256, 192]);
    for (const seed of [...reciprocalSeeds, ...rsqrtSeeds]) expect(seed > 2 ** 30 && seed < 2 ** 31).toBe(true);
  });
});

describe('stated errors', () => {
  const sums = fc.oneof(fc.integer({ min: 1, max: 2 ** 32 - 1 }), fc.integer({ min: 1, max: 1000 }), fc.constantFrom(1, 2, 3, 2 ** 31, 2 ** 32 - 1));

  it.each([[0, 2 ** -8.9], [1, 2 ** -17.9], [2, 2 ** -29.9]])('the reciprocal after %i Newton steps', (steps, limit) => {
    fc.assert(fc.property(sums, (sum) => {
      const { y, lz } = reciprocal(sum, steps);
      expect(y).toBeLessThanOrEqual(2 ** 31);
      expect(Math.abs(y * 2 ** (lz - 62) * sum - 1)).toBeLessThan(limit);
    }), { numRuns: 5000 });
  });

  it.each([[0, 2 ** -7.9], [1, 2 ** -15.3], [2, 2 ** -29.8]])('the reciprocal root after %i Newton steps', (steps, limit) => {
    fc.assert(fc.property(fc.oneof(fc.bigInt({ min: 1n, max: (1n << 63n) - 1n }), fc.bigInt({ min: 1n, max: 5000n })), (d) => {
      const { y, k } = rsqrt(d, steps);
      expect(y).toBeLessThanOrEqual(2 ** 31);
      expect(Math.abs(y * 2 ** (-30 - k) * Math.sqrt(Number(d)) - 1)).toBeLessThan(limit);
    }), { numRuns: 5000 });
  });
});
