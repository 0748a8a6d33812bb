/** Steps that go element by element: rescalings, products, limits, tables. Boxes of the result, two sets of places by turns. */
import { equalShapes, normalAxis, sizeOf, staticShape, stridesOf, type StaticShape } from '../../../ir/dim.ts';
import { storageBytes } from '../../../ir/dtype.ts';
import type { Node, Value } from '../../../ir/graph.ts';
import type { Step } from '../../group.ts';
import { alignUp } from '../blobs.ts';
import { denseStrides, elementOf, emit, move, moveBytes, Shelf, tooLarge, turns, type Owner, type Stream } from '../stream.ts';
import { tilesOf, type Tile } from '../tiles.ts';
import { bytesIn, lookUp, recordsOf, rescale } from './finish.ts';

/** Tiles for which twice `bytesPerElement` fit into ABUF; the last `whole` axes are never cut. At least two, so that engines overlap. */
export const fittingTiles = (stream: Stream, shape: StaticShape, bytesPerElement: number, whole: number, node: Node): readonly Tile[] => {
  const most = Math.floor((stream.machine.memories.ABUF - 512) / 2 / bytesPerElement);
  // pieces of a few thousand elements hide the latency of the memory
  const wanted = Math.max(4096, 16 * stream.machine.vector.lanes);
  const tiles = tilesOf(shape, Math.min(most, wanted), whole) ?? tilesOf(shape, most, whole);
  if (tiles === null) throw tooLarge(stream, 'ABUF', 2 * bytesPerElement * shape.slice(-whole).reduce((product, dim) => product * dim, 1), node);
  return tiles;
};

/** Loads a tile of `value` broadcast to the shape that the tile is cut from. */
export const loadTile = (stream: Stream, value: Value, shape: StaticShape, tile: Tile, place: number, node: Node): void => {
  const own = staticShape(value.type.shape);
  const size = storageBytes(value.type.dtype);
  const address = stream.addressOf(value);
  if (equalShapes(own, shape)) return moveBytes(stream, 'LD', 'ABUF', tile.size * size, address + tile.offset * size, place, node);
  const lead = shape.length - own.length;
  const ownStrides = stridesOf(own);
  const strides = shape.map((_, axis) => (axis < lead || own[axis - lead] === 1 ? 0 : ownStrides[axis - lead] * size));
  const from = tile.start.reduce((sum, index, axis) => sum + index * strides[axis], 0);
  move(stream, 'LD', 'ABUF', size, tile.counts, { address: address + from, strides }, { address: place, strides: denseStrides(tile.counts, size) }, node);
};
export const storeTile = (stream: Stream, value: Value, tile: Tile, place: number, node: Node): void => {
  const size = storageBytes(value.type.dtype);
  moveBytes(stream, 'ST', 'ABUF', tile.size * size, stream.addressOf(value) + tile.offset * size, place, node);
};

export const pairs = (stream: Stream, sizes: readonly number[], node: Owner): readonly (() => number)[] => {
  const shelf = new Shelf(stream, 'ABUF', sizes.flatMap((size) => [size, size]), node);
  return sizes.map((size) => turns([shelf.take(size), shelf.take(size)]));
};

/** requantize and requantize_add on their own, and a table behind them. */
export const rescaleStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const x = node.inputs['x'] as Value;
  const y = node.op === 'requantize_add' ? node.inputs['y'] as Value : null;
  const shape = staticShape(x.type.shape);
  const sizes = [x, ...(y === null ? [] : [y]), node.output, step.output].map((value) => storageBytes(value.type.dtype));
  const records = recordsOf(stream, node);
  const channels = shape.at(-1) ?? 1;
  const tiles = fittingTiles(stream, shape, sizes.reduce((sum, size) => sum + size, 0), records.count > 1 ? 1 : 0, node);
  const most = Math.max(...tiles.map(({ size }) => size));
  const tableBytes = step.table === null ? 0 : bytesIn(step.table.inputs['values'] as Value).length;
  const pbuf = new Shelf(stream, 'PBUF', [16 * records.count, tableBytes], node);
  const [par, lut] = [pbuf.take(16 * records.count), pbuf.take(tableBytes)];
  moveBytes(stream, 'LD', 'PBUF', 16 * records.count, records.address, par, node);
  if (step.table !== null) moveBytes(stream, 'LD', 'PBUF', tableBytes, stream.put('luts', bytesIn(step.table.inputs['values'] as Value)), lut, step.table);
  const places = pairs(stream, sizes.map((size) => size * most), node);
  for (const tile of tiles) {
    const [atX, ...rest] = places.map((next) => next());
    const [atY, middle, out] = y === null ? [null, ...rest] : rest;
    loadTile(stream, x, shape, tile, atX, node);
    if (y !== null) loadTile(stream, y, shape, tile, atY!, node);
    rescale(stream, node, { xMemory: 'ABUF', x: atX, xElement: elementOf(x.type.dtype), z: middle!, n: tile.size, channels: records.count > 1 ? channels : 1, par, perChannel: records.count > 1 },
      y === null ? null : { address: atY!, element: elementOf(y.type.dtype) });
    if (step.table !== null) lookUp(stream, step.table, { x: middle!, xElement: elementOf(node.output.type.dtype), n: tile.size, lut, rows: 1 }, out!);
    storeTile(stream, step.output, tile, step.table === null ? middle! : out!, node);
  }
};

/** requantize_mul, clamp and table_interpolated. */
export const plainStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const x = node.inputs['x'] as Value;
  const y = node.op === 'requantize_mul' ? node.inputs['y'] as Value : null;
  const shape = staticShape(x.type.shape);
  const sizes = [x, ...(y === null ? [] : [y]), step.output].map((value) => storageBytes(value.type.dtype));
  const tiles = fittingTiles(stream, shape, sizes.reduce((sum, size) => sum + size, 0), 0, node);
  const most = Math.max(...tiles.map(({ size }) => size));
  let lut = 0;
  if (node.op === 'table_interpolated') {
    const bytes = bytesIn(node.inputs['values'] as Value);
    lut = new Shelf(stream, 'PBUF', [bytes.length], node).take(bytes.length);
    moveBytes(stream, 'LD', 'PBUF', bytes.length, stream.put('luts', bytes), lut, node);
  }
  const places = pairs(stream, sizes.map((size) => size * most), node);
  for (const tile of tiles) {
    const at = places.map((next) => next());
    const z = at[at.length - 1];
    loadTile(stream, x, shape, tile, at[0], node);
    if (y !== null) loadTile(stream, y, shape, tile, at[1], node);
    const common = { xMemory: 'ABUF', x: at[0], xElement: elementOf(x.type.dtype), zMemory: 'ABUF', z, zElement: elementOf(step.output.type.dtype), n: tile.size } as const;
    if (y !== null) {
      const { zeroX, zeroY, mul, add, shift, low, high } = node.attrs as { zeroX: number; zeroY: number; mul: number; add: bigint; shift: number; low: number; high: number };
      emit(stream, 'MUL2', { ...common, yMemory: 'ABUF', y: at[1], yElement: elementOf(y.type.dtype), zeroX, zeroY, mul, add, shift, low, high }, node);
    } else if (node.op === 'clamp') {
      const { low, high } = node.attrs as { low: number; high: number };
      emit(stream, 'CLIP', { ...common, low, high }, node);
    } else emit(stream, 'LUTI', { ...common, lut }, node);
    storeTile(stream, step.output, tile, z, node);
  }
};

/** Bytes looked up; with a table for each index of an axis, one run of equal index after another. */
export const tableStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const [x, values] = [node.inputs['x'] as Value, node.inputs['values'] as Value];
  const shape = staticShape(x.type.shape);
  const outBytes = storageBytes(step.output.type.dtype);
  const bytes = bytesIn(values);
  const address = stream.put('luts', bytes);
  const rows = staticShape(values.type.shape).length === 1 ? 1 : staticShape(values.type.shape)[0];
  const axis = normalAxis((node.attrs as { axis: number }).axis, shape.length) ?? 0;
  const inner = rows === 1 ? 1 : sizeOf(shape.slice(axis + 1));
  const onLastAxis = rows > 1 && inner === 1 && alignUp(bytes.length) <= stream.machine.memories.PBUF;
  const oneRow = 256 * outBytes;
  /** where the axis is not the last, or its tables do not fit: [outer, rows, inner], one row at a time */
  const view = rows === 1 ? [1, 1, sizeOf(shape)] : [sizeOf(shape.slice(0, axis)), rows, inner];
  const [cut, whole] = onLastAxis ? [[view[0], rows], 1] : [view.slice(2), 0];
  const tiles = fittingTiles(stream, cut, 1 + outBytes, whole, node);
  const most = Math.max(...tiles.map(({ size }) => size));
  const tableBytes = onLastAxis ? bytes.length : oneRow;
  const pbuf = new Shelf(stream, 'PBUF', onLastAxis || rows === 1 ? [tableBytes] : [oneRow, oneRow], node);
  const next = turns(onLastAxis || rows === 1 ? [pbuf.take(tableBytes)] : [pbuf.take(oneRow), pbuf.take(oneRow)]);
  const [nextX, nextZ] = pairs(stream, [most, most * outBytes], node);
  const run = (base: number, lut: number, tables: number): void => tiles.forEach((tile) => {
    const [at, z] = [nextX(), nextZ()];
    moveBytes(stream, 'LD', 'ABUF', tile.size, stream.addressOf(x) + base + tile.offset, at, node);
    lookUp(stream, node, { x: at, xElement: elementOf(x.type.dtype), n: tile.size, lut, rows: tables }, z);
    moveBytes(stream, 'ST', 'ABUF', tile.size * outBytes, stream.addressOf(step.output) + (base + tile.offset) * outBytes, z, node);
  });
  if (onLastAxis || rows === 1) {
    const lut = next();
    moveBytes(stream, 'LD', 'PBUF', tableBytes, address, lut, node);
    return run(0, lut, onLastAxis ? rows : 1);
  }
  for (let row = 0; row < rows; row++) {
    const lut = next();
    moveBytes(stream, 'LD', 'PBUF', oneRow, address + row * oneRow, lut, node);
    for (let outer = 0; outer < view[0]; outer++) run((outer * rows + row) * inner, lut, 1);
  }
};
