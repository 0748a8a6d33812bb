/** The end of a step that made sums: rescaling, addition of a residual, table, and the way outside. */
import { bitsOf, storageBytes } from '../../../ir/dtype.ts';
import { constantOf, type Node, type Value } from '../../../ir/graph.ts';
import { staticShape } from '../../../ir/dim.ts';
import type { Step } from '../../group.ts';
import { packRecords } from '../blobs.ts';
import type { ChipMemory, Element, FieldsOf } from '../isa.ts';
import { elementOf, emit, lacking, moveBytes, Slots, type Stream } from '../stream.ts';

export const dataOf = (value: Value): ArrayLike<number> => constantOf(value)!.data as ArrayLike<number>;
export const wideOf = (value: Value): BigInt64Array => constantOf(value)!.data as BigInt64Array;
export const bytesIn = (value: Value): Uint8Array => {
  const { data } = constantOf(value)!;
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
};

/** The records of a rescaling, and how many there are: one, or one for each channel. */
export interface Records {
  readonly address: number;
  readonly count: number;
}
export const recordsOf = (stream: Stream, node: Node): Records => {
  const [first, second, add] = node.op === 'requantize_add'
    ? [dataOf(node.inputs['mulX'] as Value), dataOf(node.inputs['mulY'] as Value), wideOf(node.inputs['add'] as Value)]
    : [dataOf(node.inputs['mul'] as Value), null, wideOf(node.inputs['add'] as Value)];
  const count = Math.max(first.length, second?.length ?? 1, add.length);
  for (const list of [first, second]) {
    const widest = list === null ? 0 : Array.from(list).reduce((most, mul) => Math.max(most, Math.abs(mul)), 0);
    if (widest >= 2 ** stream.machine.multiplierBits) throw lacking(stream, `multiplier of ${Math.floor(Math.log2(widest)) + 1} bits`, node);
  }
  return { address: stream.put('params', packRecords(first, second, add, count)), count };
};

/** Rescales n elements with records that lie in PBUF. */
export const rescale = (
  stream: Stream, node: Node, at: { readonly xMemory: ChipMemory; readonly x: number; readonly xElement: Element; readonly z: number; readonly n: number; readonly channels: number; readonly par: number; readonly perChannel: boolean }, y: { readonly address: number; readonly element: Element } | null,
): void => {
  const { shift, preShift, low, high } = node.attrs as { shift: number; preShift?: number; low: number; high: number };
  const { perChannel, ...rest } = at;
  const common = { ...rest, zMemory: 'ABUF', zElement: elementOf(node.output.type.dtype), perChannel: perChannel ? 1 : 0, shift, low, high } as const;
  if (node.op === 'requantize') emit(stream, 'RQ', { ...common, preShift: preShift ?? 0 }, node);
  else emit(stream, 'ADD2', { ...common, yMemory: 'ABUF', y: y!.address, yElement: y!.element }, node);
};

/** Looks n elements up in place or elsewhere in ABUF. */
export const lookUp = (stream: Stream, node: Node, x: Pick<FieldsOf<'LUT'>, 'x' | 'xElement' | 'n' | 'lut' | 'rows'>, z: number): void =>
  emit(stream, 'LUT', { ...x, xMemory: 'ABUF', zMemory: 'ABUF', z, zElement: elementOf(node.output.type.dtype) }, node);

/** What the end of a step needs on chip, and what it does to a tile of sums. */
export interface Finish {
  /** bytes of an element that leaves, 4 where sums do; of an element of the residual, 0 where there is none; of an intermediate before a wider table */
  readonly outBytes: number;
  readonly residual: Value | null;
  readonly residualBytes: number;
  readonly middleBytes: number;
  /** bytes of PBUF for the records of so many channels, and for the table */
  readonly recordBytes: (channels: number) => number;
  readonly tableBytes: number;
  /** passes of the vector engine */
  readonly passes: number;
}
export const finishOf = ({ rescale: node, table, output }: Step): Finish => {
  const residual = node?.op === 'requantize_add' ? node.inputs['y'] as Value : null;
  const outBytes = storageBytes(output.type.dtype);
  const perChannel = node !== null && ['mul', 'mulX', 'mulY', 'add'].some((slot) => { const value = node.inputs[slot] as Value | undefined; return value !== undefined && staticShape(value.type.shape)[0] !== 1; });
  return {
    outBytes, residual, residualBytes: residual === null ? 0 : storageBytes(residual.type.dtype),
    // a table with wider entries cannot write over the bytes that it reads
    middleBytes: table !== null && outBytes > 1 ? 1 : 0,
    recordBytes: (channels) => (node === null ? 0 : 16 * (perChannel ? channels : 1)),
    tableBytes: table === null ? 0 : 256 * outBytes, passes: (node === null ? 0 : residual === null ? 1 : 2) + (table === null ? 0 : 1),
  };
};

/** Loads records of a range of channels, one range a place, and the table once. */
export class Parameters {
  private readonly records: Records | null;
  private readonly slots: Slots;
  private readonly table: number | null;
  private readonly stream: Stream;
  private readonly step: Step;
  constructor(stream: Stream, step: Step, slots: readonly number[], tableAt: number) {
    [this.stream, this.step] = [stream, step];
    this.slots = new Slots(slots);
    this.records = step.rescale === null ? null : recordsOf(stream, step.rescale);
    this.table = step.table === null ? null : tableAt;
    if (step.table !== null) {
      const bytes = bytesIn(step.table.inputs['values'] as Value);
      moveBytes(stream, 'LD', 'PBUF', bytes.length, stream.put('luts', bytes), tableAt, step.table);
    }
  }
  private channels(from: number, count: number): number {
    const { address, count: all } = this.records!;
    const [first, n] = all === 1 ? [0, 1] : [from, count];
    return this.slots.take(`${first}+${n}`, (place) => moveBytes(this.stream, 'LD', 'PBUF', 16 * n, address + 16 * first, place, this.step.rescale!));
  }
  /** Makes sure that the records of a range of channels are on chip. */
  prepare(from: number, count: number): void {
    if (this.records !== null) this.channels(from, count);
  }
  /** Sums of `pixels` × `count` channels from `from` on → codes; where these lie. `y`: the residual, in ABUF. */
  finish(sums: number, pixels: number, from: number, count: number, y: number | null, out: number, middle: number): { readonly memory: ChipMemory; readonly address: number } {
    const { rescale: node, table } = this.step;
    if (node === null) return { memory: 'OBUF', address: sums };
    const n = pixels * count;
    const par = this.channels(from, count);
    const residual = y === null ? null : { address: y, element: elementOf((node.inputs['y'] as Value).type.dtype) };
    const wider = table !== null && storageBytes(table.output.type.dtype) > 1;
    const codes = wider ? middle : out;
    rescale(this.stream, node, { xMemory: 'OBUF', x: sums, xElement: 'i32', z: codes, n, channels: count, par, perChannel: this.records!.count > 1 }, residual);
    if (table !== null) lookUp(this.stream, table, { x: codes, xElement: elementOf(node.output.type.dtype), n, lut: this.table!, rows: 1 }, out);
    return { memory: 'ABUF', address: out };
  }
}

/** What the array is paid for: activations of up to four bits, of a byte, or of two. */
export const activationBits = (value: Value): 4 | 8 | 16 => {
  const bits = bitsOf(value.type.dtype);
  return bits <= 4 ? 4 : bits <= 8 ? 8 : 16;
};
