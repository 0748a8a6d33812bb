/**
 * The instruction sets that the C printer knows, as data. A program may hold several variants of one entry, each in a file of its own:
 * printed for one machine, wrapped by `machineFile`, chosen by `chooseVariant`. On x86-64 the running processor decides and no file
 * needs a compiler flag, since each switches its own instructions on; on Arm the compiler's flags decide.
 */
import type { Pairing } from '../../loops/types.ts';
import { cortexM } from './cortex-m.ts';
import { neon, neonDot } from './neon.ts';
import type { CTarget } from './print.ts';
import { avx2, avx512vbmi, avx512vnni } from './x86.ts';

export interface CMachine {
  /** for file names, options and the ends of identifiers */
  readonly name: string;
  readonly summary: string;
  readonly target: CTarget;
  /** what makes gcc and clang compile for the machine, where the file does not say it itself */
  readonly flags: readonly string[];
  /** preprocessor condition: whether the compiler at hand can compile the file */
  readonly guard: string;
  /** features of the processor by gcc's names, switched on in the file and asked for at run time; empty where the flags decide */
  readonly features: readonly string[];
  /** bytes of the widest vector, and of each narrower one that has all instructions too */
  readonly vectorBytes: number;
  readonly narrowerBytes: readonly number[];
  /** 32-bit lanes of the widest vector of sums; 1 = sums are scalars, whatever the operands of a dot product are */
  readonly lanes: 1 | 4 | 8 | 16;
  /** neighbours that the faster dot product joins: pairs of i16, or quads of bytes; every machine has the pairs */
  readonly dot: 2 | 4;
  /** elements that the first operand of a dot product of quads may have, the preferred one first; the second is i8 */
  readonly quads: readonly ('u8' | 'i8')[];
  /** how a dyadic takes its 64-bit constants; null where it is scalar */
  readonly pairing: Pairing | null;
  /** vector registers, or general ones where they hold the lanes */
  readonly registers: number;
  /** rows and vectors of the register tile of a matrix product */
  readonly tile: readonly [rows: number, vectors: number];
  /** bytes of the narrowest vector whose look-ups in a table of 256 bytes stay within registers; null: one lane at a time */
  readonly tableBytes: number | null;
}

/** 32-bit and Windows programs of gcc do not align the stack for wide vectors; other compilers than gcc and clang spell all this otherwise. */
const x86Guard = 'defined(__x86_64__) && (defined(__clang__) || (defined(__GNUC__) && !defined(_WIN32)))';
const armGuard = 'defined(__aarch64__) && defined(__GNUC__) && !defined(__AARCH64EB__)';
const flagsOf = (features: readonly string[]): readonly string[] => features.map((feature) => `-m${feature}`);
const vnniFeatures = ['avx512f', 'avx512bw', 'avx512dq', 'avx512vl', 'avx512vnni'];
const x86 = { guard: x86Guard, pairing: 'evenodd', quads: ['u8'] } as const;
const avx512 = { ...x86, vectorBytes: 64, narrowerBytes: [32, 16], lanes: 16, dot: 4, registers: 32, tile: [4, 4] } as const;
const arm = { features: [], guard: armGuard, pairing: 'halves', quads: ['i8'], vectorBytes: 16, narrowerBytes: [8], lanes: 4, registers: 32, tile: [4, 4], tableBytes: 8 } as const;

export const machines = {
  avx512vbmi: {
    ...avx512, name: 'avx512vbmi', summary: 'x86-64 with AVX-512 VNNI and VBMI: Ice Lake, Zen 4 and later',
    target: { name: 'AVX-512 VBMI', vectors: avx512vbmi }, features: [...vnniFeatures, 'avx512vbmi'], flags: flagsOf([...vnniFeatures, 'avx512vbmi']), tableBytes: 16,
  },
  avx512vnni: {
    ...avx512, name: 'avx512vnni', summary: 'x86-64 with AVX-512 VNNI: Cascade Lake and later',
    target: { name: 'AVX-512 VNNI', vectors: avx512vnni }, features: vnniFeatures, flags: flagsOf(vnniFeatures), tableBytes: 32,
  },
  avx2: {
    ...x86, name: 'avx2', summary: 'x86-64 with AVX2: Haswell, Zen and later',
    target: { name: 'AVX2', vectors: avx2 }, features: ['avx2'], flags: flagsOf(['avx2']),
    vectorBytes: 32, narrowerBytes: [16], lanes: 8, dot: 2, registers: 16, tile: [6, 2], tableBytes: 32,
  },
  neonDot: {
    ...arm, name: 'neon_dot', summary: '64-bit Arm with dot products: Cortex-A55 and A76, Apple M1 and later',
    target: { name: 'NEON with dot products', vectors: neonDot }, guard: `${armGuard} && defined(__ARM_FEATURE_DOTPROD)`, flags: ['-march=armv8.2-a+dotprod'], dot: 4,
  },
  neon: {
    ...arm, name: 'neon', summary: '64-bit Arm', target: { name: 'NEON', vectors: neon }, flags: [], dot: 2,
  },
  cortexM: {
    name: 'cortex_m', summary: 'Cortex-M4, M7, M33 and others with the DSP extension', target: { name: 'Cortex-M DSP', vectors: cortexM },
    flags: ['-mcpu=cortex-m4', '-mthumb'], features: [],
    guard: 'defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32) && !defined(__ARM_BIG_ENDIAN) && (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 10))',
    vectorBytes: 4, narrowerBytes: [2], lanes: 1, dot: 4, quads: ['i8', 'u8'], pairing: null, registers: 13, tile: [2, 2], tableBytes: null,
  },
} as const satisfies Readonly<Record<string, CMachine>>;
export type MachineName = keyof typeof machines;

/** The file of one machine's variant: what the printer made of it, with its instructions switched on; empty for other compilers. */
export const machineFile = ({ name, guard, features, target }: CMachine, text: string): string => {
  const on = features.length === 0 ? [] : [
    ...(target.vectors?.includes ?? []).map((file) => `#include <${file}>`), '#if defined(__clang__)',
    `#pragma clang attribute push(__attribute__((target("${features.join(',')}"))), apply_to = function)`, '#else',
    '#pragma GCC push_options', `#pragma GCC target("${features.join(',')}")`, '#endif', ''];
  const off = features.length === 0 ? [] : ['', '#if defined(__clang__)', '#pragma clang attribute pop', '#else', '#pragma GCC pop_options', '#endif'];
  return [`#if ${guard}`, ...on, text.trimEnd(), ...off, '#else', `typedef int not_for_${name};`, '#endif', ''].join('\n');
};

/** Statements that return the call of the first variant that is there and runs here; `otherwise` is the call of the one that always is, or null where more follows. */
export const chooseVariant = (variants: readonly { readonly machine: CMachine; readonly call: string }[], otherwise: string | null, indent = '    '): string => [
  ...variants.flatMap(({ machine: { guard, features }, call }, i) => {
    const here = features.map((feature) => `__builtin_cpu_supports("${feature}")`).join(' && ');
    const asked = features.length > 0 && variants.slice(0, i).every(({ machine }) => machine.features.length === 0) ? [`${indent}__builtin_cpu_init();`] : [];
    return [`#if ${guard}`, ...asked, here === '' ? `${indent}return ${call};` : `${indent}if (${here}) return ${call};`, '#endif'];
  }),
  ...(otherwise === null ? [] : [`${indent}return ${otherwise};`])].join('\n');
