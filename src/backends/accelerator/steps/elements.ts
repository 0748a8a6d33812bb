/** Steps that go element by element: rescalings, products, limits, tables. Boxes of the result; what is not on chip passes through two sets of places by turns. */
import { equalShapes, normalAxis, sizeOf, staticShape, stridesOf, type StaticShape } from '../../../ir/dim.ts';
import type { Node, Value } from '../../../ir/graph.ts';
import type { Step } from '../../group.ts';
import { tableBytes } from '../accesses.ts';
import { alignUp } from '../blobs.ts';
import { bytesFor, elementBits, type Element } from '../isa.ts';
import { denseStrides, emit, loadBytes, moveElements, NoRoom, roomIn, Shelf, turns, type Stream } from '../stream.ts';
import { tilesOf, type Tile } from '../tiles.ts';
import { bytesIn, expectMultiplier, lookUp, plainElement, recordsOf, rescale, type Rows } from './finish.ts';

/** Tiles for which twice `bytesPerElement` fit into ABUF; the last `whole` axes are never cut. At least two, so that engines overlap. */
export const fittingTiles = (stream: Stream, shape: StaticShape, bytesPerElement: number, whole: number, node: Node): readonly Tile[] => {
  const room = roomIn(stream, 'ABUF') - 512;
  const most = bytesPerElement === 0 ? Infinity : Math.max(0, Math.floor(room / 2 / bytesPerElement));
  // pieces of a few thousand elements hide the latency of the memory
  const wanted = Math.max(4096, 16 * stream.machine.vector.lanes);
  const tiles = most < 1 ? null : tilesOf(shape, Math.min(most, wanted), whole) ?? tilesOf(shape, most, whole);
  if (tiles === null) throw new NoRoom(stream, 'ABUF', Math.ceil(2 * bytesPerElement * (whole === 0 ? 1 : shape.slice(-whole).reduce((product, dim) => product * dim, 1))) + 512, node);
  return tiles;
};

export const pairs = (stream: Stream, sizes: readonly number[], node: Node): readonly (() => number)[] => {
  const shelf = new Shelf(stream, 'ABUF', sizes.flatMap((size) => [size, size]), node);
  return sizes.map((size) => turns([shelf.take(size), shelf.take(size)]));
};

/** The tiles of a step that reads values broadcast to one shape and writes one value of it. */
export interface Stage {
  readonly tiles: readonly Tile[];
  /** where a tile of an operand lies on chip; brought there if need be */
  read(operand: number, tile: Tile): number;
  /** where to put a tile of the result; `leave` then takes it away if it does not belong there */
  write(tile: Tile): number;
  leave(tile: Tile, place: number): void;
  /** places of tiles that come and go within the step */
  readonly extra: readonly (() => number)[];
}
/** `cut`: the shape that the tiles are cut from if it is another way to see the elements of all operands and the result. */
export const stageOf = (stream: Stream, node: Node, reads: readonly Value[], output: Value, { extra = [], whole = 0, cut }: { readonly extra?: readonly Element[]; readonly whole?: number; readonly cut?: StaticShape }): Stage => {
  const shape = cut ?? staticShape(output.type.shape);
  const onChip = (value: Value): boolean => stream.homeOf(value).memory === 'ABUF';
  const direct = reads.map((value) => onChip(value) && (cut !== undefined || equalShapes(staticShape(value.type.shape), shape)));
  const elements = reads.map((value) => stream.elementOf(value));
  const out = stream.elementOf(output);
  const passing = [...elements.filter((_, i) => !direct[i]), ...extra, ...(onChip(output) ? [] : [out])];
  // elements of four bits stand in pairs, so rows are not cut
  const narrow = [...elements, out].some((element) => elementBits(element) < 8);
  const tiles = fittingTiles(stream, shape, passing.reduce((sum, element) => sum + elementBits(element) / 8, 0), narrow ? Math.max(1, whole) : whole, node);
  const most = Math.max(...tiles.map(({ size }) => size));
  const places = pairs(stream, passing.map((element) => bytesFor(element, most)), node);
  const [nextRead, nextExtra, [nextOut]] = [places.slice(0, direct.filter((is) => !is).length), places.slice(direct.filter((is) => !is).length, direct.filter((is) => !is).length + extra.length), places.slice(-1)];
  return {
    tiles, extra: nextExtra,
    read: (operand, tile) => {
      const { memory, address } = stream.homeOf(reads[operand]);
      const element = elements[operand];
      if (direct[operand]) return address + bytesFor(element, tile.offset);
      const place = nextRead[direct.slice(0, operand).filter((is) => !is).length]();
      const own = staticShape(reads[operand].type.shape);
      const target = { memory: 'ABUF', address: place, strides: denseStrides(tile.counts) } as const;
      if (cut !== undefined || equalShapes(own, shape)) moveElements(stream, element, [tile.size], { memory, address: address + bytesFor(element, tile.offset), strides: [1] }, { ...target, strides: [1] }, node);
      else {
        const lead = shape.length - own.length;
        const ownStrides = stridesOf(own);
        const strides = shape.map((_, axis) => (axis < lead || own[axis - lead] === 1 ? 0 : ownStrides[axis - lead]));
        moveElements(stream, element, tile.counts, { memory, address: address + bytesFor(element, tile.start.reduce((sum, index, axis) => sum + index * strides[axis], 0)), strides }, target, node);
      }
      return place;
    },
    write: (tile) => (onChip(output) ? stream.homeOf(output).address + bytesFor(out, tile.offset) : nextOut()),
    leave: (tile, place) => {
      if (onChip(output)) return;
      moveElements(stream, out, [tile.size], { memory: 'ABUF', address: place, strides: [1] }, { memory: 'outside', address: stream.homeOf(output).address + bytesFor(out, tile.offset), strides: [1] }, node);
    },
  };
};

const dense = (address: number, element: Element): Rows => ({ memory: 'ABUF', address, element, pitch: 0 });

/** requantize and requantize_add on their own, and a table behind them. */
export const rescaleStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const reads = [node.inputs['x'] as Value, ...(node.op === 'requantize_add' ? [node.inputs['y'] as Value] : [])];
  const [x, y] = reads.map((value) => stream.elementOf(value));
  const out = stream.elementOf(step.output);
  const records = recordsOf(stream, node);
  const between = step.table === null ? out : plainElement(node.output.type.dtype);
  const apart = elementBits(between) !== elementBits(out);
  const lutBytes = step.table === null ? 0 : tableBytes(out);
  const pbuf = new Shelf(stream, 'PBUF', [16 * records.count, lutBytes], node);
  const [par, lut] = [pbuf.take(16 * records.count), pbuf.take(lutBytes)];
  loadBytes(stream, 'PBUF', 16 * records.count, records.address, par, node);
  if (step.table !== null) loadBytes(stream, 'PBUF', lutBytes, stream.put('luts', bytesIn(step.table.inputs['values'] as Value)), lut, step.table);
  const stage = stageOf(stream, node, reads, step.output, { extra: apart ? [between] : [], whole: records.count > 1 ? 1 : 0 });
  for (const tile of stage.tiles) {
    const [at, beside] = reads.map((_, i) => stage.read(i, tile));
    const z = stage.write(tile);
    const middle = apart ? stage.extra[0]() : z;
    const channels = records.count > 1 ? staticShape(step.output.type.shape).at(-1)! : 1;
    rescale(stream, node, dense(at, x), beside === undefined ? null : dense(beside, y), dense(middle, between), tile.size, channels, { par, perChannel: records.count > 1 });
    if (step.table !== null) lookUp(stream, step.table, dense(middle, between), dense(z, out), tile.size, 1, lut, 1);
    stage.leave(tile, z);
  }
};

/** requantize_mul, clamp and table_interpolated. */
export const plainStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const reads = [node.inputs['x'] as Value, ...(node.op === 'requantize_mul' ? [node.inputs['y'] as Value] : [])];
  const [xElement, yElement] = reads.map((value) => stream.elementOf(value));
  let lut = 0;
  if (node.op === 'table_interpolated') {
    const bytes = bytesIn(node.inputs['values'] as Value);
    lut = new Shelf(stream, 'PBUF', [bytes.length], node).take(bytes.length);
    loadBytes(stream, 'PBUF', bytes.length, stream.put('luts', bytes), lut, node);
  }
  const stage = stageOf(stream, node, reads, step.output, {});
  for (const tile of stage.tiles) {
    const [x, y] = reads.map((_, i) => stage.read(i, tile));
    const z = stage.write(tile);
    const common = { xMemory: 'ABUF', x, xElement, zMemory: 'ABUF', z, zElement: stream.elementOf(step.output), n: tile.size } as const;
    if (node.op === 'requantize_mul') {
      const { zeroX, zeroY, mul, add, shift, low, high } = node.attrs as { zeroX: number; zeroY: number; mul: number; add: bigint; shift: number; low: number; high: number };
      expectMultiplier(stream, mul, node);
      emit(stream, 'MUL2', { ...common, yMemory: 'ABUF', y, yElement, zeroX, zeroY, mul, add, shift, low, high }, node);
    } else if (node.op === 'clamp') {
      const { low, high } = node.attrs as { low: number; high: number };
      emit(stream, 'CLIP', { ...common, low, high }, node);
    } else emit(stream, 'LUTI', { ...common, lut }, node);
    stage.leave(tile, z);
  }
};

/** Bytes looked up; with a table for each index of an axis, one run of equal index after another. */
export const tableStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const [x, values] = [node.inputs['x'] as Value, node.inputs['values'] as Value];
  const shape = staticShape(x.type.shape);
  const [xElement, zElement] = [stream.elementOf(x), stream.elementOf(step.output)];
  const bytes = bytesIn(values);
  const address = stream.put('luts', bytes);
  const rows = staticShape(values.type.shape).length === 1 ? 1 : staticShape(values.type.shape)[0];
  const axis = normalAxis((node.attrs as { axis: number }).axis, shape.length) ?? 0;
  const inner = rows === 1 ? 1 : sizeOf(shape.slice(axis + 1));
  const onLastAxis = rows > 1 && inner === 1 && alignUp(bytes.length) <= stream.machine.memories.PBUF;
  const oneRow = tableBytes(zElement);
  if (rows === 1 || onLastAxis) {
    const lut = new Shelf(stream, 'PBUF', [bytes.length], node).take(bytes.length);
    loadBytes(stream, 'PBUF', bytes.length, address, lut, node);
    const stage = stageOf(stream, node, [x], step.output, { whole: rows > 1 ? 1 : 0 });
    for (const tile of stage.tiles) {
      const at = stage.read(0, tile);
      const z = stage.write(tile);
      lookUp(stream, node, dense(at, xElement), dense(z, zElement), tile.size, rows, lut, rows);
      stage.leave(tile, z);
    }
    return;
  }
  // where the axis is not the last, or its tables do not fit: [outer, rows, inner], one row of one outer index at a time
  const pbuf = new Shelf(stream, 'PBUF', [oneRow, oneRow], node);
  const nextTable = turns([pbuf.take(oneRow), pbuf.take(oneRow)]);
  const outer = sizeOf(shape.slice(0, axis));
  const stage = stageOf(stream, node, [x], step.output, { cut: [outer * rows, inner] });
  let [loaded, lut] = [-1, 0];
  // tiles lie within one row where a row is longer than they are; cut them at its ends
  for (let row = 0; row < rows; row++) for (let o = 0; o < outer; o++) for (const piece of piecesOf(inner, Math.max(...stage.tiles.map(({ size }) => size)))) {
    if (loaded !== row) {
      [loaded, lut] = [row, nextTable()];
      loadBytes(stream, 'PBUF', oneRow, address + row * oneRow, lut, node);
    }
    const tile: Tile = { start: [o * rows + row, piece.from], counts: [1, piece.count], offset: (o * rows + row) * inner + piece.from, size: piece.count };
    const at = stage.read(0, tile);
    const z = stage.write(tile);
    lookUp(stream, node, dense(at, xElement), dense(z, zElement), tile.size, 1, lut, 1);
    stage.leave(tile, z);
  }
};
const piecesOf = (length: number, most: number): readonly { readonly from: number; readonly count: number }[] =>
  Array.from({ length: Math.ceil(length / most) }, (_, i) => ({ from: i * most, count: Math.min(most, length - i * most) }));
