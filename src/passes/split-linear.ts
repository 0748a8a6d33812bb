/**
 * Slices of the channels of a `linear` (or an ungrouped convolution) with constant weights become ops of their own, each with its
 * rows of the weight: the packed queries, keys and values of an attention are three linears, each with its own range.
 *
 *     %p = linear(%x, %W); %q = slice(%p) {axis: -1, start: 0, end: 64}   ->   %q = linear(%x, %W[0:64])
 */
import type { EmitOptions } from '../ir/build.ts';
import { constantOf, isNode, type Value } from '../ir/graph.ts';
import { slice } from '../ir/ops/index.ts';
import { rule, type Rewriter, type Rule } from '../ir/rewrite.ts';
import type { Tensor } from '../ir/type.ts';
import { applyRules, definePass } from './pass.ts';
import { LAYOUT_SWEEPS, layoutRules } from './simplify-layout.ts';

/** Slices of the first axis, in the order of `rows`. */
const takeRows = ({ type, data }: Tensor, rows: readonly number[]): Tensor => {
  const length = data.length / (type.shape[0] as number);
  const taken = new Float32Array(rows.length * length);
  rows.forEach((row, i) => taken.set((data as Float32Array).subarray(row * length, (row + 1) * length), i * length));
  return { type: { ...type, shape: [rows.length, ...type.shape.slice(1)] }, data: taken };
};

/** The channels `rows` of a linear or an ungrouped conv with constant weights, as an op of its own; null for anything else. */
export const channelsFrom = (value: Value, rows: readonly number[], b: Rewriter, name: string, as: EmitOptions = { name }): Value | null => {
  const node = value.def;
  if (!isNode(node) || !(node.op === 'linear' || (node.op === 'conv' && node.attrs['group'] === 1))) return null;
  const weightValue = node.inputs['weight'] as Value;
  const biasValue = node.inputs['bias'] as Value | null;
  const [weight, bias] = [constantOf(weightValue), constantOf(biasValue)];
  if (weight === null || (biasValue !== null && bias === null)) return null;
  const inputs = {
    ...node.inputs, weight: b.constant(`${name}.weight`, takeRows(weight, rows)),
    bias: bias && b.constant(`${name}.bias`, takeRows(bias, rows)),
  };
  return b.emit(node.decl as never, inputs as never, node.attrs, as);
};

const splitSlices = rule(slice, 'split-slices', ({ inputs: { x }, attrs: { axis, start, end, step }, output }, b) => {
  const rank = x.type.shape.length;
  const onChannels = (at: number): boolean => at === rank - 1 || at === -1;
  const users = b.usersOf(x);
  // A graph output is a use without a user.
  if (!onChannels(axis) || step < 1 || b.useCount(x) > users.length || !users.every((user) => user.op === 'slice' && onChannels(user.attrs['axis'] as number))) return null;
  const rows = Array.from({ length: Math.ceil((end - start) / step) }, (_, i) => start + i * step);
  return channelsFrom(x, rows, b, output.name, { replaces: output });
});

export const splitRules: readonly Rule[] = [splitSlices];

export const splitLinear = definePass({
  name: 'split-linear', from: 'float', to: 'float',
  summary: 'give each slice of the channels of a linear its own weights',
  options: {},
  run: (graph, _, context) => applyRules(graph, [...splitRules, ...layoutRules], 'split-linear', context, LAYOUT_SWEEPS),
});
