// Every instruction set of the C printer computes what the interpreter computes: here, or in an emulator.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { chooseVariant, machineFile, machines, type CMachine } from '../../src/backends/c/machines.ts';
import { ctypeOf, type CTarget } from '../../src/backends/c/print.ts';
import { at, buffer, dot, dyadic, literal, load, program, store } from '../../src/loops/build.ts';
import { interpret } from '../../src/loops/interpret.ts';
import type { Expr, Program } from '../../src/loops/types.ts';
import { verify } from '../../src/loops/verify.ts';
import { aarch64, cortexM4, missing } from '../loops/c-hosts.ts';
import { native, printC, runC, type CCase, type Host } from '../loops/c-run.ts';
import { firstDifference, randomCase, type Vectors } from '../loops/random-programs.ts';
import { scalar, simd128, table, type Sample } from '../loops/samples.ts';
import { edgeCase } from './edge-program.ts';
import { depthwise, gemm, type Shape } from './vector-kernels.ts';

const strict = ['-Wall', '-Wextra', '-Wconversion', '-Wsign-conversion', '-pedantic', '-Werror'];
/** What random programs do and people do not: variables nobody reads, comparisons that are always true. */
const odd = ['-Wno-unused-variable', '-Wno-unused-but-set-variable', '-Wno-type-limits', '-Wno-tautological-compare', '-Wno-unknown-warning-option', '-Wno-sign-conversion'];

const hostOf = ({ name }: CMachine): Host => (name.startsWith('neon') ? aarch64 : name === 'cortex_m' ? cortexM4 : native);
/** Why a machine cannot run here, or null. */
const obstacle = (machine: CMachine): string | null => {
  const host = hostOf(machine);
  const lacking = missing(host);
  if (lacking !== null || machine.features.length === 0) return lacking;
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-'));
  try {
    writeFileSync(join(folder, 'p.c'), `int main(void)\n{\n${chooseVariant([{ machine, call: '0' }], '1')}\n}\n`);
    execFileSync(host.compiler, ['-o', 'p', 'p.c'], { cwd: folder, stdio: 'ignore' });
    return spawnSync(join(folder, 'p')).status === 0 ? null : 'the processor';
  } catch {
    return 'the compiler';
  } finally {
    rmSync(folder, { recursive: true });
  }
};
const sizesOf = ({ vectorBytes }: CMachine): readonly number[] => [2, 4, 8, 16, 32, 64].filter((size) => size <= vectorBytes);
const vectorsOf = (machine: CMachine): Vectors => ({ sizes: sizesOf(machine), pairing: machine.pairing ?? 'halves', quads: machine.quads, parts: true });

/** The hand-written kernels at the tile of a machine, with both dot products where it has both. */
const kernelsOf = ({ lanes, pairing, tile, quads }: CMachine): readonly Sample[] => {
  const shapes: readonly Shape[] = [{ lanes, pairing, tile, d: 2, x: 'i16' }, { lanes, pairing, tile, d: 2, x: 'i8' }, ...quads.map((x) => ({ lanes, pairing, tile, d: 4, x }) as const)];
  const columns = Math.max(tile[1] * lanes, 2);
  return shapes.flatMap((shape) => [
    gemm({ M: 2 * tile[0] + 1, K: 24, N: 2 * columns }, shape), gemm({ M: 1, K: 8, N: columns }, shape), ...(lanes === 1 ? [] : [depthwise({ H: 3, W: 5, C: 2 * shape.d * lanes }, shape)])]);
};
const named = <T extends { readonly program: Program }>(items: readonly T[]): readonly T[] => items.map((item, n) => ({ ...item, program: { ...item.program, name: `${item.program.name}${n}` } }));

for (const machine of Object.values<CMachine>(machines)) {
  const { name, target, flags } = machine;
  const lacking = obstacle(machine);
  describe.skipIf(lacking !== null)(`${name}${lacking === null ? '' : ` (lacks ${lacking})`}`, () => {
    const host = hostOf(machine);
    // gcc 12 for aarch64 may drop stores that its induction variables address as 2·p − q, which only these programs make it do
    const optimised = host === aarch64 ? ['-O1', '-fno-ivopts'] : ['-O1'];
    const compare = (cases: readonly CCase[], options: readonly string[]): void => {
      runC(cases, [...flags, ...options], target, host).forEach((results, n) => {
        const { program: one, memory } = cases[n];
        expect(firstDifference(one, interpret(one, memory), (b) => results.get(b)!), one.name).toBeNull();
      });
    };
    it('equals the interpreter on random programs, without a warning', () => {
      compare(Array.from({ length: 40 }, (_, n) => randomCase(100 + n, 1 + (n % 8), vectorsOf(machine), `seed${100 + n}`)), [...optimised, ...strict, ...odd]);
    }, 240_000);
    it('equals the interpreter on all pairs of edge values', () => {
      compare(sizesOf(machine).filter((size) => size >= Math.min(8, machine.vectorBytes)).map((size) => edgeCase(size, vectorsOf(machine), `bytes${size}`)), [...optimised, ...strict, ...odd]);
    }, 240_000);
    it('runs kernels at its tile', () => {
      const samples = named(kernelsOf(machine));
      for (const sample of samples) verify(sample.program);
      runC(samples, [...flags, '-O2', ...strict], target, host).forEach((results, n) => { expect(results.get(samples[n].out), samples[n].program.name).toEqual(samples[n].expected); });
    }, 240_000);
    it('compiles to code without float arithmetic and without division', () => {
      const samples = named([...kernelsOf(machine), ...Array.from({ length: 10 }, (_, n) => randomCase(n, 6, vectorsOf(machine), 'random'))]);
      expect(forbidden(samples.map((sample) => sample.program), target, [...host.flags.filter((flag) => flag.startsWith('-m')), ...flags], host)).toEqual([]);
    }, 240_000);
  });
}

/** Mnemonics of real numbers and of division in the object code; moves, logic and shuffles are neither. */
const forbiddenWords: readonly (readonly [RegExp, RegExp])[] = [
  [/x86-64/, /^(?:v?(?:add|sub|mul|div|sqrt|min|max|hadd|hsub|cmp\w*|rcp\w*|rsqrt\w*|round|dp|fn?m\w+)[ps][sd]|v?u?comis[sd]|v?cvt\w+|f[a-z]\w*|i?div[bwlq]?)$/],
  [/aarch64/, /^(?:f(?!mov$)\w+|[su]cvtf|[su]div)$/],
  [/arm/, /^(?:v\w+\.f(?:16|32|64).*|vcvt\w*|[su]div\w*)$/],
];
/** Library functions of division and of real numbers that compilers call where there is no instruction. */
const library = /^__(?:aeabi_(?:[fdhi]2?\w*|u?[il]div\w*|c[fd]\w+)|u?(?:div|mod)[sdt]i\d|(?:add|sub|mul|div|float\w*|fix\w*)[sdt]f\w*)$/;
const forbidden = (programs: readonly Program[], target: CTarget, flags: readonly string[], { compiler }: Host): readonly string[] => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-'));
  try {
    writeFileSync(join(folder, 'p.c'), printC(programs, target));
    execFileSync(compiler, ['-std=c99', '-O3', ...flags, '-c', 'p.c'], { cwd: folder, stdio: 'ignore' });
    const dump = execFileSync(compiler.replace(/g?cc$/, 'objdump'), ['-d', '--no-show-raw-insn', 'p.o'], { cwd: folder, encoding: 'utf8', maxBuffer: 2 ** 28 });
    const [, words] = forbiddenWords.find(([architecture]) => architecture.test(dump))!;
    const mnemonics = [...dump.matchAll(/^ +[0-9a-f]+:\t(?:(?:rep[nz]*|lock|bnd|notrack) )*([a-z][\w.]*)/gm)].map(([, mnemonic]) => mnemonic);
    expect(mnemonics.length).toBeGreaterThan(100);
    const called = execFileSync(compiler.replace(/g?cc$/, 'nm'), ['-u', 'p.o'], { cwd: folder, encoding: 'utf8' }).split(/\s+/).filter((symbol) => library.test(symbol));
    return [...new Set(mnemonics.filter((mnemonic) => words.test(mnemonic))), ...called];
  } finally {
    rmSync(folder, { recursive: true });
  }
};

describe('what a machine lacks is refused', () => {
  const [x, y] = [buffer('x', 'i8', 64, 'in'), buffer('y', 'i32', 64, 'out')];
  const print = (e: Expr, { target }: CMachine) => () => printC([program('one', [x, y], [store(at(y), e)])], target);
  const quads = (n: number, first: 'u8' | 'i8'): Expr => dot(4, literal(0, 'i32', n), literal(1, first, 4 * n), load(at(x), 4 * n));
  it('with the machine named', () => {
    expect(print(literal(0, 'i32', 16), machines.avx2)).toThrow('AVX2 has no vector of 64 bytes (i32x16)');
    expect(print(literal(0, 'i32', 8), machines.neon)).toThrow('NEON has no vector of 32 bytes (i32x8)');
    expect(print(literal(0, 'i32', 2), machines.cortexM)).toThrow('Cortex-M DSP has no vector of 8 bytes (i32x2)');
    expect(print(quads(16, 'i8'), machines.avx512vnni)).toThrow('AVX-512 VNNI has no dot product of i8 and i8');
    expect(print(quads(4, 'u8'), machines.neonDot)).toThrow('NEON with dot products has no dot product of u8 and i8');
    expect(print(dyadic(40, 'halves', literal(0, 'i32', 8), 1, 0n), machines.avx2)).toThrow('AVX2 has no dyadic of i32x8 by halves');
    expect(print(dyadic(40, 'evenodd', literal(0, 'i32', 4), 1, 0n), machines.neon)).toThrow('NEON has no dyadic of i32x4 by evenodd');
  });
  it('and nothing else', () => {
    expect(print(quads(16, 'u8'), machines.avx512vnni)()).toContain('_mm512_dpbusd_epi32(');
    expect(print(quads(4, 'i8'), machines.neonDot)()).toContain('vdotq_s32(');
  });
});

describe.skipIf(obstacle(machines.avx2) !== null)('variants of one entry in files of their own (needs x86-64 with AVX2)', () => {
  const samples = ([['avx512vbmi', simd128], ['avx512vnni', simd128], ['avx2', simd128], ['portable', scalar]] as const).map(([name, shape]) => {
    const sample = table(5, 48, shape);
    return { name, ...sample, program: { ...sample.program, name: `table_${name}` } };
  });
  const variants = samples.filter(({ name }) => name !== 'portable').map(({ name }, i) => ({ machine: machines[name as 'avx2'], call: `${i}` }));
  const files = samples.map(({ name, program: one }) => [`${name}.c`, name === 'portable' ? printC([one]) : machineFile(machines[name], printC([one], machines[name].target))] as const);

  it('need no flag, and the processor chooses', () => {
    const folder = mkdtempSync(join(tmpdir(), 'lowbitc-'));
    try {
      for (const [file, text] of files) writeFileSync(join(folder, file), text);
      const [{ program: first }] = samples;
      const params = first.buffers.map((b) => `${b.role === 'out' ? '' : 'const '}${ctypeOf(b.e)} *`).join(', ');
      const initial = first.buffers.map((b, i) => `static ${ctypeOf(b.e)} b${i}[${b.length}]${b.role === 'out' ? '' : ` = { ${[...(samples[0].memory.get(b)! as Int8Array)].join(', ')} }`};`);
      writeFileSync(join(folder, 'main.c'), [
        '#include <stdint.h>', '#include <stdio.h>', ...samples.map(({ program: one }) => `void ${one.name}(${params});`), ...initial,
        `static void (*const all[])(${params}) = { ${samples.map(({ program: one }) => one.name).join(', ')} };`,
        'static int choice(void)', '{', chooseVariant(variants, '3'), '}',
        'int main(void)', '{', '    int first = choice();', '    printf("%d", first);', '    for (int i = first; i < 4; i++) {', '        all[i](b0, b1, b2);',
        '        for (unsigned j = 0; j < sizeof b2; j++) printf(" %d", b2[j]);', '    }', '    return 0;', '}', ''].join('\n'));
      execFileSync('cc', ['-std=c99', '-O2', '-Wall', '-Wextra', '-pedantic', '-Werror', '-o', 'p', ...files.map(([file]) => file), 'main.c'], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
      const [first_, ...values] = execFileSync(join(folder, 'p'), { encoding: 'utf8' }).split(' ').map(Number);
      expect(first_).toBe(variants.findIndex(({ machine }) => obstacle(machine) === null));
      const expected = [...(samples[0].expected as Int8Array)];
      expect(values).toEqual(Array.from({ length: 4 - first_ }, () => expected).flat());
    } finally {
      rmSync(folder, { recursive: true });
    }
  }, 240_000);

  it.skipIf(missing(aarch64) !== null)('are empty for other processors (needs aarch64-linux-gnu-gcc)', () => {
    const folder = mkdtempSync(join(tmpdir(), 'lowbitc-'));
    try {
      for (const [file, text] of files) writeFileSync(join(folder, file), text);
      execFileSync(aarch64.compiler, ['-std=c99', '-pedantic', '-Werror', '-c', ...files.map(([file]) => file)], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
      expect(execFileSync('nm', ['avx2.o'], { cwd: folder, encoding: 'utf8' }).trim()).toBe('');
    } finally {
      rmSync(folder, { recursive: true });
    }
  }, 240_000);
});
