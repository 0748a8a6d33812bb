/**
 * Seeded random numbers with the same bits on every engine: PCG-like 32-bit generator (O'Neill 2014, RXS-M-XS output) over a 32-bit
 * state with an odd increment for the stream. For shuffles, synthetic data and searches; not for secrets.
 */
import { log } from './real-math.ts';

export interface Random {
  /** next 32 bits, as an integer in [0, 2^32) */
  bits(): number;
  /** in [0, 1), a multiple of 2^-52 */
  uniform(): number;
  /** whole number in [0, bound), without bias; 1 ≤ bound ≤ 2^32 */
  below(bound: number): number;
  /** standard normal: Marsaglia's polar method, which needs only log and sqrt */
  normal(): number;
  /** a new list in random order (Fisher–Yates) */
  shuffle<T>(items: readonly T[]): T[];
}

export const createRandom = (seed: number, stream = 0): Random => {
  const increment = ((stream << 1) | 1) >>> 0;
  let state = 0;
  let spare: number | null = null;
  const step = (): number => {
    const before = state;
    state = (Math.imul(before, 747796405) + increment) >>> 0;
    const word = Math.imul((before >>> ((before >>> 28) + 4)) ^ before, 277803737) >>> 0;
    return ((word >>> 22) ^ word) >>> 0;
  };
  step();
  state = (state + (seed >>> 0)) >>> 0;
  step();
  const uniform = (): number => ((step() >>> 6) * 67108864 + (step() >>> 6)) / 4503599627370496;
  const below = (bound: number): number => {
    // draws at or above the largest multiple of `bound` would favour small results
    const limit = 4294967296 - (4294967296 % bound);
    let draw = step();
    while (draw >= limit) draw = step();
    return draw % bound;
  };
  const normal = (): number => {
    if (spare !== null) {
      const kept = spare;
      spare = null;
      return kept;
    }
    for (;;) {
      const u = 2 * uniform() - 1;
      const v = 2 * uniform() - 1;
      const square = u * u + v * v;
      if (square === 0 || square >= 1) continue;
      const factor = Math.sqrt((-2 * log(square)) / square);
      spare = v * factor;
      return u * factor;
    }
  };
  const shuffle = <T>(items: readonly T[]): T[] => {
    const order = [...items];
    for (let i = order.length - 1; i > 0; i--) {
      const j = below(i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  };
  return { bits: step, uniform, below, normal, shuffle };
};
