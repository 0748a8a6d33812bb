/** A compiled program run by the simulator from its files alone. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CompileError } from '../../ir/diagnostic.ts';
import { allocate, isDType, storageBytes, type DType, type TypedArray } from '../../ir/dtype.ts';
import { errors } from '../../ir/errors.ts';
import type { Codes } from '../run.ts';
import { blobNames } from './blobs.ts';
import { decodeProgram } from './encode.ts';
import { Memories } from './execute.ts';
import type { MemoryFile } from './files.ts';
import type { Synchronised } from './isa.ts';
import { checkMachine, type Machine } from './machine.ts';
import { simulate, type Timeline } from './simulate.ts';

export interface Loaded {
  readonly machine: Machine;
  readonly memory: MemoryFile;
  readonly program: readonly Synchronised[];
  readonly blobs: readonly Uint8Array[];
}

export interface Ran {
  readonly outputs: Codes;
  readonly timeline: Timeline;
  /** the memory outside afterwards */
  readonly outside: Uint8Array;
}

/** Runs one sample. `after` is called when an instruction has taken effect. */
export const runProgram = ({ machine, memory, program, blobs }: Loaded, inputs: Codes, after?: (index: number, memories: Memories) => void): Ran => {
  const memories = new Memories(machine, memory.bytes);
  const outside = memories.of('outside');
  memory.blobs.forEach(({ address }, i) => outside.putBytes(address, blobs[i]));
  for (const { name, address, bytes } of memory.inputs) {
    const codes = inputs[name] as TypedArray | undefined;
    if (codes?.byteLength !== bytes) throw new CompileError(errors.badInput(name, `${codes?.byteLength ?? 'no'} bytes were given, the program takes ${bytes}`));
    outside.putBytes(address, new Uint8Array(codes.buffer, codes.byteOffset, codes.byteLength));
  }
  const timeline = simulate(program, machine, memories, after === undefined ? undefined : (index) => after(index, memories));
  const outputs = Object.fromEntries(memory.outputs.map(({ name, dtype, elements, address, bytes }) => {
    const codes = allocate(dtype as DType, elements);
    outside.checkWritten(address, address + bytes);
    new Uint8Array(codes.buffer).set(outside.bytes.subarray(address, address + bytes));
    return [name, codes];
  }));
  return { outputs, timeline, outside: outside.bytes };
};

/** Reads what a run needs from a folder, and checks that its parts fit together. */
export const loadProgram = (folder: string): Loaded => {
  const damaged = (file: string, why: string): never => { throw new CompileError(errors.damagedArtefact(join(folder, file), why)); };
  const bytesOf = (file: string): Uint8Array => (existsSync(join(folder, file)) ? readFileSync(join(folder, file)) : damaged(file, 'it is missing'));
  const jsonOf = (file: string): unknown => {
    try {
      return JSON.parse(new TextDecoder().decode(bytesOf(file)));
    } catch (cause) {
      return cause instanceof CompileError ? damaged(file, 'it is missing') : damaged(file, 'it is not JSON');
    }
  };
  const machine = checkMachine(jsonOf('target.json'), join(folder, 'target.json'));
  const memory = checkMemory(jsonOf('memory.json'), (why) => damaged('memory.json', why));
  const blobs = memory.blobs.map(({ file, bytes }) => {
    const found = bytesOf(file);
    return found.length === bytes ? found : damaged(file, `it has ${found.length} bytes, memory.json says ${bytes}`);
  });
  return { machine, memory, program: decodeProgram(bytesOf('program.bin')), blobs };
};

/** The greatest memory that the simulator makes. */
const MOST_BYTES = 2 ** 31;

/** What the machine itself must be able to trust: places that lie inside the memory and apart from each other. */
export const checkMemory = (given: unknown, fail: (why: string) => never): MemoryFile => {
  const memory = given as Partial<MemoryFile> | null;
  if (typeof memory !== 'object' || memory === null) return fail('it is no object');
  const { bytes, blobs, inputs, outputs } = memory;
  if (!Number.isInteger(bytes) || bytes! < 1 || bytes! > MOST_BYTES) return fail(`bytes must be a whole number from 1 to ${MOST_BYTES}`);
  if (!Array.isArray(blobs) || !Array.isArray(inputs) || !Array.isArray(outputs)) return fail('it needs the lists blobs, inputs and outputs');
  const isObject = (entry: unknown): boolean => typeof entry === 'object' && entry !== null;
  if (![...blobs, ...inputs, ...outputs].every(isObject)) return fail('the entries of blobs, inputs and outputs must be objects');
  const stranger = blobs.find(({ file }) => !(blobNames as readonly string[]).includes(String(file).replace(/\.bin$/, '')));
  if (stranger !== undefined) return fail(`there is no blob ${JSON.stringify(stranger.file)}; there are ${blobNames.map((name) => `${name}.bin`).join(', ')}`);
  const places = [...blobs.map((blob) => ({ ...blob, name: blob.file })), ...inputs, ...outputs] as readonly { readonly name: string; readonly address: number; readonly bytes: number }[];
  for (const { name, address, bytes: size } of places) {
    if (typeof name !== 'string' || !Number.isInteger(address) || !Number.isInteger(size) || address < 0 || size < 0 || address + size > bytes!) fail(`${String(name)} does not lie inside the memory`);
  }
  const sorted = places.filter(({ bytes: size }) => size > 0).sort((a, b) => a.address - b.address);
  sorted.forEach((place, i) => {
    const before = sorted[i - 1];
    if (before !== undefined && before.address + before.bytes > place.address) fail(`${before.name} and ${place.name} overlap`);
  });
  for (const { name, dtype, elements, bytes: size } of [...inputs, ...outputs]) {
    if (!Number.isInteger(elements) || typeof dtype !== 'string' || !isDType(dtype) || elements * storageBytes(dtype) !== size) fail(`${name} does not have the size that its elements need`);
  }
  return memory as MemoryFile;
};
