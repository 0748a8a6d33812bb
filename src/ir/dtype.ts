/**
 * Element types. Integer codes of two to eight bits are first-class (`i4`, `u6`): in memory of the compiler one code takes one
 * element of the next wider typed array; how codes are packed in an artefact is decided where weights are laid out.
 */
export type NarrowBits = 2 | 3 | 4 | 5 | 6 | 7 | 8;
export type IntegerDType = `i${NarrowBits}` | `u${NarrowBits}` | 'i16' | 'u16' | 'i32' | 'u32' | 'i64' | 'bool';
export type DType = IntegerDType | 'f32';

export type TypedArray = Float32Array | Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array | BigInt64Array;

/** Width of one code in bits; `bool` takes a byte. */
export const bitsOf = (dtype: DType): number => (dtype === 'bool' ? 8 : Number(dtype.slice(1)));

export const isInteger = (dtype: DType): dtype is IntegerDType => dtype !== 'f32';

export const isSigned = (dtype: DType): boolean => dtype[0] === 'i';

/** Bytes of one element as the compiler holds it in memory. */
export const storageBytes = (dtype: DType): number => Math.max(1, bitsOf(dtype) / 8) <= 1 ? 1 : bitsOf(dtype) / 8;

/** Least and greatest code of an integer type, as numbers; exact up to 32 bits, the nearest doubles for `i64`. */
export const rangeOf = (dtype: IntegerDType): readonly [number, number] => {
  if (dtype === 'bool') return [0, 1];
  const bits = bitsOf(dtype);
  return isSigned(dtype) ? [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] : [0, 2 ** bits - 1];
};

const signedLadder: readonly IntegerDType[] = ['i8', 'i16', 'i32', 'i64'];

/** The narrowest of i8, i16, i32, i64 that holds every integer in [low, high]; unsigned bytes and words only on request. */
export const narrowest = (low: number, high: number): IntegerDType => {
  if (low > high) throw new RangeError(`empty range [${low}, ${high}]`);
  const found = signedLadder.find((dtype) => rangeOf(dtype)[0] <= low && high <= rangeOf(dtype)[1]);
  if (found === undefined) throw new RangeError(`[${low}, ${high}] does not fit 64 bits`);
  return found;
};

const arrays = {
  f32: Float32Array, bool: Uint8Array, i16: Int16Array, u16: Uint16Array, i32: Int32Array, u32: Uint32Array, i64: BigInt64Array,
} as const;

/** A zeroed array that can hold `length` codes of `dtype`. */
export const allocate = (dtype: DType, length: number): TypedArray => {
  if (dtype in arrays) return new arrays[dtype as keyof typeof arrays](length);
  return isSigned(dtype) ? new Int8Array(length) : new Uint8Array(length);
};

const names: ReadonlySet<string> = new Set<string>([
  'f32', 'bool', 'i16', 'u16', 'i32', 'u32', 'i64', ...[2, 3, 4, 5, 6, 7, 8].flatMap((bits) => [`i${bits}`, `u${bits}`]),
]);
export const isDType = (text: string): text is DType => names.has(text);
