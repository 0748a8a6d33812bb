// Pages that are made from declarations, and what the package ships.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { kernelOps } from '../src/ir/ops/kernels.ts';
import { root } from './cli/lowbitc.ts';

const page = (path: string): string => readFileSync(join(root, path), 'utf8');

test('docs/cli.md is what the declarations of the commands say (node scripts/cli-page.mjs renews it)', () => {
  const { stdout, stderr } = spawnSync(process.execPath, [join(root, 'scripts/cli-page.mjs'), '--print'], { encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(page('docs/cli.md')).toBe(stdout);
});

test('docs/kernels.md has a section for every kernel op', () => {
  const headings = [...page('docs/kernels.md').matchAll(/^###? (.*)$/gm)].map((match) => match[1]).join(' ');
  expect(kernelOps.map(({ name }) => name).filter((name) => !headings.includes(name) && !page('docs/kernels.md').includes(`\`${name}\``))).toEqual([]);
});

describe.each(['README.md', 'CONTRIBUTING.md', 'examples/README.md', 'docs/architecture.md'])('%s', (path) => {
  test('its links lead somewhere', () => {
    const links = [...page(path).matchAll(/\]\((?!https?:)([^)#]+)/g)].map((match) => match[1]);
    expect(links.filter((link) => !existsSync(join(root, dirname(path), link)))).toEqual([]);
  });
  test('the files of the source that it names exist', () => {
    const named = [...page(path).matchAll(/`((?:src|test|scripts|examples|docs)\/[\w./-]*)`/g)].map((match) => match[1]);
    expect(named.filter((name) => !existsSync(join(root, name)))).toEqual([]);
  });
});

test('the scripts that the README names are those of package.json', () => {
  const { scripts } = JSON.parse(page('package.json')) as { scripts: Record<string, string> };
  const named = [...page('README.md').matchAll(/npm run ([\w:]+)/g)].map((match) => match[1]);
  expect(named.length).toBeGreaterThan(0);
  for (const name of named) expect(scripts).toHaveProperty([name]);
  // hooks do not run with ignore-scripts, so what a script needs stands in the script
  expect(scripts['test']).toMatch(/build.*vitest run/);
});

test('the package holds the program, the examples and the pages, and no tests', () => {
  const { status, stdout } = spawnSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root, encoding: 'utf8' });
  expect(status).toBe(0);
  const [{ files, size }] = JSON.parse(stdout) as [{ files: { path: string }[]; size: number }];
  const paths = files.map(({ path }) => path);
  expect(paths).toEqual(expect.arrayContaining([
    'package.json', 'README.md', 'LICENSE', 'dist/cli.js', 'dist/index.js', 'dist/index.d.ts', 'dist/ir/index.js', 'dist/passes/index.js', 'dist/backends/index.js',
    'dist/calibration/worker.js', 'examples/models/glyph-cnn.onnx', 'examples/data/calib.npy', 'examples/data/eval.npy', 'docs/cli.md',
  ]));
  expect(paths.filter((path) => path.startsWith('docs/measured/'))).toEqual([]);
  expect(paths.filter((path) => !/^(dist|examples|docs)\/|^(package\.json|README\.md|LICENSE)$/.test(path))).toEqual([]);
  expect(size).toBeLessThan(8_000_000);
}, 30_000);
