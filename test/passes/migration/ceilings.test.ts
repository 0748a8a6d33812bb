/** Scales through ReLU6: kept at most 1, so that the ceiling lets through all that calibration data reached. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createCalibration } from '../../../src/calibration/calibration.ts';
import { samplesInMemory } from '../../../src/calibration/samples.ts';
import { Builder } from '../../../src/ir/build.ts';
import { sizeOf } from '../../../src/ir/dim.ts';
import type { Graph, Value } from '../../../src/ir/graph.ts';
import { clip, conv } from '../../../src/ir/ops/index.ts';
import { f32, tensor } from '../../../src/ir/type.ts';
import { createRandom, type Random } from '../../../src/numerics/random.ts';
import { applyChanges, largestDifference } from '../../../src/passes/migration/apply.ts';
import { channelClasses, changesOf } from '../../../src/passes/migration/channel-classes.ts';
import { rankedScales } from '../../../src/passes/migration/search.ts';
import { factsOf } from '../../../src/passes/migration/site-loss.ts';

const CHANNELS = 4;
const WIDTHS = { weights: 8, activations: 8, attention: 8 };

/** 1×1 convolution, ReLU6, padded depthwise convolution, ReLU6, 1×1 convolution; rows of the first two of very different size. */
const mobileGraph = (random: Random): Graph<'float'> => {
  const b = new Builder();
  const weight = (...shape: number[]): Value => b.constant('w', tensor(f32(...shape), Float32Array.from({ length: sizeOf(shape) }, (_, i) =>
    random.normal() * 2 ** (Math.floor((i * CHANNELS) / sizeOf(shape)) - 3))));
  let x = b.input('x', f32(1, 4, 4, CHANNELS));
  x = b.emit(clip, { x: b.emit(conv, { x, weight: weight(CHANNELS, 1, 1, CHANNELS), bias: weight(CHANNELS) }, {}) }, { low: 0, high: 6 });
  x = b.emit(clip, { x: b.emit(conv, { x, weight: weight(CHANNELS, 3, 3, 1), bias: null }, { pads: [1, 1, 1, 1], group: CHANNELS }) }, { low: 0, high: 6 });
  return b.finish('float', 'g', [{ name: 'y', value: b.emit(conv, { x, weight: weight(2, 1, 1, CHANNELS), bias: null }, {}) }]);
};

describe('scales below a ceiling', () => {
  it('keep the outputs of calibration data, whichever candidate wins', async () => {
    let changed = 0;
    await fc.assert(fc.asyncProperty(fc.nat(2 ** 31), async (seed) => {
      const random = createRandom(seed);
      const graph = mobileGraph(random);
      const samples = Array.from({ length: 4 }, () => ({ x: tensor(f32(1, 4, 4, CHANNELS), Float32Array.from({ length: 16 * CHANNELS }, () => random.normal())) }));
      const calibration = createCalibration(samplesInMemory(graph.inputs, samples), { data: null, threads: 1 });
      const facts = factsOf(graph, await calibration.channelMoments(graph), WIDTHS);
      for (const site of channelClasses(graph).scaleSites) for (const { candidate: { scale } } of rankedScales(site, facts)) {
        expect(Math.max(...scale)).toBeLessThanOrEqual(1);
        changed += scale.some((s) => s < 1) ? 1 : 0;
        expect(largestDifference(graph, applyChanges(graph, changesOf(site, scale, null)), samples)).toBeLessThan(1e-5);
      }
    }), { seed: 3, numRuns: 4 });
    expect(changed).toBeGreaterThan(100);
  });

  it('a scale above 1 is refused: the ceiling would let more through', () => {
    const graph = mobileGraph(createRandom(1));
    const [site] = channelClasses(graph).scaleSites;
    expect(() => applyChanges(graph, changesOf(site, new Float64Array(site.size).fill(2), null))).toThrow(/clip .* cannot take the change/);
  });
});
