/** What the weights of a layer are rounded to: levels for all its rows, and the steps that a row is tried with. */
import type { IntegerDType } from '../ir/dtype.ts';
import type { Shape } from '../ir/dim.ts';
import type { WeightWidth } from '../ir/ops/widths.ts';
import { perChannel } from '../ir/quant.ts';
import { tensorType, type Tensor } from '../ir/type.ts';
import { codebookFor, type Codebook } from '../numerics/codebook.ts';

export interface WeightGrid {
  /** ascending */
  readonly levels: Int8Array;
  readonly dtype: IntegerDType;
  /** `count` steps that are worth trying for a row; one alone suits codes that are each the nearest */
  steps(row: Float64Array, count: number): readonly number[];
}

/** A row of real weights, and how much an error in each of its entries counts. */
export interface RealRow {
  readonly row: Float64Array;
  readonly importances: Float64Array | null;
}

/** `rows` tells a codebook what it has to fit; uniform codes need nothing of it. */
export const weightGrid = ({ bits, format }: WeightWidth, rows: () => readonly RealRow[]): WeightGrid =>
  (format === 'codebook' ? codebookGrid(bits, rows()) : uniformGrid(bits));

export const weightTensor = ({ levels, dtype }: WeightGrid, shape: Shape, scales: readonly number[], codes: Int8Array): Tensor => {
  const most = Math.max(-levels[0], levels[levels.length - 1], 1);
  return { type: tensorType(dtype, shape, perChannel(scales, 0, [-most, most])), data: codes };
};

const uniformGrid = (bits: number): WeightGrid => {
  const most = 2 ** (bits - 1) - 1;
  return {
    levels: Int8Array.from({ length: 2 * most + 1 }, (_, i) => i - most), dtype: `i${bits}` as IntegerDType,
    steps: (row, count) => {
      const [largest, size] = [row.reduce((found, one) => Math.max(found, Math.abs(one)), 0), rootMeanSquare(row)];
      if (largest === 0) return [1];
      const least = Math.min(0.9 * largest, LEAST_CLIP * NORMAL_CLIP[bits - 2] * size);
      return evenly(largest, least, count).map((clip) => Math.fround(clip / most) || 1);
    },
  };
};
/** Clipping in standard deviations that suits normal weights best, for 2 to 8 bits (Banner et al. 2019). */
const NORMAL_CLIP = [1.71, 2.215, 2.55, 2.93, 3.28, 3.61, 3.92];
/** The search goes from the step that reaches the largest weight down to this share of it. */
const LEAST_CLIP = 0.7;

/**
 * Rows share one codebook, each scaled by what suits it: first to a mean square of 1, then, in turns with the levels, to the least error.
 * An error counts by the square of the scale besides, as it does in the outputs.
 */
const codebookGrid = (bits: number, rows: readonly RealRow[]): WeightGrid => {
  let scaled = rows.flatMap(({ row, importances }): readonly ScaledRow[] => {
    const scale = rootMeanSquare(row);
    return scale === 0 ? [] : [{ row, importances, scale }];
  });
  const bookOf = (): Codebook => codebookFor(scaled.map(({ row, importances, scale }) => ({
    values: row.map((one) => one / scale), importances: row.map((_, k) => scale * scale * (importances?.[k] ?? 1)),
  })), bits);
  let book = bookOf();
  for (let round = 0; round < BOOK_ROUNDS; round++) {
    scaled = scaled.map((one) => ({ ...one, scale: bestScale(one, book) }));
    book = bookOf();
  }
  const { levels, unit } = book;
  return {
    levels, dtype: 'i8',
    steps: (row, count) => {
      const scale = rootMeanSquare(row);
      if (scale === 0) return [1];
      const best = bestScale({ row, importances: null, scale }, book);
      return centred(count).map((factor) => Math.fround(best * unit * factor) || 1);
    },
  };
};
interface ScaledRow extends RealRow {
  /** what a level of 1/unit stands for */
  readonly scale: number;
}
const BOOK_ROUNDS = 3;
/** Scales that are tried for a row: from that of its mean square to the one that reaches its largest weight, and somewhat beyond both. */
const SCALES = 16;

/** The scale of least error when each weight takes the nearest level. */
const bestScale = ({ row, importances, scale }: ScaledRow, { levels, unit }: Codebook): number => {
  const [size, largest] = [rootMeanSquare(row), row.reduce((most, one) => Math.max(most, Math.abs(one)), 0)];
  const reach = largest / (unit * Math.max(-levels[0], levels[levels.length - 1], 1));
  const tried = [scale, ...evenly(0.7 * Math.min(size, reach), 1.1 * Math.max(size, reach), SCALES)];
  const nearest = nearestLevel(levels);
  const errors = tried.map((own) => row.reduce((sum, one, k) => sum + (importances?.[k] ?? 1) * (one - nearest(one / (own * unit)) * own * unit) ** 2, 0));
  return tried[errors.indexOf(Math.min(...errors))];
};

/** The nearest of ascending levels; of two as near the upper one. */
export const nearestLevel = (levels: Int8Array) => (value: number): number => {
  let [low, high] = [0, levels.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (value >= (levels[middle - 1] + levels[middle]) / 2) low = middle;
    else high = middle - 1;
  }
  return levels[low];
};

/** How far the step of a row may lie from that of nearest levels. */
const STEP_REACH = 0.2;

const centred = (count: number): readonly number[] => (count === 1 ? [1] : evenly(1 - STEP_REACH, 1 + STEP_REACH, count));
const evenly = (from: number, to: number, count: number): readonly number[] => Array.from({ length: count }, (_, i) => from + ((to - from) * i) / Math.max(1, count - 1));
const rootMeanSquare = (row: Float64Array): number => Math.sqrt(row.reduce((sum, one) => sum + one * one, 0) / row.length);
