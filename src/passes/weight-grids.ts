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
  /** steps for a row, of which one of the first suits codes that are each the nearest */
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

/** Rows scaled to a mean square of 1 share one codebook; an error counts by the square of the row's own size besides. */
const codebookGrid = (bits: number, rows: readonly RealRow[]): WeightGrid => {
  const scaled = rows.flatMap(({ row, importances }) => {
    const size = rootMeanSquare(row);
    return size === 0 ? [] : [{ values: row.map((one) => one / size), importances: row.map((_, k) => size * size * (importances?.[k] ?? 1)) }];
  });
  const { levels, unit }: Codebook = codebookFor(scaled, bits);
  return { levels, dtype: 'i8', steps: (row, count) => centred(count).map((factor) => Math.fround(rootMeanSquare(row) * unit * factor) || 1) };
};
/** How far the step of a row may lie from that of its mean square. */
const STEP_REACH = 0.25;

const centred = (count: number): readonly number[] => (count === 1 ? [1] : evenly(1 - STEP_REACH, 1 + STEP_REACH, count));
const evenly = (from: number, to: number, count: number): readonly number[] => Array.from({ length: count }, (_, i) => from + ((to - from) * i) / Math.max(1, count - 1));
const rootMeanSquare = (row: Float64Array): number => Math.sqrt(row.reduce((sum, one) => sum + one * one, 0) / row.length);
