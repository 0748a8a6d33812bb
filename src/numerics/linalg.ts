/**
 * Linear algebra of symmetric positive definite matrices in float64, row-major. All loops have a fixed order, so results have the same
 * bits on every engine.
 */
import { factorInKernel } from './cholesky-kernel.ts';
import { f32Kernels, packedLength, PAGE_BYTES, PANEL, SCRATCH_BYTES, SLACK_BYTES, type F32Kernels } from './f32-kernels.ts';
import { addExactProducts, addProducts } from './product-kernel.ts';
import { engine } from '../wasm/index.ts';

/** Σ a[i + k]·b[j + k] over k < length, in four interleaved sums. */
const dot = (a: Float64Array, i: number, b: Float64Array, j: number, length: number): number => {
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  let k = 0;
  for (; k + 4 <= length; k += 4) {
    s0 += a[i + k] * b[j + k];
    s1 += a[i + k + 1] * b[j + k + 1];
    s2 += a[i + k + 2] * b[j + k + 2];
    s3 += a[i + k + 3] * b[j + k + 3];
  }
  for (; k < length; k++) s0 += a[i + k] * b[j + k];
  return s0 + s1 + (s2 + s3);
};

/** Smaller matrices are factored before a kernel is called. */
const KERNEL_SIZE = 24;

/** The lower triangle L with L·Lᵀ = a, zeros above; null where `a` is not positive definite. Only the lower triangle of `a` is read. */
export const cholesky = (a: Float64Array, n: number): Float64Array | null => (n < KERNEL_SIZE ? plainCholesky(a, n) : factorInKernel(a, n));

/** The same bits in plain loops. */
export const plainCholesky = (a: Float64Array, n: number): Float64Array | null => {
  const l = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) l[i * n + j] = (a[i * n + j] - dot(l, i * n, l, j * n, j)) / l[j * n + j];
    const pivot = a[i * n + i] - dot(l, i * n, l, i * n, i);
    if (!(pivot > 0)) return null;
    l[i * n + i] = Math.sqrt(pivot);
  }
  return l;
};

/** x with L·Lᵀ·x = b, for the factor L of `cholesky`. */
export const solveFactored = (l: Float64Array, n: number, b: Float64Array): Float64Array => {
  const x = b.slice();
  for (let i = 0; i < n; i++) x[i] = (x[i] - dot(l, i * n, x, 0, i)) / l[i * n + i];
  for (let i = n - 1; i >= 0; i--) {
    x[i] /= l[i * n + i];
    for (let j = 0; j < i; j++) x[j] -= l[i * n + j] * x[i];
  }
  return x;
};

/** The inverse of a positive definite matrix from its factor L: (L·Lᵀ)⁻¹ = L⁻ᵀ·L⁻¹. */
export const invertFactored = (l: Float64Array, n: number): Float64Array => {
  // rows of `columns` are the columns of L⁻¹, so that every inner loop runs along memory
  const columns = new Float64Array(n * n);
  for (let j = 0; j < n; j++) {
    columns[j * n + j] = 1 / l[j * n + j];
    for (let i = j + 1; i < n; i++) columns[j * n + i] = -dot(l, i * n + j, columns, j * n + j, i - j) / l[i * n + i];
  }
  const inverse = new Float64Array(n * n);
  for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) {
    const sum = dot(columns, i * n + i, columns, j * n + i, n - i);
    inverse[i * n + j] = sum;
    inverse[j * n + i] = sum;
  }
  return inverse;
};

/**
 * The factor of gram + damping·I. The damping is `share` > 0 of the mean diagonal of `gram`, and ten times more as long as that leaves
 * the matrix indefinite. Only the lower triangle of `gram` is read.
 */
export const dampedCholesky = (gram: Float64Array, n: number, share: number): { readonly factor: Float64Array; readonly damping: number } => {
  let mean = 0;
  for (let i = 0; i < n; i++) mean += gram[i * n + i] / n;
  const damped = gram.slice();
  for (let damping = share * (mean > 0 ? mean : 1); ; damping *= 10) {
    if (!Number.isFinite(damping)) throw new RangeError('the matrix holds numbers that are not finite');
    for (let i = 0; i < n; i++) damped[i * n + i] = gram[i * n + i] + damping;
    const factor = cholesky(damped, n);
    if (factor !== null) return { factor, damping };
  }
};

/**
 * w [outputs, n] with the least Σ ‖y − w·x‖² + damping·‖w‖², from gram = Σ x·xᵀ [n, n] and cross = Σ y·xᵀ [outputs, n], the damping as
 * in `dampedCholesky`.
 */
export const leastSquares = (gram: Float64Array, cross: Float64Array, n: number, share: number): Float64Array => {
  const { factor } = dampedCholesky(gram, n, share);
  const w = new Float64Array(cross.length);
  for (let at = 0; at < cross.length; at += n) w.set(solveFactored(factor, n, cross.subarray(at, at + n)), at);
  return w;
};

/** Rows that are multiplied in float32 before their products are added in float64. */
const ROWS_AT_ONCE = 256;
/** Up to this many columns in all, products are summed in float64. */
const FEW_COLUMNS = 32;

/** Memory for arrays of these many numbers, and the kernels on it. */
const workspace = (lengths: readonly number[]): { readonly f32: Float32Array; readonly kernels: F32Kernels; readonly offsets: readonly number[]; readonly tile: number } => {
  const sizes = lengths.map((length) => Math.ceil((length * 4 + SLACK_BYTES) / 64) * 64);
  const offsets = sizes.map((_, i) => sizes.slice(0, i).reduce((sum, size) => sum + size, 0));
  const tile = sizes.reduce((sum, size) => sum + size, 0);
  const memory = new engine.Memory({ initial: Math.ceil((tile + SCRATCH_BYTES) / PAGE_BYTES) });
  return { f32: new Float32Array(memory.buffer), kernels: f32Kernels(memory), offsets, tile };
};

/** Sums of products of rows, Σ y·xᵀ, over as many rows as are added. */
export interface ProductSum {
  /** row-major [left, right] */
  readonly matrix: Float64Array;
  readonly rows: number;
  /** adds rows of `left` and `right` numbers */
  add(left: Float32Array, right: Float32Array): void;
}
/** Σ x·xᵀ. */
export interface GramSum {
  /** row-major [width, width], symmetric to the bit */
  readonly matrix: Float64Array;
  readonly rows: number;
  /** adds rows of `width` numbers */
  add(x: Float32Array): void;
}

/** Sums of products in SIMD: float32 within a few hundred rows, float64 across. */
export const productSum = (left: number, right: number): ProductSum => {
  const matrix = new Float64Array(left * right);
  const addSome = left + right <= FEW_COLUMNS ? addExactProducts : addProducts;
  let rows = 0;
  return {
    matrix,
    get rows() { return rows; },
    add(y, x) {
      const total = y.length / left;
      if (x.length / right !== total || !Number.isInteger(total)) throw new RangeError(`${y.length / left} rows against ${x.length / right}`);
      for (let first = 0; first < total; first += ROWS_AT_ONCE) {
        const count = Math.min(ROWS_AT_ONCE, total - first);
        addSome(matrix, y.subarray(first * left, (first + count) * left), x.subarray(first * right, (first + count) * right), left, right, count);
      }
      rows += total;
    },
  };
};

/** The same of rows with themselves: the entries up to the diagonal are summed, and found again on the other side of it. */
export const gramSum = (width: number): GramSum => {
  const matrix = new Float64Array(width * width);
  const addSome = 2 * width <= FEW_COLUMNS ? addExactProducts : addProducts;
  let [rows, mirrored] = [0, 0];
  return {
    get matrix() {
      if (mirrored < rows) for (let i = 0; i < width; i++) for (let j = 0; j < i; j++) matrix[j * width + i] = matrix[i * width + j];
      mirrored = rows;
      return matrix;
    },
    get rows() { return rows; },
    add(x) {
      const total = x.length / width;
      if (!Number.isInteger(total)) throw new RangeError(`${total} rows`);
      for (let first = 0; first < total; first += ROWS_AT_ONCE) {
        const some = x.subarray(first * width, Math.min(total, first + ROWS_AT_ONCE) * width);
        addSome(matrix, some, some, width, width, some.length / width);
      }
      rows += total;
    },
  };
};

/** y − x·wᵀ in place of y, for rows y [rows, outputs] and x [rows, n], and w [outputs, n]; products in float32. */
export const subtractProduct = (y: Float32Array, x: Float32Array, w: Float32Array, n: number): void => {
  const outputs = w.length / n;
  if (outputs + n <= FEW_COLUMNS) {
    for (let r = 0, at = 0; at < y.length; r++) for (let o = 0; o < outputs; o++, at++) {
      let sum = 0;
      for (let k = 0; k < n; k++) sum += w[o * n + k] * x[r * n + k];
      y[at] -= sum;
    }
    return;
  }
  const { f32, kernels, offsets: [rows, weights, panels, products, zeros], tile } =
    workspace([n * ROWS_AT_ONCE, n * outputs, packedLength(n, outputs), outputs * ROWS_AT_ONCE, outputs + PANEL]);
  f32.set(w, weights / 4);
  kernels.pack(weights, 4, n * 4, n, outputs, panels);
  for (let at = 0; at < y.length; at += ROWS_AT_ONCE * outputs) {
    const part = y.subarray(at, at + ROWS_AT_ONCE * outputs);
    const count = part.length / outputs;
    f32.set(x.subarray((at / outputs) * n, (at / outputs + count) * n), rows / 4);
    kernels.gemm(rows, n * 4, panels, zeros, products, outputs * 4, count, outputs, 1, 0, 1, 0, n, tile);
    for (let i = 0; i < part.length; i++) part[i] -= f32[products / 4 + i];
  }
};
