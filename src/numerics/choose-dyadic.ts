/**
 * From real factors to the integers of the rescaling rule clamp((acc·M + C) >> s, low, high), all derived in float64, the same on
 * every machine. The largest shift is taken for which every multiplier fits 31 bits and no sum leaves 64 bits for any accumulator of
 * the proven interval: more shift is more exact and costs nothing. What remains as error is bounded and returned.
 */

export type Reals = ArrayLike<number>;

/** One summand r·(v − zero): entries for each channel, or one for all. */
export interface Term {
  /** real factors r from one unit of v to one step of the output; 0 for a channel that is dead */
  readonly scales: Reals;
  /** proven least and greatest v */
  readonly least: Reals;
  readonly greatest: Reals;
  /** integers subtracted from v: zero(x)·Σweight for an accumulator of raw codes; 0 when left out */
  readonly zeros?: Reals;
}
/** The codes of an output and what is added there. */
export interface Target {
  /** real numbers added, in steps of the output, for each channel or one for all: bias/scale; 0 when left out */
  readonly offsets?: Reals;
  readonly zero: number;
  readonly low: number;
  readonly high: number;
}

export interface Dyadic {
  readonly mul: Int32Array;
  readonly add: BigInt64Array;
  readonly shift: number;
  readonly preShift: number;
  /** proven bound of |result before rounding − real result|, in steps of the output, wherever the output does not saturate */
  readonly error: number;
}
export interface DyadicAdd {
  readonly mulX: Int32Array;
  readonly mulY: Int32Array;
  readonly add: BigInt64Array;
  readonly shift: number;
  readonly error: number;
}
export interface DyadicMul {
  readonly mul: number;
  readonly add: bigint;
  readonly shift: number;
  readonly error: number;
}

/** Largest shift that leaves a rounding half in a 64-bit sum. */
const MAX_SHIFT = 62;
/** Least shift at which the answer lies in the high word of the 64-bit sum. */
const HIGH_WORD = 32;
/** Sums of products stay below it in magnitude. */
const LIMIT_64 = 1n << 63n;
const LIMIT_32 = 1n << 31n;
/** Error, in steps of the output, up to which all sums are kept within 32 bits where they can be: one output in 500 may be off by one. */
const NARROW_ERROR = 2 ** -10;

const at = (list: Reals, channel: number): number => (list.length === 1 ? list[0] : list[channel]);

/** The nearest integer, halves up, of a finite double of any size. */
const roundReal = (value: number): bigint => {
  const floor = Math.floor(value);
  return BigInt(floor) + (value - floor >= 0.5 ? 1n : 0n);
};

interface Fit {
  readonly muls: readonly Int32Array[];
  readonly add: BigInt64Array;
  readonly error: number;
}

/** Multipliers and constants at a given shift, or null where one does not fit 31 bits or a sum could reach `limit`. */
const fit = (
  terms: readonly Term[], { offsets = [0], zero, low, high }: Target, channels: number, shift: number, preShift: number, limit: bigint,
): Fit | null => {
  const muls = terms.map(() => new Int32Array(channels));
  const add = new BigInt64Array(channels);
  let error = 0;
  const unit = 2 ** shift;
  const [s, pre] = [BigInt(shift), BigInt(preShift)];
  for (let c = 0; c < channels; c++) {
    const offset = at(offsets, c);
    let constant = roundReal(offset * unit) + (BigInt(zero) << s) + (1n << (s - 1n));
    let [least, greatest, magnitude] = [0n, 0n, 0n];
    let channelError = 0.5 / unit;
    for (const [i, term] of terms.entries()) {
      const scale = at(term.scales, c);
      const ideal = scale * 2 ** (shift - preShift);
      const mul = Math.floor(ideal + 0.5);
      if (Math.abs(mul) >= 2 ** 31) return null;
      muls[i][c] = mul;
      const [from, to, removed] = [at(term.least, c), at(term.greatest, c), at(term.zeros ?? [0], c)];
      const product = (v: number): bigint => (BigInt(v) << pre) * BigInt(mul);
      constant -= product(removed);
      const [a, b] = mul < 0 ? [product(to), product(from)] : [product(from), product(to)];
      least += a;
      greatest += b;
      magnitude += -a > b ? -a : b;
      const span = Math.max(Math.abs(from - removed), Math.abs(to - removed));
      const reach = terms.length === 1 ? (Math.max(Math.abs(high - zero - offset), Math.abs(low - zero - offset)) + 1) / Math.abs(scale) : Infinity;
      channelError += Math.min(span, reach) * (Math.abs(mul - ideal) / 2 ** (shift - preShift));
    }
    // beyond these the output is `high` or `low` whatever the accumulator is, so nothing changes
    const [floor, ceiling] = [(BigInt(low) << s) - greatest, (BigInt(high) << s) - least];
    if (constant > ceiling) constant = ceiling;
    if (constant < floor) constant = floor;
    if (magnitude + (constant < 0n ? -constant : constant) >= limit) return null;
    if (shift < HIGH_WORD && ((greatest + constant) >> s >= LIMIT_32 || (least + constant) >> s < -LIMIT_32)) return null;
    add[c] = constant;
    error = Math.max(error, channelError);
  }
  return { muls, add, error };
};

const channelCount = (...lists: readonly (Reals | undefined)[]): number => Math.max(1, ...lists.map((list) => list?.length ?? 1));
const countOf = (terms: readonly Term[], { offsets }: Target): number =>
  channelCount(offsets, ...terms.flatMap(({ scales, least, greatest, zeros }) => [scales, least, greatest, zeros]));

/** The largest shift in [least, most] with a fit. */
const largestShift = (
  terms: readonly Term[], target: Target, preShift: number, least: number, most: number, limit: bigint,
): (Fit & { readonly shift: number }) | null => {
  const channels = countOf(terms, target);
  for (let shift = most; shift >= least; shift--) {
    const found = fit(terms, target, channels, shift, preShift, limit);
    if (found !== null) return { ...found, shift };
  }
  return null;
};

/**
 * `mul`, `add`, `shift` and `preShift` of a `requantize` whose result is r[c]·(acc − zeros[c]) + offsets[c] + zero, rounded half up. A
 * factor of a half or more shifts the accumulator left first, where its interval leaves room in 32 bits. Null where nothing fits.
 */
export const chooseDyadic = ({ scales, least, greatest, zeros, ...target }: Term & Target): Dyadic | null => {
  const term: Term = { scales, least, greatest, ...(zeros === undefined ? {} : { zeros }) };
  const widest = Math.max(largest(least, (v) => -v - 1), largest(greatest, (v) => v));
  for (let preShift = 0; preShift < 31 && widest * 2 ** preShift < 2 ** 31; preShift++) {
    const found = largestShift([term], target, preShift, HIGH_WORD, MAX_SHIFT, LIMIT_64);
    if (found !== null) return { mul: found.muls[0], add: found.add, shift: found.shift, preShift, error: found.error };
  }
  return null;
};
const largest = (list: Reals, measure: (value: number) => number): number =>
  Array.from(list, measure).reduce((a, b) => Math.max(a, b), 0);

/**
 * Constants of a `requantize_add` whose result is rx·(x − zeroX) + ry·(y − zeroY) + offsets + zero. Where the error allows it, all
 * products and sums are kept within 32 bits, which any machine does faster; a backend sees that from the intervals.
 */
export const chooseDyadicAdd = ({ x, y, ...target }: { readonly x: Term; readonly y: Term } & Target): DyadicAdd | null => {
  const narrow = largestShift([x, y], target, 0, 1, HIGH_WORD - 1, LIMIT_32);
  const found = narrow !== null && narrow.error <= NARROW_ERROR ? narrow : largestShift([x, y], target, 0, 1, MAX_SHIFT, LIMIT_64) ?? narrow;
  return found && { mulX: found.muls[0], mulY: found.muls[1], add: found.add, shift: found.shift, error: found.error };
};

export interface DyadicMulRequest extends Target {
  readonly scale: number;
  /** proven least and greatest (x − zeroX)·(y − zeroY) */
  readonly least: number;
  readonly greatest: number;
}
/** Constants of a `requantize_mul` whose result is scale·(x − zeroX)·(y − zeroY) + zero. */
export const chooseDyadicMul = ({ scale, least, greatest, ...target }: DyadicMulRequest): DyadicMul | null => {
  const found = largestShift([{ scales: [scale], least: [least], greatest: [greatest] }], target, 0, 1, MAX_SHIFT, LIMIT_64);
  return found && { mul: found.muls[0][0], add: found.add[0], shift: found.shift, error: found.error };
};

export interface AverageRequest {
  /** elements averaged */
  readonly count: number;
  readonly scaleIn: number;
  readonly zeroIn: number;
  /** least and greatest code of an element */
  readonly lowIn: number;
  readonly highIn: number;
  readonly scaleOut: number;
  readonly zeroOut: number;
  readonly low: number;
  readonly high: number;
}
/**
 * Constants of the `requantize` that turns a sum of `count` codes into their average. With equal scales a quarter of the spacing of
 * averages, 1/(4·count), is added: it decides no rounding but keeps exact ties going up although 1/count is rounded.
 */
export const chooseAverage = ({ count, scaleIn, zeroIn, lowIn, highIn, scaleOut, zeroOut, low, high }: AverageRequest): Dyadic | null =>
  chooseDyadic({
    scales: [scaleIn / scaleOut / count], least: [count * lowIn], greatest: [count * highIn], zeros: [count * zeroIn],
    offsets: [scaleIn === scaleOut ? 1 / (4 * count) : 0], zero: zeroOut, low, high,
  });
