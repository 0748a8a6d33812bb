/**
 * Target `wasm`: one module with its memory inside, an ES module that loads it, and the types of both. In memory lie the constants,
 * then inputs and outputs, then the arena, each at an address known when the module is made.
 */
import { bytesOf } from '../../loops/build.ts';
import type { Buffer } from '../../loops/types.ts';
import { Module } from '../../wasm/index.ts';
import type { Artefact, Backend, Emission, EmitOptions, Program, ProgramPrice } from '../backend.ts';
import { identifier } from '../identifier.ts';
import { interfaceOf, type ProgramInterface } from '../interface.ts';
import { lower, type LoweredProgram } from '../lower.ts';
import { priceOf } from '../price.ts';
import { simd128 } from '../schedules/target.ts';
import { wasmPrinter } from './print.ts';
import { declarationText, moduleText, type Addresses } from './runtime.ts';

export const wasm = {
  name: 'wasm',
  summary: 'WebAssembly with SIMD128 and an ES module without dependencies',
  emit: (program: Program, options: EmitOptions): Emission => {
    const id = identifier(options.name);
    const ports = interfaceOf(program.graph);
    const lowered = lower(program, simd128);
    const { bytes, addresses } = moduleBytes(lowered, ports);
    const file = (path: string, content: Uint8Array | string): Artefact =>
      ({ path: `wasm/${path}`, bytes: typeof content === 'string' ? new TextEncoder().encode(content) : content });
    return {
      artefacts: [
        file(`${id}.wasm`, bytes), file(`${id}.mjs`, moduleText(id, ports, addresses)), file(`${id}.d.ts`, declarationText(id, ports)),
        // what TypeScript looks for beside an .mjs file
        file(`${id}.d.mts`, `export * from './${id}.js';\n`),
      ],
      arenaBytes: lowered.plan.arenaBytes, weightBytes: lowered.weightBytes,
    };
  },
  price: (program: Program): ProgramPrice => priceOf([lower(program, simd128)], (buffer) => buffer),
} as const satisfies Backend;

const ALIGNMENT = 16;
const PAGE_BYTES = 65536;
const alignUp = (address: number): number => Math.ceil(address / ALIGNMENT) * ALIGNMENT;

const moduleBytes = ({ loops, placeOf, constants, plan }: LoweredProgram, ports: ProgramInterface): { bytes: Uint8Array; addresses: Addresses } => {
  let end = 0;
  const reserve = (bytes: number): number => {
    const address = end;
    end = alignUp(end + bytes);
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
  module.memory({ initial: Math.max(1, Math.ceil(end / PAGE_BYTES)) });
  wasmPrinter(module, address).entry(loops);
  module.export('memory', 'memory');
  if (constantBytes.length > 0) module.data(0, constantBytes);
  return { bytes: module.encode(), addresses };
};
