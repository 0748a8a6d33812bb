/**
 * Quantised graphs that differ in single layers. The steps that follow in the pipeline make one quantised graph for each width, the same
 * for all layers; a variant takes the rounded weight of a layer from one of them and the rest from another. So what is measured is what the
 * pipeline's own rounding does, and each weight is rounded once a width.
 */
import { CompileError } from '../../ir/diagnostic.ts';
import { staticShape } from '../../ir/dim.ts';
import { constantOf, type Graph, type Node, type Value } from '../../ir/graph.ts';
import { printWidths, type ChosenWidths } from '../../ir/ops/widths.ts';
import { mapGraph, mapOperands } from '../../ir/rewrite.ts';
import type { Tensor } from '../../ir/type.ts';
import { dequantized } from '../../calibration/executor.ts';
import { biasName, shiftedBias } from '../correct-bias.ts';
import type { PassContext } from '../pass.ts';
import { withWidths, type Layer } from './layers.ts';

export interface Variants {
  /** every layer at these widths, as the rest of the pipeline makes it */
  uniform(widths: ChosenWidths): Promise<Graph<'quant'>>;
  /** the kernel graph of it; null where the widths have none */
  kernels(widths: ChosenWidths): Promise<Graph<'kernel'> | null>;
  /** the same for widths of single layers */
  quantized(assignment: ReadonlyMap<string, ChosenWidths>): Promise<Graph<'quant'>>;
  lowered(graph: Graph<'quant'>): Promise<Graph<'kernel'>>;
  /** `base` with the weight of one layer as it is in the uniform graph of `bits` */
  withLayer(base: Graph<'quant'>, layer: Layer, widths: ChosenWidths): Promise<Graph<'quant'>>;
  /** the rounded weight of a layer */
  weight(layer: Layer, widths: ChosenWidths): Promise<Tensor>;
}

/** Samples whose mean a layer's own bias correction is taken from. */
const MEAN_SAMPLES = 64;

/**
 * Options of passes while single widths are compared: a weight is fitted by itself, for in a variant the layers before it have other
 * widths than in the network it was fitted in.
 */
const briefly: Readonly<Record<string, object>> = { 'fit-weights': { regression: 'off', target: 'layer', rounding: 'plane', steps: 8, samples: 32 } };

export const openVariants = (graph: Graph<'float'>, layers: readonly Layer[], context: PassContext): Variants => {
  const quiet: PassContext = { ...context, note: () => undefined, warn: () => undefined, explain: () => undefined, settle: () => undefined };
  const through = async <G extends Graph>(from: Graph, last: 'quant' | 'kernel', brief = false): Promise<G> => {
    let current = from;
    let reference: Graph<'float'> | null = from.stage === 'float' ? from as Graph<'float'> : graph;
    const steps = context.rest.slice(from.stage === 'float' ? 0 : context.rest.findIndex(({ pass }) => pass.from === 'quant' && pass.to === 'kernel'));
    for (const [i, { pass, options }] of steps.entries()) {
      if (last === 'quant' && pass.to === 'kernel') break;
      if (current.stage === 'float' && pass.to !== 'float') reference = current as Graph<'float'>;
      current = await pass.run(current, brief ? { ...options, ...briefly[pass.name] } : options, { ...quiet, reference, rest: steps.slice(i + 1) }) as Graph;
    }
    return current as G;
  };
  const marked = (assignment: ReadonlyMap<string, ChosenWidths>): Graph<'float'> => {
    const made = withWidths(graph, assignment);
    context.calibration?.sameValues?.(made, graph);
    return made;
  };
  const known = new Map<string, Promise<Graph<'quant'>>>();
  const everywhere = (widths: ChosenWidths): ReadonlyMap<string, ChosenWidths> =>
    new Map(layers.map(({ name, parameters }) => [name, parameters > 0 ? widths : { weights: null, activations: widths.activations }]));
  const uniform = (widths: ChosenWidths): Promise<Graph<'quant'>> => {
    const key = printWidths(widths);
    const found = known.get(key) ?? through<Graph<'quant'>>(marked(everywhere(widths)), 'quant', true);
    known.set(key, found);
    return found;
  };
  const corrects = context.rest.some(({ pass }) => pass.name === 'correct-bias' || pass.name === 'fit-weights');
  const nodeIn = (quantized: Graph<'quant'>, name: string): Node => quantized.nodes.find(({ output }) => output.name === name)!;
  const weightIn = (quantized: Graph<'quant'>, name: string): Tensor => constantOf(nodeIn(quantized, name).inputs['weight'] as Value)!;
  return {
    uniform,
    quantized: (assignment) => through(marked(assignment), 'quant'),
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
    weight: async ({ name }, widths) => weightIn(await uniform(widths), name),
    async withLayer(base, { name, node }, widths) {
      const weight = weightIn(await uniform(widths), name);
      const before = weightIn(base, name);
      const means = corrects ? (await context.calibration!.channelMeans(graph, MEAN_SAMPLES)).get((node.inputs['x'] as Value).name) : undefined;
      return mapGraph(base, 'quant', (own, now, b) => {
        if (own.output.name !== name) return null;
        const operands = mapOperands(own, now);
        const bias = means === undefined ? {} : { bias: b.constant(biasName(own), shiftedBias(own, keptMeans(own, before, weight, means))) };
        return b.copy(own, { ...operands, weight: b.constant((own.inputs['weight'] as Value).name, weight), ...bias });
      });
    },
  };
};

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
