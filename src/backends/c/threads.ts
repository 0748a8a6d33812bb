/**
 * Threads in the C: all of them run the whole program. In a step that is split each takes its share of the marked loops, with scratch
 * memory of its own; every other step is the first thread's; before and after steps that they share they meet. No function is called through a pointer and
 * nothing is kept between runs. Where `LB_THREADED` is not defined, the macros leave the program as one thread runs it.
 */
import type { Stmt } from '../../loops/types.ts';

/**
 * The head of a shared loop. Each thread takes iterations side by side, for neighbours write into the same lines of the cache; what is done
 * once is the last thread's, since the first ones have the odd iterations.
 */
export const sharedHead = ({ index: { count } }: Extract<Stmt, { s: 'for' }>, name: string): string =>
  (count === 1 ? `for (int32_t ${name} = LB_ONCE; ${name} < 1; ${name}++)` : `LB_SHARE for (int32_t ${name} = 0; ${name} < ${count}; ${name}++)`);

/** What shared functions are printed with. */
export const sharingText = `\
#ifndef LB_PART
#if defined(LB_THREADED)
#define LB_PART int32_t lb_thread, int32_t lb_threads,
#define LB_SELF lb_thread, lb_threads,
#define LB_USED (void)lb_thread; (void)lb_threads;
/* Of the iterations of the loop that follows each thread takes an equal part side by side. */
#define LB_SHARE _Pragma("omp for schedule(static) nowait")
#define LB_ONCE (lb_threads - 1 - lb_thread)
#define LB_ALONE if (lb_thread == 0)
#define LB_MEET _Pragma("omp barrier")
#else
#define LB_PART
#define LB_SELF
#define LB_USED
#define LB_SHARE
#define LB_ONCE 0
#define LB_ALONE
#define LB_MEET
#endif
#endif`;
