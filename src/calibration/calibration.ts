/**
 * The calibration of one compilation: the sample set, and facts measured on it. Each fact is computed once for a graph and kept by the
 * graph's identity, so passes may ask again freely.
 */
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { constantOf, operandsOf, type Graph } from '../ir/graph.ts';
import { klRange, minMaxRange, mseRange, percentileRange, type Range } from './range.ts';
import type { Samples } from './samples.ts';
import { channelMeans, channelSecondMoments, collectStatistics, type Statistics, type StatisticsOptions, type ValueStatistics } from './statistics.ts';

/** The range of a value over the samples, after the chosen clipping. */
export interface ValueRange {
  readonly low: number;
  readonly high: number;
  /** for a graph input that the caller hands in as integers: their type */
  readonly codes?: 'u8' | 'i16';
}

export interface RangeRequest {
  readonly method: 'min-max' | 'percentile' | 'mse' | 'kl';
  /** width of the codes that the range is meant for, for `mse` and `kl` */
  readonly bits: number;
  /** share of values inside, for `percentile` */
  readonly percentile: number;
  /** of the codes, for `mse` and `kl`; affine by default */
  readonly form?: 'affine' | 'symmetric';
}

/** What the channels of a value are like; one number for each index of the last axis. */
export interface ChannelMoments {
  readonly low: Float64Array;
  readonly high: Float64Array;
  readonly mean: Float64Array;
  /** E[x²] */
  readonly squares: Float64Array;
}

export interface Calibration {
  readonly samples: Samples;
  ranges(graph: Graph<'float'>, request: RangeRequest): Promise<ReadonlyMap<string, ValueRange>>;
  /** least and greatest number of each last-axis channel of every value */
  channelRanges(graph: Graph<'float'>): Promise<ReadonlyMap<string, { readonly low: Float64Array; readonly high: Float64Array }>>;
  /** the same with the mean and the mean square of each channel, over the first `count` samples where that is given */
  channelMoments(graph: Graph<'float'>, count?: number): Promise<ReadonlyMap<string, ChannelMoments>>;
  /** takes these as the moments of a graph, from a pass that knows how it changed them */
  adoptMoments(graph: Graph<'float'>, moments: ReadonlyMap<string, ChannelMoments>): void;
  /** says that a graph computes the same values, by name, as another: what is measured on one holds for both; absent where nothing is kept */
  sameValues?(graph: Graph<'float'>, as: Graph<'float'>): void;
  /** mean of each last-axis channel of every value, over the first `count` samples */
  channelMeans(graph: Graph<'float'>, count: number): Promise<ReadonlyMap<string, Float64Array>>;
}

export interface CalibrationOptions {
  /** the integer type of the data that the caller hands to the graph's real inputs; null when it hands in real numbers */
  readonly data: 'u8' | 'i16' | null;
  /** null: as many as pay, at most four */
  readonly threads: number | null;
  readonly onProgress?: (label: string, done: number, total: number) => void;
}

export const createCalibration = (samples: Samples, { data, threads, onProgress }: CalibrationOptions): Calibration & { close(): Promise<void> } => {
  const known = new WeakMap<Graph, Map<string, Promise<Statistics>>>();
  const adopted = new WeakMap<Graph, ReadonlyMap<string, ChannelMoments>>();
  const statisticsOf = (graph: Graph<'float'>, key: string, options: StatisticsOptions): Promise<Statistics> => {
    const facts = known.get(graph) ?? new Map<string, Promise<Statistics>>();
    known.set(graph, facts);
    const found = facts.get(key) ?? collectStatistics(graph, samples, {
      ...options, ...(threads === null ? {} : { threads }), progress: (done, total) => onProgress?.('calibrate', done, total),
    });
    facts.set(key, found);
    return found;
  };
  /** Extremes and moments; with a histogram where some method has asked for one. */
  const whole = (graph: Graph<'float'>, histogram: boolean): Promise<Statistics> =>
    known.get(graph)?.get('histogram') ?? statisticsOf(graph, histogram ? 'histogram' : 'plain', { histogram });
  const first = (graph: Graph<'float'>, count: number): Promise<Statistics> =>
    (count >= samples.count ? whole(graph, false) : statisticsOf(graph, `first ${count}`, { count }));
  return {
    samples,
    async ranges(graph, request) {
      checkNumbers(graph);
      const statistics = await whole(graph, request.method !== 'min-max');
      checkRanges(graph, statistics);
      const inputs = new Set(graph.inputs.map(({ name }) => name));
      return new Map([...statistics].map(([name, seen]) =>
        [name, { ...rangeBy(request, seen), ...(data !== null && inputs.has(name) ? { codes: data } : {}) }]));
    },
    async channelRanges(graph) {
      return new Map([...(await whole(graph, false))].map(([name, { channels: { low, high } }]) => [name, { low, high }]));
    },
    async channelMoments(graph, count) {
      const moved = count === undefined ? adopted.get(graph) : undefined;
      return moved ?? new Map([...(await first(graph, count ?? samples.count))].map(([name, seen]) =>
        [name, { low: seen.channels.low, high: seen.channels.high, mean: channelMeans(seen), squares: channelSecondMoments(seen) }]));
    },
    adoptMoments(graph, moments) {
      adopted.set(graph, moments);
    },
    sameValues(graph, as) {
      const facts = known.get(as) ?? new Map<string, Promise<Statistics>>();
      known.set(as, facts);
      known.set(graph, facts);
      const moments = adopted.get(as);
      if (moments !== undefined) adopted.set(graph, moments);
    },
    async channelMeans(graph, count) {
      return new Map([...(await first(graph, count))].map(([name, seen]) => [name, channelMeans(seen)]));
    },
    close: () => Promise.resolve(),
  };
};

/** A NaN among the weights makes all that follows NaN, which no range shows. */
const checkNumbers = (graph: Graph<'float'>): void => {
  for (const node of graph.nodes) {
    if (operandsOf(node).some((value) => holdsNaN(constantOf(value)?.data ?? []))) throw new CompileError(errors.weightNotANumber(node));
  }
};

/** In a plain loop: `some` takes as long as a sample. */
const holdsNaN = (data: ArrayLike<unknown>): boolean => {
  if (!(data instanceof Float32Array || data instanceof Float64Array)) return false;
  for (let i = 0; i < data.length; i++) if (data[i] !== data[i]) return true;
  return false;
};

/** An infinite range has no scale. */
const checkRanges = (graph: Graph<'float'>, statistics: Statistics): void => {
  for (const node of graph.nodes) {
    const seen = statistics.get(node.output.name);
    if (seen !== undefined && !(Number.isFinite(seen.low) && Number.isFinite(seen.high))) throw new CompileError(errors.notFiniteRange(node, node.output.name));
  }
};

const rangeBy = ({ method, bits, percentile, form }: RangeRequest, seen: ValueStatistics): Range =>
  method === 'min-max' ? minMaxRange(seen) : method === 'percentile' ? percentileRange(seen, percentile)
    : method === 'kl' ? klRange(seen, bits, form) : mseRange(seen, bits, form);
