/** Samples and targets of `run`, `eval` and `verify`. */
import { Option } from 'commander';
import type { Folder } from '../artefact/load.ts';
import { openSamples, type SampleInput, type SampleOptions, type SamplePaths, type Samples } from '../calibration/samples.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { inputFiles, wholeNumber } from './options.ts';

/** `--input name=x.npy …`, or one path for all inputs; every name must be an input of the model. */
export const samplePaths = (texts: readonly string[], names: readonly string[]): SamplePaths => {
  const files = inputFiles(texts);
  const only = files.get(null);
  if (only !== undefined) {
    if (files.size > 1) throw new CompileError(errors.badCommandLine('--input is either one path for all inputs or <name>=<path> for each', null), 'usage');
    return only;
  }
  for (const name of files.keys()) if (!names.includes(name!)) throw new CompileError(errors.unknownInput(name!, names), 'usage');
  return Object.fromEntries([...files].map(([name, path]) => [name!, path]));
};

/** What runs the float model. */
export const executorOption = (): Option => new Option('--executor <name>', 'what runs the float model; onnxruntime needs the package onnxruntime-node').choices(['own', 'onnxruntime']).default('own');

/** The same data, once as the compiled program takes them and once as the float model does. */
export const openFor = (paths: SamplePaths, inputs: readonly SampleInput[], options: SampleOptions, count: string | undefined): Samples =>
  openSamples(paths, inputs, { ...options, ...(count === undefined ? {} : { count: wholeNumber('--count', count, 1) }) });

/** `--target`, or all that the folder holds; each must be known. */
export const chosenTargets = (given: readonly string[] | undefined, { manifest }: Folder, more: readonly string[]): readonly string[] => {
  const held = manifest.targets.map(({ name }) => name);
  const known = [...held, ...more];
  const unknown = given?.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new CompileError(errors.unknownTarget(unknown, known), 'usage');
  return [...new Set(given ?? held)];
};
