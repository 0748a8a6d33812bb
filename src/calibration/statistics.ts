/**
 * What each value of a graph looks like over a sample set, gathered in one run over the samples in memory that does not grow with their
 * number: extremes, moments and a histogram, and extremes and moments of each channel (the last axis).
 *
 * Samples are taken in blocks of a fixed size, summed within a block and then block by block, so that the result has the same bits
 * with any number of threads.
 */
import type { Graph, Value } from '../ir/graph.ts';
import { realType, type Tensor } from '../ir/type.ts';
import { channelStatistics, type ChannelSums } from '../numerics/channel-statistics.ts';
import { addToHistogram, emptyHistogram, mergeHistograms, type Histogram } from './histogram.ts';
import { defineJob, mapSamples, type MapOptions } from './pool.ts';
import type { Samples } from './samples.ts';

export interface ValueStatistics {
  /** elements seen, over all samples */
  readonly count: number;
  readonly low: number;
  readonly high: number;
  /** of each index of the last axis */
  readonly channels: ChannelSums;
  /** empty unless asked for */
  readonly histogram: Histogram;
}

export interface StatisticsOptions extends MapOptions {
  /** names of the values that are wanted; all real ones by default */
  readonly values?: readonly string[];
  readonly histogram?: boolean;
}

/** Largest absolute value seen. */
export const absoluteMax = ({ low, high }: Pick<ValueStatistics, 'low' | 'high'>): number => Math.max(-low, high);
const perChannel = ({ count, channels: { sum } }: ValueStatistics): number => count / sum.length;
export const channelMeans = (statistics: ValueStatistics): Float64Array => statistics.channels.sum.map((sum) => sum / perChannel(statistics));
/** E[x²] of each channel. */
export const channelSecondMoments = (statistics: ValueStatistics): Float64Array => statistics.channels.squares.map((sum) => sum / perChannel(statistics));

export type Statistics = ReadonlyMap<string, ValueStatistics>;

export const collectStatistics = async (graph: Graph<'float' | 'quant'>, samples: Samples, options: StatisticsOptions = {}): Promise<Statistics> => {
  const argument: Wanted = { values: options.values ?? null, histogram: options.histogram ?? false };
  const total = new Map<string, ValueStatistics>();
  await mapSamples(graph, samples, statisticsJob, argument, (block) => {
    for (const [name, part] of block) {
      const known = total.get(name);
      total.set(name, known === undefined ? part : merge(known, part));
    }
  }, options);
  return total;
};

interface Wanted {
  readonly values: readonly string[] | null;
  readonly histogram: boolean;
}

export const statisticsJob = defineJob(import.meta.url, 'statisticsJob', ({ values, histogram }: Wanted) => {
  const wanted = values === null ? null : new Set(values);
  const found = new Map<string, ValueStatistics>();
  return {
    sample: (executor, sample) => {
      executor.run(sample, (value: Value, tensor: Tensor) => {
        if (realType(value.type).dtype !== 'f32' || (wanted !== null && !wanted.has(value.name))) return;
        const one = describe(tensor.data as Float32Array, tensor.type.shape.at(-1) as number | undefined ?? 1);
        const known = found.get(value.name);
        const next = known === undefined ? one : merge(known, one);
        found.set(value.name, !histogram ? next
          : { ...next, histogram: addToHistogram(known?.histogram ?? emptyHistogram(), tensor.data as Float32Array, one.low, one.high) });
      });
    },
    finish: () => found,
  };
});

/** Statistics of one tensor, without histogram. */
const describe = (data: Float32Array, channels: number): ValueStatistics => {
  const sums = channelStatistics(data, channels);
  return { count: data.length, low: least(sums.low), high: greatest(sums.high), channels: sums, histogram: emptyHistogram() };
};

const least = (list: Float64Array): number => {
  let found = Infinity;
  for (const x of list) if (x < found) found = x;
  return found;
};
const greatest = (list: Float64Array): number => {
  let found = -Infinity;
  for (const x of list) if (x > found) found = x;
  return found;
};

/** Both together. The channels of `a` are reused for the result. */
const merge = (a: ValueStatistics, b: ValueStatistics): ValueStatistics => {
  const [x, y] = [a.channels, b.channels];
  for (let c = 0; c < x.sum.length; c++) {
    if (y.low[c] < x.low[c]) x.low[c] = y.low[c];
    if (y.high[c] > x.high[c]) x.high[c] = y.high[c];
    x.sum[c] += y.sum[c];
    x.squares[c] += y.squares[c];
  }
  return { count: a.count + b.count, low: Math.min(a.low, b.low), high: Math.max(a.high, b.high), channels: x, histogram: mergeHistograms(a.histogram, b.histogram) };
};
