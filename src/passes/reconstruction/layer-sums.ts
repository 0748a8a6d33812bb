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
  /** x [rows, depth] and r [rows, outputs]; without outputs there is no cross and r is not read */
  add(x: Float32Array, r?: Float32Array): void;
  /** [depth, depth] */
  covariance(): Float64Array;
  /** [outputs, depth] */
  cross(): Float64Array;
}

export const layerSums = (depth: number, outputs: number): LayerSums => {
  // a constant 1 behind each row of x carries the sums
  const width = depth + 1;
  const [gram, mixed] = [productSum(width, width), productSum(outputs, width)];
  // numbers near 0 keep their digits in float32 products: the mean of the first rows is taken off all
  let origin: Float32Array | null = null;
  return {
    get rows() { return gram.rows; },
    add(x, r) {
      const count = x.length / depth;
      origin ??= columnMeans(x, depth);
      const left = new Float32Array(count * width).fill(1);
      for (let i = 0; i < count; i++) for (let k = 0; k < depth; k++) left[i * width + k] = x[i * depth + k] - origin[k];
      gram.add(left, left);
      if (outputs > 0) mixed.add(r!, left);
    },
    covariance() {
      const centred = new Float64Array(depth * depth);
      const { matrix, rows } = gram;
      for (let i = 0; i < depth; i++) for (let j = 0; j < depth; j++) {
        // the kernels do not promise a symmetric product: both halves are taken from one
        const [a, b] = i < j ? [j, i] : [i, j];
        centred[i * depth + j] = matrix[a * width + b] - (matrix[a * width + depth] * matrix[b * width + depth]) / rows;
      }
      return centred;
    },
    cross() {
      const centred = new Float64Array(outputs * depth);
      for (let o = 0; o < outputs; o++) for (let k = 0; k < depth; k++) {
        centred[o * depth + k] = mixed.matrix[o * width + k] - (mixed.matrix[o * width + depth] * gram.matrix[k * width + depth]) / gram.rows;
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
