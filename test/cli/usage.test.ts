import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { example, glyphFlags, lowbitc, lowbitcIn, root, scratchFolder } from './lowbitc.ts';

const scratch = scratchFolder();
const codeOf = ({ stderr }: { stderr: string }): string | undefined => /(?:error|warning) (LB\d{4})/.exec(stderr)?.[1];

describe('help and version', () => {
  test('no arguments: help, 0', () => {
    const { status, stdout, stderr } = lowbitc();
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toContain('Exit codes:');
  });
  test.each(['compile', 'check', 'run', 'eval', 'verify', 'print', 'passes'])('%s --help shows an example', (command) => {
    const { status, stdout } = lowbitc(command, '--help');
    expect(status).toBe(0);
    expect(stdout).toMatch(new RegExp(`Examples?:\n  lowbitc ${command}`));
  });
  test('--version is that of the package', () => {
    expect(lowbitc('--version').stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

describe('usage errors end with 2', () => {
  const compile = ['compile', ...glyphFlags, '-o', join(scratch, 'never')];
  test.each<[string, readonly string[], string]>([
    ['an unknown command', ['compil'], 'LB0101'],
    ['an unknown flag', ['compile', 'x.onnx', '--traget', 'cpu'], 'LB0101'],
    ['a missing argument', ['compile'], 'LB0101'],
    ['no output folder', ['compile', example('models/glyph-cnn.onnx'), '--calib', example('data/calib.npy')], 'LB0101'],
    ['a model that is not there', ['compile', 'nowhere.onnx', '-o', join(scratch, 'never')], 'LB0104'],
    ['a model that is a folder', ['check', root], 'LB0104'],
    ['bits that make no sense', [...compile, '--bits', '8'], 'LB0102'],
    ['bits that are not available', [...compile, '--bits', 'w4a3'], 'LB0102'],
    ['an unknown effort', [...compile, '--effort', 'most'], 'LB0101'],
    ['an unknown target', [...compile, '-t', 'gpu'], 'LB0108'],
    ['a bad --dim', [...compile, '--dim', 'N'], 'LB0102'],
    ['a bad --shape', [...compile, '--shape', 'image=1x3xk'], 'LB0102'],
    ['a bad --mean', [...compile, '--mean', 'a'], 'LB0102'],
    ['an unknown pass', [...compile, '--passes', 'quantise-weights'], 'LB0701'],
    ['a pipeline that cannot be read', [...compile, '--passes', 'a{'], 'LB0704'],
    ['a pass option that is not there', [...compile, '--passes', 'quantize-weights{depth: 3}'], 'LB0702'],
    ['--keep that matches no layer', [...compile, '--keep', 'nothing*=8'], 'LB0119'],
    ['--keep with other bits', [...compile, '--keep', 'logits=16'], 'LB0103'],
    ['--stop-after a pass that does not run', [...compile, '--stop-after', 'nothing'], 'LB0707'],
    ['a plugin that is not there', [...compile, '--plugin', './nowhere.js'], 'LB0113'],
    ['no data', ['compile', example('models/glyph-cnn.onnx'), '-o', join(scratch, 'never')], 'LB0301'],
    ['data and --synthetic', [...compile, '--synthetic'], 'LB0101'],
    ['run on a folder that is not there', ['run', join(scratch, 'nothing')], 'LB0107'],
    ['an unknown pass to explain', ['passes', 'fold-batchnorm'], 'LB0701'],
  ])('%s', (_, args, code) => {
    const ended = lowbitc(...args);
    expect([ended.status, codeOf(ended)], ended.stderr).toEqual([2, code]);
    expect(ended.stdout).toBe('');
    expect(ended.stderr).not.toMatch(/\.[jt]s:\d+/);
  });

  test('suggestions for what was meant', () => {
    expect(lowbitc('compil').stderr).toContain('did you mean "compile"?');
    expect(lowbitc('passes', 'fold-batchnorm').stderr).toContain('did you mean "fold-batch-norm"?');
  });
});

describe('bad models end with 1, unsupported ones with 5', () => {
  test.each<[string, Uint8Array]>([
    ['an empty file', new Uint8Array(0)],
    ['text', new TextEncoder().encode('this is no model\n')],
    ['zeros', new Uint8Array(1000)],
  ])('%s', (name, bytes) => {
    const path = join(scratch, `${name.replace(' ', '-')}.onnx`);
    writeFileSync(path, bytes);
    const { status, stderr } = lowbitc('check', path);
    expect(status, stderr).toBe(1);
    expect(stderr).toMatch(/^error LB04\d\d: /);
    expect(stderr).not.toMatch(/\.[jt]s:\d+/);
  });
});

describe('--json', () => {
  test('an error is one document with its code', () => {
    const { status, stdout, stderr } = lowbitc('compile', 'nowhere.onnx', '-o', 'x', '--json');
    expect([status, stderr]).toEqual([2, '']);
    const { diagnostics, exitCode } = JSON.parse(stdout) as { diagnostics: { code: string; help: string }[]; exitCode: number };
    expect(exitCode).toBe(2);
    expect(diagnostics).toMatchObject([{ code: 'LB0104', severity: 'error' }]);
  });
  test('so is a command line that cannot be parsed', () => {
    const { stdout } = lowbitc('compile', '--no-such-flag', '--json');
    expect(JSON.parse(stdout)).toMatchObject({ exitCode: 2, diagnostics: [{ code: 'LB0101' }] });
  });
  test('check: shapes, operators and costs', () => {
    const { status, stdout, stderr } = lowbitc('check', example('models/glyph-cnn.onnx'), '--json');
    expect([status, stderr]).toEqual([0, '']);
    const report = JSON.parse(stdout) as { inputs: object[]; operators: Record<string, number>; parameters: number; macs: number; diagnostics: object[] };
    expect(report).toMatchObject({ inputs: [{ name: 'image', shape: '1, 1, 32, 32' }], outputs: [{ name: 'logits' }], supported: true, macs: 2768768 });
    expect(report.operators['BatchNormalization']).toBe(9);
  });
});

describe('colours', () => {
  const args = ['compile', 'nowhere.onnx', '-o', 'x'];
  test('FORCE_COLOR colours, NO_COLOR wins over it', () => {
    expect(lowbitcIn(root, { NO_COLOR: undefined, FORCE_COLOR: '1' }, ...args).stderr).toContain('\x1b[');
    expect(lowbitcIn(root, { NO_COLOR: '1', FORCE_COLOR: '1' }, ...args).stderr).not.toContain('\x1b[');
    expect(lowbitcIn(root, { NO_COLOR: undefined }, ...args).stderr).not.toContain('\x1b[');
  });
});

test('the printed float graph can be read again', () => {
  mkdirSync(scratch, { recursive: true });
  const { status, stdout } = lowbitc('print', example('models/glyph-cnn.onnx'));
  expect(status).toBe(0);
  expect(stdout).toMatch(/^graph @\S+ : float \(%image: f32\[1, 1, 32, 32\]\)/);
});
