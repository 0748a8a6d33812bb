/**
 * Products with constant weights in the layout that all vector machines share, so that one copy serves every instruction set of a
 * binary: panels of 16 columns, in each the weights of four neighbours along K side by side,
 *
 *     [panel][segment][K/4][16 columns][4]
 *
 * Codes of less than 8 bits are packed panel by panel (codes.ts), blocks being the 64 codes of a step.
 *
 * A machine with dot products of four bytes reads a step as 16 sums. One with pairs of 16-bit words widens it and gets two sums for each
 * column, which `reduce` joins after the last step; or, where many rows pass over a panel of few taps, it puts the panel in the order of pairs
 * first (pairs.ts), and gets one. A scalar machine takes one column out of the panel and multiplies that.
 *
 * **Bytes without sign.** Where the first operand of the machine's product is u8, signed codes are stored as code + 128, and sums begin
 * at −128·Σw instead of 0. Every partial sum stays within |x|·|w| ≤ 383·128 for each tap, which `bytesFit` keeps inside 32 bits.
 *
 * **Weights without sign.** Where the second operand is not negative (WebAssembly's relaxed product of pairs of bytes), weights stand as
 * code + offset, offset = 2^(bits−1), and every row's sums begin at −offset·Σx, which is found once for all panels. Products are summed in
 * 16 bits for as many steps as surely fit, 2·128·(2^bits − 1) each at most, before they go to 32 bits. Rows of u8 hold code − 128, and sums
 * begin at 128·Σw more.
 *
 * The last panel starts early enough to end with the last column; fewer than 16 columns are one panel filled with zeros, of which whole
 * vectors of sums are multiplied; where these are more than the columns, results go to memory of their own and are copied from there.
 */
import { across, add, at, broadcast, buffer, call, dot, fn, grid, index, list, literal, load, loop, moved, mul, reduce, set, splat, store, variable, zero } from '../../loops/build.ts';
import type { Address, Buffer, Contents, Elem, Expr, Fn, Index, Stmt } from '../../loops/types.ts';
import { codesOf, fieldsOf, loadPlanes, packedLength, storedWidth, type Loaded } from './codes.ts';
import { FEW_ROWS, heldStarts, multiply, packedPanels, takenOver, unpackedWalk, unpackPanel, within, type Places, type TileShape, type Walk } from './gemm.ts';
import { emptyLike, perChannel, product, type ScheduleContext } from './kernel.ts';
import { byteTable, wordTable } from './levels.ts';
import { collapse, overNest } from './nest.ts';
import { makeRescale, type Rescale, type RescaleClass } from './rescale.ts';
import { orderPairsFn, pairedWalk, pairOrder, pairsLength } from './pairs.ts';
import { PANEL, QUAD, STEP } from './quad-panel.ts';
import { once } from './split.ts';
import { vectorLanes, type Target } from './target.ts';
import { inLaneOrder } from './words.ts';

export interface Quads {
  /** element of the rows as the product reads them */
  readonly a: 'u8' | 'i8' | 'i16';
  /** whether rows hold code + 128 of signed codes */
  readonly rebased: boolean;
  /** whether weights are so narrow that the sum of two products with u8 fits 16 bits */
  readonly paired: boolean;
  /** weights stand without sign: what is added to them, and steps whose sums fit 16 bits; null where they keep their sign */
  readonly held: { readonly offset: number; readonly steps: number } | null;
}

/** Sums of u8·i8 over `depth` taps that begin at −128·Σw fit 32 bits. */
const bytesFit = (depth: number): boolean => depth * 383 * 128 < 2 ** 31;

/** 2·255·2^6 < 2^15 */
const PAIRED_BITS = 7;
/** Taps below which finding Σx for each row takes what products of bytes save. */
const HELD_DEPTH = 32;

/** How a target multiplies rows of codes `x` by constants of `bits` bits in this layout; null where it keeps another one, or has no room to spare. */
export const quadsFor = ({ lanes, quads, narrowQuads }: Target, x: Elem, bits: number, depth: number, columns: number, ending: RescaleClass): Quads | null => {
  const paired = narrowQuads !== null && bits <= PAIRED_BITS;
  if (narrowQuads === 'i8') {
    const most = 2 ** (storedWidth(bits) === 8 ? bits : storedWidth(bits)) - 1;
    return paired && columns >= PANEL && depth >= HELD_DEPTH && (x === 'i8' || x === 'u8') && bytesFit(depth)
      ? { a: 'i8', rebased: x === 'u8', paired, held: { offset: (most + 1) / 2, steps: Math.floor((2 ** 15 - 1) / (2 * 128 * most)) } } : null;
  }
  if (quads === null || (columns < PANEL && ending.kind === 'two')) return null;
  const words = { a: 'i16', rebased: false, paired: false, held: null } as const;
  const wanted = paired ? narrowQuads : quads;
  if (lanes === 1 || wanted === 'i16' || (x !== 'i8' && x !== 'u8') || !bytesFit(depth)) return words;
  if (x === wanted) return { a: wanted, rebased: false, paired, held: null };
  return x === 'i8' ? { a: 'u8', rebased: true, paired, held: null } : words;
};

const starts = (columns: number): readonly number[] => {
  const whole = Math.floor(columns / PANEL);
  return [...list(whole, (n) => n * PANEL), ...(columns % PANEL === 0 ? [] : [Math.max(0, columns - PANEL)])];
};
/** Codes of one panel, the bytes that hold them, and entries of per-channel constants. */
export const quadPanelLength = ({ counts, padded }: Walk): number => product(counts) * padded * PANEL;
export const quadPanelBytes = (walk: Walk): number => packedLength(quadPanelLength(walk), STEP, walk.bits);
export const quadLength = (columns: number): number => starts(columns).length * PANEL;

/**
 * Weights [columns, segments, run] as panels, with `padding` after the end of a run. Columns that a panel has beyond the last one are 0, or,
 * where 0 may be no level, the last one again: what becomes of them is read by nobody.
 */
export const packQuads = (weights: Int8Array, columns: number, walk: Walk, padding = 0): Int8Array => {
  const { counts, run, padded } = walk;
  const segments = product(counts);
  const out = new Int8Array(starts(columns).length * quadPanelLength(walk));
  const known = (column: number, segment: number, k: number): number => (k < run ? weights[(column * segments + segment) * run + k] : padding);
  const weight = (column: number, segment: number, k: number): number => (column < columns ? known(column, segment, k) : walk.indexed ? known(columns - 1, segment, k) : 0);
  // codes that are packed are held without sign anyway
  const offset = walk.bits === 8 ? (walk.quads?.held?.offset ?? 0) : 0;
  let to = 0;
  for (const start of starts(columns)) for (let s = 0; s < segments; s++) for (let k = 0; k < padded; k += QUAD) {
    for (let c = start; c < start + PANEL; c++) for (let e = k; e < k + QUAD; e++) out[to++] = weight(c, s, e) + offset;
  }
  return packedPanels(out, quadPanelLength(walk), STEP, walk.bits);
};
/** Per-channel constants of `groups` groups of columns, panel by panel; the same for the sums that begin at a multiple of Σw. */
export const quadConstants = <T extends Contents>(constants: T, columns: number, { lanes, pairing }: Target, groups = 1): T => {
  const all = perChannel(constants, groups * columns);
  const out = emptyLike(all, groups * quadLength(columns));
  let to = 0;
  for (let g = 0; g < groups; g++) for (const start of starts(columns)) for (let c = start; c < start + PANEL; c++) {
    if (c < columns) out[to] = all[g * columns + c] as never;
    to++;
  }
  return inLaneOrder(out, lanes, pairing);
};
export const startSums = (weights: Int8Array, columns: number, factor: number): Int32Array => {
  const depth = weights.length / columns;
  return Int32Array.from({ length: columns }, (_, c) => {
    let sum = 0;
    for (let k = 0; k < depth; k++) sum += weights[c * depth + k];
    return factor * sum;
  });
};

/** The target with vectors of sums that half a panel fills, where there are no more columns than that. */
export const quadTarget = (target: Target, columns: number): Target => (columns <= PANEL / 2 && target.lanes === PANEL ? { ...target, lanes: 8 } : target);

type Terms = readonly (readonly [Index, number])[];

interface QuadTile extends TileShape {
  /** columns: whole panels, or a part of one */
  readonly width: number;
}
/** Vectors of sums of `columns` columns. */
const vectorsOf = ({ lanes }: Target, { a }: Quads, columns = PANEL): number => (columns * (a === 'i16' ? 2 : 1)) / lanes;
/** Columns of the register tile for a number of rows: several panels, or a part of one where that leaves room for more rows. */
const widthOf = (target: Target, quads: Quads, rows: number): number => {
  const width = (PANEL * target.tile[1]) / vectorsOf(target, quads);
  return width >= PANEL ? Math.floor(width / PANEL) * PANEL : rows < target.tile[0] ? PANEL : width;
};
/** Rows of a tile at most, however narrow it is: dot products take five cycles, in which two start each. Half of them where each has a sum of 16 bits beside that of 32. */
export const MOST_ROWS = 16;
const rowsOf = (target: Target, quads: Quads, width: number): number =>
  Math.max(1, Math.min(quads.held === null ? MOST_ROWS : MOST_ROWS / 2, Math.floor((target.tile[0] * target.tile[1]) / vectorsOf(target, quads, width))));
/** Columns of the part of a panel that is multiplied where there are less than 16: whole vectors of sums, and at least the eight codes that one write takes. */
export const partWidth = (columns: number, { lanes }: Target): number => {
  let width = Math.max(8, lanes);
  while (width < Math.min(columns, PANEL)) width *= 2;
  return Math.min(width, PANEL);
};
/** Rows that a block should be a multiple of. */
export const quadRows = (target: Target, quads: Quads, rows: number, columns: number): number =>
  (target.lanes === 1 ? target.tile[0]
    : rowsOf(target, quads, columns < PANEL ? partWidth(columns, target) : Math.min(widthOf(target, quads, rows), columns - (columns % PANEL))));

/** rows × width: out[r, c] = rescale(start[c] + Σ_k a[r, k]·b[k, c]) */
const tileFn = (name: string, { rows, width, walk, rowA, rowOut, rescale: shape, inPlace, target }: QuadTile): Fn => {
  const { lanes } = target;
  const quads = walk.quads!;
  const { held } = quads;
  const d = quads.a === 'i16' ? 2 : 4;
  const joined = QUAD / d;
  const total = vectorsOf(target, quads, width);
  const vectors = vectorsOf(target, quads, Math.min(PANEL, width));
  const packed = walk.bits < 8;
  const panel = packed ? quadPanelBytes(walk) : quadPanelLength(walk);
  const reach = walk.counts.reduce((sum, count, i) => sum + (count - 1) * walk.strides[i], walk.padded);
  const left = buffer('a', quads.a, (rows - 1) * rowA + reach, 'in');
  const right = buffer('b', packed ? 'u8' : 'i8', width < PANEL ? panel - (PANEL - width) * QUAD : (width / PANEL) * panel, 'const');
  const levels = walk.indexed ? buffer('levels', 'i8', 2 ** walk.bits, 'const') : null;
  const wordwise = levels === null || d !== 2 ? null : wordTable(at(levels), walk.bits);
  const table = levels === null ? null : wordwise ?? byteTable(at(levels), walk.bits, held?.offset ?? 0);
  const first = buffer('start', 'i32', width, 'const');
  const offsets = buffer('offsets', 'i32', rows, 'in');
  const result = buffer('out', shape.out, (rows - 1) * rowOut + width, 'out');
  const rescale = makeRescale(shape, target, { channels: width, y: (rows - 1) * rowOut + width }, inPlace ? result : null);
  const second = inPlace ? result : rescale.y;

  const wide: Elem = d === 2 ? 'i16' : 'i8';
  const sums = grid(rows, total, (r, j) => variable(`s${r}_${j}`, 'i32', lanes));
  const outer = walk.counts.map((count, i) => index(`t${i}`, count));
  const span = packed ? fieldsOf(walk.bits) : 1;
  const perIteration = (STEP * span * walk.bits) / 8;
  const iterations = walk.padded / (span * QUAD);
  const placeOf = (j: number): number => Math.floor(j / vectors) * panel + (j % vectors) * d * lanes;
  // levels that are looked up as bytes have their sign
  const starts = !packed || held !== null || (table !== null && wordwise === null) ? null : heldStarts(list(rows, (r) => at(left, r * rowA)), walk, joined, d, lanes, wordwise?.least);
  const packedWeight = (planes: Loaded, number: number): Expr => {
    if (table === null) return codesOf(planes, number, walk.bits, wide, starts !== null || held !== null);
    const level = table.of(codesOf(planes, number, walk.bits, d === 2 ? 'i16' : 'u8', true));
    return wordwise === null || starts !== null ? level : add(level, broadcast(wordwise.least, d * lanes));
  };
  /** One iteration: number `from` and those that `of` counts on. */
  const iteration = (from: number, of: Terms, add: (r: number, j: number, a: Expr, b: Expr) => Stmt): readonly Stmt[] => {
    const by = (stride: number): Terms => of.map(([i, n]) => [i, n * stride]);
    const weightAt = (offset: number): Address =>
      at(right, offset + from * perIteration, ...outer.map((o, i) => [o, product(walk.counts.slice(i + 1)) * iterations * perIteration] as const), ...by(perIteration));
    const planes = packed ? list(total, (j) => loadPlanes(weightAt(placeOf(j)), STEP, walk.bits, d * lanes, d === 2 ? 'i16' : 'u8')) : null;
    const step = (number: number): readonly Stmt[] => {
      const a = list(rows, (r) => variable(`a${r}`, quads.a, d * lanes));
      const b = list(total, (j) => variable(`b${j}`, wide, d * lanes));
      const loadA = (r: number): Stmt =>
        set(a[r], splat(at(left, r * rowA + (from * span + number) * QUAD, ...outer.map((o, i) => [o, walk.strides[i]] as const), ...by(span * QUAD)), QUAD, (d * lanes) / QUAD, quads.a));
      const loadB = (j: number): Stmt => set(b[j], planes === null ? load(weightAt(placeOf(j)), d * lanes, wide) : packedWeight(planes[j], number));
      return rows < b.length
        ? [...a.map((_, r) => loadA(r)), ...b.flatMap((_, j) => [loadB(j), ...a.map((_a, r) => add(r, j, a[r], b[j]))])]
        : [...b.map((_, j) => loadB(j)), ...a.flatMap((_, r) => [loadA(r), ...b.map((_b, j) => add(r, j, a[r], b[j]))])];
    };
    return [...(planes?.flatMap(({ setup }) => setup) ?? []), ...list(span, step).flat()];
  };
  const direct = (): readonly Stmt[] => {
    const k = index('k', iterations);
    return [loop(k, iteration(0, [[k, 1]], (r, j, a, b) => set(sums[r][j], dot(d, sums[r][j], a, b, quads.paired), { pin: true })))];
  };
  /** Products summed in 16 bits over `most` iterations at a time; 0: over one step. */
  const narrow = (most: number): readonly Stmt[] => {
    const pairs = grid(rows, total, (r, j) => variable(`p${r}_${j}`, 'i16', 2 * lanes));
    const wider = (r: number, j: number, sum: Expr): Stmt => set(sums[r][j], dot(2, sums[r][j], sum, literal(1, 'i16', 2 * lanes)));
    const each = <T>(f: (r: number, j: number) => T): readonly T[] => pairs.flatMap((row, r) => row.map((_, j) => f(r, j)));
    const some = (count: number, from: number, of: Terms): readonly Stmt[] => {
      if (count === 0) return [];
      const n = index('narrow', count);
      const add16 = (r: number, j: number, a: Expr, b: Expr): Stmt => set(pairs[r][j], dot(2, pairs[r][j], a, b));
      return [
        ...each((r, j) => set(pairs[r][j], zero('i16', 2 * lanes))), ...(count <= UNROLLED ? list(count, (i) => iteration(from + i, of, add16)).flat() : [loop(n, iteration(from, [...of, [n, 1]], add16))]),
        ...each((r, j) => wider(r, j, pairs[r][j])),
      ];
    };
    if (most === 0 || (most === 1 && span === 1)) {
      const k = index('k', iterations);
      return [loop(k, iteration(0, [[k, 1]], (r, j, a, b) => wider(r, j, dot(2, zero('i16', 2 * lanes), a, b))))];
    }
    const k = index('k', Math.floor(iterations / most));
    return [...(k.count === 0 ? [] : [loop(k, some(most, 0, [[k, most]]))]), ...some(iterations % most, iterations - (iterations % most), [])];
  };
  const inner = held === null ? direct() : narrow(Math.min(iterations, Math.floor(held.steps / span)));
  const loops = outer.reduceRight<readonly Stmt[]>((stmts, over) => [loop(over, stmts)], inner);

  const { done, copies } = takenOver(sums);
  const words = Math.min(PANEL, width) / lanes;
  const parts = Math.min(2, words);
  const run = parts * lanes;
  const prepared = rescale.prepare(run, lanes);
  const finish = list(width / run, (group) => {
    const { setup, constants } = prepared.channels((one) => ({ from: at(one, group * run), stride: 1 }));
    return [...setup, ...list(rows, (r) => prepared.finish(
      list(parts, (p) => reduce(joined, done[r].slice((group * parts + p) * joined, (group * parts + p + 1) * joined))), constants, at(result, r * rowOut + group * run),
      second === null ? null : { from: at(second, r * rowOut + group * run), stride: 1 },
    )).flat()];
  }).flat();
  const begin = sums.flatMap((row, r) => [...(starts?.[r].setup ?? []), ...row.map((v, j) => {
    const known = [...(quads.rebased ? [load(at(first, j * lanes), lanes)] : []), ...(starts === null ? [] : [starts[r].start]), ...(held === null ? [] : [broadcast(load(at(offsets, r)), lanes)])];
    return set(v, known.length === 0 ? zero('i32', lanes) : known.reduce((a, b) => add(a, b)));
  })]);
  return fn(name, { buffers: [result, left, right, ...(levels === null ? [] : [levels]), ...(quads.rebased ? [first] : []), ...(held === null ? [] : [offsets]), ...rescale.buffers], values: rescale.values },
    [...(table?.setup ?? []), ...begin, ...loops, ...copies, ...prepared.setup, ...finish]);
};

interface RowSum {
  readonly walk: Walk;
  readonly factor: number;
  readonly target: Target;
}
/** factor·Σx of one row, padding and all that the product reads. */
const rowSumFn = (name: string, { walk: { counts, strides, padded }, factor, target: { lanes } }: RowSum): Fn => {
  const bytes = 4 * lanes;
  const reach = counts.reduce((sum, count, i) => sum + (count - 1) * strides[i], padded);
  const [result, row] = [buffer('offset', 'i32', 1, 'out'), buffer('a', 'i8', reach, 'in')];
  const outer = counts.map((count, i) => index(`t${i}`, count));
  const [k, e] = [index('k', Math.max(1, Math.floor(padded / bytes))), index('e', Math.max(1, padded % bytes))];
  const [parts, rest] = [variable('parts', 'i32', lanes), variable('rest', 'i32')];
  const from = (offset: number, ...terms: Terms): Address => at(row, offset, ...outer.map((o, i) => [o, strides[i]] as const), ...terms);
  const pairs = dot(2, zero('i16', 2 * lanes), load(from(0, [k, bytes]), bytes), literal(1, 'i8', bytes));
  const inner = [
    ...(padded < bytes ? [] : [loop(k, [set(parts, dot(2, parts, pairs, literal(1, 'i16', 2 * lanes)))])]),
    ...(padded % bytes === 0 ? [] : [loop(e, [set(rest, add(rest, load(from(padded - (padded % bytes), [e, 1]), 1, 'i32')))])]),
  ];
  return fn(name, { buffers: [result, row] }, [
    set(parts, zero('i32', lanes)), set(rest, zero('i32')), ...outer.reduceRight<readonly Stmt[]>((stmts, over) => [loop(over, stmts)], inner),
    store(at(result), mul(add(across('add', parts), rest), factor)),
  ]);
};

/** One column of a panel of bytes, side by side. */
const columnFn = (name: string, { length }: { readonly length: number }): Fn => {
  const steps = length / QUAD;
  const [bytes, panel] = [buffer('bytes', 'i8', length, 'out'), buffer('panel', 'i8', (steps - 1) * STEP + QUAD, 'const')];
  const [s, e] = [index('s', steps), index('e', QUAD)];
  return fn(name, { buffers: [bytes, panel] }, [loop(s, [loop(e, [store(at(bytes, 0, [s, QUAD], [e, 1]), load(at(panel, 0, [s, STEP], [e, 1])))])])]);
};

/** Panels that are unpacked together: as many as the widest tile has. */
const groupOf = (target: Target, quads: Quads, rows: number): number => (target.lanes === 1 ? 1 : Math.max(1, widthOf(target, quads, rows) / PANEL));
/** Whether a product of so many rows takes packed codes apart in registers: only where they are whole spans of one segment. */
const inRegisters = ({ bits, indexed, counts, padded, quads }: Walk, rows: number, { lanes }: Target): boolean =>
  bits === 8 || (rows <= FEW_ROWS && (indexed || fieldsOf(bits) <= (quads?.held?.steps ?? Infinity)) && lanes > 1 && product(counts) === 1 && padded % (fieldsOf(bits) * QUAD) === 0);
/** Bytes of unpacked panels that a product may need at a time, and of one column where there are no vectors. */
export const quadScratch = (walk: Walk, columns: number, target: Target): number | null => {
  const column = target.lanes === 1 ? product(walk.counts) * walk.padded : 0;
  const panels = walk.bits === 8 ? 0 : Math.min(starts(columns).length, Math.max(...[1, MOST_ROWS].map((rows) => groupOf(target, walk.quads!, rows)))) * quadPanelLength(walk);
  return column + panels === 0 ? null : column + panels;
};

/** Iterations that stand side by side instead of in a loop. */
const UNROLLED = 2;

export interface QuadPlaces extends Places {
  /** sums to begin with, where rows are rebased */
  readonly start: Address | null;
  /** results of fewer columns than a part of a panel has, before they are copied */
  readonly edge: Buffer | null;
  /** what the sums of each row begin with, where weights are held without sign */
  readonly offsets: Buffer | null;
  /** memory for a panel in the order of pairs, where some products take one */
  readonly pairs: Buffer | null;
}

/** rows × columns: the loops over groups of panels and, within each, over tiles. */
export const multiplyQuads = (shape: Omit<TileShape, 'rows'>, rows: number, columns: number, rescale: Rescale, places: QuadPlaces, share: ScheduleContext['share']): readonly Stmt[] => {
  const { target, walk, rowA, rowOut } = shape;
  const quads = walk.quads!;
  if (target.lanes === 1) return byColumns(shape, rows, columns, rescale, places, share);
  const { out, a, y, start, channel, edge, unpacked, levels = null, offsets, around = [], mark = null } = places;
  const unpacks = !inRegisters(walk, around.length > 0 ? Infinity : rows, target);
  const aroundOffsets: Terms = around.map((i, n) => [i, rows * product(around.slice(n + 1).map(({ count }) => count))]);
  const tileWalk: Walk = unpacks ? unpackedWalk(walk) : walk;
  const table = tileWalk.indexed ? [levels!] : [];
  const size = quadPanelBytes(walk);
  const length = quadPanelLength(walk);
  /** Panels from number `number` on as a tile reads them, and what brings them there. */
  const panelsAt = (number: number, count: number, terms: Terms): { readonly b: Address; readonly setup: readonly Stmt[] } => {
    const stored = (i: number): Address => moved(places.b, (number + i) * size, ...terms.map(([index_, n]) => [index_, n * size] as const));
    return unpacks
      ? { b: at(unpacked!), setup: list(count, (i) => unpackPanel(at(unpacked!, i * length), stored(i), levels, length, STEP, walk, target, share)) } : { b: stored(0), setup: [] };
  };
  if (edge !== null) {
    const narrow = { ...shape, walk: tileWalk, rowOut: PANEL };
    const { b, setup } = panelsAt(0, 1, []);
    const width = partWidth(columns, target);
    const group = rowsOf(target, quads, width);
    const one = (count: number, row: number, terms: Terms): readonly Stmt[] => {
      const by = (stride: number): (readonly [Index, number])[] => terms.map(([i, n]) => [i, n * stride]);
      return [
        call(share('tile', { ...narrow, rows: count, width }, tileFn), [
          edge, moved(a, row * rowA, ...by(rowA)), b, ...table, ...(start === null ? [] : [start]), ...rescale.channels.map((c) => at(c, 0, ...channel)), ...(rescale.table === null ? [] : [rescale.table]),
        ], [], rescale.values),
        ...overNest(collapse([count, columns], [[PANEL, 1], [rowOut, 1]]), Math.min(8, vectorLanes(target, edge.e), 2 ** Math.floor(Math.log2(columns))), (run, locate) => {
          const [get, put] = [locate(0, edge), locate(1, out.buffer)];
          return [store(moved(out, row * rowOut + put.offset, ...by(rowOut), ...put.terms), load(get, run))];
        }),
      ];
    };
    const blocks = Math.floor(rows / group);
    const m = index('m', Math.max(1, blocks));
    return once([...setup, ...within(around, [...(blocks === 0 ? [] : [loop(m, one(group, 0, [[m, group]]))]), ...(rows % group === 0 ? [] : one(rows % group, blocks * group, []))])], mark);
  }
  /** `width` columns of the panels from number `number` on, which begin at `b`, the first of them `column`; `terms` count groups of panels, `part` parts of a panel from part `from` on. */
  const pass = (width: number, number: number, column0: number, terms: Terms, b: Address, part: Index | null = null, from = 0): readonly Stmt[] => {
    const [column, channel0] = [column0 + from * width, number * PANEL + from * width];
    const byGroup = (perPanel: number, perColumn: number): (readonly [Index, number])[] => [
      ...terms.map(([i, n]) => [i, n * Math.max(1, width / PANEL) * perPanel] as const), ...(part === null ? [] : [[part, width * perColumn] as const])];
    const height = Math.min(rows, rowsOf(target, quads, width));
    const tile = (count: number, row: number, m: readonly Index[]): Stmt => {
      const byRow = (stride: number): (readonly [Index, number])[] => m.map((i) => [i, height * stride]);
      return call(share('tile', { ...shape, walk: tileWalk, rows: count, width }, tileFn), [
        moved(out, row * rowOut + column, ...byRow(rowOut), ...byGroup(PANEL, 1)), moved(a, row * rowA, ...byRow(rowA)), moved(b, from * width * QUAD, ...(part === null ? [] : [[part, width * QUAD] as const])), ...table,
        ...(start === null ? [] : [moved(start, channel0, ...byGroup(PANEL, 1))]),
        ...(offsets === null ? [] : [at(offsets, row, ...aroundOffsets, ...byRow(1))]),
        ...rescale.channels.map((one) => at(one, channel0, ...channel, ...byGroup(PANEL, 1))),
        ...(y === null ? [] : [moved(y, row * rowOut + column, ...byRow(rowOut), ...byGroup(PANEL, 1))]),
        ...(rescale.table === null ? [] : [rescale.table]),
      ], [], rescale.values);
    };
    const tiles = Math.floor(rows / height);
    const m = index('m', tiles);
    return within(around, [loop(m, [tile(height, 0, [m])]), ...(rows % height === 0 ? [] : [tile(rows % height, tiles * height, [])])]);
  };
  if (columns < PANEL) {
    const { b, setup } = panelsAt(0, 1, []);
    return once([...setup, ...pass(columns, 0, 0, [], b)], mark);
  }
  const widest = widthOf(target, quads, rows);
  const paired = pairsLength(walk, rows * product(around.map(({ count }) => count)), columns, target) === null ? null : places.pairs;
  const whole = Math.floor(columns / PANEL);
  /** One panel; `known` of its first columns are computed elsewhere too, and whole parts of them left out. */
  const panel = (number: number, column: number, terms: Terms, known = 0): readonly Stmt[] => {
    if (paired !== null && known === 0) {
      const by = (stride: number): Terms => terms.map(([i, n]) => [i, n * stride]);
      return [
        call(share('pairs', pairOrder(walk), orderPairsFn), [paired, moved(places.b, number * size, ...by(size))]),
        ...multiply({ ...shape, walk: pairedWalk(walk), b: 'i16' }, rows, PANEL, rescale, {
          out: moved(out, column, ...by(PANEL)), a, b: at(paired), y: y === null ? null : moved(y, column, ...by(PANEL)), channel: [...channel, ...by(PANEL)], first: number * PANEL, around,
        }, share),
      ];
    }
    const { b, setup } = panelsAt(number, 1, terms);
    if (widest >= PANEL) return [...setup, ...pass(PANEL, number, column, terms, b)];
    const first = Math.floor(known / widest);
    const part = index('part', PANEL / widest - first);
    return [...setup, loop(part, pass(widest, number, column, terms, b, part, first))];
  };
  const several = (count: number, number: number, column: number, terms: Terms): readonly Stmt[] => {
    const { b, setup } = panelsAt(number, count, terms.map(([i, n]) => [i, n * count] as const));
    return [...setup, ...pass(count * PANEL, number, column, terms, b)];
  };
  const most = Math.max(1, widest / PANEL);
  const groups = Math.floor(whole / most);
  const n = index('n', Math.max(1, groups));
  const r = index('row', rows);
  const rowSums = offsets === null ? [] : within(around, [loop(r, [
    call(share('row_sum', { walk: { ...unpackedWalk(walk), quads: null }, factor: -quads.held!.offset, target }, rowSumFn), [at(offsets, 0, ...aroundOffsets, [r, 1]), moved(a, 0, [r, rowA])]),
  ])]);
  return [
    ...rowSums,
    ...(groups === 0 ? [] : [loop(n, most === 1 ? panel(0, 0, [[n, 1]]) : several(most, 0, 0, [[n, 1]]), mark)]),
    ...once([
      ...(whole % most === 0 ? [] : several(whole % most, groups * most, groups * most * PANEL, [])),
      ...(columns % PANEL === 0 ? [] : panel(whole, columns - PANEL, [], PANEL - (columns % PANEL))),
    ], mark),
  ];
};

/** Without vectors: one column after the other, each taken out of its panel first. */
const byColumns = (shape: Omit<TileShape, 'rows'>, rows: number, columns: number, rescale: Rescale, { out, a, b, y, channel, unpacked, levels = null, around = [], mark = null }: QuadPlaces, share: ScheduleContext['share']): readonly Stmt[] => {
  const { walk, target } = shape;
  const size = quadPanelBytes(walk);
  const length = product(walk.counts) * walk.padded;
  const plain = { ...shape, walk: { ...unpackedWalk(walk), quads: null } };
  const take = share('column', { length }, columnFn);
  const some = (count: number, number: number, column: number, first: number, terms: Terms): readonly Stmt[] => {
    const stored = moved(b, number * size, ...terms.map(([i, n]) => [i, n * size] as const));
    const bytes = walk.bits === 8 ? stored : at(unpacked!, length);
    const c = index('column', count);
    const by = (perPanel: number, perColumn: number): (readonly [Index, number])[] => [...terms.map(([i, n]) => [i, n * perPanel] as const), [c, perColumn]];
    const channelOf: Terms = [...channel, ...by(PANEL, 1)];
    return [...(walk.bits === 8 ? [] : [unpackPanel(bytes, stored, levels, quadPanelLength(walk), STEP, walk, target, share)]), loop(c, [
      call(take, [unpacked!, moved(bytes, first * QUAD, [c, QUAD])]),
      ...multiply(plain, rows, 1, rescale, {
        out: moved(out, column, ...by(PANEL, 1)), a, b: at(unpacked!), y: y === null ? null : moved(y, column, ...by(PANEL, 1)), channel: channelOf, first: number * PANEL + first, around,
      }, share),
    ])];
  };
  const whole = Math.floor(columns / PANEL);
  const n = index('panel', Math.max(1, whole));
  return [
    ...(whole === 0 ? [] : [loop(n, some(PANEL, 0, 0, 0, [[n, 1]]), mark)]),
    ...once(columns % PANEL === 0 ? [] : some(columns % PANEL, whole, whole * PANEL, whole === 0 ? 0 : PANEL - (columns % PANEL), []), mark),
  ];
};
