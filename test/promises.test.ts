// What the README claims, on the shipped models: integers only, no division, the same bytes, every target equal to the reference.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { certify, type Certificate } from '../src/artefact/certificate.ts';
import { toolboxWith } from '../src/compile.ts';
import { builtInPasses } from '../src/passes/index.ts';
import { example, lowbitc, root, scratchFolder } from './cli/lowbitc.ts';

const scratch = scratchFolder();
const compile = (model: string, output: string, ...more: readonly string[]) => lowbitc(
  'compile', example(`models/${model}.onnx`), '-o', output, '--calib', example('data/calib.npy'), '--calib-count', '24', '--mean', '127.5', '--std', '127.5', ...more);
const has = (tool: string): boolean => spawnSync(tool, ['--version']).status === 0;
const filesOf = (folder: string): ReadonlyMap<string, Buffer> => new Map(readdirSync(folder, { recursive: true, encoding: 'utf8', withFileTypes: true })
  .filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name)).sort().map((path) => [path.slice(folder.length), readFileSync(path)]));

describe.each(['glyph-cnn', 'glyph-vit'])('%s', (model) => {
  const folder = join(scratch, model);
  const id = model.replace('-', '_');
  beforeAll(() => {
    const { status, stderr } = compile(model, folder, '--threads', '1');
    if (status !== 0) throw new Error(stderr);
  }, 240_000);

  test('the same input and options give the same bytes, with any number of threads', () => {
    const again = join(scratch, `${model}-again`);
    expect(compile(model, again, '--threads', '3').status).toBe(0);
    const [first, second] = [filesOf(folder), filesOf(again)];
    expect([...second.keys()]).toEqual([...first.keys()]);
    for (const [path, bytes] of first) expect(bytes.equals(second.get(path)!), path).toBe(true);
  }, 240_000);

  test('every target equals the reference bit for bit', () => {
    const { status, stdout } = lowbitc('verify', folder, '--input', `image=${example('data/eval.npy')}`, '--count', '12');
    expect(status, stdout).toBe(0);
  }, 240_000);

  test('the certificate finds no real number and no division', () => {
    const certificate = JSON.parse(readFileSync(join(folder, 'certificate.json'), 'utf8')) as Certificate;
    expect(certificate.integerOnly).toBe(true);
    const code = [...filesOf(folder).keys()].map((path) => path.slice(1)).filter((path) => /\.(?:c|h|wasm)$/.test(path)).sort();
    expect(code).toEqual(expect.arrayContaining([`cpu/${id}.c`, `cpu/${id}.h`, `cpu/${id}_weights.c`, 'cpu/main.c', `wasm/${id}.wasm`]));
    expect(certificate.files.map(({ path }) => path).sort()).toEqual(code);
  });

  test.skipIf(!has('arm-none-eabi-gcc') || !has('arm-none-eabi-nm'))(`object code for a core without divider or FPU calls no helper for either${has('arm-none-eabi-gcc') ? '' : ': skipped, there is no arm-none-eabi-gcc'}`, () => {
    const object = join(scratch, `${id}-m0.o`);
    expect(spawnSync('arm-none-eabi-gcc', ['-mcpu=cortex-m0', '-mthumb', '-O2', '-std=c99', '-c', join(folder, 'cpu', `${id}.c`), '-o', object]).status).toBe(0);
    const symbols = spawnSync('arm-none-eabi-nm', ['--undefined-only', object], { encoding: 'utf8' }).stdout.split('\n').map((line) => line.trim().replace(/^U /, '')).filter((name) => name !== '');
    const helpers = symbols.filter((name) => !name.startsWith(`${id}_`));
    // 64-bit multiplication and shifts, leading zeros, switch tables and copies are integer work
    expect(helpers.filter((name) => !/^(__aeabi_(lmul|llsl|llsr|lasr|memcpy\d?|memset\d?|memclr\d?|memmove\d?)|__clz[sd]i2|__gnu_thumb1_case_\w+|memcpy|memset|memmove)$/.test(name))).toEqual([]);
  }, 240_000);

  const machine = { x64: /\b(?:v?(?:add|sub|mul|div|sqrt|min|max|cmp|comi|ucomi|cvt\w*2)(?:ss|sd|ps|pd)|v?cvt\w+|f(?:ld|st|add|mul|div|ild)\w*|i?div[bwlq]?)\b/, arm64: /\b(?:f[a-z]+|[su]cvtf|[su]div)\b/ }[process.arch as string];
  const canDisassemble = machine !== undefined && has('cc') && has('objdump');
  test.skipIf(!canDisassemble)(`object code for this machine holds no float arithmetic and no division${canDisassemble ? '' : ': skipped, there is no cc or objdump'}`, () => {
    const object = join(scratch, `${id}.o`);
    expect(spawnSync('cc', ['-O3', '-std=c99', '-fno-strict-aliasing', '-c', join(folder, 'cpu', `${id}.c`), '-o', object]).status).toBe(0);
    const listing = spawnSync('objdump', ['-d', '--no-show-raw-insn', object], { encoding: 'utf8', maxBuffer: 2 ** 28 }).stdout;
    const mnemonics = [...listing.matchAll(/^\s+[\da-f]+:\s+(?:(?:rep\w*|lock|data16|cs)\s+)*([a-z][\w.]*)/gm)].map((match) => match[1]);
    expect(mnemonics.length).toBeGreaterThan(1000);
    expect([...new Set(mnemonics.filter((name) => machine!.test(name)))]).toEqual([]);
  }, 240_000);
});

test('the scan sees what it looks for', () => {
  const scanned = (text: string): Certificate['files'][number] =>
    certify({ stage: 'kernel', name: 'g', inputs: [], nodes: [], outputs: [] }, [{ path: 'x.c', bytes: new TextEncoder().encode(text) }]).files[0];
  expect(scanned('int f(int a) { return a / 3 + a % 2; /* 1.5 / 2 */ } // x / y\nconst char *s = "a / 1.0f";')).toMatchObject({ float: {}, division: { '/': 1, '%': 1 } });
  expect(scanned('float g(double x) { return 1.5f * x + 2e3; }')).toMatchObject({ float: { float: 1, double: 1, '1.5f': 1, '2e3': 1 }, division: {} });
  expect(scanned('#define M_INPUT_X_SCALE 0.0125f\nint h = 0x1e3u;')).toMatchObject({ float: {}, division: {} });
});

describe('every pass', () => {
  test.each(builtInPasses.map((pass) => [pass.name, pass] as const))('%s says what it does, and has a file and a page', (name, pass) => {
    expect(pass.summary).not.toBe('');
    for (const option of Object.values(pass.options as Record<string, { doc: string }>)) expect(option.doc).not.toBe('');
    expect(readdirSync(join(root, 'src/passes'))).toContain(`${name}.ts`);
    expect(lowbitc('passes', name).stdout).toContain(pass.summary);
  });
  test('the toolbox holds them all', () => {
    expect([...toolboxWith([]).passes.keys()]).toEqual(builtInPasses.map(({ name }) => name));
  });
});
