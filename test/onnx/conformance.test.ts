/**
 * ONNX's own node tests (absent in a plain checkout). Of each, the first real input is fed and the others are constants; integers and
 * booleans alone are no network. An op or form that is not supported must be refused by name; what is imported must be right, before
 * and after the clean-up passes.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { CompileError } from '../../src/ir/diagnostic.ts';
import { evaluateGraph } from '../../src/ir/evaluate.ts';
import { tensorType } from '../../src/ir/type.ts';
import { importModel } from '../../src/onnx/import.ts';
import { decodeMessage, decodeModel } from '../../src/onnx/protobuf.ts';
import { elementTypes, type TensorProto } from '../../src/onnx/schema.ts';
import { isRealType, readTensor } from '../../src/onnx/tensor.ts';
import { canonicalGraph } from './models.ts';

const archive = resolve(dirname(fileURLToPath(import.meta.url)), '../../../shared/conformance/onnx-1.22-node.tar.gz');
/** Cases that must be imported and right; the others are refused. */
const FLOOR = 638;

/** Files of a tar archive: blocks of 512 bytes, a header with name and octal size, then the contents. */
const untar = (bytes: Uint8Array): ReadonlyMap<string, Uint8Array> => {
  const files = new Map<string, Uint8Array>();
  const textAt = (from: number, length: number): string => new TextDecoder().decode(bytes.subarray(from, from + length)).replace(/\0[\s\S]*$/, '');
  for (let at = 0; at + 512 <= bytes.length && bytes[at] !== 0; ) {
    const size = parseInt(textAt(at + 124, 12), 8);
    files.set([textAt(at + 345, 155), textAt(at, 100)].filter(Boolean).join('/'), bytes.subarray(at + 512, at + 512 + size));
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return files;
};

const isReal = ({ dataType }: TensorProto): boolean => isRealType(elementTypes[dataType ?? 0]);
/** Greatest tolerated error, relative to the element or 0.001; half precision in a file is computed here in single. */
const toleranceOf = (tensors: readonly TensorProto[]): number => (tensors.some(({ dataType }) => elementTypes[dataType ?? 0] !== 'float') ? 2e-2 : 2e-3);

test.skipIf(!existsSync(archive))('ONNX node tests', { timeout: 240_000 }, async () => {
  const files = untar(gunzipSync(readFileSync(archive)));
  const names = [...files.keys()].filter((name) => name.endsWith('/model.onnx')).map((name) => name.slice(0, -'/model.onnx'.length));
  const wrong: string[] = [];
  let right = 0;
  for (const name of names) {
    const model = decodeModel(files.get(`${name}/model.onnx`)!);
    const read = (kind: 'input' | 'output', i: number): TensorProto | null => {
      const bytes = files.get(`${name}/test_data_set_0/${kind}_${i}.pb`);
      return bytes === undefined ? null : decodeMessage('TensorProto', bytes);
    };
    const inputs = (model.graph?.input ?? []).map((info, i) => ({ info, tensor: read('input', i) }));
    if (inputs.some(({ info, tensor }) => tensor === null || info.type?.tensorType === undefined)) continue;
    // The scale of stored integers is a constant too.
    const fed = name.includes('test_dequantizelinear') ? null : inputs.find(({ tensor }) => isReal(tensor!));
    if (fed === undefined) continue;
    const others = inputs.filter((one) => one !== fed).map(({ info, tensor }) => ({ ...tensor, name: info.name! }));
    const output = model.graph!.output![0];
    const graph = { ...model.graph, input: fed === null ? [] : [fed.info], initializer: [...model.graph?.initializer ?? [], ...others], output: [output] };
    try {
      const sample = fed === null ? null : readTensor(fed.tensor!, null);
      if (sample?.data.length === 0) continue;
      const key = fed?.info.name ?? '';
      const imported = importModel({ ...model, graph }, sample === null ? {} : { shapes: { [key]: sample.shape } }).graph;
      const fedTensors = sample === null ? {} : { [key]: { type: tensorType('f32', sample.shape), data: Float32Array.from(sample.data) } };
      const expected = readTensor(read('output', 0)!, null);
      const tolerance = toleranceOf(inputs.map(({ tensor }) => tensor!).filter(isReal));
      for (const form of [imported, await canonicalGraph(imported)]) {
        const got = evaluateGraph(form, fedTensors).get(output.name!)!;
        const differs = Array.from(expected.data).some((want, i) => {
          const have = Number(got.data[i]);
          return !(Object.is(have, want) || have === want || Math.abs(have - want) <= tolerance * Math.max(Math.abs(want), 1e-3));
        });
        if (got.type.shape.join() !== expected.shape.join() || differs) wrong.push(name);
      }
      right++;
    } catch (cause) {
      if (!(cause instanceof CompileError)) wrong.push(`${name}: ${String(cause)}`);
    }
  }
  expect(wrong).toEqual([]);
  expect(right).toBeGreaterThanOrEqual(FLOOR);
});
