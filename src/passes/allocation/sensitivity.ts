/**
 * Sensitivity: what a layer's widths cost in accuracy, as a table that the programme adds up. Interchangeable measures fill such tables;
 * a measure may give several, which are then solved one by one and judged on the network that comes out.
 */
import { staticShape } from '../../ir/dim.ts';
import { constantOf, type Graph, type Value } from '../../ir/graph.ts';
import { isAtLeast, printWidths, uniformWidth, type ChosenWidths, type WeightWidth } from '../../ir/ops/widths.ts';
import { createExecutor, dequantized } from '../../calibration/executor.ts';
import type { Tensor } from '../../ir/type.ts';
import type { PassContext } from '../pass.ts';
import { layerRows } from '../reconstruction/layer-rows.ts';
import type { Judge, Judgement } from './judge.ts';
import type { Layer } from './layers.ts';
import { openTails } from './tails.ts';
import type { Variants, Widths } from './variants.ts';

/** Loss of a layer at widths; layers by position. Larger is worse; comparable between layers of one table. */
export interface LossTable {
  readonly name: string;
  readonly loss: (layer: number, widths: ChosenWidths) => number;
}

/** What measures can look at. */
export interface Probe {
  readonly graph: Graph<'float'>;
  readonly layers: readonly Layer[];
  /** the widths that each layer may have */
  readonly choices: readonly (readonly ChosenWidths[])[];
  readonly variants: Variants;
  readonly judge: Judge;
  readonly context: PassContext;
  /** remembers what was measured, by a key that names it */
  remember<T>(key: string, measure: () => Promise<T>): Promise<T>;
  progress(done: number, total: number): void;
}

export interface Measure {
  readonly name: string;
  readonly summary: string;
  tables(probe: Probe): Promise<readonly LossTable[]>;
}

export const byKey = (losses: readonly ReadonlyMap<string, number>[]): LossTable['loss'] =>
  (layer, widths) => losses[layer].get(printWidths(widths)) ?? Infinity;

/** Base of the measurements that change one layer at a time. */
export const baseWidths: ChosenWidths & { readonly weights: WeightWidth } = { weights: uniformWidth(8), activations: 8 };

/** A layer at fewer bits loses no less: what measurements say otherwise is their noise. */
export const monotone = (choices: readonly ChosenWidths[], losses: ReadonlyMap<string, number>): ReadonlyMap<string, number> => {
  const atLeast = (a: ChosenWidths, b: ChosenWidths): boolean => isAtLeast(a.weights, b.weights) && a.activations >= b.activations;
  return new Map(choices.map((own) => [printWidths(own), Math.max(...choices.filter((other) => atLeast(other, own)).map((other) => losses.get(printWidths(other)) ?? 0))]));
};

// ---- measured: one layer at a time

export interface OneAtATime {
  readonly base: Judgement;
  /** of each layer, by widths */
  readonly layers: readonly ReadonlyMap<string, Judgement>[];
}

/** Judgements of the network in which one layer has other widths than the rest. */
export const oneAtATime = async ({ layers, choices, variants, judge, remember, progress }: Probe): Promise<OneAtATime> => {
  const total = choices.reduce((sum, list) => sum + list.length, 0);
  let done = 0;
  const baseGraph = await variants.uniform(baseWidths);
  const base = await remember('base', () => judge.of(baseGraph));
  const tails = openTails(baseGraph, judge, layers.map(({ name }) => name));
  const found: Map<string, Judgement>[] = [];
  for (const [i, layer] of layers.entries()) {
    const own = new Map<string, Judgement>();
    for (const widths of choices[i]) {
      const key = printWidths(widths);
      progress(done++, total);
      if (stoodFor(widths, choices[i])) continue;
      const same = (widths.weights?.bits ?? 8) === 8 && widths.activations === 8;
      own.set(key, same ? base : await remember(`${layer.name} ${key}`, async () => (widths.activations === baseWidths.activations
        ? tails.of(await variants.withWeight(baseGraph, layer, widths.weights!), layer.name) : judge.of(await variants.composed(changed(layer, widths, layers))))));
    }
    found.push(own);
  }
  return { base, layers: found };
};

/** The base with other widths in one layer. */
const changed = (layer: Layer, widths: ChosenWidths, layers: readonly Layer[]): Widths =>
  new Map(layers.map(({ name, parameters }) => [name, name === layer.name ? widths : parameters > 0 ? baseWidths : { weights: null, activations: baseWidths.activations }]));

const withUniform = ({ weights, activations }: ChosenWidths): ChosenWidths => ({ weights: uniformWidth(weights!.bits), activations });
/** Whether uniform codes of the same bits are measured in place of a codebook: the two differ by less than a measurement can tell. */
export const stoodFor = (widths: ChosenWidths, choices: readonly ChosenWidths[]): boolean =>
  widths.weights?.format === 'codebook' && choices.some((other) => printWidths(other) === printWidths(withUniform(widths)));

/** Increases over the base, at least this share of it: a measurement cannot tell less from none. */
const LEAST_SHARE = 1e-4;
/** Share of what a layer should lose that it is taken to lose where less was measured. */
const EXPECTED_SHARE = 0.5;
/** Weight of what a layer should lose beside what was measured: where measurements are alike, as noise makes them, what limits leave over is spent on finer codes. */
const EXPECTED_WEIGHT = 0.1;
/**
 * What each choice adds to the base; a codebook what uniform codes of its bits do, times by how much its own rounding loses less or more. The
 * fewest bits stand out most from the noise of measuring: by the share that rounding itself loses at other widths, they tell what those
 * should lose, L(least)·own(w)/own(least), which counts with the weight `trust` beside what was measured there.
 */
export const increases = (
  { base, layers: judgements }: OneAtATime, { layers, choices, variants }: Probe, of: (judgement: Judgement) => number, trust = EXPECTED_WEIGHT,
): readonly ReadonlyMap<string, number>[] => {
  const floor = LEAST_SHARE * Math.max(of(base), 1e-12);
  return judgements.map((own, i) => {
    const found = new Map([...own].map(([key, one]) => [key, one === base ? 0 : Math.max(floor, of(one) - of(base))]));
    const shareOf = (widths: ChosenWidths, other: ChosenWidths): number => variants.ownLoss(layers[i], widths.weights!) / Math.max(variants.ownLoss(layers[i], other.weights!), Number.MIN_VALUE);
    for (const widths of choices[i].filter((one) => stoodFor(one, choices[i]))) {
      const uniform = withUniform(widths);
      found.set(printWidths(widths), Math.max(floor, found.get(printWidths(uniform))! * Math.min(shareOf(widths, uniform), 4)));
    }
    const weighted = choices[i].filter(({ weights, activations }) => weights !== null && activations === baseWidths.activations);
    const least = weighted.reduce<ChosenWidths | null>((fewest, one) => (fewest === null || one.weights!.bits < fewest.weights!.bits ? one : fewest), null);
    const expected = new Map(weighted.filter(({ weights }) => weights!.bits < baseWidths.weights.bits).map((widths) => [printWidths(widths), found.get(printWidths(least!))! * Math.min(1, shareOf(widths, least!))]));
    const raised = new Map([...found].map(([key, loss]) => [key, Math.max(loss, EXPECTED_SHARE * (expected.get(key) ?? 0))]));
    const ordered = monotone(choices[i], raised);
    return monotone(choices[i], new Map([...ordered].map(([key, loss]) => [key, loss + trust * ((expected.get(key) ?? loss) - loss)])));
  });
};

export const measured: Measure = {
  name: 'measured',
  summary: 'what the outputs lose when one layer at a time gets other widths in the 8-bit network (CalibTIP, Hubara et al. 2021), and what rounding foretells from the fewest bits',
  async tables(probe) {
    const found = await oneAtATime(probe);
    const tablesOf = (quality: string, of: (judgement: Judgement) => number): readonly LossTable[] => [
      { name: `measured ${quality}`, loss: byKey(increases(found, probe, of)) }, { name: `foretold ${quality}`, loss: byKey(increases(found, probe, of, 1)) },
    ];
    return [...(probe.judge.classes === null ? [] : tablesOf('kl', (one) => one.kl!)), ...tablesOf('noise', (one) => one.noise)];
  },
};

// ---- rows of what layers read

/** Rows that a layer's second moments are taken from. */
const ROWS = 192;

/** Evenly spread rows [rows, depth] that each group of the layer's weights is multiplied with, over some samples. */
export interface ReadRows {
  readonly rows: number;
  /** [group][row · depth] */
  readonly groups: readonly Float32Array[];
  /** mean of y² over these rows and all outputs */
  readonly power: number;
}

/** Rows of every layer, in one run over a few samples. */
export const rowsOfLayers = ({ graph, layers, context, judge }: Probe): readonly (ReadRows | null)[] => {
  const samples = Math.min(judge.count, 8);
  const per = Math.ceil(ROWS / samples);
  const executor = createExecutor(graph);
  const parts = layers.map(() => [] as Float32Array[][]);
  const readBy = new Map<Value, number[]>();
  layers.forEach(({ node, parameters }, i) => { if (parameters > 0) readBy.set(node.inputs['x'] as Value, [...(readBy.get(node.inputs['x'] as Value) ?? []), i]); });
  for (let s = 0; s < samples; s++) {
    executor.run(context.calibration!.samples.get(s), (value, { data }) => {
      for (const i of readBy.get(value) ?? []) parts[i].push(rowsIn(layers[i], data as Float32Array, per, s));
    });
  }
  return layers.map((layer, i) => (layer.parameters === 0 ? null : joined(layer, parts[i])));
};

const rowsIn = ({ node }: Layer, data: Float32Array, per: number, seed: number): Float32Array[] => {
  const { groups, depth, positions, gather } = layerRows(node);
  const taken = Math.min(per, positions);
  // a step that has no factor in common with most widths spreads the windows of each sample over the image
  const offset = node.op === 'conv' ? 7 * seed : 0;
  const chosen = Int32Array.from({ length: taken }, (_, r) => (Math.floor((r * positions) / taken) + offset) % positions);
  return Array.from({ length: groups }, (_, group) => {
    const rows = new Float32Array(taken * depth);
    gather(data, group, chosen, rows);
    return rows;
  });
};

const joined = (layer: Layer, samples: readonly (readonly Float32Array[])[]): ReadRows => {
  const groups = samples[0].map((_, g) => {
    const list = samples.map((one) => one[g]);
    const all = new Float32Array(list.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const one of list) { all.set(one, at); at += one.length; }
    return all;
  });
  const weight = constantOf(layer.node.inputs['weight'] as Value)!;
  const length = weight.data.length / staticShape(weight.type.shape)[0];
  const rows = groups[0].length / length;
  return { rows, groups, power: meanSquare(weight.data as Float32Array, groups, rows, length, true) };
};

/** Mean over rows and outputs of (W·r)²; of its variance over the rows unless `whole`, for a constant part is the bias's. */
const meanSquare = (weight: Float32Array, groups: readonly Float32Array[], rows: number, length: number, whole: boolean): number => {
  const outputs = weight.length / length;
  const perGroup = outputs / groups.length;
  let sum = 0;
  for (let o = 0; o < outputs; o++) {
    const read = groups[Math.floor(o / perGroup)];
    let [mean, square] = [0, 0];
    for (let r = 0; r < rows; r++) {
      let y = 0;
      for (let k = 0, a = r * length, b = o * length; k < length; k++, a++, b++) y += read[a] * weight[b];
      mean += y;
      square += y * y;
    }
    sum += square - (whole ? 0 : (mean * mean) / rows);
  }
  return sum / (rows * outputs);
};

/** tr(ΔW·S·ΔWᵀ) over tr(W·S·Wᵀ): the noise of rounding a layer's weight at its output, S the covariance of what it reads. */
export const outputError = (rounded: Tensor, layer: Layer, { rows, groups, power }: ReadRows): number => {
  const exact = constantOf(layer.node.inputs['weight'] as Value)!.data as Float32Array;
  const delta = (dequantized(rounded).data as Float32Array).map((w, i) => w - exact[i]);
  const length = exact.length / staticShape(rounded.type.shape)[0];
  return power === 0 ? 0 : meanSquare(delta, groups, rows, length, false) / power;
};
