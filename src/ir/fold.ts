/** Evaluation of nodes whose operands are all constants. */
import { isStaticShape, sizeOf } from './dim.ts';
import { constantOf, operandsOf, type Constant, type Node, type Value } from './graph.ts';
import type { Tensor } from './type.ts';

/** Largest tensor that is computed at compile time, in elements. */
export const MAX_CONSTANT_SIZE = 2 ** 27;

/** The node's output as a constant of the same name, or null where an operand is computed or the result would be too large. */
export const foldNode = (node: Node): Value | null => {
  const operands = operandsOf(node);
  if (operands.length === 0 || !operands.every(({ def }) => def.op === 'const')) return null;
  const { type, name } = node.output;
  if (!isStaticShape(type.shape) || sizeOf(type.shape) > MAX_CONSTANT_SIZE) return null;
  const tensors = Object.fromEntries(Object.entries(node.inputs).map(([slot, operand]) =>
    [slot, Array.isArray(operand) ? (operand as readonly Value[]).map(constantOf) : constantOf(operand as Value | null)]));
  const tensor: Tensor = node.decl.evaluate(tensors as never, node.attrs, type);
  return Object.freeze({ name, type, def: Object.freeze<Constant>({ op: 'const', tensor }) });
};
