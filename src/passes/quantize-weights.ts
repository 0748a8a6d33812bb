/**
 * Rounds the constant weights of convolutions and linear maps to integer codes, one symmetric scale for each output channel:
 * q = clamp(floor(w/s + 1/2), −n, n), s = max|w|/n, n = 2^(bits−1) − 1.
 *
 *     %w = const : f32[64, 3, 3, 32]  →  %w = const : i8<axis 0: …>[64, 3, 3, 32]
 *
 * The code −2^(bits−1) stays unused, so that negation is exact and pairs of products are bounded symmetrically. A channel whose
 * weights are all 0 gets scale 1. Source: Krishnamoorthi 2018, Quantizing deep convolutional networks for efficient inference.
 */
import { sizeOf, staticShape } from '../ir/dim.ts';
import type { IntegerDType } from '../ir/dtype.ts';
import { constantOf, type Node, type Value } from '../ir/graph.ts';
import { int } from '../ir/op.ts';
import { widthsOf } from '../ir/ops/widths.ts';
import { perChannel, quantizeReal } from '../ir/quant.ts';
import { mapGraph, mapOperands } from '../ir/rewrite.ts';
import { tensorType, type Tensor } from '../ir/type.ts';
import { definePass } from './pass.ts';

export const quantizeWeights = definePass<'quant', 'quant', { readonly bits: number }>({
  name: 'quantize-weights',
  from: 'quant',
  to: 'quant',
  summary: 'round weights to integer codes, one scale for each output channel',
  paper: 'Krishnamoorthi 2018, Quantizing deep convolutional networks for efficient inference',
  changes: 'rounding of the weights, at most half a step of their channel',
  options: { bits: int('width of the weights, 2 to 8, of layers whose widths were not chosen one by one', 8) },
  run: (graph, { bits }) => {
    // a weight that several layers read at one width is rounded once
    const made = new Map<Value, Map<number, Value>>();
    return mapGraph(graph, 'quant', (node, now, b) => {
      const weight = weightOf(node);
      const constant = weight && constantOf(weight);
      if (!weight || !constant || constant.type.dtype !== 'f32') return null;
      const width = widthsOf(node)?.weights ?? bits;
      const ofWeight = made.get(weight) ?? new Map<number, Value>();
      const codes = ofWeight.get(width) ?? b.constant(weight.name, quantizeRows(constant, width));
      made.set(weight, ofWeight.set(width, codes));
      return b.copy(node, { ...mapOperands(node, now), weight: codes });
    });
  },
});

/** The constant weight of a layer, [O, …]; null for other nodes. */
export const weightOf = (node: Node): Value | null =>
  node.op === 'conv' || node.op === 'linear' ? (node.inputs as { weight: Value }).weight : null;

/** Symmetric codes of a weight tensor, one scale for each index of axis 0. */
export const quantizeRows = (weight: Tensor, bits: number): Tensor => {
  const source = weight.data as Float32Array;
  const rows = staticShape(weight.type.shape)[0];
  const length = sizeOf(weight.type.shape) / rows;
  const most = 2 ** (bits - 1) - 1;
  const data = new Int8Array(source.length);
  const scales: number[] = [];
  for (let row = 0; row < rows; row++) {
    const part = source.subarray(row * length, (row + 1) * length);
    const scale = Math.fround(part.reduce((largest, w) => Math.max(largest, Math.abs(w)), 0) / most) || 1;
    part.forEach((w, i) => { data[row * length + i] = quantizeReal(w, scale, 0, -most, most); });
    scales.push(scale);
  }
  return { type: tensorType(`i${bits}` as IntegerDType, weight.type.shape, perChannel(scales, 0, [-most, most])), data };
};
