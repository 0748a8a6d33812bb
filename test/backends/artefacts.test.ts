/** What a caller of the emitted programs relies on. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { kernelGraph, type Kernel } from '../../src/bench/kernels.ts';
import { emitC, emitWasm } from '../../src/backends/index.ts';
import { cCompiler } from '../../src/backends/run.ts';
import { Builder } from '../../src/ir/build.ts';
import { perTensor } from '../../src/ir/quant.ts';
import { linearAcc } from '../../src/ir/ops/kernel-accumulate.ts';
import { requantize } from '../../src/ir/ops/kernel-requantize.ts';
import { gatherRows } from '../../src/ir/ops/kernel-table.ts';
import { tensorType } from '../../src/ir/type.ts';
import { engine } from '../../src/wasm/index.ts';
import { sceneOf } from './kernel-cases.ts';

const b = new Builder();
const s = sceneOf(b, 'net', 5);
const image = b.input('images:0', tensorType('i8', [1, 12], perTensor('i8', 0.5, -3)));
const token = b.input('default', tensorType('i32', [2]));
const acc = b.emit(linearAcc, { x: image, weight: s.constant('i8', [4, 12]) }, { bound: [-200000, 200000] });
const logits = b.emit(requantize, { x: acc, mul: s.list('i32', [2 ** 20]), add: s.list('i64', [1n << 34n]) }, { shift: 35, low: -32768, high: 32767 },
  { type: tensorType('i16', [1, 4], perTensor('i16', 0.25, 0)) });
const rows = b.emit(gatherRows, { table: s.constant('i8', [5, 3]), indices: token });
const graph = b.finish('kernel', 'net', [{ name: 'logits', value: logits }, { name: 'rows/0', value: rows }]);

const folder = mkdtempSync(join(tmpdir(), 'lowbitc-artefacts-'));
for (const target of ['cpu', 'wasm']) mkdirSync(join(folder, target));
for (const { path, bytes } of [...emitC(graph, { name: 'my net' }).artefacts, ...emitWasm(graph, { name: 'my net' }).artefacts]) writeFileSync(join(folder, path), bytes);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Emitted {
  load(source?: unknown): Promise<{ run(inputs: object): Record<string, ArrayLike<number>> }>;
  loadSync(bytes: Uint8Array): { run(inputs: object): Record<string, ArrayLike<number>> };
  readonly inputs: readonly object[];
  quantize(name: string, reals: ArrayLike<number>): Int8Array;
  dequantize(name: string, codes: Int16Array): Float32Array;
}
const emitted = await import(pathToFileURL(join(folder, 'wasm', 'my_net.mjs')).href) as Emitted;

describe('the ES module', () => {
  const given = { 'images:0': Int8Array.from({ length: 12 }, (_, i) => 7 * i - 40), default: Int32Array.of(4, -9) };
  it('loads the file beside it, bytes, and a compiled module', async () => {
    const bytes = readFileSync(join(folder, 'wasm', 'my_net.wasm'));
    const results = [await emitted.load(), await emitted.load(bytes), await emitted.load(new engine.Module(bytes)), emitted.loadSync(bytes)].map((model) => model.run(given));
    expect(results.slice(1)).toEqual(Array(3).fill(results[0]));
    expect(Object.keys(results[0])).toEqual(['logits', 'rows/0']);
  });
  it('quantizes by the boundary rule and refuses NaN', () => {
    expect([...emitted.quantize('images:0', [0, 0.24, 0.25, -0.25, -0.26, 1e9, -1e9])]).toEqual([-3, -3, -2, -3, -4, 127, -128]);
    expect(() => emitted.quantize('images:0', [0, NaN])).toThrow('element 1 is NaN');
    expect(() => emitted.quantize('default', [1])).toThrow('no scale');
    expect(() => emitted.quantize('image', [1])).toThrow('"images:0"');
    expect([...emitted.dequantize('logits', Int16Array.of(-4, 3))]).toEqual([-1, 0.75]);
  });
  it('refuses inputs of another type or length', async () => {
    const model = await emitted.load();
    expect(() => model.run({ ...given, default: Int8Array.of(1, 2) })).toThrow('input "default" must be Int32Array');
    expect(() => model.run({ ...given, default: Int32Array.of(1) })).toThrow('has 1 elements, not 2');
  });
  it('tells what its tensors mean', () => {
    expect(emitted.inputs).toEqual([
      { name: 'images:0', dtype: 'i8', shape: [1, 12], scale: 0.5, zero: -3, low: -128, high: 127 },
      { name: 'default', dtype: 'i32', shape: [2], scale: null, zero: 0, low: -(2 ** 31), high: 2 ** 31 - 1 },
    ]);
  });
  it('has types that TypeScript accepts', () => {
    writeFileSync(join(folder, 'wasm', 'use.mts'), `import { load, type Outputs } from './my_net.mjs';
const model = await load();
const out: Outputs = model.run({ 'images:0': model.quantize('images:0', [1, 2]), default: new Int32Array(2) });
export const first: Int16Array = out.logits;
// @ts-expect-error there is no such input
model.run({ image: new Int8Array(12) });
`);
    writeFileSync(join(folder, 'wasm', 'tsconfig.json'), JSON.stringify({ compilerOptions: { noEmit: true, strict: true, target: 'es2022', module: 'nodenext', lib: ['es2022', 'dom'], types: [] }, files: ['use.mts'] }));
    const compiler = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url));
    const made = spawnSync(process.execPath, [compiler, '-p', '.'], { cwd: join(folder, 'wasm'), encoding: 'utf8' });
    expect(made.stdout).toBe('');
  }, 30_000);
});

describe('the C library', () => {
  const header = readFileSync(join(folder, 'cpu', 'my_net.h'), 'utf8');
  it('names inputs, outputs and what they mean', () => {
    expect(header).toContain('const int8_t *images_0;');
    expect(header).toContain('const int32_t *t_default;');
    expect(header).toContain('int16_t *logits;');
    expect(header).toContain('#define MY_NET_INPUT_IMAGES_0_SCALE 0.500000000f');
    expect(header).toContain('int my_net_run(const my_net_inputs *inputs, my_net_outputs *outputs, void *arena);');
  });
  const run = (command: string, args: readonly string[]): number | null => spawnSync(command, args, { cwd: join(folder, 'cpu'), stdio: 'ignore' }).status;
  it.skipIf(cCompiler() === null)('returns 1 for null pointers (needs a C compiler)', () => {
    writeFileSync(join(folder, 'null.c'), `#include "cpu/my_net.h"
static uint8_t arena[MY_NET_ARENA_BYTES + 1];
int main(void) {
    int8_t image[12] = { 0 }; int32_t token[2] = { 0 }; int16_t logits[4]; int8_t rows[6];
    my_net_inputs in = { image, token }; my_net_outputs out = { logits, rows };
    if (my_net_run(&in, &out, arena) != 0) return 10;
    if (my_net_run(0, &out, arena) != 1 || my_net_run(&in, 0, arena) != 1) return 11;
    in.t_default = 0;
    if (my_net_run(&in, &out, arena) != 1) return 12;
    return 0;
}
`);
    expect(run(cCompiler()!, ['-std=c99', '-pedantic-errors', '../null.c', ...readdirSync(join(folder, 'cpu')).filter((file) => /^my_net.*\.c$/.test(file)), '-o', 'null'])).toBe(0);
    expect(run('./null', [])).toBe(0);
  });
  it.skipIf(spawnSync('c++', ['--version']).status !== 0)('has a header that C++ accepts (needs a C++ compiler)', () => {
    writeFileSync(join(folder, 'cpu', 'use.cpp'), '#include "my_net.h"\nint use(my_net_outputs *out) { my_net_inputs in = {}; return my_net_run(&in, out, nullptr); }\n');
    expect(run('c++', ['-std=c++17', '-Wall', '-Werror', '-c', 'use.cpp'])).toBe(0);
    rmSync(join(folder, 'cpu', 'use.cpp'));
  });
  it.skipIf(cCompiler() === null || spawnSync('make', ['--version']).status !== 0)('is built by make (needs make and a C compiler)', () => {
    expect(run('make', [])).toBe(0);
    expect(spawnSync(join(folder, 'cpu', 'my_net'), { input: Buffer.alloc(2 * 20) }).stdout.length).toBe(2 * 14);
    expect(spawnSync(join(folder, 'cpu', 'my_net'), { input: Buffer.alloc(21) }).status).toBe(1);
  }, 240_000);
  it.skipIf(cCompiler() === null || spawnSync('cmake', ['--version']).status !== 0)('is built by CMake (needs CMake and a C compiler)', () => {
    expect(run('cmake', ['-S', '.', '-B', '../build'])).toBe(0);
    expect(run('cmake', ['--build', '../build'])).toBe(0);
  }, 240_000);
});

describe('code', () => {
  it('of a depthwise layer stays small however large its window is', () => {
    const side = (window: number, channels: number): Kernel['shape'] => {
      const pad = (window - 1) / 2;
      return { op: 'conv', batch: 1, height: 40, width: 40, channels, outputs: channels, kernel: [window, window], strides: [1, 1], pads: [pad, pad, pad, pad], dilations: [1, 1], group: channels };
    };
    for (const channels of [6, 96]) for (const window of [3, 5, 7, 9, 15, 31]) {
      const layer = kernelGraph({ shape: side(window, channels), weightBits: 8, activationBits: 8 });
      const [module] = emitWasm(layer, { name: 'net' }).artefacts.filter(({ path }) => path.endsWith('.wasm'));
      expect(module.bytes.length - window * window * channels, `${window}x${window}, ${channels} channels, WebAssembly`).toBeLessThan(25_000);
      const texts = emitC(layer, { name: 'net' }).artefacts.filter(({ path }) => path.endsWith('.c') && !path.endsWith('_weights.c'));
      expect(Math.max(...texts.map(({ bytes }) => bytes.length)), `${window}x${window}, ${channels} channels, C`).toBeLessThan(120_000);
    }
  });
});
