/**
 * One suite over all targets: for every kernel op the reference meaning, the loop programs of both kinds of machine under the
 * interpreter, the C and the WebAssembly must give the same codes. All cases stand in one graph, so that one compilation serves them.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { deserialize, serialize } from 'node:v8';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { emitC, emitWasm, interfaceOf, lower, portableC, programOf, simd128, type Artefact, type ProgramInterface, type Target } from '../../src/backends/index.ts';
import { onlyMacro, variants, type Variant } from '../../src/backends/c/variants.ts';
import { runC, runWasm, type Codes, type Emulator } from '../../src/backends/run.ts';
import { avx2, avx512vnni, cortexM, neon, neonDot, portableBesideVectors, relaxedSimd } from '../../src/backends/schedules/target.ts';
import { wasm } from '../../src/backends/wasm/emit.ts';
import { relaxedFlags } from '../../src/backends/wasm/relaxed.ts';
import { Builder } from '../../src/ir/build.ts';
import { rangeOf, type IntegerDType } from '../../src/ir/dtype.ts';
import { sizeOf } from '../../src/ir/dim.ts';
import { evaluateGraph } from '../../src/ir/evaluate.ts';
import type { Graph, Output } from '../../src/ir/graph.ts';
import { kernelOps } from '../../src/ir/ops/kernels.ts';
import { bytesOf } from '../../src/loops/build.ts';
import { interpret } from '../../src/loops/interpret.ts';
import type { Buffer, Contents } from '../../src/loops/types.ts';
import { scan } from '../../src/wasm/index.ts';
import { cases, Dice, randomCases, randomCodes, sceneOf, type Case } from './kernel-cases.ts';
import { aarch64, cortexM4, missing } from '../loops/c-hosts.ts';
import { runsHere } from './runs-here.ts';

const graphOf = (list: readonly Case[], seed: number): Graph<'kernel'> => {
  const b = new Builder();
  const outputs: Output[] = list.map(({ name, build }, i) => ({ name: `${i} ${name}`, value: build(sceneOf(b, `${i} ${name}`, seed + i)) }));
  return b.finish('kernel', 'cases', outputs);
};

/** Random codes, all at the lowest, all at the highest, both by turns, and the middle. */
const samplesFor = (graph: Graph, seed: number): readonly Codes[] => {
  const dice = new Dice(seed);
  const fills: readonly ((low: number, high: number, i: number) => number)[] = [(low) => low, (_, high) => high, (low, high, i) => (i % 2 === 0 ? low : high), (low, high) => Math.floor((low + high + 1) / 2)];
  const sample = (make: (dtype: IntegerDType, length: number) => Codes[string]): Codes =>
    Object.fromEntries(graph.inputs.map(({ name, type }) => [name, make(type.dtype as IntegerDType, sizeOf(type.shape))]));
  return [
    sample((dtype, length) => randomCodes(dtype, length, dice)), sample((dtype, length) => randomCodes(dtype, length, dice)),
    ...fills.map((fill) => sample((dtype, length) => {
      const [low, high] = dtype === 'i64' ? [-100, 100] : rangeOf(dtype);
      const codes = randomCodes(dtype, length, dice);
      for (let i = 0; i < length; i++) codes[i] = dtype === 'i64' ? BigInt(fill(low, high, i)) : fill(low, high, i);
      return codes;
    })),
  ];
};

const referenceOf = (graph: Graph<'kernel'>, samples: readonly Codes[]): readonly Codes[] => samples.map((sample) => {
  const tensors = new Map(graph.inputs.map(({ name, type }) => [name, { type, data: sample[name] }]));
  return Object.fromEntries([...evaluateGraph(graph, tensors)].map(([name, { data }]) => [name, data]));
});

/** Runs the loop program of a target under the interpreter, all buffers laid out as planned. */
const interpreted = (graph: Graph<'kernel'>, target: Target, samples: readonly Codes[]): readonly Codes[] => {
  const { loops, placeOf, plan } = lower(programOf(graph), target);
  const ports = interfaceOf(graph);
  return samples.map((sample) => {
    const arena = new ArrayBuffer(plan.arenaBytes);
    const inputs = ports.inputs.map(({ name }) => sample[name].slice().buffer);
    const outputs = ports.outputs.map(({ bytes }) => new ArrayBuffer(bytes));
    const arrays = { i8: Int8Array, u8: Uint8Array, i16: Int16Array, u16: Uint16Array, i32: Int32Array, u32: Uint32Array, i64: BigInt64Array };
    const memory = new Map<Buffer, Contents>();
    for (const buffer of loops.buffers) {
      const place = placeOf(buffer);
      if (place === null) continue;
      const home = place.memory === 'arena' ? arena : place.memory === 'input' ? inputs[place.index] : outputs[place.index];
      expect(place.offset % bytesOf(buffer.e)).toBe(0);
      memory.set(buffer, new arrays[buffer.e](home as ArrayBuffer, place.offset, buffer.length));
    }
    interpret(loops, memory);
    const reference = referenceOf(graph, [sample])[0];
    return Object.fromEntries(ports.outputs.map(({ name, elements }, i) => [name, new (reference[name].constructor as typeof Int8Array)(outputs[i], 0, elements)]));
  });
};

const written = (artefacts: readonly Artefact[]): string => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-conformance-'));
  folders.push(folder);
  for (const { path, bytes } of artefacts) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), bytes);
  }
  return folder;
};
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/** The names of the outputs that differ, with the first difference: a list that reads well when it is not empty. */
const differences = (expected: readonly Codes[], found: readonly Codes[]): readonly string[] => {
  expect(found.length).toBe(expected.length);
  const lines: string[] = [];
  expected.forEach((sample, s) => {
    for (const [name, codes] of Object.entries(sample)) {
      const other = found[s][name];
      const at = codes.findIndex((code: number | bigint, i: number) => code !== other[i]);
      if (at >= 0) lines.push(`${name}: sample ${s}, element ${at}: ${codes[at]} but ${other[at]}`);
    }
  });
  return lines;
};

/** Where a variant can be made and run: here, or on an emulated machine. */
interface Way {
  readonly variant: Variant;
  readonly name: string;
  readonly emulator?: Emulator;
  readonly flags: readonly string[];
  /** what is missing here, or null */
  readonly lacks: string | null;
}
const folders: string[] = [];
const startFile = (text: string): string => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-start-'));
  folders.push(folder);
  writeFileSync(join(folder, 'start.c'), text);
  return join(folder, 'start.c');
};
const ways: readonly Way[] = variants.map((variant) => {
  const host = variant.family === '64-bit Arm' ? aarch64 : variant.family === 'Cortex-M' ? cortexM4 : null;
  if (host === null) return { variant, name: variant.name, flags: [], lacks: runsHere(variant.machine) ? null : 'a processor that has it' };
  const start = host.start === '' ? [] : [startFile(host.start)];
  return {
    variant, name: `${variant.name} in qemu`, emulator: { compiler: host.compiler, command: host.command.slice(0, -1) }, lacks: missing(host),
    flags: [...host.flags, ...start, ...variant.machine!.flags.filter((flag) => !host.flags.includes(flag))],
  };
});
const emittedC = async (graph: Graph<'kernel'>, ports: ProgramInterface, samples: readonly Codes[], { variant, flags, emulator }: Way): Promise<readonly Codes[]> =>
  runC(join(written(emitC(graph, { name: 'cases' }).artefacts), 'cpu'), 'cases', ports, samples,
    ['-O1', '-Wall', '-Wextra', '-Werror', '-Wno-psabi', ...flags, `-D${onlyMacro('cases', variant)}`], emulator);
const emittedWasm = async (graph: Graph<'kernel'>, samples: readonly Codes[]): Promise<readonly Codes[]> => {
  const run = await runWasm(join(written(emitWasm(graph, { name: 'cases' }).artefacts), 'wasm'), 'cases');
  return samples.map(run);
};

/** The variant with relaxed SIMD in a process whose engine has it, compiled as `flags` say. */
const emittedRelaxed = async (graph: Graph<'kernel'>, samples: readonly Codes[], flags: readonly string[]): Promise<readonly Codes[]> => {
  const home = join(written((await wasm.configure('relaxed').emit(programOf(graph), { name: 'cases' })).artefacts), 'wasm');
  writeFileSync(join(home, 'samples'), serialize(samples));
  writeFileSync(join(home, 'run.mjs'), `
    import { readFileSync, writeFileSync } from 'node:fs';
    import { deserialize, serialize } from 'node:v8';
    import { load, relaxed } from './cases.mjs';
    if (!relaxed) throw new Error('relaxed SIMD failed its test');
    const model = await load();
    writeFileSync(process.argv[2], serialize(deserialize(readFileSync(process.argv[3])).map((sample) => model.run(sample))));
  `);
  const { status, stderr } = spawnSync(process.execPath, [...relaxedFlags(), ...flags, join(home, 'run.mjs'), join(home, 'results'), join(home, 'samples')], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return deserialize(readFileSync(join(home, 'results'))) as readonly Codes[];
};

describe('every kernel op on every target', () => {
  const graph = graphOf(cases, 1);
  const samples = samplesFor(graph, 2);
  const reference = referenceOf(graph, samples);

  it('is in the list of cases', () => {
    expect(new Set(graph.nodes.map(({ op }) => op))).toEqual(new Set(kernelOps.map(({ name }) => name)));
  });
  it('fills the range of its results', () => {
    const narrow = graph.outputs.filter(({ name, value }) => {
      const codes = reference[0][name];
      return sizeOf(value.type.shape) > 20 && new Set(codes as Iterable<number>).size < Math.min(8, codes.length / 4);
    });
    expect(narrow.map(({ name }) => name)).toEqual([]);
  });
  it.each([portableC, portableBesideVectors, simd128, relaxedSimd, avx2, avx512vnni, neonDot, neon, cortexM])('loop program for $name under the interpreter', (target) => {
    const small = graphOf(cases.filter(({ large }) => large !== true), 3);
    const sample = samplesFor(small, 4).slice(0, 1);
    expect(differences(referenceOf(small, sample), interpreted(small, target, sample))).toEqual([]);
  }, 240_000);
  it('WebAssembly', async () => {
    expect(differences(reference, await emittedWasm(graph, samples))).toEqual([]);
  }, 240_000);
  it.each([['first', '--no-wasm-tier-up'], ['last', '--no-liftoff']])('WebAssembly with relaxed SIMD, compiled by the %s tier', async (_, flag) => {
    expect(differences(reference, await emittedRelaxed(graph, samples, [flag]))).toEqual([]);
  }, 240_000);
  it('WebAssembly with relaxed SIMD falls back to the plain module', async () => {
    const home = join(written((await wasm.configure('relaxed').emit(programOf(graph), { name: 'cases' })).artefacts), 'wasm');
    const { relaxed } = await import(pathToFileURL(join(home, 'cases.mjs')).href) as { relaxed: boolean };
    expect(relaxed).toBe(relaxedFlags().length === 0);
    const products = ['cases.wasm', 'cases.relaxed.wasm'].map((file) => scan(readFileSync(join(home, file))).counts.get('i16x8.relaxed_dot_i8x16_i7x16_s') ?? 0);
    expect(products[0]).toBe(0);
    expect(products[1]).toBeGreaterThan(100);
    const run = await runWasm(home, 'cases');
    expect(differences(reference, samples.map(run))).toEqual([]);
  }, 240_000);
  for (const way of ways) it.skipIf(way.lacks !== null)(`C for ${way.name}${way.lacks === null ? '' : ` (needs ${way.lacks})`}`, async () => {
    expect(differences(reference, await emittedC(graph, interfaceOf(graph), samples, way))).toEqual([]);
  }, 300_000);
});

describe('random shapes', () => {
  it('WebAssembly', async () => {
    await fc.assert(fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 30 }), async (seed) => {
      const graph = graphOf(randomCases(seed, 12), seed);
      const samples = samplesFor(graph, seed).slice(0, 2);
      expect(differences(referenceOf(graph, samples), await emittedWasm(graph, samples))).toEqual([]);
    }), { numRuns: 12 });
  });
  it('WebAssembly with relaxed SIMD', async () => {
    const seed = fc.sample(fc.integer({ min: 0, max: 2 ** 30 }), 1)[0];
    const graph = graphOf(randomCases(seed, 40), seed);
    const samples = samplesFor(graph, seed).slice(0, 2);
    expect(differences(referenceOf(graph, samples), await emittedRelaxed(graph, samples, [])), `seed ${seed}`).toEqual([]);
  }, 240_000);
  for (const way of ways) it.skipIf(way.lacks !== null)(`C for ${way.name}${way.lacks === null ? '' : ` (needs ${way.lacks})`}`, async () => {
    const seed = fc.sample(fc.integer({ min: 0, max: 2 ** 30 }), 1)[0];
    const graph = graphOf(randomCases(seed, 40), seed);
    const samples = samplesFor(graph, seed).slice(0, 2);
    expect(differences(referenceOf(graph, samples), await emittedC(graph, interfaceOf(graph), samples, way)), `seed ${seed}`).toEqual([]);
  }, 300_000);
});
