/** Steps that move codes: boxes through ABUF, two places by turns; and rows picked by indices. */
import { normalAxis, sizeOf, staticShape, type StaticShape } from '../../../ir/dim.ts';
import { storageBytes } from '../../../ir/dtype.ts';
import type { Value } from '../../../ir/graph.ts';
import type { Step } from '../../group.ts';
import { denseStrides, elementOf, emit, move, moveBytes, tooLarge, type Owner, type Stream } from '../stream.ts';
import { tilesOf } from '../tiles.ts';
import { fittingTiles, pairs } from './elements.ts';

interface Side { readonly address: number; readonly strides: readonly number[] }

/** Elements of a box from one place outside to another; strides in bytes. */
export const copyBox = (stream: Stream, counts: StaticShape, elementBytes: number, from: Side, to: Side, node: Owner): void => {
  if (counts.includes(0)) return;
  const most = Math.floor((stream.machine.memories.ABUF - 512) / 2 / elementBytes);
  const tiles = tilesOf(counts, Math.min(most, 16384), 0)!;
  const [next] = pairs(stream, [Math.max(...tiles.map(({ size }) => size)) * elementBytes], node);
  for (const tile of tiles) {
    const place = next();
    const at = ({ address, strides }: Side): Side => ({ address: address + tile.start.reduce((sum, index, axis) => sum + index * strides[axis], 0), strides });
    const chip = { address: place, strides: denseStrides(tile.counts, elementBytes) };
    move(stream, 'LD', 'ABUF', elementBytes, tile.counts, at(from), chip, node);
    move(stream, 'ST', 'ABUF', elementBytes, tile.counts, at(to), chip, node);
  }
};

const shapeOf = (value: Value): StaticShape => staticShape(value.type.shape);
const side = (stream: Stream, value: Value): Side => ({ address: stream.addressOf(value), strides: denseStrides(shapeOf(value), storageBytes(value.type.dtype)) });

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
  copyBox(stream, shapeOf(output), storageBytes(output.type.dtype), { address: from.address + start * from.strides[along], strides }, side(stream, output), root);
};

export const padStep = (stream: Stream, { root, output }: Step): void => {
  const { pads, value } = root.attrs as { pads: readonly number[]; value: number };
  const x = root.inputs['x'] as Value;
  const size = storageBytes(output.type.dtype);
  const total = sizeOf(output.type.shape);
  const element = size === 8 ? 'i32' : elementOf(output.type.dtype);
  // a 64-bit code is filled in by two words, so only a few of them at once
  const piece = Math.min(total, size === 8 ? 64 : Math.floor((stream.machine.memories.ABUF - 512) / 2 / size));
  const [next] = pairs(stream, [piece * size], root);
  const place = next();
  emit(stream, 'FILL', { memory: 'ABUF', chip: place, element, count: size === 8 ? 2 * piece : piece, value }, root);
  if (size === 8) {
    for (let i = 0; i < piece; i++) emit(stream, 'FILL', { memory: 'ABUF', chip: place + 8 * i + 4, element, count: 1, value: value < 0 ? -1 : 0 }, root);
  }
  for (let from = 0; from < total; from += piece) moveBytes(stream, 'ST', 'ABUF', Math.min(piece, total - from) * size, stream.addressOf(output) + from * size, place, root);
  const to = side(stream, output);
  copyBox(stream, shapeOf(x), size, side(stream, x), { ...to, address: to.address + to.strides.reduce((sum, stride, axis) => sum + pads[axis] * stride, 0) }, root);
};

/** A dense copy. */
export const copyStep = (stream: Stream, from: Value, address: number, node: Owner): void => {
  const bytes = sizeOf(from.type.shape) * storageBytes(from.type.dtype);
  copyBox(stream, [bytes], 1, { address: stream.addressOf(from), strides: [1] }, { address, strides: [1] }, node);
};

export const gatherStep = (stream: Stream, { root, output }: Step): void => {
  const [table, indices] = [root.inputs['table'] as Value, root.inputs['indices'] as Value];
  const [rows, ...row] = shapeOf(table);
  const run = sizeOf(row) * storageBytes(table.type.dtype);
  const indexBytes = storageBytes(indices.type.dtype);
  const count = sizeOf(indices.type.shape);
  if (2 * (run + indexBytes) + 512 > stream.machine.memories.ABUF) throw tooLarge(stream, 'ABUF', 2 * (run + indexBytes) + 512, root);
  const tiles = fittingTiles(stream, [count], run + indexBytes, 0, root);
  const most = Math.max(...tiles.map(({ size }) => size));
  const [nextIndex, nextRows] = pairs(stream, [most * indexBytes, most * run], root);
  for (const { offset, size } of tiles) {
    const [index, chip] = [nextIndex(), nextRows()];
    moveBytes(stream, 'LD', 'ABUF', size * indexBytes, stream.addressOf(indices) + offset * indexBytes, index, root);
    emit(stream, 'GATHER', { chip, index, indexElement: elementOf(indices.type.dtype), count: size, rows, run, pitch: run, far: stream.addressOf(table) }, root);
    moveBytes(stream, 'ST', 'ABUF', size * run, stream.addressOf(output) + offset * run, chip, root);
  }
};
