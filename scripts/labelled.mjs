// Labelled sets of scripts/models.mjs, and compiled programs judged on them: what the pages of accuracy and of mixed precision are measured with.
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
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

/** Digest of what a compilation is made by. */
export const compilerDigest = () => {
  const hash = createHash('sha256');
  const folder = join(root, 'dist');
  for (const file of readdirSync(folder, { recursive: true }).filter((name) => /^(calibration|ir|numerics|onnx|passes)[\\/].*\.js$|^compile\.js$/.test(name)).sort()) hash.update(file).update(readFileSync(join(folder, file)));
  return hash.digest('hex').slice(0, 12);
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
    const executor = createExecutor(float);
    const meter = labelMeter(classes);
    const outputs = Array.from({ length: count }, (_, i) => {
      const output = executor.run(reals.get(i))[name].data;
      meter.add(output, labelsOf(i));
      return output;
    });
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
