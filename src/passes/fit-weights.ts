/**
 * Rounds the weights of layers to integer codes so that each layer keeps the outputs of the float model on inputs that already carry all
 * rounding before it. In execution order, for each layer y = W·x + b with a symmetric step for each output channel:
 *
 *  1. regression: W moves to W' = W + R·(C + λ)⁻¹, which makes up for what the rounding of activations did to x (ERQ);
 *  2. rounding: for each of several steps, codes by nearest plane under δ·(C + λ)·δᵀ, which are those of GPTQ; the step of least loss wins;
 *  3. refinement: the step refitted to the codes and single codes flipped, as long as the same form falls;
 *  4. bias: the mean output of each channel becomes that of the float model.
 *
 * Differences that the ends of the codes hide, those of an absorbed ReLU above all, count for nothing (reconstruction/limits.ts).
 *
 * C is the covariance of the layer's inputs and R that of inputs and errors (reconstruction/layer-sums.ts), collected once for a layer. One
 * λ serves all steps, so each works on the same loss; it is chosen by what regression and rounding do to samples that they were not fitted to
 * (reconstruction/chosen-damping.ts), and where regression gains nothing there is none. Where a sum follows that adds the result to another value, the target is the sum of
 * the float model less that value as it is by now: the layer makes up for errors of the residual stream as well.
 *
 *     %w = const : f32[64, 576]; %y = linear(%x, %w, %b)  →  %w = const : i4<axis 0: …>[64, 576]; %y = linear(%x, %w, %b.fitted)
 *
 * Sources: Zhong et al. 2024, ERQ; Frantar et al. 2022, GPTQ; Nagel et al. 2019, Data-free quantization (bias).
 */
import { Builder } from '../ir/build.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { sizeOf } from '../ir/dim.ts';
import { errors } from '../ir/errors.ts';
import { constantOf, looseConstant, usersOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import { int, joinSites, oneOf, real } from '../ir/op.ts';
import { reals } from '../ir/ops/elements.ts';
import { printWeights, uniformWidth, widthsOf, type WeightFormat, type WeightWidth } from '../ir/ops/widths.ts';
import { mapOperands } from '../ir/rewrite.ts';
import type { Tensor } from '../ir/type.ts';
import type { RoundedRow } from '../numerics/quadratic-form.ts';
import { createRandom } from '../numerics/random.ts';
import { refineRow } from '../numerics/refine-row.ts';
import { Follower, frontierBytes, openFrontier, type Frontier } from '../calibration/frontier.ts';
import { decibels } from '../calibration/metrics.ts';
import { addPerChannel, biasName, shiftedBias } from './correct-bias.ts';
import { keepOption, keptWidths } from './kept-layers.ts';
import { definePass, type PassContext } from './pass.ts';
import { formatOption, quantizeRows, weightOf } from './quantize-weights.ts';
import { weightGrid, weightTensor, type WeightGrid } from './weight-grids.ts';
import { affordable } from './output-meter.ts';
import { chosenDamping, type Rounding } from './reconstruction/chosen-damping.ts';
import { layerRows, readTheSame, rowProducts, type LayerRows } from './reconstruction/layer-rows.ts';
import { layerSums, variancesOf, type LayerSums } from './reconstruction/layer-sums.ts';
import { addMissing, limitsOf, missingInto, plusMissing, unlimited, type Limits } from './reconstruction/limits.ts';

export interface FitWeightsOptions {
  readonly bits: number;
  readonly keep: readonly string[];
  readonly damping: number;
  readonly regression: 'on' | 'off';
  readonly rounding: 'nearest' | 'plane' | 'refined';
  readonly target: 'layer' | 'sum';
  readonly limits: 'on' | 'off';
  readonly format: WeightFormat;
  readonly steps: number;
  readonly samples: number;
}

/** Samples that are used where no number is asked for, as many as time allows. */
const [FEWEST_SAMPLES, MOST_SAMPLES] = [128, 256];
/** Most bytes of values held at once; fewer samples are used where a network is larger. */
const HELD_BYTES = 2 ** 29;
/** Rows that the sums of one layer are taken over, for each number of a row, and between which that lies. */
const ROWS_PER_NUMBER = 32;
const [FEWEST_ROWS, MOST_ROWS] = [2 ** 14, 2 ** 15];
/** Products that the sums of one group may take. */
const SUM_BUDGET = 2e9;
/** Rows for each number of a row below which the damping grows in proportion. */
const FEW_ROWS_PER_NUMBER = 8;
/** Steps of a bias where results are limited: each moves it by the mean of what is missing, which falls with it. */
const BIAS_STEPS = 4;
/** Steps that are tried for a row while the damping is chosen. */
const JUDGED_STEPS = 8;
/** Halves of the samples, each judged by what is fitted to the other. */
const PARTS = 2;
/** Deeper layers are rounded to the nearest code: a factorisation takes the cube of this. */
export const deepestPlanes = 2560;

export const fitWeights = definePass<'quant', 'quant', FitWeightsOptions>({
  name: 'fit-weights',
  from: 'quant',
  to: 'quant',
  summary: 'round weights so that each layer keeps the outputs of the float model on inputs already rounded',
  paper: 'Zhong et al. 2024, ERQ: Error Reduction for Post-Training Quantization of Vision Transformers',
  changes: 'weights, steps and biases, towards the outputs of the float model on the calibration samples',
  options: {
    bits: int('width of the weights, 2 to 8', 4),
    keep: keepOption,
    damping: real('λ as a share of the mean variance of an input, more where samples are few; 0: for each layer the share with the least loss on samples that it was not fitted to', 0),
    regression: oneOf('whether weights move before they are rounded', ['on', 'off'], 'on'),
    rounding: oneOf('nearest: each weight alone; plane: one after the other under the second moments of the inputs; refined: with flips and refitted steps', ['nearest', 'plane', 'refined'], 'refined'),
    target: oneOf('what a layer is fitted to: its own output in the float model, or the sum that it goes into', ['layer', 'sum'], 'sum'),
    limits: oneOf('whether differences that saturation of the result hides are left out of account', ['on', 'off'], 'on'),
    format: formatOption,
    steps: int('steps that are tried for each output channel', 16),
    samples: int('most calibration samples that are used; 0: 128, and up to 256 where the network is small', 0),
  },
  async run(graph, options, context) {
    const layers = graph.nodes.filter((node) => constantOf(weightOf(node))?.type.dtype === 'f32');
    if (layers.length === 0) return graph;
    const { calibration, reference } = context;
    if (calibration === null) throw new CompileError(errors.needsData('fit-weights'), 'usage');
    if (reference === null) throw new CompileError(errors.needsReference('fit-weights'), 'usage');
    const bytes = frontierBytes(graph) + 2 * frontierBytes(reference);
    const most = options.samples > 0 ? options.samples : affordable(reference, FEWEST_SAMPLES, MOST_SAMPLES);
    const count = Math.max(1, Math.min(most, calibration.samples.count, Math.floor(HELD_BYTES / bytes)));
    return new Fitting(graph, reference, count, options, context).run();
  },
});

/** Codes, steps and bias of a layer. */
interface Fitted {
  readonly weight: Tensor;
  readonly bias: Tensor;
}

class Fitting {
  private readonly graph: Graph<'quant'>;
  private readonly options: FitWeightsOptions;
  private readonly context: PassContext;
  private readonly model: Follower;
  private readonly quant: Frontier;
  private readonly kept: (node: Node) => number | null;
  private readonly sums: ReadonlyMap<Node, Node>;
  /** rounded weights, for a layer that shares them with one before it */
  private readonly rounded = new Map<Value, { readonly width: string; readonly codes: Tensor }>();
  /** moments of what a layer reads, while a later one reads the same: queries, keys and values do */
  private read: { readonly node: Node; readonly sums: readonly LayerSums[] } | null = null;

  constructor(graph: Graph<'quant'>, reference: Graph<'float'>, count: number, options: FitWeightsOptions, context: PassContext) {
    this.graph = graph;
    this.options = options;
    this.context = context;
    this.kept = keptWidths(options.keep, graph);
    this.sums = options.target === 'sum' ? sumsAfter(graph) : new Map();
    const { samples } = context.calibration!;
    const targets = graph.nodes.filter((node) => weightOf(node)).map((node) => (this.sums.get(node) ?? node).output.name);
    this.model = new Follower(reference, openFrontier(reference, samples, count), new Set(targets));
    this.quant = openFrontier(graph, samples, count);
  }

  run(): Graph<'quant'> {
    const b = new Builder();
    const renewed = new Map<Value, Value>();
    const now = (value: Value): Value => renewed.get(value) ?? value;
    const constants = new Map<Tensor, Value>();
    const constant = (name: string, made: Tensor): Value => {
      const known = constants.get(made) ?? b.constant(name, made);
      constants.set(made, known);
      return known;
    };
    for (const input of this.graph.inputs) renewed.set(input, b.input(input.name, input.type));
    for (const [index, node] of this.graph.nodes.entries()) {
      this.context.progress('fit-weights', index, this.graph.nodes.length);
      const fitted = this.fit(node);
      if (fitted === null) {
        this.quant.settle(node, this.quant.evaluate(node));
        renewed.set(node.output, b.copy(node, mapOperands(node, now)));
        continue;
      }
      const made = { weight: constant(weightOf(node)!.name, fitted.weight), bias: constant(biasName(node), fitted.bias) };
      const site = joinSites(node.site, { origins: [], passes: ['fit-weights'] });
      renewed.set(node.output, b.copy({ ...node, site }, { ...mapOperands(node, now), ...made }));
    }
    return b.finish('quant', this.graph.name, this.graph.outputs.map(({ name, value }) => ({ name, value: now(value) })));
  }

  /** Rounds a layer and settles its outputs; null for nodes that are no layer with real weights. */
  private fit(node: Node): Fitted | null {
    const value = weightOf(node);
    const weight = constantOf(value);
    if (value === null || weight === null || weight.type.dtype !== 'f32') return null;
    const target = this.targetOf(node);
    // weights that layers share are rounded once, unless their widths differ
    const [earlier, width] = [this.rounded.get(value), printWeights(this.widthOf(node))];
    const codes = earlier?.width === width ? earlier.codes : this.round(node, weight, target);
    this.rounded.set(value, { width, codes });
    const results = this.quant.evaluate({ ...node, inputs: { ...node.inputs, weight: looseConstant(value.name, codes) } });
    const [shift, bounds] = [new Float64Array(codes.type.shape[0] as number), this.boundsOf(node)];
    for (let k = 0; k < (bounds.limits === unlimited ? 1 : BIAS_STEPS); k++) {
      const step = meanMissing(target, results, shift.length, bounds);
      results.forEach((one) => addPerChannel(one, step));
      step.forEach((one, c) => { shift[c] += one; });
    }
    this.quant.settle(node, results);
    this.note(node, target, results, shift, bounds);
    return { weight: codes, bias: shiftedBias(node, shift) };
  }

  /** What the layer should give: its output in the float model, or what is missing to the sum that it goes into. */
  private targetOf(node: Node): readonly Tensor[] {
    const sum = this.sums.get(node);
    const { name } = (sum ?? node).output;
    const results = this.model.resultsOf(name);
    this.model.release(name);
    if (sum === undefined) return results;
    const other = otherOperand(sum, node.output);
    return results.map((one, i) => difference(one, this.quant.realsOf(other, i)));
  }

  /** What limits the result of a layer, or the sum that it goes into. */
  private boundsOf(node: Node): Bounds {
    const sum = this.sums.get(node);
    const { quant } = (sum ?? node).output.type;
    if (this.options.limits === 'off' || quant === null) return { limits: unlimited, besideOf: () => null };
    return { limits: limitsOf(quant), besideOf: (i) => (sum === undefined ? null : reals(this.quant.realsOf(otherOperand(sum, node.output), i))) };
  }

  private widthOf(node: Node): WeightWidth {
    const kept = this.kept(node);
    return kept !== null ? uniformWidth(kept) : widthsOf(node)?.weights ?? this.options;
  }

  private round(node: Node, weight: Tensor, target: readonly Tensor[]): Tensor {
    const width = this.widthOf(node);
    const rows = layerRows(node);
    if (rows.depth > deepestPlanes || this.options.rounding === 'nearest') return quantizeRows(weight, width);
    const codes = new Int8Array(weight.data.length);
    const scales: number[] = [];
    const given = this.collect(node, rows, target).map((sums, group) => {
      const first = group * rows.outputs * rows.depth;
      return { sums, first, real: Float64Array.from((weight.data as Float32Array).subarray(first, first + rows.outputs * rows.depth)) };
    });
    const gridOf = (groups: readonly { readonly sums: LayerSums; readonly real: Float64Array }[]): WeightGrid => weightGrid(width, () => groups.flatMap(({ sums, real }) => {
      const importances = variancesOf(sums.covariance(), rows.depth);
      return rowsOf(real, rows.depth).map((row) => ({ row, importances }));
    }));
    const before = gridOf(given);
    const rounded: Rounding = (form, row) => {
      const { codes, step } = form.roundRow(row, before.steps(row, JUDGED_STEPS), before.levels);
      return Float64Array.from(codes, (code) => code * step);
    };
    const scale = dampingShare(1, rows.depth, given[0].sums.rows);
    const damping = this.options.damping > 0 ? { share: this.options.damping * scale, regression: true } : chosenDamping(given, rows.depth, scale, rounded);
    const groups = given.map(({ sums, first, real }) => {
      const form = sums.form(damping.share);
      if (this.options.regression === 'on' && damping.regression) form.solve(sums.cross()).forEach((step, i) => { real[i] += step; });
      return { sums, form, first, real, covariance: sums.covariance() };
    });
    const grid = gridOf(groups);
    for (const { covariance, form, first, real } of groups) {
      for (const [o, w] of rowsOf(real, rows.depth).entries()) {
        const plane = form.roundRow(w, grid.steps(w, this.options.steps), grid.levels);
        const row: RoundedRow = this.options.rounding === 'refined' ? refineRow(covariance, form.damping, w, plane, grid.levels) : plane;
        codes.set(row.codes, first + o * rows.depth);
        scales.push(row.step);
      }
    }
    return weightTensor(grid, weight.type.shape, scales, codes);
  }

  /** Moments of each group over some positions of each sample: drawn anew for each, one from each of equal parts of the output. */
  private collect(node: Node, rows: LayerRows, target: readonly Tensor[]): readonly LayerSums[] {
    const { depth, outputs, groups, positions } = rows;
    const wanted = Math.min(MOST_ROWS, Math.max(FEWEST_ROWS, ROWS_PER_NUMBER * depth), Math.max(FEW_ROWS_PER_NUMBER * depth, Math.floor(SUM_BUDGET / depth ** 2)));
    const count = Math.min(positions, Math.ceil(wanted / this.quant.count));
    const known = this.read !== null && readTheSame(this.read.node, node) ? this.read.sums : null;
    const sums = known?.map((one) => one.beside(outputs)) ?? Array.from({ length: groups }, () => layerSums(depth, outputs, PARTS));
    this.read = this.readLater(node) ? { node, sums } : null;
    const productsOf = groups === 1 ? rowProducts(node, rows, count) : null;
    const whole = productsOf === null ? this.quant.evaluate(node) : null;
    const { limits, besideOf } = this.boundsOf(node);
    const x = new Float32Array(count * depth);
    const r = new Float32Array(count * outputs);
    for (let i = 0; i < this.quant.count; i++) {
      const random = createRandom(this.context.seed, i);
      const chosen = Int32Array.from({ length: count }, (_, k) => Math.floor(((k + (count === positions ? 0 : random.uniform())) * positions) / count));
      const inputs = this.quant.realsOf((node.inputs as { x: Value }).x, i).data as Float32Array;
      const [wantedHere, beside] = [reals(target[i]), besideOf(i)];
      for (let group = 0; group < groups; group++) {
        rows.gather(inputs, group, chosen, x);
        const found = productsOf === null ? reals(whole![i]) : productsOf(x);
        for (let k = 0, at = 0; k < count; k++, at += outputs) {
          const from = (chosen[k] * groups + group) * outputs;
          missingInto(r, at, wantedHere, from, found, productsOf === null ? from : at, outputs, limits, beside);
        }
        sums[group].add(x, r, i % PARTS);
      }
    }
    return sums;
  }

  /** Whether a layer that is still to be rounded multiplies what this one does. */
  private readLater(node: Node): boolean {
    const at = this.graph.nodes.indexOf(node);
    return this.graph.nodes.some((other, i) => i > at && constantOf(weightOf(other))?.type.dtype === 'f32' && readTheSame(node, other));
  }

  private note(node: Node, target: readonly Tensor[], results: readonly Tensor[], shift: Float64Array, bounds: Bounds): void {
    let [signal, noise] = [0, 0];
    for (const [i, one] of target.entries()) {
      signal = plusSquares(signal, reals(one));
      noise = plusMissing(noise, reals(one), reals(results[i]), bounds.limits, bounds.besideOf(i));
    }
    const rms = Math.sqrt(shift.reduce((sum, s) => sum + s * s, 0) / shift.length);
    this.context.note({ site: node.output.name, text: `rounded to ${describeWidth(this.widthOf(node))}`, figures: { sqnrDb: decibels(signal, noise), biasShift: rms } });
  }
}

const otherOperand = ({ inputs }: Node, own: Value): Value => (inputs['x'] === own ? inputs['y'] : inputs['x']) as Value;

/** Layers whose real result goes into an addition alone, to a value of the same shape that is known before; and that addition. */
const sumsAfter = (graph: Graph<'quant'>): ReadonlyMap<Node, Node> => {
  const users = usersOf(graph);
  const position = new Map(graph.nodes.map(({ output }, i) => [output, i]));
  return new Map(graph.nodes.flatMap((node, i): readonly (readonly [Node, Node])[] => {
    const [user, ...others] = users.get(node.output) ?? [];
    if (weightOf(node) === null || node.output.type.quant !== null || user?.op !== 'add' || others.length > 0) return [];
    const other = otherOperand(user, node.output);
    const alike = [other, user.output].every(({ type }) => sizeOf(type.shape) === sizeOf(node.output.type.shape));
    return alike && other !== node.output && (position.get(other) ?? -1) < i ? [[node, user]] : [];
  }));
};

/** Views of the rows of a matrix. */
const rowsOf = (matrix: Float64Array, width: number): readonly Float64Array[] =>
  Array.from({ length: matrix.length / width }, (_, i) => matrix.subarray(i * width, (i + 1) * width));

/** λ as a share of the mean variance: `damping`, more where there are few rows for the numbers of a row. */
export const dampingShare = (damping: number, depth: number, rows: number): number => damping * Math.max(1, (FEW_ROWS_PER_NUMBER * depth) / rows);

const describeWidth = ({ bits, format }: WeightWidth): string => (format === 'codebook' ? `a codebook of ${bits} bits` : `${bits} bits`);

const difference = (a: Tensor, b: Tensor): Tensor => {
  const [left, right] = [reals(a), reals(b)];
  const data = new Float32Array(left.length);
  for (let i = 0; i < data.length; i++) data[i] = left[i] - right[i];
  return { type: a.type, data };
};

/** total + Σ x², added one after the other. */
const plusSquares = (total: number, data: Float32Array): number => {
  let sum = total;
  for (let i = 0; i < data.length; i++) sum += data[i] * data[i];
  return sum;
};

/** Limits of results, and what is added to those of sample i before. */
interface Bounds {
  readonly limits: Limits;
  besideOf(i: number): Float32Array | null;
}

/** E[missing] for each channel of the last axis. */
const meanMissing = (target: readonly Tensor[], found: readonly Tensor[], channels: number, { limits, besideOf }: Bounds): Float64Array => {
  const sums = new Float64Array(channels);
  target.forEach((one, i) => addMissing(sums, reals(one), reals(found[i]), limits, besideOf(i)));
  const rows = target.reduce((all, { data }) => all + data.length / channels, 0);
  return sums.map((sum) => sum / rows);
};
