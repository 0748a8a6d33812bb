/** 1/S by a table of 256 seeds and Newton steps: no division at run time. */
import { mulShift } from './dyadic.ts';

/** y0[i] = round(2^16 / ((256 + i + 1/2)/256)) << 15: 1/d in Q31 for the middle of the i-th of 256 parts of d ∈ [1, 2). */
export const reciprocalSeeds: Uint32Array = Uint32Array.from({ length: 256 }, (_, i) => Math.floor(2 ** 25 / (513 + 2 * i) + 0.5) * 2 ** 15);

export interface Reciprocal {
  /** 1/d in Q31 with d = S·2^(lz−31) ∈ [1, 2); so 1/S = y·2^-31·2^-(31−lz); 2^30 < y ≤ 2^31 */
  readonly y: number;
  /** leading zeros of S in 32 bits */
  readonly lz: number;
}

/**
 * For 1 ≤ S < 2^32: D = S << lz ∈ [2^31, 2^32), i = (D >> 23) & 255, then each step y ← (y·(2^32 − ((D·y) >> 31))) >> 31.
 * The relative error is below 2^-9 for the seed, 2^-18 after one step, 2^-30 after two; y is never above 1/d by more than 2^-31.
 */
export const reciprocal = (sum: number, steps: number): Reciprocal => {
  const lz = Math.clz32(sum);
  const d = sum * 2 ** lz;
  let y = reciprocalSeeds[Math.floor(d / 2 ** 23) & 255];
  for (let step = 0; step < steps; step++) y = mulShift(2 ** 32 - mulShift(d, y, 31), y, 31);
  return { y, lz };
};
