import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { cli, example, glyphFlags, lowbitc, root, scratchFolder } from './lowbitc.ts';

const scratch = scratchFolder();

describe('a fault of the compiler', () => {
  const plugin = join(scratch, 'faulty.mjs');
  writeFileSync(plugin, `
    const pass = { name: 'fall-over', from: 'quant', to: 'quant', summary: 'fails', options: {}, run() { throw new TypeError('cannot read the tea leaves'); } };
    export default { name: 'faulty', passes: [{ pass, after: 'quantize-weights' }] };`);
  const out = join(scratch, 'out');
  const ended = lowbitc('compile', ...glyphFlags, '-o', out, '--plugin', plugin);

  test('ends with 70 and no stack', () => {
    expect(ended.status).toBe(70);
    expect(ended.stderr).toContain('error LB9001');
    expect(ended.stderr).toContain('cannot read the tea leaves');
    expect(ended.stderr).not.toMatch(/\.m?[jt]s:\d+/);
  });
  test('leaves no folder, but what reproduces it beside', () => {
    expect(existsSync(out)).toBe(false);
    expect(ended.stderr).toContain(`${out}.crash`);
    expect(readdirSync(`${out}.crash`).sort()).toEqual(['before-fall-over.lbir', 'command.txt', 'error.txt', 'rest.json']);
    expect(readFileSync(join(`${out}.crash`, 'before-fall-over.lbir'), 'utf8')).toMatch(/^graph @\S+ : quant /);
    expect((JSON.parse(readFileSync(join(`${out}.crash`, 'rest.json'), 'utf8')) as { pass: string }[])[0].pass).toBe('fall-over');
    expect(readFileSync(join(`${out}.crash`, 'command.txt'), 'utf8')).toContain(`--plugin ${plugin}`);
  });
  test('a pass that leaves an invalid graph is one too, and is named', () => {
    const breaking = join(scratch, 'breaking.mjs');
    writeFileSync(breaking, `
      const pass = { name: 'drop-inputs', from: 'quant', to: 'quant', summary: 'breaks', options: {}, run: (graph) => ({ ...graph, inputs: [] }) };
      export default { name: 'breaking', passes: [{ pass, after: 'quantize-weights' }] };`);
    const { status, stderr } = lowbitc('compile', ...glyphFlags, '-o', join(scratch, 'broken'), '--plugin', breaking);
    expect(status).toBe(70);
    expect(stderr).toMatch(/in {2}drop-inputs, step \d+ of \d+/);
  });
});

test('two owners of a pass name: usage, both named', () => {
  const plugin = join(scratch, 'clash.mjs');
  writeFileSync(plugin, `export default { name: 'other', passes: [{ pass: { name: 'correct-bias', from: 'quant', to: 'quant', summary: '', options: {}, run: (graph) => graph } }] };`);
  const { status, stderr } = lowbitc('passes', '--plugin', plugin);
  expect(status).toBe(2);
  expect(stderr).toContain('"lowbitc"');
  expect(stderr).toContain('"other"');
});

test('Ctrl-C ends with 130 and leaves nothing half-made', async () => {
  const out = join(scratch, 'interrupted');
  const child = spawn(process.execPath, [cli, 'compile', example('models/glyph-vit.onnx'), '-o', out, '--calib', example('data/calib.npy'), '-v'], { cwd: root });
  await new Promise<void>((resolve) => child.stderr.once('data', () => resolve()));
  child.kill('SIGINT');
  expect(await new Promise((resolve) => child.once('exit', resolve))).toBe(130);
  expect(readdirSync(scratch).filter((name) => name.includes('interrupted'))).toEqual([]);
});

describe('bad data is a usage error', () => {
  const npy = (name: string, descr: string, shape: string, bytes: Uint8Array): string => {
    const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }`.padEnd(117) + '\n';
    const path = join(scratch, name);
    writeFileSync(path, Buffer.concat([Buffer.from([0x93, ...Buffer.from('NUMPY'), 1, 0, header.length, 0]), Buffer.from(header), bytes]));
    return path;
  };
  const compile = (calib: string) => lowbitc('compile', example('models/glyph-cnn.onnx'), '-o', join(scratch, 'never'), '--calib', calib);
  const floats = new Float32Array(1024);
  test.each<[string, () => string]>([
    ['a missing file', () => join(scratch, 'nothing.npy')],
    ['a file that is no .npy', () => example('README.md')],
    ['a wrong shape', () => npy('shape.npy', '<f4', '(1, 1000)', new Uint8Array(4000))],
    ['a file that ends early', () => npy('short.npy', '<f4', '(4, 1024)', new Uint8Array(4096))],
    ['NaN', () => npy('nan.npy', '<f4', '(1, 1024)', new Uint8Array(floats.map((_, i) => (i === 7 ? NaN : 0)).buffer))],
    ['no samples', () => npy('none.npy', '<f4', '(0, 1024)', new Uint8Array(0))],
  ])('%s', (_, path) => {
    const { status, stderr } = compile(path());
    expect(status).toBe(2);
    expect(stderr).toMatch(/error LB05\d\d: /);
    expect(stderr).not.toMatch(/\.[jt]s:\d+/);
    expect(existsSync(join(scratch, 'never'))).toBe(false);
  });
  test('--mean with float data says what to do', () => {
    const { status, stderr } = lowbitc('compile', example('models/glyph-cnn.onnx'), '-o', join(scratch, 'never'), '--calib', npy('f.npy', '<f4', '(1, 1024)', new Uint8Array(4096)), '--mean', '1', '--std', '2');
    expect(status).toBe(2);
    expect(stderr).toContain('uint8 or int16');
  });
});

test('a folder that cannot be written is a usage error', () => {
  mkdirSync(join(scratch, 'file'), { recursive: true });
  writeFileSync(join(scratch, 'file', 'plain'), '');
  const { status, stderr } = lowbitc('compile', ...glyphFlags, '-t', 'wasm', '-o', join(scratch, 'file', 'plain', 'out'));
  expect([status, stderr.includes('LB0122')]).toEqual([2, true]);
});
