/**
 * The second moments of a layer that serve regression, rounding and bias together: with inputs x and what the layer misses, r = y − W·x − b,
 *
 *     covariance C = Σ (x − x̄)(x − x̄)ᵀ     cross R = Σ (r − r̄)(x − x̄)ᵀ
 *
 * Centred, because a free bias makes up for every constant: the loss of a change Δ of the weights, with the bias that suits it best, is
 * Σ ‖r − Δ·x‖² = const − 2·⟨R, Δ⟩ + Δ·C·Δᵀ.
 */
import { gramSum, productSum, type GramSum, type ProductSum } from '../../numerics/linalg.ts';
import { quadraticForm, type QuadraticForm } from '../../numerics/quadratic-form.ts';

export interface LayerSums {
  readonly rows: number;
  rowsOf(part: number): number;
  /** x [rows, depth] and r [rows, outputs], to the sums of one part of the samples; without outputs there is no cross and r is not read */
  add(x: Float32Array, r?: Float32Array, part?: number): void;
  /** [depth, depth], of one part or of all */
  covariance(part?: number): Float64Array;
  /** [outputs, depth], of one part or of all */
  cross(part?: number): Float64Array;
  /** of the covariance, damped by this share of its mean diagonal */
  form(share: number, part?: number): QuadraticForm;
  /** sums for another layer that reads the same x: its rows must be added again in the same order, which then only makes the cross */
  beside(outputs: number): LayerSums;
}

/** `parts`: into how many the samples are divided, so that what was fitted to some can be judged on others. */
export const layerSums = (depth: number, outputs: number, parts = 1): LayerSums => sumsOver(new InputSums(depth, parts), outputs, true);

/** Greatest depth at which covariances and their factors are kept for later: 8 MB each. */
const DEEPEST_KEPT = 1024;

/** What the sums owe to x alone. */
class InputSums {
  readonly depth: number;
  readonly grams: readonly GramSum[];
  // numbers near 0 keep their digits in float32 products: the mean of the first rows is taken off all
  private origin: Float32Array | null = null;
  private readonly known = new Map<string, unknown>();

  constructor(depth: number, parts: number) {
    this.depth = depth;
    this.grams = Array.from({ length: parts }, () => gramSum(depth + 1));
  }

  /** Rows about the origin; a constant 1 behind each carries the sums. */
  centred(x: Float32Array): Float32Array {
    const { depth } = this;
    const mean = this.origin ??= columnMeans(x, depth);
    const left = new Float32Array((x.length / depth) * (depth + 1));
    for (let row = 0, to = 0; row < x.length; row += depth, to++) {
      for (let k = 0; k < depth; k++, to++) left[to] = x[row + k] - mean[k];
      left[to] = 1;
    }
    return left;
  }
  rowsOf(part?: number): number {
    return part === undefined ? this.grams.reduce((all, { rows }) => all + rows, 0) : this.grams[part].rows;
  }
  add(left: Float32Array, part: number): void {
    this.known.clear();
    this.grams[part].add(left);
  }
  gram(part?: number): Float64Array {
    return this.once(`gram ${part}`, () => joined(this.grams, part));
  }
  covariance(part?: number): Float64Array {
    return this.once(`covariance ${part}`, () => {
      const { depth } = this;
      const width = depth + 1;
      const centred = new Float64Array(depth * depth);
      const [matrix, rows] = [this.gram(part), this.rowsOf(part)];
      for (let i = 0; i < depth; i++) for (let j = 0; j <= i; j++) {
        const moment = matrix[i * width + j] - (matrix[i * width + depth] * matrix[j * width + depth]) / rows;
        centred[i * depth + j] = moment;
        centred[j * depth + i] = moment;
      }
      return centred;
    });
  }
  form(share: number, part?: number): QuadraticForm {
    return this.once(`form ${share} ${part}`, () => quadraticForm(this.covariance(part), this.depth, share));
  }
  private once<T>(key: string, make: () => T): T {
    if (this.depth > DEEPEST_KEPT) return make();
    if (!this.known.has(key)) this.known.set(key, make());
    return this.known.get(key) as T;
  }
}

/** The sum over one part or over all. */
const joined = (sums: readonly (GramSum | ProductSum)[], part?: number): Float64Array => {
  if (part !== undefined || sums.length === 1) return sums[part ?? 0].matrix;
  const [first, ...others] = sums.map(({ matrix }) => matrix);
  const all = first.slice();
  for (const matrix of others) for (let i = 0; i < all.length; i++) all[i] += matrix[i];
  return all;
};

/** `first`: whether these sums add what x gives, or find it there. */
const sumsOver = (inputs: InputSums, outputs: number, first: boolean): LayerSums => {
  const { depth } = inputs;
  const width = depth + 1;
  const mixed = inputs.grams.map(() => productSum(outputs, width));
  return {
    get rows() { return inputs.rowsOf(); },
    rowsOf: (part) => inputs.rowsOf(part),
    add(x, r, part = 0) {
      const left = inputs.centred(x);
      if (first) inputs.add(left, part);
      if (outputs > 0) mixed[part].add(r!, left);
    },
    covariance: (part) => inputs.covariance(part),
    cross(part) {
      const centred = new Float64Array(outputs * depth);
      const [gram, products, rows] = [inputs.gram(part), joined(mixed, part), inputs.rowsOf(part)];
      for (let o = 0; o < outputs; o++) for (let k = 0; k < depth; k++) {
        centred[o * depth + k] = products[o * width + k] - (products[o * width + depth] * gram[k * width + depth]) / rows;
      }
      return centred;
    },
    form: (share, part) => inputs.form(share, part),
    beside: (others) => sumsOver(inputs, others, false),
  };
};

const columnMeans = (x: Float32Array, depth: number): Float32Array => {
  const sums = new Float64Array(depth);
  for (let at = 0; at < x.length; at += depth) for (let k = 0; k < depth; k++) sums[k] += x[at + k];
  return Float32Array.from(sums, (sum) => sum / Math.max(1, x.length / depth));
};

/** Variance of each of n numbers, of their covariance [n, n]. */
export const variancesOf = (covariance: Float64Array, n: number): Float64Array => Float64Array.from({ length: n }, (_, i) => covariance[i * n + i]);
