/** Multipliers, constants and shifts derived from real factors: legal, as exact as stated, and the same as published ones. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chooseAverage, chooseDyadic, chooseDyadicAdd, chooseDyadicMul } from '../../src/numerics/choose-dyadic.ts';
import { clamp, dyadic, dyadicWords2, highOf, lowOf } from '../../src/numerics/dyadic.ts';

const bytes = { zero: 0, low: -128, high: 127 };
const words = { zero: 0, low: -32768, high: 32767 };

/** Real result and codes of both kinds may differ by a rounding, plus the stated error. */
const expectNear = (real: number, code: number, { low, high }: { low: number; high: number }, error: number): void => {
  const clamped = Math.min(high, Math.max(low, real));
  expect(Math.abs(code - clamped)).toBeLessThanOrEqual(0.5 + error + 1e-9);
};

describe('chooseDyadic', () => {
  it('gives the 31-bit multiplier and shift of 0.0123456789', () => {
    const found = chooseDyadic({ scales: [0.0123456789], least: [-20000], greatest: [20000], ...bytes })!;
    expect([found.mul[0], found.shift, found.preShift]).toEqual([1696777188, 37, 0]);
  });

  it('keeps every multiplier below 2^31 and every sum below 2^63, within its stated error', () => {
    const channel = fc.record({
      scale: fc.double({ min: 2 ** -24, max: 0.49, noNaN: true }), least: fc.integer({ min: -(2 ** 30), max: 0 }), greatest: fc.integer({ min: 0, max: 2 ** 30 }),
      zero: fc.integer({ min: -(2 ** 20), max: 2 ** 20 }), offset: fc.double({ min: -1000, max: 1000, noNaN: true }),
    });
    const targets = fc.constantFrom(bytes, words, { zero: -128, low: -128, high: 127 });
    fc.assert(fc.property(fc.array(channel, { minLength: 1, maxLength: 4 }), targets, fc.double({ min: 0, max: 1, noNaN: true }), (channels, target, where) => {
      const column = <K extends keyof (typeof channels)[number]>(key: K): number[] => channels.map((one) => one[key]);
      const found = chooseDyadic({
        scales: column('scale'), least: column('least'), greatest: column('greatest'), zeros: column('zero'), offsets: column('offset'), ...target,
      })!;
      expect(found.shift).toBeGreaterThanOrEqual(32);
      channels.forEach(({ scale, least, greatest, zero, offset }, c) => {
        const worst = BigInt(Math.max(-least, greatest)) * BigInt(found.mul[c]);
        expect(worst + (found.add[c] < 0n ? -found.add[c] : found.add[c]) < 1n << 63n).toBe(true);
        for (const acc of [least, greatest, Math.round(least + (greatest - least) * where), clamp(zero, least, greatest)]) {
          const code = clamp(dyadic(acc * 2 ** found.preShift, found.mul[c], found.add[c], found.shift), target.low, target.high);
          expectNear(scale * (acc - zero) + offset + target.zero, code, target, found.error);
        }
      });
    }), { numRuns: 500 });
  });

  it('shifts the accumulator left for factors of a half and more, and gives up where that overflows', () => {
    const found = chooseDyadic({ scales: [3], least: [-128], greatest: [127], ...words })!;
    expect(found.preShift).toBeGreaterThan(0);
    for (let x = -128; x < 128; x++) expect(dyadic(x << found.preShift, found.mul[0], found.add[0], found.shift)).toBe(3 * x);
    expect(chooseDyadic({ scales: [3], least: [-(2 ** 30)], greatest: [2 ** 30], ...words })).toBeNull();
  });

  it('gives a dead channel the multiplier 0 and its constant', () => {
    const found = chooseDyadic({ scales: [0, 0.25], least: [-100], greatest: [100], offsets: [6.5, 0], ...bytes })!;
    expect(found.mul[0]).toBe(0);
    expect(dyadic(77, 0, found.add[0], found.shift)).toBe(7);
  });

  it('saturates constants that put the output out of range whatever the accumulator is', () => {
    const found = chooseDyadic({ scales: [0.01], least: [-1000], greatest: [1000], offsets: [1e12], ...bytes })!;
    expect(found.shift).toBeGreaterThan(32);
    for (const acc of [-1000, 0, 1000]) expect(clamp(dyadic(acc, found.mul[0], found.add[0], found.shift), -128, 127)).toBe(127);
  });
});

describe('chooseAverage', () => {
  it.each([1, 2, 3, 4, 9, 16, 25, 49, 64])('of %i bytes is exactly floor(sum/count + 1/2)', (count) => {
    const found = chooseAverage({ count, scaleIn: 0.1, zeroIn: 0, lowIn: -128, highIn: 127, scaleOut: 0.1, zeroOut: 0, low: -128, high: 127 })!;
    for (let sum = -128 * count; sum <= 127 * count; sum++) {
      const code = clamp(dyadic(sum * 2 ** found.preShift, found.mul[0], found.add[0], found.shift), -128, 127);
      if (code !== Math.floor((2 * sum + count) / (2 * count))) expect.fail(`average of ${count} with sum ${sum} gives ${code}`);
    }
  });
});

describe('chooseDyadicAdd', () => {
  it('keeps the sum of two bytes within 32 bits and rounds at most 0.06 % of pairs differently', () => {
    const [rx, ry] = [0.613, 0.497];
    const operand = { least: [-128], greatest: [127] };
    const found = chooseDyadicAdd({ x: { scales: [rx], ...operand }, y: { scales: [ry], ...operand }, ...bytes })!;
    expect(128 * found.mulX[0] + 128 * found.mulY[0] + Number(found.add[0])).toBeLessThan(2 ** 31);
    let different = 0;
    for (let x = -128; x < 128; x++) for (let y = -128; y < 128; y++) {
      const code = dyadicWords2(x, found.mulX[0], y, found.mulY[0], highOf(found.add[0]), lowOf(found.add[0]), found.shift);
      if (code !== Math.floor(rx * x + ry * y + 0.5)) different++;
    }
    expect(different / 65536).toBeLessThan(0.0006);
  });

  it('subtracts with a negative multiplier and uses 64 bits for 16-bit operands', () => {
    const operand = { least: [-32768], greatest: [32767] };
    const found = chooseDyadicAdd({ x: { scales: [0.9], ...operand }, y: { scales: [-0.7], ...operand }, ...words })!;
    expect(found.mulY[0]).toBeLessThan(0);
    expect(found.error).toBeLessThan(1e-3);
    fc.assert(fc.property(fc.integer({ min: -32768, max: 32767 }), fc.integer({ min: -32768, max: 32767 }), (x, y) => {
      const code = clamp(dyadicWords2(x, found.mulX[0], y, found.mulY[0], highOf(found.add[0]), lowOf(found.add[0]), found.shift), -32768, 32767);
      expectNear(0.9 * x - 0.7 * y, code, words, found.error);
    }));
  });
});

describe('chooseDyadicMul', () => {
  it('multiplies bytes with one rounding', () => {
    const found = chooseDyadicMul({ scale: 0.0078, least: -128 * 127, greatest: 128 * 128, zero: 3, low: -128, high: 127 })!;
    fc.assert(fc.property(fc.integer({ min: -128, max: 127 }), fc.integer({ min: -128, max: 127 }), (x, y) => {
      const code = clamp(dyadic(x * y, found.mul, found.add, found.shift), -128, 127);
      expectNear(0.0078 * x * y + 3, code, bytes, found.error);
    }));
  });
});
