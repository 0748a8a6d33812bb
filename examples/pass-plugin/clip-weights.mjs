/**
 * A pass as a plugin: clips the weights of every layer to `sigmas` standard deviations of their output channel, so that a few large
 * weights do not coarsen the grid of all others.
 *
 *     npx lowbitc compile model.onnx -o out/clipped --calib samples.npy --plugin ./examples/pass-plugin/clip-weights.mjs
 *     npx lowbitc passes clip-weights --plugin ./examples/pass-plugin/clip-weights.mjs
 *
 *     %w = const : f32[64, 3, 3, 32], one weight of a channel at 9σ  →  the same with that weight at 4σ
 */
import { definePlugin } from 'lowbitc';
import { constantOf, mapGraph, mapOperands, real, sizeOf, tensor } from 'lowbitc/ir';
import { definePass } from 'lowbitc/passes';

export const clipWeights = definePass({
  name: 'clip-weights',
  from: 'float',
  to: 'float',
  summary: 'clip outlying weights of each output channel before they are rounded',
  changes: 'weights beyond the limit move to it',
  options: { sigmas: real('limit in standard deviations of the channel', 4) },
  run(graph, { sigmas }, context) {
    let total = 0;
    const next = mapGraph(graph, 'float', (node, now, b) => {
      if (node.op !== 'conv' && node.op !== 'linear') return null;
      const weight = constantOf(node.inputs.weight);
      const { data, clipped } = clipRows(weight, sigmas);
      if (clipped === 0) return null;
      total += clipped;
      context.note({ site: node.output.name, text: 'clipped weights', figures: { clipped, of: data.length } });
      return b.copy(node, { ...mapOperands(node, now), weight: b.constant(node.inputs.weight.name, tensor(weight.type, data)) });
    });
    return total === 0 ? graph : next;
  },
});

/** Rows are output channels, axis 0. */
const clipRows = ({ type, data: source }, sigmas) => {
  const data = source.slice();
  const length = sizeOf(type.shape.slice(1));
  let clipped = 0;
  for (let start = 0; start < data.length; start += length) {
    const row = data.subarray(start, start + length);
    const limit = sigmas * Math.sqrt(row.reduce((sum, w) => sum + w * w, 0) / length);
    row.forEach((w, i) => {
      if (Math.abs(w) <= limit) return;
      row[i] = Math.sign(w) * limit;
      clipped++;
    });
  }
  return { data, clipped };
};

export default definePlugin({
  name: 'clip-weights-example',
  passes: [{ pass: clipWeights, before: 'quantize-activations' }],
});
