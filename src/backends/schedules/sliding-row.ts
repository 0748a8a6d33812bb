/** One row of pixels of a depthwise convolution, or two, as sliding.ts lays it out: columns of the window slide through the registers. */
import { at, broadcast, buffer, bytesOf, convert, dot, fn, index, list, literal, load, loop, max, min, narrow, pack, set, store, variable, xor, zero, zip } from '../../loops/build.ts';
import type { Address, Elem, Expr, Fn, Index, Stmt, Var } from '../../loops/types.ts';
import { makeRescale, rescaled, tableEntry, type RescaleClass } from './rescale.ts';
import { placeInPlane } from './rows.ts';
import { blocksOf, bundlesOf, jointOf, slidingElem, slidingTail, slidingWeights } from './sliding.ts';
import type { Target } from './target.ts';

/** Bytes of rows that stay near the core beside results and constants. */
const NEAR = 12288;

export interface SlidingShape {
  /** channels: those of the part */
  readonly window: { readonly kernel: readonly number[]; readonly dilations: readonly number[]; readonly stride: number; readonly outWidth: number; readonly channels: number };
  /** channels of a pixel of the result */
  readonly outChannels: number;
  /** element of the image */
  readonly x: Elem;
  readonly bandRow: number;
  readonly rescale: RescaleClass;
  readonly target: Target;
  /** pixels side by side in a vector; 1: channels alone fill it */
  readonly merged: number;
  /** as in a plane of a band (rows.ts) */
  readonly even: number | null;
  /** the image where rows are those of it, pixels of the border before its first one, and their code; null where rows hold their border */
  readonly border: { readonly width: number; readonly left: number; readonly code: number } | null;
  /** output rows that a column can serve, and how many of them are computed */
  readonly together: 1 | 2;
  readonly count: 1 | 2;
  /** what is multiplied is code + 128, in a band as it stands, and sums begin at −128·Σw */
  readonly rebased: boolean;
}

/** Output pixels from whose first pixel on `least` columns further is not left of the image and `most` columns further not right of it. */
const inImage = ({ width, left }: { readonly width: number; readonly left: number }, least: number, most: number, stride: number, outWidth: number): readonly [number, number] => {
  const from = Math.min(outWidth, Math.max(0, Math.ceil((left - least) / stride)));
  return [from, Math.max(from, Math.min(outWidth, Math.floor((width - 1 + left - most) / stride) + 1))];
};

/** The last buffer, where pixels of a part lie apart in the result, holds one vector of codes. */
export const slidingRow = (name: string, shape: SlidingShape): Fn => {
  const { window, outChannels, x: codes, bandRow, even, border, rescale: ending, target, merged, together, count: outRows, rebased } = shape;
  const { kernel: [kh, kw], dilations, stride, outWidth, channels } = window;
  const joint = jointOf(target);
  const stored = slidingElem(target, codes);
  const e: Elem = joint === 2 ? 'i16' : stored;
  const { all: bundles, groups, last } = bundlesOf([kh, kw], joint, together);
  const blocks = blocksOf(merged * channels, target);
  const length = blocks.reduce((sum, { lanes }) => sum + lanes * joint, 0);
  /** pixels of the rows from one output to the next, and from the first column of a window to column x */
  const step = even === null ? stride : 1;
  const columnAt = (x: number): number => placeInPlane(x * dilations[1], { channels, even }) / channels;
  /** rows that are read; taps below them have no weight */
  const read = kh + outRows - 1;
  /** elements from one pixel of the rows to the next */
  const apiece = border === null ? channels : outChannels;
  const reach = (read - 1) * dilations[0] * bandRow + (border === null ? Math.max(...list(kw, (x) => (outWidth - 1) * step + columnAt(x) + 1)) * channels : border.width * outChannels - (outChannels - channels));
  const apart = merged > 1 && outChannels !== channels;
  const perRow = outWidth * outChannels;
  const result = buffer('out', ending.out, outRows * perRow - (outChannels - channels), 'out');
  const beside = buffer('beside', ending.out, merged * channels, 'temp');
  const rows = buffer('rows', border === null ? stored : codes, reach, 'in');
  const tail = slidingTail(together);
  const weights = buffer('w', slidingWeights(target), length * bundles.length * joint + tail, 'const');
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
  /** output pixels whose windows, or whose last columns where windows share the others, lie in the image: from the first one up to, but not with, the second */
  const [from, to] = border === null ? [0, outWidth] : inImage(border, slide ? (kw - 1) * dilations[1] : 0, (kw - 1) * dilations[1], stride, outWidth);

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
      const beyond = border !== null && terms.length === 0 && (offset < border.left || offset >= border.left + border.width);
      const place = (y: number): Address => at(rows, start + y * dilations[0] * bandRow + (offset - (border?.left ?? 0)) * apiece, [block, n], ...terms);
      const tap = (y: number): Expr => (border === null ? load(place(y), n, e)
        : beyond ? literal(border.code + (rebased ? 128 : 0), e, n)
          : rebased ? xor(convert(e, load(place(y), n)), 128) : load(place(y), n, e));
      return [
        ...list(groups, (g) => {
          const taps = list(joint, (j) => variable(`r${j}`, e, n));
          const used = list(joint, (j): Expr => (g * joint + j < read ? taps[j] : zero(e, n)));
          return [
            ...taps.flatMap((v, j) => (g * joint + j < read ? [set(v, tap(g * joint + j))] : [])),
            ...interleaved(used).map((v, i) => set(column.joined[g * joint + i], v)),
          ];
        }).flat(),
        ...(last === null ? [] : [set(column.lone, tap(last)), ...(left === null ? [] : interleaved([left.lone, column.lone]).map((v, i) => set(left.paired[i], v)))]),
      ];
    };
    const sums = list(joint, (v) => variable(`s${v}`, 'i32', lanes));
    const weightAt = (bundle: number, v: number, row: number): Expr => load(at(weights, tail * (1 - row) + before * perChannel + (bundle * joint + v) * n, [block, n * perChannel]), joint * lanes);
    /** Pixel `pixel` (and `terms`) of every row, whose columns are given from left to right. */
    const output = (used: readonly Column[], pixel: number, terms: readonly (readonly [Index, number])[]): readonly Stmt[] => list(outRows, (row) => {
      const totals = sums.map((v, i) => set(v, starts[i]));
      const products = bundles.flatMap(({ x, group }, number) => sums.map((v, i) =>
        set(v, dot(joint, v, group === 'last' ? used[x].paired[i] : used[x].joined[group * joint + i], weightAt(number, i, row)))));
      const scaled = sums.map((v, i) => rescaled(ending, target.pairing, v, shiftedBy, factors[i], addends[i], shift));
      const packed = joint === 4 ? pack(ending.code, pack('i16', scaled[0], scaled[1]), pack('i16', scaled[2], scaled[3])) : narrow(ending.code, pack('i16', scaled[0], scaled[1]));
      const codes = variable('codes', ending.code, n);
      const to = (aside: number): Address => at(result, row * perRow + start + (pixel + aside) * outChannels, [block, n], ...terms.map(([i, size]) => [i, size * outChannels] as const));
      const limited = bounds === null ? packed : min(max(packed, bounds[0]), bounds[1]);
      const final = rescale.table === null ? codes : tableEntry(rescale.table, codes);
      const stores = apart ? [store(at(beside), final), ...list(merged, (i) => store(to(i), load(at(beside, i * channels), channels)))] : [store(to(0), final)];
      return [...totals, ...products, set(codes, limited), ...stores];
    }).flat();
    const across = (terms: readonly (readonly [Index, number])[], by: number): (readonly [Index, number])[] => terms.map(([i, size]) => [i, size * by * apiece]);
    const filled = (from: number, pixel: number, terms: readonly (readonly [Index, number])[], to = kw): readonly Stmt[] =>
      list(to - from, (i) => fill(columns[from + i], from + i === 0 ? null : columns[from + i - 1], pixel * step + columnAt(from + i), across(terms, step))).flat();
    // columns that the next pixels read as well go on from place to place
    const onward = list(shared, (x) => {
      const [left, right] = [columns[x], columns[x + merged]];
      return [
        ...left.joined.map((v, i) => set(v, right.joined[i])), ...(last === null ? [] : [set(left.lone, right.lone)]),
        ...(last === null || x + 1 === shared ? [] : left.paired.map((v, i) => set(v, right.paired[i]))),
      ];
    }).flat();
    if (merged > 1) {
      const p = index('pixels', Math.floor(outWidth / merged));
      const terms = [[p, merged]] as const;
      // the last pixels of a row end with it
      const rest = outWidth % merged === 0 ? [] : [...filled(0, outWidth - merged, []), ...output(columns, outWidth - merged, [])];
      return [loop(block, [...kept, ...filled(0, 0, [], shared), loop(p, [...filled(shared, 0, terms), ...output(columns, 0, terms), ...onward]), ...rest])];
    }
    const p = index('pixels', Math.max(1, to - from));
    if (!slide) {
      const one = (pixel: number, terms: readonly (readonly [Index, number])[]): readonly Stmt[] => [...filled(0, pixel, terms), ...output(columns, pixel, terms)];
      const [head, tail] = [list(from, (pixel) => one(pixel, [])).flat(), list(outWidth - to, (i) => one(to + i, [])).flat()];
      const middle = one(from, [[p, 1]]);
      if (near) return [loop(block, [...kept, ...head, ...(to > from ? [loop(p, middle)] : []), ...tail])];
      const blockwise = (stmts: readonly Stmt[]): readonly Stmt[] => (stmts.length === 0 ? [] : [loop(block, [...kept, ...stmts])]);
      return [...blockwise(head), ...(to > from ? [loop(p, blockwise(middle))] : []), ...blockwise(tail)];
    }
    const begin = [...kept, ...filled(0, 0, [], kw - 1)];
    // vectors are few to an output: they go on from place to place
    if (joint === 4) {
      const one = (pixel: number, terms: readonly (readonly [Index, number])[]): readonly Stmt[] => [...filled(kw - 1, pixel, terms), ...output(columns, pixel, terms), ...onward];
      return [loop(block, [...begin, ...list(from, (pixel) => one(pixel, [])).flat(), ...(to > from ? [loop(p, one(from, [[p, 1]]))] : []), ...list(outWidth - to, (i) => one(to + i, [])).flat()])];
    }
    // kw pixels at a time, so that columns change their places without moving
    const whole = Math.floor((to - from) / kw);
    const some = (outputs: number, pixel: number, terms: readonly (readonly [Index, number])[], turn: number): readonly Stmt[] => list(outputs, (i) => {
      const place = (x: number): Column => columns[(turn + i + x) % kw];
      return [...fill(place(kw - 1), kw === 1 ? null : place(kw - 2), pixel + i + kw - 1, across(terms, 1)), ...output(list(kw, place), pixel + i, terms)];
    }).flat();
    const turns = index('pixels', Math.max(1, whole));
    return [loop(block, [
      ...begin, ...some(from, 0, [], 0), ...(whole === 0 ? [] : [loop(turns, some(kw, from, [[turns, kw]], from))]), ...some(outWidth - from - whole * kw, from + whole * kw, [], from),
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
  return fn(name, { buffers: [result, rows, weights, ...(rebased ? [first] : []), ...rescale.buffers, ...(apart ? [beside] : [])], values: rescale.values }, stmts);
};

/** Vectors of 2 or 4 taps as vectors in which the taps of a channel are neighbours. */
const interleaved = (taps: readonly Expr[]): readonly Expr[] => {
  if (taps.length === 2) return [zip(0, 1, taps[0], taps[1]), zip(1, 1, taps[0], taps[1])];
  return ([0, 1] as const).flatMap((half) => {
    const [a, b] = [zip(half, 1, taps[0], taps[1]), zip(half, 1, taps[2], taps[3])];
    return [zip(0, 2, a, b), zip(1, 2, a, b)];
  });
};
