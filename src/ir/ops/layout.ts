/** Ops that move elements and compute nothing. They serve every stage: the element type is kept whatever it is. */
import {
  addDims, equalDims, isStatic, mulDims, printShape, sizeOf, staticShape, stridesOf, type Dim, type Shape,
} from '../dim.ts';
import { allocate } from '../dtype.ts';
import { defineOp, int, ints, misuse, real, type Attr } from '../op.ts';
import { tensorType } from '../type.ts';
import { axisOf, broadcastOf, broadcastOffsets, pick, rankOf, splitAt, staticDim, viewOffsets } from './elements.ts';

const isDim = (dim: unknown): dim is Dim => Number.isSafeInteger(dim) || (typeof dim === 'object' && dim !== null && 'terms' in dim);
/** Sizes that may still hold symbols. */
const dims = (doc: string): Attr<Shape> =>
  ({ doc, fallback: undefined, expected: 'a list of sizes', check: (value): value is Shape => Array.isArray(value) && value.every(isDim) });

/** Whether two shapes surely have equally many elements: equal sizes cancel, the rest must have equal linear products. */
export const sameSize = (a: Shape, b: Shape): boolean => {
  const rest = [...b];
  const left = a.filter((dim) => {
    const twin = rest.findIndex((other) => !isStatic(dim) && equalDims(dim, other));
    if (twin >= 0) rest.splice(twin, 1);
    return twin < 0;
  });
  const product = (shape: Shape): Dim | null => shape.reduce<Dim | null>((all, dim) => (all === null ? null : mulDims(all, dim)), 1);
  const [x, y] = [product(left), product(rest)];
  return x !== null && y !== null && equalDims(x, y);
};

export const reshape = defineOp({
  name: 'reshape',
  summary: 'the same elements in the same order under another shape',
  operands: { x: 'one' },
  attrs: { shape: dims('sizes of the result') },
  infer: ({ x }, { shape }) => {
    if (!sameSize(x.shape, shape)) misuse(`[${printShape(x.shape)}] cannot become [${printShape(shape)}]`);
    return tensorType(x.dtype, shape);
  },
  evaluate: ({ x }, _, type) => ({ type, data: x.data }),
});

export const transpose = defineOp({
  name: 'transpose',
  summary: 'axes in another order: axis i of the result is axis perm[i] of x',
  operands: { x: 'one' },
  attrs: { perm: ints('source axis of each axis') },
  infer: ({ x }, { perm }) => {
    if (perm.length !== x.shape.length || [...perm].sort((a, b) => a - b).some((axis, i) => axis !== i)) misuse(`[${perm.join(', ')}] is no order of ${x.shape.length} axes`);
    return tensorType(x.dtype, perm.map((axis) => x.shape[axis]));
  },
  evaluate: ({ x }, { perm }, type) => {
    const strides = stridesOf(staticShape(x.type.shape));
    return pick(x.data, viewOffsets(staticShape(type.shape), perm.map((axis) => strides[axis])), type);
  },
});

export const concat = defineOp({
  name: 'concat',
  summary: 'tensors one after another along an axis',
  operands: { xs: 'many' },
  attrs: { axis: int('the axis that grows') },
  infer: ({ xs }, { axis }) => {
    if (xs.length === 0) misuse('nothing to concatenate');
    const along = axisOf(axis, xs[0].shape.length);
    for (const { dtype, shape } of xs) {
      if (dtype !== xs[0].dtype) misuse(`${dtype} and ${xs[0].dtype} cannot be joined`);
      rankOf(shape, xs[0].shape.length, 'xs');
      if (!shape.every((dim, i) => i === along || equalDims(dim, xs[0].shape[i]))) misuse(`[${printShape(shape)}] and [${printShape(xs[0].shape)}] differ beside axis ${along}`);
    }
    const total = xs.reduce<Dim>((sum, { shape }) => addDims(sum, shape[along]), 0);
    return tensorType(xs[0].dtype, xs[0].shape.map((dim, i) => (i === along ? total : dim)));
  },
  evaluate: ({ xs }, { axis }, type) => {
    const { outer, length, inner } = splitAt(type.shape, axisOf(axis, type.shape.length));
    const data = allocate(type.dtype, sizeOf(type.shape));
    let start = 0;
    for (const x of xs) {
      const run = x.data.length / Math.max(outer, 1);
      for (let o = 0; o < outer; o++) data.set(x.data.subarray(o * run, (o + 1) * run) as never, o * length * inner + start);
      start += run;
    }
    return { type, data };
  },
});

export const slice = defineOp({
  name: 'slice',
  summary: 'elements start, start+step, … before end along an axis (after end for a negative step; end -1 then takes element 0 too)',
  operands: { x: 'one' },
  attrs: { axis: int('the axis that is cut'), start: int('first index'), end: int('index before which it stops'), step: int('distance of taken indices', 1) },
  infer: ({ x }, { axis, start, end, step }) => {
    const along = axisOf(axis, x.shape.length);
    const size = x.shape[along];
    if (step === 0) misuse('the step is 0');
    const inside = step > 0 ? start >= 0 && end >= start : end >= -1 && end <= start;
    if (!inside || (isStatic(size) && (step > 0 ? end > size : start >= size))) misuse(`[${start}, ${end}) by ${step} lies outside axis ${along} of [${printShape(x.shape)}]`);
    return tensorType(x.dtype, x.shape.map((dim, i) => (i === along ? Math.ceil((end - start) / step) : dim)));
  },
  evaluate: ({ x }, { axis, start, step }, type) => {
    const along = axisOf(axis, type.shape.length);
    const strides = stridesOf(staticShape(x.type.shape));
    return pick(x.data, viewOffsets(staticShape(type.shape), strides.map((s, i) => (i === along ? s * step : s)), start * strides[along]), type);
  },
});

export const pad = defineOp({
  name: 'pad',
  summary: 'a border of one value around each axis',
  operands: { x: 'one' },
  attrs: { pads: ints('elements added before each axis, then after each axis'), value: real('value (or code) of the border', 0) },
  infer: ({ x }, { pads, value }) => {
    const rank = x.shape.length;
    if (pads.length !== 2 * rank || pads.some((n) => n < 0)) misuse(`${rank} axes take ${2 * rank} pads that are not negative`);
    if (x.dtype !== 'f32' && !Number.isInteger(value)) misuse(`the border of ${x.dtype} must be an integer`);
    return tensorType(x.dtype, x.shape.map((dim, axis) => addDims(dim, pads[axis] + pads[axis + rank])));
  },
  evaluate: ({ x }, { pads, value }, type) => {
    const strides = stridesOf(staticShape(type.shape));
    const data = allocate(type.dtype, sizeOf(type.shape));
    data.fill((type.dtype === 'i64' ? BigInt(value) : value) as never);
    const start = strides.reduce((sum, stride, axis) => sum + stride * pads[axis], 0);
    viewOffsets(staticShape(x.type.shape), strides, start).forEach((to, from) => { data[to] = x.data[from]; });
    return { type, data };
  },
});

export const gather = defineOp({
  name: 'gather',
  summary: 'the slices of a table that integer indices name: table [A.., R, B..], indices [I..] -> [A.., I.., B..]; indices are clamped to [0, R-1]',
  operands: { table: 'one', indices: 'one' },
  attrs: { axis: int('the axis that is indexed', 0), bits: int('bits of the codes of the table, 8 or 16; 0: those of the sums that the slices enter', 0) },
  infer: ({ table, indices }, { axis }) => {
    const along = axisOf(axis, table.shape.length);
    if (indices.dtype === 'f32' || indices.dtype === 'bool') misuse('indices must be integers');
    staticDim(table.shape[along], 'the indexed axis');
    return tensorType(table.dtype, [...table.shape.slice(0, along), ...indices.shape, ...table.shape.slice(along + 1)]);
  },
  evaluate: ({ table, indices }, { axis }, type) => {
    const { outer, length, inner } = splitAt(table.type.shape, axisOf(axis, table.type.shape.length));
    const data = allocate(type.dtype, sizeOf(type.shape));
    for (let o = 0, at = 0; o < outer; o++) for (const index of indices.data) {
      const row = Math.min(length - 1, Math.max(0, Number(index)));
      const from = (o * length + row) * inner;
      data.set(table.data.subarray(from, from + inner) as never, at);
      at += inner;
    }
    return { type, data };
  },
});

export const expand = defineOp({
  name: 'expand',
  summary: 'x repeated along its axes of size 1 (numpy broadcasting) to a shape',
  operands: { x: 'one' },
  attrs: { shape: dims('sizes of the result') },
  infer: ({ x }, { shape }) => {
    const wide = broadcastOf(x.shape, shape);
    if (wide.length !== shape.length || !wide.every((dim, i) => equalDims(dim, shape[i]))) misuse(`[${printShape(x.shape)}] does not expand to [${printShape(shape)}]`);
    return tensorType(x.dtype, shape);
  },
  evaluate: ({ x }, _, type) => pick(x.data, broadcastOffsets(x.type.shape, type.shape), type),
});

export const where = defineOp({
  name: 'where',
  summary: 'x where the condition holds, y elsewhere, by numpy broadcasting',
  operands: { condition: 'one', x: 'one', y: 'one' },
  attrs: {},
  infer: ({ condition, x, y }) => {
    if (condition.dtype !== 'bool') misuse(`the condition must be bool, not ${condition.dtype}`);
    if (x.dtype !== y.dtype) misuse(`${x.dtype} and ${y.dtype} cannot be mixed`);
    return tensorType(x.dtype, broadcastOf(condition.shape, x.shape, y.shape));
  },
  evaluate: ({ condition, x, y }, _, type) => {
    const [c, i, j] = [condition, x, y].map((one) => broadcastOffsets(one.type.shape, type.shape));
    const data = allocate(type.dtype, c.length);
    for (let n = 0; n < c.length; n++) data[n] = condition.data[c[n]] !== 0 ? x.data[i[n]] : y.data[j[n]];
    return { type, data };
  },
});

export const layoutOps = [reshape, transpose, concat, slice, pad, gather, expand, where] as const;
