/**
 * Facts computed from a graph, kept by the graph's identity: graphs are frozen, so a cached fact cannot go stale and a pass need not
 * say what it preserves.
 */
import type { Graph } from './graph.ts';

export interface Analysis<T> {
  readonly name: string;
  compute(graph: Graph, get: <U>(analysis: Analysis<U>) => U): T;
}
export const defineAnalysis = <T>(analysis: Analysis<T>): Analysis<T> => Object.freeze(analysis);

const cache = new WeakMap<Graph, Map<Analysis<unknown>, unknown>>();

/** The fact for this graph, computed once. */
export const factOf = <T>(graph: Graph, analysis: Analysis<T>): T => {
  let facts = cache.get(graph);
  if (facts === undefined) cache.set(graph, (facts = new Map()));
  if (!facts.has(analysis)) facts.set(analysis, analysis.compute(graph, (other) => factOf(graph, other)));
  return facts.get(analysis) as T;
};
