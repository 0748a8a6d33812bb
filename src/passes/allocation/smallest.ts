/**
 * The smallest network within a drop of top-1, measured on samples that nothing else was made with. They are few, and the smallest of
 * several networks that seem to hold is one that they flatter: what has to lie within the drop is the mean and its standard error together.
 * Composed networks say where to look: the range of sizes is halved by them. Around what they find, networks are tried out as the pipeline
 * makes them, which is what counts.
 */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import type { Graph } from '../../ir/graph.ts';
import type { PassContext } from '../pass.ts';
import type { Allocation, Found, Search, Workings } from './allocate.ts';
import { infeasible, sizeOf, type Trial } from './candidates.ts';
import type { Meter } from './costs.ts';
import { openJudge, type Judgement } from './judge.ts';
import { widthsOf, type Material } from './modelling.ts';
import type { Variants } from './variants.ts';

export interface Dropped {
  readonly value: number;
  /** standard error of the value */
  readonly error: number;
  readonly samples: number;
  readonly labelled: boolean;
  readonly tried: readonly { readonly sizeBytes: number; readonly drop: number; readonly error: number }[];
}

/** Most held-out samples. */
const MOST_HELD = 1024;
/** Halvings of the range of sizes with composed networks. */
const HALVINGS = 8;
/** Networks that are tried out, and how far apart their sizes are. */
const TRIALS = 4;
const STRIDE = 0.94;

export const smallestWithin = async (
  most: number, search: Search, workings: Workings, variants: Variants, context: PassContext, trial: Trial, graph: Graph<'float'>,
): Promise<Omit<Allocation, 'tables'>> => {
  const held = context.heldOut ?? { samples: context.calibration!.samples, labels: null };
  const judge = await openJudge(graph, held, MOST_HELD);
  if (judge.classes === null) throw new CompileError(errors.dropNeedsClasses(graph.outputs[0].name), 'usage');
  const within = (sizeBytes: number): readonly Meter[] => workings.meters.map((meter) => (meter.resource === 'size' ? { ...meter, most: Math.min(meter.most, sizeBytes) } : meter));
  const holds = (one: Pick<Judgement, 'drop' | 'dropError'> | null): boolean => one !== null && one.drop! + one.dropError! <= most;
  const least = extremeSize(workings, Math.min);
  const widest = Math.min(extremeSize(workings, Math.max), ...workings.meters.flatMap((meter) => (meter.resource === 'size' ? [meter.most] : [])));

  // ---- where composed networks cross the drop
  let step = 0;
  const composedAt = async (sizeBytes: number): Promise<Judgement | null> => {
    context.progress('smallest network', step++, HALVINGS + TRIALS);
    const meters = within(sizeBytes);
    const draft = await search.start(meters, meters.map((meter) => meter.most)).catch(infeasible);
    return draft === null ? null : judge.of(await variants.composed(widthsOf({ ...workings, meters }, draft.model, draft.assignment)));
  };
  let [low, high] = [least, widest];
  for (let n = 0; n < HALVINGS && high > low * 1.01; n++) {
    const middle = Math.ceil((low + high) / 2);
    if (holds(await composedAt(middle))) high = middle;
    else low = middle;
  }

  // ---- networks as the pipeline makes them
  const tried: Dropped['tried'][number][] = [];
  const wholeAt = async (sizeBytes: number): Promise<(Found & Judgement) | null> => {
    context.progress('smallest network', HALVINGS + Math.min(TRIALS - 1, tried.length), HALVINGS + TRIALS);
    const found = await search.fitting(within(sizeBytes)).catch(infeasible);
    if (found === null) return null;
    const judgement = await judge.of(await trial.quantized(found.candidate.widths));
    tried.push({ sizeBytes: sizeOf(found.candidate), drop: judgement.drop!, error: judgement.dropError! });
    return { ...found, ...judgement };
  };
  let size = Math.ceil(high);
  let best = await wholeAt(size);
  if (holds(best)) {
    // fitted together, weights lose less than composed: smaller ones may do
    while (tried.length < TRIALS && size > least) {
      size = Math.max(Math.ceil(least), Math.floor(Math.min(size, sizeOf(best!.candidate)) * STRIDE));
      const smaller = await wholeAt(size);
      if (!holds(smaller)) break;
      best = smaller;
    }
  } else {
    while (!holds(best) && size < widest) {
      size = tried.length >= TRIALS - 1 ? Math.ceil(widest) : Math.min(Math.ceil(widest), Math.ceil(size / STRIDE));
      best = await wholeAt(size);
    }
  }
  if (best === null) await search.fitting(within(Infinity));
  // the widest has no wider one beside it: its mean decides
  const [drop, error] = [best!.drop!, best!.dropError!];
  if (drop > most) throw new CompileError(errors.dropNotMet(most, drop, judge.count), 'budget');
  return {
    chosen: best!.candidate, candidates: [best!.candidate], table: best!.table, workings,
    drop: { value: drop, error, samples: judge.count, labelled: held.labels !== null, tried },
  };
};

/** Bytes with the fewest (`Math.min`) or the most (`Math.max`) bits everywhere, on the target that takes most. */
export const extremeSize = ({ meters, layers, choices }: Material, pick: (...costs: number[]) => number): number => Math.max(...meters.filter(({ resource }) => resource === 'size').map((meter) =>
  meter.fixed + layers.reduce((sum, layer, i) => sum + pick(...choices[i].map((widths) => meter.cost(layer, widths))), 0)));
