// Passes that measure their changes say so in the ledger of report.json: what was kept, what it gained, and that nothing gained.
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { reportOf, type LedgerLine } from '../../../src/artefact/report.ts';
import { createCalibration } from '../../../src/calibration/calibration.ts';
import { samplesInMemory } from '../../../src/calibration/samples.ts';
import { parseGraph } from '../../../src/ir/parse.ts';
import { f32, tensor } from '../../../src/ir/type.ts';
import { builtInPasses, parsePipeline, resolvePipeline, runPipeline } from '../../../src/passes/index.ts';
import { bareContext } from '../../../src/passes/pass.ts';

const passes = new Map(builtInPasses.map((pass) => [pass.name, pass]));

/** The ledger of the pipeline of a golden case. */
const ledgerOf = async (file: string): Promise<readonly LedgerLine[]> => {
  const text = readFileSync(new URL(`../${file}`, import.meta.url), 'utf8').split('// ---- after')[0];
  const graph = parseGraph(text);
  const samples = [...text.matchAll(/^\/\/ sample %x: \[(.*)\]$/gm)].map(([, numbers]) => {
    const data = Float32Array.from(numbers.split(',').map(Number));
    return { x: tensor(f32(1, data.length), data) };
  });
  const pipeline = resolvePipeline(parsePipeline(/^\/\/ pipeline: (.*)$/m.exec(text)![1]), passes);
  const { records } = await runPipeline(graph, pipeline, bareContext(createCalibration(samplesInMemory(graph.inputs, samples), { data: null, threads: 1 })));
  return reportOf({ records }, null).ledger;
};

it.each(['migrate-scales/wide-channel-of-a-layer-norm.lbir', 'shift-channels/one-sided-channel-of-a-layer-norm.lbir'])('%s: a gain at its site, and at the outputs', async (file) => {
  const lines = await ledgerOf(file);
  const site = lines.find(({ site }) => site === 'n')!;
  expect(site).toMatchObject({ pass: file.split('/')[0], kept: true, bytes: 0, operations: 0 });
  expect(site.siteDb!.after).toBeGreaterThan(site.siteDb!.before);
  const whole = lines.find(({ site }) => site === null)!;
  expect(whole.outputsDb!.after).toBeGreaterThan(whole.outputsDb!.before);
});

it('channels that are balanced already: the pass stood aside', async () => {
  const lines = await ledgerOf('migrate-scales/keeps-balanced-channels.lbir');
  expect(lines.length).toBeGreaterThan(0);
  expect(lines.every(({ kept }) => !kept)).toBe(true);
});
