/**
 * Constant weights as a program stores them. With `indexBits` = b an i8 weight of at most 2^b levels is kept as an index of b bits for each
 * code, packed as codes of b bits are (codes.ts), and a table of 2^b bytes: the levels in ascending order, the greatest one repeated.
 *
 * A product that reads beyond its weights, where what it multiplies need not be 0, wants weights of 0 there. If 0 is no level it becomes
 * one; if the table has no room for it the codes themselves are stored.
 */
import { bitsOf } from '../../ir/dtype.ts';
import type { Node, Value } from '../../ir/graph.ts';
import { levelsOf } from '../../ir/type.ts';
import { add, at, broadcast, buffer, call, convert, literal, load, lookup, pick, set, splat, subWrap, TABLE_BYTES, variable } from '../../loops/build.ts';
import type { Address, Expr, Fn, Stmt } from '../../loops/types.ts';
import { codesOf, storedWidth, unpackingFn, type Loaded, type PackedList, type StoredBits } from './codes.ts';
import { constant, type ScheduleContext } from './kernel.ts';
import type { Target } from './target.ts';

export interface StoredWeights {
  /** what the weights are */
  readonly weights: Int8Array;
  /** what is packed: the weights, or their indices less 2^(bits−1) */
  readonly codes: Int8Array;
  readonly bits: StoredBits;
  /** the table; null where codes stand for themselves */
  readonly levels: Int8Array | null;
  /** what is packed in the place of a weight that pads */
  readonly padding: number;
}

/** A product with constant weights. */
type Product = Pick<Node, 'inputs' | 'attrs'>;
const indexBitsOf = ({ attrs }: Product): number => Number(attrs['indexBits'] ?? 0);

/** Bits of the narrowest signed code that holds every weight: those of the dtype, or those that the levels need. */
export const weightWidth = (root: Product): number => {
  const weight = root.inputs['weight'] as Value;
  if (indexBitsOf(root) === 0) return bitsOf(weight.type.dtype);
  const levels = levelsOf(constant(weight));
  let bits = 2;
  while (levels[0] < -(2 ** (bits - 1)) || levels[levels.length - 1] >= 2 ** (bits - 1)) bits++;
  return bits;
};

/** The weights of a product; `pads`: it multiplies padding by what need not be 0. */
export const storedWeights = (root: Product, pads: boolean): StoredWeights => {
  const weight = root.inputs['weight'] as Value;
  const weights = constant(weight).data as Int8Array;
  const bits = indexBitsOf(root);
  const own = bits === 0 ? null : levelsOf(constant(weight));
  const levels = own === null || !pads || own.includes(0) ? own : Int8Array.from([...own, 0]).sort();
  if (levels === null || levels.length > 2 ** bits) {
    return { weights, codes: weights, bits: bits === 0 ? storedWidth(bitsOf(weight.type.dtype)) : 8, levels: null, padding: 0 };
  }
  const table = new Int8Array(2 ** bits).fill(levels[levels.length - 1]);
  table.set(levels);
  const index = new Int8Array(256);
  levels.forEach((level, i) => { index[level & 255] = i - 2 ** (bits - 1); });
  return { weights, codes: weights.map((code) => index[code & 255]), bits: bits as StoredBits, levels: table, padding: index[0] };
};

/** A table of levels in a register: what brings it there, and the entry of each index. */
export interface RegisterTable {
  readonly setup: readonly Stmt[];
  of(index: Expr): Expr;
}
const sixteen = (levels: Address, bits: StoredBits): Expr => {
  const entries = 2 ** bits;
  return entries === TABLE_BYTES ? load(levels, TABLE_BYTES) : splat(levels, entries, TABLE_BYTES / entries);
};

/** Entries as bytes, level + offset, for indices in bytes. */
export const byteTable = (levels: Address, bits: StoredBits, offset: number): RegisterTable => {
  const table = variable('table', 'i8', TABLE_BYTES);
  const entries = sixteen(levels, bits);
  return { setup: [set(table, offset === 0 ? entries : add(entries, literal(offset, 'i8', TABLE_BYTES)))], of: (index) => pick(table, index) };
};

/** Entries as words without sign, level − least level, for indices in words; and the least level. */
export const wordTable = (levels: Address, bits: StoredBits): RegisterTable & { readonly least: Expr } => {
  const table = variable('table', 'u8', TABLE_BYTES);
  const least = variable('least', 'i8');
  return {
    setup: [set(least, load(levels)), set(table, convert('u8', subWrap(sixteen(levels, bits), broadcast(least, TABLE_BYTES))))], of: (index) => pick(table, index),
    least: convert('i16', least),
  };
};

interface LevelUnpacking extends PackedList {
  /** added to every level */
  readonly offset: number;
}
const unpackLevelsFn = (name: string, { offset, ...list }: LevelUnpacking): Fn => {
  const { bits, target } = list;
  const levels = buffer('levels', 'i8', 2 ** bits, 'const');
  const table = byteTable(at(levels), bits, offset);
  const level = (loaded: Loaded, j: number, n: number): Expr => {
    if (n > 1) return table.of(codesOf(loaded, j, bits, 'u8', true));
    const one = lookup(at(levels), codesOf(loaded, j, bits, 'i32', true), 'i32');
    return convert('i8', offset === 0 ? one : add(one, offset));
  };
  return unpackingFn(name, list, level, { buffers: [levels], setup: target.lanes === 1 ? [] : table.setup });
};

/** Writes the levels that `length` stored indices name, each with `offset` added. */
export const unpackLevels = (codes: Address, packed: Address, levels: Address, length: number, block: number, bits: StoredBits, target: Target, share: ScheduleContext['share'], offset = 0): Stmt =>
  call(share('unpack_levels', { length, block, bits, target, offset }, unpackLevelsFn), [codes, packed, levels]);
