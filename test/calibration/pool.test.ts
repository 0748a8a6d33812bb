import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { canSend, fromPlain, toPlain } from '../../src/calibration/plain-graph.ts';
import { createExecutor } from '../../src/calibration/executor.ts';
import { Builder } from '../../src/ir/build.ts';
import { concat, linear, relu } from '../../src/ir/ops/index.ts';
import { f32, tensor } from '../../src/ir/type.ts';
import { createRandom } from '../../src/numerics/random.ts';

const root = resolve(import.meta.dirname, '../..');
let dist = '';
beforeAll(() => {
  dist = mkdtempSync(join(tmpdir(), 'pool-'));
  // only the files that the test needs, so that the rest of the sources cannot fail it
  const built = spawnSync(process.execPath, [
    join(root, 'node_modules/typescript/bin/tsc'), '--ignoreConfig', '--outDir', dist, '--rootDir', 'src', '--module', 'nodenext', '--target', 'es2023', '--lib', 'es2023',
    '--types', 'node', '--rewriteRelativeImportExtensions', '--skipLibCheck', '--noCheck', 'src/calibration/statistics.ts', 'src/calibration/worker.ts', 'src/ir/build.ts',
  ], { cwd: root, encoding: 'utf8' });
  expect(built.stdout + built.stderr).toBe('');
  symlinkSync(join(root, 'node_modules'), join(dist, 'node_modules'));
  writeFileSync(join(dist, 'package.json'), '{ "type": "module" }');
}, 240_000);
afterAll(() => rmSync(dist, { recursive: true }));

const run = (script: string): { readonly stdout: string; readonly stderr: string } => {
  writeFileSync(join(dist, 'script.js'), `
    import { Builder } from './ir/build.js';
    import { linear, relu } from './ir/ops/index.js';
    import { f32, tensor } from './ir/type.js';
    import { createRandom } from './numerics/random.js';
    import { syntheticSamples, samplesInMemory } from './calibration/samples.js';
    import { collectStatistics } from './calibration/statistics.js';
    import { defineJob, mapSamples } from './calibration/pool.js';
    const random = createRandom(1);
    const b = new Builder();
    const x = b.input('x', f32(1, 50, 64));
    const weight = b.constant('w', tensor(f32(96, 64), Float32Array.from({ length: 96 * 64 }, () => random.normal())));
    const graph = b.finish('float', 'g', [{ name: 'y', value: b.emit(relu, { x: b.emit(linear, { x, weight, bias: null }) }) }]);
    const samples = syntheticSamples(graph.inputs, 37, 5);
    ${script}`);
  return spawnSync(process.execPath, [join(dist, 'script.js')], { cwd: dist, encoding: 'utf8' });
};

describe('threads', () => {
  it('any number gives the same bytes, in order', () => {
    const { stdout, stderr } = run(`
      const text = (statistics) => JSON.stringify([...statistics].map(([name, { channels, histogram, ...rest }]) =>
        [name, rest, [...channels.sum], [...channels.squares], histogram.first, histogram.exponent, [...histogram.counts]]));
      const all = [];
      for (const threads of [1, 2, 3, 7, undefined]) all.push(text(await collectStatistics(graph, samples, { histogram: true, ...(threads && { threads }) })));
      const order = [];
      const { statisticsJob } = await import('./calibration/statistics.js');
      await mapSamples(graph, samples, statisticsJob, { values: [], histogram: false }, (_, first) => order.push(first), { threads: 3 });
      console.log(all.every((one) => one === all[0]), all[0].length > 10000, order.join());`);
    expect(stderr).toBe('');
    expect(stdout.trim()).toBe(`true true ${Array.from({ length: 10 }, (_, i) => 4 * i).join()}`);
  }, 240_000);

  it('an error in a thread is the same error here', () => {
    const { stdout, stderr } = run(`
      const { writeFileSync } = await import('node:fs');
      const { encodeNpy } = await import('./calibration/npy.js');
      const { openSamples } = await import('./calibration/samples.js');
      const data = new Float32Array(20 * 3200);
      data[13 * 3200] = NaN;
      writeFileSync('nan.npy', encodeNpy([20, 3200], data));
      const bad = openSamples('nan.npy', graph.inputs);
      for (const threads of [1, 2]) await collectStatistics(graph, bad, { threads }).catch((error) => console.log(error.name, error.kind, error.diagnostics[0].code));`);
    expect(stderr).toBe('');
    expect(stdout.trim().split('\n')).toEqual(['CompileError usage LB0506', 'CompileError usage LB0506']);
  }, 240_000);
});

it('a graph survives the way to another thread', () => {
  const random = createRandom(2);
  const b = new Builder();
  const x = b.input('x', f32(1, 4));
  const weight = b.constant('w', tensor(f32(3, 4), Float32Array.from({ length: 12 }, () => random.normal())));
  const y = b.emit(linear, { x, weight, bias: null });
  const graph = b.finish('float', 'g', [{ name: 'y', value: b.emit(concat, { xs: [y, x, b.emit(relu, { x: y })] }, { axis: 1 }) }, { name: 'w', value: weight }]);
  const sample = { x: tensor(f32(1, 4), Float32Array.of(1, -2, 3, 4)) };
  const copy = fromPlain(structuredClone(toPlain(graph))) as typeof graph;
  expect(createExecutor(copy).run(sample)).toEqual(createExecutor(graph).run(sample));
  expect(toPlain(copy)).toEqual(toPlain(graph));
  expect(canSend(graph)).toBe(true);
  // an op of a plugin, though it may bear the name of one of ours, is known here only
  expect(canSend({ ...graph, nodes: graph.nodes.map((node) => ({ ...node, decl: { ...node.decl } })) })).toBe(false);
});
