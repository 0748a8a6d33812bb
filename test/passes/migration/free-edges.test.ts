// Results that are added back, and borders of convolutions, take changes up: the function stays, and the program of every target equals the reference.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, it } from 'vitest';
import { emitC, emitWasm, interfaceOf } from '../../../src/backends/index.ts';
import { cCompiler, runC, runWasm, type Codes } from '../../../src/backends/run.ts';
import { createCalibration, type Calibration } from '../../../src/calibration/calibration.ts';
import { quantized } from '../../../src/calibration/codes.ts';
import { samplesInMemory } from '../../../src/calibration/samples.ts';
import { Builder } from '../../../src/ir/build.ts';
import { evaluateGraph } from '../../../src/ir/evaluate.ts';
import { usersOf, type Graph, type Value } from '../../../src/ir/graph.ts';
import { add, conv, layerNorm, linear, relu, reshape } from '../../../src/ir/ops/index.ts';
import { parseGraph } from '../../../src/ir/parse.ts';
import { printGraph } from '../../../src/ir/print.ts';
import { f32, tensor } from '../../../src/ir/type.ts';
import { verify } from '../../../src/ir/verify.ts';
import { createRandom, type Random } from '../../../src/numerics/random.ts';
import { builtInPasses, parsePipeline, resolvePipeline, runPipeline } from '../../../src/passes/index.ts';
import { applyChanges, largestDifference } from '../../../src/passes/migration/apply.ts';
import { changesOf, channelClasses } from '../../../src/passes/migration/channel-classes.ts';
import { freed, tidied } from '../../../src/passes/migration/free-edges.ts';
import { joined } from '../../../src/passes/migration/search.ts';
import { bareContext } from '../../../src/passes/pass.ts';

const scratch = mkdtempSync(join(tmpdir(), 'lowbitc-edges-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const WIDTH = 4;
const free = { residuals: true, borders: true };

/** Padded convolutions one after the other, some behind a ReLU, then layers whose sums are normalised. */
const network = (random: Random): Graph<'float'> => {
  const b = new Builder();
  const constant = (...shape: readonly number[]): Value => b.constant('c', tensor(f32(...shape), Float32Array.from({ length: shape.reduce((p, n) => p * n) }, () => random.normal())));
  let x = b.input('x', f32(1, 4, 4, 2));
  for (let i = 0; i < 3; i++) {
    const [size, pads] = random.below(3) === 0 ? [1, [0, 0, 0, 0]] : [3, [0, 1, 2, 3].map(() => random.below(3))];
    x = b.emit(conv, { x, weight: constant(WIDTH, size, size, i === 0 ? 2 : WIDTH), bias: random.below(2) === 0 ? null : constant(WIDTH) }, { pads });
    if (random.below(3) === 0) x = b.emit(relu, { x });
  }
  const [, rows, columns] = x.type.shape as readonly number[];
  let y = b.emit(layerNorm, { x: b.emit(reshape, { x }, { shape: [1, rows * columns, WIDTH] }), scale: constant(WIDTH), bias: constant(WIDTH) });
  for (let i = 0; i < 2; i++) {
    const made = b.emit(linear, { x: y, weight: constant(WIDTH, WIDTH), bias: constant(WIDTH) });
    y = b.emit(layerNorm, { x: b.emit(add, random.below(2) === 0 ? { x: y, y: made } : { x: made, y }), scale: random.below(2) === 0 ? null : constant(WIDTH), bias: null });
  }
  return b.finish('float', 'g', [{ name: 'y', value: b.emit(linear, { x: y, weight: constant(3, WIDTH), bias: null }) }]);
};

const calibrationOf = (graph: Graph<'float'>, samples: readonly Parameters<typeof samplesInMemory>[1][number][]): Calibration =>
  createCalibration(samplesInMemory(graph.inputs, samples), { data: null, threads: 1 });

it('random changes of all that is free keep the function; without changes everything is as it was', async () => {
  let borders = 0;
  await fc.assert(fc.asyncProperty(fc.nat(2 ** 31), async (seed) => {
    const random = createRandom(seed);
    const graph = network(random);
    const x = tensor(f32(1, 4, 4, 2), Float32Array.from({ length: 32 }, () => random.normal()));
    const calibration = calibrationOf(graph, [{ x }]);
    const open = freed(graph, await calibration.channelMoments(graph), free);
    expect(verify(open.graph)).toEqual([]);
    expect(open.graph.nodes.every(({ output }) => open.moments.has(output.name))).toBe(true);
    expect(largestDifference(graph, open.graph, [{ x }])).toBe(0);
    calibration.adoptMoments(open.graph, open.moments);
    // a remade graph in which nothing has changed
    expect(printGraph(await tidied(applyChanges(open.graph, new Map()), open.graph, graph, calibration))).toBe(printGraph(graph));

    const { scaleSites, shiftSites } = channelClasses(open.graph);
    const drawn = (size: number, one: () => number): Float64Array => Float64Array.from({ length: size }, one);
    const changes = joined(
      ...scaleSites.map((site) => changesOf(site, drawn(site.size, () => 2 ** (random.below(5) - 2)), null)),
      ...shiftSites.map((site) => changesOf(site, null, drawn(site.size, () => random.normal()))),
    );
    const moved = applyChanges(open.graph, changes);
    calibration.adoptMoments(moved, open.moments);
    const after = await tidied(moved, open.graph, graph, calibration);
    expect(verify(after)).toEqual([]);
    expect(largestDifference(graph, after, [{ x }])).toBeLessThan(1e-4);
    const users = usersOf(after);
    // first results of a LayerNorm that are added back can always move
    expect(after.nodes.filter(({ op }) => op === 'batch_norm').length).toBeGreaterThan(0);
    expect(after.nodes.filter(({ op }) => op === 'batch_norm').every(({ output }) => users.get(output)![0].op === 'add')).toBe(true);
    borders += after.nodes.filter(({ op }) => op === 'concat').length;
  }), { seed: 5, numRuns: 30 });
  expect(borders).toBeGreaterThan(10);
});

it.each([
  ['shift-channels/residual-after-a-layer-norm.lbir', 'requantize_add'],
  ['migrate-scales/residual-after-a-layer-norm.lbir', 'requantize_add'],
  ['shift-channels/border-of-a-convolution.lbir', 'concat'],
])('%s: the program is the same on every target, and nearer to the float model than without the change', async (file, op) => {
  const text = readFileSync(new URL(`../${file}`, import.meta.url), 'utf8').split('// ---- after')[0];
  const graph = parseGraph(text) as Graph<'float'>;
  const samples = [...text.matchAll(/^\/\/ sample %x: \[(.*)\]$/gm)].map(([, numbers]) => ({ x: tensor(graph.inputs[0].type, Float32Array.from(numbers.split(',').map(Number))) }));
  // the last layer too reads four bits, so that what the change saves shows
  const compiled = async (first: string): Promise<Graph<'kernel'>> => {
    const steps = resolvePipeline(parsePipeline(`${first}quantize-activations{bits: 4, keep: ["*=4"]}, quantize-weights, correct-bias, lower-to-kernels`), new Map(builtInPasses.map((pass) => [pass.name, pass])));
    return (await runPipeline(graph, steps, bareContext(calibrationOf(graph, samples)))).graph as Graph<'kernel'>;
  };
  const noiseOf = (kernel: Graph<'kernel'>): number => samples.reduce((sum, sample) => {
    const [expected, found] = [evaluateGraph(graph, sample).get('y')!, evaluateGraph(kernel, sample).get('y')!];
    const scale = (kernel.outputs[0].value.type.quant as { scale: number }).scale;
    return sum + (expected.data as Float32Array).reduce((total, y, i) => total + (y - Number(found.data[i]) * scale) ** 2, 0);
  }, 0);
  const kernel = await compiled(`${/^\/\/ pipeline: (.*)$/m.exec(text)![1]}, `);
  expect(verify(kernel)).toEqual([]);
  expect(kernel.nodes.some((node) => node.op === op)).toBe(true);
  // the addition undoes the change by itself: the map took no kernel of its own
  expect(kernel.nodes.some(({ output: { name } }) => name.endsWith('.residual'))).toBe(false);
  expect(noiseOf(kernel)).toBeLessThan(noiseOf(await compiled('')) / 1.5);

  const folder = mkdtempSync(join(scratch, 'net-'));
  for (const target of ['cpu', 'wasm']) mkdirSync(join(folder, target));
  for (const { path, bytes } of [...emitC(kernel, { name: 'net' }).artefacts, ...emitWasm(kernel, { name: 'net' }).artefacts]) writeFileSync(join(folder, path), bytes);
  const codes = samples.map((sample): Codes => ({ x: quantized(sample.x, kernel.inputs[0].type).data }));
  const expected = samples.map((sample) => [...evaluateGraph(kernel, sample).get('y')!.data].map(Number));
  const numbers = (list: readonly Codes[]): number[][] => list.map(({ y }) => [...(y as Iterable<number>)]);
  const run = await runWasm(join(folder, 'wasm'), 'net');
  expect(numbers(codes.map((one) => ({ y: run(one)['y'].slice() })))).toEqual(expected);
  if (cCompiler() !== null) expect(numbers(await runC(join(folder, 'cpu'), 'net', interfaceOf(kernel), codes))).toEqual(expected);
}, 240_000);
