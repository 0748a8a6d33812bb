/** Our protobuf reader against onnx-proto and against the bytes: every model decodes to the same fields and encodes to the same file. */
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, test } from 'vitest';
import { decodeModel, encodeModel, fromProtoObject, unknownFieldsOf } from '../../src/onnx/protobuf.ts';
import { fieldsOf, isMessageName } from '../../src/onnx/schema.ts';
import { importModel } from '../../src/onnx/import.ts';
import { histogramOf, modelFiles, readModel, unlessAbsent } from './models.ts';

const onnx = await import('onnx-proto').then((module) => (module.default ?? module).onnx, () => null);

const varint = (value: number): readonly number[] => (value < 128 ? [value] : [(value & 127) | 128, ...varint(Math.floor(value / 128))]);
const block = (field: number, bytes: readonly number[]): readonly number[] => [...varint(field * 8 + 2), ...varint(bytes.length), ...bytes];
const text = (value: string): readonly number[] => [...new TextEncoder().encode(value)];

describe('models', () => {
  for (const file of [...modelFiles, 'silero-vad/original', 'kws-encodings/micro_kws_m_static_qoperator'] as const) {
    test(file, unlessAbsent(file), () => {
      const bytes = readModel(file);
      const model = decodeModel(bytes);
      expect(unknownFieldsOf(model)).toEqual([]);
      expect(Buffer.compare(encodeModel(model), bytes)).toBe(0);
      if (onnx !== null) expect(isDeepStrictEqual(fromProtoObject(onnx.ModelProto.decode(bytes)), model)).toBe(true);
    });
  }
});

test('an object of onnx-proto is imported like its bytes', unlessAbsent('own/glyph-vit/model'), () => {
  const bytes = readModel('own/glyph-vit/model');
  const object = onnx!.ModelProto.decode(bytes);
  expect(histogramOf(importModel(object).graph)).toBe(histogramOf(importModel(bytes).graph));
});

describe('wire format', () => {
  test('field numbers and names are distinct in every message', () => {
    for (const fields of Object.values(fieldsOf)) {
      expect(new Set(fields.map(({ number }) => number)).size).toBe(fields.length);
      expect(fields.map(({ number }) => number)).toEqual(fields.map(({ number }) => number).sort((a, b) => a - b));
      for (const { type } of fields) expect(isMessageName(type) || /^(int32|int64|uint64|float|double|string|bytes)$/.test(type)).toBe(true);
    }
  });
  test('zeros that are written stay, fields that are not stay absent', () => {
    const model = { irVersion: 0, domain: '', graph: { node: [{ attribute: [{ name: 'axis', i: 0, type: 2 }] }] } };
    expect(decodeModel(encodeModel(model))).toEqual(model);
    expect(Object.hasOwn(decodeModel(encodeModel({ irVersion: 3 })), 'domain')).toBe(false);
  });
  test('64-bit integers keep all their bits', () => {
    const ints = [0, 1, -1, 2 ** 40, -(2 ** 40), Number.MAX_SAFE_INTEGER, 2n ** 63n - 1n, -(2n ** 63n)];
    const model = { graph: { node: [{ attribute: [{ name: 'ends', ints, type: 7 }] }] } };
    expect(decodeModel(encodeModel(model))).toEqual(model);
    expect(decodeModel(encodeModel({ graph: { initializer: [{ uint64Data: [2n ** 64n - 1n] }] } })).graph?.initializer?.[0].uint64Data).toEqual([2n ** 64n - 1n]);
  });
  test('repeated numbers are read packed and unpacked', () => {
    const unpacked = Uint8Array.from([...block(7, block(5, [8, 2, 8, 3]))]);
    const packed = Uint8Array.from([...block(7, block(5, block(1, [2, 3])))]);
    for (const bytes of [unpacked, packed]) expect(decodeModel(bytes).graph?.initializer?.[0].dims).toEqual([2, 3]);
  });
  test('a message that comes in two parts is merged', () => {
    const bytes = Uint8Array.from([...block(7, block(2, text('g'))), ...block(7, block(10, text('doc')))]);
    expect(decodeModel(bytes).graph).toEqual({ name: 'g', docString: 'doc' });
  });
  test('unknown fields are kept, written back and listed', () => {
    const bytes = Uint8Array.from([8, 9, ...block(7, [...block(1, block(99, text('new'))), ...block(2, text('g'))]), ...varint(999 * 8), 5]);
    const model = decodeModel(bytes);
    expect(unknownFieldsOf(model)).toEqual(['ModelProto field 999', 'NodeProto field 99']);
    expect(decodeModel(encodeModel(model))).toEqual(model);
    expect([...encodeModel(model)]).toEqual([...bytes]);
  });
});
