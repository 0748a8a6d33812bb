/**
 * `conv_acc` with one channel per group. With vectors, two taps at a time: the channels of both are interleaved and go through one dot
 * product of pairs, weights packed as [channel block][tap pair][half][lane][2]. Without vectors, channels are the innermost loop: all
 * taps of a channel in one expression, then the rescale in a loop of its own, which compilers vectorise each.
 */
import type { Value } from '../../ir/graph.ts';
import { at, buffer, call, dot, fn, index, list, load, loop, moved, mul, set, store, sum, variable, zero, zip } from '../../loops/build.ts';
import type { Address, Buffer, Contents, Elem, Expr, Fn, Index, Stmt } from '../../loops/types.ts';
import type { Step } from '../group.ts';
import { elemOf, emptyLike, operand, packed, perChannel, scratch, type Binding, type Kernel, type ScheduleContext } from './kernel.ts';
import { packCodes, packedLength, unpack, type StoredBits } from './codes.ts';
import { scalarOf, widenRows } from './gemm.ts';
import { storedWeights, unpackLevels } from './levels.ts';
import { startSums } from './quads.ts';
import { makeRescale, rescaleBindings, rescaleClass, rescaleValues, type RescaleClass } from './rescale.ts';
import { bandLength, bandOf, inResult, overBlocks, type Band, type WindowShape } from './rows.ts';
import { MOST_TAPS, packSliding, partsOf, readsImage, rowsTogether, slidingConstants, slidingElem, slidingPads, slidingRebased, slidingTail, slidingWeights, type Part } from './sliding.ts';
import { besideLength, edgeLength, slidingLayer, type Weights } from './sliding-layer.ts';
import { markFor } from './split.ts';
import type { Target } from './target.ts';
import { inReadingOrder, runOf } from './words.ts';

interface Shape {
  readonly window: WindowShape;
  readonly band: Band;
  readonly padCode: number;
  readonly x: Elem;
  readonly rescale: RescaleClass;
  readonly inPlace: boolean;
  readonly target: Target;
  /** parts of the channels where it is done by `sliding.ts`, else null */
  readonly parts: readonly Part[] | null;
  /** width of the weights as stored, all in one list of codes (codes.ts), which is unpacked before the first row */
  readonly bits: StoredBits;
  /** whether they are indices into a table of levels (levels.ts) */
  readonly indexed: boolean;
}

export const depthwise = (step: Step, context: ScheduleContext, window: WindowShape, padCode: number): Kernel => {
  const [x, weight] = [step.root.inputs['x'] as Value, step.root.inputs['weight'] as Value];
  const ending = rescaleClass(step);
  const parts = partsOf(context.target, elemOf(x.type.dtype), window, ending);
  const target = parts !== null ? context.target : targetOf(window, context.target);
  const together = parts === null ? 1 : rowsTogether(target, window);
  const band = parts === null ? bandOf(window, 'i16', 0, target) : bandOf(window, slidingElem(target, elemOf(x.type.dtype)), 0, target, {
    least: parts.every((part) => readsImage(part, window, target)) ? together : SHARED_ROWS, together, planes: parts.filter((part) => !readsImage(part, window, target)).map(({ first, channels, merged }) => ({ first, channels, parted: merged > 1 && window.strides[1] === 2 })),
  });
  // only sliding joins a pixel with a tap that is none
  const own = storedWeights(step.root, parts !== null && slidingPads(window.kernel, target, together));
  const { codes, padding } = own;
  const key: Shape = { window, band, padCode, x: elemOf(x.type.dtype), rescale: ending, inPlace: context.inPlace !== null, target, parts, bits: own.bits, indexed: own.levels !== null };
  const taps = window.kernel[0] * window.kernel[1];
  const build = { fn: context.share('depthwise', key, depthwiseFn(context)), values: rescaleValues(step) };
  if (parts !== null) {
    const perLane = <T extends Contents>(list: T): T => slidingConstants(list, parts, target);
    const start = slidingRebased(target, key.x) ? [packed(weight.name, perLane(startSums(own.weights, window.channels, -128)))] : [];
    const scratches = (e: Elem, length: number): readonly Binding[] => (length === 0 ? [] : [scratch(e, length)]);
    return { ...build, buffers: [
      { kind: 'value', value: step.output }, operand(x), ...stored(weight.name, packSliding(codes, parts, window.kernel, target, together, padding), own.levels, key, slidingTail(together)), ...start,
      ...scratches(band.e, bandLength(band)), ...scratches(key.x, edgeLength(parts, window, target)),
      ...rescaleBindings(step, false, (constants) => perLane(perChannel(constants, window.channels))), ...scratches(ending.out, besideLength(parts)),
    ] };
  }
  const buffers: readonly Binding[] = [
    { kind: 'value', value: step.output }, operand(x), ...stored(weight.name, target.lanes === 1 ? packScalar(codes, window.channels, taps) : packPairs(codes, window.channels, window.kernel, target, padding), own.levels, key),
    scratch('i16', bandLength(band)), ...(target.lanes === 1 ? [scratch('i32', window.channels)] : []),
    ...rescaleBindings(step, !key.inPlace, (constants) => blockConstants(perChannel(constants, window.channels), target)),
  ];
  return { ...build, buffers };
};

/** Output rows that share a band at least: a core fetches ahead what sliding reads, so that fewer copies of rows pay for a larger band. */
const SHARED_ROWS = 4;
/** Codes that stand side by side in packed weights: one load of the widest vectors. */
const BLOCK = 64;
const blockOf = (length: number, { lanes }: Target): number => (lanes === 1 ? length : BLOCK);
const tailed = (codes: Int8Array, tail: number): Int8Array => {
  const all = new Int8Array(codes.length + tail);
  all.set(codes);
  return all;
};
/** The weights as stored, and memory for them unpacked, with `tail` zeros after the last one. */
const stored = (name: string, codes: Int8Array, levels: Int8Array | null, shape: Shape, tail = 0): readonly Binding[] => [
  packed(name, shape.bits === 8 ? tailed(codes, tail) : packCodes(codes, blockOf(codes.length, shape.target), shape.bits)),
  ...(levels === null ? [] : [packed(name, levels)]), ...(shape.bits === 8 ? [] : [scratch('i8', codes.length + tail)]),
  ...(readsWords(shape) ? [scratch('i16', codes.length)] : []),
];
/** Whether weights are widened before the first row reads them. */
const readsWords = (shape: Shape): boolean => shape.parts !== null && slidingWeights(shape.target) === 'i16';
const weightsOf = (length: number, shape: Shape, share: ScheduleContext['share'], tail = 0): Weights => {
  const { bits, indexed, target } = shape;
  const block = blockOf(length, target);
  const kept = buffer('w', 'i8', bits === 8 ? length + tail : packedLength(length, block, bits), 'const');
  const bytes = bits === 8 ? kept : buffer('unpacked', 'i8', length + tail, 'temp');
  const levels = indexed ? buffer('levels', 'i8', 2 ** bits, 'const') : null;
  const unpacking = bits === 8 ? []
    : [levels === null ? unpack(at(bytes), at(kept), length, block, bits, target, share) : unpackLevels(at(bytes), at(kept), at(levels), length, block, bits, target, share)];
  const words = readsWords(shape) ? buffer('words', 'i16', length, 'temp') : null;
  return {
    buffers: [kept, ...(levels === null ? [] : [levels]), ...(bits === 8 ? [] : [bytes]), ...(words === null ? [] : [words])], codes: words ?? bytes,
    setup: [...unpacking, ...(bits === 8 ? [] : list(tail, (i) => store(at(bytes, length + i), 0))), ...(words === null ? [] : widenRows(at(bytes), at(words), 1, length, length, length, 0, target))],
  };
};

/** Interleaving keeps the order of channels only in vectors of one 16-byte block, so wider machines use their narrow ones here. */
const targetOf = ({ channels }: Pick<WindowShape, 'channels'>, target: Target): Target => {
  const narrow: Target = target.lanes > 4 ? { ...target, lanes: 4 } : target;
  return channels < runOf(narrow.lanes) ? scalarOf(target) : narrow;
};
/** Per-channel constants block by block. */
const blockConstants = <T extends Contents>(all: T, target: Target): T => {
  const run = runOf(target.lanes);
  if (run === 1) return all;
  const starts = blockStarts(all.length, run);
  const out = emptyLike(all, starts.length * run);
  starts.forEach((start, n) => { for (let i = 0; i < run; i++) out[n * run + i] = all[start + i] as never; });
  return inReadingOrder(out, target);
};

/** [channel][tap] → [tap][channel] */
const packScalar = (weights: Int8Array, channels: number, taps: number): Int8Array =>
  Int8Array.from({ length: channels * taps }, (_, i) => weights[(i % channels) * taps + Math.floor(i / channels)]);

/** First channels of the blocks; the last one ends at the last channel. */
const blockStarts = (channels: number, run: number): readonly number[] => {
  const whole = Math.floor(channels / run);
  return [...list(whole, (n) => n * run), ...(channels % run === 0 ? [] : [channels - run])];
};
/** Taps that stand side by side in the code, and loops over them: all taps of a window, or one row of it where there are too many. */
const segmentsOf = ([kh, kw]: readonly number[]): { readonly count: number; readonly taps: number } => (kh * kw > MOST_TAPS ? { count: kh, taps: kw } : { count: 1, taps: kh * kw });
const pairsLength = (taps: number, run: number): number => 2 * Math.ceil(taps / 2) * run;
const blockLength = (kernel: readonly number[], run: number): number => segmentsOf(kernel).count * pairsLength(segmentsOf(kernel).taps, run);

/** [channel][tap] → [block][segment][tap pair][channel][2] */
const packPairs = (weights: Int8Array, channels: number, kernel: readonly number[], { lanes }: Target, padding: number): Int8Array => {
  const run = runOf(lanes);
  const starts = blockStarts(channels, run);
  const { count, taps } = segmentsOf(kernel);
  const out = new Int8Array(starts.length * blockLength(kernel, run));
  let to = 0;
  for (const start of starts) for (let s = 0; s < count; s++) for (let tap = 0; tap < taps; tap += 2) for (let c = start; c < start + run; c++) for (const t of [tap, tap + 1]) {
    out[to++] = t < taps ? weights[(c * count + s) * taps + t] : padding;
  }
  return out;
};

const depthwiseFn = ({ share }: ScheduleContext) => (name: string, shape: Shape): Fn => {
  if (shape.parts !== null) return slidingLayer(share, name, { ...shape, parts: shape.parts }, (length, tail) => weightsOf(length, shape, share, tail));
  const { window: w, band, padCode, x, rescale: ending, inPlace, target } = shape;
  const { channels } = w;
  const pixels = w.batch * w.outHeight * w.outWidth;
  const taps = w.kernel[0] * w.kernel[1];
  const scalar = target.lanes === 1;
  const run = runOf(target.lanes);
  const result = buffer('out', ending.out, pixels * channels, 'out');
  const source = buffer('x', x, w.batch * w.height * w.width * channels, 'in');
  const weights = weightsOf(scalar ? taps * channels : blockStarts(channels, run).length * blockLength(w.kernel, run), shape, share);
  const rows = buffer('rows', 'i16', bandLength(band), 'temp');
  const sums = buffer('sums', 'i32', channels, 'temp');
  const rescale = makeRescale(ending, target, { channels: blockStarts(channels, run).length * run, y: pixels * channels }, inPlace ? result : null);
  const rowShape: RowShape = { window: { kernel: w.kernel, dilations: w.dilations, stride: w.strides[1], outWidth: w.outWidth, channels }, bandRow: band.row, rescale: ending, inPlace, target };
  const body = overBlocks(w, band, source, rows, padCode, target, (block) => {
    const r = index('row', block.rows);
    const perRow = w.outWidth * channels;
    const out = inResult(result, block, 0, perRow, [[r, perRow]]);
    return [loop(r, [call(share('depthwise_row', rowShape, rowFn), [
      out, at(rows, 0, [r, w.strides[0] * band.row]), weights.codes, ...(scalar ? [sums] : []),
      ...rescale.buffers.map((one) => (one === rescale.y ? moved(at(one), out.offset, ...out.terms) : at(one))),
    ], [], rescale.values)])];
  }, markFor(pixels * channels * taps, pixels * channels, target));
  return fn(name, { buffers: [result, source, ...weights.buffers, rows, ...(scalar ? [sums] : []), ...rescale.buffers], values: rescale.values }, [...weights.setup, ...body]);
};

interface RowShape {
  readonly window: { readonly kernel: readonly number[]; readonly dilations: readonly number[]; readonly stride: number; readonly outWidth: number; readonly channels: number };
  readonly bandRow: number;
  readonly rescale: RescaleClass;
  readonly inPlace: boolean;
  readonly target: Target;
}

/** One row of output pixels. */
const rowFn = (name: string, { window, bandRow, rescale: ending, inPlace, target }: RowShape): Fn => {
  const { kernel: [kh, kw], dilations, stride, outWidth, channels } = window;
  const run = runOf(target.lanes);
  const { count, taps } = segmentsOf([kh, kw]);
  const segment = index('segment', count);
  const bySegment = (stride: number): (readonly [Index, number])[] => (count === 1 ? [] : [[segment, stride]]);
  const overSegments = (stmts: readonly Stmt[]): readonly Stmt[] => (count === 1 ? stmts : [loop(segment, stmts)]);
  const reach = (kh - 1) * dilations[0] * bandRow + ((outWidth - 1) * stride + (kw - 1) * dilations[1] + 1) * channels;
  const offsetOf = (tap: number): number => Math.floor(tap / kw) * dilations[0] * bandRow + (tap % kw) * dilations[1] * channels;
  const result = buffer('out', ending.out, outWidth * channels, 'out');
  const rows = buffer('rows', 'i16', reach, 'in');
  const rescale = makeRescale(ending, target, { channels: blockStarts(channels, run).length * run, y: outWidth * channels }, inPlace ? result : null);
  const prepared = rescale.prepare(run);
  const second = inPlace ? result : rescale.y;
  const p = index('pixel', outWidth);
  /** Sums to codes, for the run of channels that begins at `start + block·run`. */
  const conclude = (totals: readonly Expr[], start: number, number: number, block: readonly (readonly [Index, number])[]): readonly Stmt[] => {
    const { setup, constants } = prepared.channels((one) => ({ from: at(one, number * run, ...block), stride: 1 }));
    const there = (to: Buffer): Address => at(to, start, [p, channels], ...block);
    return [...setup, ...prepared.finish(totals, constants, there(result), second === null ? null : { from: there(second), stride: 1 })];
  };

  if (target.lanes === 1) {
    const weights = buffer('w', 'i8', kh * kw * channels, 'const');
    const sums = buffer('sums', 'i32', channels, 'temp');
    const [c, d, z] = [index('c', channels), index('d', channels), index('z', channels)];
    const products = list(taps, (tap) => mul(
      load(at(rows, offsetOf(tap), [p, stride * channels], [c, 1], ...bySegment(dilations[0] * bandRow)), 1, 'i32'), load(at(weights, tap * channels, [c, 1], ...bySegment(taps * channels)), 1, 'i32')));
    const own = at(sums, 0, [c, 1]);
    return fn(name, { buffers: [result, rows, weights, sums, ...rescale.buffers], values: rescale.values }, [
      ...prepared.setup,
      loop(p, [
        ...(count === 1 ? [] : [loop(z, [store(at(sums, 0, [z, 1]), 0)])]), ...overSegments([loop(c, [store(own, sum(count === 1 ? products : [load(own), ...products]))])]), loop(d, conclude([load(at(sums, 0, [d, 1]))], 0, 0, [[d, 1]])),
      ]),
    ]);
  }

  const size = blockLength([kh, kw], run);
  const starts = blockStarts(channels, run);
  const weights = buffer('w', 'i8', starts.length * size, 'const');
  const block = (start: number, number: number, terms: readonly Index[]): readonly Stmt[] => {
    const by = (n: number): (readonly [Index, number])[] => terms.map((i) => [i, n]);
    const totals = [variable('s0', 'i32', target.lanes), variable('s1', 'i32', target.lanes)];
    const tapAt = (tap: number): Expr => load(at(rows, start + offsetOf(tap), [p, stride * channels], ...by(run), ...bySegment(dilations[0] * bandRow)), run);
    const pairs = list(Math.ceil(taps / 2), (pair) => {
      const [a, b] = [variable('a', 'i16', run), variable('b', 'i16', run)];
      const last = 2 * pair + 1 === taps;
      return [
        set(a, tapAt(2 * pair)), ...(last ? [] : [set(b, tapAt(2 * pair + 1))]),
        ...totals.map((total, half) => set(total, dot(2, total, zip(half as 0 | 1, 1, a, last ? zero('i16', run) : b),
          load(at(weights, number * size + pair * 2 * run + half * run, ...by(size), ...bySegment(pairsLength(taps, run))), run, 'i16')))),
      ];
    });
    return [...totals.map((total) => set(total, zero('i32', target.lanes))), ...overSegments(pairs.flat()), ...conclude(totals, start, number, by(run))];
  };
  const whole = Math.floor(channels / run);
  const c = index('c', whole);
  return fn(name, { buffers: [result, rows, weights, ...rescale.buffers], values: rescale.values }, [
    ...prepared.setup,
    loop(p, [loop(c, block(0, 0, [c])), ...(channels % run === 0 ? [] : block(channels - run, whole, []))]),
  ]);
};
