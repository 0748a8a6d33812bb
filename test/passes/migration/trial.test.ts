// What trials measure: outputs behind a softmax count as what it reads.
import { expect, it } from 'vitest';
import { createCalibration } from '../../../src/calibration/calibration.ts';
import { samplesInMemory } from '../../../src/calibration/samples.ts';
import { printGraph } from '../../../src/ir/print.ts';
import type { Graph } from '../../../src/ir/graph.ts';
import { parseGraph } from '../../../src/ir/parse.ts';
import { f32, tensor } from '../../../src/ir/type.ts';
import { createRandom } from '../../../src/numerics/random.ts';
import { openTrial } from '../../../src/passes/migration/trial.ts';
import { withoutFinalSoftmax } from '../../../src/passes/output-meter.ts';
import { bareContext } from '../../../src/passes/pass.ts';

const classifier = (last: string, output: string): Graph<'float'> => parseGraph(`graph @g : float (%x: f32[1, 3]) -> (${output}) {
  %w = const [4, -3, 2, 1, 5, -2, -1, 2, 6] : f32[3, 3]
  %l = linear(%x, %w) : f32[1, 3]
${last}}`) as Graph<'float'>;
const logits = classifier('', '%l');
const probabilities = classifier('  %p = softmax(%l) : f32[1, 3]\n', '%p');

const random = createRandom(1);
const samples = samplesInMemory(logits.inputs, Array.from({ length: 8 }, () => ({ x: tensor(f32(1, 3), Float32Array.from({ length: 3 }, () => 20 * random.uniform() - 10)) })));
const trialOf = (graph: Graph<'float'>): Promise<Float64Array | null> =>
  openTrial(graph, { weights: 4, activations: 4, attention: 8 }, bareContext(createCalibration(samples, { data: null, threads: 1 }))).sqnrDb(graph);

it('a network that ends in a softmax is judged like the one without', async () => {
  const found = await trialOf(probabilities);
  expect(found).toEqual(await trialOf(logits));
  // saturated probabilities would seem free of noise
  expect(Math.max(...found!)).toBeLessThan(60);
});

it('only a softmax that nothing but the outputs reads is taken away', () => {
  expect(printGraph(withoutFinalSoftmax(probabilities))).toBe(printGraph(logits).replace('(%l) {', '("p": %l) {'));
  expect(withoutFinalSoftmax(logits)).toBe(logits);
  const read = classifier('  %p = softmax(%l) : f32[1, 3]\n  %z = add(%p, %l) : f32[1, 3]\n', '%p, %z');
  expect(withoutFinalSoftmax(read)).toBe(read);
});
