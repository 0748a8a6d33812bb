/**
 * Depthwise convolution on vectors: a block of channels at a time, along a row of pixels. The taps of one column of the window are
 * interleaved, so that neighbours belong to one channel, and go through one dot product; a column serves every window it lies in while
 * it slides through the registers. Where dot products join two taps and rows are odd in number, the taps of the last row are joined
 * with their neighbours in the row instead, the last one alone:
 *
 *     joined taps of 3×3:  (00 10) (01 11) (02 12)   (20 21) (–– 22)      the last two are vectors of neighbouring pixels of one row
 *
 * Where dot products join four taps, a column of four rows serves two rows of pixels, whose windows begin one row apart:
 *
 *     second row:  (–– 00 10 20) (–– 01 11 21) (–– 02 12 22)      first row:  (00 10 20 ––) (01 11 21 ––) (02 12 22 ––)
 *
 * Few channels leave wide vectors empty. Where they divide a vector, neighbouring pixels stand side by side in it instead, each with the same
 * weights, and few or none of the columns serve the next; so do the channels that whole vectors leave over. Windows that move by two pixels
 * then read rows in which even pixels stand before odd ones.
 *
 * Interleaving and packing work per 16 bytes, and the second undoes the order that the first leaves behind: lane l of sum v is channel
 * 4·V·⌊l/4⌋ + 4·v + l mod 4 of the block, V sums in all, and the packed codes stand in order. Weights and constants follow the lanes.
 */
import { list } from '../../loops/build.ts';
import type { Contents, Elem } from '../../loops/types.ts';
import { emptyLike } from './kernel.ts';
import type { RescaleClass } from './rescale.ts';
import type { WindowShape } from './rows.ts';
import type { Target } from './target.ts';
import { inLaneOrder } from './words.ts';

/** How many taps a dot product joins, which is also how many vectors of sums a block has. */
export const jointOf = ({ quads }: Target): 2 | 4 => (quads === null || quads === 'i16' ? 2 : 4);
/** Element of the rows: bytes, which pairs of words widen as they are read. */
export const slidingElem = (target: Target, x: Elem): Elem => (jointOf(target) === 4 ? target.quads! : x);
/** Element of the weights as the rows of pixels read them: words are wanted as operands in memory. */
export const slidingWeights = (target: Target): 'i8' | 'i16' => (jointOf(target) === 2 ? 'i16' : 'i8');
const leastChannels = (target: Target): number => 4 * jointOf(target);

/** Channels that pass through the registers together, from the first one on, and pixels that stand side by side in their vectors. */
export interface Part {
  readonly first: number;
  readonly channels: number;
  readonly merged: number;
}
/**
 * Whether rows of the image are read where they are, which takes code of its own for pixels at the border; vectors that hold several pixels, and
 * wide windows where each of several pixels has its own code anyway, read a band with the border written out.
 */
export const readsImage = ({ merged }: Part, { kernel }: WindowShape, target: Target): boolean => merged === 1 && (jointOf(target) === 4 || kernel[1] <= WIDE);
const WIDE = 4;
/** Taps of a window that may stand side by side in the code. */
export const MOST_TAPS = 49;
/** Bytes of a pixel that are worth a store of their own. */
const LEAST_PART = 16;

/**
 * The parts of a layer that can be computed this way, which takes codes of one byte, no second operand, not too many taps, and enough channels or pixels;
 * null if it cannot. The rescale takes most of the time: whole vectors of it pay for columns that are loaded again.
 */
export const partsOf = (target: Target, x: Elem, { channels, kernel, strides, dilations, outWidth }: WindowShape, { kind, code }: RescaleClass): readonly Part[] | null => {
  if (target.lanes === 1 || kernel[0] * kernel[1] > MOST_TAPS || !(x === 'i8' || (x === 'u8' && target.quads !== 'i8')) || kind !== 'one' || (code !== 'i8' && code !== 'u8')) return null;
  const widest = jointOf(target) * target.lanes;
  const joins = (some: number): boolean => strides[1] <= 2 && dilations[1] === 1 && widest % some === 0 && some * 2 <= widest && outWidth * some >= widest;
  if (joins(channels)) return [{ first: 0, channels, merged: widest / channels }];
  const left = channels % widest;
  if (left % LEAST_PART === 0) {
    const parts: Part[] = channels < widest ? [] : [{ first: 0, channels: channels - left, merged: 1 }];
    for (let size = widest / 2; size >= LEAST_PART; size /= 2) if ((left & size) !== 0) parts.push({ first: channels - (left % (2 * size)), channels: size, merged: widest / size });
    if (parts.every(({ channels: some, merged }) => merged === 1 || joins(some))) return parts;
  }
  return channels >= leastChannels(target) ? [{ first: 0, channels, merged: 1 }] : null;
};
/** Output rows that a column serves: as many taps as they have together fit into one dot product. */
export const rowsTogether = (target: Target, { kernel, strides, dilations, outHeight }: WindowShape): 1 | 2 =>
  (outHeight > 1 && strides[0] === 1 && dilations[0] === 1 && kernel[0] < jointOf(target) && jointOf(target) === 4 ? 2 : 1);
/** What belongs to each channel of a part, `size` entries a channel, for channels of several pixels side by side. */
const repeated = <T extends Contents>(whole: T, { first, channels, merged }: Part, size = 1): T => {
  const own = whole.subarray(first * size, (first + channels) * size) as T;
  if (merged === 1) return own;
  const all = emptyLike(own, merged * own.length);
  for (let i = 0; i < merged; i++) all.set(own as never, i * own.length);
  return all;
};
export const slidingRebased = (target: Target, x: Elem): boolean => x === 'i8' && target.quads === 'u8';

/** Blocks of channels: the widest vectors while they fit, then narrower ones; the last block ends at the last channel. */
interface Block {
  readonly start: number;
  readonly lanes: number;
}
export const blocksOf = (channels: number, target: Target): readonly Block[] => {
  const joint = jointOf(target);
  const blocks: Block[] = [];
  let start = 0;
  for (let { lanes } = target; lanes >= 4; lanes /= 2) for (; start + lanes * joint <= channels; start += lanes * joint) blocks.push({ start, lanes });
  if (start < channels) blocks.push({ start: channels - leastChannels(target), lanes: 4 });
  return blocks;
};
const channelOf = (joint: number, sum: number, lane: number): number => 4 * joint * Math.floor(lane / 4) + 4 * sum + (lane % 4);

/** Lists of all parts, one after another. */
const joined = <T extends Contents>(like: T, lists: readonly T[]): T => {
  const out = emptyLike(like, lists.reduce((sum, { length }) => sum + length, 0));
  let to = 0;
  for (const list of lists) {
    out.set(list as never, to);
    to += list.length;
  }
  return out;
};
/** Constants that a part has: one for each lane of its blocks. */
export const slidingLength = ({ channels, merged }: Part, target: Target): number => blocksOf(merged * channels, target).reduce((sum, { lanes }) => sum + lanes * jointOf(target), 0);

/** Weights of one lane, empty taps counted. */
export const slidingPerLane = (kernel: readonly number[], target: Target): number => bundlesOf(kernel, jointOf(target), 1).all.length * jointOf(target);

/** Per-channel constants part by part and block by block, in the order of lanes. */
export const slidingConstants = <T extends Contents>(all: T, parts: readonly Part[], target: Target): T => {
  const joint = jointOf(target);
  return joined(all, parts.flatMap((part) => {
    const own = repeated(all, part);
    return blocksOf(own.length, target).map(({ start, lanes }) => {
      const block = emptyLike(all, lanes * joint);
      for (let v = 0; v < joint; v++) for (let l = 0; l < lanes; l++) block[v * lanes + l] = own[start + channelOf(joint, v, l)] as never;
      return inLaneOrder(block, lanes, target.pairing);
    });
  }));
};
/** Taps that one dot product joins, as numbers y·kw + x, null where a product is empty; they come from column `x` of the window, group `group` of its rows, or from columns x and x + 1 of the last row. */
interface Bundle {
  readonly x: number;
  readonly group: number | 'last';
  readonly taps: readonly (number | null)[];
}
export interface Bundles {
  readonly all: readonly Bundle[];
  /** groups of rows of a column, and the row whose taps are joined with their neighbours, if there is one */
  readonly groups: number;
  readonly last: number | null;
}
export const bundlesOf = ([kh, kw]: readonly number[], joint: number, together: number): Bundles => {
  const last = joint === 2 && kh % 2 === 1 && kw > 1 ? kh - 1 : null;
  const groups = last === null ? Math.ceil(kh / joint) : last / 2;
  const tap = (y: number, x: number): number | null => (y >= 0 && y < kh ? y * kw + x : null);
  const columns = list(kw, (x) => list(groups, (group): Bundle => ({ x, group, taps: list(joint, (j) => tap(group * joint + j - slidingTail(together), x)) }))).flat();
  if (last === null) return { all: columns, groups, last };
  const pairs = list(Math.floor(kw / 2), (i): Bundle => ({ x: 2 * i, group: 'last', taps: [last * kw + 2 * i, last * kw + 2 * i + 1] }));
  const odd: readonly Bundle[] = kw % 2 === 0 ? [] : [{ x: kw - 2, group: 'last', taps: [null, last * kw + kw - 1] }];
  return { all: [...columns, ...pairs, ...odd], groups, last };
};

/** Whether weights pad a bundle whose other products are with pixels. */
export const slidingPads = (kernel: readonly number[], target: Target, together: number): boolean =>
  bundlesOf(kernel, jointOf(target), together).all.some(({ group, taps }) => (group === 'last' || together > 1) && taps.includes(null));

/**
 * Codes of 0 after the last weight. Of two output rows the first has the same weights one tap further up, which is what a load from one byte
 * later finds: each product begins with an empty tap.
 */
export const slidingTail = (together: number): number => (together > 1 ? 1 : 0);
/** Weights [channel][kh][kw] as [part][block][bundle][sum][lane][tap of the bundle], with `padding` where a bundle has no tap. */
export const packSliding = (all: Int8Array, parts: readonly Part[], kernel: readonly number[], target: Target, together: number, padding: number): Int8Array => {
  const joint = jointOf(target);
  const taps = kernel[0] * kernel[1];
  const out: number[] = [];
  for (const part of parts) {
    const weights = repeated(all, part, taps);
    for (const { start, lanes } of blocksOf(weights.length / taps, target)) for (const bundle of bundlesOf(kernel, joint, together).all) {
      for (let v = 0; v < joint; v++) for (let l = 0; l < lanes; l++) for (const tap of bundle.taps) {
        out.push(tap === null ? padding : weights[(start + channelOf(joint, v, l)) * taps + tap]);
      }
    }
  }
  return Int8Array.from(out);
};

