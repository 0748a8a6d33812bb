/** Softmax and the norms that compute their statistics. */
import { isStatic, mulDims, type Dim, type Shape } from '../../ir/dim.ts';
import type { Value } from '../../ir/graph.ts';
import { add, layerNorm, log, mul, reshape, rmsNorm, softmax } from '../../ir/ops/index.ts';
import type { Handler, Handlers, OnnxNode } from '../node.ts';

const product = (n: OnnxNode, sizes: Shape): Dim =>
  sizes.reduce<Dim>((all, dim) => mulDims(all, dim) ?? n.refuse('a product of symbols; bind them with --dim'), 1);

/** Before version 13 the axes from `axis` on are one: the sum runs over all of them. */
const normalizedPowers = (n: OnnxNode, as: number | string): Value => {
  const x = n.value(0);
  const { shape } = x.type;
  const axis = n.axis(n.int('axis', n.version < 13 ? 1 : -1), shape.length);
  if (axis === shape.length - 1) return n.emit(softmax, { x }, { axis: -1 }, as);
  if (n.version >= 13) return n.emit(softmax, { x }, { axis }, as);
  const flat = n.emit(reshape, { x }, { shape: [...shape.slice(0, axis), product(n, shape.slice(axis))] }, 'flat');
  return n.emit(reshape, { x: n.emit(softmax, { x: flat }, { axis: -1 }, 'softmax') }, { shape }, as);
};

/** Statistics over the axes from `axis` on, which are joined to one. */
const overLast = (n: OnnxNode, x: Value, axis: number, norm: (x: Value, joined: boolean) => Value): Value => {
  const { shape } = x.type;
  if (axis === shape.length - 1) return norm(x, false);
  const flat = n.emit(reshape, { x }, { shape: [...shape.slice(0, axis), product(n, shape.slice(axis))] }, 'joined');
  return n.emit(reshape, { x: norm(flat, true) }, { shape });
};

const flatParameter = (n: OnnxNode, index: number, size: Dim): Value | null => {
  if (!n.has(index)) return null;
  const x = n.value(index);
  const total = isStatic(size) ? size : n.refuse('a symbolic size is normalised');
  const elements = x.type.shape.reduce<Dim>((all, dim) => mulDims(all, dim) ?? 0, 1);
  if (elements !== total) return n.refuse(`a parameter of ${String(elements)} elements for ${total}`);
  return x.type.shape.length === 1 ? x : n.emit(reshape, { x }, { shape: [total] }, `parameter${index}`);
};

const layerNormalization: Handler = (n) => {
  n.ignore('stash_type');
  const x = n.value(0);
  const axis = n.axis(n.int('axis', -1), x.type.shape.length);
  const epsilon = n.float('epsilon', 1e-5);
  const size = product(n, x.type.shape.slice(axis));
  const [scale, bias] = [flatParameter(n, 1, size), flatParameter(n, 2, size)];
  return [overLast(n, x, axis, (y, joined) => n.emit(layerNorm, { x: y, scale, bias }, { epsilon }, joined ? 'norm' : 0)), null, null];
};

const rmsNormalization: Handler = (n) => {
  n.ignore('stash_type');
  const x = n.value(0);
  const axis = n.axis(n.int('axis', -1), x.type.shape.length);
  const epsilon = n.float('epsilon', 1e-5);
  const scale = flatParameter(n, 1, product(n, x.type.shape.slice(axis)));
  return [overLast(n, x, axis, (y, joined) => n.emit(rmsNorm, { x: y, scale }, { epsilon }, joined ? 'norm' : 0)), null];
};

/** Normalises each group of channels of [N, C, ..]; `groups` = C is instance normalisation. Scale and bias are per channel (or group). */
const groupNormalization = (n: OnnxNode, groups: number, epsilon: number): Value => {
  const x = n.value(0);
  const { shape } = x.type;
  const channels = isStatic(shape[1]) ? shape[1] : n.refuse('the number of channels is not known');
  if (channels % groups !== 0) n.fail(`${channels} channels do not split into ${groups} groups`);
  const rest = product(n, [channels / groups, ...shape.slice(2)]);
  const rows = n.emit(reshape, { x }, { shape: [shape[0], groups, rest] }, 'groups');
  const norm = n.emit(layerNorm, { x: rows, scale: null, bias: null }, { epsilon }, 'norm');
  const perChannel = (index: number): Value => {
    const parameter = n.value(index);
    const ones = new Array<number>(shape.length - 2).fill(1);
    if (parameter.type.shape[0] === channels) return n.emit(reshape, { x: parameter }, { shape: [channels, ...ones] }, `parameter${index}`);
    const data = n.constant(index).data;
    return n.realConstant([channels, ...ones], Array.from({ length: channels }, (_, c) => Number(data[Math.floor((c * groups) / channels)])), `parameter${index}`);
  };
  const back = n.emit(reshape, { x: norm }, { shape }, 'ungrouped');
  return n.emit(add, { x: n.emit(mul, { x: back, y: perChannel(1) }, {}, 'scaled'), y: perChannel(2) });
};

/** com.microsoft: x + skip (+ bias), normalised; the sum is a second result. */
const skipNorm = (kind: 'layer' | 'rms'): Handler => (n) => {
  const epsilon = n.float('epsilon', 1e-5);
  const biasAt = kind === 'layer' ? 4 : 3;
  const both = n.emit(add, { x: n.value(0), y: n.value(1) }, {}, 'sum');
  const x = n.has(biasAt) ? n.emit(add, { x: both, y: n.value(biasAt) }, {}, 'biased') : both;
  const scale = n.value(2);
  const y = kind === 'rms' ? n.emit(rmsNorm, { x, scale }, { epsilon })
    : n.emit(layerNorm, { x, scale, bias: n.has(3) ? n.value(3) : null }, { epsilon });
  return [y, null, null, x];
};

export const normalizers: Handlers = {
  Softmax: (n) => normalizedPowers(n, 0),
  LogSoftmax: (n) => n.emit(log, { x: normalizedPowers(n, 'softmax') }),
  LayerNormalization: layerNormalization,
  RMSNormalization: rmsNormalization,
  SimplifiedLayerNormalization: rmsNormalization,
  InstanceNormalization: (n) => {
    n.ignore('consumed_inputs');
    const channels = n.shape(0)[1];
    return groupNormalization(n, isStatic(channels) ? channels : n.refuse('the number of channels is not known'), n.float('epsilon', 1e-5));
  },
  GroupNormalization: (n) => {
    n.ignore('stash_type');
    return groupNormalization(n, n.int('num_groups'), n.float('epsilon', 1e-5));
  },
  'com.microsoft.SkipLayerNormalization': skipNorm('layer'),
  'com.microsoft.SkipSimplifiedLayerNormalization': skipNorm('rms'),
};
