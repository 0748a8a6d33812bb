/**
 * Layer-local gradient descent of an MLP o = W₂·relu(W₁·x + b₁) + b₂ towards targets y: the last step of the ladder, which also moves the
 * first layer. No gradient leaves the MLP. With e = 2·ω⊙(o − y)/(B·n) over B tokens of n outputs,
 *
 *     dW₂ = e·aᵀ,   db₂ = e,   da = W₂ᵀ·e ⊙ [a > 0],   dW₁ = da·xᵀ,   db₁ = da
 *
 * and, for narrow activations, twice the same with a limited to a ceiling u, whose gradient passes where 0 < a < u. Steps by Adam.
 *
 * Source: the reconstruction of Wu et al. 2025, APHQ-ViT; Kingma and Ba 2015, Adam.
 */
import { createRandom } from '../../numerics/random.ts';
import type { SecondLayer } from './mlp.ts';

/** Both layers; weights row-major, [hidden, inputs] and [outputs, hidden]. */
export interface MlpWeights {
  readonly first: SecondLayer;
  readonly second: SecondLayer;
}

/** Tokens in rows. */
export interface MlpTokens {
  readonly x: Float32Array;
  readonly y: Float32Array;
  /** ω of each token; null where all count alike */
  readonly importance: Float32Array | null;
}

export interface DescentOptions {
  readonly steps: number;
  /** tokens of a step */
  readonly batch: number;
  /** step size at the start; it falls to 0 */
  readonly rate: number;
  /** u; Infinity for no second term */
  readonly ceiling: number;
  readonly seed: number;
}

/** Weight of the term with limited activations. */
const LIMITED_WEIGHT = 2;
const [DECAY_MEAN, DECAY_SQUARE, LEAST_ROOT] = [0.9, 0.999, 1e-8];

/** The loss on some tokens, and its gradient, shaped as the weights. */
export const mlpGradient = ({ first, second }: MlpWeights, { x, y, importance }: MlpTokens, rows: ArrayLike<number>, ceiling = Infinity): { readonly loss: number; readonly gradient: MlpWeights } => {
  const [hidden, outputs] = [first.bias.length, second.bias.length];
  const inputs = first.weight.length / hidden;
  const zeros = ({ weight, bias }: SecondLayer): SecondLayer => ({ weight: new Float64Array(weight.length), bias: new Float64Array(bias.length) });
  const gradient: MlpWeights = { first: zeros(first), second: zeros(second) };
  const [a, da, e] = [new Float64Array(hidden), new Float64Array(hidden), new Float64Array(outputs)];
  let loss = 0;
  for (let r = 0; r < rows.length; r++) {
    const [atX, atY] = [rows[r] * inputs, rows[r] * outputs];
    for (let h = 0, at = 0; h < hidden; h++) {
      let sum = first.bias[h];
      for (let i = 0; i < inputs; i++, at++) sum += first.weight[at] * x[atX + i];
      a[h] = Math.max(0, sum);
    }
    da.fill(0);
    const weight = (importance?.[rows[r]] ?? 1) / (rows.length * outputs);
    for (const [limit, share] of ceiling < Infinity ? [[Infinity, 1], [ceiling, LIMITED_WEIGHT]] : [[Infinity, 1]]) {
      for (let o = 0, at = 0; o < outputs; o++, at += hidden) {
        let sum = second.bias[o];
        for (let h = 0; h < hidden; h++) sum += second.weight[at + h] * Math.min(a[h], limit);
        const error = sum - y[atY + o];
        loss += share * weight * error * error;
        e[o] = 2 * share * weight * error;
        gradient.second.bias[o] += e[o];
        for (let h = 0; h < hidden; h++) {
          gradient.second.weight[at + h] += e[o] * Math.min(a[h], limit);
          if (a[h] < limit) da[h] += second.weight[at + h] * e[o];
        }
      }
    }
    for (let h = 0, at = 0; h < hidden; h++) {
      if (a[h] <= 0) { at += inputs; continue; }
      gradient.first.bias[h] += da[h];
      for (let i = 0; i < inputs; i++, at++) gradient.first.weight[at] += da[h] * x[atX + i];
    }
  }
  return { loss, gradient };
};

/** The weights after so many steps on tokens drawn by the seed. */
export const descend = (start: MlpWeights, tokens: MlpTokens, { steps, batch, rate, ceiling, seed }: DescentOptions): MlpWeights => {
  const parts = [start.first.weight, start.first.bias, start.second.weight, start.second.bias].map((list) => list.slice());
  const now: MlpWeights = { first: { weight: parts[0], bias: parts[1] }, second: { weight: parts[2], bias: parts[3] } };
  const means = parts.map((list) => new Float64Array(list.length));
  const squares = parts.map((list) => new Float64Array(list.length));
  const random = createRandom(seed);
  const count = tokens.y.length / start.second.bias.length;
  let [fadeMean, fadeSquare] = [1, 1];
  for (let step = 0; step < steps; step++) {
    const rows = Int32Array.from({ length: Math.min(batch, count) }, () => random.below(count));
    const { gradient } = mlpGradient(now, tokens, rows, ceiling);
    fadeMean *= DECAY_MEAN;
    fadeSquare *= DECAY_SQUARE;
    // from 1 to 0 with level ends, as half a cosine
    const done = step / steps;
    const size = rate * (1 - done * done * (3 - 2 * done));
    [gradient.first.weight, gradient.first.bias, gradient.second.weight, gradient.second.bias].forEach((slopes, p) => {
      const [list, mean, square] = [parts[p], means[p], squares[p]];
      for (let i = 0; i < list.length; i++) {
        mean[i] = DECAY_MEAN * mean[i] + (1 - DECAY_MEAN) * slopes[i];
        square[i] = DECAY_SQUARE * square[i] + (1 - DECAY_SQUARE) * slopes[i] * slopes[i];
        list[i] -= (size * (mean[i] / (1 - fadeMean))) / (Math.sqrt(square[i] / (1 - fadeSquare)) + LEAST_ROOT);
      }
    });
  }
  return now;
};

/** relu(W₁·x + b₁), token by token. */
export const hiddenRows = ({ weight, bias }: SecondLayer, x: Float32Array): Float32Array => {
  const [hidden, inputs] = [bias.length, weight.length / bias.length];
  const rows = new Float32Array((x.length / inputs) * hidden);
  for (let from = 0, to = 0; from < x.length; from += inputs) for (let h = 0, at = 0; h < hidden; h++, to++) {
    let sum = bias[h];
    for (let i = 0; i < inputs; i++, at++) sum += weight[at] * x[from + i];
    rows[to] = Math.max(0, sum);
  }
  return rows;
};
