import { describe, expect, it } from 'vitest';
import { areProbabilities, labelMeter, referenceMeter, shareOf, sqnrDb } from '../../src/calibration/metrics.ts';

describe('shares', () => {
  // Wilson score intervals from a statistics package
  it.each([[0, 10, 0, 0.2775], [10, 10, 0.7225, 1], [90, 100, 0.8256, 0.9448], [120, 200, 0.5308, 0.6654]])('%d of %d', (hits, count, low, high) => {
    const share = shareOf(hits, count);
    expect(share.low).toBeCloseTo(low, 4);
    expect(share.high).toBeCloseTo(high, 4);
  });
  it('nothing seen', () => expect(shareOf(0, 0)).toMatchObject({ value: 0, low: 0, high: 1 }));
});

describe('labels', () => {
  it('logits: top-1, top-5, cross entropy', () => {
    const meter = labelMeter(6);
    meter.add([0, 1, 2, 3, 4, 5], [5]);
    meter.add([0, 1, 2, 3, 4, 5], [1]);
    meter.add([0, 1, 2, 3, 4, 5], [0]);
    const { top1, top5, crossEntropy, perplexity } = meter.result();
    expect([top1.hits, top5!.hits, top1.count]).toEqual([1, 2, 3]);
    const total = Math.log([0, 1, 2, 3, 4, 5].reduce((sum, x) => sum + Math.exp(x), 0));
    expect(crossEntropy).toBeCloseTo(total - (5 + 1 + 0) / 3, 12);
    expect(perplexity).toBeNull();
  });
  it('probabilities are recognised', () => {
    expect(areProbabilities([0.25, 0.75, 0.5, 0.5], 2)).toBe(true);
    expect(areProbabilities([0.25, 0.75, 0.5, 1.5], 2)).toBe(false);
    expect(areProbabilities([-0.25, 1.25], 2)).toBe(false);
    const meter = labelMeter(2);
    meter.add([0.25, 0.75], [0]);
    meter.add([1, 0], [1]);
    expect(meter.result().crossEntropy).toBeCloseTo((Math.log(4) + Math.log(2 ** 17)) / 2, 12);
    expect(meter.result().top5).toBeNull();
  });
  it('one class for each position gives perplexity', () => {
    const meter = labelMeter(2);
    meter.add([0, 0, 0, 0], BigInt64Array.of(0n, 1n));
    expect(meter.result().perplexity).toBeCloseTo(2, 12);
  });
  it('ties go to the lower class', () => {
    const meter = labelMeter(3);
    meter.add([1, 1, 0, 1, 1, 0], [0, 1]);
    expect(meter.result().top1.hits).toBe(1);
  });
  it('labels that do not fit', () => {
    expect(() => labelMeter(3).add([1, 2, 3], [3])).toThrow(/LB0513/);
    expect(() => labelMeter(3).add([1, 2, 3], [0, 1])).toThrow(/LB0513/);
  });
});

describe('against a reference', () => {
  it('agreement and noise', () => {
    const meter = referenceMeter(2);
    meter.add([1, 2, 4, 3], [1, 3, 3, 4]);
    const { agreement, sqnrDb: db } = meter.result();
    expect([agreement!.hits, agreement!.count]).toEqual([1, 2]);
    expect(db).toBeCloseTo(10 * Math.log10(35 / 3), 12);
  });
  it('equal outputs', () => expect(sqnrDb([1, 2], [1, 2])).toBe(Infinity));
});
