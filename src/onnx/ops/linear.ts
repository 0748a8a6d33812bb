/** Matrix products. A constant matrix on the right makes a `linear`; two computed operands make a `matmul`. */
import { isStatic, type Dim } from '../../ir/dim.ts';
import { constantOf, type Value } from '../../ir/graph.ts';
import { add, expand, linear, matmul, mul, reshape, transpose } from '../../ir/ops/index.ts';
import type { Handler, Handlers, OnnxNode } from '../node.ts';

const transposed = (n: OnnxNode, x: Value, stem: string): Value => {
  const rank = x.type.shape.length;
  const perm = Array.from({ length: rank }, (_, i) => (i < rank - 2 ? i : rank - 1 - (i - (rank - 2))));
  return n.emit(transpose, { x }, { perm }, stem);
};
const scaled = (n: OnnxNode, x: Value, factor: number, stem: string): Value =>
  factor === 1 ? x : n.emit(mul, { x, y: n.realConstant([], [factor], `${stem}.factor`) }, {}, stem);

const product: Handler = (n) => {
  const [a, b] = [n.value(0), n.value(1)];
  const [left, right] = [a.type.shape, b.type.shape];
  if (left.length === 0 || right.length === 0) n.fail('a matrix product of a scalar');
  // Vectors take part as a row or a column, which is dropped from the result.
  const x = left.length === 1 ? n.emit(reshape, { x: a }, { shape: [1, ...left] }, 'row') : a;
  const y = right.length === 1 ? n.emit(reshape, { x: b }, { shape: [...right, 1] }, 'column') : b;
  const plain = left.length > 1 && right.length > 1;
  const result = multiply(n, x, y, plain ? 0 : 'matrix');
  if (plain) return result;
  const { shape } = result.type;
  const kept = shape.filter((_, i) => !(left.length === 1 && i === shape.length - 2) && !(right.length === 1 && i === shape.length - 1));
  return n.emit(reshape, { x: result }, { shape: kept });
};

const multiply = (n: OnnxNode, x: Value, y: Value, as: number | string): Value => {
  const { shape } = y.type;
  const matrix = shape.slice(-2);
  const single = shape.slice(0, -2).every((dim) => dim === 1) && x.type.shape.length >= shape.length;
  if (constantOf(y) === null || constantOf(x) !== null || !single) return n.emit(matmul, { a: x, b: y }, {}, as);
  const flat = shape.length === 2 ? y : n.emit(reshape, { x: y }, { shape: matrix }, 'matrix');
  return n.emit(linear, { x, weight: transposed(n, flat, 'weight'), bias: null }, {}, as);
};

const gemm: Handler = (n) => {
  n.ignore('broadcast');
  const [alpha, beta] = [n.float('alpha', 1), n.float('beta', 1)];
  const [transA, transB] = [n.int('transA', 0) !== 0, n.int('transB', 0) !== 0];
  if (n.rank(0) !== 2 || n.rank(1) !== 2) n.fail('"Gemm" takes two matrices');
  const x = transA ? transposed(n, n.value(0), 'a') : n.value(0);
  const b = n.value(1);
  const c = n.has(2) && beta !== 0 ? scaled(n, n.value(2), beta, 'bias.scaled') : null;
  const more = c === null ? 0 : 'product';
  if (constantOf(b) === null || constantOf(x) !== null) {
    const y = transB ? n.emit(matmul, { a: x, b }, { transposeB: true }, more) : n.emit(matmul, { a: x, b }, {}, more);
    const result = scaled(n, y, alpha, 'scaled');
    return c === null ? result : n.emit(add, { x: result, y: c });
  }
  const weight = scaled(n, transB ? b : transposed(n, b, 'weight'), alpha, 'weight.scaled');
  const bias = c === null ? null : rowBias(n, c, weight.type.shape[0]);
  if (c === null || bias !== null) return n.emit(linear, { x, weight, bias });
  return n.emit(add, { x: n.emit(linear, { x, weight, bias: null }, {}, 'product'), y: c });
};

/** C as one number for each column, or null where it is computed or varies along the rows. */
const rowBias = (n: OnnxNode, c: Value, outputs: Dim): Value | null => {
  const { shape } = c.type;
  if (constantOf(c) === null || !isStatic(outputs) || shape.length > 2 || (shape.length === 2 && shape[0] !== 1)) return null;
  const last = shape.length === 0 ? 1 : shape[shape.length - 1];
  if (last !== 1 && last !== outputs) return null;
  const flat = shape.length === 1 ? c : n.emit(reshape, { x: c }, { shape: [last] }, 'bias.flat');
  return last === outputs ? flat : n.emit(expand, { x: flat }, { shape: [outputs] }, 'bias');
};

export const linears: Handlers = { MatMul: product, Gemm: gemm };
