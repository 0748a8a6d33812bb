/** The imported graph and the canonical graph compute what ONNX Runtime computes from the same file on real data. */
import { describe, expect, test } from 'vitest';
import { createExecutor } from '../../src/calibration/executor.ts';
import { bindSymbols } from '../../src/ir/bind-symbols.ts';
import { staticShape, symbolsOf } from '../../src/ir/dim.ts';
import type { Graph } from '../../src/ir/graph.ts';
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
    test(file, { ...unlessAbsent(file), timeout: 120_000 }, async () => {
      const ort = runtime!;
      const imported = bound(importModel(readModel(file)).graph);
      const graphs = { imported, canonical: await canonicalGraph(imported) };
      const samples = samplesOf(file, imported, SAMPLES);
      const session = await ort.InferenceSession.create(pathOf(file), { intraOpNumThreads: 1, logSeverityLevel: 3 });
      const [input] = imported.inputs;
      const made = (): readonly Tensor[] => [{ type: input.type, data: Float32Array.from({ length: staticShape(input.type.shape).reduce((a, d) => a * d, 1) }, (_, i) => Math.sin(i * 0.37) * 2) }];
      const executors = Object.entries(graphs).map(([stage, graph]) => [stage, createExecutor(graph)] as const);
      for (const sample of samples ?? made()) {
        const shape = staticShape(input.type.shape);
        const fed = input.type.dtype === 'f32' ? new ort.Tensor('float32', sample.data as Float32Array, shape)
          : new ort.Tensor('int64', BigInt64Array.from(sample.data as Int32Array, BigInt), shape);
        const expected = await session.run({ [input.name]: fed });
        for (const [stage, executor] of executors) {
          const got = executor.run({ [input.name]: sample });
          for (const { name } of imported.outputs) {
            expect(relativeError(got[name].data as Float32Array, expected[name].data as Float32Array), `${stage} ${name}`).toBeLessThan(TOLERANCE);
          }
        }
      }
    });
  }
});
