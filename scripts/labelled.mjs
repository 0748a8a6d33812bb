// Labelled sets of scripts/models.mjs, and compiled programs judged on them: what the pages of accuracy and of mixed precision are measured with.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileSource } from '../dist/calibration/bytes.js';
import { dequantized } from '../dist/calibration/codes.js';
import { labelMeter, referenceMeter } from '../dist/calibration/metrics.js';
import { openNpy } from '../dist/calibration/npy.js';
import { runC, runWasm } from '../dist/backends/run.js';
import { interfaceOf } from '../dist/backends/interface.js';
import { codesAt, createExecutor, importBound, openSamples } from '../dist/index.js';
import { root } from './models.mjs';

/** Samples on which C and WebAssembly are compared. */
export const compared = 4;

const dist = join(root, 'dist');
/** Text of a file without comments. */
const codeOf = (file) => readFileSync(file, 'utf8').replace(/\/\*\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
/** Files whose wording changes no number. */
const unread = new Set(['ir/errors.js', 'ir/print.js', 'ir/parse.js'].map((file) => join(dist, file)));
/** The files and all that they import. */
const closureOf = (files) => {
  const found = new Set();
  const visit = (file) => {
    if (found.has(file) || unread.has(file)) return;
    found.add(file);
    for (const [, path] of readFileSync(file, 'utf8').matchAll(/from ['"](\.[^'"]*)['"]/g)) visit(join(dirname(file), path));
  };
  files.map((file) => join(dist, file)).filter(existsSync).forEach(visit);
  return [...found].sort();
};
const digestOf = (files) => {
  const hash = createHash('sha256');
  for (const file of closureOf(files)) hash.update(file.slice(dist.length)).update(codeOf(file));
  return hash.digest('hex').slice(0, 12);
};
const digests = new Map();
/** Digest of the code that decides the numbers of a pipeline: import, calibration and the passes that it names; without one, all passes. */
export const compilerDigest = (pipeline = null) => {
  const passes = pipeline === null ? ['index'] : [...new Set(pipeline.map(({ pass }) => pass))].sort();
  const key = passes.join(' ');
  if (!digests.has(key)) digests.set(key, digestOf(['onnx/import.js', 'calibration/calibration.js', ...passes.map((pass) => `passes/${pass}.js`)]));
  return digests.get(key);
};

/** Outputs of the float model on the first samples, kept on disk under a digest of model, data and executor. */
const floatOutputs = (float, name, reals, count, sources) => {
  const hash = createHash('sha256').update(digestOf(['calibration/executor.js', 'onnx/import.js']));
  sources.forEach((source) => hash.update(source));
  const file = join(root, 'out', 'float', `${hash.update(`${count}`).digest('hex').slice(0, 16)}.f32`);
  if (!existsSync(file)) {
    const executor = createExecutor(float);
    const outputs = Array.from({ length: count }, (_, i) => Float32Array.from(executor.run(reals.get(i))[name].data));
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(`${file}.part`, Buffer.concat(outputs.map(({ buffer }) => Buffer.from(buffer))));
    renameSync(`${file}.part`, file);
  }
  const { buffer, byteOffset, byteLength } = readFileSync(file);
  const all = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
  return Array.from({ length: count }, (_, i) => all.subarray((i * all.length) / count, ((i + 1) * all.length) / count));
};

/** A labelled set and the outputs of the float model on it, computed when first needed. */
export const openSet = (entry, most = Infinity) => {
  const bytes = readFileSync(entry.model);
  const { graph: float } = importBound(bytes, {});
  const normalization = entry.mean ? { mean: entry.mean, std: entry.std, dtype: { u1: 'u8', i2: 'i16' }[openNpy(fileSource(join(entry.data, 'eval.npy'))).dtype] } : undefined;
  const path = join(entry.data, 'eval.npy');
  const reals = openSamples(path, float.inputs, entry.mean ? { mean: entry.mean, std: entry.std } : {});
  const count = Math.min(reals.count, most);
  const labels = openNpy(fileSource(join(entry.data, 'eval_labels.npy')));
  const perSample = labels.rows / reals.count;
  const [{ name, value }] = float.outputs;
  const classes = value.type.shape.at(-1);
  const labelsOf = (i) => labels.read(i * perSample, perSample);
  let found = null;
  const reference = () => {
    if (found !== null) return found;
    const meter = labelMeter(classes);
    const outputs = floatOutputs(float, name, reals, count, [bytes, readFileSync(path)]);
    outputs.forEach((output, i) => meter.add(output, labelsOf(i)));
    found = { outputs, metrics: meter.result() };
    return found;
  };
  return { entry, bytes, normalization, path, count, classes, labelsOf, reference, name };
};

/** The program on the labelled set, run as WebAssembly; as C too where that was compiled, on the first samples. */
export const judge = async (set, { graph, targets }) => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-'));
  try {
    for (const { files } of targets) for (const { path, bytes } of files) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), bytes);
    }
    const run = await runWasm(join(folder, 'wasm'), 'net');
    const codes = openSamples(set.path, graph.inputs, {});
    const codesOf = (i) => Object.fromEntries(Object.entries(codesAt(codes, i, graph.inputs, ({ type }) => set.normalization !== undefined && type.dtype !== 'i64')).map(([name, { data }]) => [name, data]));
    const { type } = graph.outputs[0].value;
    const native = targets.some(({ name }) => name === 'cpu') ? await runC(join(folder, 'cpu'), 'net', interfaceOf(graph), Array.from({ length: Math.min(compared, set.count) }, (_, i) => codesOf(i))) : [];
    const [label, reference] = [labelMeter(set.classes), referenceMeter(set.classes)];
    let equal = true;
    for (let i = 0; i < set.count; i++) {
      const output = run(codesOf(i));
      if (i < native.length) equal &&= graph.outputs.every(({ name }) => native[i][name].every((code, at) => code === output[name][at]));
      const reals = dequantized({ type, data: output[graph.outputs[0].name] }).data;
      label.add(reals, set.labelsOf(i));
      reference.add(reals, set.reference().outputs[i]);
    }
    const { top1, crossEntropy, perplexity } = label.result();
    const { agreement, sqnrDb } = reference.result();
    const { metrics: float } = set.reference();
    return {
      count: set.count, top1: top1.value, crossEntropy, perplexity, agreement: agreement.value, sqnrDb, equal: native.length === 0 ? null : equal,
      float: { top1: float.top1.value, low: float.top1.low, high: float.top1.high, crossEntropy: float.crossEntropy, perplexity: float.perplexity },
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
};

/** Cells as text, each on a line of its own. */
const textOf = (cells) => `{\n${Object.entries(cells).map(([key, cell]) => ` ${JSON.stringify(key)}: ${JSON.stringify(cell)}`).join(',\n')}\n}`;
/** Finished cells of each model, in docs/measured/<folder>/<model>.json; `fresh` begins without them. */
export const openCells = (folder, fresh) => {
  const store = join(root, 'docs', 'measured', folder);
  const fileOf = (model) => join(store, `${model}.json`);
  const known = new Map();
  const of = (model) => {
    if (!known.has(model)) known.set(model, !fresh && existsSync(fileOf(model)) ? JSON.parse(readFileSync(fileOf(model), 'utf8')) : {});
    return known.get(model);
  };
  const save = (model) => {
    mkdirSync(store, { recursive: true });
    writeFileSync(`${fileOf(model)}.part`, `${textOf(of(model))}\n`);
    renameSync(`${fileOf(model)}.part`, fileOf(model));
  };
  return { of, save };
};
