/** Differences that saturation hides are none. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { perChannel, perTensor } from '../../../src/ir/quant.ts';
import { limitsOf, missing, unlimited } from '../../../src/passes/reconstruction/limits.ts';

const relu6 = { low: 0, high: 6 };

describe('what is missing', () => {
  it.each([
    ['within both limits', 2, 1.5, 0.5],
    ['both below', -3, -1, 0],
    ['both above', 9, 7, 0],
    ['the result is to come down to the lower limit', -3, 0.5, -0.5],
    ['the result is to come up from below', 1, -2, 3],
    ['the result is to reach the upper limit', 9, 5, 1],
    ['opposite limits', 9, -2, 8],
  ])('%s', (_, goal, found, expected) => expect(missing(goal, found, relu6)).toBe(expected));

  it('another operand moves the limits', () => {
    expect(missing(-3, -1, relu6, 2)).toBe(-1);
    expect(missing(-3, -2.5, relu6, 2)).toBe(0);
  });

  it('is the difference without limits', () => {
    fc.assert(fc.property(fc.float({ noNaN: true, noDefaultInfinity: true }), fc.float({ noNaN: true, noDefaultInfinity: true }), (goal, found) =>
      missing(goal, found, unlimited) === goal - found));
  });

  it('is none only where nothing can be told apart, and leads to what cannot be told from the goal', () => {
    const number = fc.double({ min: -20, max: 20, noNaN: true });
    const clamp = (x: number): number => Math.min(6, Math.max(0, x));
    fc.assert(fc.property(number, number, (goal, found) => {
      expect(clamp(found + missing(goal, found, relu6))).toBeCloseTo(clamp(goal), 9);
      if (missing(goal, found, relu6) === 0) expect(clamp(found)).toBe(clamp(goal));
    }));
  });
});

it('limits are the ends of the codes', () => {
  expect(limitsOf(perTensor('i8', 0.5, -8, [-8, 7]))).toEqual({ low: 0, high: 7.5 });
  expect(limitsOf(perChannel([1, 2], 0, [-8, 7]))).toBe(unlimited);
});
