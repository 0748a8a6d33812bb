/**
 * Chooses the bits of every layer so that the network loses least within a budget, or is smallest within a drop of accuracy. A
 * multiple-choice knapsack: each layer takes one of its widths, every limited resource is a row, and what a width costs in accuracy is the
 * sum to be least.
 *
 *     %y = conv(%x, %w, %b)  →  %y = conv(%x, %w, %b) {widths: w4a8}
 *
 * The passes that round read the attribute. What was chosen is recorded as the option `assignment`: a pipeline that holds it does not
 * measure again.
 *
 * Sources: Yao et al. 2021, HAWQ-V3 (the programme); Hubara et al. 2021, CalibTIP (one layer at a time); measures name theirs.
 */
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Graph } from '../ir/graph.ts';
import { int, ints, oneOf, real, type Attr } from '../ir/op.ts';
import { codebookBits, parseWidths, printWidths, type ChosenWidths } from '../ir/ops/widths.ts';
import { allocate, type AllocationRequest } from './allocation/allocate.ts';
import { parseBudget } from './allocation/budget.ts';
import { openEngine, engineNames } from './allocation/engines.ts';
import { explanationOf } from './allocation/explain.ts';
import { layersOf, withWidths } from './allocation/layers.ts';
import { measures } from './allocation/measures.ts';
import { tablesOf, withTableBits, type TableBits } from './allocation/tables.ts';
import type { Widths } from './allocation/variants.ts';
import { keepOption } from './kept-layers.ts';
import { definePass } from './pass.ts';

export interface AllocateBitsOptions extends Omit<AllocationRequest, 'budget'> {
  readonly budget: string;
  readonly engine: 'glpk' | 'highs';
  readonly holdout: number;
  readonly assignment: readonly string[];
}

const text = (doc: string, fallback: string, expected: string, fits: (value: string) => boolean): Attr<string> =>
  ({ doc, fallback, expected, check: (value): value is string => typeof value === 'string' && fits(value) });
const assigned = /^(.+)=([a-z0-9]+)$/;
const tableForm = /^w(8|16)$/;
const isWidths = (bits: string): boolean => parseWidths(bits) !== null || tableForm.test(bits);

export const allocateBits = definePass<'float', 'float', AllocateBitsOptions>({
  name: 'allocate-bits',
  from: 'float',
  to: 'float',
  summary: 'choose the bits of every layer within a budget of size, memory, time or accuracy',
  paper: 'Yao et al. 2021, HAWQ-V3: Dyadic Neural Network Quantization; Hubara et al. 2021, Accurate Post Training Quantization With Small Calibration Sets',
  options: {
    budget: text('what the network may take: size=96K, ram=64K, latency=20ms, bops=1.2G, drop=1%, several joined by commas', 'drop=1%', 'a budget as in size=96K,drop=1%', (value) => value !== ''),
    measure: oneOf(`how sensitive layers are: ${measures.map(({ name, summary }) => `${name}: ${summary}`).join('; ')}`, measures.map(({ name }) => name), 'measured'),
    weights: ints('widths that weights may have, 2 to 8', [2, 3, 4, 5, 6, 8]),
    activations: ints('widths that activations may have, 2 to 8, or 16', [8]),
    codebooks: ints('of the widths of weights those, 2 to 4, at which they may also be places in a codebook of the layer; none: nowhere', codebookBits),
    keep: keepOption,
    engine: oneOf('what solves the programme; highs is an optional package', engineNames, 'glpk'),
    gap: real('relative distance from the proven bound at which the engine may stop', 1e-4),
    seconds: int('most seconds of a solve', 8),
    samples: int('most calibration samples that single layers are measured on', 128),
    holdout: real('share of the calibration samples that a drop is measured on and nothing else sees; where data are given for it, or no drop is asked for, none is taken', 0.5),
    assignment: {
      doc: "widths that were chosen before: a list of 'layer=w4a8'; empty: choose", fallback: [], expected: "a list of 'layer=w4a8'",
      check: (value): value is readonly string[] => Array.isArray(value) && value.every((one) => typeof one === 'string' && isWidths(assigned.exec(one)?.[2] ?? '')),
    },
  },
  holdsOut: ({ budget, holdout }) => (parseBudget(budget).drop === null ? 0 : Math.min(1, Math.max(0, holdout))),
  async run(graph, options, context) {
    const marked = ({ widths, tables }: Assigned): Graph<'float'> => {
      const made = withTableBits(withWidths(graph, widths), tables);
      context.calibration?.sameValues?.(made, graph);
      return made;
    };
    if (options.assignment.length > 0) return marked(recorded(graph, options.assignment));
    const budget = parseBudget(options.budget);
    const { weights, activations, codebooks, keep, measure, samples, gap, seconds } = options;
    const engine = await openEngine(options.engine);
    const allocation = await allocate(graph, { budget, measure, weights, activations, codebooks: codebooks.filter((bits) => codebookBits.includes(bits)), keep, samples, gap, seconds }, context, engine);
    context.explain('allocation', await explanationOf(allocation, budget, { gap, seconds }));
    const found = { widths: allocation.chosen.widths, tables: allocation.tables };
    context.settle({ assignment: written(found) });
    return marked(found);
  },
});

interface Assigned {
  readonly widths: Widths;
  readonly tables: TableBits;
}
const written = ({ widths, tables }: Assigned): readonly string[] =>
  [...[...tables].map(([name, bits]) => `${name}=w${bits}`), ...[...widths].map(([name, own]) => `${name}=${printWidths(own)}`)];

/** Widths from the option, which must name every layer of the graph; of tables those that it names. */
const recorded = (graph: Graph<'float'>, assignment: readonly string[]): Assigned => {
  const layers = layersOf(graph);
  const widths = new Map<string, ChosenWidths>();
  const tables = new Map<string, number>();
  for (const one of assignment) {
    const [, name, bits] = assigned.exec(one)!;
    if (tablesOf(graph).includes(name)) {
      const found = tableForm.exec(bits);
      if (found === null) throw new CompileError(errors.badAssignment(one, 'a table has 8 bits or 16, as in table=w8'), 'usage');
      tables.set(name, Number(found[1]));
      continue;
    }
    const layer = layers.find((other) => other.name === name);
    if (layer === undefined) throw new CompileError(errors.badAssignment(one, 'there is no such layer'), 'usage');
    const own = parseWidths(bits)!;
    if ((own.weights === null) !== (layer.parameters === 0)) throw new CompileError(errors.badAssignment(one, layer.parameters === 0 ? 'it has no weights' : 'the width of its weights is missing'), 'usage');
    widths.set(name, own);
  }
  const open = layers.find(({ name }) => !widths.has(name));
  if (open !== undefined) throw new CompileError(errors.badAssignment(assignment[0], `layer "${open.name}" has none`), 'usage');
  return { widths, tables };
};
