/**
 * A program under construction: instructions in an order in which they could run one by one, and the places on chip that a step uses.
 * What may run at the same time is found later (`synchronise.ts`), so steps only choose places, two by turns where they can.
 */
import { CompileError } from '../../ir/diagnostic.ts';
import { storageBytes, isSigned, type DType } from '../../ir/dtype.ts';
import { errors } from '../../ir/errors.ts';
import type { Value } from '../../ir/graph.ts';
import type { Site } from '../../ir/op.ts';
import { alignUp, type BlobName } from './blobs.ts';
import { instruction, type ChipMemory, type Element, type FieldsOf, type Instruction, type OpName } from './isa.ts';
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

export interface Stream {
  readonly machine: Machine;
  readonly placed: Placed[];
  /** index of the step that is being written */
  step: number;
  /** byte address of a value outside */
  readonly addressOf: (value: Value) => number;
  /** byte address of constants */
  readonly put: (blob: BlobName, bytes: Uint8Array) => number;
}

export const emit = <N extends OpName>(stream: Stream, op: N, fields: FieldsOf<N>, node: Owner): void => {
  if (!stream.machine.ops.includes(op)) throw lacking(stream, `instruction ${op}`, node);
  stream.placed.push({ instruction: instruction(op, fields), step: stream.step });
};

export const lacking = ({ machine }: Stream, what: string, node: Owner): CompileError =>
  new CompileError(errors.machineLacks(machine.name, what, node.output.name, node.site), 'unsupported');
export const tooLarge = ({ machine }: Stream, memory: ChipMemory, needs: number, node: Owner): CompileError =>
  new CompileError(errors.tooLargeForMachine(machine.name, memory, needs, machine.memories[memory], node.output.name, node.site), 'unsupported');

/** How an element of a tensor lies on chip. */
export const elementOf = (dtype: DType): Element => {
  const bytes = storageBytes(dtype);
  return `${isSigned(dtype) ? 'i' : 'u'}${Math.max(1, bytes) * 8}` as Element;
};

/** Places in a chip memory, one after another. Small needs take one half, by turns from step to step, so that a step can be loaded while the last one computes. */
export class Shelf {
  private at: number;
  private readonly end: number;
  private readonly stream: Stream;
  private readonly memory: ChipMemory;
  private readonly node: Owner;
  private readonly needs: number;
  constructor(stream: Stream, memory: ChipMemory, bytes: readonly number[], node: Owner) {
    [this.stream, this.memory, this.node] = [stream, memory, node];
    this.needs = bytes.reduce((sum, one) => sum + alignUp(one), 0);
    const size = stream.machine.memories[memory];
    const half = Math.floor(size / 2 / 64) * 64;
    [this.at, this.end] = this.needs <= half && stream.step % 2 === 1 ? [half, size] : [0, size];
    if (this.needs > size) throw tooLarge(stream, memory, this.needs, node);
  }
  take(bytes: number): number {
    const place = this.at;
    this.at += alignUp(bytes);
    if (this.at > this.end) throw tooLarge(this.stream, this.memory, this.needs, this.node);
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

interface Dim { readonly count: number; readonly far: number; readonly chip: number }
const MOST_COUNT = 65535;

/** A box of elements between outside and chip; strides in bytes. `op` is LD or ST. */
export const move = (
  stream: Stream, op: 'LD' | 'ST', memory: ChipMemory, elementBytes: number, counts: readonly number[],
  outside: { readonly address: number; readonly strides: readonly number[] }, chip: { readonly address: number; readonly strides: readonly number[] }, node: Owner,
): void => {
  if (counts.includes(0)) return;
  let run = elementBytes;
  const dims: Dim[] = [];
  for (let i = counts.length - 1; i >= 0; i--) {
    const dim = { count: counts[i], far: outside.strides[i], chip: chip.strides[i] };
    const inner = dims[0];
    if (dim.count === 1) continue;
    if (dims.length === 0 && dim.far === run && dim.chip === run) run *= dim.count;
    else if (inner !== undefined && dim.far === inner.far * inner.count && dim.chip === inner.chip * inner.count && dim.count * inner.count <= MOST_COUNT) dims[0] = { ...inner, count: dim.count * inner.count };
    else dims.unshift(dim);
  }
  const walk = (rest: readonly Dim[], far: number, at: number): void => {
    const wide = rest.findIndex(({ count }) => count > MOST_COUNT);
    const split = wide >= 0 ? wide : rest.length > 3 ? 0 : -1;
    if (split >= 0) {
      const dim = rest[split];
      const piece = wide >= 0 ? MOST_COUNT : 1;
      for (let i = 0; i < dim.count; i += piece) {
        const part = { ...dim, count: Math.min(piece, dim.count - i) };
        walk([...rest.slice(0, split), ...(part.count === 1 ? [] : [part]), ...rest.slice(split + 1)], far + i * dim.far, at + i * dim.chip);
      }
      return;
    }
    const [d0, d1, d2] = [...Array.from({ length: 3 - rest.length }, (): Dim => ({ count: 1, far: 0, chip: 0 })), ...rest];
    emit(stream, op, { memory, chip: at, run, n0: d0.count, n1: d1.count, n2: d2.count, far, f0: d0.far, f1: d1.far, f2: d2.far, c0: d0.chip, c1: d1.chip, c2: d2.chip }, node);
  };
  walk(dims, outside.address, chip.address);
};

/** Bytes in a row, from or to anywhere. */
export const moveBytes = (stream: Stream, op: 'LD' | 'ST', memory: ChipMemory, bytes: number, far: number, chip: number, node: Owner): void =>
  move(stream, op, memory, 1, [bytes], { address: far, strides: [1] }, { address: chip, strides: [1] }, node);

/** Row-major byte strides. */
export const denseStrides = (counts: readonly number[], elementBytes: number): readonly number[] => {
  const strides = counts.map(() => elementBytes);
  for (let i = counts.length - 2; i >= 0; i--) strides[i] = strides[i + 1] * counts[i + 1];
  return strides;
};
