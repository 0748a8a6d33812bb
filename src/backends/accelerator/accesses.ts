/**
 * What each instruction reads and writes, as intervals of bytes from the first to the last. From these follow the semaphores that a
 * program needs, the checks of bounds, and the checks for races.
 */
import { bytesFor, elementBits, type ChipMemory, type Element, type FieldsOf, type Instruction, type InstructionOf, type OpName } from './isa.ts';

export type Memory = ChipMemory | 'outside';
export interface Access {
  readonly memory: Memory;
  readonly from: number;
  /** behind the last byte */
  readonly to: number;
  readonly write: boolean;
}

/** Bytes of one record of parameters. */
export const RECORD_BYTES = 16;
export const EXP_ENTRIES = 2816;
export const KNOT_ENTRIES = 513;
/** A table of 256 entries; entries of four bits take a byte each. */
export const tableBytes = (entry: Element): number => 256 * Math.max(1, elementBits(entry) / 8);

const read = (memory: Memory, from: number, bytes: number): Access => ({ memory, from, to: from + bytes, write: false });
const write = (memory: Memory, from: number, bytes: number): Access => ({ memory, from, to: from + bytes, write: true });

type Source = Pick<FieldsOf<'CLIP'>, 'xMemory' | 'x' | 'xElement'>;
type Target = Pick<FieldsOf<'CLIP'>, 'zMemory' | 'z' | 'zElement'>;
const sourceOf = ({ xMemory, x, xElement }: Source, n: number): Access => read(xMemory, x, bytesFor(xElement, n));
const targetOf = ({ zMemory, z, zElement }: Target, n: number): Access => write(zMemory, z, bytesFor(zElement, n));
/** Bytes of n elements in rows of `channels`, which begin at multiples of the pitch unless that is 0. */
const pitchedBytes = (element: Element, n: number, channels: number, pitch: number): number =>
  (pitch === 0 || n === 0 || channels === 0 ? bytesFor(element, n) : (Math.ceil(n / channels) - 1) * pitch + bytesFor(element, Math.min(n, channels)));
const records = ({ par, perChannel, channels }: { readonly par: number; readonly perChannel: number; readonly channels: number }): Access =>
  read('PBUF', par, RECORD_BYTES * (perChannel === 1 ? channels : 1));

type Box = FieldsOf<'LD'>;
/** From the first to the last byte of nested strides. */
const span = (start: number, run: number, counts: readonly number[], strides: readonly number[]): readonly [number, number] => {
  let [from, to] = [start, start + run];
  counts.forEach((count, i) => {
    const reach = (count - 1) * strides[i];
    if (reach < 0) from += reach; else to += reach;
  });
  return [from, to];
};
const boxAccesses = (box: Box, toChip: boolean): readonly Access[] => {
  const counts = [box.n0, box.n1, box.n2];
  if (box.run === 0 || counts.includes(0)) return [];
  const [far, farEnd] = span(box.far, box.run, counts, [box.f0, box.f1, box.f2]);
  const [chip, chipEnd] = span(box.chip, box.run, counts, [box.c0, box.c1, box.c2]);
  return [
    { memory: 'outside', from: far, to: farEnd, write: !toChip },
    { memory: box.memory, from: chip, to: chipEnd, write: toChip },
  ];
};

export type Window = Pick<FieldsOf<'POOL'>, 'rows' | 'columns' | 'imageRows' | 'imageColumns' | 'rowPitch' | 'columnPitch' | 'firstRow' | 'firstColumn' | 'rowStride' | 'columnStride' | 'tapRows' | 'tapColumns' | 'rowDilation' | 'columnDilation'>;
/** The part of the image, first and last coordinate, that lies under `count` windows of one axis; null where none does. */
const coveredBy = (size: number, first: number, count: number, stride: number, taps: number, dilation: number): readonly [number, number] | null => {
  const [from, to] = [Math.max(0, first), Math.min(size - 1, first + (count - 1) * stride + (taps - 1) * dilation)];
  return from <= to ? [from, to] : null;
};
/** From the first to the last byte of the image that windows read, `last` bytes at each position. */
export const windowSpan = (w: Window, base: number, last: number): readonly [number, number] | null => {
  const rows = coveredBy(w.imageRows, w.firstRow, w.rows, w.rowStride, w.tapRows, w.rowDilation);
  const columns = coveredBy(w.imageColumns, w.firstColumn, w.columns, w.columnStride, w.tapColumns, w.columnDilation);
  return rows === null || columns === null || last === 0 ? null
    : [base + rows[0] * w.rowPitch + columns[0] * w.columnPitch, base + rows[1] * w.rowPitch + columns[1] * w.columnPitch + last];
};
const windowRead = (memory: Memory, w: Window, base: number, last: number): readonly Access[] => {
  const span = w.rows * w.columns * w.tapRows * w.tapColumns === 0 ? null : windowSpan(w, base, last);
  return span === null ? [] : [{ memory, from: span[0], to: span[1], write: false }];
};
/** Bytes from the first to the last of `count` packed weights. */
export const weightBytes = (bits: FieldsOf<'MM'>['wBits'], count: number): number => Math.ceil(bits === 'ternary' ? count / 5 : (count * Number(bits)) / 8);

const product = (f: FieldsOf<'MM'>): readonly Access[] => {
  const pixels = f.rows * f.columns;
  const taps = f.tapRows * f.tapColumns * (f.depthwise === 1 ? 1 : f.depth);
  if (pixels * taps * f.outputs === 0) return [];
  const sums = 4 * ((pixels - 1) * f.pitch + f.outputs);
  return [
    ...windowRead('ABUF', f, f.a, bytesFor(f.aElement, f.depthwise === 1 ? f.outputs : f.depth)),
    read('WBUF', f.w, weightBytes(f.wBits, (f.outputs - 1) * f.wChannel + (taps - 1) * f.wTap + 1)),
    ...(f.accumulate === 1 ? [read('OBUF', f.o, sums)] : []), write('OBUF', f.o, sums),
  ];
};

const accessTable: { readonly [N in OpName]: (fields: FieldsOf<N>) => readonly Access[] } = {
  END: () => [],
  LD: (f) => boxAccesses(f, true),
  ST: (f) => boxAccesses(f, false),
  MV: (f) => {
    const counts = [f.n0, f.n1, f.n2];
    if (f.run === 0 || counts.includes(0)) return [];
    const [from, end] = span(f.from, f.run, counts, [f.s0, f.s1, f.s2]);
    const [to, toEnd] = span(f.to, f.run, counts, [f.d0, f.d1, f.d2]);
    return [{ memory: f.fromMemory, from, to: end, write: false }, { memory: f.toMemory, from: to, to: toEnd, write: true }];
  },
  FILL: (f) => [write(f.memory, f.chip, bytesFor(f.element, f.count))],
  GATHER: (f) => (f.rows === 0 || f.count === 0 ? [] : [read('ABUF', f.index, bytesFor(f.indexElement, f.count)), read('outside', f.far, (f.rows - 1) * f.pitch + f.run), write('ABUF', f.chip, f.count * f.run)]),
  MM: product,
  MMV: product,
  RQ: (f) => [read(f.xMemory, f.x, pitchedBytes(f.xElement, f.n, f.channels, f.xPitch)), records(f), write(f.zMemory, f.z, pitchedBytes(f.zElement, f.n, f.channels, f.zPitch))],
  ADD2: (f) => [
    read(f.xMemory, f.x, pitchedBytes(f.xElement, f.n, f.channels, f.xPitch)), read(f.yMemory, f.y, pitchedBytes(f.yElement, f.n, f.channels, f.yPitch)), records(f),
    write(f.zMemory, f.z, pitchedBytes(f.zElement, f.n, f.channels, f.zPitch)),
  ],
  MUL2: (f) => [sourceOf(f, f.n), read(f.yMemory, f.y, bytesFor(f.yElement, f.n)), targetOf(f, f.n)],
  CLIP: (f) => [sourceOf(f, f.n), targetOf(f, f.n)],
  LUT: (f) => [
    read(f.xMemory, f.x, pitchedBytes(f.xElement, f.n, f.channels, f.xPitch)), read('PBUF', f.lut, f.rows * tableBytes(f.zElement)),
    write(f.zMemory, f.z, pitchedBytes(f.zElement, f.n, f.channels, f.zPitch)),
  ],
  LUTI: (f) => [sourceOf(f, f.n), read('PBUF', f.lut, KNOT_ENTRIES * 2), targetOf(f, f.n)],
  POOL: (f) => [...windowRead(f.xMemory, f, f.x, bytesFor(f.xElement, f.depth)), targetOf(f, f.rows * f.columns * f.depth)],
  RED: (f) => [sourceOf(f, f.outer * f.reduce * f.inner), ...(f.accumulate === 1 ? [read(f.zMemory, f.z, bytesFor(f.zElement, f.outer * f.inner))] : []), targetOf(f, f.outer * f.inner)],
  SMAX: (f) => [sourceOf(f, f.count * f.length), read('PBUF', f.fine, 1024), ...(f.two === 1 ? [read('PBUF', f.coarse, 1024)] : []), targetOf(f, f.count * f.length)],
  EXPS: (f) => [
    read(f.xMemory, f.x, 4 * f.count * f.length), ...(f.masked === 1 ? [read('PBUF', f.mask, f.count * f.length)] : []), read('PBUF', f.lut, EXP_ENTRIES * 2),
    write(f.zMemory, f.z, 2 * f.count * f.length), write('OBUF', f.sum, 4 * f.count),
  ],
  NRM: (f) => [read(f.xMemory, f.x, 4 * f.count * f.length), read('OBUF', f.sum, 4 * f.count), targetOf(f, f.count * f.length)],
  LNRM: (f) => [sourceOf(f, f.count * f.length), records({ ...f, channels: f.length }), targetOf(f, f.count * f.length)],
};

export const accessesOf = (one: Instruction): readonly Access[] =>
  (accessTable[one.op] as (fields: InstructionOf<OpName>['fields']) => readonly Access[])(one.fields).filter(({ from, to }) => to > from);
