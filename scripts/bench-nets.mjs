// Times the nets of nets.mjs against ONNX Runtime, in rounds in which all sides take turns: npm run bench:nets -- [--only name,…] [--fresh].
// Compiled nets lie in .cache, finished rows in docs/measured/speed.json; nets that were timed on this machine today are not timed again (but for --again),
// so an interrupted run goes on where it stopped. docs/speed.md is written anew each time.
// onnxruntime-web is taken from LOWBITC_PEERS or node_modules where it is installed. --again times nets that lie compiled in .cache without
// compiling them anew; --threads n times nets that were measured before on one thread and on n, and nothing else; --words times nets with
// exact rescales and with rescales in words, and writes that section of the page alone.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { loadFolder } from '../dist/artefact/load.js';
import { programOf } from '../dist/backends/backend.js';
import { identifier } from '../dist/backends/identifier.js';
import { cCompiler } from '../dist/backends/run.js';
import { titleOf } from '../dist/bench/instructions.js';
import { describe, kernelOf } from '../dist/bench/kernels.js';
import { currentLoad, thisMachine } from '../dist/bench/machine.js';
import { compete, measureLimits, programLineMs, timeLayers } from '../dist/bench/measure.js';
import { compiledC, compiledWasm, findPeer, inRuntime, peerNames, variantsHere, wasmOnThreads } from '../dist/bench/sides.js';
import { root } from './models.mjs';
import { modelOf, nets } from './nets.mjs';
import { readSpeed, withNet, writeSpeed, writeWords } from './speed-page.mjs';

const { values: options } = parseArgs({ options: {
  only: { type: 'string' }, threads: { type: 'string' }, words: { type: 'boolean' }, again: { type: 'boolean' }, fresh: { type: 'boolean' }, ms: { type: 'string', default: '300' }, rounds: { type: 'string', default: '5' }, starts: { type: 'string', default: '3' },
} });
const effort = { ms: Number(options.ms), rounds: Number(options.rounds), starts: Number(options.starts) };
const only = options.only?.split(',');
const unknown = only?.find((name) => !(name in nets));
if (unknown !== undefined) throw new Error(`there is no net ${unknown}; there are ${Object.keys(nets).join(', ')}`);

const cache = join(root, '.cache', 'nets');
const version = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version;
const targets = cCompiler() === null ? ['wasm'] : ['cpu', 'wasm'];
const here = targets.includes('cpu') ? variantsHere(['-O3']) : [];
const present = peerNames.filter((peer) => findPeer(peer) !== null);
for (const peer of peerNames) if (!present.includes(peer)) process.stderr.write(`${peer} is not installed and left out\n`);
const dayOf = (date) => date.toISOString().slice(0, 10);
const say = (text) => process.stderr.write(`${text}\n`);
const seconds = (run) => {
  const begin = performance.now();
  run();
  return (performance.now() - begin) / 1000;
};

/** The models of a net, made once. */
const modelFiles = (name) => Object.fromEntries(['float', 'int8'].map((form) => {
  const path = join(cache, `${name}.${form}.onnx`);
  if (options.fresh || !existsSync(path)) writeFileSync(path, modelOf(name, form));
  return [form, path];
}));

/** Code without constants: text of each object file, bytes of the module beyond its data; and what is downloaded. */
const sizesOf = (folder, name, weightBytes) => {
  const id = identifier(name);
  const wasm = readFileSync(join(folder, 'wasm', `${id}.wasm`));
  const loader = readFileSync(join(folder, 'wasm', `${id}.mjs`));
  const sizes = { wasmCode: wasm.length - weightBytes.wasm, wasmGzip: gzipSync(wasm).length + gzipSync(loader).length, weightBytes: weightBytes.wasm };
  if (!targets.includes('cpu')) return sizes;
  const object = join(cache, 'object.o');
  const cCode = {};
  const ccSeconds = seconds(() => {
    for (const file of readdirSync(join(folder, 'cpu')).filter((source) => source.endsWith('.c') && source !== 'main.c')) {
      execFileSync(cCompiler(), ['-std=c99', '-fno-strict-aliasing', '-O2', '-c', join(folder, 'cpu', file), '-o', object]);
      const text = spawnSync('size', [object], { encoding: 'utf8' }).stdout?.split('\n')[1]?.trim().split(/\s+/)[0];
      const variant = file.slice(id.length + 1, -'.c'.length) || 'portable';
      if (variant !== 'weights' && text !== undefined) cCode[variant] = Number(text);
    }
  });
  rmSync(object, { force: true });
  return { ...sizes, cCode, ccSeconds };
};

/** What loses most against the line: steps of equal shape together. */
const losses = (graph, { steps }) => {
  const roots = programOf(graph).steps.map(({ root: node }) => node);
  const total = steps.reduce((sum, { bestMs }) => sum + bestMs, 0);
  const kinds = new Map();
  steps.forEach(({ bestMs, macs, share }, i) => {
    const kernel = roots[i] === undefined ? null : kernelOf(roots[i]);
    const what = kernel === null ? roots[i]?.op ?? 'copy' : describe(kernel.shape);
    const sum = kinds.get(what) ?? { what, count: 0, bestMs: 0, macs: 0, lineMs: 0 };
    kinds.set(what, { what, count: sum.count + 1, bestMs: sum.bestMs + bestMs, macs: sum.macs + macs, lineMs: sum.lineMs + bestMs * (share ?? 0) });
  });
  return [...kinds.values()].map(({ what, count, bestMs, macs, lineMs }) => ({
    what: count === 1 ? what : `${count} × ${what}`, bestMs, part: bestMs / total, gmacs: macs === 0 ? null : macs / (bestMs * 1e6), share: lineMs === 0 ? null : lineMs / bestMs, lost: bestMs - lineMs,
  })).sort((x, y) => y.lost - x.lost).slice(0, 4);
};

const compile = (model, path, ...more) => execFileSync(process.execPath, [
  join(root, 'dist', 'cli.js'), 'compile', model, '-o', path, '--synthetic', '--calib-count', '2', '--target', targets.join(','), '-q', '--force', ...more,
], { stdio: 'inherit' });

const measure = async (name) => {
  say(`${name}: models`);
  mkdirSync(cache, { recursive: true });
  const files = modelFiles(name);
  const path = join(cache, name);
  const compiled = options.again && existsSync(path) ? speed.nets[name] : undefined;
  if (compiled === undefined) say(`${name}: compile`);
  const compileSeconds = compiled?.sizes.compileSeconds ?? seconds(() => { compile(files.float, path); });
  const folder = loadFolder(path);
  const inputs = folder.graph.inputs.map(({ name: input, type }) => ({ name: input, shape: type.shape }));
  const contenders = [
    ...targets.map((target) => (target === 'cpu' ? compiledC(folder, ['-O3']) : compiledWasm(folder))),
    ...present.flatMap((peer) => Object.entries(files).map(([form, file]) => inRuntime(`${peer} ${form}`, peer, file, inputs))),
  ];
  const before = currentLoad();
  const results = await compete(contenders, folder.manifest.macs.total, effort, (label, done) => { if (done === 0) say(`${name}: ${label}`); });
  const row = { macs: folder.manifest.macs.total, bits: folder.manifest.bits, results, layers: {}, lineMs: {} };
  for (const target of targets) {
    const limits = await measureLimits(target);
    say(`${name}: layers of ${target}`);
    row.lineMs[target] = programLineMs(folder.graph, limits);
    row.layers[target] = losses(folder.graph, await timeLayers(folder.graph, target === 'cpu' ? here[0] : target, limits, { ...effort, rounds: 3 }, ['-O3']));
    row.limits = { ...row.limits, [target]: limits };
  }
  const weightBytes = Object.fromEntries(folder.manifest.targets.map(({ name: target, weightBytes: bytes }) => [target, bytes]));
  return {
    ...row, instructions: here.length === 0 ? null : titleOf(here[0]), load: { before, after: currentLoad() },
    sizes: compiled?.sizes ?? { ...sizesOf(path, folder.manifest.name, weightBytes), compileSeconds }, goal: nets[name].goal, lowbitc: version, machine: thisMachine(), effort, day: dayOf(new Date()),
  };
};

/** A compiled net on one thread and on several, in turns. */
const onThreads = async (name, count) => {
  const folder = loadFolder(join(cache, name));
  const define = `-D${identifier(folder.manifest.name).toUpperCase()}_THREADS=${count}`;
  const before = currentLoad();
  const pairs = {
    ...(targets.includes('cpu') ? { C: [compiledC(folder, ['-O3']), compiledC(folder, ['-O3', '-fopenmp', define])] } : {}),
    WebAssembly: [compiledWasm(folder), wasmOnThreads(folder, count)],
  };
  const results = await compete(Object.values(pairs).flat(), folder.manifest.macs.total, effort, () => {});
  const found = Object.fromEntries(Object.keys(pairs).map((target, i) => {
    const [one, several] = results.slice(2 * i);
    return [target, { oneMs: one.bestMs, bestMs: several.bestMs, medianMs: several.medianMs }];
  }));
  return { count, found, load: { before, after: currentLoad() } };
};

/** A net with exact rescales and with rescales in words, in turns: each side twice, so that where its memory lies decides less. */
const inWords = async (name) => {
  mkdirSync(cache, { recursive: true });
  const { float } = modelFiles(name);
  const forms = ['exact', 'words'];
  const folders = forms.map((form) => {
    const path = join(cache, form === 'exact' ? name : `${name}.${form}`);
    if (!(options.again && existsSync(path))) {
      say(`${name}: compile, rescales ${form}`);
      compile(float, path, '--rescale', form);
    }
    return loadFolder(path);
  });
  const before = currentLoad();
  const found = {};
  for (const target of targets) {
    say(`${name}: rescales in words, ${target}`);
    const sides = [...folders, ...folders].map((folder) => (target === 'cpu' ? compiledC(folder, ['-O3']) : compiledWasm(folder)));
    const results = await compete(sides, folders[0].manifest.macs.total, effort, () => {});
    found[target] = Object.fromEntries(forms.map((form, i) => [`${form}Ms`, Math.min(results[i].bestMs, results[i + 2].bestMs)]));
  }
  return { found, load: { before, after: currentLoad() }, lowbitc: version, machine: thisMachine(), day: dayOf(new Date()) };
};

let speed = readSpeed();
if (options.words) {
  for (const name of Object.keys(nets)) {
    if (only?.includes(name) === false) continue;
    speed.words[name] = await inWords(name);
    writeWords(speed);
  }
  process.exit(0);
}
if (options.threads !== undefined) {
  for (const name of Object.keys(speed.nets)) {
    if (only?.includes(name) === false || !existsSync(join(cache, name))) continue;
    say(`${name}: ${options.threads} threads`);
    speed.nets[name].threads = await onThreads(name, Number(options.threads));
    writeSpeed(speed);
  }
  process.exit(0);
}
if (options.fresh) speed.nets = {};
const [today, { cpu }] = [dayOf(new Date()), thisMachine()];
const isTimed = (net) => net !== undefined && net.day === today && net.machine.cpu === cpu;
for (const name of Object.keys(nets)) {
  if (only ? !only.includes(name) : isTimed(speed.nets[name]) && !options.again) continue;
  speed = withNet(speed, name, await measure(name));
  writeSpeed(speed);
}
writeSpeed(speed);
say(`docs/speed.md: ${Object.keys(speed.nets).length} nets`);
process.exit(0);
