/**
 * The loop language: what a kernel schedule says and a printer turns into C or WebAssembly. Integers only, no division, no pointers, no
 * data-dependent control. It is small on purpose; every printer implements all of it for the lane counts of its machine.
 *
 * - A **type** is an element and a lane count; `n = 1` is the scalar.
 * - An **index** is a loop counter or a parameter of a function, an integer in [0, count); indices occur only in addresses and in the
 *   arguments of calls, never in data.
 * - An **address** is affine: `buffer[offset + Σ index·stride (+ computed·stride)]`, counted in elements of the buffer. At most one
 *   term is computed from data, and the verifier must be able to bound it (section "ranges" of verify.ts).
 * - A **variable** is assigned by `set`, any number of times; a loop carries it from one iteration to the next.
 * - A **function** sees its parameters and its own variables only, so that layers of equal shape share one copy: buffers, indices and
 *   scalars (shift, clamps, multipliers) that differ come in as arguments.
 *
 * **Arithmetic.** `add`, `sub` and `mul` are exact: the program promises that the result fits the element type, and the interpreter
 * stops where the promise is broken. `addWrap`, `subWrap` and `mulWrap` are modulo 2^bits; `addSat` and `subSat` saturate. All operands
 * of one expression have one type, which is also the type of the result; lanes do not mix unless the expression says so.
 *
 * **Shifts.** The count is one i32 scalar for all lanes, proven to lie in [0, bits). `shl` drops the bits that leave; `shr` is
 * arithmetic on signed and logical on unsigned elements; `shru` is logical on the bit pattern whatever the sign.
 */

/** Element types, two's complement. */
export type Elem = 'i8' | 'u8' | 'i16' | 'u16' | 'i32' | 'u32' | 'i64';

/** `n` lanes of element `e`; 1 for a scalar, else a power of two. */
export interface Type {
  readonly e: Elem;
  readonly n: number;
}

export type Contents = Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array | BigInt64Array;

/**
 * `in` and `const` are read only; `out` and `temp` are written and read. Of a function's parameters only this difference counts: two
 * parameters of one call may overlap only where both are read.
 */
export type Role = 'in' | 'const' | 'out' | 'temp';

/** A static array of the program, or an array parameter of a function; identity counts, names are for readers. */
export interface Buffer {
  readonly name: string;
  readonly e: Elem;
  /** elements; of a parameter: how many the function may touch */
  readonly length: number;
  readonly role: Role;
  /** contents of a `const` buffer that the program brings with it */
  readonly data: Contents | null;
}

/** A counter with values 0 … count−1: of a loop, or a parameter of a function. */
export interface Index {
  readonly name: string;
  readonly count: number;
}

/** offset + Σ index·stride */
export interface Affine {
  readonly offset: number;
  readonly terms: readonly (readonly [Index, number])[];
}

export interface Address extends Affine {
  readonly buffer: Buffer;
  /** one further term, from data: value·stride; the value is a scalar of at most 32 bits */
  readonly computed: { readonly value: Expr; readonly stride: number } | null;
}

/** A variable. As a parameter of a function it is a scalar, and `range` bounds the arguments. */
export interface Var {
  readonly op: 'var';
  readonly name: string;
  readonly type: Type;
  readonly range: readonly [number, number] | null;
}

export type Binary =
  | 'add' | 'sub' | 'mul' | 'addWrap' | 'subWrap' | 'mulWrap'
  | 'addSat' | 'subSat'                       // i8, u8, i16, u16 only
  | 'min' | 'max' | 'and' | 'or' | 'xor';
export type Shift = 'shl' | 'shr' | 'shru';
export type Compare = 'eq' | 'ne' | 'lt' | 'le' | 'gt' | 'ge';
/** Which 64-bit lanes the two `c` vectors of a dyadic hold: lanes 0, 2, 4 … and 1, 3, 5 …, or the lower and the upper half. */
export type Pairing = 'evenodd' | 'halves';

export type Expr = Var | { readonly type: Type } & (
  /** The value in every lane. */
  | { readonly op: 'const'; readonly value: number | bigint }
  /** `n` consecutive elements from `at`, each converted to the element of the result, which is the buffer's own or a wider one. */
  | { readonly op: 'load'; readonly at: Address }
  /** `k` consecutive elements, the group repeated until the lanes are full; converted as by `load`. */
  | { readonly op: 'splat'; readonly at: Address; readonly k: number }
  /** A scalar in every lane. */
  | { readonly op: 'broadcast'; readonly a: Expr }
  /** lane i = buffer[at + index lane i]; every lane proven in bounds; converted as by `load`. */
  | { readonly op: 'lookup'; readonly at: Address; readonly index: Expr }
  /**
   * lane i = table[index lane i] for vectors: the table is a vector of sixteen bytes, every index proven to lie in 0 … 15. Indices are bytes
   * and the result has the table's element; or indices and result are i16 and the table is u8, whose first entry is 0 by promise.
   */
  | { readonly op: 'pick'; readonly table: Expr; readonly index: Expr }
  | { readonly op: Binary; readonly a: Expr; readonly b: Expr }
  | { readonly op: Shift; readonly a: Expr; readonly by: Expr }
  /** lane i = (a compare b) ? x : y; vectors need a and x of one element width. */
  | { readonly op: 'select'; readonly compare: Compare; readonly a: Expr; readonly b: Expr; readonly x: Expr; readonly y: Expr }
  /** Leading zero bits of a 32- or 64-bit scalar, as the same type; all of them for 0. */
  | { readonly op: 'clz'; readonly a: Expr }
  /** i16: (a·b + 2^14) >> 15; −32768·−32768 is excluded by promise. */
  | { readonly op: 'mulQ15'; readonly a: Expr; readonly b: Expr }
  /** To another element of the same lanes: sign- or zero-extended, or the low bits. Vectors: not to a narrower element. */
  | { readonly op: 'convert'; readonly a: Expr }
  /** The lower (0) or upper (1) half of the lanes, each of twice the width and the same sign. */
  | { readonly op: 'widen'; readonly half: 0 | 1; readonly a: Expr }
  /** To a narrower element, saturating, lanes in order; the source is signed. */
  | { readonly op: 'narrow'; readonly a: Expr }
  /** Two signed vectors to one of half the width, saturating; per 16-byte block of the result: one block of a, then one of b. */
  | { readonly op: 'pack'; readonly a: Expr; readonly b: Expr }
  /** Per 16-byte block: lower or upper 8 bytes of a and b, interleaved in groups of `unit` lanes, a first. */
  | { readonly op: 'zip'; readonly half: 0 | 1; readonly unit: number; readonly a: Expr; readonly b: Expr }
  /**
   * acc lane i + Σ_{j<d} a[d·i + j]·b[d·i + j], exact in i32. d = 4: a u8 or i8, b i8; d = 2: i16 and i16; d = 1: i32 and i32.
   * `paired`, with d = 4: the program promises that the sums of the first and of the last two products fit 16 bits.
   * Lanes of i16 with d = 2: a i8, b i8, and the program promises that b is not negative and that sums fit 16 bits.
   */
  | { readonly op: 'dot'; readonly d: 1 | 2 | 4; readonly paired: boolean; readonly acc: Expr; readonly a: Expr; readonly b: Expr }
  /**
   * Sums of `k` neighbours: each of the k parts has n lanes in groups of k; lane p·(n/k) + g of the result is the sum of group g of part p.
   */
  | { readonly op: 'reduce'; readonly k: number; readonly parts: readonly Expr[] }
  /** All lanes joined to a scalar. */
  | { readonly op: 'across'; readonly by: 'add' | 'min' | 'max'; readonly a: Expr }
  /**
   * (acc·m + c) >> shift, product and sum exact in 64 bits, the low 32 bits of the shifted value. acc and m are i32; c is one i64 scalar
   * where n = 1, else two i64 vectors of n/2 lanes ordered by `pairing`. 0 ≤ shift ≤ 62; from 32 on every result fits i32.
   */
  | { readonly op: 'dyadic'; readonly shift: Expr; readonly pairing: Pairing; readonly acc: Expr; readonly m: Expr; readonly c: readonly Expr[] }
  /** (x·mx + y·my + c) >> shift, one rounding; else as `dyadic`. */
  | { readonly op: 'dyadic2'; readonly shift: Expr; readonly pairing: Pairing; readonly x: Expr; readonly mx: Expr; readonly y: Expr; readonly my: Expr; readonly c: readonly Expr[] }
);

/** `unroll`: printers repeat the body; `parallel`: the iterations are independent and may run on several threads. */
export type Mark = 'unroll' | 'parallel';

export type Stmt =
  /**
   * `pin` keeps a C compiler from renaming an accumulator; other printers ignore it. A loaded vector may be pinned by its address: else
   * the compiler would load it before a loop around, and keep it in a register that sums need.
   */
  | { readonly s: 'set'; readonly v: Var; readonly e: Expr; readonly pin: boolean | 'address' }
  /** The element of the buffer is the element of the value. */
  | { readonly s: 'store'; readonly at: Address; readonly e: Expr }
  | { readonly s: 'for'; readonly index: Index; readonly body: readonly Stmt[]; readonly mark: Mark | null }
  | { readonly s: 'call'; readonly fn: Fn; readonly args: Args; readonly note: string | null };

/** Arguments in the order of the parameters; a buffer argument is the address where the callee's element 0 lies. */
export interface Args {
  readonly buffers: readonly Address[];
  readonly indices: readonly Affine[];
  readonly values: readonly Expr[];
}

export interface Fn {
  readonly name: string;
  /** what it computes, printed above it */
  readonly note: string | null;
  readonly buffers: readonly Buffer[];
  readonly indices: readonly Index[];
  /** scalar parameters; a range bounds those used in addresses and shifts */
  readonly values: readonly Var[];
  readonly body: readonly Stmt[];
}

export interface Program {
  readonly name: string;
  readonly buffers: readonly Buffer[];
  readonly body: readonly Stmt[];
}

/** A program that cannot be: wrong types, an address out of bounds, a recursion. Always a fault of the schedule, never of the user. */
export class LoopError extends Error {
  override readonly name = 'LoopError';
}
