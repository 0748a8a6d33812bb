/**
 * Windows over an image [N, H, W, C]: the rows that a block of output rows reads are copied, widened and with their border written
 * out, into a band of scratch memory. Windows then need no test for the border, and no tensor is ever copied as a whole patch matrix.
 */
import { at, bytesOf, index, list, loop, moved } from '../../loops/build.ts';
import type { Address, Buffer, Elem, Index, Mark, Stmt } from '../../loops/types.ts';
import { fillRows, widened, widenRows } from './gemm.ts';
import { shapeOf } from './kernel.ts';
import { collapse } from './nest.ts';
import type { Value } from '../../ir/graph.ts';
import { vectorLanes, type Target } from './target.ts';

export interface WindowAttrs {
  readonly strides: readonly number[];
  /** top, left, bottom, right */
  readonly pads: readonly number[];
  readonly dilations: readonly number[];
}
export interface WindowShape extends WindowAttrs {
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly kernel: readonly number[];
  readonly outHeight: number;
  readonly outWidth: number;
}

export const windowShapeOf = (x: Value, output: Value, kernel: readonly number[], { strides, pads, dilations }: WindowAttrs): WindowShape => {
  const [batch, height, width, channels] = shapeOf(x);
  const [, outHeight, outWidth] = shapeOf(output);
  return { batch, height, width, channels, kernel, strides, pads, dilations, outHeight, outWidth };
};

/** Channels whose pixels stand side by side in a row of a band: which, and where they begin in the row. */
export interface Plane {
  readonly first: number;
  readonly channels: number;
  readonly start: number;
  /** where windows move by two pixels and neighbouring windows are read side by side: elements of the even pixels of a row, which the odd ones follow; else null */
  readonly even: number | null;
}
/** The band: its element, output rows in a block, rows of the band, elements of one row, elements beyond the last row, and the planes of a row. */
export interface Band {
  readonly e: Elem;
  readonly block: number;
  readonly rows: number;
  readonly row: number;
  readonly slack: number;
  readonly planes: readonly Plane[];
  /** whether the image stands as planes as well, one channel each: [N, C, H, W] */
  readonly fromPlanes: boolean;
}
/** Where pixel `pixel` of a plane begins in its plane, the border counted. */
export const placeInPlane = (pixel: number, { channels, even }: Pick<Plane, 'channels' | 'even'>): number =>
  (even === null ? pixel * channels : (pixel % 2) * even + Math.floor(pixel / 2) * channels);

/** Bytes of a line of the cache. */
const LINE = 64;
interface BandOptions {
  /** output rows that share a band at least, however long they are */
  readonly least?: number;
  /** output rows that are computed together, a multiple of which all blocks but the last hold */
  readonly together?: number;
  /** the channels of each plane, and whether even pixels of a row stand before odd ones; a plane then begins where a line of the cache does; without any, blocks are no longer than they must be */
  readonly planes?: readonly { readonly first: number; readonly channels: number; readonly parted: boolean }[];
  readonly fromPlanes?: boolean;
}
export const bandOf = (w: WindowShape, e: Elem, slack: number, { blockBytes }: Target, { least = 1, together = 1, planes: wanted, fromPlanes = false }: BandOptions = {}): Band => {
  const pixels = w.pads[1] + w.width + w.pads[3];
  const planes: Plane[] = [];
  let row = 0;
  for (const { first, channels, parted } of wanted ?? [{ first: 0, channels: w.channels, parted: false }]) {
    const even = parted ? Math.ceil(pixels / 2) * channels : null;
    planes.push({ first, channels, start: row, even });
    row += even === null ? pixels * channels : 2 * even;
    if (wanted !== undefined) row = Math.ceil((row * bytesOf(e)) / LINE) * (LINE / bytesOf(e));
  }
  const rowsFor = (block: number): number => (block - 1) * w.strides[0] + (w.kernel[0] - 1) * w.dilations[0] + 1;
  let block = Math.min(w.outHeight, Math.ceil(least / together) * together);
  while (row > 0 && block < w.outHeight && rowsFor(block + together) * row * bytesOf(e) <= blockBytes) block = Math.min(w.outHeight, block + together);
  return { e, block, rows: rowsFor(block), row, slack, planes, fromPlanes };
};
export const bandLength = ({ rows, row, slack }: Band): number => rows * row + slack;

/** One block of output rows: how many, where the first one lies in the result, in output rows, and whether their windows stay between the first row of the image and the last. */
export interface Block {
  readonly rows: number;
  readonly first: number;
  readonly terms: readonly (readonly [Index, number])[];
  readonly inside: boolean;
}
/** Rows that the windows of some output rows cover: above the image, in it, and below. */
export interface Cover {
  readonly above: number;
  readonly inside: number;
  readonly below: number;
}
export const coverOf = ({ height, kernel, strides, dilations, pads }: WindowShape, first: number, rows: number): Cover => {
  const needed = (rows - 1) * strides[0] + (kernel[0] - 1) * dilations[0] + 1;
  const top = first * strides[0] - pads[0];
  const above = Math.min(needed, Math.max(0, -top));
  const inside = Math.max(0, Math.min(needed, height - top) - above);
  return { above, inside, below: needed - above - inside };
};

/**
 * Loops over samples and, marked, over blocks of output rows: fills the band with the rows each block reads (`fill` outside the image), then does
 * `body`. Neighbouring blocks that need the same copies share a loop.
 */
export const overBlocks = (w: WindowShape, band: Band, source: Buffer, into: Buffer, fill: number, target: Target, body: (block: Block) => readonly Stmt[], mark: Mark | null = null): readonly Stmt[] => {
  const { height, width, channels, outHeight, strides, pads } = w;
  const n = index('sample', w.batch);
  /** codes of a row of the image, or of a plane of it */
  const run = band.fromPlanes ? width : width * channels;
  const left = pads[1] * channels;
  /** whether rows of the band are rows of the image with a border */
  const plain = !band.fromPlanes && band.planes.length === 1 && band.planes[0].channels === channels && band.planes[0].even === null;
  const sample = [n, height * width * channels] as const;

  const starts = Array.from({ length: Math.ceil(outHeight / band.block) }, (_, i) => i * band.block);
  const rowsAt = (first: number): number => Math.min(band.block, outHeight - first);
  const classOf = (first: number): string => JSON.stringify([rowsAt(first), coverOf(w, first, rowsAt(first))]);
  const gap = (count: number, row: number): readonly Stmt[] =>
    (count === 0 || band.row === 0 ? [] : plain ? fillRows(at(into, row * band.row + left), count, run, band.row, fill, target) : fillRows(at(into, row * band.row), count, band.row, band.row, fill, target));
  /** planes of one channel each stand at equal distances */
  const apart = band.planes[1]?.start ?? 0;
  const overPlanes = (stmtsOf: (plane: Index) => readonly Stmt[]): readonly Stmt[] => {
    const plane = index('plane', channels);
    return [loop(plane, stmtsOf(plane))];
  };
  /** `rows` rows of the image into the band, from row `to` of it on */
  const copied = (from: Address, to: number, rows: number): readonly Stmt[] => {
    if (plain) return widenRows(from, at(into, to * band.row + left), rows, run, run, band.row, 0, target);
    if (band.fromPlanes) return overPlanes((plane) => widenRows(moved(from, 0, [plane, height * width]), at(into, to * band.row + pads[1], [plane, apart]), rows, width, width, band.row, 0, target));
    return band.planes.flatMap((plane) => {
      const lanes = Math.min(vectorLanes(target, into.e), 2 ** Math.floor(Math.log2(plane.channels)));
      const step = plane.even === null ? 1 : 2;
      return list(Math.min(step, width), (pixel) => widened(
        moved(from, pixel * channels + plane.first), at(into, to * band.row + plane.start + placeInPlane(pads[1] + pixel, plane)),
        collapse([rows, Math.ceil((width - pixel) / step), plane.channels], [[run, step * channels, 1], [band.row, plane.channels, 1]]), lanes, 0,
      )).flat();
    });
  };
  const stmts: Stmt[] = [];
  for (let i = 0; i < starts.length;) {
    let end = i + 1;
    while (end < starts.length && classOf(starts[end]) === classOf(starts[i]) && coverOf(w, starts[i], rowsAt(starts[i])).above === 0) end++;
    const [first, rows, count] = [starts[i], rowsAt(starts[i]), end - i];
    const { above, inside, below } = coverOf(w, first, rows);
    const b = index('block', count);
    const from = (first * strides[0] - pads[0] + above) * run;
    const copy = inside === 0 ? [] : copied(at(source, from, sample, [b, band.block * strides[0] * run]), above, inside);
    const border = [...gap(above, 0), ...gap(below, above + inside)];
    stmts.push(loop(b, [...border, ...copy, ...body({ rows, first, terms: [[n, outHeight], [b, band.block]], inside: above === 0 && below === 0 })], mark));
    i = end;
  }
  const borders = (band.fromPlanes ? band.planes.slice(0, 1) : band.planes).flatMap((plane) => (plane.even === null
    ? [[plane.start, pads[1] * plane.channels], [plane.start + placeInPlane(pads[1] + width, plane), pads[3] * plane.channels]]
    : [...list(pads[1], (i) => i), ...list(pads[3], (i) => pads[1] + width + i)].map((pixel) => [plane.start + placeInPlane(pixel, plane), plane.channels])));
  const sides = borders.filter(([, length]) => length > 0).flatMap(([offset, length]) => (band.fromPlanes
    ? overPlanes((plane) => fillRows(at(into, offset, [plane, apart]), band.rows, length, band.row, fill, target)) : fillRows(at(into, offset), band.rows, length, band.row, fill, target)));
  const slack = band.slack === 0 ? [] : fillRows(at(into, band.rows * band.row), 1, band.slack, band.slack, 0, target);
  return [...sides, ...slack, loop(n, stmts)];
};

/** An address in the result: of pixel (row, column 0) of a block. */
export const inResult = (to: Buffer, { first, terms }: Block, row: number, perRow: number, extra: readonly (readonly [Index, number])[] = []): Address =>
  at(to, (first + row) * perRow, ...terms.map(([i, rows]) => [i, rows * perRow] as const), ...extra);
