/**
 * How much the error of each token of a value counts at the outputs, from forward runs alone: random signs ±ε on the tokens of one group
 * at a time, the rest of the network run on both, and with KL the divergence of the outputs' softmax from that of the undisturbed model,
 *
 *     ω_g = (KL(+) + KL(−)) / (ε²·|g|),   ε a hundredth of the value's root mean square
 *
 * an unbiased estimate of the mean diagonal of the Hessian over the group. Groups are runs of positions. The estimates of a value are
 * divided by their mean.
 *
 * Source: the perturbation Hessian of Wu et al. 2025, APHQ-ViT, with signs in place of one common shift, which would give row sums.
 */
import { createExecutor } from '../../calibration/executor.ts';
import { logSumExp } from '../../calibration/metrics.ts';
import type { Sample } from '../../calibration/samples.ts';
import { Builder } from '../../ir/build.ts';
import { sizeOf } from '../../ir/dim.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import { add } from '../../ir/ops/index.ts';
import { mapOperands } from '../../ir/rewrite.ts';
import { tensor } from '../../ir/type.ts';
import { exp } from '../../numerics/real-math.ts';
import { createRandom } from '../../numerics/random.ts';

/** Size of the disturbance against the root mean square of the value. */
const DISTURBANCE = 1e-2;
/** No group counts for less than this share of the mean. */
const LEAST_SHARE = 0.05;

/** ω of each token of the value (all axes but the last), the mean over the samples. */
export const tokenImportance = (graph: Graph<'float'>, value: Value, samples: readonly Sample[], groups: number, seed: number): Float32Array => {
  const channels = value.type.shape.at(-1) as number;
  const tokens = sizeOf(value.type.shape) / channels;
  const count = Math.min(groups, tokens);
  const groupOf = Int32Array.from({ length: tokens }, (_, t) => Math.floor((t * count) / tokens));
  const { disturbed, noise } = withNoise(graph, value);
  const executor = createExecutor(disturbed);
  const random = createRandom(seed);
  const found = new Float64Array(count);
  const sizes = new Float64Array(count);
  groupOf.forEach((g) => { sizes[g] += channels; });
  for (const sample of samples) {
    let power = 0;
    const none = tensor(value.type, new Float32Array(tokens * channels));
    const plain = executor.run({ ...sample, [noise]: none }, (one, { data }) => {
      if (one.name === value.name) power = (data as Float32Array).reduce((sum, x) => sum + x * x, 0) / data.length;
    });
    const size = DISTURBANCE * Math.sqrt(power);
    if (!(size > 0)) continue;
    for (let g = 0; g < count; g++) {
      const signs = Float32Array.from({ length: tokens * channels }, (_, i) => (groupOf[Math.floor(i / channels)] !== g ? 0 : random.below(2) === 0 ? -size : size));
      for (const data of [signs, signs.map((x) => -x)]) found[g] += divergence(plain, executor.run({ ...sample, [noise]: tensor(value.type, data) })) / (size * size * sizes[g]);
    }
  }
  const mean = found.reduce((sum, x) => sum + x, 0) / count;
  return Float32Array.from(groupOf, (g) => (mean > 0 ? Math.max(LEAST_SHARE, found[g] / mean) : 1));
};

/** The graph with a further input that is added to the value. */
const withNoise = (graph: Graph<'float'>, value: Value): { readonly disturbed: Graph<'float'>; readonly noise: string } => {
  const b = new Builder();
  const renewed = new Map<Value, Value>();
  const now = (one: Value): Value => renewed.get(one) ?? one;
  for (const input of graph.inputs) renewed.set(input, b.input(input.name, input.type));
  const noise = `${value.name}.noise`;
  const input = b.input(noise, value.type);
  for (const node of graph.nodes) {
    const made = b.copy(node, mapOperands(node, now));
    renewed.set(node.output, node.output === value ? b.emit(add, { x: made, y: input }, {}, { name: `${value.name}.disturbed` }) : made);
  }
  return { disturbed: b.finish('float', graph.name, graph.outputs.map(({ name, value: one }) => ({ name, value: now(one) }))), noise };
};

/** Σ over outputs and rows of KL(softmax(p) ‖ softmax(q)). */
const divergence = (reference: Sample, found: Sample): number => {
  let sum = 0;
  for (const [name, { type, data }] of Object.entries(reference)) {
    const length = (type.shape.at(-1) as number | undefined) ?? 1;
    for (let at = 0; at < data.length; at += length) sum += rowDivergence(data as Float32Array, found[name].data as Float32Array, at, length);
  }
  return sum;
};
const rowDivergence = (p: Float32Array, q: Float32Array, at: number, length: number): number => {
  const [logP, logQ] = [logSumExp(p, at, length), logSumExp(q, at, length)];
  let sum = 0;
  for (let i = at; i < at + length; i++) sum += exp(p[i] - logP) * (p[i] - logP - (q[i] - logQ));
  return Math.max(0, sum);
};
