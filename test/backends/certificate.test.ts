import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { machineVariants } from '../../src/backends/c/variants.ts';
import { scanObjects } from '../../src/backends/certificate.ts';
import { emitC, emitWasm } from '../../src/backends/index.ts';
import { cCompiler } from '../../src/backends/run.ts';
import { Builder } from '../../src/ir/build.ts';
import { divisions, floatInstructions, scan } from '../../src/wasm/index.ts';
import { cases, sceneOf } from './kernel-cases.ts';

const b = new Builder();
const graph = b.finish('kernel', 'all', cases.map(({ name, build }, i) => ({ name: `${i}`, value: build(sceneOf(b, `${i} ${name}`, i)) })));
const folder = mkdtempSync(join(tmpdir(), 'lowbitc-certificate-'));
mkdirSync(join(folder, 'cpu'));
for (const { path, bytes } of emitC(graph, { name: 'all' }).artefacts) writeFileSync(join(folder, path), bytes);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const canScan = cCompiler() !== null && spawnSync('objdump', ['--version']).status === 0;

describe('every kernel op computes with integers only', () => {
  it('in the WebAssembly', () => {
    const found = scan(emitWasm(graph, { name: 'all' }).artefacts[0].bytes);
    expect([floatInstructions(found), divisions(found)]).toEqual([[], []]);
    expect(found.instructions).toBeGreaterThan(1000);
  });
  it.skipIf(!canScan).each([['-O3']])('in machine code made with %s (needs a C compiler and objdump)', (flag) => {
    const scans = scanObjects(join(folder, 'cpu'), [flag]);
    expect(Array.isArray(scans) && scans.map(({ file, float, division, foreign }) => ({ file, float, division, foreign }))).toEqual(
      ['all.c', ...machineVariants.map(({ name }) => `all_${name}.c`), 'all_weights.c'].sort().map((file) => ({ file, float: {}, division: {}, foreign: [] })));
  }, 300_000);
  it.skipIf(!canScan)('and the scan sees what it looks for (needs a C compiler and objdump)', () => {
    const bad = join(folder, 'bad');
    mkdirSync(bad);
    writeFileSync(join(bad, 'bad.c'), 'extern int f(int); float a(float x) { return x * 3.0f; }\nint b(int x, int y) { return x / y; }\nint c(float x) { return (int)x + f(1); }\n');
    const scans = scanObjects(bad);
    const [{ float, division, foreign }] = scans as Exclude<typeof scans, string>;
    expect(Object.keys(float).length).toBeGreaterThanOrEqual(2);
    expect(Object.keys(division).length).toBe(1);
    expect(foreign).toEqual(['f']);
  });
});
