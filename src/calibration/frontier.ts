/**
 * A graph that is run node by node over several samples at once, so that a pass may look at the results of a node, and change them,
 * before any later node reads them. Values are kept from their node to their last reader, quantised ones as codes.
 */
import { sizeOf } from '../ir/dim.ts';
import { storageBytes } from '../ir/dtype.ts';
import { constantOf, isConstant, operandsOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import type { Tensor } from '../ir/type.ts';
import { dequantized, quantized, realEvaluator } from './executor.ts';
import type { Samples } from './samples.ts';

export interface Frontier {
  readonly count: number;
  /** real numbers of a value on sample i; its node must be settled and a reader still to come */
  realsOf(value: Value, i: number): Tensor;
  /** real results of a node on what is kept of its operands, before its own rounding, one for each sample */
  evaluate(node: Node): readonly Tensor[];
  /** keeps these as the results of the graph's node and lets go of what it was the last to read */
  settle(node: Node, results: readonly Tensor[]): void;
}

export const openFrontier = (graph: Graph<'float' | 'quant'>, samples: Samples, count: number): Frontier => {
  const lastReader = new Map<Value, Node>();
  for (const node of graph.nodes) for (const operand of operandsOf(node)) lastReader.set(operand, node);
  const held = new Map<Value, Tensor[]>(graph.inputs.map((input) => [input, []]));
  for (let i = 0; i < count; i++) {
    const sample = samples.get(i);
    for (const [input, tensors] of held) tensors.push(quantized(sample[input.name], input.type));
  }
  const realsOf = (value: Value, i: number): Tensor => dequantized(constantOf(value) ?? held.get(value)![i]);
  const evaluator = realEvaluator();
  return {
    count, realsOf,
    evaluate: (node) => Array.from({ length: count }, (_, i) => evaluator(node, (value) => realsOf(value, i))),
    settle(node, results) {
      if (lastReader.has(node.output)) held.set(node.output, results.map((one) => quantized(one, node.output.type)));
      for (const operand of operandsOf(node)) if (lastReader.get(operand) === node) held.delete(operand);
    },
  };
};

/** A graph run as far as results of it are asked for: those of the nodes that make these values, kept until they are released. */
export class Follower {
  private readonly graph: Graph<'float' | 'quant'>;
  private readonly frontier: Frontier;
  private readonly wanted: ReadonlySet<string>;
  private readonly found = new Map<string, readonly Tensor[]>();
  private reached = 0;

  constructor(graph: Graph<'float' | 'quant'>, frontier: Frontier, wanted: ReadonlySet<string>) {
    this.graph = graph;
    this.frontier = frontier;
    this.wanted = wanted;
  }

  /** Results of the node that makes the value of this name, one for each sample. */
  resultsOf(name: string): readonly Tensor[] {
    while (!this.found.has(name)) {
      const node = this.graph.nodes[this.reached++];
      const results = this.frontier.evaluate(node);
      this.frontier.settle(node, results);
      if (this.wanted.has(node.output.name)) this.found.set(node.output.name, results);
    }
    return this.found.get(name)!;
  }
  release(name: string): void {
    this.found.delete(name);
  }
}

/** Most bytes that a frontier of the graph keeps at once for each sample: values that are live, and the real results of one node. */
export const frontierBytes = (graph: Graph<'float' | 'quant'>): number => {
  const dies = new Map<Value, number>();
  graph.nodes.forEach((node, i) => operandsOf(node).forEach((operand) => dies.set(operand, i)));
  const bytes = ({ type }: Value): number => sizeOf(type.shape) * storageBytes(type.dtype);
  let live = graph.inputs.reduce((sum, input) => sum + bytes(input), 0);
  let most = live;
  graph.nodes.forEach((node, i) => {
    most = Math.max(most, live + sizeOf(node.output.type.shape) * Float32Array.BYTES_PER_ELEMENT);
    if (dies.has(node.output)) live += bytes(node.output);
    for (const operand of new Set(operandsOf(node))) if (!isConstant(operand) && dies.get(operand) === i) live -= bytes(operand);
  });
  return most;
};
