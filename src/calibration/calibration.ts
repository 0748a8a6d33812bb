/**
 * The calibration of one compilation: the sample set, and facts measured on it. Each fact is computed once for a graph and kept by the
 * graph's identity, so passes may ask again freely.
 */
import type { Graph } from '../ir/graph.ts';
import type { Samples } from './samples.ts';

/** The range of a value over the samples, after the chosen clipping. */
export interface ValueRange {
  readonly low: number;
  readonly high: number;
  /** for a graph input that the caller hands in as integers: their type */
  readonly codes?: 'u8' | 'i16';
}

export interface RangeRequest {
  readonly method: 'min-max' | 'percentile' | 'mse';
  /** width of the codes that the range is meant for, for `mse` */
  readonly bits: number;
  /** share of values inside, for `percentile` */
  readonly percentile: number;
}

export interface Calibration {
  readonly samples: Samples;
  ranges(graph: Graph<'float'>, request: RangeRequest): Promise<ReadonlyMap<string, ValueRange>>;
  /** least and greatest number of each last-axis channel of every value */
  channelRanges(graph: Graph<'float'>): Promise<ReadonlyMap<string, { readonly low: Float64Array; readonly high: Float64Array }>>;
  /** mean of each last-axis channel of every value, over all samples */
  channelMeans(graph: Graph<'float'>): Promise<ReadonlyMap<string, Float64Array>>;
}
