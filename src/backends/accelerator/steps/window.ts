/**
 * Sums under windows: convolutions of all kinds, products with a matrix, pools. A tile is a box of output pixels and channels of one
 * image (or matrix); it reads a patch of the input with its border written out, and the weights of its channels.
 *
 * The size of the tiles and their order are chosen by the cycle model: with `load`, `product`, `vector` and `store` the cycles of a tile
 * on the four engines, a step of n tiles takes about load + product + vector + store + (n − 1)·max of them. Pixels inside channels keeps
 * weights on chip, channels inside pixels keeps the patch.
 */
import type { Node, Value } from '../../../ir/graph.ts';
import type { Step } from '../../group.ts';
import { alignUp } from '../blobs.ts';
import { moveCycles, productCycles, vectorCycles } from '../cycles.ts';
import type { Element } from '../isa.ts';
import { lanesFor } from '../machine.ts';
import { denseStrides, emit, lacking, move, Shelf, Slots, tooLarge, turns, type Stream } from '../stream.ts';
import { finishOf, Parameters, type Finish } from './finish.ts';

/** Images outside: element [n, y, x, c] at offsets(n) + (y·width + x)·channels + c elements. */
export interface Geometry {
  readonly node: Node;
  readonly x: Value;
  readonly element: Element;
  readonly elementBytes: number;
  readonly images: number;
  /** element offset of each image of x */
  readonly imageAt: (image: number) => number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly outHeight: number;
  readonly outWidth: number;
  readonly outputs: number;
  readonly taps: readonly [rows: number, columns: number];
  readonly strides: readonly [number, number];
  readonly dilations: readonly [number, number];
  readonly top: number;
  readonly left: number;
  /** what stands outside the image */
  readonly padCode: number;
  /** channel groups; with `channelwise` output channel c reads input channel c alone */
  readonly groups: number;
  readonly channelwise: boolean;
  /** the products, or null for a pool */
  readonly product: Weights | null;
  readonly pool: 'max' | 'sum' | null;
}
export interface Weights {
  readonly bits: 2 | 4 | 8 | 16;
  readonly signed: boolean;
  readonly activationBits: 4 | 8 | 16;
  readonly aZero: number;
  readonly wZero: number;
  /** bytes on chip of so many channels */
  readonly bytes: (outputs: number) => number;
  /** elements from channel to channel and from tap to tap, for a tile of so many channels */
  readonly steps: (outputs: number) => readonly [channel: number, tap: number];
  /** contents that are the same for equal keys */
  readonly key: (image: number, from: number, count: number) => string;
  readonly load: (image: number, from: number, count: number, place: number) => void;
  /** runs and bytes of a run that are loaded for so many channels */
  readonly traffic: (outputs: number) => readonly [runs: number, run: number];
}

interface Cut {
  readonly rows: number;
  readonly columns: number;
  readonly outputs: number;
  readonly order: 'pixels inside' | 'channels inside';
  readonly cycles: number;
}

const patchSize = ({ taps, strides, dilations }: Geometry, rows: number, columns: number): readonly [number, number] =>
  [(rows - 1) * strides[0] + (taps[0] - 1) * dilations[0] + 1, (columns - 1) * strides[1] + (taps[1] - 1) * dilations[1] + 1];
/** Channels of x that a tile of so many output channels reads. */
const patchChannels = ({ channelwise, channels, groups }: Geometry, outputs: number): number => (channelwise ? outputs : channels / groups);

interface Needs { readonly patch: number; readonly residual: number; readonly middle: number; readonly out: number; readonly sums: number; readonly weights: number; readonly records: number }
const needsOf = (g: Geometry, f: Finish, rows: number, columns: number, outputs: number): Needs => {
  const [height, width] = patchSize(g, rows, columns);
  const n = rows * columns * outputs;
  const sums = g.pool === 'max' ? 0 : 4 * n;
  return {
    patch: height * width * patchChannels(g, outputs) * g.elementBytes, residual: n * f.residualBytes, middle: n * f.middleBytes,
    out: f.passes === 0 && g.pool !== 'max' ? 0 : n * f.outBytes, sums, weights: g.product?.bytes(outputs) ?? 0, records: f.recordBytes(outputs),
  };
};
const twice = (bytes: number): number => 2 * alignUp(bytes);
const fits = ({ machine }: Stream, f: Finish, { patch, residual, middle, out, sums, weights, records }: Needs): boolean =>
  twice(patch) + twice(residual) + twice(middle) + twice(out) <= machine.memories.ABUF && twice(sums) <= machine.memories.OBUF
  && twice(weights) <= machine.memories.WBUF && twice(records) + alignUp(f.tableBytes) <= machine.memories.PBUF;

const halvings = (most: number): readonly number[] => {
  const sizes: number[] = [];
  for (let parts = 1; ; parts *= 2) {
    const size = Math.ceil(most / parts);
    sizes.push(size);
    if (size === 1) return [...new Set(sizes)];
  }
};
const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);

const chooseCut = (stream: Stream, g: Geometry, f: Finish): Cut | null => {
  const { machine } = stream;
  const perGroup = g.channelwise ? g.outputs : g.outputs / g.groups;
  const { columns: width } = machine.array;
  const channelSizes = [...new Set([perGroup, ...halvings(perGroup).map((size) => (size > width ? ceilDiv(size, width) * width : size)).filter((size) => size <= perGroup)])];
  let best: Cut | null = null;
  for (const outputs of channelSizes) for (const rows of halvings(g.outHeight)) for (const columns of halvings(g.outWidth)) {
    // wide images are cut by rows first
    if (columns < g.outWidth && rows > 1) continue;
    const needs = needsOf(g, f, rows, columns, outputs);
    if (!fits(stream, f, needs)) continue;
    const [patchHeight, patchWidth] = patchSize(g, rows, columns);
    const read = patchChannels(g, outputs);
    const wholeRows = read === g.channels && columns === g.outWidth && g.left === 0;
    const loadPatch = wholeRows ? moveCycles(machine, 1, needs.patch) : read === g.channels ? moveCycles(machine, patchHeight, patchWidth * read * g.elementBytes) : moveCycles(machine, patchHeight * patchWidth, read * g.elementBytes);
    const loadWeights = g.product === null ? 0 : moveCycles(machine, ...g.product.traffic(outputs));
    const pixels = rows * columns;
    const product = g.product === null ? 0 : productCycles(machine, {
      pixels, outputs, depth: g.taps[0] * g.taps[1] * (g.channelwise ? 1 : g.channels / g.groups), weightBits: g.product.bits, activationBits: g.product.activationBits, depthwise: g.channelwise,
    });
    const vector = (g.pool === null ? 0 : vectorCycles(machine, pixels * outputs, g.taps[0] * g.taps[1])) + (f.passes === 0 ? 0 : vectorCycles(machine, pixels * outputs, f.passes));
    const residual = f.residual === null ? 0 : moveCycles(machine, outputs === g.outputs ? 1 : pixels, outputs * f.residualBytes);
    const store = outputs === g.outputs ? moveCycles(machine, 1, pixels * outputs * f.outBytes) : moveCycles(machine, pixels, outputs * f.outBytes);
    const pixelTiles = ceilDiv(g.outHeight, rows) * ceilDiv(g.outWidth, columns) * g.images;
    const channelTiles = ceilDiv(perGroup, outputs) * (g.channelwise ? 1 : g.groups);
    const tiles = pixelTiles * channelTiles;
    for (const order of ['pixels inside', 'channels inside'] as const) {
      const weightLoads = order === 'pixels inside' || channelTiles <= 2 ? channelTiles : tiles;
      const patchLoads = g.channelwise || order === 'pixels inside' && pixelTiles > 2 ? tiles : pixelTiles;
      const load = (weightLoads * loadWeights + patchLoads * loadPatch) / tiles + residual;
      const cycles = loadWeights + loadPatch + residual + product + vector + store + (tiles - 1) * Math.max(load, product, vector, store);
      if (best === null || cycles < best.cycles) best = { rows, columns, outputs, order, cycles };
    }
  }
  return best;
};

/** Elements of the patch of a tile: its part of the image, the border around it filled. */
const loadPatch = (stream: Stream, g: Geometry, image: number, y0: number, x0: number, height: number, width: number, c0: number, count: number, place: number): void => {
  const [top, left] = [y0 * g.strides[0] - g.top, x0 * g.strides[1] - g.left];
  const [fromY, fromX] = [Math.max(0, top), Math.max(0, left)];
  const [toY, toX] = [Math.min(g.height, top + height), Math.min(g.width, left + width)];
  const size = g.elementBytes;
  if (fromY > top || fromX > left || toY < top + height || toX < left + width) emit(stream, 'FILL', { memory: 'ABUF', chip: place, element: g.element, count: height * width * count, value: g.padCode }, g.node);
  if (toY <= fromY || toX <= fromX) return;
  move(stream, 'LD', 'ABUF', size, [toY - fromY, toX - fromX, count],
    { address: stream.addressOf(g.x) + (g.imageAt(image) + (fromY * g.width + fromX) * g.channels + c0) * size, strides: [g.width * g.channels * size, g.channels * size, size] },
    { address: place + ((fromY - top) * width + fromX - left) * count * size, strides: [width * count * size, count * size, size] }, g.node);
};

export const windowStep = (stream: Stream, step: Step, g: Geometry): void => {
  if (g.product !== null && lanesFor(stream.machine, g.product.bits, g.product.activationBits) === null) throw lacking(stream, `products of ${g.product.bits}-bit weights and ${g.product.activationBits}-bit activations`, g.node);
  const f = finishOf(step);
  const cut = chooseCut(stream, g, f);
  if (cut === null) {
    const least = needsOf(g, f, 1, 1, 1);
    const { memories } = stream.machine;
    if (twice(least.weights) > memories.WBUF) throw tooLarge(stream, 'WBUF', twice(least.weights), g.node);
    throw tooLarge(stream, 'ABUF', twice(least.patch) + twice(least.residual) + twice(least.middle) + twice(least.out), g.node);
  }
  const needs = needsOf(g, f, cut.rows, cut.columns, cut.outputs);
  const pair = (shelf: Shelf, bytes: number): readonly number[] => [shelf.take(bytes), shelf.take(bytes)];
  const { patch, residual, middle, out, sums, weights, records } = needs;
  const abuf = new Shelf(stream, 'ABUF', [patch, patch, residual, residual, middle, middle, out, out], g.node);
  const patches = new Slots(pair(abuf, patch));
  const [nextResidual, nextMiddle, nextOut] = [residual, middle, out].map((bytes) => turns(pair(abuf, bytes)));
  const nextSums = turns(pair(new Shelf(stream, 'OBUF', [sums, sums], g.node), sums));
  const weightSlots = new Slots(pair(new Shelf(stream, 'WBUF', [weights, weights], g.node), weights));
  const pbuf = new Shelf(stream, 'PBUF', [f.tableBytes, records, records], g.node);
  const parameters = new Parameters(stream, step, pair(pbuf, records), pbuf.take(f.tableBytes));
  const outStrides = denseStrides([g.images, g.outHeight, g.outWidth, g.outputs], 1);

  const tile = (image: number, y0: number, x0: number, c0: number): void => {
    const [rows, columns] = [Math.min(cut.rows, g.outHeight - y0), Math.min(cut.columns, g.outWidth - x0)];
    const perGroup = g.outputs / g.groups;
    const group = g.channelwise ? 0 : Math.floor(c0 / perGroup);
    const count = Math.min(cut.outputs, (g.channelwise ? g.outputs : (group + 1) * perGroup) - c0);
    const read = patchChannels(g, count);
    const [height, width] = patchSize(g, rows, columns);
    const firstRead = g.channelwise ? c0 : group * read;
    // weights and parameters do not depend on the step before and are loaded while it runs
    parameters.prepare(c0, count);
    const { product } = g;
    const w = product === null ? 0 : weightSlots.take(product.key(image, c0, count), (place) => product.load(image, c0, count, place));
    const x = patches.take([image, y0, x0, rows, columns, firstRead, read].join(), (place) => loadPatch(stream, g, image, y0, x0, height, width, firstRead, read, place));
    const pixels = rows * columns;
    const size = g.elementBytes;
    const window = {
      rows, columns, rowStride: g.strides[0] * width * read * size, columnStride: g.strides[1] * read * size,
      tapRows: g.taps[0], tapColumns: g.taps[1], tapRowStride: g.dilations[0] * width * read * size, tapColumnStride: g.dilations[1] * read * size,
    };
    const at = image * outStrides[0] + y0 * outStrides[1] + x0 * outStrides[2] + c0;
    const box = (bytes: number): readonly [readonly number[], readonly number[]] => [[rows, columns, count], outStrides.slice(1).map((stride) => stride * bytes)];
    let y: number | null = null;
    if (f.residual !== null) {
      y = nextResidual();
      const [counts, strides] = box(f.residualBytes);
      move(stream, 'LD', 'ABUF', f.residualBytes, counts, { address: stream.addressOf(f.residual) + at * f.residualBytes, strides }, { address: y, strides: denseStrides(counts, f.residualBytes) }, g.node);
    }
    const [o, z] = [nextSums(), nextOut()];
    if (product !== null) {
      const [wChannel, wTap] = product.steps(count);
      emit(stream, 'MM', {
        a: x, w, o, aElement: g.element, aBits: String(product.activationBits) as '8', wBits: String(product.bits) as '8', wSigned: product.signed ? 1 : 0, ...window,
        depth: g.channelwise ? 1 : read, outputs: count, wChannel, wTap, pitch: count, aZero: product.aZero, wZero: product.wZero, depthwise: g.channelwise ? 1 : 0, accumulate: 0,
      }, g.node);
    } else {
      const target = g.pool === 'max' ? { zMemory: 'ABUF', z, zElement: g.element } as const : { zMemory: 'OBUF', z: o, zElement: 'i32' } as const;
      emit(stream, 'POOL', { xMemory: 'ABUF', x, xElement: g.element, ...target, kind: g.pool!, ...window, depth: count }, g.node);
    }
    const made = g.pool === 'max' ? { memory: 'ABUF', address: z } as const : parameters.finish(o, pixels, c0, count, y, z, nextMiddle());
    const [counts, strides] = box(f.outBytes);
    move(stream, 'ST', made.memory, f.outBytes, counts, { address: stream.addressOf(step.output) + at * f.outBytes, strides }, { address: made.address, strides: denseStrides(counts, f.outBytes) }, g.node);
  };

  const steps = (total: number, by: number): readonly number[] => Array.from({ length: ceilDiv(total, by) }, (_, i) => i * by);
  const perGroup = g.channelwise ? g.outputs : g.outputs / g.groups;
  const channelStarts = steps(g.outputs, perGroup).flatMap((group) => steps(perGroup, cut.outputs).map((from) => group + from));
  for (const image of steps(g.images, 1)) {
    const pixels = steps(g.outHeight, cut.rows).flatMap((y0) => steps(g.outWidth, cut.columns).map((x0) => [y0, x0] as const));
    if (cut.order === 'pixels inside') for (const c0 of channelStarts) for (const [y0, x0] of pixels) tile(image, y0, x0, c0);
    else for (const [y0, x0] of pixels) for (const c0 of channelStarts) tile(image, y0, x0, c0);
  }
};
