/** Constants of a program in three blobs: weights, parameter records, tables. Equal contents are stored once. */
export const blobNames = ['weights', 'params', 'luts'] as const;
export type BlobName = (typeof blobNames)[number];

const ALIGNMENT = 64;
export const alignUp = (offset: number): number => Math.ceil(offset / ALIGNMENT) * ALIGNMENT;

export class Blob {
  private readonly parts: { readonly offset: number; readonly bytes: Uint8Array }[] = [];
  private readonly byHash = new Map<number, { readonly offset: number; readonly bytes: Uint8Array }[]>();
  private end = 0;

  get size(): number {
    return this.end;
  }
  /** The offset at which the bytes stand. */
  put(bytes: Uint8Array): number {
    const hash = hashOf(bytes);
    const rivals = this.byHash.get(hash) ?? [];
    const known = rivals.find((rival) => rival.bytes.length === bytes.length && rival.bytes.every((byte, i) => byte === bytes[i]));
    if (known !== undefined) return known.offset;
    const part = { offset: this.end, bytes };
    this.byHash.set(hash, [...rivals, part]);
    this.parts.push(part);
    this.end = alignUp(this.end + bytes.length);
    return part.offset;
  }
  bytes(): Uint8Array {
    const out = new Uint8Array(this.end);
    for (const { offset, bytes } of this.parts) out.set(bytes, offset);
    return out;
  }
}

/** FNV-1a. */
const hashOf = (bytes: Uint8Array): number => {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
};

/** Codes packed from the low bits of a byte upwards; each row begins with a byte of its own. */
export const packRows = (codes: ArrayLike<number>, rows: number, bits: number): Uint8Array => {
  const length = codes.length / rows;
  const rowBytes = Math.ceil((length * bits) / 8);
  const out = new Uint8Array(rows * rowBytes);
  const mask = 2 ** bits - 1;
  for (let row = 0; row < rows; row++) for (let i = 0; i < length; i++) {
    const bit = i * bits;
    out[row * rowBytes + (bit >> 3)] |= (codes[row * length + i] & mask) << (bit & 7);
  }
  return out;
};

/** Codes −1, 0, 1, five to a byte: Σ (code + 1)·3^e; each row begins with a byte of its own. */
export const packTernary = (codes: ArrayLike<number>, rows: number): Uint8Array => {
  const length = codes.length / rows;
  const rowBytes = Math.ceil(length / 5);
  const out = new Uint8Array(rows * rowBytes);
  for (let row = 0; row < rows; row++) for (let i = 0; i < length; i++) out[row * rowBytes + Math.floor(i / 5)] += (codes[row * length + i] + 1) * 3 ** (i % 5);
  return out;
};

/** Records of 16 bytes: two 32-bit words and a 64-bit one. */
export const packRecords = (first: ArrayLike<number>, second: ArrayLike<number> | null, add: BigInt64Array, count: number): Uint8Array => {
  const view = new DataView(new ArrayBuffer(16 * count));
  const at = <T>(list: ArrayLike<T>, i: number): T => list[list.length === 1 ? 0 : i];
  for (let i = 0; i < count; i++) {
    view.setInt32(16 * i, at(first, i), true);
    view.setInt32(16 * i + 4, second === null ? 0 : at(second, i), true);
    view.setBigInt64(16 * i + 8, at(add, i), true);
  }
  return new Uint8Array(view.buffer);
};
