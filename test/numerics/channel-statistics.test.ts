import { expect, it } from 'vitest';
import { channelStatistics, countBins } from '../../src/numerics/channel-statistics.ts';
import { createRandom } from '../../src/numerics/random.ts';

const random = createRandom(4);
const normals = (length: number): Float32Array => Float32Array.from({ length }, () => random.normal());

it.each([[1, 1], [1, 1000], [3, 7], [4, 16], [8, 9], [9, 33], [17, 5], [64, 100], [100, 1]])('%d channels in %d rows', (channels, rows) => {
  const data = normals(channels * rows);
  const { low, high, sum, squares } = channelStatistics(data, channels);
  for (let c = 0; c < channels; c++) {
    const column = [...data].filter((_, i) => i % channels === c);
    // the same order of the same operations: equal, not close
    expect([low[c], high[c]]).toEqual([Math.min(...column), Math.max(...column)]);
    expect([sum[c], squares[c]]).toEqual([column.reduce((a, x) => a + x, 0), column.reduce((a, x) => a + x * x, 0)]);
  }
  expect(low.length).toBe(channels);
});

it.each([10, 5000])('%d numbers in bins', (length) => {
  const data = normals(length);
  const counts = new Float64Array(101);
  counts[50] = 7;
  const expected = counts.slice();
  for (const x of data) expected[Math.floor(x * 8) + 50]++;
  countBins(data, 8, -50, counts);
  expect(counts).toEqual(expected);
});
