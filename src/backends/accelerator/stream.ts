/**
 * A program under construction: instructions in an order in which they could run one by one, and the places on chip that a step uses.
 * What may run at the same time is found later (`synchronise.ts`), so steps only choose places, two by turns where they can.
 */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import type { Value } from '../../ir/graph.ts';
import type { Site } from '../../ir/op.ts';
import type { Memory } from './accesses.ts';
import { alignUp, type BlobName } from './blobs.ts';
import { cyclesOf } from './cycles.ts';
import { elementBits, instruction, type ChipMemory, type Element, type FieldsOf, type Instruction, type OpName } from './isa.ts';
import type { Machine } from './machine.ts';

/** For whom an instruction is: what a message names. A node is one. */
export interface Owner {
  readonly output: Value;
  readonly site: Site;
}

export interface Placed {
  readonly instruction: Instruction;
  /** index of the step that it belongs to */
  readonly step: number;
}

/** Where a value stands: on chip for as long as it is needed, or outside. */
export interface Home {
  readonly memory: 'ABUF' | 'outside';
  readonly address: number;
}

export interface Stream {
  readonly machine: Machine;
  readonly placed: Placed[];
  /** index of the step that is being written */
  step: number;
  readonly homeOf: (value: Value) => Home;
  /** how a value lies in its home */
  readonly elementOf: (value: Value) => Element;
  /** what the array is paid for: activations of up to four bits, of a byte, or of two */
  readonly activationBits: (value: Value) => 4 | 8 | 16;
  /** byte address of constants outside */
  readonly put: (blob: BlobName, bytes: Uint8Array) => number;
  /** the part of ABUF where no value has its home during a step */
  readonly freeAt: (step: number) => readonly [from: number, to: number];
  /** where the next shelf of each memory begins if there is room */
  readonly next: Record<ChipMemory, number>;
}

export const emit = <N extends OpName>(stream: Stream, op: N, fields: FieldsOf<N>, node: Owner): void => {
  if (!stream.machine.ops.includes(op)) throw lacking(stream, `instruction ${op}`, node);
  stream.placed.push({ instruction: instruction(op, fields), step: stream.step });
};

export const lacking = ({ machine }: Stream, what: string, node: Owner): CompileError =>
  new CompileError(errors.machineLacks(machine.name, what, node.output.name, node.site), 'unsupported');
/** A tile does not fit; in ABUF it may once fewer values have their home there. */
export class NoRoom extends CompileError {
  readonly memory: ChipMemory;
  constructor({ machine }: Stream, memory: ChipMemory, needs: number, node: Owner) {
    super(errors.tooLargeForMachine(machine.name, memory, needs, machine.memories[memory], node.output.name, node.site), 'unsupported');
    this.memory = memory;
  }
}

/** Bytes of a memory that a step may use for its tiles. */
export const roomIn = (stream: Stream, memory: ChipMemory): number => {
  if (memory !== 'ABUF') return stream.machine.memories[memory];
  const [from, to] = stream.freeAt(stream.step);
  return to - from;
};

/**
 * Places of a step in a chip memory, one after another. Steps take their shelves in a ring, so that a step can be loaded while the
 * steps before it compute. A step takes one shelf of a memory, once.
 */
export class Shelf {
  private at: number;
  private readonly end: number;
  constructor(stream: Stream, memory: ChipMemory, bytes: readonly number[], node: Owner) {
    const needs = bytes.reduce((sum, one) => sum + alignUp(one), 0);
    const [from, to] = memory === 'ABUF' ? stream.freeAt(stream.step) : [0, stream.machine.memories[memory]];
    if (needs > to - from) throw new NoRoom(stream, memory, needs, node);
    const next = stream.next[memory];
    this.at = next >= from && next + needs <= to ? next : from;
    this.end = this.at + needs;
    stream.next[memory] = this.end;
  }
  take(bytes: number): number {
    const place = this.at;
    this.at += alignUp(bytes);
    if (this.at > this.end) throw new CompileError(errors.internal('a step takes more than its shelf holds', 'accelerator'), 'internal');
    return place;
  }
}

/** Places for contents that come and go: what is there already is not loaded again; a new content takes the oldest place. */
export class Slots {
  private readonly places: { readonly address: number; key: string | null; used: number }[];
  private clock = 0;
  constructor(addresses: readonly number[]) {
    this.places = addresses.map((address) => ({ address, key: null, used: -1 }));
  }
  take(key: string, load: (address: number) => void): number {
    const known = this.places.find((place) => place.key === key);
    const place = known ?? this.places.reduce((oldest, one) => (one.used < oldest.used ? one : oldest));
    place.used = this.clock++;
    if (known === undefined) {
      place.key = key;
      load(place.address);
    }
    return place.address;
  }
}

/** Places used in turn. */
export const turns = (addresses: readonly number[]): (() => number) => {
  let next = 0;
  return () => addresses[next++ % addresses.length];
};

/** One side of a move. */
export interface Side {
  readonly memory: Memory;
  readonly address: number;
  /** of each axis, in bytes or elements as the function says */
  readonly strides: readonly number[];
}
interface Dim { readonly count: number; readonly from: number; readonly to: number }
const MOST_COUNT = 65535;

/** A box of runs of `runBytes`, from one place to another, at most one of them outside; strides in bytes. */
export const move = (stream: Stream, runBytes: number, counts: readonly number[], from: Side, to: Side, node: Owner): void => {
  if (counts.includes(0)) return;
  let run = runBytes;
  const dims: Dim[] = [];
  for (let i = counts.length - 1; i >= 0; i--) {
    const dim = { count: counts[i], from: from.strides[i], to: to.strides[i] };
    const inner = dims[0];
    if (dim.count === 1) continue;
    if (dims.length === 0 && dim.from === run && dim.to === run) run *= dim.count;
    else if (inner !== undefined && dim.from === inner.from * inner.count && dim.to === inner.to * inner.count && dim.count * inner.count <= MOST_COUNT) dims[0] = { ...inner, count: dim.count * inner.count };
    else dims.unshift(dim);
  }
  const walk = (rest: readonly Dim[], source: number, target: number): void => {
    const wide = rest.findIndex(({ count }) => count > MOST_COUNT);
    const split = wide >= 0 ? wide : rest.length > 3 ? 0 : -1;
    if (split >= 0) {
      const dim = rest[split];
      const piece = wide >= 0 ? MOST_COUNT : 1;
      for (let i = 0; i < dim.count; i += piece) {
        const part = { ...dim, count: Math.min(piece, dim.count - i) };
        walk([...rest.slice(0, split), ...(part.count === 1 ? [] : [part]), ...rest.slice(split + 1)], source + i * dim.from, target + i * dim.to);
      }
      return;
    }
    // any order of the dimensions moves the same bytes; the quickest is taken
    const boxes = rotations(rest).map((order) => boxOf(order, run, from.memory, source, to.memory, target));
    const best = boxes.reduce((a, b) => (cyclesOf(stream.machine, b) < cyclesOf(stream.machine, a) ? b : a));
    emit(stream, best.op, best.fields as never, node);
  };
  walk(dims, from.address, to.address);
};
/** Each dimension innermost once, first the last. */
const rotations = <T>(dims: readonly T[]): readonly (readonly T[])[] =>
  dims.length < 2 ? [dims] : [...dims.keys()].reverse().map((inner) => [...dims.filter((_, i) => i !== inner), dims[inner]]);
const boxOf = (dims: readonly Dim[], run: number, fromMemory: Memory, source: number, toMemory: Memory, target: number): Instruction => {
  const [d0, d1, d2] = [...Array.from({ length: 3 - dims.length }, (): Dim => ({ count: 1, from: 0, to: 0 })), ...dims];
  const counts = { run, n0: d0.count, n1: d1.count, n2: d2.count };
  if (fromMemory === 'outside' && toMemory !== 'outside') return instruction('LD', { ...counts, memory: toMemory, chip: target, far: source, f0: d0.from, f1: d1.from, f2: d2.from, c0: d0.to, c1: d1.to, c2: d2.to });
  if (toMemory === 'outside' && fromMemory !== 'outside') return instruction('ST', { ...counts, memory: fromMemory, chip: source, far: target, f0: d0.to, f1: d1.to, f2: d2.to, c0: d0.from, c1: d1.from, c2: d2.from });
  if (fromMemory === 'outside' || toMemory === 'outside') throw new CompileError(errors.internal('a move from outside to outside', 'accelerator'), 'internal');
  return instruction('MV', { ...counts, fromMemory, from: source, toMemory, to: target, s0: d0.from, s1: d1.from, s2: d2.from, d0: d0.to, d1: d1.to, d2: d2.to });
};

/** A box of elements; strides in elements. Elements of four bits move in pairs: the last axis is contiguous and even on both sides, and so are all other strides. */
export const moveElements = (stream: Stream, element: Element, counts: readonly number[], from: Side, to: Side, node: Owner): void => {
  const bits = elementBits(element);
  const scaled = (side: Side): Side => ({ ...side, strides: side.strides.map((stride, axis) => (bits < 8 && axis === counts.length - 1 ? 1 : (stride * bits) / 8)) });
  move(stream, Math.max(1, bits / 8), bits < 8 ? counts.map((count, axis) => (axis === counts.length - 1 ? count / 2 : count)) : counts, scaled(from), scaled(to), node);
};

/** Bytes in a row. */
export const moveBytes = (stream: Stream, bytes: number, from: Home | { readonly memory: Memory; readonly address: number }, to: { readonly memory: Memory; readonly address: number }, node: Owner): void =>
  move(stream, 1, [bytes], { ...from, strides: [1] }, { ...to, strides: [1] }, node);
/** Constants to a place on chip. */
export const loadBytes = (stream: Stream, memory: ChipMemory, bytes: number, far: number, chip: number, node: Owner): void =>
  moveBytes(stream, bytes, { memory: 'outside', address: far }, { memory, address: chip }, node);

/** Row-major strides of elements of so many bytes, or in elements. */
export const denseStrides = (counts: readonly number[], elementBytes = 1): readonly number[] => {
  const strides = counts.map(() => elementBytes);
  for (let i = counts.length - 2; i >= 0; i--) strides[i] = strides[i + 1] * counts[i + 1];
  return strides;
};
