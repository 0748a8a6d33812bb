import { describe, expect, it } from 'vitest';
import { factorInKernel } from '../../src/numerics/cholesky-kernel.ts';
import { cholesky, gramSum, invertFactored, leastSquares, plainCholesky, productSum, solveFactored, subtractProduct } from '../../src/numerics/linalg.ts';
import { createRandom } from '../../src/numerics/random.ts';

const random = createRandom(9);
const normals = (length: number): Float64Array => Float64Array.from({ length }, () => random.normal());
const product = (a: Float64Array, b: Float64Array, n: number): Float64Array =>
  Float64Array.from({ length: n * n }, (_, at) => Array.from({ length: n }, (_value, k) => a[Math.floor(at / n) * n + k] * b[k * n + (at % n)]).reduce((s, x) => s + x, 0));
const transposed = (a: Float64Array, n: number): Float64Array => a.map((_, at) => a[(at % n) * n + Math.floor(at / n)]);
const positive = (n: number): Float64Array => {
  const a = normals(n * n);
  const gram = product(a, transposed(a, n), n);
  for (let i = 0; i < n; i++) gram[i * n + i] += 0.1;
  return gram;
};
const far = (a: Float64Array, b: Float64Array): number => Math.max(...a.map((x, i) => Math.abs(x - b[i])));

describe.each([1, 2, 5, 16, 33])('size %d', (n) => {
  const a = positive(n);
  const l = cholesky(a, n)!;
  it('L·Lᵀ is the matrix', () => expect(far(product(l, transposed(l, n), n), a)).toBeLessThan(1e-11));
  it('solves', () => {
    const x = normals(n);
    const b = Float64Array.from({ length: n }, (_, i) => x.reduce((sum, value, k) => sum + a[i * n + k] * value, 0));
    expect(far(solveFactored(l, n, b), x)).toBeLessThan(1e-9);
  });
  it('inverts', () => {
    const inverse = invertFactored(l, n);
    expect(far(product(a, inverse, n), Float64Array.from({ length: n * n }, (_, at) => Number(at % (n + 1) === 0)))).toBeLessThan(1e-9);
    expect(inverse).toEqual(transposed(inverse, n));
  });
});

it.each([1, 2, 3, 4, 5, 7, 8, 16, 33, 66])('the kernel gives the bits of the plain loops, size %d', (n) => {
  const a = positive(n);
  expect(factorInKernel(a, n)).toEqual(plainCholesky(a, n));
  a[n * n - 1] = -1;
  expect(factorInKernel(a, n)).toBeNull();
});

it('a matrix that is not positive definite has no factor', () => {
  expect(cholesky(Float64Array.of(1, 2, 2, 1), 2)).toBeNull();
  expect(cholesky(Float64Array.of(0), 1)).toBeNull();
  expect(cholesky(Float64Array.of(NaN), 1)).toBeNull();
});

describe('least squares', () => {
  it('finds the weights that made the data', () => {
    const [n, outputs, rows] = [7, 3, 600];
    const w = normals(outputs * n);
    const x = Float32Array.from(normals(rows * n));
    const y = Float32Array.from({ length: rows * outputs }, (_, at) => {
      const [row, o] = [Math.floor(at / outputs), at % outputs];
      return Array.from({ length: n }, (_value, k) => w[o * n + k] * x[row * n + k]).reduce((sum, value) => sum + value, 0);
    });
    const [gram, cross] = [productSum(n, n), productSum(outputs, n)];
    gram.add(x, x);
    cross.add(y, x);
    expect(gram.rows).toBe(600);
    expect(far(leastSquares(gram.matrix, cross.matrix, n, 1e-9), w)).toBeLessThan(1e-5);
  });
  it('a singular matrix is damped', () => {
    const w = leastSquares(Float64Array.of(1, 1, 1, 1), Float64Array.of(2, 2), 2, 1e-6);
    expect(w[0]).toBeCloseTo(1, 4);
    expect(w[1]).toBeCloseTo(1, 4);
  });
  it('what is not finite is refused', () => expect(() => leastSquares(Float64Array.of(NaN), Float64Array.of(1), 1, 0.01)).toThrow(RangeError));
});

it.each([[1, 1, 1], [3, 5, 10], [9, 17, 300], [16, 8, 700]])('sums of products, %d×%d over %d rows', (left, right, rows) => {
  const [y, x] = [Float32Array.from(normals(left * rows)), Float32Array.from(normals(right * rows))];
  const sum = productSum(left, right);
  const half = Math.floor(rows / 2);
  sum.add(y.subarray(0, half * left), x.subarray(0, half * right));
  sum.add(y.subarray(half * left), x.subarray(half * right));
  const expected = Float64Array.from({ length: left * right }, (_, at) => {
    let total = 0;
    for (let r = 0; r < rows; r++) total += y[r * left + Math.floor(at / right)] * x[r * right + (at % right)];
    return total;
  });
  expect(far(sum.matrix, expected)).toBeLessThan(1e-4);
  expect(() => sum.add(y, x.subarray(0, right * rows - 1))).toThrow(RangeError);
});

it.each([[3, 10], [16, 300], [17, 300], [40, 700], [133, 129]])('sums of products of rows of %d with themselves, over %d rows, are those of two lists to the bit', (width, rows) => {
  const x = Float32Array.from(normals(width * rows));
  const [gram, whole] = [gramSum(width), productSum(width, width)];
  for (const part of [x.subarray(0, width), x.subarray(width)]) {
    gram.add(part);
    whole.add(part.slice(), part);
    expect(gram.matrix).toEqual(whole.matrix);
  }
  expect(gram.rows).toBe(rows);
  expect(() => gram.add(x.subarray(1))).toThrow(RangeError);
});

describe.each([[3, 5, 700], [40, 9, 300], [12, 33, 256]])('rows of %d and %d', (n, outputs, rows) => {
  const x = Float32Array.from(normals(rows * n));
  const w = Float32Array.from(normals(outputs * n));
  const y = Float32Array.from(normals(rows * outputs));
  it('products are summed', () => {
    const sum = productSum(outputs, n);
    sum.add(y.subarray(0, 10 * outputs), x.subarray(0, 10 * n));
    sum.add(y.subarray(10 * outputs), x.subarray(10 * n));
    const expected = Float64Array.from({ length: outputs * n }, (_, at) =>
      Array.from({ length: rows }, (_value, r) => y[r * outputs + Math.floor(at / n)] * x[r * n + (at % n)]).reduce((s, v) => s + v, 0));
    expect(far(sum.matrix, expected)).toBeLessThan(1e-3);
  });
  it('a product is subtracted', () => {
    const expected = Float64Array.from(y, (value, at) => value - Array.from({ length: n }, (_, k) => w[(at % outputs) * n + k] * x[Math.floor(at / outputs) * n + k]).reduce((s, v) => s + v, 0));
    const left = y.slice();
    subtractProduct(left, x, w, n);
    expect(far(Float64Array.from(left), expected)).toBeLessThan(1e-4);
  });
});
