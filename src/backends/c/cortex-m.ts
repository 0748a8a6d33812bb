/**
 * The DSP extension of Cortex-M4, M7, M33 and others: four bytes or two halfwords in one general register. A type of two bytes lies in
 * the lower half, and what is above it means nothing.
 *
 * **Dot products** have one scalar sum: `smlad` for two halfwords; for four bytes `sxtb16` (or `uxtb16`) takes the even and, rotated, the
 * odd ones apart, once for all products of an operand, and `smlad` adds both pairs. Lanes that no instruction joins are handled one at a time.
 */
import { bitsOf, bytesOf, isSigned, showType, sizeOf, type } from '../../loops/build.ts';
import type { Address, Elem, Expr, Type } from '../../loops/types.ts';
import { access, exchanged, lookupByLane, nameOf, refuse, type Of, type Spilling } from './lanes.ts';
import { ctypeOf, type CContext, type CVectors, type Lanes } from './print.ts';

const NAME = 'Cortex-M DSP';
const REGISTER = 'uint32_t';

const checked = (t: Type): Type => (sizeOf(t) > 4 ? refuse(NAME, `vector of ${sizeOf(t)} bytes (${showType(t)})`) : t);
/** One lane of a register as a C value of its element. */
const lane = ({ e }: Type, register: string, i: number): string => `(${ctypeOf(e)})${i === 0 ? register : `(${register} >> ${i * bitsOf(e)})`}`;
const mask = (e: Elem): string => (bitsOf(e) === 8 ? '0xffu' : '0xffffu');
/** A C value in the place of lane i, zero elsewhere. */
const placed = ({ e }: Type, value: string, i: number): string => (i === 0 ? `((${REGISTER})(${value}) & ${mask(e)})` : `(((${REGISTER})(${value}) & ${mask(e)}) << ${i * bitsOf(e)})`);
/** A register of lanes computed one at a time. */
const gathered = (t: Type, value: (i: number) => string): string => Array.from({ length: t.n }, (_, i) => placed(t, value(i), i)).join(' | ');

const helper = (context: CContext, name: string, result: string, params: string, body: readonly string[], ...args: readonly string[]): string => {
  context.helper(name, `static inline ${result} ${name}(${params})\n{\n${body.map((line) => `    ${line}\n`).join('')}}`);
  return `${name}(${args.join(', ')})`;
};
/** A helper from registers to a register whose lanes are an expression in the lanes x and y of a and b. */
const byLane = (context: CContext, name: string, from: Type, to: Type, value: string, ...args: readonly string[]): string => {
  const names = ['a', 'b'].slice(0, args.length);
  const lines = Array.from({ length: to.n }, (_, i) => names.map((name_, j) => `const ${ctypeOf(from.e)} ${'xy'[j]}${i} = ${lane(from, name_, i)};`)).flat();
  const values = gathered(to, (i) => value.replaceAll(/\b([xy])\b/g, `$1${i}`));
  return helper(context, `lb_${name}`, REGISTER, names.map((name_) => `${REGISTER} ${name_}`).join(', '), [...lines, `return ${values};`], ...args);
};
/** An instruction on whole registers. */
const instruction = (name: string, signed: boolean, ...args: readonly string[]): string =>
  `(${REGISTER})${name}(${args.map((text) => `(${signed ? 'int32_t' : REGISTER})${text}`).join(', ')})`;

const spilling: Spilling = {
  type: () => REGISTER, size: () => 4,
  save: (_, array, value) => `__builtin_memcpy(${array}, &${value}, 4)`,
  restore: ({ e }, array) => gathered(type(e, 4 / bytesOf(e)), (i) => `${array}[${i}]`),
};

const load = (at: Address, t: Type, context: CContext): string => {
  const from = type(at.buffer.e, t.n);
  const bytes = sizeOf(from);
  return widened(`(${REGISTER})${bytes === 2 ? '(uint16_t)' : ''}${access('read', bytes, context)}(${context.pointer(at)})`, from, t.e, context);
};
const store = (to: Address, value: Expr, context: CContext): string => {
  const bytes = sizeOf(checked(value.type));
  return `${access('write', bytes, context)}(${context.pointer(to)}, (int${8 * bytes}_t)${context.expr(value)})`;
};
/** Two bytes as two halfwords is the only widening that fits: `sxtb16` reads bytes 0 and 2, so a copy of the second byte goes there first. */
const widened = (text: string, from: Type, to: Elem, context: CContext): string => {
  checked(type(to, from.n));
  if (bitsOf(from.e) === bitsOf(to)) return text;
  const signed = isSigned(from.e);
  const spread = '(a & 0xffffu) | (a << 8)';
  return helper(context, `lb_extend_${from.e}`, REGISTER, `${REGISTER} a`, [`return ${signed ? `(${REGISTER})__sxtb16((int32_t)(${spread}))` : `__uxtb16(${spread})`};`], text);
};
/** A scalar in every lane. */
const filled = (t: Type, value: string, context: CContext): string =>
  helper(context, `lb_fill${bitsOf(t.e)}`, REGISTER, 'int32_t x', [`return ((${REGISTER})x & ${mask(t.e)}) * ${bitsOf(t.e) === 8 ? '0x01010101u' : '0x00010001u'};`], `(int32_t)${value}`);

/** Compares lanes by the flags that a subtraction leaves, one for each byte: `sel` takes x where a ≥ b. */
const greaterOrEqual = (e: Elem, a: string, b: string, x: string, y: string, context: CContext): string => {
  const name = `lb_ge_${e}`;
  const s = isSigned(e);
  const difference = `__${s ? 's' : 'u'}sub${bitsOf(e)}`;
  const param = s ? 'int32_t' : REGISTER;
  context.helper(name, `\
static inline ${REGISTER} ${name}(${REGISTER} a, ${REGISTER} b, ${REGISTER} x, ${REGISTER} y)
{
    (void)${difference}((${param})a, (${param})b);
    return __sel(x, y);
}`);
  return `${name}(${[a, b, x, y].join(', ')})`;
};

const shift = (t: Type, name: 'shl' | 'shr' | 'shru', text: string, by: Expr, context: CContext): string => {
  const e: Elem = name === 'shru' ? (({ i8: 'u8', u8: 'u8', i16: 'u16', u16: 'u16' } as const)[t.e as 'i8'] ?? t.e) : t.e;
  const from = type(e, t.n);
  const lines = Array.from({ length: t.n }, (_, i) => `const ${ctypeOf(e)} x${i} = ${lane(from, 'a', i)};`);
  const value = (i: number): string => (name === 'shl' ? `(${REGISTER})x${i} << n` : `x${i} >> n`);
  return helper(context, `lb_${name}_${nameOf(from)}`, REGISTER, `${REGISTER} a, int32_t n`, [...lines, `return ${gathered(t, value)};`], text, context.expr(by));
};

const dot = ({ d, acc, a, b, type: t }: Of<'dot'>, context: CContext): string => {
  if (t.n > 1) return refuse(NAME, `vector of sums (${showType(t)}); a dot product adds to a scalar`);
  const [sum, x, y] = [acc, a, b].map((part) => context.expr(part));
  if (d === 2) return `__smlad((int32_t)${x}, (int32_t)${y}, ${sum})`;
  const parts = (e: Elem, register: string): readonly string[] => [
    isSigned(e) ? `__sxtb16((int32_t)${register})` : `(int32_t)__uxtb16(${register})`, helper(context, `lb_odd_${e}`, 'int32_t', `${REGISTER} a`, [
      'int32_t x;', `__asm__("${isSigned(e) ? 's' : 'u'}xtb16 %0, %1, ror #8" : "=r"(x) : "r"(a));`, 'return x;'], register)];
  const [[x0, x1], [y0, y1]] = [parts(a.type.e, 'a'), parts('i8', 'b')];
  return helper(context, `lb_dot4_${a.type.e}`, 'int32_t', `int32_t sum, ${REGISTER} a, ${REGISTER} b`, [`return __smlad(${x1}, ${y1}, __smlad(${x0}, ${y0}, sum));`], sum, x, y);
};

const expr = (e: Lanes, context: CContext): string => {
  const t = e.type;
  const of = (x: Expr): string => context.expr(x);
  const s = isSigned(t.e) ? 's' : 'u';
  if (t.n > 1) checked(t);
  switch (e.op) {
    case 'const': return `${gatheredConstant(t, BigInt(e.value))}u`;
    case 'load': return load(e.at, t, context);
    case 'splat': {
      if (e.k === 1) return filled(t, of({ op: 'load', type: type(t.e), at: e.at }), context);
      const group = load(e.at, type(t.e, e.k), context);
      return e.k === t.n ? group : filled(type('i16', 2), group, context);
    }
    case 'broadcast': return filled(t, of(e.a), context);
    case 'lookup': checked(e.index.type); return lookupByLane(e, spilling, context);
    case 'add': case 'sub': case 'addWrap': case 'subWrap': return instruction(`__${s}${e.op.slice(0, 3)}${bitsOf(t.e)}`, s === 's', of(e.a), of(e.b));
    case 'addSat': case 'subSat': return instruction(`__${s === 's' ? 'q' : 'uq'}${e.op.slice(0, 3)}${bitsOf(t.e)}`, s === 's', of(e.a), of(e.b));
    case 'mul': case 'mulWrap': return byLane(context, `mul_${nameOf(t)}`, t, t, `(${REGISTER})x * (${REGISTER})y`, of(e.a), of(e.b));
    case 'min': case 'max': {
      const [a, b] = ['a', 'b'];
      const chosen = greaterOrEqual(t.e, a, b, ...(e.op === 'max' ? [a, b] as const : [b, a] as const), context);
      return helper(context, `lb_${e.op}_${t.e}`, REGISTER, `${REGISTER} a, ${REGISTER} b`, [`return ${chosen};`], of(e.a), of(e.b));
    }
    case 'and': return `(${of(e.a)} & ${of(e.b)})`;
    case 'or': return `(${of(e.a)} | ${of(e.b)})`;
    case 'xor': return `(${of(e.a)} ^ ${of(e.b)})`;
    case 'shl': case 'shr': case 'shru': return shift(t, e.op, of(e.a), e.by, context);
    case 'select': {
      const { compare, a, b, x, y } = exchanged(e);
      const texts = [a, b, x, y].map(of);
      if (compare === 'ge') return greaterOrEqual(a.type.e, texts[0], texts[1], texts[2], texts[3], context);
      if (compare === 'gt') return greaterOrEqual(a.type.e, texts[1], texts[0], texts[3], texts[2], context);
      // equal where no bit differs: 0 ≥ a xor b without sign
      const bits = bitsOf(a.type.e) === 8 ? 'u8' : 'u16';
      return greaterOrEqual(bits, '0', `(${texts[0]} ^ ${texts[1]})`, texts[2], texts[3], context);
    }
    case 'mulQ15': return byLane(context, `mulq15_${nameOf(t)}`, t, t, '(x * y + 16384) >> 15', of(e.a), of(e.b));
    case 'convert': return widened(of(e.a), e.a.type, t.e, context);
    case 'widen': {
      if (t.n === 1) return `(${ctypeOf(t.e)})${lane(e.a.type, of(e.a), e.half)}`;
      return widened(e.half === 0 ? of(e.a) : `(${of(e.a)} >> 16)`, type(e.a.type.e, t.n), t.e, context);
    }
    case 'narrow': {
      const limited = `__${s}sat16((int32_t)${of(e.a)}, 8)`;
      return byLane(context, `join_${nameOf(t)}`, type(e.a.type.e, t.n), t, 'x', `(${REGISTER})${limited}`);
    }
    case 'dot': return dot(e, context);
    case 'across': {
      const c = ctypeOf(t.e);
      const joined = e.by === 'add' ? `(${c})(x + y)` : `x ${e.by === 'min' ? '<' : '>'} y ? x : y`;
      const steps = Array.from({ length: e.a.type.n - 1 }, (_, i) => [`y = ${lane(e.a.type, 'a', i + 1)};`, `x = ${joined};`]).flat();
      return helper(context, `lb_${e.by}_across_${nameOf(checked(e.a.type))}`, c, `${REGISTER} a`, [`${c} x = ${lane(e.a.type, 'a', 0)}, y;`, ...steps, 'return x;'], of(e.a));
    }
    case 'pick': case 'pack': case 'zip': case 'reduce': case 'dyadic': case 'dyadic2': case 'clz': return refuse(NAME, `${e.op} of ${showType(t)}`);
  }
};
/** A value in every lane of a register, as a number. */
const gatheredConstant = ({ e, n }: Type, value: bigint): bigint => {
  const bits = BigInt(bitsOf(e));
  return Array.from({ length: n }, (_, i) => BigInt.asUintN(Number(bits), value) << (BigInt(i) * bits)).reduce((a, b) => a | b);
};

/** ARMv7E-M, and ARMv8-M with the DSP extension. */
export const cortexM: CVectors = { includes: ['arm_acle.h'], register: 'r', type: (t) => (checked(t), REGISTER), store, expr };
