/**
 * Codes of 2 to 6 bits, stored without gaps. A code is held as code + 2^(bits−1), which has no sign, and cut into fields of 4, 2 or 1
 * bits, each in a plane of its own, since those fill a byte evenly: 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2, lower bits first.
 *
 * A list of codes is cut into blocks of equal length, and as many blocks as the narrowest field fits into a byte are a span. In it each
 * plane stands by itself; a byte of a plane holds the fields of codes that are whole blocks apart, so that one load, one shift and one
 * mask give a vector of neighbours:
 *
 *     block j of a span, field of p bits:  byte ⌊j·p/8⌋·block + i of the plane, shifted right by p·(j mod 8/p)
 *
 * What is left after the last span is a span with shorter blocks, so the whole takes bits/8 of a byte a code, rounded up once.
 */
import { and, buffer, call, convert, fn, index, list, load, loop, moved, or, set, shl, shr, store, sub, variable } from '../../loops/build.ts';
import type { Address, Buffer, Elem, Expr, Fn, Stmt, Var } from '../../loops/types.ts';
import type { ScheduleContext } from './kernel.ts';
import { overNest } from './nest.ts';
import { vectorLanes, type Target } from './target.ts';

/** Widths as stored; 7 bits take a byte. */
export type StoredBits = 2 | 3 | 4 | 5 | 6 | 8;
export const storedWidth = (bits: number): StoredBits => (bits > 6 ? 8 : Math.max(2, bits) as StoredBits);

interface Plane {
  readonly bits: 1 | 2 | 4;
  /** the lowest bit of its field in a code */
  readonly low: number;
}
const planes: Readonly<Record<StoredBits, readonly Plane[]>> = {
  2: [{ bits: 2, low: 0 }], 3: [{ bits: 2, low: 0 }, { bits: 1, low: 2 }], 4: [{ bits: 4, low: 0 }], 5: [{ bits: 4, low: 0 }, { bits: 1, low: 4 }], 6: [{ bits: 4, low: 0 }, { bits: 2, low: 4 }], 8: [],
};
/** Blocks of a span. */
export const fieldsOf = (bits: StoredBits): number => 8 / Math.min(8, ...planes[bits].map((plane) => plane.bits));

interface Spans {
  readonly count: number;
  /** codes after the last whole span, and the blocks they are cut into */
  readonly rest: number;
  readonly restBlock: number;
}
const spansOf = (length: number, block: number, bits: StoredBits): Spans => {
  const span = block * fieldsOf(bits);
  const count = Math.floor(length / span);
  const rest = length - count * span;
  return { count, rest, restBlock: Math.ceil(rest / fieldsOf(bits)) };
};
const spanBytes = (block: number, bits: StoredBits): number => (block * fieldsOf(bits) * bits) / 8;

/** Bytes that a list of codes takes. */
export const packedLength = (length: number, block: number, bits: StoredBits): number => {
  if (bits === 8) return length;
  const { count, restBlock } = spansOf(length, block, bits);
  return count * spanBytes(block, bits) + spanBytes(restBlock, bits);
};

/** Adds a field of `count` codes from `first` on, as they are held, to the bytes from `at` on. */
const addField = (held: Uint8Array, first: number, count: number, out: Uint8Array, at: number, low: number, mask: number, by: number): void => {
  for (let i = 0; i < count; i++) out[at + i] |= ((held[first + i] >> low) & mask) << by;
};

/** Codes as stored. */
export const packCodes = (codes: Int8Array, block: number, bits: StoredBits): Int8Array => {
  if (bits === 8) return codes;
  const fields = fieldsOf(bits);
  const { count, restBlock } = spansOf(codes.length, block, bits);
  const [held, lowest] = [new Uint8Array(codes.length), 2 ** (bits - 1)];
  for (let i = 0; i < held.length; i++) held[i] = codes[i] + lowest;
  const out = new Uint8Array(packedLength(codes.length, block, bits));
  for (let s = 0; s <= count; s++) {
    const size = s < count ? block : restBlock;
    const first = s * block * fields;
    let plane = s * spanBytes(block, bits);
    for (const { bits: p, low } of planes[bits]) {
      for (let j = 0, from = first; j < fields && from < held.length; j++, from += size) {
        addField(held, from, Math.min(size, held.length - from), out, plane + ((j * p) >> 3) * size, low, 2 ** p - 1, (j * p) % 8);
      }
      plane += (fields * p * size) / 8;
    }
  }
  return new Int8Array(out.buffer);
};

/** Bytes of the planes of a span, loaded once: for each plane the vectors that hold its fields, and the statements that load them. */
export interface Loaded {
  readonly setup: readonly Stmt[];
  readonly bytes: readonly (readonly Var[])[];
}
/** `n` neighbours of every block of a span that begins at `from` and has blocks of `block` codes, `at` codes into each block; lanes of element `e`. */
export const loadPlanes = (from: Address, block: number, bits: StoredBits, n: number, e: Elem): Loaded => {
  const fields = fieldsOf(bits);
  let offset = 0;
  const setup: Stmt[] = [];
  const bytes = planes[bits].map((plane) => list((fields * plane.bits) / 8, () => {
    const v = variable('plane', e, n);
    setup.push(set(v, load(moved(from, offset), n, e)));
    offset += block;
    return v;
  }));
  return { setup, bytes };
};
/** The codes of block `j` as values of element `to`, which has the width of the loaded lanes; `signless`: code + 2^(bits−1), as it is held. */
export const codesOf = ({ bytes }: Loaded, j: number, bits: StoredBits, to: Elem, signless = false): Expr => {
  const fields = planes[bits].map(({ bits: p, low }, i) => {
    const per = 8 / p;
    const v = bytes[i][Math.floor(j / per)];
    const by = p * (j % per) - low;
    const there: Expr = by === 0 ? v : by > 0 ? shr(v, by) : shl(v, -by);
    // the uppermost field of a byte leaves nothing beside it
    return low === 0 && p * (j % per) + p === 8 ? there : and(there, (2 ** p - 1) << low);
  });
  const code = fields.reduce((a, b) => or(a, b));
  const held = code.type.e === to ? code : convert(to, code);
  return signless ? held : sub(held, 2 ** (bits - 1));
};

/** A list of `length` stored codes, as packed for a target. */
export interface PackedList {
  readonly length: number;
  readonly block: number;
  readonly bits: StoredBits;
  readonly target: Target;
}
interface Unpacking extends PackedList {
  /** codes stay as they are held, without sign */
  readonly signless: boolean;
}
const unpackFn = (name: string, { length, block, bits, target, signless }: Unpacking): Fn =>
  unpackingFn(name, { length, block, bits, target }, (loaded, j, n) => (n === 1 ? convert('i8', codesOf(loaded, j, bits, 'i32', signless)) : codesOf(loaded, j, bits, 'i8', signless)));

/** A function that writes a list of stored codes as bytes; `code` makes one byte or vector of them, `also` are buffers and statements that it needs. */
export const unpackingFn = (
  name: string, { length, block, bits, target }: PackedList, code: (loaded: Loaded, j: number, n: number) => Expr,
  also: { readonly buffers: readonly Buffer[]; readonly setup: readonly Stmt[] } = { buffers: [], setup: [] },
): Fn => {
  const fields = fieldsOf(bits);
  const { count, rest, restBlock } = spansOf(length, block, bits);
  const [codes, packed] = [buffer('codes', 'i8', length, 'out'), buffer('packed', 'u8', packedLength(length, block, bits), 'const')];
  const widest = vectorLanes(target, 'i8');
  const elementOf = (n: number): Elem => (n === 1 ? 'i32' : 'u8');
  const s = index('span', Math.max(1, count));
  const whole = count === 0 ? [] : [loop(s, overNest({ shape: [block], strides: [[1]] }, Math.min(widest, block), (n, locate) => {
    const loaded = loadPlanes(moved(locate(0, packed), 0, [s, spanBytes(block, bits)]), block, bits, n, elementOf(n));
    return [...loaded.setup, ...list(fields, (j) => store(moved(locate(0, codes), j * block, [s, fields * block]), code(loaded, j, n)))];
  }))];
  const [from, to] = [count * spanBytes(block, bits), count * block * fields];
  const last = list(fields, (j) => {
    const some = Math.min(restBlock, rest - j * restBlock);
    return some <= 0 ? [] : overNest({ shape: [some], strides: [[1]] }, Math.min(widest, 2 ** Math.floor(Math.log2(some))), (n, locate) => {
      const loaded = loadPlanes(moved(locate(0, packed), from), restBlock, bits, n, elementOf(n));
      return [...loaded.setup, store(moved(locate(0, codes), to + j * restBlock), code(loaded, j, n))];
    });
  }).flat();
  return fn(name, { buffers: [codes, packed, ...also.buffers] }, [...also.setup, ...whole, ...last]);
};

/** Writes `length` stored codes as bytes; `signless`: as they are held. */
export const unpack = (codes: Address, packed: Address, length: number, block: number, bits: StoredBits, target: Target, share: ScheduleContext['share'], signless = false): Stmt =>
  call(share('unpack', { length, block, bits, target, signless }, unpackFn), [codes, packed]);
