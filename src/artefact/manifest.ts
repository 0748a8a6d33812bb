/**
 * `manifest.json`: what an output folder holds and how to use it. It says nothing about when, where or on which machine it was made:
 * the same input and options give the same bytes.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Artefact } from '../backends/backend.ts';
import type { ProgramInterface } from '../backends/interface.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { LayerCost } from '../ir/cost.ts';

/** Raised when a field changes its meaning or goes away. */
export const manifestFormat = 1;
export const manifestName = 'manifest.json';

/** An input or output of the compiled program. real = (code − zero) · scale; no scale where the codes are plain integers. */
export interface ManifestTensor {
  readonly name: string;
  /** how the name is written in C and TypeScript */
  readonly identifier: string;
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly scale: number | null;
  readonly zero: number;
}
export interface ManifestFile {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
}
export interface ManifestTarget {
  readonly name: string;
  /** constants as stored in the artefact: weights, multipliers, tables */
  readonly weightBytes: number;
  /** working memory of one run, without inputs and outputs */
  readonly arenaBytes: number;
}
export interface Normalization {
  readonly mean: readonly number[];
  readonly std: readonly number[];
}
export interface CalibrationFacts {
  readonly samples: number;
  /** of their content */
  readonly digest: string;
  /** relative to this folder; null for made-up samples */
  readonly path: string | null;
  readonly synthetic: boolean;
}
export interface Manifest {
  readonly lowbitc: string;
  readonly format: typeof manifestFormat;
  readonly name: string;
  /** the ONNX file; the path is relative to this folder */
  readonly source: { readonly path: string; readonly sha256: string };
  /** how the source model was bound before compiling: symbolic dims, input shapes, the value it was cut at */
  readonly binding: {
    readonly dims: Readonly<Record<string, number>>;
    readonly shapes: Readonly<Record<string, readonly number[]>>;
    readonly cutAt: string | null;
  };
  /** raw data → input of the source model: (data − mean) / std, done by the compiled program itself; null where it takes quantized input */
  readonly normalization: Normalization | null;
  readonly inputs: readonly ManifestTensor[];
  readonly outputs: readonly ManifestTensor[];
  readonly bits: string;
  /** bits of the rescaling factors of all targets, where one of them multiplies by fewer than 31 */
  readonly multiplierBits?: number;
  readonly targets: readonly ManifestTarget[];
  /** the greatest over the targets */
  readonly weightBytes: number;
  readonly arenaBytes: number;
  readonly macs: { readonly total: number; readonly byWidth: Readonly<Record<string, number>> };
  readonly layers: readonly LayerCost[];
  readonly calibration: CalibrationFacts | null;
  /** everything in this folder but this file */
  readonly files: readonly ManifestFile[];
}

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

export const manifestFiles = (files: readonly Artefact[]): readonly ManifestFile[] =>
  files.map(({ path, bytes }) => ({ path, bytes: bytes.length, sha256: sha256(bytes) }));

export const manifestTensors = ({ inputs, outputs }: ProgramInterface): Pick<Manifest, 'inputs' | 'outputs'> => {
  const of = (ports: ProgramInterface['inputs']): readonly ManifestTensor[] =>
    ports.map(({ name, id, shape, dtype, scale, zero }) => ({ name, identifier: id, shape, dtype, scale, zero }));
  return { inputs: of(inputs), outputs: of(outputs) };
};

/** Whether the folder holds a manifest of ours, of whatever format. */
export const isOurFolder = (folder: string): boolean => {
  try {
    const parsed: unknown = JSON.parse(readFileSync(join(folder, manifestName), 'utf8'));
    return typeof parsed === 'object' && parsed !== null && 'lowbitc' in parsed && 'format' in parsed;
  } catch {
    return false;
  }
};

export const readManifest = (folder: string): Manifest => {
  const path = join(folder, manifestName);
  const fail = (why: string): never => { throw new CompileError(errors.notAnArtefact(folder, why), 'usage'); };
  if (!existsSync(folder)) fail('there is no such folder');
  if (!existsSync(path)) fail(`it holds no ${manifestName}`);
  let parsed: Partial<Manifest>;
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8')) as Partial<Manifest>;
  } catch {
    return fail(`its ${manifestName} is not JSON`);
  }
  if (typeof parsed !== 'object' || parsed === null || parsed.lowbitc === undefined) return fail(`its ${manifestName} is of something else`);
  if (parsed.format !== manifestFormat) return fail(`lowbitc ${parsed.lowbitc} wrote it in format ${String(parsed.format)}, and this version reads format ${manifestFormat}`);
  const lists = [parsed.inputs, parsed.outputs, parsed.targets, parsed.files];
  if (!lists.every(Array.isArray) || typeof parsed.source?.path !== 'string' || typeof parsed.name !== 'string') return fail(`its ${manifestName} is incomplete`);
  return parsed as Manifest;
};
