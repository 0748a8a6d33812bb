/**
 * From a budget to the widths of every layer: prices and sensitivities into one programme; its answers, and uniform networks, composed and
 * measured whole, for sums of single losses ignore what layers do to each other; the best of them refined by measuring around it; and that
 * one beside the widest uniform network tried out as the pipeline makes them. So the result is never worse than uniform bits within the
 * same budget, as far as the samples tell, and what is promised is what was measured.
 */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import { constantOf, operandsOf, type Graph } from '../../ir/graph.ts';
import { fineness, isAtLeast, printWeights, printWidths, uniformWidth, type ChosenWidths, type WeightWidth } from '../../ir/ops/widths.ts';
import { digestOf } from '../../ir/weights.ts';
import { printGraph } from '../../ir/print.ts';
import { lastSamples } from '../../calibration/samples.ts';
import { keptWidths } from '../kept-layers.ts';
import type { PassContext, TargetPrice } from '../pass.ts';
import type { Budget } from './budget.ts';
import { infeasible, openTrial, realCost, withinReally, type Candidate, type Trial } from './candidates.ts';
import { metersOf, type Meter, type UniformPrices } from './costs.ts';
import { openJudge, type Judge, type Judgement } from './judge.ts';
import { layersOf, tiedByReading, tiedHeads, type Layer } from './layers.ts';
import { measures } from './measures.ts';
import { frameOf, programmeOf, widthsOf, type Material, type Modelled } from './modelling.ts';
import { isFeasible, type Assignment, type Programme } from './programme.ts';
import { bestAmong, FEW_GROUPS, fittedSteps, judged, objectiveIn, refined, stepsAround, worseIn, type Comparison, type Objective, type Refinement } from './refine.ts';
import { baseWidths, stoodFor, type LossTable } from './sensitivity.ts';
import { smallestWithin, type Dropped } from './smallest.ts';
import { defaultSolverOptions, solve, type Engine, type Solution, type SolverOptions } from './solver.ts';
import { narrowTables, withTableBits, type TableBits } from './tables.ts';
import { openVariants, type Variants } from './variants.ts';

export interface AllocationRequest {
  readonly budget: Budget;
  readonly measure: string;
  /** widths of weights, and of activations, that layers may have */
  readonly weights: readonly number[];
  readonly activations: readonly number[];
  /** widths of weights, among those, at which they may be places in a codebook as well */
  readonly codebooks: readonly number[];
  readonly keep: readonly string[];
  /** most samples on which single layers are measured; fewer where the network is large */
  readonly samples: number;
  readonly gap: number;
  readonly seconds: number;
}

/** Everything that was known when bits were chosen: material of the report. */
export interface Workings extends Material {
  readonly prices: UniformPrices;
  readonly engine: Engine;
  /** of the networks that are tried out */
  readonly judge: Judge;
}
export interface Allocation {
  readonly chosen: Candidate;
  /** embeddings that are narrower than the sums they enter */
  readonly tables: TableBits;
  readonly candidates: readonly Candidate[];
  /** that the chosen candidate began with */
  readonly table: LossTable;
  readonly workings: Workings;
  /** measured on held-out data; null where the budget names no drop */
  readonly drop: Dropped | null;
}

/**
 * Multiplications that judgements may take, which decides on how many samples each is made: one of a network that is tried out, of which there
 * are few, on all samples if possible; and one of a composed network; all those of the table of sensitivities together, and all steps around one network together.
 */
const WORK = { tried: 4e10, composed: 4e9, table: 4e10, steps: 4e10 };
const FEWEST_SAMPLES = 8;
/** Choices of a layer that are measured around a network: one wider, one narrower. */
const STEPS = 2;

export const allocate = async (given: Graph<'float'>, request: AllocationRequest, context: PassContext, engine: Engine): Promise<Allocation> => {
  const { budget } = request;
  if (context.calibration === null) throw new CompileError(errors.needsData('allocate-bits'), 'usage');
  if (context.prices === null && (budget.size !== null || budget.ram !== null || budget.latency !== null)) throw new CompileError(errors.noTargetToPrice(), 'usage');
  const { samples } = context.calibration;
  const most = Math.min(request.samples, samples.count);
  const affordable = (work: number, each: number, limit = most): number => Math.max(Math.min(FEWEST_SAMPLES, limit), Math.min(limit, Math.floor(work / each)));
  // weights are fitted on the first samples, so the last ones tell more
  const judgeOf = (count: number): Promise<Judge> => openJudge(given, { samples: lastSamples(samples, count), labels: null }, count);
  const macs = layersOf(given).reduce((sum, layer) => sum + layer.macs, 1);
  const composed = affordable(WORK.composed, macs);
  const tables = await narrowTables(given, request.weights, budget.size, () => judgeOf(composed), context);
  const graph = withTableBits(given, tables);
  context.calibration.sameValues?.(graph, given);
  const layers = layersOf(graph);
  const keep = keptWidths(request.keep, graph);
  const kept = layers.map(({ node }) => keep(node));
  const offered = request.weights.flatMap((bits): readonly WeightWidth[] => [uniformWidth(bits), ...(request.codebooks.includes(bits) ? [{ bits, format: 'codebook' } as const] : [])]);
  const priceable = [...new Map([...offered, ...[8, ...kept.filter((bits) => bits !== null)].map(uniformWidth)].map((width) => [printWeights(width), width])).values()];
  const variants = openVariants(graph, layers, priceable, context);
  const { prices, choices } = await priced(layers, kept, request.activations, priceable, offered, variants, context);
  const wide: Budget = { ...budget, size: budget.size ?? (budget.drop === null ? null : Infinity) };
  const { meters, missing } = metersOf(wide, layers, prices);
  if (missing.length > 0) throw new CompileError(errors.noTimings(missing), 'usage');
  const useful = choices.map((list, i) => withoutUseless(list, layers[i], meters));
  const groups = request.activations.length > 1 ? tiedByReading(graph, layers) : tiedHeads(graph, layers);
  const counts = {
    composed,
    tried: affordable(WORK.tried, macs, samples.count),
    table: affordable(WORK.table, tailWork(graph, layers, (i) => useful[i].filter((widths) => !stoodFor(widths, useful[i])).length)),
    steps: affordable(WORK.steps, tailWork(graph, layers, () => STEPS)),
  };
  const all = await judgeOf(Math.max(...Object.values(counts)));
  const judge = all.onFirst(counts.tried);
  const workings: Workings = { layers, choices: useful, groups, meters, prices, kept, engine, judge };
  checkKept(workings, request.keep);
  const content = digestOf(new TextEncoder().encode(JSON.stringify([printGraph(graph), samples.digest, counts, context.rest.map(({ pass, options }) => [pass.name, options])])));
  const remember = async <T>(key: string, compute: () => Promise<T>): Promise<T> => {
    const known = context.store?.get(`${content} ${key}`);
    if (known !== undefined) return known as T;
    const found = await compute();
    context.store?.put(`${content} ${key}`, found);
    return found;
  };
  const measure = measures.find(({ name }) => name === request.measure)!;
  const losses = await measure.tables({
    graph, layers, choices: useful, variants, judge: all.onFirst(counts.table), context, remember, progress: (done, total) => context.progress(`sensitivity (${measure.name})`, done, total),
  });
  const trial = openTrial(variants, context, judge);
  const search = openSearch(workings, losses, { variants, judge: all.onFirst(counts.composed), single: all.onFirst(counts.steps), remember }, trial, { ...defaultSolverOptions, gap: request.gap, seconds: request.seconds }, context);
  if (budget.drop !== null) return { ...await smallestWithin(budget.drop, search, workings, variants, context, trial, graph), tables };
  const best = await search.fitting(meters);
  const uniform = await search.widestUniform(meters);
  const objective = worseIn((uniform ?? best.candidate).judgement);
  // rounded together, uniform weights make up for each other better than composing foretold: then its neighbourhood is worth a try
  const near = uniform !== null && objective(uniform.judgement) < objective(best.candidate.judgement) ? await search.nearUniform(meters, objective, uniform) : null;
  const candidates = [best.candidate, ...(near === null ? [] : [near]), ...(uniform === null ? [] : [uniform])];
  const chosen = candidates.reduce((least, one) => (objective(one.judgement) < objective(least.judgement) ? one : least));
  return { chosen, tables, candidates, table: best.table, workings, drop: null };
};

/** Multiplications for one sample when the network is run from each layer on, as often as there are choices of it. */
const tailWork = (graph: Graph<'float'>, layers: readonly Layer[], choices: (layer: number) => number): number => {
  const position = new Map(graph.nodes.map((node, i) => [node, i]));
  const after = (layer: Layer): number => layers.reduce((sum, { node, macs }) => sum + (position.get(node)! >= position.get(layer.node)! ? macs : 0), 0);
  return layers.reduce((sum, layer, i) => sum + choices(i) * after(layer), 1);
};

// ---- the search within limits

/** Networks near a uniform one that are tried out, each with half as many steps as the one before. */
const MOST_ATTEMPTS = 5;

export interface Found {
  readonly candidate: Candidate;
  readonly table: LossTable;
}
export interface Draft {
  readonly name: string;
  readonly table: LossTable;
  readonly model: Modelled;
  readonly assignment: Assignment;
  /** to the table; beside a uniform network what it was compared with */
  readonly solution: Solution;
}
/** Ways to widths within limits; throws where none keeps them. */
export interface Search {
  /** what composed networks say is best: of the answers to each table, those among choices near the widest uniform network, and that one itself */
  start(meters: readonly Meter[], limits: readonly number[]): Promise<Draft>;
  /** the start, refined, as a whole network that really keeps the limits */
  fitting(meters: readonly Meter[]): Promise<Found>;
  /** null where none fits */
  widestUniform(meters: readonly Meter[]): Promise<Candidate | null>;
  /** a network some steps from that one which proves better as a whole; null where none fits or was found */
  nearUniform(meters: readonly Meter[], objective: Objective, uniform: Candidate): Promise<Candidate | null>;
}

const openSearch = (workings: Workings, tables: readonly LossTable[], comparison: Comparison, trial: Trial, options: SolverOptions, context: PassContext): Search => {
  const { engine } = workings;
  let objective: Objective | null = null;
  const start: Search['start'] = async (meters, limits) => {
    const material = { ...workings, meters };
    const drafts: Draft[] = [];
    const [uniform] = uniformsWithin(material, limits);
    for (const table of tables) {
      const model = programmeOf(material, table, limits);
      const solution = await solve(model.programme, engine, options);
      drafts.push({ name: table.name, table, model, assignment: solution.assignment, solution });
      for (const wider of uniform === undefined ? [] : [NEAR_BITS, 0]) {
        const { programme, choices } = besides(model, uniform.assignment, wider);
        const near = await solve(programme, engine, options);
        drafts.push({ name: `${table.name} ${wider === 0 ? 'within' : 'near'} ${uniform.name}`, table, model, assignment: near.assignment.map((choice, g) => choices[g][choice]), solution });
      }
    }
    if (uniform !== undefined) drafts.push({ ...uniform, table: tables[0], solution: drafts[0].solution });
    const judgements: Judgement[] = [];
    for (const { model, assignment } of drafts) judgements.push(await judged(comparison, widthsOf(material, model, assignment)));
    objective ??= objectiveIn(judgements.at(-1)!);
    const losses = judgements.map(objective);
    return drafts[losses.indexOf(Math.min(...losses))];
  };
  const request = (material: Material, limits: readonly number[]): Refinement => ({
    material, limits, engine, options, comparison, objective: objective!, progress: (done, total) => context.progress('refine', done, total),
  });
  const tryOut = (name: string, model: Modelled, from: Assignment, to: Assignment, material: Material, solution: Solution): Promise<Candidate> => {
    context.progress('try out widths', 0, 2);
    return trial.of({ name, widths: widthsOf(material, model, to), solution, refined: to.filter((choice, g) => choice !== from[g]).length });
  };
  let solution: Solution | null = null;
  return {
    start,
    async fitting(meters) {
      let last: Draft | null = null;
      const candidate = await withinReally(meters, async (limits) => {
        const { name, model, assignment, solution: own } = last = await start(meters, limits);
        solution = own;
        const material = { ...workings, meters };
        return tryOut(name, model, assignment, await refined(assignment, request(material, limits)), material, own);
      });
      return { candidate, table: last!.table };
    },
    async nearUniform(meters, real, uniform) {
      const material = { ...workings, meters };
      const limits = meters.map(({ most }) => most);
      const start = uniformsWithin(material, limits).find(({ name }) => name === uniform.name)!;
      for (const measured of material.groups.length > FEW_GROUPS ? [stepsAround] : [stepsAround, fittedSteps]) {
        const steps = await measured(start.assignment, request(material, limits));
        for (let most = Infinity, attempt = 0; most >= 1 && attempt < MOST_ATTEMPTS; attempt++) {
          const candidate = await withinReally(meters, async (tightened) => {
            const to = await bestAmong(start.assignment, steps, request(material, tightened), most);
            return tryOut(start.name, start.model, start.assignment, to, material, solution!);
          }).catch(infeasible);
          if (candidate === null || candidate.refined === 0) break;
          if (real(candidate.judgement) < real(uniform.judgement)) return candidate;
          most = Math.floor(Math.min(most, candidate.refined) / 2);
        }
      }
      return null;
    },
    async widestUniform(meters) {
      const material = { ...workings, meters };
      context.progress('try out widths', 1, 2);
      for (const { name, model, assignment } of uniformsWithin(material, meters.map(({ most }) => most))) {
        const candidate = await trial.of({ name, widths: widthsOf(material, model, assignment), solution: null, refined: 0 });
        if (meters.every((meter) => (realCost(candidate, meter) ?? 0) <= meter.most)) return candidate;
      }
      return null;
    },
  };
};

/** How far from the bits of a uniform network a programme near it may go. */
const NEAR_BITS = 1;

/**
 * The programme with choices near those of an assignment alone: of many choices some look better than they are, for their losses are
 * measured on few samples, and the best of all is likely such a one. `wider`: bits that a layer may have more; with none, formats and the few
 * layers that pay for them are all there is to choose. `choices`: which of all choices each group has left.
 */
const besides = ({ programme, options }: Modelled, assignment: Assignment, wider: number): { readonly programme: Programme; readonly choices: readonly (readonly number[])[] } => {
  const choices = options.map((list, g) => [...list.keys()].filter((choice) => list[choice].every(({ weights, activations }, m) => {
    const own = list[assignment[g]][m];
    const more = (weights?.bits ?? 0) - (own.weights?.bits ?? 0);
    return activations === own.activations && more >= -NEAR_BITS && more <= wider;
  })));
  return { choices, programme: { ...programme, groups: programme.groups.map((group, g) => ({ ...group, choices: choices[g].map((choice) => group.choices[choice]) })) } };
};

/** Networks with one width of weights throughout that keep the limits, the widest first; kept layers keep theirs. */
const uniformsWithin = (material: Material, limits: readonly number[]): readonly { readonly name: string; readonly model: Modelled; readonly assignment: Assignment }[] => {
  const model = frameOf(material, limits);
  const widths = new Map(material.choices.flat().flatMap(({ weights }) => (weights === null ? [] : [[printWeights(weights), weights] as const])));
  return [...widths].sort(([, a], [, b]) => fineness(b) - fineness(a)).flatMap(([width]) => {
    const assignment = model.options.map((options) => {
      const found = options.findIndex((members) => members.every(({ weights: own }) => own === null || printWeights(own) === width));
      return found >= 0 ? found : options.length === 1 ? 0 : -1;
    });
    return assignment.some((choice) => choice < 0) || !isFeasible(model.programme, assignment) ? [] : [{ name: `uniform ${width}`, model, assignment }];
  });
};

// ---- prices

const pairs = (weights: readonly WeightWidth[], activations: readonly number[]): readonly ChosenWidths[] =>
  activations.flatMap((own) => [...weights].sort((a, b) => fineness(b) - fineness(a)).map((width) => ({ weights: width, activations: own })));

/** The network at every pair of widths, priced; and what each layer may have. A width that has no integer form on these targets is left out. */
const priced = async (
  layers: readonly Layer[], kept: readonly (number | null)[], activations: readonly number[], priceable: readonly WeightWidth[], offered: readonly WeightWidth[], variants: Variants, context: PassContext,
): Promise<{ readonly prices: UniformPrices; readonly choices: readonly (readonly ChosenWidths[])[] }> => {
  const prices = new Map<string, readonly TargetPrice[]>();
  const possible: ChosenWidths[] = [];
  // a kept layer reads what it multiplies at its own bits, which the others may not be offered
  const own = [...new Set(kept)].filter((bits) => bits !== null && !activations.includes(bits)) as number[];
  const wanted = [...pairs(priceable, activations), ...own.flatMap((bits) => [...new Set([bits, 8])].map((weights) => ({ weights: uniformWidth(weights), activations: bits })))];
  for (const [i, widths] of wanted.entries()) {
    context.progress('price widths', i, wanted.length);
    const kernels = await variants.kernels(widths);
    if (kernels === null) continue;
    prices.set(printWidths(widths), context.prices?.(kernels) ?? []);
    possible.push(widths);
  }
  const fixed = await readsAlike(layers, activations, variants);
  const allowed = new Set(offered.map(printWeights));
  const choices = layers.map(({ parameters }, i): readonly ChosenWidths[] => {
    const own = kept[i];
    const among = possible.filter(({ weights, activations: read }) => (own !== null ? printWeights(weights!) === printWeights(uniformWidth(own)) && read === own : allowed.has(printWeights(weights!)) && activations.includes(read)));
    const list = fixed[i] ? among.map(({ weights }) => ({ weights, activations: baseWidths.activations })) : among;
    const given = own === null ? list : list.map(({ weights }) => ({ weights, activations: own }));
    const mine = parameters > 0 ? given : given.map(({ activations: read }) => ({ weights: null, activations: read }));
    return [...new Map(mine.map((widths) => [printWidths(widths), widths])).values()];
  });
  return { prices, choices };
};

/** Whether what a layer reads has the same codes whatever width is asked for: inputs of the network, pooled vectors. */
const readsAlike = async (layers: readonly Layer[], activations: readonly number[], variants: Variants): Promise<readonly boolean[]> => {
  const other = activations.filter((bits) => bits !== baseWidths.activations);
  if (other.length === 0) return layers.map(() => false);
  const typesAt = async (bits: number): Promise<readonly string[]> => {
    const graph = await variants.uniform({ weights: baseWidths.weights, activations: bits });
    const nodes = new Map(graph.nodes.map((node) => [node.output.name, node]));
    return layers.map(({ name }) => JSON.stringify(operandsOf(nodes.get(name)!).filter((value) => constantOf(value) === null).map(({ type }) => type.quant)));
  };
  const [base, ...others] = await Promise.all([baseWidths.activations, ...other].map(typesAt));
  return layers.map((_, i) => others.every((types) => types[i] === base[i]));
};

/** Widths that cost no less than wider ones on any meter, as far as it can tell, buy nothing and are left out. */
const withoutUseless = (choices: readonly ChosenWidths[], layer: Layer, meters: readonly Meter[]): readonly ChosenWidths[] => {
  const costs = choices.map((widths) => meters.map((meter) => meter.cost(layer, widths)));
  return choices.filter((own, i) => !choices.some((other, j) => j !== i && isAtLeast(other.weights, own.weights) && other.activations >= own.activations
    && costs[j].every((cost, r) => cost * (1 - meters[r].resolution) <= costs[i][r])));
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
