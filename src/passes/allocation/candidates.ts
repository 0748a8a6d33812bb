/** Networks that are judged whole: as the pipeline makes them, with what their programs really cost. */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import type { Graph } from '../../ir/graph.ts';
import type { PassContext, TargetPrice } from '../pass.ts';
import type { Meter } from './costs.ts';
import type { Judge, Judgement } from './judge.ts';
import type { Solution } from './solver.ts';
import type { Variants, Widths } from './variants.ts';

export interface Candidate {
  readonly name: string;
  readonly widths: Widths;
  /** of the programme that it was compared with or began from; null for a uniform network as it is */
  readonly solution: Solution | null;
  /** layers whose widths measuring around that solution has changed */
  readonly refined: number;
  readonly judgement: Judgement;
  /** of the network with these widths, on each target */
  readonly prices: readonly TargetPrice[];
}

export interface Trial {
  of(draft: Pick<Candidate, 'name' | 'widths' | 'solution' | 'refined'>): Promise<Candidate>;
  quantized(widths: Widths): Promise<Graph<'quant'>>;
}
export const openTrial = (variants: Variants, context: PassContext, judge: Judge): Trial => {
  const known = new Map<string, Promise<Graph<'quant'>>>();
  const quantized = (widths: Widths): Promise<Graph<'quant'>> => {
    const key = JSON.stringify([...widths]);
    const found = known.get(key) ?? variants.quantized(widths);
    known.set(key, found);
    return found;
  };
  return {
    quantized,
    async of(draft) {
      const graph = await quantized(draft.widths);
      return { ...draft, judgement: await judge.of(graph), prices: context.prices?.(await variants.lowered(graph)) ?? [] };
    },
  };
};

/** Real cost of a candidate on a meter whose cost can be read off its programs. */
export const realCost = ({ prices }: Pick<Candidate, 'prices'>, { resource, target }: Meter): number | null => {
  const price = prices.find((one) => one.target === target);
  if (price === undefined || resource === 'bops') return null;
  return resource === 'size' ? price.weightBytes : resource === 'ram' ? price.arenaBytes : price.steps.reduce((sum, { microseconds }) => sum + (microseconds ?? 0), 0);
};

/** Bytes on the target that takes most. */
export const sizeOf = ({ prices }: Candidate): number => Math.max(0, ...prices.map(({ weightBytes }) => weightBytes));

/** Programs of a choice take more than predicted where steps are shared or aligned otherwise: then limits are tightened and the choice made again, as often as this. */
const MOST_REPAIRS = 5;

/** The first candidate whose real program keeps all limits, found within limits that tighten by what the one before took too much. */
export const withinReally = async (meters: readonly Meter[], choose: (limits: readonly number[]) => Promise<Candidate>): Promise<Candidate> => {
  const limits = meters.map(({ most }) => most);
  for (let attempt = 0; ; attempt++) {
    const candidate = await choose(limits);
    const excess = meters.map((meter) => Math.max(0, (realCost(candidate, meter) ?? 0) - meter.most));
    if (excess.every((over) => over === 0)) return candidate;
    if (attempt === MOST_REPAIRS) {
      const broken = meters.find((_, r) => excess[r] > 0)!;
      throw new CompileError(errors.limitTooSmall(broken.resource, broken.most, realCost(candidate, broken)!), 'budget');
    }
    excess.forEach((over, r) => { limits[r] -= over; });
  }
};

/** For searches to which limits that cannot be met are an answer; every other failure stays one. */
export const infeasible = (cause: unknown): null => {
  if (cause instanceof CompileError && cause.kind === 'budget') return null;
  throw cause;
};
