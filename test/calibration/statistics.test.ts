import { describe, expect, it } from 'vitest';
import { addToHistogram, BINS, binWidth, emptyHistogram, mergeHistograms, totalOf, type Histogram } from '../../src/calibration/histogram.ts';
import { klRange, minMaxRange, mseRange, percentileRange, squaredError } from '../../src/calibration/range.ts';
import { samplesInMemory } from '../../src/calibration/samples.ts';
import { absoluteMax, channelMeans, channelSecondMoments, collectStatistics } from '../../src/calibration/statistics.ts';
import { createCalibration } from '../../src/calibration/calibration.ts';
import { Builder } from '../../src/ir/build.ts';
import { add, gather, relu } from '../../src/ir/ops/index.ts';
import { f32, tensor, tensorType } from '../../src/ir/type.ts';
import { createRandom } from '../../src/numerics/random.ts';

const count = (histogram: Histogram, data: Float32Array): Histogram => addToHistogram(histogram, data, Math.min(...data), Math.max(...data));
const normals = (length: number, scale = 1, seed = 3): Float32Array => {
  const random = createRandom(seed);
  return Float32Array.from({ length }, () => random.normal() * scale);
};

describe('histogram', () => {
  const parts = [normals(500), normals(100, 40, 4), Float32Array.of(0, 0, 0), normals(300, 1e-6, 5), Float32Array.of(-3e5, 1e-40), Float32Array.of(-0.25, 0.5)];
  const shapeOf = ({ exponent, first, counts }: Histogram) => ({ exponent, first, counts: [...counts] });

  it('does not depend on the order of values or on how parts were merged', () => {
    const whole = shapeOf(count(emptyHistogram(), Float32Array.from(parts.flatMap((part) => [...part]))));
    const random = createRandom(1);
    for (let n = 0; n < 20; n++) {
      const order = random.shuffle(parts);
      expect(shapeOf(order.reduce(count, emptyHistogram()))).toEqual(whole);
      const split = random.below(order.length + 1);
      const [left, right] = [order.slice(0, split), order.slice(split)].map((some) => some.reduce(count, emptyHistogram()));
      expect(shapeOf(mergeHistograms(left, right))).toEqual(whole);
    }
  });
  it('counts every value in its bin', () => {
    const data = normals(1000, 7);
    const histogram = count(emptyHistogram(), data);
    expect(totalOf(histogram)).toBe(1000);
    expect(histogram.counts.length).toBeGreaterThan(BINS / 4);
    expect(histogram.counts.length).toBeLessThanOrEqual(BINS);
    histogram.counts.forEach((n, i) => {
      const [from, to] = [(histogram.first + i) * binWidth(histogram), (histogram.first + i + 1) * binWidth(histogram)];
      expect(n).toBe(data.filter((x) => x >= from && x < to).length);
    });
  });
  it('one value, least and greatest float32', () => {
    for (const x of [0, -0, 1, -7.5, 2 ** -149, 3.4e38, -3.4e38]) expect(totalOf(count(emptyHistogram(), Float32Array.of(x)))).toBe(1);
  });
});

describe('ranges', () => {
  const seenOf = (data: Float32Array) => ({ low: Math.min(...data), high: Math.max(...data), histogram: count(emptyHistogram(), data) });
  it('min-max holds 0', () => {
    expect(minMaxRange({ low: 1, high: 3 })).toEqual({ low: 0, high: 3 });
    expect(minMaxRange({ low: -2, high: -1 })).toEqual({ low: -2, high: 0 });
  });
  it('percentile cuts outliers at both ends, whatever their size', () => {
    const data = Float32Array.of(...normals(20000), 1e6, -500);
    const { low, high } = percentileRange(seenOf(data), 0.999);
    // bins are as wide as the outlier demands
    expect(high).toBeLessThan(1e6 / BINS * 4);
    expect(low).toBeGreaterThanOrEqual(-500);
    const tame = percentileRange(seenOf(normals(20000)), 0.9);
    expect(tame.low).toBeCloseTo(-1.645, 1);
    expect(tame.high).toBeCloseTo(1.645, 1);
    expect(percentileRange(seenOf(normals(200)), 1)).toEqual(minMaxRange(seenOf(normals(200))));
  });
  it('mse clips a normal distribution where theory does', () => {
    // optimal symmetric uniform quantizers of a unit normal clip near 2.6 at 4 bits and 1.5 at 2 bits (Max 1960)
    const seen = seenOf(normals(50000));
    expect(mseRange(seen, 4, 'symmetric').high).toBeGreaterThan(2.2);
    expect(mseRange(seen, 4, 'symmetric').high).toBeLessThan(3);
    expect(mseRange(seen, 2, 'symmetric').high).toBeLessThan(1.8);
    for (const form of ['affine', 'symmetric'] as const) for (const bits of [2, 4, 8]) {
      const chosen = mseRange(seen, bits, form);
      expect(squaredError(seen.histogram, chosen, bits, form)).toBeLessThanOrEqual(squaredError(seen.histogram, minMaxRange(seen), bits, form));
    }
  });
  it('kl cuts rare outliers and keeps what holds much', () => {
    const outlier = seenOf(Float32Array.of(...normals(50000), 40));
    expect(klRange(outlier, 4, 'symmetric').high).toBeLessThan(12);
    expect(klRange(seenOf(Float32Array.from({ length: 20000 }, (_, i) => (i % 2 === 0 ? -1 : 1) * (1 + (i % 7))) ), 4).high).toBeGreaterThan(6);
    // behind a ReLU half of all values are 0 and must not decide
    const rectified = klRange(seenOf(normals(50000).map((x) => Math.max(0, x))), 8);
    expect(rectified.low).toBeCloseTo(0, 12);
    expect(rectified.high).toBeGreaterThan(2);
    expect(klRange(seenOf(new Float32Array(9)), 4).high).toBeCloseTo(0, 12);
  });
  it('a range of only zeros', () => expect(mseRange(seenOf(new Float32Array(9)), 4)).toEqual({ low: 0, high: 0 }));
});

const graph = (() => {
  const b = new Builder();
  const x = b.input('x', f32(2, 3));
  const tokens = b.input('tokens', tensorType('i64', [2]));
  const row = b.emit(gather, { table: b.constant('t', tensor(f32(2, 3), Float32Array.of(1, 2, 3, -4, -5, -6))), indices: tokens }, {}, { name: 'row' });
  const sum = b.emit(add, { x, y: row }, {}, { name: 'sum' });
  return b.finish('float', 'g', [{ name: 'y', value: b.emit(relu, { x: sum }, {}, { name: 'y' }) }]);
})();
const samples = samplesInMemory(graph.inputs, Array.from({ length: 11 }, (_, i) => ({
  x: tensor(f32(2, 3), normals(6, 1 + i, i)), tokens: tensor(tensorType('i64', [2]), BigInt64Array.of(BigInt(i % 2), 1n)),
})));

describe('statistics of a graph', () => {
  it('are those of all samples together', async () => {
    const all = await collectStatistics(graph, samples, { histogram: true });
    expect([...all.keys()]).toEqual(['x', 'row', 'sum', 'y']);
    const x = Float32Array.from([...samples].flatMap((sample) => [...(sample['x'].data as Float32Array)]));
    const seen = all.get('x')!;
    expect(seen).toMatchObject({ count: 66, low: Math.min(...x), high: Math.max(...x) });
    expect(absoluteMax(seen)).toBe(Math.max(...x.map(Math.abs)));
    expect(totalOf(seen.histogram)).toBe(66);
    for (let c = 0; c < 3; c++) {
      const channel = [...x].filter((_, i) => i % 3 === c);
      expect(seen.channels.low[c]).toBe(Math.min(...channel));
      expect(seen.channels.high[c]).toBe(Math.max(...channel));
      expect(channelMeans(seen)[c]).toBeCloseTo(channel.reduce((a, b) => a + b) / 22, 12);
      expect(channelSecondMoments(seen)[c]).toBeCloseTo(channel.reduce((a, b) => a + b * b, 0) / 22, 10);
    }
  });
  it('only what was asked for', async () => {
    const progress: string[] = [];
    const some = await collectStatistics(graph, samples, { values: ['sum'], count: 3, progress: (done, total) => progress.push(`${done}/${total}`) });
    expect([...some.keys()]).toEqual(['sum']);
    expect(some.get('sum')!.count).toBe(18);
    expect(progress).toEqual(['3/3']);
  });
  it('calibration answers from one run', async () => {
    let runs = 0;
    const calibration = createCalibration(samples, { data: 'u8', threads: 1, onProgress: (_, done, total) => { runs += Number(done === total); } });
    const ranges = await calibration.ranges(graph, { method: 'mse', bits: 8, percentile: 1 });
    expect(ranges.get('x')).toMatchObject({ codes: 'u8' });
    expect(ranges.get('y')!.low).toBe(0);
    expect((await calibration.channelRanges(graph)).get('row')!.low).toEqual(Float64Array.of(-4, -5, -6));
    expect((await calibration.channelMeans(graph, 11)).get('row')!.length).toBe(3);
    expect(runs).toBe(1);
    await calibration.channelMeans(graph, 2);
    expect(runs).toBe(2);
  });
});
