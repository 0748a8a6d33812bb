/**
 * Sample sets: `.npy`, `.npz` or a folder, read one sample at a time so that memory does not grow with their number. One sample is what
 * one run of the model takes: a tensor for each graph input.
 *
 * The first axis of a file counts rows. A row is a sample when it has as many elements as the input; where the model's batch is B > 1 and
 * a row has 1/B of them, B rows in turn make a sample. A file whose elements together fit the input once is one sample.
 */
import { createHash } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { CompileError } from '../ir/diagnostic.ts';
import { bindDim, isStaticShape, printShape, sizeOf, symbolsOf, type StaticShape } from '../ir/dim.ts';
import { allocate, isInteger, rangeOf, type DType, type IntegerDType } from '../ir/dtype.ts';
import { errors } from '../ir/errors.ts';
import { tensor, tensorType, type Tensor, type TensorType } from '../ir/type.ts';
import { createRandom } from '../numerics/random.ts';
import { fileSource } from './bytes.ts';
import { quantized } from './codes.ts';
import { openNpy, type NpyData, type NpyDType, type NpyFile } from './npy.ts';
import { openNpz } from './npz.ts';

/** A tensor for each graph input, by name. */
export type Sample = Readonly<Record<string, Tensor>>;

/** What a sample set needs to know of a graph input; the inputs of a graph fit. */
export interface SampleInput {
  readonly name: string;
  readonly type: TensorType;
}

export interface SampleOptions {
  /** float input = (data − mean)/std, one number or one for each channel */
  readonly mean?: readonly number[];
  readonly std?: readonly number[];
  /** only the first `count` samples */
  readonly count?: number;
}

/** One path for all inputs, or input name → path. */
export type SamplePaths = string | Readonly<Record<string, string>>;

export interface Samples extends Iterable<Sample> {
  readonly count: number;
  /** rows of the files in one sample: the model's batch, or 1 where rows are whole samples; labels count rows */
  readonly rowsPerSample: number;
  readonly inputs: readonly SampleInput[];
  /** sha256 of everything that `get` depends on: inputs, options and the bytes of the chosen samples; computed on first use */
  readonly digest: string;
  /** plain data from which `reopenSamples` makes the same set in another thread */
  readonly source: SampleSource;
  /** Real tensors (float32, after mean and std) for float and quantised inputs, integers for integer inputs. */
  get(index: number): Sample;
  /** The data as they lie in the files, in the narrowest dtype of the same values; nothing is normalised. */
  raw(index: number): Sample;
}

export type SampleSource =
  | { readonly kind: 'files'; readonly paths: SamplePaths; readonly inputs: readonly SampleInput[]; readonly options: SampleOptions }
  | { readonly kind: 'memory'; readonly name: string; readonly inputs: readonly SampleInput[]; readonly list: readonly Sample[] }
  | { readonly kind: 'part'; readonly of: SampleSource; readonly indices: readonly number[] };

export const reopenSamples = (source: SampleSource): Samples => {
  switch (source.kind) {
    case 'files': return openSamples(source.paths, source.inputs, source.options);
    case 'memory': return samplesInMemory(source.inputs, source.list, source.name);
    case 'part': return partOf(reopenSamples(source.of), source.indices);
  }
};

/** These samples of a set, in this order. */
export const partOf = (samples: Samples, indices: readonly number[]): Samples => samplesOf({
  count: indices.length, inputs: samples.inputs, rowsPerSample: samples.rowsPerSample, source: { kind: 'part', of: samples.source, indices },
  get: (index) => samples.get(indices[index]), raw: (index) => samples.raw(indices[index]), describe: JSON.stringify(samples.inputs),
});
export const lastSamples = (samples: Samples, count: number): Samples => {
  const first = samples.count - Math.min(count, samples.count);
  return first === 0 ? samples : partOf(samples, Array.from({ length: samples.count - first }, (_, i) => first + i));
};

/** A set in two: `share` of its samples, evenly spread, and the others. At least one stays on each side; null for a set of one. */
export const split = (samples: Samples, share: number): { readonly kept: readonly number[]; readonly apart: readonly number[] } | null => {
  const isApart = (i: number): boolean => Math.floor((i + 1) * share) > Math.floor(i * share);
  const all = Array.from({ length: samples.count }, (_, i) => i);
  const [kept, apart] = [all.filter((i) => !isApart(i)), all.filter(isApart)];
  return kept.length === 0 || apart.length === 0 ? null : { kept, apart };
};

export const openSamples = (paths: SamplePaths, inputs: readonly SampleInput[], options: SampleOptions = {}): Samples => {
  const bound = inputs.map(bindBatch);
  const shownAs = typeof paths === 'string' ? paths : Object.values(paths).join(', ');
  const columns = bound.map((input) => openColumn(paths, input, bound));
  const [first] = columns;
  if (first === undefined) throw new CompileError(errors.noSamples(shownAs), 'usage');
  for (const column of columns) {
    if (column.count !== first.count) throw new CompileError(errors.unequalCounts(first.name, first.count, column.name, column.count), 'usage');
  }
  const count = Math.min(first.count, options.count ?? Infinity);
  if (count < 1) throw new CompileError(errors.noSamples(shownAs), 'usage');
  const normalized = columns.filter(({ input }) => !isInteger(realDType(input.type)));
  const several = normalized.length > 1;
  const convert = columns.map((column) =>
    normalization(column.input, several && !column.integer ? {} : options));
  const sample = (index: number, make: (column: Column, i: number) => Tensor): Sample => {
    if (!(index >= 0 && index < count)) throw new RangeError(`sample ${index} of ${count}`);
    return Object.fromEntries(columns.map((column, i) => [column.input.name, make(column, i)]));
  };
  return samplesOf({
    count, inputs: bound, source: { kind: 'files', paths, inputs: bound, options }, rowsPerSample: Math.max(...columns.map(({ rowsPerSample }) => rowsPerSample)),
    get: (index) => sample(index, (column, i) => toInput(column, index, convert[i])),
    raw: (index) => sample(index, (column) => rawTensor(column.input, column.read(index))),
    describe: JSON.stringify([bound, options.mean ?? null, options.std ?? null]),
  });
};

/** Samples that are at hand as tensors of the inputs' real types. */
export const samplesInMemory = (inputs: readonly SampleInput[], list: readonly Sample[], name = 'samples'): Samples => {
  if (list.length === 0) throw new CompileError(errors.noSamples(name), 'usage');
  list.forEach((sample, index) => inputs.forEach((input) => {
    const given = sample[input.name];
    if (given === undefined) throw new CompileError(errors.missingInput(name, input.name, Object.keys(sample)), 'usage');
    if (given.data.length !== sizeOf(input.type.shape)) {
      throw new CompileError(errors.sampleShape(name, [1, ...(given.type.shape as StaticShape)], input.name, printShape(input.type.shape)), 'usage');
    }
    checkFinite(given.data as NpyData, name, index);
  }));
  const get = (index: number): Sample => list[index] ?? (() => { throw new RangeError(`sample ${index} of ${list.length}`); })();
  return samplesOf({ count: list.length, inputs, rowsPerSample: 1, get, raw: get, source: { kind: 'memory', name, inputs, list }, describe: JSON.stringify(inputs) });
};

/** Made-up samples for models without data: standard normal reals, small random integers. They say nothing about real ranges. */
export const syntheticSamples = (inputs: readonly SampleInput[], count: number, seed: number): Samples => {
  const random = createRandom(seed);
  const bound = inputs.map(bindBatch);
  const draw = ({ type }: SampleInput): Tensor => {
    const dtype = realDType(type);
    const data = allocate(dtype, sizeOf(type.shape));
    const most = isInteger(dtype) ? Math.min(128, rangeOf(dtype)[1] + 1) : 0;
    for (let i = 0; i < data.length; i++) data[i] = dtype === 'f32' ? random.normal() : dtype === 'i64' ? BigInt(random.below(most)) : random.below(most);
    return { type: tensorType(dtype, type.shape), data };
  };
  return samplesInMemory(bound, Array.from({ length: count }, () => Object.fromEntries(bound.map((input) => [input.name, draw(input)]))), 'synthetic samples');
};

/**
 * The tensors that a compiled graph takes for a sample: integer data pass as they are where the input's codes can hold them and the
 * graph was compiled to take them (`takesData`), other data are quantised by the rule of the boundary.
 */
export const codesAt = (samples: Samples, index: number, inputs: readonly SampleInput[], takesData: (input: SampleInput) => boolean): Sample => {
  let reals: Sample | null = null;
  let raw: Sample | null = null;
  return Object.fromEntries(inputs.map((input) => {
    const { type, name } = input;
    if (type.quant === null || takesData(input)) return [name, recast((raw ??= samples.raw(index))[name], type, name, index)];
    return [name, quantized((reals ??= samples.get(index))[name], type)];
  }));
};

// ---- columns: the samples of one input

/** The samples of one input, out of one file or of several in turn. */
interface Column {
  readonly name: string;
  readonly input: SampleInput;
  readonly count: number;
  readonly rowsPerSample: number;
  /** the files hold integers */
  readonly integer: boolean;
  read(index: number): Stored;
}
interface Stored {
  readonly file: string;
  /** sample within the file, for messages */
  readonly sample: number;
  readonly dtype: NpyDType;
  readonly data: NpyData;
}

const openColumn = (paths: SamplePaths, input: SampleInput, inputs: readonly SampleInput[]): Column => {
  if (typeof paths !== 'string') {
    const path = paths[input.name];
    if (path === undefined) throw new CompileError(errors.missingInput(Object.values(paths).join(', '), input.name, Object.keys(paths)), 'usage');
    return openColumn(path, input, [input]);
  }
  const named = (files: ReadonlyMap<string, NpyFile>): NpyFile => {
    // an archive or folder with a single array serves a single input whatever its name
    const file = files.get(input.name) ?? (inputs.length === 1 && files.size === 1 ? [...files.values()][0] : undefined);
    if (file === undefined) throw new CompileError(errors.missingInput(paths, input.name, [...files.keys()]), 'usage');
    return file;
  };
  if (isFolder(paths)) {
    const names = readdirSync(paths).filter((name) => name.endsWith('.npy')).sort();
    const open = (name: string): NpyFile => openNpy(fileSource(join(paths, name)));
    if (names.length === 0) throw new CompileError(errors.noSamples(paths), 'usage');
    if (inputs.length > 1 || names.includes(`${input.name}.npy`)) {
      return columnOf(paths, input, [named(new Map(names.map((name) => [name.slice(0, -'.npy'.length), open(name)])))]);
    }
    return columnOf(paths, input, names.map(open));
  }
  const source = fileSource(paths);
  if (paths.endsWith('.npz')) return columnOf(paths, input, [named(openNpz(source))]);
  if (inputs.length > 1) throw new CompileError(errors.missingInput(paths, inputs[1].name, [inputs[0].name]), 'usage');
  return columnOf(paths, input, [openNpy(source)]);
};

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

const columnOf = (name: string, input: SampleInput, files: readonly NpyFile[]): Column => {
  const parts = files.map((file) => ({ file, ...rowsOfSample(file, input) }));
  const ends: number[] = [];
  for (const { count } of parts) ends.push((ends.at(-1) ?? 0) + count);
  const read = (index: number): Stored => {
    const which = ends.findIndex((end) => index < end);
    const { file, rows } = parts[which];
    const sample = index - (which === 0 ? 0 : ends[which - 1]);
    const stored = { file: file.name, sample, dtype: file.dtype, data: file.read(sample * rows, rows) };
    checkFinite(stored.data, file.name, sample);
    return stored;
  };
  return {
    name, input, read, count: ends.at(-1)!,
    rowsPerSample: parts[0].batch,
    integer: files.every(({ dtype }) => dtype[0] !== 'f'),
  };
};

/** How many rows make a sample, how many of them are samples of their own in the model's batch, and how many samples the file holds. */
const rowsOfSample = (file: NpyFile, { name, type }: SampleInput): { readonly rows: number; readonly batch: number; readonly count: number } => {
  const size = sizeOf(type.shape);
  const batch = (type.shape[0] as number | undefined) ?? 1;
  if (file.rows === 0) throw new CompileError(errors.noSamples(file.name), 'usage');
  if (file.rowSize === size) return { rows: 1, batch: 1, count: file.rows };
  if (file.rowSize * batch === size && file.rows >= batch) return { rows: batch, batch, count: Math.floor(file.rows / batch) };
  if (file.rowSize * file.rows === size) return { rows: file.rows, batch: 1, count: 1 };
  throw new CompileError(errors.sampleShape(file.name, file.shape, name, printShape(type.shape)), 'usage');
};

// ---- conversion

const realDType = ({ dtype, quant }: TensorType): DType => (quant === null ? dtype : 'f32');

/** The first axis is the batch: one where the model leaves it open. */
const bindBatch = ({ name, type }: SampleInput): SampleInput => {
  const [batch, ...rest] = type.shape;
  const shape = batch === undefined ? [] : [bindDim(batch, new Map(symbolsOf([batch]).map((symbol) => [symbol, 1]))), ...rest];
  if (!isStaticShape(shape)) throw new CompileError(errors.symbolicInput(name, printShape(type.shape)), 'usage');
  return { name, type: { ...type, shape } };
};

const checkFinite = (data: NpyData, file: string, sample: number): void => {
  if (!(data instanceof Float32Array || data instanceof Float64Array)) return;
  for (const x of data) {
    if (!Number.isFinite(x)) throw new CompileError(errors.notFinite(file, sample, Number.isNaN(x) ? 'NaN' : 'infinity'), 'usage');
  }
};

/** Mean and deviation of each channel, spread so that element i has channel floor(i/inner) mod channels; null where nothing is to do. */
interface Normalization {
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly inner: number;
}
const normalization = ({ type }: SampleInput, { mean = [0], std = [1] }: SampleOptions): Normalization | null => {
  if (isInteger(realDType(type)) || (mean.every((m) => m === 0) && std.every((s) => s === 1))) return null;
  const fail = (why: string): never => { throw new CompileError(errors.badNormalization(why), 'usage'); };
  const channels = Math.max(mean.length, std.length);
  if ([mean, std].some((list) => list.length !== 1 && list.length !== channels)) fail(`${mean.length} and ${std.length} numbers`);
  if (!mean.every(Number.isFinite)) fail('a mean is not a number');
  if (!std.every((s) => Number.isFinite(s) && s > 0)) fail('a deviation is not a positive number');
  const spread = (list: readonly number[]): readonly number[] => (list.length === channels ? list : new Array<number>(channels).fill(list[0]));
  const shape = type.shape as StaticShape;
  return { mean: spread(mean), std: spread(std), inner: channels === 1 ? sizeOf(shape) : sizeOf(shape.slice(channelAxis(shape, channels, fail) + 1)) };
};

/** Channels stand second in an image of ONNX (N, C, H, W), or last. */
const channelAxis = (shape: StaticShape, channels: number, fail: (why: string) => never): number => {
  if (shape.length > 2 && shape[1] === channels) return 1;
  return shape.at(-1) === channels ? shape.length - 1 : fail(`${channels} channels for an input of shape [${shape.join(', ')}]`);
};

const toInput = ({ input, read }: Column, index: number, scheme: Normalization | null): Tensor => {
  const stored = read(index);
  const dtype = realDType(input.type);
  if (isInteger(dtype)) return integers(stored, dtype, input);
  const reals = new Float32Array(stored.data.length);
  for (let i = 0; i < reals.length; i++) {
    const x = Number(stored.data[i]);
    if (scheme === null) reals[i] = x;
    else {
      const c = Math.floor(i / scheme.inner) % scheme.mean.length;
      reals[i] = (x - scheme.mean[c]) / scheme.std[c];
    }
  }
  // a float64 may be too large for float32
  checkFinite(reals, stored.file, stored.sample);
  return tensor(tensorType('f32', input.type.shape), reals);
};

const integers = ({ data, file, sample }: Stored, dtype: IntegerDType, input: SampleInput): Tensor => {
  const codes = allocate(dtype, data.length);
  const [low, high] = rangeOf(dtype);
  for (let i = 0; i < data.length; i++) {
    const x = data[i];
    const fits = typeof x === 'bigint' ? x >= BigInt(low) && x <= BigInt(high) - (dtype === 'i64' ? 1n : 0n) : Number.isInteger(x) && x >= low && x <= high;
    if (!fits) throw new CompileError(errors.sampleRange(file, sample, String(x), dtype, input.name), 'usage');
    codes[i] = dtype === 'i64' ? BigInt(x) : Number(x);
  }
  return tensor(tensorType(dtype, input.type.shape), codes);
};

const rawDTypes: Readonly<Record<NpyDType, DType>> = {
  f2: 'f32', f4: 'f32', f8: 'f32', i1: 'i8', i2: 'i16', i4: 'i32', i8: 'i64', u1: 'u8', u2: 'u16', u4: 'u32', u8: 'i64', b1: 'bool',
};
const rawTensor = (input: SampleInput, stored: Stored): Tensor => {
  const dtype = rawDTypes[stored.dtype];
  if (isInteger(dtype)) return integers(stored, dtype, input);
  return tensor(tensorType('f32', input.type.shape), stored.data instanceof Float32Array ? stored.data : Float32Array.from(stored.data as Float64Array));
};

/** Integer data under the dtype of a compiled input. */
const recast = ({ type: { dtype }, data }: Tensor, type: TensorType, name: string, sample: number): Tensor => {
  const wanted = type.dtype;
  if (dtype === wanted) return tensor(type, data);
  if (!isInteger(wanted)) throw new CompileError(errors.internal(`input ${name} of a compiled graph holds ${wanted}`), 'internal');
  return { ...integers({ file: 'samples', sample, dtype: 'i8', data: data as NpyData }, wanted, { name, type }), type };
};

// ---- the set

interface Parts extends Pick<Samples, 'count' | 'rowsPerSample' | 'inputs' | 'source' | 'get' | 'raw'> {
  readonly describe: string;
}
const samplesOf = ({ describe, ...parts }: Parts): Samples => {
  let digest: string | null = null;
  return {
    ...parts,
    get digest() { return (digest ??= digestOf(parts, describe)); },
    *[Symbol.iterator]() { for (let index = 0; index < parts.count; index++) yield parts.get(index); },
  };
};

const digestOf = ({ count, inputs, raw }: Pick<Samples, 'count' | 'inputs' | 'raw'>, describe: string): string => {
  const hash = createHash('sha256').update(describe);
  for (let index = 0; index < count; index++) {
    const sample = raw(index);
    for (const { name } of inputs) {
      const { type, data } = sample[name];
      hash.update(`${name} ${type.dtype} ${data.length}\n`).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
  }
  return hash.digest('hex');
};
