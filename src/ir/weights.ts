/**
 * The side file of a graph's text: the data of large constants, little-endian, one after another, each at a multiple of 64 bytes. A
 * constant is named by its digest; equal data are stored once.
 */
import { createHash } from 'node:crypto';
import { CompileError } from './diagnostic.ts';
import { allocate, storageBytes, type DType, type TypedArray } from './dtype.ts';
import { errors } from './errors.ts';

/** Bytes that the start of each constant is a multiple of: the longest vector load. */
const ALIGNMENT = 64;
/** Hexadecimal digits of the SHA-256 that name a constant: 128 bits. */
const DIGEST_DIGITS = 32;

export const bytesOf = ({ buffer, byteOffset, byteLength }: TypedArray | Uint8Array): Uint8Array => new Uint8Array(buffer, byteOffset, byteLength);

const digests = new WeakMap<TypedArray, string>();
/** The digest of a constant's bytes, computed once for each array. */
export const digestOf = (data: TypedArray): string => {
  let digest = digests.get(data);
  if (digest === undefined) digests.set(data, (digest = createHash('sha256').update(bytesOf(data)).digest('hex').slice(0, DIGEST_DIGITS)));
  return digest;
};

export class WeightStore {
  private readonly offsets = new Map<string, number>();
  private readonly parts: Uint8Array[] = [];
  private length = 0;

  /** An empty store, or one that reads the bytes of a side file. */
  constructor(bytes: Uint8Array = new Uint8Array(0)) {
    if (bytes.length > 0) this.append(bytes);
  }

  /** Keeps the data and tells where it starts. */
  add(data: TypedArray): { readonly digest: string; readonly offset: number } {
    const digest = digestOf(data);
    let offset = this.offsets.get(digest);
    if (offset === undefined) this.offsets.set(digest, (offset = this.append(bytesOf(data))));
    return { digest, offset };
  }

  /** The constant at an offset, checked against its digest. */
  read(digest: string, offset: number, dtype: DType, count: number): TypedArray {
    const bytes = this.bytes();
    const size = count * storageBytes(dtype);
    if (offset + size > bytes.length) throw new CompileError(errors.missingWeights(digest));
    const data = allocate(dtype, count);
    bytesOf(data).set(bytes.subarray(offset, offset + size));
    if (digestOf(data) !== digest) throw new CompileError(errors.damagedWeights(digest));
    return data;
  }

  /** The content of the side file. */
  bytes(): Uint8Array {
    if (this.parts.length === 1) return this.parts[0];
    const all = new Uint8Array(this.length);
    let at = 0;
    for (const part of this.parts) {
      all.set(part, at);
      at += part.length;
    }
    this.parts.splice(0, this.parts.length, all);
    return all;
  }

  private append(bytes: Uint8Array): number {
    const gap = (ALIGNMENT - (this.length % ALIGNMENT)) % ALIGNMENT;
    if (gap > 0) this.parts.push(new Uint8Array(gap));
    const offset = this.length + gap;
    this.parts.push(bytes);
    this.length = offset + bytes.length;
    return offset;
  }
}
