/**
 * From a budget to the widths of every layer: prices and sensitivities into one programme, its answers tried out in the network as the
 * pipeline rounds it, the best one kept. Sums of single losses ignore what layers do to each other; so several answers (one for each table
 * of the measure, and the widest uniform network that fits) are judged whole, and what is promised is what was measured.
 */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import type { Graph } from '../../ir/graph.ts';
import { printWidths, type ChosenWidths } from '../../ir/ops/widths.ts';
import { digestOf } from '../../ir/weights.ts';
import { printGraph } from '../../ir/print.ts';
import { keptWidths } from '../kept-layers.ts';
import type { PassContext, TargetPrice } from '../pass.ts';
import type { Budget } from './budget.ts';
import { metersOf, type Meter, type UniformPrices } from './costs.ts';
import { openJudge, type Judge, type Judgement } from './judge.ts';
import { layersOf, tiedByReading, type Layer } from './layers.ts';
import { isFeasible, type Assignment, type Group, type Programme } from './programme.ts';
import { measures } from './measures.ts';
import type { LossTable } from './sensitivity.ts';
import { defaultSolverOptions, solve, type Engine, type Solution } from './solver.ts';
import { openVariants, type Variants } from './variants.ts';

export interface AllocationRequest {
  readonly budget: Budget;
  readonly measure: string;
  /** widths of weights, and of activations, that layers may have */
  readonly weights: readonly number[];
  readonly activations: readonly number[];
  readonly keep: readonly string[];
  /** most samples on which single layers are measured; fewer where the network is large */
  readonly samples: number;
  readonly gap: number;
  readonly seconds: number;
}

/** An assignment of widths, by the name of the layer. */
export type Widths = ReadonlyMap<string, ChosenWidths>;

/** Everything that was known when bits were chosen: material of the report. */
export interface Workings {
  readonly layers: readonly Layer[];
  readonly choices: readonly (readonly ChosenWidths[])[];
  readonly groups: readonly (readonly number[])[];
  readonly meters: readonly Meter[];
  readonly prices: UniformPrices;
  readonly kept: readonly (number | null)[];
  readonly engine: Engine;
  readonly judge: Judge;
}
export interface Candidate {
  readonly name: string;
  readonly widths: Widths;
  /** null for networks that no programme gave */
  readonly solution: Solution | null;
  readonly judgement: Judgement;
  /** of the network with these widths, on each target */
  readonly prices: readonly TargetPrice[];
}
export interface Allocation {
  readonly chosen: Candidate;
  readonly candidates: readonly Candidate[];
  readonly table: LossTable;
  readonly workings: Workings;
  /** measured on held-out data; null where the budget names no drop */
  readonly drop: { readonly value: number; readonly samples: number; readonly labelled: boolean; readonly tried: readonly { readonly sizeBytes: number; readonly drop: number }[] } | null;
}

/** Multiplications that sensitivity may take together; it decides on how many samples layers are measured. */
const WORK = 1.2e11;
const FEWEST_SAMPLES = 8;

export const allocate = async (graph: Graph<'float'>, request: AllocationRequest, context: PassContext, engine: Engine): Promise<Allocation> => {
  const { budget } = request;
  if (context.calibration === null) throw new CompileError(errors.needsData('allocate-bits'), 'usage');
  if (context.prices === null && (budget.size !== null || budget.ram !== null || budget.latency !== null)) throw new CompileError(errors.noTargetToPrice(), 'usage');
  const layers = layersOf(graph);
  const keep = keptWidths(request.keep, graph);
  const kept = layers.map(({ node }) => keep(node));
  const variants = openVariants(graph, layers, context);
  const progress = (label: string) => (done: number, total: number): void => context.progress(label, done, total);
  const { prices, choices } = await priced(layers, kept, request, variants, context);
  const wide: Budget = { ...budget, size: budget.size ?? (budget.drop === null ? null : Infinity) };
  const { meters, missing } = metersOf(wide, layers, prices);
  if (missing.length > 0) throw new CompileError(errors.noTimings(missing), 'usage');
  const useful = choices.map((list, i) => withoutUseless(list, layers[i], meters));
  const groups = request.activations.length > 1 ? tiedByReading(graph, layers) : layers.map((_, i) => [i]);
  const runs = useful.reduce((sum, list) => sum + list.length, 0);
  const macs = layers.reduce((sum, layer) => sum + layer.macs, 0) || 1;
  const count = Math.max(Math.min(FEWEST_SAMPLES, request.samples), Math.min(request.samples, Math.floor(WORK / (macs * runs))));
  const judge = await openJudge(graph, { samples: context.calibration.samples, labels: null }, count);
  const workings: Workings = { layers, choices: useful, groups, meters, prices, kept, engine, judge };
  checkKept(workings, request.keep);
  const measure = measures.find(({ name }) => name === request.measure)!;
  const content = digestOf(new TextEncoder().encode(JSON.stringify([printGraph(graph), context.calibration.samples.digest, judge.count, context.rest.map(({ pass, options }) => [pass.name, options])])));
  const tables = await measure.tables({
    graph, layers, choices: useful, variants, judge, context, progress: progress(`sensitivity (${measure.name})`),
    async remember<T>(key: string, compute: () => Promise<T>): Promise<T> {
      const known = context.store?.get(`${content} ${key}`);
      if (known !== undefined) return known as T;
      const found = await compute();
      context.store?.put(`${content} ${key}`, found);
      return found;
    },
  });
  const trial = openTrial(variants, context, judge);
  if (budget.drop !== null) return smallestWithin(budget.drop, tables[0], workings, request, context, trial, graph);
  const candidates: Candidate[] = [];
  for (const [i, table] of tables.entries()) {
    context.progress('try out widths', i, tables.length + 1);
    candidates.push(await fitting(table, workings, request, trial));
  }
  const uniform = await widestUniform(workings, trial);
  if (uniform !== null) candidates.push(uniform);
  const best = candidates.reduce((least, one) => (lossOf(one.judgement) < lossOf(least.judgement) ? one : least));
  const table = tables[Math.max(0, candidates.indexOf(best)) % tables.length];
  return { chosen: best, candidates, table, workings, drop: null };
};

export const lossOf = ({ kl, noise }: Judgement): number => kl ?? noise;

// ---- prices

const pairs = (request: AllocationRequest): readonly ChosenWidths[] =>
  request.activations.flatMap((activations) => [...request.weights].sort((a, b) => b - a).map((weights) => ({ weights, activations })));

/** The network at every pair of widths, priced; and what each layer may have. A width that has no integer form on these targets is left out. */
const priced = async (
  layers: readonly Layer[], kept: readonly (number | null)[], request: AllocationRequest, variants: Variants, context: PassContext,
): Promise<{ readonly prices: UniformPrices; readonly choices: readonly (readonly ChosenWidths[])[] }> => {
  const prices = new Map<string, readonly TargetPrice[]>();
  const possible: ChosenWidths[] = [];
  const wanted = pairs({ ...request, weights: [...new Set([...request.weights, 8, ...kept.filter((bits) => bits !== null)])] });
  for (const [i, widths] of wanted.entries()) {
    context.progress('price widths', i, wanted.length);
    const kernels = await variants.kernels(widths);
    if (kernels === null) continue;
    prices.set(printWidths(widths), context.prices?.(kernels) ?? []);
    possible.push(widths);
  }
  const choices = layers.map(({ parameters }, i): readonly ChosenWidths[] => {
    const own = kept[i];
    const list = possible.filter(({ weights }) => own !== null ? weights === own : request.weights.includes(weights!));
    const fixed = own === null ? list : list.map(({ weights }) => ({ weights, activations: own }));
    const mine = parameters > 0 ? fixed : fixed.map(({ activations }) => ({ weights: null, activations }));
    return [...new Map(mine.map((widths) => [printWidths(widths), widths])).values()];
  });
  return { prices, choices };
};

/** Widths that cost no less than wider ones on any meter are not worth measuring. */
const withoutUseless = (choices: readonly ChosenWidths[], layer: Layer, meters: readonly Meter[]): readonly ChosenWidths[] => {
  const costs = choices.map((widths) => meters.map((meter) => meter.cost(layer, widths)));
  return choices.filter((own, i) => !choices.some((other, j) => j !== i && (other.weights ?? 0) >= (own.weights ?? 0) && other.activations >= own.activations
    && costs[j].every((cost, r) => cost <= costs[i][r])));
};

/** A --keep may leave a layer without choice only as far as the others can make up for it; that is the programme's to say. Two in one tie contradict. */
const checkKept = ({ groups, layers, kept, choices }: Workings, keep: readonly string[]): void => {
  for (const group of groups) {
    const widths = new Set(group.map((i) => kept[i]).filter((bits) => bits !== null));
    if (widths.size > 1) throw new CompileError(errors.contradictoryKeep(keep, group.map((i) => layers[i].name)), 'usage');
  }
  const empty = layers.find((_, i) => choices[i].length === 0);
  if (empty !== undefined) throw new CompileError(errors.noWidths(empty.name), 'usage');
};

// ---- the programme

/** Choices of a tied group: the widths that all its members may have; a kept member decides for all. */
const groupChoices = ({ choices, kept, layers }: Workings, group: readonly number[]): readonly (readonly ChosenWidths[])[] => {
  if (group.length === 1) return choices[group[0]].map((widths) => [widths]);
  const leading = group.find((i) => kept[i] !== null) ?? group.find((i) => layers[i].parameters > 0) ?? group[0];
  return choices[leading].map((widths) => group.map((i): ChosenWidths => (layers[i].parameters > 0 ? { weights: widths.weights ?? 8, activations: widths.activations } : { weights: null, activations: widths.activations })));
};

export interface Modelled {
  readonly programme: Programme;
  /** widths by group, choice and member */
  readonly options: readonly (readonly (readonly ChosenWidths[])[])[];
}

export const programmeOf = (workings: Workings, table: LossTable, limits: readonly number[]): Modelled => {
  const { groups, layers, meters } = workings;
  const options = groups.map((group) => groupChoices(workings, group));
  const list = groups.map((group, g): Group => ({
    name: group.map((i) => layers[i].name).join(' = '),
    choices: options[g].map((members) => ({
      name: members.map(printWidths).join(' '),
      loss: group.reduce((sum, i, m) => sum + lossAt(table, i, members[m]), 0),
      usage: meters.map((meter) => group.reduce((sum, i, m) => sum + meter.cost(layers[i], members[m]), 0)),
    })),
  }));
  // a limit that is absent still counts in the report, but binds nothing
  return { options, programme: { groups: list, limits: meters.map(({ label, fixed, resource }, r) => ({ resource: label.startsWith('size on') ? resource : label, most: Math.min(limits[r], 1e15) - fixed, fixed })) } };
};

/** Widths that a tied layer has only because another chose them may not have been measured: then the next measured ones count. */
const lossAt = (table: LossTable, layer: number, widths: ChosenWidths): number => {
  for (let bits = widths.weights ?? 8; bits >= 2; bits--) {
    const found = table.loss(layer, widths.weights === null ? widths : { ...widths, weights: bits });
    if (found !== Infinity || widths.weights === null) return found === Infinity ? 0 : found;
  }
  return 0;
};

export const widthsOf = ({ groups, layers }: Workings, { options }: Modelled, assignment: Assignment): Widths =>
  new Map(groups.flatMap((group, g) => group.map((i, m) => [layers[i].name, options[g][assignment[g]][m]] as const)));

// ---- trying out

interface Trial {
  of(name: string, widths: Widths, solution: Solution | null): Promise<Candidate>;
  quantized(widths: Widths): Promise<Graph<'quant'>>;
}
const openTrial = (variants: Variants, context: PassContext, judge: Judge): Trial => {
  const known = new Map<string, Promise<Graph<'quant'>>>();
  const quantized = (widths: Widths): Promise<Graph<'quant'>> => {
    const key = JSON.stringify([...widths]);
    const found = known.get(key) ?? variants.quantized(widths);
    known.set(key, found);
    return found;
  };
  return {
    quantized,
    async of(name, widths, solution) {
      const graph = await quantized(widths);
      return { name, widths, solution, judgement: await judge.of(graph), prices: context.prices?.(await variants.lowered(graph)) ?? [] };
    },
  };
};

/** Real cost of a candidate on a meter whose cost can be read off its programs. */
export const realCost = ({ prices }: Candidate, { resource, target }: Meter): number | null => {
  const price = prices.find((one) => one.target === target);
  if (price === undefined || resource === 'bops') return null;
  return resource === 'size' ? price.weightBytes : resource === 'ram' ? price.arenaBytes : price.steps.reduce((sum, { microseconds }) => sum + (microseconds ?? 0), 0);
};

const MOST_REPAIRS = 5;

/** Solves, compiles what comes out, and solves again with tighter limits as long as the real program takes more than is allowed. */
const fitting = async (table: LossTable, workings: Workings, request: AllocationRequest, trial: Trial): Promise<Candidate> => {
  const limits = workings.meters.map(({ most }) => most);
  for (let attempt = 0; ; attempt++) {
    const model = programmeOf(workings, table, limits);
    const solution = await solve(model.programme, workings.engine, { ...defaultSolverOptions, gap: request.gap, seconds: request.seconds });
    const candidate = await trial.of(table.name, widthsOf(workings, model, solution.assignment), solution);
    const excess = workings.meters.map((meter) => Math.max(0, (realCost(candidate, meter) ?? 0) - meter.most));
    if (excess.every((over) => over === 0) || attempt === MOST_REPAIRS) {
      const broken = workings.meters.find((_, r) => excess[r] > 0);
      if (broken !== undefined) throw new CompileError(errors.limitTooSmall(broken.resource, broken.most, realCost(candidate, broken)!), 'budget');
      return candidate;
    }
    excess.forEach((over, r) => { limits[r] -= over; });
  }
};

/** The network with one width throughout, the widest that fits; kept layers keep theirs. Null where none fits. */
const widestUniform = async (workings: Workings, trial: Trial): Promise<Candidate | null> => {
  const { choices, meters } = workings;
  const weights = [...new Set(choices.flat().flatMap(({ weights: bits }) => bits ?? []))].sort((a, b) => b - a);
  const empty: LossTable = { name: 'none', loss: () => 0 };
  const model = programmeOf(workings, empty, meters.map(({ most }) => most));
  for (const bits of weights) {
    const assignment = model.options.map((options) => options.findIndex((members) => members.every(({ weights: own }) => own === null || own === bits)));
    const filled = assignment.map((choice, g) => (choice >= 0 ? choice : model.options[g].length === 1 ? 0 : -1));
    if (filled.some((choice) => choice < 0) || !isFeasible(model.programme, filled)) continue;
    const candidate = await trial.of(`uniform w${bits}`, widthsOf(workings, model, filled), null);
    if (meters.every((meter) => (realCost(candidate, meter) ?? 0) <= meter.most)) return candidate;
  }
  return null;
};

// ---- the smallest network within a drop

/** Halvings of the range of sizes. */
const HALVINGS = 7;
/** Most held-out samples. */
const MOST_HELD = 1024;

const smallestWithin = async (
  most: number, table: LossTable, workings: Workings, request: AllocationRequest, context: PassContext, trial: Trial, graph: Graph<'float'>,
): Promise<Allocation> => {
  const held = context.heldOut ?? { samples: context.calibration!.samples, labels: null };
  const judge = await openJudge(graph, held, MOST_HELD);
  if (judge.classes === null) throw new CompileError(errors.dropNeedsClasses(graph.outputs[0].name), 'usage');
  const sizes = workings.meters.map(({ resource }, r) => (resource === 'size' ? r : -1)).filter((r) => r >= 0);
  const tried: { sizeBytes: number; drop: number }[] = [];
  const at = async (sizeBytes: number | null): Promise<{ readonly candidate: Candidate; readonly drop: number }> => {
    context.progress('smallest network within the drop', tried.length, HALVINGS + 1);
    const meters = workings.meters.map((meter, r) => (sizes.includes(r) && sizeBytes !== null ? { ...meter, most: Math.min(meter.most, sizeBytes) } : meter));
    const candidate = await fitting(table, { ...workings, meters }, request, trial);
    const { drop } = await judge.of(await trial.quantized(candidate.widths));
    tried.push({ sizeBytes: sizeOf(candidate), drop: drop! });
    return { candidate, drop: drop! };
  };
  let best = await at(null);
  if (best.drop > most) throw new CompileError(errors.dropNotMet(most, best.drop, judge.count), 'budget');
  const least = extremeSize(workings, Math.min);
  let [low, high] = [least, sizeOf(best.candidate)];
  for (let n = 0; n < HALVINGS && high > low * 1.01; n++) {
    const middle = Math.floor((low + high) / 2);
    const found = await at(Math.max(middle, Math.ceil(least))).catch((cause: unknown) => {
      if (cause instanceof CompileError && cause.kind === 'budget') return null;
      throw cause;
    });
    if (found !== null && found.drop <= most) {
      best = found;
      high = Math.min(middle, sizeOf(found.candidate));
    } else low = middle;
  }
  return {
    chosen: best.candidate, candidates: [best.candidate], table, workings,
    drop: { value: best.drop, samples: judge.count, labelled: held.labels !== null, tried },
  };
};

export const sizeOf = ({ prices }: Candidate): number => Math.max(0, ...prices.map(({ weightBytes }) => weightBytes));

/** Bytes with the fewest (`Math.min`) or the most (`Math.max`) bits everywhere, on the target that takes most. */
export const extremeSize = ({ meters, layers, choices }: Workings, pick: (...costs: number[]) => number): number => Math.max(...meters.filter(({ resource }) => resource === 'size').map((meter) =>
  meter.fixed + layers.reduce((sum, layer, i) => sum + pick(...choices[i].map((widths) => meter.cost(layer, widths))), 0)));
