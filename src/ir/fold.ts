/** Evaluation of nodes whose operands are all constants. */
import { isStaticShape, sizeOf } from './dim.ts';
import { constantOf, operandsOf, type Constant, type Node, type Value } from './graph.ts';
import type { Tensor } from './type.ts';

/** Largest tensor that is computed at compile time, in elements. */
export const MAX_CONSTANT_SIZE = 2 ** 26;
/** Most elementary steps that one node may take at compile time. */
const MAX_WORK = 2 ** 30;

/** About how many elements the node reads: products of weights and windows are counted for each element of the result. */
const workOf = ({ inputs, attrs, output }: Node): number => {
  const size = (value: Value): number => sizeOf(value.type.shape);
  const window = ((attrs['kernel'] as readonly number[] | undefined) ?? []).reduce((product, side) => product * side, 1);
  const weight = inputs['weight'] as Value | null | undefined;
  const factors = [inputs['a'], inputs['q']].find((one) => one !== undefined) as Value | undefined;
  const terms = weight ? size(weight) / Number(weight.type.shape[0]) : factors ? size(factors) : 1;
  return size(output) * window * terms;
};

/** The node's output as a constant of the same name, or null where an operand is computed or the result would take too much memory or time. */
export const foldNode = (node: Node): Value | null => {
  const operands = operandsOf(node);
  if (operands.length === 0 || !operands.every(({ def }) => def.op === 'const')) return null;
  const { type, name } = node.output;
  if (!isStaticShape(type.shape) || sizeOf(type.shape) > MAX_CONSTANT_SIZE || workOf(node) > MAX_WORK) return null;
  const tensors = Object.fromEntries(Object.entries(node.inputs).map(([slot, operand]) =>
    [slot, Array.isArray(operand) ? (operand as readonly Value[]).map(constantOf) : constantOf(operand as Value | null)]));
  const tensor: Tensor = node.decl.evaluate(tensors as never, node.attrs, type);
  return Object.freeze({ name, type, def: Object.freeze<Constant>({ op: 'const', tensor }) });
};
