/** Sums of products and sums of codes: accumulating kernels with what a unit of their result is worth. */
import { staticShape } from '../../ir/dim.ts';
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import { constantOf, type Node, type Value } from '../../ir/graph.ts';
import type { NodeOf } from '../../ir/op.ts';
import type * as float from '../../ir/ops/index.ts';
import { convAcc, linearAcc, matmulAcc } from '../../ir/ops/kernel-accumulate.ts';
import { reduceSum as reduceSumCodes, sumPool } from '../../ir/ops/kernel-reduce.ts';
import { scaleAt, scaleOf, zeroOf, type UniformQuant } from '../../ir/quant.ts';
import { levelsOf, type Tensor } from '../../ir/type.ts';
import { rowIntervals } from '../../ir/bounds.ts';
import { channelsOf, quantOf, type Lowering, type Sum } from './lowering.ts';

/** Σ w·(x − zero)·s_w·s_x + bias, with the zero point and the bias in the offset. */
export const conv = (node: NodeOf<typeof float.conv>, lowering: Lowering): Sum => {
  const { widths: _, ...attrs } = node.attrs;
  const padded = attrs.pads.some((p) => p > 0);
  const x = lowering.codes(node.inputs.x);
  const weight = lowering.codes(node.inputs.weight);
  const { low, high } = rowIntervals(constantOf(weight)!, quantOf(x), padded ? zeroOf(quantOf(x)) : null);
  const indexBits = indexBitsOf(constantOf(weight)!);
  const value = lowering.b.emit(convAcc, { x, weight }, { ...attrs, padCode: zeroOf(quantOf(x)), bound: hull(low, high), indexBits }, { name: `${node.output.name}.acc` });
  return { kind: 'sum', value, low, high, ...worth(x, constantOf(weight)!, node.inputs.bias) };
};

export const linear = (node: NodeOf<typeof float.linear>, lowering: Lowering): Sum => {
  const x = lowering.codes(node.inputs.x);
  const weight = lowering.codes(node.inputs.weight);
  const { low, high } = rowIntervals(constantOf(weight)!, quantOf(x), null);
  const value = lowering.b.emit(linearAcc, { x, weight }, { bound: hull(low, high), indexBits: indexBitsOf(constantOf(weight)!) }, { name: `${node.output.name}.acc` });
  return { kind: 'sum', value, low, high, ...worth(x, constantOf(weight)!, node.inputs.bias) };
};

/** Bits of the indices by which codes of a byte are stored, where there are so few different ones that indices and their table take fewer bytes; else 0. */
const indexBitsOf = (weight: Tensor): number => {
  if (weight.type.dtype !== 'i8') return 0;
  const { length } = weight.data;
  const levels = levelsOf(weight).length;
  const bits = [2, 3, 4].find((own) => levels <= 2 ** own);
  return bits !== undefined && (length * bits) / 8 + 2 ** bits < length ? bits : 0;
};

/** What each row's accumulator stands for: the value of its unit, the accumulator that the zero point of x makes, and the bias. */
const worth = (x: Value, weight: Tensor, bias: Value | null): Pick<Sum, 'factors' | 'zeros' | 'offsets'> => {
  const rows = staticShape(weight.type.shape)[0];
  const perRow = weight.data.length / rows;
  const scale = scaleOf(quantOf(x));
  const zero = zeroOf(quantOf(x));
  const biases = constantOf(bias)?.data;
  const factors = new Float64Array(rows);
  const zeros = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    for (let i = row * perRow; i < (row + 1) * perRow; i++) sum += Number(weight.data[i]);
    factors[row] = scale * scaleAt(weight.type.quant as UniformQuant, row);
    zeros[row] = zero * sum;
  }
  return { factors, zeros, offsets: Float64Array.from(factors, (_, row) => Number(biases?.[row] ?? 0)) };
};

export const matmul = (node: NodeOf<typeof float.matmul>, lowering: Lowering): Sum => {
  const a = lowering.codes(node.inputs.a);
  const b = lowering.codes(node.inputs.b);
  const depth = staticShape(a.type.shape).at(-1)!;
  const [p, q] = [spanOf(a), spanOf(b)];
  const products = [p.low * q.low, p.low * q.high, p.high * q.low, p.high * q.high];
  const bound = [Math.min(0, ...products) * depth, Math.max(0, ...products) * depth];
  const value = lowering.b.emit(matmulAcc, { a, b },
    { transposeB: node.attrs.transposeB, aZero: zeroOf(quantOf(a)), bZero: zeroOf(quantOf(b)), bound }, { name: `${node.output.name}.acc` });
  return uniformSum(value, scaleOf(quantOf(a)) * scaleOf(quantOf(b)), 0, bound);
};

/** Codes less their zero point. */
const spanOf = (value: Value): { low: number; high: number } => {
  const quant = quantOf(value);
  return { low: quant.low - zeroOf(quant), high: quant.high - zeroOf(quant) };
};

export const reduceMean = (node: NodeOf<typeof float.reduceMean>, lowering: Lowering): Sum => reduced(node, lowering, (count) => 1 / count);
export const reduceSum = (node: NodeOf<typeof float.reduceSum>, lowering: Lowering): Sum => reduced(node, lowering, () => 1);

const reduced = (node: NodeOf<typeof float.reduceMean> | NodeOf<typeof float.reduceSum>, lowering: Lowering, share: (count: number) => number): Sum => {
  const x = lowering.codes(node.inputs.x);
  const shape = staticShape(x.type.shape);
  const count = node.attrs.axes.reduce((product, axis) => product * shape[axis < 0 ? axis + shape.length : axis], 1);
  const quant = quantOf(x);
  const bound = [quant.low * count, quant.high * count];
  const value = lowering.b.emit(reduceSumCodes, { x }, node.attrs, { name: `${node.output.name}.acc` });
  return uniformSum(value, scaleOf(quant) * share(count), zeroOf(quant) * count, bound);
};

/** A mean of a window whose taps all count: no padding, or padding that counts as zeros. */
export const averagePool = (node: NodeOf<typeof float.averagePool>, lowering: Lowering): Sum => {
  const { kernel, strides, pads, dilations, countPad } = node.attrs;
  if ((!countPad && pads.some((p) => p > 0)) || dilations.some((d) => d > 1)) throw new CompileError(errors.noIntegerForm(node as unknown as Node), 'unsupported');
  const x = lowering.codes(node.inputs.x);
  const quant = quantOf(x);
  const count = kernel[0] * kernel[1];
  const bound = [quant.low * count, quant.high * count];
  const value = lowering.b.emit(sumPool, { x }, { kernel, strides, pads, padCode: zeroOf(quant) }, { name: `${node.output.name}.acc` });
  return uniformSum(value, scaleOf(quant) / count, zeroOf(quant) * count, bound);
};

const uniformSum = (value: Value, factor: number, zero: number, [low, high]: readonly number[]): Sum => {
  const fill = (x: number): Float64Array => new Float64Array(channelsOf(value)).fill(x);
  return { kind: 'sum', value, factors: fill(factor), zeros: fill(zero), offsets: fill(0), low: fill(low), high: fill(high) };
};

const hull = (low: Float64Array, high: Float64Array): readonly number[] => [low.reduce((a, b) => Math.min(a, b), 0), high.reduce((a, b) => Math.max(a, b), 0)];
