/**
 * Quantised graphs in which every layer has widths of its own. Two kinds: as the pipeline makes it, which is what a choice is judged by in
 * the end; and composed, which is what many choices are compared by: activations as the pipeline quantises them, each weight from a store of
 * roundings, each bias moved so that the layer's mean output stays.
 */
import { CompileError } from '../../ir/diagnostic.ts';
import { staticShape } from '../../ir/dim.ts';
import { constantOf, type Graph, type Node, type Value } from '../../ir/graph.ts';
import { printWeights, printWidths, type ChosenWidths, type WeightWidth } from '../../ir/ops/widths.ts';
import { mapGraph, mapOperands } from '../../ir/rewrite.ts';
import type { Tensor } from '../../ir/type.ts';
import { dequantized } from '../../calibration/executor.ts';
import { biasName, shiftedBias } from '../correct-bias.ts';
import { quietly, type PassContext } from '../pass.ts';
import { withWidths, type Layer } from './layers.ts';
import { roundWeights, type Rounding, type Roundings } from './roundings.ts';

/** Widths of every layer, by its name. */
export type Widths = ReadonlyMap<string, ChosenWidths>;

export interface Variants {
  composed(widths: Widths): Promise<Graph<'quant'>>;
  /** every layer at these widths, composed */
  uniform(widths: ChosenWidths): Promise<Graph<'quant'>>;
  /** the kernel graph of it; null where the widths have none */
  kernels(widths: ChosenWidths): Promise<Graph<'kernel'> | null>;
  /** a composed graph with other weights in one layer */
  withWeight(base: Graph<'quant'>, layer: Layer, width: WeightWidth): Promise<Graph<'quant'>>;
  /** the rounded weight of a layer */
  weight(layer: Layer, width: WeightWidth): Tensor;
  /** loss of rounding a layer's weights, comparable between the widths of that layer */
  ownLoss(layer: Layer, width: WeightWidth): number;
  /** as the pipeline makes it */
  quantized(widths: Widths): Promise<Graph<'quant'>>;
  /** as the pipeline makes it with weights fitted in haste: weights make up for each other as they will, and it takes a third of the time */
  sketched(widths: Widths): Promise<Graph<'quant'>>;
  lowered(graph: Graph<'quant'>): Promise<Graph<'kernel'>>;
}

/** Samples whose mean a layer's own bias correction is taken from. */
const MEAN_SAMPLES = 64;

/** Options of fit-weights in haste. */
const HASTE = { samples: 32, steps: 6, damping: 0.02 };

/** Steps that composing takes the place of. */
const roundingPasses: ReadonlySet<string> = new Set(['fit-weights', 'quantize-weights', 'correct-bias']);

/** `offered`: widths of weights that may be asked for. */
export const openVariants = (graph: Graph<'float'>, layers: readonly Layer[], offered: readonly WeightWidth[], context: PassContext): Variants => {
  const quiet = quietly(context);
  /** the graph after the steps from here to a stage, all but those that are skipped */
  const through = async <G extends Graph>(from: Graph, last: 'quant' | 'kernel', { skipped = new Set(), haste = false }: { readonly skipped?: ReadonlySet<string>; readonly haste?: boolean } = {}): Promise<G> => {
    let current = from;
    let reference: Graph<'float'> | null = from.stage === 'float' ? from as Graph<'float'> : graph;
    const steps = context.rest.slice(from.stage === 'float' ? 0 : context.rest.findIndex(({ pass }) => pass.from === 'quant' && pass.to === 'kernel'));
    for (const [i, { pass, options }] of steps.entries()) {
      if (last === 'quant' && pass.to === 'kernel') break;
      if (skipped.has(pass.name)) continue;
      if (current.stage === 'float' && pass.to !== 'float') reference = current as Graph<'float'>;
      current = await pass.run(current, haste && pass.name === 'fit-weights' ? { ...options, ...HASTE } : options, { ...quiet, reference, rest: steps.slice(i + 1) }) as Graph;
    }
    return current as G;
  };
  const marked = (widths: Widths): Graph<'float'> => {
    const made = withWidths(graph, widths);
    context.calibration?.sameValues?.(made, graph);
    return made;
  };
  let roundings: ReadonlyMap<string, Roundings> | null = null;
  const rounding = ({ name }: Layer, width: WeightWidth): Rounding => (roundings ??= roundWeights(graph, layers, offered, context)).get(name)!.get(printWeights(width))!;
  const byName = new Map(layers.map((layer) => [layer.name, layer]));
  const corrects = context.rest.some(({ pass }) => pass.name === 'correct-bias' || pass.name === 'fit-weights');
  /** every layer of a quantised graph with the weight of this width, unless it has it already; null: leave the layer alone */
  const reweighted = async (base: Graph<'quant'>, widthFor: (layer: Layer) => WeightWidth | null): Promise<Graph<'quant'>> => {
    const means = corrects ? await context.calibration!.channelMeans(graph, MEAN_SAMPLES) : null;
    return mapGraph(base, 'quant', (own, now, b) => {
      const layer = byName.get(own.output.name);
      const width = layer === undefined || layer.parameters === 0 ? null : widthFor(layer);
      if (layer === undefined || width === null) return null;
      const [before, after] = [constantOf(own.inputs['weight'] as Value)!, rounding(layer, width).weight];
      const mean = means?.get((layer.node.inputs['x'] as Value).name);
      const bias = mean === undefined ? {} : { bias: b.constant(biasName(own), shiftedBias(own, keptMeans(own, before, after, mean))) };
      return b.copy(own, { ...mapOperands(own, now), weight: b.constant((own.inputs['weight'] as Value).name, after), ...bias });
    });
  };
  /** activations alone, by the widths that decide them */
  const acting = new Map<string, Promise<Graph<'quant'>>>();
  const activated = (widths: Widths): Promise<Graph<'quant'>> => {
    const key = layers.map(({ name }) => widths.get(name)!.activations).join(' ');
    const found = acting.get(key) ?? through<Graph<'quant'>>(marked(widths), 'quant', { skipped: roundingPasses });
    if (!acting.has(key) && acting.size < MOST_KNOWN) acting.set(key, found);
    return found;
  };
  const composed = async (widths: Widths): Promise<Graph<'quant'>> => reweighted(await activated(widths), ({ name }) => widths.get(name)!.weights);
  const known = new Map<string, Promise<Graph<'quant'>>>();
  const uniform = (widths: ChosenWidths): Promise<Graph<'quant'>> => {
    const key = printWidths(widths);
    const found = known.get(key) ?? composed(new Map(layers.map(({ name, parameters }) => [name, parameters > 0 ? widths : { weights: null, activations: widths.activations }])));
    known.set(key, found);
    return found;
  };
  return {
    composed, uniform,
    weight: (layer, width) => rounding(layer, width).weight,
    ownLoss: (layer, width) => rounding(layer, width).loss,
    withWeight: (base, layer, width) => reweighted(base, (other) => (other.name === layer.name ? width : null)),
    quantized: (widths) => through(marked(widths), 'quant'),
    sketched: (widths) => through(marked(widths), 'quant', { haste: true }),
    lowered: (quantized) => through(quantized, 'kernel'),
    async kernels(widths) {
      try {
        return await through<Graph<'kernel'>>(await uniform(widths), 'kernel');
      } catch (cause) {
        // sums of wide activations may not fit 32 bits
        if (cause instanceof CompileError && cause.kind !== 'internal') return null;
        throw cause;
      }
    },
  };
};

/** Graphs of activations that are kept; most have one width throughout. */
const MOST_KNOWN = 16;

/** −(W_after − W_before)·E[x], the shift of the bias with which the mean output stays. Borders of a convolution count as inside. */
const keptMeans = ({ attrs }: Node, before: Tensor, after: Tensor, means: Float64Array): Float64Array => {
  const [from, to] = [dequantized(before).data as Float32Array, dequantized(after).data as Float32Array];
  const shape = staticShape(after.type.shape);
  const [outputs, depth] = [shape[0], shape.at(-1)!];
  const groups = (attrs['group'] as number | undefined) ?? 1;
  const length = to.length / outputs;
  return Float64Array.from({ length: outputs }, (_, row) => {
    const first = Math.floor((row * groups) / outputs) * depth;
    let moved = 0;
    for (let i = 0, at = row * length; i < length; i++, at++) moved += (to[at] - from[at]) * means[first + (i % depth)];
    return -moved;
  });
};
