/** Local search on rounded rows: it never loses, its loss is the form of the error, and no single move is left that would help. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { quadraticForm } from '../../src/numerics/quadratic-form.ts';
import { createRandom } from '../../src/numerics/random.ts';
import { refineRow } from '../../src/numerics/refine-row.ts';

const rowOf = (n: number, seed: number): { readonly gram: Float64Array; readonly w: Float64Array } => {
  const random = createRandom(seed);
  const rows = Array.from({ length: 2 * n }, () => { const common = random.normal(); return Array.from({ length: n }, () => common + random.normal()); });
  const gram = Float64Array.from({ length: n * n }, (_, at) => rows.reduce((sum, row) => sum + row[Math.floor(at / n)] * row[at % n], 0));
  return { gram, w: Float64Array.from({ length: n }, () => random.normal()) };
};
const formOf = (d: Float64Array, gram: Float64Array, damping: number): number =>
  d.reduce((sum, x, i) => sum + damping * x * x + d.reduce((inner, y, j) => inner + x * y * gram[i * d.length + j], 0), 0);
/** −most … most */
const evenly = (most: number): Int8Array => Int8Array.from({ length: 2 * most + 1 }, (_, i) => i - most);
const errorOf = (w: Float64Array, codes: Int8Array, step: number): Float64Array => w.map((x, i) => x - step * codes[i]);

describe('refinement of a row', () => {
  it('lowers the loss, which stays the form of the error', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 30 }), fc.nat(1000), fc.constantFrom(evenly(1), evenly(3), evenly(7), Int8Array.of(-60, -21, 0, 18, 63), Int8Array.of(-9, 0, 4)), (n, seed, levels) => {
      const { gram, w } = rowOf(n, seed);
      const form = quadraticForm(gram, n, 0.01);
      const plane = form.roundRow(w, [2 / Math.max(...levels)], levels);
      const refined = refineRow(gram, form.damping, w, plane, levels);
      expect(refined.loss).toBeLessThanOrEqual(plane.loss * (1 + 1e-12));
      expect(refined.codes.every((code) => levels.includes(code))).toBe(true);
      const lost = formOf(errorOf(w, refined.codes, refined.step), gram, form.damping);
      expect(Math.abs(refined.loss - lost)).toBeLessThanOrEqual(1e-9 * formOf(w, gram, form.damping));
    }), { numRuns: 60 });
  });

  it('leaves no flip and no step that would help', () => {
    const { gram, w } = rowOf(12, 3);
    const form = quadraticForm(gram, 12, 0.01);
    const { codes, step, loss } = refineRow(gram, form.damping, w, { codes: new Int8Array(12), step: 0.4, loss: formOf(w, gram, form.damping) }, evenly(7));
    for (let j = 0; j < 12; j++) for (const change of [-1, 1]) {
      const other = codes.map((code, i) => code + (i === j ? change : 0));
      if (Math.abs(other[j]) <= 7) expect(formOf(errorOf(w, other, step), gram, form.damping)).toBeGreaterThanOrEqual(loss * (1 - 1e-6));
    }
    for (const s of [step * 0.99, step * 1.01]) expect(formOf(errorOf(w, codes, s), gram, form.damping)).toBeGreaterThanOrEqual(loss * (1 - 1e-6));
  });

  it('leaves no flip between neighbours of a codebook that would help', () => {
    const { gram, w } = rowOf(10, 8);
    const levels = Int8Array.of(-40, -11, 0, 13, 25, 63);
    const { codes, step, loss } = refineRow(gram, 0.1, w, { codes: new Int8Array(10), step: 0.04, loss: formOf(w, gram, 0.1) }, levels);
    expect(new Set(codes).size).toBeGreaterThan(3);
    codes.forEach((code, j) => {
      for (const near of [-1, 1]) {
        const level = levels[levels.indexOf(code) + near];
        if (level !== undefined) expect(formOf(errorOf(w, codes.with(j, level), step), gram, 0.1)).toBeGreaterThanOrEqual(loss * (1 - 1e-6));
      }
    });
  });

  // what descent over the rounding of each weight (Nagel et al. 2020, AdaRound) could find at most at this step: all 2^n ways to round up or down
  it.each([1, 3, 7])('comes near the best of all ways to round up or down, codes to ±%i', (most) => {
    const shares = Array.from({ length: 40 }, (_, seed) => {
      const { gram, w } = rowOf(10, seed);
      const form = quadraticForm(gram, 10, 0.01);
      const largest = w.reduce((found, x) => Math.max(found, Math.abs(x)), 0);
      const steps = Array.from({ length: 16 }, (_unused, i) => (largest / most) * (0.4 + 0.04 * i));
      const { step, loss } = refineRow(gram, form.damping, w, form.roundRow(w, steps, evenly(most)), evenly(most));
      const lossOf = (up: (j: number) => number): number =>
        formOf(w.map((x, j) => x - step * Math.max(-most, Math.min(most, Math.floor(x / step) + up(j)))), gram, form.damping);
      const best = Math.min(...Array.from({ length: 2 ** 10 }, (_unused, mask) => lossOf((j) => (mask >> j) & 1)));
      return { own: loss / best, nearest: lossOf((j) => Math.round(w[j] / step) - Math.floor(w[j] / step)) / best };
    });
    const mean = (of: (share: (typeof shares)[number]) => number): number => shares.reduce((sum, one) => sum + of(one), 0) / shares.length;
    expect(mean(({ own }) => own)).toBeLessThan(1.08);
    expect(shares.filter(({ own }) => own < 1 + 1e-6).length).toBeGreaterThan(25);
    expect(mean(({ nearest }) => nearest)).toBeGreaterThan(1.5);
  });

  it('one input: the step is w/q', () => {
    const refined = refineRow(Float64Array.of(4), 0, Float64Array.of(0.7), { codes: Int8Array.of(2), step: 0.4, loss: 4 * 0.1 ** 2 }, evenly(7));
    expect(refined.codes[0] * refined.step).toBeCloseTo(0.7, 6);
  });

  it('the step of least squares for fixed codes: Σqw/Σq²', () => {
    const refined = refineRow(Float64Array.from({ length: 25 }, (_, at) => Number(at % 6 === 0)), 0,
      Float64Array.of(0.1, -0.52, 0.33, 0.9, -0.71), { codes: Int8Array.of(1, -4, 3, 7, -6), step: 0.9 / 7, loss: 0.007727 }, evenly(7));
    expect(Array.from(refined.codes)).toEqual([1, -4, 3, 7, -6]);
    expect(refined.step).toBeCloseTo(0.123694, 6);
    expect(refined.loss).toBeCloseTo(0.005086, 6);
  });
});
