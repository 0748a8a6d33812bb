/**
 * Target `wasm`: one module with its memory inside, an ES module that loads it, and the types of both. In memory lie the constants,
 * then inputs and outputs, then the arena, each at an address known when the module is made.
 *
 * The variant `wasm:threads` takes its memory from outside, so that workers can share it; behind the arena every thread has scratch
 * memory of its own. Codes are the same with any number of threads.
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
import { simd128 } from '../schedules/target.ts';
import { wasmPrinter } from './print.ts';
import { declarationText, moduleText, type Addresses, type Sharing } from './runtime.ts';
import { addMeeting, addService, CONTROL_BYTES, workerText } from './threads.ts';

interface WasmBackend extends Backend {
  configure(setting: string): Backend;
  emit(program: Program, options: EmitOptions): Emission;
}
const wasmFor = (threaded: boolean): WasmBackend => ({
  name: 'wasm',
  summary: `WebAssembly with SIMD128${threaded ? ', for several threads,' : ''} and an ES module without dependencies`,
  configure: (setting) => {
    if (setting !== 'threads') throw new CompileError(errors.badCommandLine(`target "wasm" has no variant "${setting}"`, 'write --target wasm or --target wasm:threads'), 'usage');
    return wasmFor(true);
  },
  emit: (program: Program, options: EmitOptions): Emission => {
    const id = identifier(options.name);
    const ports = interfaceOf(program.graph);
    const lowered = lower(program, simd128);
    const { bytes, addresses, sharing } = moduleBytes(lowered, ports, threaded);
    const file = (path: string, content: Uint8Array | string): Artefact =>
      ({ path: `wasm/${path}`, bytes: typeof content === 'string' ? new TextEncoder().encode(content) : content });
    return {
      artefacts: [
        file(`${id}.wasm`, bytes), file(`${id}.mjs`, moduleText(id, ports, addresses, sharing)), file(`${id}.d.ts`, declarationText(id, ports, threaded)),
        ...(threaded ? [file(`${id}.worker.mjs`, workerText)] : []),
        // what TypeScript looks for beside an .mjs file
        file(`${id}.d.mts`, `export * from './${id}.js';\n`),
      ],
      arenaBytes: lowered.plan.arenaBytes, weightBytes: lowered.weightBytes,
    };
  },
  price: (program: Program): ProgramPrice => priceOf([lower(program, simd128)], (buffer) => buffer),
});
export const wasm = wasmFor(false);

const ALIGNMENT = 16;
const PAGE_BYTES = 65536;
/** More than steps of the networks this is for can keep busy. */
const MOST_THREADS = 64;
/** Scratch memories of two threads share no line of the cache. */
const OWN_ALIGNMENT = 64;
const alignUp = (bytes: number, alignment: number): number => Math.ceil(bytes / alignment) * alignment;

const moduleBytes = (
  { loops, placeOf, constants, plan, scratchBytes }: LoweredProgram, ports: ProgramInterface, threaded: boolean,
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
