/**
 * Vectors of 64-bit Arm: sixteen bytes in a whole register, at most eight in its lower half, where what lies above the lanes means
 * nothing.
 *
 * **Dot products.** By two: two `smlal` of the even and of the odd lanes, which are taken apart once for all products of an operand. By
 * four: `sdot`, signed bytes times signed bytes; without that extension `smull` and sums of neighbours, exact as well.
 *
 * **Dyadic** pairs halves: `smlal` and `smlal2`.
 */
import { bitsOf, bytesOf, isSigned, showType, sizeOf, type } from '../../loops/build.ts';
import type { Address, Binary, Elem, Expr, Type } from '../../loops/types.ts';
import { access, exchanged, fitsWord, laneOf, lookupByLane, nameOf, refuse, tableHalves, type Of, type Spilling } from './lanes.ts';
import { ctypeOf, type CContext, type CVectors, type Lanes } from './print.ts';

interface Machine {
  readonly name: string;
  /** the extension FEAT_DotProd */
  readonly dotProducts: boolean;
}

const unsigned = { i8: 'u8', u8: 'u8', i16: 'u16', u16: 'u16', i32: 'u32', u32: 'u32', i64: 'u64' } as const;
/** Element suffix of instructions. */
const suffixOf = (e: Elem): string => `${isSigned(e) ? 's' : 'u'}${bitsOf(e)}`;
/** A vector of one register, as the instructions name it: the suffix of its element and whether it fills the register. */
const quad = (whole: boolean): string => (whole ? 'q' : '');

const vectors = (machine: Machine): CVectors => {
  const whole = (t: Type): boolean => {
    const size = sizeOf(t);
    return size > 16 ? refuse(machine.name, `vector of ${size} bytes (${showType(t)})`) : size === 16;
  };
  const registerOf = (e: Elem, full: boolean): string => `${isSigned(e) ? '' : 'u'}int${bitsOf(e)}x${(full ? 128 : 64) / bitsOf(e)}_t`;
  const typeOf = (t: Type): string => registerOf(t.e, whole(t));
  /** An instruction on registers of a type. */
  const call = (name: string, t: Type, ...args: readonly (string | number)[]): string => `v${name}${quad(whole(t))}_${suffixOf(t.e)}(${args.join(', ')})`;
  /** The same bits as lanes of another suffix. */
  const cast = (text: string, from: string, to: string, full: boolean): string => (from === to ? text : `vreinterpret${quad(full)}_${to}_${from}(${text})`);
  const as = (text: string, from: Type, to: Elem): string => cast(text, suffixOf(from.e), suffixOf(to), whole(from));
  const lane = (t: Type, text: string, i: number): string => `vget${quad(whole(t))}_lane_${suffixOf(t.e)}(${text}, ${i})`;
  const spilling: Spilling = {
    type: typeOf, size: (t) => (whole(t) ? 16 : 8),
    save: (t, array, value) => call('st1', t, array, value),
    restore: (t, array) => call('ld1', t, array),
  };
  /** A helper of one result type with named parameters. */
  const helper = (context: CContext, name: string, result: string, params: string, body: readonly string[], ...args: readonly string[]): string => {
    context.helper(name, `static inline ${result} ${name}(${params})\n{\n${body.map((line) => `    ${line}\n`).join('')}}`);
    return `${name}(${args.join(', ')})`;
  };

  // ---- memory

  const load = (at: Address, t: Type, context: CContext): string => {
    const from = type(at.buffer.e, t.n);
    const pointer = context.pointer(at);
    const size = sizeOf(from);
    const lanes = size >= 8 ? call('ld1', from, pointer)
      : cast(`vdup_n_s${8 * size}(${access('read', size, context)}(${pointer}))`, `s${8 * size}`, suffixOf(from.e), false);
    return widened(lanes, from, t.e);
  };
  const store = (to: Address, value: Expr, context: CContext): string => {
    const pointer = context.pointer(to);
    const text = context.expr(value);
    const size = sizeOf(value.type);
    return size >= 8 ? call('st1', value.type, pointer, text)
      : `${access('write', size, context)}(${pointer}, vget_lane_s${8 * size}(${cast(text, suffixOf(value.type.e), `s${8 * size}`, false)}, 0))`;
  };
  /** The low lanes, each of another width or sign. */
  const widened = (text: string, from: Type, to: Elem): string => {
    whole(type(to, from.n));
    let [value, bits] = [text, bitsOf(from.e) as number];
    const sign = isSigned(from.e) ? 's' : 'u';
    for (; bits < bitsOf(to); bits *= 2) {
      value = `vmovl_${sign}${bits}(${value})`;
      if (2 * bits * from.n <= 64) value = `vget_low_${sign}${2 * bits}(${value})`;
    }
    return cast(value, `${sign}${bits}`, suffixOf(to), bits * from.n > 64);
  };
  const dup = (t: Type, text: string): string => `vdup${quad(whole(t))}_n_${suffixOf(t.e)}(${text})`;
  const splat = ({ at, k, type: t }: Of<'splat'>, context: CContext): string => {
    const group = type(t.e, k);
    const size = sizeOf(group);
    if (k === 1) return dup(t, `(${ctypeOf(t.e)})${context.expr({ op: 'load', type: group, at })}`);
    if (size >= sizeOf(t)) return load(at, t, context);
    const words = `s${8 * size}`;
    const filled = at.buffer.e === t.e ? `vdup${quad(whole(t))}_n_${words}(${access('read', size, context)}(${context.pointer(at)}))`
      : `vdup${quad(whole(t))}_lane_${words}(${cast(load(at, group, context), suffixOf(t.e), words, false)}, 0)`;
    return cast(filled, words, suffixOf(t.e), whole(t));
  };

  // ---- arithmetic

  const multiply = (e: Of<Binary>, context: CContext): string => {
    const { a, b, type: t } = e;
    const of = (x: Expr): string => context.expr(x);
    if (a.op === 'widen' && b.op === 'widen' && a.half === b.half && a.a.type.e === b.a.type.e && whole(a.a.type)) {
      const from = suffixOf(a.a.type.e);
      const operands = [a, b].map(({ a: source }) => (a.half === 0 ? `vget_low_${from}(${of(source)})` : of(source)));
      return cast(`vmull${a.half === 0 ? '' : '_high'}_${from}(${operands.join(', ')})`, `${from[0]}${bitsOf(t.e)}`, suffixOf(t.e), true);
    }
    if (bitsOf(t.e) < 64) return call('mul', t, of(a), of(b));
    if (fitsWord(a) && fitsWord(b)) return `vmull_s32(vmovn_s64(${of(a)}), vmovn_s64(${of(b)}))`;
    const product = (i: number): string => `(int64_t)((uint64_t)${lane(t, 'a', i)} * (uint64_t)${lane(t, 'b', i)})`;
    return helper(context, 'lb_mul64', 'int64x2_t', 'int64x2_t a, int64x2_t b', [`return vsetq_lane_s64(${product(1)}, vdupq_n_s64(${product(0)}), 1);`], of(a), of(b));
  };
  const least = (op: 'min' | 'max', t: Type, a: string, b: string, context: CContext): string =>
    bitsOf(t.e) < 64 ? call(op, t, a, b)
      : helper(context, `lb_${op}_i64x2`, 'int64x2_t', 'int64x2_t a, int64x2_t b', [`return vbslq_s64(vcgtq_s64(a, b), ${op === 'min' ? 'b, a' : 'a, b'});`], a, b);
  /** One instruction shifts by a vector of counts, negative ones to the right. */
  const shift = (t: Type, text: string, direction: 'left' | 'right', by: Expr, context: CContext): string => {
    if (by.op === 'const') {
      const n = Number(by.value);
      return n === 0 ? text : `v${direction === 'left' ? 'shl' : 'shr'}${quad(whole(t))}_n_${suffixOf(t.e)}(${text}, ${n})`;
    }
    const count = type(({ 8: 'i8', 16: 'i16', 32: 'i32', 64: 'i64' } as const)[bitsOf(t.e)], t.n);
    return call('shl', t, text, dup(count, `(${ctypeOf(count.e)})${direction === 'left' ? context.expr(by) : `-(${context.expr(by)})`}`));
  };
  const select = (e: Of<'select'>, context: CContext): string => {
    const { compare, a, b, x, y } = exchanged(e);
    const mask = call(compare === 'eq' ? 'ceq' : `c${compare}`, a.type, context.expr(a), context.expr(b));
    return call('bsl', e.type, mask, context.expr(x), context.expr(y));
  };

  // ---- widths

  const widen = ({ half, a, type: to }: Of<'widen'>, context: CContext): string => {
    const text = context.expr(a);
    const from = suffixOf(a.type.e);
    if (to.n === 1) return `(${ctypeOf(to.e)})${lane(a.type, text, half)}`;
    const wide = `${from[0]}${bitsOf(to.e)}`;
    if (whole(a.type)) return cast(half === 0 ? `vmovl_${from}(vget_low_${from}(${text}))` : `vmovl_high_${from}(${text})`, wide, suffixOf(to.e), true);
    // the upper lanes are the upper half of all, or, of less than eight bytes, moved down first
    const size = sizeOf(a.type);
    const lanes = half === 1 && size < 8 ? cast(`vshr_n_u64(${cast(text, from, 'u64', false)}, ${4 * size})`, 'u64', from, false) : text;
    const part = `vget_${half === 1 && size === 8 ? 'high' : 'low'}_${wide}(vmovl_${from}(${lanes}))`;
    return cast(part, wide, suffixOf(to.e), false);
  };
  const narrow = ({ a, type: to }: Of<'narrow'>, context: CContext): string => {
    const step = (from: Elem, e: Elem, text: string): string => `vqmov${isSigned(e) ? '' : 'u'}n_${suffixOf(from)}(${text})`;
    const from = a.type.e;
    if (whole(a.type) && 2 * bitsOf(to.e) === bitsOf(from)) return step(from, to.e, context.expr(a));
    const twice = (e: Elem, text: string): string => `vcombine_${suffixOf(e)}(${text}, ${text})`;
    const first: Elem = 2 * bitsOf(to.e) === bitsOf(from) ? to.e : 'i16';
    return helper(context, `lb_narrow_${nameOf(a.type)}_${to.e}`, registerOf(to.e, false), `${typeOf(a.type)} a`,
      [`const ${registerOf(first, false)} words = ${step(from, first, whole(a.type) ? 'a' : twice(from, 'a'))};`, `return ${first === to.e ? 'words' : step(first, to.e, twice(first, 'words'))};`], context.expr(a));
  };

  // ---- sums of products

  const dot = ({ d, acc, a, b, type: t }: Of<'dot'>, context: CContext): string => {
    const operands = [a, b].map((x) => context.expr(x));
    if (d === 4 && a.type.e !== 'i8') return refuse(machine.name, 'dot product of u8 and i8; both operands are i8');
    if (t.n === 1) {
      // the sum of two or four products in the lowest lane
      const sums = `lb_dot${d}_i32x2`;
      return `vget_lane_s32(${sumsOf(sums, d, type('i32', 2), context, `vdup_n_s32(${context.expr(acc)})`, ...operands)}, 0)`;
    }
    if (d === 1) return call('mla', t, context.expr(acc), ...operands);
    return sumsOf(`lb_dot${d}_${nameOf(t)}`, d, t, context, context.expr(acc), ...operands);
  };
  const sumsOf = (name: string, d: 1 | 2 | 4, t: Type, context: CContext, ...args: readonly string[]): string => {
    const full = whole(t);
    if (d === 4 && machine.dotProducts) return `vdot${quad(full)}_s32(${args.join(', ')})`;
    const [sum, part] = [typeOf(t), registerOf(d === 4 ? 'i8' : 'i16', full)];
    const low = (e: Elem, text: string): string => (full ? `vget_low_${suffixOf(e)}(${text})` : text);
    const body = d === 4
      ? [`const int16x8_t low = vmull_s8(${low('i8', 'a')}, ${low('i8', 'b')});`,
        ...(full ? ['const int16x8_t high = vmull_high_s8(a, b);', 'return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));']
          : ['const int32x4_t pairs = vpaddlq_s16(low);', 'return vadd_s32(sum, vpadd_s32(vget_low_s32(pairs), vget_high_s32(pairs)));'])]
      : full
        ? ['const int32x4_t x = vreinterpretq_s32_s16(a), y = vreinterpretq_s32_s16(b);',
          'return vmlal_s16(vmlal_s16(sum, vmovn_s32(x), vmovn_s32(y)), vshrn_n_s32(x, 16), vshrn_n_s32(y, 16));']
        : ['const int32x4_t pairs = vmull_s16(a, b);', 'return vadd_s32(sum, vpadd_s32(vget_low_s32(pairs), vget_high_s32(pairs)));'];
    return helper(context, name, sum, `${sum} sum, ${part} a, ${part} b`, body, ...args);
  };
  const reduce = ({ parts, type: t }: Of<'reduce'>, context: CContext): string => {
    let texts = parts.map((part) => context.expr(part));
    while (texts.length > 1) texts = texts.filter((_, i) => i % 2 === 0).map((text, i) => call('padd', t, text, texts[2 * i + 1]));
    return texts[0];
  };
  const across = ({ by, a, type: { e } }: Of<'across'>, context: CContext): string => {
    const text = context.expr(a);
    const c = ctypeOf(e);
    if (sizeOf(a.type) >= 8 && (bitsOf(e) < 64 || by === 'add')) return call(`${by}v`, a.type, text);
    const joined = by === 'add' ? `(${c})(x + y)` : `x ${by === 'min' ? '<' : '>'} y ? x : y`;
    const steps = Array.from({ length: a.type.n - 1 }, (_, i) => [`y = ${lane(a.type, 'a', i + 1)};`, `x = ${joined};`]).flat();
    return helper(context, `lb_${by}_across_${nameOf(a.type)}`, c, `${typeOf(a.type)} a`, [`${c} x = ${lane(a.type, 'a', 0)}, y;`, ...steps, 'return x;'], text);
  };

  // ---- rescaling

  /** (Σ products + c) >> shift: 64-bit lanes for the lower and the upper half, then the words that the shift leaves. */
  const dyadic = (e: Of<'dyadic' | 'dyadic2'>, context: CContext): string => {
    if (e.type.n !== 4 || e.pairing !== 'halves') refuse(machine.name, `dyadic of ${showType(e.type)} by ${e.pairing}; it pairs the halves of four lanes`);
    const factors = e.op === 'dyadic' ? [['acc', 'm']] : [['x', 'mx'], ['y', 'my']];
    const operands = (e.op === 'dyadic' ? [e.acc, e.m] : [e.x, e.mx, e.y, e.my]).concat(e.c).map((part) => context.expr(part));
    const low = factors.reduce((sum, [x, m]) => `vmlal_s32(${sum}, vget_low_s32(${x}), vget_low_s32(${m}))`, 'low');
    const high = factors.reduce((sum, [x, m]) => `vmlal_high_s32(${sum}, ${x}, ${m})`, 'high');
    const params = [...factors.flat().map((name) => `int32x4_t ${name}`), 'int64x2_t low', 'int64x2_t high'].join(', ');
    const words = (which: 1 | 2): string => `return vuzp${which}q_s32(vreinterpretq_s32_s64(a), vreinterpretq_s32_s64(b));`;
    const name = e.op === 'dyadic' ? 'lb_scaled' : 'lb_scaled2';
    if (context.range(e.shift)[0] < 32) {
      return helper(context, `${name}_by`, 'int32x4_t', `${params}, int n`, [
        `const int64x2_t a = vshlq_s64(${low}, vdupq_n_s64(-n));`, `const int64x2_t b = vshlq_s64(${high}, vdupq_n_s64(-n));`, words(1)], ...operands, context.expr(e.shift));
    }
    // the upper words of the sums; what is left of the shift moves them as 32-bit lanes
    const upper = helper(context, name, 'int32x4_t', params, [`const int64x2_t a = ${low};`, `const int64x2_t b = ${high};`, words(2)], ...operands);
    if (e.shift.op !== 'const') return `vshlq_s32(${upper}, vdupq_n_s32(32 - ${context.expr(e.shift)}))`;
    return Number(e.shift.value) === 32 ? upper : `vshrq_n_s32(${upper}, ${Number(e.shift.value) - 32})`;
  };

  // ---- tables

  /** A table of 256 bytes as four tables of 64: an index outside of one leaves the lane as it was. */
  const tableOf = (e: Of<'lookup'>, [low, high]: readonly [Address, Address], context: CContext): string => {
    const full = whole(e.type);
    const register = registerOf('u8', full);
    const rows = (from: string, offset: number): string => `{{${[0, 16, 32, 48].map((row) => `vld1q_u8(${from} + ${offset + row})`).join(', ')}}}`;
    const index = (offset: number): string => (offset === 0 ? 'index' : `vsub${quad(full)}_u8(index, vdup${quad(full)}_n_u8(${offset}))`);
    const body = [
      'const uint8_t *a = (const uint8_t *)low, *b = (const uint8_t *)high;',
      ...[['a', 0], ['a', 64], ['b', 0], ['b', 64]].map(([from, offset], i) => `const uint8x16x4_t t${i} = ${rows(from as string, offset as number)};`),
      `${register} entries = vqtbl4${quad(full)}_u8(t0, index);`,
      ...[1, 2, 3].map((i) => `entries = vqtbx4${quad(full)}_u8(entries, t${i}, ${index(64 * i)});`), 'return entries;'];
    const entries = helper(context, `lb_table${quad(full)}`, register, `const void *low, const void *high, ${register} index`, body,
      context.pointer(low), context.pointer(high), as(context.expr(e.index), e.index.type, 'u8'));
    return cast(entries, 'u8', suffixOf(e.type.e), full);
  };

  const expr = (e: Lanes, context: CContext): string => {
    const t = e.type;
    const of = (x: Expr): string => context.expr(x);
    switch (e.op) {
      case 'const': return dup(t, of(laneOf(e)));
      case 'load': return load(e.at, t, context);
      case 'splat': return splat(e, context);
      case 'broadcast': return dup(t, `(${ctypeOf(t.e)})${of(e.a)}`);
      case 'lookup': {
        const halves = tableHalves(e);
        return halves === null ? lookupByLane(e, spilling, context) : tableOf(e, halves, context);
      }
      case 'pick': {
        // a word whose upper byte is 0 gets the table's first entry, 0, as its upper byte
        const entries = `vqtbl1${quad(whole(t))}_u8(${as(of(e.table), e.table.type, 'u8')}, ${as(of(e.index), e.index.type, 'u8')})`;
        return cast(entries, 'u8', suffixOf(t.e), whole(t));
      }
      case 'add': case 'sub': case 'addWrap': case 'subWrap': return call(e.op.slice(0, 3), t, of(e.a), of(e.b));
      case 'mul': case 'mulWrap': return multiply(e, context);
      case 'addSat': case 'subSat': return call(`q${e.op.slice(0, 3)}`, t, of(e.a), of(e.b));
      case 'min': case 'max': return least(e.op, t, of(e.a), of(e.b), context);
      case 'and': return call('and', t, of(e.a), of(e.b));
      case 'or': return call('orr', t, of(e.a), of(e.b));
      case 'xor': return call('eor', t, of(e.a), of(e.b));
      case 'shl': return shift(t, of(e.a), 'left', e.by, context);
      case 'shr': return shift(t, of(e.a), 'right', e.by, context);
      case 'shru': return logical(t, of(e.a), e.by, context);
      case 'select': return select(e, context);
      case 'mulQ15': return call('qrdmulh', t, of(e.a), of(e.b));
      case 'convert': return widened(of(e.a), e.a.type, t.e);
      case 'widen': return widen(e, context);
      case 'narrow': return narrow(e, context);
      case 'pack': {
        const step = `vqmov${isSigned(t.e) ? '' : 'u'}n`;
        const from = suffixOf(e.a.type.e);
        return `${step}_high_${from}(${step}_${from}(${of(e.a)}), ${of(e.b)})`;
      }
      case 'zip': {
        const unit = `s${8 * e.unit * bytesOf(t.e)}`;
        const [a, b] = [e.a, e.b].map((x) => cast(of(x), suffixOf(t.e), unit, true));
        return cast(`vzip${e.half + 1}q_${unit}(${a}, ${b})`, unit, suffixOf(t.e), true);
      }
      case 'dot': return dot(e, context);
      case 'reduce': return reduce(e, context);
      case 'across': return across(e, context);
      case 'dyadic': case 'dyadic2': return dyadic(e, context);
      case 'clz': return refuse(machine.name, 'clz of a vector');
    }
  };
  /** A logical shift to the right: that of the unsigned element of the same width. */
  const logical = (t: Type, text: string, by: Expr, context: CContext): string => {
    const bits = unsigned[t.e];
    if (t.e !== 'i64') return cast(shift({ ...t, e: bits as Elem }, as(text, t, bits as Elem), 'right', by, context), bits, suffixOf(t.e), whole(t));
    const shifted = by.op === 'const' ? (Number(by.value) === 0 ? null : `vshrq_n_u64(${cast(text, 's64', 'u64', true)}, ${Number(by.value)})`)
      : `vshlq_u64(${cast(text, 's64', 'u64', true)}, vdupq_n_s64(-(${context.expr(by)})))`;
    return shifted === null ? text : cast(shifted, 'u64', 's64', true);
  };
  return { includes: ['arm_neon.h'], register: 'w', type: typeOf, store, expr };
};

/** ARMv8-A. */
export const neon: CVectors = vectors({ name: 'NEON', dotProducts: false });
/** ARMv8.2-A with FEAT_DotProd: Cortex-A55 and A76, Apple A11, Graviton 2 and later. */
export const neonDot: CVectors = vectors({ name: 'NEON with dot products', dotProducts: true });
