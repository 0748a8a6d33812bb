/**
 * Replaces GELU and SiLU inside MLPs by ReLU and repairs the layer behind it, block by block in execution order:
 *
 *     %a = gelu(%p); %y = linear(%a, %W, %b)   →   %a = relu(%p); %y = linear(%a, %W', %b')
 *
 * A ReLU needs no table, has its zero point at the lowest code and so all codes for what is positive, and lets scales of channels pass, so
 * that `migrate-scales` can act inside the MLP. W' and b' come from the ladder of reconstruction/mlp.ts, fitted to the outputs of the float
 * model on inputs that carry the changes of the blocks before; the step with the least error on samples kept apart wins. A block whose error
 * stays above `threshold` keeps its activation, as a 256-entry table.
 *
 * Source: Wu et al. 2025, APHQ-ViT (MLP reconstruction).
 */
import { CompileError } from '../ir/diagnostic.ts';
import { staticShape } from '../ir/dim.ts';
import { errors } from '../ir/errors.ts';
import { constantOf, usersOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import { int, joinSites, oneOf, real } from '../ir/op.ts';
import { relu } from '../ir/ops/index.ts';
import { mapGraph, mapOperands } from '../ir/rewrite.ts';
import { f32, tensor, type Tensor } from '../ir/type.ts';
import { frontierBytes, openFrontier, type Frontier } from '../calibration/frontier.ts';
import { decibels } from '../calibration/metrics.ts';
import { definePass, type PassContext } from './pass.ts';
import { channelsOf } from './migration/channel-rules.ts';
import { clamped, mlpSums, neuronSums, withNeurons, type SecondLayer } from './reconstruction/mlp.ts';

export interface RewriteGeluOptions {
  readonly threshold: number;
  readonly activations: 'gelu' | 'silu' | 'both';
  readonly clamp: number;
  readonly samples: number;
}

/** Most bytes of values held at once; fewer samples are used where a network is larger. */
const HELD_BYTES = 2 ** 29;
/** Share of the samples that is kept apart to choose by. */
const HELD_OUT = 0.25;
/** Damping of the ridge, as shares of the mean variance of a neuron. */
const DAMPINGS = [1e-1, 1e-2, 1e-3, 1e-4];

export const rewriteGelu = definePass<'float', 'float', RewriteGeluOptions>({
  name: 'rewrite-gelu',
  from: 'float',
  to: 'float',
  summary: 'replace GELU and SiLU in MLPs by ReLU, and refit the layer behind',
  paper: 'Wu et al. 2025, APHQ-ViT: Post-Training Quantization with Average Perturbation Hessian Based Reconstruction for Vision Transformers',
  changes: 'the output of each rewritten MLP, by at most the threshold on samples kept apart',
  options: {
    threshold: real('largest relative squared error of an MLP that is rewritten', 0.02),
    activations: oneOf('which activations are replaced', ['gelu', 'silu', 'both'], 'both'),
    clamp: real('share of the positive hidden values below a ceiling to which the layer is fitted as well, for narrow activations; 1 for none', 1),
    samples: int('most calibration samples that are used', 128),
  },
  async run(graph, options, context) {
    const blocks = mlpsOf(graph, options.activations);
    if (blocks.length === 0) return graph;
    const { calibration } = context;
    if (calibration === null) throw new CompileError(errors.needsData('rewrite-gelu'), 'usage');
    const count = Math.max(1, Math.min(options.samples, calibration.samples.count, Math.floor(HELD_BYTES / (2 * frontierBytes(graph)))));
    const repaired = repair(graph, blocks, openFrontier(graph, calibration.samples, count), openFrontier(graph, calibration.samples, count), options, context);
    return repaired.size === 0 ? graph : rewritten(graph, repaired);
  },
});

/** An activation that only one layer reads. */
interface Mlp {
  readonly activation: Node;
  readonly layer: Node;
}

const mlpsOf = (graph: Graph<'float'>, wanted: RewriteGeluOptions['activations']): readonly Mlp[] => {
  const users = usersOf(graph);
  const outputs = new Set(graph.outputs.map(({ value }) => value));
  return graph.nodes.filter(({ op }) => (op === 'gelu' || op === 'silu') && (wanted === 'both' || wanted === op)).flatMap((activation) => {
    const [layer, ...others] = users.get(activation.output) ?? [];
    return layer !== undefined && others.length === 0 && !outputs.has(activation.output) && readsChannels(layer, activation.output) ? [{ activation, layer }] : [];
  });
};

/** A linear map of the channels of x with constants, position by position. */
const readsChannels = ({ op, inputs, attrs }: Node, x: Value): boolean => {
  const weight = constantOf(inputs['weight'] as Value | undefined ?? null);
  const bias = inputs['bias'] as Value | null | undefined;
  if (inputs['x'] !== x || weight === null || (bias && constantOf(bias) === null)) return false;
  const { strides, pads, group } = attrs as { readonly strides?: readonly number[]; readonly pads?: readonly number[]; readonly group?: number };
  return op === 'linear' || (op === 'conv' && group === 1 && staticShape(weight.type.shape).slice(1, 3).every((n) => n === 1)
    && strides!.every((n) => n === 1) && pads!.every((n) => n === 0));
};

type Repaired = ReadonlyMap<Node, { readonly mlp: Mlp; readonly layer: SecondLayer }>;

/** Walks the model and, beside it, the model as it is rewritten so far; returns the new layers of the blocks that are worth it. */
const repair = (graph: Graph<'float'>, blocks: readonly Mlp[], model: Frontier, changing: Frontier, options: RewriteGeluOptions, context: PassContext): Repaired => {
  const byActivation = new Map(blocks.map((mlp) => [mlp.activation, mlp]));
  const wanted = new Set([...blocks.map(({ layer }) => layer.output), ...graph.outputs.map(({ value }) => value)]);
  const expected = new Map<Value, readonly Tensor[]>();
  let reached = 0;
  const modelUpTo = (node: Node): readonly Tensor[] => {
    for (; !expected.has(node.output); reached++) {
      const next = graph.nodes[reached];
      const results = model.evaluate(next);
      model.settle(next, results);
      if (wanted.has(next.output)) expected.set(next.output, results);
    }
    return expected.get(node.output)!;
  };
  const repaired = new Map<Node, { readonly mlp: Mlp; readonly layer: SecondLayer }>();
  const output = new NoiseMeter(heldOut(model.count));
  for (const [index, node] of graph.nodes.entries()) {
    context.progress('rewrite-gelu', index, graph.nodes.length);
    const mlp = byActivation.get(node);
    const layer = mlp && fitted(mlp, changing, modelUpTo(mlp.layer), options, context);
    if (mlp && layer) {
      repaired.set(mlp.layer, { mlp, layer });
      changing.settle(node, Array.from({ length: changing.count }, (_, i) => rectified(changing.realsOf(node.inputs['x'] as Value, i))));
      continue;
    }
    const own = repaired.get(node);
    const results = changing.evaluate(own === undefined ? node : { ...node, inputs: { ...node.inputs, ...constantsOf(node, own.layer, looseConstant) } });
    changing.settle(node, results);
    if (graph.outputs.some(({ value }) => value === node.output)) output.add(results, modelUpTo(node));
  }
  context.note({ site: null, text: `${repaired.size} of ${blocks.length} MLPs use ReLU`, figures: { floatSqnrDb: output.sqnrDb() } });
  return repaired;
};

const rectified = ({ type, data }: Tensor): Tensor => ({ type, data: (data as Float32Array).map((x) => Math.max(0, x)) });

/** Samples from this one on are kept apart. */
const heldOut = (count: number): number => (count === 1 ? 0 : Math.ceil(count * (1 - HELD_OUT)));

/** The layer of a block that fits its outputs best with ReLU before it; null where it stays too far from them. */
const fitted = ({ activation, layer }: Mlp, changing: Frontier, targets: readonly Tensor[], options: RewriteGeluOptions, context: PassContext): SecondLayer | null => {
  const [outputs, hidden] = [channelsOf(layer.output), channelsOf(activation.output)];
  const [fit, held] = [mlpSums(hidden, outputs), mlpSums(hidden, outputs)];
  const neurons = neuronSums(hidden);
  const before = (i: number): Float32Array => changing.realsOf(activation.inputs['x'] as Value, i).data as Float32Array;
  const after = changing.evaluate(activation);
  const kept = heldOut(changing.count);
  const ceiling = options.clamp < 1 ? positiveQuantile(targets.slice(0, Math.max(1, kept)).map((_, i) => after[i].data as Float32Array), options.clamp) : Infinity;
  targets.forEach(({ data }, i) => {
    const rows = before(i).map((x) => Math.max(0, x));
    const y = data as Float32Array;
    if (i >= kept) held.add(rows, y);
    if (i >= kept && kept > 0) return;
    fit.add(rows, y);
    neurons.add(before(i), after[i].data as Float32Array);
    if (ceiling < Infinity) fit.add(clamped(rows, ceiling), y, new Float32Array(rows.length / hidden).fill(CLAMPED_WEIGHT));
  });
  const original = secondLayer(layer);
  const ladder: readonly { readonly step: string; readonly layer: SecondLayer }[] = [
    { step: 'bias', layer: fit.withMean(original) },
    { step: 'neurons', layer: fit.withMean(withNeurons(original, neurons.fit())) },
    ...DAMPINGS.map((share) => ({ step: `ridge ${share}`, layer: fit.ridge(original, share) })),
  ];
  const errorsOf = ladder.map((one) => held.relativeError(one.layer));
  const best = errorsOf.indexOf(Math.min(...errorsOf));
  const accepted = errorsOf[best] <= options.threshold;
  context.note({
    site: activation.output.name, text: accepted ? `ReLU, repaired by ${ladder[best].step}` : `keeps ${activation.op}`,
    figures: { swapped: held.relativeError(original), bias: errorsOf[0], neurons: errorsOf[1], best: errorsOf[best] },
  });
  return accepted ? ladder[best].layer : null;
};

/** Weight of the clamped rows against the others. */
const CLAMPED_WEIGHT = 2;

/** The number below which a share of all positive ones lies. */
const positiveQuantile = (lists: readonly Float32Array[], share: number): number => {
  const positive = Float32Array.from(lists.flatMap((list) => [...list.filter((x) => x > 0)])).sort();
  return positive.length === 0 ? Infinity : positive[Math.min(positive.length - 1, Math.floor(positive.length * share))];
};

const secondLayer = ({ inputs, output }: Node): SecondLayer => {
  const bias = constantOf(inputs['bias'] as Value | null)?.data as Float32Array | undefined;
  return { weight: Float64Array.from(constantOf(inputs['weight'] as Value)!.data as Float32Array), bias: Float64Array.from(bias ?? new Float32Array(channelsOf(output))) };
};

/** The constants of a layer from its new numbers. */
const constantsOf = (node: Node, { weight, bias }: SecondLayer, constant: (stem: string, made: Tensor) => Value): { readonly weight: Value; readonly bias: Value } => {
  const [oldWeight, oldBias] = [node.inputs['weight'] as Value, node.inputs['bias'] as Value | null];
  return {
    weight: constant(oldWeight.name, tensor(oldWeight.type, Float32Array.from(weight))),
    bias: constant(oldBias?.name ?? `${node.output.name}.bias`, tensor(f32(bias.length), Float32Array.from(bias))),
  };
};
/** A constant outside of any graph. */
const looseConstant = (name: string, made: Tensor): Value => ({ name, type: made.type, def: { op: 'const', tensor: made } });

const rewritten = (graph: Graph<'float'>, repaired: Repaired): Graph<'float'> => {
  const replaced = new Set([...repaired.values()].map(({ mlp }) => mlp.activation));
  return mapGraph(graph, 'float', (node, now, b) => {
    if (replaced.has(node)) {
      const site = joinSites(node.site, { origins: [], passes: ['rewrite-gelu'] });
      return b.emit(relu, { x: now(node.inputs['x'] as Value) }, {}, { replaces: node.output, site });
    }
    const own = repaired.get(node);
    return own === undefined ? null : b.copy(node, { ...mapOperands(node, now), ...constantsOf(node, own.layer, (stem, made) => b.constant(stem, made)) });
  });
};

/** Signal to noise over the samples from `first` on. */
class NoiseMeter {
  private readonly first: number;
  private signal = 0;
  private noise = 0;

  constructor(first: number) {
    this.first = first;
  }
  add(found: readonly Tensor[], expected: readonly Tensor[]): void {
    for (let i = this.first; i < found.length; i++) expected[i].data.forEach((y: number | bigint, at: number) => {
      this.signal += Number(y) * Number(y);
      this.noise += (Number(found[i].data[at]) - Number(y)) ** 2;
    });
  }
  sqnrDb(): number {
    return decibels(this.signal, this.noise);
  }
}
