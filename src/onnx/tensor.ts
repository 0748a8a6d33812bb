/** Elements of a TensorProto. Real types become Float32Array; integers become numbers in an array that holds them. */
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { elementTypes, type ElementType, type Integer, type TensorProto } from './schema.ts';

export type ExternalData = (location: string, offset: number, length: number | null) => Uint8Array;

export type NumberArray = Float32Array | Float64Array | Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array;
export interface HostTensor {
  readonly elementType: ElementType;
  readonly shape: readonly number[];
  /** 64-bit integers as doubles: exact to 2^53, nearest beyond */
  readonly data: NumberArray;
}

/** Largest number of elements of one tensor. */
export const MAX_ELEMENTS = 2 ** 30;

export const isRealType = (type: ElementType): boolean => /^(float|float16|bfloat16|double)$/.test(type);
export const isIntegerType = (type: ElementType): boolean => /^u?int/.test(type);

/** Bits of one element in `raw_data`; types that are missing here cannot be read. */
const widths: Partial<Record<ElementType, number>> = {
  float: 32, double: 64, float16: 16, bfloat16: 16, int8: 8, uint8: 8, int16: 16, uint16: 16, int32: 32, uint32: 32, int64: 64, uint64: 64,
  bool: 8, int4: 4, uint4: 4, int2: 2, uint2: 2,
};

const containers: Partial<Record<ElementType, new (length: number) => NumberArray>> = {
  float: Float32Array, double: Float32Array, float16: Float32Array, bfloat16: Float32Array, int8: Int8Array, uint8: Uint8Array,
  int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: Float64Array, uint64: Float64Array,
  bool: Uint8Array, int4: Int8Array, uint4: Uint8Array, int2: Int8Array, uint2: Uint8Array,
};

export const readTensor = (proto: TensorProto, externalData: ExternalData | null): HostTensor => {
  const name = proto.name ?? '';
  const fail = (why: string): never => { throw new CompileError(errors.brokenTensor(name, why)); };
  const elementType = elementTypes[proto.dataType ?? 0];
  const width = elementType === undefined ? undefined : widths[elementType];
  const container = elementType === undefined ? undefined : containers[elementType];
  if (width === undefined || container === undefined) return fail(`elements of type ${elementType ?? proto.dataType} cannot be read`);
  if (proto.segment !== undefined) fail('it is split into segments');
  const shape = (proto.dims ?? []).map((dim) => (typeof dim === 'number' && dim >= 0 ? dim : fail(`the size ${dim} is not possible`)));
  const size = shape.reduce((product, dim) => product * dim, 1);
  if (size > MAX_ELEMENTS) throw new CompileError(errors.tooLarge(`tensor "${name}"`, size, MAX_ELEMENTS));
  const byteLength = Math.ceil((size * width) / 8);
  const raw = proto.dataLocation === 1 ? readExternal(proto, byteLength, externalData) : proto.rawData;
  const typed = typedField(proto, elementType);
  if (raw !== undefined && !(raw.length === 0 && typed.length > 0)) {
    if (raw.length !== byteLength) fail(`${raw.length} bytes of data for [${shape.join(', ')}] of ${elementType}, which takes ${byteLength}`);
    return { elementType, shape, data: fromBytes(raw, elementType, new container(size)) };
  }
  // Sub-byte codes come packed, several to an int32_data entry.
  const perEntry = width < 8 ? 8 / width : 1;
  if (typed.length !== Math.ceil(size / perEntry)) fail(`${typed.length} elements of data for [${shape.join(', ')}]`);
  const data = new container(size);
  if (width < 8) return { elementType, shape, data: fromBytes(Uint8Array.from(typed, (value) => Number(value) & 255), elementType, data) };
  const decode = elementType === 'float16' ? halfToNumber : elementType === 'bfloat16' ? brainToNumber : null;
  for (let i = 0; i < size; i++) data[i] = decode === null ? Number(typed[i]) : decode(Number(typed[i]) & 0xffff);
  return { elementType, shape, data };
};

/** The repeated field that holds elements of a type when there is no `raw_data`. */
const typedField = (proto: TensorProto, type: ElementType): readonly Integer[] => {
  switch (type) {
    case 'float': return proto.floatData ?? [];
    case 'double': return proto.doubleData ?? [];
    case 'int64': return proto.int64Data ?? [];
    case 'uint32': case 'uint64': return proto.uint64Data ?? [];
    default: return proto.int32Data ?? [];
  }
};

const readExternal = (proto: TensorProto, byteLength: number, externalData: ExternalData | null): Uint8Array => {
  const name = proto.name ?? '';
  const fail = (why: string): never => { throw new CompileError(errors.externalData(name, why)); };
  const entries = new Map((proto.externalData ?? []).map(({ key, value }) => [key ?? '', value ?? '']));
  const location = entries.get('location') ?? fail('it has no location');
  if (location === '' || /^([/\\]|[A-Za-z]:)/.test(location) || location.split(/[/\\]/).includes('..') || location.includes('\0')) {
    fail(`the path ${JSON.stringify(location)} leaves the folder of the model`);
  }
  const count = (key: string, fallback: number): number => {
    const text = entries.get(key);
    const value = text === undefined ? fallback : Number(text);
    return Number.isSafeInteger(value) && value >= 0 ? value : fail(`the ${key} ${JSON.stringify(text)} is not a count of bytes`);
  };
  const offset = count('offset', 0);
  const length = count('length', byteLength);
  if (length !== byteLength) fail(`it has ${length} bytes where the shape takes ${byteLength}`);
  if (externalData === null) return fail('the model was given without its folder');
  const bytes = externalData(location, offset, length);
  return bytes.length === length ? bytes : fail(`${bytes.length} bytes were read from ${JSON.stringify(location)}, ${length} are needed`);
};

/** Little-endian elements, at any alignment, into `data`. */
const fromBytes = (raw: Uint8Array, type: ElementType, data: NumberArray): NumberArray => {
  const width = widths[type] as number;
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  if (width < 8) {
    const perByte = 8 / width;
    const signed = type[0] === 'i';
    for (let i = 0; i < data.length; i++) {
      const code = (raw[Math.floor(i / perByte)] >> ((i % perByte) * width)) & (2 ** width - 1);
      data[i] = signed && code >= 2 ** (width - 1) ? code - 2 ** width : code;
    }
    return data;
  }
  const read: (at: number) => number =
    type === 'float' ? (at) => view.getFloat32(at, true)
      : type === 'double' ? (at) => view.getFloat64(at, true)
        : type === 'float16' ? (at) => halfToNumber(view.getUint16(at, true))
          : type === 'bfloat16' ? (at) => brainToNumber(view.getUint16(at, true))
            : type === 'int16' ? (at) => view.getInt16(at, true)
              : type === 'uint16' ? (at) => view.getUint16(at, true)
                : type === 'int32' ? (at) => view.getInt32(at, true)
                  : type === 'uint32' ? (at) => view.getUint32(at, true)
                    : type === 'int64' ? (at) => Number(view.getBigInt64(at, true))
                      : type === 'uint64' ? (at) => Number(view.getBigUint64(at, true))
                        : type === 'int8' ? (at) => view.getInt8(at)
                          : (at) => raw[at];
  for (let i = 0, at = 0; i < data.length; i++, at += width / 8) data[i] = read(at);
  return data;
};

/** IEEE 754 binary16. */
const halfToNumber = (bits: number): number => {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
};

const word = new DataView(new ArrayBuffer(4));
/** bfloat16: the upper half of binary32. */
const brainToNumber = (bits: number): number => {
  word.setUint32(0, bits << 16);
  return word.getFloat32(0);
};
