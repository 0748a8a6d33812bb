/** Windows and axes reduced by sum or maximum. */
import { sizeOf, type StaticShape } from '../dim.ts';
import { defineOp, flag, int, ints, misuse } from '../op.ts';
import type { TensorType } from '../type.ts';
import { axesOf, broadcastOffsets } from './elements.ts';
import {
  codesOf, codeTensor, expectCode, expectDType, expectLength, fixedShape, isActivation, isWord, packed, padImage, shapeOf, windowShape,
} from './kernel-checks.ts';

const { max } = Math;
const windowDefaults = { strides: ints('rows, columns', [1, 1]), pads: ints('top, left, bottom, right', [0, 0, 0, 0]) };
const noDilation = [1, 1];

/** Calls `tap(out, in)` for every element under every window: positions of the output and of the padded image. */
const forWindows = (
  batch: number, rows: number, columns: number, channels: number, oh: number, ow: number,
  kernel: readonly number[], strides: readonly number[], dilations: readonly number[], tap: (out: number, from: number) => void,
): void => {
  for (let n = 0, at = 0; n < batch; n++) for (let i = 0; i < oh; i++) for (let j = 0; j < ow; j++, at += channels) {
    for (let a = 0; a < kernel[0]; a++) for (let b = 0; b < kernel[1]; b++) {
      const from = ((n * rows + i * strides[0] + a * dilations[0]) * columns + j * strides[1] + b * dilations[1]) * channels;
      for (let c = 0; c < channels; c++) tap(at + c, from + c);
    }
  }
};

/** y = max of the codes under the window; positions outside x never win. */
export const maxPool = defineOp({
  name: 'max_pool',
  summary: 'greatest code under a window',
  reads: 'codes',
  operands: { x: 'one' },
  attrs: { kernel: ints('rows, columns'), ...windowDefaults, dilations: ints('rows, columns', noDilation) },
  infer: ({ x }, { kernel, strides, pads, dilations }) => {
    expectDType('x', x, isWord, 'codes of at most 32 bits');
    expectLength('kernel', kernel, 2, 1);
    expectLength('dilations', dilations, 2, 1);
    kernel.forEach((taps, axis) => {
      if (max(pads[axis], pads[axis + 2]) > (taps - 1) * dilations[axis]) misuse('a window could lie wholly in the padding');
    });
    return { ...x, shape: windowShape('x', x, { kernel, strides, pads, dilations }, fixedShape('x', x, 4)[3]) };
  },
  evaluate: ({ x }, { kernel, strides, pads, dilations }, type) => {
    const [batch, height, width, channels] = shapeOf(x);
    const [, oh, ow] = type.shape as StaticShape;
    const image = padImage(codesOf(x), batch, height, width, channels, pads, -(2 ** 31));
    const out = new Int32Array(sizeOf(type.shape)).fill(-(2 ** 31));
    forWindows(batch, height + pads[0] + pads[2], width + pads[1] + pads[3], channels, oh, ow, kernel, strides, dilations,
      (at, from) => { out[at] = max(out[at], image[from]); });
    return packed(type, out);
  },
});

/** acc = Σ of the codes under the window; positions outside x read padCode. An average is a requantize of it. */
export const sumPool = defineOp({
  name: 'sum_pool',
  summary: 'sum of the codes under a window',
  reads: 'codes',
  operands: { x: 'one' },
  attrs: { kernel: ints('rows, columns'), ...windowDefaults, padCode: int('code read outside x: its zero point', 0) },
  infer: ({ x }, { kernel, strides, pads, padCode }) => {
    expectDType('x', x, isActivation, 'codes of at most 16 bits');
    expectLength('kernel', kernel, 2, 1);
    expectCode('padCode', padCode, 'x', x);
    return codeTensor('i32', windowShape('x', x, { kernel, strides, pads, dilations: noDilation }, fixedShape('x', x, 4)[3]));
  },
  evaluate: ({ x }, { kernel, strides, pads, padCode }, type) => {
    const [batch, height, width, channels] = shapeOf(x);
    const [, oh, ow] = type.shape as StaticShape;
    const image = padImage(codesOf(x), batch, height, width, channels, pads, padCode);
    const out = new Int32Array(sizeOf(type.shape));
    forWindows(batch, height + pads[0] + pads[2], width + pads[1] + pads[3], channels, oh, ow, kernel, strides, noDilation,
      (at, from) => { out[at] += image[from]; });
    return packed(type, out);
  },
});

const reducedShape = (x: TensorType, axes: readonly number[], keepDims: boolean): StaticShape => {
  const shape = fixedShape('x', x);
  const reduced = new Set(axesOf(axes, shape.length));
  return shape.flatMap((dim, axis) => (!reduced.has(axis) ? [dim] : keepDims ? [1] : []));
};

/** For each element of x, the index of the output element that it goes into. */
const reducedIndices = (shape: StaticShape, axes: readonly number[]): Int32Array => {
  const reduced = new Set(axesOf(axes, shape.length));
  const kept = shape.map((dim, axis) => (reduced.has(axis) ? 1 : dim));
  return broadcastOffsets(kept, shape);
};

const reduceAttrs = { axes: ints('axes that disappear'), keepDims: flag('keep the reduced axes with size 1', false) };

/** acc = Σ of the codes along the axes */
export const reduceSum = defineOp({
  name: 'reduce_sum',
  summary: 'sum of codes along axes',
  reads: 'codes',
  operands: { x: 'one' },
  attrs: reduceAttrs,
  infer: ({ x }, { axes, keepDims }) => {
    expectDType('x', x, isWord, 'codes of at most 32 bits');
    return codeTensor('i32', reducedShape(x, axes, keepDims));
  },
  evaluate: ({ x }, { axes }, type) => {
    const codes = codesOf(x);
    const into = reducedIndices(shapeOf(x), axes);
    const out = new Int32Array(sizeOf(type.shape));
    for (let i = 0; i < codes.length; i++) out[into[i]] += codes[i];
    return packed(type, out);
  },
});

/** y = greatest code along the axes */
export const reduceMax = defineOp({
  name: 'reduce_max',
  summary: 'greatest code along axes',
  reads: 'codes',
  operands: { x: 'one' },
  attrs: reduceAttrs,
  infer: ({ x }, { axes, keepDims }) => {
    expectDType('x', x, isWord, 'codes of at most 32 bits');
    return { ...x, shape: reducedShape(x, axes, keepDims) };
  },
  evaluate: ({ x }, { axes }, type) => {
    const codes = codesOf(x);
    const into = reducedIndices(shapeOf(x), axes);
    const out = new Int32Array(sizeOf(type.shape)).fill(-(2 ** 31));
    for (let i = 0; i < codes.length; i++) out[into[i]] = max(out[into[i]], codes[i]);
    return packed(type, out);
  },
});
