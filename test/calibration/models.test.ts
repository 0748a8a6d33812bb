import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createExecutor } from '../../src/calibration/executor.ts';
import { sqnrDb } from '../../src/calibration/metrics.ts';
import { openOnnxRuntime } from '../../src/calibration/onnxruntime.ts';
import { openSamples } from '../../src/calibration/samples.ts';
import { bindSymbols } from '../../src/ir/bind-symbols.ts';
import { symbolsOf } from '../../src/ir/dim.ts';
import { importModel } from '../../src/onnx/import.ts';

// trained models with data; not part of the repository
const models = resolve(import.meta.dirname, '../../../shared/models');
interface ModelCase {
  readonly name: string;
  readonly file?: string;
  readonly data?: string;
}
const cases: readonly ModelCase[] = [
  { name: 'cct' }, { name: 'cct', file: 'model_opset13.onnx' }, { name: 'resnet20' }, { name: 'charlm' }, { name: 'kwt1' }, { name: 'mlperf-tiny-ic' }, { name: 'mlperf-tiny-kws' },
  { name: 'mobilenet-v1-0.25-224' }, { name: 'mnist-cnn' }, { name: 'kwt1', file: 'model_tf_style.onnx', data: 'kwt1/audio_calib.npy' },
  { name: 'own/glyph-cnn' }, { name: 'own/glyph-vit' }, { name: 'super-resolution' },
];
/**
 * Both sides round to float32 after each product and sum, in orders of their own; that of ONNX Runtime depends on the processor. Against
 * sums in float64 the executor's outputs reach 94.8 dB on the worst of these samples, ONNX Runtime's 107; a wrong operator loses tens of dB.
 */
const LEAST_DB = 90;
const runtime = await import('onnxruntime-node').then(() => true, () => false);

describe('the float executor agrees with ONNX Runtime', () => {
  for (const { name, file = 'model.onnx', data } of cases) {
    const path = resolve(models, name, file);
    const about = existsSync(path) ? (JSON.parse(readFileSync(resolve(models, name, 'data.json'), 'utf8')) as { readonly data?: string; readonly mean?: number[]; readonly std?: number[] }) : {};
    const samplesAt = resolve(models, data ?? name, data === undefined ? (about.data ?? '.').split(' ')[0] : '.', data === undefined ? 'calib.npy' : '.');
    it.skipIf(!runtime || !existsSync(path) || !existsSync(samplesAt))(`${name}/${file}`, async () => {
      const imported = importModel(readFileSync(path)).graph;
      const graph = bindSymbols(imported, new Map(symbolsOf(imported.inputs.flatMap(({ type }) => type.shape)).map((symbol) => [symbol, 1])));
      const normal = data === undefined ? { mean: about.mean ?? [0], std: about.std ?? [1] } : { std: [32768] };
      const samples = openSamples(samplesAt, graph.inputs, { ...normal, count: 2 });
      const executor = createExecutor(graph);
      const reference = await openOnnxRuntime(path);
      for (const sample of samples) {
        const [own, theirs] = [executor.run(sample), await reference.run(sample)];
        expect(Object.keys(own)).toEqual([...reference.outputs]);
        for (const output of reference.outputs) {
          expect(own[output].type.shape).toEqual(theirs[output].type.shape);
          expect(sqnrDb(own[output].data as Float32Array, theirs[output].data as Float32Array)).toBeGreaterThan(LEAST_DB);
        }
      }
      await reference.close();
    }, 240_000);
  }
});

it.skipIf(!runtime)('a model that ONNX Runtime cannot read', async () => {
  await expect(openOnnxRuntime(Uint8Array.of(1, 2, 3))).rejects.toThrow(/LB0512/);
});
