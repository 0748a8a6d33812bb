/** Sums and maxima along axes. The axes are brought together by the way the codes are loaded: as [kept before, reduced, kept after]. */
import { normalAxis, staticShape } from '../../../ir/dim.ts';
import { storageBytes } from '../../../ir/dtype.ts';
import type { Value } from '../../../ir/graph.ts';
import type { Step } from '../../group.ts';
import { alignUp } from '../blobs.ts';
import { bytesFor, elementBits } from '../isa.ts';
import { denseStrides, emit, move, moveElements, NoRoom, roomIn, Shelf, turns, type Stream } from '../stream.ts';
import { tilesOf } from '../tiles.ts';
import { finishOf, Parameters, type Rows } from './finish.ts';

export const reduceStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const x = node.inputs['x'] as Value;
  const kind = node.op === 'reduce_max' ? 'max' : 'sum';
  const shape = staticShape(x.type.shape);
  const size = storageBytes(x.type.dtype);
  const strides = denseStrides(shape, size);
  const reduced = new Set((node.attrs as { axes: readonly number[] }).axes.map((axis) => normalAxis(axis, shape.length)!));
  const f = finishOf(stream, step);
  /** kept axes in order; the channels of the result are its last axis */
  const kept = shape.map((_, axis) => axis).filter((axis) => !reduced.has(axis));
  const gone = shape.map((_, axis) => axis).filter((axis) => reduced.has(axis));
  const reduce = gone.reduce((product, axis) => product * shape[axis], 1);
  const outShape = staticShape(node.output.type.shape);
  const channels = outShape.at(-1) ?? 1;
  const keptShape = kept.map((axis) => shape[axis]);
  /** whether the last axis of the result is an axis of x, so that a range of channels is a box */
  const channelAxis = kept.length > 0 && (outShape.length === kept.length || kept[kept.length - 1] === shape.length - 1);
  const view = channelAxis ? keptShape : [...keptShape, 1];
  const viewStrides = channelAxis ? kept.map((axis) => strides[axis]) : [...kept.map((axis) => strides[axis]), 0];
  const [ABUF, OBUF, PBUF] = (['ABUF', 'OBUF', 'PBUF'] as const).map((memory) => roomIn(stream, memory));
  const home = stream.homeOf(x);
  const lastKept = view[view.length - 1];

  // so many results at once, each with at most `depth` codes of its axis
  const [outBits, residualBytes, middleBytes] = [elementBits(f.out), f.residual === null ? 0 : elementBits(stream.elementOf(f.residual)) / 8, f.middle === null ? 0 : elementBits(f.middle) / 8];
  const leaving = f.passes === 0 && kind === 'sum' ? 0 : outBits / 8;
  const outBytes = leaving + middleBytes + residualBytes;
  const perResult = (depth: number): number => depth * size + outBytes;
  const depth = Math.min(reduce, Math.max(1, Math.floor((ABUF - 1024) / 2 / size / Math.min(lastKept, 64))));
  const records = f.recordBytes(channels);
  if (ABUF < 2048) throw new NoRoom(stream, 'ABUF', 2048, node);
  if (records + alignUp(f.tableBytes) + 64 > PBUF) throw new NoRoom(stream, 'PBUF', records + alignUp(f.tableBytes) + 64, node);
  const most = Math.min(Math.floor((ABUF - 1024) / 2 / perResult(depth)), Math.floor(OBUF / 8) - 32);
  const tiles = tilesOf(view, Math.max(1, most), 0)!;
  const largest = Math.max(...tiles.map((tile) => tile.size));
  const abuf = new Shelf(stream, 'ABUF', [largest * depth * size, largest * depth * size, ...Array.from({ length: 2 }, () => [largest * residualBytes, largest * middleBytes, largest * leaving]).flat()], node);
  const two = (bytes: number): (() => number) => turns([abuf.take(bytes), abuf.take(bytes)]);
  const [nextX, nextY, nextMiddle, nextOut] = [two(largest * depth * size), two(largest * residualBytes), two(largest * middleBytes), two(largest * leaving)];
  const obuf = new Shelf(stream, 'OBUF', [4 * largest, 4 * largest], node);
  const nextSums = turns([obuf.take(4 * largest), obuf.take(4 * largest)]);
  const pbuf = new Shelf(stream, 'PBUF', [f.tableBytes, records], node);
  const parameters = new Parameters(stream, step, f, [pbuf.take(records)], pbuf.take(f.tableBytes));

  for (const tile of tiles) {
    const sums = nextSums();
    const from = tile.start.reduce((sum, index, axis) => sum + index * viewStrides[axis], 0);
    // the last kept axis stays innermost where it is contiguous, else the reduced codes do
    const inner = viewStrides[viewStrides.length - 1] === size ? tile.counts[tile.counts.length - 1] : 1;
    const outer = tile.size / inner;
    for (const piece of piecesOf(gone.map((axis) => shape[axis]), depth)) {
      const keptCounts = inner === 1 ? tile.counts : tile.counts.slice(0, -1);
      const keptStrides = inner === 1 ? viewStrides : viewStrides.slice(0, -1);
      const counts = [...keptCounts, ...piece.counts, ...(inner === 1 ? [] : [inner])];
      const offset = piece.start.reduce((sum, index, i) => sum + index * strides[gone[i]], 0);
      const source = { ...home, address: home.address + from + offset, strides: [...keptStrides, ...gone.map((axis) => strides[axis]), ...(inner === 1 ? [] : [size])] };
      const dense = denseStrides(counts, size);
      // codes that follow each other on chip are read there
      const here = home.memory === 'ABUF' && dense.every((stride, axis) => counts[axis] === 1 || stride === source.strides[axis]);
      const at = here ? source.address : nextX();
      if (!here) move(stream, size, counts, source, { memory: 'ABUF', address: at, strides: dense }, node);
      const target = { zMemory: 'OBUF', z: sums, zElement: 'i32' } as const;
      emit(stream, 'RED', { xMemory: 'ABUF', x: at, xElement: stream.elementOf(x), ...target, kind, outer, reduce: piece.size, inner, accumulate: piece.first ? 0 : 1 }, node);
    }
    const to = stream.homeOf(step.output);
    const target = { memory: to.memory, address: to.address + bytesFor(f.out, tile.offset) };
    const onChip = to.memory === 'ABUF';
    const leave = (address: number, memory: 'ABUF' | 'OBUF'): void => moveElements(stream, f.out, [tile.size], { memory, address, strides: [1] }, { ...target, strides: [1] }, node);
    if (kind === 'max') {
      const z = onChip ? target.address : nextOut();
      emit(stream, 'CLIP', { xMemory: 'OBUF', x: sums, xElement: 'i32', zMemory: 'ABUF', z, zElement: f.out, n: tile.size, low: -(2 ** 31), high: 2 ** 31 - 1 }, node);
      if (!onChip) leave(z, 'ABUF');
      continue;
    }
    if (f.passes === 0) {
      leave(sums, 'OBUF');
      continue;
    }
    // the records of a tile that holds whole rows of channels, or a part of one row
    const count = tile.counts[tile.counts.length - 1];
    const [firstChannel, channelCount] = channelAxis && channels === lastKept ? [tile.start[tile.start.length - 1], count] : [0, 1];
    let y: Rows | null = null;
    if (f.residual !== null) {
      const beside = stream.homeOf(f.residual);
      const element = stream.elementOf(f.residual);
      const address = beside.address + bytesFor(element, tile.offset);
      y = { memory: 'ABUF', address: beside.memory === 'ABUF' ? address : nextY(), element, pitch: 0 };
      if (beside.memory === 'outside') moveElements(stream, element, [tile.size], { ...beside, address, strides: [1] }, { memory: 'ABUF', address: y.address, strides: [1] }, node);
    }
    const z: Rows = { memory: 'ABUF', address: onChip ? target.address : nextOut(), element: f.out, pitch: 0 };
    parameters.finish(sums, tile.size, firstChannel, channelCount, y, z, nextMiddle());
    if (!onChip) leave(z.address, 'ABUF');
  }
};

/** A box of reduced axes in pieces of at most `most` codes. */
const piecesOf = (shape: readonly number[], most: number): readonly { readonly start: readonly number[]; readonly counts: readonly number[]; readonly size: number; readonly first: boolean }[] =>
  tilesOf(shape, most, 0)!.map(({ start, counts, size }, i) => ({ start, counts, size, first: i === 0 }));
