/**
 * Passes. The contract: a valid graph in, a valid graph out (the same object when nothing changed); the meaning stays, or `changes`
 * says that it is approximate and by which measure; the result depends on graph, options, calibration and seed alone; no global
 * state; no files.
 */
import type { Calibration } from '../calibration/calibration.ts';
import type { Samples } from '../calibration/samples.ts';
import type { Diagnostic } from '../ir/diagnostic.ts';
import type { Graph, Stage } from '../ir/graph.ts';
import type { Attr, Attrs } from '../ir/op.ts';
import { rewrite, type Rule } from '../ir/rewrite.ts';

export interface PassContext {
  /** the sample set and what runs it; null when the compilation has no data */
  readonly calibration: Calibration | null;
  readonly seed: number;
  /** the float graph that a quantised one approximates: the last one before the pipeline left the float stage; null until then */
  readonly reference: Graph<'float'> | null;
  /** the steps that come after this one: what the pipeline will make of the graph that the pass returns */
  readonly rest: readonly FollowingStep[];
  /** what the targets of this compilation charge for a program; null where it has none */
  readonly prices: ((graph: Graph<'kernel'>) => readonly TargetPrice[]) | null;
  /** data kept apart from calibration, on which results are judged */
  readonly heldOut: HeldOut | null;
  /** keeps measurements by their content, from one compilation to the next; null where nothing is kept */
  readonly store: MeasurementStore | null;
  /** writes options into the record of this step, with which it would decide the same again without measuring */
  settle(options: Readonly<Record<string, unknown>>): void;
  /** a part of the report of its own, by name */
  explain(part: string, content: object): void;
  /** one line for the report: what was done, where, and the figures that justify it */
  note(entry: Note): void;
  warn(diagnostic: Diagnostic): void;
  /** work done so far, for a terminal */
  progress(label: string, done: number, total: number): void;
}

export interface FollowingStep {
  readonly pass: AnyPass;
  readonly options: object;
}

/** Samples with the classes they belong to, or without. */
export interface HeldOut {
  readonly samples: Samples;
  /** the classes of sample i, one for each row of the output; null where they are not known */
  readonly labels: ((index: number) => ArrayLike<number | bigint>) | null;
}

export interface MeasurementStore {
  get(key: string): unknown;
  put(key: string, value: unknown): void;
}

/** What a program takes on a target. */
export interface TargetPrice {
  readonly target: string;
  readonly weightBytes: number;
  readonly arenaBytes: number;
  readonly steps: readonly StepPrice[];
  /** pieces of the arena and the steps during which they are alive */
  readonly pieces: readonly { readonly owner: string; readonly bytes: number; readonly first: number; readonly last: number }[];
}
export interface StepPrice {
  /** the value that the step's first node makes */
  readonly name: string;
  readonly weightBytes: number;
  /** null where the time of this step is not known */
  readonly microseconds: number | null;
}

export interface Note {
  /** the value, layer or site it is about; null for the whole graph */
  readonly site: string | null;
  readonly text: string;
  /** named figures, for instance { sqnrDb: 41.2 } */
  readonly figures?: Readonly<Record<string, number | string>>;
  /** what was measured for and against a change: a line of the ledger in `report.json` */
  readonly gain?: Gain;
}

/** Signal to noise against the float model, in dB. */
export interface BeforeAfter {
  readonly before: number;
  readonly after: number;
  /** standard error of after − before, where samples were compared one by one */
  readonly error?: number;
}

/** What a change is worth. A pass that finds no gain leaves the graph alone and says so with `kept: false`. */
export interface Gain {
  readonly kept: boolean;
  /** of the results of the site, on recorded samples; null where only the outputs were measured */
  readonly siteDb: BeforeAfter | null;
  /** of the outputs of the quantised network, on samples it was not chosen with; null where only the site was measured */
  readonly outputsDb: BeforeAfter | null;
  /** more bytes of constants; negative where some are saved */
  readonly bytes: number;
  /** more integer operations in a run: products, sums, look-ups */
  readonly operations: number;
}

export interface Pass<From extends Stage = Stage, To extends Stage = Stage, O extends object = object> {
  readonly name: string;
  readonly from: From;
  readonly to: To;
  readonly summary: string;
  /** author, year and title of the source, where there is one */
  readonly paper?: string;
  /** the measure by which meaning may change; absent = exact in real arithmetic */
  readonly changes?: string;
  readonly options: Attrs<O>;
  /** share of the calibration samples that nothing but this pass may see, to judge results on; 0 or absent: none */
  readonly holdsOut?: (options: O) => number;
  run(graph: Graph<From>, options: O, context: PassContext): Graph<To> | Promise<Graph<To>>;
}
export type AnyPass = Pass<any, any, any>;

export const definePass = <From extends Stage, To extends Stage, O extends object = object>(pass: Pass<From, To, O>): Pass<From, To, O> =>
  Object.freeze(pass);

/** Rewrites by rules, and notes how often each fired and where one nearly did. */
export const applyRules = <S extends Stage>(graph: Graph<S>, rules: readonly Rule[], passName: string, context: PassContext, sweeps?: number): Graph<S> => {
  const { graph: next, firings, nearMisses } = rewrite(graph, rules, passName, sweeps);
  for (const [rule, times] of firings) context.note({ site: null, text: `rule ${rule} fired`, figures: { times } });
  for (const { rule, node, reason } of nearMisses) context.note({ site: node, text: `rule ${rule} declined: ${reason}` });
  return next;
};

/** Options with defaults filled in. Throws through `fail` at the first unknown or ill-typed one. */
export const completeOptions = (pass: AnyPass, given: Readonly<Record<string, unknown>>, fail: (why: string) => never): object => {
  for (const key of Object.keys(given)) {
    if (!(key in pass.options)) fail(`it has no option "${key}"; it has ${Object.keys(pass.options).join(', ') || 'none'}`);
  }
  const full: Record<string, unknown> = {};
  for (const [key, option] of Object.entries<Attr<unknown>>(pass.options)) {
    const value = key in given ? given[key] : option.fallback;
    if (!option.check(value)) fail(`option "${key}" must be ${option.expected}, not ${JSON.stringify(value)}`);
    full[key] = value;
  }
  return full;
};

/** A context for running a single pass by hand: no data, nothing reported. */
export const bareContext = (calibration: Calibration | null = null, seed = 0, reference: Graph<'float'> | null = null): PassContext =>
  ({
    calibration, seed, reference, rest: [], prices: null, heldOut: null, store: null,
    settle: () => undefined, explain: () => undefined, note: () => undefined, warn: () => undefined, progress: () => undefined,
  });

/** The same context for passes that are only tried: what they say and settle on is dropped, how far they are is still shown. */
export const quietly = (context: PassContext): PassContext =>
  ({ ...context, note: () => undefined, warn: () => undefined, explain: () => undefined, settle: () => undefined });

/** Runs one pass outside a pipeline, its options completed. For scripts and tests. */
export const runPass = async <From extends Stage, To extends Stage, O extends object>(
  pass: Pass<From, To, O>, graph: Graph<From>, options: Partial<O> = {}, context: PassContext = bareContext(),
): Promise<Graph<To>> => {
  const full = completeOptions(pass, options as Record<string, unknown>, (why) => { throw new TypeError(`${pass.name}: ${why}`); });
  return pass.run(graph, full as O, context);
};
