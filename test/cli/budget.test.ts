/** Bits chosen within a budget, as a user asks for them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Manifest } from '../../src/artefact/manifest.ts';
import type { Report } from '../../src/artefact/report.ts';
import { widthOf } from '../../src/ir/cost.ts';
import { example, glyphFlags, lowbitc, scratchFolder } from './lowbitc.ts';

const scratch = scratchFolder();
const compile = (output: string, ...more: readonly string[]) => lowbitc('compile', ...glyphFlags, '--calib-count', '48', '-t', 'wasm', '-o', join(scratch, output), ...more);
const read = <T>(...path: readonly string[]): T => JSON.parse(readFileSync(join(scratch, ...path), 'utf8')) as T;

/** Between what w4a8 and what w8a8 takes. */
const most = 49 * 1024;
const cache = join(scratch, 'cache');
let mixed: ReturnType<typeof compile>;
beforeAll(() => { mixed = compile('mixed', '--budget', 'size=49K', '--cache', cache, '--keep', 'logits=8'); }, 240_000);

describe('a budget of size', () => {
  test('is kept by the artefact, to which the report predicted it', () => {
    expect(mixed.status, mixed.stderr).toBe(0);
    const { weightBytes, bits, layers } = read<Manifest>('mixed', 'manifest.json');
    const { allocation } = read<Report>('mixed', 'report.json');
    expect(bits).toBe('mixed');
    expect(weightBytes).toBeLessThanOrEqual(most);
    expect(weightBytes).toBeGreaterThan(0.8 * most);
    expect(Math.abs(allocation!.limits[0].predicted / weightBytes - 1)).toBeLessThan(0.01);
    expect(new Set(layers.map(({ weightBits }) => weightBits)).size).toBeGreaterThan(1);
    expect(layers.map((layer) => [layer.name.replace(/\.acc$/, ''), widthOf(layer)])).toEqual(allocation!.layers.map(({ name, chosen }) => [name, chosen]));
  });
  test('says why: losses of all choices, what a tenth more buys, the front', () => {
    const { loss, layers, limits, front, candidates } = read<Report>('mixed', 'report.json').allocation!;
    expect(loss.gap).toBeLessThan(0.01);
    expect(candidates.filter(({ chosen }) => chosen)).toHaveLength(1);
    const [chosen, other] = candidates.toSorted((a, b) => Number(b.chosen) - Number(a.chosen));
    expect(chosen.kl).toBe(loss.measured);
    // the widest uniform network that fits is among those tried, and is not better in both
    expect(candidates.some(({ name }) => name.startsWith('uniform'))).toBe(true);
    expect(other.kl! < chosen.kl! && other.noise < chosen.noise).toBe(false);
    expect(limits[0].tenthMoreSaves).toBeGreaterThan(0);
    expect(front.map(({ loss: own }) => own)).toEqual(front.map(({ loss: own }) => own).toSorted((a, b) => b - a));
    for (const { choices, why } of layers) {
      // fewer bits lose more; a codebook, which channels share, may lose more or less than codes of its bits
      const codes = choices.filter(({ widths }) => !/^w\dc/.test(widths)).map(({ loss: own }) => own);
      expect(codes).toEqual(codes.toSorted((a, b) => a - b));
      expect(why).not.toBe('');
    }
    for (const word of ['bits by layer', 'a tenth more', 'size and least loss', 'proven best']) expect(mixed.stdout).toContain(word);
  });
  test('leaves a kept layer its bits', () => {
    const kept = read<Report>('mixed', 'report.json').allocation!.layers.at(-1)!;
    expect(kept).toMatchObject({ name: 'logits', chosen: 'w8a8', kept: true });
  });
  test('is replayed by the pipeline without measuring again: the same program', () => {
    const again = compile('again', '--passes', `@${join(scratch, 'mixed', 'pipeline.json')}`);
    expect(again.status, again.stderr).toBe(0);
    const files = (folder: string): object => Object.fromEntries(read<Manifest>(folder, 'manifest.json').files.filter(({ path }) => path !== 'report.json').map(({ path, sha256 }) => [path, sha256]));
    expect(files('again')).toEqual(files('mixed'));
  }, 240_000);
  test('is the same bits on any number of threads and with measurements that were kept', () => {
    const threads = compile('threads', '--budget', 'size=49K', '--keep', 'logits=8', '--threads', '2', '--cache', cache);
    expect(threads.status, threads.stderr).toBe(0);
    expect(read<Manifest>('threads', 'manifest.json').files).toEqual(read<Manifest>('mixed', 'manifest.json').files);
  }, 240_000);
});

describe('a clear answer', () => {
  test('to a budget of zero: the nearest that can be met', () => {
    const { status, stderr } = compile('zero', '--budget', 'size=0', '--cache', cache);
    expect(status).toBe(4);
    expect(stderr).toMatch(/LB0720: the budget size=0 cannot be met: the least bits everywhere take \d+/);
    expect(stderr).toMatch(/give at least --budget size=\d+/);
  }, 240_000);
  test('to rules that leave too little: --keep with a budget below it', () => {
    const { status, stderr } = compile('kept', '--budget', 'size=50K', '--keep', '*=8', '--cache', cache);
    expect(status).toBe(4);
    expect(stderr).toContain('cannot be met');
  }, 240_000);
  test('to a layer that is kept at bits which the others are not offered', () => {
    const { status, stderr } = compile('narrow', '--budget', 'size=50K', '--keep', 'logits=4', '--effort', 'low', '--calib-count', '16', '--allocate', 'seconds: 0');
    expect(status, stderr).toBe(0);
    expect(read<Report>('narrow', 'report.json').allocation!.layers.at(-1)).toMatchObject({ name: 'logits', chosen: 'w4a4', kept: true });
  }, 240_000);
  test('to layers that read one value, kept at different bits', () => {
    const heads = ['q=8', 'k=4'].flatMap((rest) => ['--keep', `/blocks.0/attn/MatMul_1_output_0.${rest}`]);
    const { status, stderr } = lowbitc('compile', example('models/glyph-vit.onnx'), '--calib', example('data/calib.npy'), '--calib-count', '4', '--mean', '127.5', '--std', '127.5', '--effort', 'low',
      '-t', 'wasm', '-o', join(scratch, 'heads'), '--budget', 'size=150K', '--allocate', 'activations: [4, 8]', ...heads);
    expect(status).toBe(2);
    expect(stderr).toMatch(/LB0726: --keep gives different bits to layers that read one value: .*MatMul_1_output_0\.q".*MatMul_1_output_0\.k"/);
    expect(stderr).toContain('give them the same bits');
  }, 240_000);
  test('to a solver that runs out of time: bits within the budget, and how far from the best they may be', () => {
    const { status, stdout, stderr } = compile('hasty', '--budget', 'size=48K', '--cache', cache, '--allocate', 'seconds: 0');
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/glpk\.js ran out of time, within [\d.]+ % of the bound/);
    expect(read<Manifest>('hasty', 'manifest.json').weightBytes).toBeLessThanOrEqual(48 * 1024);
  }, 240_000);
  test.each([
    ['options for bits that are not chosen', ['--bits', 'w4a8', '--allocate', 'seconds: 1'], '--allocate is for bits that are chosen'],
    ['an option of allocate-bits that is none', ['--budget', 'size=50K', '--allocate', 'second: 1'], 'it has no option "second"'],
    ['bits that are set and chosen at once', ['--budget', 'size=50K', '--bits', 'w4a8'], 'leave one of them out'],
    ['a budget that cannot be read', ['--budget', 'flash=50K'], 'there is no resource "flash"'],
    ['a rule for no layer', ['--budget', 'size=50K', '--keep', 'nothing=4'], 'matches no layer'],
    ['a latency without timings', ['--budget', 'latency=1ms'], 'lowbitc profile'],
  ] as const)('to %s', (_, flags, words) => {
    const { status, stderr } = compile('wrong', ...flags);
    expect(status).toBe(2);
    expect(stderr).toContain(words);
  }, 240_000);
});
