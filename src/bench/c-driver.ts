/**
 * The C side of a measurement: text of a `main` that runs items on command as `side.ts` says. It is no part of any artefact. Wall time
 * decides best and median; CPU time of the thread tells what a run takes where other processes want the core too.
 */

export interface CDriver {
  /** includes and definitions above the items; may read `lb_data`, the bytes of the file that is the first argument of the program */
  readonly definitions: string;
  /** one expression for each item: a function without parameters, or 0 where this machine cannot run it; evaluated in `main` */
  readonly items: readonly string[];
  /** bytes of the data file */
  readonly dataBytes: number;
  /** whether the first run of item 0 is what `ready` tells the time of */
  readonly timesStart: boolean;
}

/** Every piece of the data and every buffer begins at a multiple of this. */
export const CACHE_LINE = 64;
/** A batch of runs takes at least this long, so that reading the clocks costs nothing beside it. */
export const BATCH_NS = 100_000;

/** What the program must be compiled with beside its optimisation: the clocks of POSIX. */
export const driverText = ({ definitions, items, dataBytes, timesStart }: CDriver): string => `\
#define _POSIX_C_SOURCE 199309L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LB_ALIGNED __attribute__((aligned(${CACHE_LINE})))
static uint8_t lb_data[${dataBytes + 1}] LB_ALIGNED;

${definitions}

enum { ITEMS = ${items.length}, KEPT = 1024 };
static void (*items[ITEMS])(void);
static double *kept;

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static int64_t wall(void) { return clock_ns(CLOCK_MONOTONIC); }

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
/* count: all times taken; at most KEPT of them are kept */
static void answer(int64_t runs, double *times, int64_t count, double best, double cpu)
{
    int64_t n = count < KEPT ? count : KEPT;
    qsort(times, (size_t)n, sizeof *times, ascending);
    printf("%lld %.1f %.1f %.1f\\n", (long long)runs, best, times[n / 2], cpu);
}

static void each(int number, int64_t span)
{
    void (*run)(void) = items[number];
    int64_t batch = 1, count = 0, begin, cpu;
    double best = 0;
    if (run == 0) {
        puts("0 0 0 -1");
        return;
    }
    for (;;) {
        int64_t t = wall();
        for (int64_t i = 0; i < batch; i++) run();
        t = wall() - t;
        if (t >= ${BATCH_NS}) break;
        batch *= t < ${BATCH_NS / 10} ? 8 : 2;
    }
    begin = wall();
    cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    do {
        int64_t t = wall();
        double one;
        for (int64_t i = 0; i < batch; i++) run();
        one = (double)(wall() - t) / (double)batch;
        if (count == 0 || one < best) best = one;
        if (count < KEPT) kept[count] = one;
        count++;
    } while (count < 3 || wall() - begin < span);
    cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    answer(count * batch, kept, count, best, (double)cpu / (double)(count * batch));
}

static void chain(int64_t span)
{
    static double best[ITEMS];
    int64_t count = 0, begin = wall(), reading = 1000000;
    for (int i = 0; i < 100; i++) {
        int64_t t = wall();
        t = wall() - t;
        if (t < reading) reading = t;
    }
    do {
        int64_t from = wall();
        for (int i = 0; i < ITEMS; i++) {
            int64_t to;
            double one;
            items[i]();
            to = wall();
            one = (double)(to - from > reading ? to - from - reading : 0);
            if (count == 0 || one < best[i]) best[i] = one;
            if (count < KEPT) kept[(int64_t)i * KEPT + count] = one;
            from = to;
        }
        count++;
    } while (count < 3 || wall() - begin < span);
    for (int i = 0; i < ITEMS; i++) answer(count, kept + (int64_t)i * KEPT, count, best[i], -1);
}

int main(int count, char **arguments)
{
    char word[16];
    FILE *file = count > 1 ? fopen(arguments[1], "rb") : 0;
    int64_t start = 0;
    if (${dataBytes === 0 ? '0' : `file == 0 || fread(lb_data, 1, ${dataBytes}, file) != ${dataBytes}`}) {
        fputs("the data file cannot be read\\n", stderr);
        return 1;
    }
    if (file != 0) fclose(file);
${items.map((item, i) => `    items[${i}] = ${item};`).join('\n')}
${timesStart ? '    start = wall();\n    items[0]();\n    start = wall() - start;\n' : ''}\
    kept = calloc((size_t)ITEMS * KEPT, sizeof *kept);
    if (kept == 0) return 1;
    printf("ready %lld\\n", (long long)start);
    fflush(stdout);
    while (scanf("%15s", word) == 1) {
        long long span;
        int number = 0;
        if (strcmp(word, "each") == 0 && scanf("%d %lld", &number, &span) == 2 && number >= 0 && number < ITEMS) each(number, span);
        else if (strcmp(word, "chain") == 0 && scanf("%lld", &span) == 1) chain(span);
        else return 1;
        fflush(stdout);
    }
    return 0;
}
`;
