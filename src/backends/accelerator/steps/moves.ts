/** Steps that move codes: at once where one side is on chip, else as boxes through ABUF, two places by turns; and rows picked by indices. */
import { normalAxis, sizeOf, staticShape, type StaticShape } from '../../../ir/dim.ts';
import { storageBytes } from '../../../ir/dtype.ts';
import type { Value } from '../../../ir/graph.ts';
import type { Step } from '../../group.ts';
import { denseStrides, emit, move, moveBytes, NoRoom, roomIn, Shelf, turns, type Home, type Owner, type Side, type Stream } from '../stream.ts';
import { tilesOf } from '../tiles.ts';
import { plainElement } from './finish.ts';

/** Elements of a box from one place to another; strides in bytes. */
export const copyBox = (stream: Stream, counts: StaticShape, elementBytes: number, from: Side, to: Side, node: Owner): void => {
  if (counts.includes(0)) return;
  if (from.memory !== 'outside' || to.memory !== 'outside') return move(stream, elementBytes, counts, from, to, node);
  const most = Math.floor((roomIn(stream, 'ABUF') - 512) / 2 / elementBytes);
  if (most < 1) throw new NoRoom(stream, 'ABUF', 2 * elementBytes + 512, node);
  const tiles = tilesOf(counts, Math.min(most, 16384), 0)!;
  const bytes = Math.max(...tiles.map(({ size }) => size)) * elementBytes;
  const shelf = new Shelf(stream, 'ABUF', [bytes, bytes], node);
  const next = turns([shelf.take(bytes), shelf.take(bytes)]);
  for (const tile of tiles) {
    const at = ({ memory, address, strides }: Side): Side => ({ memory, address: address + tile.start.reduce((sum, index, axis) => sum + index * strides[axis], 0), strides });
    const chip: Side = { memory: 'ABUF', address: next(), strides: denseStrides(tile.counts, elementBytes) };
    move(stream, elementBytes, tile.counts, at(from), chip, node);
    move(stream, elementBytes, tile.counts, chip, at(to), node);
  }
};

const shapeOf = (value: Value): StaticShape => staticShape(value.type.shape);
const side = (stream: Stream, value: Value): Side => ({ ...stream.homeOf(value), strides: denseStrides(shapeOf(value), storageBytes(value.type.dtype)) });

export const transposeStep = (stream: Stream, { root, output }: Step): void => {
  const from = side(stream, root.inputs['x'] as Value);
  const { perm } = root.attrs as { perm: readonly number[] };
  copyBox(stream, shapeOf(output), storageBytes(output.type.dtype), { ...from, strides: perm.map((axis) => from.strides[axis]) }, side(stream, output), root);
};

export const concatStep = (stream: Stream, { root, output }: Step): void => {
  const axis = normalAxis((root.attrs as { axis: number }).axis, output.type.shape.length)!;
  const to = side(stream, output);
  let offset = 0;
  for (const part of root.inputs['xs'] as readonly Value[]) {
    copyBox(stream, shapeOf(part), storageBytes(output.type.dtype), side(stream, part), { ...to, address: to.address + offset * to.strides[axis] }, root);
    offset += shapeOf(part)[axis];
  }
};

export const sliceStep = (stream: Stream, { root, output }: Step): void => {
  const { axis, start, step } = root.attrs as { axis: number; start: number; step: number };
  const from = side(stream, root.inputs['x'] as Value);
  const along = normalAxis(axis, output.type.shape.length)!;
  const strides = from.strides.map((stride, i) => (i === along ? stride * step : stride));
  copyBox(stream, shapeOf(output), storageBytes(output.type.dtype), { ...from, address: from.address + start * from.strides[along], strides }, side(stream, output), root);
};

export const padStep = (stream: Stream, { root, output }: Step): void => {
  const { pads, value } = root.attrs as { pads: readonly number[]; value: number };
  const x = root.inputs['x'] as Value;
  const size = storageBytes(output.type.dtype);
  const total = sizeOf(output.type.shape);
  const element = size === 8 ? 'i32' : plainElement(output.type.dtype);
  const to = side(stream, output);
  if (to.memory === 'ABUF' && size < 8) emit(stream, 'FILL', { memory: 'ABUF', chip: to.address, element, count: total, value }, root);
  else {
    // a 64-bit code is filled in by two words, so only a few of them at once
    const room = Math.floor((roomIn(stream, 'ABUF') - 512) / 2 / size);
    if (room < 1) throw new NoRoom(stream, 'ABUF', 2 * size + 512, root);
    const piece = Math.min(total, size === 8 ? 64 : room);
    const place = new Shelf(stream, 'ABUF', [piece * size], root).take(piece * size);
    emit(stream, 'FILL', { memory: 'ABUF', chip: place, element, count: size === 8 ? 2 * piece : piece, value }, root);
    if (size === 8) {
      for (let i = 0; i < piece; i++) emit(stream, 'FILL', { memory: 'ABUF', chip: place + 8 * i + 4, element, count: 1, value: value < 0 ? -1 : 0 }, root);
    }
    for (let from = 0; from < total; from += piece) moveBytes(stream, Math.min(piece, total - from) * size, { memory: 'ABUF', address: place }, { ...to, address: to.address + from * size }, root);
  }
  copyBox(stream, shapeOf(x), size, side(stream, x), { ...to, address: to.address + to.strides.reduce((sum, stride, axis) => sum + pads[axis] * stride, 0) }, root);
};

/** A dense copy. */
export const copyStep = (stream: Stream, from: Value, to: Home, node: Owner): void => {
  const bytes = sizeOf(from.type.shape) * storageBytes(from.type.dtype);
  copyBox(stream, [bytes], 1, { ...stream.homeOf(from), strides: [1] }, { ...to, strides: [1] }, node);
};

export const gatherStep = (stream: Stream, { root, output }: Step): void => {
  const [table, indices] = [root.inputs['table'] as Value, root.inputs['indices'] as Value];
  const [rows, ...row] = shapeOf(table);
  const run = sizeOf(row) * storageBytes(table.type.dtype);
  const indexElement = stream.elementOf(indices);
  const indexBytes = storageBytes(indices.type.dtype);
  const count = sizeOf(indices.type.shape);
  const [from, to] = [stream.homeOf(indices), stream.homeOf(output)];
  const [indexPlace, rowPlace] = [from.memory === 'ABUF' ? 0 : indexBytes, to.memory === 'ABUF' ? 0 : run];
  const most = indexPlace + rowPlace === 0 ? count : Math.min(count, Math.floor((roomIn(stream, 'ABUF') - 512) / 2 / (indexPlace + rowPlace)));
  if (most < 1) throw new NoRoom(stream, 'ABUF', 2 * (indexPlace + rowPlace) + 512, root);
  const tiles = tilesOf([count], Math.min(most, 4096, 65535), 0)!;
  const largest = Math.max(...tiles.map(({ size }) => size));
  const shelf = new Shelf(stream, 'ABUF', [largest * indexPlace, largest * indexPlace, largest * rowPlace, largest * rowPlace], root);
  const [nextIndex, nextRows] = [indexPlace, rowPlace].map((bytes) => turns([shelf.take(largest * bytes), shelf.take(largest * bytes)]));
  for (const { offset, size } of tiles) {
    const index = indexPlace === 0 ? from.address + offset * indexBytes : nextIndex();
    const chip = rowPlace === 0 ? to.address + offset * run : nextRows();
    if (indexPlace > 0) moveBytes(stream, size * indexBytes, { ...from, address: from.address + offset * indexBytes }, { memory: 'ABUF', address: index }, root);
    emit(stream, 'GATHER', { chip, index, indexElement, count: size, rows, run, pitch: run, far: stream.homeOf(table).address }, root);
    if (rowPlace > 0) moveBytes(stream, size * run, { memory: 'ABUF', address: chip }, { ...to, address: to.address + offset * run }, root);
  }
};
