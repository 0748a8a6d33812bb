/**
 * Which integers a value of a kernel graph can take: intervals for each channel (last axis), from the codes of inputs, the real
 * weights, the clamps and the tables. Accumulators get the interval that holds every partial sum in any order of summation: each
 * product is taken together with 0. So a sum whose interval fits 32 bits cannot overflow in any backend, whatever its order of work.
 */
import { dyadicWords, dyadicWords2, clamp as clampCode, highOf, lowOf } from '../numerics/dyadic.ts';
import { defineAnalysis } from './analysis.ts';
import { normalAxis, sizeOf, staticShape } from './dim.ts';
import { isSigned, rangeOf, type IntegerDType } from './dtype.ts';
import { constantOf, type Node, type Value } from './graph.ts';
import type { KernelNode } from './ops/kernels.ts';
import { TABLE_LENGTH } from './ops/kernel-table.ts';
import type { Tensor, TensorType } from './type.ts';

/** Least and greatest integer, one for each index of the last axis, or one for the whole tensor. */
export interface Interval {
  readonly low: Float64Array;
  readonly high: Float64Array;
}
export type Bounds = ReadonlyMap<Value, Interval>;

export const interval = (low: number, high: number): Interval => ({ low: Float64Array.of(low), high: Float64Array.of(high) });

/** The interval over all channels. */
export const hullOf = ({ low, high }: Interval): readonly [number, number] =>
  [low.reduce((a, b) => Math.min(a, b), Infinity), high.reduce((a, b) => Math.max(a, b), -Infinity)];

/** Codes that a type can hold: those in use where it says so, else all of its dtype. */
export const codesOfType = ({ dtype, quant }: TensorType): Interval => {
  const [low, high] = quant === null ? rangeOf(dtype as IntegerDType) : [quant.low, quant.high];
  return interval(low, high);
};

const hulls = new WeakMap<Tensor, Interval>();
const hullOfTensor = (tensor: Tensor): Interval => {
  let hull = hulls.get(tensor);
  if (hull === undefined) {
    const { type, data } = tensor;
    let [low, high] = [Infinity, -Infinity];
    for (let i = 0; i < data.length; i++) {
      const code = Number(data[i]);
      if (code < low) low = code;
      if (code > high) high = code;
    }
    hulls.set(tensor, (hull = data.length === 0 ? codesOfType(type) : interval(low, high)));
  }
  return hull;
};

/**
 * Σ over the inputs of each weight row (axis 0), every product joined with 0: a positive weight reaches from w·min(0, low) to
 * w·max(0, high), a negative one the other way round. The inputs of a row start at `firstInput` and repeat along its last axis.
 */
const weightedSums = ({ type, data }: Tensor, inputs: Interval, firstInput: (row: number) => number): Interval => {
  const shape = staticShape(type.shape);
  const [rows, period] = [shape[0], shape.at(-1)!];
  const least = inputs.low.map((v) => Math.min(0, v));
  const greatest = inputs.high.map((v) => Math.max(0, v));
  const [low, high] = [new Float64Array(rows), new Float64Array(rows)];
  for (let row = 0, at = 0; row < rows; row++) {
    const first = inputs.low.length === 1 ? null : firstInput(row);
    for (const end = (row + 1) * (data.length / rows); at < end; at += period) {
      for (let i = 0; i < period; i++) {
        const weight = data[at + i] as number;
        const channel = first === null ? 0 : first + i;
        low[row] += weight * (weight > 0 ? least[channel] : greatest[channel]);
        high[row] += weight * (weight > 0 ? greatest[channel] : least[channel]);
      }
    }
  }
  return { low, high };
};

/**
 * Accumulators of each output channel (axis 0 of the weight) for inputs within `codes`, and equal to `padCode` where windows read
 * outside the image (null without padding).
 */
export const rowIntervals = (weight: Tensor, codes: { readonly low: number; readonly high: number }, padCode: number | null): Interval =>
  weightedSums(weight, joined(interval(codes.low, codes.high), padCode), () => 0);

const joined = ({ low, high }: Interval, code: number | null): Interval =>
  code === null ? { low, high } : { low: low.map((v) => Math.min(v, code)), high: high.map((v) => Math.max(v, code)) };

/** Extremes of a product of two intervals. */
const productOf = ([a, b]: readonly [number, number], [c, d]: readonly [number, number]): readonly [number, number] => {
  const products = [a * c, a * d, b * c, b * d];
  return [Math.min(...products), Math.max(...products)];
};
const shifted = ([low, high]: readonly [number, number], zero: number): readonly [number, number] => [low - zero, high - zero];

/** A sum of `count` numbers of an interval, in any order. */
const repeated = ({ low, high }: Interval, count: number): Interval =>
  ({ low: low.map((v) => Math.min(0, v) * count), high: high.map((v) => Math.max(0, v) * count) });

const channelsOf = ({ type }: Value): number => staticShape(type.shape).at(-1) ?? 1;
const hull = (interval: Interval): Interval => {
  const [low, high] = hullOf(interval);
  return { low: Float64Array.of(low), high: Float64Array.of(high) };
};

type Known = (value: Value) => Interval;
type Rule<N extends KernelNode> = (node: N, of: Known) => Interval;

/** The interval of a node's output. */
const intervalOf = (node: KernelNode, of: Known): Interval => (arms[node.op] as Rule<KernelNode>)(node, of);

const limited = ({ attrs }: { readonly attrs: { readonly low: number; readonly high: number } }): Interval => interval(attrs.low, attrs.high);
const unchanged = ({ inputs }: { readonly inputs: { readonly x: Value } }, of: Known): Interval => of(inputs.x);
/** Elements of a constant, null for a computed value. */
const words = (value: Value): ArrayLike<number> | null => (constantOf(value)?.data ?? null) as ArrayLike<number> | null;
const longs = (value: Value): ArrayLike<bigint> | null => (constantOf(value)?.data ?? null) as ArrayLike<bigint> | null;
/** One bound for each of `count` channels. */
const perChannel = (count: number, at: (channel: number, greatest: boolean) => number): Interval =>
  ({ low: Float64Array.from({ length: count }, (_, c) => at(c, false)), high: Float64Array.from({ length: count }, (_, c) => at(c, true)) });
const entry = <T>(list: ArrayLike<T>, channel: number): T => list[list.length === 1 ? 0 : channel];

const arms: { readonly [K in KernelNode['op']]: Rule<Extract<KernelNode, { readonly op: K }>> } = {
  conv_acc: (node, of) => {
    const weight = constantOf(node.inputs.weight);
    const { group, pads, padCode } = node.attrs;
    const codes = joined(of(node.inputs.x), pads.some((p) => p > 0) ? padCode : null);
    if (weight === null) return interval(node.attrs.bound[0], node.attrs.bound[1]);
    const [outputs, , , perGroup] = staticShape(weight.type.shape);
    return weightedSums(weight, codes, (row) => Math.floor(row / (outputs / group)) * perGroup);
  },
  linear_acc: (node, of) => {
    const weight = constantOf(node.inputs.weight);
    return weight === null ? interval(node.attrs.bound[0], node.attrs.bound[1]) : weightedSums(weight, of(node.inputs.x), () => 0);
  },
  matmul_acc: ({ inputs: { a, b }, attrs: { aZero, bZero } }, of) => {
    const depth = channelsOf(a);
    const [low, high] = productOf(shifted(hullOf(of(a)), aZero), shifted(hullOf(of(b)), bZero));
    return repeated(interval(low, high), depth);
  },
  requantize: ({ inputs: { x, mul, add }, attrs: { preShift, shift, low, high } }, of) => {
    const [muls, adds] = [words(mul), longs(add)];
    if (muls === null || adds === null) return interval(low, high);
    const codes = of(x);
    return perChannel(Math.max(codes.low.length, muls.length, adds.length), (c, greatest) => {
      const [code, add] = [entry(greatest ? codes.high : codes.low, c), entry(adds, c)];
      return clampCode(dyadicWords(code * 2 ** preShift, entry(muls, c), highOf(add), lowOf(add), shift), low, high);
    });
  },
  requantize_words: ({ inputs: { x, mul, add }, attrs: { drop, shift, low, high } }, of) => {
    const [muls, adds] = [words(mul), words(add)];
    if (muls === null || adds === null) return interval(low, high);
    const codes = of(x);
    return perChannel(Math.max(codes.low.length, muls.length, adds.length), (c, greatest) => {
      const factor = entry(muls, c);
      const code = Math.floor(entry(greatest === factor >= 0 ? codes.high : codes.low, c) / 2 ** drop);
      return clampCode(Math.floor((code * factor + entry(adds, c)) / 2 ** shift), low, high);
    });
  },
  requantize_add: ({ inputs: { x, y, mulX, mulY, add }, attrs: { shift, low, high } }, of) => {
    const [mulsX, mulsY, adds] = [words(mulX), words(mulY), longs(add)];
    if (mulsX === null || mulsY === null || adds === null) return interval(low, high);
    const p = of(x);
    const q = channelsOf(y) === channelsOf(x) ? of(y) : hull(of(y));
    return perChannel(Math.max(p.low.length, q.low.length, mulsX.length, mulsY.length, adds.length), (c, greatest) => {
      const [a, b, add] = [entry(mulsX, c), entry(mulsY, c), entry(adds, c)];
      const u = entry(a < 0 === greatest ? p.low : p.high, c);
      const v = entry(b < 0 === greatest ? q.low : q.high, c);
      return clampCode(dyadicWords2(u, a, v, b, highOf(add), lowOf(add), shift), low, high);
    });
  },
  requantize_mul: ({ inputs: { x, y }, attrs: { zeroX, zeroY, mul, add, shift, low, high } }, of) => {
    const product = productOf(shifted(hullOf(of(x)), zeroX), shifted(hullOf(of(y)), zeroY));
    const at = (p: number): number => clampCode(dyadicWords(p, mul, highOf(add), lowOf(add), shift), low, high);
    return interval(at(product[0]), at(product[1]));
  },
  clamp: ({ inputs: { x }, attrs: { low, high } }, of) =>
    ({ low: of(x).low.map((v) => clampCode(v, low, high)), high: of(x).high.map((v) => clampCode(v, low, high)) }),
  table: ({ inputs: { x, values }, attrs: { axis } }, of) => {
    const tables = constantOf(values);
    if (tables === null) return codesOfType(values.type);
    const base = isSigned(x.type.dtype) ? TABLE_LENGTH / 2 : 0;
    const rows = tables.data.length / TABLE_LENGTH;
    const byChannel = rows > 1 && normalAxis(axis, x.type.shape.length) === x.type.shape.length - 1;
    const codes = byChannel || rows === 1 ? of(x) : hull(of(x));
    const count = rows === 1 ? codes.low.length : rows;
    const [low, high] = [new Float64Array(count).fill(Infinity), new Float64Array(count).fill(-Infinity)];
    for (let c = 0; c < count; c++) for (let code = entry(codes.low, c); code <= entry(codes.high, c); code++) {
      const value = Number(tables.data[(rows === 1 ? 0 : c) * TABLE_LENGTH + code + base]);
      low[c] = Math.min(low[c], value);
      high[c] = Math.max(high[c], value);
    }
    return rows === 1 || byChannel ? { low, high } : hull({ low, high });
  },
  table_interpolated: ({ inputs: { values } }, of) => hull(of(values)),
  gather_rows: ({ inputs: { table } }, of) => hull(of(table)),
  max_pool: unchanged,
  sum_pool: ({ inputs: { x }, attrs: { kernel, pads, padCode } }, of) =>
    repeated(joined(of(x), pads.some((p) => p > 0) ? padCode : null), kernel[0] * kernel[1]),
  reduce_sum: ({ inputs: { x }, attrs: { axes }, output }, of) => {
    const count = sizeOf(x.type.shape) / Math.max(1, sizeOf(output.type.shape));
    return repeated(keepsChannels(x, axes) ? of(x) : hull(of(x)), count);
  },
  reduce_max: ({ inputs: { x }, attrs: { axes } }, of) => (keepsChannels(x, axes) ? of(x) : hull(of(x))),
  softmax: limited,
  attention_int: limited,
  layer_norm_int: limited,
  reshape: ({ inputs: { x }, output }, of) => (channelsOf(x) === channelsOf(output) ? of(x) : hull(of(x))),
  transpose: ({ inputs: { x }, attrs: { perm } }, of) => (perm.at(-1) === perm.length - 1 ? of(x) : hull(of(x))),
  concat: ({ inputs: { xs }, attrs: { axis }, output }, of) => {
    const parts = xs.map((x) => ({ count: channelsOf(x), ...of(x) }));
    if (normalAxis(axis, output.type.shape.length) !== output.type.shape.length - 1) {
      return { low: merge(parts.map(({ low }) => low), Math.min), high: merge(parts.map(({ high }) => high), Math.max) };
    }
    const joinedBy = (pick: (part: Interval) => Float64Array): Float64Array =>
      Float64Array.from(parts.flatMap((part) => Array.from({ length: part.count }, (_, c) => entry(pick(part), c))));
    return { low: joinedBy(({ low }) => low), high: joinedBy(({ high }) => high) };
  },
  slice: ({ inputs: { x }, attrs: { axis, start, step }, output }, of) => {
    const codes = of(x);
    if (normalAxis(axis, x.type.shape.length) !== x.type.shape.length - 1 || codes.low.length === 1) return codes;
    const take = (list: Float64Array): Float64Array => Float64Array.from({ length: channelsOf(output) }, (_, i) => list[start + i * step]);
    return { low: take(codes.low), high: take(codes.high) };
  },
  pad: ({ inputs: { x }, attrs: { value, pads } }, of) => {
    const rank = x.type.shape.length;
    const grows = (pads[rank - 1] ?? 0) + (pads[2 * rank - 1] ?? 0) > 0;
    return joined(grows ? hull(of(x)) : of(x), value);
  },
};

/** Entry by entry over lists of one or more channels. */
const merge = (lists: readonly Float64Array[], pick: (a: number, b: number) => number): Float64Array => {
  const count = Math.max(...lists.map(({ length }) => length));
  return Float64Array.from({ length: count }, (_, c) => lists.map((list) => entry(list, c)).reduce((a, b) => pick(a, b)));
};

/** Whether an op along `axes` leaves the last axis of x where it is. */
const keepsChannels = (x: Value, axes: readonly number[]): boolean => {
  const rank = x.type.shape.length;
  return axes.every((axis) => normalAxis(axis, rank) !== rank - 1);
};

/** The intervals of all values of a kernel graph whose dtype is at most 32 bits. */
export const accumulatorBounds = defineAnalysis<Bounds>({
  name: 'accumulator-bounds',
  compute: (graph) => {
    const bounds = new Map<Value, Interval>();
    const of = (value: Value): Interval => {
      const known = bounds.get(value);
      if (known !== undefined) return known;
      const constant = constantOf(value);
      const found = constant !== null ? hullOfTensor(constant) : codesOfType(value.type);
      bounds.set(value, found);
      return found;
    };
    graph.inputs.forEach(of);
    for (const node of graph.nodes) {
      for (const operand of Object.values(node.inputs).flat() as (Value | null)[]) if (operand !== null) of(operand);
      bounds.set(node.output, intervalOf(node as Node as KernelNode, of));
    }
    return bounds;
  },
});
