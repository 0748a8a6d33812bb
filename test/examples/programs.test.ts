// The worked examples, run as their comments say.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Report } from '../../src/artefact/report.ts';
import { example, glyphFlags, lowbitc, root, scratchFolder } from '../cli/lowbitc.ts';

const scratch = scratchFolder();

test('custom-pipeline: single passes, a pipeline of its own, C out', () => {
  const out = join(scratch, 'custom');
  const { status, stdout, stderr } = spawnSync(process.execPath, [example('custom-pipeline/custom-pipeline.mjs'), out], { cwd: root, encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  expect(stdout).toMatch(/0 faults/);
  expect(Number(/SQNR\s+([\d.]+) dB/.exec(stdout)?.[1])).toBeGreaterThan(20);
  expect(existsSync(join(out, 'cpu/glyph.c'))).toBe(true);
}, 240_000);

test('outlier-passes: what single passes are worth, before and after', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [example('outlier-passes/outlier-passes.mjs')], { cwd: root, encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  const [before, after, rectified] = [...stdout.matchAll(/^(?:w8a8| {5}…).* ([-\d.]+) dB, /gm)].map(([, decibels]) => Number(decibels));
  expect(after).toBeGreaterThan(before + 20);
  expect(rectified).toBeGreaterThan(before + 20);
  expect(stdout).toMatch(/scales by \w+ .*norm1/);
  expect(stdout).toMatch(/ReLU, repaired by/);
}, 240_000);

test('pass-plugin: the pass takes its place in the preset, with its options and its page', () => {
  const plugin = ['--plugin', example('pass-plugin/clip-weights.mjs')];
  expect(lowbitc('passes', 'clip-weights', ...plugin).stdout).toContain('sigmas  default 4');
  const out = join(scratch, 'plugin');
  const { status, stderr } = lowbitc('compile', ...glyphFlags, '-o', out, '-t', 'wasm', ...plugin);
  expect(status, stderr).toBe(0);
  const names = (JSON.parse(readFileSync(join(out, 'pipeline.json'), 'utf8')) as { passes: { pass: string }[] }).passes.map(({ pass }) => pass);
  expect(names.indexOf('clip-weights')).toBe(names.indexOf('quantize-activations') - 1);
  const { passes } = JSON.parse(readFileSync(join(out, 'report.json'), 'utf8')) as Report;
  expect(passes.find(({ pass }) => pass === 'clip-weights')?.notes.length).toBeGreaterThan(0);
  expect(lowbitc('verify', out).status).toBe(0);
}, 240_000);
