/**
 * What this machine can do at most: a loop over each dot product of 8- or 16-bit integers that it has, and over each form of the exact
 * rescale (64-bit product, add, shift, saturation to bytes), with nothing else in it. The line of a program is the time of all its
 * products at the fastest dot product and of all its rescaled codes at the fastest rescale.
 */
import { sizeOf } from '../ir/dim.ts';
import type { Step } from '../backends/group.ts';
import { Module } from '../wasm/index.ts';
import { driverText } from './c-driver.ts';

/** An instruction, or a few, and the bits of its vectors. */
export interface Limit {
  readonly primitive: string;
  readonly kind: 'dot' | 'rescale';
  /** 10^9 multiply-accumulates, or rescaled codes, a second */
  readonly rate: number;
}
const fastest = (limits: readonly Limit[], kind: Limit['kind']): number => Math.max(0, ...limits.filter((limit) => limit.kind === kind).map(({ rate }) => rate));

/** Milliseconds that so many products and rescales take at least; null where the machine's dot products are not known. */
export const lineMs = (limits: readonly Limit[], macs: number, rescaled: number): number | null => {
  const [dot, rescale] = [fastest(limits, 'dot'), fastest(limits, 'rescale')];
  return dot === 0 ? null : (macs / dot + (rescale === 0 ? 0 : rescaled / rescale)) / 1e6;
};
/** Codes that a step rescales. */
export const rescaledBy = ({ root, rescale, output }: Step): number => (rescale !== null || root.op.startsWith('requantize') ? sizeOf(output.type.shape) : 0);

/** What a peak loop repeats. */
export interface Peak {
  readonly primitive: string;
  readonly kind: Limit['kind'];
  /** products or codes of one run of the item */
  readonly perRun: number;
}

// ---- C

interface Primitive {
  readonly name: string;
  readonly kind: Limit['kind'];
  /** products or codes of one step */
  readonly count: number;
  readonly attribute: string;
  /** C condition at run time */
  readonly present: string;
  /** a function the step uses; empty where it needs none */
  readonly helper: string;
  /** type of the running results, and their first value */
  readonly type: string;
  readonly zero: string;
  /** type of the operands a and b, and their value */
  readonly operand: string;
  readonly one: string;
  /** the result after a step, from itself, `c`, and the operands */
  readonly step: string;
  /** constraint letter of a vector register */
  readonly register: string;
}

const targeted = (features: readonly string[]): Pick<Primitive, 'attribute' | 'present'> => ({
  attribute: features.length === 0 ? '' : `__attribute__((target("${features.join(',')}"))) `, present: features.map((feature) => `__builtin_cpu_supports("${feature}")`).join(' && ') || '1',
});
const x86 = (bits: 128 | 256 | 512): Pick<Primitive, 'operand' | 'one' | 'register'> =>
  ({ operand: `__m${bits}i`, one: `_mm${bits === 128 ? '' : bits}_set1_epi8(1)`, register: bits === 512 ? 'v' : 'x' });
const x86Dot = (name: string, bits: 128 | 256 | 512, count: number, features: readonly string[], step: string): Primitive => ({
  ...targeted(features), ...x86(bits), name: `${name} ${bits}`, kind: 'dot', count, helper: '', type: `__m${bits}i`, zero: `_mm${bits === 128 ? '' : bits}_setzero_si${bits}()`, step,
});
/** Even and odd lanes apart: products, sums, the upper words of both, what is left of the shift, saturation. */
const x86Rescale = (bits: 256 | 512, features: readonly string[], upper: string, narrow: string): Primitive => {
  const V = `__m${bits}i`;
  const P = `_mm${bits}`;
  return {
    ...targeted(features), ...x86(bits), name: `vpmuldq ${bits}`, kind: 'rescale', count: bits / 32, type: '__m128i', zero: '_mm_setzero_si128()', step: `rescale_${bits}(a, b)`,
    helper: `${targeted(features).attribute}static inline __m128i rescale_${bits}(${V} x, ${V} m)
{
    ${V} even = ${P}_add_epi64(${P}_mul_epi32(x, m), m), odd = ${P}_add_epi64(${P}_mul_epi32(${P}_srli_epi64(x, 32), m), m);
    ${V} words = ${P}_srai_epi32(${upper}, 8);
    ${narrow}
}
`,
  };
};
const arm = (name: string, count: number, operand: string, one: string, step: string): Primitive => ({
  ...targeted([]), name: `${name} 128`, kind: 'dot', count, helper: '', type: 'int32x4_t', zero: 'vdupq_n_s32(0)', operand, one, step, register: 'w',
});

const avx512 = ['avx512f', 'avx512bw', 'avx512vnni'];
const families: readonly { readonly condition: string; readonly header: string; readonly primitives: readonly Primitive[] }[] = [
  {
    condition: 'defined(__x86_64__) && defined(__GNUC__)', header: 'immintrin.h',
    primitives: [
      x86Dot('pmaddwd', 128, 8, [], '_mm_add_epi32(c, _mm_madd_epi16(a, b))'),
      x86Dot('vpmaddwd', 256, 16, ['avx2'], '_mm256_add_epi32(c, _mm256_madd_epi16(a, b))'),
      x86Dot('vpdpwssd', 512, 32, avx512, '_mm512_dpwssd_epi32(c, a, b)'),
      x86Dot('vpdpbusd', 512, 64, avx512, '_mm512_dpbusd_epi32(c, a, b)'),
      x86Rescale(256, ['avx2'], '_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa)',
        '__m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));\n    return _mm_packs_epi16(halves, halves);'),
      x86Rescale(512, avx512, '_mm512_mask_shuffle_epi32(odd, 0x5555, even, (_MM_PERM_ENUM)0xf5)', 'return _mm512_cvtsepi32_epi8(words);'),
    ],
  },
  { condition: 'defined(__aarch64__) && defined(__ARM_NEON)', header: 'arm_neon.h', primitives: [arm('smlal', 4, 'int16x4_t', 'vdup_n_s16(1)', 'vmlal_s16(c, a, b)')] },
  { condition: 'defined(__ARM_FEATURE_DOTPROD)', header: 'arm_neon.h', primitives: [arm('sdot', 16, 'int8x16_t', 'vdupq_n_s8(1)', 'vdotq_s32(c, a, b)')] },
];

/** Results that do not wait for each other: enough to hide the latency of any machine, few enough for sixteen registers. */
const PARALLEL = 12;
const STEPS = 4096;
/** What the items of `cPeaks` are. */
export const cPeakItems: readonly Peak[] = families.flatMap(({ primitives }) => primitives).map(({ name, kind, count }) => ({ primitive: name, kind, perRun: count * PARALLEL * STEPS }));

const peakFunction = ({ attribute, helper, type, zero, operand, one, step, register }: Primitive, name: string): string => {
  // operands pass through an empty instruction before each step, or steps of equal operands would be computed once
  const pin = (variable: string): string => `__asm__ volatile("" : "+${register}"(${variable}));`;
  const results = Array.from({ length: PARALLEL }, (_, i) => `c${i}`);
  return `${helper}${attribute}static void ${name}(void)
{
    ${operand} a = ${one}, b = ${one};
${results.map((c) => `    ${type} ${c} = ${zero};`).join('\n')}
    for (int k = 0; k < ${STEPS}; k++) {
${results.map((c) => `        ${pin('a')} ${c} = ${step.replaceAll(/\bc\b/g, c)}; ${pin(c)}`).join('\n')}
    }
}`;
};

/** A program whose items are the peaks; those that this compiler or machine does not know are 0. */
export const cPeaks = (): string => {
  let first = 0;
  const blocks = families.map(({ condition, header, primitives }) => {
    const numbered = primitives.map((primitive, i) => ({ primitive, number: first + i }));
    first += primitives.length;
    return [
      `#if ${condition}`, `#include <${header}>`, ...numbered.map(({ primitive, number }) => peakFunction(primitive, `peak_${number}`)),
      ...numbered.map(({ primitive, number }) => `#define PEAK_${number} ((${primitive.present}) ? peak_${number} : 0)`),
      '#else', ...numbered.map(({ number }) => `#define PEAK_${number} 0`), '#endif',
    ].join('\n');
  });
  return driverText({ definitions: blocks.join('\n\n'), items: cPeakItems.map((_, i) => `PEAK_${i}`), dataBytes: 0, timesStart: false });
};

// ---- WebAssembly

const TILE_ROWS = 4;
const TILE_VECTORS = 2;
const VECTOR = 16;
/** Steps over operands that stay beside the core: 24 KiB. */
const DEPTH = 256;
const DOT_BYTES = DEPTH * (TILE_ROWS + TILE_VECTORS) * VECTOR;
const RESCALE_BYTES = DEPTH * 4 * VECTOR;

/** What the exports of `wasmPeaks` are. */
export const wasmPeakItems: readonly (Peak & { readonly name: string })[] = [
  { name: 'dot', primitive: 'i32x4.dot_i16x8_s 128', kind: 'dot', perRun: DEPTH * TILE_ROWS * TILE_VECTORS * 8 },
  { name: 'rescale', primitive: 'i64x2.extmul_i32x4_s 128', kind: 'rescale', perRun: DEPTH * 16 },
];

/** A tile of 4×2 sums of 16-bit dot products, operands from memory; and vectors of four sums to vectors of sixteen bytes. */
export const wasmPeaks = (): Uint8Array => {
  const module = new Module();
  module.memory({ initial: 1 });
  module.func('dot', [], [], (code) => {
    const at = code.local('i32');
    const sums = Array.from({ length: TILE_ROWS }, () => Array.from({ length: TILE_VECTORS }, () => code.local('v128')));
    const b = Array.from({ length: TILE_VECTORS }, () => code.local('v128'));
    const a = code.local('v128');
    code.loop((again) => {
      b.forEach((vector, j) => code.get(at).memory('v128.load', (TILE_ROWS + j) * VECTOR).set(vector));
      sums.forEach((row, r) => {
        code.get(at).memory('v128.load', r * VECTOR).set(a);
        row.forEach((sum, j) => code.get(sum).get(a).get(b[j]).op('i32x4.dot_i16x8_s').op('i32x4.add').set(sum));
      });
      code.get(at).i32(DOT_BYTES / DEPTH).op('i32.add').tee(at).i32(DOT_BYTES).op('i32.lt_u').brIf(again);
    });
    code.i32(DOT_BYTES).get(sums[0][0]);
    sums.flat().slice(1).forEach((sum) => code.get(sum).op('i32x4.add'));
    code.memory('v128.store');
  }, { export: true });
  module.func('rescale', [], [], (code) => {
    const [at, to] = [code.local('i32'), code.local('i32')];
    const [x, m, c] = [code.local('v128'), code.local('v128'), code.local('v128')];
    const upperWords = [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31];
    const words = (offset: number): void => {
      code.get(at).memory('v128.load', offset).set(x);
      for (const half of ['low', 'high'] as const) code.get(x).get(m).op(`i64x2.extmul_${half}_i32x4_s`).get(c).op('i64x2.add');
      code.shuffle(upperWords).i32(8).op('i32x4.shr_s');
    };
    code.i32(RESCALE_BYTES).set(to);
    code.get(at).memory('v128.load', RESCALE_BYTES).set(m);
    code.get(at).memory('v128.load', RESCALE_BYTES + VECTOR).set(c);
    code.loop((again) => {
      code.get(to);
      for (const pair of [0, 2]) {
        words(pair * VECTOR);
        words((pair + 1) * VECTOR);
        code.op('i16x8.narrow_i32x4_s');
      }
      code.op('i8x16.narrow_i16x8_s').memory('v128.store');
      code.get(to).i32(VECTOR).op('i32.add').set(to);
      code.get(at).i32(RESCALE_BYTES / DEPTH).op('i32.add').tee(at).i32(RESCALE_BYTES).op('i32.lt_u').brIf(again);
    });
  }, { export: true });
  return module.encode();
};
