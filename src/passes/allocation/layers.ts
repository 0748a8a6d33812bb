/** What bits are chosen for: the layers of a float graph, and which of them must share the width of what they read. */
import { macsOf } from '../../ir/cost.ts';
import { sizeOf } from '../../ir/dim.ts';
import { constantOf, operandsOf, type Graph, type Node, type Value } from '../../ir/graph.ts';
import { printWidths, type ChosenWidths, type WeightWidth } from '../../ir/ops/widths.ts';
import { mapGraph, mapOperands } from '../../ir/rewrite.ts';
import { UnionFind } from '../union-find.ts';

export interface Layer {
  /** of the value that it makes */
  readonly name: string;
  readonly node: Node;
  /** elements of the constant weight; 0 for products of two activations */
  readonly parameters: number;
  readonly macs: number;
}

/** Nodes that multiply, in topological order. */
export const layersOf = (graph: Graph<'float'>): readonly Layer[] => graph.nodes.flatMap((node) => {
  const macs = macsOf(node);
  const weight = constantOf((node.inputs['weight'] as Value | undefined) ?? null);
  return macs === null ? [] : [{ name: node.output.name, node, parameters: weight === null ? 0 : sizeOf(weight.type.shape), macs }];
});

/** Bits that weights are multiplied with: levels of a codebook are bytes. */
const multipliedBits = ({ bits, format }: WeightWidth): number => (format === 'codebook' ? 8 : bits);
/** Bit operations of a layer. */
export const bitOperations = ({ macs }: Layer, { weights, activations }: ChosenWidths): number => macs * (weights === null ? activations : multipliedBits(weights)) * activations;

/** Ops whose result has the codes of what they read. */
const sameCodes: ReadonlySet<string> = new Set(['relu', 'clip', 'max_pool', 'reduce_max', 'reshape', 'transpose', 'slice', 'concat', 'pad']);

/**
 * Layers that read values of one width, by index: those that read the same value (the operands of a residual block, Q, K and V), or
 * values that a concatenation or another move of elements ties together.
 */
export const tiedByReading = (graph: Graph<'float'>, layers: readonly Layer[]): readonly (readonly number[])[] => {
  const alike = new UnionFind<Value>();
  for (const node of graph.nodes) if (sameCodes.has(node.op)) for (const operand of operandsOf(node)) if (constantOf(operand) === null) alike.join(operand, node.output);
  const groups: { readonly members: number[]; readonly values: Set<Value> }[] = [];
  layers.forEach(({ node }, i) => {
    const read = new Set(operandsOf(node).filter((value) => constantOf(value) === null).map((value) => alike.find(value)));
    const met = groups.filter(({ values }) => [...read].some((value) => values.has(value)));
    const merged = { members: [...met.flatMap(({ members }) => members), i].sort((a, b) => a - b), values: new Set([...met.flatMap(({ values }) => [...values]), ...read]) };
    for (const group of met) groups.splice(groups.indexOf(group), 1);
    groups.push(merged);
  });
  return groups.map(({ members }) => members).sort((a, b) => a[0] - b[0]);
};

/** Ops that only move the elements of one operand. */
const moves: ReadonlySet<string> = new Set(['reshape', 'transpose', 'slice']);

/**
 * Layers by index, those together that make the queries, keys and values of one attention from one value: their weights are three parts of one
 * matrix, and programs may compute them as such.
 */
export const tiedHeads = (graph: Graph<'float'>, layers: readonly Layer[]): readonly (readonly number[])[] => {
  const made = new Map(layers.map(({ node }, i) => [node.output, i]));
  const nodeOf = new Map(graph.nodes.map((node) => [node.output, node]));
  const alike = new UnionFind<number>();
  /** the layer whose outputs these are, under another shape or order */
  const layerBehind = (value: Value): number | null => {
    const found = made.get(value);
    if (found !== undefined) return layers[found].parameters > 0 ? found : null;
    const node = nodeOf.get(value);
    return node !== undefined && moves.has(node.op) ? layerBehind(node.inputs['x'] as Value) : null;
  };
  for (const { node } of layers.filter(({ node: { op } }) => op === 'attention')) {
    const behind = ['q', 'k', 'v'].flatMap((slot) => layerBehind(node.inputs[slot] as Value) ?? []);
    for (const i of behind) for (const j of behind) if (layers[i].node.inputs['x'] === layers[j].node.inputs['x']) alike.join(i, j);
  }
  const groups = new Map<number, number[]>();
  layers.forEach((_, i) => groups.set(alike.find(i), [...(groups.get(alike.find(i)) ?? []), i]));
  return [...groups.values()].sort((a, b) => a[0] - b[0]);
};

/** The graph with widths written on layers, by name. Layers that are not named keep theirs. */
export const withWidths = (graph: Graph<'float'>, widths: ReadonlyMap<string, ChosenWidths>): Graph<'float'> =>
  mapGraph(graph, 'float', (node, now, b) => {
    const own = widths.get(node.output.name);
    return own === undefined ? null : b.copy(node, mapOperands(node, now), node.output.type, Object.freeze({ ...node.attrs, widths: printWidths(own) }));
  });
