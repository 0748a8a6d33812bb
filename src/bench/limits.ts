/**
 * What this machine can multiply at most: a loop over each dot product of 8- or 16-bit integers that it has, with operands in
 * registers (C) or a tile of them beside the core (WebAssembly), and nothing else. The share of a layer is its speed by the greatest.
 */
import { Module } from '../wasm/index.ts';
import { driverText } from './c-driver.ts';

export interface Limit {
  /** the instruction, and the bits of its vectors */
  readonly primitive: string;
  readonly gmacs: number;
}
export const greatest = (limits: readonly Limit[]): Limit | null =>
  limits.reduce<Limit | null>((most, limit) => (most === null || limit.gmacs > most.gmacs ? limit : most), null);

/** A dot product in C: the vector type, one accumulation, and how to know at run time that the machine has it. */
interface Primitive {
  readonly name: string;
  readonly macs: number;
  readonly attribute: string;
  readonly type: string;
  readonly operand: string;
  readonly one: string;
  readonly zero: string;
  /** C condition */
  readonly present: string;
  /** `c` after `c += a·b` */
  readonly step: string;
  /** constraint letter of a register */
  readonly register: string;
}
const x86 = (bits: 128 | 256 | 512, features: readonly string[], name: string, macs: number, step: string): Primitive => {
  const prefix = bits === 128 ? '_mm' : `_mm${bits}`;
  return {
    name: `${name} ${bits}`, macs, attribute: features.length === 0 ? '' : `__attribute__((target("${features.join(',')}")))`,
    type: `__m${bits}i`, operand: `__m${bits}i`, one: `${prefix}_set1_epi8(1)`, zero: `${prefix}_setzero_si${bits}()`, register: bits === 512 ? 'v' : 'x',
    present: features.map((feature) => `__builtin_cpu_supports("${feature}")`).join(' && ') || '1', step: step.replaceAll('@', prefix),
  };
};
const families: readonly { readonly condition: string; readonly header: string; readonly primitives: readonly Primitive[] }[] = [
  {
    condition: 'defined(__x86_64__) && defined(__GNUC__)', header: 'immintrin.h',
    primitives: [
      x86(128, [], 'pmaddwd', 8, '@_add_epi32(c, @_madd_epi16(a, b))'),
      x86(256, ['avx2'], 'vpmaddwd', 16, '@_add_epi32(c, @_madd_epi16(a, b))'),
      x86(512, ['avx512f', 'avx512bw', 'avx512vnni'], 'vpdpwssd', 32, '@_dpwssd_epi32(c, a, b)'),
      x86(512, ['avx512f', 'avx512bw', 'avx512vnni'], 'vpdpbusd', 64, '@_dpbusd_epi32(c, a, b)'),
    ],
  },
  {
    condition: 'defined(__aarch64__) && defined(__ARM_NEON)', header: 'arm_neon.h',
    primitives: [
      {
        name: 'smlal 128', macs: 4, attribute: '', type: 'int32x4_t', operand: 'int16x4_t', one: 'vdup_n_s16(1)', zero: 'vdupq_n_s32(0)',
        present: '1', step: 'vmlal_s16(c, a, b)', register: 'w',
      },
    ],
  },
  {
    condition: 'defined(__ARM_FEATURE_DOTPROD)', header: 'arm_neon.h',
    primitives: [
      {
        name: 'sdot 128', macs: 16, attribute: '', type: 'int32x4_t', operand: 'int8x16_t', one: 'vdupq_n_s8(1)', zero: 'vdupq_n_s32(0)',
        present: '1', step: 'vdotq_s32(c, a, b)', register: 'w',
      },
    ],
  },
];

/** Accumulators that do not wait for each other: enough to hide the latency of any machine, few enough for sixteen registers. */
const SUMS = 12;
const STEPS = 4096;
/** Multiply-accumulates of one run of each item of `cPeaks`, by position. */
export const cPrimitives = families.flatMap(({ primitives }) => primitives).map(({ name, macs }) => ({ primitive: name, macsPerRun: macs * SUMS * STEPS }));

/** A program whose items are the peaks; those that this compiler or machine does not know are 0. */
export const cPeaks = (): string => {
  const sums = Array.from({ length: SUMS }, (_, i) => i);
  let number = 0;
  const blocks = families.map(({ condition, header, primitives }) => {
    const first = number;
    const functions = primitives.map(({ attribute, type, operand, one, zero, step, register }) => {
      const pin = (name: string): string => `__asm__ volatile("" : "+${register}"(${name}));`;
      const name = `peak_${number++}`;
      // operands pass through an empty instruction before each product, or products of equal operands would be computed once
      return `${attribute === '' ? '' : `${attribute} `}static void ${name}(void)
{
    ${operand} a = ${one}, b = ${one};
${sums.map((i) => `    ${type} c${i} = ${zero};`).join('\n')}
    for (int k = 0; k < ${STEPS}; k++) {
${sums.map((i) => `        ${pin('a')} c${i} = ${step.replaceAll(/\bc\b/g, `c${i}`)}; ${pin(`c${i}`)}`).join('\n')}
    }
}`;
    });
    return [
      `#if ${condition}`, `#include <${header}>`, ...functions, ...primitives.map(({ present }, i) => `#define PEAK_${first + i} ((${present}) ? peak_${first + i} : 0)`),
      '#else', ...primitives.map((_, i) => `#define PEAK_${first + i} 0`), '#endif',
    ].join('\n');
  });
  return driverText({ definitions: blocks.join('\n\n'), items: cPrimitives.map((_, i) => `PEAK_${i}`), dataBytes: 0, timesStart: false });
};

const TILE_ROWS = 4;
const TILE_VECTORS = 2;
const DEPTH = 256;
const VECTOR_BYTES = 16;
/** Multiply-accumulates of one run of `wasmPeak`. */
export const wasmPrimitive = { primitive: 'i32x4.dot_i16x8_s 128', macsPerRun: TILE_ROWS * TILE_VECTORS * 8 * DEPTH };

/** A module with one export, `peak`: a tile of 4×2 sums of 16-bit dot products over operands of 24 KiB that stay beside the core. */
export const wasmPeak = (): Uint8Array => {
  const module = new Module();
  const perStep = (TILE_ROWS + TILE_VECTORS) * VECTOR_BYTES;
  const end = DEPTH * perStep;
  module.memory({ initial: Math.ceil((end + VECTOR_BYTES) / 65536) });
  module.func('peak', [], [], (code) => {
    const at = code.local('i32');
    const sums = Array.from({ length: TILE_ROWS }, () => Array.from({ length: TILE_VECTORS }, () => code.local('v128')));
    const b = Array.from({ length: TILE_VECTORS }, () => code.local('v128'));
    const a = code.local('v128');
    code.loop((again) => {
      b.forEach((vector, j) => code.get(at).memory('v128.load', (TILE_ROWS + j) * VECTOR_BYTES).set(vector));
      sums.forEach((row, r) => {
        code.get(at).memory('v128.load', r * VECTOR_BYTES).set(a);
        row.forEach((sum, j) => code.get(sum).get(a).get(b[j]).op('i32x4.dot_i16x8_s').op('i32x4.add').set(sum));
      });
      code.get(at).i32(perStep).op('i32.add').tee(at).i32(end).op('i32.lt_u').brIf(again);
    });
    code.i32(end);
    code.get(sums[0][0]);
    sums.flat().slice(1).forEach((sum) => code.get(sum).op('i32x4.add'));
    code.memory('v128.store');
  }, { export: true });
  return module.encode();
};
