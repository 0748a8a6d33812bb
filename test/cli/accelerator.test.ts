/** Broken programs, files and machine descriptions: the user sees a message and an exit code, whichever command runs them. */
import { createHash } from 'node:crypto';
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { crc32, decodeProgram, encodeProgram } from '../../src/backends/accelerator/encode.ts';
import type { OpName, Synchronised } from '../../src/backends/accelerator/isa.ts';
import { example, glyphFlags, lowbitc, scratchFolder, type Ended } from './lowbitc.ts';

const scratch = scratchFolder();
const folder = join(scratch, 'good');
const compile = (target: string, out: string): Ended => lowbitc('compile', ...glyphFlags, '--cut-at', '/stem/stem.1/BatchNormalization_output_0', '-t', target, '-o', out, '-q');
const compiled = compile('accel:tiny', folder);
const data = ['--input', example('data/calib.npy'), '--count', '1'] as const;

type Edit = (bytes: Buffer) => Uint8Array;
/** A copy of the folder with files of accel/ changed; the manifest lists them as they are, unless `manifest` is false. */
const broken = (edits: Readonly<Record<string, Edit>>, manifest = true): string => {
  const copy = join(mkdtempSync(join(scratch, 'broken-')), 'out');
  cpSync(folder, copy, { recursive: true });
  const list = JSON.parse(readFileSync(join(copy, 'manifest.json'), 'utf8')) as { files: { path: string; sha256: string; bytes: number }[] };
  for (const [file, edit] of Object.entries(edits)) {
    const path = `accel/${file}`;
    const bytes = edit(readFileSync(join(copy, path)));
    writeFileSync(join(copy, path), bytes);
    const entry = list.files.find((one) => one.path === path)!;
    [entry.sha256, entry.bytes] = [createHash('sha256').update(bytes).digest('hex'), bytes.length];
  }
  if (manifest) writeFileSync(join(copy, 'manifest.json'), JSON.stringify(list));
  return copy;
};
const run = (path: string, command = 'run'): Ended => lowbitc(command, path, '--target', 'accel', ...data, ...(command === 'eval' ? ['--model', glyphFlags[0]] : []));
const seen = ({ status, stderr }: Ended): string => `${status}: ${stderr}`;
/** A message of ours, and nothing of the engine's. */
const expectPlain = ({ stderr, status }: Ended): void => {
  expect(stderr).not.toMatch(/\n\s+at .*[:(]\d+|\.m?[jt]s:\d+|internal error/);
  expect(status).not.toBe(70);
};
const json = (change: (value: never) => unknown): Edit => (bytes) => Buffer.from(JSON.stringify(change(JSON.parse(bytes.toString()) as never)));
const flip = (bit: number): Edit => (bytes) => bytes.map((byte, i) => (i === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte));
/** A flipped bit behind the header, and the checksum that belongs to it. */
const sealedFlip = (bit: number): Edit => (bytes) => {
  const out = Uint8Array.from(flip(bit)(bytes));
  new DataView(out.buffer).setUint32(8, crc32(out.subarray(16)), true);
  return out;
};
/** The first instruction of an op, changed. */
const edited = (op: OpName, change: object): Edit => (bytes) => {
  const program = decodeProgram(bytes);
  const at = program.findIndex((one) => one.op === op);
  expect(at).toBeGreaterThanOrEqual(0);
  return encodeProgram(program.map((one, i) => (i === at ? { ...one, ...('wait' in change || 'signal' in change ? change : { fields: { ...one.fields, ...change } }) } as Synchronised : one)));
};

test('the program runs as it was written', () => {
  expect(compiled.status, compiled.stderr).toBe(0);
  expect(seen(run(folder))).toBe('0: ');
  expect(run(folder, 'verify').status).toBe(0);
});

describe('each kind of trap is named, and ends with 1', () => {
  test.each<readonly [kind: string, edits: Readonly<Record<string, Edit>>]>([
    ['undecodable program', { 'program.bin': flip(8 * 40) }],
    ['undecodable program', { 'program.bin': (bytes) => bytes.subarray(0, bytes.length - 16) }],
    ['out of bounds', { 'program.bin': edited('LD', { chip: 2 ** 23 }) }],
    ['uninitialised read', { 'program.bin': edited('MM', { w: 12000 }) }],
    ['misaligned', { 'program.bin': edited('MM', { o: 2 }) }],
    ['bad field', { 'program.bin': edited('RQ', { channels: 0 }) }],
    ['bad shift', { 'program.bin': edited('RQ', { shift: 3 }) }],
    ['endless instruction', { 'program.bin': edited('LD', { n0: 65535, n1: 65535, f0: 0, f1: 0, c0: 0, c1: 0 }) }],
    ['endless instruction', { 'program.bin': edited('MM', { imageRows: 65535, imageColumns: 65535, rows: 65535, rowPitch: 0, columnPitch: 0, pitch: 0, tapRows: 65535, wTap: 0, wChannel: 0 }) }],
    ['deadlock', { 'program.bin': edited('MM', { wait: 15 }) }],
    ['unbalanced semaphore', { 'program.bin': edited('END', { signal: 1 }) }],
    ['race', { 'program.bin': edited('RQ', { wait: 0 }) }],
    ['unknown op', { 'target.json': json((machine: { ops: string[] }) => ({ ...machine, ops: machine.ops.filter((op) => op !== 'MM') })) }],
  ])('%s', (kind, edits) => {
    const ended = run(broken(edits));
    expect(seen(ended)).toMatch(kind === 'race' ? /^1: error LB0643: the accelerator program trapped \((race|uninitialised read)\)/ : new RegExp(`^1: error LB0643: the accelerator program trapped \\(${kind}\\)`));
    expectPlain(ended);
  });
  test('eval and verify say the same', () => {
    const path = broken({ 'program.bin': edited('RQ', { shift: 3 }) });
    for (const command of ['eval', 'verify']) expect(seen(run(path, command))).toMatch(/^1: .*trapped \(bad shift\)/);
  });
});

describe('damaged files', () => {
  test('a file that the manifest does not list so', () => {
    const ended = run(broken({ 'program.bin': flip(8 * 40) }, false));
    expect(seen(ended)).toMatch(/^1: .*its content is not what the manifest says/);
    expectPlain(ended);
  });
  test.each<readonly [what: string, status: number, says: string, edits: Readonly<Record<string, Edit>>]>([
    ['a cut blob', 1, 'memory.json says', { 'weights.bin': (bytes) => bytes.subarray(1) }],
    ['a cut memory.json', 1, 'it is not JSON', { 'memory.json': (bytes) => bytes.subarray(0, 100) }],
    ['an empty program.bin', 1, 'it does not begin with "LB1"', { 'program.bin': () => new Uint8Array(0) }],
    ['overlapping places', 1, 'overlap', { 'memory.json': json((memory: { outputs: object[]; inputs: { address: number }[] }) => ({ ...memory, outputs: memory.outputs.map((port) => ({ ...port, address: memory.inputs[0].address })) })) }],
    ['no memory', 1, 'bytes must be', { 'memory.json': json((memory: object) => ({ ...memory, bytes: 0 })) }],
    ['entries that are none', 1, 'must be objects', { 'memory.json': json((memory: object) => ({ ...memory, inputs: [null] })) }],
    ['a blob from elsewhere', 1, 'there is no blob', { 'memory.json': json((memory: { blobs: object[] }) => ({ ...memory, blobs: [{ ...memory.blobs[0], file: '../manifest.json' }] })) }],
    ['a missing output', 1, 'it does not give', { 'memory.json': json((memory: object) => ({ ...memory, outputs: [] })) }],
    ['a chip memory of no bytes', 2, 'memories.OBUF must be a whole number', { 'target.json': json((machine: { memories: object }) => ({ ...machine, memories: { ...machine.memories, OBUF: 0 } })) }],
    ['a description without lanes', 2, 'lanes is missing', { 'target.json': json((machine: object) => ({ ...machine, lanes: undefined })) }],
  ])('%s', (_, status, says, edits) => {
    const ended = run(broken(edits));
    expect([ended.status, ended.stderr]).toEqual([status, expect.stringContaining(says)]);
    expectPlain(ended);
  });
});

test.each<readonly [string, Readonly<Record<string, Edit>>]>([
  ['/stem/stem.1/BatchNormalization_output_0', { 'program.bin': edited('RQ', { high: 0, low: 0 }) }],
  ['image.normalized', { 'luts.bin': (bytes) => bytes.map((byte) => byte ^ 1) }],
])('a program that ends but says something else is found by verify, which names the first layer, here %s, and ends with 3', (layer, edits) => {
  const ended = run(broken(edits), 'verify');
  expect([ended.status, ended.stdout]).toEqual([3, expect.stringContaining(`from %${layer} on`)]);
  expectPlain(ended);
});

test('any flipped bit, sealed with its own checksum: the same codes, other codes (3), or a named trap (1)', () => {
  const program = readFileSync(join(folder, 'accel', 'program.bin'));
  const kinds = new Set<number>();
  fc.assert(fc.property(fc.integer({ min: 16 * 8, max: program.length * 8 - 1 }), (bit) => {
    const ended = run(broken({ 'program.bin': sealedFlip(bit) }), 'verify');
    expectPlain(ended);
    expect([0, 1, 3]).toContain(ended.status);
    if (ended.status === 1) expect(ended.stderr).toMatch(/the accelerator program trapped \([a-z ]+\): /);
    // what is run is what the words say: the decoded program encodes to them again
    if (ended.status !== 1) {
      const words = sealedFlip(bit)(program);
      expect(encodeProgram(decodeProgram(words))).toEqual(words);
    }
    kinds.add(ended.status!);
  }), { numRuns: 8, seed: 6 });
  expect(kinds.size).toBeGreaterThan(1);
}, 240_000);

describe('descriptions given to compile end with 2', () => {
  const described = (name: string, content: string): string => {
    const path = join(scratch, `${name}.json`);
    writeFileSync(path, content);
    return `accel:${path}`;
  };
  const tiny = (change: object): string => JSON.stringify({ ...(JSON.parse(readFileSync(join(folder, 'accel', 'target.json'), 'utf8')) as object), ...change });
  test.each<readonly [what: string, target: () => string, says: string]>([
    ['no such file', () => `accel:${join(scratch, 'nowhere.json')}`, 'nowhere.json'],
    ['not JSON', () => described('cut', tiny({}).slice(0, 200)), 'cannot be used'],
    ['a list', () => described('list', '[]'), 'cannot be used'],
    ['memories of no bytes', () => described('empty', tiny({ memories: { ABUF: 0, WBUF: 0, PBUF: 0, OBUF: 0 } })), 'memories.ABUF must be a whole number from 1024'],
    ['an instruction that is none', () => described('jump', tiny({ ops: ['END', 'LD', 'ST', 'JMP'] })), 'ops names "JMP"'],
  ])('%s', (_, target, says) => {
    const ended = compile(target(), join(scratch, 'never'));
    expect([ended.status, ended.stderr]).toEqual([2, expect.stringContaining(says)]);
    expectPlain(ended);
  });
});
