/**
 * Judges graphs that differ from a base at one layer and nowhere before it: what the base computes before that layer is kept for every
 * sample, and only the rest is run. So measuring all layers takes about half of what running the network for each would.
 */
import { sizeOf } from '../../ir/dim.ts';
import { storageBytes } from '../../ir/dtype.ts';
import { isConstant, operandsOf, type Graph, type Node, type Value } from '../../ir/graph.ts';
import { realType, type Tensor } from '../../ir/type.ts';
import { createExecutor, quantized } from '../../calibration/executor.ts';
import { samplesInMemory, type Sample } from '../../calibration/samples.ts';
import type { Judge, Judgement } from './judge.ts';

export interface Tails {
  /** a graph with the nodes of the base, which computes what the base does before the value of this name */
  of(graph: Graph<'quant'>, from: string): Promise<Judgement>;
}

/** Most bytes of kept values; larger networks are run as a whole. */
const HELD_BYTES = 2 ** 29;

export const openTails = (base: Graph<'quant'>, judge: Judge, layers: readonly string[]): Tails => {
  const index = new Map(base.nodes.map(({ output }, i) => [output.name, i]));
  const cuts = layers.map((name) => index.get(name)!);
  const held = new Set(crossing(base, cuts));
  const bytes = [...held].reduce((sum, { type }) => sum + sizeOf(type.shape) * storageBytes(type.dtype), 0) * judge.count;
  if (bytes > HELD_BYTES) return { of: (graph) => judge.of(graph) };
  let kept: readonly ReadonlyMap<string, Tensor>[] | null = null;
  const keep = (): readonly ReadonlyMap<string, Tensor>[] => {
    const executor = createExecutor(base);
    return Array.from({ length: judge.count }, (_, i) => {
      const values = new Map<string, Tensor>();
      executor.run(judge.samples.get(i), (value, tensor) => {
        if (held.has(value)) values.set(value.name, value.type.quant === null ? { type: tensor.type, data: tensor.data.slice() } : quantized(tensor, value.type));
      });
      return values;
    });
  };
  return {
    of(graph, from) {
      kept ??= keep();
      const tail = tailOf(graph, graph.nodes.findIndex(({ output }) => output.name === from));
      const list = kept.map((values): Sample => Object.fromEntries(tail.inputs.map(({ name }) => [name, values.get(name)!])));
      return judge.of(tail, samplesInMemory(tail.inputs, list));
    },
  };
};

/** Values that are read across any of these places between nodes. */
const crossing = (graph: Graph, cuts: readonly number[]): readonly Value[] => {
  const born = new Map<Value, number>(graph.inputs.map((input) => [input, -1]));
  graph.nodes.forEach((node, i) => born.set(node.output, i));
  const dies = new Map<Value, number>();
  graph.nodes.forEach((node, i) => operandsOf(node).forEach((operand) => dies.set(operand, i)));
  graph.outputs.forEach(({ value }) => dies.set(value, graph.nodes.length));
  return [...born.keys()].filter((value) => cuts.some((cut) => born.get(value)! < cut && (dies.get(value) ?? -1) >= cut));
};

/** The nodes from this one on; what they read from before becomes an input of real numbers. */
const tailOf = (graph: Graph<'quant'>, first: number): Graph<'quant'> => {
  const renewed = new Map<Value, Value>();
  const inputs: Value[] = [];
  const now = (value: Value): Value => {
    if (isConstant(value)) return value;
    const known = renewed.get(value);
    if (known !== undefined) return known;
    const made: Value = { name: value.name, type: realType(value.type), def: { op: 'input' } };
    renewed.set(value, made);
    inputs.push(made);
    return made;
  };
  const nodes = graph.nodes.slice(first).map((node): Node => {
    const operands = Object.fromEntries(Object.entries(node.inputs).map(([slot, operand]) =>
      [slot, operand === null ? null : Array.isArray(operand) ? operand.map(now) : now(operand as Value)]));
    const output: { name: string; type: Value['type']; def: Value['def'] } = { name: node.output.name, type: node.output.type, def: { op: 'input' } };
    const copy: Node = { ...node, inputs: operands, output };
    output.def = copy;
    renewed.set(node.output, output);
    return copy;
  });
  return { stage: 'quant', name: graph.name, nodes, outputs: graph.outputs.map(({ name, value }) => ({ name, value: now(value) })), inputs };
};
