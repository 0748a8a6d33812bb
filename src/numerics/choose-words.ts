/**
 * From a rescale with 64-bit products to one in 32-bit words, y = clamp(((x >> drop)·mul + add) >> shift, low, high): x gives up its last
 * bits, multiplier and shift are short enough that no product and no sum leaves 32 bits for any x of the proven interval. What that costs is
 * bounded over all x whose result is not an end of the output's range. The dropped bits take (2^drop − 1)/2 away on average: `add` puts the mean back.
 */
import type { Reals } from './choose-dyadic.ts';

/** A rescale clamp(((x << preShift)·mul[c] + add[c]) >> shift, low, high) and the interval of x; entries for each channel, or one for all. */
export interface LongRescale {
  readonly mul: Int32Array;
  readonly add: BigInt64Array;
  readonly shift: number;
  readonly preShift: number;
  readonly low: number;
  readonly high: number;
  readonly least: Reals;
  readonly greatest: Reals;
}
export interface WordRescale {
  readonly mul: Int32Array;
  readonly add: Int32Array;
  readonly drop: number;
  readonly shift: number;
  /**
   * proven bound, in steps of the output, of what separates the value before rounding from the real number that the long form stands for,
   * wherever the result is not `low` or `high`; half a unit of the long form's own multiplier and addend is counted in
   */
  readonly error: number;
}

const at = <T>(list: ArrayLike<T>, channel: number): T => list[list.length === 1 ? 0 : channel];
const LIMIT = 2 ** 31;
/** Bits that x may lose: beyond them 8-bit codes cannot keep the error small. */
const MAX_DROP = 20;

/** More than what doubles lose in all that is computed here of numbers below 2^20. */
const IN_DOUBLES = 2 ** -28;

/** One channel in real numbers: y = slope·x + offset before the floor, over the x that matter. */
interface Line {
  readonly slope: number;
  /** rounding half included */
  readonly offset: number;
  readonly least: number;
  readonly greatest: number;
  /** least and greatest x of the interval whose y lies in low … high + 1 */
  readonly from: number;
  readonly to: number;
  /** what the long form itself may be off, within from … to */
  readonly own: number;
}

const lineOf = ({ mul, add, shift, preShift, low, high, least, greatest }: LongRescale, c: number): Line => {
  const unit = 2 ** -shift;
  const slope = at(mul, c) * 2 ** (preShift - shift);
  const offset = Number(at(add, c)) * unit;
  const [a, b] = [at(least, c), at(greatest, c)];
  // below low + 1 and from `high` on the result is an end of the range, which a step beyond decides as well
  const within = (y: number): number => Math.min(b, Math.max(a, (y - offset) / slope));
  const [from, to] = slope === 0 ? [a, b] : [within(low), within(high + 1)];
  return { slope, offset, least: a, greatest: b, from, to, own: (Math.max(Math.abs(from), Math.abs(to)) * 2 ** preShift + 1) * unit / 2 };
};

/** mul and add of one channel, and its error; null where a sum could leave 32 bits. */
const fit = ({ slope, offset, least, greatest, from, to, own }: Line, low: number, high: number, drop: number, shift: number): { readonly mul: number; readonly add: number; readonly error: number } | null => {
  const [unit, lost] = [2 ** shift, 2 ** drop];
  const mul = Math.floor(slope * unit * lost + 0.5);
  const [a, b] = [Math.floor(least / lost) * mul, Math.floor(greatest / lost) * mul];
  if (mul >= LIMIT || a < -LIMIT || b >= LIMIT) return null;
  // the line is met where its middle lies: what the multiplier is off counts from there
  const middle = (from + to) / 2;
  const off = mul / (unit * lost) - slope;
  const ideal = (offset - off * middle) * unit + (mul * (lost - 1)) / (2 * lost);
  // from here on the output is `high` or `low` whatever x is, so nothing changes
  const add = Math.min(Math.max(Math.floor(ideal + 0.5), low * unit - b), high * unit - a);
  if (add < -LIMIT || add >= LIMIT || a + add < -LIMIT || b + add >= LIMIT) return null;
  const dropped = (mul * (lost - 1)) / (2 * lost * unit);
  return { mul, add, error: (Math.abs(off) * (to - from)) / 2 + dropped + 0.5 / unit + own + IN_DOUBLES };
};

/** The constants of least error, without dropped bits where their error is within `limit`; null where none is within it. */
export const chooseWords = (long: LongRescale, limit: number): WordRescale | null => {
  const channels = Math.max(long.mul.length, long.add.length, long.least.length);
  const lines = Array.from({ length: channels }, (_, c) => lineOf(long, c));
  let best: WordRescale | null = null;
  for (let drop = 0; drop <= MAX_DROP && (best === null || best.drop > 0); drop++) {
    for (let shift = 31; shift > 0; shift--) {
      const mul = new Int32Array(channels);
      const add = new Int32Array(channels);
      let error = 0;
      const fits = lines.every((line, c) => {
        const found = fit(line, long.low, long.high, drop, shift);
        if (found === null) return false;
        [mul[c], add[c], error] = [found.mul, found.add, Math.max(error, found.error)];
        return true;
      });
      if (!fits) continue;
      if (error <= limit && (best === null || error < best.error)) best = { mul, add, drop, shift, error };
      break;
    }
  }
  return best;
};
