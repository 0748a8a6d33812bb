import { expect, it } from 'vitest';
import { createRandom } from '../../src/numerics/random.ts';

it('the same numbers for a seed, always', () => {
  const first = createRandom(1);
  expect([first.bits(), first.bits(), first.bits()]).toEqual([2751366707, 239664015, 2470820579]);
  expect(createRandom(1).shuffle([1, 2, 3, 4, 5])).toEqual(createRandom(1).shuffle([1, 2, 3, 4, 5]));
  expect(createRandom(1).bits()).not.toBe(createRandom(2).bits());
  expect(createRandom(1, 0).bits()).not.toBe(createRandom(1, 1).bits());
});

it('uniform in [0, 1), normal with mean 0 and variance 1', () => {
  const random = createRandom(3);
  const uniforms = Array.from({ length: 20000 }, () => random.uniform());
  expect(uniforms.every((u) => u >= 0 && u < 1)).toBe(true);
  expect(uniforms.reduce((a, u) => a + u) / 20000).toBeCloseTo(0.5, 1);
  const normals = Array.from({ length: 20000 }, () => random.normal());
  expect(normals.reduce((a, x) => a + x) / 20000).toBeCloseTo(0, 1);
  expect(normals.reduce((a, x) => a + x * x) / 20000).toBeCloseTo(1, 1);
});

it('every number below the bound, equally often', () => {
  const random = createRandom(4);
  const counts = new Array<number>(7).fill(0);
  for (let i = 0; i < 70000; i++) counts[random.below(7)]++;
  for (const count of counts) expect(Math.abs(count - 10000)).toBeLessThan(500);
  expect(createRandom(5).below(1)).toBe(0);
});

it('a shuffle keeps the items', () => {
  const items = Array.from({ length: 50 }, (_, i) => i);
  const shuffled = createRandom(6).shuffle(items);
  expect(shuffled).not.toEqual(items);
  expect([...shuffled].sort((a, b) => a - b)).toEqual(items);
});
