/**
 * Builders of the loop language, for schedules: they infer types, accept plain numbers beside expressions, and refuse what has no
 * meaning at the place where it is written. Addresses and ranges are checked by verify.ts on the finished program.
 */
import {
  LoopError, type Address, type Affine, type Args, type Binary, type Buffer, type Compare, type Contents, type Elem, type Expr, type Fn, type Index,
  type Mark, type Pairing, type Program, type Role, type Shift, type Stmt, type Type, type Var,
} from './types.ts';

// ---- types

const widths = { i8: 8, u8: 8, i16: 16, u16: 16, i32: 32, u32: 32, i64: 64 } as const satisfies Record<Elem, number>;
export const bitsOf = (e: Elem): 8 | 16 | 32 | 64 => widths[e];
export const bytesOf = (e: Elem): number => widths[e] / 8;
export const isSigned = (e: Elem): boolean => e[0] === 'i';
/** Least and greatest value. */
export const limitsOf = (e: Elem): readonly [bigint, bigint] => {
  const bits = BigInt(widths[e]);
  return isSigned(e) ? [-(1n << (bits - 1n)), (1n << (bits - 1n)) - 1n] : [0n, (1n << bits) - 1n];
};
export const type = (e: Elem, n = 1): Type => ({ e, n });
export const sameType = (a: Type, b: Type): boolean => a.e === b.e && a.n === b.n;
export const showType = ({ e, n }: Type): string => (n === 1 ? e : `${e}x${n}`);
/** Bytes of all lanes. */
export const sizeOf = ({ e, n }: Type): number => bytesOf(e) * n;
export const elementOf = (data: Contents): Elem =>
  data instanceof Int8Array ? 'i8' : data instanceof Uint8Array ? 'u8' : data instanceof Int16Array ? 'i16' : data instanceof Uint16Array ? 'u16'
    : data instanceof Int32Array ? 'i32' : data instanceof Uint32Array ? 'u32' : 'i64';

const refuse = (why: string): never => { throw new LoopError(why); };

// ---- buffers, indices, variables

export const buffer = (name: string, e: Elem, length: number, role: Role): Buffer => ({ name, e, length, role, data: null });
/** A constant buffer with its contents. */
export const constants = (name: string, data: Contents): Buffer => ({ name, e: elementOf(data), length: data.length, role: 'const', data });
/** A counter with values 0 … count−1. */
export const index = (name: string, count: number): Index =>
  Number.isInteger(count) && count >= 1 ? { name, count } : refuse(`index ${name}: count ${count} is not a positive integer`);
export const variable = (name: string, e: Elem, n = 1): Var => ({ op: 'var', name, type: type(e, n), range: null });
/** A scalar parameter of a function whose arguments lie in [low, high]. */
export const parameter = (name: string, e: Elem, low?: number, high?: number): Var =>
  ({ op: 'var', name, type: type(e), range: low === undefined || high === undefined ? null : [low, high] });

// ---- addresses

const affineTerms = (terms: readonly (readonly [Index, number])[]): (readonly [Index, number])[] => {
  const sum = new Map<Index, number>();
  for (const [i, stride] of terms) sum.set(i, (sum.get(i) ?? 0) + stride);
  return [...sum].filter(([, stride]) => stride !== 0);
};
/** offset + Σ index·stride, for arguments of calls; an index alone stands for itself. */
export const affine = (offset: number, ...terms: readonly (readonly [Index, number])[]): Affine => ({ offset, terms: affineTerms(terms) });

export type Term = readonly [Index | Expr, number];
const isIndex = (x: Index | Expr): x is Index => !('op' in x);
/** buffer[offset + Σ term·stride]; a term is an index or, at most once, a scalar expression. */
export const at = (to: Buffer, offset = 0, ...terms: readonly Term[]): Address => {
  const computed = terms.filter((t): t is readonly [Expr, number] => !isIndex(t[0]));
  if (computed.length > 1) refuse(`${to.name}: an address has at most one computed term`);
  if (computed.length === 1 && (computed[0][0].type.n !== 1 || computed[0][0].type.e === 'i64')) refuse(`${to.name}: a computed index is a scalar of at most 32 bits`);
  return {
    buffer: to, offset, terms: affineTerms(terms.filter((t): t is readonly [Index, number] => isIndex(t[0]))),
    computed: computed.length === 0 ? null : { value: computed[0][0], stride: computed[0][1] },
  };
};
/** The address moved by constants and terms. */
export const moved = (from: Address, offset: number, ...terms: readonly Term[]): Address => {
  const all: Term[] = [...from.terms, ...(from.computed === null ? [] : [[from.computed.value, from.computed.stride] as const]), ...terms];
  return at(from.buffer, from.offset + offset, ...all);
};

// ---- expressions

/** An expression, or a number that takes the type of its partner. */
export type Operand = Expr | number | bigint;
const isExpr = (x: Operand): x is Expr => typeof x === 'object';

export const literal = (value: number | bigint, e: Elem, n = 1): Expr => {
  const [low, high] = limitsOf(e);
  if (typeof value === 'number' && !Number.isSafeInteger(value)) refuse(`${value} is no integer constant`);
  return BigInt(value) < low || BigInt(value) > high ? refuse(`${value} does not fit ${e}`) : { op: 'const', type: type(e, n), value: e === 'i64' ? BigInt(value) : Number(value) };
};
export const zero = (e: Elem, n = 1): Expr => literal(0, e, n);
const lift = (x: Operand, like: Type): Expr => (isExpr(x) ? x : literal(x, like.e, like.n));
const count = (x: Operand): Expr => {
  const e = lift(x, type('i32'));
  return sameType(e.type, type('i32')) ? e : refuse(`a shift count is an i32 scalar, not ${showType(e.type)}`);
};

const widens = (from: Elem, to: Elem): boolean => from === to || (bitsOf(to) > bitsOf(from) && (isSigned(to) || !isSigned(from)));
const widened = (what: string, from: Elem, to: Elem): Elem => (widens(from, to) ? to : refuse(`${what}: ${from} does not widen to ${to}`));

/** `n` elements, each widened to `to`. */
export const load = (from: Address, n = 1, to: Elem = from.buffer.e): Expr => ({ op: 'load', type: type(widened('load', from.buffer.e, to), n), at: from });
/** `k` elements, repeated `times` times. */
export const splat = (from: Address, k: number, times: number, to: Elem = from.buffer.e): Expr =>
  (k * times === 1 ? load(from, 1, to) : { op: 'splat', type: type(widened('splat', from.buffer.e, to), k * times), at: from, k });
export const broadcast = (a: Expr, n: number): Expr =>
  a.type.n !== 1 ? refuse('broadcast takes a scalar') : n === 1 ? a : { op: 'broadcast', type: type(a.type.e, n), a };
/** buffer[at + index], lane by lane. */
export const lookup = (table: Address, by: Expr, to: Elem = table.buffer.e): Expr =>
  ({ op: 'lookup', type: type(widened('lookup', table.buffer.e, to), by.type.n), at: table, index: by });

/** table[index], lane by lane, of a table of sixteen bytes in a register. */
export const pick = (table: Expr, by: Expr): Expr => {
  const words = by.type.e === 'i16' && table.type.e === 'u8';
  return table.type.n !== TABLE_BYTES || bitsOf(table.type.e) !== 8 || by.type.n === 1 || !(words || bitsOf(by.type.e) === 8) ? refuse(`pick: ${showType(by.type)} in ${showType(table.type)}`)
    : { op: 'pick', type: type(words ? 'i16' : table.type.e, by.type.n), table, index: by };
};
/** Entries of a table that `pick` reads. */
export const TABLE_BYTES = 16;

const binary = (op: Binary) => (a: Operand, b: Operand): Expr => {
  const like = isExpr(a) ? a.type : isExpr(b) ? b.type : refuse(`${op}: two numbers have no type`);
  const [x, y] = [lift(a, like), lift(b, like)];
  if (!sameType(x.type, y.type)) refuse(`${op}: ${showType(x.type)} and ${showType(y.type)}`);
  if ((op === 'addSat' || op === 'subSat') && bitsOf(like.e) > 16) refuse(`${op}: only 8 and 16 bits saturate`);
  return { op, type: like, a: x, b: y };
};
export const add = binary('add'), sub = binary('sub'), mul = binary('mul');
export const addWrap = binary('addWrap'), subWrap = binary('subWrap'), mulWrap = binary('mulWrap');
export const addSat = binary('addSat'), subSat = binary('subSat');
export const min = binary('min'), max = binary('max');
export const and = binary('and'), or = binary('or'), xor = binary('xor');
export const clamp = (a: Expr, low: Operand, high: Operand): Expr => min(max(a, low), high);
/** The sum of one or more expressions, from left to right. */
export const sum = (parts: readonly Expr[]): Expr => parts.reduce((a, b) => add(a, b));

const shifting = (op: Shift) => (a: Expr, by: Operand): Expr => (isExpr(by) || by !== 0 ? { op, type: a.type, a, by: count(by) } : a);
export const shl = shifting('shl'), shr = shifting('shr'), shru = shifting('shru');

/** (a compare b) ? x : y */
export const select = (compare: Compare, a: Expr, b: Operand, x: Operand, y: Operand): Expr => {
  const like = isExpr(x) ? x.type : isExpr(y) ? y.type : a.type;
  const [other, yes, no] = [lift(b, a.type), lift(x, like), lift(y, like)];
  if (!sameType(a.type, other.type) || !sameType(yes.type, no.type) || a.type.n !== like.n) refuse(`select: ${[a, other, yes, no].map((e) => showType(e.type)).join(', ')}`);
  if (like.n > 1 && bitsOf(a.type.e) !== bitsOf(like.e)) refuse('select: vectors need one element width');
  return { op: 'select', type: like, compare, a, b: other, x: yes, y: no };
};
export const clz = (a: Expr): Expr => (a.type.n === 1 && bitsOf(a.type.e) >= 32 ? { op: 'clz', type: a.type, a } : refuse(`clz of ${showType(a.type)}`));
export const mulQ15 = (a: Expr, b: Operand): Expr => {
  const y = lift(b, a.type);
  return a.type.e === 'i16' && sameType(a.type, y.type) ? { op: 'mulQ15', type: a.type, a, b: y } : refuse('mulQ15 takes i16');
};

/** To another element; scalars any way, vectors to the same width or wider. */
export const convert = (to: Elem, a: Expr): Expr =>
  a.type.e === to ? a
    : a.type.n > 1 && bitsOf(to) < bitsOf(a.type.e) ? refuse(`convert: ${showType(a.type)} to ${to}; vectors narrow by narrow or pack`)
      : { op: 'convert', type: type(to, a.type.n), a };
const doubled = { i8: 'i16', u8: 'u16', i16: 'i32', u16: 'u32', i32: 'i64', u32: 'i64' } as const;
export const widen = (half: 0 | 1, a: Expr): Expr =>
  a.type.e === 'i64' || a.type.n < 2 ? refuse(`widen of ${showType(a.type)}`) : { op: 'widen', type: type(doubled[a.type.e], a.type.n / 2), half, a };
/** Saturating, lanes in order. */
export const narrow = (to: Elem, a: Expr): Expr =>
  !isSigned(a.type.e) || bitsOf(to) >= bitsOf(a.type.e) || (a.type.n > 1 && a.type.e === 'i64') ? refuse(`narrow: ${showType(a.type)} to ${to}`)
    : { op: 'narrow', type: type(to, a.type.n), a };
/** Two vectors to one of half the width, saturating, per 16-byte block. */
export const pack = (to: Elem, a: Expr, b: Expr): Expr =>
  !sameType(a.type, b.type) || !isSigned(a.type.e) || bitsOf(a.type.e) > 32 || bitsOf(to) * 2 !== bitsOf(a.type.e) || sizeOf(a.type) % 16 !== 0
    ? refuse(`pack: ${showType(a.type)}, ${showType(b.type)} to ${to}`) : { op: 'pack', type: type(to, a.type.n * 2), a, b };
/** Interleaves groups of `unit` lanes per 16-byte block. */
export const zip = (half: 0 | 1, unit: number, a: Expr, b: Expr): Expr =>
  !sameType(a.type, b.type) || sizeOf(a.type) % 16 !== 0 || ![1, 2, 4, 8].includes(unit * bytesOf(a.type.e)) ? refuse(`zip: ${showType(a.type)}, ${showType(b.type)} by ${unit}`)
    : { op: 'zip', type: a.type, half, unit, a, b };

const dotElements = { 1: [['i32'], 'i32'], 2: [['i16'], 'i16'], 4: [['u8', 'i8'], 'i8'] } as const;
/** acc + Σ over d neighbours of a·b; `paired`: every sum of two products surely fits 16 bits. Sums of 16 bits: pairs of a i8 and b 0…127. */
export const dot = (d: 1 | 2 | 4, acc: Expr, a: Expr, b: Expr, paired = false): Expr => {
  const n = acc.type.n;
  const bytes = d === 2 && acc.type.e === 'i16' && a.type.e === 'i8' && b.type.e === 'i8' && a.type.n === d * n && b.type.n === d * n;
  const fits = bytes || (acc.type.e === 'i32' && a.type.n === d * n && b.type.n === d * n && (dotElements[d][0] as readonly Elem[]).includes(a.type.e) && b.type.e === dotElements[d][1]);
  return fits ? { op: 'dot', type: acc.type, d, paired: paired && d === 4, acc, a, b } : refuse(`dot${d}: ${[acc, a, b].map((e) => showType(e.type)).join(', ')}`);
};
/** Sums of k neighbouring lanes of k vectors, as one vector. */
export const reduce = (k: number, parts: readonly Expr[]): Expr =>
  k === 1 && parts.length === 1 ? parts[0]
    : parts.length !== k || parts[0].type.e !== 'i32' || parts[0].type.n % k !== 0 || parts.some((p) => !sameType(p.type, parts[0].type)) ? refuse(`reduce by ${k}: ${parts.map((p) => showType(p.type)).join(', ')}`)
      : { op: 'reduce', type: parts[0].type, k, parts };
export const across = (by: 'add' | 'min' | 'max', a: Expr): Expr => (a.type.n === 1 ? a : { op: 'across', type: type(a.type.e), by, a });

const scaling = (acc: Expr, m: Operand): Expr => {
  const factor = lift(m, acc.type);
  return acc.type.e === 'i32' && sameType(acc.type, factor.type) ? factor : refuse(`dyadic: ${showType(acc.type)} times ${showType(factor.type)}`);
};
const addends = (n: number, c: Operand | readonly Expr[]): readonly Expr[] => {
  const half = n === 1 ? 1 : n / 2;
  const parts = typeof c === 'object' && 'length' in c ? c : n === 1 ? [lift(c, type('i64'))] : [lift(c, type('i64', half)), lift(c, type('i64', half))];
  return parts.length === (n === 1 ? 1 : 2) && parts.every((p) => sameType(p.type, type('i64', half))) ? parts : refuse(`dyadic: ${n} lanes, c ${parts.map((p) => showType(p.type)).join(', ')}`);
};
/** (acc·m + c) >> s; c in two halves by `pairing` where n > 1. Low 32 bits of the shifted value. */
export const dyadic = (s: Operand, pairing: Pairing, acc: Expr, m: Operand, c: Operand | readonly Expr[]): Expr =>
  ({ op: 'dyadic', type: acc.type, shift: count(s), pairing, acc, m: scaling(acc, m), c: addends(acc.type.n, c) });
/** (x·mx + y·my + c) >> s */
export const dyadic2 = (s: Operand, pairing: Pairing, x: Expr, mx: Operand, y: Expr, my: Operand, c: Operand | readonly Expr[]): Expr =>
  sameType(x.type, y.type) ? { op: 'dyadic2', type: x.type, shift: count(s), pairing, x, mx: scaling(x, mx), y, my: scaling(y, my), c: addends(x.type.n, c) }
    : refuse(`dyadic2: ${showType(x.type)} and ${showType(y.type)}`);

// ---- statements

export const set = (v: Var, e: Operand, options: { readonly pin?: boolean | 'address' } = {}): Stmt => {
  const value = lift(e, v.type);
  return sameType(v.type, value.type) ? { s: 'set', v, e: value, pin: options.pin ?? false } : refuse(`set ${v.name}: ${showType(v.type)} = ${showType(value.type)}`);
};
export const store = (to: Address, e: Operand): Stmt => {
  const value = lift(e, type(to.buffer.e));
  return value.type.e === to.buffer.e ? { s: 'store', at: to, e: value } : refuse(`store to ${to.buffer.name}: ${to.buffer.e} = ${showType(value.type)}`);
};
export const loop = (over: Index, body: readonly Stmt[], mark: Mark | null = null): Stmt => ({ s: 'for', index: over, body, mark });
/** Arguments by position; a buffer alone stands for its start, an index or a number for itself. */
export const call = (
  callee: Fn, buffers: readonly (Address | Buffer)[], indices: readonly (Affine | Index | number)[] = [], values: readonly Operand[] = [], note: string | null = null,
): Stmt => {
  if (buffers.length !== callee.buffers.length || indices.length !== callee.indices.length || values.length !== callee.values.length) refuse(`${callee.name}: wrong number of arguments`);
  const args: Args = {
    buffers: buffers.map((b) => ('buffer' in b ? b : at(b))),
    indices: indices.map((i) => (typeof i === 'number' ? affine(i) : 'count' in i ? affine(0, [i, 1]) : i)),
    values: values.map((v, i) => lift(v, callee.values[i].type)),
  };
  return { s: 'call', fn: callee, args, note };
};

export interface Signature {
  readonly buffers: readonly Buffer[];
  readonly indices?: readonly Index[];
  readonly values?: readonly Var[];
  readonly note?: string;
}
export const fn = (name: string, { buffers, indices = [], values = [], note }: Signature, body: readonly Stmt[]): Fn =>
  ({ name, note: note ?? null, buffers, indices, values, body });
export const program = (name: string, buffers: readonly Buffer[], body: readonly Stmt[]): Program => ({ name, buffers, body });

// ---- lists for schedules

export const list = <T>(n: number, make: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => make(i));
export const grid = <T>(rows: number, columns: number, make: (i: number, j: number) => T): T[][] => list(rows, (i) => list(columns, (j) => make(i, j)));
