/**
 * Empirical bias correction in execution order. Rounding of weights and activations shifts the mean of a layer's output; for a channel
 * whose weights nearly cancel (edge detectors behind a ReLU) the shift is larger than the signal. For each layer, in order:
 *
 *     b'_c = b_c + E[y_c of the float graph] − E[y_c of this layer on inputs that already carry all rounding before it]
 *
 * with the mean over samples and positions, before the activation and before the output is rounded. Because later layers are
 * measured on corrected earlier ones, the corrections do not add up twice. Source: Nagel et al. 2019, Data-free quantization through
 * weight equalization and bias correction, section 4.2 (here with data).
 *
 *     %y = conv(%x, %w, %b)  →  %y = conv(%x, %w, %b.corrected)
 */
import { Builder } from '../ir/build.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { sizeOf, staticShape } from '../ir/dim.ts';
import { errors } from '../ir/errors.ts';
import { constantOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import { int } from '../ir/op.ts';
import { reals } from '../ir/ops/elements.ts';
import { mapOperands } from '../ir/rewrite.ts';
import { f32, tensor, type Tensor } from '../ir/type.ts';
import { openFrontier } from '../calibration/frontier.ts';
import { definePass, type PassContext } from './pass.ts';
import { weightOf } from './quantize-weights.ts';

/** Most bytes of real layer outputs held at once; fewer samples are used where a layer is larger. */
const HELD_BYTES = 2 ** 28;

export const correctBias = definePass<'quant', 'quant', { readonly samples: number }>({
  name: 'correct-bias',
  from: 'quant',
  to: 'quant',
  summary: 'shift biases so that every layer keeps the mean output of the float model',
  paper: 'Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction',
  changes: 'the mean of each channel moves to that of the float model',
  options: { samples: int('most calibration samples that are used', 64) },
  async run(graph, { samples }, context) {
    const { calibration, reference } = context;
    if (calibration === null) throw new CompileError(errors.needsData('correct-bias'), 'usage');
    if (reference === null) throw new CompileError(errors.needsReference('correct-bias'), 'usage');
    // what was fitted keeps its means already
    if (graph.nodes.every((node) => weightOf(node) === null || node.site.passes.includes('fit-weights'))) return graph;
    const largest = Math.max(1, ...graph.nodes.filter((node) => weightOf(node)).map((node) => sizeOf(node.output.type.shape) * 4));
    const count = Math.max(1, Math.min(samples, calibration.samples.count, Math.floor(HELD_BYTES / largest)));
    const targets = await calibration.channelMeans(reference, count);
    return correct(graph, targets, count, context);
  },
});

const correct = (graph: Graph<'quant'>, targets: ReadonlyMap<string, Float64Array>, count: number, context: PassContext): Graph<'quant'> => {
  const b = new Builder();
  const renewed = new Map<Value, Value>();
  const now = (value: Value): Value => renewed.get(value) ?? value;
  const frontier = openFrontier(graph, context.calibration!.samples, count);
  for (const input of graph.inputs) renewed.set(input, b.input(input.name, input.type));
  for (const [index, node] of graph.nodes.entries()) {
    context.progress('correct-bias', index, graph.nodes.length);
    const real = frontier.evaluate(node);
    const target = weightOf(node) && targets.get(node.output.name);
    const shift = target ? meanShift(real, target) : null;
    if (shift !== null) real.forEach((one) => addPerChannel(one, shift));
    frontier.settle(node, real);
    const bias = shift === null ? {} : { bias: b.constant(biasName(node), shiftedBias(node, shift)) };
    renewed.set(node.output, b.copy(node, { ...mapOperands(node, now), ...bias }));
    if (shift !== null) noteShift(node, shift, context);
  }
  return b.finish('quant', graph.name, graph.outputs.map(({ name, value }) => ({ name, value: now(value) })));
};

/** target − mean of `real`, for each channel of the last axis; sums in float64, in sample order. */
const meanShift = (real: readonly Tensor[], target: Float64Array): Float64Array => {
  const sums = new Float64Array(target.length);
  for (const one of real) addRows(sums, reals(one));
  const perChannel = (real.length * real[0].data.length) / sums.length;
  return sums.map((sum, c) => target[c] - sum / perChannel);
};

const addRows = (sums: Float64Array, data: Float32Array): void => {
  const channels = sums.length;
  for (let row = 0; row < data.length; row += channels) for (let c = 0; c < channels; c++) sums[c] += data[row + c];
};

/** Adds shift[c] to channel c of the last axis, in place. */
export const addPerChannel = (one: Tensor, shift: Float64Array): void => {
  const data = reals(one);
  const channels = shift.length;
  for (let row = 0; row < data.length; row += channels) for (let c = 0; c < channels; c++) data[row + c] += shift[c];
};

const biasOf = (node: Node): Value | null => (node.inputs as { bias: Value | null }).bias;
/** Name of the constant bias of a layer, which it may still lack. */
export const biasName = (node: Node): string => biasOf(node)?.name ?? `${node.output.name}.bias`;
/** b + shift for each output channel, rounded once to float32. */
export const shiftedBias = (node: Node, shift: Float64Array): Tensor => {
  const old = constantOf(biasOf(node))?.data;
  return tensor(f32(shift.length), Float32Array.from(shift, (s, c) => s + Number(old?.[c] ?? 0)));
};

const noteShift = (node: Node, shift: Float64Array, context: PassContext): void => {
  const channels = staticShape(node.output.type.shape).at(-1)!;
  const rms = Math.sqrt(shift.reduce((sum, s) => sum + s * s, 0) / channels);
  const most = shift.reduce((largest, s) => Math.max(largest, Math.abs(s)), 0);
  context.note({ site: node.output.name, text: 'bias shifted', figures: { rms, most } });
};
