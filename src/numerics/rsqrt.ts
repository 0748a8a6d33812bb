/** 1/√D by a table of 192 seeds and Newton steps: no division and no root at run time. */
import { mulShift } from './dyadic.ts';

/** y0[i − 64] = round(2^14 / √((i + 1/2)/256)) << 16 for i = 64…255: 1/√d in Q30 for the middle of the i-th of 256 parts of d ∈ [1/4, 1). */
export const rsqrtSeeds: Uint32Array = Uint32Array.from({ length: 192 }, (_, n) => Math.floor(2 ** 14 / Math.sqrt((n + 64.5) / 256) + 0.5) * 2 ** 16);

export interface Rsqrt {
  /** Q30 of 1/√(D·2^-2k), in (2^30, 2^31] */
  readonly y: number;
  /** ceil(bit length of D / 2); 1/√D = y·2^-30·2^-k */
  readonly k: number;
}

/**
 * For 1 ≤ D < 2^63: d = D·2^(32−2k) ∈ [2^30, 2^32) (bits below are dropped), i = d >> 24, then each step
 * t = (y·y) >> 30, t = (t·d) >> 32, y = (y·(3·2^30 − t)) >> 31.
 * The relative error is below 2^-8 for the seed, 2^-15.4 after one step, 2^-29.9 after two.
 */
export const rsqrt = (value: bigint, steps: number): Rsqrt => {
  const k = (value.toString(2).length + 1) >> 1;
  const d = Number(k <= 16 ? value << BigInt(32 - 2 * k) : value >> BigInt(2 * k - 32));
  let y = rsqrtSeeds[Math.floor(d / 2 ** 24) - 64];
  for (let step = 0; step < steps; step++) {
    const t = mulShift(mulShift(y, y, 30), d, 32);
    y = mulShift(3 * 2 ** 30 - t, y, 31);
  }
  return { y, k };
};
