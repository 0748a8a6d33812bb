/**
 * Removes the reshapes and transposes that an importer leaves around channels-last ops. Two movements do it: chains of views shrink
 * to at most one reshape and one transpose, and transposes sink through the ops below until they meet their inverse.
 *
 *     %t = transpose(%conv) {perm: [0, 3, 1, 2]}                 %r = relu(%conv)
 *     %r = relu(%t)                                       ->     %u = conv(%r, …)
 *     %b = transpose(%r) {perm: [0, 2, 3, 1]}
 *     %u = conv(%b, …)
 *
 * Views are analysed as strides over their source, so a transpose that moves only axes of size 1, or a chain that ends in the
 * order it started with, is recognised whatever its form.
 */
import { match, P } from 'ts-pattern';
import { equalShapes, isStatic, type Shape } from '../ir/dim.ts';
import { constantOf, isNode, type Node, type Value } from '../ir/graph.ts';
import {
  batchNorm, binaryOps, concat, expand, layerNorm, linear, pad, reduceMax, reduceMean, reduceSum, reshape, rmsNorm, slice, softmax, transpose,
  unaryOps,
} from '../ir/ops/index.ts';
import { rule, type Rewriter, type Rule } from '../ir/rewrite.ts';
import { isDense, memoryOrder, viewOf } from '../ir/view.ts';
import { foldRules } from './fold-constants.ts';
import { applyRules, definePass } from './pass.ts';

const reductions = [reduceMean, reduceSum, reduceMax] as const;
const isReduction = (value: Value): boolean => reductions.some(({ name }) => name === value.def.op);
const inverse = (perm: readonly number[]): readonly number[] => perm.map((_, axis) => perm.indexOf(axis));
const samePerm = (a: readonly number[], b: readonly number[]): boolean => a.length === b.length && a.every((axis, i) => axis === b[i]);

interface Transposed { readonly x: Value; readonly perm: readonly number[] }
/** The operand and permutation of a transpose, or null. */
export const transposedOf = (value: Value): Transposed | null => match(value.def)
  .with({ op: 'transpose', inputs: { x: P.select('x') }, attrs: { perm: P.select('perm') } }, ({ x, perm }) => ({ x: x as Value, perm: perm as readonly number[] }))
  .otherwise(() => null);
/** A transpose that sinks: not one of a graph input or constant, which stays where it is. */
const sinkable = (value: Value): Transposed | null => {
  const found = transposedOf(value);
  return found !== null && isNode(found.x.def) ? found : null;
};

const put = (b: Rewriter, x: Value, perm: readonly number[], stem: string): Value =>
  b.emit(transpose, { x }, { perm }, { name: `${stem}.transposed` });

// ---- views

/**
 * A chain of reshapes and transposes is reshape, then transpose, whenever its axes in order of descending stride run densely
 * through the source; it is the reshape alone where that order is the order of the axes.
 */
const shrinkViews = (node: Node, b: Rewriter): Value | null => {
  const { output } = node;
  const view = viewOf(output);
  if (view === null || view.ops.length === 0 || constantOf(view.source) !== null) return null;
  const order = memoryOrder(view);
  if (!isDense(view, order)) return null;
  const { shape } = output.type;
  const solid = order.filter((axis) => view.sizes[axis] !== 1);
  const ordered = solid.every((axis, i) => i === 0 || axis > solid[i - 1]);
  const middle = ordered ? shape : order.map((axis) => shape[axis]);
  const reshapes = !equalShapes(middle, view.source.type.shape);
  const next = [...(reshapes ? ['reshape'] : []), ...(ordered ? [] : ['transpose'])];
  const now = view.ops;
  const better = next.length < now.length || (next.length === now.length && next.join() !== now.join() && (ordered || next[1] === 'transpose'));
  if (!better) return null;
  const straight = !reshapes ? view.source
    : b.emit(reshape, { x: view.source }, { shape: middle }, ordered ? { replaces: output } : { name: `${output.name}.reshaped` });
  return ordered ? straight : b.emit(transpose, { x: straight }, { perm: inverse(order) }, { replaces: output });
};
const shrinkReshapes = rule(reshape, 'shrink-reshapes', (node, b) => shrinkViews(node as Node, b));
const shrinkTransposes = rule(transpose, 'shrink-transposes', (node, b) => shrinkViews(node as Node, b));

/** A reduction that keeps its axes and is then reshaped to be without them does not keep them. */
const dropKeptAxes = rule(reshape, 'drop-kept-axes', ({ inputs: { x }, attrs: { shape }, output }, b) => {
  const reduced = x.def;
  if (!isNode(reduced) || !isReduction(x)) return null;
  const { axes, keepDims } = reduced.attrs as { readonly axes: readonly number[]; readonly keepDims: boolean };
  const rank = x.type.shape.length;
  const gone = axes.map((axis) => (axis < 0 ? axis + rank : axis));
  if (!keepDims || !equalShapes(x.type.shape.filter((_, axis) => !gone.includes(axis)), shape)) return null;
  return b.emit(reduced.decl, reduced.inputs as never, { axes, keepDims: false }, { replaces: output });
});

/** A slice inside one part of a concatenation is a slice of that part. */
const sliceOfConcat = rule(slice, 'slice-of-concat', ({ inputs: { x }, attrs, output }, b) => {
  if (!isNode(x.def) || x.def.op !== 'concat') return null;
  const rank = x.type.shape.length;
  const [axis, joined] = [attrs.axis, x.def.attrs['axis'] as number].map((at) => (at < 0 ? at + rank : at));
  if (axis !== joined || attrs.step < 1) return null;
  let start = 0;
  for (const part of x.def.inputs['xs'] as readonly Value[]) {
    const size = part.type.shape[axis];
    if (!isStatic(size)) return null;
    if (attrs.start >= start && attrs.end <= start + size) {
      return b.emit(slice, { x: part }, { ...attrs, start: attrs.start - start, end: attrs.end - start }, { replaces: output });
    }
    start += size;
  }
  return null;
});

// ---- sinking

/** f(xᵀ) = f(x)ᵀ for a function f of single elements. */
const sinkThroughUnary: readonly Rule[] = unaryOps.map((decl) => rule(decl, `sink-through-${decl.name}`, ({ inputs: { x }, attrs, output }, b) => {
  const moved = sinkable(x);
  return moved && put(b, b.emit(decl as never, { x: moved.x }, attrs, { replaces: output }), moved.perm, output.name);
}));

/** The shape with leading axes of size 1 up to a rank. */
const padRank = (shape: Shape, rank: number): Shape => [...new Array<number>(rank - shape.length).fill(1), ...shape];

/**
 * `value` with the inverse of `perm` applied, where that costs nothing at run time: it is transposed by `perm` itself, constant, or
 * has at most one axis longer than 1. Null where it would be a real transpose.
 */
const untransposed = (value: Value, perm: readonly number[], b: Rewriter): Value | null => {
  const moved = transposedOf(value);
  if (moved !== null && samePerm(moved.perm, perm)) return moved.x;
  const rank = perm.length;
  const { shape } = value.type;
  if (shape.length > rank) return null;
  const small = shape.filter((dim) => !(isStatic(dim) && dim === 1)).length <= 1;
  if (constantOf(value) === null && !small) return null;
  if (shape.every((dim) => dim === 1) && constantOf(value) !== null) return value;
  const wide = shape.length === rank ? value : b.emit(reshape, { x: value }, { shape: padRank(shape, rank) }, { name: `${value.name}.widened` });
  return put(b, wide, inverse(perm), value.name);
};

/** f(xᵀ, yᵀ) = f(x, y)ᵀ; also for a constant y, and for a y of one row, whose transpose is a reshape. */
const sinkThroughBinary: readonly Rule[] = binaryOps.map((decl) => rule(decl, `sink-through-${decl.name}`, ({ inputs: { x, y }, output }, b) => {
  for (const [moved, other, flip] of [[sinkable(x), y, false], [sinkable(y), x, true]] as const) {
    if (moved === null || moved.perm.length !== output.type.shape.length) continue;
    const twin = untransposed(other, moved.perm, b);
    if (twin === null) continue;
    return put(b, b.emit(decl, flip ? { x: twin, y: moved.x } : { x: moved.x, y: twin }, {}, { replaces: output }), moved.perm, output.name);
  }
  return null;
}));

/** concat(x₁ᵀ, x₂ᵀ, …) = concat(x₁, x₂, …)ᵀ along the axis the permutation sends it to. */
const sinkThroughConcat = rule(concat, 'sink-through-concat', ({ inputs: { xs }, attrs: { axis }, output }, b) => {
  const moved = xs.map(sinkable).find((one) => one !== null);
  if (!moved) return null;
  const twins = xs.map((x) => untransposed(x, moved.perm, b));
  if (!twins.every((twin): twin is Value => twin !== null)) return null;
  const along = moved.perm[axis < 0 ? axis + moved.perm.length : axis];
  return put(b, b.emit(concat, { xs: twins }, { axis: along }, { replaces: output }), moved.perm, output.name);
});

/** Reducing axes of xᵀ is reducing the axes of x that they come from. */
const sinkThroughReduction: readonly Rule[] = reductions.map((decl) => rule(decl, `sink-through-${decl.name}`, ({ inputs: { x }, attrs: { axes, keepDims }, output }, b) => {
  const moved = sinkable(x);
  if (moved === null) return null;
  const { perm } = moved;
  const sources = axes.map((axis) => perm[axis < 0 ? axis + perm.length : axis]).sort((p, q) => p - q);
  const reduced = b.emit(decl, { x: moved.x }, { axes: sources, keepDims }, { replaces: output });
  if (keepDims) return put(b, reduced, perm, output.name);
  const kept = perm.map((_, axis) => axis).filter((axis) => !sources.includes(axis));
  return put(b, reduced, perm.filter((axis) => !sources.includes(axis)).map((axis) => kept.indexOf(axis)), output.name);
}));

/** Softmax along an axis of xᵀ is softmax along the axis of x it comes from; only where that is the last one. */
const sinkThroughSoftmax = rule(softmax, 'sink-through-softmax', ({ inputs: { x }, attrs: { axis }, output }, b) => {
  const moved = sinkable(x);
  if (moved === null) return null;
  const source = moved.perm[axis < 0 ? axis + moved.perm.length : axis];
  if (source !== moved.perm.length - 1) return null;
  return put(b, b.emit(softmax, { x: moved.x }, { axis: source }, { replaces: output }), moved.perm, output.name);
});

/** Ops on rows of the last axis do not mind the order of the others. */
const keepsLast = ({ perm }: Transposed): boolean => perm[perm.length - 1] === perm.length - 1;
const sinkThroughRows: readonly Rule[] = [linear, batchNorm, layerNorm, rmsNorm].map((decl): Rule => ({
  name: `sink-through-${decl.name}`, root: decl.name,
  apply: ({ inputs, attrs, output }, b) => {
    const moved = sinkable(inputs['x'] as Value);
    if (moved === null || !keepsLast(moved)) return null;
    return put(b, b.emit(decl as never, { ...inputs, x: moved.x } as never, attrs, { replaces: output }), moved.perm, output.name);
  },
}));

const sinkThroughSlice = rule(slice, 'sink-through-slice', ({ inputs: { x }, attrs, output }, b) => {
  const moved = sinkable(x);
  if (moved === null) return null;
  const axis = moved.perm[attrs.axis < 0 ? attrs.axis + moved.perm.length : attrs.axis];
  return put(b, b.emit(slice, { x: moved.x }, { ...attrs, axis }, { replaces: output }), moved.perm, output.name);
});
const sinkThroughPad = rule(pad, 'sink-through-pad', ({ inputs: { x }, attrs: { pads, value }, output }, b) => {
  const moved = sinkable(x);
  if (moved === null) return null;
  const source = inverse(moved.perm);
  const rank = source.length;
  const sides = [...source, ...source.map((axis) => axis + rank)];
  return put(b, b.emit(pad, { x: moved.x }, { pads: sides.map((side) => pads[side]), value }, { replaces: output }), moved.perm, output.name);
});
const sinkThroughExpand = rule(expand, 'sink-through-expand', ({ inputs: { x }, attrs: { shape }, output }, b) => {
  const moved = sinkable(x);
  if (moved === null || shape.length !== moved.perm.length) return null;
  const source = inverse(moved.perm);
  return put(b, b.emit(expand, { x: moved.x }, { shape: source.map((axis) => shape[axis]) }, { replaces: output }), moved.perm, output.name);
});

/**
 * flatten(xᵀ)·Wᵀ = flatten(x)·W'ᵀ, the columns of W in the order of x: a transpose before a flattening `linear` moves into its
 * weights.
 */
const permuteFlattenedWeight = rule(linear, 'permute-flattened-weight', ({ inputs: { x, weight, bias }, output }, b) => {
  if (!isNode(x.def) || x.def.op !== 'reshape') return null;
  const moved = transposedOf(x.def.inputs['x'] as Value);
  const [outputs, terms] = weight.type.shape;
  if (moved === null || !isStatic(terms) || !isStatic(outputs)) return null;
  const { perm } = moved;
  const rank = perm.length;
  const from = moved.x.type.shape;
  // The last axes of xᵀ that together make one row of the linear.
  let first = rank;
  let size = 1;
  while (first > 0 && size < terms) {
    const dim = from[perm[--first]];
    if (!isStatic(dim)) return null;
    size *= dim;
  }
  const leads = Array.from({ length: first }, (_, axis) => axis);
  if (size !== terms || !leads.every((axis) => perm[axis] === axis)) return null;
  const tail = perm.slice(first).map((axis) => axis - first);
  const sizes = perm.slice(first).map((axis) => from[axis]);
  const split = b.emit(reshape, { x: weight }, { shape: [outputs, ...sizes] }, { name: `${weight.name}.split` });
  const turned = b.emit(transpose, { x: split }, { perm: [0, ...inverse(tail).map((axis) => axis + 1)] }, { name: `${weight.name}.turned` });
  const flat = b.emit(reshape, { x: turned }, { shape: [outputs, terms] }, { name: `${weight.name}.reordered` });
  const rows = b.emit(reshape, { x: moved.x }, { shape: x.type.shape }, { name: x.name });
  return b.emit(linear, { x: rows, weight: flat, bias }, {}, { replaces: output });
});

/** (f(x))ᵀ = f(xᵀ) for an f straight at a graph input: the transpose moves up to the input, where it is the only one. */
const hoistToInput = rule(transpose, 'hoist-to-input', ({ inputs: { x }, attrs: { perm }, output }, b) => {
  if (!isNode(x.def) || b.useCount(x) > 1) return null;
  const { op, inputs, decl, attrs } = x.def;
  const atInput = (value: Value): boolean => value.def.op === 'input' || transposedOf(value)?.x.def.op === 'input';
  if (unaryOps.some(({ name }) => name === op)) {
    const source = inputs['x'] as Value;
    return atInput(source) ? b.emit(decl as never, { x: put(b, source, perm, source.name) }, attrs, { replaces: output }) : null;
  }
  if (!binaryOps.some(({ name }) => name === op)) return null;
  const [left, right] = [inputs['x'] as Value, inputs['y'] as Value];
  const sides = [left, right].map((value) =>
    atInput(value) && value.type.shape.length === perm.length ? put(b, value, perm, value.name)
      : constantOf(value) !== null ? untransposed(value, inverse(perm), b) : null);
  return sides[0] !== null && sides[1] !== null ? b.emit(decl as never, { x: sides[0], y: sides[1] }, {}, { replaces: output }) : null;
});

// ---- reshapes that only join leading axes

/** Ops on rows of the last axis do not mind whether the axes before it are joined: rows(reshape(x)) = reshape(rows(x)). */
const joinsRows = (value: Value): Value | null => {
  if (!isNode(value.def) || value.def.op !== 'reshape') return null;
  const source = value.def.inputs['x'] as Value;
  const [from, to] = [source.type.shape, value.type.shape];
  if (isReduction(source)) return null;
  return isNode(source.def) && to.length === 2 && from.length > 2 && equalShapes(from.slice(-1), to.slice(-1)) ? source : null;
};
const split = (b: Rewriter, x: Value, output: Value): Value =>
  b.emit(reshape, { x }, { shape: output.type.shape }, { name: `${output.name}.rows` });
const splitThroughRows: readonly Rule[] = [linear, layerNorm, rmsNorm, ...unaryOps].map((decl): Rule => ({
  name: `split-through-${decl.name}`, root: decl.name,
  apply: ({ inputs, attrs, output }, b) => {
    const source = joinsRows(inputs['x'] as Value);
    return source && split(b, b.emit(decl as never, { ...inputs, x: source } as never, attrs, { replaces: output }), output);
  },
}));
const splitThroughBinary: readonly Rule[] = binaryOps.map((decl) => rule(decl, `split-through-${decl.name}`, ({ inputs: { x, y }, output }, b) => {
  const [left, right] = [joinsRows(x), joinsRows(y)];
  // One row for all: a constant along the last axis only.
  const row = (value: Value): Value | null => (constantOf(value) !== null && value.type.shape.slice(0, -1).every((dim) => dim === 1)
    ? b.emit(reshape, { x: value }, { shape: value.type.shape.slice(-1) }, { name: `${value.name}.row` }) : null);
  const pair = left !== null && right !== null ? (equalShapes(left.type.shape, right.type.shape) ? [left, right] : null)
    : left !== null ? [left, row(y)] : right !== null ? [row(x), right] : null;
  if (pair === null || pair[0] === null || pair[1] === null) return null;
  return split(b, b.emit(decl, { x: pair[0], y: pair[1] }, {}, { replaces: output }), output);
}));

export const layoutRules: readonly Rule[] = [
  ...foldRules, shrinkReshapes, shrinkTransposes, dropKeptAxes, sliceOfConcat, hoistToInput, ...sinkThroughUnary, ...sinkThroughBinary, sinkThroughConcat,
  ...sinkThroughReduction, sinkThroughSoftmax, ...sinkThroughRows, sinkThroughSlice, sinkThroughPad, sinkThroughExpand, permuteFlattenedWeight,
  ...splitThroughRows, ...splitThroughBinary,
];

/** Sweeps for a graph as deep as it is wide: each sweep moves a transpose past everything below it, once per chain of views. */
export const LAYOUT_SWEEPS = 32;

export const simplifyLayout = definePass({
  name: 'simplify-layout', from: 'float', to: 'float',
  summary: 'cancel reshapes and transposes, and move the rest out of the way',
  options: {},
  run: (graph, _, context) => applyRules(graph, layoutRules, 'simplify-layout', context, LAYOUT_SWEEPS),
});
