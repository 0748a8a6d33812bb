import { createHash } from 'node:crypto';
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Manifest } from '../../src/artefact/manifest.ts';
import { fileSource } from '../../src/calibration/bytes.ts';
import { readNpy } from '../../src/calibration/npy.ts';
import { openNpz } from '../../src/calibration/npz.ts';
import { example, glyphFlags, lowbitc, lowbitcIn, root, scratchFolder } from './lowbitc.ts';

const scratch = scratchFolder();
const folder = join(scratch, 'glyph');
const data = ['--input', `image=${example('data/eval.npy')}`, '--count', '20'];
beforeAll(() => { lowbitc('compile', ...glyphFlags, '-o', folder, '-t', 'wasm'); }, 240_000);

describe('run', () => {
  test('real numbers to .npz, one array for each output, first axis = samples', () => {
    const file = join(scratch, 'y.npz');
    expect(lowbitc('run', folder, ...data, '--output', file).status).toBe(0);
    const logits = openNpz(fileSource(file)).get('logits')!;
    expect([logits.dtype, logits.shape]).toEqual(['f4', [20, 10]]);
  });
  test('--raw gives the integers; real = (code − zero) · scale', () => {
    const [raw, real] = [join(scratch, 'raw.npy'), join(scratch, 'real.npy')];
    lowbitc('run', folder, ...data, '--raw', '--output', raw);
    lowbitc('run', folder, ...data, '--output', real);
    const [{ scale, zero }] = (JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')) as Manifest).outputs;
    const codes = readNpy(fileSource(raw));
    expect(codes.dtype).toBe('i2');
    expect(readNpy(fileSource(real)).data).toEqual(Float32Array.from(codes.data as Int16Array, (code) => (code - zero) * scale!));
  });
  test('the reference gives the same integers as wasm', () => {
    const [a, b] = ['wasm', 'reference'].map((target) => {
      const file = join(scratch, `${target}.npy`);
      expect(lowbitc('run', folder, '--target', target, ...data, '--raw', '--output', file).status).toBe(0);
      return readFileSync(file);
    });
    expect(a.equals(b)).toBe(true);
  });
  test('the float model is found beside the folder', () => {
    const { status, stdout } = lowbitc('run', folder, '--target', 'float', ...data, '--json');
    expect(status).toBe(0);
    const { outputs } = JSON.parse(stdout) as { outputs: { logits: { shape: number[]; data: number[] } } };
    expect([outputs.logits.shape, outputs.logits.data.length]).toEqual([[20, 10], 200]);
  });
  test('an input of another name, or none, is a usage error', () => {
    expect(lowbitc('run', folder, '--input', `picture=${example('data/eval.npy')}`).status).toBe(2);
    expect(lowbitc('run', folder).status).toBe(2);
  });
});

describe('eval', () => {
  const labels = ['--labels', example('data/eval_labels.npy')];
  test('--json: the float model and each target, fractions of 1', () => {
    const { status, stdout } = lowbitc('eval', folder, '--input', `image=${example('data/eval.npy')}`, ...labels, '--count', '200', '--json');
    expect(status).toBe(0);
    const report = JSON.parse(stdout) as { samples: number; float: Record<string, number>; targets: Record<string, Record<string, number>> };
    expect(report.samples).toBe(200);
    expect(Object.keys(report.float)).toEqual(expect.arrayContaining(['top1', 'top5', 'crossEntropy']));
    expect(Object.keys(report.targets)).toEqual(['wasm']);
    expect(Object.keys(report.targets['wasm'])).toEqual(expect.arrayContaining(['top1', 'top5', 'crossEntropy', 'agreement', 'sqnrDb']));
    expect(report.float['top1']).toBeGreaterThan(0.9);
    expect(report.targets['wasm']['agreement']).toBeGreaterThan(0.95);
  });
  test('without labels: agreement and signal-to-noise ratio', () => {
    const { stdout } = lowbitc('eval', folder, ...data, '--json');
    const { float, targets } = JSON.parse(stdout) as { float: object; targets: { wasm: object } };
    expect(float).toEqual({});
    expect(Object.keys(targets.wasm)).toEqual(['agreement', 'sqnrDb']);
  });
  test('the terminal shows n and a 95 % interval', () => {
    const { stdout } = lowbitc('eval', folder, ...data, ...labels);
    expect(stdout).toContain('20 samples');
    expect(stdout).toContain('95 % interval');
  });
  test('a source model that has changed is refused', () => {
    expect(lowbitc('eval', folder, ...data, '--model', example('models/glyph-vit.onnx')).status).toBe(2);
  });
});

describe('verify', () => {
  test('the calibration samples by default, bit for bit, and the certificate', () => {
    const { status, stdout } = lowbitc('verify', folder, '--json');
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      samples: 8, passed: true, targets: { wasm: { samples: 8, mismatches: 0, first: null } }, certificate: { holds: true, integerOnly: true },
    });
  });

  /** A copy of the folder with one file changed, and the manifest changed along or not. */
  const tampered = (name: string, path: string, change: (bytes: Buffer) => Buffer, alsoManifest: boolean): string => {
    const copy = join(scratch, name);
    cpSync(folder, copy, { recursive: true });
    const bytes = change(readFileSync(join(copy, path)));
    writeFileSync(join(copy, path), bytes);
    const manifest = JSON.parse(readFileSync(join(copy, 'manifest.json'), 'utf8')) as { files: { path: string; sha256: string; bytes: number }[] };
    const entry = manifest.files.find((file) => file.path === path)!;
    entry.sha256 = createHash('sha256').update(bytes).digest('hex');
    entry.bytes = bytes.length;
    if (alsoManifest) writeFileSync(join(copy, 'manifest.json'), JSON.stringify(manifest));
    return copy;
  };
  /** The constants are the last part of the module; these are weights. */
  const changeWeights = (bytes: Buffer): Buffer => Buffer.from(bytes.map((byte, i) => (i >= bytes.length - 40_000 && i < bytes.length - 39_000 ? byte ^ 0x11 : byte)));

  test('a file that is not the one of the manifest is an error', () => {
    const { status, stderr } = lowbitc('verify', tampered('damaged', 'wasm/glyph_cnn.wasm', changeWeights, false));
    expect([status, stderr.includes('LB0114')]).toEqual([1, true]);
  });
  test('weights that differ end with 3 and name sample, output and element', () => {
    const { status, stdout } = lowbitc('verify', tampered('mismatch', 'wasm/glyph_cnn.wasm', changeWeights, true), '--json');
    expect(status).toBe(3);
    const { targets } = JSON.parse(stdout) as { targets: { wasm: { mismatches: number; first: { output: string } } } };
    expect(targets.wasm.mismatches).toBeGreaterThan(0);
    expect(targets.wasm.first.output).toBe('logits');
  });
  test('a certificate of another program ends with 3', () => {
    const change = (bytes: Buffer): Buffer => Buffer.from(bytes.toString().replace(/"scanned": (\d+)/, '"scanned": 1'));
    expect(lowbitc('verify', tampered('forged', 'certificate.json', change, true)).status).toBe(3);
  });
});

describe('without a C compiler', () => {
  const both = join(scratch, 'both');
  const noCompiler = { CC: join(scratch, 'no-such-compiler') };
  beforeAll(() => { lowbitc('compile', ...glyphFlags, '-o', both); }, 240_000);

  test('eval and verify leave cpu out and say so', () => {
    const evaluated = lowbitcIn(root, noCompiler, 'eval', both, ...data, '--json');
    expect(evaluated.status).toBe(0);
    expect(JSON.parse(evaluated.stdout)).toMatchObject({ diagnostics: [{ code: 'LB0118' }] });
    expect(Object.keys((JSON.parse(evaluated.stdout) as { targets: object }).targets)).toEqual(['wasm']);
    expect(lowbitcIn(root, noCompiler, 'verify', both).stderr).toContain('"cpu" was not run');
  });
  test('cpu asked for by name is an error', () => {
    expect(lowbitcIn(root, noCompiler, 'eval', both, ...data, '--target', 'cpu').status).toBe(2);
  });
  test('run takes the next target', () => {
    expect(JSON.parse(lowbitcIn(root, noCompiler, 'run', both, ...data, '--json').stdout)).toMatchObject({ target: 'wasm', samples: 20 });
  });
});

test('print shows the kernel graph of a folder', () => {
  const { status, stdout } = lowbitc('print', folder);
  expect(status).toBe(0);
  expect(stdout).toMatch(/ : kernel /);
  expect(existsSync(join(folder, 'model.lbir'))).toBe(true);
});
