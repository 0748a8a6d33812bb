/**
 * All rows of a depthwise convolution that sliding.ts lays out. Parts that hold one pixel in a vector read rows of the image where they are:
 * only windows that leave it above or below read copies, with rows of the border. Parts that hold several read a band.
 */
import { at, buffer, call, fn, index, loop, moved } from '../../loops/build.ts';
import type { Address, Buffer, Elem, Fn, Index, Stmt } from '../../loops/types.ts';
import { fillRows, widenRows } from './gemm.ts';
import type { ScheduleContext } from './kernel.ts';
import { makeRescale, type RescaleClass } from './rescale.ts';
import { bandLength, coverOf, inResult, overBlocks, type Band, type Block, type WindowShape } from './rows.ts';
import { readsImage, rowsTogether, slidingLength, slidingPerLane, slidingRebased, slidingTail, type Part } from './sliding.ts';
import { slidingRow } from './sliding-row.ts';
import { markFor } from './split.ts';
import type { Target } from './target.ts';

export interface SlidingLayer {
  readonly window: WindowShape;
  readonly band: Band;
  readonly padCode: number;
  readonly x: Elem;
  readonly rescale: RescaleClass;
  readonly target: Target;
  readonly parts: readonly Part[];
}
type Terms = readonly (readonly [Index, number])[];
/** Codes of one vector, where pixels of a part lie apart in the result. */
export const besideLength = (parts: readonly Part[]): number => (parts.length === 1 ? 0 : Math.max(0, ...parts.map(({ channels, merged }) => (merged > 1 ? merged * channels : 0))));

/** Rows that windows of so many output rows cover, as long as those of the image, where a part reads them. */
export const edgeLength = (parts: readonly Part[], w: WindowShape, target: Target): number =>
  (!parts.some((part) => readsImage(part, w, target)) ? 0 : ((rowsTogether(target, w) - 1) * w.strides[0] + (w.kernel[0] - 1) * w.dilations[0] + 1) * w.width * w.channels);

/** The weights as buffers of the function: those it is called with, the codes to read, and what brings them there. */
export interface Weights {
  readonly buffers: readonly Buffer[];
  readonly codes: Buffer;
  readonly setup: readonly Stmt[];
}

export const slidingLayer = (share: ScheduleContext['share'], name: string, { window: w, band, padCode, x, rescale: ending, target, parts }: SlidingLayer, weightsOf: (length: number, tail: number) => Weights): Fn => {
  const pixels = w.batch * w.outHeight * w.outWidth;
  const [perRow, imageRow] = [w.outWidth * w.channels, w.width * w.channels];
  const rebased = slidingRebased(target, x);
  const together = rowsTogether(target, w);
  const planeOf = (part: Part): (typeof band.planes)[number] => band.planes.find(({ first }) => first === part.first)!;
  const rowsOf = (part: Part, count: 1 | 2): Fn => share('depthwise_row', {
    window: { kernel: w.kernel, dilations: w.dilations, stride: w.strides[1], outWidth: w.outWidth, channels: part.channels }, outChannels: w.channels, x, rescale: ending, target, merged: part.merged, rebased, together, count,
    ...(readsImage(part, w, target) ? { bandRow: imageRow, even: null, border: { width: w.width, left: w.pads[1], code: padCode } } : { bandRow: band.row, even: planeOf(part).even, border: null }),
  }, slidingRow);
  const sizes = parts.map((part) => slidingLength(part, target));
  const length = sizes.reduce((sum, size) => sum + size, 0);
  const perLane = slidingPerLane(w.kernel, target);
  const [result, source] = [buffer('out', ending.out, pixels * w.channels, 'out'), buffer('x', x, w.batch * w.height * imageRow, 'in')];
  const weights = weightsOf(length * perLane, slidingTail(together));
  const rescale = makeRescale(ending, target, { channels: length, y: 0 });
  const start = rebased ? [buffer('start', 'i32', length, 'const')] : [];
  const rows = buffer('rows', band.e, bandLength(band), 'temp');
  const edge = buffer('edge', x, edgeLength(parts, w, target), 'temp');
  const beside = buffer('beside', ending.out, besideLength(parts), 'temp');
  /** `count` output rows of a part, from row `first` (and `terms`) of a block on. */
  const computed = (part: Part, block: Block, from: Address, count: 1 | 2, first: number, terms: Terms): Stmt => {
    const before = sizes.slice(0, parts.indexOf(part)).reduce((sum, size) => sum + size, 0);
    return call(rowsOf(part, count), [
      moved(inResult(result, block, first, perRow, terms.map(([i, step]) => [i, step * perRow])), part.first), from, at(weights.codes, before * perLane), ...start.map((one) => at(one, before)),
      ...rescale.buffers.map((one) => at(one, rescale.channels.includes(one) ? before : 0)), ...(beside.length > 0 && part.merged > 1 ? [at(beside)] : []),
    ], [], rescale.values);
  };
  /** All rows of a block by `body`, those that are computed together first; `first` is where they begin, and `terms`. */
  const grouped = (height: number, begin: number, body: (count: 1 | 2, first: number, terms: Terms) => readonly Stmt[]): readonly Stmt[] => {
    const whole = Math.floor(height / together);
    const r = index('row', Math.max(1, whole));
    return [...(whole === 0 ? [] : [loop(r, body(together, begin, [[r, together]]))]), ...(height % together === 0 ? [] : body(1, begin + whole * together, []))];
  };
  const inBand = (part: Part, block: Block): readonly Stmt[] => grouped(block.rows, 0, (count, first, terms) =>
    [computed(part, block, at(rows, first * w.strides[0] * band.row + planeOf(part).start, ...terms.map(([i, step]) => [i, step * w.strides[0] * band.row] as const)), count, first, terms)]);
  const inImage = (part: Part, block: Block): readonly Stmt[] => {
    const there = (first: number, terms: Terms): Address =>
      at(source, ((block.first + first) * w.strides[0] - w.pads[0]) * imageRow + part.first, ...[...block.terms, ...terms].map(([i, step]) => [i, i === block.terms[0][0] ? w.height * imageRow : step * w.strides[0] * imageRow] as const));
    const free = (begin: number, height: number): readonly Stmt[] => (height === 0 ? [] : grouped(height, begin, (count, first, terms) => [computed(part, block, there(first, terms), count, first, terms)]));
    if (block.inside) return free(0, block.rows);
    // windows that leave the image read copies of its rows, with rows of the border above or below
    const stmts: Stmt[] = [];
    let begin = 0;
    for (let first = 0; first < block.rows; first += together) {
      const count = Math.min(together, block.rows - first) as 1 | 2;
      const { above, inside, below } = coverOf(w, block.first + first, count);
      if (above === 0 && below === 0) continue;
      const filled = (to: number, height: number): readonly Stmt[] => (height === 0 ? [] : fillRows(at(edge, to * imageRow), height, imageRow, imageRow, padCode, target));
      stmts.push(
        ...free(begin, first - begin), ...filled(0, above), ...(inside === 0 ? [] : widenRows(moved(there(first, []), above * imageRow - part.first), at(edge, above * imageRow), inside, imageRow, imageRow, imageRow, 0, target)),
        ...filled(above + inside, below), computed(part, block, at(edge, part.first), count, first, []),
      );
      begin = first + count;
    }
    return [...stmts, ...free(begin, block.rows - begin)];
  };
  const body = overBlocks(w, band, source, rows, padCode + (rebased ? 128 : 0), target,
    (block) => parts.flatMap((part) => (readsImage(part, w, target) ? inImage(part, block) : inBand(part, block))), markFor(pixels * w.channels * w.kernel[0] * w.kernel[1], pixels * w.channels, target));
  const used = (scratch: Buffer): readonly Buffer[] => (scratch.length === 0 ? [] : [scratch]);
  return fn(name, { buffers: [result, source, ...weights.buffers, ...start, ...used(rows), ...used(edge), ...rescale.buffers, ...used(beside)], values: rescale.values }, [...weights.setup, ...body]);
};

