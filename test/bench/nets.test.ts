// The nets that speed is measured on have the shapes of the published ones, as float and as quantized models.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { layerCosts, totalMacs } from '../../src/ir/cost.ts';
import { importModel } from '../../src/onnx/import.ts';
import { decodeModel } from '../../src/onnx/protobuf.ts';
import { root } from '../cli/lowbitc.ts';

interface Nets {
  readonly nets: Readonly<Record<string, object>>;
  modelOf(name: string, form: 'float' | 'int8'): Uint8Array;
}
const { nets, modelOf } = await import(pathToFileURL(join(root, 'scripts/nets.mjs')).href) as Nets;

interface Runtime {
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<{ run(feeds: object): Promise<Readonly<Record<string, { readonly data: Float32Array }>>> }> };
  readonly Tensor: new (type: string, data: Float32Array, dims: readonly number[]) => object;
}
const runtime = ((): Runtime | null => {
  try {
    return createRequire(import.meta.url)('onnxruntime-node') as Runtime;
  } catch {
    return null;
  }
})();

test('every net that is measured is here', () => {
  expect(Object.keys(nets)).toEqual(['resnet18-224', 'mobilenetv2-224', 'deit-tiny-224', 'resnet8-32', 'ds-cnn-49x10', 'mobilenetv1-0.25-96']);
});

describe.each([['ds-cnn-49x10', 2_656_768], ['resnet8-32', 12_501_632], ['mobilenetv1-0.25-96', 7_489_664], ['mobilenetv2-224', 300_774_272]])('%s', (name, macs) => {
  const float = modelOf(name, 'float');
  test(`${macs} multiply-accumulates`, () => {
    expect(totalMacs(layerCosts(importModel(float).graph))).toBe(macs);
  });
  test('the same bytes every time', () => {
    expect(Buffer.compare(modelOf(name, 'float'), float)).toBe(0);
  });
  test('quantized: every weight a byte, every convolution between dequantizations', () => {
    const { node = [] } = decodeModel(modelOf(name, 'int8')).graph!;
    const maker = new Map(node.map((one) => [one.output![0], one.opType]));
    for (const { opType, input } of node) if (opType === 'Conv' || opType === 'Gemm') expect(input!.map((x) => maker.get(x))).toEqual(['DequantizeLinear', 'DequantizeLinear', 'DequantizeLinear']);
  });
  test.skipIf(runtime === null || macs > 1e8)(`ONNX Runtime gives finite numbers for both, not far from each other${runtime === null ? ': skipped, onnxruntime-node is not installed' : ''}`, async () => {
    const { graph } = importModel(float);
    const shape = graph.inputs[0].type.shape as readonly number[];
    const x = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i));
    const [a, b] = await Promise.all([float, modelOf(name, 'int8')].map(async (model) => {
      const session = await runtime!.InferenceSession.create(model, { logSeverityLevel: 3 });
      return Object.values(await session.run({ x: new runtime!.Tensor('float32', x, shape) }))[0].data;
    }));
    expect([...a, ...b].every(Number.isFinite)).toBe(true);
    const [power, noise] = a.reduce(([p, n], v, i) => [p + v * v, n + (v - b[i]) ** 2], [0, 0]);
    expect(noise).toBeLessThan(power / 4);
  });
});
