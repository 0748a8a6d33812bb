// Hidden channels in groups with scales of their own: the function stays, and the integer program of every target equals the reference.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, it } from 'vitest';
import { emitC, emitWasm, interfaceOf } from '../../../src/backends/index.ts';
import { cCompiler, runC, runWasm, type Codes } from '../../../src/backends/run.ts';
import { createCalibration } from '../../../src/calibration/calibration.ts';
import { quantized } from '../../../src/calibration/codes.ts';
import { samplesInMemory } from '../../../src/calibration/samples.ts';
import { Builder } from '../../../src/ir/build.ts';
import { evaluateGraph } from '../../../src/ir/evaluate.ts';
import type { Graph } from '../../../src/ir/graph.ts';
import { add, gelu, layerNorm, linear, relu, silu } from '../../../src/ir/ops/index.ts';
import { parseGraph } from '../../../src/ir/parse.ts';
import { f32, tensor } from '../../../src/ir/type.ts';
import { verify } from '../../../src/ir/verify.ts';
import { createRandom, type Random } from '../../../src/numerics/random.ts';
import { builtInPasses, parsePipeline, resolvePipeline, runPipeline } from '../../../src/passes/index.ts';
import { largestDifference } from '../../../src/passes/migration/apply.ts';
import { hiddenValues, inGroups } from '../../../src/passes/migration/hidden-groups.ts';
import { bareContext } from '../../../src/passes/pass.ts';

const scratch = mkdtempSync(join(tmpdir(), 'lowbitc-groups-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const [WIDTH, HIDDEN] = [6, 24];

/** Two residual MLPs with functions drawn at random; with `read`, the first hidden value is read a second time. */
const mlps = (random: Random, read: boolean): Graph<'float'> => {
  const b = new Builder();
  const constant = (...shape: readonly number[]) => b.constant('c', tensor(f32(...shape), Float32Array.from({ length: shape.reduce((p, n) => p * n, 1) }, () => random.normal())));
  let x = b.input('x', f32(1, 5, WIDTH));
  const outputs = [];
  for (let i = 0; i < 2; i++) {
    const normal = b.emit(layerNorm, { x, scale: constant(WIDTH), bias: null });
    let hidden = b.emit(linear, { x: normal, weight: constant(HIDDEN, WIDTH), bias: random.below(2) === 0 ? null : constant(HIDDEN) });
    if (read && i === 0) outputs.push({ name: 'hidden', value: b.emit(relu, { x: hidden }) });
    for (let n = random.below(3); n > 0; n--) hidden = b.emit([gelu, relu, silu][random.below(3)], { x: hidden });
    x = b.emit(add, { x, y: b.emit(linear, { x: hidden, weight: constant(WIDTH, HIDDEN), bias: random.below(2) === 0 ? null : constant(WIDTH) }) });
  }
  return b.finish('float', 'g', [...outputs, { name: 'y', value: x }]);
};

it('cuts keep the function of random MLPs, and leave hidden values alone that are read twice', () => {
  fc.assert(fc.property(fc.nat(2 ** 31), fc.boolean(), fc.uniqueArray(fc.integer({ min: 1, max: HIDDEN - 1 }), { minLength: 1, maxLength: 3 }), (seed, read, inner) => {
    const random = createRandom(seed);
    const graph = mlps(random, read);
    const hidden = hiddenValues(graph);
    expect(hidden.length).toBe(read ? 1 : 2);
    const ends = [...inner.sort((a, b) => a - b), HIDDEN];
    const cut = inGroups(graph, new Map(hidden.map((one) => [one, ends])), 'test');
    expect(verify(cut)).toEqual([]);
    expect(cut.nodes.filter(({ op }) => op === 'linear').length).toBe(2 * (ends.length * hidden.length + 2 - hidden.length));
    const x = tensor(f32(1, 5, WIDTH), Float32Array.from({ length: 5 * WIDTH }, () => random.normal()));
    expect(largestDifference(graph, cut, [{ x }])).toBeLessThan(1e-5);
  }), { seed: 3, numRuns: 40 });
});

it('the program of a network in groups is the same on every target, and nearer to the float model than with one scale', async () => {
  const text = readFileSync(new URL('../reorder-channels/groups-with-scales-of-their-own.lbir', import.meta.url), 'utf8').split('// ---- after')[0];
  const graph = parseGraph(text) as Graph<'float'>;
  const samples = [...text.matchAll(/^\/\/ sample %x: \[(.*)\]$/gm)].map(([, numbers]) => ({ x: tensor(f32(1, 4, 4), Float32Array.from(numbers.split(',').map(Number))) }));
  const compiled = async (first: string): Promise<Graph<'kernel'>> => {
    const calibration = createCalibration(samplesInMemory(graph.inputs, samples), { data: null, threads: 1 });
    const steps = resolvePipeline(parsePipeline(`${first}quantize-activations{bits: 4}, quantize-weights, correct-bias, lower-to-kernels`), new Map(builtInPasses.map((pass) => [pass.name, pass])));
    return (await runPipeline(graph, steps, bareContext(calibration))).graph as Graph<'kernel'>;
  };
  const noiseOf = (kernel: Graph<'kernel'>): number => samples.reduce((sum, sample) => {
    const [expected, found] = [evaluateGraph(graph, sample).get('y')!, evaluateGraph(kernel, sample).get('y')!];
    const scale = (kernel.outputs[0].value.type.quant as { scale: number }).scale;
    return sum + (expected.data as Float32Array).reduce((total, y, i) => total + (y - Number(found.data[i]) * scale) ** 2, 0);
  }, 0);
  const kernel = await compiled('reorder-channels{activations: 4}, ');
  expect(kernel.nodes.some(({ op }) => op === 'requantize_add')).toBe(true);
  expect(noiseOf(kernel)).toBeLessThan(noiseOf(await compiled('')) / 2);

  for (const target of ['cpu', 'wasm']) mkdirSync(join(scratch, target));
  for (const { path, bytes } of [...emitC(kernel, { name: 'net' }).artefacts, ...emitWasm(kernel, { name: 'net' }).artefacts]) writeFileSync(join(scratch, path), bytes);
  const codes = samples.map((sample): Codes => ({ x: quantized(sample.x, kernel.inputs[0].type).data }));
  const expected = samples.map((sample) => [...evaluateGraph(kernel, sample).get('y')!.data].map(Number));
  const numbers = (list: readonly Codes[]): number[][] => list.map(({ y }) => [...(y as Iterable<number>)]);
  const run = await runWasm(join(scratch, 'wasm'), 'net');
  expect(numbers(codes.map((one) => ({ y: run(one)['y'].slice() })))).toEqual(expected);
  if (cCompiler() !== null) expect(numbers(await runC(join(scratch, 'cpu'), 'net', interfaceOf(kernel), codes))).toEqual(expected);
}, 240_000);
