/** Constant weights of a product, however they stand in memory: bindings and parameters of loop functions, and the product itself. */
import { at, buffer, load, moved, set, store, variable } from '../../loops/build.ts';
import type { Address, Buffer, Contents, Elem, Index, Mark, Stmt } from '../../loops/types.ts';
import { constantsLength, multiply, packPanels, panelBytes, panelConstants, panelLength, panelStarts, widenedLength, within, type TileShape, type Walk } from './gemm.ts';
import { packed, scratch, type Binding, type ScheduleContext } from './kernel.ts';
import type { StoredWeights } from './levels.ts';
import { MOST_ROWS, multiplyQuads, packQuads, partWidth, quadConstants, quadLength, quadPanelBytes, quadScratch, startSums, type QuadPlaces } from './quads.ts';
import { once } from './split.ts';
import { collapse, overNest } from './nest.ts';
import { pairsLength } from './pairs.ts';
import { PANEL } from './quad-panel.ts';
import { tableEntry, type Rescale } from './rescale.ts';
import { vectorLanes, type Target } from './target.ts';

/** Element of the rows that a walk is multiplied with. */
export const rowElem = ({ quads }: Pick<Walk, 'quads'>): 'u8' | 'i8' | 'i16' => quads?.a ?? 'i16';
/** Added to a code that is stored in a row. */
export const rowOffset = ({ quads }: Walk): number => (quads?.rebased === true ? (quads.a === 'u8' ? 128 : -128) : 0);

/** Bytes of the weights of one group, and entries of its per-channel constants. */
export const groupLength = (columns: number, walk: Walk, target: Target): number =>
  (walk.quads === null ? panelStarts(columns, target).length * panelBytes(walk, target) : (quadLength(columns) / PANEL) * quadPanelBytes(walk));
export const channelsLength = (columns: number, walk: Walk, target: Target): number => (walk.quads === null ? constantsLength(columns, target) : quadLength(columns));
export const channelConstants = <T extends Contents>(list: T, columns: number, walk: Walk, target: Target, groups = 1): T =>
  (walk.quads === null ? panelConstants(list, columns, target, groups) : quadConstants(list, columns, target, groups));

/** Memory for unpacked weights, or for the results of less than one panel. */
const unpackedLength = (columns: number, walk: Walk, target: Target): number | null =>
  (walk.quads !== null ? quadScratch(walk, columns, target) : walk.bits === 8 ? null : panelLength(walk, target));
const edgeLength = (columns: number, { quads }: Walk, target: Target): number | null =>
  (quads === null || target.lanes === 1 || columns >= PANEL || partWidth(columns, target) === columns ? null : PANEL * MOST_ROWS);

/** Words of a panel that is widened, or put in order, before many rows pass over it. */
const wordsLength = (walk: Walk, rows: number, columns: number, target: Target): number | null => widenedLength(walk, rows, target) ?? pairsLength(walk, rows, columns, target);

/** Weights [groups·columns, segments, run], and the scratch memory of their product with at most `rows` rows; in the order of `weightBuffers`. */
export const weightBindings = (name: string, { weights, codes, levels, padding }: StoredWeights, columns: number, walk: Walk, target: Target, groups: number, out: Elem, rows: number): readonly Binding[] => {
  const filter = codes.length / groups;
  const length = groupLength(columns, walk, target);
  const panels = new Int8Array(groups * length);
  for (let g = 0; g < groups; g++) {
    const own = codes.subarray(g * filter, (g + 1) * filter);
    panels.set(walk.quads === null ? packPanels(own, columns, walk, target, padding) : packQuads(own, columns, walk, padding), g * length);
  }
  const [unpacked, edge, pairs] = [unpackedLength(columns, walk, target), edgeLength(columns, walk, target), wordsLength(walk, rows, columns, target)];
  return [
    packed(name, panels), ...(levels === null ? [] : [packed(name, levels)]), ...(walk.quads?.rebased === true ? [packed(name, quadConstants(startSums(weights, groups * columns, -rowOffset(walk)), columns, target, groups))] : []),
    ...(unpacked === null ? [] : [scratch('i8', unpacked)]), ...(edge === null ? [] : [scratch(out, edge)]),
    ...(walk.quads?.held == null ? [] : [scratch('i32', rows)]), ...(pairs === null ? [] : [scratch('i16', pairs)]),
  ];
};

/** Where a product stands in the enclosing function; `group` counts groups of columns. */
export interface ProductPlaces {
  readonly out: Address;
  readonly a: Address;
  /** the second operand of the rescale; null where there is none or it is the result itself */
  readonly y: Address | null;
  readonly group: Index | null;
  /** loops around the rows, whose counters the addresses hold */
  readonly around?: readonly Index[];
  /** mark of the loops over panels; a table that is read after them keeps them whole */
  readonly mark?: Mark | null;
}
export interface WeightBuffers {
  readonly buffers: readonly Buffer[];
  multiply(tile: Omit<TileShape, 'rows'>, rows: number, rescale: Rescale, places: ProductPlaces, share: ScheduleContext['share']): readonly Stmt[];
}
export const weightBuffers = (columns: number, walk: Walk, target: Target, out: Elem, groups: number, rows: number): WeightBuffers => {
  const length = groupLength(columns, walk, target);
  const channels = channelsLength(columns, walk, target);
  const weights = buffer('w', 'i8', groups * length, 'const');
  const levels = walk.indexed ? buffer('levels', 'i8', 2 ** walk.bits, 'const') : null;
  const start = walk.quads?.rebased === true ? buffer('start', 'i32', groups * channels, 'const') : null;
  const [unpackedBytes, edgeElements] = [unpackedLength(columns, walk, target), edgeLength(columns, walk, target)];
  const unpacked = unpackedBytes === null ? null : buffer('unpacked', 'i8', unpackedBytes, 'temp');
  const edge = edgeElements === null ? null : buffer('edge', out, edgeElements, 'temp');
  const offsets = walk.quads?.held == null ? null : buffer('offsets', 'i32', rows, 'temp');
  const length16 = wordsLength(walk, rows, columns, target);
  const words = length16 === null ? null : buffer('words', 'i16', length16, 'temp');
  return {
    buffers: [weights, levels, start, unpacked, edge, offsets, words].filter((one) => one !== null),
    multiply(tile, rows, rescale, { out: to, a, y, group, around = [], mark = null }, share) {
      const by = (stride: number): (readonly [Index, number])[] => (group === null ? [] : [[group, stride]]);
      const places = { out: to, a, b: moved(at(weights), 0, ...by(length)), y, channel: by(channels), unpacked, levels: levels === null ? null : at(levels), around, mark };
      if (walk.quads === null) return multiply(tile, rows, columns, rescale, { ...places, words: widenedLength(walk, rows, target) === null ? null : words }, share);
      const own: QuadPlaces = { ...places, start: start === null ? null : at(start, 0, ...by(channels)), edge, offsets, pairs: words };
      const { table } = rescale;
      if (table === null || tile.rescale.code !== tile.rescale.out || target.lanes === 1) return multiplyQuads(tile, rows, columns, rescale, own, share);
      return once([
        ...multiplyQuads({ ...tile, rescale: { ...tile.rescale, table: null } }, rows, columns, { ...rescale, table: null }, { ...own, mark: null }, share),
        ...within(around, lookedUp(to, rows, columns, tile.rowOut, table, target)),
      ], mark);
    },
  };
};

/** Codes of a block replaced by their entries in a table, in the widest vectors: look-ups of a tile's own vectors would be narrower. */
const lookedUp = (to: Address, rows: number, columns: number, rowOut: number, table: Buffer, target: Target): readonly Stmt[] =>
  overNest(collapse([rows, columns], [[rowOut, 1]]), vectorLanes(target, 'i8'), (run, locate) => {
    const place = locate(0, to.buffer);
    const there = moved(to, place.offset, ...place.terms);
    const code = variable('code', to.buffer.e, run);
    return [set(code, load(there, run)), store(there, tableEntry(table, code))];
  });
