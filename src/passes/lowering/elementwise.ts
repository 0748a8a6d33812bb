/** Element-wise arithmetic: sums and products of two operands with one rounding, and affine maps of one. */
import { CompileError } from '../../ir/diagnostic.ts';
import { equalShapes, sizeOf, staticShape } from '../../ir/dim.ts';
import { errors, placeOf } from '../../ir/errors.ts';
import { constantOf, type Node, type Value } from '../../ir/graph.ts';
import type { NodeOf } from '../../ir/op.ts';
import type * as float from '../../ir/ops/index.ts';
import { requantizeAdd, requantizeMul } from '../../ir/ops/kernel-requantize.ts';
import { scaleOf, zeroOf, type UniformQuant } from '../../ir/quant.ts';
import { chooseDyadicAdd, chooseDyadicMul, type Term } from '../../numerics/choose-dyadic.ts';
import { tableOfReal } from './moves.ts';
import { asSum, channelsOf, outputDType, quantOf, type Lowered, type Lowering, type Sum } from './lowering.ts';

type Pair = NodeOf<typeof float.add> | NodeOf<typeof float.sub>;
const asPlainNode = (node: { readonly op: string }): Node => node as unknown as Node;

export const addition = (node: NodeOf<typeof float.add>, lowering: Lowering): Lowered => twoOperands(node, lowering, 1);
export const difference = (node: NodeOf<typeof float.sub>, lowering: Lowering): Lowered => twoOperands(node, lowering, -1);

/** x ± y. A constant that is the same along all but the last axis only moves the offset; anything else is a two-operand rescale. */
const twoOperands = (node: Pair, lowering: Lowering, sign: 1 | -1): Lowered => {
  const { x, y } = node.inputs;
  const constants = [perChannelConstant(x, node.output), perChannelConstant(y, node.output)];
  if (constants[1] !== null) return shifted(sumOf(lowering, x), constants[1].map((c) => sign * c), 1);
  if (constants[0] !== null) return shifted(sumOf(lowering, y), constants[0], sign);
  const swap = !equalShapes(x.type.shape, node.output.type.shape) || (lowering.of(y).kind === 'sum' && lowering.of(x).kind === 'codes');
  const [first, second] = swap ? [sumOf(lowering, y), sumOf(lowering, x)] : [sumOf(lowering, x), sumOf(lowering, y)];
  const [signFirst, signSecond] = swap ? [sign, 1 as const] : [1 as const, sign];
  if (!equalShapes(first.value.type.shape, node.output.type.shape)) throw new CompileError(errors.noIntegerForm(asPlainNode(node)), 'unsupported');
  return roundSum(node, scaled(first, signFirst), broadcastTo(scaled(second, signSecond), first.factors.length), lowering);
};

const roundSum = (node: Pair, x: Sum, y: Sum, lowering: Lowering): Lowered => {
  const type = node.output.type;
  const quant = type.quant as UniformQuant;
  const scale = scaleOf(quant);
  const chosen = chooseDyadicAdd({
    x: termOf(x, scale), y: termOf(y, scale), offsets: x.offsets.map((o, c) => (o + y.offsets[c]) / scale),
    zero: zeroOf(quant), low: quant.low, high: quant.high,
  });
  if (chosen === null) throw new CompileError(errors.cannotRescale(placeOf(node.site) ?? node.output.name), 'model');
  const name = node.output.name;
  return {
    kind: 'codes',
    value: lowering.b.emit(requantizeAdd, {
      x: x.value, y: y.value,
      mulX: lowering.words(`${name}.mulX`, chosen.mulX), mulY: lowering.words(`${name}.mulY`, chosen.mulY), add: lowering.longs(`${name}.add`, chosen.add),
    }, { shift: chosen.shift, low: quant.low, high: quant.high, to: outputDType(type) }, { replaces: node.output, type }),
  };
};

const termOf = ({ factors, zeros, low, high }: Sum, scale: number): Term =>
  ({ scales: factors.map((f) => f / scale), zeros, least: low, greatest: high });

/** A product with a per-channel constant is an affine map; of two computed values, a two-operand kernel. */
export const product = (node: NodeOf<typeof float.mul>, lowering: Lowering): Lowered => {
  const { x, y } = node.inputs;
  const constant = perChannelConstant(y, node.output) ?? perChannelConstant(x, node.output);
  if (constant !== null) {
    const sum = sumOf(lowering, perChannelConstant(y, node.output) !== null ? x : y);
    return affine(asPlainNode(node), { ...sum, factors: sum.factors.map((f, c) => f * constant[c]), offsets: sum.offsets.map((o, c) => o * constant[c]) }, lowering);
  }
  const [first, second] = equalShapes(x.type.shape, node.output.type.shape) ? [x, y] : [y, x];
  const [a, b] = [lowering.codes(first), lowering.codes(second)];
  if (!equalShapes(a.type.shape, node.output.type.shape)) throw new CompileError(errors.noIntegerForm(asPlainNode(node)), 'unsupported');
  const type = node.output.type;
  const quant = type.quant as UniformQuant;
  const [p, q] = [quantOf(a), quantOf(b)];
  const products = [p.low - zeroOf(p), p.high - zeroOf(p)].flatMap((u) => [q.low - zeroOf(q), q.high - zeroOf(q)].map((v) => u * v));
  const chosen = chooseDyadicMul({
    scale: (scaleOf(p) * scaleOf(q)) / scaleOf(quant), least: Math.min(...products), greatest: Math.max(...products),
    zero: zeroOf(quant), low: quant.low, high: quant.high,
  });
  if (chosen === null) throw new CompileError(errors.cannotRescale(placeOf(node.site) ?? node.output.name), 'model');
  return {
    kind: 'codes',
    value: lowering.b.emit(requantizeMul, { x: a, y: b }, { zeroX: zeroOf(p), zeroY: zeroOf(q), mul: chosen.mul, add: chosen.add, shift: chosen.shift, low: quant.low, high: quant.high, to: outputDType(type) },
      { replaces: node.output, type }),
  };
};

/** scale[c]·x + offset[c]: batch normalization left over, and copies at another width. */
export const perChannelMap = (node: NodeOf<typeof float.batchNorm> | NodeOf<typeof float.quantize>, lowering: Lowering): Lowered => {
  const sum = sumOf(lowering, node.inputs.x);
  if (node.op === 'quantize') return affine(asPlainNode(node), sum, lowering);
  const [scale, bias, mean, variance] = [node.inputs.scale, node.inputs.bias, node.inputs.mean, node.inputs.variance].map((value) => constantOf(value)!.data);
  const slope = (c: number): number => Number(scale[c]) / Math.sqrt(Number(variance[c]) + node.attrs.epsilon);
  const map: Sum = {
    ...sum, factors: sum.factors.map((f, c) => f * slope(c)), offsets: sum.offsets.map((o, c) => (o - Number(mean[c])) * slope(c) + Number(bias[c])),
  };
  // left real, it is rounded by the addition that reads it
  return node.output.type.quant === null ? map : affine(asPlainNode(node), map, lowering);
};

/** An affine map of bytes is a table; of wider codes, a rescale (two-operand form with y = x·0 where a factor is negative). */
const affine = (node: Node, sum: Sum, lowering: Lowering): Lowered => {
  const { value, factors, zeros, offsets } = sum;
  if (value.type.quant !== null && ['i8', 'u8'].includes(value.type.dtype)) {
    return { kind: 'codes', value: tableOfReal(node, value, factors.length, (code, c) => factors[c] * (code - zeros[c]) + offsets[c], lowering) };
  }
  if (factors.every((f) => f >= 0)) return sum;
  return roundSum(node as unknown as Pair, sum, { ...sum, factors: new Float64Array(factors.length), offsets: new Float64Array(factors.length) }, lowering);
};

const sumOf = (lowering: Lowering, value: Value): Sum => {
  const lowered = lowering.of(value);
  return lowered.kind === 'sum' ? lowered : asSum(lowered.value);
};

const scaled = (sum: Sum, by: 1 | -1): Sum => (by === 1 ? sum : { ...sum, factors: sum.factors.map((f) => -f), offsets: sum.offsets.map((o) => -o) });
const shifted = (sum: Sum, by: Float64Array, sign: 1 | -1): Sum =>
  ({ ...scaled(sum, sign), offsets: scaled(sum, sign).offsets.map((o, c) => o + by[c]) });

/** Per-channel numbers of an operand with one channel, repeated for the channels of the other. */
const broadcastTo = (sum: Sum, channels: number): Sum => {
  if (sum.factors.length === channels) return sum;
  const repeat = (list: Float64Array): Float64Array => new Float64Array(channels).fill(list[0]);
  return { ...sum, factors: repeat(sum.factors), zeros: repeat(sum.zeros), offsets: repeat(sum.offsets), low: repeat(sum.low), high: repeat(sum.high) };
};

/** The real numbers of a constant that varies along the last axis only, one for each channel of `result`; null for anything else. */
const perChannelConstant = (value: Value, result: Value): Float64Array | null => {
  const constant = constantOf(value);
  const channels = channelsOf(result);
  if (constant === null) return null;
  const shape = staticShape(constant.type.shape);
  if (sizeOf(shape) !== 1 && !(sizeOf(shape) === channels && shape.at(-1) === channels)) return null;
  const quant = constant.type.quant as UniformQuant | null;
  const real = (i: number): number => (quant === null ? Number(constant.data[i]) : (Number(constant.data[i]) - zeroOf(quant)) * scaleOf(quant));
  return Float64Array.from({ length: channels }, (_, c) => real(sizeOf(shape) === 1 ? 0 : c));
};
