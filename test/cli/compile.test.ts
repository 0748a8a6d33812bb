import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Manifest } from '../../src/artefact/manifest.ts';
import { example, glyphFlags, lowbitc, scratchFolder } from './lowbitc.ts';

const scratch = scratchFolder();
const folder = join(scratch, 'glyph');
const compile = (output: string, ...more: readonly string[]) => lowbitc('compile', ...glyphFlags, '-o', output, ...more);
const readJson = (...path: readonly string[]): unknown => JSON.parse(readFileSync(join(...path), 'utf8'));

let first: ReturnType<typeof compile>;
beforeAll(() => { first = compile(folder); }, 240_000);

describe('the output folder', () => {
  test('holds what the manifest lists, and nothing else', () => {
    expect(first.status, first.stderr).toBe(0);
    const { files } = readJson(folder, 'manifest.json') as Manifest;
    for (const { path, bytes, sha256 } of files) {
      const content = readFileSync(join(folder, path));
      expect([content.length, createHash('sha256').update(content).digest('hex')]).toEqual([bytes, sha256]);
    }
    const found = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).length;
    expect(found).toBe(files.length + 1);
    expect(files.map(({ path }) => path)).toEqual(expect.arrayContaining([
      'pipeline.json', 'certificate.json', 'report.json', 'model.lbir', 'model.weights.bin',
      'cpu/glyph_cnn.c', 'cpu/glyph_cnn.h', 'cpu/main.c', 'cpu/Makefile', 'cpu/CMakeLists.txt', 'wasm/glyph_cnn.wasm', 'wasm/glyph_cnn.mjs', 'wasm/glyph_cnn.d.ts',
    ]));
  });
  test('the manifest says how to use it', () => {
    const manifest = readJson(folder, 'manifest.json') as Manifest;
    expect(manifest).toMatchObject({
      format: 1, name: 'glyph-cnn', bits: 'w8a8', normalization: { mean: [127.5], std: [127.5] }, binding: { dims: {}, shapes: {}, cutAt: null },
      inputs: [{ name: 'image', identifier: 'image', shape: [1, 1, 32, 32], dtype: 'u8' }],
      outputs: [{ name: 'logits', shape: [1, 10], dtype: 'i16', zero: 0 }],
      macs: { total: 2768768, byWidth: { w8a8: 2768768 } }, calibration: { samples: 8, synthetic: false },
    });
    expect(manifest.targets.map(({ name }) => name)).toEqual(['cpu', 'wasm']);
    expect(manifest.arenaBytes).toBeGreaterThan(0);
    expect(manifest.weightBytes).toBeGreaterThan(58_000);
    expect(manifest.layers.every(({ weightBits, activationBits }) => weightBits === 8 && activationBits === 8)).toBe(true);
  });
  test('no path of this machine stands in it', () => {
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) expect(readFileSync(join(entry.parentPath, entry.name)).includes(scratch), entry.name).toBe(false);
    }
  });
  test('the closing table names files, sizes, costs and the least precise layers', () => {
    for (const word of ['manifest.json', 'gzip', 'arena', 'MACs', 'SQNR', 'integer-only  yes', 'least precise layers', 'time']) expect(first.stdout).toContain(word);
  });
  test('the certificate: integers only, no division, accumulators with room to spare', () => {
    const certificate = readJson(folder, 'certificate.json') as { integerOnly: boolean; files: { float: object; division: object }[]; graph: { accumulators: { spareBits: number }[] } };
    expect(certificate.integerOnly).toBe(true);
    expect(certificate.files.map(({ float, division }) => [float, division])).toEqual(certificate.files.map(() => [{}, {}]));
    expect(certificate.graph.accumulators.length).toBe(10);
    expect(certificate.graph.accumulators.every(({ spareBits }) => spareBits >= 0)).toBe(true);
  });
});

describe('rescales in words', () => {
  const words = join(scratch, 'words');
  test('say their proven errors, and equal the reference', () => {
    const { status, stderr } = compile(words, '--rescale', 'words', '-t', 'wasm');
    expect(status, stderr).toBe(0);
    const { graph: { rescalesInWords } } = readJson(words, 'certificate.json') as { graph: { rescalesInWords: { error: number }[] } };
    expect(rescalesInWords.length).toBeGreaterThan(3);
    for (const { error } of rescalesInWords) expect(error).toBeLessThanOrEqual(1 / 32);
    expect(lowbitc('verify', words, '--count', '4').stdout).toContain('PASSED');
  }, 240_000);
  test('are no match for a target of 64-bit sums', () => {
    const { status, stderr } = compile(join(scratch, 'long'), '--rescale', 'words', '-t', 'accel');
    expect([status, existsSync(join(scratch, 'long'))]).toEqual([2, false]);
    expect(stderr).toContain('LB0732');
    expect(stderr).toContain('leave out --rescale words');
  });
});

describe('replacing', () => {
  test('a folder of ours is replaced, and nothing is left beside it', () => {
    writeFileSync(join(folder, 'stale.txt'), 'x');
    expect(compile(folder, '-t', 'wasm').status).toBe(0);
    expect(existsSync(join(folder, 'stale.txt'))).toBe(false);
    expect(existsSync(join(folder, 'cpu'))).toBe(false);
    expect(readdirSync(scratch).filter((name) => name.startsWith('.'))).toEqual([]);
  });
  test('a folder of someone else stays, unless forced', () => {
    const foreign = join(scratch, 'foreign');
    mkdirSync(foreign);
    writeFileSync(join(foreign, 'thesis.txt'), 'x');
    const refused = compile(foreign, '-t', 'wasm');
    expect([refused.status, refused.stderr.includes('LB0106')]).toEqual([2, true]);
    expect(readdirSync(foreign)).toEqual(['thesis.txt']);
    expect(compile(foreign, '-t', 'wasm', '--force').status).toBe(0);
    expect(existsSync(join(foreign, 'thesis.txt'))).toBe(false);
  });
  test('a denied warning leaves no folder', () => {
    const denied = join(scratch, 'denied');
    const { status, stderr } = compile(denied, '--deny', 'LB0116');
    expect([status, existsSync(denied)]).toEqual([1, false]);
    expect(stderr).toContain('error LB0116');
  });
});

describe('a pipeline is data', () => {
  test('pipeline.json replays to the same bytes, and brings its settings along', () => {
    const again = join(scratch, 'again');
    const { status, stderr } = lowbitc('compile', example('models/glyph-cnn.onnx'), '-o', again, '-t', 'wasm', '--calib', example('data/calib.npy'), '--calib-count', '8', '--passes', `@${folder}/pipeline.json`);
    expect(status, stderr).toBe(0);
    const reference = join(scratch, 'reference');
    expect(compile(reference, '-t', 'wasm').status).toBe(0);
    for (const { path } of (readJson(reference, 'manifest.json') as Manifest).files) {
      expect(readFileSync(join(again, path)).equals(readFileSync(join(reference, path))), path).toBe(true);
    }
  });
  test('--stop-after prints the graph and writes nothing', () => {
    const { status, stdout } = lowbitc('compile', ...glyphFlags, '--stop-after', 'quantize-weights');
    expect(status).toBe(0);
    expect(stdout).toMatch(/^graph @\S+ : quant /);
  });
  test('--dump writes a graph after each pass', () => {
    const dump = join(scratch, 'dump');
    expect(compile(join(scratch, 'dumped'), '-t', 'wasm', '--dump', dump).status).toBe(0);
    const names = readdirSync(dump).sort();
    expect(names[0]).toBe('00-import.lbir');
    expect(names.some((name) => /^\d\d-lower-to-kernels\.lbir$/.test(name))).toBe(true);
  });
  test('a pipeline that ends early has nothing to emit', () => {
    const { status, stderr } = compile(join(scratch, 'early'), '--passes', 'simplify-layout');
    expect([status, stderr.includes('LB0109')]).toEqual([2, true]);
  });
  test('--time shows the passes', () => {
    expect(compile(folder, '-t', 'wasm', '--time').stdout).toMatch(/ms\s+quantize-weights/);
  });
});

test('--json: one document with files, sizes, layers and diagnostics', () => {
  const { status, stdout, stderr } = compile(folder, '-t', 'wasm', '--json');
  expect([status, stderr]).toEqual([0, '']);
  const report = JSON.parse(stdout) as { worst: object[]; files: { path: string }[]; diagnostics: { code: string }[]; sqnrDb: { logits: number } };
  expect(report).toMatchObject({ integerOnly: true, output: folder, diagnostics: [{ code: 'LB0116', severity: 'warning' }] });
  expect(report.worst.length).toBe(5);
  expect(report.sqnrDb.logits).toBeGreaterThan(20);
});

test('--synthetic warns that the results mean nothing', () => {
  const { status, stderr } = lowbitc('compile', example('models/glyph-cnn.onnx'), '-o', join(scratch, 'synthetic'), '-t', 'wasm', '--synthetic');
  expect([status, stderr.includes('LB0117')]).toEqual([0, true]);
  expect(lowbitc('verify', join(scratch, 'synthetic')).status).toBe(0);
});
