/**
 * What each op of the float stage does with a change of channel coordinates (change.ts): which channels must change together
 * (`relate`), and how constants take the changes of the operands and of the result (`fold`). The one place that knows both; the site
 * finder reads the first, the applier the second.
 *
 *     linear:      W' = W·diag(s_in) / s_out,   b' = (b + W·z_in − z_out) / s_out
 *     layer_norm:  γ' = γ / s_out,              β' = (β − z_out) / s_out
 *     relu:        relu(s·x) = s·relu(x) for s > 0: one scale before and after, no shift
 *     attention:   rows of softmax sum to 1, so v and the result share scale and shift; q/s against k·s leaves the products; a shift
 *                  of k adds the same to all logits of a row and vanishes
 *
 * An op without a rule holds its operands and its result as they are.
 */
import { isStatic, staticShape } from '../../ir/dim.ts';
import { constantOf, isNode, operandsOf, type Node, type Value } from '../../ir/graph.ts';
import type { NodeOf } from '../../ir/op.ts';
import type * as float from '../../ir/ops/index.ts';
import { unaryOps, type FloatNode } from '../../ir/ops/index.ts';
import { f32, tensorType, type TensorType } from '../../ir/type.ts';
import { changed, channelAt, equalChanges, equalOrders, equalScales, identity, isIdentity, scaleAt, shiftAt, type Change } from './change.ts';

export type Part = 'scale' | 'shift' | 'order';

/** Told by `relate` what holds between the channels of values. */
export interface Relations {
  /** scale, shift and order are those of the other value */
  same(x: Value, y: Value): void;
  /** as `same`, for single channels; neither value can be reordered */
  sameChannel(x: Value, i: number, y: Value, j: number): void;
  /** one scale and one order, and no shift */
  sameScale(x: Value, y: Value): void;
  /** one order, and the scales of a channel multiply to 1 */
  reciprocal(x: Value, y: Value): void;
  sameOrder(x: Value, y: Value): void;
  /** these parts cannot change */
  hold(value: Value, ...parts: readonly Part[]): void;
  /** channels stay within their block, one of `count` equal ones */
  blocks(value: Value, count: number): void;
}

/** Handed to `fold`. */
export interface Folding {
  change(value: Value): Change;
  /** a constant in place of another one (null: an absent one), its name derived from `stem` */
  constant(stem: string, type: TensorType, data: Float32Array): Value;
  /** the constant that `old` becomes under these changes: made once where several nodes read it under equal changes */
  shared(old: Value, changes: readonly Change[], make: () => Float32Array): Value;
}

type Constants = Readonly<Record<string, Value | null | readonly Value[]>>;

export interface ChannelRule<N> {
  relate(node: N, to: Relations): void;
  /** the constant operands that take part in the change; null where the op cannot take it */
  fold(node: N, by: Folding): Constants | null;
}

/** Size of the last axis of a real value; 0 where it has none or a symbol. */
export const channelsOf = ({ type: { dtype, shape } }: Value): number => {
  const last = shape.at(-1);
  return dtype === 'f32' && last !== undefined && isStatic(last) ? last : 0;
};

const all: readonly Part[] = ['scale', 'shift', 'order'];
const unchanged: Constants = {};
const dataOf = (value: Value | null): Float32Array | null => constantOf(value)?.data as Float32Array | undefined ?? null;
const lastAxis = (value: Value): number => value.type.shape.length - 1;
const reduces = (axes: readonly number[], value: Value): boolean => axes.some((axis) => axis === -1 || axis === lastAxis(value));

/** Whatever is not known to keep its meaning under a change stays as it is. */
const held: ChannelRule<Node> = {
  relate: (node, to) => [...operandsOf(node), node.output].forEach((value) => to.hold(value, ...all)),
  fold: (node, by) => ([...operandsOf(node), node.output].every((value) => isIdentity(by.change(value))) ? unchanged : null),
};

const plain = (node: { readonly op: string }): Node => node as unknown as Node;

type OneOperand = { readonly inputs: { readonly x: Value }; readonly output: Value };

/** Functions of single elements: channels may stand in any order. */
const elementwise: ChannelRule<OneOperand> = {
  relate: ({ inputs: { x }, output }, to) => {
    to.sameOrder(x, output);
    for (const value of [x, output]) to.hold(value, 'scale', 'shift');
  },
  fold: ({ inputs: { x }, output }, by) => {
    const [before, after] = [by.change(x), by.change(output)];
    return equalOrders(before, after) && [before, after].every(({ scale, shift }) => scale === null && shift === null) ? unchanged : null;
  },
};

const carries = (x: Value, y: Value, by: Folding): Constants | null => (equalChanges(by.change(x), by.change(y)) ? unchanged : null);
const unshifted = (...changes: readonly Change[]): boolean => changes.every(({ shift }) => shift === null);

/** f(s·x) = s·f(x) for s > 0. */
const homogeneous: ChannelRule<OneOperand> = {
  relate: ({ inputs: { x }, output }, to) => to.sameScale(x, output),
  fold: ({ inputs: { x }, output }, by) => (unshifted(by.change(x)) ? carries(x, output, by) : null),
};
/** Ops that take means, maxima or views of single channels. */
const channelwise: ChannelRule<OneOperand> = {
  relate: ({ inputs: { x }, output }, to) => to.same(x, output),
  fold: ({ inputs: { x }, output }, by) => carries(x, output, by),
};

const clip: ChannelRule<NodeOf<typeof float.clip>> = {
  relate: (node, to) => (isOneSided(node) || ceilingOf(node) !== null ? homogeneous : elementwise).relate(node, to),
  fold: (node, by) => {
    if (isOneSided(node)) return homogeneous.fold(node, by);
    const [ceiling, { scale }] = [ceilingOf(node), by.change(node.output)];
    if (ceiling === null || scale === null) return elementwise.fold(node, by);
    return scale.every((s) => s <= 1) ? homogeneous.fold(node, by) : null;
  },
};
const isOneSided = ({ attrs: { high, low } }: NodeOf<typeof float.clip>): boolean => high === Infinity && (low === 0 || low === -Infinity);

/**
 * The ceiling of a clip that starts at 0, as ReLU6 does; null for other nodes. Under a scale s ≤ 1 the same ceiling lets s·ceiling through, less
 * than before: nothing is lost where the channel never exceeds that, and codes would not reach further either.
 */
export const ceilingOf = (node: Pick<Node, 'op' | 'attrs'>): number | null => {
  const { low, high } = node.attrs as { low?: number; high?: number };
  return node.op === 'clip' && low === 0 && high !== undefined && high > 0 && high < Infinity ? high : null;
};

// ---- layers with weights

const linear: ChannelRule<NodeOf<typeof float.linear>> = {
  relate: (node, to) => { if (!hasConstants(node)) held.relate(plain(node), to); },
  fold: (node, by) => (hasConstants(node) ? foldLayer(node, 1, false, by) : held.fold(plain(node), by)),
};

const conv: ChannelRule<NodeOf<typeof float.conv>> = {
  relate: (node, to) => {
    const { inputs: { x, weight }, attrs: { group, pads }, output } = node;
    if (!hasConstants(node)) return held.relate(plain(node), to);
    // the border reads 0, which a shift would move
    if (pads.some((p) => p > 0)) to.hold(x, 'shift');
    if (group === 1) return;
    if (weight.type.shape[0] === group && channelsOf(weight) === 1) return to.sameOrder(x, output);
    for (const value of [x, output]) to.hold(value, 'order');
  },
  fold: (node, by) => (hasConstants(node) ? foldLayer(node, node.attrs.group, node.attrs.pads.some((p) => p > 0), by) : held.fold(plain(node), by)),
};

interface Layer {
  readonly inputs: { readonly x: Value; readonly weight: Value; readonly bias: Value | null };
  readonly output: Value;
}
const hasConstants = ({ inputs: { weight, bias } }: Layer): boolean => dataOf(weight) !== null && (bias === null || dataOf(bias) !== null);

const foldLayer = ({ inputs: { x, weight, bias }, output }: Layer, groups: number, padded: boolean, by: Folding): Constants | null => {
  const [before, after] = [by.change(x), by.change(output)];
  if (isIdentity(before) && isIdentity(after)) return unchanged;
  if (padded && before.shift !== null) return null;
  const source = dataOf(weight)!;
  const shape = staticShape(weight.type.shape);
  const [outputs, depth] = [shape[0], shape[shape.length - 1]];
  const taps = source.length / outputs / depth;
  const groupOf = (row: number): number => Math.floor((row * groups) / outputs);
  // the column of the old row that position d of a new row reads
  const column = (to: number, row: number, d: number): number => channelAt(before, groupOf(to) * depth + d) - groupOf(row) * depth;
  for (let to = 0; to < outputs; to++) for (let d = 0; d < depth; d++) {
    const from = column(to, channelAt(after, to), d);
    if (from < 0 || from >= depth) return null;
  }
  const weights = by.shared(weight, [before, after], () => {
    const made = new Float32Array(source.length);
    for (let to = 0, at = 0; to < outputs; to++) {
      const row = channelAt(after, to);
      for (let t = 0; t < taps; t++) for (let d = 0; d < depth; d++, at++) {
        const c = column(to, row, d);
        made[at] = (source[(row * taps + t) * depth + c] * scaleAt(before, groupOf(row) * depth + c)) / scaleAt(after, row);
      }
    }
    return made;
  });
  return { weight: weights, bias: foldBias(source, dataOf(bias), { outputs, taps, depth, groupOf }, before, after, bias?.name ?? `${output.name}.bias`, by) };
};

interface Rows {
  readonly outputs: number;
  readonly taps: number;
  readonly depth: number;
  readonly groupOf: (row: number) => number;
}
const foldBias = (source: Float32Array, bias: Float32Array | null, { outputs, taps, depth, groupOf }: Rows, before: Change, after: Change, name: string, by: Folding): Value | null => {
  if (bias === null && before.shift === null && after.shift === null) return null;
  const made = new Float32Array(outputs);
  for (let to = 0; to < outputs; to++) {
    const row = channelAt(after, to);
    let sum = bias === null ? 0 : bias[row];
    if (before.shift !== null) {
      for (let t = 0, at = row * taps * depth; t < taps; t++) for (let d = 0; d < depth; d++, at++) sum += source[at] * before.shift[groupOf(row) * depth + d];
    }
    made[to] = (sum - shiftAt(after, row)) / scaleAt(after, row);
  }
  return by.constant(name, f32(outputs), made);
};

// ---- norms

const affineConstants = (length: number, value: Value | null, fallback: number): ArrayLike<number> | null =>
  (value === null ? new Float32Array(length).fill(fallback) : dataOf(value));

const layerNorm: ChannelRule<NodeOf<typeof float.layerNorm>> = {
  relate: ({ inputs: { x, scale, bias }, output }, to) => {
    to.hold(x, 'scale', 'shift');
    to.sameOrder(x, output);
    if ([scale, bias].some((value) => value !== null && dataOf(value) === null)) to.hold(output, ...all);
  },
  fold: ({ inputs: { x, scale, bias }, output }, by) => {
    const [before, after] = [by.change(x), by.change(output)];
    const channels = channelsOf(output);
    const [gamma, beta] = [affineConstants(channels, scale, 1), affineConstants(channels, bias, 0)];
    if (before.scale !== null || before.shift !== null || !equalOrders(before, after)) return null;
    if (isIdentity(after)) return unchanged;
    if (gamma === null || beta === null) return null;
    const per = (at: (c: number) => number): Float32Array => Float32Array.from({ length: channels }, (_, k) => at(channelAt(after, k)));
    return {
      scale: by.constant(scale?.name ?? `${output.name}.scale`, f32(channels), per((c) => gamma[c] / scaleAt(after, c))),
      bias: bias === null && after.shift === null ? null
        : by.constant(bias?.name ?? `${output.name}.bias`, f32(channels), per((c) => (beta[c] - shiftAt(after, c)) / scaleAt(after, c))),
    };
  },
};

const rmsNorm: ChannelRule<NodeOf<typeof float.rmsNorm>> = {
  relate: ({ inputs: { x, scale }, output }, to) => {
    to.hold(x, 'scale', 'shift');
    to.sameOrder(x, output);
    to.hold(output, 'shift');
    if (scale !== null && dataOf(scale) === null) to.hold(output, ...all);
  },
  fold: ({ inputs: { x, scale }, output }, by) => {
    const [before, after] = [by.change(x), by.change(output)];
    const channels = channelsOf(output);
    const gamma = affineConstants(channels, scale, 1);
    if (before.scale !== null || !unshifted(before, after) || !equalOrders(before, after)) return null;
    if (isIdentity(after)) return unchanged;
    if (gamma === null) return null;
    const made = Float32Array.from({ length: channels }, (_, k) => gamma[channelAt(after, k)] / scaleAt(after, channelAt(after, k)));
    return { scale: by.constant(scale?.name ?? `${output.name}.scale`, f32(channels), made) };
  },
};

/** One affine map for each channel takes any change on either side. */
const batchNorm: ChannelRule<NodeOf<typeof float.batchNorm>> = {
  relate: (node, to) => {
    const { x, ...constants } = node.inputs;
    if (Object.values(constants).some((value) => dataOf(value) === null)) return held.relate(plain(node), to);
    to.sameOrder(x, node.output);
  },
  fold: ({ inputs: { x, scale, bias, mean, variance }, output }, by) => {
    const [before, after] = [by.change(x), by.change(output)];
    const [g, b, m, v] = [scale, bias, mean, variance].map(dataOf);
    if (isIdentity(before) && isIdentity(after)) return unchanged;
    if (!g || !b || !m || !v || !equalOrders(before, after)) return null;
    const channels = channelsOf(output);
    const made = (old: Value, at: (c: number) => number): Value =>
      by.constant(old.name, f32(channels), Float32Array.from({ length: channels }, (_, k) => at(channelAt(after, k))));
    return {
      scale: made(scale, (c) => (g[c] * scaleAt(before, c)) / scaleAt(after, c)),
      bias: made(bias, (c) => (b[c] - shiftAt(after, c)) / scaleAt(after, c)),
      mean: made(mean, (c) => (m[c] - shiftAt(before, c)) / scaleAt(before, c)),
      variance: after.order === null ? variance : made(variance, (c) => v[c]),
    };
  },
};

// ---- arithmetic of two operands

type Pair = NodeOf<typeof float.add> | NodeOf<typeof float.sub> | NodeOf<typeof float.mul>;

/** The constant operand and the computed one, where there is one of each and the result has the channels of the latter. */
const constantAndOther = ({ inputs: { x, y }, output }: Pair): { readonly slot: 'x' | 'y'; readonly constant: Value; readonly other: Value } | null => {
  const slot = dataOf(y) !== null ? 'y' : dataOf(x) !== null ? 'x' : null;
  if (slot === null) return null;
  const [constant, other] = slot === 'y' ? [y, x] : [x, y];
  return channelsOf(other) === channelsOf(output) ? { slot, constant, other } : null;
};
const sameWidth = ({ inputs: { x, y }, output }: Pair): boolean => [x, y].every((value) => channelsOf(value) === channelsOf(output));

/** A constant with one number for each of `channels`, repeated where it had one for all; `at` gets the number and its channel. */
const perChannel = (constant: Value, channels: number, after: Change, at: (value: number, c: number) => number): { readonly type: TensorType; readonly data: Float32Array } => {
  const source = dataOf(constant)!;
  const shape = staticShape(constant.type.shape);
  const wide = (shape.at(-1) ?? 1) === channels;
  const rows = wide ? source.length / channels : source.length;
  const data = new Float32Array(rows * channels);
  for (let row = 0, to = 0; row < rows; row++) for (let k = 0; k < channels; k++, to++) {
    const c = channelAt(after, k);
    data[to] = at(source[wide ? row * channels + c : row], c);
  }
  return { type: tensorType('f32', [...shape.slice(0, -1), channels]), data };
};

const sum = (sign: 1 | -1): ChannelRule<NodeOf<typeof float.add> | NodeOf<typeof float.sub>> => ({
  relate: (node, to) => {
    const { inputs: { x, y }, output } = node;
    const mixed = constantAndOther(node);
    if (mixed !== null) return to.same(mixed.other, output);
    if (!sameWidth(node)) return held.relate(plain(node), to);
    to.sameScale(x, output);
    to.sameScale(y, output);
  },
  fold: (node, by) => {
    const { inputs: { x, y }, output } = node;
    const after = by.change(output);
    const channels = channelsOf(output);
    const mixed = constantAndOther(node);
    if (mixed === null) {
      const [p, q] = [by.change(x), by.change(y)];
      if ([p, q, after].every(isIdentity)) return unchanged;
      const fits = sameWidth(node) && [p, q].every((one) => equalScales(one, after) && equalOrders(one, after))
        && Array.from({ length: channels }, (_, c) => shiftAt(p, c) + sign * shiftAt(q, c) - shiftAt(after, c)).every((rest) => rest === 0);
      return fits ? unchanged : null;
    }
    const before = by.change(mixed.other);
    if (isIdentity(before) && isIdentity(after)) return unchanged;
    if (!equalScales(before, after) || !equalOrders(before, after)) return null;
    const [own, others] = mixed.slot === 'y' ? [sign, 1] : [1, sign];
    const { type, data } = perChannel(mixed.constant, channels, after, (value, c) => (value + own * (others * shiftAt(before, c) - shiftAt(after, c))) / scaleAt(after, c));
    return { [mixed.slot]: by.constant(mixed.constant.name, type, data) };
  },
});

/** Producers that take a scale into their constants. */
const scalable: ReadonlySet<string> = new Set(['linear', 'conv', 'batch_norm', 'layer_norm', 'rms_norm']);

const product: ChannelRule<NodeOf<typeof float.mul>> = {
  relate: (node, to) => {
    const { inputs: { x, y }, output } = node;
    const mixed = constantAndOther(node);
    for (const value of [x, y, output]) to.hold(value, 'shift');
    if (mixed !== null) return to.sameOrder(mixed.other, output);
    if (!sameWidth(node)) return held.relate(plain(node), to);
    // the result takes the scale of one operand; the other one keeps its own
    const [carrier, other] = isNode(y.def) && scalable.has(y.def.op) ? [y, x] : [x, y];
    to.sameScale(carrier, output);
    to.sameOrder(other, output);
    to.hold(other, 'scale');
  },
  fold: (node, by) => {
    const { inputs: { x, y }, output } = node;
    const after = by.change(output);
    const channels = channelsOf(output);
    const mixed = constantAndOther(node);
    if (mixed === null) {
      const [p, q] = [by.change(x), by.change(y)];
      if ([p, q, after].every(isIdentity)) return unchanged;
      const fits = sameWidth(node) && unshifted(p, q, after) && equalOrders(p, after) && equalOrders(q, after)
        && Array.from({ length: channels }, (_, c) => scaleAt(p, c) * scaleAt(q, c) === scaleAt(after, c)).every(Boolean);
      return fits ? unchanged : null;
    }
    const before = by.change(mixed.other);
    if (isIdentity(before) && isIdentity(after)) return unchanged;
    if (!unshifted(before, after) || !equalOrders(before, after)) return null;
    const { type, data } = perChannel(mixed.constant, channels, after, (value, c) => (value * scaleAt(before, c)) / scaleAt(after, c));
    return { [mixed.slot]: by.constant(mixed.constant.name, type, data) };
  },
};

// ---- products of activations

const matmul: ChannelRule<NodeOf<typeof float.matmul>> = {
  relate: ({ inputs: { a, b }, attrs: { transposeB }, output }, to) => {
    if (transposeB) {
      to.reciprocal(a, b);
      for (const value of [a, b]) to.hold(value, 'shift');
      return to.hold(output, ...all);
    }
    to.hold(a, ...all);
    // rows of softmax sum to 1
    if (sumsToOne(a)) to.same(b, output); else to.sameScale(b, output);
  },
  fold: ({ inputs: { a, b }, attrs: { transposeB }, output }, by) => {
    const [p, q, after] = [by.change(a), by.change(b), by.change(output)];
    if (transposeB) return isIdentity(after) && unshifted(p, q) && areReciprocal(p, q) ? unchanged : null;
    return isIdentity(p) && (q.shift === null || sumsToOne(a)) && equalChanges(q, after) ? unchanged : null;
  },
};
const sumsToOne = (value: Value): boolean => isNode(value.def) && value.def.op === 'softmax' && [-1, lastAxis(value)].includes(value.def.attrs['axis'] as number);

const areReciprocal = (p: Change, q: Change): boolean => {
  const length = p.scale?.length ?? q.scale?.length ?? 0;
  for (let c = 0; c < length; c++) if (Math.abs(scaleAt(p, c) * scaleAt(q, c) - 1) > 1e-12) return false;
  return equalOrders(p, q);
};

const attention: ChannelRule<NodeOf<typeof float.attention>> = {
  relate: ({ inputs: { q, k, v }, attrs: { heads }, output }, to) => {
    to.reciprocal(q, k);
    to.hold(q, 'shift');
    to.same(v, output);
    for (const value of [q, k, v, output]) to.blocks(value, heads);
  },
  fold: ({ inputs: { q, k, v }, attrs: { heads }, output }, by) => {
    const [p, r, s] = [by.change(q), by.change(k), by.change(v)];
    const inside = staysInBlocks(p, heads) && staysInBlocks(s, heads);
    return inside && p.shift === null && areReciprocal(p, r) && equalChanges(s, by.change(output)) ? unchanged : null;
  },
};
const staysInBlocks = ({ order }: Change, blocks: number): boolean => {
  const size = (order?.length ?? 0) / blocks;
  return order === null || order.every((from, to) => Math.floor(from / size) === Math.floor(to / size));
};

// ---- ops that move elements

/** Channel c of a wide row lies at c mod the width of a narrow one, where one width divides the other. */
const reshape: ChannelRule<OneOperand> = {
  relate: ({ inputs: { x }, output }, to) => {
    const [p, q] = [channelsOf(x), channelsOf(output)];
    if (p === q) return to.same(x, output);
    const wide = Math.max(p, q);
    if (p === 0 || q === 0 || wide % Math.min(p, q) !== 0) return [x, output].forEach((value) => to.hold(value, ...all));
    for (let c = 0; c < wide; c++) to.sameChannel(x, c % p, output, c % q);
  },
  fold: ({ inputs: { x }, output }, by) => {
    const [p, q] = [channelsOf(x), channelsOf(output)];
    if (p === q) return carries(x, output, by);
    const [before, after] = [by.change(x), by.change(output)];
    if (isIdentity(before) && isIdentity(after)) return unchanged;
    const wide = Math.max(p, q);
    if (before.order !== null || after.order !== null || wide % Math.min(p, q) !== 0) return null;
    for (let c = 0; c < wide; c++) {
      if (scaleAt(before, c % p) !== scaleAt(after, c % q) || shiftAt(before, c % p) !== shiftAt(after, c % q)) return null;
    }
    return unchanged;
  },
};

const transpose: ChannelRule<NodeOf<typeof float.transpose>> = {
  relate: (node, to) => (node.attrs.perm.at(-1) === lastAxis(node.inputs.x) ? channelwise.relate(node, to) : held.relate(plain(node), to)),
  fold: (node, by) => (node.attrs.perm.at(-1) === lastAxis(node.inputs.x) ? channelwise.fold(node, by) : held.fold(plain(node), by)),
};

const concat: ChannelRule<NodeOf<typeof float.concat>> = {
  relate: ({ inputs: { xs }, attrs: { axis }, output }, to) => {
    if (axis !== -1 && axis !== lastAxis(output)) return xs.filter((x) => dataOf(x) === null).forEach((x) => to.same(x, output));
    let first = 0;
    to.hold(output, 'order');
    for (const x of xs) {
      if (dataOf(x) === null) for (let c = 0; c < channelsOf(x); c++) to.sameChannel(x, c, output, first + c);
      first += channelsOf(x);
    }
  },
  fold: ({ inputs: { xs }, attrs: { axis }, output }, by) => {
    const after = by.change(output);
    const along = axis === -1 || axis === lastAxis(output);
    if (along && after.order !== null) return null;
    let first = 0;
    const made: Value[] = [];
    for (const x of xs) {
      const width = channelsOf(x);
      const own = along ? part(after, first, width) : after;
      first += width;
      if (dataOf(x) === null && !equalChanges(by.change(x), own)) return null;
      made.push(dataOf(x) === null || isIdentity(own) ? x : by.constant(x.name, x.type, changed(dataOf(x)!, width, own)));
    }
    return { xs: made };
  },
};
/** The change of channels [first, first + width) alone. */
const part = ({ scale, shift }: Change, first: number, width: number): Change =>
  ({ scale: scale?.slice(first, first + width) ?? null, shift: shift?.slice(first, first + width) ?? null, order: null });

const slice: ChannelRule<NodeOf<typeof float.slice>> = {
  relate: ({ inputs: { x }, attrs: { axis, start, step }, output }, to) => {
    if (axis !== -1 && axis !== lastAxis(x)) return to.same(x, output);
    for (const value of [x, output]) to.hold(value, 'order');
    for (let c = 0; c < channelsOf(output); c++) to.sameChannel(x, start + c * step, output, c);
  },
  fold: ({ inputs: { x }, attrs: { axis, start, step }, output }, by) => {
    if (axis !== -1 && axis !== lastAxis(x)) return carries(x, output, by);
    const [before, after] = [by.change(x), by.change(output)];
    if (before.order !== null || after.order !== null) return null;
    const taken = { scale: gathered(before.scale, start, step, channelsOf(output)), shift: gathered(before.shift, start, step, channelsOf(output)), order: null };
    return equalChanges(taken, after) ? unchanged : null;
  },
};
const gathered = (list: Float64Array | null, start: number, step: number, count: number): Float64Array | null =>
  (list === null ? null : Float64Array.from({ length: count }, (_, c) => list[start + c * step]));

const pad: ChannelRule<NodeOf<typeof float.pad>> = {
  relate: (node, to) => (isZeroBorder(node) ? homogeneous.relate(node, to) : held.relate(plain(node), to)),
  fold: (node, by) => (isZeroBorder(node) ? homogeneous.fold(node, by) : held.fold(plain(node), by)),
};
const isZeroBorder = ({ inputs: { x }, attrs: { pads, value } }: NodeOf<typeof float.pad>): boolean =>
  value === 0 && pads[lastAxis(x)] === 0 && pads.at(-1) === 0;

const gather: ChannelRule<NodeOf<typeof float.gather>> = {
  relate: (node, to) => {
    const { inputs: { table }, output } = node;
    if (!keepsChannels(node)) held.relate(plain(node), to);
    else if (dataOf(table) === null) to.same(table, output);
  },
  fold: (node, by) => {
    const { inputs: { table }, output } = node;
    const after = by.change(output);
    const source = dataOf(table);
    if (!keepsChannels(node)) return held.fold(plain(node), by);
    if (source === null) return carries(table, output, by);
    return isIdentity(after) ? unchanged : { table: by.shared(table, [identity, after], () => changed(source, channelsOf(table), after)) };
  },
};
const keepsChannels = ({ inputs: { table }, attrs: { axis } }: NodeOf<typeof float.gather>): boolean => axis !== -1 && axis !== lastAxis(table) && table.type.dtype === 'f32';

const expand: ChannelRule<NodeOf<typeof float.expand>> = {
  relate: (node, to) => (channelsOf(node.inputs.x) === channelsOf(node.output) ? channelwise : elementwiseHeld).relate(node, to),
  fold: (node, by) => (channelsOf(node.inputs.x) === channelsOf(node.output) ? channelwise : elementwiseHeld).fold(node, by),
};
const elementwiseHeld: ChannelRule<OneOperand> = {
  relate: ({ inputs: { x }, output }, to) => [x, output].forEach((value) => to.hold(value, ...all)),
  fold: ({ inputs: { x }, output }, by) => (isIdentity(by.change(x)) && isIdentity(by.change(output)) ? unchanged : null),
};

// ---- windows and reductions

const averagePool: ChannelRule<NodeOf<typeof float.averagePool>> = {
  relate: (node, to) => (countsZeros(node) ? homogeneous : channelwise).relate(node, to),
  fold: (node, by) => (countsZeros(node) ? homogeneous : channelwise).fold(node, by),
};
const countsZeros = ({ attrs: { countPad, pads } }: NodeOf<typeof float.averagePool>): boolean => countPad && pads.some((p) => p > 0);

type Reduction = NodeOf<typeof float.reduceMean> | NodeOf<typeof float.reduceSum> | NodeOf<typeof float.reduceMax>;
const reduction = (rule: ChannelRule<OneOperand>): ChannelRule<Reduction> => ({
  relate: (node, to) => (reduces(node.attrs.axes, node.inputs.x) ? elementwiseHeld : rule).relate(node, to),
  fold: (node, by) => (reduces(node.attrs.axes, node.inputs.x) ? elementwiseHeld : rule).fold(node, by),
});

const unary = Object.fromEntries(unaryOps.map((op) => [op.name, elementwise])) as Record<(typeof unaryOps)[number]['name'], ChannelRule<OneOperand>>;

const rules: { readonly [K in FloatNode['op']]: ChannelRule<Extract<FloatNode, { op: K }>> | ChannelRule<OneOperand> | ChannelRule<Node> } = {
  ...unary, relu: homogeneous, leaky_relu: homogeneous, clip,
  linear, conv, layer_norm: layerNorm, rms_norm: rmsNorm, batch_norm: batchNorm,
  add: sum(1), sub: sum(-1), mul: product, matmul, attention,
  reshape, transpose, concat, slice, pad, gather, expand,
  max_pool: channelwise, average_pool: averagePool,
  reduce_mean: reduction(channelwise), reduce_max: reduction(channelwise), reduce_sum: reduction(homogeneous),
  softmax: held, div: held, min: held, max: held, where: held, quantize: held, dequantize: held,
};

/** The rule of a node; ops of plugins hold their channels. */
export const ruleOf = (node: Node): ChannelRule<Node> =>
  ((rules as Readonly<Record<string, unknown>>)[node.op] as ChannelRule<Node> | undefined) ?? held;
