/**
 * A graph as data that another thread can receive: ops by name, values by number, constants in shared memory so that threads do not
 * copy them.
 */
import type { TypedArray } from '../ir/dtype.ts';
import { constantOf, constantsOf, type Graph, type Node, type Stage, type Value } from '../ir/graph.ts';
import { noSite, type AnyOpDef } from '../ir/op.ts';
import { floatOps } from '../ir/ops/index.ts';
import type { TensorType } from '../ir/type.ts';

type Operand = number | null | readonly number[];

export interface PlainGraph {
  readonly stage: Stage;
  readonly name: string;
  readonly inputs: readonly PlainValue[];
  readonly constants: readonly (PlainValue & { readonly data: TypedArray })[];
  readonly nodes: readonly { readonly op: string; readonly inputs: Readonly<Record<string, Operand>>; readonly attrs: Node['attrs']; readonly output: PlainValue }[];
  readonly outputs: readonly { readonly name: string; readonly value: number }[];
}
interface PlainValue {
  readonly name: string;
  readonly type: TensorType;
}

const known: ReadonlyMap<string, AnyOpDef> = new Map(floatOps.map((op) => [op.name, op as AnyOpDef]));

/** Whether every op is one of ours, which another thread can find by its name. */
export const canSend = (graph: Graph): boolean => graph.nodes.every(({ op, decl }) => known.get(op) === decl);

const shared = (data: TypedArray): TypedArray => {
  const copy = new (data.constructor as new (buffer: SharedArrayBuffer) => TypedArray)(new SharedArrayBuffer(data.byteLength));
  (copy as Uint8Array).set(data as Uint8Array);
  return copy;
};

export const toPlain = (graph: Graph): PlainGraph => {
  const numbers = new Map<Value, number>();
  const number = <T>(value: Value, plain: T): T => { numbers.set(value, numbers.size); return plain; };
  const described = ({ name, type }: Value): PlainValue => ({ name, type });
  const inputs = graph.inputs.map((value) => number(value, described(value)));
  const constants = constantsOf(graph).map((value) => number(value, { ...described(value), data: shared(constantOf(value)!.data) }));
  const refer = (operand: Value | null | readonly Value[]): Operand =>
    operand === null ? null : Array.isArray(operand) ? (operand as readonly Value[]).map((value) => numbers.get(value)!) : numbers.get(operand as Value)!;
  const nodes = graph.nodes.map((node) => ({
    op: node.op, attrs: node.attrs,
    inputs: Object.fromEntries(Object.entries(node.inputs).map(([slot, operand]) => [slot, refer(operand)])),
    output: number(node.output, described(node.output)),
  }));
  return { stage: graph.stage, name: graph.name, inputs, constants, nodes, outputs: graph.outputs.map(({ name, value }) => ({ name, value: numbers.get(value)! })) };
};

export const fromPlain = (plain: PlainGraph): Graph => {
  const values: Value[] = [];
  for (const { name, type } of plain.inputs) values.push({ name, type, def: { op: 'input' } });
  for (const { name, type, data } of plain.constants) values.push({ name, type, def: { op: 'const', tensor: { type, data } } });
  const resolve = (operand: Operand): Value | null | readonly Value[] =>
    operand === null ? null : typeof operand === 'number' ? values[operand] : operand.map((number) => values[number]);
  const nodes = plain.nodes.map(({ op, inputs, attrs, output }): Node => {
    const value: { name: string; type: TensorType; def: Value['def'] } = { ...output, def: { op: 'input' } };
    const node: Node = {
      op, attrs, decl: known.get(op)!, output: value, site: noSite,
      inputs: Object.fromEntries(Object.entries(inputs).map(([slot, operand]) => [slot, resolve(operand)])),
    };
    value.def = node;
    values.push(value);
    return node;
  });
  return {
    stage: plain.stage, name: plain.name, inputs: values.slice(0, plain.inputs.length), nodes,
    outputs: plain.outputs.map(({ name, value }) => ({ name, value: values[value] })),
  };
};
