/** Embeddings beside layers of few bits: when their codes are narrowed, and that what was chosen can be replayed. */
import { describe, expect, it } from 'vitest';
import { createCalibration } from '../../../src/calibration/calibration.ts';
import { samplesInMemory } from '../../../src/calibration/samples.ts';
import { Builder } from '../../../src/ir/build.ts';
import { sizeOf } from '../../../src/ir/dim.ts';
import { constantOf, type Graph, type Value } from '../../../src/ir/graph.ts';
import { add, gather, layerNorm, linear } from '../../../src/ir/ops/index.ts';
import { scaleOf } from '../../../src/ir/quant.ts';
import { f32, tensor, tensorType, type Tensor } from '../../../src/ir/type.ts';
import { createRandom } from '../../../src/numerics/random.ts';
import { allocateBits } from '../../../src/passes/allocate-bits.ts';
import { builtInPasses, runPass } from '../../../src/passes/index.ts';
import { bareContext, type PassContext } from '../../../src/passes/pass.ts';
import { resolvePipeline } from '../../../src/passes/pipeline.ts';
import { quantizeActivations } from '../../../src/passes/quantize-activations.ts';

const WORDS = 40;
const WIDTH = 16;
const LENGTH = 6;

/** tokens → rows of a table, plus positions → LayerNorm → linear. `spread`: size of the last word's row, which no sample holds. */
const wordModel = (spread: number): Graph<'float'> => {
  const random = createRandom(7);
  const b = new Builder();
  const normal = (...shape: number[]): Tensor => tensor(f32(...shape), Float32Array.from({ length: sizeOf(shape) }, () => random.normal()));
  const words = normal(WORDS, WIDTH);
  for (let c = 0; c < WIDTH; c++) (words.data as Float32Array)[(WORDS - 1) * WIDTH + c] *= spread;
  const tokens = b.input('tokens', tensorType('i32', [1, LENGTH]));
  const row = b.emit(gather, { table: b.constant('words', words), indices: tokens }, { axis: 0, bits: 0 }, { name: 'row' });
  const sum = b.emit(add, { x: row, y: b.constant('positions', normal(1, LENGTH, WIDTH)) }, {}, { name: 'sum' });
  const ones = (value: number): Value => b.constant(`all${value}`, tensor(f32(WIDTH), new Float32Array(WIDTH).fill(value)));
  const norm = b.emit(layerNorm, { x: sum, scale: ones(1), bias: ones(0) }, { epsilon: 1e-5 }, { name: 'norm' });
  return b.finish('float', 'net', [{ name: 'y', value: b.emit(linear, { x: norm, weight: b.constant('w', normal(8, WIDTH)), bias: null }, {}, { name: 'head' }) }]);
};

const contextOf = (graph: Graph<'float'>): PassContext => {
  const random = createRandom(3);
  const list = Array.from({ length: 24 }, () => ({ tokens: { type: tensorType('i32', [1, LENGTH]), data: Int32Array.from({ length: LENGTH }, () => random.below(WORDS - 1)) } }));
  const calibration = createCalibration(samplesInMemory(graph.inputs, list), { data: null, threads: 1 });
  const steps = resolvePipeline(['quantize-activations', 'quantize-weights'].map((pass) => ({ pass, options: {} })), new Map(builtInPasses.map((pass) => [pass.name, pass])));
  return { ...bareContext(calibration), rest: steps };
};
const budget = { budget: `bops=${LENGTH * 8 * WIDTH * 4 * 8}`, samples: 24 };
const bitsOf = (graph: Graph): number => graph.nodes.find(({ output }) => output.name === 'row')!.attrs['bits'] as number;

describe('a table of embeddings', () => {
  it('gets 8 bits where layers of 4 lose far more than that, and rows that no sample reads are not cut off', async () => {
    const graph = wordModel(2);
    const context = contextOf(graph);
    const chosen = await runPass(allocateBits, graph, budget, context) as Graph<'float'>;
    expect(bitsOf(chosen)).toBe(8);
    const quantized = await runPass(quantizeActivations, chosen, {}, context) as Graph<'quant'>;
    const row = quantized.nodes.find(({ output }) => output.name === 'row')!;
    expect(row.output.type.dtype).toBe('i8');
    const exact = constantOf(graph.nodes.find(({ output }) => output.name === 'row')!.inputs['table'] as Value)!;
    const stored = constantOf(row.inputs['table'] as Value)!;
    const scale = scaleOf((row.inputs['table'] as Value).type.quant!);
    exact.data.forEach((v, i) => expect(Math.abs(Number(stored.data[i]) * scale - Number(v))).toBeLessThanOrEqual(scale * 0.51));
  });
  it('keeps 16 bits where one row would leave the others few steps', async () => {
    const graph = wordModel(400);
    const chosen = await runPass(allocateBits, graph, budget, contextOf(graph)) as Graph<'float'>;
    expect(bitsOf(chosen)).toBe(0);
  });
  it('is part of an assignment that is replayed', async () => {
    const graph = wordModel(2);
    const replay = (assignment: readonly string[]): Promise<Graph> => runPass(allocateBits, graph, { assignment }, contextOf(graph));
    expect(bitsOf(await replay(['row=w8', 'head=w4a8']))).toBe(8);
    expect(bitsOf(await replay(['head=w4a8']))).toBe(0);
    await expect(replay(['row=w4a8', 'head=w4a8'])).rejects.toThrow(/a table has 8 bits or 16/);
  });
});
