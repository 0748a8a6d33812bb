/**
 * Candidates for the scales of a site. Each family is one published rule with its parameter on a grid; they compete on one loss.
 *
 *     threshold   s = max(1, h/t)               Wei et al. 2023, Outlier Suppression+: only channels beyond t are touched
 *     power       s = h^α / m^(1 − α)           Xiao et al. 2023, SmoothQuant: part of the range moves into the weights
 *     equal       s = h / mean(h)               Li et al. 2023, RepQ-ViT: all channels get one range
 *     layers      s = √(r/m)                    Nagel et al. 2019: rows of the producer and columns of the readers get one range
 *
 * with h the half-range of a channel, m the largest weight that reads it (or the half-range of the channel that it is multiplied by), r
 * the largest weight that makes it.
 */
import { pow } from '../../numerics/real-math.ts';

/** Of the classes of a site. */
export interface Magnitudes {
  readonly halfRange: Float64Array;
  /** largest weight that reads the class, or half-range of the channels whose scales go against it */
  readonly opposite: Float64Array;
  /** largest weight of the rows that make the class; null where something else than a layer makes it */
  readonly producer: Float64Array | null;
  /** whether scales of the opposite channels are inverse: both sides may have outliers */
  readonly reciprocal: boolean;
}

export interface Candidate {
  readonly family: 'none' | 'threshold' | 'power' | 'equal' | 'layers';
  readonly parameter: number;
  readonly scale: Float64Array;
}

/** Thresholds tried from the largest half-range down to this share of it, evenly spaced in their logarithm. */
const LEAST_THRESHOLD = 1 / 256;
const THRESHOLDS = 40;
/** A channel counts with at least this share of the largest half-range: nearly dead channels must not be blown up. */
const LEAST_SHARE = 1 / 256;
const POWERS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

const largestOf = (list: Float64Array): number => list.reduce((most, x) => Math.max(most, x), 0);

export const noScale = (size: number): Candidate => ({ family: 'none', parameter: 0, scale: new Float64Array(size).fill(1) });

export const thresholdScale = (halfRange: Float64Array, threshold: number): Float64Array => halfRange.map((h) => Math.max(1, h / threshold));

/** s = |x|^α / |w|^(1 − α); channels without range, or that nothing reads, keep their scale. */
export const powerScale = (halfRange: Float64Array, opposite: Float64Array, alpha: number): Float64Array =>
  halfRange.map((h, c) => (h > 0 && opposite[c] > 0 ? pow(h, alpha) / pow(opposite[c], 1 - alpha) : 1));

const floored = (list: Float64Array): Float64Array => {
  const least = largestOf(list) * LEAST_SHARE;
  return list.map((x) => (x > 0 ? Math.max(x, least) : 0));
};

const meanOf = (list: Float64Array): number => {
  const some = list.filter((x) => x > 0);
  return some.reduce((sum, x) => sum + x, 0) / Math.max(1, some.length);
};

/** Every candidate but the identity, in a fixed order. */
export const candidatesFor = ({ halfRange, opposite, producer, reciprocal }: Magnitudes): readonly Candidate[] => {
  const h = floored(halfRange);
  const m = floored(opposite);
  const candidates: Candidate[] = [];
  const add = (family: Candidate['family'], parameter: number, scale: Float64Array): void => { candidates.push({ family, parameter, scale }); };
  for (let i = 1; i < THRESHOLDS; i++) {
    const share = pow(LEAST_THRESHOLD, i / (THRESHOLDS - 1));
    add('threshold', share, thresholdScale(h, largestOf(h) * share));
    if (reciprocal) add('threshold', -share, thresholdScale(m, largestOf(m) * share).map((s) => 1 / s));
  }
  for (const alpha of POWERS) add('power', alpha, powerScale(h, m, alpha));
  const mean = meanOf(h);
  add('equal', 1, h.map((x) => (x > 0 ? x / mean : 1)));
  if (producer !== null) add('layers', 0.5, producer.map((r, c) => (r > 0 && m[c] > 0 ? Math.sqrt(r / m[c]) : 1)));
  return candidates.filter(({ scale }) => scale.some((s) => s !== scale[0]));
};

/** Candidates between the neighbours of a threshold on the grid. */
export const finerThresholds = ({ halfRange, opposite }: Magnitudes, best: Candidate): readonly Candidate[] => {
  if (best.family !== 'threshold') return [];
  const [list, share] = [floored(best.parameter < 0 ? opposite : halfRange), Math.abs(best.parameter)];
  const ratio = pow(LEAST_THRESHOLD, 1 / (THRESHOLDS - 1));
  return [-0.8, -0.6, -0.4, -0.2, 0.2, 0.4, 0.6, 0.8].map((part) => {
    const finer = share * pow(ratio, part);
    const scale = thresholdScale(list, largestOf(list) * finer);
    return { family: 'threshold', parameter: Math.sign(best.parameter) * finer, scale: best.parameter < 0 ? scale.map((s) => 1 / s) : scale };
  });
};
