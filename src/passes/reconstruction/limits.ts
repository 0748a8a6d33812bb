/**
 * What a layer misses where its result is limited. Codes end somewhere, and those of an absorbed ReLU end at zero; of a goal y and a result ŷ
 * no more than clamp(y) and clamp(ŷ) can be told apart behind them. With the limits [a, b],
 *
 *     missing = 0 where clamp(y) and clamp(ŷ) are the same limit, else clamp(y) − ŷ
 *
 * so a result beyond a limit is only drawn back where the goal lies within. Where a sum follows, it is the sum that is limited: the other
 * operand moves the limits, element by element.
 *
 * Source of the idea: Zhang et al. 2016, Accelerating very deep convolutional networks (responses are compared behind the ReLU).
 */
import type { UniformQuant } from '../../ir/quant.ts';

export interface Limits {
  readonly low: number;
  readonly high: number;
}

export const unlimited: Limits = { low: -Infinity, high: Infinity };

/** The least and the greatest number that these codes stand for. */
export const limitsOf = ({ scale, zero, low, high }: UniformQuant): Limits =>
  (typeof scale === 'number' && typeof zero === 'number' ? { low: (low - zero) * scale, high: (high - zero) * scale } : unlimited);

/** `beside`: what is added before the limits. */
export const missing = (goal: number, found: number, { low, high }: Limits, beside = 0): number => {
  const least = low - beside;
  const most = high - beside;
  if (goal <= least) return found < least ? 0 : least - found;
  if (goal >= most) return found > most ? 0 : most - found;
  return goal - found;
};

/** `missing` of `count` elements in a row: `goals` and `beside` from `at` on, `found` from `foundAt` on, into `to` from `toAt` on. */
export const missingInto = (
  to: Float32Array, toAt: number, goals: Float32Array, at: number, found: Float32Array, foundAt: number, count: number, limits: Limits, beside: Float32Array | null,
): void => {
  for (let i = 0; i < count; i++) to[toAt + i] = missing(goals[at + i], found[foundAt + i], limits, beside === null ? 0 : beside[at + i]);
};

/** Adds what is missing in each row to the sums of its columns. */
export const addMissing = (sums: Float64Array, goals: Float32Array, found: Float32Array, limits: Limits, beside: Float32Array | null): void => {
  for (let row = 0; row < goals.length; row += sums.length) for (let c = 0, at = row; c < sums.length; c++, at++) {
    sums[c] += missing(goals[at], found[at], limits, beside === null ? 0 : beside[at]);
  }
};

/** total + Σ missing², added one after the other. */
export const plusMissing = (total: number, goals: Float32Array, found: Float32Array, limits: Limits, beside: Float32Array | null): number => {
  let sum = total;
  for (let at = 0; at < goals.length; at++) {
    const rest = missing(goals[at], found[at], limits, beside === null ? 0 : beside[at]);
    sum += rest * rest;
  }
  return sum;
};
