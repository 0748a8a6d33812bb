/** Flags that say which model is compiled, on which data, by which pipeline → options of `compile()`. Shared by `compile` and `print`. */
import { basename, extname } from 'node:path';
import { Option, type Command } from 'commander';
import type { Normalization } from '../artefact/manifest.ts';
import { fileSource } from '../calibration/bytes.ts';
import { openNpy } from '../calibration/npy.ts';
import { openSamples, syntheticSamples, type Samples } from '../calibration/samples.ts';
import { backendsFor, toolboxWith, type CompileOptions } from '../compile.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { parseBudget } from '../passes/allocation/budget.ts';
import type { Pipeline } from '../passes/pipeline.ts';
import { weightForms, type WeightForm } from '../numerics/power-weights.ts';
import { efforts, rescaleForms, type Effort, type RescaleForm } from '../passes/presets.ts';
import { folderStore } from './measurement-store.ts';
import { timesFrom } from '../bench/times.ts';
import { collect } from './command.ts';
import { externalDataOf } from './external-data.ts';
import { dimBindings, keptLayers, loadPlugins, numberList, pipelineOption, rawDataType, readBytes, shapeBindings, wholeNumber, widths, type Kept, type PipelineFile } from './options.ts';

export interface ModelFlags {
  readonly calib?: string;
  readonly calibCount?: string;
  readonly mean?: string;
  readonly std?: string;
  readonly synthetic?: boolean;
  readonly bits?: string;
  readonly effort?: Effort;
  readonly softmax?: WeightForm;
  readonly rescale?: RescaleForm;
  readonly budget?: string;
  readonly holdout?: string;
  readonly labels?: string;
  readonly allocate?: string;
  readonly timings?: string;
  readonly cache?: string;
  readonly keep?: readonly string[];
  readonly dim?: readonly string[];
  readonly shape?: readonly string[];
  readonly cutAt?: string;
  readonly passes?: string;
  readonly disablePass?: readonly string[];
  readonly plugin?: readonly string[];
  readonly seed?: string;
  readonly threads?: string;
}

export const withModelOptions = (command: Command): Command => command
  .option('--bits <wXaY>', 'bits of weights (w2 to w8; w2c to w4c: places in a codebook of each layer) and of what they multiply (a4 to a8, a16), as in w4a8; mixed: chosen for every layer (default: w8a8, with --budget mixed)')
  .addOption(new Option('--effort <level>', 'time for accuracy: low rounds only, normal also migrates channels and fits weights below 8 bits, high fits all weights on more samples and tries ReLU for GELU and groups of channels (default: normal)').choices(efforts))
  .addOption(new Option('--softmax <form>', 'weights of attention: exact, or powers of two in 4 bits for targets that shift instead of multiplying (default: exact)').choices(weightForms))
  .addOption(new Option('--rescale <form>', 'products of rescales: exact, of 64 bits, or words, of 32 bits where the error is proven to be below a 32nd of a code, which is faster (default: exact)').choices(rescaleForms))
  .option('--budget <limits>', 'what the program may take, as in size=96K,ram=64K,latency=20ms,bops=1.2G,drop=1%; bits are chosen within it (default of mixed: drop=1%)')
  .option('--holdout <data>', 'samples on which a drop is measured (default: half of those of --calib, which nothing else then sees)')
  .option('--labels <labels.npy>', 'classes of --holdout, or of --calib without it (default: what the float model says)')
  .option('--allocate <options>', "options of allocate-bits, as in 'measure: split, activations: [4, 8], engine: highs'; see lowbitc passes allocate-bits")
  .option('--timings <table.json>', 'table of lowbitc profile, for a budget of latency')
  .option('--cache <dir>', 'keep what was measured to choose bits, for the next compilation')
  .option('--calib <data>', 'calibration samples: .npy (first axis = samples), .npz (keys = input names), or a folder of .npy')
  .option('--calib-count <n>', 'use only the first n samples')
  .option('--mean <list>', 'model input = (data - mean) / std; one number, or one for each channel; the compiled model takes the data itself')
  .option('--std <list>', 'see --mean')
  .option('--synthetic', 'calibrate on random data; for trying things out, the results mean nothing')
  .option('--keep <glob=bits>', 'bits for the layers whose name, or ONNX node, matches; repeatable', collect)
  .option('--dim <symbol=n>', 'size of a symbolic dimension, as in batch=1; repeatable', collect)
  .option('--shape <input=AxBxC>', 'shape of an input, as in image=1x3x224x224; repeatable', collect)
  .option('--cut-at <value>', 'end the model at this value, which becomes the output')
  .option('--passes <pipeline>', "run this pipeline instead of the preset: 'a{opt: 1}, b', JSON, or @file; a pipeline.json replays its compilation")
  .option('--disable-pass <name>', 'leave a pass of the preset out; repeatable', collect)
  .option('--plugin <module>', 'load passes, ops and targets from this module; repeatable', collect)
  .option('--seed <n>', 'seed of everything that draws random numbers (default: 0)')
  .option('--threads <n>', 'worker threads; the result is the same for any number (default: as many as pay, at most four)');

export interface Request {
  readonly bits: string;
  readonly kept: readonly Kept[];
  readonly synthetic: boolean;
  readonly normalization: Normalization | null;
  readonly options: CompileOptions;
}

/** Random samples with --synthetic, unless --calib-count says otherwise. */
const syntheticCount = 16;

/** Everything that the flags say, checked; a pipeline.json gives what they leave open. */
export const readModelFlags = async (modelPath: string, flags: ModelFlags, targets: readonly string[]): Promise<Request> => {
  const { pipeline, settings }: { pipeline: Pipeline | null; settings: Partial<PipelineFile> } =
    flags.passes === undefined ? { pipeline: null, settings: {} } : pipelineOption(flags.passes);
  const plugins = await loadPlugins(flags.plugin ?? []);
  const chosen = [...new Set(targets)].map(withSettingsFile);
  backendsFor(toolboxWith(plugins), chosen);
  const bits = widths(flags.bits ?? (flags.budget === undefined ? settings.bits ?? 'w8a8' : 'mixed'));
  if (flags.allocate !== undefined && bits !== 'mixed') throw new CompileError(errors.badCommandLine('--allocate is for bits that are chosen', 'give --budget, or --bits mixed'), 'usage');
  if (flags.budget !== undefined && bits !== 'mixed') throw new CompileError(errors.badCommandLine(`--budget chooses the bits of every layer, and --bits ${bits} sets them`, 'leave one of them out'), 'usage');
  if (flags.rescale !== undefined && pipeline !== null) throw new CompileError(errors.badCommandLine('--rescale is for the preset, and --passes gives a pipeline', flags.rescale === 'words' ? 'write rescale-in-words at the end of the pipeline' : 'leave rescale-in-words out of the pipeline'), 'usage');
  if (flags.softmax !== undefined && pipeline !== null) throw new CompileError(errors.badCommandLine('--softmax is for the preset, and --passes gives a pipeline', `write lower-to-kernels{softmax: ${flags.softmax}} in the pipeline`), 'usage');
  const kept = keptLayers(flags.keep ?? [], bits === 'mixed');
  const normalization = readNormalization(flags, settings);
  if (flags.calib !== undefined && flags.synthetic) throw new CompileError(errors.badCommandLine('--calib and --synthetic exclude each other', null), 'usage');
  const count = flags.calibCount === undefined ? undefined : wholeNumber('--calib-count', flags.calibCount, 1);
  const seed = flags.seed === undefined ? settings.seed ?? 0 : wholeNumber('--seed', flags.seed, 0);
  const { calib } = flags;
  const cutAt = flags.cutAt ?? settings.cutAt ?? undefined;
  return {
    bits, kept, synthetic: flags.synthetic ?? false, normalization: normalization === null ? null : { mean: normalization.mean, std: normalization.std },
    options: {
      name: basename(modelPath, extname(modelPath)), targets: chosen, bits, plugins, ...(flags.effort === undefined ? {} : { effort: flags.effort }), ...(flags.softmax === undefined ? {} : { softmax: flags.softmax }), ...(flags.rescale === undefined ? {} : { rescale: flags.rescale }),
      dims: { ...settings.dims, ...dimBindings(flags.dim ?? []) },
      shapes: { ...settings.shapes, ...shapeBindings(flags.shape ?? []) },
      ...(cutAt === undefined ? {} : { cutAt }),
      ...(pipeline === null ? {} : { pipeline }),
      disabledPasses: flags.disablePass ?? [],
      ...(bits === 'mixed' ? allocationOptions(flags, kept, normalization) : {}),
      seed,
      ...(flags.threads === undefined ? {} : { threads: wholeNumber('--threads', flags.threads, 1) }),
      openSamples: flags.synthetic ? (inputs) => syntheticSamples(inputs, count ?? syntheticCount, seed)
        : calib === undefined ? null : (inputs) => openSamples(calib, inputs, count === undefined ? {} : { count }),
      ...(normalization === null ? {} : { normalization }),
      externalData: externalDataOf(modelPath),
    },
  };
};

/** What choosing bits needs beside the calibration data. */
const allocationOptions = (flags: ModelFlags, kept: readonly Kept[], normalization: { readonly mean: readonly number[]; readonly std: readonly number[] } | null): Partial<CompileOptions> => {
  const { budget, holdout, labels, timings, cache, calib, allocate } = flags;
  if (budget !== undefined) parseBudget(budget);
  if (labels !== undefined && holdout === undefined && calib === undefined) throw new CompileError(errors.badCommandLine('--labels needs the data they are for', 'give --holdout <data>'), 'usage');
  const scheme = normalization === null ? {} : { mean: normalization.mean, std: normalization.std };
  return {
    allocation: { ...(allocate === undefined ? {} : pipelineOption(`allocate-bits{${allocate}}`).pipeline[0].options), ...(budget === undefined ? {} : { budget }), ...(kept.length === 0 ? {} : { keep: kept.map(({ text }) => text) }), ...(holdout === undefined ? {} : { holdout: 0 }) },
    ...(holdout === undefined ? {} : {
      openHeldOut: (inputs) => {
        const samples = openSamples(holdout, inputs, scheme);
        return { samples, labels: labels === undefined ? null : labelsOf(labels, samples) };
      },
    }),
    ...(labels === undefined || holdout !== undefined ? {} : { openLabels: (samples) => labelsOf(labels, samples) }),
    ...(timings === undefined ? {} : { timeOf: timesFrom(timings) }),
    ...(cache === undefined ? {} : { store: folderStore(cache) }),
  };
};

const labelsOf = (path: string, { count, rowsPerSample }: Samples): (index: number) => ArrayLike<number | bigint> => {
  const file = openNpy(fileSource(path));
  const held = Math.floor(file.rows / rowsPerSample);
  if (held < count) throw new CompileError(errors.badLabels(path, `they are for ${held} samples, the data holds ${count}`), 'usage');
  return (index) => file.read(index * rowsPerSample, rowsPerSample);
};

/** `name:file.json` → `name:` and the text of the file. */
const withSettingsFile = (target: string): string => {
  const [, name, file] = /^([^:]*):(.*\.json)$/.exec(target) ?? [];
  return file === undefined ? target : `${name}:${new TextDecoder().decode(readBytes(file))}`;
};

const readNormalization = (flags: ModelFlags, settings: Partial<PipelineFile>): Required<CompileOptions>['normalization'] | null => {
  const given = flags.mean !== undefined || flags.std !== undefined;
  if (!given && !settings.normalization) return null;
  const mean = flags.mean === undefined ? settings.normalization?.mean ?? [0] : numberList('--mean', flags.mean);
  const std = flags.std === undefined ? settings.normalization?.std ?? [1] : numberList('--std', flags.std);
  if (flags.calib === undefined) throw new CompileError(errors.badCommandLine('--mean and --std need --calib: the data says whether the model takes bytes or words', null), 'usage');
  const dtype = rawDataType(flags.calib);
  if (dtype === null) {
    throw new CompileError(errors.badCommandLine(`--mean and --std need data of type uint8 or int16, which "${flags.calib}" does not hold`, 'normalise the data beforehand, and leave --mean and --std out'), 'usage');
  }
  return { mean, std, dtype };
};
