/**
 * Threads in the C: all of them run the whole program. In a step that is split each takes its share of the marked loops, with scratch
 * memory of its own; every other step is the first thread's; after each step they meet. No function is called through a pointer and
 * nothing is kept between runs. Where `LB_THREADED` is not defined, the macros leave the program as one thread runs it.
 */
import type { Stmt } from '../../loops/types.ts';

/** The head of a shared loop; what is done once is the last thread's, since the first has the odd iterations. */
export const sharedHead = ({ index: { count } }: Extract<Stmt, { s: 'for' }>, name: string): string =>
  (count === 1 ? `for (int32_t ${name} = LB_ONCE; ${name} < 1; ${name}++)` : `for (int32_t ${name} = LB_FIRST; ${name} < ${count}; ${name} += LB_STEP)`);

/** What shared functions are printed with. */
export const sharingText = `\
#ifndef LB_PART
#if defined(LB_THREADED)
/* Loops that threads share: each takes every LB_STEP-th iteration. */
#define LB_PART int32_t lb_thread, int32_t lb_threads,
#define LB_SELF lb_thread, lb_threads,
#define LB_USED (void)lb_thread; (void)lb_threads;
#define LB_FIRST lb_thread
#define LB_STEP lb_threads
#define LB_ONCE (lb_threads - 1 - lb_thread)
#define LB_ALONE if (lb_thread == 0)
#define LB_MEET _Pragma("omp barrier")
#else
#define LB_PART
#define LB_SELF
#define LB_USED
#define LB_FIRST 0
#define LB_STEP 1
#define LB_ONCE 0
#define LB_ALONE
#define LB_MEET
#endif
#endif`;
