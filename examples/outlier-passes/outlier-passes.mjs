/**
 * Two passes against activation outliers by themselves, in a pipeline of one's own, with what each is worth:
 *
 *     node examples/outlier-passes/outlier-passes.mjs
 *
 * `glyph-vit-outlier` computes what `glyph-vit` computes, but four channels of each LayerNorm are large and one-sided: with one scale for all
 * channels, 8 bits are not enough. `migrateScales` moves their ranges into the weights behind; `rewriteGelu` then puts ReLU in place of GELU
 * and refits the layers behind. Every graph is rounded by the same three passes and compared with the float model on images apart.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createCalibration, createExecutor, importBound, openSamples, toolboxWith } from 'lowbitc';
import { bareContext, canonicalizePasses, migrateScales, parsePipeline, resolvePipeline, rewriteGelu, runPass, runPipeline } from 'lowbitc/passes';

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const images = { mean: [127.5], std: [127.5] };
const { graph: imported } = importBound(readFileSync(at('../models/glyph-vit-outlier.onnx')), {});
const calibration = createCalibration(openSamples(at('../data/calib.npy'), imported.inputs, { ...images, count: 32 }), { data: null, threads: null });
const evaluation = openSamples(at('../data/eval.npy'), imported.inputs, { ...images, count: 64 });

// what a pass has to say goes to `note`: one line for each site, with what was measured there
const ledger = [];
const context = { ...bareContext(calibration), note: (note) => ledger.push(note) };

let model = imported;
for (const pass of canonicalizePasses) model = await runPass(pass, model);
const migrated = await runPass(migrateScales, model, { weights: 8, activations: 8 }, context);
const rewritten = await runPass(rewriteGelu, migrated, { samples: 32 }, context);

const rounding = resolvePipeline(parsePipeline('quantize-activations, quantize-weights, correct-bias{samples: 16}'), toolboxWith([]).passes);
const float = createExecutor(model);
const measure = async (graph) => {
  const { graph: rounded } = await runPipeline(graph, rounding, bareContext(calibration));
  const executor = createExecutor(rounded);
  let [signal, noise, agreeing] = [0, 0, 0];
  const best = (list) => list.indexOf(Math.max(...list));
  for (let i = 0; i < evaluation.count; i++) {
    const sample = evaluation.get(i);
    const [expected, found] = [[...float.run(sample).logits.data], [...executor.run(sample).logits.data]];
    expected.forEach((y, k) => { signal += y * y; noise += (found[k] - y) ** 2; });
    if (best(expected) === best(found)) agreeing++;
  }
  return `${(10 * Math.log10(signal / noise)).toFixed(1).padStart(5)} dB, ${agreeing} of ${evaluation.count} images classified as by the float model`;
};

console.log(`w8a8 as it is             ${await measure(model)}`);
console.log(`w8a8 after migrateScales  ${await measure(migrated)}`);
console.log(`     … and rewriteGelu    ${await measure(rewritten)}`);
console.log('\nsite by site, dB before and after:');
for (const { site, text, gain } of ledger) {
  if (site !== null && gain?.siteDb) console.log(`  ${gain.siteDb.before.toFixed(1).padStart(5)} → ${gain.siteDb.after.toFixed(1).padStart(5)}  ${text.padEnd(28)} ${site}`);
}
