/**
 * What a user of the published package meets: packs it, installs the tarball in an empty folder, compiles and evaluates the example
 * there, imports every entry point, and type-checks a program that uses them. Needs the registry for the dependencies.
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
  writeFileSync(join(folder, 'user.ts'), `
    import { definePlugin, openSamples, type Compilation } from 'lowbitc';
    import { emitWasm } from 'lowbitc/backends';
    import { mapGraph, real, type Graph } from 'lowbitc/ir';
    import { definePass, foldBatchNorm, runPass } from 'lowbitc/passes';
    const pass = definePass<'float', 'float', { readonly limit: number }>({
      name: 'own-pass', from: 'float', to: 'float', summary: 'an example', options: { limit: real('a limit', 1) },
      run: (graph, { limit }) => (limit > 1 ? mapGraph(graph, 'float', () => null) : graph),
    });
    export default definePlugin({ name: 'user', passes: [{ pass, before: 'quantize-activations' }] });
    export const use = (float: Graph<'float'>, { graph }: Compilation): unknown =>
      [runPass(foldBatchNorm, float), emitWasm(graph as Graph<'kernel'>, { name: 'm' }), openSamples('x.npy', float.inputs).count];
    // @ts-expect-error a step has no such option
    void runPass(pass, null as never, { limits: 1 });
  `);
  run(join(root, 'node_modules/.bin/tsc'), ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2023', 'user.ts']);
  console.log('types: they fit');
} finally {
  rmSync(folder, { recursive: true, force: true });
}
