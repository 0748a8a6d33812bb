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
import { constantOf, isNode, operandsOf, usersOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import { int } from '../ir/op.ts';
import { f32, tensor, type Tensor } from '../ir/type.ts';
import { dequantized, quantized, realEvaluator } from '../calibration/executor.ts';
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

const correct = async (graph: Graph<'quant'>, targets: ReadonlyMap<string, Float64Array>, count: number, context: PassContext): Promise<Graph<'quant'>> => {
  const { samples } = context.calibration!;
  const b = new Builder();
  const renewed = new Map<Value, Value>();
  const now = (value: Value): Value => renewed.get(value) ?? value;
  const left = new Map([...usersOf(graph)].map(([value, nodes]) => [value, nodes.length]));
  // codes of every value that is still to be read, one tensor for each sample
  const held = new Map<Value, readonly Tensor[]>();
  for (const input of graph.inputs) {
    renewed.set(input, b.input(input.name, input.type));
    held.set(input, Array.from({ length: count }, () => null as unknown as Tensor));
  }
  for (let i = 0; i < count; i++) {
    const sample = samples.get(i);
    for (const input of graph.inputs) (held.get(input) as Tensor[])[i] = quantized(sample[input.name], input.type);
  }
  const evaluate = realEvaluator();
  for (const [index, node] of graph.nodes.entries()) {
    context.progress('correct-bias', index, graph.nodes.length);
    const real = Array.from({ length: count }, (_, i) => evaluate(node, (value) => dequantized(held.get(value)?.[i] ?? constantOf(value)!)));
    const target = weightOf(node) && targets.get(node.output.name);
    const shift = target ? meanShift(real, target) : null;
    if (shift !== null) real.forEach((one) => addPerChannel(one, shift));
    held.set(node.output, real.map((one) => quantized(one, node.output.type)));
    for (const operand of new Set(operandsOf(node))) if (isNode(operand.def) || operand.def.op === 'input') release(operand, left, held);
    renewed.set(node.output, remade(node, shift, now, b));
    if (shift !== null) noteShift(node, shift, context);
  }
  return b.finish('quant', graph.name, graph.outputs.map(({ name, value }) => ({ name, value: now(value) })));
};

/** Frees the codes of a value after its last reader. */
const release = (value: Value, left: Map<Value, number>, held: Map<Value, readonly Tensor[]>): void => {
  const remaining = (left.get(value) ?? 0) - 1;
  left.set(value, remaining);
  if (remaining <= 0) held.delete(value);
};

/** target − mean of `real`, for each channel of the last axis; sums in float64, in sample order. */
const meanShift = (real: readonly Tensor[], target: Float64Array): Float64Array => {
  const sums = new Float64Array(target.length);
  for (const { data } of real) for (let i = 0, c = 0; i < data.length; i++, c = c + 1 === sums.length ? 0 : c + 1) sums[c] += data[i] as number;
  const perChannel = (real.length * real[0].data.length) / sums.length;
  return sums.map((sum, c) => target[c] - sum / perChannel);
};

const addPerChannel = (one: Tensor, shift: Float64Array): void => {
  const data = one.data as Float32Array;
  for (let i = 0, c = 0; i < data.length; i++, c = c + 1 === shift.length ? 0 : c + 1) data[i] += shift[c];
};

const remade = (node: Node, shift: Float64Array | null, now: (value: Value) => Value, b: Builder): Value => {
  const inputs = Object.fromEntries(Object.entries(node.inputs).map(([slot, operand]) =>
    [slot, operand === null ? null : Array.isArray(operand) ? operand.map(now) : now(operand as Value)]));
  if (shift === null) return b.copy(node, inputs);
  const bias = (node.inputs as { bias: Value | null }).bias;
  const old = constantOf(bias)?.data;
  const corrected = Float32Array.from(shift, (s, c) => s + Number(old?.[c] ?? 0));
  return b.copy(node, { ...inputs, bias: b.constant(bias?.name ?? `${node.output.name}.bias`, tensor(f32(shift.length), corrected)) });
};

const noteShift = (node: Node, shift: Float64Array, context: PassContext): void => {
  const channels = staticShape(node.output.type.shape).at(-1)!;
  const rms = Math.sqrt(shift.reduce((sum, s) => sum + s * s, 0) / channels);
  const most = shift.reduce((largest, s) => Math.max(largest, Math.abs(s)), 0);
  context.note({ site: node.output.name, text: 'bias shifted', figures: { rms, most } });
};
