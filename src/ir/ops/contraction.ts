/** Sums of products: `linear` with constant weights, `matmul` of two activations, `attention`. Inner sums in float64. */
import { equalDims, printShape, staticShape, stridesOf, type Shape } from '../dim.ts';
import { defineOp, flag, int, misuse, real } from '../op.ts';
import { tensorType } from '../type.ts';
import { widthsAttr } from './widths.ts';
import { broadcastOf, broadcastOffsets, fill, rankOf, realShape, reals } from './elements.ts';
import { exp } from '../../numerics/real-math.ts';

export const linear = defineOp({
  name: 'linear',
  summary: 'x·weightᵀ + bias over the last axis: x [..., K], weight [O, K], bias [O] -> [..., O]',
  operands: { x: 'one', weight: 'one', bias: 'optional' },
  attrs: { widths: widthsAttr },
  infer: ({ x, weight, bias }) => {
    const shape = realShape(x, 'x');
    const [outputs, terms] = rankOf(realShape(weight, 'weight'), 2, 'weight');
    if (shape.length === 0 || !equalDims(shape[shape.length - 1], terms)) misuse(`x [${printShape(shape)}] does not fit the weight [${printShape(weight.shape)}]`);
    checkBias(bias?.shape ?? null, outputs);
    return tensorType('f32', [...shape.slice(0, -1), outputs]);
  },
  evaluate: ({ x, weight, bias }, _, { shape }) => {
    const [a, w] = [reals(x), reals(weight)];
    const b = bias === null ? null : reals(bias);
    const [outputs, terms] = staticShape(weight.type.shape);
    return fill(shape, (i) => {
      const o = i % outputs;
      const row = ((i - o) / outputs) * terms;
      let sum = b === null ? 0 : b[o];
      for (let k = 0; k < terms; k++) sum += a[row + k] * w[o * terms + k];
      return sum;
    });
  },
});

/** A bias has one number for each output channel. */
export const checkBias = (bias: Shape | null, outputs: Shape[number]): void => {
  if (bias !== null && !(bias.length === 1 && equalDims(bias[0], outputs))) misuse(`the bias [${printShape(bias)}] must have one number per output channel`);
};

export const matmul = defineOp({
  name: 'matmul',
  summary: 'matrix product of two activations, batch axes by numpy broadcasting: a [..., M, K], b [..., K, N] or [..., N, K] -> [..., M, N]',
  operands: { a: 'one', b: 'one' },
  attrs: { transposeB: flag('b holds its matrices transposed', false), widths: widthsAttr },
  infer: ({ a, b }, { transposeB }) => {
    const [x, y] = [realShape(a, 'a'), realShape(b, 'b')];
    if (x.length < 2 || y.length < 2) misuse('operands must have at least two axes');
    const [rows, terms] = x.slice(-2);
    const [columns, depth] = transposeB ? y.slice(-2) : [y[y.length - 1], y[y.length - 2]];
    if (!equalDims(terms, depth)) misuse(`the inner sizes of [${printShape(x)}] and [${printShape(y)}] differ`);
    return tensorType('f32', [...broadcastOf(x.slice(0, -2), y.slice(0, -2)), rows, columns]);
  },
  evaluate: ({ a, b }, { transposeB }, { shape }) => {
    const [x, y] = [reals(a), reals(b)];
    const [rows, columns] = staticShape(shape).slice(-2);
    const terms = staticShape(a.type.shape)[a.type.shape.length - 1];
    const batch = shape.slice(0, -2);
    const [ofA, ofB] = [broadcastOffsets(a.type.shape.slice(0, -2), batch), broadcastOffsets(b.type.shape.slice(0, -2), batch)];
    const [stepN, stepK] = transposeB ? [terms, 1] : [1, columns];
    return fill(shape, (i) => {
      const n = i % columns;
      const m = ((i - n) / columns) % rows;
      const one = Math.floor(i / (rows * columns));
      const [left, right] = [(ofA[one] * rows + m) * terms, ofB[one] * terms * columns + n * stepN];
      let sum = 0;
      for (let k = 0; k < terms; k++) sum += x[left + k] * y[right + k * stepK];
      return sum;
    });
  },
});

/**
 * softmax(scale·q·kᵀ, where the mask allows)·v for each head. Heads lie side by side in the last axis: no transposes in the IR.
 * q [B, T, heads·D], k [B, S, heads·D], v [B, S, heads·E], mask bool [T, S] -> [B, T, heads·E].
 */
export const attention = defineOp({
  name: 'attention',
  summary: 'scaled dot-product attention of side-by-side heads',
  operands: { q: 'one', k: 'one', v: 'one', mask: 'optional' },
  attrs: { heads: int('number of heads'), scale: real('factor of the products before softmax'), widths: widthsAttr },
  infer: ({ q, k, v, mask }, { heads }) => {
    const [queries, keys, values] = [rankOf(realShape(q, 'q'), 3, 'q'), rankOf(realShape(k, 'k'), 3, 'k'), rankOf(realShape(v, 'v'), 3, 'v')];
    if (!equalDims(queries[2], keys[2])) misuse('q and k have different channels');
    if (![queries, keys, values].every((shape) => equalDims(shape[0], queries[0]))) misuse('q, k and v have different batches');
    if (!equalDims(keys[1], values[1])) misuse('k and v have different lengths');
    if (heads < 1 || [queries[2], values[2]].some((dim) => typeof dim === 'number' && dim % heads !== 0)) misuse(`the channels do not split into ${heads} heads`);
    if (mask !== null && (mask.dtype !== 'bool' || mask.shape.length !== 2 || !equalDims(mask.shape[0], queries[1]) || !equalDims(mask.shape[1], keys[1]))) {
      misuse(`the mask must be bool [${printShape([queries[1], keys[1]])}]`);
    }
    return tensorType('f32', [queries[0], queries[1], values[2]]);
  },
  evaluate: ({ q, k, v, mask }, { heads, scale }, type) => {
    const [batch, steps, channels] = staticShape(q.type.shape);
    const [, sources, width] = staticShape(v.type.shape);
    const [depth, wide] = [channels / heads, width / heads];
    const [a, b, c] = [reals(q), reals(k), reals(v)];
    const [qBatch, qStep] = stridesOf([batch, steps, channels]);
    const data = new Float32Array(batch * steps * width);
    const weights = new Float64Array(sources);
    for (let n = 0; n < batch; n++) for (let h = 0; h < heads; h++) for (let t = 0; t < steps; t++) {
      let greatest = -Infinity;
      for (let s = 0; s < sources; s++) {
        let sum = 0;
        for (let d = 0; d < depth; d++) sum += a[n * qBatch + t * qStep + h * depth + d] * b[(n * sources + s) * channels + h * depth + d];
        weights[s] = mask === null || mask.data[t * sources + s] !== 0 ? scale * sum : -Infinity;
        greatest = Math.max(greatest, weights[s]);
      }
      let total = 0;
      for (let s = 0; s < sources; s++) total += weights[s] = weights[s] === -Infinity ? 0 : exp(weights[s] - greatest);
      for (let e = 0; e < wide; e++) {
        let sum = 0;
        for (let s = 0; s < sources; s++) sum += weights[s] * c[(n * sources + s) * width + h * wide + e];
        data[(n * steps + t) * width + h * wide + e] = sum / total;
      }
    }
    return { type, data };
  },
});
