// What bench and profile do and say; never how long anything takes.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { example, glyphFlags, lowbitc, lowbitcIn, root, scratchFolder } from './lowbitc.ts';

const scratch = scratchFolder();
const folder = join(scratch, 'glyph');
const quick = ['--ms', '2', '--rounds', '2', '--starts', '1'];
const hasCompiler = spawnSync(process.env['CC'] ?? 'cc', ['--version']).status === 0;
const noCompiler = hasCompiler ? '' : ': skipped, there is no C compiler';
const installed = (name: string): boolean => {
  try {
    return createRequire(join(root, 'index.js')).resolve(name) !== '';
  } catch {
    return false;
  }
};
const hasRuntime = installed('onnxruntime-node');
beforeAll(() => { lowbitc('compile', ...glyphFlags, '-o', folder); }, 240_000);

interface Report {
  readonly sides: readonly { readonly name: string; readonly kind: string; readonly runs: number; readonly bestMs: number; readonly medianMs: number; readonly gmacs: number; readonly start: { readonly runs: number; readonly bestMs: number } }[];
  readonly ratios: readonly { readonly target: string; readonly peer: string; readonly best: number; readonly median: number; readonly start: number }[];
  readonly layers?: Readonly<Record<string, {
    readonly instructions: string;
    readonly limits: readonly { readonly primitive: string; readonly kind: string; readonly rate: number }[];
    readonly steps: readonly { readonly name: string; readonly ops: readonly string[]; readonly from: readonly string[]; readonly macs: number; readonly bestMs: number; readonly gmacs: number | null; readonly share: number | null }[];
  }>>;
}
const bench = (...args: readonly string[]): Report => {
  const { status, stdout, stderr } = lowbitc('bench', folder, ...quick, '--json', ...args);
  expect([status, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as Report;
};

describe('bench', () => {
  test('one document: machine, load, and a side for each target', () => {
    const report = bench('--target', 'wasm');
    expect(report).toMatchObject({ name: 'glyph-cnn', bits: 'w8a8', macs: 2768768, rounds: 2, ms: 2, threads: 1, machine: { architecture: process.arch, node: process.version }, ratios: [] });
    expect(report.sides.map(({ name, kind }) => [name, kind])).toEqual([['wasm', 'target']]);
    const [{ runs, bestMs, medianMs, start, gmacs }] = report.sides;
    expect(runs).toBeGreaterThanOrEqual(6);
    expect(bestMs).toBeGreaterThan(0);
    expect(medianMs).toBeGreaterThanOrEqual(bestMs);
    expect(start.bestMs).toBeGreaterThan(0);
    expect(gmacs).toBeCloseTo(2768768 / (bestMs * 1e6), 6);
    expect(report).not.toHaveProperty('layers');
  }, 240_000);

  test.skipIf(!hasCompiler)(`the C, and the layers of both targets: the same steps with the same products${noCompiler}`, () => {
    const { sides, layers } = bench('--layers', '--instructions', 'portable');
    expect(sides.map(({ name }) => name)).toEqual(['cpu', 'wasm', 'cpu portable']);
    const { cpu, wasm } = layers!;
    expect(cpu.steps.map(({ name, macs }) => [name, macs])).toEqual(wasm.steps.map(({ name, macs }) => [name, macs]));
    expect(cpu.steps.reduce((sum, { macs }) => sum + macs, 0)).toBe(2768768);
    expect(cpu.steps.at(-1)).toMatchObject({ name: 'logits', ops: ['linear_acc', 'requantize'] });
    expect(cpu.steps.at(-1)!.from.some((node) => node.includes('Gemm'))).toBe(true);
    for (const { macs, gmacs } of cpu.steps) expect(gmacs === null).toBe(macs === 0);
    expect(wasm.limits.map(({ kind }) => kind)).toEqual(['dot', 'rescale']);
    for (const { rate } of wasm.limits) expect(rate).toBeGreaterThan(0);
    for (const { macs, share } of wasm.steps) if (macs > 0) expect(share).toBeGreaterThan(0);
  }, 240_000);

  test.skipIf(!hasRuntime)(`a peer runs the source model, and another model beside it${hasRuntime ? '' : ': skipped, onnxruntime-node is not installed'}`, () => {
    const model = example('models/glyph-cnn.onnx');
    const { sides, ratios } = bench('--target', 'wasm', '--peer', 'onnxruntime', '--peer-model', model);
    expect(sides.map(({ name, kind }) => [name, kind])).toEqual([['wasm', 'target'], ['onnxruntime', 'peer'], ['onnxruntime glyph-cnn.onnx', 'peer']]);
    expect(ratios.map(({ target, peer }) => [target, peer])).toEqual([['wasm', 'onnxruntime'], ['wasm', 'onnxruntime glyph-cnn.onnx']]);
    expect(ratios[0].best).toBeCloseTo(sides[1].bestMs / sides[0].bestMs, 6);
    expect(ratios[0].start).toBeCloseTo(sides[1].start.bestMs / sides[0].start.bestMs, 6);
  }, 240_000);

  test('the table names the machine, the load, and what was timed', () => {
    const { status, stdout } = lowbitc('bench', folder, ...quick, '--target', 'wasm');
    expect(status).toBe(0);
    for (const word of ['2,768,768 MACs', 'one thread', 'load', 'best', 'median', 'GMAC/s', 'first output', 'wasm']) expect(stdout).toContain(word);
  }, 240_000);

  const hasWeb = installed('onnxruntime-web');
  test.skipIf(hasWeb)(`a peer that is not installed is named, with what to do${hasWeb ? ': skipped, onnxruntime-web is installed' : ''}`, () => {
    const { status, stderr } = lowbitcIn(scratch, { LOWBITC_PEERS: scratch }, 'bench', folder, '--peer', 'onnxruntime-web', '--target', 'wasm');
    expect(status).toBe(2);
    expect(stderr).toMatch(/error LB0124: the package "onnxruntime-web" cannot be used/);
    expect(stderr).toContain('npm install');
  });

  test('a folder that lies about its files is refused before anything runs', () => {
    const other = join(scratch, 'tampered');
    lowbitc('compile', ...glyphFlags, '-o', other, '-t', 'wasm');
    writeFileSync(join(other, 'wasm/glyph_cnn.mjs'), 'export const load = () => { throw new Error("surprise"); };');
    const { status, stderr } = lowbitc('bench', other, ...quick);
    expect(status).toBe(1);
    expect(stderr).toContain('LB0114');
  }, 240_000);

  test.each([
    ['an unknown peer', ['--peer', 'tensorflow'], 'LB0102'], ['an unknown target', ['--target', 'gpu'], 'LB0108'], ['no milliseconds', ['--ms', '0'], 'LB0102'],
    ['half a round', ['--rounds', '1.5'], 'LB0102'], ['a model for no peer', ['--peer-model', 'x.onnx'], 'LB0101'], ['an unknown instruction set', ['--instructions', 'z80'], 'LB0102'],
  ])('%s is a usage error', (_, args, code) => {
    const { status, stdout, stderr } = lowbitc('bench', folder, ...args);
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toContain(`error ${code}`);
  });

  test.skipIf(!hasCompiler)(`a C compiler that refuses is quoted${noCompiler}`, () => {
    const { status, stderr } = lowbitc('bench', folder, ...quick, '--target', 'cpu', '--cflags', '-O3 --no-such-flag');
    expect(status).toBe(1);
    expect(stderr).toContain('no-such-flag');
    expect(stderr).not.toMatch(/\.[jt]s:\d+/);
  });
});

describe('profile', () => {
  interface Table {
    readonly format: number;
    readonly machine: object;
    readonly kernels: readonly { readonly target: string; readonly shape: { readonly op: string }; readonly weightBits: number | null; readonly codebook?: boolean; readonly activationBits: number; readonly macs: number; readonly bestMs: number; readonly medianMs: number }[];
  }
  const table = join(scratch, 'table.json');
  const read = (path = table): Table => JSON.parse(readFileSync(path, 'utf8')) as Table;
  const profile = (...args: readonly string[]) => lowbitc('profile', example('models/glyph-cnn.onnx'), '-o', table, '--ms', '1', '--json', ...args);

  test('every layer of a model at every width, and the second time nothing is left to do', () => {
    const first = profile('--target', 'wasm');
    expect([first.status, first.stderr]).toEqual([0, '']);
    const { format, machine, kernels } = read();
    expect(format).toBe(2);
    expect(machine).toMatchObject({ architecture: process.arch, platform: process.platform, node: process.version });
    const shapes = new Set(kernels.map(({ shape }) => JSON.stringify(shape)));
    // plain codes of 2 to 8 bits and codebooks of 2 to 4, with activations of 8 and 16
    expect(kernels.length).toBe(shapes.size * (7 + 3) * 2);
    expect(new Set(kernels.map(({ weightBits, codebook = false, activationBits }) => `${weightBits}/${codebook}/${activationBits}`)).size).toBe(20);
    expect(new Set(kernels.map(({ shape }) => shape.op))).toEqual(new Set(['conv', 'linear']));
    for (const { macs, bestMs, medianMs } of kernels) expect(macs > 0 && bestMs > 0 && medianMs >= bestMs).toBe(true);
    const again = profile('--target', 'wasm');
    expect(JSON.parse(first.stdout)).toMatchObject({ added: kernels.length });
    expect(JSON.parse(again.stdout)).toMatchObject({ added: 0 });
    expect(read().kernels).toEqual(kernels);
  }, 240_000);

  test('a folder has the layers of the model it was compiled from', () => {
    const { status, stdout } = lowbitc('profile', folder, '-o', table, '--ms', '1', '--target', 'wasm', '--json');
    expect([status, (JSON.parse(stdout) as { added: number }).added]).toEqual([0, 0]);
  }, 240_000);

  test('what an interrupted command left is kept', () => {
    const all = read();
    writeFileSync(table, JSON.stringify({ ...all, kernels: all.kernels.slice(0, -3) }));
    expect(JSON.parse(profile('--target', 'wasm').stdout)).toMatchObject({ added: 3 });
    expect(read().kernels.slice(0, -3)).toEqual(all.kernels.slice(0, -3));
  }, 240_000);

  test('timings of another machine are not mixed in', () => {
    const other = join(scratch, 'other.json');
    writeFileSync(other, JSON.stringify({ ...read(), machine: { ...read().machine, cpu: 'abacus' } }));
    const { status, stderr } = lowbitc('profile', '-o', other, '--target', 'wasm');
    expect([status, stderr.includes('LB0125'), stderr.includes('--fresh')]).toEqual([2, true, true]);
  });

  test.each([['text', 'hello'], ['a list', '[1, 2]'], ['another format', '{"format": 9, "machine": {}, "kernels": []}']])('%s is no table, and stays', (name, text) => {
    const path = join(scratch, `${name.replace(' ', '-')}.json`);
    writeFileSync(path, text);
    const { status, stderr } = lowbitc('profile', '-o', path, '--target', 'wasm');
    expect([status, stderr.includes('LB0126')]).toEqual([2, true]);
    expect(readFileSync(path, 'utf8')).toBe(text);
  });

  test('a place that cannot be written is an error, not a table lost', () => {
    const { status, stderr } = lowbitc('profile', example('models/glyph-cnn.onnx'), '-o', join(scratch, 'nowhere/table.json'), '--ms', '1', '--target', 'wasm');
    expect([status, stderr.includes('LB0105')]).toEqual([2, true]);
    expect(existsSync(join(scratch, 'nowhere'))).toBe(false);
  }, 240_000);
});
