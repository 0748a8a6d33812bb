/**
 * The exact loss of a change at a site: the layers that read it, and the attention that they feed, run on recorded activations with the
 * site's values and the weights rounded, and their results compared with those of the float graph. Constant errors do not count, as
 * bias correction removes them.
 */
import { Builder } from '../../ir/build.ts';
import { sizeOf } from '../../ir/dim.ts';
import { constantOf, isConstant, operandsOf, type Graph, type Node, type Value } from '../../ir/graph.ts';
import { uniformWidth } from '../../ir/ops/widths.ts';
import { tensor, tensorType, type TensorType } from '../../ir/type.ts';
import { createExecutor } from '../../calibration/executor.ts';
import { addToHistogram, emptyHistogram } from '../../calibration/histogram.ts';
import { decibels } from '../../calibration/metrics.ts';
import { mseRange, type Range } from '../../calibration/range.ts';
import type { Sample, Samples } from '../../calibration/samples.ts';
import { narrowType } from '../activation-types.ts';
import { quantizeRows } from '../quantize-weights.ts';
import { changed, identity, scaleAt, shiftAt, type Change } from './change.ts';
import { channelsOf, ruleOf } from './channel-rules.ts';
import { gainOf, type ChangeOf, type Facts } from './site-loss.ts';
import { affordable, spreadSamples } from '../output-meter.ts';

/** Below this width quantize-activations clips ranges by their mean squared error. */
const CLIPPED_BELOW = 8;

/** Most bytes of recorded values held at once. */
const RECORDING_BYTES = 2 ** 28;
/** Fewest and most samples that are recorded. */
const [FEWEST, MOST] = [3, 8];

/** Nodes whose results tell what a site's rounding costs, with the values they read. */
export interface ProbeSite {
  readonly values: ReadonlySet<Value>;
  readonly nodes: readonly Node[];
}

/** The products that read the values, and each attention all of whose operands are such values or made by such products. */
export const probeSite = (values: readonly Value[], { graph, users }: Facts): ProbeSite => {
  const inside = new Set(values);
  const layers = new Set(values.flatMap((value) => (users.get(value) ?? []).filter((node) => isLayer(node) && node.inputs['x'] === value)));
  const made = new Set([...layers].map(({ output }) => output));
  const reached = (node: Node): boolean => ['q', 'k', 'v'].every((slot) => made.has(node.inputs[slot] as Value))
    || ['q', 'k', 'v'].some((slot) => inside.has(node.inputs[slot] as Value));
  return { values: inside, nodes: graph.nodes.filter((node) => layers.has(node) || (node.op === 'attention' && reached(node))) };
};
const isLayer = (node: Node): boolean => (node.op === 'linear' || node.op === 'conv') && constantOf(node.inputs['weight'] as Value) !== null;

const inputsOf = ({ nodes }: ProbeSite): readonly Value[] => {
  const made = new Set(nodes.map(({ output }) => output));
  return [...new Set(nodes.flatMap(operandsOf))].filter((value) => !isConstant(value) && !made.has(value));
};
const resultsOf = ({ nodes }: ProbeSite): readonly Value[] => {
  const read = new Set(nodes.flatMap(operandsOf));
  return nodes.map(({ output }) => output).filter((value) => !read.has(value));
};

/** Values of a graph on some samples, by name. */
export type Recording = ReadonlyMap<string, readonly Float32Array[]>;

/** Runs the graph and keeps what probes of these sites need. */
export const record = (graph: Graph<'float'>, sites: readonly ProbeSite[], samples: readonly Sample[]): Recording => {
  const wanted = new Map(sites.flatMap((site) => [...inputsOf(site), ...resultsOf(site)]).map(({ name }) => [name, [] as Float32Array[]]));
  const executor = createExecutor(graph);
  for (const sample of samples) executor.run(sample, ({ name }, { data }) => wanted.get(name)?.push((data as Float32Array).slice()));
  return wanted;
};
/** Samples for a recording: from the first half of the set, as many as time and memory allow. */
export const recordedSamples = (graph: Graph<'float'>, sites: readonly ProbeSite[], samples: Samples): readonly Sample[] => {
  const values = new Set(sites.flatMap((site) => [...inputsOf(site), ...resultsOf(site)]));
  const bytes = [...values].reduce((sum, { type }) => sum + sizeOf(type.shape) * Float32Array.BYTES_PER_ELEMENT, 0);
  return spreadSamples(samples, 0, 0.5, Math.max(1, Math.min(affordable(graph, FEWEST, MOST), Math.floor(RECORDING_BYTES / bytes))));
};

/** Signal to noise, in dB, of the results of a site under a change of its values. */
export const probedSqnr = (site: ProbeSite, change: ChangeOf, recording: Recording, facts: Facts): number => {
  const graph = probeGraph(site, change, recording, facts);
  const executor = createExecutor(graph);
  const results = resultsOf(site);
  const inputs = inputsOf(site);
  const meters = results.map((value) => new NoiseMeter(gainOf(value, facts), change(value)));
  const count = recording.get(results[0].name)!.length;
  for (let i = 0; i < count; i++) {
    const sample = Object.fromEntries(inputs.map((value) => {
      const data = recording.get(value.name)![i];
      return [value.name, tensor(tensorType('f32', value.type.shape), site.values.has(value) ? changed(data, channelsOf(value), change(value)) : data)];
    }));
    const found = executor.run(sample);
    results.forEach(({ name }, r) => meters[r].add(found[name].data as Float32Array, recording.get(name)![i]));
  }
  return decibels(meters.reduce((sum, meter) => sum + meter.signal(), 0), meters.reduce((sum, meter) => sum + meter.noise(), 0));
};

/** The nodes of a site on rounded operands and weights. */
const probeGraph = (site: ProbeSite, change: ChangeOf, recording: Recording, facts: Facts): Graph<'quant'> => {
  const b = new Builder();
  const renewed = new Map<Value, Value>();
  const now = (value: Value): Value => renewed.get(value) ?? value;
  const { widths } = facts;
  const attended = new Set(site.nodes.filter(({ op }) => op === 'attention').flatMap(operandsOf));
  const typeOf = (value: Value): TensorType => {
    const symmetric = attended.has(value);
    const { quant, dtype } = narrowType(rangeOf(value, change(value), symmetric, recording, facts), symmetric ? widths.attention : widths.activations, symmetric);
    return tensorType(dtype, value.type.shape, quant);
  };
  for (const value of inputsOf(site)) renewed.set(value, b.input(value.name, site.values.has(value) ? typeOf(value) : value.type));
  // results of the site's own nodes keep their channels unless they are values of the site
  const inner: ChangeOf = (value) => (site.values.has(value) ? change(value) : identity);
  for (const node of site.nodes) {
    const folded = ruleOf(node).fold(node, {
      change: inner,
      constant: (stem, type, data) => b.constant(stem, tensor(type, data)),
      shared: (old, _, make) => b.constant(old.name, tensor(old.type, make())),
    });
    if (folded === null) throw new RangeError(`${node.op} "${node.output.name}" cannot take the change of its channels`);
    const operands: Record<string, Value | null | readonly Value[]> = { ...node.inputs, ...folded };
    for (const [slot, operand] of Object.entries(operands)) if (operand !== null && !Array.isArray(operand)) operands[slot] = now(operand as Value);
    const weight = constantOf(operands['weight'] as Value | null ?? null);
    if (weight !== null) operands['weight'] = b.constant(`${node.output.name}.codes`, quantizeRows(weight, uniformWidth(widths.weights)));
    renewed.set(node.output, b.copy(node, operands, site.values.has(node.output) ? typeOf(node.output) : node.output.type));
  }
  return b.finish('quant', 'probe', resultsOf(site).map((value) => ({ name: value.name, value: now(value) })));
};

/** The range of a changed value, taken as quantize-activations takes it. */
const rangeOf = (value: Value, change: Change, symmetric: boolean, recording: Recording, { moments, widths }: Facts): Range => {
  const { low, high } = moments.get(value.name)!;
  let [least, greatest] = [0, 0];
  low.forEach((l, c) => {
    least = Math.min(least, (l - shiftAt(change, c)) / scaleAt(change, c));
    greatest = Math.max(greatest, (high[c] - shiftAt(change, c)) / scaleAt(change, c));
  });
  const bits = symmetric ? widths.attention : widths.activations;
  const seen = recording.get(value.name);
  if (bits >= CLIPPED_BELOW || seen === undefined) return { low: least, high: greatest };
  let histogram = emptyHistogram();
  for (const data of seen) {
    const moved = changed(data, low.length, change);
    histogram = addToHistogram(histogram, moved, moved.reduce((a, x) => Math.min(a, x), Infinity), moved.reduce((a, x) => Math.max(a, x), -Infinity));
  }
  return mseRange({ low: least, high: greatest, histogram }, bits, symmetric ? 'symmetric' : 'affine');
};

/** Σ over channels of ω·variance, of a reference and of the error against it. */
class NoiseMeter {
  private readonly gain: Float64Array;
  private readonly change: Change;
  private readonly sums: readonly Float64Array[];
  private rows = 0;

  constructor(gain: Float64Array, change: Change) {
    this.gain = gain;
    this.change = change;
    this.sums = Array.from({ length: 4 }, () => new Float64Array(gain.length));
  }
  add(found: Float32Array, reference: Float32Array): void {
    const [y, yy, e, ee] = this.sums;
    const channels = this.gain.length;
    for (let at = 0; at < found.length; at += channels) for (let c = 0; c < channels; c++) {
      const expected = reference[at + c];
      const error = found[at + c] * scaleAt(this.change, c) + shiftAt(this.change, c) - expected;
      y[c] += expected;
      yy[c] += expected * expected;
      e[c] += error;
      ee[c] += error * error;
    }
    this.rows += found.length / channels;
  }
  private spread(sum: Float64Array, squares: Float64Array): number {
    return this.gain.reduce((total, g, c) => total + g * Math.max(0, squares[c] - (sum[c] * sum[c]) / this.rows), 0);
  }
  signal(): number { return this.spread(this.sums[0], this.sums[1]); }
  noise(): number { return this.spread(this.sums[2], this.sums[3]); }
}
