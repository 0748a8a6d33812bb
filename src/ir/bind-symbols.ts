/** Gives symbolic dimensions their sizes. */
import { Builder } from './build.ts';
import { bindDim, type Dim, type Shape } from './dim.ts';
import type { Graph, Stage, Value } from './graph.ts';
import { mapOperands } from './rewrite.ts';

const isShape = (value: unknown): value is Shape =>
  Array.isArray(value) && value.some((dim) => typeof dim === 'object' && dim !== null && 'terms' in dim);

/**
 * Replaces symbols by sizes in the types of inputs and in attributes that hold shapes, and infers every type again. Symbols without
 * a binding stay. Returns the same graph where nothing is bound.
 */
export const bindSymbols = <S extends Stage>(graph: Graph<S>, bindings: ReadonlyMap<string, number>): Graph<S> => {
  const bind = (shape: Shape): Shape => shape.map((dim: Dim) => bindDim(dim, bindings));
  const inUse = graph.inputs.some(({ type }) => type.shape.some((dim) => typeof dim !== 'number' && dim.terms.some(([name]) => bindings.has(name))));
  if (!inUse) return graph;
  const b = new Builder();
  const renewed = new Map<Value, Value>();
  const now = (value: Value): Value => renewed.get(value) ?? value;
  for (const input of graph.inputs) renewed.set(input, b.input(input.name, { ...input.type, shape: bind(input.type.shape) }));
  b.reserve(graph.nodes.map(({ output }) => output.name));
  for (const node of graph.nodes) {
    const attrs = Object.fromEntries(Object.entries(node.attrs).map(([key, value]) => [key, isShape(value) ? bind(value) : value]));
    const { type } = node.output;
    renewed.set(node.output, b.emit(node.decl, mapOperands(node, now) as never, attrs, {
      replaces: node.output, site: node.site, ...(type.quant === null ? {} : { type: { ...type, shape: bind(type.shape) } }),
    }));
  }
  return b.finish(graph.stage, graph.name, graph.outputs.map(({ name, value }) => ({ name, value: now(value) })));
};
