/** What recognisers need to know about expressions: scalar constants, per-channel constants, products taken apart. */
import { constantOf, isNode, operandsOf, type Value } from '../ir/graph.ts';
import { joinSites, type Site } from '../ir/op.ts';
import type { Tensor } from '../ir/type.ts';

/** The number that a constant consists of, whatever its shape; null for anything else. */
export const scalarOf = (value: Value): number | null => {
  const tensor = constantOf(value);
  if (tensor === null || tensor.type.dtype !== 'f32' || tensor.data.length === 0) return null;
  const first = Number(tensor.data[0]);
  return tensor.data.length === 1 || tensor.data.every((one: number | bigint) => Number(one) === first) ? first : null;
};
/** A scalar that broadcasts to any shape without making it larger. */
export const plainScalarOf = (value: Value): number | null => (value.type.shape.every((dim) => dim === 1) ? scalarOf(value) : null);

/** A constant with one number for each channel, or one for all, along the last axis only; null for anything else. */
export const channelsOf = (value: Value, channels: number): Float32Array | null => {
  const tensor = constantOf(value);
  if (tensor === null || !(tensor.data instanceof Float32Array)) return null;
  const { shape } = tensor.type;
  if (!shape.slice(0, -1).every((dim) => dim === 1)) return null;
  if (tensor.data.length === channels && shape[shape.length - 1] === channels) return tensor.data;
  return tensor.data.length === 1 ? new Float32Array(channels).fill(tensor.data[0]) : null;
};

export const vector = (data: Float32Array): Tensor => ({ type: { dtype: 'f32', shape: [data.length], quant: null }, data });

/** The operand `slot` of a node of the given op, or null. */
export const operandOf = (value: Value, op: string, slot = 'x'): Value | null =>
  (isNode(value.def) && value.def.op === op ? (value.def.inputs[slot] as Value) : null);

/** Both operands of a binary node, or null. */
export const pairOf = (value: Value, op: string): readonly [Value, Value] | null =>
  (isNode(value.def) && value.def.op === op ? [value.def.inputs['x'] as Value, value.def.inputs['y'] as Value] : null);

/** x + c with one scalar c, in either order. */
export const plusScalar = (value: Value): { readonly x: Value; readonly scalar: number } | null => {
  const pair = pairOf(value, 'add');
  if (pair === null) return null;
  const [x, y] = pair;
  const [a, b] = [plainScalarOf(x), plainScalarOf(y)];
  return b !== null ? { x, scalar: b } : a !== null ? { x: y, scalar: a } : null;
};

export interface Product {
  /** product of the scalar constants */
  readonly scalar: number;
  readonly factors: readonly Value[];
}
/** A tree of products and of quotients by scalars, taken apart. */
export const productOf = (value: Value, depth = 6): Product => {
  const constant = plainScalarOf(value);
  if (constant !== null) return { scalar: constant, factors: [] };
  const product = depth === 0 ? null : pairOf(value, 'mul');
  if (product !== null) {
    const [left, right] = product.map((one) => productOf(one, depth - 1));
    return { scalar: left.scalar * right.scalar, factors: [...left.factors, ...right.factors] };
  }
  const quotient = depth === 0 ? null : pairOf(value, 'div');
  const divisor = quotient && plainScalarOf(quotient[1]);
  if (quotient !== null && divisor !== null) {
    const { scalar, factors } = productOf(quotient[0], depth - 1);
    return { scalar: scalar / divisor, factors };
  }
  return { scalar: 1, factors: [value] };
};

/** Constants in files are rounded to a few digits. */
export const near = (a: number, b: number, tolerance = 2e-4): boolean => Math.abs(a - b) <= tolerance * Math.max(Math.abs(a), Math.abs(b));

/** The sites of all nodes between some sources and a value, for an op that takes the place of them all. */
export const siteBetween = (value: Value, sources: readonly Value[], own: Site): Site => {
  const seen = new Set<Value>(sources);
  const sites: Site[] = [];
  const visit = (at: Value): void => {
    if (seen.has(at) || !isNode(at.def)) return;
    seen.add(at);
    operandsOf(at.def).forEach(visit);
    sites.push(at.def.site);
  };
  visit(value);
  return joinSites(...sites, own);
};
