/** The trained models beside the repository (absent in a plain checkout), with their data. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fileSource } from '../../src/calibration/bytes.ts';
import { readNpy, type NpyArray } from '../../src/calibration/npy.ts';
import { staticShape } from '../../src/ir/dim.ts';
import type { Graph } from '../../src/ir/graph.ts';
import { tensorType, type Tensor } from '../../src/ir/type.ts';
import { canonicalizePasses } from '../../src/passes/canonicalize.ts';
import { bareContext } from '../../src/passes/pass.ts';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../../../shared/models');

/** Folder and file of every model that is imported. */
export const modelFiles = [
  'own/glyph-cnn/model', 'own/glyph-vit/model', 'own/glyph-vit-outlier/model', 'cct/model', 'cct/model_opset13', 'cct/model_opset13_b1', 'cct-outlier/model',
  'resnet20/model', 'resnet20/model_opset13', 'resnet20-skew/model', 'charlm/model', 'charlm/model_opset13', 'mlperf-tiny-ic/model', 'mlperf-tiny-kws/model',
  'mobilenet-v1-0.25-224/model', 'kwt1/model', 'kwt1/model_tf_style', 'mnist-cnn/model', 'super-resolution/model', 'ultraface-rfb-320/model',
  'kws-encodings/micro_kws_m_static_fp32', 'mnist-lstm/model', 'silero-vad/model',
] as const;
export type ModelFile = (typeof modelFiles)[number];

export const pathOf = (file: string): string => join(root, `${file}.onnx`);
export const isPresent = (file: string): boolean => existsSync(pathOf(file));
export const readModel = (file: string): Uint8Array => readFileSync(pathOf(file));

/** `npm test` reports a model that is not there by name, as skipped. */
export const unlessAbsent = (file: string): { readonly skip: boolean } => ({ skip: !isPresent(file) });

interface DataNote { readonly data?: string; readonly mean?: readonly number[]; readonly std?: readonly number[] }

/** The first samples of a model's evaluation data as it is fed: (data - mean)/std per channel; null where there are none. */
export const samplesOf = (file: string, graph: Graph, count: number): readonly Tensor[] | null => {
  const folder = dirname(pathOf(file));
  const note = JSON.parse(readFileSync(join(folder, 'data.json'), 'utf8')) as DataNote;
  const [input] = graph.inputs;
  const shape = staticShape(input.type.shape);
  const size = shape.reduce((product, dim) => product * dim, 1);
  const elsewhere = note.data === undefined ? folder : join(folder, note.data.split(' ')[0]);
  const found = [join(elsewhere, file.endsWith('tf_style') ? 'audio_eval.npy' : 'eval.npy')].find(existsSync);
  if (found === undefined) return null;
  const array: NpyArray = readNpy(fileSource(found));
  const audio = file.endsWith('tf_style');
  const [mean, std] = audio ? [[0], [32768]] : [note.mean ?? [0], note.std ?? [1]];
  const plane = shape.length === 4 ? shape[2] * shape[3] : size;
  return Array.from({ length: Math.min(count, Math.floor(array.data.length / size)) }, (_, n) => {
    const row = Array.from({ length: size }, (_unused, i) => Number(array.data[n * size + i]));
    if (input.type.dtype !== 'f32') return { type: tensorType(input.type.dtype, shape), data: Int32Array.from(row) };
    const channel = (i: number): number => Math.floor(i / plane) % mean.length;
    return { type: tensorType('f32', shape), data: Float32Array.from(row, (value, i) => (value - mean[channel(i)]) / std[channel(i)]) };
  });
};

/** How often each op occurs, most often first: `conv 9, relu 8`. */
export const histogramOf = (graph: Graph): string => {
  const counts = new Map<string, number>();
  for (const { op } of graph.nodes) counts.set(op, (counts.get(op) ?? 0) + 1);
  return [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1)).map(([op, n]) => `${op} ${n}`).join(', ');
};

/** The graph after all clean-up passes. */
export const canonicalGraph = async (graph: Graph<'float'>): Promise<Graph<'float'>> => {
  let current: Graph = graph;
  for (const pass of canonicalizePasses) current = await pass.run(current, {}, bareContext());
  return current as Graph<'float'>;
};
