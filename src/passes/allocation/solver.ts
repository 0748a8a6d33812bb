/**
 * Solving a programme: engines behind one interface, and around them what no engine here gives: feasibility told by name, a proven
 * bound, and an answer checked again in our own arithmetic.
 */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import { improved, isFeasible, leastUsage, lossOf, usageOf, withoutDominated, type Assignment, type Programme } from './programme.ts';

export interface SolverOptions {
  /** relative gap at which an engine may stop */
  readonly gap: number;
  /** 0: the engine is not asked, only for the bound */
  readonly seconds: number;
}

/** What an engine makes of a programme. Fractions are the relaxed solution: a share for each choice of each group. */
export interface Engine {
  readonly name: string;
  /** null where no assignment was found in time */
  solve(programme: Programme, options: SolverOptions): Promise<Found | null>;
  /** the least loss when choices may be mixed, a lower bound of the programme; null where even that is infeasible */
  relaxed(programme: Programme): Promise<{ readonly loss: number } | null>;
}

export interface Found {
  readonly assignment: Assignment;
  /** relative distance from the optimum that the engine has proven; null where it stopped before it had */
  readonly provenGap: number | null;
  /** it stopped because its time was up */
  readonly stopped: boolean;
}

export interface Solution {
  readonly assignment: Assignment;
  readonly loss: number;
  readonly usage: readonly number[];
  /** no assignment has a smaller loss than this */
  readonly bound: number;
  /** (loss − bound)/|bound|, 0 when the answer is proven best */
  readonly gap: number;
  /** the engine ran out of time before it was done */
  readonly stopped: boolean;
}

export const defaultSolverOptions: SolverOptions = { gap: 1e-4, seconds: 8 };

/** The best assignment that was found. Throws, naming the limit and the nearest value that can be met, where there is none. */
export const solve = async (programme: Programme, engine: Engine, options: SolverOptions = defaultSolverOptions): Promise<Solution> => {
  checkLimits(programme);
  const { programme: smaller, kept } = withoutDominated(programme);
  const relaxed = await engine.relaxed(smaller);
  if (relaxed === null) throw new CompileError(await jointlyInfeasible(smaller, engine), 'budget');
  const found = options.seconds > 0 ? await engine.solve(smaller, options) : null;
  if (found !== null && !isFeasible(smaller, found.assignment)) throw new CompileError(errors.internal(`${engine.name} broke a limit`), 'internal');
  const start = found?.assignment ?? frugal(smaller);
  if (start === null) throw new CompileError(errors.noAllocation(options.seconds), 'budget');
  const best = improved(smaller, start);
  const assignment = best.map((choice, g) => kept[g][choice]);
  const loss = lossOf(programme, assignment);
  const proven = found === null || found.provenGap === null ? relaxed.loss : Math.max(relaxed.loss, lossOf(smaller, found.assignment) - found.provenGap * Math.abs(lossOf(smaller, found.assignment)));
  const bound = Math.min(loss, proven);
  return { assignment, loss, usage: usageOf(programme, assignment), bound, gap: bound === loss ? 0 : (loss - bound) / Math.abs(bound), stopped: found === null || found.stopped };
};

/**
 * A start where the engine ran out of time: every group takes what it needs least of, limits weighed by how scarce they are, then what no
 * limit forbids is improved. Null where even that breaks a limit.
 */
const frugal = (programme: Programme): Assignment | null => {
  const scarcity = programme.limits.map(({ most }, r) => leastUsage(programme, r) / Math.max(Math.abs(most), 1e-30));
  const weight = (usage: readonly number[]): number => usage.reduce((sum, used, r) => sum + (scarcity[r] ** 4 * used) / Math.max(Math.abs(programme.limits[r].most), 1e-30), 0);
  const cheapest = programme.groups.map(({ choices }) => choices.reduce((least, { usage }, c) => (weight(usage) < weight(choices[least].usage) ? c : least), 0));
  return isFeasible(programme, cheapest) ? cheapest : null;
};

const checkLimits = (programme: Programme): void => {
  programme.limits.forEach(({ resource, most, fixed = 0 }, r) => {
    const least = leastUsage(programme, r);
    if (!(least <= most + 1e-12 * Math.abs(most))) throw new CompileError(errors.limitTooSmall(resource, most + fixed, least + fixed), 'budget');
  });
};

/** Limits that can each be met, but not together: the least of each that leaves the others as they are. */
const jointlyInfeasible = async (programme: Programme, engine: Engine) => {
  const alone = await Promise.all(programme.limits.map(async ({ resource }, r) => {
    const others: Programme = {
      groups: programme.groups.map(({ name, choices }) => ({
        name, choices: choices.map((choice) => ({ ...choice, loss: choice.usage[r], usage: choice.usage.filter((_, other) => other !== r) })),
      })),
      limits: programme.limits.filter((_, other) => other !== r),
    };
    const least = await engine.relaxed(others);
    return least === null ? null : { resource, least: least.loss };
  }));
  return errors.limitsConflict(programme.limits.map(({ resource }) => resource), alone.filter((one) => one !== null));
};
