/** Published numbers for ranges and biases, worked out by hand. */
import { describe, expect, it } from 'vitest';
import { parseGraph } from '../../src/ir/parse.ts';
import { constantOf, type Graph, type Value } from '../../src/ir/graph.ts';
import type { UniformQuant } from '../../src/ir/quant.ts';
import { f32, tensor } from '../../src/ir/type.ts';
import { createCalibration } from '../../src/calibration/calibration.ts';
import { addToHistogram, emptyHistogram } from '../../src/calibration/histogram.ts';
import { minMaxRange, mseRange, squaredError } from '../../src/calibration/range.ts';
import { samplesInMemory } from '../../src/calibration/samples.ts';
import { narrowType } from '../../src/passes/activation-types.ts';
import { correctBias } from '../../src/passes/correct-bias.ts';
import { bareContext, runPass } from '../../src/passes/pass.ts';

describe('ranges at 4 bits', () => {
  it('least squares does not clip an outlier that holds most of the energy', () => {
    const x = Float32Array.of(0.1, -0.2, 0.05, 0.3, -0.15, 1);
    const seen = { low: -0.2, high: 1, histogram: addToHistogram(emptyHistogram(), x, -0.2, 1) };
    const range = mseRange(seen, 4, 'symmetric');
    expect(range).toEqual({ low: -1, high: 1 });
    expect((narrowType(range, 4, true).quant as UniformQuant).scale).toBeCloseTo(0.142857, 6);
    // 0.002359 is the published Σ|error|^2.4; the same codes have these squares
    const exact = x.reduce((sum, v) => sum + (v - Math.round(v * 7) / 7) ** 2, 0);
    expect(squaredError(seen.histogram, range, 4, 'symmetric')).toBeCloseTo(exact, 3);
    expect(x.reduce((sum, v) => sum + Math.abs(v - Math.round(v * 7) / 7) ** 2.4, 0)).toBeCloseTo(0.002359, 6);
  });

  it('from least to greatest, as LSQ+ starts: step (max − min)/15', () => {
    const { scale, zero, low } = narrowType(minMaxRange({ low: -0.28, high: 3.1 }), 4, false).quant as UniformQuant;
    expect(scale).toBeCloseTo(0.225333, 6);
    // the offset −0.28 is the nearest multiple of the step: codes begin there
    expect(low - (zero as number)).toBe(Math.round(-0.28 / 0.225333));
  });
});

it('bias correction: (W − Ŵ)·E[x] for W = [[.5, −1.3], [2.2, .4]] rounded to integers and x of mean [.8, .2]', async () => {
  const reference = parseGraph(`graph @g : float (%x: f32[1, 2]) -> (%y) {
  %w = const [0.5, -1.3, 2.2, 0.4] : f32[2, 2]
  %y = linear(%x, %w) : f32[1, 2]
}
`);
  const rounded = parseGraph(`graph @g : quant (%x: f32[1, 2]) -> (%y) {
  %w = const [1, -1, 2, 0] : i4<axis 0: [1, 1], -7..7>[2, 2]
  %y = linear(%x, %w) : f32[1, 2]
}
`);
  const samples = [[0.6, 0.5], [1, -0.1]].map((x) => ({ x: tensor(f32(1, 2), Float32Array.from(x)) }));
  const calibration = createCalibration(samplesInMemory(reference.inputs, samples), { data: null, threads: 1 });
  const corrected = await runPass(correctBias, rounded as Graph<'quant'>, {}, bareContext(calibration, 0, reference as Graph<'float'>));
  const bias = constantOf(corrected.nodes[0].inputs['bias'] as Value)!.data as Float32Array;
  expect(bias[0]).toBeCloseTo(-0.46, 6);
  expect(bias[1]).toBeCloseTo(0.24, 6);
});
