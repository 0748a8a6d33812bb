/**
 * Better widths around those that a programme gave. Its losses were measured one layer at a time in a network of 8 bits; near the answer,
 * where many layers have few bits, the same step costs something else. So each layer's next wider and next narrower width are measured in
 * the network that was chosen, the programme is solved among them, and what comes out is measured; again, as long as that is better.
 */
import { fineness, printWidths, type ChosenWidths } from '../../ir/ops/widths.ts';
import type { Judge, Judgement } from './judge.ts';
import { frameOf, widthsOf, type Material } from './modelling.ts';
import type { Assignment, Programme } from './programme.ts';
import { solve, type Engine, type SolverOptions } from './solver.ts';
import { openTails } from './tails.ts';
import type { Variants, Widths } from './variants.ts';

/** What is to be least: the loss of class probabilities and of the outputs, each in units of a network to compare with; ½ + ½ there. */
export type Objective = (judgement: Judgement) => number;
const LEAST_UNIT = 1e-12;
export const objectiveIn = (unit: Judgement): Objective => ({ kl, noise }) => {
  const quality = noise / Math.max(unit.noise, LEAST_UNIT);
  return kl === null || unit.kl === null ? quality : (kl / Math.max(unit.kl, LEAST_UNIT) + quality) / 2;
};

/** The worse of the two in the same units: below 1 a network is better in both, which is what one that takes the place of the other has to be. */
export const worseIn = (unit: Judgement): Objective => ({ kl, noise }) =>
  Math.max(noise / Math.max(unit.noise, LEAST_UNIT), kl === null || unit.kl === null ? 0 : kl / Math.max(unit.kl, LEAST_UNIT));

export interface Comparison {
  readonly variants: Variants;
  /** of whole networks */
  readonly judge: Judge;
  /** of single steps, of which there are many: on fewer samples */
  readonly single: Judge;
  remember<T>(key: string, measure: () => Promise<T>): Promise<T>;
}

/** Names widths of a whole network, for what is remembered. */
export const keyOf = (widths: Widths): string => [...widths].map(([name, own]) => `${name}=${printWidths(own)}`).join(' ');

/** Judgement of the composed network. */
export const judged = ({ variants, judge, remember }: Comparison, widths: Widths): Promise<Judgement> =>
  remember(`network on ${judge.count} ${keyOf(widths)}`, async () => judge.of(await variants.composed(widths)));

export interface Refinement {
  readonly material: Material;
  readonly limits: readonly number[];
  readonly engine: Engine;
  readonly options: SolverOptions;
  readonly comparison: Comparison;
  readonly objective: Objective;
  progress(done: number, total: number): void;
}

const ROUNDS = 2;
/** A round that improves less than this is the last. */
const WORTHWHILE = 0.01;

export const refined = async (start: Assignment, refinement: Refinement): Promise<Assignment> => {
  const { material, limits, comparison, objective } = refinement;
  const model = frameOf(material, limits);
  const lossOf = async (assignment: Assignment): Promise<number> => objective(await judged(comparison, widthsOf(material, model, assignment)));
  let current = start;
  let loss = await lossOf(current);
  for (let round = 0; round < ROUNDS; round++) {
    const next = await bestAmong(current, await stepsAround(current, refinement, { done: round, of: ROUNDS }), refinement);
    if (next.every((choice, g) => choice === current[g])) break;
    const found = await lossOf(next);
    if (found >= loss) break;
    const gain = 1 - found / loss;
    [current, loss] = [next, found];
    if (gain < WORTHWHILE) break;
  }
  return current;
};

/** For each group its own choice and those next to it, with what they gain. */
export type Steps = readonly (readonly { readonly choice: number; readonly gain: number }[])[];

/** The best assignment among the steps within the limits; `most`: groups that may leave where they stand. */
export const bestAmong = async (current: Assignment, steps: Steps, { material, limits, engine, options }: Refinement, most = Infinity): Promise<Assignment> => {
  const { programme } = frameOf(material, limits);
  const bounded = Number.isFinite(most);
  const local: Programme = {
    limits: [...programme.limits, ...(bounded ? [{ resource: 'changes', most }] : [])],
    groups: programme.groups.map(({ name, choices }, g) => ({
      name,
      choices: steps[g].map(({ choice, gain }) => ({
        ...choices[choice], loss: -gain, usage: [...choices[choice].usage, ...(bounded ? [Number(choice !== current[g])] : [])],
      })),
    })),
  };
  const solution = await solve(local, engine, options);
  return solution.assignment.map((choice, g) => steps[g][choice].choice);
};

/** Groups that `fittedSteps` is worth its time for. */
export const FEW_GROUPS = 32;

/** For each group where it stands and one step up and down, with the gain measured in the composed network. */
export const stepsAround = async (current: Assignment, refinement: Refinement, round = { done: 0, of: 1 }): Promise<Steps> => {
  const { material, limits, comparison } = refinement;
  const { variants, single, remember } = comparison;
  const { options } = frameOf(material, limits);
  const widths = widthsOf(material, { options }, current);
  const key = keyOf(widths);
  const base = await variants.composed(widths);
  const tails = openTails(base, single, material.layers.map(({ name }) => name));
  return stepsBy(current, refinement, await judged({ ...comparison, judge: single }, widths), round, (g, to) => {
    const members = material.groups[g];
    return remember(`${key} but ${members.map((i, m) => `${material.layers[i].name}=${printWidths(to[m])}`).join(' ')}`, async () => {
      if (to.some(({ activations }, m) => activations !== options[g][current[g]][m].activations)) return single.of(await variants.composed(withGroup(widths, material, g, to)));
      let graph = base;
      for (const [m, i] of members.entries()) {
        const { weights } = to[m];
        if (weights !== null) graph = await variants.withWeight(graph, material.layers[i], weights);
      }
      return tails.of(graph, material.layers[members[0]].name);
    });
  });
};

/** The same with every step fitted anew, in haste: dear, but weights then make up for each other, which composing cannot foretell. */
export const fittedSteps = async (current: Assignment, refinement: Refinement): Promise<Steps> => {
  const { material, limits, comparison: { variants, judge, remember } } = refinement;
  const widths = widthsOf(material, frameOf(material, limits), current);
  const sketched = (own: Widths): Promise<Judgement> => remember(`sketch on ${judge.count} ${keyOf(own)}`, async () => judge.of(await variants.sketched(own)));
  return stepsBy(current, refinement, await sketched(widths), { done: 0, of: 1 }, (g, to) => sketched(withGroup(widths, material, g, to)));
};

const withGroup = (widths: Widths, { groups, layers }: Material, g: number, to: readonly ChosenWidths[]): Widths =>
  new Map([...widths, ...groups[g].map((i, m) => [layers[i].name, to[m]] as const)]);

/** Steps by what they are judged to be; one to more bits gains at least nothing, one to fewer at most nothing. */
const stepsBy = async (
  current: Assignment, { material, limits, objective, progress }: Refinement, base: Judgement, round: { readonly done: number; readonly of: number },
  judgementOf: (group: number, to: readonly ChosenWidths[]) => Promise<Judgement>,
): Promise<Steps> => {
  const { options } = frameOf(material, limits);
  const loss = objective(base);
  const found: { readonly choice: number; readonly gain: number }[][] = [];
  for (const g of material.groups.keys()) {
    progress(round.done * material.groups.length + g, round.of * material.groups.length);
    const own = [{ choice: current[g], gain: 0 }];
    for (const choice of nextTo(options[g], current[g])) {
      const to = options[g][choice];
      const gain = loss - objective(await judgementOf(g, to));
      const more = bitsOf(to) - bitsOf(options[g][current[g]]);
      own.push({ choice, gain: more > 0 ? Math.max(0, gain) : more < 0 ? Math.min(0, gain) : gain });
    }
    found.push(own);
  }
  return found;
};

const weightBits = (members: readonly ChosenWidths[]): number => members.reduce((sum, { weights }) => sum + (weights?.bits ?? 0), 0);
const activationBits = (members: readonly ChosenWidths[]): number => members.reduce((sum, { activations }) => sum + activations, 0);
const finenessOf = (members: readonly ChosenWidths[]): number => members.reduce((sum, { weights }) => sum + (weights === null ? 0 : fineness(weights)), 0);
const bitsOf = (members: readonly ChosenWidths[]): number => weightBits(members) + activationBits(members);

/** Choices with the next more and the next fewer bits, of the weights alone and of the activations alone; of formats the finest; and another format of the same bits. */
const nextTo = (options: readonly (readonly ChosenWidths[])[], at: number): readonly number[] => {
  const alike = (own: (members: readonly ChosenWidths[]) => number, o: number): number => own(options[o]) - own(options[at]);
  const others = [...options.keys()].filter((o) => o !== at);
  const nearest = (among: readonly number[], own: (members: readonly ChosenWidths[]) => number, sign: number): readonly number[] => {
    const far = (o: number): number => sign * alike(own, o);
    const there = among.filter((o) => far(o) > 0);
    const next = Math.min(...there.map(far));
    return there.filter((o) => far(o) === next).sort((a, b) => finenessOf(options[b]) - finenessOf(options[a])).slice(0, 1);
  };
  const sameActivations = others.filter((o) => options[o].every(({ activations }, m) => activations === options[at][m].activations));
  const sameWeights = others.filter((o) => alike(finenessOf, o) === 0);
  return [...new Set([
    ...[1, -1].flatMap((sign) => [...nearest(sameActivations, weightBits, sign), ...nearest(sameWeights, activationBits, sign)]), ...sameActivations.filter((o) => alike(weightBits, o) === 0),
  ])];
};
