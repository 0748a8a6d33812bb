/**
 * NumPy's `.npy` files (format versions 1 to 3; NumPy enhancement proposal 1): a magic word, a header that is the text of a Python
 * dictionary, and the elements. Rows are read one at a time from the file; only Fortran order needs all of it, since there a row's
 * elements lie scattered.
 */
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { ByteSource } from './bytes.ts';

export type NpyData =
  | Float32Array | Float64Array | Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array | BigInt64Array | BigUint64Array;

/** Element types by NumPy's letter and size in bytes; `f2` reads as float32, `b1` as bytes. */
export type NpyDType = 'f2' | 'f4' | 'f8' | 'i1' | 'i2' | 'i4' | 'i8' | 'u1' | 'u2' | 'u4' | 'u8' | 'b1';

export interface NpyArray {
  readonly dtype: NpyDType;
  readonly shape: readonly number[];
  readonly data: NpyData;
}

/** An array in a file: rows are the slices along the first axis; a scalar is one row of one element. */
export interface NpyFile {
  readonly name: string;
  readonly dtype: NpyDType;
  readonly shape: readonly number[];
  readonly rows: number;
  /** elements of one row */
  readonly rowSize: number;
  /** `count` rows from row `start`, row-major */
  read(start: number, count: number): NpyData;
}

const arrays = {
  f2: Uint16Array, f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array, i8: BigInt64Array,
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, u8: BigUint64Array, b1: Uint8Array,
} as const;
const isNpyDType = (text: string): text is NpyDType => Object.hasOwn(arrays, text);

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
/** No header of ours or NumPy's comes near; a longer one is an attack or a broken file. */
const LONGEST_HEADER = 65536;
/** NumPy's own limit of axes. */
const MOST_AXES = 32;
const littleEndianMachine = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

export const openNpy = (source: ByteSource): NpyFile => {
  const fail = (why: string): never => { throw new CompileError(errors.badNpy(source.name, why), 'usage'); };
  if (source.size < 10) fail('it is too short');
  const start = source.read(0, Math.min(source.size, 12));
  if (!MAGIC.every((byte, i) => start[i] === byte)) fail('it does not begin with the NumPy signature');
  const version = start[6];
  if (version < 1 || version > 3) fail(`its format version ${version} is unknown`);
  const prefix = version === 1 ? 10 : 12;
  if (source.size < prefix) fail('it is too short');
  const view = new DataView(start.buffer);
  const length = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > LONGEST_HEADER || prefix + length > source.size) fail(`its header claims ${length} bytes`);
  const header = parseHeader(new TextDecoder(version === 3 ? 'utf-8' : 'latin1').decode(source.read(prefix, length)), fail);
  const { dtype, shape, littleEndian } = header;
  const bytesPerElement = arrays[dtype].BYTES_PER_ELEMENT;
  const elements = shape.reduce((product, size) => product * size, 1);
  const available = source.size - prefix - length;
  if (!Number.isSafeInteger(elements) || elements * bytesPerElement > available) {
    fail(`its shape [${shape.join(', ')}] needs ${elements * bytesPerElement} bytes of data, but it holds ${available}`);
  }
  const rows = shape.length === 0 ? 1 : shape[0];
  const rowSize = rows === 0 ? 0 : elements / rows;
  const readElements = (first: number, count: number): NpyData =>
    decode(source.read(prefix + length + first * bytesPerElement, count * bytesPerElement), dtype, littleEndian);
  let whole: NpyData | null = null;
  const scattered = header.fortranOrder && shape.length > 1;
  const read = (row: number, count: number): NpyData => {
    if (row < 0 || count < 0 || row + count > rows) throw new RangeError(`rows ${row} to ${row + count} of ${rows}`);
    if (!scattered) return readElements(row * rowSize, count * rowSize);
    whole ??= fromFortranOrder(readElements(0, elements), shape);
    return whole.slice(row * rowSize, (row + count) * rowSize);
  };
  return { name: source.name, dtype, shape, rows, rowSize, read };
};

export const readNpy = (source: ByteSource): NpyArray => {
  const file = openNpy(source);
  return { dtype: file.dtype, shape: file.shape, data: file.read(0, file.rows) };
};

interface Header {
  readonly dtype: NpyDType;
  readonly littleEndian: boolean;
  readonly fortranOrder: boolean;
  readonly shape: readonly number[];
}

/** The header is a Python literal; only the form that NumPy writes is read: three known keys, in any order. */
const parseHeader = (text: string, fail: (why: string) => never): Header => {
  const descr = /'descr'\s*:\s*'([^']*)'/.exec(text)?.[1];
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(text)?.[1];
  const sizes = /'shape'\s*:\s*\(([^)]*)\)/.exec(text)?.[1];
  if (descr === undefined) return fail(text.includes("'descr'") ? 'its elements are records; give one array of numbers' : 'its header names no element type');
  if (order === undefined || sizes === undefined) return fail('its header names no shape or order');
  const [mark, name] = /^[<>|=]/.test(descr) ? [descr[0], descr.slice(1)] : ['=', descr];
  const dtype = name === '?' ? 'b1' : name;
  if (!isNpyDType(dtype)) return fail(`its element type ${JSON.stringify(descr.slice(0, 40))} is not supported; convert it to float32, or to integers`);
  const parts = sizes.split(',').map((part) => part.trim()).filter((part) => part !== '');
  if (parts.length > MOST_AXES || !parts.every((part) => /^\d{1,15}L?$/.test(part))) return fail(`its shape (${sizes.slice(0, 80)}) is not a list of sizes`);
  const littleEndian = mark === '<' || (mark !== '>' && littleEndianMachine);
  return { dtype, littleEndian, fortranOrder: order === 'True', shape: parts.map((part) => Number.parseInt(part, 10)) };
};

const decode = (bytes: Uint8Array, dtype: NpyDType, littleEndian: boolean): NpyData => {
  const size = arrays[dtype].BYTES_PER_ELEMENT;
  if (size > 1 && littleEndian !== littleEndianMachine) {
    for (let at = 0; at < bytes.length; at += size) bytes.subarray(at, at + size).reverse();
  }
  const data = new arrays[dtype](bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length / size);
  return dtype === 'f2' ? fromHalf(data as Uint16Array) : data;
};

/** IEEE 754 half precision: 1 sign, 5 exponent, 10 fraction bits; every one is a float32. */
const fromHalf = (codes: Uint16Array): Float32Array => {
  const data = new Float32Array(codes.length);
  for (let i = 0; i < codes.length; i++) {
    const exponent = (codes[i] >> 10) & 31;
    const fraction = codes[i] & 1023;
    const size = exponent === 0 ? fraction * 2 ** -24
      : exponent === 31 ? (fraction === 0 ? Infinity : NaN)
        : (1024 + fraction) * 2 ** (exponent - 25);
    data[i] = codes[i] & 0x8000 ? -size : size;
  }
  return data;
};

/** Column-major elements in row-major order. */
const fromFortranOrder = (data: NpyData, shape: readonly number[]): NpyData => {
  const result = data.slice();
  const strides = new Array<number>(shape.length);
  for (let axis = 0, stride = 1; axis < shape.length; axis++) { strides[axis] = stride; stride *= shape[axis]; }
  const index = new Array<number>(shape.length).fill(0);
  let from = 0;
  for (let to = 0; to < data.length; to++) {
    result[to] = data[from];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++index[axis] < shape[axis]) break;
      from -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return result;
};

const namesOfArrays: readonly (readonly [new (length: number) => NpyData, Exclude<NpyDType, 'f2' | 'b1'>])[] = [
  [Float32Array, 'f4'], [Float64Array, 'f8'], [Int8Array, 'i1'], [Uint8Array, 'u1'], [Int16Array, 'i2'], [Uint16Array, 'u2'],
  [Int32Array, 'i4'], [Uint32Array, 'u4'], [BigInt64Array, 'i8'], [BigUint64Array, 'u8'],
];

/** The bytes of a version 1 file, little-endian and in C order, its data aligned to 64 as NumPy writes it. */
export const encodeNpy = (shape: readonly number[], data: NpyData): Uint8Array => {
  const elements = shape.reduce((product, size) => product * size, 1);
  if (elements !== data.length) throw new RangeError(`${data.length} elements for the shape [${shape.join(', ')}]`);
  const dtype = namesOfArrays.find(([type]) => data instanceof type)![1];
  const dictionary = `{'descr': '${dtype[1] === '1' ? '|' : '<'}${dtype}', 'fortran_order': False, 'shape': (${shape.join(', ')}${shape.length === 1 ? ',' : ''}), }`;
  const length = Math.ceil((10 + dictionary.length + 1) / 64) * 64 - 10;
  const header = new TextEncoder().encode(`${dictionary.padEnd(length - 1)}\n`);
  const file = new Uint8Array(10 + length + data.byteLength);
  file.set(MAGIC);
  file.set([1, 0, length & 255, length >> 8], 6);
  file.set(header, 10);
  const body = file.subarray(10 + length);
  body.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  if (!littleEndianMachine && data.BYTES_PER_ELEMENT > 1) {
    for (let at = 0; at < body.length; at += data.BYTES_PER_ELEMENT) body.subarray(at, at + data.BYTES_PER_ELEMENT).reverse();
  }
  return file;
};
