/**
 * How far a regression may follow its samples. With λ as a share of the mean variance of an input, the change Δ = R·(C + λ)⁻¹ that is fitted
 * to one half of the samples costs on the other, whose moments are C′ and R′,
 *
 *     Σ ‖r − Δ·x‖² − Σ ‖r‖² = Δ·C′·Δᵀ − 2·⟨R′, Δ⟩
 *
 * Both halves are judged in turn. The share with the least sum is taken, or none where no share lowers it: errors that the samples do not
 * have in common cannot be made up for.
 *
 * Source: two-fold cross-validation (Stone 1974) of the ridge of Zhong et al. 2024, ERQ.
 */
import type { LayerSums } from './layer-sums.ts';

/** Shares that are tried, at least so large where samples are few. */
const SHARES = [0.01, 0.1, 1];
/** Share where there are too few samples to hold any back. */
const SINGLE_SHARE = 0.01;
/** Rows of weights that are judged at most; evenly spread over the layer. */
const MOST_ROWS = 32;

export interface ChosenDamping {
  readonly share: number;
  /** whether regression lowers the loss on samples that it has not seen */
  readonly regression: boolean;
}

/** `sums` in two parts; `scale` raises all shares. */
export const chosenDamping = (sums: LayerSums, depth: number, outputs: number, scale: number): ChosenDamping => {
  if (sums.rowsOf(0) < 2 || sums.rowsOf(1) < 2) return { share: SINGLE_SHARE * scale, regression: true };
  const rows = Math.min(outputs, MOST_ROWS);
  const judged = Array.from({ length: rows }, (_, i) => Math.floor((i * outputs) / rows));
  const parts = [0, 1].map((part) => {
    const cross = sums.cross(part);
    return { covariance: sums.covariance(part), cross: Float64Array.from({ length: rows * depth }, (_, i) => cross[judged[Math.floor(i / depth)] * depth + (i % depth)]) };
  });
  let [best, least] = [{ share: SHARES[SHARES.length - 1] * scale, regression: false }, 0];
  for (const share of SHARES) {
    const loss = parts.reduce((sum, { cross }, part) => sum + lossOf(sums.form(share * scale, part).solve(cross), parts[1 - part]), 0);
    if (loss < least) [best, least] = [{ share: share * scale, regression: true }, loss];
  }
  return best;
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
