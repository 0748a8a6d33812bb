/** Every kernel op, compiled for each preset and run by the simulator from the emitted files, against the reference meaning. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { acceleratorFor } from '../../../src/backends/accelerator/emit.ts';
import { compileProgram } from '../../../src/backends/accelerator/program.ts';
import { presets } from '../../../src/backends/accelerator/presets.ts';
import { loadProgram, runProgram } from '../../../src/backends/accelerator/run.ts';
import { programOf, type Emission } from '../../../src/backends/index.ts';
import type { Machine } from '../../../src/backends/accelerator/machine.ts';
import type { Codes } from '../../../src/backends/run.ts';
import { Builder } from '../../../src/ir/build.ts';
import { sizeOf } from '../../../src/ir/dim.ts';
import { rangeOf, type IntegerDType } from '../../../src/ir/dtype.ts';
import { evaluateGraph } from '../../../src/ir/evaluate.ts';
import type { Graph } from '../../../src/ir/graph.ts';
import { cases, convCase, Dice, inWords, linearCase, randomCases, randomCodes, sceneOf, type Case } from '../kernel-cases.ts';

const graphOf = (list: readonly Case[], seed: number): Graph<'kernel'> => {
  const b = new Builder();
  return b.finish('kernel', 'cases', list.filter((one) => !inWords(one)).map(({ name, build }, i) => ({ name: `${i} ${name}`, value: build(sceneOf(b, `${i} ${name}`, seed + i)) })));
};

const folders: string[] = [];
const written = ({ artefacts }: Emission): string => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-accelerator-'));
  folders.push(folder);
  for (const { path, bytes } of artefacts) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), bytes);
  }
  return join(folder, 'accel');
};
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

const samplesFor = (graph: Graph, seed: number): readonly Codes[] => {
  const dice = new Dice(seed);
  const sample = (code: (low: number, high: number) => number | null): Codes => Object.fromEntries(graph.inputs.map(({ name, type }) => {
    const dtype = type.dtype as IntegerDType;
    const codes = randomCodes(dtype, sizeOf(type.shape), dice);
    const fixed = dtype === 'i64' ? null : code(...rangeOf(dtype));
    return [name, fixed === null ? codes : codes.fill(fixed as never)];
  }));
  return [sample(() => null), sample((low) => low), sample((_, high) => high)];
};

const differences = async (graph: Graph<'kernel'>, machine: Machine, samples: readonly Codes[]): Promise<readonly string[]> => {
  const loaded = loadProgram(written(await acceleratorFor(machine).emit(programOf(graph), { name: 'cases' })));
  return samples.flatMap((sample) => {
    const expected = evaluateGraph(graph, new Map(graph.inputs.map(({ name, type }) => [name, { type, data: sample[name] }])));
    const { outputs } = runProgram(loaded, sample);
    return [...expected].flatMap(([name, { data }]) => {
      const at = data.findIndex((code: number | bigint, i: number) => code !== outputs[name][i]);
      return at < 0 ? [] : [`${name}: element ${at}: ${data[at]} but ${outputs[name][at]}`];
    });
  });
};

describe('every kernel op on the simulated accelerator', () => {
  const graph = graphOf(cases, 1);
  const samples = samplesFor(graph, 2);
  it.each(presets)('$name', async (machine) => {
    expect(await differences(graph, machine, samples)).toEqual([]);
  }, 240_000);
  it('a machine whose array has one mode: other products go to the vector engine, and a single bank and lane suffice', async () => {
    const [, mid] = presets;
    const bare: Machine = { ...mid, name: 'bare', lanes: [{ weightBits: 4, activationBits: 8, perCycle: 3 }], array: { rows: 3, columns: 5, fill: 0 }, dma: { bytesPerCycle: 3, latency: 0 }, vector: { lanes: 1, start: 0 } };
    expect(await differences(graph, bare, samples.slice(0, 1))).toEqual([]);
    const loaded = loadProgram(written(await acceleratorFor(bare).emit(programOf(graph), { name: 'cases' })));
    expect(new Set(loaded.program.map(({ op }) => op))).toContain('MMV');
  }, 240_000);
  const [tiny] = presets;
  const small: Machine = { ...tiny, name: 'small', memories: { ABUF: 4096, WBUF: 4096, PBUF: 8192, OBUF: 2048 } };
  it('sums too deep for the memories are added up in pieces', async () => {
    const deep = graphOf([
      linearCase([3], 9001, 5, 'i8', 'i8', 'one'), linearCase([2], 20003, 3, 'i8', 'i2', 'table'), linearCase([1], 5000, 3, 'i16', 'i4', 'none'),
      convCase({ size: [4, 5], kernel: [3, 3], inputs: 304, outputs: 3, pads: [1, 1, 1, 1], weight: 'i8' }, 'residual'), convCase({ size: [3, 3], kernel: [3, 2], inputs: 1004, outputs: 6, group: 2, weight: 'i4' }, 'one'),
    ], 3);
    expect(await differences(deep, small, samplesFor(deep, 4))).toEqual([]);
    expect(compileProgram(programOf(deep), small).program.filter((one) => one.op === 'MM' && one.fields.accumulate === 1).length).toBeGreaterThan(20);
  }, 240_000);
  it('random shapes on a machine with little room', async () => {
    await fc.assert(fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 30 }), async (seed) => {
      const drawn = graphOf(randomCases(seed, 12), seed);
      expect(await differences(drawn, small, samplesFor(drawn, seed).slice(0, 1))).toEqual([]);
    }), { numRuns: 12 });
  }, 240_000);
});
