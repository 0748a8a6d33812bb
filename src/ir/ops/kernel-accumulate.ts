/**
 * Products summed in 32 bits. Every accumulator lies in the attribute `bound`, an interval that the compiler proved from the real
 * weights, so no sum and no partial sum leaves 32 bits: the interval is built from the most negative and the most positive partial
 * sums.
 */
import { broadcastShapes, sizeOf, type StaticShape } from '../dim.ts';
import { defineOp, flag, int, ints, misuse } from '../op.ts';
import type { TensorType } from '../type.ts';
import { broadcastOffsets } from './elements.ts';
import {
  codesOf, codeTensor, expectCode, expectDType, fixedShape, isActivation, isWeight, packed, padImage, shapeOf, windowShape,
} from './kernel-checks.ts';

const bound = ints('[least, greatest] accumulator over all channels, proven');
const expectBound = (interval: readonly number[]): void => {
  if (interval.length !== 2 || interval[0] > interval[1]) misuse(`"bound" must be [least, greatest], not [${interval.join(', ')}]`);
};

/**
 * How weights are stored, whatever they mean: with `indexBits` = b > 0 an i8 weight holds at most 2^b distinct codes, and a program keeps
 * an index of b bits for each, beside one table of the codes in ascending order.
 */
const indexBits = int('2, 3 or 4: the i8 weight takes at most 2^indexBits levels and is stored as indices of so many bits and a table; 0: as its codes', 0);
const expectIndexBits = (bits: number, weight: TensorType): void => {
  if (![0, 2, 3, 4].includes(bits)) misuse(`"indexBits" must be 0, 2, 3 or 4, not ${bits}`);
  if (bits > 0 && weight.dtype !== 'i8') misuse(`"indexBits" is ${bits}, but operand "weight" holds ${weight.dtype}: only i8 codes are stored as indices`);
};

/**
 * acc[n, oh, ow, o] = Σ over taps (kh, kw) and i of weight[o, kh, kw, i] · x[n, oh·sh + kh·dh − top, ow·sw + kw·dw − left, g·I/group + i]
 * with g the group of o; outside x the code is padCode.
 */
export const convAcc = defineOp({
  name: 'conv_acc',
  summary: 'convolution of codes into 32-bit accumulators, channels last',
  reads: 'codes',
  operands: { x: 'one', weight: 'one' },
  attrs: {
    strides: ints('rows, columns', [1, 1]), pads: ints('top, left, bottom, right', [0, 0, 0, 0]), dilations: ints('rows, columns', [1, 1]),
    group: int('number of channel groups', 1), padCode: int('code read outside x: its zero point', 0), bound,
    indexBits,
  },
  infer: ({ x, weight }, { strides, pads, dilations, group, padCode, bound, indexBits }) => {
    expectDType('x', x, isActivation, 'codes of at most 16 bits');
    expectDType('weight', weight, isWeight, 'signed codes of two to eight bits');
    expectBound(bound);
    expectIndexBits(indexBits, weight);
    expectCode('padCode', padCode, 'x', x);
    const channels = fixedShape('x', x, 4)[3];
    const [outputs, kh, kw, perGroup] = fixedShape('weight', weight, 4);
    if (group < 1 || outputs % group !== 0) misuse(`${outputs} output channels do not split into ${group} groups`);
    if (perGroup * group !== channels) misuse(`the weight reads ${perGroup * group} channels, x has ${channels}`);
    return codeTensor('i32', windowShape('x', x, { kernel: [kh, kw], strides, pads, dilations }, outputs));
  },
  evaluate: ({ x, weight }, { strides, pads, dilations, group, padCode }, type) => {
    const [, height, width, channels] = shapeOf(x);
    const [outputs, kh, kw, perGroup] = shapeOf(weight);
    const [batch, oh, ow] = type.shape as StaticShape;
    const out = new Int32Array(batch * oh * ow * outputs);
    const padded = padImage(codesOf(x), batch, height, width, channels, pads, padCode);
    const rowLength = (width + pads[1] + pads[3]) * channels;
    const imageLength = (height + pads[0] + pads[2]) * rowLength;
    const depthwise = group > 1 && perGroup === 1 && outputs === channels;
    const runs = depthwise ? depthwiseRuns(kh, kw, dilations, rowLength, channels)
      : contiguousRuns(kh, kw, perGroup, group, dilations, rowLength, channels);
    const weights = depthwise ? transposed(codesOf(weight), outputs, kh * kw) : codesOf(weight);
    const filter = kh * kw * perGroup;
    const perGroupOut = outputs / group;
    for (let n = 0, at = 0; n < batch; n++) {
      for (let i = 0; i < oh; i++) {
        for (let j = 0; j < ow; j++, at += outputs) {
          const pixel = n * imageLength + i * strides[0] * rowLength + j * strides[1] * channels;
          if (depthwise) {
            for (let r = 0; r < runs.offsets.length; r++) multiplyAdd(out, at, weights, r * channels, padded, pixel + runs.offsets[r], channels);
            continue;
          }
          for (let g = 0; g < group; g++) {
            dotRuns(out, at + g * perGroupOut, perGroupOut, weights, g * perGroupOut * filter, filter, padded, pixel + g * perGroup, runs);
          }
        }
      }
    }
    return packed(type, out);
  },
});

/** acc[…, o] = Σ_k weight[o, k] · x[…, k] */
export const linearAcc = defineOp({
  name: 'linear_acc',
  summary: 'product of codes with a constant matrix into 32-bit accumulators',
  reads: 'codes',
  operands: { x: 'one', weight: 'one' },
  attrs: { bound, indexBits },
  infer: ({ x, weight }, { bound, indexBits }) => {
    expectDType('x', x, isActivation, 'codes of at most 16 bits');
    expectDType('weight', weight, isWeight, 'signed codes of two to eight bits');
    expectBound(bound);
    expectIndexBits(indexBits, weight);
    const shape = fixedShape('x', x);
    const [outputs, depth] = fixedShape('weight', weight, 2);
    if (shape.length === 0 || shape.at(-1) !== depth) misuse(`the weight reads ${depth} channels, x is [${shape.join(', ')}]`);
    return codeTensor('i32', [...shape.slice(0, -1), outputs]);
  },
  evaluate: ({ x, weight }, _attrs, type) => {
    const [outputs, depth] = shapeOf(weight);
    const codes = codesOf(x);
    const weights = codesOf(weight);
    const out = new Int32Array(sizeOf(type.shape));
    const run: Runs = { offsets: [0], length: depth };
    for (let at = 0, from = 0; at < out.length; at += outputs, from += depth) {
      dotRuns(out, at, outputs, weights, 0, depth, codes, from, run);
    }
    return packed(type, out);
  },
});

/** acc[…, t, s] = Σ_d (a[…, t, d] − aZero) · (b[…, d, s] − bZero), or b[…, s, d] with transposeB; leading axes broadcast. */
export const matmulAcc = defineOp({
  name: 'matmul_acc',
  summary: 'product of two computed matrices into 32-bit accumulators',
  reads: 'codes',
  operands: { a: 'one', b: 'one' },
  attrs: {
    transposeB: flag('the last two axes of b are [columns, depth]', false), aZero: int('zero point of a', 0), bZero: int('zero point of b', 0), bound,
  },
  infer: ({ a, b }, { transposeB, aZero, bZero, bound }) => {
    expectDType('a', a, isActivation, 'codes of at most 16 bits');
    expectDType('b', b, isActivation, 'codes of at most 16 bits');
    expectBound(bound);
    expectCode('aZero', aZero, 'a', a);
    expectCode('bZero', bZero, 'b', b);
    const [left, right] = [fixedShape('a', a), fixedShape('b', b)];
    if (left.length < 2 || right.length < 2) misuse('both operands must have two axes or more');
    const [rows, depth] = left.slice(-2);
    const [columns, otherDepth] = transposeB ? right.slice(-2) : right.slice(-2).reverse();
    if (depth !== otherDepth) misuse(`inner sizes differ: ${depth} and ${otherDepth}`);
    const batch = broadcastShapes(left.slice(0, -2), right.slice(0, -2));
    if (batch === null) return misuse(`[${left.join(', ')}] and [${right.join(', ')}] do not broadcast`);
    return codeTensor('i32', [...(batch as StaticShape), rows, columns]);
  },
  evaluate: ({ a, b }, { transposeB, aZero, bZero }, type) => {
    const [aShape, bShape, shape] = [shapeOf(a), shapeOf(b), type.shape as StaticShape];
    const [rows, depth] = aShape.slice(-2);
    const columns = shape[shape.length - 1];
    const left = codesOf(a).map((code) => code - aZero);
    const right = codesOf(b).map((code) => code - bZero);
    const batch = shape.slice(0, -2);
    const fromA = broadcastOffsets(aShape.slice(0, -2), batch);
    const fromB = broadcastOffsets(bShape.slice(0, -2), batch);
    const out = new Int32Array(sizeOf(shape));
    const run: Runs = { offsets: [0], length: depth };
    for (let i = 0; i < fromA.length; i++) {
      const matrix = right.subarray(fromB[i] * depth * columns, (fromB[i] + 1) * depth * columns);
      const byColumn = transposeB ? matrix : transposed(matrix, depth, columns);
      for (let row = 0; row < rows; row++) {
        dotRuns(out, (i * rows + row) * columns, columns, byColumn, 0, depth, left, (fromA[i] * rows + row) * depth, run);
      }
    }
    return packed(type, out);
  },
});

/** Pieces of a window that are contiguous in the image: their offsets from the window's first element, in the filter's order. */
interface Runs {
  readonly offsets: readonly number[];
  readonly length: number;
}

const contiguousRuns = (
  kh: number, kw: number, perGroup: number, group: number, [dh, dw]: readonly number[], rowLength: number, channels: number,
): Runs => {
  const rows = Array.from({ length: kh }, (_, row) => row * dh * rowLength);
  if (group === 1 && dw === 1) return { offsets: rows, length: kw * perGroup };
  return { offsets: rows.flatMap((row) => Array.from({ length: kw }, (_, column) => row + column * dw * channels)), length: perGroup };
};

const depthwiseRuns = (kh: number, kw: number, dilations: readonly number[], rowLength: number, channels: number): Runs =>
  ({ ...contiguousRuns(kh, kw, 1, channels, dilations, rowLength, channels), length: channels });

/** out[at + o] = Σ over runs of w[from + o·filter …] · x[pixel + offset …] for `count` outputs, four at a time. */
const dotRuns = (
  out: Int32Array, at: number, count: number, w: Int32Array, from: number, filter: number, x: Int32Array, pixel: number, { offsets, length }: Runs,
): void => {
  let o = 0;
  for (; o + 4 <= count; o += 4) {
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    let w0 = from + o * filter;
    for (let r = 0; r < offsets.length; r++) {
      const x0 = pixel + offsets[r];
      for (let i = 0; i < length; i++, w0++) {
        const code = x[x0 + i];
        s0 = (s0 + Math.imul(code, w[w0])) | 0;
        s1 = (s1 + Math.imul(code, w[w0 + filter])) | 0;
        s2 = (s2 + Math.imul(code, w[w0 + 2 * filter])) | 0;
        s3 = (s3 + Math.imul(code, w[w0 + 3 * filter])) | 0;
      }
    }
    out[at + o] = s0;
    out[at + o + 1] = s1;
    out[at + o + 2] = s2;
    out[at + o + 3] = s3;
  }
  for (; o < count; o++) {
    let sum = 0;
    let w0 = from + o * filter;
    for (let r = 0; r < offsets.length; r++) {
      const x0 = pixel + offsets[r];
      for (let i = 0; i < length; i++, w0++) sum = (sum + Math.imul(x[x0 + i], w[w0])) | 0;
    }
    out[at + o] = sum;
  }
};

/** out[at + c] += w[from + c] · x[pixel + c] */
const multiplyAdd = (out: Int32Array, at: number, w: Int32Array, from: number, x: Int32Array, pixel: number, channels: number): void => {
  for (let c = 0; c < channels; c++) out[at + c] = (out[at + c] + Math.imul(w[from + c], x[pixel + c])) | 0;
};

/** [rows, columns] → [columns, rows] */
const transposed = (matrix: Int32Array, rows: number, columns: number): Int32Array => {
  const out = new Int32Array(matrix.length);
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) out[column * rows + row] = matrix[row * columns + column];
  return out;
};
