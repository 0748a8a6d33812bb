/**
 * Empirical correction of moments in execution order. Rounding of weights and activations shifts the mean of a layer's output; for a channel
 * whose weights nearly cancel (edge detectors behind a ReLU) the shift is larger than the signal. For each layer, in order:
 *
 *     b'_c = b_c + E[y_c of the float graph] − E[y_c of this layer on inputs that already carry all rounding before it]
 *
 * with the mean over samples and positions, before the activation and before the output is rounded. Because later layers are
 * measured on corrected earlier ones, the corrections do not add up twice. With `moments: mean-deviation` the spread of each channel
 * returns as well, which ends in the scale of its row of weights and costs nothing at run time:
 *
 *     s'_c = s_c · g_c,   b'_c = E[y_c] + g_c · (b_c − E[ŷ_c]),   g_c = σ(y_c) / σ(ŷ_c)
 *
 * `measured` makes both and keeps the one whose outputs lie nearer to the float ones on the second half of the samples. At 8 bits it moved the
 * labelled models of docs/accuracy.md by −0.5 … +0.3 points of top-1 and −0.6 … +1.4 dB, so presets return the mean alone.
 *
 * Where all layers were fitted nothing is left to do: their regression sets mean and gain (fit-weights).
 *
 * Sources: Nagel et al. 2019, Data-free quantization through weight equalization and bias correction, section 4.2 (here with data);
 * Hubara et al. 2020, Improving post training neural quantization, section 4 (the spread).
 *
 *     %y = conv(%x, %w, %b)  →  %y = conv(%x, %w, %b.corrected)
 */
import { Builder } from '../ir/build.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { sizeOf, staticShape } from '../ir/dim.ts';
import { errors } from '../ir/errors.ts';
import { constantOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import { int, oneOf } from '../ir/op.ts';
import { reals } from '../ir/ops/elements.ts';
import { scaleAt } from '../ir/quant.ts';
import { mapOperands } from '../ir/rewrite.ts';
import { f32, tensor, type Tensor } from '../ir/type.ts';
import type { ChannelMoments } from '../calibration/calibration.ts';
import { openFrontier } from '../calibration/frontier.ts';
import { compared, openOutputMeter } from './output-meter.ts';
import { definePass, type Note, type PassContext } from './pass.ts';
import { weightOf } from './quantize-weights.ts';

/** Most bytes of real layer outputs held at once; fewer samples are used where a layer is larger. */
const HELD_BYTES = 2 ** 28;

/** A channel that scatters by less than this share of its largest mean or spread keeps its spread: the quotient would be noise. */
const LEAST_SPREAD = 1e-6;

export interface CorrectBiasOptions {
  readonly samples: number;
  readonly moments: 'mean' | 'mean-deviation' | 'measured';
}

export const correctBias = definePass<'quant', 'quant', CorrectBiasOptions>({
  name: 'correct-bias',
  from: 'quant',
  to: 'quant',
  summary: 'shift biases so that every layer keeps the mean output of the float model',
  paper: 'Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction',
  changes: 'the mean of each channel moves to that of the float model',
  options: {
    samples: int('most calibration samples that are used', 64),
    moments: oneOf(
      'what returns to that of the float model: the mean of each channel, its standard deviation too, or whichever gives outputs nearer to the float ones (measured)',
      ['mean', 'mean-deviation', 'measured'], 'mean',
    ),
  },
  async run(graph, { samples, moments }, context) {
    const { calibration, reference } = context;
    if (calibration === null) throw new CompileError(errors.needsData('correct-bias'), 'usage');
    if (reference === null) throw new CompileError(errors.needsReference('correct-bias'), 'usage');
    // what was fitted keeps its means already
    if (graph.nodes.every((node) => weightOf(node) === null || node.site.passes.includes('fit-weights'))) return graph;
    const largest = Math.max(1, ...graph.nodes.filter((node) => weightOf(node)).map((node) => sizeOf(node.output.type.shape) * 4));
    const count = Math.max(1, Math.min(samples, calibration.samples.count, Math.floor(HELD_BYTES / largest)));
    const targets = await calibration.channelMoments(reference, count);
    if (moments !== 'measured') return correct(graph, targets, moments === 'mean-deviation', count, context);
    const meter = openOutputMeter(reference, calibration.samples);
    const [means, deviations] = [false, true].map((spreads) => {
      const notes: Note[] = [];
      return { notes, made: correct(graph, targets, spreads, count, { ...context, note: (one) => notes.push(one) }) };
    });
    const outputsDb = compared(meter.sqnrDb(means.made), meter.sqnrDb(deviations.made));
    const gains = outputsDb.after > outputsDb.before;
    context.note({ site: null, text: gains ? 'means and deviations' : 'means alone: deviations did not improve the outputs', gain: { kept: gains, siteDb: null, outputsDb, bytes: 0, operations: 0 } });
    const { notes, made } = gains ? deviations : means;
    notes.forEach((one) => context.note(one));
    return made;
  },
});

/** What becomes of each output channel: y' = gain·y + shift; no gain is a gain of 1. */
interface Correction {
  readonly gain: Float64Array | null;
  readonly shift: Float64Array;
}

const correct = (graph: Graph<'quant'>, targets: ReadonlyMap<string, ChannelMoments>, spreads: boolean, count: number, context: PassContext): Graph<'quant'> => {
  const b = new Builder();
  const renewed = new Map<Value, Value>();
  const now = (value: Value): Value => renewed.get(value) ?? value;
  const frontier = openFrontier(graph, context.calibration!.samples, count);
  for (const input of graph.inputs) renewed.set(input, b.input(input.name, input.type));
  for (const [index, node] of graph.nodes.entries()) {
    context.progress('correct-bias', index, graph.nodes.length);
    const real = frontier.evaluate(node);
    const target = weightOf(node) && targets.get(node.output.name);
    const correction = target ? correctionOf(real, target, spreads && hasCodes(node)) : null;
    if (correction !== null) real.forEach((one) => applyCorrection(one, correction));
    frontier.settle(node, real);
    const constants = correction === null ? {} : {
      bias: b.constant(biasName(node), shiftedBias(node, correction.shift, correction.gain)),
      ...(correction.gain === null ? {} : { weight: b.constant(weightOf(node)!.name, scaledRows(constantOf(weightOf(node))!, correction.gain)) }),
    };
    renewed.set(node.output, b.copy(node, { ...mapOperands(node, now), ...constants }));
    if (correction !== null) noteCorrection(node, correction, context);
  }
  return b.finish('quant', graph.name, graph.outputs.map(({ name, value }) => ({ name, value: now(value) })));
};

/** What brings the moments of `real`, for each channel of the last axis, to the target; sums in float64, in sample order. */
const correctionOf = (real: readonly Tensor[], target: ChannelMoments, spreads: boolean): Correction => {
  const channels = target.mean.length;
  const perChannel = (real.length * real[0].data.length) / channels;
  const mean = new Float64Array(channels);
  for (const one of real) addRows(mean, reals(one));
  mean.forEach((sum, c) => { mean[c] = sum / perChannel; });
  if (!spreads) return { gain: null, shift: mean.map((found, c) => target.mean[c] - found) };
  const power = new Float64Array(channels);
  for (const one of real) addSquares(power, reals(one), mean);
  const gain = power.map((sum, c) => {
    const [found, wanted] = [Math.sqrt(sum / perChannel), Math.sqrt(Math.max(0, target.squares[c] - target.mean[c] ** 2))];
    const least = LEAST_SPREAD * Math.max(Math.abs(target.mean[c]), Math.abs(mean[c]), found, wanted);
    return found > least && wanted > least ? wanted / found : 1;
  });
  return { gain, shift: mean.map((found, c) => target.mean[c] - gain[c] * found) };
};

const addRows = (sums: Float64Array, data: Float32Array): void => {
  const channels = sums.length;
  for (let row = 0; row < data.length; row += channels) for (let c = 0; c < channels; c++) sums[c] += data[row + c];
};

/** Adds the squares of what lies off the mean of each channel. */
const addSquares = (sums: Float64Array, data: Float32Array, mean: Float64Array): void => {
  const channels = sums.length;
  for (let row = 0; row < data.length; row += channels) for (let c = 0; c < channels; c++) sums[c] += (data[row + c] - mean[c]) ** 2;
};

const applyCorrection = (one: Tensor, { gain, shift }: Correction): void => {
  if (gain !== null) {
    const data = reals(one);
    for (let at = 0; at < data.length; at++) data[at] *= gain[at % gain.length];
  }
  addPerChannel(one, shift);
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
/** gain·b + shift for each output channel, rounded once to float32; no gain is a gain of 1. */
export const shiftedBias = (node: Node, shift: Float64Array, gain: Float64Array | null = null): Tensor => {
  const old = constantOf(biasOf(node))?.data;
  return tensor(f32(shift.length), Float32Array.from(shift, (s, c) => s + (gain?.[c] ?? 1) * Number(old?.[c] ?? 0)));
};

/** Whether the weights are codes, whose scales a gain goes into. */
const hasCodes = (node: Node): boolean => (constantOf(weightOf(node))?.type.quant ?? null) !== null;
/** The codes with the scale of each row times its gain. */
const scaledRows = ({ type, data }: Tensor, gain: Float64Array): Tensor => {
  const quant = type.quant!;
  return { type: { ...type, quant: { ...quant, axis: 0, zero: 0, scale: Array.from(gain, (one, c) => Math.fround(scaleAt(quant, c) * one) || scaleAt(quant, c)) } }, data };
};

const noteCorrection = (node: Node, { gain, shift }: Correction, context: PassContext): void => {
  const channels = staticShape(node.output.type.shape).at(-1)!;
  const rms = Math.sqrt(shift.reduce((sum, s) => sum + s * s, 0) / channels);
  const most = shift.reduce((largest, s) => Math.max(largest, Math.abs(s)), 0);
  const spread = gain === null ? {} : { leastGain: gain.reduce((least, one) => Math.min(least, one), Infinity), mostGain: gain.reduce((largest, one) => Math.max(largest, one), 0) };
  context.note({ site: node.output.name, text: gain === null ? 'bias shifted' : 'bias shifted and rows scaled', figures: { rms, most, ...spread } });
};
