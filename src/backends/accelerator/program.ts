/** Kernel graph → instructions, constants and the map of the memory outside. */
import { isConstant, isNode, type Value } from '../../ir/graph.ts';
import { sizeOf, staticShape } from '../../ir/dim.ts';
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import type { Program } from '../backend.ts';
import { noSite } from '../../ir/op.ts';
import { groupSteps } from '../group.ts';
import { interfaceOf } from '../interface.ts';
import { alignUp, Blob, blobNames, type BlobName } from './blobs.ts';
import type { MemoryFile, PlacedTensor } from './files.ts';
import { planHomes } from './homes.ts';
import { bytesFor, instruction, type Instruction, type Synchronised } from './isa.ts';
import type { Machine } from './machine.ts';
import { bytesIn } from './steps/finish.ts';
import { steps as arms } from './steps/index.ts';
import { copyStep } from './steps/moves.ts';
import { NoRoom, type Home, type Placed, type Stream } from './stream.ts';
import { synchronise } from './synchronise.ts';

export interface Compiled {
  readonly program: readonly Synchronised[];
  /** the step of each instruction; the number of steps for copies of outputs and END */
  readonly stepOf: readonly number[];
  readonly blobs: Readonly<Record<BlobName, Uint8Array>>;
  readonly memory: MemoryFile;
  /** bytes that each step adds to the blobs, and last those of copies of outputs */
  readonly constantBytes: readonly number[];
  readonly arenaBytes: number;
}

/** While a program is made, an address in blob i is (i + 1)·BLOB + offset: where the blobs stand is known only in the end. */
const BLOB = 2 ** 40;
/** Addresses outside have 32 bits. */
const MOST_BYTES = 2 ** 32;

/** The program of a graph as this machine runs it: its convolutions read all images channels last. */
export const channelsLast = (graph: Program['graph']): Program => ({ graph, ...groupSteps(graph, { planes: false }) });

/** Values lose their homes on chip, the largest first, until the tiles of every step have room. Takes what `channelsLast` makes. */
export const compileProgram = (program: Program, machine: Machine): Compiled => {
  const inPlanes = program.steps.find(({ planes }) => planes);
  if (inPlanes !== undefined) throw new Error(`${inPlanes.output.name}: its image stands in planes, which this machine does not read`);
  const refused = new Set<Value>();
  for (;;) {
    const homes = planHomes(program, machine, refused);
    const stream = { step: 0 };
    try {
      return assembleProgram(program, machine, homes, stream);
    } catch (cause) {
      if (!(cause instanceof NoRoom) || cause.memory !== 'ABUF') throw cause;
      const { operands = [], output } = program.steps[stream.step] ?? {};
      const own = new Set([...operands, ...(output === undefined ? [] : [output])].map((value) => program.viewOf(value).base));
      const here = [...homes.onChipAt(stream.step)].sort((a, b) => Number(own.has(a.base)) - Number(own.has(b.base)) || b.bytes - a.bytes);
      if (here.length === 0) throw cause;
      refused.add(here[0].base);
    }
  }
};

const assembleProgram = ({ graph, steps, viewOf }: Program, machine: Machine, homes: ReturnType<typeof planHomes>, progress: { step: number }): Compiled => {
  const ports = interfaceOf(graph);
  let end = 0;
  const reserve = (bytes: number): number => {
    const address = end;
    end = alignUp(end + bytes);
    return address;
  };
  const inputs = ports.inputs.map(({ bytes }) => reserve(bytes));
  const outputs = ports.outputs.map(({ bytes }) => reserve(bytes));
  const arena = reserve(homes.arenaBytes);
  const blobs: Record<BlobName, Blob> = { weights: new Blob(), params: new Blob(), luts: new Blob() };
  const constantBytes = [...steps, null].map(() => 0);
  const put = (blob: BlobName, bytes: Uint8Array): number => {
    const before = blobs[blob].size;
    const offset = blobs[blob].put(bytes);
    constantBytes[stream.step] += blobs[blob].size - before;
    return (blobNames.indexOf(blob) + 1) * BLOB + offset;
  };
  const homeOf = (value: Value): Home => {
    const home = homes.homeOf(value);
    if (home === null) {
      const { base, offset } = viewOf(value);
      return { memory: 'outside', address: put('weights', bytesIn(base)) + offset };
    }
    if (home.memory === 'ABUF') return home;
    const from = home.memory === 'input' ? inputs[home.index] : home.memory === 'output' ? outputs[home.index] : arena;
    return { memory: 'outside', address: from + home.address };
  };
  const { elementOf, activationBits, freeAt } = homes;
  const stream: Stream = { machine, placed: [], step: 0, homeOf, elementOf, activationBits, freeAt, put, next: { ABUF: 0, WBUF: 0, PBUF: 0, OBUF: 0 } };
  steps.forEach((step, i) => {
    progress.step = stream.step = i;
    arms[step.root.op as keyof typeof arms](stream, step);
  });
  progress.step = stream.step = steps.length;
  for (const { from, output } of homes.copies) copyStep(stream, from, { memory: 'outside', address: outputs[output] }, { output: from, site: isNode(from.def) ? from.def.site : noSite });
  const bytes = Object.fromEntries(blobNames.map((name) => [name, blobs[name].bytes()])) as Record<BlobName, Uint8Array>;
  const bases = blobNames.map((name) => reserve(bytes[name].length));
  if (end > MOST_BYTES) throw new CompileError(errors.badMachine(machine.name, `the program needs ${end} bytes of memory outside, and addresses have 32 bits`), 'unsupported');
  const placed: readonly Placed[] = [...stream.placed.map(({ instruction: one, step }) => ({ instruction: relocated(one, bases), step })), { instruction: instruction('END', {}), step: steps.length }];
  const port = (list: typeof ports.inputs, addresses: readonly number[]): MemoryFile['inputs'] =>
    list.map(({ name, dtype, shape, elements, bytes: size, scale, zero }, i) => ({ name, dtype, shape, elements, bytes: size, scale, zero, address: addresses[i] }));
  // a value lives as long as its views
  const life = new Map<Value, [first: number, last: number]>();
  const named = new Set<Value>();
  steps.forEach(({ operands, output }, i) => [...operands, output].forEach((value) => {
    named.add(value);
    const { base } = viewOf(value);
    const known = life.get(base);
    if (known === undefined) life.set(base, [i, i]); else known[1] = i;
  }));
  const tensors = [...named].filter((value) => !isConstant(viewOf(value).base)).map((value): PlacedTensor => {
    const [first, last] = life.get(viewOf(value).base)!;
    return { name: value.name, dtype: value.type.dtype, shape: staticShape(value.type.shape), element: elementOf(value), ...homeOf(value), bytes: bytesFor(elementOf(value), sizeOf(value.type.shape)), first, last };
  });
  return {
    program: synchronise(placed.map(({ instruction: one }) => one)), stepOf: placed.map(({ step }) => step), blobs: bytes, constantBytes, arenaBytes: homes.arenaBytes,
    memory: {
      bytes: end, blobs: blobNames.map((name, i) => ({ file: `${name}.bin`, address: bases[i], bytes: bytes[name].length })),
      inputs: port(ports.inputs, inputs), outputs: port(ports.outputs, outputs), tensors,
    },
  };
};

const relocated = (one: Instruction, bases: readonly number[]): Instruction => {
  if (one.op !== 'LD' && one.op !== 'ST' && one.op !== 'GATHER') return one;
  const blob = Math.floor(one.fields.far / BLOB);
  return blob === 0 ? one : { ...one, fields: { ...one.fields, far: bases[blob - 1] + (one.fields.far % BLOB) } } as Instruction;
};
