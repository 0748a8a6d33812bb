/** The Verilog core under iverilog and verilator: outputs bit for bit, cycles as the model counts them, broken programs stop with an error code. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { blobNames } from '../../../src/backends/accelerator/blobs.ts';
import { crc32, encodeProgram } from '../../../src/backends/accelerator/encode.ts';
import { opNames, type Synchronised } from '../../../src/backends/accelerator/isa.ts';
import { presets } from '../../../src/backends/accelerator/presets.ts';
import { channelsLast, compileProgram, type Compiled } from '../../../src/backends/accelerator/program.ts';
import { coreErrors, coreObstacle, coreOps, coreText, missingFrom } from '../../../src/backends/accelerator/rtl/index.ts';
import { runProgram } from '../../../src/backends/accelerator/run.ts';
import { simulate } from '../../../src/backends/accelerator/simulate.ts';
import type { Codes } from '../../../src/backends/run.ts';
import { codesAt, openSamples } from '../../../src/calibration/samples.ts';
import { compile, type CompileOptions } from '../../../src/compile.ts';
import { Builder } from '../../../src/ir/build.ts';
import { sizeOf } from '../../../src/ir/dim.ts';
import type { IntegerDType } from '../../../src/ir/dtype.ts';
import type { Graph } from '../../../src/ir/graph.ts';
import { cases, Dice, linearCase, randomCodes, sceneOf, type Case } from '../kernel-cases.ts';
import { benchOf, compileCore, elaborates, has, lints, type Bench, type CompiledCore } from './verilog.ts';

const [tiny] = presets;
const folders: string[] = [];
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));
const blobsOf = ({ blobs }: Compiled): readonly Uint8Array[] => blobNames.map((name) => blobs[name]);
const benchFor = (compiled: Compiled): Bench => {
  const bench = benchOf(tiny, compiled.memory, encodeProgram(compiled.program), blobsOf(compiled));
  folders.push(bench.folder);
  return bench;
};
const graphOf = (list: readonly Case[]): Graph<'kernel'> => {
  const b = new Builder();
  return b.finish('kernel', 'cases', list.map(({ name, build }, i) => ({ name: `${i} ${name}`, value: build(sceneOf(b, `${i} ${name}`, 1 + i)) })));
};
const compiledFrom = (graph: Graph<'kernel'>): Compiled => compileProgram(channelsLast(graph), tiny);

/** The core and the simulator on random codes: equal outputs, cycles within 2 % (and the few that the first instruction takes to arrive). */
const expectEqual = (graph: Graph<'kernel'>): void => {
  const compiled = compiledFrom(graph);
  expect(missingFrom(compiled.program)).toEqual([]);
  const inputs: Codes = Object.fromEntries(graph.inputs.map(({ name, type }) => [name, randomCodes(type.dtype as IntegerDType, sizeOf(type.shape), new Dice(7))]));
  const { outputs, timeline } = runProgram({ machine: tiny, memory: compiled.memory, program: compiled.program, blobs: blobsOf(compiled) }, inputs);
  const ran = benchFor(compiled).run(undefined, inputs, 2 * timeline.cycles + 1000);
  expect(ran.error).toBe('NONE');
  compiled.memory.outputs.forEach(({ name }, i) => expect(ran.outputs[i], name).toEqual(new Uint8Array(outputs[name].buffer)));
  expect(Math.abs(ran.cycles - timeline.cycles)).toBeLessThan(0.02 * timeline.cycles + 10);
};

/** Cases that the core can run, few cycles each, spread over the ops. */
const chosen = (most: number, each: number): readonly Case[] => {
  const seen = new Map<string, number>();
  return cases.filter((one) => {
    const kind = one.name.split(' ')[0];
    if (one.large || (seen.get(kind) ?? 0) >= each) return false;
    try {
      const { program } = compiledFrom(graphOf([one]));
      if (missingFrom(program).length > 0 || simulate(program, tiny, null).cycles > most) return false;
    } catch {
      return false;
    }
    seen.set(kind, (seen.get(kind) ?? 0) + 1);
    return true;
  });
};
const kernelOf = async (model: string, options: Omit<CompileOptions, 'targets'>): Promise<Graph<'kernel'>> => (await compile(readFileSync(model), { ...options, targets: [], threads: 1 })).graph as Graph<'kernel'>;
const file = (name: string): string => fileURLToPath(new URL(`../../../examples/${name}`, import.meta.url));
const shared = (name: string): string => fileURLToPath(new URL(`../../../../shared/models/${name}/`, import.meta.url));

it('docs/rtl.md names the errors and the missing instructions', () => {
  const page = readFileSync(fileURLToPath(new URL('../../../docs/rtl.md', import.meta.url)), 'utf8');
  coreErrors.forEach(([name, meaning], code) => expect(page).toContain(`| ${code} | ${name} | ${meaning} |`));
  opNames.filter((op) => !(coreOps as readonly string[]).includes(op)).forEach((op) => expect(page.split('It does not have')[1].split('\n')[0]).toContain(op));
});
it('the core depends on the machine alone, and every preset has one', () => {
  for (const preset of presets) {
    expect(coreObstacle(preset)).toBeNull();
    expect(coreText(preset)).toBe(coreText(JSON.parse(JSON.stringify(preset))));
  }
  expect(coreObstacle({ ...tiny, array: { ...tiny.array, fill: 1 } })).toContain('array.fill');
});

it.skipIf(!has('iverilog'))('the cores of all presets elaborate (iverilog)', () => presets.forEach((preset) => expect(elaborates(preset)).toBe('')), 600_000);
it.skipIf(!has('verilator'))('a linter has nothing to say (verilator)', () => { expect(lints(tiny)).toBe(''); }, 600_000);

describe.skipIf(!has('iverilog'))('the Verilog core (iverilog)', () => {
  it('kernel ops of every kind it has', () => {
    const list = chosen(400, 3);
    expect(list.length).toBeGreaterThan(15);
    expectEqual(graphOf(list));
  }, 600_000);

  it('the first layers of glyph-cnn at w4a8', async () => {
    expectEqual(await kernelOf(file('models/glyph-cnn.onnx'), {
      name: 'glyph', bits: 'w4a8', cutAt: '/stem/stem.1/BatchNormalization_output_0', normalization: { mean: [127.5], std: [127.5], dtype: 'u8' },
      openSamples: (inputs) => openSamples(file('data/calib.npy'), inputs, { count: 4 }),
    }));
  }, 600_000);

  it('stops broken programs with an error code', () => {
    const compiled = compiledFrom(graphOf(cases.filter(({ name }) => name === 'linear [5]x17x11 i8 i8 one')));
    const bench = benchFor(compiled);
    const errorOf = (program: Uint8Array): string => bench.run(program, {}, 5000).error;
    const sealed = (bytes: Uint8Array): Uint8Array => {
      new DataView(bytes.buffer).setUint32(8, crc32(bytes.subarray(16)), true);
      return bytes;
    };
    const plain = encodeProgram(compiled.program);
    const flipped = (bit: number): Uint8Array => plain.map((byte, i) => (i === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte));
    const edited = (op: string, change: object): Uint8Array => {
      const at = compiled.program.findIndex((one) => one.op === op);
      return encodeProgram(compiled.program.map((one, i) => (i === at ? { ...one, ...('wait' in change || 'signal' in change ? change : { fields: { ...one.fields, ...change } }) } as Synchronised : one)));
    };
    expect(errorOf(plain)).toBe('NONE');
    expect(errorOf(flipped(0))).toBe('HEADER');
    expect(errorOf(flipped(8 * 8))).toBe('CHECKSUM');
    // the opcode of the first instruction
    expect(errorOf(sealed(flipped(8 * 16 + 5)))).toBe('OPCODE');
    expect(errorOf(edited('LD', { far: 2 ** 31 }))).toBe('OUTSIDE');
    expect(errorOf(edited('LD', { chip: 2 ** 23 }))).toBe('CHIP');
    expect(errorOf(edited('MM', { w: 2 ** 23 }))).toBe('CHIP');
    expect(errorOf(edited('RQ', { z: 2 ** 23 }))).toBe('CHIP');
    expect(errorOf(edited('RQ', { shift: 3 }))).toBe('SHIFT');
    expect(errorOf(edited('MM', { o: 2 }))).toBe('MISALIGNED');
    expect(errorOf(edited('MM', { outputs: 0 }))).toBe('FIELD');
    expect(errorOf(edited('MM', { wBits: '16' }))).toBe('UNSUPPORTED');
    expect(errorOf(edited('MM', { wait: 15 }))).toBe('DEADLOCK');
    expect(errorOf(edited('END', { signal: 1 }))).toBe('SEMAPHORE');
  }, 600_000);
});

/** Whole networks need a compiled simulator: three hundred thousand cycles are minutes of an interpreter. */
describe.skipIf(!has('verilator') || !has('make') || !has('g++'))('whole networks on the Verilog core (verilator)', () => {
  let core: CompiledCore;
  beforeAll(() => { core = compileCore(tiny); }, 600_000);
  afterAll(() => core.remove());
  const expectWhole = (graph: Graph<'kernel'>, inputs: Codes): void => {
    const compiled = compiledFrom(graph);
    const { memory, program } = compiled;
    expect(missingFrom(program)).toEqual([]);
    const { outside, timeline } = runProgram({ machine: tiny, memory, program, blobs: blobsOf(compiled) }, inputs);
    const ran = core.run(memory, encodeProgram(program), blobsOf(compiled), inputs, 2 * timeline.cycles + 1000);
    expect(ran.error).toBe('NONE');
    for (const { name, address, bytes } of memory.outputs) expect(ran.outside.subarray(address, address + bytes), name).toEqual(outside.subarray(address, address + bytes));
    expect(Math.abs(ran.cycles - timeline.cycles)).toBeLessThan(0.02 * timeline.cycles + 10);
  };
  const firstSample = (graph: Graph<'kernel'>, data: string, raw: boolean): Codes =>
    Object.fromEntries(Object.entries(codesAt(openSamples(data, graph.inputs, { count: 1 }), 0, graph.inputs, () => raw)).map(([name, { data: codes }]) => [name, codes]));

  it('kernel ops of every kind it has, larger ones too, and a sum in pieces', () => {
    const graph = graphOf([...chosen(6000, 6), linearCase([1], 40_001, 3, 'i8', 'i8', 'one')]);
    expect(compiledFrom(graph).program.some((one) => one.op === 'MM' && one.fields.accumulate === 1)).toBe(true);
    expectWhole(graph, Object.fromEntries(graph.inputs.map(({ name, type }) => [name, randomCodes(type.dtype as IntegerDType, sizeOf(type.shape), new Dice(9))])));
  }, 600_000);

  const glyphs = file('data/calib.npy');
  it.each([['glyph-vit', 'w8a8'], ['glyph-cnn', 'w4a4']])('%s at %s', async (name, bits) => {
    const graph = await kernelOf(file(`models/${name}.onnx`), { name, bits, normalization: { mean: [127.5], std: [127.5], dtype: 'u8' }, openSamples: (inputs) => openSamples(glyphs, inputs, { count: 4 }) });
    expectWhole(graph, firstSample(graph, glyphs, true));
  }, 600_000);

  for (const name of ['mlperf-tiny-kws', 'mlperf-tiny-ic']) it.skipIf(!existsSync(shared(name)))(`${name} at w8a8 (from ../shared)`, async () => {
    const data = `${shared(name)}calib.npy`;
    const graph = await kernelOf(`${shared(name)}model.onnx`, { name, openSamples: (inputs) => openSamples(data, inputs, { count: 4 }) });
    expectWhole(graph, firstSample(graph, data, false));
  }, 600_000);
});
