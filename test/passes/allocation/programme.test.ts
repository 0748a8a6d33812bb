/** Bit allocation as a programme: published optima, brute force, and answers that explain themselves. */
import { describe, expect, it, beforeAll } from 'vitest';
import { createRandom } from '../../../src/numerics/random.ts';
import { glpkEngine } from '../../../src/passes/allocation/glpk.ts';
import { highsEngine } from '../../../src/passes/allocation/highs.ts';
import { improved, isFeasible, leastUsage, lossOf, withoutDominated, type Programme } from '../../../src/passes/allocation/programme.ts';
import { solve, type Engine } from '../../../src/passes/allocation/solver.ts';
import hawq from './hawq-resnet18.json' with { type: 'json' };

let engine: Engine;
beforeAll(async () => { engine = await glpkEngine(); });
const exact = { gap: 0, seconds: 20 };

/** The ResNet18 of HAWQ-V3: 19 layers at 4 or 8 bits, three pairs tied, one resource limited at a time. */
const hawqProgramme = (resource: 'size' | 'bops' | 'latency', budget: number): { programme: Programme; layers: readonly (readonly number[])[] } => {
  const tiedTo = new Map(hawq.ties.map(([a, b]) => [b, a]));
  const layers = hawq.trace.flatMap((_, i) => (tiedTo.has(i) ? [] : [[i, ...hawq.ties.flatMap(([a, b]) => (a === i ? [b] : []))]]));
  const usage = (i: number, bits: 4 | 8): number => ({
    size: hawq.parametersM[i] * (bits / 8), bops: hawq.bopsM[i] / (bits === 8 ? 16 : 64), latency: (bits === 8 ? hawq.latencyInt8Ms : hawq.latencyInt4Ms)[i],
  })[resource];
  const total = (list: readonly number[], of: (i: number) => number): number => list.reduce((sum, i) => sum + of(i), 0);
  return {
    layers,
    programme: {
      groups: layers.map((list) => ({
        name: list.join('='),
        choices: [
          { name: '4', loss: 0, usage: [total(list, (i) => usage(i, 4))] },
          { name: '8', loss: total(list, (i) => hawq.trace[i] * (hawq.delta8[i] - hawq.delta4[i])), usage: [total(list, (i) => usage(i, 8))] },
        ],
      })),
      limits: [{ resource, most: budget }],
    },
  };
};

const randomProgramme = (seed: number, groups: number, choices: number, resources: number, share = 0.3): Programme => {
  const random = createRandom(seed);
  const list = Array.from({ length: groups }, (_, g) => {
    const [size, loss] = [Math.exp(6 * random.uniform()), Math.exp(6 * random.uniform())];
    const bits = [2, 3, 4, 5, 6, 8].slice(0, choices);
    return {
      name: `layer ${g}`,
      choices: bits.map((b) => ({
        name: `w${b}`, loss: loss * 4 ** -b * (0.5 + random.uniform()), usage: Array.from({ length: resources }, () => size * b * (0.8 + 0.4 * random.uniform())),
      })),
    };
  });
  const extremes = (r: number, pick: (...list: number[]) => number): number => list.reduce((sum, { choices: c }) => sum + pick(...c.map(({ usage }) => usage[r])), 0);
  return {
    groups: list,
    limits: Array.from({ length: resources }, (_, r) => ({ resource: `r${r}`, most: extremes(r, Math.min) + share * (extremes(r, Math.max) - extremes(r, Math.min)) })),
  };
};

const bruteForce = (programme: Programme): number => {
  let best = Infinity;
  const walk = (assignment: number[]): void => {
    if (assignment.length < programme.groups.length) programme.groups[assignment.length].choices.forEach((_, c) => walk([...assignment, c]));
    else if (isFeasible(programme, assignment)) best = Math.min(best, lossOf(programme, assignment));
  };
  walk([]);
  return best;
};

describe('published optima', () => {
  it.each(hawq.optima.map((one) => [`${one.resource} at alpha ${one.alpha}`, one] as const))('HAWQ-V3 ResNet18, %s', async (_, { resource, budget, objective, bits, used }) => {
    const { programme, layers } = hawqProgramme(resource as 'size', budget);
    const { assignment, loss, usage } = await solve(programme, engine, exact);
    const found = new Array<number>(hawq.trace.length);
    layers.forEach((list, g) => list.forEach((i) => { found[i] = assignment[g] === 1 ? 8 : 4; }));
    expect(found).toEqual(bits);
    expect(loss).toBeCloseTo(objective, 9);
    expect(usage[0]).toBeCloseTo(used, 6);
  });
});

describe('random programmes', () => {
  it('200 small ones equal brute force', async () => {
    for (let seed = 0; seed < 200; seed++) {
      const programme = randomProgramme(seed, 5, 4, 1 + (seed % 3), 0.2 + (seed % 5) / 10);
      const best = bruteForce(programme);
      if (best === Infinity) continue;
      const { loss, bound } = await solve(programme, engine, exact);
      expect(loss, `seed ${seed}`).toBeCloseTo(best, 9);
      expect(bound).toBeLessThanOrEqual(loss);
    }
  }, 240_000);

  it('1,000 layers with six choices and four resources come within half a percent of the bound', async () => {
    const programme = randomProgramme(1, 1000, 6, 4);
    const { gap, assignment } = await solve(programme, engine, { gap: 1e-3, seconds: 8 });
    expect(isFeasible(programme, assignment)).toBe(true);
    expect(gap).toBeLessThan(0.005);
  }, 240_000);
});

describe('limits that cannot be met', () => {
  const small: Programme = {
    groups: [{ name: 'a', choices: [{ name: '4', loss: 2, usage: [4, 9] }, { name: '8', loss: 1, usage: [8, 5] }] }],
    limits: [{ resource: 'size', most: 3 }, { resource: 'latency', most: 10 }],
  };
  it('one by itself is named with the least that it needs', async () => {
    await expect(solve(small, engine)).rejects.toThrow('the budget size=3 cannot be met: the least bits everywhere take 4');
  });
  it('several together are named with what each needs beside the others', async () => {
    const both = { ...small, limits: [{ resource: 'size', most: 5 }, { resource: 'latency', most: 6 }] };
    await expect(solve(both, engine)).rejects.toThrow('with the others as they are, size needs about 7');
  });
});

describe('an engine that gives up', () => {
  const slow = (base: Engine): Engine => ({ ...base, name: 'slow', solve: () => Promise.resolve(null) });
  it('leaves an answer within the limits, its distance from the bound told', async () => {
    for (let seed = 0; seed < 10; seed++) {
      const programme = randomProgramme(seed, 20, 6, 1);
      const [quick, best] = [await solve(programme, slow(engine)), await solve(programme, engine, exact)];
      expect(isFeasible(programme, quick.assignment)).toBe(true);
      expect(quick.gap).toBeGreaterThanOrEqual(0);
      expect(quick.bound).toBeLessThanOrEqual(best.loss * (1 + 1e-9));
      expect(quick.loss).toBeLessThan(best.loss * 1.5);
    }
  });
  it('and finds nothing where limits leave no plain start: said with the time it had', async () => {
    const twisted: Programme = {
      groups: [0, 1].map((g) => ({ name: `${g}`, choices: [{ name: 'a', loss: 1, usage: [0, 2] }, { name: 'b', loss: 1, usage: [2, 0] }] })),
      limits: [{ resource: 'size', most: 2 }, { resource: 'latency', most: 2 }],
    };
    await expect(solve(twisted, slow(engine), { gap: 0, seconds: 1 })).rejects.toThrow('no assignment of bits was found within 1 s');
  });
});

describe('HiGHS, where it is installed', () => {
  it('agrees with GLPK on HAWQ-V3 and on random programmes', async ({ skip }) => {
    const highs = await highsEngine().catch(() => null);
    if (highs === null) return skip('the optional package highs is not installed');
    for (const { resource, budget, objective } of hawq.optima) {
      const { programme } = hawqProgramme(resource as 'size', budget);
      expect((await solve(programme, highs, exact)).loss).toBeCloseTo(objective, 9);
    }
    for (let seed = 0; seed < 5; seed++) {
      const programme = randomProgramme(seed, 8, 4, 2);
      if (!programme.limits.every(({ most }, r) => most >= leastUsage(programme, r))) continue;
      expect((await solve(programme, highs, exact)).loss).toBeCloseTo((await solve(programme, engine, exact)).loss, 6);
    }
  }, 240_000);
  it('brings 1,000 layers within a tenth of a percent of the bound', async ({ skip }) => {
    const highs = await highsEngine().catch(() => null);
    if (highs === null) return skip('the optional package highs is not installed');
    const { gap } = await solve(randomProgramme(1, 1000, 6, 4), highs, { gap: 1e-4, seconds: 20 });
    expect(gap).toBeLessThan(0.001);
  }, 240_000);
});

describe('small steps', () => {
  it('choices that another beats everywhere are left out', () => {
    const { kept } = withoutDominated({ limits: [{ resource: 'r', most: 9 }], groups: [{ name: 'a', choices: [
      { name: 'worse', loss: 2, usage: [3] }, { name: 'good', loss: 1, usage: [3] }, { name: 'same', loss: 1, usage: [3] }, { name: 'small', loss: 4, usage: [1] },
    ] }] });
    expect(kept).toEqual([[1, 3]]);
  });
  it('improving never breaks a limit and never raises the loss', () => {
    for (let seed = 0; seed < 20; seed++) {
      const programme = randomProgramme(seed, 12, 6, 2);
      const start = programme.groups.map(({ choices }) => choices.reduce((least, { usage }, c) => (usage[0] + usage[1] < choices[least].usage[0] + choices[least].usage[1] ? c : least), 0));
      if (!isFeasible(programme, start)) continue;
      const better = improved(programme, start);
      expect(isFeasible(programme, better)).toBe(true);
      expect(lossOf(programme, better)).toBeLessThanOrEqual(lossOf(programme, start));
    }
  });
});
