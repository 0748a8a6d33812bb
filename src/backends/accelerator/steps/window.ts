/**
 * Sums under windows: convolutions of all kinds, products with a matrix, pools. A tile is a box of output pixels and channels of one
 * image (or matrix). Where the image stands on chip a tile reads it there, else a patch of it is loaded; borders are never stored. Where
 * the result has its home on chip it is written there, else it leaves tile by tile.
 *
 * The size of the tiles and their order are chosen by the cycle model: with `load`, `product`, `vector` and `store` the cycles of a tile
 * on the four engines, a step of n tiles takes about load + product + vector + store + (n − 1)·max of them. Pixels inside channels keeps
 * weights on chip, channels inside pixels keeps the patch.
 *
 * Where not even the weights and the window of two sums fit, the channels that are read are cut into pieces too, and the pieces of a sum are
 * added up where it stands in OBUF.
 */
import type { Node, Value } from '../../../ir/graph.ts';
import type { Step } from '../../group.ts';
import { alignUp } from '../blobs.ts';
import { laneBits, productCycles, runCycles, vectorCycles } from '../cycles.ts';
import { bytesFor, elementBits, type Element, type FieldsOf } from '../isa.ts';
import { lanesFor } from '../machine.ts';
import { denseStrides, emit, lacking, moveElements, NoRoom, roomIn, Shelf, Slots, turns, type Stream } from '../stream.ts';
import { finishOf, Parameters, type Finish, type Rows } from './finish.ts';

/** Images: element [n, y, x, c] at imageAt(n) + (y·width + x)·channels + c. */
export interface Geometry {
  readonly node: Node;
  readonly x: Value;
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
  readonly bits: FieldsOf<'MM'>['wBits'];
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
  /** cycles to load so many channels */
  readonly cycles: (outputs: number) => number;
  /** the same for a piece of the channels that are read, whose bounds are multiples of PIECE; null where weights cannot be cut so */
  readonly pieces: WeightPieces | null;
}
export interface WeightPieces {
  readonly bytes: (outputs: number, depth: number) => number;
  readonly steps: (depth: number) => readonly [channel: number, tap: number];
  readonly load: (from: number, count: number, first: number, depth: number, place: number) => void;
}
/** Channels of a piece: whole bytes of codes of any width, five ternary ones to a byte, and pairs of four bits. */
const PIECE = 40;

interface Cut {
  readonly rows: number;
  readonly columns: number;
  readonly outputs: number;
  readonly order: 'pixels inside' | 'channels inside';
  readonly cycles: number;
}

/** Where operands and result stand, and how their elements lie. */
interface Setting {
  readonly stream: Stream;
  readonly g: Geometry;
  readonly f: Finish;
  readonly x: Element;
  readonly xOnChip: boolean;
  readonly y: Element;
  readonly yOnChip: boolean;
  readonly zOnChip: boolean;
  /** products by the vector engine, where the array has no mode for their widths */
  readonly onVector: boolean;
  /** channels of a piece; null where they are not cut */
  readonly piece: number | null;
}

const patchSize = ({ taps, strides, dilations, height, width }: Geometry, rows: number, columns: number): readonly [number, number] =>
  [Math.min(height, (rows - 1) * strides[0] + (taps[0] - 1) * dilations[0] + 1), Math.min(width, (columns - 1) * strides[1] + (taps[1] - 1) * dilations[1] + 1)];
/** Channels of x that a tile of so many output channels reads. */
const patchChannels = ({ channelwise, channels, groups }: Geometry, outputs: number): number => (channelwise ? outputs : channels / groups);

interface Needs { readonly patch: number; readonly residual: number; readonly middle: number; readonly out: number; readonly sums: number; readonly weights: number; readonly records: number }
const needsOf = ({ g, f, x, xOnChip, y, yOnChip, zOnChip, piece }: Setting, rows: number, columns: number, outputs: number): Needs => {
  const [height, width] = patchSize(g, rows, columns);
  const n = rows * columns * outputs;
  const pooled = g.pool === 'max';
  return {
    patch: xOnChip ? 0 : height * width * bytesFor(x, piece ?? patchChannels(g, outputs)), residual: f.residual === null || yOnChip ? 0 : bytesFor(y, n), middle: f.middle === null ? 0 : bytesFor(f.middle, n),
    // sums leave from where they are; the greatest codes go home at once where they are all channels of their pixels
    out: f.passes === 0 && !pooled || zOnChip && (!pooled || outputs === g.outputs) ? 0 : bytesFor(f.out, n),
    sums: pooled ? 0 : 4 * n, weights: (piece === null ? g.product?.bytes(outputs) : g.product?.pieces?.bytes(outputs, piece)) ?? 0, records: f.recordBytes(outputs),
  };
};
const copies = (bytes: number, count: number): number => count * alignUp(bytes);
/** Places for so many contents: one each where all take no more than half of the room, so that they can be loaded ahead; else two by turns. */
const placesFor = (bytes: number, contents: number, room: number): number => (copies(bytes, contents) <= room / 2 ? contents : Math.min(2, contents));
const fits = ({ stream, f }: Setting, { patch, residual, middle, out, sums, weights, records }: Needs, channelTiles: number): boolean =>
  copies(patch, 2) + copies(residual, 2) + copies(middle, 2) + copies(out, 2) <= roomIn(stream, 'ABUF') && copies(sums, 2) <= roomIn(stream, 'OBUF')
  && copies(weights, Math.min(2, channelTiles)) <= roomIn(stream, 'WBUF') && copies(records, Math.min(2, channelTiles)) + alignUp(f.tableBytes) <= roomIn(stream, 'PBUF');

const halvings = (most: number): readonly number[] => {
  const sizes: number[] = [];
  for (let parts = 1; ; parts *= 2) {
    const size = Math.ceil(most / parts);
    sizes.push(size);
    if (size === 1) return [...new Set(sizes)];
  }
};
const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);
const perGroupOf = (g: Geometry): number => (g.channelwise ? g.outputs : g.outputs / g.groups);
/** Times that weights come to the chip: they depend on the image where the second operand does. */
const channelTilesOf = (g: Geometry, outputs: number): number => ceilDiv(perGroupOf(g), outputs) * (g.channelwise ? 1 : g.groups);

/** What a tile must save to be worth its instructions. */
const INSTRUCTION_CYCLES = 2;

const chooseCut = (setting: Setting): Cut | null => {
  const { stream: { machine }, g, f, x, y, xOnChip, yOnChip, zOnChip, onVector } = setting;
  const perGroup = perGroupOf(g);
  // elements of four bits stand in pairs
  const width = machine.array.columns % 2 === 0 ? machine.array.columns : 2 * machine.array.columns;
  const least = [x, y, f.out].some((element) => elementBits(element) < 8) ? 2 : 1;
  const channelSizes = [...new Set([perGroup, ...halvings(perGroup).map((size) => (size > width ? ceilDiv(size, width) * width : ceilDiv(size, least) * least)).filter((size) => size <= perGroup)])];
  let best: Cut | null = null;
  for (const outputs of channelSizes) for (const rows of halvings(g.outHeight)) for (const columns of halvings(g.outWidth)) {
    // a tile is contiguous pixels: wide images are cut by rows first
    if (columns < g.outWidth && rows > 1) continue;
    const needs = needsOf(setting, rows, columns, outputs);
    const channelTiles = channelTilesOf(g, outputs);
    if (!fits(setting, needs, g.images > 1 || setting.piece !== null ? 2 : channelTiles)) continue;
    const [patchHeight, patchWidth] = patchSize(g, rows, columns);
    const read = patchChannels(g, outputs);
    const wholeRows = read === g.channels && patchWidth === g.width;
    const loadPatch = xOnChip ? 0 : wholeRows ? runCycles(machine, 1, needs.patch) : read === g.channels ? runCycles(machine, patchHeight, bytesFor(x, patchWidth * read)) : runCycles(machine, patchHeight * patchWidth, bytesFor(x, read));
    const loadWeights = g.product?.cycles(outputs) ?? 0;
    const pixels = rows * columns;
    const depth = g.taps[0] * g.taps[1] * (g.channelwise ? 1 : g.channels / g.groups);
    const product = g.product === null || onVector ? 0 : productCycles(machine, {
      pixels, outputs, depth, weightBits: laneBits(g.product.bits), activationBits: g.product.activationBits, depthwise: g.channelwise, tapRows: g.taps[0], columnStride: g.strides[1],
    });
    const vector = (onVector ? vectorCycles(machine, pixels * outputs * depth) : 0)
      + (g.pool === null ? 0 : vectorCycles(machine, pixels * outputs, g.taps[0] * g.taps[1])) + (f.passes === 0 ? 0 : vectorCycles(machine, pixels * outputs, f.passes));
    const leave = (element: Element): number => (outputs === g.outputs ? runCycles(machine, 1, bytesFor(element, pixels * outputs)) : runCycles(machine, pixels, bytesFor(element, outputs)));
    const residual = f.residual === null || yOnChip ? 0 : leave(y);
    const store = zOnChip ? 0 : leave(f.out);
    const pixelTiles = ceilDiv(g.outHeight, rows) * ceilDiv(g.outWidth, columns) * g.images;
    const tiles = pixelTiles * channelTiles;
    for (const order of ['pixels inside', 'channels inside'] as const) {
      const weightLoads = order === 'pixels inside' || channelTiles <= 2 ? channelTiles : tiles;
      const patchLoads = g.channelwise || order === 'pixels inside' && pixelTiles > 2 ? tiles : pixelTiles;
      const load = (weightLoads * loadWeights + patchLoads * loadPatch) / tiles + residual;
      const cycles = loadWeights + loadPatch + residual + product + vector + store + (tiles - 1) * Math.max(load, product, vector, store) + INSTRUCTION_CYCLES * tiles;
      if (best === null || cycles < best.cycles) best = { rows, columns, outputs, order, cycles };
    }
  }
  return best;
};

/** The tiles of a step; the channels that are read are cut only where nothing else fits. */
const cutOf = (whole: Setting): readonly [Setting, Cut | null] => {
  const { g } = whole;
  let setting = whole;
  let cut = chooseCut(whole);
  const cuttable = g.product !== null && g.product.pieces !== null && !g.channelwise;
  for (let depth = g.channels / g.groups; cut === null && cuttable && depth > PIECE; cut = chooseCut(setting)) {
    depth = PIECE * ceilDiv(ceilDiv(depth, 2), PIECE);
    setting = { ...whole, piece: depth };
    if (depth === PIECE) return [setting, chooseCut(setting)];
  }
  return [setting, cut];
};

/** The part of an image that the windows of a tile see, as it lies on chip. */
interface Seen {
  readonly at: number;
  readonly image: Pick<FieldsOf<'MM'>, 'imageRows' | 'imageColumns' | 'rowPitch' | 'columnPitch' | 'firstRow' | 'firstColumn'>;
}

export const windowStep = (stream: Stream, step: Step, g: Geometry): void => {
  if (Math.max(...g.strides, ...g.dilations) > 255) throw lacking(stream, 'strides or dilations above 255', g.node);
  const onVector = g.product !== null && lanesFor(stream.machine, laneBits(g.product.bits), g.product.activationBits) === null;
  if (onVector && !stream.machine.ops.includes('MMV')) throw lacking(stream, `products of ${g.product!.bits}-bit weights and ${g.product!.activationBits}-bit activations, on the array or on the vector engine (MMV)`, g.node);
  const f = finishOf(stream, step);
  const homes = { x: stream.homeOf(g.x), y: f.residual === null ? null : stream.homeOf(f.residual), z: stream.homeOf(step.output) };
  const element = stream.elementOf(g.x);
  const yElement = f.residual === null ? 'i8' : stream.elementOf(f.residual);
  const whole: Setting = { stream, g, f, x: element, xOnChip: homes.x.memory === 'ABUF', y: yElement, yOnChip: homes.y?.memory === 'ABUF', zOnChip: homes.z.memory === 'ABUF', onVector, piece: null };
  const [setting, cut] = cutOf(whole);
  if (cut === null) {
    const least = needsOf(setting, 1, 1, Math.min(g.outputs, 2));
    if (copies(least.weights, 2) > stream.machine.memories.WBUF) throw new NoRoom(stream, 'WBUF', copies(least.weights, 2), g.node);
    throw new NoRoom(stream, 'ABUF', copies(least.patch, 2) + copies(least.residual, 2) + copies(least.middle, 2) + copies(least.out, 2), g.node);
  }
  const { patch, residual, middle, out, sums, weights, records } = needsOf(setting, cut.rows, cut.columns, cut.outputs);
  const depth = g.channelwise ? 1 : g.channels / g.groups;
  const pieces = setting.piece === null ? [[0, depth] as const] : Array.from({ length: ceilDiv(depth, setting.piece) }, (_, i) => [i * setting.piece!, Math.min(setting.piece!, depth - i * setting.piece!)] as const);
  const contents = pieces.length * channelTilesOf(g, cut.outputs) * (g.product?.key(0, 0, 1) === g.product?.key(g.images - 1, 0, 1) ? 1 : g.images);
  const weightPlaces = placesFor(weights, contents, roomIn(stream, 'WBUF'));
  const recordPlaces = placesFor(records, channelTilesOf(g, cut.outputs), roomIn(stream, 'PBUF') - alignUp(f.tableBytes));
  const places = (shelf: Shelf, bytes: number, count = 2): readonly number[] => Array.from({ length: count }, () => shelf.take(bytes));
  const all = (bytes: number, count = 2): readonly number[] => Array.from({ length: count }, () => bytes);
  const abuf = new Shelf(stream, 'ABUF', [patch, residual, middle, out].flatMap((bytes) => all(bytes)), g.node);
  const patches = new Slots(places(abuf, patch));
  const [nextResidual, nextMiddle, nextOut] = [residual, middle, out].map((bytes) => turns(places(abuf, bytes)));
  const nextSums = turns(places(new Shelf(stream, 'OBUF', all(sums), g.node), sums));
  const weightSlots = new Slots(places(new Shelf(stream, 'WBUF', all(weights, weightPlaces), g.node), weights, weightPlaces));
  const pbuf = new Shelf(stream, 'PBUF', [f.tableBytes, ...all(records, recordPlaces)], g.node);
  const parameters = new Parameters(stream, step, f, places(pbuf, records, recordPlaces), pbuf.take(f.tableBytes));
  const outStrides = denseStrides([g.images, g.outHeight, g.outWidth, g.outputs]);

  /** The windows from output pixel (y0, x0) on, reading channels from c0 on. */
  const see = (image: number, y0: number, x0: number, rows: number, columns: number, c0: number, count: number): Seen => {
    const [top, left] = [y0 * g.strides[0] - g.top, x0 * g.strides[1] - g.left];
    const [fromY, fromX] = [Math.min(Math.max(0, top), g.height), Math.min(Math.max(0, left), g.width)];
    const first = { firstRow: top - fromY, firstColumn: left - fromX };
    const element0 = g.imageAt(image) + (fromY * g.width + fromX) * g.channels + c0;
    if (setting.xOnChip) {
      return { at: homes.x.address + bytesFor(element, element0), image: { imageRows: Math.min(65535, g.height - fromY), imageColumns: Math.min(65535, g.width - fromX), rowPitch: bytesFor(element, g.width * g.channels), columnPitch: bytesFor(element, g.channels), ...first } };
    }
    const [toY, toX] = [Math.min(g.height, top + (rows - 1) * g.strides[0] + (g.taps[0] - 1) * g.dilations[0] + 1), Math.min(g.width, left + (columns - 1) * g.strides[1] + (g.taps[1] - 1) * g.dilations[1] + 1)];
    const [height, width] = [Math.max(0, toY - fromY), Math.max(0, toX - fromX)];
    const at = patches.take([element0, height, width, count].join(), (place) => moveElements(stream, element, [height, width, count],
      { memory: 'outside', address: homes.x.address + bytesFor(element, element0), strides: [g.width * g.channels, g.channels, 1] },
      { memory: 'ABUF', address: place, strides: [width * count, count, 1] }, g.node));
    return { at, image: { imageRows: height, imageColumns: width, rowPitch: bytesFor(element, width * count), columnPitch: bytesFor(element, count), ...first } };
  };

  const tile = (image: number, y0: number, x0: number, c0: number): void => {
    const [rows, columns] = [Math.min(cut.rows, g.outHeight - y0), Math.min(cut.columns, g.outWidth - x0)];
    const perGroup = g.outputs / g.groups;
    const group = g.channelwise ? 0 : Math.floor(c0 / perGroup);
    const count = Math.min(cut.outputs, (g.channelwise ? g.outputs : (group + 1) * perGroup) - c0);
    const firstRead = g.channelwise ? c0 : group * depth;
    // weights and parameters do not depend on the step before and are loaded while it runs
    parameters.prepare(c0, count);
    const { product } = g;
    /** places of the weights and the image of a piece */
    const take = ([first, length]: (typeof pieces)[number]): readonly [w: number, seen: Seen] => [
      product === null ? 0 : setting.piece === null ? weightSlots.take(product.key(image, c0, count), (place) => product.load(image, c0, count, place))
        : weightSlots.take(`${c0}+${count}, ${first}`, (place) => product.pieces!.load(c0, count, first, length, place)),
      see(image, y0, x0, rows, columns, firstRead + first, g.channelwise ? count : length),
    ];
    const start = take(pieces[0]);
    const pixels = rows * columns;
    const window = {
      rows, columns, rowStride: g.strides[0], columnStride: g.strides[1], tapRows: g.taps[0], tapColumns: g.taps[1], rowDilation: g.dilations[0], columnDilation: g.dilations[1], border: g.padCode,
    };
    const at = image * outStrides[0] + y0 * outStrides[1] + x0 * outStrides[2] + c0;
    /** the pixels of the tile in a tensor of the shape of the result, and dense */
    const part = [[pixels, count], [g.outputs, 1], [count, 1]] as const;
    const home = ({ memory, address }: { readonly memory: 'ABUF' | 'outside'; readonly address: number }, of: Element) => ({ memory, address: address + bytesFor(of, at), strides: part[1] });
    const inPlace = (address: number, of: Element): Rows => ({ memory: 'ABUF', address: address + bytesFor(of, at), element: of, pitch: count === g.outputs ? 0 : bytesFor(of, g.outputs) });
    let y: Rows | null = null;
    if (homes.y !== null) {
      if (setting.yOnChip) y = inPlace(homes.y.address, yElement);
      else {
        const place = nextResidual();
        moveElements(stream, yElement, part[0], home(homes.y, yElement), { memory: 'ABUF', address: place, strides: part[2] }, g.node);
        y = { memory: 'ABUF', address: place, element: yElement, pitch: 0 };
      }
    }
    const [o, place] = [nextSums(), nextOut()];
    if (product !== null) {
      pieces.forEach((piece, i) => {
        const [w, seen] = i === 0 ? start : take(piece);
        const [wChannel, wTap] = setting.piece === null ? product.steps(count) : product.pieces!.steps(piece[1]);
        emit(stream, onVector ? 'MMV' : 'MM', {
          a: seen.at, w, o, aElement: element, aBits: String(product.activationBits) as '8', wBits: product.bits, wSigned: product.signed ? 1 : 0, ...window, ...seen.image,
          depth: piece[1], outputs: count, wChannel, wTap, pitch: count, aZero: product.aZero, wZero: product.wZero, depthwise: g.channelwise ? 1 : 0, accumulate: i === 0 ? 0 : 1,
        }, g.node);
      });
    } else {
      const [, seen] = start;
      const direct = setting.zOnChip && count === g.outputs;
      const target = g.pool === 'max' ? { zMemory: 'ABUF', z: direct ? homes.z.address + bytesFor(f.out, at) : place, zElement: f.out } as const : { zMemory: 'OBUF', z: o, zElement: 'i32' } as const;
      emit(stream, 'POOL', { xMemory: 'ABUF', x: seen.at, xElement: element, ...target, kind: g.pool!, ...window, ...seen.image, depth: count }, g.node);
      if (g.pool === 'max' && direct) return;
    }
    const finishes = f.passes > 0;
    const z: Rows = finishes && setting.zOnChip ? inPlace(homes.z.address, f.out)
      : { memory: finishes || g.pool === 'max' ? 'ABUF' : 'OBUF', address: finishes || g.pool === 'max' ? place : o, element: f.out, pitch: 0 };
    if (finishes) parameters.finish(o, pixels * count, c0, count, y, z, nextMiddle());
    if (finishes && setting.zOnChip) return;
    moveElements(stream, f.out, part[0], { memory: z.memory, address: z.address, strides: part[2] }, home(homes.z, f.out), g.node);
  };

  const steps = (total: number, by: number): readonly number[] => Array.from({ length: ceilDiv(total, by) }, (_, i) => i * by);
  const perGroup = perGroupOf(g);
  const channelStarts = steps(g.outputs, perGroup).flatMap((group) => steps(perGroup, cut.outputs).map((from) => group + from));
  for (const image of steps(g.images, 1)) {
    const pixels = steps(g.outHeight, cut.rows).flatMap((y0) => steps(g.outWidth, cut.columns).map((x0) => [y0, x0] as const));
    if (cut.order === 'pixels inside') for (const c0 of channelStarts) for (const [y0, x0] of pixels) tile(image, y0, x0, c0);
    else for (const [y0, x0] of pixels) for (const c0 of channelStarts) tile(image, y0, x0, c0);
  }
};
