/**
 * Kernel graphs taken apart into their steps, each of which can be run alone: in C as functions of one file, in WebAssembly as exports
 * of one module. The code of a step is that of the artefact; what differs is that the calls do not follow each other by themselves.
 *
 * Several programs share one working memory, since one runs at a time. Constants and made-up inputs lie in a block of data.
 */
import type { Graph } from '../ir/graph.ts';
import { programOf } from '../backends/backend.ts';
import { machineFile } from '../backends/c/machines.ts';
import { cPrinter, ctypeOf } from '../backends/c/print.ts';
import type { Variant } from '../backends/c/variants.ts';
import { interfaceOf } from '../backends/interface.ts';
import { lower, type LoweredProgram } from '../backends/lower.ts';
import { simd128, type Target } from '../backends/schedules/target.ts';
import { wasmPrinter } from '../backends/wasm/print.ts';
import type { Buffer as Memory } from '../loops/types.ts';
import { Module } from '../wasm/index.ts';
import { CACHE_LINE, driverText } from './c-driver.ts';
import { madeUpCodes } from './inputs.ts';

/** Programs side by side: each step of each is an item, in order. */
interface Placed {
  readonly programs: readonly LoweredProgram[];
  /** where a buffer stands: in the data, or in the working memory */
  readonly placeOf: (buffer: Memory) => { readonly memory: 'data' | 'work'; readonly offset: number };
  readonly data: Uint8Array;
  readonly workBytes: number;
}

const roundUp = (bytes: number): number => Math.ceil(bytes / CACHE_LINE) * CACHE_LINE;

const place = (programs: readonly { readonly graph: Graph<'kernel'>; readonly lowered: LoweredProgram }[]): Placed => {
  const places = new Map<Memory, ReturnType<Placed['placeOf']>>();
  const pieces: { readonly offset: number; readonly bytes: Uint8Array }[] = [];
  let dataBytes = 0;
  let workBytes = 0;
  const store = ({ buffer, byteOffset, byteLength }: ArrayBufferView): number => {
    const offset = dataBytes;
    pieces.push({ offset, bytes: new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength) });
    dataBytes = roundUp(offset + byteLength);
    return offset;
  };
  for (const { graph, lowered } of programs) {
    const ports = interfaceOf(graph);
    const inputs = ports.inputs.map((port) => store(madeUpCodes(port)));
    let end = roundUp(lowered.plan.arenaBytes);
    const outputs = ports.outputs.map(({ bytes }) => {
      const offset = end;
      end = roundUp(end + bytes);
      return offset;
    });
    workBytes = Math.max(workBytes, end);
    for (const constant of lowered.constants) places.set(constant, { memory: 'data', offset: store(constant.data!) });
    for (const buffer of lowered.loops.buffers) {
      const at = lowered.placeOf(buffer);
      if (at === null) continue;
      places.set(buffer, at.memory === 'input' ? { memory: 'data', offset: inputs[at.index] + at.offset }
        : { memory: 'work', offset: (at.memory === 'output' ? outputs[at.index] : 0) + at.offset });
    }
  }
  const data = new Uint8Array(dataBytes);
  for (const { offset, bytes } of pieces) data.set(bytes, offset);
  return { programs: programs.map(({ lowered }) => lowered), placeOf: (buffer) => places.get(buffer)!, data, workBytes };
};

const lowered = (graphs: readonly Graph<'kernel'>[], target: Target): Parameters<typeof place>[0] =>
  graphs.map((graph) => ({ graph, lowered: lower(programOf(graph), target) }));

export interface CItems {
  readonly source: string;
  readonly data: Uint8Array;
  readonly count: number;
}

export const cItems = (graphs: readonly Graph<'kernel'>[], { schedule, printer: target, machine }: Variant): CItems => {
  const { programs, placeOf, data, workBytes } = place(lowered(graphs, schedule));
  const printer = cPrinter(target, 'k_');
  const pointer = (buffer: Memory): string => {
    const { memory, offset } = placeOf(buffer);
    return `(${ctypeOf(buffer.e)} *)(${memory === 'data' ? 'lb_data' : 'lb_work'} + ${offset})`;
  };
  const bodies = programs.flatMap(({ loops }) => loops.body.map((step) => printer.body({ ...loops, body: [step] }, pointer)));
  const functions = bodies.map((body, i) => `static void item_${i}(void)\n{\n${body}\n}`);
  const text = [printer.declarations(), '', `static uint8_t lb_work[${workBytes + 1}] LB_ALIGNED;`, '', ...functions].join('\n');
  return {
    source: driverText({
      definitions: machine === null ? text : machineFile(machine, text),
      items: bodies.map((_, i) => `item_${i}`), dataBytes: data.length, timesStart: false,
    }),
    data, count: bodies.length,
  };
};

export interface WasmItems {
  readonly bytes: Uint8Array;
  readonly exports: readonly string[];
}
const PAGE_BYTES = 65536;

export const wasmItems = (graphs: readonly Graph<'kernel'>[], target: Target = simd128): WasmItems => {
  const { module, exports, data } = wasmCode(graphs, target);
  module.data(0, data);
  return { bytes: module.encode(), exports };
};
const wasmCode = (graphs: readonly Graph<'kernel'>[], target: Target): { readonly module: Module; readonly exports: readonly string[]; readonly data: Uint8Array } => {
  const { programs, placeOf, data, workBytes } = place(lowered(graphs, target));
  const module = new Module();
  module.memory({ initial: Math.max(1, Math.ceil((data.length + workBytes) / PAGE_BYTES)) });
  const printer = wasmPrinter(module, (buffer) => {
    const { memory, offset } = placeOf(buffer);
    return memory === 'data' ? offset : data.length + offset;
  });
  const exports = programs.flatMap(({ loops }) => loops.body.map((step) => ({ loops, step }))).map(({ loops, step }, i) => {
    const name = `item_${i}`;
    printer.entry({ ...loops, name, body: [step] });
    return name;
  });
  return { module, exports, data };
};

/**
 * The code of a program without its data: programs of equal code take equal time. Widths that a target stores and computes alike
 * have equal code.
 */
export const codeOf = (graph: Graph<'kernel'>, target: Variant | 'wasm'): string =>
  target === 'wasm' ? Buffer.from(wasmCode([graph], simd128).module.encode()).toString('base64') : cItems([graph], target).source;
