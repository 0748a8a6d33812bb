/** An output folder read back: its manifest, its kernel graph, its source model. Every file that is used is compared with the manifest first. */
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createExecutor } from '../calibration/executor.ts';
import { openOnnxRuntime } from '../calibration/onnxruntime.ts';
import type { Sample, SampleInput } from '../calibration/samples.ts';
import { importBound } from '../compile.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Graph } from '../ir/graph.ts';
import { graphNames, readGraph } from './graph-files.ts';
import { readManifest, sha256, type Manifest } from './manifest.ts';

export interface Folder {
  /** as the user wrote it */
  readonly path: string;
  readonly manifest: Manifest;
  readonly graph: Graph<'kernel'>;
}

export const loadFolder = (path: string): Folder => {
  const manifest = readManifest(path);
  const [text, weights] = graphNames.map((name) => readListed(path, manifest, name));
  return { path, manifest, graph: readGraph(text, weights, join(path, graphNames[0])) };
};

/** A file of the folder, which must be the one that the manifest lists. */
export const readListed = (folder: string, { files }: Manifest, name: string): Uint8Array => {
  const fail = (why: string): never => { throw new CompileError(errors.damagedArtefact(join(folder, name), why)); };
  const listed = files.find((file) => file.path === name);
  if (listed === undefined) return fail('the manifest does not list it');
  const path = join(folder, name);
  if (!existsSync(path)) return fail('it is missing');
  const bytes = readFileSync(path);
  if (bytes.length !== listed.bytes || sha256(bytes) !== listed.sha256) return fail('its content is not what the manifest says');
  return bytes;
};

/** Every file of a target, checked; the folder of the target. */
export const targetFolder = ({ path, manifest }: Folder, target: string): string => {
  for (const file of manifest.files) if (file.path.startsWith(`${target}/`)) readListed(path, manifest, file.path);
  return join(path, target);
};

/** The float model that a folder was compiled from, bound as it was then. */
export interface Source {
  readonly path: string;
  readonly graph: Graph<'float'>;
}
/** Ranges of external weight data of the model at a path. */
export type ExternalDataOf = (model: string) => (location: string, offset: number, length: number | null) => Uint8Array;

/** `given` says where the source model is if it has moved. */
export const loadSource = ({ path, manifest }: Folder, given: string | undefined, externalData: ExternalDataOf): Source => {
  const file = given ?? resolve(path, manifest.source.path);
  if (!existsSync(file)) throw new CompileError(errors.sourceNotFound(given ?? manifest.source.path), 'usage');
  const bytes = readFileSync(file);
  if (sha256(bytes) !== manifest.source.sha256) throw new CompileError(errors.sourceChanged(file), 'usage');
  const { dims, shapes, cutAt } = manifest.binding;
  const model = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { path: file, graph: importBound(model, { dims, shapes, ...(cutAt === null ? {} : { cutAt }), externalData: externalData(file) }).graph };
};

/** Runs the float model on one sample of real numbers. */
export type FloatRun = (sample: Sample) => Promise<Sample>;

/** `own`: our executor, the same bits on every machine. `onnxruntime`: the optional package, on the file as it is. */
export const openFloat = async ({ path, graph }: Source, { manifest }: Folder, executor: 'own' | 'onnxruntime'): Promise<FloatRun> => {
  if (executor === 'onnxruntime') {
    if (manifest.binding.cutAt !== null) throw new CompileError(errors.noOnnxRuntime('the model was cut with --cut-at, and it runs whole models only'), 'usage');
    const runner = await openOnnxRuntime(path);
    return (sample) => runner.run(sample);
  }
  const { run } = createExecutor(graph);
  return async (sample) => run(sample);
};

/** Whether the compiled program takes the data of this input as they are, its normalisation being part of the program. */
export const takesData = ({ manifest }: Folder) => ({ type }: SampleInput): boolean => manifest.normalization !== null && type.dtype !== 'i64';
