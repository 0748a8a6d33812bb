/** What correct-bias brings back: mean and spread of every channel of a layer, and nothing where the layers were fitted. */
import { describe, expect, it } from 'vitest';
import { createCalibration, type Calibration } from '../../../src/calibration/calibration.ts';
import { createExecutor } from '../../../src/calibration/executor.ts';
import { samplesInMemory, type Sample } from '../../../src/calibration/samples.ts';
import type { Graph } from '../../../src/ir/graph.ts';
import { parseGraph } from '../../../src/ir/parse.ts';
import { f32, tensor } from '../../../src/ir/type.ts';
import { createRandom } from '../../../src/numerics/random.ts';
import { correctBias, type CorrectBiasOptions } from '../../../src/passes/correct-bias.ts';
import { fitWeights } from '../../../src/passes/fit-weights.ts';
import { bareContext, runPass } from '../../../src/passes/pass.ts';
import { quantizeActivations } from '../../../src/passes/quantize-activations.ts';
import { quantizeWeights } from '../../../src/passes/quantize-weights.ts';

const [ROWS, DEPTH, SAMPLES] = [3, 6, 16];
const network = (seed: number): { readonly float: Graph<'float'>; readonly samples: readonly Sample[]; readonly calibration: Calibration } => {
  const random = createRandom(seed);
  const list = (count: number): string => Array.from({ length: count }, () => random.normal().toFixed(4)).join(', ');
  const float = parseGraph(`graph @g : float (%x: f32[1, ${DEPTH}]) -> (%y) {
  %w = const [${list(ROWS * DEPTH)}] : f32[${ROWS}, ${DEPTH}]
  %b = const [${list(ROWS)}] : f32[${ROWS}]
  %y = linear(%x, %w, %b) : f32[1, ${ROWS}]
}
`) as Graph<'float'>;
  const samples = Array.from({ length: SAMPLES }, () => ({ x: tensor(f32(1, DEPTH), Float32Array.from({ length: DEPTH }, () => random.normal())) }));
  return { float, samples, calibration: createCalibration(samplesInMemory(float.inputs, samples), { data: null, threads: 1 }) };
};
const momentsOf = (graph: Graph<'float' | 'quant'>, samples: readonly Sample[]): readonly { readonly mean: number; readonly deviation: number }[] => {
  const executor = createExecutor(graph);
  const outputs = samples.map((sample) => Array.from(executor.run(sample)['y'].data, Number));
  return Array.from({ length: ROWS }, (_, c) => {
    const mean = outputs.reduce((sum, y) => sum + y[c], 0) / outputs.length;
    return { mean, deviation: Math.sqrt(outputs.reduce((sum, y) => sum + (y[c] - mean) ** 2, 0) / outputs.length) };
  });
};
const corrected = async (float: Graph<'float'>, calibration: Calibration, options: Partial<CorrectBiasOptions>): Promise<Graph<'quant'>> => {
  const context = bareContext(calibration, 0, float);
  const rounded = await runPass(quantizeWeights, await runPass(quantizeActivations, float, {}, context), { bits: 3 }, context);
  return runPass(correctBias, rounded, options, context);
};

describe('correct-bias', () => {
  it('returns the mean of each channel, and its deviation where that is asked for', async () => {
    let farthest = 0;
    for (let seed = 0; seed < 20; seed++) {
      const { float, samples, calibration } = network(seed);
      const wanted = momentsOf(float, samples);
      const [means, both] = [momentsOf(await corrected(float, calibration, {}), samples), momentsOf(await corrected(float, calibration, { moments: 'mean-deviation' }), samples)];
      wanted.forEach(({ mean, deviation }, c) => {
        // outputs beyond the greatest float output saturate, which moves both moments a little
        const near = 0.01 * deviation;
        expect(Math.abs(means[c].mean - mean)).toBeLessThan(near);
        expect(Math.abs(both[c].mean - mean)).toBeLessThan(near);
        expect(Math.abs(both[c].deviation - deviation)).toBeLessThan(near);
        farthest = Math.max(farthest, Math.abs(means[c].deviation - deviation) / deviation);
      });
    }
    // without its own correction the deviation is elsewhere
    expect(farthest).toBeGreaterThan(0.1);
  });

  it('leaves a network alone whose layers were all fitted', async () => {
    const { float, calibration } = network(1);
    const context = bareContext(calibration, 0, float);
    const fitted = await runPass(fitWeights, await runPass(quantizeActivations, float, {}, context), { bits: 3 }, context);
    for (const moments of ['mean', 'mean-deviation', 'measured'] as const) expect(await runPass(correctBias, fitted, { moments }, context)).toBe(fitted);
  });
});
