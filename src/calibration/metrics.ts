/**
 * How good outputs are: against labels (top-1, top-5, cross entropy, perplexity) and against the outputs of the float model (agreement,
 * signal to noise). Sums run in the order in which samples are added.
 */
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { exp, log } from '../numerics/real-math.ts';

/** A share with its 95 % interval by Wilson's score, which stays inside [0, 1] and is honest for few samples. */
export interface Share {
  readonly hits: number;
  readonly count: number;
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** 97.5 % point of the standard normal distribution. */
const NORMAL_QUANTILE = 1.959963984540054;

export const shareOf = (hits: number, count: number): Share => {
  if (count === 0) return { hits, count, value: 0, low: 0, high: 1 };
  const value = hits / count;
  const z2 = NORMAL_QUANTILE * NORMAL_QUANTILE;
  const centre = (value + z2 / (2 * count)) / (1 + z2 / count);
  const half = (NORMAL_QUANTILE * Math.sqrt((value * (1 - value)) / count + z2 / (4 * count * count))) / (1 + z2 / count);
  return { hits, count, value, low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
};

/** The mean of a list, and its standard error: by how much it differs from one list of this length to the next. */
export const meanWithError = (list: Float64Array): { readonly mean: number; readonly error: number } => {
  const mean = list.reduce((sum, x) => sum + x, 0) / list.length;
  const variance = list.reduce((sum, x) => sum + (x - mean) ** 2, 0) / Math.max(1, list.length - 1);
  return { mean, error: Math.sqrt(variance / list.length) };
};

/** A row may miss 1 by this much and still be probabilities: outputs of 8 bits round each of many classes. */
const SUM_TOLERANCE = 0.05;

/** Whether rows of `classes` numbers are already probabilities: none negative, each row's sum near 1. */
export const areProbabilities = (output: ArrayLike<number>, classes: number): boolean => {
  if (classes < 2 || output.length === 0) return false;
  for (let at = 0; at < output.length; at += classes) {
    let sum = 0;
    for (let c = 0; c < classes; c++) {
      if (!(output[at + c] >= 0)) return false;
      sum += output[at + c];
    }
    if (Math.abs(sum - 1) > SUM_TOLERANCE) return false;
  }
  return true;
};

/** The first index of the greatest number in a row. */
export const argmax = (output: ArrayLike<number>, at: number, classes: number): number => {
  let best = 0;
  for (let c = 1; c < classes; c++) if (output[at + c] > output[at + best]) best = c;
  return best;
};

/** Classes before `label` in descending order; among equal numbers the lower index comes first. */
const rankOf = (output: ArrayLike<number>, at: number, classes: number, label: number): number => {
  const own = output[at + label];
  let rank = 0;
  for (let c = 0; c < classes; c++) if (output[at + c] > own || (output[at + c] === own && c < label)) rank++;
  return rank;
};

/** Probabilities count as at least this, half a step of 16-bit codes: −log 0 would hide all else, and float and integer outputs are treated alike. */
const LEAST_PROBABILITY = 2 ** -17;

/** log Σ e^x over a row, without overflow. */
export const logSumExp = (output: ArrayLike<number>, at: number, classes: number): number => {
  let greatest = -Infinity;
  for (let c = 0; c < classes; c++) greatest = Math.max(greatest, output[at + c]);
  let total = 0;
  for (let c = 0; c < classes; c++) total += exp(output[at + c] - greatest);
  return log(total) + greatest;
};

/** −log p(label), the row being probabilities or logits. */
const lossOf = (output: ArrayLike<number>, at: number, classes: number, label: number, probabilities: boolean): number => {
  if (probabilities) return -log(Math.max(output[at + label], LEAST_PROBABILITY));
  return logSumExp(output, at, classes) - output[at + label];
};

export interface LabelMetrics {
  readonly top1: Share;
  /** null with five classes or fewer */
  readonly top5: Share | null;
  /** mean −log p(label), in nats */
  readonly crossEntropy: number;
  /** e^crossEntropy where each sample has several positions, as in language models; else null */
  readonly perplexity: number | null;
}

/** Collects outputs with their labels. An output is rows of classes; a sample may hold one row or one for each position. */
export const labelMeter = (classes: number): { add(output: ArrayLike<number>, labels: ArrayLike<number | bigint>): void; result(): LabelMetrics } => {
  let [rows, hits1, hits5, loss] = [0, 0, 0, 0];
  let positions = false;
  let probabilities: boolean | null = null;
  return {
    add(output, labels) {
      if (output.length !== labels.length * classes) throw new CompileError(errors.badLabels('labels', `${labels.length} labels for ${output.length / classes} rows of output`), 'usage');
      // the first output decides, so that all are read the same way
      probabilities ??= areProbabilities(output, classes);
      positions ||= labels.length > 1;
      for (let row = 0; row < labels.length; row++) {
        const label = Number(labels[row]);
        if (!(label >= 0 && label < classes && Number.isInteger(label))) throw new CompileError(errors.badLabels('labels', `${label} is no class of ${classes}`), 'usage');
        const rank = rankOf(output, row * classes, classes, label);
        rows++;
        hits1 += Number(rank === 0);
        hits5 += Number(rank < 5);
        loss += lossOf(output, row * classes, classes, label, probabilities);
      }
    },
    result: () => ({
      top1: shareOf(hits1, rows), top5: classes > 5 ? shareOf(hits5, rows) : null, crossEntropy: loss / rows,
      perplexity: positions ? exp(loss / rows) : null,
    }),
  };
};

export interface ReferenceMetrics {
  /** rows whose greatest class is that of the reference; null where the output is not rows of classes */
  readonly agreement: Share | null;
  /** 10·log10(Σ reference² / Σ (output − reference)²); Infinity when equal */
  readonly sqnrDb: number;
}

/** Compares outputs with those of a reference. `classes` is the length of a row, null where there are no classes. */
export const referenceMeter = (classes: number | null): { add(output: ArrayLike<number>, reference: ArrayLike<number>): void; result(): ReferenceMetrics } => {
  let [rows, equal, signal, noise] = [0, 0, 0, 0];
  return {
    add(output, reference) {
      if (output.length !== reference.length) throw new RangeError(`${output.length} numbers against ${reference.length}`);
      for (let i = 0; i < output.length; i++) {
        signal += reference[i] * reference[i];
        noise += (output[i] - reference[i]) * (output[i] - reference[i]);
      }
      if (classes === null) return;
      for (let at = 0; at < output.length; at += classes) {
        rows++;
        equal += Number(argmax(output, at, classes) === argmax(reference, at, classes));
      }
    },
    result: () => ({ agreement: classes === null ? null : shareOf(equal, rows), sqnrDb: decibels(signal, noise) }),
  };
};

const LN10 = 2.302585092994046;
/** 10·log10(signal/noise) */
export const decibels = (signal: number, noise: number): number =>
  noise === 0 ? Infinity : signal === 0 ? -Infinity : (10 / LN10) * (log(signal) - log(noise));
export const sqnrDb = (output: ArrayLike<number>, reference: ArrayLike<number>): number => {
  const meter = referenceMeter(null);
  meter.add(output, reference);
  return meter.result().sqnrDb;
};
