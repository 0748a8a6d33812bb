/** The end of a step that made sums: rescaling, addition of a residual, table. */
import { storageBytes, isSigned, type DType } from '../../../ir/dtype.ts';
import { constantOf, type Node, type Value } from '../../../ir/graph.ts';
import { staticShape } from '../../../ir/dim.ts';
import type { Step } from '../../group.ts';
import { tableBytes } from '../accesses.ts';
import { packRecords } from '../blobs.ts';
import { elementBits, type ChipMemory, type Element } from '../isa.ts';
import { emit, lacking, loadBytes, Slots, type Stream } from '../stream.ts';

export const dataOf = (value: Value): ArrayLike<number> => constantOf(value)!.data as ArrayLike<number>;
export const wideOf = (value: Value): BigInt64Array => constantOf(value)!.data as BigInt64Array;
export const bytesIn = (value: Value): Uint8Array => {
  const { data } = constantOf(value)!;
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
};
/** The element that holds one code of a dtype. */
export const plainElement = (dtype: DType): Element => `${isSigned(dtype) ? 'i' : 'u'}${storageBytes(dtype) * 8}` as Element;

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
  for (const list of [first, second]) expectMultiplier(stream, list === null ? 0 : Array.from(list).reduce((most, mul) => Math.max(most, Math.abs(mul)), 0), node);
  return { address: stream.put('params', packRecords(first, second, add, count)), count };
};

/** The machine must be able to multiply by this. */
export const expectMultiplier = (stream: Stream, mul: number, node: Node): void => {
  if (mul >= 2 ** stream.machine.multiplierBits) throw lacking(stream, `multiplier of ${Math.floor(Math.log2(mul)) + 1} bits`, node);
};

/** Rows of channels on chip. */
export interface Rows {
  readonly memory: ChipMemory;
  readonly address: number;
  readonly element: Element;
  /** bytes from row to row, 0 where they follow each other */
  readonly pitch: number;
}
const source = ({ memory, address, element, pitch }: Rows) => ({ xMemory: memory, x: address, xElement: element, xPitch: pitch });
const target = ({ memory, address, element, pitch }: Rows) => ({ zMemory: memory, z: address, zElement: element, zPitch: pitch });

/** Rescales n elements, in rows of `channels`, with records that lie in PBUF. */
export const rescale = (stream: Stream, node: Node, x: Rows, y: Rows | null, z: Rows, n: number, channels: number, records: { readonly par: number; readonly perChannel: boolean }): void => {
  const { shift, preShift, low, high } = node.attrs as { shift: number; preShift?: number; low: number; high: number };
  const common = { ...source(x), ...target(z), n, channels, par: records.par, perChannel: records.perChannel ? 1 : 0, shift, low, high };
  if (node.op === 'requantize') emit(stream, 'RQ', { ...common, preShift: preShift ?? 0 }, node);
  else emit(stream, 'ADD2', { ...common, yMemory: y!.memory, y: y!.address, yElement: y!.element, yPitch: y!.pitch }, node);
};

/** Looks n elements up, in rows of `channels`. */
export const lookUp = (stream: Stream, node: Node, x: Rows, z: Rows, n: number, channels: number, lut: number, rows: number): void =>
  emit(stream, 'LUT', { ...source(x), ...target(z), n, channels, lut, rows }, node);

/** What the end of a step needs on chip, and what it does to a tile of sums. */
export interface Finish {
  /** what leaves; i32 where sums do */
  readonly out: Element;
  readonly residual: Value | null;
  /** what stands between the rescaling and a table whose entries have other widths; null where there is no such place */
  readonly middle: Element | null;
  /** bytes of PBUF for the records of so many channels, and for the table */
  readonly recordBytes: (channels: number) => number;
  readonly tableBytes: number;
  /** passes of the vector engine; 0 where sums leave as they are */
  readonly passes: number;
}
export const finishOf = (stream: Stream, { rescale: node, table, output }: Step): Finish => {
  const residual = node?.op === 'requantize_add' ? node.inputs['y'] as Value : null;
  const out = stream.elementOf(output);
  const perChannel = node !== null && ['mul', 'mulX', 'mulY', 'add'].some((slot) => { const value = node.inputs[slot] as Value | undefined; return value !== undefined && staticShape(value.type.shape)[0] !== 1; });
  const between = node === null || table === null ? null : plainElement(node.output.type.dtype);
  return {
    out, residual, middle: between !== null && elementBits(between) !== elementBits(out) ? between : null,
    recordBytes: (channels) => (node === null ? 0 : 16 * (perChannel ? channels : 1)),
    tableBytes: table === null ? 0 : tableBytes(out), passes: (node === null ? 0 : residual === null ? 1 : 2) + (table === null ? 0 : 1),
  };
};

/** Loads records of a range of channels, one range a place, and the table once. */
export class Parameters {
  private readonly records: Records | null;
  private readonly slots: Slots;
  private readonly table: number | null;
  private readonly stream: Stream;
  private readonly step: Step;
  private readonly end: Finish;
  constructor(stream: Stream, step: Step, end: Finish, slots: readonly number[], tableAt: number) {
    [this.stream, this.step, this.end] = [stream, step, end];
    this.slots = new Slots(slots);
    this.records = step.rescale === null ? null : recordsOf(stream, step.rescale);
    this.table = step.table === null ? null : tableAt;
    if (step.table !== null) {
      const bytes = bytesIn(step.table.inputs['values'] as Value);
      loadBytes(stream, 'PBUF', bytes.length, stream.put('luts', bytes), tableAt, step.table);
    }
  }
  private channels(from: number, count: number): number {
    const { address, count: all } = this.records!;
    const [first, n] = all === 1 ? [0, 1] : [from, count];
    return this.slots.take(`${first}+${n}`, (place) => loadBytes(this.stream, 'PBUF', 16 * n, address + 16 * first, place, this.step.rescale!));
  }
  /** Makes sure that the records of a range of channels are on chip. */
  prepare(from: number, count: number): void {
    if (this.records !== null) this.channels(from, count);
  }
  /** Sums of n elements of `count` channels from `from` on → codes at `out`. `middle`: a place for what stands between. */
  finish(sums: number, n: number, from: number, count: number, y: Rows | null, out: Rows, middle: number): void {
    const { rescale: node, table } = this.step;
    const par = this.channels(from, count);
    const between: Rows = table === null ? out : this.end.middle === null ? { ...out, element: plainElement(node!.output.type.dtype) } : { memory: 'ABUF', address: middle, element: this.end.middle, pitch: 0 };
    rescale(this.stream, node!, { memory: 'OBUF', address: sums, element: 'i32', pitch: 0 }, y, between, n, count, { par, perChannel: this.records!.count > 1 });
    if (table !== null) lookUp(this.stream, table, between, out, n, count, this.table!, 1);
  }
}
