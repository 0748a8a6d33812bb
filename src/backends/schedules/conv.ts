/**
 * `conv_acc`. One tap, stride 1, no border and one group: a product over pixels. Every other shape reads a band of rows: a row of the
 * product is a window, its runs are the rows of taps (or the taps, where dilation or groups part them). One channel per group is
 * `depthwise.ts`.
 */
import type { Node, Value } from '../../ir/graph.ts';
import { at, buffer, fn, index, list, load, loop, moved, store } from '../../loops/build.ts';
import type { Address, Buffer, Elem, Fn, Index, Stmt } from '../../loops/types.ts';
import { depthwise } from './depthwise.ts';
import { fillRows, targetFor, unitOf, walkOf, type Walk } from './gemm.ts';
import { elemOf, operand, product, scratch, shapeOf, type Binding, type Schedule, type ScheduleContext } from './kernel.ts';
import { storedWeights, weightWidth, type StoredWeights } from './levels.ts';
import { rowProduct } from './linear.ts';
import { collapse, overNest } from './nest.ts';
import { quadsFor, quadTarget } from './quads.ts';
import { pairsLength } from './pairs.ts';
import { makeRescale, rescaleBindings, rescaleClass, rescaleValues, type RescaleClass } from './rescale.ts';
import { bandLength, bandOf, inResult, overBlocks, windowShapeOf, type Band, type WindowAttrs, type WindowShape } from './rows.ts';
import { markFor } from './split.ts';
import type { Target } from './target.ts';
import { channelConstants, channelsLength, rowElem, rowOffset, weightBindings, weightBuffers } from './weights.ts';
import { winograd } from './winograd.ts';

export interface ConvAttrs extends WindowAttrs {
  readonly group: number;
  readonly padCode: number;
}
interface Taps {
  readonly counts: readonly number[];
  readonly strides: readonly number[];
  readonly run: number;
}
/** Without vectors, runs shorter than this are gathered into one: a compiler's vectors pay for every run with a sum across lanes. */
const SHORT_RUN = 32;
/** Pixels that share an unpacking at least; more rows of windows would leave the cache. */
const UNPACKED_PIXELS = 14;

interface Shape {
  readonly window: WindowShape;
  readonly band: Band;
  readonly group: number;
  readonly padCode: number;
  readonly outputs: number;
  readonly walk: Walk;
  /** where the taps of a window stand in the band, if they are gathered first; else the product walks them itself */
  readonly taps: Taps | null;
  readonly x: Elem;
  readonly rescale: RescaleClass;
  readonly inPlace: boolean;
  readonly target: Target;
}

export const conv: Schedule = (step, context) => {
  const [x, weight] = [step.root.inputs['x'] as Value, step.root.inputs['weight'] as Value];
  const attrs = step.root.attrs as unknown as ConvAttrs;
  const [outputs, kh, kw, perGroup] = shapeOf(weight);
  const window = windowShapeOf(x, step.output, [kh, kw], attrs);
  const plain = kh === 1 && kw === 1 && attrs.group === 1 && [...attrs.strides].every((s) => s === 1) && attrs.pads.every((p) => p === 0);
  if (plain) return rowProduct(step, context, window.batch * window.height * window.width, window.channels, outputs);
  if (perGroup === 1 && outputs === window.channels) return depthwise(step, context, window, attrs.padCode);
  const fewer = step.planes ? null : winograd(step, context, window, attrs);
  if (fewer !== null) return fewer;

  const columns = outputs / attrs.group;
  const ending = rescaleClass(step);
  const planes = step.planes ? { fromPlanes: true, planes: list(window.channels, (first) => ({ first, channels: 1, parted: false })) } : {};
  const { taps, gathered, walk, target, stored } = convWalk(step.root, attrs, window.channels, (e) => bandOf(window, e, 0, context.target, planes), elemOf(x.type.dtype), ending, context.target);
  const band = bandOf(window, rowElem(walk), gathered ? 0 : walk.padded - walk.run, context.target, { ...planes, least: walk.bits === 8 || gathered ? 1 : Math.ceil(UNPACKED_PIXELS / window.outWidth) });
  const key: Shape = {
    window, band, group: attrs.group, padCode: attrs.padCode, outputs, walk, taps: gathered ? taps : null,
    x: elemOf(x.type.dtype), rescale: ending, inPlace: context.inPlace !== null, target,
  };
  const buffers: readonly Binding[] = [
    { kind: 'value', value: step.output }, operand(x), ...weightBindings(weight.name, stored, columns, walk, target, attrs.group, ending.out, band.block * window.outWidth),
    scratch(band.e, bandLength(band)), ...(gathered ? [scratch('i16', window.outWidth * walk.padded)] : []),
    ...rescaleBindings(step, !key.inPlace, (constants) => channelConstants(constants, columns, walk, target, attrs.group)),
  ];
  return { fn: context.share('conv', key, convFn(context)), buffers, values: rescaleValues(step) };
};

/** How windows are walked over rows of a band, the target that does it, and the weights as it wants them. */
const convWalk = (
  root: Node, { group, dilations }: Pick<ConvAttrs, 'group' | 'dilations'>, channels: number, bandFor: (e: Elem) => Band, x: Elem, ending: RescaleClass, whole: Target,
): { readonly taps: Taps; readonly gathered: boolean; readonly walk: Walk; readonly target: Target; readonly stored: StoredWeights } => {
  const [outputs, kh, kw, perGroup] = shapeOf(root.inputs['weight'] as Value);
  const columns = outputs / group;
  const quads = quadsFor(whole, x, weightWidth(root), kh * kw * perGroup, columns, ending);
  const target = quads === null ? targetFor(whole, columns) : quadTarget(whole, columns);
  const { row, planes, fromPlanes } = bandFor(rowElem({ quads }));
  const [down, right] = [dilations[0] * row, dilations[1] * channels];
  const taps: Taps = fromPlanes ? { counts: [kh, channels], strides: [down, channels === 1 ? 0 : planes[1].start], run: kw } : group === 1 && dilations[1] === 1 ? { counts: [kh], strides: [down], run: kw * perGroup } : { counts: [kh, kw], strides: [down, right], run: perGroup };
  const gathered = target.lanes === 1 && product(taps.counts) > 1 && taps.run < SHORT_RUN;
  // windows that are gathered are padded with 0, others with what stands beside them
  const own = storedWeights(root, !gathered && taps.run % unitOf(target, quads) !== 0);
  const stored = fromPlanes ? { ...own, weights: byPlanes(own.weights, kw, perGroup), codes: byPlanes(own.codes, kw, perGroup) } : own;
  const [counts, strides, run] = gathered ? [[], [], product(taps.counts) * taps.run] : [taps.counts, taps.strides, taps.run];
  return { taps, gathered, walk: walkOf(counts, strides, run, target, stored.bits, quads, null, stored.levels !== null), target, stored };
};

/** Rows of taps [kw][channel] as [channel][kw]. */
const byPlanes = (weights: Int8Array, kw: number, channels: number): Int8Array => weights.map((_, i) => {
  const [inRow, begin] = [i % (kw * channels), i - (i % (kw * channels))];
  return weights[begin + (inRow % kw) * channels + Math.floor(inRow / kw)];
});

const convFn = ({ share }: ScheduleContext) => (name: string, { window: w, band, group, padCode, outputs, walk, taps, x, rescale: ending, inPlace, target }: Shape): Fn => {
  const pixels = w.batch * w.outHeight * w.outWidth;
  const columns = outputs / group;
  const result = buffer('out', ending.out, pixels * outputs, 'out');
  const source = buffer('x', x, w.batch * w.height * w.width * w.channels, 'in');
  const weights = weightBuffers(columns, walk, target, ending.out, group, band.block * w.outWidth);
  const rows = buffer('rows', band.e, bandLength(band), 'temp');
  const rescale = makeRescale(ending, target, { channels: group * channelsLength(columns, walk, target), y: pixels * outputs }, inPlace ? result : null);
  const patches = buffer('patches', 'i16', w.outWidth * walk.padded, 'temp');
  const pixelStride = w.strides[1] * (band.fromPlanes ? 1 : w.channels);
  const tile = { walk, rowA: taps === null ? pixelStride : walk.padded, rowOut: outputs, a: band.e, b: 'i8' as const, rescale: ending, inPlace, target };
  const g = index('group', group);
  const perRow = w.outWidth * outputs;
  const mark = markFor(pixels * columns * w.channels * product(w.kernel), pixels * outputs, target);
  // an image in one block is shared by its panels, larger ones by blocks
  const [perBlock, perPanel] = band.block < w.outHeight ? [mark, null] : [null, mark];
  const body = overBlocks(w, band, source, rows, padCode + rowOffset(walk), target, (block) => {
    const row = index('row', block.rows);
    const out = moved(inResult(result, block, 0, perRow, [[row, perRow]]), 0, [g, columns]);
    const windows = at(rows, 0, [g, w.channels / group], [row, w.strides[0] * band.row]);
    const multiply = (around: readonly Index[]): readonly Stmt[] => weights.multiply(tile, w.outWidth, rescale, {
      out, a: taps === null ? windows : at(patches), y: rescale.y === null ? null : moved(at(rescale.y), out.offset, ...out.terms), group: g, around, mark: perPanel,
    }, share);
    // panels are unpacked, or put in order, once for all rows of the block
    if (taps === null && (walk.bits < 8 || pairsLength(walk, block.rows * w.outWidth, columns, target) !== null)) return [loop(g, multiply([row]))];
    return [loop(row, [loop(g, [...(taps === null ? [] : gather(windows, patches, taps, w.outWidth, pixelStride, walk.padded)), ...multiply([])])])];
  }, perBlock);
  const cleared = taps === null || walk.padded === walk.run ? [] : fillRows(at(patches, walk.run), w.outWidth, walk.padded - walk.run, walk.padded, 0, target);
  return fn(name, { buffers: [result, source, ...weights.buffers, rows, ...(taps === null ? [] : [patches]), ...rescale.buffers], values: rescale.values }, [...cleared, ...body]);
};

/** The windows of one row of output pixels, each as one run. */
const gather = (from: Address, to: Buffer, { counts, strides, run }: Taps, pixels: number, pixelStride: number, length: number): readonly Stmt[] => {
  const goals = counts.map((_, i) => product(counts.slice(i + 1)) * run);
  return overNest(collapse([pixels, ...counts, run], [[length, ...goals, 1], [pixelStride, ...strides, 1]]), 1, (_run, locate) => {
    const source = locate(1, from.buffer);
    return [store(locate(0, to), load(moved(from, source.offset, ...source.terms)))];
  });
};
