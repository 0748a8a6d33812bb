/**
 * `conv_acc` of 3×3 taps and stride 1 by Winograd's F(2×2, 3×3), for machines that multiply pairs of 16-bit words: 16 products for four
 * outputs where the plain sum takes 36. With d a window of 4×4 codes, g a filter and Y the four sums,
 *
 *     4·Y = Aᵀ [ (2G g 2Gᵀ) ∘ (Bᵀ d B) ] A     Bᵀ = 1  0 −1  0    2G = 2  0  0    Aᵀ = 1  1  1  0
 *                                                    0  1  1  0         1  1  1         0  1 −1 −1
 *                                                    0 −1  1  0         1 −1  1
 *                                                    0  1  0 −1         0  0  2
 *
 * (Lavin and Gray, 2016). 2G in place of G keeps all of it in integers, so the result is the plain sum itself: 4·Y is a multiple of 4.
 * Bytes d give |Bᵀ d B| ≤ 1020 and |g| ≤ 128 gives |2G g 2Gᵀ| ≤ 9·128, both 16-bit; that no sum of products leaves 32 bits is proven
 * from the weights themselves (`fits`), else the layer is computed the plain way.
 *
 * Filters stand in memory as for every other machine (quads.ts) and are transformed half a panel at a time, for all tiles of a band; indices
 * into levels are looked up panel by panel before that. Packed codes are multiplied the plain way.
 */
import type { Value } from '../../ir/graph.ts';
import { add, at, buffer, call, dot, fn, grid, index, list, load, loop, moved, reduce, set, shr, splat, store, sub, variable, zero } from '../../loops/build.ts';
import type { Elem, Expr, Fn, Index, Stmt } from '../../loops/types.ts';
import { unpackedWalk, unpackPanel, walkOf, type Walk } from './gemm.ts';
import { elemOf, operand, scratch, shapeOf, type Binding, type Kernel, type ScheduleContext } from './kernel.ts';
import { storedWeights, weightWidth } from './levels.ts';
import { overNest } from './nest.ts';
import { PANEL, QUAD, STEP } from './quad-panel.ts';
import { quadPanelBytes, quadPanelLength, quadScratch, quadsFor } from './quads.ts';
import { makeRescale, rescaleBindings, rescaleClass, rescaleValues, type RescaleClass } from './rescale.ts';
import { bandLength, inResult, overBlocks, type Band, type WindowShape } from './rows.ts';
import { markFor } from './split.ts';
import type { Step } from '../group.ts';
import { vectorLanes, type Target } from './target.ts';
import { channelConstants, channelsLength, weightBindings } from './weights.ts';

/** Products of a tile, and the outputs that it makes along each axis. */
const PRODUCTS = 16;
const SIDE = 2;
/** Columns of the register tile: half a panel, which is two sums a column. */
const COLUMNS = PANEL / 2;
/** Tiles of a band at most: enough that the transformed filters serve many, few enough that their products stay near the core. */
const MOST_TILES = 56;
/** Bands from which on they are shared rather than panels: the first and the last are one thread's each. */
const MANY_BANDS = 8;
/** Below these, transforming costs more than the products that it saves. */
const LEAST = { channels: 16, tiles: 9 } as const;

/**
 * Elements from the windows or the filters of one product to those of the next: a cache line more than they take, since 16 streams
 * whose distance is a power of two would share the few places that a cache has for each address.
 */
const strideOf = (elements: number): number => elements + 32;
const windowsStride = (tiles: number, channels: number): number => strideOf(tiles * channels);
const filtersStride = (channels: number): number => strideOf(channels * COLUMNS);

interface Shape {
  readonly window: WindowShape;
  readonly outputs: number;
  readonly padCode: number;
  readonly walk: Walk;
  readonly x: Elem;
  readonly rescale: RescaleClass;
  readonly inPlace: boolean;
  readonly target: Target;
}

const tilesAlong = (length: number): number => Math.ceil(length / SIDE);
const tileRows = ({ outHeight, outWidth }: WindowShape): number => Math.min(tilesAlong(outHeight), Math.max(1, Math.floor(MOST_TILES / tilesAlong(outWidth))));
const productRows = ({ tile }: Target, vectors: number): number => Math.max(1, Math.floor((tile[0] * tile[1]) / vectors));

/** The layer by Winograd's products, or null where it cannot be, or would not be faster. */
export const winograd = (step: Step, context: ScheduleContext, window: WindowShape, { group, padCode }: { readonly group: number; readonly padCode: number }): Kernel | null => {
  const [x, weight] = [step.root.inputs['x'] as Value, step.root.inputs['weight'] as Value];
  const { target } = context;
  const { channels, kernel, strides, dilations } = window;
  const [outputs] = shapeOf(weight);
  const ending = rescaleClass(step);
  const e = elemOf(x.type.dtype);
  const quads = quadsFor(target, e, weightWidth(step.root), kernel[0] * kernel[1] * channels, outputs, ending);
  // channels in whole quads leave nothing to pad
  const stored = storedWeights(step.root, false);
  const plain = kernel.every((n) => n === 3) && [...strides, ...dilations].every((n) => n === 1) && group === 1;
  if (!plain || target.lanes === 1 || quads === null || quads.a !== 'i16' || (e !== 'i8' && e !== 'u8') || ending.table !== null || (stored.bits < 8 && stored.levels === null)) return null;
  if (channels % QUAD !== 0 || channels < LEAST.channels || outputs % PANEL !== 0) return null;
  if (tilesAlong(window.outHeight) * tilesAlong(window.outWidth) < LEAST.tiles) return null;
  if (!fits(stored.weights, outputs, channels)) return null;
  const walk = walkOf([3], [0], 3 * channels, target, stored.bits, quads, null, stored.levels !== null);
  const key: Shape = { window, outputs, padCode, walk, x: e, rescale: ending, inPlace: context.inPlace !== null, target };
  const { band, tiles } = planOf(key);
  const buffers: readonly Binding[] = [
    { kind: 'value', value: step.output }, operand(x), ...weightBindings(weight.name, stored, outputs, walk, target, 1, ending.out, 0),
    scratch('i16', bandLength(band)), scratch('i16', PRODUCTS * windowsStride(tiles, channels)), scratch('i16', PRODUCTS * filtersStride(channels)), scratch('i32', PRODUCTS * tiles * 2 * COLUMNS),
    ...rescaleBindings(step, !key.inPlace, (constants) => channelConstants(constants, outputs, walk, target)),
  ];
  return { fn: context.share('winograd', key, winogradFn(context)), buffers, values: rescaleValues(step) };
};

/** Greatest |Bᵀ d B| for bytes d: a difference of differences or of sums, and in the middle a sum of sums. */
const MOST_OF_WINDOW = 510;
const MOST_IN_THE_MIDDLE = 1020;
const MIDDLE = 5;
/** Σ over all 16 products and all channels of |2G g 2Gᵀ|·|Bᵀ d B| < 2^31 for each output: then no sum of them leaves 32 bits. */
const fits = (weights: Int8Array, outputs: number, channels: number): boolean => {
  const spread = (a: number, b: number, c: number): readonly number[] => [2 * a, a + b + c, a - b + c, 2 * c];
  for (let o = 0; o < outputs; o++) {
    let most = 0;
    for (let c = 0; c < channels; c++) {
      const tap = (y: number, x: number): number => weights[((o * 3 + y) * 3 + x) * channels + c];
      const columns = list(3, (x) => spread(tap(0, x), tap(1, x), tap(2, x)));
      for (let i = 0; i < 4; i++) spread(columns[0][i], columns[1][i], columns[2][i]).forEach((u, j) => { most += Math.abs(u) * (4 * i + j === MIDDLE ? MOST_IN_THE_MIDDLE : MOST_OF_WINDOW); });
    }
    if (most >= 2 ** 31) return false;
  }
  return true;
};

/** The band of input rows, with a row and a column more where tiles reach beyond the outputs, and tiles of a band. */
const planOf = ({ window: w }: Shape): { readonly padded: WindowShape; readonly band: Band; readonly tiles: number; readonly along: number } => {
  const [across, along] = [tilesAlong(w.outWidth), tilesAlong(w.outHeight)];
  const [top, left, bottom, right] = w.pads;
  const padded: WindowShape = {
    ...w, outHeight: SIDE * along, outWidth: SIDE * across, pads: [top, left, bottom + SIDE * along - w.outHeight, right + SIDE * across - w.outWidth],
  };
  const rows = tileRows(w);
  const band: Band = { e: 'i16', block: SIDE * rows, rows: SIDE * rows + 2, row: (left + w.width + padded.pads[3]) * w.channels, slack: 0, planes: [{ first: 0, channels: w.channels, start: 0, even: null }], fromPlanes: false };
  return { padded, band, tiles: rows * across, along: across };
};

const winogradFn = ({ share }: ScheduleContext) => (name: string, shape: Shape): Fn => {
  const { window: w, outputs, padCode, walk, x, rescale: ending, inPlace, target } = shape;
  const { padded, band, tiles, along } = planOf(shape);
  const { channels } = w;
  const pixels = w.batch * w.outHeight * w.outWidth;
  const panels = outputs / PANEL;
  const panel = quadPanelLength(walk);
  const result = buffer('out', ending.out, pixels * outputs, 'out');
  const source = buffer('x', x, w.batch * w.height * w.width * channels, 'in');
  const weights = buffer('w', 'i8', panels * quadPanelBytes(walk), 'const');
  const levels = walk.indexed ? buffer('levels', 'i8', 2 ** walk.bits, 'const') : null;
  const unpacked = levels === null ? null : buffer('unpacked', 'i8', quadScratch(walk, outputs, target)!, 'temp');
  const rows = buffer('rows', 'i16', bandLength(band), 'temp');
  const windows = buffer('windows', 'i16', PRODUCTS * windowsStride(tiles, channels), 'temp');
  const filters = buffer('filters', 'i16', PRODUCTS * filtersStride(channels), 'temp');
  const products = buffer('products', 'i32', PRODUCTS * tiles * 2 * COLUMNS, 'temp');
  const rescale = makeRescale(ending, target, { channels: channelsLength(outputs, walk, target), y: pixels * outputs }, inPlace ? result : null);
  const perRow = w.outWidth * outputs;
  const ofFilters = share('winograd_filters', { channels, walk: unpackedWalk(walk), target }, filtersFn);
  const mark = markFor(pixels * outputs * channels * 9, pixels * outputs, target);
  // threads share the bands where there are many; few bands are shared by panels, and every thread transforms the windows for itself
  const [perBlock, perPanel] = Math.ceil(padded.outHeight / band.block) >= MANY_BANDS ? [mark, null] : [null, mark];
  const body = overBlocks(padded, band, source, rows, padCode, target, (block) => {
    const tileRow = block.rows / SIDE;
    const count = tileRow * along;
    const own = { channels, tiles: count, along, bandRow: band.row, target };
    const ofWindows = share('winograd_windows', own, windowsFn);
    const ofProducts = share('winograd_products', { channels, tiles: count, target }, productsFn);
    const cutRow = w.outHeight % SIDE !== 0 && block.first + block.rows === padded.outHeight;
    const ofOutputs = share('winograd_outputs', { tiles: count, along, width: w.outWidth, height: block.rows - (cutRow ? 1 : 0), outputs, rescale: ending, inPlace, target }, outputsFn);
    const [n, part] = [index('panel', panels), index('part', PANEL / COLUMNS)];
    const placed = { ...block, terms: block.terms.map(([i, by], k) => [i, k === 0 ? w.outHeight : by] as const) };
    const columns = [[n, PANEL], [part, COLUMNS]] as const;
    const out = inResult(result, placed, 0, perRow, columns);
    return [
      call(ofWindows, [windows, rows]),
      loop(n, [
        ...(levels === null ? [] : [unpackPanel(at(unpacked!), at(weights, 0, [n, quadPanelBytes(walk)]), at(levels), panel, PANEL * QUAD, walk, target, share)]),
        loop(part, [
          call(ofFilters, [filters, unpacked === null ? at(weights, 0, [n, panel], [part, COLUMNS * QUAD]) : at(unpacked, 0, [part, COLUMNS * QUAD])]),
          call(ofProducts, [products, windows, filters]),
          call(ofOutputs, [
            out, products, ...rescale.channels.map((one) => at(one, 0, ...columns)), ...(rescale.y === null ? [] : [moved(at(rescale.y), out.offset, ...out.terms)]),
          ], [], rescale.values),
        ]),
      ], perPanel),
    ];
  }, perBlock);
  return fn(name, { buffers: [result, source, weights, ...(levels === null ? [] : [levels, unpacked!]), rows, windows, filters, products, ...rescale.buffers], values: rescale.values }, body);
};

/** A vector of 4×4, kept: rows and columns combined by one rule each. */
const both = (parts: readonly (readonly Expr[])[], rule: (line: readonly Expr[]) => readonly Expr[], stmts: Stmt[]): readonly (readonly Expr[])[] => {
  const kept = (e: Expr): Expr => {
    const v = variable('t', e.type.e, e.type.n);
    stmts.push(set(v, e));
    return v;
  };
  const columns = list(parts[0].length, (j) => rule(parts.map((line) => line[j])).map(kept));
  return list(columns[0].length, (i) => rule(columns.map((column) => column[i])));
};

/** Bᵀ d B of every tile of a band: [product][tile][channel]. */
const windowsFn = (name: string, { channels, tiles, along, bandRow, target }: { readonly channels: number; readonly tiles: number; readonly along: number; readonly bandRow: number; readonly target: Target }): Fn => {
  const down = tiles / along;
  const windows = buffer('windows', 'i16', PRODUCTS * windowsStride(tiles, channels), 'out');
  const rows = buffer('rows', 'i16', (SIDE * down + 2) * bandRow, 'in');
  const nest = { shape: [down, along, channels], strides: [[along * channels, channels, 1], [SIDE * bandRow, SIDE * channels, 1]] };
  const body = overNest(nest, vectorLanes(target, 'i16'), (run, locate) => {
    const stmts: Stmt[] = [];
    const window = grid(4, 4, (y, x) => {
      const v = variable(`d${y}${x}`, 'i16', run);
      stmts.push(set(v, load(locate(1, rows, y * bandRow + x * channels), run)));
      return v;
    });
    const transformed = both(window, ([a, b, c, d]) => [sub(a, c), add(b, c), sub(c, b), sub(b, d)], stmts);
    return [...stmts, ...transformed.flat().map((e, i) => store(locate(0, windows, i * windowsStride(tiles, channels)), e))];
  });
  return fn(name, { buffers: [windows, rows] }, body);
};

/** 2G g 2Gᵀ of half a panel: [product][channel/4][8 columns][4]. */
const filtersFn = (name: string, { channels, walk, target }: { readonly channels: number; readonly walk: Walk; readonly target: Target }): Fn => {
  const steps = channels / QUAD;
  const filters = buffer('filters', 'i16', PRODUCTS * filtersStride(channels), 'out');
  const panel = buffer('panel', 'i8', quadPanelLength(walk) - COLUMNS * QUAD, 'const');
  const lanes = vectorLanes(target, 'i16');
  const [c, part] = [index('c', steps), index('vector', (COLUMNS * QUAD) / lanes)];
  const stmts: Stmt[] = [];
  const taps = grid(3, 3, (y, x) => {
    const v = variable(`g${y}${x}`, 'i16', lanes);
    stmts.push(set(v, load(at(panel, (y * 3 + x) * steps * STEP, [c, STEP], [part, lanes]), lanes, 'i16')));
    return v;
  });
  const transformed = both(taps, ([a, b, d]) => {
    const outer = variable('outer', 'i16', lanes);
    stmts.push(set(outer, add(a, d)));
    return [add(a, a), add(outer, b), sub(outer, b), add(d, d)];
  }, stmts);
  const stores = transformed.flat().map((e, i) => store(at(filters, i * filtersStride(channels), [c, QUAD * COLUMNS], [part, lanes]), e));
  return fn(name, { buffers: [filters, panel] }, [loop(c, [loop(part, [...stmts, ...stores])])]);
};

/** The products of all tiles with half a panel: [product][tile][two sums of 8 columns]. */
const productsFn = (name: string, { channels, tiles, target }: { readonly channels: number; readonly tiles: number; readonly target: Target }): Fn => {
  const { lanes } = target;
  const vectors = (2 * COLUMNS) / lanes;
  const height = Math.min(tiles, productRows(target, vectors));
  const products = buffer('products', 'i32', PRODUCTS * tiles * 2 * COLUMNS, 'out');
  const windows = buffer('windows', 'i16', PRODUCTS * windowsStride(tiles, channels), 'in');
  const filters = buffer('filters', 'i16', PRODUCTS * filtersStride(channels), 'in');
  const [p, k] = [index('product', PRODUCTS), index('k', channels / QUAD)];
  const some = (count: number, first: number, m: readonly Index[]): readonly Stmt[] => {
    const by = (stride: number): (readonly [Index, number])[] => m.map((i) => [i, height * stride]);
    const sums = grid(count, vectors, (r, j) => variable(`s${r}_${j}`, 'i32', lanes));
    const b = list(vectors, (j) => variable(`b${j}`, 'i16', 2 * lanes));
    return [
      ...sums.flat().map((v) => set(v, zero('i32', lanes))),
      loop(k, [
        ...b.map((v, j) => set(v, load(at(filters, j * 2 * lanes, [p, filtersStride(channels)], [k, COLUMNS * QUAD]), 2 * lanes))),
        ...sums.flatMap((row, r) => {
          const a = variable(`a${r}`, 'i16', 2 * lanes);
          return [
            set(a, splat(at(windows, (first + r) * channels, [p, windowsStride(tiles, channels)], ...by(channels), [k, QUAD]), QUAD, (2 * lanes) / QUAD)),
            ...row.map((v, j) => set(v, dot(2, v, a, b[j]), { pin: true })),
          ];
        }),
      ]),
      ...sums.flatMap((row, r) => row.map((v, j) => store(at(products, (first + r) * 2 * COLUMNS + j * lanes, [p, tiles * 2 * COLUMNS], ...by(2 * COLUMNS)), v))),
    ];
  };
  const whole = Math.floor(tiles / height);
  const m = index('m', whole);
  return fn(name, { buffers: [products, windows, filters] }, [
    loop(p, [loop(m, some(height, 0, [m])), ...(tiles % height === 0 ? [] : some(tiles % height, whole * height, []))]),
  ]);
};

interface OutputsShape {
  readonly tiles: number;
  readonly along: number;
  readonly width: number;
  readonly height: number;
  readonly outputs: number;
  readonly rescale: RescaleClass;
  readonly inPlace: boolean;
  readonly target: Target;
}

/** Aᵀ m A / 4, rescaled, for 8 columns of all pixels of a band. */
const outputsFn = (name: string, { tiles, along, width, height, outputs, rescale: ending, inPlace, target }: OutputsShape): Fn => {
  const { lanes } = target;
  const perRow = width * outputs;
  const reach = (height - 1) * perRow + (width - 1) * outputs + COLUMNS;
  const result = buffer('out', ending.out, reach, 'out');
  const products = buffer('products', 'i32', PRODUCTS * tiles * 2 * COLUMNS, 'in');
  const rescale = makeRescale(ending, target, { channels: COLUMNS, y: reach }, inPlace ? result : null);
  const second = inPlace ? result : rescale.y;
  const words = COLUMNS / lanes;
  const prepared = rescale.prepare(COLUMNS, lanes);
  const { setup, constants } = prepared.channels((one) => ({ from: at(one), stride: 1 }));
  /** The tiles of `down` rows of tiles and `across` columns of them, of which `rows` × `columns` pixels are outputs. */
  const some = (down: readonly [first: number, count: number, pixels: number], across: readonly [first: number, count: number, pixels: number]): readonly Stmt[] => {
    if (down[1] === 0 || across[1] === 0) return [];
    const [y, x] = [index('y', down[1]), index('x', across[1])];
    const stmts: Stmt[] = [];
    const vectors = list(2 * words, (j) => {
      const tile = grid(4, 4, (r, c) => {
        const v = variable(`m${r}${c}`, 'i32', lanes);
        stmts.push(set(v, load(at(products, ((4 * r + c) * tiles + down[0] * along + across[0]) * 2 * COLUMNS + j * lanes, [y, along * 2 * COLUMNS], [x, 2 * COLUMNS]), lanes)));
        return v;
      });
      return both(tile, ([a, b, c, d]) => [add(add(a, b), c), sub(sub(b, c), d)], stmts).map((line) => line.map((e) => {
        const v = variable('sum', 'i32', lanes);
        stmts.push(set(v, e));
        return v;
      }));
    });
    const pixel = (r: number, c: number): readonly Stmt[] => {
      const there = (SIDE * down[0] + r) * perRow + (SIDE * across[0] + c) * outputs;
      const terms = [[y, SIDE * perRow], [x, SIDE * outputs]] as const;
      const sums = list(words, (p) => shr(reduce(2, [vectors[2 * p][r][c], vectors[2 * p + 1][r][c]]), 2));
      return prepared.finish(sums, constants, at(result, there, ...terms), second === null ? null : { from: at(second, there, ...terms), stride: 1 });
    };
    const pixels = list(down[2], (r) => list(across[2], (c) => pixel(r, c)).flat()).flat();
    return [loop(y, [loop(x, [...stmts, ...pixels])])];
  };
  const rowsOfTiles = [[0, Math.floor(height / SIDE), SIDE], [Math.floor(height / SIDE), height % SIDE, 1]] as const;
  const columnsOfTiles = [[0, Math.floor(width / SIDE), SIDE], [Math.floor(width / SIDE), width % SIDE, 1]] as const;
  return fn(name, { buffers: [result, products, ...rescale.buffers], values: rescale.values }, [
    ...prepared.setup, ...setup, ...rowsOfTiles.flatMap((down) => columnsOfTiles.flatMap((across) => some(down, across))),
  ]);
};
