/** Reductions. */
import type { Value } from '../../ir/graph.ts';
import { abs, exp, log, mul, neg, reduceMax, reduceMean, reduceSum, sqrt } from '../../ir/ops/index.ts';
import { type Term } from '../known.ts';
import type { Handler, Handlers, OnnxNode } from '../node.ts';

interface Axes { readonly axes: readonly number[]; readonly keepDims: boolean }

/** Axes stand in an attribute, and from `since` on in an input; none means all, or with noop_with_empty_axes no reduction (null). */
const axesOf = (n: OnnxNode, since: number): Axes | null => {
  const rank = n.rank(0);
  const given = n.version >= since ? n.intsFrom('axes', 1) : n.hasAttr('axes') ? n.ints('axes') : null;
  const keepDims = n.int('keepdims', 1) !== 0;
  const noop = n.version >= since && n.int('noop_with_empty_axes', 0) !== 0;
  if (given === null || given.length === 0) return noop ? null : { axes: Array.from({ length: rank }, (_, i) => i), keepDims };
  return { axes: n.axes(given, rank), keepDims };
};

/** Version from which the axes of a reduction are an input. */
const AXES_INPUT = 18;
const AXES_INPUT_OF_SUM = 13;

const reduction = (since: number, of: (n: OnnxNode, x: Value, axes: Axes) => Value): Handler => (n) => {
  const axes = axesOf(n, since);
  return axes === null ? (n.term(0) as Term) : of(n, n.value(0), axes);
};
const squared = (n: OnnxNode, x: Value): Value => n.emit(mul, { x, y: x }, {}, 'squares');

export const reductions: Handlers = {
  ReduceMean: reduction(AXES_INPUT, (n, x, axes) => n.emit(reduceMean, { x }, axes)),
  ReduceSum: reduction(AXES_INPUT_OF_SUM, (n, x, axes) => n.emit(reduceSum, { x }, axes)),
  ReduceMax: reduction(AXES_INPUT, (n, x, axes) => n.emit(reduceMax, { x }, axes)),
  ReduceMin: reduction(AXES_INPUT, (n, x, axes) => n.emit(neg, { x: n.emit(reduceMax, { x: n.emit(neg, { x }, {}, 'negative') }, axes, 'greatest') })),
  ReduceL1: reduction(AXES_INPUT, (n, x, axes) => n.emit(reduceSum, { x: n.emit(abs, { x }, {}, 'magnitudes') }, axes)),
  ReduceL2: reduction(AXES_INPUT, (n, x, axes) => n.emit(sqrt, { x: n.emit(reduceSum, { x: squared(n, x) }, axes, 'sum') })),
  ReduceSumSquare: reduction(AXES_INPUT, (n, x, axes) => n.emit(reduceSum, { x: squared(n, x) }, axes)),
  ReduceLogSum: reduction(AXES_INPUT, (n, x, axes) => n.emit(log, { x: n.emit(reduceSum, { x }, axes, 'sum') })),
  ReduceLogSumExp: reduction(AXES_INPUT, (n, x, axes) => n.emit(log, { x: n.emit(reduceSum, { x: n.emit(exp, { x }, {}, 'powers') }, axes, 'sum') })),
};
