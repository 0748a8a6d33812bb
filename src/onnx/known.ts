/**
 * Integers and booleans that are known while importing: shapes, axes, indices, masks. Entries may be symbolic dimensions, so shape
 * arithmetic is done here, on `Dim` values, and leaves no trace in the graph.
 */
import { addDims, broadcastShapes, divDims, equalDims, isStatic, mulDims, printDim, scaleDim, staticShape, subDims, type Dim } from '../ir/dim.ts';
import type { Value } from '../ir/graph.ts';
import type { OpDef, Operands, Slots } from '../ir/op.ts';
import { broadcastOffsets } from '../ir/ops/elements.ts';
import { tensorType, type Tensor, type TensorType } from '../ir/type.ts';
import type { ElementType } from './schema.ts';

export interface Known {
  readonly elementType: ElementType;
  readonly shape: readonly number[];
  /** integers, 0 or 1 for booleans; symbolic where they come from an unbound dimension */
  readonly data: ArrayLike<Dim>;
}
/** What an ONNX name stands for. */
export type Term = Value | Known;
export const isKnown = (term: Term): term is Known => 'elementType' in term;

export const known = (elementType: ElementType, shape: readonly number[], data: ArrayLike<Dim>): Known => ({ elementType, shape, data });

/** A layout op on known integers: the op moves positions, the integers follow. */
export const moveKnown = <O extends Operands, A extends object>(decl: OpDef<string, O, A>, inputs: Slots<O, Known>, attrs: A): Known => {
  const pool: Dim[] = [];
  const positions = (one: Known): Tensor => {
    const start = pool.length;
    for (let i = 0; i < one.data.length; i++) pool.push(one.data[i]);
    return { type: tensorType('i32', one.shape), data: Int32Array.from({ length: one.data.length }, (_, i) => start + i) };
  };
  const slots = Object.entries(inputs as Readonly<Record<string, Known | readonly Known[]>>);
  const tensors = Object.fromEntries(slots.map(([slot, one]) => [slot, Array.isArray(one) ? one.map(positions) : positions(one as Known)]));
  const types = Object.fromEntries(Object.entries(tensors).map(([slot, one]) => [slot, Array.isArray(one) ? one.map(({ type }) => type) : one.type]));
  const type: TensorType = decl.infer(types as never, attrs);
  const moved = decl.evaluate(tensors as never, attrs, type);
  const [first] = slots.flatMap(([, one]) => one as Known | readonly Known[]) as readonly Known[];
  return known(first.elementType, staticShape(type.shape), Array.from(moved.data as ArrayLike<number | bigint>, (at) => pool[Number(at)]));
};

type Binary = (x: Dim, y: Dim) => Dim | null;
const numeric = (f: (x: number, y: number) => number): Binary => (x, y) => (isStatic(x) && isStatic(y) ? f(x, y) : null);
const truth = (f: (x: number, y: number) => boolean): Binary => numeric((x, y) => Number(f(x, y)));
const atLeast = (x: Dim, y: Dim, least: number): boolean => {
  const gap = subDims(x, y);
  // Symbols stand for sizes, which are at least 1.
  return typeof gap === 'number' ? gap >= least : gap.terms.every(([, k]) => k > 0) && gap.terms.reduce((sum, [, k]) => sum + k, gap.constant) >= least;
};

/** Integer functions of two operands by ONNX name; null where the result is not known. */
export const binaryOnKnown: Readonly<Record<string, Binary>> = {
  Add: addDims,
  Sub: subDims,
  Mul: mulDims,
  Div: (x, y) => (isStatic(x) && isStatic(y) ? (y === 0 ? null : Math.trunc(x / y)) : divDims(x, y)),
  Mod: numeric((x, y) => x - y * Math.floor(x / y)),
  Pow: numeric((x, y) => x ** y),
  Min: (x, y) => (atLeast(y, x, 0) ? x : atLeast(x, y, 0) ? y : null),
  Max: (x, y) => (atLeast(x, y, 0) ? x : atLeast(y, x, 0) ? y : null),
  Equal: (x, y) => {
    if (equalDims(x, y)) return 1;
    return (isStatic(x) && isStatic(y)) || atLeast(x, y, 1) || atLeast(y, x, 1) ? 0 : null;
  },
  Less: truth((x, y) => x < y),
  LessOrEqual: truth((x, y) => x <= y),
  Greater: truth((x, y) => x > y),
  GreaterOrEqual: truth((x, y) => x >= y),
  And: numeric((x, y) => x & y),
  Or: numeric((x, y) => x | y),
  Xor: numeric((x, y) => x ^ y),
};
const comparisons = new Set(['Equal', 'Less', 'LessOrEqual', 'Greater', 'GreaterOrEqual', 'And', 'Or', 'Xor']);

export const unaryOnKnown: Readonly<Record<string, (x: Dim) => Dim | null>> = {
  Neg: (x) => scaleDim(x, -1),
  Abs: (x) => (isStatic(x) ? Math.abs(x) : atLeast(x, 0, 0) ? x : null),
  Not: (x) => (isStatic(x) ? 1 - x : null),
  Floor: (x) => x, Ceil: (x) => x, Round: (x) => x,
};

/** A function of two known operands with broadcasting, or a sentence on why the result is not known. */
export const combineKnown = (op: string, x: Known, y: Known): Known | string => {
  const shape = broadcastShapes(x.shape, y.shape);
  if (shape === null) return `the shapes [${x.shape.join(', ')}] and [${y.shape.join(', ')}] do not broadcast`;
  const [i, j] = [broadcastOffsets(x.shape, shape), broadcastOffsets(y.shape, shape)];
  const data: Dim[] = [];
  for (let n = 0; n < i.length; n++) {
    const [a, b] = [x.data[i[n]], y.data[j[n]]];
    const result = binaryOnKnown[op](a, b);
    if (result === null) return `${op} of ${printDim(a)} and ${printDim(b)} is not known; bind the symbols with --dim`;
    data.push(result);
  }
  return known(comparisons.has(op) ? 'bool' : x.elementType, staticShape(shape), data);
};

/** Entries of x where the condition holds, of y elsewhere, or a sentence on why that is not known. */
export const selectKnown = (condition: Known, x: Known, y: Known): Known | string => {
  const pair = broadcastShapes(x.shape, y.shape);
  const shape = pair && broadcastShapes(condition.shape, pair);
  if (shape === null) return 'the shapes do not broadcast';
  const [c, i, j] = [condition, x, y].map((one) => broadcastOffsets(one.shape, shape));
  if (!Array.from(condition.data).every(isStatic)) return 'its condition is not known; bind the symbols with --dim';
  return known(x.elementType, staticShape(shape), Array.from(c, (at, n) => (condition.data[at] !== 0 ? x.data[i[n]] : y.data[j[n]])));
};
