/** Trained models on the simulated accelerator: every output and every step equal to the reference. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { decodeProgram } from '../../../src/backends/accelerator/encode.ts';
import type { MemoryFile, ScheduleFile } from '../../../src/backends/accelerator/files.ts';
import { checkMachine } from '../../../src/backends/accelerator/machine.ts';
import { presets } from '../../../src/backends/accelerator/presets.ts';
import { runProgram, type Loaded } from '../../../src/backends/accelerator/run.ts';
import { codesAt, openSamples } from '../../../src/calibration/samples.ts';
import { compile } from '../../../src/compile.ts';
import { evaluateGraph } from '../../../src/ir/evaluate.ts';
import { constantOf, type Graph, type Value } from '../../../src/ir/graph.ts';

const file = (name: string): string => fileURLToPath(new URL(`../../../examples/${name}`, import.meta.url));
const calib = file('data/calib.npy');

it.each([
  ['glyph-cnn', 'w8a8', 'accel'], ['glyph-cnn', 'w4a4', 'accel:tiny'], ['glyph-cnn', 'w2a4', 'accel'], ['glyph-vit', 'w8a8', 'accel:large'], ['glyph-vit', 'w4a8', 'accel:tiny'],
])('%s %s on %s', async (name, bits, target) => {
  const { graph, targets } = await compile(readFileSync(file(`models/${name}.onnx`)), {
    name, targets: [target], bits, threads: 1, normalization: { mean: [127.5], std: [127.5], dtype: 'u8' }, openSamples: (inputs) => openSamples(calib, inputs, { count: 8 }),
  });
  const bytes = (path: string): Uint8Array => targets[0].files.find((one) => one.path === `accel/${path}`)!.bytes;
  const json = (path: string): unknown => JSON.parse(new TextDecoder().decode(bytes(path)));
  const memory = json('memory.json') as MemoryFile;
  const loaded: Loaded = { machine: checkMachine(json('target.json'), name), memory, program: decodeProgram(bytes('program.bin')), blobs: memory.blobs.map((blob) => bytes(blob.file)) };
  const kernel = graph as Graph<'kernel'>;
  const samples = openSamples(calib, kernel.inputs, { count: 2 });
  for (let i = 0; i < samples.count; i++) {
    const sample = codesAt(samples, i, kernel.inputs, () => true);
    const expected = evaluateGraph(kernel, sample);
    const { outputs, timeline } = runProgram(loaded, Object.fromEntries(Object.entries(sample).map(([key, { data }]) => [key, data])));
    for (const [output, { data }] of expected) expect(outputs[output], output).toEqual(data);
    expect(timeline.cycles).toBe((json('schedule.json') as ScheduleFile).cycles);
  }
  const golden = json('golden/index.json') as readonly { file: string; name: string; role: string }[];
  const of = (role: string) => golden.filter((one) => one.role === role);
  const { outputs } = runProgram(loaded, Object.fromEntries(of('input').map((one, i) => [one.name, typed(kernel.inputs[i].type.dtype, bytes(one.file))])));
  for (const one of of('output')) expect(new Uint8Array(outputs[one.name].buffer)).toEqual(new Uint8Array(bytes(one.file)));
}, 240_000);

it('codes of four bits lie two to a byte and stay on chip; w4a4 needs fewer cycles than w8a8', async () => {
  const compiled = async (bits: string) => {
    const { targets: [{ files }] } = await compile(readFileSync(file('models/glyph-cnn.onnx')), {
      name: 'glyph-cnn', targets: ['accel'], bits, threads: 1, normalization: { mean: [127.5], std: [127.5], dtype: 'u8' }, openSamples: (inputs) => openSamples(calib, inputs, { count: 4 }),
    });
    const json = (path: string): unknown => JSON.parse(new TextDecoder().decode(files.find((one) => one.path === `accel/${path}`)!.bytes));
    return { memory: json('memory.json') as MemoryFile, schedule: json('schedule.json') as ScheduleFile };
  };
  const [wide, narrow] = [await compiled('w8a8'), await compiled('w4a4')];
  expect(narrow.memory.tensors.filter(({ element, memory }) => element === 'i4' && memory === 'ABUF').length).toBeGreaterThan(3);
  expect(wide.memory.tensors.some(({ element }) => element === 'i4')).toBe(false);
  expect(narrow.schedule.cycles).toBeLessThan(wide.schedule.cycles);
  const stored = narrow.schedule.layers.reduce((sum, { bytesStored }) => sum + bytesStored, 0);
  expect(stored).toBe(narrow.memory.outputs[0].bytes);
}, 240_000);

it('a narrow multiplier narrows the factors of all targets, and the pipeline says so', async () => {
  const { graph, pipeline, targets } = await compile(readFileSync(file('models/glyph-cnn.onnx')), {
    name: 'glyph-cnn', targets: [`accel:${JSON.stringify({ ...presets[1], name: 'mine', multiplierBits: 20 })}`], bits: 'w8a8', threads: 1, normalization: { mean: [127.5], std: [127.5], dtype: 'u8' },
    openSamples: (inputs) => openSamples(calib, inputs, { count: 4 }),
  });
  expect(pipeline.at(-1)).toEqual({ pass: 'narrow-multipliers', options: { bits: 20 } });
  // its rescales multiply to 64 bits
  expect(pipeline.map(({ pass }) => pass)).not.toContain('rescale-in-words');
  expect(graph.nodes.map(({ op }) => op)).not.toContain('requantize_words');
  const factors = graph.nodes.filter(({ op }) => op === 'requantize').flatMap(({ inputs }) => [...constantOf(inputs['mul'] as Value)!.data as Int32Array]);
  expect(Math.max(...factors)).toBeLessThan(2 ** 20);
  expect(targets[0].files.length).toBeGreaterThan(10);
}, 240_000);

const typed = (dtype: string, bytes: Uint8Array): Uint8Array | Int8Array => (dtype === 'u8' ? new Uint8Array(bytes) : new Int8Array(bytes));
