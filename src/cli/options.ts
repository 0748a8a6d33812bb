/** Values of flags: text → data, with the flag named in what is wrong. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { fileSource } from '../calibration/bytes.ts';
import { openNpy, type NpyFile } from '../calibration/npy.ts';
import { openNpz } from '../calibration/npz.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { parsePipeline, type Pipeline } from '../passes/pipeline.ts';
import type { Plugin } from '../plugin.ts';
import { reasonOf } from './command.ts';

const wrong = (flag: string, value: string, expected: string): never => { throw new CompileError(errors.badOption(flag, value, expected), 'usage'); };

/** `name=rest`, split at the first `=`. */
const namedValue = (flag: string, text: string, expected: string): readonly [string, string] => {
  const at = text.indexOf('=');
  return at > 0 && at < text.length - 1 ? [text.slice(0, at), text.slice(at + 1)] : wrong(flag, text, expected);
};

export const wholeNumber = (flag: string, text: string, least: number): number => {
  const value = Number(text);
  return /^\d+$/.test(text) && Number.isSafeInteger(value) && value >= least ? value : wrong(flag, text, `a whole number of at least ${least}`);
};

/** `batch=1`, repeatable. */
export const dimBindings = (texts: readonly string[]): Readonly<Record<string, number>> =>
  Object.fromEntries(texts.map((text) => {
    const [name, size] = namedValue('--dim', text, 'a symbol and its size, as in batch=1,');
    return [name, wholeNumber('--dim', size, 1)];
  }));

/** `image=1x3x224x224`, repeatable. */
export const shapeBindings = (texts: readonly string[]): Readonly<Record<string, readonly number[]>> =>
  Object.fromEntries(texts.map((text) => {
    const [name, shape] = namedValue('--shape', text, 'an input and its shape, as in image=1x3x224x224,');
    return [name, shape.split('x').map((size) => wholeNumber('--shape', size, 1))];
  }));

/** `127.5` or `123.7,116.3,103.5`. */
export const numberList = (flag: string, text: string): readonly number[] => {
  const values = text.split(',').map((word) => (word.trim() === '' ? NaN : Number(word)));
  return values.every(Number.isFinite) ? values : wrong(flag, text, 'one number, or one for each channel, as in 123.7,116.3,103.5,');
};

export const widths = (text: string): string => {
  if (!/^(w([2-8]|[2-4]c)a([4-8]|16)|mixed)$/.test(text)) return wrong('--bits', text, 'weight and activation widths, w2 to w8 (w2c to w4c: by codebook) and a4 to a8 or a16, as in w8a8, or mixed');
  return text;
};

/** Layers that a glob names, `*` and `?` as in shells, and the bits that they keep. */
export interface Kept {
  readonly text: string;
  readonly bits: number;
  matches(name: string): boolean;
}

/** `--keep 'head*=8'`. Without mixed bits it holds already where every layer has 8; other widths are not available. */
export const keptLayers = (texts: readonly string[], mixed: boolean): readonly Kept[] => texts.map((text) => {
  const at = text.lastIndexOf('=');
  if (at < 1) return wrong('--keep', text, "a glob and bits, as in 'head*=8',");
  const bits = wholeNumber('--keep', text.slice(at + 1), 2);
  if (bits !== 8 && !mixed) throw new CompileError(errors.optionNotAvailable('--keep', text, 'available: 8 bits'), 'usage');
  if (bits > 8) return wrong('--keep', text, 'a glob and 2 to 8 bits');
  const pattern = new RegExp(`^${text.slice(0, at).replace(/[.+^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*').replaceAll('?', '.')}$`);
  return { text, bits, matches: (name) => pattern.test(name) };
});

/** `image=x.npy` for a named input, `x.npy` for the only one (null). */
export const inputFiles = (texts: readonly string[]): ReadonlyMap<string | null, string> =>
  new Map(texts.map((text) => {
    const at = text.indexOf('=');
    return at > 0 ? [text.slice(0, at), text.slice(at + 1)] : [null, text];
  }));

export const readBytes = (path: string): Uint8Array => {
  try {
    const bytes = readFileSync(path);
    return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  } catch (cause) {
    throw new CompileError(errors.unreadableFile(path, reasonOf(cause)), 'usage');
  }
};

/** What `pipeline.json` holds: the passes, and the settings that a replay takes over unless the command line says otherwise. */
export interface PipelineFile {
  readonly lowbitc: string;
  readonly bits: string;
  readonly seed: number;
  readonly source: { readonly sha256: string };
  readonly calibration: { readonly samples: number; readonly digest: string } | null;
  readonly dims: Readonly<Record<string, number>>;
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly cutAt: string | null;
  readonly normalization: { readonly mean: readonly number[]; readonly std: readonly number[] } | null;
  readonly passes: Pipeline;
}

/** `--passes`: the text form, JSON, or `@file` with either; a `pipeline.json` also brings its settings. */
export const pipelineOption = (text: string): { readonly pipeline: Pipeline; readonly settings: Partial<PipelineFile> } => {
  const source = text.startsWith('@') ? new TextDecoder().decode(readBytes(text.slice(1))) : text;
  if (!source.trimStart().startsWith('{')) return { pipeline: parsePipeline(source), settings: {} };
  let settings: Partial<PipelineFile>;
  try {
    settings = JSON.parse(source) as Partial<PipelineFile>;
  } catch (cause) {
    throw new CompileError(errors.badPipelineText(`it is not JSON: ${(cause as Error).message}`, text), 'usage');
  }
  return { pipeline: parsePipeline(JSON.stringify(settings.passes ?? null)), settings };
};

/** A package as code in `folder` would find it; the bare name where only the package's own conditions lead to a file. */
const packageFrom = (folder: string, name: string): string => {
  try {
    return pathToFileURL(createRequire(join(folder, 'index.js')).resolve(name)).href;
  } catch {
    return name;
  }
};

export const loadPlugins = async (paths: readonly string[]): Promise<readonly Plugin[]> => Promise.all(paths.map(async (path) => {
  const fail = (why: string): never => { throw new CompileError(errors.badPlugin(path, why), 'usage'); };
  const file = resolve(path);
  const isFile = existsSync(file) || /^\.|^[/\\]|\.[cm]?[jt]s$/.test(path);
  if (isFile && !existsSync(file)) return fail('no such file');
  const specifier = isFile ? pathToFileURL(file).href : packageFrom(process.cwd(), path);
  let module: { readonly default?: Partial<Plugin> };
  try {
    module = await import(specifier) as typeof module;
  } catch (cause) {
    return fail((cause as Error).message.split('\n')[0]);
  }
  const plugin = module.default;
  if (typeof plugin !== 'object' || plugin === null) return fail('it has no default export');
  if (typeof plugin.name !== 'string' || plugin.name === '') return fail('its default export has no name');
  return plugin as Plugin;
}));

/** The integer type of sample data that a compiled model can take as it is: bytes u8, words i16; null for other data. */
export const rawDataType = (path: string): 'u8' | 'i16' | null => {
  const files = filesOf(path);
  const codes: Readonly<Record<string, 'u8' | 'i16'>> = { u1: 'u8', i1: 'i16', i2: 'i16' };
  const types = new Set(files.map(({ dtype }) => codes[dtype] ?? null));
  return types.size === 1 ? [...types][0] : null;
};

const filesOf = (path: string): readonly NpyFile[] => {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    return readdirSync(path).filter((name) => name.endsWith('.npy')).map((name) => openNpy(fileSource(join(path, name))));
  }
  return path.endsWith('.npz') ? [...openNpz(fileSource(path)).values()] : [openNpy(fileSource(path))];
};
