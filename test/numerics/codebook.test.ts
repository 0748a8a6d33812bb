/** Codebooks: as many levels as the bits allow, near the best for normal values, and nothing that differs between machines. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { codebookFor, GREATEST_LEVEL, type WeightedValues } from '../../src/numerics/codebook.ts';
import { createRandom } from '../../src/numerics/random.ts';

const plain = (values: Float64Array): WeightedValues => ({ values, importances: new Float64Array(values.length).fill(1) });
const normal = (count: number, seed: number): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length: count }, () => random.normal());
};
const errorOf = (values: Float64Array, levels: readonly number[]): number =>
  values.reduce((sum, x) => sum + Math.min(...levels.map((level) => (x - level) ** 2)), 0) / values.length;

describe('codebooks', () => {
  it.each([[2, 9.3], [3, 14.62], [4, 20.22]])('%d bits reach the best SQNR of normal values, %d dB (Max 1960), within 0.5 dB', (bits, best) => {
    const values = normal(20000, bits);
    const { levels, unit } = codebookFor([plain(values)], bits);
    const decibels = -10 * Math.log10(errorOf(values, Array.from(levels, (level) => level * unit)));
    // one level is 0, and values beyond the last are few
    expect(decibels).toBeGreaterThan(best - (bits === 2 ? 0.9 : 0.5));
    expect(levels.length).toBe(2 ** bits);
  });

  it('levels ascend, one is 0, the largest has 7 bits', () => {
    fc.assert(fc.property(fc.array(fc.double({ min: -1e3, max: 1e3, noNaN: true }), { minLength: 1, maxLength: 200 }), fc.constantFrom(2, 3, 4), (list, bits) => {
      const { levels, unit } = codebookFor([plain(Float64Array.from(list))], bits);
      expect(levels).toContain(0);
      expect(levels.length).toBeLessThanOrEqual(2 ** bits);
      levels.forEach((level, i) => { if (i > 0) expect(level).toBeGreaterThan(levels[i - 1]); });
      if (levels.length > 1) expect(Math.max(...levels.map(Math.abs))).toBe(GREATEST_LEVEL);
      expect(unit).toBeGreaterThan(0);
    }), { numRuns: 100 });
  });

  it('few values get levels of their own', () => {
    const { levels, unit } = codebookFor([plain(Float64Array.of(-0.8, -0.3, 0, 0.5, 0.5, 1))], 4);
    for (const value of [-0.8, -0.3, 0, 0.5, 1]) expect(Math.min(...Array.from(levels, (level) => Math.abs(level * unit - value)))).toBeLessThan(0.01);
  });

  it('values that count more are met more closely', () => {
    const values = normal(4000, 9);
    const important = values.map((x) => (x > 0 ? 100 : 1));
    const { levels, unit } = codebookFor([{ values, importances: important }], 3);
    const real = Array.from(levels, (level) => level * unit);
    expect(errorOf(values.filter((x) => x > 0), real)).toBeLessThan(0.5 * errorOf(values.filter((x) => x < 0), real));
  });

  it('zeros alone need one level', () => {
    expect(Array.from(codebookFor([plain(new Float64Array(5))], 4).levels)).toEqual([0]);
  });
});
