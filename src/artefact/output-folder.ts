/**
 * The output folder of a compilation: written beside its place and renamed when complete, so that a folder that exists is whole. An
 * existing folder is replaced only if it was made by us, or when forced. What a failure leaves goes to `<dir>.crash/`.
 */
import { existsSync, lstatSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Artefact } from '../backends/backend.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { isOurFolder } from './manifest.ts';

/** Folders being written now; removed when the process is interrupted. */
const unfinished = new Set<string>();

/** Throws before any work is done if `folder` may not be replaced. */
export const checkReplaceable = (folder: string, force: boolean): void => {
  const path = resolve(folder);
  const entry = lstatSync(path, { throwIfNoEntry: false });
  if (entry === undefined || force) return;
  const replaceable = entry.isDirectory() && (readdirSync(path).length === 0 || isOurFolder(path));
  if (!replaceable) throw new CompileError(errors.outputExists(folder), 'usage');
};

/** Writes all files beside `folder`, then puts them in its place in one step. */
export const writeFolder = (folder: string, files: readonly Artefact[], force: boolean): void => {
  checkReplaceable(folder, force);
  const path = resolve(folder);
  const draft = join(dirname(path), `.${basename(path)}.${process.pid}.new`);
  const old = join(dirname(path), `.${basename(path)}.${process.pid}.old`);
  unfinished.add(draft);
  try {
    rmSync(draft, { recursive: true, force: true });
    writeFiles(draft, files);
    if (existsSync(path)) renameSync(path, old);
    renameSync(draft, path);
    rmSync(old, { recursive: true, force: true });
  } catch (cause) {
    if (existsSync(old) && !existsSync(path)) renameSync(old, path);
    rmSync(draft, { recursive: true, force: true });
    throw cause;
  } finally {
    unfinished.delete(draft);
  }
};

/** Leaves the material of a failure beside `folder`; an earlier crash folder is replaced. Returns its path as the user would write it. */
export const writeCrashFolder = (folder: string, files: readonly Artefact[]): string => {
  const crash = `${folder.replace(/[/\\]+$/, '')}.crash`;
  rmSync(resolve(crash), { recursive: true, force: true });
  writeFiles(resolve(crash), files);
  return crash;
};

/** For Ctrl-C: takes away what is half written. */
export const removeUnfinished = (): void => {
  for (const draft of unfinished) rmSync(draft, { recursive: true, force: true });
};

const writeFiles = (root: string, files: readonly Artefact[]): void => {
  mkdirSync(root, { recursive: true });
  for (const { path, bytes } of files) {
    const target = join(root, path);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, bytes);
  }
};

export const textFile = (path: string, text: string): Artefact => ({ path, bytes: new TextEncoder().encode(text) });

/** JSON with a final newline; fields stand in the order of their declaration. */
export const jsonFile = (path: string, value: unknown): Artefact =>
  textFile(path, `${JSON.stringify(value, (_, entry: unknown) => (typeof entry === 'bigint' ? Number(entry) : entry), 2)}\n`);
