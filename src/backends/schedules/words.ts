/**
 * Runs of codes as 32-bit words and back. A run has `lanes` words (a scalar) or twice that (two vectors, read by one load of bytes or
 * halfwords and written by one store), so every schedule is written once for scalars and vectors.
 */
import { broadcast, bytesOf, clamp, convert, literal, load, max, min, moved, narrow, pack, set, store, variable, widen } from '../../loops/build.ts';
import type { Address, Contents, Elem, Expr, Pairing, Stmt, Var } from '../../loops/types.ts';
import type { Target } from './target.ts';

/** Elements that one vector iteration handles; 1 without vectors. */
export const runOf = (lanes: number): number => (lanes === 1 ? 1 : 2 * lanes);

/** A value per lane, in one vector or scalar or two, and the statements that make them. */
export interface Words {
  readonly setup: readonly Stmt[];
  readonly parts: readonly Expr[];
}

/** `run` elements from an address as i32; with stride 0 one element in every lane. A run may also be one vector. */
export const readWords = (from: Address, stride: number, run: number, lanes = run / 2): Words => {
  const e = from.buffer.e;
  if (run === 1) return { setup: [], parts: [convert('i32', load(from))] };
  if (stride === 0) {
    const v = variable('s', 'i32', lanes);
    return { setup: [set(v, broadcast(convert('i32', load(from)), lanes))], parts: run === lanes ? [v] : [v, v] };
  }
  if (run === lanes) return { setup: [], parts: [bytesOf(e) === 4 ? convert('i32', load(from, lanes)) : load(from, lanes, 'i32')] };
  if (bytesOf(e) === 4) return { setup: [], parts: [0, lanes].map((offset) => convert('i32', load(moved(from, offset), lanes))) };
  const v = variable('r', bytesOf(e) === 1 ? 'i16' : e, run);
  return { setup: [set(v, load(from, run, v.type.e))], parts: [convert('i32', widen(0, v)), convert('i32', widen(1, v))] };
};

/** The c operands of a dyadic for each part: one i64 scalar, or two vectors, in the order of `inReadingOrder`. */
export const readAddends = (from: Address, stride: number, run: number, lanes = run / 2): readonly (readonly Expr[])[] => {
  if (run === 1) return [[load(from)]];
  const half = lanes / 2;
  const at = (i: number): Expr => (stride === 0 ? broadcast(load(from), half) : load(moved(from, i * half), half));
  return run === lanes ? [[at(0), at(1)]] : [[at(0), at(1)], [at(2), at(3)]];
};

/**
 * The order in which `readAddends` finds the constants of runs: 64-bit ones in groups of `lanes`, the even lanes of a group before the
 * odd ones where the machine's products come that way. What is left after the last whole run is read by scalars and keeps its order.
 */
export const inReadingOrder = <T extends Contents>(list: T, { lanes, pairing }: Target): T => {
  if (!(list instanceof BigInt64Array) || lanes === 1 || pairing === 'halves') return list;
  const whole = list.length - (list.length % runOf(lanes));
  const out = list.slice();
  out.set(inLaneOrder(list.subarray(0, whole), lanes, pairing));
  return out as T;
};
/** The same where vectors read all of the list. */
export const inLaneOrder = <T extends Contents>(list: T, lanes: number, pairing: Pairing): T => {
  if (!(list instanceof BigInt64Array) || lanes === 1 || pairing === 'halves') return list;
  const out = list.slice();
  for (let at = 0; at < list.length; at += lanes) for (let i = 0; i < lanes; i++) out[at + i] = list[at + (i < lanes / 2 ? 2 * i : 2 * i - lanes + 1)];
  return out as T;
};

/** Bounds of the stored codes, as scalars and, for vectors, in every lane of the stored element. */
export interface Bounds {
  readonly setup: readonly Stmt[];
  readonly low: Expr;
  readonly high: Expr;
  readonly lanesLow: Expr | null;
  readonly lanesHigh: Expr | null;
}

/** Bounds from two i32 scalars; where they are the limits of the element, saturation already keeps them. */
export const boundsOf = (low: Expr, high: Expr, e: Elem, run: number, natural: boolean, lanes = run / 2): Bounds => {
  if (run === 1 || natural) return { setup: [], low, high, lanesLow: null, lanesHigh: null };
  const n = bytesOf(e) === 4 || lanes > BLOCK_LANES ? lanes : run;
  const [least, greatest]: Var[] = [variable('least', e, n), variable('greatest', e, n)];
  return {
    setup: [set(least, broadcast(convert(e, low), n), { pin: true }), set(greatest, broadcast(convert(e, high), n), { pin: true })],
    low, high, lanesLow: least, lanesHigh: greatest,
  };
};

/** i32 lanes of a 16-byte block; `pack` keeps the order of lanes only in vectors of one block. */
export const BLOCK_LANES = 4;

/** i32 words as codes of element `e`, saturated and clamped: one run of the element, or two where it has 32 bits or vectors are wide. */
export const toCodes = (parts: readonly Expr[], e: Elem, bounds: Bounds): readonly Expr[] => {
  if (parts[0].type.n === 1) return [convert(e, clamp(parts[0], bounds.low, bounds.high))];
  const joined = bytesOf(e) === 4 ? parts
    : parts[0].type.n > BLOCK_LANES ? parts.map((part) => narrow(e, part))
      : bytesOf(e) === 2 ? [pack(e, parts[0], parts[1])]
        : [narrow(e, pack('i16', parts[0], parts[1]))];
  return joined.map((one) => limited(one, bounds));
};
const limited = (codes: Expr, { lanesLow, lanesHigh }: Bounds): Expr =>
  lanesLow === null || lanesHigh === null ? codes : min(max(codes, lanesLow), lanesHigh);

export const writeCodes = (to: Address, codes: readonly Expr[]): readonly Stmt[] =>
  codes.map((one, i) => store(i === 0 ? to : moved(to, i * one.type.n), one));

const unlimited: Bounds = { setup: [], low: literal(0, 'i32'), high: literal(0, 'i32'), lanesLow: null, lanesHigh: null };
/** Words stored as they are: codes that surely fit the element. */
export const writeWords = (to: Address, parts: readonly Expr[]): readonly Stmt[] =>
  writeCodes(to, parts[0].type.n === 1 ? [convert(to.buffer.e, parts[0])] : toCodes(parts, to.buffer.e, unlimited));
