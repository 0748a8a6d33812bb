/** The kernel graph of an output folder: its text and the side file with its constants. */
import type { Artefact } from '../backends/backend.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Graph } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import { printGraph } from '../ir/print.ts';
import { WeightStore } from '../ir/weights.ts';

export const graphNames = ['model.lbir', 'model.weights.bin'] as const;

export const graphFiles = (graph: Graph): readonly Artefact[] => {
  const weights = new WeightStore();
  const text = printGraph(graph, { weights });
  return [{ path: graphNames[0], bytes: new TextEncoder().encode(text) }, { path: graphNames[1], bytes: weights.bytes() }];
};

export const readGraph = (text: Uint8Array, weights: Uint8Array, path: string): Graph<'kernel'> => {
  const graph = parseGraph(new TextDecoder().decode(text), { weights: new WeightStore(weights) });
  if (graph.stage !== 'kernel') throw new CompileError(errors.damagedArtefact(path, `it holds a ${graph.stage} graph`));
  return graph as Graph<'kernel'>;
};
