/**
 * Which loops of a step may be shared among threads. A step with such a loop is entered by every thread, each with scratch memory of its
 * own: what stands outside the marked loops writes scratch memory only, and so may be done by all; a marked loop writes results, no
 * iteration what another one reads or writes. Every code is computed by one thread, in the way one thread alone would compute it.
 */
import { index, loop } from '../../loops/build.ts';
import type { Mark, Stmt } from '../../loops/types.ts';
import type { Target } from './target.ts';

/** Multiply-accumulates of one lane below which a step is not worth the meeting of threads after it: some microseconds of work. */
const SPLIT_MACS = 2 ** 17;
/** Lanes of the narrowest vectors; compilers find about as many where there are none. */
const FEWEST_LANES = 4;
export const splitMacs = ({ lanes }: Target): number => SPLIT_MACS * Math.max(FEWEST_LANES, lanes);

/** The mark of loops in a step of so many multiply-accumulates. */
export const markFor = (macs: number, target: Target): Mark | null => (macs >= splitMacs(target) ? 'parallel' : null);
/** Statements beside marked loops that write results: the work of one thread. */
export const once = (stmts: readonly Stmt[], mark: Mark | null): readonly Stmt[] => (mark === null || stmts.length === 0 ? stmts : [loop(index('once', 1), stmts, mark)]);
