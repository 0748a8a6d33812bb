/**
 * Matrix products: the register tile, the panels that B is packed into, and the loops over both. Rows of A are 16-bit (widened and
 * padded by the caller), sums are 32-bit; the accumulator bound of the op proves that no partial sum leaves 32 bits.
 *
 * A row of A is `segments` runs of `run` elements: one run for a plain product, one for each row of taps of a convolution. B holds, for
 * each panel of columns, the same runs in the same order: [segment][step][vector][lane][d]. The last panel starts early enough to end
 * with the last column, so some columns may be computed twice, with equal results, and no panel is partly empty.
 */
import { across, add, at, broadcast, buffer, bytesOf, call, convert, dot, fn, grid, index, list, literal, load, loop, moved, mul, set, shl, splat, store, sub, variable, xor, zero, zip } from '../../loops/build.ts';
import type { Address, Buffer, Contents, Elem, Expr, Fn, Index, Mark, Stmt, Var } from '../../loops/types.ts';
import { codesOf, fieldsOf, loadPlanes, packCodes, packedLength, unpack, type StoredBits } from './codes.ts';
import { emptyLike, perChannel, product, type ScheduleContext } from './kernel.ts';
import { unpackLevels, wordTable } from './levels.ts';
import { collapse, overNest, type Nest } from './nest.ts';
import { makeRescale, type Rescale, type RescaleClass } from './rescale.ts';
import type { Quads } from './quads.ts';
import { once } from './split.ts';
import { vectorLanes, type Target } from './target.ts';
import { BLOCK_LANES, inReadingOrder, runOf } from './words.ts';

/** How a row of A is walked: outer axes of runs, each with its stride, then `run` neighbours. */
export interface Walk {
  readonly counts: readonly number[];
  readonly strides: readonly number[];
  readonly run: number;
  /** `run` rounded up to whole dot products; the weights of the rest are 0 */
  readonly padded: number;
  /**
   * Width of the weights as they are stored. Below 8 bits each panel is a list of codes of its own (codes.ts). Few rows take the codes
   * apart in registers; for many, and without vectors, a panel is unpacked to bytes before the rows pass over it.
   */
  readonly bits: StoredBits;
  /** whether that is the width of indices into a table of levels (levels.ts) */
  readonly indexed: boolean;
  /** how the walk is multiplied where the weights stand as in quads.ts; null where they stand as written here */
  readonly quads: Quads | null;
  /** whether x is of bytes, so few that products with codes without sign, which begin at −2^(bits−1)·Σx, or with levels of up to 8 bits, stay within 32 bits */
  readonly bytes: boolean;
}
export const walkOf = (counts: readonly number[], strides: readonly number[], run: number, target: Target, bits: StoredBits = 8, quads: Quads | null = null, x: Elem | null = null, indexed = false): Walk => {
  const unit = unitOf(target, quads);
  return { counts, strides, run, padded: Math.ceil(run / unit) * unit, bits, indexed, quads, bytes: x !== null && bytesOf(x) === 1 && run < 2 ** (23 - (indexed ? 8 : bits)) };
};
/** Neighbours along K that are multiplied at once. */
export const unitOf = ({ dot: d }: Target, quads: Quads | null): number => (quads !== null ? 4 : d);
/** The walk once its weights stand as bytes. */
export const unpackedWalk = (walk: Walk): Walk => ({ ...walk, bits: 8, indexed: false });

/**
 * Codes that are taken apart in registers may keep the offset 2^(bits−1) under which they are held: Σ x·code = Σ x·held − 2^(bits−1)·Σx.
 * Levels are held as level − `least`, one scalar of the element of `rows`.
 * For each row what its sums begin with, in the first of the `joined` sums of each column: statements, and a vector. Null where rows are not whole vectors.
 */
export const heldStarts = (rows: readonly Address[], { bits, counts, padded, bytes }: Walk, joined: number, d: 2 | 4, lanes: number, least: Expr | null = null): readonly HeldStart[] | null =>
  (bits === 8 || !bytes || product(counts) !== 1 || padded % (d * lanes) !== 0 ? null : rows.map((row) => heldStart(row, bits, padded, joined, d, lanes, least)));

interface HeldStart {
  readonly setup: readonly Stmt[];
  readonly start: Expr;
}
const heldStart = (row: Address, bits: StoredBits, padded: number, joined: number, d: 2 | 4, lanes: number, least: Expr | null): HeldStart => {
  const step = d * lanes;
  const k = index('k', padded / step);
  const [parts, start] = [variable('parts', 'i32', lanes), variable('start', 'i32', lanes)];
  const offsets = least === null ? literal(-(2 ** (bits - 1)), d === 2 ? 'i16' : 'i8', step) : broadcast(least, step);
  const all = broadcast(across('add', parts), lanes);
  return {
    setup: [
      set(parts, zero('i32', lanes)), loop(k, [set(parts, dot(d, parts, load(moved(row, 0, [k, step]), step, row.buffer.e), offsets, d === 4 && bits < 7))]),
      set(start, joined === 1 ? all : zip(0, 1, all, zero('i32', lanes))),
    ],
    start,
  };
};

/** Without enough columns for a vector tile, or with operands of 32 bits, the product is done by scalars. */
export const scalarOf = (target: Target): Target => ({ ...target, lanes: 1, dot: 1, tile: target.lanes === 1 ? target.tile : [4, 1] });
export const columnsPerPanel = ({ lanes, tile }: Target): number => tile[1] * lanes;
export const targetFor = (target: Target, columns: number): Target => (columns >= columnsPerPanel(target) ? target : scalarOf(target));

/** Per-channel constants of `groups` groups of columns, panel by panel. */
export const panelConstants = <T extends Contents>(list: T, columns: number, target: Target, groups = 1): T => {
  const all = perChannel(list, groups * columns);
  const width = columnsPerPanel(target);
  const starts = panelStarts(columns, target);
  const out = emptyLike(all, groups * starts.length * width);
  for (let g = 0; g < groups; g++) starts.forEach((start, n) => {
    for (let i = 0; i < width; i++) out[(g * starts.length + n) * width + i] = all[g * columns + start + i] as never;
  });
  return inReadingOrder(out, target);
};
export const constantsLength = (columns: number, target: Target): number => panelStarts(columns, target).length * columnsPerPanel(target);

/** First columns of the panels: whole ones side by side, and one more that ends at the last column. */
export const panelStarts = (columns: number, target: Target): readonly number[] => {
  const width = columnsPerPanel(target);
  const whole = Math.floor(columns / width);
  return [...list(whole, (n) => n * width), ...(columns % width === 0 ? [] : [columns - width])];
};
/** Elements of one panel, and the bytes that hold them. */
export const panelLength = ({ counts, padded }: Walk, target: Target): number => product(counts) * padded * columnsPerPanel(target);
export const panelBytes = (walk: Walk, target: Target): number => packedLength(panelLength(walk, target), blockOf(walk, target), walk.bits);
/** Codes that stand side by side in a packed panel: one vector of a step, or, without vectors, as many as there are. */
const blockOf = (walk: Walk, target: Target): number => (target.lanes === 1 ? panelLength(walk, target) : target.lanes * target.dot);

/** Weights [columns, segments, run] as panels, with `padding` after the end of a run. */
export const packPanels = (weights: Int8Array, columns: number, walk: Walk, target: Target, padding = 0): Int8Array => {
  const { lanes, dot: d, tile: [, vectors] } = target;
  const segments = product(walk.counts);
  const starts = panelStarts(columns, target);
  const length = panelLength(walk, target);
  const out = new Int8Array(starts.length * length);
  const at = (column: number, segment: number, k: number): number => (k < walk.run ? weights[(column * segments + segment) * walk.run + k] : padding);
  let to = 0;
  for (const start of starts) for (let s = 0; s < segments; s++) for (let k = 0; k < walk.padded; k += d) {
    for (let column = start; column < start + vectors * lanes; column++) for (let e = k; e < k + d; e++) out[to++] = at(column, s, e);
  }
  return packedPanels(out, length, blockOf(walk, target), walk.bits);
};
/** Panels of `length` codes, each packed by itself. */
export const packedPanels = (codes: Int8Array, length: number, block: number, bits: StoredBits): Int8Array => {
  if (bits === 8) return codes;
  const count = codes.length / length;
  const size = packedLength(length, block, bits);
  const out = new Int8Array(count * size);
  for (let n = 0; n < count; n++) out.set(packCodes(codes.subarray(n * length, (n + 1) * length), block, bits), n * size);
  return out;
};

export interface TileShape {
  readonly rows: number;
  readonly walk: Walk;
  /** elements from one row to the next, in A and in the result */
  readonly rowA: number;
  readonly rowOut: number;
  readonly a: Elem;
  readonly b: Elem;
  readonly rescale: RescaleClass;
  /** whether the second operand of the rescale is the result's own memory */
  readonly inPlace: boolean;
  readonly target: Target;
}
interface PanelTile extends TileShape {
  readonly panels: number;
}

/** rows × some panels: out[r, c] = rescale(Σ_k a[r, k]·b[k, c]) */
const tileFn = (name: string, { rows, panels, walk, rowA, rowOut, a, b, rescale: shape, inPlace, target }: PanelTile): Fn => {
  const { lanes, dot: d, tile: [, perPanel] } = target;
  const vectors = panels * perPanel;
  const width = vectors * lanes;
  const panel = panelBytes(walk, target);
  const reach = walk.counts.reduce((sum, count, i) => sum + (count - 1) * walk.strides[i], walk.padded);
  const left = buffer('a', a, (rows - 1) * rowA + reach, 'in');
  const right = buffer('b', walk.bits === 8 ? b : 'u8', panels * panel, 'in');
  const levels = walk.indexed ? buffer('levels', 'i8', 2 ** walk.bits, 'in') : null;
  const table = levels === null ? null : wordTable(at(levels), walk.bits);
  const result = buffer('out', shape.out, (rows - 1) * rowOut + width, 'out');
  const rescale = makeRescale(shape, target, { channels: width, y: (rows - 1) * rowOut + width }, inPlace ? result : null);
  const second = inPlace ? result : rescale.y;

  const wide = d === 1 ? 'i32' : 'i16';
  const sums = grid(rows, vectors, (r, j) => variable(`s${r}_${j}`, 'i32', lanes));
  const bWords = list(vectors, (j) => variable(`b${j}`, wide, d * lanes));
  const outer = walk.counts.map((count, i) => index(`t${i}`, count));
  const steps = stepsOf(walk, target);
  const k = index('k', walk.padded / d / steps);
  const block = lanes * d;
  const perIteration = (steps * d * perPanel * lanes * walk.bits) / 8;
  const weightAt = (offset: number): Address =>
    at(right, offset, ...outer.map((o, i) => [o, (product(walk.counts.slice(i + 1)) * k.count * perIteration)] as const), [k, perIteration]);
  const planes = walk.bits === 8 ? null : list(panels, (p) => loadPlanes(weightAt(p * panel), block, walk.bits, block, 'i16'));
  const starts = planes === null || d !== 2 || lanes === 1 ? null : heldStarts(list(rows, (r) => at(left, r * rowA)), walk, 1, 2, lanes, table?.least);
  /**
   * A byte of two codes of 4 bits is 16·upper + lower, and both are multiplied by the same x: Σ x·lower = Σ x·byte − 16·Σ x·upper, where
   * bytes need no mask. With the sums of the upper codes begun at −8·Σx, those of the bytes begin at −(16 + 1)·8·Σx.
   */
  const byBytes = starts !== null && table === null && walk.bits === 4 && perPanel === 2 && steps === 1 && walk.run <= BYTES_MOST;
  const weight = (step: number, j: number): Expr => {
    if (byBytes && j % 2 === 0) return planes![j / 2].bytes[0][0];
    const [p, number] = [Math.floor(j / perPanel), step * perPanel + (j % perPanel)];
    if (planes === null) return load(weightAt(p * panel + number * block), block, wide);
    const code = codesOf(planes[p], number, walk.bits, 'i16', table !== null || starts !== null);
    return table === null ? code : starts !== null ? table.of(code) : add(table.of(code), broadcast(table.least, block));
  };
  const inner: Stmt[] = [
    ...(planes?.flatMap(({ setup }) => setup) ?? []),
    ...list(steps, (step) => {
      const words = list(rows, (r) => splat(at(left, r * rowA + step * d, ...outer.map((o, i) => [o, walk.strides[i]] as const), [k, d * steps]), d, lanes, wide));
      const product = (r: number, j: number, a: Expr): Stmt => set(sums[r][j], dot(d, sums[r][j], a, bWords[j]), { pin: lanes > 1 });
      // what there is less of stays in registers; the rest comes one by one
      if (rows < vectors && planes !== null) {
        const kept = words.map((_, r) => variable(`aw${r}`, wide, d * lanes));
        return [...kept.map((v, r) => set(v, words[r])), ...bWords.flatMap((v, j) => [set(v, weight(step, j)), ...kept.map((a, r) => product(r, j, a))])];
      }
      return [...bWords.map((v, j) => set(v, weight(step, j))), ...words.flatMap((a, r) => {
        const one = variable(`aw${r}`, wide, d * lanes);
        return [set(one, a), ...bWords.map((_, j) => product(r, j, one))];
      })];
    }).flat(),
  ];
  const loops = [...outer, k].reduceRight<readonly Stmt[]>((stmts, over) => [loop(over, stmts)], inner);

  const { done, copies } = takenOver(sums);
  // vectors of several blocks are stored one by one: their constants one by one, too, leave the sums their registers
  const run = lanes > BLOCK_LANES ? lanes : runOf(lanes);
  const prepared = rescale.prepare(run, lanes === 1 ? undefined : lanes);
  const finish = list(width / run, (group) => {
    const { setup, constants } = prepared.channels((one) => ({ from: at(one, group * run), stride: 1 }));
    const perGroup = run / lanes;
    return [...setup, ...list(rows, (r) => prepared.finish(
      done[r].slice(group * perGroup, (group + 1) * perGroup), constants, at(result, r * rowOut + group * run),
      second === null ? null : { from: at(second, r * rowOut + group * run), stride: 1 },
    )).flat()];
  }).flat();
  const begin = starts === null ? sums.flat().map((v) => set(v, zero('i32', lanes)))
    : starts.flatMap(({ setup, start }, r) => [...setup, ...sums[r].map((v, j) => set(v, byBytes && j % 2 === 0 ? mul(start, 17) : start))]);
  const lower = byBytes ? sums.flatMap((row) => list(panels, (p) => set(row[2 * p], sub(row[2 * p], shl(row[2 * p + 1], 4))))) : [];
  return fn(name, { buffers: [result, left, right, ...(levels === null ? [] : [levels]), ...rescale.buffers], values: rescale.values },
    [...(table?.setup ?? []), ...begin, ...loops, ...lower, ...copies, ...prepared.setup, ...finish]);
};

/**
 * The sums of a tile under names of their own, for what follows its loops: gcc keeps one name in one place, and where the rescale has too few
 * registers for all sums, that of a sum which the loops add to would be memory. Vectors of one block do without: their compilers divide names.
 */
export const takenOver = (sums: readonly (readonly Var[])[]): { readonly done: readonly (readonly Var[])[]; readonly copies: readonly Stmt[] } => {
  const { e, n } = sums[0][0].type;
  if (n <= BLOCK_LANES) return { done: sums, copies: [] };
  const done = sums.map((row, r) => row.map((_, j) => variable(`t${r}_${j}`, e, n)));
  return { done, copies: done.flatMap((row, r) => row.map((v, j) => set(v, sums[r][j], { pin: true }))) };
};

/** Elements of a row for which 255·(255 + 136)·2^14 < 2^31. */
const BYTES_MOST = 2 ** 14;

/** Steps of one iteration: where codes are taken apart in registers, those of one span. */
const stepsOf = ({ bits }: Walk, { tile: [, vectors] }: Target): number => (bits === 8 ? 1 : Math.max(1, fieldsOf(bits) / vectors));
/** Rows up to which unpacking a panel first does not pay. */
export const FEW_ROWS = 3;
/**
 * Panels side by side where rows are few: they share what is read of a row, and the loop. How many for a quarter of the tile's height,
 * registers decide: bytes hold two vectors of a panel at a time, codes of 4 bits one, others several planes.
 */
const panelsFor = (rows: number, { lanes, tile: [height] }: Target, { bits }: Walk): number =>
  (lanes === 1 ? 1 : Math.max(1, Math.floor(((bits === 8 ? 3 : bits === 4 ? 4 : 2) * height) / (4 * rows))));
/** Whether a product of so many rows takes packed codes apart in registers; spans must not reach across segments or panels. */
const inRegisters = (walk: Walk, rows: number, target: Target): boolean =>
  walk.bits === 8 || (rows <= FEW_ROWS && target.lanes > 1 && target.dot === 2 && target.tile[1] <= fieldsOf(walk.bits) && walk.padded % (target.dot * stepsOf(walk, target)) === 0);

/** Rows from which on a panel of bytes is widened before they pass over it. */
const MANY_ROWS = 24;
/** Words of a panel that stays near the core beside the rows. */
const NEAR_WORDS = 8192;
/** Words of a widened panel; null where tiles widen what they read. */
export const widenedLength = (walk: Walk, rows: number, target: Target): number | null => {
  const length = panelLength(walk, target);
  return target.widensPanels && walk.quads === null && target.dot === 2 && target.lanes > 1 && rows >= MANY_ROWS && length <= NEAR_WORDS ? length : null;
};
/** Where the operands of a product begin, in the enclosing function. */
export interface Places {
  readonly out: Address;
  readonly a: Address;
  readonly b: Address;
  /** the second operand of the rescale; null where there is none or it is the result itself */
  readonly y: Address | null;
  /** first of the per-channel constants */
  readonly channel: readonly (readonly [Index, number])[];
  /** and its number */
  readonly first?: number;
  /** scratch memory for unpacked panels; null where weights are stored as bytes */
  readonly unpacked?: Buffer | null;
  /** scratch memory for a panel of words; null where tiles read bytes */
  readonly words?: Buffer | null;
  /** the table of levels of an indexed walk */
  readonly levels?: Address | null;
  /** loops around the rows, whose counters the addresses hold: they run within the loops over panels */
  readonly around?: readonly Index[];
  /** mark of the loops over panels */
  readonly mark?: Mark | null;
}
/** Brings the `length` codes or levels of a packed panel to memory, under the offset of `walk.quads` where that holds weights without sign. */
export const unpackPanel = (
  to: Address, panel: Address, levels: Address | null, length: number, block: number, { bits, indexed, quads }: Walk, target: Target, share: ScheduleContext['share'],
): Stmt => (indexed ? unpackLevels(to, panel, levels!, length, block, bits, target, share, quads?.held?.offset) : unpack(to, panel, length, block, bits, target, share, quads?.held != null));
/** The statements within the loops. */
export const within = (around: readonly Index[], stmts: readonly Stmt[]): readonly Stmt[] => around.reduceRight((inner, over) => [loop(over, inner)], stmts);
/** rows × columns: the loops over panels and, within each, over tiles. */
export const multiply = (
  shape: Omit<TileShape, 'rows'>, rows: number, columns: number, rescale: Rescale, { out, a, b, y, channel, first = 0, unpacked = null, words = null, levels = null, around = [], mark = null }: Places, share: ScheduleContext['share'],
): readonly Stmt[] => {
  const { target, walk, rowA, rowOut } = shape;
  const width = columnsPerPanel(target);
  const whole = Math.floor(columns / width);
  const [size, length] = [panelBytes(walk, target), panelLength(walk, target)];
  const height = Math.min(rows, target.tile[0]);
  const tiles = Math.floor(rows / height);
  const goesFirst = !inRegisters(walk, around.length > 0 ? Infinity : rows, target);
  const own: Walk = goesFirst ? unpackedWalk(walk) : walk;
  const table = own.indexed ? [levels!] : [];
  const several = (panels: number, column: number, number: number, terms: readonly (readonly [Index, number])[]): readonly Stmt[] => {
    const byColumn = (stride: number): (readonly [Index, number])[] => terms.map(([i, n]) => [i, n * stride]);
    const panelAt = moved(b, number * size, ...byColumn(size));
    const before = [
      ...(goesFirst ? list(panels, (p) => unpackPanel(at(unpacked!, p * length), moved(panelAt, p * size), levels, length, blockOf(walk, target), walk, target, share)) : []),
      ...(words === null ? [] : widenRows(goesFirst ? at(unpacked!) : panelAt, at(words), 1, length, length, length, 0, target)),
    ];
    const tile = (count: number, row: number, m: readonly Index[]): Stmt => {
      const byRow = (stride: number): (readonly [Index, number])[] => m.map((i) => [i, height * stride]);
      return call(share('tile', { ...shape, walk: own, rows: count, panels, b: words === null ? shape.b : 'i16' }, tileFn), [
        moved(out, row * rowOut + column, ...byRow(rowOut), ...byColumn(width)), moved(a, row * rowA, ...byRow(rowA)), words !== null ? at(words) : goesFirst ? at(unpacked!) : panelAt, ...table,
        ...rescale.channels.map((one) => at(one, first + number * width, ...channel, ...byColumn(width))),
        ...(y === null ? [] : [moved(y, row * rowOut + column, ...byRow(rowOut), ...byColumn(width))]),
        ...(rescale.table === null ? [] : [rescale.table]),
      ], [], rescale.values);
    };
    const m = index('m', tiles);
    return [...before, ...within(around, [loop(m, [tile(height, 0, [m])]), ...(rows % height === 0 ? [] : [tile(rows % height, tiles * height, [])])])];
  };
  const wide = Math.min(goesFirst || words !== null ? 1 : panelsFor(rows, target, walk), Math.max(1, whole));
  const groups = Math.floor(whole / wide);
  const n = index('n', Math.max(1, groups));
  return [
    ...(groups === 0 ? [] : [loop(n, several(wide, 0, 0, [[n, wide]]), mark)]),
    ...once([
      ...(whole % wide === 0 ? [] : several(whole % wide, groups * wide * width, groups * wide, [])),
      ...(columns % width === 0 ? [] : several(1, columns - width, whole, [])),
    ], mark),
  ];
};

/**
 * Copies `rows` runs of `run` codes, widened, less a zero point: source and target strides between rows as given. Signed bytes that
 * become bytes without sign are stored as code + 128, the others as code − 128.
 */
export const widenRows = (from: Address, to: Address, rows: number, run: number, rowFrom: number, rowTo: number, zeroPoint: number, target: Target): readonly Stmt[] =>
  widened(from, to, collapse([rows, run], [[rowFrom, 1], [rowTo, 1]]), vectorLanes(target, to.buffer.e), zeroPoint);
/** The same along any nest, at most `lanes` at a time. */
export const widened = (from: Address, to: Address, nest: Nest, lanes: number, zeroPoint: number): readonly Stmt[] => {
  const e = to.buffer.e;
  return overNest(nest, lanes, (n, locate) => {
    const [source, goal] = [locate(0, from.buffer), locate(1, to.buffer)];
    const there = moved(from, source.offset, ...source.terms);
    if (e === 'u8' && from.buffer.e === 'i8') return [store(moved(to, goal.offset, ...goal.terms), xor(convert('u8', load(there, n)), 128))];
    if (e === 'i8' && from.buffer.e === 'u8') return [store(moved(to, goal.offset, ...goal.terms), convert('i8', xor(load(there, n), 128)))];
    const codes: Expr = load(there, n, e);
    return [store(moved(to, goal.offset, ...goal.terms), zeroPoint === 0 ? codes : sub(codes, zeroPoint))];
  });
};

/** Fills `rows` runs with one code. */
export const fillRows = (to: Address, rows: number, run: number, rowTo: number, code: number, target: Target): readonly Stmt[] => {
  const e = to.buffer.e;
  return overNest(collapse([rows, run], [[rowTo, 1]]), vectorLanes(target, e), (n, locate) => {
    const goal = locate(0, to.buffer);
    return [store(moved(to, goal.offset, ...goal.terms), literal(code, e, n))];
  });
};
