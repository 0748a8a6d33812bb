/** Convolution and pooling. ONNX puts channels second; each handler emits transpose, channels-last op, transpose. */
import { isStatic, printDim, type Dim } from '../../ir/dim.ts';
import { constantOf, type Value } from '../../ir/graph.ts';
import { averagePool, batchNorm, conv, maxPool, pad, reduceMax, reduceMean, reshape, transpose } from '../../ir/ops/index.ts';
import type { Handler, Handlers, OnnxNode } from '../node.ts';

/** [N, C, spatial..] as [N, H, W, C]; one spatial axis becomes H = 1. */
export const channelsLast = (n: OnnxNode, x: Value): Value => {
  const { shape } = x.type;
  if (shape.length === 4) return n.emit(transpose, { x }, { perm: [0, 2, 3, 1] }, 'channels_last');
  if (shape.length !== 3) return n.refuse(`${shape.length - 2} spatial axes`);
  const moved = n.emit(transpose, { x }, { perm: [0, 2, 1] }, 'channels_last');
  return n.emit(reshape, { x: moved }, { shape: [shape[0], 1, shape[2], shape[1]] }, 'lifted');
};
/** Back to [N, C, spatial..] of the given rank. The op before it has the ONNX name, since the transpose usually cancels. */
export const channelsSecond = (n: OnnxNode, x: Value, rank: number): Value => {
  if (rank === 4) return n.emit(transpose, { x }, { perm: [0, 3, 1, 2] }, 'channels_second');
  const [batch, , width, channels] = x.type.shape;
  return n.emit(transpose, { x: n.emit(reshape, { x }, { shape: [batch, width, channels] }, 'lowered') }, { perm: [0, 2, 1] }, 'channels_second');
};

/** A list of one or two numbers as down and right; a missing axis gets `fallback`. */
const pair = (n: OnnxNode, list: readonly number[], sides: number, fallback: number): readonly number[] => {
  if (list.length !== sides) n.fail(`${list.length} numbers for ${sides} spatial axes`);
  return sides === 1 ? [fallback, ...list] : list;
};

interface Geometry {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly pads: readonly number[];
  readonly dilations: readonly number[];
  /** rows and columns at the end that `ceil_mode` adds beyond `pads` */
  readonly overhang: readonly number[];
}

/** strides, pads, dilations and auto_pad for an input [N, H, W, C]. */
const geometry = (n: OnnxNode, x: Value, rank: number, kernel: readonly number[]): Geometry => {
  const sides = rank - 2;
  const ones = new Array<number>(sides).fill(1);
  const strides = pair(n, n.ints('strides', ones), sides, 1);
  const dilations = pair(n, n.ints('dilations', ones), sides, 1);
  if ([...strides, ...dilations, ...kernel].some((one) => one < 1)) n.fail('sizes of the window must be positive');
  const [, height, width] = x.type.shape;
  const size = (dim: Dim): number => (isStatic(dim) ? dim : n.refuse(`the spatial size ${printDim(dim)}; bind it with --dim`));
  const reach = [0, 1].map((side) => (kernel[side] - 1) * dilations[side] + 1);
  const auto = n.string('auto_pad', 'NOTSET');
  const given = n.ints('pads', new Array<number>(2 * sides).fill(0));
  if (given.length !== 2 * sides) n.fail(`${given.length} pads for ${sides} spatial axes`);
  const explicit = sides === 1 ? [0, given[0], 0, given[1]] : given;
  let pads: readonly number[];
  if (auto === 'NOTSET') pads = explicit;
  else if (auto === 'VALID') pads = [0, 0, 0, 0];
  else if (auto === 'SAME_UPPER' || auto === 'SAME_LOWER') {
    const totals = [height, width].map((dim, side) => Math.max(0, (Math.ceil(size(dim) / strides[side]) - 1) * strides[side] + reach[side] - size(dim)));
    const less = totals.map((total) => Math.floor(total / 2));
    const more = totals.map((total) => Math.ceil(total / 2));
    pads = auto === 'SAME_UPPER' ? [...less, ...more] : [...more, ...less];
  } else return n.fail(`auto_pad ${JSON.stringify(auto)} is not known`);
  const overhang = [0, 0];
  if (n.int('ceil_mode', 0) !== 0) [height, width].forEach((dim, side) => {
    const room = size(dim) + pads[side] + pads[side + 2] - reach[side];
    // A window that would start in the end padding is left out.
    const last = Math.ceil(room / strides[side]) * strides[side];
    if (last < size(dim) + pads[side]) overhang[side] = Math.max(0, last - room);
  });
  return { kernel, strides, pads, dilations, overhang };
};

const convolution: Handler = (n) => {
  const rank = n.rank(0);
  const x = channelsLast(n, n.value(0));
  const weight = n.value(1);
  if (constantOf(weight) === null) return n.refuse('its weight is computed');
  if (weight.type.shape.length !== rank) n.fail('the weight and the input differ in rank');
  const shape = weight.type.shape as readonly number[];
  const sides = shape.slice(2);
  const declared = n.ints('kernel_shape', sides);
  if (declared.length !== sides.length || declared.some((one, i) => one !== sides[i])) n.fail(`kernel_shape [${declared.join(', ')}] is not that of the weight [${shape.join(', ')}]`);
  const lifted = rank === 3 ? n.emit(reshape, { x: weight }, { shape: [shape[0], shape[1], 1, shape[2]] }, 'weight.lifted') : weight;
  const last = n.emit(transpose, { x: lifted }, { perm: [0, 2, 3, 1] }, 'weight');
  const { strides, pads, dilations } = geometry(n, x, rank, pair(n, sides, sides.length, 1));
  const bias = n.has(2) ? n.value(2) : null;
  if (bias !== null && constantOf(bias) === null) return n.refuse('its bias is computed');
  const y = n.emit(conv, { x, weight: last, bias }, { strides, pads, dilations, group: n.int('group', 1) });
  return channelsSecond(n, y, rank);
};

const pool = (kind: 'max' | 'average'): Handler => (n) => {
  n.ignore('storage_order');
  const rank = n.rank(0);
  const kernel = pair(n, n.ints('kernel_shape'), rank - 2, 1);
  let x = channelsLast(n, n.value(0));
  let { pads, overhang, ...window } = geometry(n, x, rank, kernel);
  if (n.outputCount > 1 && (n.proto.output?.[1] ?? '') !== '') return n.refuse('the indices of a max pool');
  const extend = (by: readonly number[]): readonly number[] => [by[0], by[1], by[2] + overhang[0], by[3] + overhang[1]];
  if (kind === 'max') return channelsSecond(n, n.emit(maxPool, { x }, { ...window, pads: extend(pads) }), rank);
  const countPad = n.int('count_include_pad', 0) !== 0;
  // Elements that ceil_mode adds never count, so padding that does becomes explicit before them.
  if (countPad && overhang.some((by) => by > 0)) {
    x = n.emit(pad, { x }, { pads: [0, pads[0], pads[1], 0, 0, pads[2], pads[3], 0] }, 'padded');
    pads = [0, 0, 0, 0];
  }
  const counts = countPad && overhang.every((by) => by === 0);
  return channelsSecond(n, n.emit(averagePool, { x }, { ...window, pads: extend(pads), countPad: counts }), rank);
};

/** One number for each channel: [N, C, ..] -> [N, C, 1, ..]. */
const globalPool = (kind: 'mean' | 'max'): Handler => (n) => {
  const rank = n.rank(0);
  if (rank < 3) n.fail(`a global pool of a tensor of rank ${rank}`);
  const x = channelsLast(n, n.value(0));
  const decl = kind === 'mean' ? reduceMean : reduceMax;
  return channelsSecond(n, n.emit(decl, { x }, { axes: [1, 2], keepDims: true }), rank);
};

const normalization: Handler = (n) => {
  n.ignore('momentum', 'consumed_inputs');
  if (n.version >= 14 && n.int('training_mode', 0) !== 0) return n.refuse('training mode');
  if (n.version < 7 && n.int('is_test', 0) === 0) n.ignore('is_test');
  if (n.version < 9 && n.int('spatial', 1) === 0) return n.refuse('statistics per element');
  const rank = n.rank(0);
  const [scale, bias, mean, variance] = [1, 2, 3, 4].map((i) => {
    n.constant(i);
    return n.value(i);
  });
  const attrs = { epsilon: n.float('epsilon', 1e-5) };
  const output = (y: Value): readonly (Value | null)[] => [y, ...new Array<null>(Math.max(0, n.outputCount - 1)).fill(null)];
  if (rank === 2) return output(n.emit(batchNorm, { x: n.value(0), scale, bias, mean, variance }, attrs));
  const y = n.emit(batchNorm, { x: channelsLast(n, n.value(0)), scale, bias, mean, variance }, attrs);
  return output(channelsSecond(n, y, rank));
};

export const windows: Handlers = {
  Conv: convolution, MaxPool: pool('max'), AveragePool: pool('average'), GlobalAveragePool: globalPool('mean'), GlobalMaxPool: globalPool('max'),
  BatchNormalization: normalization,
};
