/**
 * Panels of quads.ts brought into the order of gemm.ts: from [K/4][16 columns][4] bytes to [K/2][16 columns][2] words. Products of pairs of
 * words leave one sum for each column then, where quads leave two, which every row of a tile would join before it is rescaled. A panel
 * is put in order once for all rows that pass over it.
 */
import { at, buffer, fn, index, list, load, loop, set, store, variable, zip } from '../../loops/build.ts';
import type { Fn } from '../../loops/types.ts';
import type { Walk } from './gemm.ts';
import { product } from './kernel.ts';
import type { Target } from './target.ts';

/** Columns of a panel, codes of a step, and of a vector of one 16-byte block, in which `zip` keeps the order. */
const [PANEL, STEP, BLOCK] = [16, 64, 8];
/** Panels of more taps would not stay near the core beside the rows. */
const DEEPEST = 256;

const depthOf = ({ counts, padded }: Walk): number => product(counts) * padded;
/** Words of a panel in order; null where putting it in order does not pay for so many rows: it takes about what joining the sums of a row takes, for each tap. */
export const pairsLength = (walk: Walk, rows: number, { ordersPairs }: Target): number | null => {
  const depth = depthOf(walk);
  return ordersPairs && walk.bits === 8 && walk.quads?.a === 'i16' && walk.counts.length === 0 && depth <= DEEPEST && 3 * depth <= 4 * rows ? depth * PANEL : null;
};
/** The same walk over a panel in order. */
export const pairedWalk = (walk: Walk): Walk => ({ ...walk, quads: null });

/** A panel of `length` codes put in order: 4×2 pairs are transposed at a time. */
export const orderPairsFn = (name: string, { length }: { readonly length: number }): Fn => {
  const [words, panel] = [buffer('words', 'i16', length, 'out'), buffer('panel', 'i8', length, 'const')];
  const s = index('s', length / STEP);
  const body = list(STEP / (2 * BLOCK), (columns) => {
    const [a, b, even, odd] = ['a', 'b', 'even', 'odd'].map((part) => variable(part, 'i16', BLOCK));
    const pairs = (half: 0 | 1) => store(at(words, half * (STEP / 2) + columns * BLOCK, [s, STEP]), zip(half, 2, even, odd));
    return [
      set(a, load(at(panel, columns * 2 * BLOCK, [s, STEP]), BLOCK, 'i16')), set(b, load(at(panel, (columns * 2 + 1) * BLOCK, [s, STEP]), BLOCK, 'i16')),
      set(even, zip(0, 2, a, b)), set(odd, zip(1, 2, a, b)), pairs(0), pairs(1),
    ];
  }).flat();
  return fn(name, { buffers: [words, panel] }, [loop(s, body)]);
};
