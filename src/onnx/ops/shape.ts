/** Shapes, indices and other values that are made from nothing but shapes. */
import { isStatic, isStaticShape, mulDims, printShape, sizeOf, type Dim } from '../../ir/dim.ts';
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import { MAX_CONSTANT_SIZE } from '../../ir/fold.ts';
import { constantOf } from '../../ir/graph.ts';
import { expand, mul, reshape, where } from '../../ir/ops/index.ts';
import { isKnown, known, type Term } from '../known.ts';
import type { Handler, Handlers, OnnxNode } from '../node.ts';
import { isRealType } from '../tensor.ts';

/** Most integers that are computed while importing; shapes and indices are far smaller. */
const MAX_KNOWN = 2 ** 22;
const limitSize = (n: OnnxNode, size: number, limit: number): void => {
  if (size > limit) throw new CompileError(errors.tooLarge(`"${n.outputName(0)}"`, size, limit, n.place));
};

const constantNode: Handler = (n) => {
  const tensor = n.tensor('value');
  if (tensor !== null) return n.tensorTerm(tensor, n.outputName(0));
  if (n.hasAttr('value_float')) return n.realConstant([], [n.float('value_float')]);
  if (n.hasAttr('value_int')) return known('int64', [], [n.int('value_int')]);
  const floats = n.floats('value_floats');
  if (floats !== null) return n.realConstant([floats.length], floats);
  if (n.hasAttr('value_ints')) return known('int64', [n.ints('value_ints').length], n.ints('value_ints'));
  return n.refuse('a constant that is not a dense tensor of numbers');
};

const shapeNode: Handler = (n) => {
  const shape = n.shape(0);
  const clamp = (at: number): number => Math.min(shape.length, Math.max(0, at < 0 ? at + shape.length : at));
  const part = shape.slice(clamp(n.int('start', 0)), clamp(n.int('end', shape.length)));
  return known('int64', [part.length], part);
};

const size: Handler = (n) => known('int64', [], [
  n.shape(0).reduce<Dim>((all, dim) => mulDims(all, dim) ?? n.refuse(`the size of [${printShape(n.shape(0))}]; bind the symbols with --dim`), 1),
]);

const filled: Handler = (n) => {
  const tensor = n.tensor('value');
  if (tensor !== null && tensor.data.length !== 1) n.fail('its value must be one number');
  const value = tensor === null ? 0 : tensor.data[0];
  const shape = n.dims(0);
  const elementType = tensor?.elementType ?? 'float';
  if (shape.some((dim) => isStatic(dim) && dim < 0)) n.fail(`the shape [${printShape(shape)}] is not possible`);
  if (isStaticShape(shape)) {
    const count = sizeOf(shape);
    limitSize(n, count, isRealType(elementType) ? MAX_CONSTANT_SIZE : MAX_KNOWN);
    if (isRealType(elementType)) return n.realConstant(shape, new Float32Array(count).fill(value));
    return known(elementType, shape, new Float64Array(count).fill(value));
  }
  if (!isRealType(elementType)) return n.refuse(`integers of the shape [${printShape(shape)}]; bind the symbols with --dim`);
  return n.emit(expand, { x: n.realConstant(shape.map(() => 1), [value], 'value') }, { shape });
};

const range: Handler = (n) => {
  const reals = [0, 1, 2].some((i) => !isKnown(n.term(i)));
  const [start, limit, step] = [n.scalar(0), n.scalar(1), n.scalar(2)];
  if (step === 0) n.fail('the step is 0');
  const count = Math.max(0, Math.ceil((limit - start) / step));
  limitSize(n, count, MAX_KNOWN);
  const values = Array.from({ length: count }, (_, i) => start + i * step);
  return reals ? n.realConstant([count], values) : known(n.known(0).elementType, [count], values);
};

/** Keeps the upper or lower triangle: a product with a constant of zeros and ones. */
const triangle: Handler = (n) => {
  const upper = n.int('upper', 1) !== 0;
  const offset = n.has(1) ? n.scalar(1) : 0;
  const x = n.term(0);
  const shape = isKnown(x) ? x.shape : x.type.shape;
  const [rows, columns] = shape.slice(-2).map((dim) => (isStatic(dim) ? dim : n.refuse('a symbolic size; bind it with --dim')));
  const keeps = (i: number): boolean => {
    const [row, column] = [Math.floor(i / columns) % rows, i % columns];
    return upper ? column >= row + offset : column <= row + offset;
  };
  if (isKnown(x)) return known(x.elementType, x.shape, Array.from(x.data, (dim, i) => (keeps(i) ? dim : 0)));
  limitSize(n, rows * columns, MAX_KNOWN);
  const mask = Array.from({ length: rows * columns }, (_, i) => keeps(i));
  // -Infinity·0 is not 0: constants such as attention masks are selected, computed values multiplied.
  if (constantOf(x) !== null) {
    const condition = n.toValue(known('bool', [rows, columns], mask.map(Number)));
    return n.emit(where, { condition, x, y: n.realConstant([], [0], 'zero') });
  }
  return n.emit(mul, { x, y: n.realConstant([rows, columns], mask.map(Number), 'mask') });
};

const nonZero: Handler = (n) => {
  const { shape, data } = n.known(0);
  const values = n.numbers(0);
  const found = Array.from({ length: data.length }, (_, i) => i).filter((i) => values[i] !== 0);
  const coordinate = (at: number, axis: number): number => Math.floor(at / shape.slice(axis + 1).reduce((all, dim) => all * dim, 1)) % shape[axis];
  return known('int64', [shape.length, found.length], shape.flatMap((_, axis) => found.map((at) => coordinate(at, axis))));
};

const product: Handler = (n) => {
  n.ignore('keepdims', 'axes', 'noop_with_empty_axes');
  const x = n.known(0);
  const all = Array.from(x.data).reduce<Dim>((so, dim) => mulDims(so, dim) ?? n.refuse('a product of symbols'), 1);
  if (x.shape.length !== 1) return n.refuse('more than one axis');
  const single = known(x.elementType, [1], [all]);
  return n.int('keepdims', 1) !== 0 ? single : n.move(reshape, { x: single as Term }, { shape: [] });
};

/** With a known condition the chosen branch takes the place of the node. */
const branch: Handler = (n) => {
  const [condition] = n.numbers(0);
  const chosen = n.graph(condition !== 0 ? 'then_branch' : 'else_branch');
  n.ignore('then_branch', 'else_branch');
  return n.inline(chosen);
};

export const shapes: Handlers = {
  Constant: constantNode, Shape: shapeNode, Size: size, ConstantOfShape: filled, Range: range, Trilu: triangle, NonZero: nonZero,
  ReduceProd: product, If: branch,
};
