/**
 * Target `wasm`: one module with its memory inside, an ES module that loads it, and the types of both. In memory lie the constants,
 * then inputs and outputs, then the arena, each at an address known when the module is made.
 *
 * The variant `wasm:threads` takes its memory from outside, so that workers can share it; behind the arena every thread has scratch
 * memory of its own. Codes are the same with any number of threads.
 *
 * The variant `wasm:relaxed` holds a second module, for engines with relaxed SIMD (relaxed.ts), beside the plain one for all others; one
 * ES module tells them apart and loads the one that its engine runs. Inputs and outputs lie at the same addresses in both. Codes are the same.
 */
import { bytesOf } from '../../loops/build.ts';
import type { Buffer } from '../../loops/types.ts';
import { Module } from '../../wasm/index.ts';
import type { Artefact, Backend, Emission, EmitOptions, Program, ProgramPrice } from '../backend.ts';
import { identifier } from '../identifier.ts';
import { interfaceOf, type ProgramInterface } from '../interface.ts';
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import { lower, type LoweredProgram } from '../lower.ts';
import { priceOf } from '../price.ts';
import { relaxedSimd, simd128 } from '../schedules/target.ts';
import { wasmPrinter } from './print.ts';
import { declarationText, moduleText, type Addresses, type Sharing } from './runtime.ts';
import { addMeeting, addService, CONTROL_BYTES, workerText } from './threads.ts';

interface WasmBackend extends Backend {
  configure(setting: string): Backend;
  emit(program: Program, options: EmitOptions): Emission;
}
type Variant = 'plain' | 'threads' | 'relaxed';
const notes: Readonly<Record<Variant, string>> = { plain: '', threads: ', for several threads,', relaxed: ', relaxed SIMD where the engine has it,' };
const wasmFor = (variant: Variant): WasmBackend => ({
  name: 'wasm',
  summary: `WebAssembly with SIMD128${notes[variant]} and an ES module without dependencies`,
  configure: (setting) => {
    if (setting !== 'threads' && setting !== 'relaxed') {
      throw new CompileError(errors.badCommandLine(`target "wasm" has no variant "${setting}"`, 'write --target wasm, --target wasm:threads or --target wasm:relaxed'), 'usage');
    }
    return wasmFor(setting);
  },
  emit: (program: Program, options: EmitOptions): Emission => {
    const id = identifier(options.name);
    const ports = interfaceOf(program.graph);
    const lowered = lower(program, simd128);
    const threaded = variant === 'threads';
    const faster = variant === 'relaxed' ? lower(program, relaxedSimd) : null;
    const portsAt = Math.max(constantBytesOf(lowered), faster === null ? 0 : constantBytesOf(faster));
    const { bytes, addresses, sharing } = moduleBytes(lowered, ports, threaded, portsAt);
    const file = (path: string, content: Uint8Array | string): Artefact =>
      ({ path: `wasm/${path}`, bytes: typeof content === 'string' ? new TextEncoder().encode(content) : content });
    return {
      artefacts: [
        file(`${id}.wasm`, bytes), file(`${id}.mjs`, moduleText(id, ports, addresses, sharing, faster !== null)), file(`${id}.d.ts`, declarationText(id, ports, threaded, faster !== null)),
        ...(faster === null ? [] : [file(`${id}.relaxed.wasm`, moduleBytes(faster, ports, false, portsAt).bytes)]),
        ...(threaded ? [file(`${id}.worker.mjs`, workerText)] : []),
        // what TypeScript looks for beside an .mjs file
        file(`${id}.d.mts`, `export * from './${id}.js';\n`),
      ],
      arenaBytes: Math.max(lowered.plan.arenaBytes, faster?.plan.arenaBytes ?? 0), weightBytes: Math.max(lowered.weightBytes, faster?.weightBytes ?? 0),
    };
  },
  price: (program: Program): ProgramPrice => {
    // one of two modules is loaded: the larger one is paid for
    const prices = (variant === 'relaxed' ? [simd128, relaxedSimd] : [simd128]).map((target) => priceOf([lower(program, target)], (buffer) => buffer));
    const most = (by: 'weightBytes' | 'arenaBytes'): ProgramPrice => prices.reduce((a, b) => (b[by] > a[by] ? b : a));
    const { arenaBytes, pieces } = most('arenaBytes');
    return { ...most('weightBytes'), arenaBytes, pieces };
  },
});
export const wasm = wasmFor('plain');

const ALIGNMENT = 16;
const PAGE_BYTES = 65536;
/** More than steps of the networks this is for can keep busy. */
const MOST_THREADS = 64;
/** Scratch memories of two threads share no line of the cache. */
const OWN_ALIGNMENT = 64;
const alignUp = (bytes: number, alignment: number): number => Math.ceil(bytes / alignment) * alignment;

/** Bytes up to the end of the constants. */
const constantBytesOf = ({ constants }: LoweredProgram): number => constants.reduce((end, { e, length }) => alignUp(end + length * bytesOf(e), ALIGNMENT), 0);

/** The module of a program whose inputs and outputs begin at `portsAt`. */
const moduleBytes = (
  { loops, placeOf, constants, plan, scratchBytes }: LoweredProgram, ports: ProgramInterface, threaded: boolean, portsAt: number,
): { readonly bytes: Uint8Array; readonly addresses: Addresses; readonly sharing: Sharing | null } => {
  let end = 0;
  const reserve = (bytes: number): number => {
    const address = end;
    end = alignUp(end + bytes, ALIGNMENT);
    return address;
  };
  const constantAt = new Map(constants.map((constant) => [constant, reserve(constant.length * bytesOf(constant.e))]));
  const constantBytes = new Uint8Array(end);
  for (const [{ data }, address] of constantAt) constantBytes.set(new Uint8Array(data!.buffer, data!.byteOffset, data!.byteLength), address);
  end = portsAt;
  const addresses = { inputs: ports.inputs.map(({ bytes }) => reserve(bytes)), outputs: ports.outputs.map(({ bytes }) => reserve(bytes)) };
  const arena = reserve(plan.arenaBytes);
  const address = (buffer: Buffer): number => {
    const place = placeOf(buffer);
    if (place === null) return constantAt.get(buffer)!;
    const base = place.memory === 'input' ? addresses.inputs[place.index] : place.memory === 'output' ? addresses.outputs[place.index] : arena;
    return base + place.offset;
  };
  const module = new Module();
  const control = alignUp(end, OWN_ALIGNMENT);
  const scratch = control + CONTROL_BYTES;
  const sharing: Sharing | null = threaded ? { bytes: scratch, own: alignUp(scratchBytes, OWN_ALIGNMENT), pageBytes: PAGE_BYTES, most: MOST_THREADS } : null;
  if (sharing === null) {
    module.memory({ initial: Math.max(1, Math.ceil(end / PAGE_BYTES)) });
    wasmPrinter(module, address).entry(loops);
    module.export('memory', 'memory');
  } else {
    const pages = (threads: number): number => Math.ceil((scratch + threads * sharing.own) / PAGE_BYTES);
    module.importMemory('lowbitc', 'memory', { initial: pages(1), maximum: pages(MOST_THREADS), shared: true });
    addService(module, control, wasmPrinter(module, address, true).sharedEntry(loops, addMeeting(module, control), (buffer) => placeOf(buffer)?.own ?? null, scratch, sharing.own));
  }
  if (constantBytes.length > 0) module.data(0, constantBytes);
  return { bytes: module.encode(), addresses, sharing };
};
