/**
 * Frozen graphs. A compilation is a chain of them: a pass receives one and returns one. Values know their producer, so a pattern can
 * look through them; nodes stand in topological order and each has exactly one output.
 */
import type { AnyOpDef, Site } from './op.ts';
import type { Tensor, TensorType } from './type.ts';

/** `float`: real numbers. `quant`: real ops on quantised types. `kernel`: integers only. */
export type Stage = 'float' | 'quant' | 'kernel';

export interface Value {
  readonly name: string;
  readonly type: TensorType;
  readonly def: Node | Constant | Input;
}
export interface Constant {
  readonly op: 'const';
  readonly tensor: Tensor;
}
export interface Input {
  readonly op: 'input';
}
export interface Node {
  readonly op: string;
  readonly inputs: Readonly<Record<string, Value | null | readonly Value[]>>;
  readonly attrs: Readonly<Record<string, unknown>>;
  readonly decl: AnyOpDef;
  readonly output: Value;
  readonly site: Site;
}
export interface Output {
  /** the ONNX name of the graph output */
  readonly name: string;
  readonly value: Value;
}
export interface Graph<S extends Stage = Stage> {
  readonly stage: S;
  readonly name: string;
  readonly inputs: readonly Value[];
  /** topological order; every operand is an input, a constant or the output of an earlier node */
  readonly nodes: readonly Node[];
  readonly outputs: readonly Output[];
}

export const isNode = (def: Value['def']): def is Node => def.op !== 'const' && def.op !== 'input';
export const isConstant = (value: Value): boolean => value.def.op === 'const';

/** A constant outside of any graph, for a node that is evaluated by itself. */
export const looseConstant = (name: string, tensor: Tensor): Value => ({ name, type: tensor.type, def: { op: 'const', tensor } });

/** The constant's tensor, or null where the value is computed. */
export const constantOf = (value: Value | null): Tensor | null => (value?.def.op === 'const' ? (value.def as Constant).tensor : null);

/** Operands in declared order, absent ones left out. */
export const operandsOf = (node: Node): readonly Value[] =>
  Object.keys(node.decl.operands).flatMap((slot) => {
    const operand = node.inputs[slot];
    return operand === null || operand === undefined ? [] : Array.isArray(operand) ? (operand as readonly Value[]) : [operand as Value];
  });

/** Every constant that the graph reads, in order of first use. */
export const constantsOf = (graph: Graph): readonly Value[] =>
  [...new Set([...graph.nodes.flatMap(operandsOf), ...graph.outputs.map(({ value }) => value)].filter(isConstant))];

/** How often each value is read by nodes and graph outputs. */
export const useCounts = (graph: Graph): ReadonlyMap<Value, number> => {
  const counts = new Map<Value, number>();
  const add = (value: Value) => counts.set(value, (counts.get(value) ?? 0) + 1);
  for (const node of graph.nodes) operandsOf(node).forEach(add);
  for (const { value } of graph.outputs) add(value);
  return counts;
};

/** Nodes that read each value. */
export const usersOf = (graph: Graph): ReadonlyMap<Value, readonly Node[]> => {
  const users = new Map<Value, Node[]>();
  for (const node of graph.nodes) for (const operand of new Set(operandsOf(node))) {
    const list = users.get(operand);
    if (list) list.push(node); else users.set(operand, [node]);
  }
  return users;
};
