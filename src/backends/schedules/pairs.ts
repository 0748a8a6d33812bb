/**
 * Panels of quads.ts brought into the order of gemm.ts: from [K/4][16 columns][4] bytes to [K/2][16 columns][2] words. Products of pairs of
 * words leave one sum for each column then, where quads leave two, which every row of a tile would join before it is rescaled. A panel
 * is put in order once for all rows that pass over it.
 */
import { at, buffer, fn, index, list, load, loop, set, store, variable, zip } from '../../loops/build.ts';
import type { Fn, Index, Stmt } from '../../loops/types.ts';
import type { Walk } from './gemm.ts';
import { product } from './kernel.ts';
import { PANEL, STEP } from './quad-panel.ts';
import type { Target } from './target.ts';

/** Words of a vector of one 16-byte block, in which `zip` keeps the order. */
const BLOCK = 8;
/** Panels of more taps would not stay near the core beside the rows; those of several segments are read in more and shorter loops. */
const [DEEPEST, DEEPEST_SEGMENTS] = [192, 128];
/** Rows, and bytes of them, that should share a panel in order. */
const [SHARING_ROWS, SHARING_BYTES] = [256, 98304];

/** Neighbours along K of a segment that are multiplied: whole pairs. */
const pairedRun = ({ run }: Walk): number => run + (run % 2);
/** The same walk over a panel in order. */
export const pairedWalk = (walk: Walk): Walk => ({ ...walk, padded: pairedRun(walk), quads: null });
/**
 * Words of a panel in order; null where there is no whole one or that does not pay for so many rows. Putting a tap in order takes about what a hundred rows save by it:
 * each row saves the widening of its share of the panel, which goes with the taps, and the joining of sums, which counts as much as a hundred taps.
 */
export const pairsLength = (walk: Walk, rows: number, columns: number, { ordersPairs }: Target): number | null => {
  const depth = product(walk.counts) * pairedRun(walk);
  const pays = depth <= (walk.counts.length === 0 ? DEEPEST : DEEPEST_SEGMENTS) && rows * (depth + 100) >= 100 * depth;
  return ordersPairs && columns >= PANEL && walk.bits === 8 && walk.quads?.a === 'i16' && pays ? depth * PANEL : null;
};
/** Rows to widen at a time, as few blocks of equal height, where they pass over panels in order; null where they do not. */
export const rowsInOrder = (walk: Walk, rows: number, columns: number, height: number, target: Target): number | null => {
  const most = Math.min(SHARING_ROWS, Math.floor(SHARING_BYTES / (2 * walk.padded)));
  const block = Math.ceil(rows / Math.ceil(rows / most) / height) * height;
  return pairsLength(walk, Math.min(rows, block), columns, target) === null ? null : Math.min(rows, block);
};

/** What `orderPairsFn` is made for. */
export interface PairOrder {
  readonly segments: number;
  /** codes of a segment of a panel, and of them those that whole pairs of `run` need */
  readonly stored: number;
  readonly needed: number;
}
export const pairOrder = (walk: Walk): PairOrder => ({ segments: product(walk.counts), stored: walk.padded * PANEL, needed: pairedRun(walk) * PANEL });

/** A panel put in order: 4×2 pairs are transposed at a time. */
export const orderPairsFn = (name: string, { segments, stored, needed }: PairOrder): Fn => {
  const [words, panel] = [buffer('words', 'i16', segments * needed, 'out'), buffer('panel', 'i8', segments * stored, 'const')];
  const [o, s] = [index('segment', segments), index('s', Math.max(1, Math.floor(needed / STEP)))];
  const step = (first: number, halves: readonly (0 | 1)[], terms: readonly (readonly [Index, number])[]): readonly Stmt[] => list(STEP / (2 * BLOCK), (columns) => {
    const [a, b, even, odd] = ['a', 'b', 'even', 'odd'].map((part) => variable(part, 'i16', BLOCK));
    const codes = (at_: number) => load(at(panel, first + at_, [o, stored], ...terms), BLOCK, 'i16');
    return [
      set(a, codes(columns * 2 * BLOCK)), set(b, codes((columns * 2 + 1) * BLOCK)), set(even, zip(0, 2, a, b)), set(odd, zip(1, 2, a, b)),
      ...halves.map((half) => store(at(words, first + half * (STEP / 2) + columns * BLOCK, [o, needed], ...terms), zip(half, 2, even, odd))),
    ];
  }).flat();
  return fn(name, { buffers: [words, panel] }, [loop(o, [
    ...(needed < STEP ? [] : [loop(s, step(0, [0, 1], [[s, STEP]]))]), ...(needed % STEP === 0 ? [] : step(needed - (needed % STEP), [0], [])),
  ])]);
};
