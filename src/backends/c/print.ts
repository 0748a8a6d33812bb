/**
 * Loop programs as C99. Functions become `static` functions with typed pointers, shared by every call; the body of a program becomes
 * statements that the caller puts where it likes, its buffers named by expressions of the caller.
 *
 * **No undefined behaviour.** Exact operations are printed as they are, since their results fit by promise; those that wrap go through
 * unsigned types. Two properties of the compiler are checked at compile time: `>>` of a negative value is arithmetic, and conversion to
 * a signed type keeps the low bits. Every access is in bounds by verify.ts.
 *
 * **Values.** An i8, u8, i16, u16 or i32 is an `int` of its exact value, so that products and sums follow C's own promotions and a
 * compiler finds its dot products; u32 is `uint32_t`, i64 is `int64_t`.
 *
 * **Vectors** are a table of the target: it names the types and prints each expression that has lanes. Without a table only scalars can
 * be printed.
 */
import { bitsOf, isSigned, limitsOf, showType } from '../../loops/build.ts';
import {
  LoopError, type Address, type Affine, type Buffer, type Elem, type Expr, type Fn, type Program, type Stmt, type Type, type Var,
} from '../../loops/types.ts';
import { rangesOf, type Interval, type Ranges } from '../../loops/verify.ts';
import { expressionsOf, functionsOf, isShared, operandsOf, unrolled, visit, visitStatements } from '../../loops/walk.ts';
import { identifier } from '../identifier.ts';
import { sharedHead, sharingText } from './threads.ts';

/** What a vector table may ask of the printer. */
export interface CContext {
  expr(e: Expr): string;
  /** a pointer to the first element of an address, with the buffer's own type */
  pointer(at: Address): string;
  /** bounds of a scalar expression */
  range(e: Expr): Interval;
  /** asks for a text that is printed once, above all functions */
  helper(name: string, text: string): void;
}
/** What a vector table prints: an expression, other than a variable, with lanes in its result or its operands. */
export type Lanes = Exclude<Expr, Var>;
/** The vector types and instructions of one machine. */
export interface CVectors {
  readonly includes: readonly string[];
  type(t: Type): string;
  expr(e: Lanes, context: CContext): string;
  store(at: Address, value: Expr, context: CContext): string;
  /** constraint letter of a vector register in GNU inline assembly */
  readonly register: string;
  /**
   * `sum` with the products of a dot product added to it in place, as one statement that leaves a compiler no choice of registers to
   * move the sum to; null where the machine adds otherwise. The text is for compilers that know GNU inline assembly.
   */
  accumulate?(sum: string, e: Extract<Expr, { op: 'dot' }>, context: CContext): string | null;
}
export interface CTarget {
  readonly name: string;
  readonly vectors: CVectors | null;
}
/** Any C99 compiler with 8-, 16-, 32- and 64-bit integers. */
export const portable: CTarget = { name: 'portable', vectors: null };

const ctypes: Readonly<Record<Elem, string>> = {
  i8: 'int8_t', u8: 'uint8_t', i16: 'int16_t', u16: 'uint16_t', i32: 'int32_t', u32: 'uint32_t', i64: 'int64_t',
};
export const ctypeOf = (e: Elem): string => ctypes[e];

/** What printed text uses beside the names of a program. */
const standardNames = ['int8_t', 'uint8_t', 'int16_t', 'uint16_t', 'int32_t', 'uint32_t', 'int64_t', 'uint64_t', 'INT32_MIN', 'INT64_MIN', 'INT64_C', 'INT_MAX', 'UINT_MAX'];

/** Gives each object its own identifier, apart from `taken` and from what C or the helpers use. */
class Names {
  private readonly given = new Map<object, string>();
  readonly taken: Set<string>;
  constructor(taken: Iterable<string> = []) {
    this.taken = new Set([...standardNames, ...taken]);
  }
  of(x: { readonly name: string }): string {
    const known = this.given.get(x);
    if (known !== undefined) return known;
    const stem = identifier(x.name).replace(/^lb_/i, 'v_');
    let name = stem;
    for (let n = 2; this.taken.has(name); n++) name = `${stem}_${n}`;
    this.taken.add(name);
    this.given.set(x, name);
    return name;
  }
}

const helpers = {
  clamp: `static inline int32_t lb_clamp(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : x > high ? high : x;
}`,
  clamp64: `static inline int64_t lb_clamp64(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}`,
  min: 'static inline int32_t lb_min(int32_t a, int32_t b) { return a < b ? a : b; }',
  max: 'static inline int32_t lb_max(int32_t a, int32_t b) { return a > b ? a : b; }',
  minu: 'static inline uint32_t lb_minu(uint32_t a, uint32_t b) { return a < b ? a : b; }',
  maxu: 'static inline uint32_t lb_maxu(uint32_t a, uint32_t b) { return a > b ? a : b; }',
  min64: 'static inline int64_t lb_min64(int64_t a, int64_t b) { return a < b ? a : b; }',
  max64: 'static inline int64_t lb_max64(int64_t a, int64_t b) { return a > b ? a : b; }',
  clz32: `static inline int32_t lb_clz32(uint32_t x)
{
#if defined(__GNUC__) && UINT_MAX == 0xffffffffu
    return x == 0 ? 32 : __builtin_clz(x);
#else
    int32_t n = 32;
    for (; x != 0; x >>= 1) n--;
    return n;
#endif
}`,
  clz64: `static inline int64_t lb_clz64(uint64_t x)
{
#if defined(__GNUC__)
    return x == 0 ? 64 : (int64_t)__builtin_clzll(x);
#else
    int64_t n = 64;
    for (; x != 0; x >>= 1) n--;
    return n;
#endif
}`,
  pin: `/* Keeps a value where it is: the compiler may neither rename it, nor look through it, nor find it somewhere else and earlier. */
#if defined(__GNUC__)
#define LB_PIN(register_class, value) __asm__ volatile("" : register_class(value))
#else
#define LB_PIN(register_class, value) ((void)0)
#endif`,
  sharing: sharingText,
} as const;

/** Included and checked once per file, before anything printed here. */
const prelude = [
  '#include <limits.h>', '#include <stdint.h>', '',
  '/* Arithmetic shifts and wrapping conversions: true of every compiler in use, not promised by C99. */',
  '#if INT_MAX < 0x7fffffff || (-1 >> 1) != -1', '#error "needs 32-bit int and arithmetic right shift"', '#endif',
  'typedef char lb_conversion_wraps[(int8_t)0xff == -1 && (int32_t)0xffffffffu == -1 ? 1 : -1];',
];

export interface CPrinter {
  /**
   * The statements of a program, after printing the functions they call; `place` gives a pointer expression for each buffer. With
   * `meeting`, threads may run it: steps that they do not share are one thread's, and they meet before and after those that they share.
   */
  body(program: Program, place: (buffer: Buffer) => string, indent?: string, meeting?: boolean): string;
  /** A program as a function of its own name (two of one name: the second gets a suffix), with one pointer for each buffer in declared order. */
  entry(program: Program, linkage?: '' | 'static '): string;
  /** Includes, helpers and functions used so far: what stands before them in the file. */
  declarations(): string;
}

export const cPrinter = (target: CTarget, prefix = ''): CPrinter => {
  const asked = new Map<string, string>();
  const functions: string[] = [];
  const functionNames = new Names();
  const printed = new Map<Fn, string>();
  const need = (name: keyof typeof helpers): void => { asked.set(name, helpers[name]); };
  const tools: Tools = { target, need, helper: (name, text) => { asked.set(name, text); }, nameOf: (fn) => printed.get(fn)!, functionNames: functionNames.taken };

  const define = (body: readonly Stmt[]): void => {
    for (const fn of functionsOf(body)) {
      if (printed.has(fn)) continue;
      printed.set(fn, functionNames.of({ name: prefix + fn.name }));
      functions.push(printFunction(fn, tools));
    }
  };
  return {
    body: (program, place, indent = '    ', meeting = false) => {
      define(program.body);
      if (meeting) need('sharing');
      const places = new Map(program.buffers.map((b) => [b, place(b)] as const));
      const mentioned = [...places.values()].flatMap((text) => text.match(/[A-Za-z_]\w*/g) ?? []);
      return new Scope(unrolled(program.body, true), places, new Names([...tools.functionNames, ...mentioned]), tools, [], meeting).statements(indent).join('\n');
    },
    entry: (program, linkage = '') => {
      const name = functionNames.of({ name: program.name });
      define(program.body);
      return printFunction({ name, note: null, buffers: program.buffers, indices: [], values: [], body: program.body }, tools, linkage, name);
    },
    declarations: () => [
      ...prelude.slice(0, 2), ...(target.vectors?.includes ?? []).map((file) => `#include <${file}>`), ...prelude.slice(2),
      ...[...asked.values()].flatMap((text) => ['', text]), ...functions.flatMap((text) => ['', text]),
    ].join('\n'),
  };
};

interface Tools {
  readonly target: CTarget;
  need(name: keyof typeof helpers): void;
  helper(name: string, text: string): void;
  nameOf(fn: Fn): string;
  /** names that variables must not hide */
  readonly functionNames: ReadonlySet<string>;
}

const comment = (text: string): string => `/* ${text.replaceAll('*/', '* /').replaceAll('/*', '/ *')} */`;
const readOnly = (b: Buffer): boolean => b.role === 'in' || b.role === 'const';

const printFunction = (fn: Fn, tools: Tools, linkage = 'static ', name = tools.nameOf(fn)): string => {
  const names = new Names(tools.functionNames);
  const body = unrolled(fn.body, true);
  const shared = isShared(fn);
  if (shared) tools.need('sharing');
  const places = new Map(fn.buffers.map((b) => [b, names.of(b)] as const));
  const params = [
    ...fn.buffers.map((b) => `${readOnly(b) ? 'const ' : ''}${ctypeOf(b.e)} *restrict ${names.of(b)}`),
    ...fn.indices.map((i) => `int32_t ${names.of(i)}`),
    ...fn.values.map((v) => `${ctypeOf(v.type.e)} ${names.of(v)}`),
  ];
  const used = usedIn(body);
  const unused = [...fn.buffers, ...fn.indices, ...fn.values].filter((x) => !used.has(x)).map((x) => `    (void)${names.of(x)};`);
  const scope = new Scope(body, places, names, tools, fn.values);
  return [
    ...(fn.note === null ? [] : [comment(fn.note)]), `${linkage}void ${name}(${shared ? 'LB_PART ' : ''}${params.length === 0 ? 'void' : params.join(', ')})`, '{',
    ...(shared ? ['    LB_USED'] : []),
    ...unused, ...scope.statements('    '), '}',
  ].join('\n');
};

/** The buffers, indices and variables that a body mentions. */
const usedIn = (body: readonly Stmt[]): ReadonlySet<object> => {
  const used = new Set<object>();
  const affine = ({ terms }: Affine): void => terms.forEach(([i]) => used.add(i));
  const address = (a: Address): void => { used.add(a.buffer); affine(a); };
  visitStatements(body, (stmt) => {
    for (const top of expressionsOf(stmt)) visit(top, (e) => {
      if (e.op === 'var') used.add(e);
      if (e.op === 'load' || e.op === 'splat' || e.op === 'lookup') address(e.at);
    });
    if (stmt.s === 'store') address(stmt.at);
    if (stmt.s === 'call') { stmt.args.buffers.forEach(address); stmt.args.indices.forEach(affine); }
  });
  return used;
};

const compares = { eq: '==', ne: '!=', lt: '<', le: '<=', gt: '>', ge: '>=' } as const;
const operators = { add: '+', sub: '-', mul: '*', addWrap: '+', subWrap: '-', mulWrap: '*', and: '&', or: '|', xor: '^' } as const;
/** Unsigned type of the width in which a wrapping operation is done. */
const unsignedOf = (e: Elem): string => (e === 'i64' ? 'uint64_t' : 'uint32_t');
/** Elements whose values are plain `int`. */
const isInt = (e: Elem): boolean => e !== 'u32' && e !== 'i64';
const includes = (wide: Elem, narrow: Elem): boolean => limitsOf(wide)[0] <= limitsOf(narrow)[0] && limitsOf(wide)[1] >= limitsOf(narrow)[1];

/** One function body: declares each variable in the innermost block that holds all its uses. */
class Scope implements CContext {
  private readonly body: readonly Stmt[];
  private readonly places: ReadonlyMap<Buffer, string>;
  private readonly names: Names;
  private readonly tools: Tools;
  /** the block where a variable is declared */
  private readonly homes = new Map<Var, readonly Stmt[]>();
  private readonly declared = new Set<Var>();
  /** an address that stands in a variable of this name for now */
  private redirected: { readonly at: Address; readonly name: string } | null = null;
  /** whether calls are steps after which threads meet */
  private readonly meeting: boolean;
  readonly range: Ranges;

  constructor(body: readonly Stmt[], places: ReadonlyMap<Buffer, string>, names: Names, tools: Tools, params: readonly Var[] = [], meeting = false) {
    this.meeting = meeting;
    this.body = body;
    this.places = places;
    this.names = names;
    this.tools = tools;
    this.range = rangesOf(body);
    for (const v of params) this.declared.add(v);
    this.settle();
  }

  private settle(): void {
    const paths = new Map<Var, readonly (readonly Stmt[])[]>();
    const walk = (block: readonly Stmt[], outer: readonly (readonly Stmt[])[]): void => {
      const path = [...outer, block];
      const meet = (v: Var): void => {
        const known = paths.get(v) ?? path;
        let depth = 0;
        while (depth < known.length && depth < path.length && known[depth] === path[depth]) depth++;
        paths.set(v, known.slice(0, depth));
      };
      for (const stmt of block) {
        for (const top of expressionsOf(stmt)) visit(top, (e) => { if (e.op === 'var') meet(e); });
        if (stmt.s === 'set') meet(stmt.v);
        if (stmt.s === 'for') walk(stmt.body, path);
      }
    };
    walk(this.body, []);
    for (const [v, path] of paths) this.homes.set(v, path.at(-1)!);
  }

  statements(indent: string, block: readonly Stmt[] = this.body): string[] {
    return block.flatMap((stmt, i) => [...this.declarationsBefore(stmt, block, indent), ...this.statement(stmt, indent, block), ...(this.meets(stmt, block[i + 1]) ? [`${indent}LB_MEET`] : [])]);
  }

  /** Whether threads meet between two steps: what one of them does alone needs no meeting with what it does next, and all meet at the end. */
  private meets(stmt: Stmt, next: Stmt | undefined): boolean {
    const alone = (step: Stmt): boolean => step.s === 'call' && !isShared(step.fn);
    return this.meeting && next !== undefined && !(alone(stmt) && alone(next));
  }

  /** Variables of this block that a nested loop sets first. */
  private declarationsBefore(stmt: Stmt, block: readonly Stmt[], indent: string): string[] {
    if (stmt.s !== 'for') return [];
    const first: Var[] = [];
    visitStatements(stmt.body, (inner) => {
      if (inner.s === 'set' && this.homes.get(inner.v) === block && !this.declared.has(inner.v)) {
        this.declared.add(inner.v);
        first.push(inner.v);
      }
    });
    return first.map((v) => `${indent}${this.typeOf(v.type)} ${this.names.of(v)};`);
  }

  private typeOf(t: Type): string {
    if (t.n === 1) return ctypeOf(t.e);
    return this.vectors(t).type(t);
  }
  private vectors(t: Type): CVectors {
    if (this.tools.target.vectors === null) throw new LoopError(`${this.tools.target.name} C has no ${showType(t)}`);
    return this.tools.target.vectors;
  }

  private statement(stmt: Stmt, indent: string, block: readonly Stmt[]): string[] {
    switch (stmt.s) {
      case 'set': return this.assignment(stmt, indent, block);
      case 'store': return [`${indent}${stmt.e.type.n === 1 ? `${this.element(stmt.at)} = ${this.as(stmt.at.buffer.e, stmt.e)}` : this.vectors(stmt.e.type).store(stmt.at, stmt.e, this)};`];
      case 'for': {
        const i = this.names.of(stmt.index);
        const head = stmt.mark === 'parallel' ? sharedHead(stmt, i) : `for (int32_t ${i} = 0; ${i} < ${stmt.index.count}; ${i}++)`;
        return [`${indent}${head} {`, ...this.statements(`${indent}    `, stmt.body), `${indent}}`];
      }
      case 'call': {
        const { fn, args } = stmt;
        const given = [
          ...args.buffers.map((a, i) => this.argument(a, fn.buffers[i])),
          ...args.indices.map((a) => this.affine(a)),
          ...args.values.map((e, i) => this.as(fn.values[i].type.e, e)),
        ];
        const shared = isShared(fn);
        const alone = this.meeting && !shared ? 'LB_ALONE ' : '';
        const text = `${indent}${alone}${this.tools.nameOf(fn)}(${shared ? 'LB_SELF ' : ''}${given.join(', ')});`;
        return [...(stmt.note === null ? [] : [`${indent}${comment(stmt.note)}`]), text];
      }
    }
  }

  private assignment({ v, e, pin }: Extract<Stmt, { s: 'set' }>, indent: string, block: readonly Stmt[]): string[] {
    const name = this.names.of(v);
    const inPlace = pin && v.type.n > 1 && e.op === 'dot' && e.acc === v && this.declared.has(v) ? this.vectors(v.type).accumulate?.(name, e, this) ?? null : null;
    if (inPlace !== null) return [`${indent}${inPlace}`];
    const fresh = !this.declared.has(v) && this.homes.get(v) === block;
    this.declared.add(v);
    const pinned = pin ? [`${indent}LB_PIN("+${v.type.n === 1 ? 'r' : this.vectors(v.type).register}", ${name});`] : [];
    if (pin) this.tools.need('pin');
    const accumulates = !fresh && v.type.n === 1 && (bitsOf(v.type.e) >= 32)
      ? e.op === 'add' && e.a === v ? this.plain(e.b) : e.op === 'dot' && e.d === 1 && e.acc === v ? `${this.expr(e.a)} * ${this.expr(e.b)}` : null
      : null;
    if (accumulates !== null) return [`${indent}${name} += ${accumulates};`, ...pinned];
    if (pin === 'address' && e.op === 'load' && v.type.n > 1) {
      const from = this.names.of({ name: `${name}_from` });
      const place = this.pointer(e.at);
      this.redirected = { at: e.at, name: from };
      const value = this.plain(e);
      this.redirected = null;
      return [
        `${indent}const ${ctypeOf(e.at.buffer.e)} *${from} = ${bare(place)};`, `${indent}LB_PIN("+r", ${from});`,
        `${indent}${fresh ? `${this.typeOf(v.type)} ` : ''}${name} = ${value};`,
      ];
    }
    const value = v.type.n === 1 ? this.as(v.type.e, e) : this.plain(e);
    return [`${indent}${fresh ? `${this.typeOf(v.type)} ` : ''}${name} = ${value};`, ...pinned];
  }

  // ---- addresses

  private affine({ offset, terms }: Affine, computed: string | null = null): string {
    const parts = terms.map(([i, stride]) => (stride === 1 ? this.names.of(i) : `${stride} * ${this.names.of(i)}`));
    if (computed !== null) parts.push(computed);
    if (offset !== 0 || parts.length === 0) parts.push(`${offset}`);
    return parts.join(' + ').replaceAll('+ -', '- ');
  }
  private position(a: Address): string {
    if (a.computed === null) return this.affine(a);
    const value = a.computed.value.type.e === 'u32' ? `(int32_t)${this.expr(a.computed.value)}` : this.expr(a.computed.value);
    return this.affine(a, a.computed.stride === 1 ? value : `${a.computed.stride} * ${value}`);
  }
  private place(b: Buffer): string {
    return this.places.get(b)!;
  }
  private element(a: Address, position = this.position(a)): string {
    const place = this.place(a.buffer);
    return `${/^\w+$/.test(place) ? place : `(${place})`}[${position}]`;
  }
  pointer(a: Address): string {
    if (a === this.redirected?.at) return this.redirected.name;
    const position = this.position(a);
    return position === '0' ? this.place(a.buffer) : `(${this.place(a.buffer)} + ${position})`;
  }
  private argument(a: Address, param: Buffer): string {
    const position = this.position(a);
    const pointer = position === '0' ? this.place(a.buffer) : `${this.place(a.buffer)} + ${position}`;
    return a.buffer.e === param.e ? pointer : `(${readOnly(param) ? 'const ' : ''}${ctypeOf(param.e)} *)${position === '0' ? pointer : `(${pointer})`}`;
  }
  helper(name: string, text: string): void {
    this.tools.helper(name, text);
  }

  // ---- expressions

  /** The expression as a value of exactly this element's C type, for assignment and arguments. */
  private as(e: Elem, value: Expr): string {
    const cast = `(${ctypeOf(e)})`;
    const text = this.expr(value);
    const exact = value.op === 'var' || value.op === 'const' || isExactLoad(value) || bitsOf(e) >= 32 || text.startsWith(cast);
    return exact ? bare(text) : cast + text;
  }
  /** The expression without parentheses around the whole of it. */
  private plain(e: Expr): string {
    return bare(this.expr(e));
  }

  expr(e: Expr): string {
    if (e.op === 'var') return this.names.of(e);
    if (e.type.n > 1 || operandsOf(e).some(({ type }) => type.n > 1)) return this.vectors(e.type).expr(e, this);
    const elem = e.type.e;
    switch (e.op) {
      case 'const': return literalOf(e.value, elem);
      case 'load': return isInt(elem) || e.at.buffer.e === elem ? this.element(e.at) : `(${ctypeOf(elem)})${this.element(e.at)}`;
      case 'lookup': {
        const index = e.index.type.e === 'i64' || e.index.type.e === 'u32' ? `(int32_t)${this.expr(e.index)}` : this.expr(e.index);
        const start = this.position(e.at);
        const element = this.element(e.at, start === '0' ? index : `${start} + ${index}`);
        return isInt(elem) || e.at.buffer.e === elem ? element : `(${ctypeOf(elem)})${element}`;
      }
      case 'add': case 'sub': case 'mul': case 'and': case 'or': case 'xor': return `(${this.expr(e.a)} ${operators[e.op]} ${this.expr(e.b)})`;
      case 'addWrap': case 'subWrap': case 'mulWrap': {
        const u = unsignedOf(elem);
        return `(${ctypeOf(elem)})((${u})${this.expr(e.a)} ${operators[e.op]} (${u})${this.expr(e.b)})`;
      }
      case 'addSat': case 'subSat': return this.clamped(`${this.expr(e.a)} ${e.op === 'addSat' ? '+' : '-'} ${this.expr(e.b)}`, elem);
      case 'min': case 'max': {
        const name = `${e.op}${isInt(elem) ? '' : elem === 'u32' ? 'u' : '64'}` as const;
        this.tools.need(name);
        return `lb_${name}(${this.plain(e.a)}, ${this.plain(e.b)})`;
      }
      case 'shl': return `(${ctypeOf(elem)})((${unsignedOf(elem)})${this.expr(e.a)} << ${this.expr(e.by)})`;
      case 'shr': return `(${this.expr(e.a)} >> ${this.expr(e.by)})`;
      case 'shru': return isSigned(elem) ? `(${ctypeOf(elem)})((u${ctypeOf(elem)})${this.expr(e.a)} >> ${this.expr(e.by)})` : `(${this.expr(e.a)} >> ${this.expr(e.by)})`;
      case 'select': return `(${this.expr(e.a)} ${compares[e.compare]} ${this.expr(e.b)} ? ${this.expr(e.x)} : ${this.expr(e.y)})`;
      case 'clz': {
        const name = elem === 'i64' ? 'clz64' : 'clz32';
        this.tools.need(name);
        return `${elem === 'u32' ? '(uint32_t)' : ''}lb_${name}(${elem === 'u32' ? '' : elem === 'i64' ? '(uint64_t)' : '(uint32_t)'}${this.expr(e.a)})`;
      }
      case 'mulQ15': return `((${this.expr(e.a)} * ${this.expr(e.b)} + 16384) >> 15)`;
      case 'convert': return isInt(elem) && isInt(e.a.type.e) && includes(elem, e.a.type.e) ? this.expr(e.a) : `(${ctypeOf(elem)})${this.expr(e.a)}`;
      case 'narrow': return e.a.type.e === 'i64' ? this.clamped64(this.plain(e.a), elem) : this.clamped(this.plain(e.a), elem);
      case 'dot': return `(${this.expr(e.acc)} + ${this.expr(e.a)} * ${this.expr(e.b)})`;
      case 'dyadic': return `(int32_t)(((int64_t)${this.expr(e.acc)} * ${this.expr(e.m)} + ${this.expr(e.c[0])}) >> ${this.expr(e.shift)})`;
      case 'dyadic2':
        return `(int32_t)(((int64_t)${this.expr(e.x)} * ${this.expr(e.mx)} + (int64_t)${this.expr(e.y)} * ${this.expr(e.my)} + ${this.expr(e.c[0])}) >> ${this.expr(e.shift)})`;
      case 'splat': case 'pick': case 'broadcast': case 'widen': case 'pack': case 'zip': case 'reduce': case 'across':
        throw new LoopError(`${e.op} of a scalar`);
    }
  }
  private clamped(value: string, e: Elem): string {
    this.tools.need('clamp');
    const [low, high] = limitsOf(e);
    return `lb_clamp(${value}, ${low}, ${high > 0x7fffffffn ? '0x7fffffff' : high})`;
  }
  private clamped64(value: string, e: Elem): string {
    this.tools.need('clamp64');
    const [low, high] = limitsOf(e);
    return `(${ctypeOf(e)})lb_clamp64(${value}, ${literalOf(low, 'i64')}, ${literalOf(high, 'i64')})`;
  }
}

const isExactLoad = (e: Expr): boolean => (e.op === 'load' || e.op === 'lookup') && e.at.buffer.e === e.type.e;

/** The text without a pair of parentheses around the whole of it. */
const bare = (text: string): string => {
  if (!text.startsWith('(')) return text;
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '(') depth++;
    if (text[i] === ')' && --depth === 0) return i === text.length - 1 ? text.slice(1, -1) : text;
  }
  return text;
};

const literalOf = (value: number | bigint, e: Elem): string => {
  if (e === 'u32') return `${value}u`;
  if (e === 'i64') return BigInt(value) === -(2n ** 63n) ? 'INT64_MIN' : BigInt(value) < 0n ? `(-INT64_C(${-BigInt(value)}))` : `INT64_C(${value})`;
  return Number(value) === -(2 ** 31) ? 'INT32_MIN' : Number(value) < 0 ? `(${value})` : `${value}`;
};
