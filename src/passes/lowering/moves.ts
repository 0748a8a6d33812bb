/** Ops that move codes without arithmetic, and functions of one byte. */
import type { NodeOf } from '../../ir/op.ts';
import { normalAxis, sizeOf, staticShape } from '../../ir/dim.ts';
import { allocate } from '../../ir/dtype.ts';
import type { Node, Value } from '../../ir/graph.ts';
import type * as float from '../../ir/ops/index.ts';
import { concat, pad, reshape, slice, transpose, unaryOps } from '../../ir/ops/index.ts';
import { maxPool as maxPoolCodes, reduceMax as reduceMaxCodes } from '../../ir/ops/kernel-reduce.ts';
import { clamp } from '../../ir/ops/kernel-requantize.ts';
import { gatherRows, table } from '../../ir/ops/kernel-table.ts';
import { quantizeReal, scaleOf, zeroOf, type UniformQuant } from '../../ir/quant.ts';
import { tensor, tensorType, type TensorType } from '../../ir/type.ts';
import { quantOf, type Lowered, type Lowering } from './lowering.ts';

const kernelForms = { reshape, transpose, concat, slice, max_pool: maxPoolCodes, reduce_max: reduceMaxCodes } as const;

/** The same op on codes: operand and result share one type, so nothing is computed. */
export const copy = (node: Node, lowering: Lowering): Lowered => {
  const inputs = Object.fromEntries(Object.entries(node.inputs).map(([slot, operand]) =>
    [slot, Array.isArray(operand) ? operand.map((value) => lowering.codes(value)) : lowering.codes(operand as Value)]));
  const decl = kernelForms[node.op as keyof typeof kernelForms];
  return { kind: 'codes', value: lowering.b.emit(decl as never, inputs as never, node.attrs as never, { replaces: node.output, type: node.output.type }) };
};

/** Padding writes the code of the real value. */
export const paddedCopy = (node: NodeOf<typeof float.pad>, lowering: Lowering): Lowered => {
  const x = lowering.codes(node.inputs.x);
  const { scale, zero, low, high } = quantOf(x);
  const code = quantizeReal(node.attrs.value, scale as number, zero as number, low, high);
  return { kind: 'codes', value: lowering.b.emit(pad, { x }, { ...node.attrs, value: code }, { replaces: node.output, type: node.output.type }) };
};

/** An activation that no rescale could take in: limits on codes of the same type. */
export const clampCodes = (node: NodeOf<typeof float.relu> | NodeOf<typeof float.clip>, lowering: Lowering): Lowered => {
  const x = lowering.codes(node.inputs.x);
  const { scale, zero, low, high } = quantOf(x);
  const code = (real: number): number => quantizeReal(real, scale as number, zero as number, low, high);
  const [floor, ceiling] = node.op === 'relu' ? [0, Infinity] : [node.attrs.low, node.attrs.high];
  return { kind: 'codes', value: lowering.b.emit(clamp, { x }, { low: code(floor), high: code(ceiling) }, { replaces: node.output, type: node.output.type }) };
};

/** Rows along the first axis are gathered as they lie; another axis is brought to the front and back again. */
export const embedding = (node: NodeOf<typeof float.gather>, lowering: Lowering): Lowered => {
  const { b } = lowering;
  const codes = lowering.codes(node.inputs.table);
  const indices = lowering.codes(node.inputs.indices);
  const shape = staticShape(codes.type.shape);
  const axis = normalAxis(node.attrs.axis, shape.length)!;
  if (axis === 0) return { kind: 'codes', value: b.emit(gatherRows, { table: codes, indices }, {}, { replaces: node.output, type: node.output.type }) };
  const [before, after] = [shape.slice(0, axis), shape.slice(axis + 1)];
  const counted = staticShape(indices.type.shape);
  const typed = (dims: readonly number[]): TensorType => ({ ...codes.type, shape: dims });
  const name = (stem: string): string => `${node.output.name}.${stem}`;
  if (sizeOf(before) === 1) {
    const rows = b.emit(reshape, { x: codes }, { shape: shape.slice(axis) }, { name: name('rows'), type: typed(shape.slice(axis)) });
    const taken = b.emit(gatherRows, { table: rows, indices }, {}, { name: name('taken'), type: typed([...counted, ...after]) });
    return { kind: 'codes', value: b.emit(reshape, { x: taken }, { shape: [...before, ...counted, ...after] }, { replaces: node.output, type: node.output.type }) };
  }
  const front = [axis, ...before.map((_, i) => i), ...after.map((_, i) => axis + 1 + i)];
  const rows = b.emit(transpose, { x: codes }, { perm: front }, { name: name('rows'), type: typed(front.map((i) => shape[i])) });
  const taken = b.emit(gatherRows, { table: rows, indices }, {}, { name: name('taken'), type: typed([...counted, ...before, ...after]) });
  const [n, m] = [counted.length, before.length];
  const back = [...before.map((_, i) => n + i), ...counted.map((_, i) => i), ...after.map((_, i) => n + m + i)];
  return { kind: 'codes', value: b.emit(transpose, { x: taken }, { perm: back }, { replaces: node.output, type: node.output.type }) };
};

/** f(x) for every code of a byte, rounded to the output type. */
export const unaryTable = (node: Node, lowering: Lowering): Lowered => {
  const op = unaryOps.find(({ name }) => name === node.op)!;
  const real = op.real as (x: number, attrs: object) => number;
  const x = lowering.codes(node.inputs['x'] as Value);
  const [scale, zero] = [scaleOf(quantOf(x)), zeroOf(quantOf(x))];
  return { kind: 'codes', value: tableOfReal(node, x, 1, (code) => real((code - zero) * scale, node.attrs), lowering) };
};

/** A table of `rows` functions of a byte (one for all channels when every row comes out equal), in the node's output type. */
export const tableOfReal = (node: Node, x: Value, rows: number, real: (code: number, row: number) => number, lowering: Lowering): Value => {
  const type = node.output.type;
  const { scale, zero, low, high } = type.quant as UniformQuant;
  const least = x.type.dtype === 'u8' ? 0 : -128;
  const rowOf = (row: number): number[] => Array.from({ length: 256 }, (_, i) => quantizeReal(real(least + i, row), scale as number, zero as number, low, high));
  const all = Array.from({ length: rows }, (_, row) => rowOf(row));
  const distinct = all.every((entries) => entries.every((entry, i) => entry === all[0][i])) ? all.slice(0, 1) : all;
  const data = allocate(type.dtype, distinct.length * 256);
  distinct.forEach((entries, row) => data.set(entries as never, row * 256));
  const values = lowering.b.constant(`${node.output.name}.table`, tensor(tensorType(type.dtype, distinct.length === 1 ? [256] : [rows, 256]), data));
  return lowering.b.emit(table, { x, values }, { axis: -1 }, { replaces: node.output, type });
};
