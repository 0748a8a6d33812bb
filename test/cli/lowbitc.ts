/** Runs the built command line as a user does. `npm test` builds it first. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll } from 'vitest';

export const root = fileURLToPath(new URL('../..', import.meta.url));
export const cli = join(root, 'dist', 'cli.js');
if (!existsSync(cli)) throw new Error('dist/cli.js is missing: run the tests with npm test, which builds it');

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}
export const lowbitc = (...args: readonly string[]): Ended => lowbitcIn(root, {}, ...args);
export const lowbitcIn = (cwd: string, env: NodeJS.ProcessEnv, ...args: readonly string[]): Ended => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [cli, ...args], { cwd, encoding: 'utf8', env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined, ...env }, maxBuffer: 2 ** 28 });
  return { status, stdout, stderr };
};

/** A folder for one test file, removed when its tests have run. */
export const scratchFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-test-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
};

export const example = (path: string): string => join(root, 'examples', path);
/** Compiles the small example on few samples: about a second. */
export const glyphFlags = [example('models/glyph-cnn.onnx'), '--calib', example('data/calib.npy'), '--calib-count', '8', '--mean', '127.5', '--std', '127.5'] as const;
