/** Ops whose elements share a statistic of their row or channel. */
import { exp } from '../../numerics/real-math.ts';
import { equalDims, printShape, staticShape, type Shape } from '../dim.ts';
import { defineOp, int, misuse, real } from '../op.ts';
import { tensorType, type TensorType } from '../type.ts';
import { axisOf, fill, realShape, reals, splitAt } from './elements.ts';

const checkChannels = (shape: Shape, perChannel: Readonly<Record<string, TensorType | null>>): void => {
  if (shape.length === 0) misuse('a scalar has no channels');
  for (const [slot, type] of Object.entries(perChannel)) {
    if (type !== null && !(type.dtype === 'f32' && type.shape.length === 1 && equalDims(type.shape[0], shape[shape.length - 1]))) {
      misuse(`"${slot}" must have one number for each channel of [${printShape(shape)}]`);
    }
  }
};

export const batchNorm = defineOp({
  name: 'batch_norm',
  summary: 'scale·(x - mean)/√(variance + epsilon) + bias, per channel (last axis), with constant statistics',
  operands: { x: 'one', scale: 'one', bias: 'one', mean: 'one', variance: 'one' },
  attrs: { epsilon: real('added to the variance', 1e-5) },
  infer: ({ x, ...statistics }) => {
    checkChannels(realShape(x, 'x'), statistics);
    return tensorType('f32', x.shape);
  },
  evaluate: ({ x, scale, bias, mean, variance }, { epsilon }, { shape }) => {
    const [a, g, b, m, v] = [x, scale, bias, mean, variance].map(reals);
    return fill(shape, (i) => {
      const c = i % g.length;
      return (g[c] * (a[i] - m[c])) / Math.sqrt(v[c] + epsilon) + b[c];
    });
  },
});

export const softmax = defineOp({
  name: 'softmax',
  summary: 'e^x divided by its sum along an axis',
  operands: { x: 'one' },
  attrs: { axis: int('the axis of the sum', -1) },
  infer: ({ x }, { axis }) => {
    axisOf(axis, realShape(x, 'x').length);
    return tensorType('f32', x.shape);
  },
  evaluate: ({ x }, { axis }, type) => {
    const a = reals(x);
    const { outer, length, inner } = splitAt(type.shape, axisOf(axis, type.shape.length));
    const data = new Float32Array(a.length);
    const powers = new Float64Array(length);
    for (let o = 0; o < outer; o++) for (let i = 0; i < inner; i++) {
      const at = (k: number): number => (o * length + k) * inner + i;
      let greatest = -Infinity;
      for (let k = 0; k < length; k++) greatest = Math.max(greatest, a[at(k)]);
      let total = 0;
      for (let k = 0; k < length; k++) total += powers[k] = exp(a[at(k)] - greatest);
      for (let k = 0; k < length; k++) data[at(k)] = powers[k] / total;
    }
    return { type, data };
  },
});

export const layerNorm = defineOp({
  name: 'layer_norm',
  summary: 'scale·(x - mean)/√(variance + epsilon) + bias, statistics over the last axis',
  operands: { x: 'one', scale: 'optional', bias: 'optional' },
  attrs: { epsilon: real('added to the variance', 1e-5) },
  infer: ({ x, scale, bias }) => {
    checkChannels(realShape(x, 'x'), { scale, bias });
    return tensorType('f32', x.shape);
  },
  evaluate: ({ x, scale, bias }, { epsilon }, type) => {
    const a = reals(x);
    const channels = staticShape(type.shape)[type.shape.length - 1];
    const g = scale ? reals(scale) : new Float32Array(channels).fill(1);
    const b = bias ? reals(bias) : new Float32Array(channels);
    const data = new Float32Array(a.length);
    for (let at = 0; at < a.length; at += channels) {
      let sum = 0;
      for (let c = 0; c < channels; c++) sum += a[at + c];
      const mean = sum / channels;
      let squares = 0;
      for (let c = 0; c < channels; c++) {
        const distance = a[at + c] - mean;
        squares += distance * distance;
      }
      const inverse = 1 / Math.sqrt(squares / channels + epsilon);
      for (let c = 0; c < channels; c++) data[at + c] = (a[at + c] - mean) * inverse * g[c] + b[c];
    }
    return { type, data };
  },
});

export const rmsNorm = defineOp({
  name: 'rms_norm',
  summary: 'scale·x/√(mean of x² + epsilon), the mean over the last axis',
  operands: { x: 'one', scale: 'optional' },
  attrs: { epsilon: real('added to the mean of squares', 1e-5) },
  infer: ({ x, scale }) => {
    checkChannels(realShape(x, 'x'), { scale });
    return tensorType('f32', x.shape);
  },
  evaluate: ({ x, scale }, { epsilon }, type) => {
    const a = reals(x);
    const g = scale && reals(scale);
    const channels = staticShape(type.shape)[type.shape.length - 1];
    const data = new Float32Array(a.length);
    for (let at = 0; at < a.length; at += channels) {
      let squares = 0;
      for (let c = 0; c < channels; c++) squares += a[at + c] ** 2;
      const inverse = 1 / Math.sqrt(squares / channels + epsilon);
      for (let c = 0; c < channels; c++) data[at + c] = a[at + c] * inverse * (g ? g[c] : 1);
    }
    return { type, data };
  },
});
