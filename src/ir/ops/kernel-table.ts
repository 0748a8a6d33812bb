/** Look-ups: unary functions of codes, and rows of a constant. */
import { normalAxis, sizeOf, type StaticShape } from '../dim.ts';
import { allocate, isInteger, isSigned, storageBytes } from '../dtype.ts';
import { defineOp, int, misuse } from '../op.ts';
import { codesOf, codeTensor, expectDType, fixedShape, isByte, isWord, packed, shapeOf } from './kernel-checks.ts';

/** Entries of a byte table: signed codes −128…127 or unsigned codes 0…255, in ascending order of code. */
export const TABLE_LENGTH = 256;
/** Knots of an interpolated table: one every 128 codes of −32768…32768. */
export const KNOTS = 513;

/** y = values[x + 128] for signed codes, values[x] for unsigned ones; values [256], or [C, 256] with the row of the index along `axis` */
export const table = defineOp({
  name: 'table',
  summary: 'a function of a byte, read from 256 entries',
  reads: 'codes',
  operands: { x: 'one', values: 'one' },
  attrs: { axis: int('axis of x that picks the row of values', -1) },
  infer: ({ x, values }, { axis }) => {
    expectDType('x', x, isByte, 'codes of at most eight bits');
    expectDType('values', values, (dtype) => isInteger(dtype) && dtype !== 'bool' && storageBytes(dtype) <= 2, 'codes of at most 16 bits');
    const shape = fixedShape('x', x);
    const entries = fixedShape('values', values);
    if (entries.length < 1 || entries.length > 2 || entries.at(-1) !== TABLE_LENGTH) {
      misuse(`"values" must be [256] or [channels, 256], not [${entries.join(', ')}]`);
    }
    const along = normalAxis(axis, shape.length);
    if (entries.length === 2 && (along === null || entries[0] !== shape[along])) {
      misuse(`"values" has ${entries[0]} rows, which do not fit axis ${axis} of x [${shape.join(', ')}]`);
    }
    return codeTensor(values.dtype, shape);
  },
  evaluate: ({ x, values }, { axis }, type) => {
    const codes = codesOf(x);
    const entries = codesOf(values);
    const shape = shapeOf(x);
    const base = isSigned(x.type.dtype) ? TABLE_LENGTH / 2 : 0;
    const rows = entries.length / TABLE_LENGTH;
    const inner = rows === 1 ? 1 : sizeOf(shape.slice(normalAxis(axis, shape.length)! + 1));
    return packed(type, codes.map((code, i) => entries[(Math.floor(i / inner) % rows) * TABLE_LENGTH + code + base]));
  },
});

/** With i = (x + 32768) >> 7 and o = (x + 32768) & 127: y = T[i] + (((T[i+1] − T[i])·o + 64) >> 7). The product is below 2^23. */
export const tableInterpolated = defineOp({
  name: 'table_interpolated',
  summary: 'a function of 16 bits, linear between 513 knots',
  reads: 'codes',
  operands: { x: 'one', values: 'one' },
  attrs: {},
  infer: ({ x, values }) => {
    expectDType('x', x, (dtype) => dtype === 'i16', 'i16');
    expectDType('values', values, (dtype) => dtype === 'i16', 'i16');
    if (fixedShape('values', values, 1)[0] !== KNOTS) misuse(`"values" must have ${KNOTS} entries`);
    return codeTensor('i16', fixedShape('x', x));
  },
  evaluate: ({ x, values }, _attrs, type) => {
    const knots = codesOf(values);
    return packed(type, codesOf(x).map((code) => {
      const i = (code + 32768) >> 7;
      const o = (code + 32768) & 127;
      return knots[i] + (((knots[i + 1] - knots[i]) * o + 64) >> 7);
    }));
  },
});

/** y[…, r…] = table[clamp(indices[…], 0, R − 1), r…] */
export const gatherRows = defineOp({
  name: 'gather_rows',
  summary: 'rows of a table picked by integer indices',
  reads: 'codes',
  operands: { table: 'one', indices: 'one' },
  attrs: {},
  infer: ({ table, indices }) => {
    expectDType('indices', indices, isWord, 'integers of at most 32 bits');
    const [rows, ...row] = fixedShape('table', table);
    if (!(rows > 0)) misuse('the table has no rows');
    return codeTensor(table.dtype, [...fixedShape('indices', indices), ...row]);
  },
  evaluate: ({ table, indices }, _attrs, type) => {
    const [rows, ...row] = table.type.shape as StaticShape;
    const length = sizeOf(row);
    const data = allocate(type.dtype, sizeOf(type.shape));
    codesOf(indices).forEach((index, i) => {
      const from = Math.min(rows - 1, Math.max(0, index)) * length;
      data.set(table.data.subarray(from, from + length) as never, i * length);
    });
    return { type, data };
  },
});
