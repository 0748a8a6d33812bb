/**
 * Histograms of fixed size whose bins are powers of two wide: bin k of width 2^e holds [k·2^e, (k+1)·2^e). When the values spread beyond
 * the bins, neighbours merge and e grows by one. The finest e is used at which all values fit, so the result depends on the values
 * alone, not on their order or on how partial histograms were merged.
 */
import { countBins } from '../numerics/channel-statistics.ts';
import { powerOfTwo } from '../numerics/real-math.ts';

export const BINS = 4096;
/** float32 has 24 significant bits: with more bins between 0 and the largest value they would only be empty. */
const GREATEST_INDEX = 2 ** 24;
/** Exponent of the least positive float32. */
const FINEST = -149;

export interface Histogram {
  /** width of a bin is 2^exponent */
  readonly exponent: number;
  /** counts[i] belongs to bin first + i */
  readonly first: number;
  readonly counts: Float64Array;
}

export const binWidth = ({ exponent }: Histogram): number => powerOfTwo(exponent);

/** The finest exponent, not below `exponent`, at which [low, high] takes at most BINS bins with indices that are not too large. */
const exponentFor = (low: number, high: number, exponent: number): number => {
  const fits = (e: number): boolean => {
    const [first, last] = [Math.floor(low * powerOfTwo(-e)), Math.floor(high * powerOfTwo(-e))];
    return last - first < BINS && first >= -GREATEST_INDEX && last < GREATEST_INDEX;
  };
  // what fits at e fits at e + 1, so larger strides may come first
  let e = exponent;
  for (let stride = 64; stride >= 1; stride /= 2) while (!fits(e + stride - 1)) e += stride;
  return e;
};

export const emptyHistogram = (): Histogram => ({ exponent: FINEST, first: 0, counts: new Float64Array(0) });

/** The histogram with room for [low, high]: itself, or a coarser or shifted one. */
const widened = (histogram: Histogram, low: number, high: number): Histogram => {
  const { counts, first, exponent } = histogram;
  const [from, to] = counts.length === 0 ? [low, high]
    : [Math.min(low, first * powerOfTwo(exponent)), Math.max(high, (first + counts.length - 1) * powerOfTwo(exponent))];
  const e = exponentFor(from, to, exponent);
  const [start, end] = [Math.floor(from * powerOfTwo(-e)), Math.floor(to * powerOfTwo(-e))];
  if (e === exponent && start === first && end === first + counts.length - 1) return histogram;
  const wide = new Float64Array(end - start + 1);
  addJoined(wide, { first: start, exponent: e }, histogram);
  return { exponent: e, first: start, counts: wide };
};

/** Counts the elements of `data`, whose least and greatest are `low` and `high`. The counts of `histogram` may be reused. */
export const addToHistogram = (histogram: Histogram, data: Float32Array, low: number, high: number): Histogram => {
  if (data.length === 0) return histogram;
  const wide = widened(histogram, low, high);
  countBins(data, powerOfTwo(-wide.exponent), wide.first, wide.counts);
  return wide;
};

export const mergeHistograms = (a: Histogram, b: Histogram): Histogram => {
  if (b.counts.length === 0) return a;
  if (a.counts.length === 0) return b;
  // bins of the coarser one may be joined further, never split
  const [fine, coarse] = a.exponent < b.exponent ? [a, b] : [b, a];
  const wide = widened(coarse, fine.first * binWidth(fine), (fine.first + fine.counts.length - 1) * binWidth(fine));
  const counts = wide.counts.slice();
  addJoined(counts, wide, fine);
  return { ...wide, counts };
};

/** Adds the counts of `from` to those of coarser bins. */
const addJoined = (counts: Float64Array, { first, exponent }: Pick<Histogram, 'first' | 'exponent'>, from: Histogram): void => {
  const ratio = powerOfTwo(from.exponent - exponent);
  if (ratio === 1) {
    for (let i = 0, to = from.first - first; i < from.counts.length; i++, to++) counts[to] += from.counts[i];
    return;
  }
  for (let i = 0; i < from.counts.length; i++) counts[Math.floor((from.first + i) * ratio) - first] += from.counts[i];
};

export const totalOf = ({ counts }: Histogram): number => counts.reduce((sum, count) => sum + count, 0);
