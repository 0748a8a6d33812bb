/**
 * One's own pipeline out of single passes, without the command line:
 *
 *     node examples/custom-pipeline/custom-pipeline.mjs
 *
 * 1. runs two passes by hand and looks at what they did;
 * 2. runs a pipeline of one's own, with percentile ranges, and measures it against the float model;
 * 3. emits C for the result.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createCalibration, createExecutor, dequantized, importBound, openSamples, toolboxWith } from 'lowbitc';
import { emitC } from 'lowbitc/backends';
import { evaluateGraph, verify } from 'lowbitc/ir';
import { bareContext, foldBatchNorm, parsePipeline, resolvePipeline, runPass, runPipeline, simplifyLayout } from 'lowbitc/passes';

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const countOps = ({ nodes }) => {
  const counts = new Map();
  for (const { op } of nodes) counts.set(op, (counts.get(op) ?? 0) + 1);
  return [...counts].map(([op, count]) => `${op} ${count}`).join(', ');
};

// 1. single passes: a graph in, a graph out; the first graph stays as it was
const { graph: imported } = importBound(readFileSync(at('../models/glyph-cnn.onnx')), {});
const folded = await runPass(foldBatchNorm, await runPass(simplifyLayout, imported));
console.log(`imported  ${countOps(imported)}`);
console.log(`folded    ${countOps(folded)}`);

// 2. a pipeline is text, or data; its order, stages and options are checked before any work
const pipeline = parsePipeline(`
  simplify-layout, recognize-activations, fold-batch-norm,
  quantize-activations{range: percentile, percentile: 0.9995}, quantize-weights, correct-bias{samples: 32},
  lower-to-kernels, compose-tables`);
const samples = openSamples(at('../data/calib.npy'), imported.inputs, { mean: [127.5], std: [127.5], count: 64 });
const calibration = createCalibration(samples, { data: null, threads: null });
const { graph: kernel, records } = await runPipeline(imported, resolvePipeline(pipeline, toolboxWith([]).passes), bareContext(calibration));
console.log(`compiled  ${countOps(kernel)}; ${records.length} passes, ${verify(kernel).length} faults`);

const float = createExecutor(imported);
let [signal, noise] = [0, 0];
for (let i = 0; i < 16; i++) {
  const sample = samples.get(i);
  const expected = float.run(sample).logits.data;
  const found = dequantized(evaluateGraph(kernel, sample).get('logits')).data;
  expected.forEach((y, k) => { signal += y * y; noise += (found[k] - y) ** 2; });
}
console.log(`SQNR      ${(10 * Math.log10(signal / noise)).toFixed(1)} dB over 16 samples`);

// 3. files in memory; where they go is ours to say
const { artefacts, weightBytes, arenaBytes } = await emitC(kernel, { name: 'glyph' });
const out = process.argv[2] ?? at('../../out/custom-pipeline');
for (const { path, bytes } of artefacts) {
  mkdirSync(dirname(`${out}/${path}`), { recursive: true });
  writeFileSync(`${out}/${path}`, bytes);
}
console.log(`emitted   ${artefacts.map(({ path }) => path).join(' ')} (weights ${weightBytes} bytes, arena ${arenaBytes} bytes)`);
