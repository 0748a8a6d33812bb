/**
 * Loops over the elements of a result. Operands are strided views of the result's shape (stride 0 where they are broadcast), so per-
 * channel constants, broadcast operands, transposed and cut tensors are one case. Axes that all operands walk in step are merged.
 */
import { at, index, list, loop } from '../../loops/build.ts';
import type { Address, Buffer, Index, Stmt } from '../../loops/types.ts';

export interface Nest {
  /** sizes, outermost first; at least one axis */
  readonly shape: readonly number[];
  /** for each operand, its stride along each axis */
  readonly strides: readonly (readonly number[])[];
}

/** Merges neighbouring axes that are one axis for every operand, and drops axes of size 1. */
export const collapse = (shape: readonly number[], strides: readonly (readonly number[])[]): Nest => {
  const sizes: number[] = [];
  const steps: number[][] = strides.map(() => []);
  shape.forEach((size, axis) => {
    if (size === 1) return;
    const last = sizes.length - 1;
    const merges = last >= 0 && strides.every((stride, k) => steps[k][last] === stride[axis] * size);
    if (merges) {
      sizes[last] *= size;
      strides.forEach((stride, k) => { steps[k][last] = stride[axis]; });
    } else {
      sizes.push(size);
      strides.forEach((stride, k) => steps[k].push(stride[axis]));
    }
  });
  return sizes.length === 0 ? { shape: [1], strides: strides.map(() => [0]) } : { shape: sizes, strides: steps };
};

/** Strides of a tensor of shape `from` seen under the shape `to`, by numpy broadcasting. */
export const broadcastStrides = (from: readonly number[], to: readonly number[]): readonly number[] => {
  const own = rowMajor(from);
  const lead = to.length - from.length;
  return to.map((_, axis) => (axis < lead || from[axis - lead] === 1 ? 0 : own[axis - lead]));
};
export const rowMajor = (shape: readonly number[]): readonly number[] => {
  const strides = new Array<number>(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1] * shape[axis + 1];
  return strides;
};

/** Where an operand stands in one iteration. */
export type Locate = (operand: number, buffer: Buffer, offset?: number) => Address;

/**
 * The loops over a nest. The innermost axis is walked in runs of `wanted` elements where every operand has stride 0 or 1 there, and its
 * rest element by element; `body` is called once for each kind of run.
 */
export const overNest = ({ shape, strides }: Nest, wanted: number, body: (run: number, locate: Locate) => readonly Stmt[]): readonly Stmt[] => {
  const inner = shape.length - 1;
  const outer = list(inner, (axis) => index(`i${axis}`, shape[axis]));
  const run = strides.every((stride) => stride[inner] === 0 || stride[inner] === 1) ? wanted : 1;
  const whole = Math.floor(shape[inner] / run);
  const piece = (count: number, length: number, start: number): readonly Stmt[] => {
    if (count === 0) return [];
    const i = index(`i${inner}`, count);
    const locate: Locate = (k, buffer, offset = 0) =>
      at(buffer, offset + start * strides[k][inner], ...outer.map((o, axis) => [o, strides[k][axis]] as const), [i, length * strides[k][inner]]);
    return [loop(i, body(length, locate))];
  };
  const pieces = [...piece(whole, run, 0), ...piece(shape[inner] - whole * run, 1, whole * run)];
  return outer.reduceRight<readonly Stmt[]>((stmts, o: Index) => [loop(o, stmts)], pieces);
};

/** How far one operand reaches: one more than its greatest offset. */
export const extentOf = ({ shape, strides }: Nest, operand: number): number =>
  1 + shape.reduce((sum, size, axis) => sum + Math.max(0, (size - 1) * strides[operand][axis]), 0);
