/**
 * How a range is taken from what was seen of a value. Pure functions. Every range holds 0, so that padding and ReLU are exact.
 */
import { log } from '../numerics/real-math.ts';
import { binWidth, totalOf, type Histogram } from './histogram.ts';

export interface Range {
  readonly low: number;
  readonly high: number;
}
/** What a range is chosen from. */
export interface Seen extends Range {
  readonly histogram: Histogram;
}

const withZero = (low: number, high: number): Range => ({ low: Math.min(low, 0), high: Math.max(high, 0) });
const symmetric = ({ low, high }: Range): Range => ({ low: -Math.max(-low, high), high: Math.max(-low, high) });

/** From the least to the greatest value seen: nothing saturates on the samples, and one outlier sets the step for all. */
export const minMaxRange = ({ low, high }: Range): Range => withZero(low, high);

/**
 * The least range outside of which lies at most half of 1 − share of all values at either end. Cuts rare outliers whatever their size;
 * too much where rare values matter (logits, attention sinks).
 */
export const percentileRange = ({ low, high, histogram }: Seen, share: number): Range => {
  const { counts, first } = histogram;
  const allowed = (totalOf(histogram) * (1 - share)) / 2;
  const width = binWidth(histogram);
  let [from, to] = [0, counts.length - 1];
  for (let cut = counts[from] ?? 0; cut <= allowed && from < to; cut += counts[from]) from++;
  for (let cut = counts[to] ?? 0; cut <= allowed && to > from; cut += counts[to]) to--;
  return withZero(Math.max(low, (first + from) * width), Math.min(high, (first + to + 1) * width));
};

/** Steps in which a limit is drawn in by the search, as shares of the limit. */
const SEARCH_STEPS = 64;
/** A limit is drawn in to no less than this share. */
const LEAST_SHARE = 1 / 16;

/**
 * The range with the least mean squared rounding error at a width in bits, with each bin of the histogram taken at its middle: clipping
 * error traded against the step. The limits are searched one after the other on a grid, from the full range inwards (Choukroun et al.
 * 2019, Low-bit Quantization of Neural Networks for Efficient Inference).
 */
export const mseRange = (seen: Seen, bits: number, form: 'affine' | 'symmetric' = 'affine'): Range => {
  const full = minMaxRange(seen);
  const squaredErrors = errorsOf(seen.histogram);
  if (form === 'symmetric') {
    const widest = symmetric(full);
    const error = (share: number): number => squaredErrors({ low: widest.low * share, high: widest.high * share }, bits, form);
    const share = leastShare(error);
    return { low: widest.low * share, high: widest.high * share };
  }
  let { low, high } = full;
  // one limit does not depend on itself: only two need a second look at each other
  const rounds = full.low < 0 && full.high > 0 ? 2 : 1;
  for (let round = 0; round < rounds; round++) {
    if (full.high > 0) high = full.high * leastShare((share) => squaredErrors({ low, high: full.high * share }, bits, form));
    if (full.low < 0) low = full.low * leastShare((share) => squaredErrors({ low: full.low * share, high }, bits, form));
  }
  return { low, high };
};

const leastShare = (error: (share: number) => number): number => {
  let [best, least] = [1, error(1)];
  for (let step = 1; step < SEARCH_STEPS; step++) {
    const share = 1 - (step / SEARCH_STEPS) * (1 - LEAST_SHARE);
    const found = error(share);
    if (found < least) [best, least] = [share, found];
  }
  return best;
};

/** Share of all values that a bin counts as when a range leaves it empty but clipping puts values there. */
const EMPTY_SHARE = 1e-6;

/**
 * The range whose codes keep most of the distribution: least Kullback–Leibler divergence of the counts, those outside moved to the edge,
 * from the counts as codes see them, spread evenly over the bins of a code that hold any (Migacz 2017, 8-bit inference with TensorRT).
 * The bin of 0 is left out, which behind a ReLU would decide alone. Both limits are drawn in together.
 */
export const klRange = (seen: Seen, bits: number, form: 'affine' | 'symmetric' = 'affine'): Range => {
  const full = form === 'affine' ? minMaxRange(seen) : symmetric(minMaxRange(seen));
  const share = leastShare((part) => divergence(seen.histogram, { low: full.low * part, high: full.high * part }, bits, form));
  return { low: full.low * share, high: full.high * share };
};

const divergence = (histogram: Histogram, { low, high }: Range, bits: number, form: 'affine' | 'symmetric'): number => {
  const { first, counts } = histogram;
  const width = binWidth(histogram);
  const codes = form === 'affine' ? 2 ** bits - 1 : 2 ** bits - 2;
  const scale = (high - low) / codes / width;
  if (scale === 0) return 0;
  const inside = (bin: number): number => Math.min(counts.length - 1, Math.max(0, bin - first));
  const [from, to] = [inside(Math.floor(low / width)), inside(Math.ceil(high / width) - 1)];
  // counts with what lies outside at the edges
  const clipped = counts.slice(from, to + 1);
  for (let i = 0; i < from; i++) clipped[0] += counts[i];
  for (let i = to + 1; i < counts.length; i++) clipped[clipped.length - 1] += counts[i];
  const codeOf = (i: number): number => Math.floor((first + from + i + 0.5) / scale + 0.5);
  const [total, spread] = [new Float64Array(codes + 3), new Float64Array(codes + 3)];
  const origin = codeOf(0);
  const zeroBin = -first - from;
  let [all, kept] = [0, 0];
  for (let i = 0; i < clipped.length; i++) {
    if (i === zeroBin) continue;
    const count = counts[from + i];
    total[codeOf(i) - origin] += count;
    if (count > 0) spread[codeOf(i) - origin]++;
    all += clipped[i];
    kept += count;
  }
  if (all === 0) return 0;
  let sum = 0;
  for (let i = 0; i < clipped.length; i++) {
    if (i === zeroBin || clipped[i] === 0) continue;
    const code = codeOf(i) - origin;
    const [p, q] = [clipped[i] / all, counts[from + i] > 0 ? total[code] / spread[code] / kept : EMPTY_SHARE];
    sum += p * (log(p) - log(q));
  }
  return sum;
};

/** Sum over all counted values of (x − rounded x)², the rounding as the codes of `range` at `bits` would do it. */
export const squaredError = (histogram: Histogram, range: Range, bits: number, form: 'affine' | 'symmetric'): number => errorsOf(histogram)(range, bits, form);

/**
 * `squaredError` of one histogram. Values that share a code c lie in one run of bins, whose part of the sum is S₂ − 2·c·S₁ + c²·S₀ with the
 * moments of the run, so that the work is that of the codes and not of the bins. Numbers are in units of a bin.
 */
const errorsOf = (histogram: Histogram): ((range: Range, bits: number, form: 'affine' | 'symmetric') => number) => {
  const { first, counts } = histogram;
  const bins = counts.length;
  // of the bins before each: how many values, the sum of their middles and that of the squares of these
  const [zeroth, linear, square] = Array.from({ length: 3 }, () => new Float64Array(bins + 1));
  for (let i = 0; i < bins; i++) {
    const middle = first + i + 0.5;
    zeroth[i + 1] = zeroth[i] + counts[i];
    linear[i + 1] = linear[i] + counts[i] * middle;
    square[i + 1] = square[i] + counts[i] * middle * middle;
  }
  const width = binWidth(histogram);
  return (range, bits, form) => {
    const codes = form === 'affine' ? 2 ** bits - 1 : 2 ** bits - 2;
    const { low, high } = form === 'affine' ? withZero(range.low, range.high) : symmetric(range);
    const scale = (high - low) / codes / width;
    if (scale === 0) return 0;
    const lowest = Math.floor(low / width / scale + 0.5);
    let sum = 0;
    for (let code = lowest, from = 0; from < bins; code++) {
      // the first bin whose middle is nearer to the next code
      const to = code === lowest + codes ? bins : Math.min(bins, Math.max(from, Math.ceil((code + 0.5) * scale - first - 0.5)));
      const value = code * scale;
      sum += square[to] - square[from] - 2 * value * (linear[to] - linear[from]) + value * value * (zeroth[to] - zeroth[from]);
      from = to;
    }
    return Math.max(0, sum) * width * width;
  };
};
