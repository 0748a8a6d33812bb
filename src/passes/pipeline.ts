/**
 * Pipelines as data: a list of pass names with options, which prints, parses and replays. Order, stages and options are checked
 * before any work; timing, dumping and verifying are observers, unknown to passes.
 */
import { closest } from '../ir/closest.ts';
import { CompileError, quoteName } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Graph, Stage } from '../ir/graph.ts';
import { completeOptions, type AnyPass, type Note, type PassContext } from './pass.ts';

export interface Step {
  readonly pass: string;
  readonly options: Readonly<Record<string, unknown>>;
}
export type Pipeline = readonly Step[];

export interface ResolvedStep {
  readonly pass: AnyPass;
  readonly options: object;
}

/** Told before and after each pass. A throwing observer stops the pipeline; `onFailure` gets the graph before the failing pass. */
export interface PipelineObserver {
  before?(step: ResolvedStep, index: number, graph: Graph): void;
  after?(step: ResolvedStep, index: number, graph: Graph, record: PassRecord): void;
  onFailure?(step: ResolvedStep, index: number, graph: Graph, rest: Pipeline, cause: unknown): void;
}
export interface PassRecord {
  readonly pass: string;
  readonly milliseconds: number;
  readonly nodes: number;
  readonly changed: boolean;
  readonly notes: readonly Note[];
  /** options that the step settled on while it ran */
  readonly settled: Readonly<Record<string, unknown>>;
  /** parts of the report by name */
  readonly parts: Readonly<Record<string, object>>;
}

/** Checks names, options and stages against the passes at hand. `from` is the stage of the graph that goes in. */
export const resolvePipeline = (pipeline: Pipeline, passes: ReadonlyMap<string, AnyPass>, from: Stage = 'float'): readonly ResolvedStep[] => {
  let stage: Stage = from;
  return pipeline.map(({ pass: name, options }) => {
    const pass = passes.get(name);
    if (pass === undefined) throw new CompileError(errors.unknownPass(name, closest(name, [...passes.keys()])), 'usage');
    if (pass.from !== stage) throw new CompileError(errors.passOutOfOrder(name, pass.from, stage), 'usage');
    stage = pass.to;
    const complete = completeOptions(pass, options, (why) => { throw new CompileError(errors.badPassOption(name, why), 'usage'); });
    return { pass, options: complete };
  });
};

/** The resolved list as data, all defaults written out, and what steps settled on: what `pipeline.json` holds. */
export const toPipeline = (steps: readonly ResolvedStep[], records: readonly PassRecord[] = []): Pipeline =>
  steps.map(({ pass, options }, i) => ({ pass: pass.name, options: { ...options as Readonly<Record<string, unknown>>, ...records[i]?.settled } }));

export const runPipeline = async (
  graph: Graph, steps: readonly ResolvedStep[], context: PassContext, observers: readonly PipelineObserver[] = [],
): Promise<{ readonly graph: Graph; readonly records: readonly PassRecord[] }> => {
  const records: PassRecord[] = [];
  let current = graph;
  let reference = context.reference;
  for (const [index, step] of steps.entries()) {
    const notes: Note[] = [];
    const settled: Record<string, unknown> = {};
    const parts: Record<string, object> = {};
    const start = performance.now();
    try {
      for (const observer of observers) observer.before?.(step, index, current);
      if (current.stage === 'float' && step.pass.to !== 'float') reference = current as Graph<'float'>;
      const next: Graph = await step.pass.run(current, step.options, {
        ...context, reference, rest: steps.slice(index + 1), settle: (options) => { Object.assign(settled, options); },
        explain: (part, content) => { parts[part] = content; }, note: (entry) => notes.push(entry),
      });
      const record = { pass: step.pass.name, milliseconds: performance.now() - start, nodes: next.nodes.length, changed: next !== current, notes, settled, parts };
      for (const observer of observers) observer.after?.(step, index, next, record);
      records.push(record);
      current = next;
    } catch (cause) {
      const rest = toPipeline(steps.slice(index));
      for (const observer of observers) observer.onFailure?.(step, index, current, rest, cause);
      throw located(cause, `${step.pass.name}, step ${index + 1} of ${steps.length}`);
    }
  }
  return { graph: current, records };
};

const located = (cause: unknown, within: string): unknown =>
  cause instanceof CompileError
    ? new CompileError(cause.diagnostics.map((one) => (one.within === null ? { ...one, within } : one)), cause.kind)
    : cause;

/** `migrate-scales{alpha: 0.5}, quantize-weights{bits: 4}` and back. Values are JSON; a word needs no quotes. */
export const printPipeline = (pipeline: Pipeline): string =>
  pipeline.map(({ pass, options }) => {
    const entries = Object.entries(options).map(([key, value]) => `${key}: ${printOption(value)}`);
    return entries.length === 0 ? pass : `${pass}{${entries.join(', ')}}`;
  }).join(', ');

const printOption = (value: unknown): string =>
  typeof value === 'string' && /^[A-Za-z][\w-]*$/.test(value) && !['true', 'false', 'null'].includes(value) ? value : JSON.stringify(value);

/** Parses the text form, or JSON when it starts with a bracket. */
export const parsePipeline = (text: string): Pipeline => {
  const fail = (why: string): never => { throw new CompileError(errors.badPipelineText(why, text), 'usage'); };
  if (text.trimStart().startsWith('[')) return parseJsonPipeline(text, fail);
  const tokens = [...text.matchAll(/\s*("(?:[^"\\]|\\.)*"|[{}[\]:,]|[^\s{}[\]:,"]+|")/g)].map((match) => match[1]);
  let at = 0;
  const next = (): string => tokens[at++] ?? fail('it ends too early');
  const expect = (token: string): void => { const found = next(); if (found !== token) fail(`"${token}" expected before ${quoteName(found)}`); };
  const value = (): unknown => {
    const token = next();
    if (token !== '[') return scalar(token, fail);
    const list: unknown[] = [];
    while (tokens[at] !== ']') { list.push(value()); if (tokens[at] !== ']') expect(','); }
    at++;
    return list;
  };
  const steps: Step[] = [];
  while (at < tokens.length) {
    if (steps.length > 0) expect(',');
    const pass = next();
    if (!/^[\w.-]+$/.test(pass)) fail(`${quoteName(pass)} is not a pass name`);
    const options: Record<string, unknown> = {};
    if (tokens[at] === '{') {
      at++;
      while (tokens[at] !== '}') { const key = next(); expect(':'); options[key] = value(); if (tokens[at] !== '}') expect(','); }
      at++;
    }
    steps.push({ pass, options });
  }
  return steps;
};

const scalar = (token: string, fail: (why: string) => never): unknown => {
  if (token.startsWith('"')) { try { return JSON.parse(token); } catch { return fail(`${token} is not a string`); } }
  if (token === 'true' || token === 'false') return token === 'true';
  if (/^[{}\]:,]$/.test(token)) return fail(`a value was expected before "${token}"`);
  return Number.isNaN(Number(token)) ? token : Number(token);
};

const parseJsonPipeline = (text: string, fail: (why: string) => never): Pipeline => {
  let parsed: unknown;
  try { parsed = JSON.parse(text); } catch (cause) { return fail(`it is not JSON: ${(cause as Error).message}`); }
  return (parsed as unknown[]).map((entry) => {
    const { pass, options = {} } = (typeof entry === 'string' ? { pass: entry } : entry ?? {}) as { pass?: unknown; options?: unknown };
    if (typeof pass !== 'string' || typeof options !== 'object' || options === null) return fail('every entry needs "pass": a name, and "options": an object');
    return { pass, options: options as Record<string, unknown> };
  });
};
