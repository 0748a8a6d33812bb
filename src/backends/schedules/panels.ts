/**
 * Panels of a matrix that is computed, packed at run time as gemm.ts wants them: [panel][k/d][column][d]. With vectors and dot products
 * of two, columns that stand side by side are interleaved eight at a time, and columns that are rows in memory are transposed four at a
 * time, in vectors of one 16-byte block, where interleaving keeps the order.
 */
import { convert, index, list, load, loop, moved, set, store, sub, variable, zero, zip } from '../../loops/build.ts';
import type { Address, Expr, Stmt } from '../../loops/types.ts';
import { columnsPerPanel, panelLength, type Walk } from './gemm.ts';
import { collapse, overNest } from './nest.ts';
import type { Target } from './target.ts';

/** Lanes of i16 in a block. */
const BLOCK = 8;

/** Element (k, column) is read at k·strideK + column·strideColumn; depths beyond the matrix are 0. */
export const packAtRunTime = (
  from: Address, to: Address, columns: number, walk: Walk, strideK: number, strideColumn: number, zeroPoint: number, target: Target,
): readonly Stmt[] => {
  const { dot: d } = target;
  const width = columnsPerPanel(target);
  const size = panelLength(walk, target);
  const e = to.buffer.e;
  const steps = Math.floor(walk.run / d);
  const vectors = target.lanes > 1 && d === 2 && e === 'i16' && width % BLOCK === 0;
  const less = (code: Expr): Expr => (zeroPoint === 0 ? code : sub(code, zeroPoint));
  const panels = (count: number, number: number, column: number): readonly Stmt[] => {
    if (count === 0) return [];
    const [goal0, source0] = [number * size, column * strideColumn];
    const n = index('panel', count);
    const read = (offset: number, ...terms: Parameters<typeof moved>[2][]): Expr => less(load(moved(from, source0 + offset, [n, width * strideColumn], ...terms), BLOCK, e));
    const kept = (code: Expr): { readonly v: Expr; readonly made: Stmt } => {
      const v = variable('codes', e, BLOCK);
      return { v, made: set(v, code) };
    };
    const part = (shape: readonly number[], goal: readonly number[], source: readonly number[], goalAt: number, sourceAt: number, zeros: boolean): readonly Stmt[] =>
      overNest(collapse(shape, [goal, source]), 1, (_run, locate) => {
        const [put, get] = [locate(0, to.buffer), locate(1, from.buffer)];
        const code: Expr = convert(e, load(moved(from, sourceAt + get.offset, ...get.terms)));
        return [store(moved(to, goalAt + put.offset, ...put.terms), zeros ? 0 : less(code))];
      });
    const byCodes = (first: number): readonly Stmt[] => (first === steps ? [] : part(
      [count, steps - first, width, d], [size, width * d, d, 1], [width * strideColumn, d * strideK, strideColumn, strideK], goal0 + first * width * d, source0 + first * d * strideK, false));
    const tail = (): readonly Stmt[] => (walk.run === walk.padded ? [] : [
      ...part([count, width], [size, d], [width * strideColumn, strideColumn], goal0 + steps * width * d, source0 + steps * d * strideK, false),
      ...part([count, width], [size, d], [0, 0], goal0 + steps * width * d + 1, 0, true),
    ]);
    if (vectors && strideColumn === 1) {
      const [s, g] = [index('step', Math.max(1, steps)), index('columns', width / BLOCK)];
      const pair = (offset: number, goal: number, whole: boolean, terms: readonly (typeof s)[]): readonly Stmt[] => {
        const row = (k: number): Expr => read(offset + k * strideK, [g, BLOCK], ...terms.map((i) => [i, 2 * strideK] as const));
        const a = kept(row(0));
        const b = whole ? kept(row(1)) : null;
        return [a.made, ...(b === null ? [] : [b.made]), ...([0, 1] as const).map((half) =>
          store(moved(to, goal0 + goal + half * BLOCK, [n, size], [g, 2 * BLOCK], ...terms.map((i) => [i, 2 * width] as const)), zip(half, 1, a.v, b === null ? zero(e, BLOCK) : b.v)))];
      };
      return [loop(n, [
        ...(steps === 0 ? [] : [loop(s, [loop(g, pair(0, 0, true, [s]))])]),
        ...(walk.run === walk.padded ? [] : [loop(g, pair(steps * 2 * strideK, steps * 2 * width, false, []))]),
      ])];
    }
    if (vectors && strideK === 1 && walk.run >= BLOCK) {
      const [k, g] = [index('k', Math.floor(walk.run / BLOCK)), index('columns', width / 4)];
      const rows = list(4, (c) => kept(read(c * strideColumn, [g, 4 * strideColumn], [k, BLOCK])));
      // pairs of k are units of 32 bits: a 4×4 transpose of them
      const [low, high] = ([[0, 1], [2, 3]] as const).map(([a, b]) => ([0, 1] as const).map((half) => kept(zip(half, 2, rows[a].v, rows[b].v))));
      const stores = list(4, (step) => store(moved(to, goal0 + step * 2 * width, [n, size], [g, BLOCK], [k, (BLOCK / 2) * 2 * width]), zip((step % 2) as 0 | 1, 4, low[step >> 1].v, high[step >> 1].v)));
      return [loop(n, [loop(g, [loop(k, [...rows, ...low, ...high].map(({ made }) => made).concat(stores))])]), ...byCodes(k.count * (BLOCK / 2)), ...tail()];
    }
    return [...byCodes(0), ...tail()];
  };
  const whole = Math.floor(columns / width);
  return [...panels(whole, 0, 0), ...(columns % width === 0 ? [] : panels(1, whole, columns - width))];
};
