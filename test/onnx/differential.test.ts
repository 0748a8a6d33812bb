/** The imported graph and the canonical graph compute what ONNX Runtime computes from the same file on real data. */
import { describe, expect, test } from 'vitest';
import { createExecutor } from '../../src/calibration/executor.ts';
import { bindSymbols } from '../../src/ir/bind-symbols.ts';
import { staticShape, symbolsOf } from '../../src/ir/dim.ts';
import type { Graph, Value } from '../../src/ir/graph.ts';
import type { Tensor } from '../../src/ir/type.ts';
import { importModel } from '../../src/onnx/import.ts';
import { canonicalGraph, modelFiles, pathOf, readModel, samplesOf, unlessAbsent } from './models.ts';

const runtime = await import('onnxruntime-node').catch(() => null);

/** Largest difference, relative to the largest magnitude of the output. */
const TOLERANCE = 1e-4;
const SAMPLES = 2;

const bound = (graph: Graph<'float'>): Graph<'float'> =>
  bindSymbols(graph, new Map(graph.inputs.flatMap(({ type }) => symbolsOf(type.shape)).map((name) => [name, 1])));

const relativeError = (got: ArrayLike<number>, want: ArrayLike<number>): number => {
  let [worst, size] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    const difference = Math.abs(got[i] - want[i]);
    worst = Number.isNaN(difference) ? Infinity : Math.max(worst, difference);
    size = Math.max(size, Math.abs(want[i]));
  }
  return worst / size;
};

describe.skipIf(runtime === null)('against ONNX Runtime', () => {
  for (const file of modelFiles) {
    test(file, { ...unlessAbsent(file), timeout: 240_000 }, async () => {
      const ort = runtime!;
      const imported = bound(importModel(readModel(file)).graph);
      const graphs = { imported, canonical: await canonicalGraph(imported) };
      const samples = samplesOf(file, imported, SAMPLES);
      const session = await ort.InferenceSession.create(pathOf(file), { intraOpNumThreads: 1, logSeverityLevel: 3 });
      const [input] = imported.inputs;
      const wave = ({ type }: Value): Tensor =>
        ({ type, data: Float32Array.from({ length: staticShape(type.shape).reduce((size, dim) => size * dim, 1) }, (_, i) => Math.sin(i * 0.37) * 2) });
      const others = Object.fromEntries(imported.inputs.slice(1).map((one) => [one.name, wave(one)]));
      const executors = Object.entries(graphs).map(([stage, graph]) => [stage, createExecutor(graph)] as const);
      const feed = ({ type, data }: Tensor): InstanceType<typeof ort.Tensor> => (type.dtype === 'f32'
        ? new ort.Tensor('float32', data as Float32Array, staticShape(type.shape))
        : new ort.Tensor('int64', BigInt64Array.from(data as Int32Array, BigInt), staticShape(type.shape)));
      for (const sample of samples ?? [wave(input)]) {
        const fed = { ...others, [input.name]: sample };
        const expected = await session.run(Object.fromEntries(Object.entries(fed).map(([name, tensor]) => [name, feed(tensor)])));
        for (const [stage, executor] of executors) {
          const got = executor.run(fed);
          for (const { name } of imported.outputs) {
            expect(relativeError(got[name].data as Float32Array, expected[name].data as Float32Array), `${stage} ${name}`).toBeLessThan(TOLERANCE);
          }
        }
      }
    });
  }
});
