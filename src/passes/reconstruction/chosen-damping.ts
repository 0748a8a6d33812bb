/**
 * How far a layer may follow its samples. With λ as a share of the mean variance of an input, the change Δ of its weights that is made by
 * regression and rounding on one half of the samples costs on the other, whose moments are C′ and R′,
 *
 *     Σ ‖r − Δ·x‖² − Σ ‖r‖² = Δ·C′·Δᵀ − 2·⟨R′, Δ⟩
 *
 * Both halves are judged in turn, and the groups of a layer together: a few numbers in each would scatter. From the middle of a row of
 * shares the sum is followed downhill to the least, and from there up again as long as it costs next to nothing: of shares that the samples
 * cannot tell apart the greatest one leaves the weights nearest to what they were. Regression is left out where without it the sum is less:
 * errors that the samples do not have in common cannot be made up for. Rounding belongs to what is judged: weights that regression drives
 * far apart cost more than they gain once one step has to serve them all.
 *
 * Sources: two-fold cross-validation (Stone 1974) of the ridge of Zhong et al. 2024, ERQ; the greatest share near the least loss in place
 * of the least itself after Breiman et al. 1984, Classification and Regression Trees (there: within one standard error).
 */
import type { QuadraticForm } from '../../numerics/quadratic-form.ts';
import type { LayerSums } from './layer-sums.ts';

/** Shares that may be chosen, at least so large where samples are few. */
const SHARES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1];
const FIRST = 3;
/** Share where there are too few samples to hold any back. */
const SINGLE_SHARE = 0.01;
/** What a greater share may cost, as a part of what rounding without regression costs. */
const NEXT_TO_NOTHING = 0.05;
/** Rows of weights that are judged at most in each group; evenly spread over it. */
const MOST_ROWS = 16;

export interface ChosenDamping {
  readonly share: number;
  /** whether regression lowers the loss on samples that it has not seen */
  readonly regression: boolean;
}

/** What a row of real weights becomes when it is rounded under a form. */
export type Rounding = (form: QuadraticForm, row: Float64Array) => Float64Array;

/** A group of a layer: `sums` in two parts, weights `real` [outputs, depth]. */
export interface JudgedGroup {
  readonly sums: LayerSums;
  readonly real: Float64Array;
}

/** `scale` raises all shares. */
export const chosenDamping = (groups: readonly JudgedGroup[], depth: number, scale: number, rounded: Rounding): ChosenDamping => {
  const [{ sums: { rowsOf }, real: { length } }] = groups;
  if (rowsOf(0) < 2 || rowsOf(1) < 2) return { share: SINGLE_SHARE * scale, regression: true };
  const outputs = length / depth;
  const rows = Math.min(outputs, MOST_ROWS);
  const judged = Array.from({ length: rows }, (_, i) => Math.floor((i * outputs) / rows));
  const ofJudged = (list: Float64Array): Float64Array => Float64Array.from({ length: rows * depth }, (_, i) => list[judged[Math.floor(i / depth)] * depth + (i % depth)]);
  const halves = groups.flatMap(({ sums, real }) => {
    const given = ofJudged(real);
    const parts = [0, 1].map((part) => ({ covariance: sums.covariance(part), cross: ofJudged(sums.cross(part)) }));
    return parts.map(({ cross }, part) => ({ sums, given, part, cross, other: parts[1 - part] }));
  });
  const lossWith = (share: number, regression: boolean): number => halves.reduce((all, { sums, given, part, cross, other }) => {
    const form = sums.form(share, part);
    const moved = regression ? form.solve(cross).map((step, i) => given[i] + step) : given;
    const change = new Float64Array(given.length);
    for (let first = 0; first < given.length; first += depth) change.set(rounded(form, moved.subarray(first, first + depth)), first);
    return all + lossOf(change.map((one, i) => one - given[i]), other);
  }, 0);
  const losses = new Map<string, number>();
  const lossAt = (at: number, regression = true): number => {
    const key = `${at} ${regression}`;
    const known = losses.get(key) ?? lossWith(SHARES[at] * scale, regression);
    losses.set(key, known);
    return known;
  };
  let at = FIRST;
  for (const way of [1, -1]) while (SHARES[at + way] !== undefined && lossAt(at + way) < lossAt(at)) at += way;
  const near = lossAt(at) + NEXT_TO_NOTHING * lossAt(at, false);
  while (SHARES[at + 1] !== undefined && lossAt(at + 1) <= near) at++;
  return { share: SHARES[at] * scale, regression: lossAt(at) < lossAt(at, false) };
};

/** Δ·C·Δᵀ − 2·⟨R, Δ⟩ over all rows of Δ. */
const lossOf = (change: Float64Array, { covariance, cross }: { readonly covariance: Float64Array; readonly cross: Float64Array }): number => {
  const depth = Math.sqrt(covariance.length);
  let loss = 0;
  for (let first = 0; first < change.length; first += depth) for (let i = 0, at = 0; i < depth; i++) {
    let sum = -2 * cross[first + i];
    // the form is symmetric: its lower triangle counts twice, its diagonal once
    for (let j = 0; j < i; j++, at++) sum += 2 * covariance[at] * change[first + j];
    loss += (sum + covariance[at] * change[first + i]) * change[first + i];
    at += depth - i;
  }
  return loss;
};
