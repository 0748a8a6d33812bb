// The C and WebAssembly give the same codes with any number of threads, in every kind of step that threads share.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { kernelGraph, type Kernel } from '../../src/bench/kernels.ts';
import { emitC, interfaceOf, lower, portableC, programOf, simd128, type Emission } from '../../src/backends/index.ts';
import { wasm } from '../../src/backends/wasm/emit.ts';
import { onlyMacro, portableVariant } from '../../src/backends/c/variants.ts';
import { cCompiler, runC, type Codes } from '../../src/backends/run.ts';
import { avx2, avx512vnni, neonDot, type Target } from '../../src/backends/schedules/target.ts';
import { rangeOf, type IntegerDType } from '../../src/ir/dtype.ts';
import { Builder } from '../../src/ir/build.ts';
import { sizeOf, staticShape } from '../../src/ir/dim.ts';
import { evaluateGraph } from '../../src/ir/evaluate.ts';
import type { Graph, Value } from '../../src/ir/graph.ts';
import { linearAcc } from '../../src/ir/ops/kernel-accumulate.ts';
import { requantize, requantizeAdd } from '../../src/ir/ops/kernel-requantize.ts';
import type { Stmt } from '../../src/loops/types.ts';
import { functionsOf, isShared, visitStatements } from '../../src/loops/walk.ts';
import { Dice, randomCodes, sceneOf } from './kernel-cases.ts';

const conv = (size: number, channels: number, outputs: number, group = 1, batch = 1): Kernel['shape'] =>
  ({ op: 'conv', batch, height: size, width: size, channels, outputs, kernel: [3, 3], strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], group });
const kernels: readonly Kernel[] = [
  { shape: { op: 'linear', rows: 290, depth: 200, columns: 75 }, weightBits: 8, activationBits: 8 },
  { shape: { op: 'linear', rows: 670, depth: 96, columns: 64 }, weightBits: 4, activationBits: 8 },
  { shape: { op: 'linear', rows: 1, depth: 2400, columns: 1750 }, weightBits: 3, activationBits: 8 },
  { shape: { op: 'linear', rows: 8, depth: 700, columns: 801 }, weightBits: 8, activationBits: 16 },
  { shape: conv(36, 16, 24), weightBits: 8, activationBits: 8 },
  { shape: conv(11, 64, 72), weightBits: 5, activationBits: 8 },
  { shape: conv(22, 16, 32, 1, 2), weightBits: 2, activationBits: 8 },
  // by Winograd's products where words are multiplied in pairs: many bands, and one band shared by panels
  { shape: conv(40, 16, 32), weightBits: 8, activationBits: 8 },
  { shape: conv(13, 64, 64, 1, 2), weightBits: 8, activationBits: 8 },
  { shape: conv(62, 64, 64, 64), weightBits: 6, activationBits: 8 },
  { shape: { op: 'matmul', batch: 3, rows: 100, depth: 240, columns: 60, transposeB: false }, weightBits: null, activationBits: 8 },
  { shape: { op: 'matmul', batch: 1, rows: 178, depth: 340, columns: 70, transposeB: true }, weightBits: null, activationBits: 8 },
  { shape: { op: 'attention', batch: 1, rows: 87, keys: 87, heads: 3, depth: 96, valueDepth: 96 }, weightBits: null, activationBits: 8 },
  // few heads of many rows: blocks of rows are shared
  { shape: { op: 'attention', batch: 1, rows: 151, keys: 224, heads: 2, depth: 32, valueDepth: 32 }, weightBits: null, activationBits: 8 },
];
const small: Kernel = { shape: { op: 'linear', rows: 8, depth: 64, columns: 64 }, weightBits: 8, activationBits: 8 };
const sharesWork = (graph: Graph<'kernel'>, target: Target): boolean => functionsOf(lower(programOf(graph), target).loops.body).some(isShared);

/** Steps that read what others wrote, large and small by turns, and one that adds to its operand in place. */
const chain = (): Graph<'kernel'> => {
  const b = new Builder();
  const s = sceneOf(b, 'chain', 3);
  const layer = (x: Value, columns: number, y: Value | null): Value => {
    const [, depth] = staticShape(x.type.shape);
    const acc = b.emit(linearAcc, { x, weight: s.constant('i8', [columns, depth]) }, { bound: [-depth * 16384, depth * 16384] });
    const mul = Math.floor(2 ** 40 / (depth * 2000));
    if (y !== null) return b.emit(requantizeAdd, { x: acc, y, mulX: s.list('i32', [mul]), mulY: s.list('i32', [2 ** 29]), add: s.list('i64', [1n << 31n]) }, { shift: 32, low: -128, high: 127 });
    return b.emit(requantize, { x: acc, mul: s.list('i32', [mul]), add: s.list('i64', [1n << 31n]) }, { shift: 32, preShift: 0, low: -128, high: 127 });
  };
  const first = layer(s.input('i8', 480, 96), 96, null);
  const second = layer(layer(first, 8, null), 96, null);
  const third = layer(second, 96, first);
  return b.finish('kernel', 'chain', [{ name: 'y', value: layer(layer(third, 96, second), 96, third) }]);
};

const homes: string[] = [];
afterAll(() => homes.forEach((home) => rmSync(home, { recursive: true, force: true })));
const written = ({ artefacts }: Emission, target: string): string => {
  const home = mkdtempSync(join(tmpdir(), 'lowbitc-threads-'));
  homes.push(home);
  for (const { path, bytes } of artefacts) {
    mkdirSync(dirname(join(home, path)), { recursive: true });
    writeFileSync(join(home, path), bytes);
  }
  return join(home, target);
};
const wasmForThreads = wasm.configure('threads');
/** What load() of the WebAssembly for threads gives. */
interface Model {
  readonly threads: number;
  run(inputs: Codes): Codes;
  close(): void;
}
const compiler = cCompiler();
const lacking = compiler === null ? 'a C compiler'
  : spawnSync(compiler, ['-fopenmp', '-x', 'c', '-', '-o', '/dev/null'], { input: '#include <omp.h>\nint main(void) { return omp_get_num_threads() - 1; }\n' }).status === 0 ? null : 'OpenMP';

describe('steps that threads share', () => {
  it('are large ones, on every machine', () => {
    for (const target of [portableC, avx2, avx512vnni, neonDot, simd128]) {
      expect(kernels.filter((kernel) => !sharesWork(kernelGraph(kernel), target)), target.name).toEqual([]);
      expect(sharesWork(chain(), target), `${target.name}, layers after each other`).toBe(true);
      expect(sharesWork(kernelGraph(small), target)).toBe(false);
    }
  });
  it('hold no loop that is shared within one that is', () => {
    const within = (body: readonly Stmt[]): readonly string[] => {
      const found: string[] = [];
      visitStatements(body, (stmt) => { if ((stmt.s === 'for' && stmt.mark === 'parallel') || (stmt.s === 'call' && isShared(stmt.fn))) found.push(stmt.s); });
      return found;
    };
    for (const target of [portableC, avx2, avx512vnni, neonDot, simd128]) for (const kernel of kernels) {
      for (const { body } of functionsOf(lower(programOf(kernelGraph(kernel)), target).loops.body)) {
        visitStatements(body, (stmt) => { if (stmt.s === 'for' && stmt.mark === 'parallel') expect(within(stmt.body), `${JSON.stringify(kernel.shape)}, ${target.name}`).toEqual([]); });
      }
    }
  });
  it('a program of small steps has no option for threads', () => {
    const text = emitC(kernelGraph(small), { name: 'shared' }).artefacts.map(({ bytes }) => new TextDecoder().decode(bytes)).join('');
    expect(text).not.toContain('THREADS');
  });
  const programs = [...kernels.map((kernel) => [`${JSON.stringify(kernel.shape)} with ${kernel.weightBits}-bit weights`, kernelGraph(kernel)] as const), ['layers after each other', chain()] as const];
  it('WebAssembly has one variant for them', () => {
    expect(() => wasm.configure('treads')).toThrow('target "wasm" has no variant "treads"');
  });
  for (const [name, graph] of programs) {
    const dice = new Dice(7);
    const samples: readonly Codes[] = [0, 1].map(() => Object.fromEntries(graph.inputs.map((input) => {
      const dtype = input.type.dtype as IntegerDType;
      return [input.name, randomCodes(dtype, sizeOf(input.type.shape), dice, rangeOf(dtype))];
    })));
    const reference = (): readonly Codes[] => samples.map((sample) => Object.fromEntries(
      [...evaluateGraph(graph, new Map(graph.inputs.map((input) => [input.name, { type: input.type, data: sample[input.name] }])))].map(([output, { data }]) => [output, data])));
    it(`${name}, in WebAssembly`, async () => {
      const expected = reference();
      const home = written(await wasmForThreads.emit(programOf(graph), { name: 'shared' }), 'wasm');
      const { load } = await import(pathToFileURL(join(home, 'shared.mjs')).href) as { load(source: undefined, options: { readonly threads: number }): Promise<Model> };
      for (const threads of [1, 2, 5]) {
        const model = await load(undefined, { threads });
        expect(model.threads).toBe(threads);
        expect(samples.map((sample) => model.run(sample)), `${threads} threads`).toEqual(expected);
        model.close();
        expect(() => model.run(samples[0])).toThrow('closed');
      }
    }, 300_000);
    it.skipIf(lacking !== null)(`${name}${lacking === null ? '' : ` (needs ${lacking})`}`, async () => {
      const expected = reference();
      const home = written(emitC(graph, { name: 'shared' }), 'cpu');
      for (const flags of [['-fopenmp', '-DSHARED_THREADS=3'], ['-fopenmp', '-DSHARED_THREADS=2', `-D${onlyMacro('shared', portableVariant)}`]]) {
        expect(await runC(home, 'shared', interfaceOf(graph), samples, ['-O1', '-Wall', '-Wextra', '-Werror', '-Wno-psabi', ...flags]), flags.join(' ')).toEqual(expected);
      }
    }, 300_000);
  }
});
