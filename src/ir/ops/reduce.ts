/** Reductions over a set of axes. */
import { staticShape, stridesOf, type Shape, type StaticShape } from '../dim.ts';
import { allocate } from '../dtype.ts';
import { defineOp, flag, ints } from '../op.ts';
import { tensorType, type Tensor } from '../type.ts';
import { axesOf, fill, realShape, reals, viewOffsets } from './elements.ts';

const attrs = { axes: ints('axes that are reduced'), keepDims: flag('reduced axes stay with size 1', false) };

export const reducedShape = (shape: Shape, axes: readonly number[], keepDims: boolean): Shape => {
  const gone = new Set(axesOf(axes, shape.length));
  return shape.flatMap((dim, axis) => (!gone.has(axis) ? [dim] : keepDims ? [1] : []));
};

/** Offsets of the first element of each group, and of the group's elements relative to it. */
const groups = (shape: StaticShape, axes: readonly number[]): { readonly starts: Int32Array; readonly members: Int32Array } => {
  const gone = new Set(axesOf(axes, shape.length));
  const strides = stridesOf(shape);
  const view = (kept: boolean): Int32Array => {
    const chosen = shape.map((_, axis) => axis).filter((axis) => gone.has(axis) !== kept);
    return viewOffsets(chosen.map((axis) => shape[axis]), chosen.map((axis) => strides[axis]));
  };
  return { starts: view(true), members: view(false) };
};

const sums = (x: Tensor, axes: readonly number[], shape: Shape, divide: boolean): Tensor => {
  const a = reals(x);
  const { starts, members } = groups(staticShape(x.type.shape), axes);
  return fill(shape, (i) => {
    let sum = 0;
    for (const member of members) sum += a[starts[i] + member];
    return divide ? sum / members.length : sum;
  });
};

export const reduceMean = defineOp({
  name: 'reduce_mean', summary: 'mean over axes', operands: { x: 'one' }, attrs,
  infer: ({ x }, { axes, keepDims }) => tensorType('f32', reducedShape(realShape(x, 'x'), axes, keepDims)),
  evaluate: ({ x }, { axes }, { shape }) => sums(x, axes, shape, true),
});
export const reduceSum = defineOp({
  name: 'reduce_sum', summary: 'sum over axes', operands: { x: 'one' }, attrs,
  infer: ({ x }, { axes, keepDims }) => tensorType('f32', reducedShape(realShape(x, 'x'), axes, keepDims)),
  evaluate: ({ x }, { axes }, { shape }) => sums(x, axes, shape, false),
});
export const reduceMax = defineOp({
  name: 'reduce_max', summary: 'greatest element over axes; any element type', operands: { x: 'one' }, attrs,
  infer: ({ x }, { axes, keepDims }) => tensorType(x.dtype, reducedShape(x.shape, axes, keepDims)),
  evaluate: ({ x }, { axes }, type) => {
    const { starts, members } = groups(staticShape(x.type.shape), axes);
    const data = allocate(type.dtype, starts.length);
    starts.forEach((start, i) => {
      data[i] = x.data[start + members[0]];
      for (const member of members) if (x.data[start + member] > data[i]) data[i] = x.data[start + member];
    });
    return { type, data };
  },
});
