/**
 * Which bits of weights a budget of size leaves on average, for passes that come before the choice of bits and work for one width
 * throughout: the program with 8 bits everywhere is priced, and every bit less saves an eighth of a byte for each parameter.
 */
import { CompileError } from '../../ir/diagnostic.ts';
import type { Graph } from '../../ir/graph.ts';
import { quietly, type PassContext } from '../pass.ts';
import { parseBudget } from './budget.ts';
import { layersOf } from './layers.ts';

/** In place of a number of bits: what the budget leaves. */
export const AIM = 0;
/** Without a budget of size; most layers end near it. */
const USUAL = 4;
const [FEWEST, MOST] = [2, 8];

/** Steps that change values of constants alone, none of their sizes. */
const refining: ReadonlySet<string> = new Set(['fit-weights', 'correct-bias']);

/** The widths of a pass with `AIM` replaced by bits, which the record of the step then holds. */
export const withAim = async <W extends { readonly weights: number }>(widths: W, graph: Graph<'float'>, context: PassContext): Promise<W> => {
  const weights = await aimedBits(widths.weights, graph, context);
  if (weights === widths.weights) return widths;
  context.settle({ weights });
  return { ...widths, weights };
};

/** The bits that are given, or those that the budget leaves where it is `AIM`. */
export const aimedBits = async (given: number, graph: Graph<'float'>, context: PassContext): Promise<number> => {
  if (given !== AIM) return given;
  const choice = context.rest.find(({ pass }) => pass.name === 'allocate-bits');
  const size = choice === undefined ? null : parseBudget((choice.options as { readonly budget: string }).budget).size;
  if (size === null || context.prices === null) return USUAL;
  const widest = await bytesOfWidest(graph, context);
  const parameters = layersOf(graph).reduce((sum, layer) => sum + layer.parameters, 0);
  if (widest === null || parameters === 0) return USUAL;
  return Math.max(FEWEST, Math.min(MOST, Math.round(MOST - (8 * (widest - size)) / parameters)));
};

/** Bytes of the program with weights of 8 bits, rounded to the nearest; null where it has no integer form. */
const bytesOfWidest = async (graph: Graph<'float'>, context: PassContext): Promise<number | null> => {
  const quiet = quietly(context);
  let current: Graph = graph;
  try {
    for (const [i, { pass, options }] of context.rest.entries()) {
      if (pass.to === 'float' || refining.has(pass.name)) continue;
      const own = pass.name === 'quantize-weights' ? { ...options, bits: MOST } : options;
      current = await pass.run(current, own, { ...quiet, reference: graph, rest: context.rest.slice(i + 1) }) as Graph;
    }
  } catch (cause) {
    // the pass that quantises says it in the end
    if (cause instanceof CompileError && cause.kind !== 'internal') return null;
    throw cause;
  }
  return current.stage === 'kernel' ? Math.max(0, ...context.prices!(current as Graph<'kernel'>).map(({ weightBytes }) => weightBytes)) : null;
};
