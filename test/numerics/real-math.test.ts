import { describe, expect, it } from 'vitest';
import { erf, exp, expm1, log, log1p, pow, sigmoid, tanh } from '../../src/numerics/real-math.ts';
import { createRandom } from '../../src/numerics/random.ts';

/** Distance in units in the last place of the expected double. */
const ulps = (actual: number, expected: number): number => {
  if (Object.is(actual, expected) || (Number.isNaN(actual) && Number.isNaN(expected))) return 0;
  const unit = Math.max(2 ** -1074, 2 ** (Math.floor(Math.log2(Math.abs(expected))) - 52));
  return Math.abs(actual - expected) / unit;
};
const worst = (own: (x: number) => number, other: (x: number) => number, xs: readonly number[]): number =>
  Math.max(...xs.map((x) => ulps(own(x), other(x))));

const random = createRandom(1);
const spread = (low: number, high: number, count = 20000): readonly number[] =>
  Array.from({ length: count }, () => low + (high - low) * random.uniform());
const magnitudes = (low: number, high: number, count = 20000): readonly number[] =>
  Array.from({ length: count }, () => 2 ** (low + (high - low) * random.uniform()));

describe('agrees with the engine within the stated error', () => {
  it('exp', () => {
    expect(worst(exp, Math.exp, [...spread(-2, 2), ...spread(-700, 700)])).toBeLessThanOrEqual(1);
    expect(worst(exp, Math.exp, spread(-745, -708, 2000))).toBeLessThanOrEqual(1);
  });
  it('expm1', () => expect(worst(expm1, Math.expm1, [...spread(-2, 2), ...spread(-40, 709), ...magnitudes(-60, -1)])).toBeLessThanOrEqual(2));
  it('log', () => expect(worst(log, Math.log, [...spread(0.4, 3), ...magnitudes(-1070, 1023)])).toBeLessThanOrEqual(1));
  it('log1p', () => expect(worst(log1p, Math.log1p, [...spread(-0.99, 3), ...magnitudes(-60, 60)])).toBeLessThanOrEqual(2));
  it('tanh', () => expect(worst(tanh, Math.tanh, [...spread(-3, 3), ...spread(-25, 25), ...magnitudes(-60, 0)])).toBeLessThanOrEqual(3));
  it('pow', () => {
    const pairs = spread(-8, 8).map((y) => [2 ** (16 * random.uniform() - 8), y] as const);
    expect(Math.max(...pairs.map(([x, y]) => ulps(pow(x, y), Math.pow(x, y))))).toBeLessThanOrEqual(1);
  });
});

// values to 20 digits from an arbitrary-precision library
describe('known values', () => {
  it.each([
    [1e-300, 1.1283791670955126e-300], [1e-5, 1.1283791670579e-5], [0.1, 0.1124629160182848922], [0.125, 0.14031620480133381739],
    [0.3, 0.32862675945912742764], [0.5, 0.52049987781304653768], [1, 0.84270079294971486934], [1.5, 0.96610514647531072707],
    [2, 0.99532226501895273416], [3, 0.99997790950300141456], [4.2, 0.99999999714450583384], [5.9, 0.99999999999999992847], [7, 1],
  ])('erf(%d)', (x, expected) => {
    expect(ulps(erf(x), expected)).toBeLessThanOrEqual(1);
    expect(erf(-x)).toBe(-erf(x));
  });
  it('sigmoid', () => {
    expect(sigmoid(0)).toBe(0.5);
    expect(ulps(sigmoid(-700), 9.8596765437597708567e-305)).toBeLessThanOrEqual(2);
    expect(ulps(sigmoid(1), 0.7310585786300048793)).toBeLessThanOrEqual(2);
  });
  it('pow of whole numbers', () => {
    for (let x = 1; x < 60; x++) for (let y = 0; y < 9; y++) expect(pow(x, y)).toBe(Number(BigInt(x) ** BigInt(y)));
  });
  it('pow with a large exponent', () => expect(ulps(pow(1 + 2 ** -40, 2 ** 43), 2980.9579870308836)).toBeLessThanOrEqual(1));
});

it('special values are those of Math', () => {
  const special = [0, -0, 1, -1, 0.5, -0.5, 2, -2, 3, -3, 1e300, -1e300, 1e-300, 1e308, -1e308, 5e-324, 1e16 + 2, Infinity, -Infinity, NaN];
  for (const x of special) {
    expect([x, ulps(exp(x), Math.exp(x)) <= 1]).toEqual([x, true]);
    expect([x, ulps(expm1(x), Math.expm1(x)) <= 1]).toEqual([x, true]);
    expect([x, ulps(log(x), Math.log(x)) <= 1]).toEqual([x, true]);
    expect([x, ulps(log1p(x), Math.log1p(x)) <= 1]).toEqual([x, true]);
    expect([x, ulps(tanh(x), Math.tanh(x)) <= 2]).toEqual([x, true]);
    for (const y of special) expect([x, y, ulps(pow(x, y), Math.pow(x, y)) <= 2]).toEqual([x, y, true]);
  }
});
