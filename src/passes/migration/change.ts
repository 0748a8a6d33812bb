/**
 * A change of coordinates of the channels (last axis) of a value, undone by whatever reads it, so that the function of the graph
 * stays:
 *
 *     x'[k] = (x[π(k)] − shift[π(k)]) / scale[π(k)]
 *
 * with scale > 0. Shift and scale of Outlier Suppression+, SmoothQuant, RepQ and cross-layer equalization, and the permutations of
 * channel reordering, are all of this form; they differ only in how the numbers are found.
 */
export interface Change {
  /** by channels of the unchanged value; null where it stays 1 */
  readonly scale: Float64Array | null;
  /** by channels of the unchanged value, in its unit; null where it stays 0 */
  readonly shift: Float64Array | null;
  /** π: new position → channel of the unchanged value; null for the identity */
  readonly order: Int32Array | null;
}

export const identity: Change = Object.freeze({ scale: null, shift: null, order: null });

export const isIdentity = ({ scale, shift, order }: Change): boolean => scale === null && shift === null && order === null;

/** The change with parts that change nothing left out. */
export const changeOf = (parts: Partial<Change>): Change => ({
  scale: parts.scale?.some((s) => s !== 1) ? parts.scale : null,
  shift: parts.shift?.some((z) => z !== 0) ? parts.shift : null,
  order: parts.order?.some((from, to) => from !== to) ? parts.order : null,
});

export const scaleAt = ({ scale }: Change, channel: number): number => (scale === null ? 1 : scale[channel]);
export const shiftAt = ({ shift }: Change, channel: number): number => (shift === null ? 0 : shift[channel]);
/** The channel of the unchanged value that stands at a position. */
export const channelAt = ({ order }: Change, position: number): number => (order === null ? position : order[position]);

type Numbers = ArrayLike<number> | null;
const equal = (a: Numbers, b: Numbers, neutral: (i: number) => number): boolean => {
  const length = a?.length ?? b?.length ?? 0;
  for (let i = 0; i < length; i++) if ((a?.[i] ?? neutral(i)) !== (b?.[i] ?? neutral(i))) return false;
  return a === null || b === null || a.length === b.length;
};
export const equalScales = (a: Change, b: Change): boolean => equal(a.scale, b.scale, () => 1);
export const equalShifts = (a: Change, b: Change): boolean => equal(a.shift, b.shift, () => 0);
export const equalOrders = (a: Change, b: Change): boolean => equal(a.order, b.order, (i) => i);
export const equalChanges = (a: Change, b: Change): boolean => equalScales(a, b) && equalShifts(a, b) && equalOrders(a, b);

/** Rows of numbers in the new coordinates; `channels` is the length of a row. */
export const changed = (data: ArrayLike<number>, channels: number, change: Change): Float32Array => {
  const out = new Float32Array(data.length);
  for (let at = 0; at < data.length; at += channels) for (let k = 0; k < channels; k++) {
    const c = channelAt(change, k);
    out[at + k] = (data[at + c] - shiftAt(change, c)) / scaleAt(change, c);
  }
  return out;
};
