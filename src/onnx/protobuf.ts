/**
 * ONNX files to messages and back, on the wire reader and writer of protobufjs and the table in `schema.ts`. Byte fields are views on
 * the file. Whatever the table does not know is kept, written back, and listed by `unknownFieldsOf` so that the importer can warn.
 */
import protobuf from 'protobufjs/minimal.js';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { fieldsOf, isMessageName, type Field, type Integer, type Message, type MessageName, type ModelProto, type UnknownField } from './schema.ts';

/** Deepest nesting of messages that is followed: sub-graphs in sub-graphs, types in types. */
const MAX_DEPTH = 64;

type Draft = Record<string, unknown>;
type Wire = InstanceType<typeof protobuf.Reader>;
type Long = ReturnType<Wire['int64']>;

const byNumber = Object.fromEntries(Object.entries(fieldsOf).map(([message, fields]) =>
  [message, new Map(fields.map((field) => [field.number, field]))])) as unknown as Record<MessageName, ReadonlyMap<number, Field>>;

/** Decodes a ModelProto. Throws a CompileError that says where the bytes stop making sense. */
export const decodeModel = (bytes: Uint8Array): ModelProto => decodeMessage('ModelProto', bytes);

export const decodeMessage = <K extends MessageName>(name: K, bytes: Uint8Array): Message<K> => {
  // A plain Uint8Array, so that byte fields are views of the same kind whatever the caller holds.
  const reader = new protobuf.Reader(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  try {
    return readMessage(reader, name, bytes.length, 0, {}) as Message<K>;
  } catch (cause) {
    if (cause instanceof CompileError) throw cause;
    throw new CompileError(errors.brokenFile(reader.pos, cause instanceof Error ? cause.message : String(cause)));
  }
};

const readMessage = (reader: Wire, name: MessageName, end: number, depth: number, draft: Draft): Draft => {
  if (depth > MAX_DEPTH) throw new RangeError(`messages nest deeper than ${MAX_DEPTH}`);
  const unknown: UnknownField[] = [];
  while (reader.pos < end) {
    const start = reader.pos;
    const tag = reader.uint32();
    const [number, wireType] = [tag >>> 3, tag & 7];
    if (number === 0) throw new RangeError('field number 0');
    const field = byNumber[name].get(number);
    if (field === undefined || !readField(reader, field, wireType, end, depth, draft)) {
      reader.skipType(wireType);
      unknown.push({ number, bytes: reader.buf.slice(start, reader.pos) });
    }
    if (reader.pos > end) throw new RangeError(`${name} runs past its end`);
  }
  if (unknown.length > 0) draft['unknownFields'] = [...((draft['unknownFields'] as UnknownField[] | undefined) ?? []), ...unknown];
  return draft;
};

const wireTypes: Readonly<Record<string, number>> = { int32: 0, int64: 0, uint64: 0, double: 1, string: 2, bytes: 2, float: 5 };

/** Reads one occurrence of a field; false where its wire type is not one the field can have. */
const readField = (reader: Wire, field: Field, wireType: number, end: number, depth: number, draft: Draft): boolean => {
  const { name, type, repeated } = field;
  const list = (): unknown[] => (draft[name] ??= []) as unknown[];
  if (isMessageName(type)) {
    if (wireType !== 2) return false;
    const stop = blockEnd(reader, end);
    const into = repeated ? {} : ((draft[name] as Draft | undefined) ?? {});
    const message = readMessage(reader, type, stop, depth + 1, into);
    if (repeated) list().push(message); else draft[name] = message;
    return true;
  }
  if (wireType === 2 && repeated && wireTypes[type] !== 2) {
    const stop = blockEnd(reader, end);
    const values = list();
    while (reader.pos < stop) values.push(readScalar(reader, type, end));
    if (reader.pos !== stop) throw new RangeError(`${name} runs past its end`);
    return true;
  }
  if (wireType !== wireTypes[type]) return false;
  const value = readScalar(reader, type, end);
  if (repeated) list().push(value); else draft[name] = value;
  return true;
};

/** Reads a length and checks that the block it announces lies inside its message. */
const blockEnd = (reader: Wire, end: number): number => {
  const length = reader.uint32();
  if (length > end - reader.pos) throw new RangeError(`a block of ${length} bytes where ${Math.max(0, end - reader.pos)} are left`);
  return reader.pos + length;
};

const utf8 = new TextDecoder();

const readScalar = (reader: Wire, type: Exclude<Field['type'], MessageName>, end: number): unknown => {
  switch (type) {
    case 'int32': return reader.int32();
    case 'int64': return toInteger(reader.int64());
    case 'uint64': return toInteger(reader.uint64());
    case 'float': return reader.float();
    case 'double': return reader.double();
    case 'string': return utf8.decode(readBytes(reader, end));
    case 'bytes': return readBytes(reader, end);
  }
};
const readBytes = (reader: Wire, end: number): Uint8Array => {
  const stop = blockEnd(reader, end);
  const bytes = reader.buf.subarray(reader.pos, stop);
  reader.pos = stop;
  return bytes;
};

/** 64-bit integers come as Long objects, or as numbers where `long` is not installed. */
const toInteger = (value: Long | number): Integer => {
  if (typeof value === 'number') return value;
  const { high, low, unsigned } = value;
  const top = unsigned ? high >>> 0 : high;
  const whole = top * 2 ** 32 + (low >>> 0);
  return Number.isSafeInteger(whole) ? whole : (BigInt(top) << 32n) | BigInt(low >>> 0);
};

/** Encodes a ModelProto. A model that `decodeModel` read from a file in canonical field order comes back byte for byte. */
export const encodeModel = (model: ModelProto): Uint8Array => encodeMessage('ModelProto', model);

export const encodeMessage = <K extends MessageName>(name: K, message: Message<K>): Uint8Array => {
  const writer = new protobuf.Writer();
  writeMessage(writer, name, message as Draft);
  return writer.finish();
};

const writeMessage = (writer: InstanceType<typeof protobuf.Writer>, name: MessageName, message: Draft): void => {
  for (const field of fieldsOf[name]) {
    const { type, number, repeated } = field;
    const value = message[field.name];
    if (value === undefined || value === null) continue;
    const values = repeated ? (value as readonly unknown[]) : [value];
    if (field.packed) {
      if (values.length === 0) continue;
      writer.uint32((number << 3) | 2).fork();
      for (const one of values) writeScalar(writer, type as never, one);
      writer.ldelim();
      continue;
    }
    for (const one of values) {
      writer.uint32((number << 3) | (isMessageName(type) ? 2 : wireTypes[type]));
      if (isMessageName(type)) {
        writer.fork();
        writeMessage(writer, type, one as Draft);
        writer.ldelim();
      } else writeScalar(writer, type, one);
    }
  }
  for (const { bytes } of (message['unknownFields'] as readonly UnknownField[] | undefined) ?? []) writer.raw(bytes);
};

const writeScalar = (writer: InstanceType<typeof protobuf.Writer>, type: Exclude<Field['type'], MessageName>, value: unknown): void => {
  switch (type) {
    case 'int32': writer.int32(value as number); break;
    case 'int64': case 'uint64': writer[type](toLong(value as Integer)); break;
    case 'float': writer.float(value as number); break;
    case 'double': writer.double(value as number); break;
    case 'string': writer.string(value as string); break;
    case 'bytes': writer.bytes(value as Uint8Array); break;
  }
};
const toLong = (value: Integer): number | Long =>
  typeof value === 'number' ? value
    : { low: Number(BigInt.asIntN(32, value)), high: Number(BigInt.asIntN(32, value >> 32n)), unsigned: value >= 2n ** 63n } as Long;

/** Fields of a model that this schema does not know, as `Message.number`, each once. */
export const unknownFieldsOf = (model: ModelProto): readonly string[] => {
  const found = new Set<string>();
  const visit = (name: MessageName, message: Draft): void => {
    for (const { number } of (message['unknownFields'] as readonly UnknownField[] | undefined) ?? []) found.add(`${name} field ${number}`);
    for (const { name: key, type } of fieldsOf[name]) {
      if (!isMessageName(type) || message[key] === undefined) continue;
      for (const one of [message[key]].flat()) visit(type, one as Draft);
    }
  };
  visit('ModelProto', model as Draft);
  return [...found];
};

/**
 * A ModelProto object of `onnx-proto` (or any object with the same property names) as ours: own properties only, since the
 * defaults of its classes stand on their prototypes; Long objects become integers.
 */
export const fromProtoObject = (model: object): ModelProto => convert('ModelProto', model, 0) as ModelProto;

const convert = (name: MessageName, source: object, depth: number): Draft => {
  if (depth > MAX_DEPTH) throw new CompileError(errors.brokenModel(`messages nest deeper than ${MAX_DEPTH}`));
  const draft: Draft = {};
  for (const { name: key, type, repeated } of fieldsOf[name]) {
    const value = Object.hasOwn(source, key) ? (source as Draft)[key] : undefined;
    if (value === undefined || value === null) continue;
    const one = (item: unknown): unknown => {
      if (isMessageName(type)) return typeof item === 'object' && item !== null ? convert(type, item, depth + 1) : wrongKind(name, key);
      if (type === 'int64' || type === 'uint64') {
        if (typeof item === 'number') return item;
        if (typeof item === 'bigint') return Number.isSafeInteger(Number(item)) ? Number(item) : item;
        return typeof item === 'object' && item !== null && 'low' in item ? toInteger(item as Long) : wrongKind(name, key);
      }
      if (type === 'bytes') return item instanceof Uint8Array ? new Uint8Array(item.buffer, item.byteOffset, item.byteLength) : wrongKind(name, key);
      return typeof item === (type === 'string' ? 'string' : 'number') ? item : wrongKind(name, key);
    };
    if (repeated) {
      const items = Array.isArray(value) ? value : ArrayBuffer.isView(value) ? Array.from(value as unknown as ArrayLike<unknown>) : wrongKind(name, key);
      if (items.length > 0) draft[key] = items.map(one);
    } else draft[key] = one(value);
  }
  return draft;
};
const wrongKind = (name: MessageName, key: string): never => { throw new CompileError(errors.brokenModel(`${name}.${key} has a value of the wrong kind`)); };
