/** Measures of sensitivity beside the plain one. Each fills the same table, so that any of them can stand in the programme. */
import { constantOf, type Graph, type Value } from '../../ir/graph.ts';
import { printWeights, printWidths, uniformWidth, type ChosenWidths, type WeightWidth } from '../../ir/ops/widths.ts';
import { mapGraph, mapOperands } from '../../ir/rewrite.ts';
import { scaleOf } from '../../ir/quant.ts';
import { createExecutor, dequantized } from '../../calibration/executor.ts';
import { createRandom } from '../../numerics/random.ts';
import { log } from '../../numerics/real-math.ts';
import type { Layer } from './layers.ts';
import { byKey, increases, measured, monotone, oneAtATime, outputError, rowsOfLayers, type LossTable, type Measure, type Probe, type ReadRows } from './sensitivity.ts';

/** Mean square of rounding what a layer reads, over the power of what it reads: the share of noise that codes of a width bring. */
const activationError = async ({ variants, context, graph }: Probe, layer: Layer, { activations }: ChosenWidths): Promise<number> => {
  const quantized = await variants.uniform({ weights: uniformWidth(8), activations });
  const read = quantized.nodes.find(({ output }) => output.name === layer.name)!;
  const operand = read.inputs[layer.parameters > 0 ? 'x' : 'a' in read.inputs ? 'a' : 'q'] as Value;
  if (operand.type.quant === null) return 0;
  const step = scaleOf(operand.type.quant);
  const source = layer.node.inputs[layer.parameters > 0 ? 'x' : 'a' in layer.node.inputs ? 'a' : 'q'] as Value;
  const moments = (await context.calibration!.channelMoments(graph)).get(source.name);
  if (moments === undefined) return 0;
  const power = moments.squares.reduce((sum, square) => sum + square, 0) / moments.squares.length;
  return power === 0 ? 0 : (step * step) / 12 / power;
};

/** Noise at the layer's own output at each of its widths, by the moments of what it reads. */
const ownErrors = (probe: Probe): Promise<readonly ReadonlyMap<string, number>[]> => probe.remember('output errors', async () => {
  const { layers, choices, variants } = probe;
  const rows: readonly (ReadRows | null)[] = rowsOfLayers(probe);
  const found: ReadonlyMap<string, number>[] = [];
  for (const [i, layer] of layers.entries()) {
    probe.progress(i, layers.length);
    const own = new Map<string, number>();
    const byWeight = new Map<string, number>();
    for (const widths of choices[i]) {
      const { weights } = widths;
      const key = weights === null ? '' : printWeights(weights);
      if (!byWeight.has(key)) byWeight.set(key, rows[i] === null || weights === null ? 0 : outputError(variants.weight(layer, weights), layer, rows[i]));
      own.set(printWidths(widths), byWeight.get(key)! + await activationError(probe, layer, widths));
    }
    found.push(monotone(choices[i], own));
  }
  return found.map((own) => [...own]);
}).then((list) => list.map((own) => new Map(own)));

export const outputErrors: Measure = {
  name: 'output-error',
  summary: 'noise at each layer\'s own output in closed form, tr(ΔW·S·ΔWᵀ)/tr(W·S·Wᵀ) + E[δx²]/E[x²], without running the network again',
  tables: async (probe) => [{ name: 'output error', loss: byKey(await ownErrors(probe)) }],
};

// ---- curvature

/** Size of the perturbation, as a share of the root mean square of the weights: small enough for the square to rule. */
const PERTURBATION = 1 / 64;

/**
 * Mean of the diagonal of the Hessian of the output's loss by the weights of a layer, from runs with the weights moved by ±ε·z, z of random
 * signs: E[L(w + ε·z)] = ½·ε²·tr(H), as the loss is least, 0, at w itself.
 */
const curvatures = (probe: Probe): Promise<readonly number[]> => probe.remember('curvature', async () => {
  const { graph, layers, judge, context } = probe;
  const found: number[] = [];
  for (const [i, layer] of layers.entries()) {
    probe.progress(i, layers.length);
    if (layer.parameters === 0) { found.push(0); continue; }
    const weight = constantOf(layer.node.inputs['weight'] as Value)!;
    const exact = weight.data as Float32Array;
    const scale = PERTURBATION * Math.sqrt(exact.reduce((sum, w) => sum + w * w, 0) / exact.length);
    const random = createRandom(context.seed + i + 1);
    const signs = Int8Array.from(exact, () => (random.uniform() < 0.5 ? -1 : 1));
    let loss = 0;
    for (const side of [1, -1]) {
      const moved = Float32Array.from(exact, (w, k) => w + side * scale * signs[k]);
      const judged = await judge.of(withWeight(graph, layer.name, { ...weight, data: moved }));
      loss += (judged.kl ?? judged.noise) / 2;
    }
    found.push(scale === 0 ? 0 : (2 * loss) / (scale * scale) / exact.length);
  }
  return found;
});

const withWeight = (graph: Graph<'float'>, name: string, weight: { readonly type: Value['type']; readonly data: Float32Array }): Graph<'float'> =>
  mapGraph(graph, 'float', (node, now, b) =>
    (node.output.name === name ? b.copy(node, { ...mapOperands(node, now), weight: b.constant((node.inputs['weight'] as Value).name, weight) }) : null));

export const curvature: Measure = {
  name: 'curvature',
  summary: 'mean Hessian diagonal of a layer times ‖ΔW‖² (HAWQ-V3, Yao et al. 2021), the trace estimated from forward runs with moved weights',
  async tables(probe) {
    const { layers, choices, variants } = probe;
    const diagonal = await curvatures(probe);
    const losses: ReadonlyMap<string, number>[] = [];
    for (const [i, layer] of layers.entries()) {
      const own = new Map<string, number>();
      for (const widths of choices[i]) {
        const key = printWidths(widths);
        if (layer.parameters === 0) { own.set(key, 0); continue; }
        const exact = constantOf(layer.node.inputs['weight'] as Value)!.data as Float32Array;
        const rounded = dequantized(variants.weight(layer, widths.weights!)).data as Float32Array;
        own.set(key, diagonal[i] * rounded.reduce((sum, w, k) => sum + (w - exact[k]) ** 2, 0) + await activationError(probe, layer, widths));
      }
      losses.push(monotone(choices[i], own));
    }
    return [{ name: 'curvature', loss: byKey(losses) }];
  },
};

// ---- two metrics

/** Shares of the weight that is given to content against quality, of which the best on the whole network is kept. */
const SPLITS = [0.25, 0.5, 1, 2, 4];

export const split: Measure = {
  name: 'split',
  summary: 'layers by what they harm more, the choice of the class (KL) or the size of the outputs (SQNR), each in its own unit, scanned over shares (MixDQ, Zhao et al. 2024)',
  async tables(probe) {
    const { judge, choices } = probe;
    if (judge.classes === null) return measured.tables(probe);
    const found = await oneAtATime(probe);
    const [content, quality] = [increases(found, probe, (one) => one.kl!), increases(found, probe, (one) => one.noise)];
    const sum = (own: ReadonlyMap<string, number>): number => [...own.values()].reduce((a, b) => a + b, 0);
    const [units, other] = [content, quality].map((list) => list.reduce((all, own) => all + sum(own), 0) || 1);
    const isContent = choices.map((_, i) => sum(content[i]) / units >= sum(quality[i]) / other);
    return SPLITS.map((share): LossTable => ({
      name: `split ${share}`,
      loss: (layer, widths) => (isContent[layer] ? share * content[layer].get(printWidths(widths))! / units : quality[layer].get(printWidths(widths))! / other),
    }));
  },
};

// ---- importance without measuring losses

/** −cos between what a layer reads and what it gives, where they have one shape; else 1 − the share of weights beyond one deviation. */
const importances = ({ graph, layers, context }: Probe): readonly number[] => {
  const executor = createExecutor(graph);
  const dot = layers.map(() => ({ xy: 0, xx: 0, yy: 0 }));
  const held = new Map<Value, Float32Array>();
  const reads = new Set(layers.map(({ node }) => node.inputs['x'] as Value | undefined));
  executor.run(context.calibration!.samples.get(0), (value, { data }) => {
    if (reads.has(value)) held.set(value, (data as Float32Array).slice());
    const i = layers.findIndex(({ name }) => name === value.name);
    const x = i < 0 ? undefined : held.get(layers[i].node.inputs['x'] as Value);
    if (x === undefined || x.length !== data.length) return;
    x.forEach((a, k) => { const b = data[k] as number; dot[i].xy += a * b; dot[i].xx += a * a; dot[i].yy += b * b; });
  });
  return layers.map(({ node, parameters }, i) => {
    const { xy, xx, yy } = dot[i];
    if (xx > 0 && yy > 0) return (1 - xy / Math.sqrt(xx * yy)) / 2;
    if (parameters === 0) return 0.5;
    const weight = constantOf(node.inputs['weight'] as Value)!.data as Float32Array;
    const mean = weight.reduce((sum, w) => sum + w, 0) / weight.length;
    const deviation = Math.sqrt(weight.reduce((sum, w) => sum + (w - mean) ** 2, 0) / weight.length);
    return 1 - weight.reduce((count, w) => count + Number(w - mean > deviation), 0) / weight.length;
  });
};

export const importance: Measure = {
  name: 'importance',
  summary: 'how much a layer changes what it reads (LIM) or how few of its weights stand out (ZD), times 4^-bits (Dumitru et al. 2024)',
  async tables(probe) {
    const scores = importances(probe);
    return [{ name: 'importance', loss: (layer, { weights, activations }) => (0.01 + scores[layer]) * ((weights === null ? 0 : 4 ** -effectiveBits(weights)) + 4 ** -activations) }];
  },
};

// ---- equal loss

/** A codebook lowers the noise of its bits by about 1.5 dB. */
const effectiveBits = ({ bits, format }: WeightWidth): number => (format === 'codebook' ? bits + 0.25 : bits);
/** log2 */
const log2 = (x: number): number => log(x) / 0.6931471805599453;

/**
 * Real widths at which all layers lose the same, D = c·4^(−R), at a mean of `mean` bits a weight: R = mean + ½·log2(c/GM(c)), GM weighted by
 * parameters. Source: Zhang et al. 2025, BAQ.
 */
export const equalLossBits = (constants: readonly number[], parameters: readonly number[], mean: number): readonly number[] => {
  const total = parameters.reduce((sum, n) => sum + n, 0) || 1;
  const middle = constants.reduce((sum, c, i) => sum + (parameters[i] * log2(Math.max(c, 1e-30))) / total, 0);
  return constants.map((c) => mean + (log2(Math.max(c, 1e-30)) - middle) / 2);
};

export const equalLoss: Measure = {
  name: 'equal-loss',
  summary: 'the law D = c·4^-bits with c from each layer\'s own output error (BAQ, Zhang et al. 2025): the cheapest start',
  async tables(probe) {
    const errors = await ownErrors(probe);
    const constants = errors.map((own, i) => Math.max(...probe.choices[i].map((widths) => own.get(printWidths(widths))! * 4 ** (widths.weights === null ? widths.activations : effectiveBits(widths.weights)))));
    return [{ name: 'equal loss', loss: (layer, { weights, activations }) => constants[layer] * 4 ** -Math.min(weights === null ? activations : effectiveBits(weights), activations) }];
  },
};

export const measures: readonly Measure[] = [measured, outputErrors, curvature, split, importance, equalLoss];
