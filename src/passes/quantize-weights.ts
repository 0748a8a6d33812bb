/**
 * Rounds the constant weights of convolutions and linear maps to integer codes, one symmetric scale for each output channel:
 * q = clamp(floor(w/s + 1/2), −n, n), s = max|w|/n, n = 2^(bits−1) − 1.
 *
 *     %w = const : f32[64, 3, 3, 32]  →  %w = const : i8<axis 0: …>[64, 3, 3, 32]
 *
 * The code −2^(bits−1) stays unused, so that negation is exact and pairs of products are bounded symmetrically. A channel whose
 * weights are all 0 gets scale 1. With a codebook q is the nearest of its levels (numerics/codebook.ts), and s the step of least error
 * among some. Source: Krishnamoorthi 2018, Quantizing deep convolutional networks for efficient inference.
 */
import { sizeOf, staticShape } from '../ir/dim.ts';
import { constantOf, type Node, type Value } from '../ir/graph.ts';
import { int, oneOf } from '../ir/op.ts';
import { printWeights, widthsOf, type WeightFormat, type WeightWidth } from '../ir/ops/widths.ts';
import { quantizeReal } from '../ir/quant.ts';
import { mapGraph, mapOperands } from '../ir/rewrite.ts';
import type { Tensor } from '../ir/type.ts';
import { definePass } from './pass.ts';
import { nearestLevel, weightGrid, weightTensor } from './weight-grids.ts';

export const formatOption = oneOf<WeightFormat>(
  'what codes of weights are: uniform: multiples of a step; codebook: places in a list of levels that fits all weights of the layer, at most 4 bits',
  ['uniform', 'codebook'], 'uniform',
);

export const quantizeWeights = definePass<'quant', 'quant', WeightWidth>({
  name: 'quantize-weights',
  from: 'quant',
  to: 'quant',
  summary: 'round weights to integer codes, one scale for each output channel',
  paper: 'Krishnamoorthi 2018, Quantizing deep convolutional networks for efficient inference',
  changes: 'rounding of the weights, at most half a step of their channel',
  options: { bits: int('width of the weights, 2 to 8, of layers whose widths were not chosen one by one', 8), format: formatOption },
  run: (graph, options) => {
    // a weight that several layers read at one width is rounded once
    const made = new Map<Value, Map<string, Value>>();
    return mapGraph(graph, 'quant', (node, now, b) => {
      const weight = weightOf(node);
      const constant = weight && constantOf(weight);
      if (!weight || !constant || constant.type.dtype !== 'f32') return null;
      const width = widthsOf(node)?.weights ?? options;
      const ofWeight = made.get(weight) ?? new Map<string, Value>();
      const codes = ofWeight.get(printWeights(width)) ?? b.constant(weight.name, quantizeRows(constant, width));
      made.set(weight, ofWeight.set(printWeights(width), codes));
      return b.copy(node, { ...mapOperands(node, now), weight: codes });
    });
  },
});

/** The constant weight of a layer, [O, …]; null for other nodes. */
export const weightOf = (node: Node): Value | null =>
  node.op === 'conv' || node.op === 'linear' ? (node.inputs as { weight: Value }).weight : null;

/** Codes of a weight tensor, one scale for each index of axis 0, each weight the nearest. */
export const quantizeRows = (weight: Tensor, width: WeightWidth): Tensor => {
  const source = weight.data as Float32Array;
  const outputs = staticShape(weight.type.shape)[0];
  const length = sizeOf(weight.type.shape) / outputs;
  const rows = Array.from({ length: outputs }, (_, o) => Float64Array.from(source.subarray(o * length, (o + 1) * length)));
  const grid = weightGrid(width, () => rows.map((row) => ({ row, importances: null })));
  const scales = rows.map((row) => grid.steps(row, 1)[0]);
  const nearest = width.format === 'codebook' ? nearestLevel(grid.levels) : null;
  const most = grid.levels[grid.levels.length - 1];
  const codes = new Int8Array(source.length);
  scales.forEach((scale, o) => {
    for (let i = o * length; i < (o + 1) * length; i++) codes[i] = nearest === null ? quantizeReal(source[i], scale, 0, -most, most) : nearest(source[i] / scale);
  });
  return weightTensor(grid, weight.type.shape, scales, codes);
};
