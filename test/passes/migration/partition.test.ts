import { describe, expect, it } from 'vitest';
import { bestGroups } from '../../../src/passes/migration/partition.ts';
import { createRandom } from '../../../src/numerics/random.ts';

describe('groups of channels', () => {
  it('end where ranges jump', () => {
    const ranges = Float64Array.of(1, 1, 1, 1, 8, 8, 64, 64);
    expect(bestGroups(ranges, 64, 3, 1)).toEqual({ ends: [4, 6, 8], cost: 4 * 1 + 2 * 64 + 2 * 4096 });
    expect(bestGroups(ranges, 64, 1, 1)).toEqual({ ends: [8], cost: 8 * 4096 });
  });
  it('end at multiples, and take ranges that are powers of two apart', () => {
    expect(bestGroups(Float64Array.of(3, 3, 3, 3, 3, 40), 40, 2, 4)).toEqual({ ends: [4, 6], cost: 4 * 25 + 2 * 1600 });
  });
  it('are as good as any cut', () => {
    const random = createRandom(2);
    const costs = (ranges: Float64Array, ends: readonly number[]): number => ends.reduce((sum, end, i) => {
      let range = 16;
      while (range / 2 >= ranges[end - 1]) range /= 2;
      return sum + (end - (ends[i - 1] ?? 0)) * range * range;
    }, 0);
    for (let run = 0; run < 20; run++) {
      const ranges = Float64Array.from({ length: 9 }, () => 0.1 + 15.9 * random.uniform() ** 3).sort();
      const found = bestGroups(ranges, 16, 3, 1);
      expect(found.cost).toBeCloseTo(costs(ranges, found.ends), 9);
      for (let a = 1; a < 8; a++) for (let b = a + 1; b < 9; b++) expect(found.cost).toBeLessThanOrEqual(costs(ranges, [a, b, 9]) + 1e-9);
    }
  });
});

describe('block floating point, blocks of 4 with 4-bit mantissas', () => {
  const keys = [8, 0.11, 0.23, 7.1, 0.37, 6.3, 0.05, 0.29];
  const rounded = (block: readonly number[]): number[] => {
    const step = 2 ** (Math.floor(Math.log2(Math.max(...block))) - 2);
    return block.map((v) => Math.min(7, Math.round(v / step)) * step);
  };
  const blocks = (list: readonly number[]): number[] => [...rounded(list.slice(0, 4)), ...rounded(list.slice(4))];
  const error = (list: readonly number[]): number => blocks(list).reduce((sum, v, i) => sum + (v - list[i]) ** 2, 0);
  const order = keys.map((_, i) => i).sort((a, b) => keys[a] - keys[b]);

  it('loses small channels beside large ones, and keeps them once sorted', () => {
    expect(order).toEqual([6, 1, 2, 7, 4, 5, 3, 0]);
    const sorted = order.map((i) => keys[i]);
    expect(blocks(keys)).toEqual([8, 0, 0, 8, 0, 6, 0, 0]);
    expect(error(keys)).toBeCloseTo(1.1885, 4);
    expect(blocks(sorted)).toEqual([0.0625, 0.125, 0.25, 0.3125, 0, 6, 8, 8]);
    expect(error(sorted)).toBeCloseTo(1.038188, 5);
  });
});
