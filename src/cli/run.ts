/** `lowbitc run`: one target, or the float model, on given data. */
import { writeFileSync } from 'node:fs';
import { type Command } from 'commander';
import { loadFolder, loadSource, openFloat, takesData } from '../artefact/load.ts';
import { openRunner, runnableTargets } from '../artefact/runners.ts';
import { dequantized } from '../calibration/executor.ts';
import { encodeNpy, type NpyData } from '../calibration/npy.ts';
import { encodeNpz } from '../calibration/npz.ts';
import { codesAt, type Sample } from '../calibration/samples.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { staticShape } from '../ir/dim.ts';
import { errors } from '../ir/errors.ts';
import type { Tensor } from '../ir/type.ts';
import { collect, newCommand, perform, reasonOf, withCommonOptions, type CommonOptions, type Outcome } from './command.ts';
import { externalDataOf } from './external-data.ts';
import { chosenTargets, executorOption, openFor, samplePaths } from './sample-options.ts';
import { table, type Terminal } from './terminal.ts';

interface RunFlags extends CommonOptions {
  readonly target?: string;
  readonly input?: readonly string[];
  readonly output?: string;
  readonly raw?: boolean;
  readonly model?: string;
  readonly count?: string;
  readonly executor: 'own' | 'onnxruntime';
}

/** Samples handed to a target at once. */
const chunk = 64;

export const runCommand = (finish: (exitCode: number) => void): Command => withCommonOptions(newCommand('run', 'run a compiled program on data')
  .argument('<dir>', 'output folder of compile')
  .option('-t, --target <name>', 'a target of the folder, reference, or float (default: the first target that this machine can run)')
  .option('--input <name=file>', '.npy with the samples of an input; repeatable; without a name, one file for all', collect)
  .option('--output <file>', '.npz with one array for each output, or .npy for a single output; first axis = samples')
  .option('--raw', 'integer outputs as they are; plain run gives real numbers')
  .option('--model <model.onnx>', 'the source model, if it has moved')
  .addOption(executorOption())
  .option('--count <n>', 'only the first n samples'))
  .addHelpText('after', `
Examples:
  lowbitc run out/model --input image=x.npy --output y.npz
  lowbitc run out/model --target reference --input image=x.npy --raw --output codes.npz`)
  .action(async (path: string, flags: RunFlags) => finish(await perform(flags, (terminal) => runFolder(path, flags, terminal))));

const runFolder = async (path: string, flags: RunFlags, terminal: Terminal): Promise<Outcome> => {
  const folder = loadFolder(path);
  const [target] = flags.target === undefined ? runnableTargets(folder) : chosenTargets([flags.target], folder, ['reference', 'float']);
  if (flags.input === undefined) throw new CompileError(errors.badCommandLine('run needs --input', `lowbitc run ${path} --input ${folder.graph.inputs[0]?.name ?? 'x'}=<file.npy>`), 'usage');
  if (target === 'float' && flags.raw) throw new CompileError(errors.badCommandLine('the float model has no integer outputs', 'leave --raw out'), 'usage');
  if (flags.output !== undefined && !/\.np[yz]$/.test(flags.output)) throw new CompileError(errors.badOption('--output', flags.output, 'a name that ends with .npz or .npy'), 'usage');
  const paths = samplePaths(flags.input, folder.graph.inputs.map(({ name }) => name));
  const outputs = target === 'float' ? await runFloat() : await runTarget();
  const arrays = stack(outputs);
  if (flags.output !== undefined) save(flags.output, arrays);
  const rows = Object.entries(arrays).map(([name, { shape, data }]) => [name, `[${shape.join(', ')}]`, flags.output === undefined ? preview(data) : flags.output]);
  return {
    text: table(rows, ''),
    document: {
      target, samples: outputs.length,
      outputs: Object.fromEntries(Object.entries(arrays).map(([name, { shape, data }]) => [name, { shape, ...(flags.output === undefined ? { data: Array.from(data as Float32Array, Number) } : { file: flags.output }) }])),
    },
  };

  async function runFloat(): Promise<readonly Sample[]> {
    const source = loadSource(folder, flags.model, externalDataOf);
    const samples = openFor(paths, source.graph.inputs, folder.manifest.normalization ?? {}, flags.count);
    const float = await openFloat(source, folder, flags.executor);
    const results: Sample[] = [];
    for (let i = 0; i < samples.count; i++) {
      results.push(await float(samples.get(i)));
      terminal.progress('float', i + 1, samples.count);
    }
    return results;
  }

  async function runTarget(): Promise<readonly Sample[]> {
    const { inputs } = folder.graph;
    const samples = openFor(paths, inputs, {}, flags.count);
    const runner = await openRunner(folder, target);
    const results: Sample[] = [];
    for (let first = 0; first < samples.count; first += chunk) {
      const count = Math.min(chunk, samples.count - first);
      const codes = Array.from({ length: count }, (_, i) => codesAt(samples, first + i, inputs, takesData(folder)));
      results.push(...await runner.run(codes));
      terminal.progress(target, first + count, samples.count);
    }
    return flags.raw ? results : results.map((sample) => Object.fromEntries(Object.entries(sample).map(([name, tensor]) => [name, dequantized(tensor)])));
  }
};

interface Stacked {
  readonly shape: readonly number[];
  readonly data: NpyData;
}

/** One array for each output. Samples stand along a new first axis, or along the batch axis where that is there and 1. */
const stack = (samples: readonly Sample[]): Readonly<Record<string, Stacked>> =>
  Object.fromEntries(Object.keys(samples[0]).map((name) => {
    const tensors = samples.map((sample): Tensor => sample[name]);
    const shape = staticShape(tensors[0].type.shape);
    const data = new (tensors[0].data.constructor as Float32ArrayConstructor)(tensors.length * tensors[0].data.length);
    tensors.forEach((tensor, i) => data.set(tensor.data as Float32Array, i * tensor.data.length));
    return [name, { shape: shape.length > 0 ? [tensors.length * shape[0], ...shape.slice(1)] : [tensors.length], data }];
  }));

const save = (path: string, arrays: Readonly<Record<string, Stacked>>): void => {
  const names = Object.keys(arrays);
  if (path.endsWith('.npy') && names.length !== 1) throw new CompileError(errors.badOption('--output', path, `.npz, since there are ${names.length} outputs,`), 'usage');
  try {
    writeFileSync(path, path.endsWith('.npy') ? encodeNpy(arrays[names[0]].shape, arrays[names[0]].data) : encodeNpz(arrays));
  } catch (cause) {
    throw new CompileError(errors.unwritableFile(path, reasonOf(cause)), 'usage');
  }
};

const preview = (data: NpyData): string => {
  const shown = Array.from((data as Float32Array).subarray(0, 10), (value) => (Number.isInteger(value) || typeof value === 'bigint' ? String(value) : value.toPrecision(5)));
  return `${shown.join(' ')}${data.length > shown.length ? ' …' : ''}`;
};
