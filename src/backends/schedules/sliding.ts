/**
 * Depthwise convolution on vectors: a block of channels at a time, along a row of pixels. The taps of one column of the window are
 * interleaved, so that neighbours belong to one channel, and go through one dot product; a column serves every window it lies in while
 * it slides through the registers. Where dot products join two taps and rows are odd in number, the taps of the last row are joined
 * with their neighbours in the row instead, the last one alone:
 *
 *     joined taps of 3×3:  (00 10) (01 11) (02 12)   (20 21) (–– 22)      the last two are vectors of neighbouring pixels of one row
 *
 * Few channels leave wide vectors empty. Where they divide a vector, neighbouring pixels stand side by side in it instead, each with the same
 * weights, and few or none of the columns serve the next. Windows that move by two pixels read rows in which even pixels stand before odd ones.
 *
 * Interleaving and packing work per 16 bytes, and the second undoes the order that the first leaves behind: lane l of sum v is channel
 * 4·V·⌊l/4⌋ + 4·v + l mod 4 of the block, V sums in all, and the packed codes stand in order. Weights and constants follow the lanes.
 */
import { at, broadcast, buffer, bytesOf, convert, dot, fn, index, list, load, loop, max, min, narrow, pack, set, store, variable, zero, zip } from '../../loops/build.ts';
import type { Contents, Elem, Expr, Fn, Index, Stmt, Var } from '../../loops/types.ts';
import { emptyLike } from './kernel.ts';
import { makeRescale, rescaled, tableEntry, type RescaleClass } from './rescale.ts';
import { placeInRow, type WindowShape } from './rows.ts';
import type { Target } from './target.ts';
import { inLaneOrder } from './words.ts';

export interface SlidingShape {
  readonly window: { readonly kernel: readonly number[]; readonly dilations: readonly number[]; readonly stride: number; readonly outWidth: number; readonly channels: number };
  /** element of the image */
  readonly x: Elem;
  readonly bandRow: number;
  readonly rescale: RescaleClass;
  readonly target: Target;
  /** pixels side by side in a vector; 1: channels alone fill it */
  readonly merged: number;
  /** as in a band (rows.ts) */
  readonly even: number | null;
}

/** How many taps a dot product joins, which is also how many vectors of sums a block has. */
const jointOf = ({ quads }: Target): 2 | 4 => (quads === null || quads === 'i16' ? 2 : 4);
/** Element of the rows: bytes, which pairs of words widen as they are read. */
export const slidingElem = (target: Target, x: Elem): Elem => (jointOf(target) === 4 ? target.quads! : x);
/** Element of the weights as the rows of pixels read them: words are wanted as operands in memory. */
export const slidingWeights = (target: Target): 'i8' | 'i16' => (jointOf(target) === 2 ? 'i16' : 'i8');
/** Bytes of rows that stay near the core beside results and constants. */
const NEAR = 12288;
const leastChannels = (target: Target): number => 4 * jointOf(target);

/**
 * Pixels side by side in a vector if a layer can be computed this way, which takes codes of one byte, no second operand, and enough
 * channels or pixels; null if it cannot. The rescale takes most of the time: whole vectors of it pay for columns that are loaded again.
 */
export const slides = (target: Target, x: Elem, { channels, strides, dilations, outWidth }: WindowShape, { kind, code }: RescaleClass): number | null => {
  if (target.lanes === 1 || !(x === 'i8' || (x === 'u8' && target.quads !== 'i8')) || kind !== 'one' || (code !== 'i8' && code !== 'u8')) return null;
  const joint = jointOf(target);
  const widest = joint * target.lanes;
  if (strides[1] <= 2 && dilations[1] === 1 && widest % channels === 0 && channels * 2 <= widest && outWidth * channels >= widest) return widest / channels;
  return channels >= leastChannels(target) ? 1 : null;
};
/** What belongs to each channel, for channels of several pixels side by side. */
export const repeated = <T extends Contents>(list: T, merged: number): T => {
  if (merged === 1) return list;
  const all = emptyLike(list, merged * list.length);
  for (let i = 0; i < merged; i++) all.set(list as never, i * list.length);
  return all;
};
export const slidingRebased = (target: Target, x: Elem): boolean => x === 'i8' && target.quads === 'u8';

/** Blocks of channels: the widest vectors while they fit, then narrower ones; the last block ends at the last channel. */
interface Block {
  readonly start: number;
  readonly lanes: number;
}
const blocksOf = (channels: number, target: Target): readonly Block[] => {
  const joint = jointOf(target);
  const blocks: Block[] = [];
  let start = 0;
  for (let { lanes } = target; lanes >= 4; lanes /= 2) for (; start + lanes * joint <= channels; start += lanes * joint) blocks.push({ start, lanes });
  if (start < channels) blocks.push({ start: channels - leastChannels(target), lanes: 4 });
  return blocks;
};
const channelOf = (joint: number, sum: number, lane: number): number => 4 * joint * Math.floor(lane / 4) + 4 * sum + (lane % 4);

/** Per-channel constants block by block, in the order of lanes. */
export const slidingConstants = <T extends Contents>(all: T, target: Target): T => {
  const joint = jointOf(target);
  const blocks = blocksOf(all.length, target);
  const out = emptyLike(all, blocks.reduce((sum, { lanes }) => sum + lanes * joint, 0));
  let to = 0;
  for (const { start, lanes } of blocks) {
    const own = emptyLike(all, lanes * joint);
    for (let v = 0; v < joint; v++) for (let l = 0; l < lanes; l++) own[v * lanes + l] = all[start + channelOf(joint, v, l)] as never;
    out.set(inLaneOrder(own, lanes, target.pairing) as never, to);
    to += own.length;
  }
  return out;
};
/** Taps that one dot product joins, as numbers y·kw + x, null where a product is empty; they come from column `x` of the window, group `group` of its rows, or from columns x and x + 1 of the last row. */
interface Bundle {
  readonly x: number;
  readonly group: number | 'last';
  readonly taps: readonly (number | null)[];
}
interface Bundles {
  readonly all: readonly Bundle[];
  /** groups of rows of a column, and the row whose taps are joined with their neighbours, if there is one */
  readonly groups: number;
  readonly last: number | null;
}
const bundlesOf = ([kh, kw]: readonly number[], joint: number): Bundles => {
  const last = joint === 2 && kh % 2 === 1 && kw > 1 ? kh - 1 : null;
  const groups = last === null ? Math.ceil(kh / joint) : last / 2;
  const columns = list(kw, (x) => list(groups, (group): Bundle => ({ x, group, taps: list(joint, (j) => (group * joint + j < kh ? (group * joint + j) * kw + x : null)) }))).flat();
  if (last === null) return { all: columns, groups, last };
  const pairs = list(Math.floor(kw / 2), (i): Bundle => ({ x: 2 * i, group: 'last', taps: [last * kw + 2 * i, last * kw + 2 * i + 1] }));
  const odd: readonly Bundle[] = kw % 2 === 0 ? [] : [{ x: kw - 2, group: 'last', taps: [null, last * kw + kw - 1] }];
  return { all: [...columns, ...pairs, ...odd], groups, last };
};

/** Whether weights pad a bundle whose other product is with a pixel. */
export const slidingPads = (kernel: readonly number[], target: Target): boolean => bundlesOf(kernel, jointOf(target)).all.some(({ group, taps }) => group === 'last' && taps.includes(null));

/** Weights [channel][kh][kw] as [block][bundle][sum][lane][tap of the bundle], with `padding` where a bundle has no tap. */
export const packSliding = (weights: Int8Array, channels: number, kernel: readonly number[], target: Target, padding = 0): Int8Array => {
  const joint = jointOf(target);
  const taps = kernel[0] * kernel[1];
  const out: number[] = [];
  for (const { start, lanes } of blocksOf(channels, target)) for (const bundle of bundlesOf(kernel, joint).all) {
    for (let v = 0; v < joint; v++) for (let l = 0; l < lanes; l++) for (const tap of bundle.taps) {
      out.push(tap === null ? padding : weights[(start + channelOf(joint, v, l)) * taps + tap]);
    }
  }
  return Int8Array.from(out);
};

/** One row of output pixels. `rebased`: rows hold code + 128 and sums begin at −128·Σw. */
export const slidingRow = (name: string, { window, x: codes, bandRow, even, rescale: ending, target, merged, rebased }: SlidingShape & { readonly rebased: boolean }): Fn => {
  const { kernel: [kh, kw], dilations, stride, outWidth, channels } = window;
  const joint = jointOf(target);
  const stored = slidingElem(target, codes);
  const e: Elem = joint === 2 ? 'i16' : stored;
  const { all: bundles, groups, last } = bundlesOf([kh, kw], joint);
  const blocks = blocksOf(merged * channels, target);
  const length = blocks.reduce((sum, { lanes }) => sum + lanes * joint, 0);
  /** pixels of the rows from one output to the next, and from the first column of a window to column x */
  const step = even === null ? stride : 1;
  const columnAt = (x: number): number => placeInRow(x * dilations[1], channels, even) / channels;
  const reach = (kh - 1) * dilations[0] * bandRow + Math.max(...list(kw, (x) => (outWidth - 1) * step + columnAt(x) + 1)) * channels;
  const result = buffer('out', ending.out, outWidth * channels, 'out');
  const rows = buffer('rows', stored, reach, 'in');
  const weights = buffer('w', slidingWeights(target), length * bundles.length * joint, 'const');
  const first = buffer('start', 'i32', length, 'const');
  const rescale = makeRescale(ending, target, { channels: length, y: 0 });
  const [muls, adds] = rescale.channels;
  const shift = rescale.values[0];
  const shiftedBy = ending.preShifted || ending.drops ? rescale.values[1] : null;
  const [low, high] = rescale.values.slice(-2);
  const slide = stride === 1 && dilations[1] === 1;
  /** columns of merged pixels that those after them read too */
  const shared = slide ? Math.max(0, kw - merged) : 0;
  /** whether a row stays near the core while block after block passes over it */
  const near = outWidth * stride * channels * kh * bytesOf(stored) <= NEAR;

  /** `count` blocks of one width side by side, from channel `start` on; `before` constants stand before theirs. */
  const run = (start: number, lanes: number, count: number, before: number): readonly Stmt[] => {
    const block = index('block', count);
    const n = lanes * joint;
    const perChannel = bundles.length * joint;
    const constant = (from: typeof muls, offset: number, size: number): Expr => load(at(from, before + offset, [block, n]), size);
    const kept: Stmt[] = [];
    const keep = (stem: string, value: Expr): Var => {
      const v = variable(stem, value.type.e, value.type.n);
      kept.push(set(v, value));
      return v;
    };
    const factors = list(joint, (v) => keep('mul', constant(muls, v * lanes, lanes)));
    const addends = list(joint, (v) => (ending.narrow ? [keep('add', constant(adds, v * lanes, lanes))] : list(2, (h) => keep('add', constant(adds, v * lanes + (h * lanes) / 2, lanes / 2)))));
    const starts = list(joint, (v) => (rebased ? keep('start', constant(first, v * lanes, lanes)) : zero('i32', lanes)));
    const bounds = ending.natural ? null : [keep('least', broadcast(convert(ending.code, low), n)), keep('greatest', broadcast(convert(ending.code, high), n))];

    // vectors of a column of the window, of its place in the last row, and of that and its right neighbour
    const columns = list(kw, (x) => ({
      joined: list(groups * joint, (v) => variable(`x${x}_${v}`, e, n)), lone: variable(`l${x}`, e, n), paired: list(joint, (v) => variable(`p${x}_${v}`, e, n)),
    }));
    type Column = (typeof columns)[number];
    const fill = (column: Column, left: Column | null, offset: number, terms: readonly (readonly [Index, number])[]): readonly Stmt[] => {
      const tap = (y: number): Expr => load(at(rows, start + y * dilations[0] * bandRow + offset * channels, [block, n], ...terms), n, e);
      return [
        ...list(groups, (g) => {
          const taps = list(joint, (j) => variable(`r${j}`, e, n));
          const used = list(joint, (j): Expr => (g * joint + j < kh ? taps[j] : zero(e, n)));
          return [
            ...taps.flatMap((v, j) => (g * joint + j < kh ? [set(v, tap(g * joint + j))] : [])),
            ...interleaved(used).map((v, i) => set(column.joined[g * joint + i], v)),
          ];
        }).flat(),
        ...(last === null ? [] : [set(column.lone, tap(last)), ...(left === null ? [] : interleaved([left.lone, column.lone]).map((v, i) => set(left.paired[i], v)))]),
      ];
    };
    const sums = list(joint, (v) => variable(`s${v}`, 'i32', lanes));
    const weightAt = (bundle: number, v: number): Expr => load(at(weights, before * perChannel + (bundle * joint + v) * n, [block, n * perChannel]), joint * lanes);
    /** Pixel `pixel` (and `terms`), whose columns are given from left to right. */
    const output = (used: readonly Column[], pixel: number, terms: readonly (readonly [Index, number])[]): readonly Stmt[] => {
      const totals = sums.map((v, i) => set(v, starts[i]));
      const products = bundles.flatMap(({ x, group }, number) => sums.map((v, i) =>
        set(v, dot(joint, v, group === 'last' ? used[x].paired[i] : used[x].joined[group * joint + i], weightAt(number, i)))));
      const scaled = sums.map((v, i) => rescaled(ending, target.pairing, v, shiftedBy, factors[i], addends[i], shift));
      const packed = joint === 4 ? pack(ending.code, pack('i16', scaled[0], scaled[1]), pack('i16', scaled[2], scaled[3])) : narrow(ending.code, pack('i16', scaled[0], scaled[1]));
      const codes = variable('codes', ending.code, n);
      const to = at(result, start + pixel * channels, [block, n], ...terms.map(([i, size]) => [i, size * channels] as const));
      const limited = bounds === null ? packed : min(max(packed, bounds[0]), bounds[1]);
      return [...totals, ...products, set(codes, limited), store(to, rescale.table === null ? codes : tableEntry(rescale.table, codes))];
    };
    const across = (terms: readonly (readonly [Index, number])[], by: number): (readonly [Index, number])[] => terms.map(([i, size]) => [i, size * by * channels]);
    const filled = (from: number, pixel: number, terms: readonly (readonly [Index, number])[], to = kw): readonly Stmt[] =>
      list(to - from, (i) => fill(columns[from + i], from + i === 0 ? null : columns[from + i - 1], pixel * step + columnAt(from + i), across(terms, step))).flat();
    if (merged > 1) {
      const p = index('pixels', Math.floor(outWidth / merged));
      const terms = [[p, merged]] as const;
      // columns that the next pixels read as well go on from place to place
      const onward = list(shared, (x) => {
        const [to, from] = [columns[x], columns[x + merged]];
        return [
          ...to.joined.map((v, i) => set(v, from.joined[i])), ...(last === null ? [] : [set(to.lone, from.lone)]),
          ...(last === null || x + 1 === shared ? [] : to.paired.map((v, i) => set(v, from.paired[i]))),
        ];
      }).flat();
      // the last pixels of a row end with it
      const rest = outWidth % merged === 0 ? [] : [...filled(0, outWidth - merged, []), ...output(columns, outWidth - merged, [])];
      return [loop(block, [...kept, ...filled(0, 0, [], shared), loop(p, [...filled(shared, 0, terms), ...output(columns, 0, terms), ...onward]), ...rest])];
    }
    if (!slide) {
      const p = index('pixel', outWidth);
      const body = [...filled(0, 0, [[p, 1]]), ...output(columns, 0, [[p, 1]])];
      return near ? [loop(block, [...kept, loop(p, body)])] : [loop(p, [loop(block, [...kept, ...body])])];
    }
    // kw pixels at a time, so that columns change their places without moving
    const whole = Math.floor(outWidth / kw);
    const p = index('pixels', Math.max(1, whole));
    const some = (count_: number, pixel: number, terms: readonly (readonly [Index, number])[]): readonly Stmt[] => list(count_, (i) => [
      ...fill(columns[(i + kw - 1) % kw], kw === 1 ? null : columns[(i + kw - 2) % kw], pixel + i + kw - 1, across(terms, 1)), ...output(list(kw, (x) => columns[(i + x) % kw]), pixel + i, terms),
    ]).flat();
    return [loop(block, [
      ...kept, ...list(kw - 1, (x) => fill(columns[x], x === 0 ? null : columns[x - 1], x, [])).flat(),
      ...(whole === 0 ? [] : [loop(p, some(kw, 0, [[p, kw]]))]), ...some(outWidth % kw, whole * kw, []),
    ])];
  };
  const stmts: Stmt[] = [];
  let before = 0;
  for (let i = 0; i < blocks.length;) {
    const { start, lanes } = blocks[i];
    let end = i + 1;
    while (end < blocks.length && blocks[end].lanes === lanes && blocks[end].start === blocks[end - 1].start + lanes * joint) end++;
    stmts.push(...run(start, lanes, end - i, before));
    before += (end - i) * lanes * joint;
    i = end;
  }
  return fn(name, { buffers: [result, rows, weights, ...(rebased ? [first] : []), ...rescale.buffers], values: rescale.values }, stmts);
};

/** Vectors of 2 or 4 taps as vectors in which the taps of a channel are neighbours. */
const interleaved = (taps: readonly Expr[]): readonly Expr[] => {
  if (taps.length === 2) return [zip(0, 1, taps[0], taps[1]), zip(1, 1, taps[0], taps[1])];
  return ([0, 1] as const).flatMap((half) => {
    const [a, b] = [zip(half, 1, taps[0], taps[1]), zip(half, 1, taps[2], taps[3])];
    return [zip(0, 2, a, b), zip(1, 2, a, b)];
  });
};
