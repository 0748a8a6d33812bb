import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { leastSquares } from '../../src/numerics/linalg.ts';
import { quadraticForm } from '../../src/numerics/quadratic-form.ts';
import { createRandom } from '../../src/numerics/random.ts';

/** A positive definite matrix whose columns go together, as those of real inputs do. */
const gramOf = (n: number, seed: number): Float64Array => {
  const random = createRandom(seed);
  const rows = Array.from({ length: 3 * n }, () => {
    const common = random.normal();
    return Float64Array.from({ length: n }, (_, i) => (common + random.normal()) * (1 + (i % 5)));
  });
  return Float64Array.from({ length: n * n }, (_, at) => rows.reduce((sum, row) => sum + row[Math.floor(at / n)] * row[at % n], 0));
};
const weights = (n: number, seed: number): Float64Array => {
  const random = createRandom(seed, 1);
  return Float64Array.from({ length: n }, () => random.normal());
};
/** d·(gram + λ·I)·dᵀ */
const formOf = (d: Float64Array, gram: Float64Array, damping: number): number =>
  d.reduce((sum, x, i) => sum + damping * x * x + d.reduce((inner, y, j) => inner + x * y * gram[i * d.length + j], 0), 0);
const errorOf = (w: Float64Array, codes: ArrayLike<number>, step: number): Float64Array => w.map((x, i) => x - step * codes[i]);
const nearest = (w: Float64Array, step: number, most: number): number[] => Array.from(w, (x) => Math.min(most, Math.max(-most, Math.floor(x / step + 0.5))));
/** −most … most */
const evenly = (most: number): Int8Array => Int8Array.from({ length: 2 * most + 1 }, (_, i) => i - most);
const meanDiagonal = (gram: Float64Array, n: number): number => Array.from({ length: n }, (_, i) => gram[i * n + i]).reduce((sum, x) => sum + x / n, 0);

describe('rounding', () => {
  // W [2, 3] and H of the published GPTQ code, λ = 0.015
  const gram = Float64Array.of(2, 1.2, 0.4, 1.2, 1.5, 0.6, 0.4, 0.6, 1);
  const form = quadraticForm(gram, 3, 0.01);
  it.each([
    [[0.62, -1.38, 0.41], [1, -2, 1], 0.401614],
    [[1.49, 0.26, -0.55], [1, 1, -1], 0.425513],
  ])('%j becomes %j', (w, codes, loss) => {
    const found = form.roundRow(Float64Array.from(w), [1], evenly(127));
    expect(Array.from(found.codes)).toEqual(codes);
    expect(found.loss).toBeCloseTo(loss, 6);
    expect(form.damping).toBeCloseTo(0.015, 12);
  });

  it('the loss is the form of the error', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 40 }), fc.nat(1000), fc.constantFrom(1, 3, 7, 127), (n, seed, most) => {
      const matrix = gramOf(n, seed);
      const w = weights(n, seed);
      const { codes, step, loss } = quadraticForm(matrix, n, 0.01).roundRow(w, [2.5 / most], evenly(most));
      expect(codes.every((code) => Math.abs(code) <= most)).toBe(true);
      expect(loss / formOf(errorOf(w, codes, step), matrix, 0.01 * meanDiagonal(matrix, n))).toBeCloseTo(1, 8);
    }), { numRuns: 60 });
  });

  it('loses less than rounding each weight to the nearest code', () => {
    let [ours, theirs] = [0, 0];
    for (let seed = 0; seed < 40; seed++) {
      const n = 8 + seed;
      const matrix = gramOf(n, seed);
      const w = weights(n, seed);
      const { codes, step } = quadraticForm(matrix, n, 0.01).roundRow(w, [0.4], evenly(7));
      ours += formOf(errorOf(w, codes, step), matrix, 0);
      theirs += formOf(errorOf(w, nearest(w, 0.4, 7), 0.4), matrix, 0);
    }
    expect(ours).toBeLessThan(0.5 * theirs);
  });

  it('takes the step of least loss', () => {
    const n = 24;
    const one = quadraticForm(gramOf(n, 5), n, 0.01);
    const w = weights(n, 5);
    const steps = Array.from({ length: 19 }, (_, i) => 0.2 + 0.02 * i);
    const single = steps.map((step) => one.roundRow(w, [step], evenly(7)));
    const least = single.reduce((best, found) => (found.loss < best.loss ? found : best));
    expect(one.roundRow(w, steps, evenly(7))).toEqual(least);
  });

  it('onto a codebook: columns that vary alone take the nearest level, the upper one of two as near only beyond the middle', () => {
    const n = 9;
    const diagonal = Float64Array.from({ length: n * n }, (_, at) => (at % (n + 1) === 0 ? 1 + at : 0));
    const levels = Int8Array.of(-50, -20, -3, 0, 8, 63);
    const w = Float64Array.of(-7, -3.6, -3.4, -0.2, 0, 0.4, 0.41, 3.54, 3.56);
    expect(Array.from(quadraticForm(diagonal, n, 0.01).roundRow(w, [0.1], levels).codes)).toEqual([-50, -50, -20, -3, 0, 0, 8, 8, 63]);
  });

  it('onto a codebook: the loss is the form of the error, and less than that of nearest levels', () => {
    let [ours, theirs] = [0, 0];
    const levels = Int8Array.of(-63, -44, -30, -19, -10, -4, 0, 3, 9, 17, 28, 41, 57);
    for (let seed = 0; seed < 30; seed++) {
      const n = 5 + seed;
      const matrix = gramOf(n, seed);
      const w = weights(n, seed);
      const { codes, step, loss } = quadraticForm(matrix, n, 0.01).roundRow(w, [0.04, 0.05], levels);
      expect(codes.every((code) => levels.includes(code))).toBe(true);
      expect(loss / formOf(errorOf(w, codes, step), matrix, 0.01 * meanDiagonal(matrix, n))).toBeCloseTo(1, 8);
      ours += formOf(errorOf(w, codes, step), matrix, 0);
      theirs += formOf(errorOf(w, w.map((x) => levels.reduce((best, level) => (Math.abs(level * step - x) < Math.abs(best * step - x) ? level : best))), step), matrix, 0);
    }
    expect(ours).toBeLessThan(0.6 * theirs);
  });

  it('columns that vary alone are rounded to the nearest code', () => {
    const n = 9;
    const diagonal = Float64Array.from({ length: n * n }, (_, at) => (at % (n + 1) === 0 ? 1 + at : 0));
    const w = weights(n, 3);
    expect(Array.from(quadraticForm(diagonal, n, 0.01).roundRow(w, [0.3], evenly(7)).codes)).toEqual(nearest(w, 0.3, 7));
  });
});

describe('solving', () => {
  it.each([1, 2, 7, 30])('agrees with least squares for %d columns', (n) => {
    const gram = gramOf(n, n);
    const cross = Float64Array.from({ length: 11 * n }, (_, i) => weights(11 * n, n)[i] * n);
    const [ours, theirs] = [quadraticForm(gram, n, 0.02).solve(cross), leastSquares(gram, cross, n, 0.02)];
    ours.forEach((x, i) => expect(x).toBeCloseTo(theirs[i], 9));
  });
  it('two forms may be used in turn', () => {
    const [a, b] = [quadraticForm(gramOf(6, 1), 6, 0.01), quadraticForm(gramOf(9, 2), 9, 0.01)];
    const before = a.solve(weights(6, 4));
    b.solve(weights(9, 4));
    expect(a.solve(weights(6, 4))).toEqual(before);
  });
  it('a matrix that is not definite is damped more', () => {
    const form = quadraticForm(Float64Array.of(1, 3, 3, 1), 2, 0.01);
    expect(form.damping).toBeCloseTo(10, 9);
    expect(() => quadraticForm(Float64Array.of(NaN), 1, 0.01)).toThrow(RangeError);
  });
});
