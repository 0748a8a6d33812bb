/**
 * Replaces GELU and SiLU inside MLPs by ReLU and repairs the layer behind it, block by block in execution order:
 *
 *     %a = gelu(%p); %y = linear(%a, %W, %b)   →   %a = relu(%p); %y = linear(%a, %W', %b')
 *
 * A ReLU needs no table, has its zero point at the lowest code and so all codes for what is positive, and lets scales of channels pass, so
 * that `migrate-scales` can act inside the MLP. W' and b' come from the ladder of reconstruction/mlp.ts, fitted to the outputs of the float
 * model on inputs that carry the changes of the blocks before; on request gradient descent within the MLP (reconstruction/descent.ts) goes on
 * from there and moves the layer before as well. The step with the least error on samples kept apart wins. A block whose error stays above
 * `threshold` keeps its activation, as a 256-entry table. With `when: measured` the whole is kept only if the quantised network gains.
 *
 * Source: Wu et al. 2025, APHQ-ViT (MLP reconstruction).
 */
import { CompileError } from '../ir/diagnostic.ts';
import { staticShape } from '../ir/dim.ts';
import { errors } from '../ir/errors.ts';
import { constantOf, isNode, looseConstant, usersOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import { int, joinSites, oneOf, real } from '../ir/op.ts';
import { relu } from '../ir/ops/index.ts';
import { mapGraph, mapOperands } from '../ir/rewrite.ts';
import { f32, tensor, type Tensor } from '../ir/type.ts';
import { Follower, frontierBytes, openFrontier, type Frontier } from '../calibration/frontier.ts';
import { decibels } from '../calibration/metrics.ts';
import { aimedBits } from './allocation/aim.ts';
import { biasName } from './correct-bias.ts';
import { definePass, type BeforeAfter, type Note, type PassContext } from './pass.ts';
import { channelsOf } from './migration/channel-rules.ts';
import { openTrial } from './migration/trial.ts';
import { compared, spreadSamples, surelyGains, type Comparison } from './output-meter.ts';
import { descend, hiddenRows } from './reconstruction/descent.ts';
import { tokenImportance } from './reconstruction/importance.ts';
import { clamped, mlpSums, neuronSums, withNeurons, type SecondLayer } from './reconstruction/mlp.ts';

export interface RewriteGeluOptions {
  readonly weightBits: number;
  readonly activationBits: number;
  readonly threshold: number;
  readonly activations: 'gelu' | 'silu' | 'both';
  readonly clamp: number;
  readonly samples: number;
  readonly importance: 'none' | 'forward';
  readonly steps: number;
  readonly rate: number;
  readonly when: 'always' | 'measured';
  readonly leastGain: number;
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
    importance: oneOf('what tokens count: all alike, or by what the outputs lose when they are disturbed', ['none', 'forward'], 'none'),
    steps: int('steps of gradient descent within each MLP after the closed forms; 0 for none', 0),
    rate: real('size of the first of these steps', 1e-3),
    when: oneOf('always, or where the outputs of the quantised network are measured to gain', ['always', 'measured'], 'always'),
    leastGain: real('dB that the outputs must gain where it is measured', 0.1),
    weightBits: int('bits that weights will have, where it is measured, 2 to 8; 0: what the size that bits are chosen for leaves on average', 8),
    activationBits: int('bits that activations will have, where it is measured, 2 to 8', 8),
  },
  async run(graph, options, context) {
    const blocks = mlpsOf(graph, options.activations);
    if (blocks.length === 0) return graph;
    const { calibration } = context;
    if (calibration === null) throw new CompileError(errors.needsData('rewrite-gelu'), 'usage');
    const count = Math.max(1, Math.min(options.samples, calibration.samples.count, Math.floor(HELD_BYTES / (2 * frontierBytes(graph)))));
    const { repaired, lines } = repair(graph, blocks, openFrontier(graph, calibration.samples, count), openFrontier(graph, calibration.samples, count), options, context);
    const next = repaired.size === 0 ? graph : rewritten(graph, repaired);
    const outputsDb = next !== graph && options.when === 'measured' ? await measured(graph, next, options, context) : null;
    const gains = next !== graph && (outputsDb === null || surelyGains(outputsDb, options.leastGain));
    for (const { note, siteDb, saved } of lines) context.note({ ...note, gain: { kept: gains && siteDb !== null, siteDb, outputsDb: null, ...saved } });
    const whole = gains ? `${repaired.size} of ${blocks.length} MLPs use ReLU` : repaired.size === 0 ? 'no MLP can use ReLU' : 'ReLU in MLPs did not improve the outputs';
    context.note({ site: null, text: whole, gain: { kept: gains, siteDb: null, outputsDb, bytes: -TABLE_BYTES * repaired.size, operations: 0 } });
    return gains ? next : graph;
  },
});

/** Outputs of the quantised network before and after, both with their scales as yet where they are. */
const measured = async (graph: Graph<'float'>, next: Graph<'float'>, options: RewriteGeluOptions, context: PassContext): Promise<Comparison | null> => {
  const weights = await aimedBits(options.weightBits, graph, context);
  if (weights !== options.weightBits) context.settle({ weightBits: weights });
  const trial = openTrial(graph, { weights, activations: options.activationBits, attention: 8 }, context);
  const [before, after] = [await trial.sqnrDb(graph), await trial.sqnrDb(next)];
  return before === null || after === null ? null : compared(before, after);
};

/** An activation that only one layer reads. */
interface Mlp {
  readonly activation: Node;
  readonly layer: Node;
  /** the linear map that makes what the activation reads, where nothing else reads it */
  readonly before: Node | null;
}

const mlpsOf = (graph: Graph<'float'>, wanted: RewriteGeluOptions['activations']): readonly Mlp[] => {
  const users = usersOf(graph);
  const outputs = new Set(graph.outputs.map(({ value }) => value));
  return graph.nodes.filter(({ op }) => (op === 'gelu' || op === 'silu') && (wanted === 'both' || wanted === op)).flatMap((activation) => {
    const [layer, ...others] = users.get(activation.output) ?? [];
    if (layer === undefined || others.length > 0 || outputs.has(activation.output) || !readsChannels(layer, activation.output)) return [];
    const { def } = activation.inputs['x'] as Value;
    const alone = isNode(def) && (users.get(def.output) ?? []).length === 1 && !outputs.has(def.output);
    return [{ activation, layer, before: alone && def.op === 'linear' && readsChannels(def, def.inputs['x'] as Value) ? def : null }];
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

/** New layers of a block: the one behind its activation and, where descent has moved it, the one before. */
interface Fit {
  readonly first: SecondLayer | null;
  readonly second: SecondLayer;
}
interface Repair extends Fit {
  readonly mlp: Mlp;
}
/** By every node that changes. */
type Repaired = ReadonlyMap<Node, Repair>;

/** A block in the ledger. */
interface Line {
  readonly note: Note;
  /** null where the block keeps its activation */
  readonly siteDb: BeforeAfter | null;
  readonly saved: { readonly bytes: number; readonly operations: number };
}
/** A look-up table that ReLU does without. */
const TABLE_BYTES = 256;

/** Walks the model and, beside it, the model as it is rewritten so far; returns the new layers of the blocks that are worth it. */
const repair = (graph: Graph<'float'>, blocks: readonly Mlp[], model: Frontier, changing: Frontier, options: RewriteGeluOptions, context: PassContext): { readonly repaired: Repaired; readonly lines: readonly Line[] } => {
  const byActivation = new Map(blocks.map((mlp) => [mlp.activation, mlp]));
  const expected = new Follower(graph, model, new Set([...blocks.map(({ layer }) => layer.output.name), ...graph.outputs.map(({ value }) => value.name)]));
  // what the layers before activations read, kept for descent alone
  const read = new Map<Node, readonly Float32Array[]>();
  const firsts = new Set(options.steps > 0 ? blocks.flatMap(({ before }) => before ?? []) : []);
  const repaired = new Map<Node, Repair>();
  const lines: Line[] = [];
  const output = new NoiseMeter(heldOut(model.count));
  for (const [index, node] of graph.nodes.entries()) {
    context.progress('rewrite-gelu', index, graph.nodes.length);
    if (firsts.has(node)) read.set(node, Array.from({ length: changing.count }, (_, i) => (changing.realsOf(node.inputs['x'] as Value, i).data as Float32Array).slice()));
    const mlp = byActivation.get(node);
    if (mlp !== undefined) {
      const inputs = mlp.before === null ? undefined : read.get(mlp.before);
      const weights = options.importance === 'forward' ? tokenImportance(graph, mlp.layer.output, spreadSamples(context.calibration!.samples, 0, 0.5, DISTURBED), TOKEN_GROUPS, context.seed) : null;
      const { fit, line } = fitted(mlp, changing, expected.resultsOf(mlp.layer.output.name), inputs ?? null, weights, options, context);
      lines.push(line);
      if (mlp.before !== null) read.delete(mlp.before);
      if (fit !== null) {
        repaired.set(mlp.layer, { mlp, ...fit });
        if (fit.first !== null) repaired.set(mlp.before!, { mlp, ...fit });
        const { type } = node.output;
        changing.settle(node, Array.from({ length: changing.count }, (_, i) =>
          (fit.first === null ? rectified(changing.realsOf(node.inputs['x'] as Value, i)) : { type, data: hiddenRows(fit.first, inputs![i]) })));
        continue;
      }
    }
    const own = repaired.get(node);
    const results = changing.evaluate(own === undefined ? node : { ...node, inputs: { ...node.inputs, ...constantsOf(node, own.second, looseConstant) } });
    changing.settle(node, results);
    if (graph.outputs.some(({ value }) => value === node.output)) output.add(results, expected.resultsOf(node.output.name));
  }
  context.note({ site: null, text: 'the float model with ReLU', figures: { floatSqnrDb: output.sqnrDb() } });
  return { repaired, lines };
};

/** Samples that are disturbed to weigh tokens, and runs of positions that are weighed apart. */
const [DISTURBED, TOKEN_GROUPS] = [4, 8];
/** Tokens of a step of descent. */
const BATCH = 256;

const rectified = ({ type, data }: Tensor): Tensor => ({ type, data: (data as Float32Array).map((x) => Math.max(0, x)) });

/** Samples from this one on are kept apart. */
const heldOut = (count: number): number => (count === 1 ? 0 : Math.ceil(count * (1 - HELD_OUT)));

/** The layers of a block that fit its outputs best with ReLU between them; none where they stay too far from them. */
const fitted = (
  { activation, layer, before: maker }: Mlp, changing: Frontier, targets: readonly Tensor[], read: readonly Float32Array[] | null, importance: Float32Array | null,
  options: RewriteGeluOptions, context: PassContext,
): { readonly fit: Fit | null; readonly line: Line } => {
  const [outputs, hidden] = [channelsOf(layer.output), channelsOf(activation.output)];
  const [fit, held] = [mlpSums(hidden, outputs), mlpSums(hidden, outputs)];
  const neurons = neuronSums(hidden);
  const before = (i: number): Float32Array => changing.realsOf(activation.inputs['x'] as Value, i).data as Float32Array;
  const after = changing.evaluate(activation);
  const kept = heldOut(changing.count);
  const fitting = targets.slice(0, Math.max(1, kept));
  const ceiling = options.clamp < 1 ? positiveQuantile(fitting.map((_, i) => after[i].data as Float32Array), options.clamp) : Infinity;
  const weights = importance ?? undefined;
  targets.forEach(({ data }, i) => {
    const rows = before(i).map((x) => Math.max(0, x));
    const y = data as Float32Array;
    if (i >= kept) held.add(rows, y, weights);
    if (i >= kept && kept > 0) return;
    fit.add(rows, y, weights);
    neurons.add(before(i), after[i].data as Float32Array, weights);
    if (ceiling < Infinity) fit.add(clamped(rows, ceiling), y, new Float32Array(rows.length / hidden).fill(CLAMPED_WEIGHT).map((two, t) => two * (importance?.[t] ?? 1)));
  });
  const original = secondLayer(layer);
  const ladder: readonly { readonly step: string; readonly first: SecondLayer | null; readonly second: SecondLayer; readonly error: number }[] = [
    { step: 'bias', second: fit.withMean(original) },
    { step: 'neurons', second: fit.withMean(withNeurons(original, neurons.fit())) },
    ...DAMPINGS.map((share) => ({ step: `ridge ${share}`, second: fit.ridge(original, share) })),
  ].map((one) => ({ ...one, first: null, error: held.relativeError(one.second) }));
  const closed = ladder.reduce((least, one) => (one.error < least.error ? one : least));
  const descended = read === null || maker === null ? null : descendedFrom(closed.second, secondLayer(maker), read, fitting, targets.slice(kept), importance, ceiling, options, context.seed);
  const best = descended !== null && descended.error < closed.error ? descended : closed;
  const accepted = best.error <= options.threshold;
  const swapped = held.relativeError(original);
  return {
    fit: accepted ? best : null,
    line: {
      note: {
        site: activation.output.name, text: accepted ? `ReLU, repaired by ${best.step}` : `keeps ${activation.op}`,
        figures: { swapped, bias: ladder[0].error, neurons: ladder[1].error, closed: closed.error, best: best.error },
      },
      siteDb: accepted ? { before: decibels(1, swapped), after: decibels(1, best.error) } : null,
      saved: { bytes: accepted ? -TABLE_BYTES : 0, operations: 0 },
    },
  };
};

/** Both layers by descent from the best closed form. */
const descendedFrom = (
  second: SecondLayer, first: SecondLayer, read: readonly Float32Array[], fitting: readonly Tensor[], held: readonly Tensor[], importance: Float32Array | null,
  ceiling: number, { steps, rate }: RewriteGeluOptions, seed: number,
): { readonly step: string; readonly first: SecondLayer; readonly second: SecondLayer; readonly error: number } => {
  const rowsOf = (lists: readonly Float32Array[]): Float32Array => {
    const all = new Float32Array(lists.reduce((sum, { length }) => sum + length, 0));
    lists.reduce((at, list) => { all.set(list, at); return at + list.length; }, 0);
    return all;
  };
  const weights = importance === null ? null : rowsOf(fitting.map(() => importance));
  const tokens = { x: rowsOf(read.slice(0, fitting.length)), y: rowsOf(fitting.map(({ data }) => data as Float32Array)), importance: weights };
  const found = descend({ first, second }, tokens, { steps, batch: BATCH, rate, ceiling, seed });
  const meter = mlpSums(first.bias.length, second.bias.length);
  held.forEach(({ data }, i) => meter.add(hiddenRows(found.first, read[read.length - held.length + i]), data as Float32Array, importance ?? undefined));
  return { step: `${steps} steps of descent`, ...found, error: meter.relativeError(found.second) };
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
  const old = node.inputs['weight'] as Value;
  return {
    weight: constant(old.name, tensor(old.type, Float32Array.from(weight))),
    bias: constant(biasName(node), tensor(f32(bias.length), Float32Array.from(bias))),
  };
};
const rewritten = (graph: Graph<'float'>, repaired: Repaired): Graph<'float'> => {
  const replaced = new Set([...repaired.values()].map(({ mlp }) => mlp.activation));
  return mapGraph(graph, 'float', (node, now, b) => {
    if (replaced.has(node)) {
      const site = joinSites(node.site, { origins: [], passes: ['rewrite-gelu'] });
      return b.emit(relu, { x: now(node.inputs['x'] as Value) }, {}, { replaces: node.output, site });
    }
    const own = repaired.get(node);
    const layer = own === undefined ? null : node === own.mlp.before ? own.first : own.second;
    return layer === null ? null : b.copy(node, { ...mapOperands(node, now), ...constantsOf(node, layer, (stem, made) => b.constant(stem, made)) });
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
