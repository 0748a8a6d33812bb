/** A compilation as the files of its output folder. The bytes depend on the compilation and on what is named here, on nothing else. */
import { realpathSync } from 'node:fs';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import type { Artefact } from '../backends/backend.ts';
import { interfaceOf } from '../backends/interface.ts';
import type { Compilation } from '../compile.ts';
import type { Graph } from '../ir/graph.ts';
import { certify, type Certificate } from './certificate.ts';
import { layerCosts, macsByWidth, totalMacs } from '../ir/cost.ts';
import { graphFiles } from './graph-files.ts';
import { manifestFiles, manifestFormat, manifestName, manifestTensors, type Manifest } from './manifest.ts';
import type { NoiseReport } from './noise.ts';
import { jsonFile } from './output-folder.ts';
import { reportOf, type Report } from './report.ts';

/** What the compilation itself does not know. */
export interface BundleFacts extends Pick<Manifest, 'name' | 'source' | 'binding' | 'normalization' | 'bits'> {
  /** of lowbitc */
  readonly version: string;
  readonly seed: number;
  readonly noise: NoiseReport | null;
  /** where the calibration data lie, relative to the output folder; null for made-up ones */
  readonly calibrationPath: string | null;
}
export interface Bundle {
  readonly manifest: Manifest;
  readonly report: Report;
  readonly certificate: Certificate;
  /** all files, the manifest last */
  readonly files: readonly Artefact[];
}

/** What the narrow multiplier of a target made of all targets. */
const multiplierBitsOf = (pipeline: Compilation['pipeline']): Pick<Manifest, 'multiplierBits'> => {
  const widths = pipeline.filter(({ pass }) => pass === 'narrow-multipliers').map(({ options }) => Number(options['bits'])).filter((width) => width < 31);
  return widths.length === 0 ? {} : { multiplierBits: Math.min(...widths) };
};

export const bundle = (compilation: Compilation, { name, version, bits, seed, source, binding, normalization, noise, calibrationPath }: BundleFacts): Bundle => {
  const graph = compilation.graph as Graph<'kernel'>;
  const layers = layerCosts(graph);
  const targets = compilation.targets.map(({ name, weightBytes, arenaBytes }) => ({ name, weightBytes, arenaBytes }));
  const used = compilation.samples;
  const calibration = used === null ? null : { samples: used.count, digest: used.digest, path: calibrationPath, synthetic: calibrationPath === null };
  const certificate = certify(graph, compilation.targets.flatMap((target) => target.files));
  const report = reportOf(compilation, noise);
  const pipeline = {
    lowbitc: version, bits, seed, source: { sha256: source.sha256 },
    calibration: used === null ? null : { samples: used.count, digest: used.digest },
    dims: binding.dims, shapes: binding.shapes, cutAt: binding.cutAt, normalization, passes: compilation.pipeline,
  };
  const files = [
    jsonFile('pipeline.json', pipeline), jsonFile('certificate.json', certificate), jsonFile('report.json', report),
    ...graphFiles(graph), ...compilation.targets.flatMap((target) => target.files),
  ];
  const manifest: Manifest = {
    lowbitc: version, format: manifestFormat, name, source, binding, normalization,
    ...manifestTensors(interfaceOf(graph)),
    bits, ...multiplierBitsOf(compilation.pipeline), targets,
    weightBytes: Math.max(0, ...targets.map(({ weightBytes }) => weightBytes)), arenaBytes: Math.max(0, ...targets.map(({ arenaBytes }) => arenaBytes)),
    macs: { total: totalMacs(layers), byWidth: macsByWidth(layers) }, layers, calibration,
    files: manifestFiles(files),
  };
  return { manifest, report, certificate, files: [...files, jsonFile(manifestName, manifest)] };
};

/** A path as written in the manifest: relative to the output folder, with forward slashes, links on the way there resolved. */
export const pathFrom = (output: string, file: string): string => {
  const folder = resolve(output);
  return relative(join(realParent(folder), basename(folder)), realpathSync(file)).split(sep).join('/');
};

/** The folder that `path` will stand in, as the file system knows it; parents may not exist yet. */
const realParent = (path: string): string => {
  const parent = dirname(path);
  try {
    return realpathSync(parent);
  } catch {
    return parent === path ? parent : join(realParent(parent), basename(parent));
  }
};
