/** A rescale in 32-bit words: inside 32 bits for every x of the interval, and as near to the long form as it states. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chooseDyadic } from '../../src/numerics/choose-dyadic.ts';
import { chooseWords } from '../../src/numerics/choose-words.ts';
import { clamp } from '../../src/numerics/dyadic.ts';

const LIMIT = 2 ** 31;
const channel = fc.record({
  scale: fc.double({ min: 2 ** -18, max: 4, noNaN: true }), span: fc.integer({ min: 1, max: 2 ** 22 }), left: fc.double({ min: 0, max: 1, noNaN: true }), offset: fc.double({ min: -300, max: 300, noNaN: true }),
});
const targets = fc.constantFrom({ zero: 0, low: -128, high: 127 }, { zero: -128, low: -128, high: 127 }, { zero: 3, low: 0, high: 15 }, { zero: 0, low: 0, high: 255 });

describe('chooseWords', () => {
  it('stays inside 32 bits for every x, and within its stated error wherever the result is not at an end of its range', () => {
    let chosen = 0;
    fc.assert(fc.property(fc.array(channel, { minLength: 1, maxLength: 3 }), targets, fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 20, maxLength: 20 }), (channels, target, places) => {
      const least = channels.map(({ span, left }) => -Math.floor(span * left));
      const greatest = channels.map(({ span }, c) => span + least[c]);
      const scales = channels.map(({ scale }) => scale);
      const offsets = channels.map(({ offset }) => offset);
      const long = chooseDyadic({ scales, offsets, least, greatest, ...target });
      if (long === null) return;
      const words = chooseWords({ ...long, ...target, least, greatest }, 1 / 32);
      if (words === null) return;
      chosen++;
      expect(words.error).toBeLessThanOrEqual(1 / 32);
      channels.forEach((_, c) => {
        const [mul, add] = [words.mul[c], words.add[c]];
        // the ends, the places where clamping begins, and anywhere else
        const edges = [target.low, target.high + 1].flatMap((y) => [-2, -1, 0, 1, 2].map((d) => Math.round((y - 0.5 - target.zero - offsets[c]) / scales[c]) + d));
        for (const x of [least[c], greatest[c], ...edges, ...places.map((at) => least[c] + Math.floor(at * (greatest[c] - least[c])))]) {
          if (x < least[c] || x > greatest[c]) continue;
          const product = (x >> words.drop) * mul;
          const sum = product + add;
          for (const value of [mul, add, product, sum]) expect(value >= -LIMIT && value < LIMIT).toBe(true);
          const real = scales[c] * x + offsets[c] + target.zero + 0.5;
          const value = sum / 2 ** words.shift;
          if (real >= target.low + 1 && real < target.high) expect(Math.abs(value - real)).toBeLessThanOrEqual(words.error + 2 ** -30);
          else if (real < target.high) expect(value).toBeLessThan(target.low + 1 + words.error);
          else expect(value).toBeGreaterThanOrEqual(target.high - words.error);
        }
      });
    }), { numRuns: 400 });
    expect(chosen).toBeGreaterThan(100);
  });

  it('equals the rounded real number for every x of a small interval where no factor is near a tie', () => {
    const target = { zero: 0, low: -128, high: 127 };
    const range = { least: [-4000], greatest: [4000] };
    const words = chooseWords({ ...chooseDyadic({ scales: [0.0313], offsets: [0.2], ...range, ...target })!, ...target, ...range }, 1 / 32)!;
    expect(words.drop).toBe(0);
    for (let x = -4000; x <= 4000; x++) {
      const real = 0.0313 * x + 0.2;
      const code = ((x >> words.drop) * words.mul[0] + words.add[0]) >> words.shift;
      if (Math.abs(real + 0.5 - Math.round(real + 0.5)) > words.error) expect(clamp(code, -128, 127)).toBe(clamp(Math.floor(real + 0.5), -128, 127));
    }
  });

  it('gives up where the interval reaches too far beyond the codes', () => {
    const range = { least: [-(2 ** 24)], greatest: [2 ** 24] };
    const target = { zero: 0, low: -128, high: 127 };
    const long = chooseDyadic({ scales: [0.1], ...range, ...target })!;
    expect(chooseWords({ ...long, ...target, ...range }, 1 / 32)).toBeNull();
  });
});
