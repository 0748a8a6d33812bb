/**
 * What each instruction reads and writes, as intervals of bytes from the first to the last. From these follow the semaphores that a
 * program needs, the checks of bounds, and the checks for races.
 */
import { elementBytes, type ChipMemory, type FieldsOf, type Instruction, type InstructionOf, type OpName } from './isa.ts';

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

const read = (memory: Memory, from: number, bytes: number): Access => ({ memory, from, to: from + bytes, write: false });
const write = (memory: Memory, from: number, bytes: number): Access => ({ memory, from, to: from + bytes, write: true });

type Source = Pick<FieldsOf<'RQ'>, 'xMemory' | 'x' | 'xElement'>;
type Target = Pick<FieldsOf<'RQ'>, 'zMemory' | 'z' | 'zElement'>;
const sourceOf = ({ xMemory, x, xElement }: Source, n: number): Access => read(xMemory, x, n * elementBytes(xElement));
const targetOf = ({ zMemory, z, zElement }: Target, n: number): Access => write(zMemory, z, n * elementBytes(zElement));
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

type Window = Pick<FieldsOf<'POOL'>, 'rows' | 'columns' | 'rowStride' | 'columnStride' | 'tapRows' | 'tapColumns' | 'tapRowStride' | 'tapColumnStride'>;
/** Bytes under all windows, `last` bytes in each tap. */
const windowBytes = (w: Window, last: number): number => (w.rows === 0 || w.columns === 0 || w.tapRows === 0 || w.tapColumns === 0 ? 0
  : (w.rows - 1) * w.rowStride + (w.columns - 1) * w.columnStride + (w.tapRows - 1) * w.tapRowStride + (w.tapColumns - 1) * w.tapColumnStride + last);

const accessTable: { readonly [N in OpName]: (fields: FieldsOf<N>) => readonly Access[] } = {
  END: () => [],
  LD: (f) => boxAccesses(f, true),
  ST: (f) => boxAccesses(f, false),
  FILL: (f) => [write(f.memory, f.chip, f.count * elementBytes(f.element))],
  GATHER: (f) => (f.rows === 0 || f.count === 0 ? [] : [read('ABUF', f.index, f.count * elementBytes(f.indexElement)), read('outside', f.far, (f.rows - 1) * f.pitch + f.run), write('ABUF', f.chip, f.count * f.run)]),
  MM: (f) => {
    const pixels = f.rows * f.columns;
    const taps = f.tapRows * f.tapColumns * (f.depthwise === 1 ? 1 : f.depth);
    if (pixels * taps * f.outputs === 0) return [];
    const sums = 4 * ((pixels - 1) * f.pitch + f.outputs);
    return [
      read('ABUF', f.a, windowBytes(f, (f.depthwise === 1 ? f.outputs : f.depth) * elementBytes(f.aElement))),
      read('WBUF', f.w, Math.ceil((((f.outputs - 1) * f.wChannel + (taps - 1) * f.wTap + 1) * Number(f.wBits)) / 8)),
      ...(f.accumulate === 1 ? [read('OBUF', f.o, sums)] : []), write('OBUF', f.o, sums),
    ];
  },
  RQ: (f) => [sourceOf(f, f.n), records(f), targetOf(f, f.n)],
  ADD2: (f) => [sourceOf(f, f.n), read(f.yMemory, f.y, f.n * elementBytes(f.yElement)), records(f), targetOf(f, f.n)],
  MUL2: (f) => [sourceOf(f, f.n), read(f.yMemory, f.y, f.n * elementBytes(f.yElement)), targetOf(f, f.n)],
  CLIP: (f) => [sourceOf(f, f.n), targetOf(f, f.n)],
  LUT: (f) => [sourceOf(f, f.n), read('PBUF', f.lut, f.rows * 256 * elementBytes(f.zElement)), targetOf(f, f.n)],
  LUTI: (f) => [sourceOf(f, f.n), read('PBUF', f.lut, KNOT_ENTRIES * 2), targetOf(f, f.n)],
  POOL: (f) => [read(f.xMemory, f.x, windowBytes(f, f.depth * elementBytes(f.xElement))), targetOf(f, f.rows * f.columns * f.depth)],
  RED: (f) => [sourceOf(f, f.outer * f.reduce * f.inner), ...(f.accumulate === 1 ? [read(f.zMemory, f.z, f.outer * f.inner * elementBytes(f.zElement))] : []), targetOf(f, f.outer * f.inner)],
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
