/** lower-to-kernels with weights of attention that are powers of two: near the exact ones, other softmaxes left alone. */
import { describe, expect, it } from 'vitest';
import { createCalibration } from '../../src/calibration/calibration.ts';
import { samplesInMemory } from '../../src/calibration/samples.ts';
import type { Diagnostic } from '../../src/ir/diagnostic.ts';
import { evaluateGraph } from '../../src/ir/evaluate.ts';
import { constantOf, type Graph, type Value } from '../../src/ir/graph.ts';
import { parseGraph } from '../../src/ir/parse.ts';
import { printGraph } from '../../src/ir/print.ts';
import { f32, tensor, tensorType } from '../../src/ir/type.ts';
import { verify } from '../../src/ir/verify.ts';
import { createRandom } from '../../src/numerics/random.ts';
import { weightForms } from '../../src/numerics/power-weights.ts';
import { builtInPasses } from '../../src/passes/index.ts';
import { bareContext } from '../../src/passes/pass.ts';
import { parsePipeline, resolvePipeline, runPipeline } from '../../src/passes/pipeline.ts';

const passes = new Map(builtInPasses.map((pass) => [pass.name, pass]));
const attends = `graph @g : float (%q: f32[1, 6, 8], %k: f32[1, 12, 8], %v: f32[1, 12, 8]) -> (%y) {
  %y = attention(%q, %k, %v) {heads: 2, scale: 0.5} : f32[1, 6, 8]
}`;
const alone = `graph @g : float (%x: f32[1, 6, 8]) -> (%y) {
  %y = softmax(%x) : f32[1, 6, 8]
}`;

const lowered = async (text: string, form: string): Promise<{ readonly graph: Graph; readonly warned: readonly Diagnostic[]; readonly float: Graph<'float'> }> => {
  const float = parseGraph(text) as Graph<'float'>;
  const random = createRandom(5);
  const samples = Array.from({ length: 4 }, () => Object.fromEntries(float.inputs.map(({ name, type }) => {
    const shape = type.shape as readonly number[];
    return [name, tensor(f32(...shape), Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random.normal()))];
  })));
  const warned: Diagnostic[] = [];
  const context = { ...bareContext(createCalibration(samplesInMemory(float.inputs, samples), { data: null, threads: 1 })), warn: (one: Diagnostic) => warned.push(one) };
  const steps = resolvePipeline(parsePipeline(`quantize-activations, lower-to-kernels{softmax: ${form}}`), passes, 'float');
  const { graph } = await runPipeline(float, steps, context);
  expect(verify(graph)).toEqual([]);
  return { graph, warned, float };
};

/** Outputs of a kernel graph on fixed codes. */
const run = (graph: Graph): readonly number[] => {
  const random = createRandom(9);
  const inputs = Object.fromEntries(graph.inputs.map(({ name, type }: Value) => {
    const size = (type.shape as readonly number[]).reduce((a, b) => a * b);
    return [name, tensor(tensorType('i8', type.shape, type.quant), Int8Array.from({ length: size }, () => Math.max(-127, Math.min(127, Math.round(40 * random.normal())))))];
  }));
  return Array.from([...evaluateGraph(graph, inputs).values()][0].data as Int16Array, Number);
};

describe('weights of attention', () => {
  it.each(weightForms.filter((form) => form !== 'exact'))('%s: the outputs stay near those of exact weights', async (form) => {
    const [exact, other] = [await lowered(attends, 'exact'), await lowered(attends, form)];
    const [p, q] = [run(exact.graph), run(other.graph)];
    const noise = p.reduce((sum, x, i) => sum + (x - q[i]) ** 2, 0) / p.reduce((sum, x) => sum + x * x, 0);
    expect(noise).toBeGreaterThan(0);
    expect(noise).toBeLessThan(0.02);
    expect(other.warned).toEqual([]);
    const table = constantOf(other.graph.nodes.find(({ op }) => op === 'attention_int')!.inputs['exp'] as Value)!.data as Int16Array;
    expect(new Set(table).size).toBeLessThanOrEqual(16);
  });

  it('a softmax outside of attention stays, with a warning', async () => {
    const [exact, other] = [await lowered(alone, 'exact'), await lowered(alone, 'log2')];
    expect(printGraph(other.graph)).toBe(printGraph(exact.graph));
    expect(other.warned.map(({ code }) => code)).toEqual(['LB0306']);
    expect(exact.warned).toEqual([]);
  });

  it('codes of one bit are refused', async () => {
    await expect(lowered(attends, 'log2, softmaxBits: 1')).rejects.toThrow(/softmaxBits/);
  });
});
