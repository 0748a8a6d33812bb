/** Sums and maxima along axes. The axes are brought together by the way the codes are loaded: as [kept before, reduced, kept after]. */
import { normalAxis, staticShape } from '../../../ir/dim.ts';
import { storageBytes } from '../../../ir/dtype.ts';
import type { Value } from '../../../ir/graph.ts';
import type { Step } from '../../group.ts';
import { alignUp } from '../blobs.ts';
import { denseStrides, elementOf, emit, move, Shelf, tooLarge, turns, type Stream } from '../stream.ts';
import { tilesOf } from '../tiles.ts';
import { finishOf, Parameters } from './finish.ts';

export const reduceStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const x = node.inputs['x'] as Value;
  const kind = node.op === 'reduce_max' ? 'max' : 'sum';
  const shape = staticShape(x.type.shape);
  const size = storageBytes(x.type.dtype);
  const strides = denseStrides(shape, size);
  const reduced = new Set((node.attrs as { axes: readonly number[] }).axes.map((axis) => normalAxis(axis, shape.length)!));
  const f = finishOf(step);
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
  const { ABUF, OBUF, PBUF } = stream.machine.memories;
  const lastKept = view[view.length - 1];

  // so many results at once, each with at most `depth` codes of its axis
  const leaving = f.passes === 0 && kind === 'sum' ? 0 : f.outBytes;
  const outBytes = leaving + f.middleBytes + f.residualBytes;
  const perResult = (depth: number): number => depth * size + outBytes;
  const depth = Math.min(reduce, Math.max(1, Math.floor((ABUF - 1024) / 2 / size / Math.min(lastKept, 64))));
  const records = f.recordBytes(channels);
  if (records + alignUp(f.tableBytes) + 64 > PBUF) throw tooLarge(stream, 'PBUF', records + alignUp(f.tableBytes) + 64, node);
  const most = Math.min(Math.floor((ABUF - 1024) / 2 / perResult(depth)), Math.floor(OBUF / 8) - 32);
  const tiles = tilesOf(view, Math.max(1, most), 0)!;
  const largest = Math.max(...tiles.map((tile) => tile.size));
  const abuf = new Shelf(stream, 'ABUF', [largest * depth * size, largest * depth * size, ...Array.from({ length: 2 }, () => [largest * f.residualBytes, largest * f.middleBytes, largest * leaving]).flat()], node);
  const two = (bytes: number): (() => number) => turns([abuf.take(bytes), abuf.take(bytes)]);
  const [nextX, nextY, nextMiddle, nextOut] = [two(largest * depth * size), two(largest * f.residualBytes), two(largest * f.middleBytes), two(largest * leaving)];
  const obuf = new Shelf(stream, 'OBUF', [4 * largest, 4 * largest], node);
  const nextSums = turns([obuf.take(4 * largest), obuf.take(4 * largest)]);
  const pbuf = new Shelf(stream, 'PBUF', [f.tableBytes, records], node);
  const parameters = new Parameters(stream, step, [pbuf.take(records)], pbuf.take(f.tableBytes));

  for (const tile of tiles) {
    const sums = nextSums();
    const from = tile.start.reduce((sum, index, axis) => sum + index * viewStrides[axis], 0);
    // the last kept axis stays innermost where it is contiguous, else the reduced codes do
    const inner = viewStrides[viewStrides.length - 1] === size ? tile.counts[tile.counts.length - 1] : 1;
    const outer = tile.size / inner;
    for (const piece of piecesOf(gone.map((axis) => shape[axis]), depth)) {
      const at = nextX();
      const keptCounts = inner === 1 ? tile.counts : tile.counts.slice(0, -1);
      const keptStrides = inner === 1 ? viewStrides : viewStrides.slice(0, -1);
      const counts = [...keptCounts, ...piece.counts, ...(inner === 1 ? [] : [inner])];
      const offset = piece.start.reduce((sum, index, i) => sum + index * strides[gone[i]], 0);
      move(stream, 'LD', 'ABUF', size, counts, { address: stream.addressOf(x) + from + offset, strides: [...keptStrides, ...gone.map((axis) => strides[axis]), ...(inner === 1 ? [] : [size])] },
        { address: at, strides: denseStrides(counts, size) }, node);
      const target = { zMemory: 'OBUF', z: sums, zElement: 'i32' } as const;
      emit(stream, 'RED', { xMemory: 'ABUF', x: at, xElement: elementOf(x.type.dtype), ...target, kind, outer, reduce: piece.size, inner, accumulate: piece.first ? 0 : 1 }, node);
    }
    if (kind === 'max') {
      const z = nextOut();
      emit(stream, 'CLIP', { xMemory: 'OBUF', x: sums, xElement: 'i32', zMemory: 'ABUF', z, zElement: elementOf(step.output.type.dtype), n: tile.size, low: -(2 ** 31), high: 2 ** 31 - 1 }, node);
      move(stream, 'ST', 'ABUF', f.outBytes, [tile.size], { address: stream.addressOf(step.output) + tile.offset * f.outBytes, strides: [f.outBytes] }, { address: z, strides: [f.outBytes] }, node);
      continue;
    }
    // the records of a tile that holds whole rows of channels, or a part of one row
    const count = tile.counts[tile.counts.length - 1];
    const [firstChannel, channelCount] = channelAxis && channels === lastKept ? [tile.start[tile.start.length - 1], count] : [0, 1];
    let y: number | null = null;
    if (f.residual !== null) {
      y = nextY();
      move(stream, 'LD', 'ABUF', f.residualBytes, [tile.size], { address: stream.addressOf(f.residual) + tile.offset * f.residualBytes, strides: [f.residualBytes] }, { address: y, strides: [f.residualBytes] }, node);
    }
    const made = parameters.finish(sums, tile.size / channelCount, firstChannel, channelCount, y, nextOut(), nextMiddle());
    move(stream, 'ST', made.memory, f.outBytes, [tile.size], { address: stream.addressOf(step.output) + tile.offset * f.outBytes, strides: [f.outBytes] }, { address: made.address, strides: [f.outBytes] }, node);
  }
};

/** A box of reduced axes in pieces of at most `most` codes. */
const piecesOf = (shape: readonly number[], most: number): readonly { readonly start: readonly number[]; readonly counts: readonly number[]; readonly size: number; readonly first: boolean }[] =>
  tilesOf(shape, most, 0)!.map(({ start, counts, size }, i) => ({ start, counts, size, first: i === 0 }));
