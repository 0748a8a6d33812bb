/**
 * Vectors of x86-64: AVX2 (up to 32 bytes) and AVX-512 with BW, DQ, VL and VNNI (up to 64). A type of at most 16 bytes lives in the low
 * end of an xmm register, and what lies above its lanes means nothing; of 32 bytes it is a ymm, of 64 a zmm.
 *
 * **Dot products.** By two: `pmaddwd` and an add, or `vpdpwssd`. By four: `vpdpbusd`, bytes without sign times bytes with sign; AVX2
 * takes `pmaddubsw` where the program promises that its sums of pairs do not saturate, else multiplies even and odd bytes apart by `pmaddwd`.
 *
 * **Dyadic** pairs even and odd lanes: `pmuldq` reads the even ones, a shift by 32 brings the odd ones into their place.
 */
import { bitsOf, isSigned, showType, sizeOf, type } from '../../loops/build.ts';
import type { Address, Binary, Elem, Expr, Type } from '../../loops/types.ts';
import { access, exchanged, fitsWord, laneOf, lookupByLane, nameOf, refuse, tableHalves, type Of, type Spilling } from './lanes.ts';
import { ctypeOf, type CContext, type CVectors, type Lanes } from './print.ts';

interface Machine {
  readonly name: string;
  /** bytes of the widest vector */
  readonly bytes: 32 | 64;
  /** AVX-512 F, BW, DQ, VL and VNNI */
  readonly avx512: boolean;
  /** AVX-512 VBMI: permutations of bytes over whole registers */
  readonly vbmi: boolean;
}

type Bits = 128 | 256 | 512;
const registers = {
  128: { type: '__m128i', prefix: '_mm', whole: 'si128' }, 256: { type: '__m256i', prefix: '_mm256', whole: 'si256' }, 512: { type: '__m512i', prefix: '_mm512', whole: 'si512' },
} as const satisfies Record<Bits, object>;
/** Element suffix of instructions: epi8 … epi64, or epu8 … where the sign matters. */
const epi = (e: Elem): string => `epi${bitsOf(e)}`;
const epx = (e: Elem): string => `ep${isSigned(e) ? 'i' : 'u'}${bitsOf(e)}`;
/** A shift count: its text, and its value where that is known. */
interface Count {
  readonly text: string;
  readonly value: number | null;
}
const countOf = (by: Expr, context: CContext): Count => ({ text: context.expr(by), value: by.op === 'const' ? Number(by.value) : null });
/** A scalar as the parameter type of the set1 intrinsics. */
const plain = { 8: 'char', 16: 'short', 32: 'int', 64: 'long long' } as const;

const vectors = (machine: Machine): CVectors => {
  const bitsFor = (t: Type): Bits => {
    const size = sizeOf(t);
    return size > machine.bytes ? refuse(machine.name, `vector of ${size} bytes (${showType(t)})`) : size <= 16 ? 128 : size === 32 ? 256 : 512;
  };
  const typeOf = (t: Type): string => registers[bitsFor(t)].type;
  const intrinsic = (bits: Bits, name: string, ...args: readonly (string | number)[]): string => `${registers[bits].prefix}_${name}(${args.join(', ')})`;
  const whole = (bits: Bits, name: string, ...args: readonly string[]): string => intrinsic(bits, `${name}_${registers[bits].whole}`, ...args);
  const loaded = (bits: Bits, pointer: string): string => whole(bits, 'loadu', `(const ${registers[bits].type} *)${pointer}`);
  const spilling: Spilling = {
    type: typeOf, size: (t) => bitsFor(t) / 8,
    save: (t, array, value) => whole(bitsFor(t), 'storeu', `(${typeOf(t)} *)${array}`, value),
    restore: (t, array) => loaded(bitsFor(t), array),
  };

  /** Calls a helper of one register width; `text` is its parameters and body with V, for the type, and calls spelled out. */
  const helper = (context: CContext, stem: string, bits: Bits, params: string, body: readonly string[], ...args: readonly string[]): string => {
    const name = `lb_${stem}_${bits}`;
    context.helper(name, `static inline ${registers[bits].type} ${name}(${params.replaceAll('V ', `${registers[bits].type} `)})\n{\n${body.map((line) => `    ${line}\n`).join('')}}`);
    return `${name}(${args.join(', ')})`;
  };
  const V = (bits: Bits): string => registers[bits].type;

  // ---- memory

  /** `size` consecutive bytes in the low end of a register. */
  const bytesAt = (pointer: string, size: number, context: CContext): string => {
    switch (size) {
      case 2: return `_mm_cvtsi32_si128(${access('read', 2, context)}(${pointer}))`;
      case 4: return `_mm_cvtsi32_si128(${access('read', 4, context)}(${pointer}))`;
      case 8: return `_mm_loadl_epi64((const __m128i *)${pointer})`;
      default: return loaded((8 * size) as Bits, pointer);
    }
  };
  const store = (to: Address, value: Expr, context: CContext): string => {
    const pointer = context.pointer(to);
    const text = context.expr(value);
    const size = sizeOf(value.type);
    switch (size) {
      case 2: return `${access('write', 2, context)}(${pointer}, (int16_t)_mm_cvtsi128_si32(${text}))`;
      case 4: return `${access('write', 4, context)}(${pointer}, _mm_cvtsi128_si32(${text}))`;
      case 8: return `_mm_storel_epi64((__m128i *)${pointer}, ${text})`;
      default: return whole(bitsFor(value.type), 'storeu', `(${typeOf(value.type)} *)${pointer}`, text);
    }
  };
  /** Widens the low lanes of a register. */
  const extended = (text: string, from: Elem, to: Type): string =>
    bitsOf(from) === bitsOf(to.e) ? text : intrinsic(bitsFor(to), `cvt${epx(from)}_${epi(to.e)}`, text);
  const load = (at: Address, t: Type, context: CContext): string =>
    extended(bytesAt(context.pointer(at), sizeOf(type(at.buffer.e, t.n)), context), at.buffer.e, t);
  const scalarIn = (bits: Bits, e: Elem, text: string): string => intrinsic(bits, `set1_epi${bitsOf(e)}${bitsOf(e) === 64 && bits < 512 ? 'x' : ''}`, `(${plain[bitsOf(e)]})${text}`);
  const splat = ({ at, k, type: t }: Of<'splat'>, context: CContext): string => {
    const bits = bitsFor(t);
    const group = type(t.e, k);
    const size = sizeOf(group);
    if (k === 1) return scalarIn(bits, t.e, context.expr({ op: 'load', type: group, at }));
    if (at.buffer.e === t.e && size <= 8) return scalarIn(bits, ({ 2: 'i16', 4: 'i32', 8: 'i64' } as const)[size as 2 | 4 | 8], `${access('read', size, context)}(${context.pointer(at)})`);
    const lanes = load(at, group, context);
    if (size >= bits / 8) return lanes;
    if (size < 16) return intrinsic(bits, `broadcast${({ 2: 'w', 4: 'd', 8: 'q' } as const)[size as 2 | 4 | 8]}_epi${8 * size}`, lanes);
    return bits === 256 ? `_mm256_broadcastsi128_si256(${lanes})` : size === 16 ? `_mm512_broadcast_i32x4(${lanes})` : `_mm512_broadcast_i64x4(${lanes})`;
  };

  // ---- arithmetic

  const multiply = (e: Of<Binary>, context: CContext): string => {
    const bits = bitsFor(e.type);
    const [a, b] = [context.expr(e.a), context.expr(e.b)];
    const call = (name: string, ...args: readonly (string | number)[]): string => intrinsic(bits, name, ...args);
    switch (bitsOf(e.type.e)) {
      case 8: return helper(context, 'mul8', bits, 'V a, V b', [
        `const ${V(bits)} even = ${call('mullo_epi16', 'a', 'b')};`,
        `const ${V(bits)} odd = ${call('mullo_epi16', call('srli_epi16', 'a', 8), whole(bits, 'andnot', call('set1_epi16', 255), 'b'))};`,
        `return ${whole(bits, 'or', whole(bits, 'and', call('set1_epi16', 255), 'even'), 'odd')};`], a, b);
      case 64:
        if (fitsWord(e.a) && fitsWord(e.b)) return call('mul_epi32', a, b);
        if (machine.avx512) return call('mullo_epi64', a, b);
        return helper(context, 'mul64', bits, 'V a, V b', [
          `const ${V(bits)} cross = ${call('add_epi64', call('mul_epu32', 'a', call('srli_epi64', 'b', 32)), call('mul_epu32', call('srli_epi64', 'a', 32), 'b'))};`,
          `return ${call('add_epi64', call('mul_epu32', 'a', 'b'), call('slli_epi64', 'cross', 32))};`], a, b);
      default: return call(`mullo_${epi(e.type.e)}`, a, b);
    }
  };
  /** The lesser or greater of two registers. */
  const least = (op: 'min' | 'max', e: Elem, bits: Bits, a: string, b: string, context: CContext): string =>
    bitsOf(e) < 64 || machine.avx512 ? intrinsic(bits, `${op}_${epx(e)}`, a, b)
      : helper(context, `${op}_i64`, bits, 'V a, V b', [`return ${intrinsic(bits, 'blendv_epi8', 'a', 'b', intrinsic(bits, 'cmpgt_epi64', ...(op === 'min' ? ['a', 'b'] : ['b', 'a'])))};`], a, b);

  const shift = (kind: 'sll' | 'srl' | 'sra', e: Elem, bits: Bits, a: string, by: Count, context: CContext): string => {
    const width = bitsOf(e);
    const call = (name: string, ...args: readonly (string | number)[]): string => intrinsic(bits, name, ...args);
    if (width === 8) {
      const count = '_mm_cvtsi32_si128(n)';
      const kept = (mask: string): string => call('set1_epi8', `(char)(${mask})`);
      const bytes = kind === 'sll' ? [`return ${whole(bits, 'and', call('sll_epi16', 'a', count), kept('0xff << n'))};`]
        : kind === 'srl' ? [`return ${whole(bits, 'and', call('srl_epi16', 'a', count), kept('0xff >> n'))};`]
          // sign-extends what a logical shift leaves: (x xor h) − h with h the place where the sign has come to
          : [`const ${V(bits)} sign = ${kept('0x80 >> n')};`,
            `const ${V(bits)} low = ${whole(bits, 'and', call('srl_epi16', 'a', count), kept('0xff >> n'))};`, `return ${call('sub_epi8', whole(bits, 'xor', 'low', 'sign'), 'sign')};`];
      return helper(context, `${kind}8`, bits, 'V a, int n', bytes, a, by.text);
    }
    if (width === 64 && kind === 'sra' && !machine.avx512) {
      return helper(context, 'sra64', bits, 'V a, int n', [
        'const __m128i count = _mm_cvtsi32_si128(n);', `const ${V(bits)} sign = ${call('srl_epi64', call('set1_epi64x', 'INT64_MIN'), 'count')};`,
        `return ${call('sub_epi64', whole(bits, 'xor', call('srl_epi64', 'a', 'count'), 'sign'), 'sign')};`], a, by.text);
    }
    return by.value === null ? call(`${kind}_epi${width}`, a, `_mm_cvtsi32_si128(${by.text})`) : call(`${kind}i_epi${width}`, a, by.value);
  };

  const select = (e: Of<'select'>, context: CContext): string => {
    const { compare, a, b, x, y } = exchanged(e);
    const bits = bitsFor(e.type);
    const compared = a.type.e;
    const [ta, tb, yes, no] = [a, b, x, y].map((part) => context.expr(part));
    if (machine.avx512) {
      // gcc 12 merges a widening load into the blend and then cannot print what it made: the asm keeps them apart
      const blended = intrinsic(bits, `mask_blend_${epi(e.type.e)}`, 'mask', 'no', 'yes');
      return helper(context, `blend${bitsOf(e.type.e)}`, bits, `__mmask${Math.max(8, bits / bitsOf(e.type.e))} mask, V no, V yes`, ['__asm__("" : "+v"(yes));', `return ${blended};`],
        intrinsic(bits, `cmp${compare}_${epx(compared)}_mask`, ta, tb), no, yes);
    }
    const blend = (mask: string, then = yes, otherwise = no): string => intrinsic(bits, 'blendv_epi8', otherwise, then, mask);
    if (compare === 'eq') return blend(intrinsic(bits, `cmpeq_${epi(compared)}`, ta, tb));
    if (isSigned(compared)) return compare === 'gt' ? blend(intrinsic(bits, `cmpgt_${epi(compared)}`, ta, tb)) : blend(intrinsic(bits, `cmpgt_${epi(compared)}`, tb, ta), no, yes);
    const atLeast = (p: string, q: string): string =>
      helper(context, `ge_${compared}`, bits, 'V a, V b', [`return ${intrinsic(bits, `cmpeq_${epi(compared)}`, intrinsic(bits, `max_${epx(compared)}`, 'a', 'b'), 'a')};`], p, q);
    return compare === 'ge' ? blend(atLeast(ta, tb)) : blend(atLeast(tb, ta), no, yes);
  };

  // ---- widths

  /** The low or the high half of a register; of at most 16 bytes: the low end moved by `size` bytes. */
  const half = (bits: Bits, which: 0 | 1, text: string, size = 0): string =>
    bits === 512 ? (which === 0 ? `_mm512_castsi512_si256(${text})` : `_mm512_extracti64x4_epi64(${text}, 1)`)
      : bits === 256 ? (which === 0 ? `_mm256_castsi256_si128(${text})` : `_mm256_extracti128_si256(${text}, 1)`)
        : which === 0 ? text : `_mm_srli_si128(${text}, ${size})`;
  const widen = ({ half: which, a, type: to }: Of<'widen'>, context: CContext): string => {
    const text = context.expr(a);
    if (to.n > 1) return extended(half(bitsFor(a.type), which, text, sizeOf(a.type) / 2), a.type.e, to);
    const cast = `(${ctypeOf(to.e)})${a.type.e === 'u32' ? '(uint32_t)' : `(${ctypeOf(a.type.e)})`}`;
    return `${cast}_mm_extract_epi${bitsOf(a.type.e)}(${text}, ${which})`;
  };
  const narrow = ({ a, type: to }: Of<'narrow'>, context: CContext): string => {
    const bits = bitsFor(a.type);
    const [from, text] = [a.type.e, context.expr(a)];
    if (machine.avx512) {
      return isSigned(to.e) ? intrinsic(bits, `cvts${epi(from)}_${epi(to.e)}`, text)
        : intrinsic(bits, `cvtus${epi(from)}_${epi(to.e)}`, intrinsic(bits, `max_${epi(from)}`, text, whole(bits, 'setzero')));
    }
    const step = (x: Elem): string => `_mm_pack${isSigned(x) ? '' : 'u'}s_${x === 'i8' || x === 'u8' ? 'epi16' : 'epi32'}`;
    const first = bitsOf(from) === 32 && bitsOf(to.e) === 8 ? 'i16' : to.e;
    const ends = first === to.e ? ['return words;'] : [`return ${step(to.e)}(words, words);`];
    const halves = bits === 256 ? [half(256, 0, 'a'), half(256, 1, 'a')] : ['a', 'a'];
    const name = `lb_narrow_${from}_${to.e}_${bits}`;
    context.helper(name, `static inline __m128i ${name}(${V(bits)} a)\n{\n    const __m128i words = ${step(first)}(${halves.join(', ')});\n    ${ends.join('')}\n}`);
    return `${name}(${text})`;
  };

  // ---- sums of products

  const dot = (e: Of<'dot'>, context: CContext): string => {
    const [acc, a, b] = [context.expr(e.acc), context.expr(e.a), context.expr(e.b)];
    const bits = bitsFor(e.a.type);
    const sums = (acc_: string): string => {
      if (e.d === 1) return intrinsic(bits, 'add_epi32', acc_, intrinsic(bits, 'mullo_epi32', a, b));
      if (e.d === 2) return machine.avx512 ? intrinsic(bits, 'dpwssd_epi32', acc_, a, b) : intrinsic(bits, 'add_epi32', acc_, intrinsic(bits, 'madd_epi16', a, b));
      if (e.a.type.e !== 'u8') return refuse(machine.name, 'dot product of i8 and i8; the first operand is u8');
      if (machine.avx512) return intrinsic(bits, 'dpbusd_epi32', acc_, a, b);
      if (e.paired) return intrinsic(bits, 'add_epi32', acc_, intrinsic(bits, 'madd_epi16', intrinsic(bits, 'maddubs_epi16', a, b), intrinsic(bits, 'set1_epi16', 1)));
      const call = (name: string, ...args: readonly (string | number)[]): string => intrinsic(bits, name, ...args);
      return helper(context, 'dot4', bits, 'V sum, V a, V b', [
        `const ${V(bits)} even = ${call('madd_epi16', whole(bits, 'and', 'a', call('set1_epi16', 255)), call('srai_epi16', call('slli_epi16', 'b', 8), 8))};`,
        `const ${V(bits)} odd = ${call('madd_epi16', call('srli_epi16', 'a', 8), call('srai_epi16', 'b', 8))};`,
        `return ${call('add_epi32', call('add_epi32', 'sum', 'even'), 'odd')};`], acc_, a, b);
    };
    return e.type.n === 1 ? `_mm_cvtsi128_si32(${sums(`_mm_cvtsi32_si128(${acc})`)})` : sums(acc);
  };
  /** The addition in place: gcc gives a sum that must survive a statement two registers and moves it between them, an issue slot of every product. */
  const accumulate = (sum: string, { d, type: t, a, b }: Of<'dot'>, context: CContext): string | null =>
    (machine.avx512 || d !== 2 || t.n < 4 ? null
      : `__asm__("vpaddd {%1, %0, %0|%0, %0, %1}" : "+x"(${sum}) : "x"(${intrinsic(bitsFor(a.type), 'madd_epi16', context.expr(a), context.expr(b))}));`);
  /** Sums of neighbours of a, then of b. */
  const pairs = (t: Type, a: string, b: string, context: CContext): string => {
    const bits = bitsFor(t);
    if (sizeOf(t) === 8) return helper(context, 'pairs_low', 128, 'V a, V b', ['const __m128i both = _mm_unpacklo_epi32(a, b);', 'return _mm_add_epi32(both, _mm_srli_si128(both, 8));'], a, b);
    if (bits === 128) return `_mm_hadd_epi32(${a}, ${b})`;
    if (bits === 256) return `_mm256_permute4x64_epi64(_mm256_hadd_epi32(${a}, ${b}), 0xd8)`;
    return helper(context, 'pairs', 512, 'V a, V b', [
      'const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);', 'const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));',
      'return _mm512_add_epi32(_mm512_permutex2var_epi32(a, even, b), _mm512_permutex2var_epi32(a, odd, b));'], a, b);
  };
  const reduce = ({ parts, type: t }: Of<'reduce'>, context: CContext): string => {
    let texts = parts.map((part) => context.expr(part));
    while (texts.length > 1) texts = texts.filter((_, i) => i % 2 === 0).map((text, i) => pairs(t, text, texts[2 * i + 1], context));
    return texts[0];
  };
  const across = ({ by, a, type: { e } }: Of<'across'>, context: CContext): string => {
    const name = `lb_${by}_across_${nameOf(a.type)}`;
    const joined = (bits: Bits, p: string, q: string): string => (by === 'add' ? intrinsic(bits, `add_${epi(e)}`, p, q) : least(by, e, bits, p, q, context));
    const widest = bitsFor(a.type);
    const steps: string[] = [];
    let value = 'a';
    for (let bits: Bits = widest; bits > 128; bits = (bits / 2) as Bits) {
      const next = `v${bits / 2}`;
      steps.push(`const ${V((bits / 2) as Bits)} ${next} = ${joined((bits / 2) as Bits, half(bits, 0, value), half(bits, 1, value))};`);
      value = next;
    }
    for (let size = Math.min(16, sizeOf(a.type)) / 2; size >= bitsOf(e) / 8; size /= 2) {
      steps.push(`const __m128i by${size} = ${joined(128, value, half(128, 1, value, size))};`);
      value = `by${size}`;
    }
    const c = ctypeOf(e);
    context.helper(name, `static inline ${c} ${name}(${V(widest)} a)\n{\n${steps.map((line) => `    ${line}\n`).join('')}    return (${c})_mm_cvtsi128_${bitsOf(e) === 64 ? 'si64' : 'si32'}(${value});\n}`);
    return `${name}(${context.expr(a)})`;
  };

  // ---- rescaling

  /** (Σ products + c) >> shift: 64-bit lanes for even and odd lanes, then the words that the shift leaves. */
  const dyadic = (e: Of<'dyadic' | 'dyadic2'>, context: CContext): string => {
    if (e.type.n < 4 || e.pairing !== 'evenodd') refuse(machine.name, `dyadic of ${showType(e.type)} by ${e.pairing}; it pairs even and odd lanes of at least four`);
    const bits = bitsFor(e.type);
    const call = (name: string, ...args: readonly (string | number)[]): string => intrinsic(bits, name, ...args);
    const [low, high] = context.range(e.shift);
    const factors = e.op === 'dyadic' ? [['acc', 'm']] : [['x', 'mx'], ['y', 'my']];
    const operands = (e.op === 'dyadic' ? [e.acc, e.m] : [e.x, e.mx, e.y, e.my]).concat(e.c).map((part) => context.expr(part));
    const moved = (name: string, odd: boolean): string => (odd ? call('srli_epi64', name, 32) : name);
    const total = (c: string, odd: boolean): string => factors.reduce((sum, [x, m]) => call('add_epi64', call('mul_epi32', moved(x, odd), moved(m, odd)), sum), c);
    const params = [...factors.flat(), 'even', 'odd'].map((name) => `V ${name}`).join(', ');
    const stem = e.op === 'dyadic' ? 'scaled' : 'scaled2';
    if (low >= 32) {
      // the upper words of the sums; what is left of the shift moves them as 32-bit lanes
      const upper = machine.avx512 ? call('mask_shuffle_epi32', 'b', ({ 128: '0x5', 256: '0x55', 512: '0x5555' } as const)[bits], 'a', bits === 512 ? '(_MM_PERM_ENUM)0xf5' : '0xf5')
        : call('blend_epi32', call('srli_epi64', 'a', 32), 'b', bits === 128 ? '0xa' : '0xaa');
      const words = helper(context, stem, bits, params, [`const ${V(bits)} a = ${total('even', false)};`, `const ${V(bits)} b = ${total('odd', true)};`, `return ${upper};`], ...operands);
      if (e.shift.op === 'const') return Number(e.shift.value) === 32 ? words : call('srai_epi32', words, Number(e.shift.value) - 32);
      return call('sra_epi32', words, `_mm_cvtsi32_si128(${context.expr(e.shift)} - 32)`);
    }
    // bits n to n + 31 of the even sums moved down, of the odd ones up to where their words belong; beyond 32 the upper words move on as 32-bit lanes
    const joined = bits === 512 ? call('mask_blend_epi32', '0xaaaa', 'a', 'b') : call('blend_epi32', 'a', 'b', bits === 128 ? '0xa' : '0xaa');
    const few = high <= 32 ? 'n' : 'few';
    return helper(context, high <= 32 ? `${stem}_word` : `${stem}_low`, bits, `${params}, int n`, [
      ...(high <= 32 ? [] : ['const int few = n < 32 ? n : 32;']),
      `const ${V(bits)} a = ${call('srl_epi64', total('even', false), `_mm_cvtsi32_si128(${few})`)};`,
      `const ${V(bits)} b = ${call('sll_epi64', total('odd', true), `_mm_cvtsi32_si128(32 - ${few})`)};`,
      `return ${high <= 32 ? joined : call('sra_epi32', joined, '_mm_cvtsi32_si128(n - few)')};`], ...operands, context.expr(e.shift));
  };

  // ---- tables

  /** Sixteen bytes in every block of a register. */
  const inEveryBlock = (bits: Bits, sixteen: string): string => (bits === 512 ? `_mm512_broadcast_i32x4(${sixteen})` : bits === 256 ? `_mm256_broadcastsi128_si256(${sixteen})` : sixteen);

  /**
   * A table of 256 bytes. VBMI: two permutations of 128 bytes each, the sign of the index chooses. Else sixteen rows of 16 bytes: with
   * d_r = row_r xor row_(r−1), the xor of d_r[i mod 16] over all r ≤ i div 16 is row_(i div 16)[i mod 16]; a negative i − 16·r gives 0.
   */
  const tableOf = (e: Of<'lookup'>, [low, high]: readonly [Address, Address], context: CContext): string => {
    const bits = bitsFor(e.type);
    const call = (name: string, ...args: readonly (string | number)[]): string => intrinsic(bits, name, ...args);
    const args = [context.pointer(low), context.pointer(high), context.expr(e.index)];
    const row = (from: string, offset: number, width: Bits = bits): string => loaded(width, offset === 0 ? from : `((const char *)${from} + ${offset})`);
    if (machine.vbmi) {
      const part = (from: string): string => bits === 512 ? call('permutex2var_epi8', row(from, 0), 'index', row(from, 64))
        : half512(`_mm512_permutex2var_epi8(${row(from, 0, 512)}, ${bits === 128 ? '_mm512_castsi128_si512' : '_mm512_castsi256_si512'}(index), ${row(from, 64, 512)})`, bits);
      return helper(context, 'table', bits, 'const void *low, const void *high, V index', [`return ${call('mask_blend_epi8', call('movepi8_mask', 'index'), part('low'), part('high'))};`], ...args);
    }
    const fill = (from: string, r: number): string => {
      const sixteen = row(from, 16 * r, 128);
      return inEveryBlock(bits, sixteen);
    };
    const lines = [`${V(bits)} row, last, sum = ${whole(bits, 'setzero')};`, `const ${V(bits)} other = ${whole(bits, 'xor', 'index', call('set1_epi8', -128))};`];
    for (const [from, i] of [['low', 'index'], ['high', 'other']] as const) for (let r = 0; r < 8; r++) {
      const at = r === 0 ? i : call('subs_epi8', i, call('set1_epi8', 16 * r));
      lines.push(`row = ${fill(from, r)};`, `sum = ${whole(bits, 'xor', 'sum', call('shuffle_epi8', r === 0 ? 'row' : whole(bits, 'xor', 'row', 'last'), at))};`, ...(r === 7 ? [] : ['last = row;']));
    }
    return helper(context, 'table', bits, 'const void *low, const void *high, V index', [...lines, 'return sum;'], ...args);
  };
  const half512 = (text: string, bits: 128 | 256): string => (bits === 256 ? `_mm512_castsi512_si256(${text})` : `_mm512_castsi512_si128(${text})`);

  const expr = (e: Lanes, context: CContext): string => {
    const { e: elem } = e.type;
    const bits = (): Bits => bitsFor(e.type);
    const of = (x: Expr): string => context.expr(x);
    switch (e.op) {
      case 'const': return BigInt(e.value) === 0n ? whole(bits(), 'setzero') : scalarIn(bits(), elem, of(laneOf(e)));
      case 'load': return load(e.at, e.type, context);
      case 'splat': return splat(e, context);
      case 'broadcast': return scalarIn(bits(), elem, of(e.a));
      case 'lookup': {
        const halves = tableHalves(e);
        return halves === null || (bits() === 128 && !machine.vbmi) ? lookupByLane(e, spilling, context) : tableOf(e, halves, context);
      }
      // a word whose upper byte is 0 gets the table's first entry, 0, as its upper byte
      case 'pick': return intrinsic(bits(), 'shuffle_epi8', inEveryBlock(bits(), of(e.table)), of(e.index));
      case 'add': case 'sub': case 'addWrap': case 'subWrap': return intrinsic(bits(), `${e.op.slice(0, 3)}_${epi(elem)}`, of(e.a), of(e.b));
      case 'mul': case 'mulWrap': return multiply(e, context);
      case 'addSat': case 'subSat': return intrinsic(bits(), `${e.op.slice(0, 3)}s_${epx(elem)}`, of(e.a), of(e.b));
      case 'min': case 'max': return least(e.op, elem, bits(), of(e.a), of(e.b), context);
      case 'and': case 'or': case 'xor': return whole(bits(), e.op, of(e.a), of(e.b));
      case 'shl': return shift('sll', elem, bits(), of(e.a), countOf(e.by, context), context);
      case 'shr': return shift(isSigned(elem) ? 'sra' : 'srl', elem, bits(), of(e.a), countOf(e.by, context), context);
      case 'shru': return shift('srl', elem, bits(), of(e.a), countOf(e.by, context), context);
      case 'select': return select(e, context);
      case 'mulQ15': return intrinsic(bits(), 'mulhrs_epi16', of(e.a), of(e.b));
      case 'convert': return extended(of(e.a), e.a.type.e, e.type);
      case 'widen': return widen(e, context);
      case 'narrow': return narrow(e, context);
      case 'pack': return intrinsic(bits(), `pack${isSigned(elem) ? '' : 'u'}s_${epi(e.a.type.e)}`, of(e.a), of(e.b));
      case 'zip': return intrinsic(bits(), `unpack${e.half === 0 ? 'lo' : 'hi'}_epi${e.unit * bitsOf(elem)}`, of(e.a), of(e.b));
      case 'dot': return dot(e, context);
      case 'reduce': return reduce(e, context);
      case 'across': return across(e, context);
      case 'dyadic': case 'dyadic2': return dyadic(e, context);
      case 'clz': return refuse(machine.name, 'clz of a vector');
    }
  };
  return { includes: ['immintrin.h'], register: machine.avx512 ? 'v' : 'x', type: typeOf, store, expr, accumulate };
};

/** Haswell, Zen and later. */
export const avx2: CVectors = vectors({ name: 'AVX2', bytes: 32, avx512: false, vbmi: false });
/** Cascade Lake and later. */
export const avx512vnni: CVectors = vectors({ name: 'AVX-512 VNNI', bytes: 64, avx512: true, vbmi: false });
/** Ice Lake, Zen 4 and later. */
export const avx512vbmi: CVectors = vectors({ name: 'AVX-512 VBMI', bytes: 64, avx512: true, vbmi: true });
