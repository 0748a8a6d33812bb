/**
 * Which loops of a step may be shared among threads. A step with such a loop is entered by every thread, each with scratch memory of its
 * own: what stands outside the marked loops writes scratch memory only, and so may be done by all; a marked loop writes results, no
 * iteration what another one reads or writes. Every code is computed by one thread, in the way one thread alone would compute it.
 */
import { index, loop } from '../../loops/build.ts';
import type { Mark, Stmt } from '../../loops/types.ts';
import type { Target } from './target.ts';

/** Dot products of vectors below which a step is not worth the meeting of threads after it and the way of its results to another core: some microseconds of work. */
const SPLIT_PRODUCTS = 2 ** 16;
/** Products that the narrowest vectors take at a time; compilers find about as many where there are none. */
const FEWEST_PRODUCTS = 8;
const productsOf = ({ lanes, quads }: Target): number => Math.max(FEWEST_PRODUCTS, lanes * (quads === 'u8' || quads === 'i8' ? 4 : 2));

/** The mark of loops in a step of so many multiply-accumulates and codes that are rescaled, each for as long as half a dot product of vectors. */
export const markFor = (macs: number, codes: number, target: Target): Mark | null =>
  (macs + (codes * productsOf(target)) / 2 >= SPLIT_PRODUCTS * productsOf(target) ? 'parallel' : null);
/** Statements beside marked loops that write results: the work of one thread. */
export const once = (stmts: readonly Stmt[], mark: Mark | null): readonly Stmt[] => (mark === null || stmts.length === 0 ? stmts : [loop(index('once', 1), stmts, mark)]);
