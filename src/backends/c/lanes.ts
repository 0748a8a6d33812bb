/** What the vector tables of the C printer share: refusals, small reads and writes, look-ups, facts about operands. */
import { bitsOf, bytesOf, isSigned, moved, showType, type } from '../../loops/build.ts';
import { LoopError, type Address, type Elem, type Expr, type Type } from '../../loops/types.ts';
import { affineRange } from '../../loops/verify.ts';
import { ctypeOf, type CContext } from './print.ts';

export type Of<Op extends Expr['op']> = Extract<Expr, { readonly op: Op }>;

export const refuse = (machine: string, what: string): never => { throw new LoopError(`${machine} has no ${what}`); };

/** One lane of a constant. */
export const laneOf = ({ value, type: { e } }: Of<'const'>): Expr => ({ op: 'const', type: type(e), value });
/** The name of a type inside names of helpers: i16x8. */
export const nameOf = showType;

/** Asks for the reads and writes of one to eight bytes at any address, as integers of that width. */
export const access = (kind: 'read' | 'write', bytes: number, context: CContext): string => {
  const name = `lb_${kind}${8 * bytes}`;
  const c = `int${8 * bytes}_t`;
  context.helper(name, kind === 'read'
    ? `static inline ${c} ${name}(const void *from)\n{\n    ${c} x;\n    __builtin_memcpy(&x, from, sizeof x);\n    return x;\n}`
    : `static inline void ${name}(void *to, ${c} x)\n{\n    __builtin_memcpy(to, &x, sizeof x);\n}`);
  return name;
};

/**
 * The two halves of a table of 256 bytes that a look-up may read as a whole: the entries of index bytes 0 … 127 and of 128 … 255 as bit
 * patterns. Null where the entries have more bytes, or where the table as far as it is known ends before its 256th entry.
 */
export const tableHalves = ({ at, index, type: { e } }: Of<'lookup'>): readonly [Address, Address] | null => {
  if (bitsOf(at.buffer.e) !== 8 || bitsOf(e) !== 8 || bitsOf(index.type.e) !== 8 || at.computed !== null) return null;
  const [low, high] = affineRange(at);
  const upper = isSigned(index.type.e) ? -128 : 128;
  return low + Math.min(0, upper) >= 0 && high + Math.max(127, upper + 127) < at.buffer.length ? [at, moved(at, upper)] : null;
};

/** How a machine keeps a vector in memory: its type, and reading and writing the whole register. */
export interface Spilling {
  type(t: Type): string;
  /** bytes of the register that holds a type */
  size(t: Type): number;
  save(t: Type, array: string, value: string): string;
  restore(t: Type, array: string): string;
}
/** A look-up lane by lane, through arrays of indices and of entries. */
export const lookupByLane = ({ at, index, type: to }: Of<'lookup'>, { type: typeOf, size, save, restore }: Spilling, context: CContext): string => {
  const [from, by] = [at.buffer.e, index.type];
  const name = `lb_lookup_${from}_${nameOf(by)}_${nameOf(to)}`;
  context.helper(name, `\
static inline ${typeOf(to)} ${name}(const ${ctypeOf(from)} *table, ${typeOf(by)} index)
{
    ${ctypeOf(by.e)} at[${size(by) / bytesOf(by.e)}];
    ${ctypeOf(to.e)} entries[${size(to) / bytesOf(to.e)}] = {0};
    ${save(by, 'at', 'index')};
    for (int lane = 0; lane < ${to.n}; lane++) entries[lane] = table[at[lane]];
    return ${restore(to, 'entries')};
}`);
  return `${name}(${context.pointer(at)}, ${context.expr(index)})`;
};

/** Whether every lane of an i64 expression is a value of i32, so that a product of two is one widening multiply. */
export const fitsWord = (e: Expr): boolean => {
  const narrow = (from: Elem): boolean => from !== 'i64' && from !== 'u32';
  switch (e.op) {
    case 'convert': case 'widen': return narrow(e.a.type.e);
    case 'load': case 'splat': case 'lookup': return narrow(e.at.buffer.e);
    case 'broadcast': return fitsWord(e.a);
    case 'const': return BigInt(e.value) === BigInt.asIntN(32, BigInt(e.value));
    default: return false;
  }
};

/** Comparisons that are another one with the answers exchanged: only eq, gt and ge are left. */
export const exchanged = ({ compare, a, b, x, y }: Of<'select'>): { readonly compare: 'eq' | 'gt' | 'ge'; readonly a: Expr; readonly b: Expr; readonly x: Expr; readonly y: Expr } => {
  switch (compare) {
    case 'eq': case 'gt': case 'ge': return { compare, a, b, x, y };
    case 'ne': return { compare: 'eq', a, b, x: y, y: x };
    case 'lt': return { compare: 'gt', a: b, b: a, x, y };
    case 'le': return { compare: 'ge', a: b, b: a, x, y };
  }
};
