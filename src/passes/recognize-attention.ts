/**
 * The products, softmax and head transposes of scaled attention become one op, whose heads lie side by side in the last axis.
 *
 *     attention(q, k, v) = softmax(scale·q·kᵀ + mask)·v        Vaswani et al., 2017
 *
 *     %s = matmul(%q, %k); %p = softmax(%s); %y = matmul(%p, %v)   ->   %y = attention(%q, %k, %v) {heads, scale}
 *
 * Queries, keys and values are read as strided views of the tensors they were cut from, so it does not matter in which order a file
 * reshapes, transposes, slices and scales them, or whether one `linear` computes all three: whatever lies at batch, step and channel
 * of its source is taken from there. A view of another kind is transposed explicitly.
 */
import { equalShapes, isStatic, type Dim, type Shape } from '../ir/dim.ts';
import { constantOf, isNode, type Node, type Value } from '../ir/graph.ts';
import { attention, matmul, reshape, slice, transpose } from '../ir/ops/index.ts';
import { broadcastOffsets } from '../ir/ops/elements.ts';
import { rule, type Rewriter, type Rule } from '../ir/rewrite.ts';
import { genericSizes, viewOf, type Scaled } from '../ir/view.ts';
import { pairOf, plainScalarOf, siteBetween } from './arithmetic.ts';
import { applyRules, definePass } from './pass.ts';
import { LAYOUT_SWEEPS, layoutRules } from './simplify-layout.ts';
import { channelsFrom } from './split-linear.ts';

/** Logits at or below this are masked: after softmax they are 0 in float32 for any logits that a network computes. */
const MASKED = -1e4;

const scaledOf = (value: Value): Scaled | null => {
  const product = pairOf(value, 'mul');
  if (product !== null) {
    const [left, right] = product.map(plainScalarOf);
    return right !== null ? { x: product[0], factor: right } : left !== null ? { x: product[1], factor: left } : null;
  }
  const quotient = pairOf(value, 'div');
  const divisor = quotient && plainScalarOf(quotient[1]);
  return quotient && divisor ? { x: quotient[0], factor: 1 / divisor } : null;
};

interface Scores {
  readonly product: Node;
  readonly scale: number;
  /** where attention is allowed, row-major [steps, sources]; null = everywhere */
  readonly allowed: Uint8Array | null;
}

/** Logits as scale·q·kᵀ under a mask. */
const scoresOf = (logits: Value): Scores | null => {
  const [steps, sources] = logits.type.shape.slice(-2);
  let scale = 1;
  let allowed: Uint8Array | null = null;
  const restrict = (mask: Uint8Array): void => { allowed = allowed === null ? mask : mask.map((one, i) => one & (allowed as Uint8Array)[i]); };
  for (let at = logits; isNode(at.def); ) {
    if (at.def.op === 'matmul') return { product: at.def, scale, allowed };
    const inner = rowsKept(at);
    if (inner !== null) { at = inner; continue; }
    const scaled = scaledOf(at);
    const masked = scaled === null && isStatic(steps) && isStatic(sources) ? maskedOf(at, [steps, sources]) : null;
    if (scaled !== null) scale *= scaled.factor;
    else if (masked !== null) restrict(masked.allowed);
    else return null;
    at = (scaled ?? masked)?.x as Value;
  }
  return null;
};

/** The operand of a reshape that keeps the last two axes. */
const rowsKept = (value: Value): Value | null => {
  if (!isNode(value.def) || value.def.op !== 'reshape') return null;
  const x = value.def.inputs['x'] as Value;
  return equalShapes(x.type.shape.slice(-2), value.type.shape.slice(-2)) ? x : null;
};

/** x under a mask of zeros and large negative numbers that is added, or selected by a constant condition. */
const maskedOf = (value: Value, size: readonly [number, number]): { readonly x: Value; readonly allowed: Uint8Array } | null => {
  const sum = pairOf(value, 'add');
  for (const [x, term] of sum === null ? [] : [sum, [sum[1], sum[0]]]) {
    const entries = matrixOf(term, size);
    if (entries !== null && entries.every((entry) => entry === 0 || entry <= MASKED)) return { x, allowed: Uint8Array.from(entries, (entry) => Number(entry === 0)) };
  }
  if (!isNode(value.def) || value.def.op !== 'where') return null;
  const { condition, x, y } = value.def.inputs as Readonly<Record<'condition' | 'x' | 'y', Value>>;
  const truth = matrixOf(condition, size);
  if (truth === null) return null;
  for (const [kept, filler, when] of [[x, y, 1], [y, x, 0]] as const) {
    const fill = plainScalarOf(filler);
    if (fill !== null && fill <= MASKED) return { x: kept, allowed: Uint8Array.from(truth, (one) => Number((one !== 0 ? 1 : 0) === when)) };
  }
  return null;
};

/** A constant that is the same for every batch and head, as its entries for [steps, sources]. */
const matrixOf = (value: Value, size: readonly [number, number]): readonly number[] | null => {
  const tensor = constantOf(value);
  if (tensor === null || !value.type.shape.slice(0, -2).every((dim) => dim === 1)) return null;
  const shape = value.type.shape.slice(-2);
  if (!shape.every((dim, i) => dim === 1 || dim === size[i - shape.length + 2])) return null;
  return Array.from(broadcastOffsets(shape, size), (at) => Number(tensor.data[at]));
};

interface Tokens {
  /** [batch, steps, heads·depth] */
  readonly x: Value;
  readonly factor: number;
}
/** The logical shape [batch, heads, steps, depth] of an operand and the axes that hold it; axis -1 is absent and of size 1. */
interface Heads {
  readonly batch: Dim;
  readonly heads: number;
  readonly steps: Dim;
  readonly depth: number;
  readonly axes: readonly [number, number, number, number];
}

/** What an operand holds, as tokens with their heads side by side. */
const tokensOf = (value: Value, { batch, heads, steps, depth, axes }: Heads, b: Rewriter, stem: string): Tokens => {
  const view = viewOf(value, ['reshape', 'transpose', 'slice'], scaledOf);
  const width = view?.source.type.shape.at(-1);
  const all = view && genericSizes([...view.source.type.shape, batch, steps]);
  if (view !== null && all !== null && typeof width === 'number') {
    const [n, t] = all.slice(-2);
    const [batchStride, headStride, stepStride, depthStride] = axes.map((axis) => (axis < 0 ? 0 : view.strides[axis]));
    const sourceSize = all.slice(0, -2).reduce((product, dim) => product * dim, 1);
    const channels = Array.from({ length: heads * depth }, (_, i) => view.offset + Math.floor(i / depth) * headStride + (i % depth) * depthStride);
    const rowByRow = (t === 1 || stepStride === width) && (n === 1 || batchStride === t * width) && sourceSize === n * t * width;
    if (rowByRow && channels.every((channel) => channel < width)) {
      const rows = channelsOfSource(view.source, channels, width, b, stem);
      if (rows !== null) return { x: shaped(rows, [batch, steps, heads * depth], b, stem), factor: view.factor };
    }
  }
  const wide = shaped(value, [batch, heads, ...value.type.shape.slice(-2)], b, stem);
  const perm = axes[2] < axes[3] ? [0, 2, 1, 3] : [0, 3, 1, 2];
  const moved = b.emit(transpose, { x: wide }, { perm }, { name: `${stem}.tokens` });
  return { x: shaped(moved, [batch, steps, heads * depth], b, stem), factor: 1 };
};

const shaped = (x: Value, shape: Shape, b: Rewriter, stem: string): Value =>
  equalShapes(x.type.shape, shape) ? x : b.emit(reshape, { x }, { shape }, { name: `${stem}.rows` });

/** Channels of a source: all of them, a slice, or rows of the weights that compute it; null where they are scattered. */
const channelsOfSource = (source: Value, channels: readonly number[], width: number, b: Rewriter, stem: string): Value | null => {
  const consecutive = channels.every((channel, i) => channel === channels[0] + i);
  if (consecutive && channels.length === width) return source;
  const own = channelsFrom(source, channels, b, stem);
  if (own !== null || !consecutive) return own;
  return b.emit(slice, { x: source }, { axis: -1, start: channels[0], end: channels[0] + channels.length }, { name: stem });
};

/** Of three axes the first is the heads where it runs inside the rows of its source, and the batch otherwise. */
const headsFirst = (value: Value): boolean => {
  const view = viewOf(value, ['reshape', 'transpose', 'slice'], scaledOf);
  const width = view?.source.type.shape.at(-1);
  return view !== null && typeof width === 'number' && view.sizes[0] > 1 && view.strides[0] < width;
};

/** Batch, heads, steps and depth of each operand, `swapped` telling which hold [.., depth, steps]; null where they do not fit. */
const headsOf = (operands: readonly Value[], swapped: readonly boolean[]): readonly Heads[] | null => {
  const rank = operands[0].type.shape.length;
  const alone = operands.every(({ type }) => type.shape.slice(0, -2).every((dim) => dim === 1));
  if (!alone && (rank < 3 || rank > 4 || operands.some(({ type }) => type.shape.length !== rank))) return null;
  const lead: readonly [number, number] = alone ? [-1, -1] : rank === 4 ? [0, 1] : operands.every(headsFirst) ? [-1, 0] : [0, -1];
  const found = operands.map(({ type: { shape } }, i): Heads | null => {
    const [row, column] = [shape.length - 2, shape.length - 1];
    const axes = [...lead, ...(swapped[i] ? [column, row] : [row, column])] as unknown as Heads['axes'];
    const [batch, heads, steps, depth] = axes.map((axis): Dim => (axis < 0 ? 1 : shape[axis]));
    return isStatic(heads) && isStatic(depth) ? { batch, heads, steps, depth, axes } : null;
  });
  return found.every((one): one is Heads => one !== null && one.heads === found[0]?.heads && equalShapes([one.batch], [found[0].batch])) ? found : null;
};

const recognizeProducts = rule(matmul, 'recognize-products', ({ inputs: { a, b: v }, attrs: { transposeB }, output }, b) => {
  const powers = rowsKept(a) ?? a;
  if (!isNode(powers.def) || powers.def.op !== 'softmax') return null;
  const axis = powers.def.attrs['axis'] as number;
  if (axis !== -1 && axis !== powers.type.shape.length - 1) return null;
  const scores = scoresOf(powers.def.inputs['x'] as Value);
  if (scores === null) return b.decline('the logits are no scaled and masked product');
  const [q, k] = [scores.product.inputs['a'] as Value, scores.product.inputs['b'] as Value];
  const roles = headsOf([q, k, v], [false, scores.product.attrs['transposeB'] !== true, transposeB]);
  if (roles === null) return b.decline('queries, keys and values have no common batch and heads');
  const [ofQ, ofK, ofV] = roles;
  b.site = siteBetween(output, [q, k, v], b.site);
  const { name } = output;
  const queries = tokensOf(q, ofQ, b, `${name}.q`);
  const keys = tokensOf(k, ofK, b, `${name}.k`);
  const values = tokensOf(v, ofV, b, `${name}.v`);
  // A scaled v is left to the passes that fold scales into weights.
  if (values.factor !== 1) return b.decline('the values are scaled');
  const scale = scores.scale * queries.factor * keys.factor;
  const mask = scores.allowed === null || scores.allowed.every((one) => one === 1) ? null
    : b.constant(`${name}.mask`, { type: { dtype: 'bool', shape: a.type.shape.slice(-2), quant: null }, data: scores.allowed });
  const joined = b.emit(attention, { q: queries.x, k: keys.x, v: values.x, mask }, { heads: ofQ.heads, scale }, { replaces: output });
  if (ofQ.heads === 1) return shaped(joined, output.type.shape, b, name);
  const split = b.emit(reshape, { x: joined }, { shape: [ofQ.batch, ofQ.steps, ofQ.heads, ofV.depth] }, { name: `${name}.split` });
  const heads = b.emit(transpose, { x: split }, { perm: [0, 2, 1, 3] }, { name: `${name}.heads` });
  return shaped(heads, output.type.shape, b, name);
});

export const attentionRules: readonly Rule[] = [recognizeProducts];

export const recognizeAttention = definePass({
  name: 'recognize-attention', from: 'float', to: 'float',
  summary: 'join the products, softmax and transposes of attention to one op',
  paper: 'Vaswani et al. 2017, Attention is all you need',
  options: {},
  run: (graph, _, context) => applyRules(graph, [...attentionRules, ...layoutRules], 'recognize-attention', context, LAYOUT_SWEEPS),
});
