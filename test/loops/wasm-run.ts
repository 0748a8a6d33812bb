/** Runs loop programs as WebAssembly: places the buffers one after the other in a memory of the module's own. */
import { wasmPrinter } from '../../src/backends/wasm/print.ts';
import { bytesOf } from '../../src/loops/build.ts';
import { allocateContents } from '../../src/loops/interpret.ts';
import type { Buffer, Contents, Program } from '../../src/loops/types.ts';
import { engine, functionOf, instantiate, Module, type Memory } from '../../src/wasm/index.ts';

export interface Printed {
  readonly bytes: Uint8Array;
  readonly places: ReadonlyMap<Buffer, number>;
}
const ALIGN = 16;
export const printWasm = (program: Program, start = 16): Printed => {
  const places = new Map<Buffer, number>();
  let end = start;
  for (const b of program.buffers) {
    places.set(b, end);
    end += Math.ceil((b.length * bytesOf(b.e)) / ALIGN) * ALIGN;
  }
  const module = new Module();
  module.memory({ initial: Math.ceil(end / 65536) });
  module.export('memory', 'memory');
  wasmPrinter(module, (b) => places.get(b)!).entry(program);
  return { bytes: module.encode(), places };
};

export interface Loaded {
  readonly run: () => void;
  /** the contents of a buffer as they are now */
  of(b: Buffer): Contents;
}
export const loadWasm = (program: Program, memory: ReadonlyMap<Buffer, Contents>): Loaded => {
  const { bytes, places } = printWasm(program);
  if (!engine.validate(bytes)) instantiate(bytes);                     // throws with the reason
  const instance = instantiate(bytes);
  const raw = (instance.exports.memory as Memory).buffer;
  const viewOf = (b: Buffer): Contents => {
    const like = allocateContents(b.e, 0).constructor as new (buffer: ArrayBuffer, offset: number, length: number) => Contents;
    return new like(raw, places.get(b)!, b.length);
  };
  for (const b of program.buffers) {
    const data = memory.get(b) ?? b.data;
    if (data) viewOf(b).set(data as never);
  }
  return { run: functionOf(instance, program.name) as () => void, of: (b) => viewOf(b).slice() };
};
