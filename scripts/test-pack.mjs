/**
 * What a user of the published package meets: packs it, installs the tarball in an empty folder, compiles and evaluates the example
 * there, and imports every entry point. Needs the registry for the dependencies.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'lowbitc-pack-'));
const run = (command, args, options = {}) => {
  console.log(`$ ${command} ${args.join(' ')}`);
  return execFileSync(command, args, { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', ...options });
};

try {
  const [{ filename, files, size }] = JSON.parse(run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: root }));
  console.log(`${filename}: ${files.length} files, ${size} bytes`);
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'user', private: true, type: 'module' }));
  run('npm', ['install', '--no-audit', '--no-fund', '--ignore-scripts', join(folder, filename)]);
  const shipped = 'node_modules/lowbitc/examples';
  process.stdout.write(run('npx', ['lowbitc', 'compile', `${shipped}/models/glyph-cnn.onnx`, '-o', 'out/glyph-cnn', '--calib', `${shipped}/data/calib.npy`, '--mean', '127.5', '--std', '127.5']));
  process.stdout.write(run('npx', ['lowbitc', 'eval', 'out/glyph-cnn', '--input', `image=${shipped}/data/eval.npy`, '--labels', `${shipped}/data/eval_labels.npy`]));
  writeFileSync(join(folder, 'user.mjs'), `
    import { compile, definePlugin } from 'lowbitc';
    import { defineOp, printGraph } from 'lowbitc/ir';
    import { builtInPasses, correctBias, definePass } from 'lowbitc/passes';
    import { builtInBackends } from 'lowbitc/backends';
    const all = { compile, definePlugin, defineOp, printGraph, builtInPasses, correctBias, definePass, builtInBackends };
    for (const [name, thing] of Object.entries(all)) if (thing === undefined) throw new Error(name + ' is missing');
    console.log('entry points: ' + Object.keys(all).join(', '));
  `);
  process.stdout.write(run('node', ['user.mjs']));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
