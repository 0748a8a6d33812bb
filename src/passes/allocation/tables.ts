/**
 * Embeddings: tables whose rows are looked up. Their codes are those of the sums that the rows enter, 16 bits on a residual stream. Bytes
 * there would serve layers of few bits better: where the network with codes of 8 bits is hardly worse, that is what the tables get.
 */
import { sizeOf } from '../../ir/dim.ts';
import { constantOf, type Graph, type Node, type Value } from '../../ir/graph.ts';
import { uniformWidth } from '../../ir/ops/widths.ts';
import { mapGraph, mapOperands } from '../../ir/rewrite.ts';
import type { PassContext } from '../pass.ts';
import type { Judge } from './judge.ts';
import { layersOf } from './layers.ts';
import { baseWidths } from './sensitivity.ts';
import { openVariants } from './variants.ts';

/** Bits of the codes of tables, by the name of what is read from them. */
export type TableBits = ReadonlyMap<string, number>;

const NARROW = 8;
/** Share of what the saved bytes would take off the noise elsewhere, by the law 4^-bits, that narrow tables may add to it. */
const TOLERATED = 0.5;

const tableOf = (node: Node): Value | null => {
  const table = node.op === 'gather' ? node.inputs['table'] as Value : null;
  return table !== null && constantOf(table) !== null && table.type.dtype === 'f32' ? table : null;
};

/** The graph with codes of so many bits in the named tables. */
export const withTableBits = (graph: Graph<'float'>, bits: TableBits): Graph<'float'> =>
  mapGraph(graph, 'float', (node, now, b) => {
    const own = tableOf(node) === null ? undefined : bits.get(node.output.name);
    return own === undefined ? null : b.copy(node, mapOperands(node, now), node.output.type, Object.freeze({ ...node.attrs, bits: own }));
  });

/** Names of what is read from tables. */
export const tablesOf = (graph: Graph<'float'>): readonly string[] => graph.nodes.filter((node) => tableOf(node) !== null).map(({ output }) => output.name);

/** The tables that are to be narrow in a network of so many bytes; null: of any size. */
export const narrowTables = async (graph: Graph<'float'>, allowed: readonly number[], size: number | null, openJudge: () => Promise<Judge>, context: PassContext): Promise<TableBits> => {
  const names = tablesOf(graph);
  if (names.length === 0) return new Map();
  const layers = layersOf(graph);
  const parameters = layers.reduce((sum, layer) => sum + layer.parameters, 0);
  const tables = graph.nodes.reduce((sum, node) => sum + sizeOf(tableOf(node)?.type.shape ?? [0]), 0);
  const fits = (bits: number): boolean => size === null || (parameters * bits) / 8 + 2 * tables <= size;
  const reference = Math.max(Math.min(...allowed), ...allowed.filter((bits) => fits(bits) && (size !== null || bits <= UNLIMITED)));
  const narrow: TableBits = new Map(names.map((name) => [name, NARROW]));
  const judge = await openJudge();
  let done = 0;
  const noiseOf = async (own: Graph<'float'>, weights: number): Promise<number> => {
    context.progress('embeddings', done++, 3);
    context.calibration?.sameValues?.(own, graph);
    const width = uniformWidth(weights);
    const composed = await openVariants(own, layersOf(own), [width], context).uniform({ ...baseWidths, weights: width });
    return (await judge.of(composed)).noise;
  };
  const added = await noiseOf(withTableBits(graph, narrow), baseWidths.weights.bits) - await noiseOf(graph, baseWidths.weights.bits);
  const bits = (8 * tables) / Math.max(1, parameters);
  return added <= TOLERATED * (1 - 4 ** -bits) * await noiseOf(graph, reference) ? narrow : new Map();
};
/** Bits of weights that tables are weighed against where the size is not limited: networks of a limited drop come out about there. */
const UNLIMITED = 4;
