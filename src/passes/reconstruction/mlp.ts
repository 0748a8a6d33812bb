/**
 * Repairs an MLP whose activation was replaced by ReLU, from sums over tokens alone: no gradients. With hidden rows a = relu(p), targets y and
 * the second layer ŷ = W·a + b, the steps of the ladder are
 *
 *     bias      b + E[y − ŷ]
 *     neurons   W[:, i]·α_i and b + W·γ, with act(p_i) ≈ α_i·relu(p_i) + γ_i by regression on each neuron alone
 *     ridge     min Σ_t ω_t·‖y_t − W'·a_t − b'‖² + λ·‖W' − W‖², b' free
 *
 * Source: the reconstruction of Wu et al. 2025, APHQ-ViT, in closed form.
 */
import { gramSum, leastSquares, productSum } from '../../numerics/linalg.ts';

/** The second layer of an MLP: weight [outputs, hidden], row-major. */
export interface SecondLayer {
  readonly weight: Float64Array;
  readonly bias: Float64Array;
}

/** Sums over tokens that the ladder needs. Rows are token by token. */
export interface MlpSums {
  /** adds tokens; `importance` weighs each, 1 by default */
  add(hidden: Float32Array, targets: Float32Array, importance?: Float32Array): void;
  /** the layer with the mean of the targets */
  withMean(layer: SecondLayer): SecondLayer;
  /** the layer nearest to the targets; λ is `share` of the mean variance of a neuron times the tokens */
  ridge(layer: SecondLayer, share: number): SecondLayer;
  /** Σ ω·‖y − ŷ‖² / Σ ω·‖y − E[y]‖² */
  relativeError(layer: SecondLayer): number;
}

export const mlpSums = (hidden: number, outputs: number): MlpSums => {
  // a constant 1 behind the hidden row carries sums and the bias
  const width = hidden + 1;
  const gram = gramSum(width);
  const cross = productSum(outputs, width);
  const power = new Float64Array(outputs);
  const at = (i: number, j: number): number => gram.matrix[i * width + j];
  const tokens = (): number => at(hidden, hidden);
  const meanOf = (sums: Float64Array, row: number): number => sums[row * width + hidden] / tokens();
  const biasFor = (weight: Float64Array): Float64Array => Float64Array.from({ length: outputs }, (_, o) => {
    let bias = meanOf(cross.matrix, o);
    for (let i = 0; i < hidden; i++) bias -= weight[o * hidden + i] * meanOf(gram.matrix, i);
    return bias;
  });
  return {
    add(rows, targets, importance) {
      const count = rows.length / hidden;
      const left = new Float32Array(count * width);
      const right = Float32Array.from(targets);
      for (let t = 0; t < count; t++) {
        const factor = importance === undefined ? 1 : Math.sqrt(importance[t]);
        for (let i = 0; i < hidden; i++) left[t * width + i] = rows[t * hidden + i] * factor;
        left[t * width + hidden] = factor;
        for (let o = 0, from = t * outputs; o < outputs; o++, from++) {
          right[from] *= factor;
          power[o] += right[from] * right[from];
        }
      }
      gram.add(left);
      cross.add(right, left);
    },
    withMean: ({ weight }) => ({ weight, bias: biasFor(weight) }),
    ridge({ weight }, share) {
      const centred = new Float64Array(hidden * hidden);
      for (let i = 0; i < hidden; i++) for (let j = 0; j < hidden; j++) centred[i * hidden + j] = at(i, j) - at(i, hidden) * meanOf(gram.matrix, j);
      const rest = new Float64Array(outputs * hidden);
      for (let o = 0; o < outputs; o++) for (let i = 0; i < hidden; i++) {
        let sum = cross.matrix[o * width + i] - cross.matrix[o * width + hidden] * meanOf(gram.matrix, i);
        for (let j = 0; j < hidden; j++) sum -= weight[o * hidden + j] * centred[j * hidden + i];
        rest[o * hidden + i] = sum;
      }
      const step = leastSquares(centred, rest, hidden, share);
      const moved = weight.map((w, i) => w + step[i]);
      return { weight: moved, bias: biasFor(moved) };
    },
    relativeError({ weight, bias }) {
      let [error, spread] = [0, 0];
      const row = new Float64Array(width);
      for (let o = 0; o < outputs; o++) {
        row.set(weight.subarray(o * hidden, (o + 1) * hidden));
        row[hidden] = bias[o];
        let [quadratic, linear] = [0, 0];
        for (let i = 0; i < width; i++) {
          let sum = 0;
          for (let j = 0; j < width; j++) sum += at(i, j) * row[j];
          quadratic += row[i] * sum;
          linear += row[i] * cross.matrix[o * width + i];
        }
        error += power[o] - 2 * linear + quadratic;
        spread += power[o] - tokens() * meanOf(cross.matrix, o) * meanOf(cross.matrix, o);
      }
      return spread > 0 ? Math.max(0, error) / spread : 0;
    },
  };
};

/** Regression of an activation on ReLU, neuron by neuron. */
export interface NeuronSums {
  /** pre-activations and what the activation made of them, token by token */
  add(before: Float32Array, after: Float32Array, importance?: Float32Array): void;
  /** act(p_i) ≈ slope_i·relu(p_i) + offset_i */
  fit(): { readonly slope: Float64Array; readonly offset: Float64Array };
}

export const neuronSums = (hidden: number): NeuronSums => {
  const [r, rr, g, rg] = Array.from({ length: 4 }, () => new Float64Array(hidden));
  let tokens = 0;
  return {
    add(before, after, importance) {
      for (let t = 0, at = 0; at < before.length; t++) {
        const weight = importance?.[t] ?? 1;
        tokens += weight;
        for (let i = 0; i < hidden; i++, at++) {
          const positive = Math.max(0, before[at]);
          r[i] += weight * positive;
          rr[i] += weight * positive * positive;
          g[i] += weight * after[at];
          rg[i] += weight * positive * after[at];
        }
      }
    },
    fit() {
      const slope = rr.map((power, i) => {
        const variance = power - (r[i] * r[i]) / tokens;
        // a neuron that never fires is its mean
        return variance > power * LEAST_VARIANCE ? (rg[i] - (r[i] * g[i]) / tokens) / variance : 0;
      });
      return { slope, offset: g.map((sum, i) => (sum - slope[i] * r[i]) / tokens) };
    },
  };
};

/** Share of its power below which the variance of a neuron is rounding noise. */
const LEAST_VARIANCE = 1e-9;

/** The layer that reads relu(p) as it read slope·relu(p) + offset. */
export const withNeurons = ({ weight, bias }: SecondLayer, { slope, offset }: ReturnType<NeuronSums['fit']>): SecondLayer => {
  const hidden = slope.length;
  return {
    weight: weight.map((w, i) => w * slope[i % hidden]),
    bias: bias.map((b, o) => {
      let sum = b;
      for (let i = 0; i < hidden; i++) sum += weight[o * hidden + i] * offset[i];
      return sum;
    }),
  };
};

/** The hidden rows with every neuron limited to `ceiling`. */
export const clamped = (rows: Float32Array, ceiling: number): Float32Array => rows.map((a) => Math.min(a, ceiling));
