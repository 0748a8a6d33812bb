/**
 * Products with constant weights in the layout that all vector machines share, so that one copy serves every instruction set of a
 * binary: panels of 16 columns, in each the weights of four neighbours along K side by side,
 *
 *     [panel][segment][K/4][16 columns][4]         4-bit weights: [panel][segment][K/8][16][4], the lower nibbles one step, the upper the next
 *
 * A machine with dot products of four bytes reads a step as 16 sums. One with pairs of 16-bit words widens it and gets two sums for each
 * column, which `reduce` joins after the last step. A scalar machine takes one column out of the panel and multiplies that.
 *
 * **Bytes without sign.** Where the first operand of the machine's product is u8, signed codes are stored as code + 128, and sums begin
 * at −128·Σw instead of 0. Every partial sum stays within |x|·|w| ≤ 383·128 for each tap, which `bytesFit` keeps inside 32 bits.
 *
 * The last panel starts early enough to end with the last column; fewer than 16 columns are one panel filled with zeros, whose
 * results go to memory of their own and are copied from there.
 */
import { and, at, buffer, call, dot, fn, grid, index, list, load, loop, moved, reduce, set, shl, shr, splat, store, sub, variable, xor, zero } from '../../loops/build.ts';
import type { Address, Buffer, Contents, Elem, Expr, Fn, Index, Stmt, Var } from '../../loops/types.ts';
import { multiply, type Places, type TileShape, type Walk } from './gemm.ts';
import { emptyLike, perChannel, product, type ScheduleContext } from './kernel.ts';
import { collapse, overNest } from './nest.ts';
import { makeRescale, type Rescale, type RescaleClass } from './rescale.ts';
import { vectorLanes, type Target } from './target.ts';
import { inLaneOrder } from './words.ts';

/** Columns of a panel, and neighbours along K that stand together. */
export const PANEL = 16;
const QUAD = 4;

export interface Quads {
  /** element of the rows as the product reads them */
  readonly a: 'u8' | 'i8' | 'i16';
  /** whether rows hold code + 128 of signed codes */
  readonly rebased: boolean;
}

/** Sums of u8·i8 over `depth` taps that begin at −128·Σw fit 32 bits. */
const bytesFit = (depth: number): boolean => depth * 383 * 128 < 2 ** 31;

/** How a target multiplies rows of codes `x` by constants in this layout; null where it keeps another one, or has no room to spare. */
export const quadsFor = ({ lanes, quads }: Target, x: Elem, depth: number, columns: number, ending: RescaleClass): Quads | null => {
  if (quads === null || (columns < PANEL && ending.kind === 'two')) return null;
  if (lanes === 1 || quads === 'i16' || (x !== 'i8' && x !== 'u8') || !bytesFit(depth)) return { a: 'i16', rebased: false };
  if (x === quads) return { a: quads, rebased: false };
  return x === 'i8' ? { a: 'u8', rebased: true } : { a: 'i16', rebased: false };
};

const starts = (columns: number): readonly number[] => {
  const whole = Math.floor(columns / PANEL);
  return [...list(whole, (n) => n * PANEL), ...(columns % PANEL === 0 ? [] : [Math.max(0, columns - PANEL)])];
};
/** Bytes of one panel of weights, and entries of per-channel constants. */
export const quadPanelLength = ({ counts, padded, nibbles }: Walk): number => (product(counts) * padded * PANEL) / (nibbles ? 2 : 1);
export const quadLength = (columns: number): number => starts(columns).length * PANEL;

/** Weights [columns, segments, run] as panels. */
export const packQuads = (weights: Int8Array, columns: number, { counts, run, padded, nibbles }: Walk): Int8Array => {
  const segments = product(counts);
  const out = new Int8Array(starts(columns).length * quadPanelLength({ counts, strides: [], run, padded, nibbles, quads: null }));
  const weight = (column: number, segment: number, k: number): number => (k < run && column < columns ? weights[(column * segments + segment) * run + k] : 0);
  let to = 0;
  for (const start of starts(columns)) for (let s = 0; s < segments; s++) for (let k = 0; k < padded; k += nibbles ? 2 * QUAD : QUAD) {
    for (let c = start; c < start + PANEL; c++) for (let e = k; e < k + QUAD; e++) out[to++] = nibbles ? (weight(c, s, e) & 15) | (weight(c, s, e + QUAD) << 4) : weight(c, s, e);
  }
  return out;
};
/** Per-channel constants of `groups` groups of columns, panel by panel; the same for the sums that begin at −128·Σw. */
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
export const startSums = (weights: Int8Array, columns: number): Int32Array => {
  const depth = weights.length / columns;
  return Int32Array.from({ length: columns }, (_, c) => {
    let sum = 0;
    for (let k = 0; k < depth; k++) sum += weights[c * depth + k];
    return -128 * sum;
  });
};

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
/** rows of a tile at most, however narrow it is */
export const MOST_ROWS = 8;
const rowsOf = (target: Target, quads: Quads, width: number): number =>
  Math.max(1, Math.min(MOST_ROWS, Math.floor((target.tile[0] * target.tile[1]) / vectorsOf(target, quads, width))));
/** Rows that a block should be a multiple of. */
export const quadRows = (target: Target, quads: Quads, rows: number, columns: number): number =>
  (target.lanes === 1 ? target.tile[0] : rowsOf(target, quads, Math.min(widthOf(target, quads, rows), Math.max(PANEL, columns - (columns % PANEL)))));

/** rows × width: out[r, c] = rescale(start[c] + Σ_k a[r, k]·b[k, c]) */
const tileFn = (name: string, { rows, width, walk, rowA, rowOut, rescale: shape, inPlace, target }: QuadTile): Fn => {
  const { lanes } = target;
  const quads = walk.quads!;
  const d = quads.a === 'i16' ? 2 : 4;
  const joined = QUAD / d;
  const total = vectorsOf(target, quads, width);
  const vectors = vectorsOf(target, quads, Math.min(PANEL, width));
  const panel = quadPanelLength(walk);
  const reach = walk.counts.reduce((sum, count, i) => sum + (count - 1) * walk.strides[i], walk.padded);
  const left = buffer('a', quads.a, (rows - 1) * rowA + reach, 'in');
  const right = buffer('b', 'i8', width < PANEL ? panel - (PANEL - width) * QUAD : (width / PANEL) * panel, 'const');
  const first = buffer('start', 'i32', width, 'const');
  const result = buffer('out', shape.out, (rows - 1) * rowOut + width, 'out');
  const rescale = makeRescale(shape, target, { channels: width, y: (rows - 1) * rowOut + width }, inPlace ? result : null);
  const second = inPlace ? result : rescale.y;

  const wide: Elem = d === 2 ? 'i16' : 'i8';
  const sums = grid(rows, total, (r, j) => variable(`s${r}_${j}`, 'i32', lanes));
  const outer = walk.counts.map((count, i) => index(`t${i}`, count));
  const perStep = PANEL * QUAD;
  const span = walk.nibbles ? 2 * QUAD : QUAD;
  const steps = walk.padded / span;
  const k = index('k', steps);
  const weightAt = (offset: number): Address => at(right, offset, ...outer.map((o, i) => [o, product(walk.counts.slice(i + 1)) * steps * perStep] as const), [k, perStep]);
  const step = (half: 0 | 1): readonly Stmt[] => {
    const a = list(rows, (r) => variable(`a${r}`, quads.a, d * lanes));
    const b = list(total, (j) => variable(`b${j}`, wide, d * lanes));
    const loadA = (r: number): Stmt =>
      set(a[r], splat(at(left, r * rowA + half * QUAD, ...outer.map((o, i) => [o, walk.strides[i]] as const), [k, span]), QUAD, (d * lanes) / QUAD, quads.a));
    const loadB = (j: number): readonly Stmt[] => {
      const from = weightAt(Math.floor(j / vectors) * panel + (j % vectors) * d * lanes);
      return walk.nibbles ? nibbles(b[j], load(from, d * lanes, wide), half) : [set(b[j], load(from, d * lanes, wide))];
    };
    const product = (r: number, j: number): Stmt => set(sums[r][j], dot(d, sums[r][j], a[r], b[j]), { pin: true });
    return rows < b.length
      ? [...a.map((_, r) => loadA(r)), ...b.flatMap((_, j) => [...loadB(j), ...a.map((_a, r) => product(r, j))])]
      : [...b.flatMap((_, j) => loadB(j)), ...a.flatMap((_, r) => [loadA(r), ...b.map((_b, j) => product(r, j))])];
  };
  const inner = [...step(0), ...(walk.nibbles ? step(1) : [])];
  const loops = [...outer, k].reduceRight<readonly Stmt[]>((stmts, over) => [loop(over, stmts)], inner);

  const words = Math.min(PANEL, width) / lanes;
  const parts = Math.min(2, words);
  const run = parts * lanes;
  const prepared = rescale.prepare(run, lanes);
  const finish = list(width / run, (group) => {
    const { setup, constants } = prepared.channels((one) => ({ from: at(one, group * run), stride: 1 }));
    return [...setup, ...list(rows, (r) => prepared.finish(
      list(parts, (p) => reduce(joined, sums[r].slice((group * parts + p) * joined, (group * parts + p + 1) * joined))), constants, at(result, r * rowOut + group * run),
      second === null ? null : { from: at(second, r * rowOut + group * run), stride: 1 },
    )).flat()];
  }).flat();
  const begin = sums.flat().map((v, i) => set(v, quads.rebased ? load(at(first, (i % total) * lanes), lanes) : zero('i32', lanes)));
  return fn(name, { buffers: [result, left, right, ...(quads.rebased ? [first] : []), ...rescale.buffers], values: rescale.values },
    [...begin, ...loops, ...prepared.setup, ...finish]);
};

/** The lower or the upper nibbles of bytes, sign-extended; the bytes may already be 16-bit words. */
const nibbles = (v: Var, bytes: Expr, half: 0 | 1): readonly Stmt[] => {
  if (bytes.type.e === 'i16') return [set(v, half === 1 ? shr(bytes, 4) : shr(shl(bytes, 12), 12))];
  return [set(v, sub(xor(and(half === 1 ? shr(bytes, 4) : bytes, 15), 8), 8))];
};

/** One column of a panel, as bytes side by side. */
const columnFn = (name: string, { length, nibbles: packed }: { readonly length: number; readonly nibbles: boolean }): Fn => {
  const span = packed ? 2 * QUAD : QUAD;
  const steps = length / span;
  const [bytes, panel] = [buffer('bytes', 'i8', length, 'out'), buffer('panel', 'i8', (steps - 1) * PANEL * QUAD + QUAD, 'const')];
  const [s, e] = [index('s', steps), index('e', QUAD)];
  const code = load(at(panel, 0, [s, PANEL * QUAD], [e, 1]));
  const to = (half: number): Address => at(bytes, half * QUAD, [s, span], [e, 1]);
  return fn(name, { buffers: [bytes, panel] }, [loop(s, [loop(e, packed
    ? [store(to(0), sub(xor(and(code, 15), 8), 8)), store(to(1), shr(code, 4))] : [store(to(0), code)])])]);
};

export interface QuadPlaces extends Places {
  /** sums to begin with, where rows are rebased */
  readonly start: Address | null;
  /** results of fewer than 16 columns, before they are copied */
  readonly edge: Buffer | null;
}
type Terms = readonly (readonly [Index, number])[];

/** rows × columns: the loops over groups of panels and, within each, over tiles. */
export const multiplyQuads = (shape: Omit<TileShape, 'rows'>, rows: number, columns: number, rescale: Rescale, places: QuadPlaces, share: ScheduleContext['share']): readonly Stmt[] => {
  const { target, walk, rowA, rowOut } = shape;
  const quads = walk.quads!;
  if (target.lanes === 1) return byColumns(shape, rows, columns, rescale, places, share);
  const { out, a, b, y, start, channel, edge } = places;
  const size = quadPanelLength(walk);
  if (edge !== null) {
    const narrow = { ...shape, rowOut: PANEL };
    const group = rowsOf(target, quads, PANEL);
    const one = (count: number, row: number, terms: Terms): readonly Stmt[] => {
      const by = (stride: number): (readonly [Index, number])[] => terms.map(([i, n]) => [i, n * stride]);
      return [
        call(share('tile', { ...narrow, rows: count, width: PANEL }, tileFn), [
          edge, moved(a, row * rowA, ...by(rowA)), b, ...(start === null ? [] : [start]), ...rescale.channels.map((c) => at(c, 0, ...channel)), ...(rescale.table === null ? [] : [rescale.table]),
        ], [], rescale.values),
        ...overNest(collapse([count, columns], [[PANEL, 1], [rowOut, 1]]), Math.min(8, vectorLanes(target, edge.e), 2 ** Math.floor(Math.log2(columns))), (run, locate) => {
          const [get, put] = [locate(0, edge), locate(1, out.buffer)];
          return [store(moved(out, row * rowOut + put.offset, ...by(rowOut), ...put.terms), load(get, run))];
        }),
      ];
    };
    const blocks = Math.floor(rows / group);
    const m = index('m', Math.max(1, blocks));
    return [...(blocks === 0 ? [] : [loop(m, one(group, 0, [[m, group]]))]), ...(rows % group === 0 ? [] : one(rows % group, blocks * group, []))];
  }
  /** `width` columns of the panels from number `number` on, the first of them `column`; `terms` count groups of panels, `part` parts of a panel. */
  const pass = (width: number, number: number, column: number, terms: Terms, part: Index | null = null): readonly Stmt[] => {
    const byGroup = (perPanel: number, perColumn: number): (readonly [Index, number])[] => [
      ...terms.map(([i, n]) => [i, n * Math.max(1, width / PANEL) * perPanel] as const), ...(part === null ? [] : [[part, width * perColumn] as const])];
    const height = Math.min(rows, rowsOf(target, quads, width));
    const tile = (count: number, row: number, m: readonly Index[]): Stmt => {
      const byRow = (stride: number): (readonly [Index, number])[] => m.map((i) => [i, height * stride]);
      return call(share('tile', { ...shape, rows: count, width }, tileFn), [
        moved(out, row * rowOut + column, ...byRow(rowOut), ...byGroup(PANEL, 1)), moved(a, row * rowA, ...byRow(rowA)), moved(b, number * size, ...byGroup(size, QUAD)),
        ...(start === null ? [] : [moved(start, number * PANEL, ...byGroup(PANEL, 1))]),
        ...rescale.channels.map((one) => at(one, number * PANEL, ...channel, ...byGroup(PANEL, 1))),
        ...(y === null ? [] : [moved(y, row * rowOut + column, ...byRow(rowOut), ...byGroup(PANEL, 1))]),
        ...(rescale.table === null ? [] : [rescale.table]),
      ], [], rescale.values);
    };
    const tiles = Math.floor(rows / height);
    const m = index('m', tiles);
    return [loop(m, [tile(height, 0, [m])]), ...(rows % height === 0 ? [] : [tile(rows % height, tiles * height, [])])];
  };
  const widest = widthOf(target, quads, rows);
  const whole = Math.floor(columns / PANEL);
  const panel = (number: number, column: number, terms: Terms): readonly Stmt[] => {
    if (widest >= PANEL) return pass(PANEL, number, column, terms);
    const part = index('part', PANEL / widest);
    return [loop(part, pass(widest, number, column, terms, part))];
  };
  const most = Math.max(1, widest / PANEL);
  const groups = Math.floor(whole / most);
  const n = index('n', Math.max(1, groups));
  return [
    ...(groups === 0 ? [] : [loop(n, most === 1 ? panel(0, 0, [[n, 1]]) : pass(widest, 0, 0, [[n, 1]]))]),
    ...(whole % most === 0 ? [] : pass((whole % most) * PANEL, groups * most, groups * most * PANEL, [])),
    ...(columns % PANEL === 0 ? [] : panel(whole, columns - PANEL, [])),
  ];
};

/** Without vectors: one column after the other, each taken out of its panel first. */
const byColumns = (shape: Omit<TileShape, 'rows'>, rows: number, columns: number, rescale: Rescale, { out, a, b, y, channel, unpacked }: QuadPlaces, share: ScheduleContext['share']): readonly Stmt[] => {
  const { walk } = shape;
  const size = quadPanelLength(walk);
  const length = product(walk.counts) * walk.padded;
  const plain = { ...shape, walk: { ...walk, nibbles: false, quads: null } };
  const take = share('column', { length, nibbles: walk.nibbles }, columnFn);
  const some = (count: number, number: number, column: number, within: number, terms: Terms): readonly Stmt[] => {
    const c = index('column', count);
    const by = (perPanel: number, perColumn: number): (readonly [Index, number])[] => [...terms.map(([i, n]) => [i, n * perPanel] as const), [c, perColumn]];
    const channelOf: Terms = [...channel, ...by(PANEL, 1)];
    return [loop(c, [
      call(take, [unpacked!, moved(b, number * size + within * QUAD, ...by(size, QUAD))]),
      ...multiply(plain, rows, 1, rescale, {
        out: moved(out, column, ...by(PANEL, 1)), a, b: at(unpacked!), y: y === null ? null : moved(y, column, ...by(PANEL, 1)), channel: channelOf, first: number * PANEL + within,
      }, share),
    ])];
  };
  const whole = Math.floor(columns / PANEL);
  const n = index('panel', Math.max(1, whole));
  return [
    ...(whole === 0 ? [] : [loop(n, some(PANEL, 0, 0, 0, [[n, 1]]))]),
    ...(columns % PANEL === 0 ? [] : some(columns % PANEL, whole, whole * PANEL, whole === 0 ? 0 : PANEL - (columns % PANEL), [])),
  ];
};
