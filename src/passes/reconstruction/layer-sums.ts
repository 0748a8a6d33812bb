/**
 * The second moments of a layer that serve regression, rounding and bias together: with inputs x and what the layer misses, r = y − W·x − b,
 *
 *     covariance C = Σ (x − x̄)(x − x̄)ᵀ     cross R = Σ (r − r̄)(x − x̄)ᵀ
 *
 * Centred, because a free bias makes up for every constant: the loss of a change Δ of the weights, with the bias that suits it best, is
 * Σ ‖r − Δ·x‖² = const − 2·⟨R, Δ⟩ + Δ·C·Δᵀ.
 */
import { productSum } from '../../numerics/linalg.ts';

export interface LayerSums {
  readonly rows: number;
  rowsOf(part: number): number;
  /** x [rows, depth] and r [rows, outputs], to the sums of one part of the samples; without outputs there is no cross and r is not read */
  add(x: Float32Array, r?: Float32Array, part?: number): void;
  /** [depth, depth], of one part or of all */
  covariance(part?: number): Float64Array;
  /** [outputs, depth], of one part or of all */
  cross(part?: number): Float64Array;
}

/** `parts`: into how many the samples are divided, so that what was fitted to some can be judged on others. */
export const layerSums = (depth: number, outputs: number, parts = 1): LayerSums => {
  // a constant 1 behind each row of x carries the sums
  const width = depth + 1;
  const sums = Array.from({ length: parts }, () => ({ gram: productSum(width, width), mixed: productSum(outputs, width) }));
  // numbers near 0 keep their digits in float32 products: the mean of the first rows is taken off all
  let origin: Float32Array | null = null;
  const rowsOf = (part?: number): number => (part === undefined ? sums.reduce((all, { gram }) => all + gram.rows, 0) : sums[part].gram.rows);
  const joined = (of: 'gram' | 'mixed', part?: number): Float64Array => {
    if (part !== undefined || parts === 1) return sums[part ?? 0][of].matrix;
    const [first, ...others] = sums.map((one) => one[of].matrix);
    const all = first.slice();
    for (const matrix of others) for (let i = 0; i < all.length; i++) all[i] += matrix[i];
    return all;
  };
  return {
    get rows() { return rowsOf(); },
    rowsOf,
    add(x, r, part = 0) {
      const count = x.length / depth;
      const mean = origin ??= columnMeans(x, depth);
      const left = new Float32Array(count * width);
      for (let row = 0, to = 0; row < x.length; row += depth, to++) {
        for (let k = 0; k < depth; k++, to++) left[to] = x[row + k] - mean[k];
        left[to] = 1;
      }
      sums[part].gram.add(left, left);
      if (outputs > 0) sums[part].mixed.add(r!, left);
    },
    covariance(part) {
      const centred = new Float64Array(depth * depth);
      const [matrix, rows] = [joined('gram', part), rowsOf(part)];
      // the kernels do not promise a symmetric product: both halves are taken from the lower one
      for (let i = 0; i < depth; i++) for (let j = 0; j <= i; j++) {
        const moment = matrix[i * width + j] - (matrix[i * width + depth] * matrix[j * width + depth]) / rows;
        centred[i * depth + j] = moment;
        centred[j * depth + i] = moment;
      }
      return centred;
    },
    cross(part) {
      const centred = new Float64Array(outputs * depth);
      const [gram, mixed, rows] = [joined('gram', part), joined('mixed', part), rowsOf(part)];
      for (let o = 0; o < outputs; o++) for (let k = 0; k < depth; k++) {
        centred[o * depth + k] = mixed[o * width + k] - (mixed[o * width + depth] * gram[k * width + depth]) / rows;
      }
      return centred;
    },
  };
};

const columnMeans = (x: Float32Array, depth: number): Float32Array => {
  const sums = new Float64Array(depth);
  for (let at = 0; at < x.length; at += depth) for (let k = 0; k < depth; k++) sums[k] += x[at + k];
  return Float32Array.from(sums, (sum) => sum / Math.max(1, x.length / depth));
};
