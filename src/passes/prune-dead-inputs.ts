/**
 * Removes the weights that read a channel which is always 0: they contribute nothing, but would widen the range of their row and
 * be amplified by any later scaling. A channel that always holds another constant c is folded into the bias, b' = b + Σ w·c, where
 * no padding can read in its place.
 *
 *     %h = conv(%x, %w, %b), channel 3 of %x always 0  →  the same with %w[:, …, 3] = 0
 *
 * "Always" means over the calibration samples; that a ReLU is dead on all inputs cannot be seen in general, so the pass says which
 * channels it took and can be disabled.
 */
import { staticShape } from '../ir/dim.ts';
import { constantOf, type Node, type Value } from '../ir/graph.ts';
import { mapGraph, mapOperands } from '../ir/rewrite.ts';
import { f32, tensor } from '../ir/type.ts';
import { definePass } from './pass.ts';
import { weightOf } from './quantize-weights.ts';

export const pruneDeadInputs = definePass<'float', 'float'>({
  name: 'prune-dead-inputs',
  from: 'float',
  to: 'float',
  summary: 'zero the weights that read channels which are constant over the calibration samples',
  changes: 'nothing on the calibration samples; elsewhere, a channel that comes to life is ignored',
  options: {},
  async run(graph, _, context) {
    if (context.calibration === null) return graph;
    const channels = await context.calibration.channelRanges(graph);
    let pruned = 0;
    const next = mapGraph(graph, 'float', (node, now, b) => {
      const constants = constantChannels(node, channels);
      const weight = weightOf(node);
      const data = weight && constantOf(weight)?.data;
      if (constants.size === 0 || !weight || !(data instanceof Float32Array)) return null;
      const { weights, shift } = foldChannels(data, staticShape(weight.type.shape), constants);
      if (weights === null) return null;
      pruned += constants.size;
      context.note({ site: node.output.name, text: 'constant input channels', figures: { channels: [...constants.keys()].join(' ') } });
      return b.copy(node, {
        ...mapOperands(node, now),
        weight: b.constant(weight.name, tensor(weight.type, weights)),
        bias: shiftedBias(node, shift, b),
      });
    });
    return pruned === 0 ? graph : next;
  },
});

/** Last-axis channel → the value that it always has. Padded convolutions can only lose channels that are always 0. */
const constantChannels = (node: Node, channels: ReadonlyMap<string, { readonly low: Float64Array; readonly high: Float64Array }>): ReadonlyMap<number, number> => {
  const found = new Map<number, number>();
  if (weightOf(node) === null || (node.op === 'conv' && node.attrs.group !== 1)) return found;
  const x = (node.inputs as { x: Value }).x;
  const range = channels.get(x.name);
  const padded = node.op === 'conv' && (node.attrs.pads as readonly number[]).some((p) => p > 0);
  range?.low.forEach((low, c) => { if (low === range.high[c] && (low === 0 || !padded)) found.set(c, low); });
  return found.size < (range?.low.length ?? 0) ? found : new Map();
};

/** Weights with the channels zeroed, and what they added to each output; null where they were zero already. */
const foldChannels = (source: Float32Array, shape: readonly number[], constants: ReadonlyMap<number, number>) => {
  const depth = shape[shape.length - 1];
  const perRow = source.length / shape[0];
  const weights = Float32Array.from(source);
  const shift = new Float64Array(shape[0]);
  let changed = false;
  for (let i = 0; i < weights.length; i++) {
    const constant = constants.get(i % depth);
    if (constant === undefined || weights[i] === 0) continue;
    shift[Math.floor(i / perRow)] += weights[i] * constant;
    weights[i] = 0;
    changed = true;
  }
  return { weights: changed ? weights : null, shift };
};

const shiftedBias = (node: Node, shift: Float64Array, b: { constant(stem: string, t: ReturnType<typeof tensor>): Value }): Value | null => {
  const bias = (node.inputs as { bias: Value | null }).bias;
  if (shift.every((s) => s === 0)) return bias;
  const old = constantOf(bias)?.data;
  return b.constant(bias?.name ?? `${node.output.name}.bias`, tensor(f32(shift.length), Float32Array.from(shift, (s, o) => s + Number(old?.[o] ?? 0))));
};
