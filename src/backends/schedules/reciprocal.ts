/** 1/S and 1/√D at run time, as in `numerics/reciprocal.ts` and `numerics/rsqrt.ts`, step by step in 64-bit integers. */
import { add, at, buffer, clamp, clz, convert, literal, list, load, max, mul, set, shl, shr, sub, variable } from '../../loops/build.ts';
import type { Buffer, Expr, Stmt, Var } from '../../loops/types.ts';
import { reciprocalSeeds } from '../../numerics/reciprocal.ts';
import { rsqrtSeeds } from '../../numerics/rsqrt.ts';
import { packed, type Binding } from './kernel.ts';

export const reciprocalBuffer = (): Buffer => buffer('seeds', 'u32', reciprocalSeeds.length, 'const');
export const reciprocalBinding: Binding = packed('reciprocal', reciprocalSeeds);
export const rsqrtBuffer = (): Buffer => buffer('seeds', 'u32', rsqrtSeeds.length, 'const');
export const rsqrtBinding: Binding = packed('rsqrt', rsqrtSeeds);

/** Least and greatest shift of a row: between them the 64-bit product keeps its high word. */
const ROW_SHIFTS = [32, 62] as const;

export interface RowScale {
  readonly setup: readonly Stmt[];
  /** i32 factor of the row */
  readonly factor: Var;
  /** i32 shift of the row */
  readonly shift: Var;
}
/** M = (y·mulOut) >> 31 and s = shiftOut + 31 − lz, with (y, lz) the reciprocal of `sum`, an i64 in [1, 2^32). */
export const rowScale = (total: Expr, seeds: Buffer, steps: number, mulOut: Expr, shiftOut: Expr): RowScale => {
  const [d32, lz] = [variable('whole', 'u32'), variable('lz', 'i32')];
  const [d, y, factor, shift] = [variable('d', 'i64'), variable('y', 'i64'), variable('factor', 'i32'), variable('rowShift', 'i32')];
  return {
    factor, shift,
    setup: [
      set(d32, convert('u32', total)), set(lz, convert('i32', clz(max(d32, 1)))),
      set(d, shl(convert('i64', d32), lz)),
      set(y, convert('i64', load(at(seeds, -256, [clamp(convert('i32', shr(d, 23)), 256, 511), 1])))),
      ...list(steps, () => set(y, shr(mul(sub(literal(2n ** 32n, 'i64'), shr(mul(d, y), 31)), y), 31))),
      set(factor, convert('i32', shr(mul(y, convert('i64', mulOut)), 31))),
      set(shift, clamp(sub(add(shiftOut, 31), lz), ...ROW_SHIFTS)),
    ],
  };
};
/** The rounding half of a row's shift. */
export const rowHalf = (shift: Expr): Expr => shl(literal(1, 'i64'), sub(clamp(shift, ...ROW_SHIFTS), 1));
export const rowShift = (shift: Expr): Expr => clamp(shift, ...ROW_SHIFTS);

export interface Root {
  readonly setup: readonly Stmt[];
  /** i64, Q30 of 1/√(D·2^-2k), in (2^30, 2^31] */
  readonly y: Var;
  /** i32 in 0…32 */
  readonly k: Var;
}
/** 1/√D of an i64 variable D in [1, 2^63). */
export const rootOf = (value: Var, seeds: Buffer, steps: number): Root => {
  const [k, d, y, t] = [variable('k', 'i32'), variable('d', 'i64'), variable('y', 'i64'), variable('t', 'i64')];
  return {
    y, k,
    setup: [
      set(k, shr(sub(literal(65, 'i32'), convert('i32', clz(value))), 1)),
      set(d, shr(shl(value, clamp(sub(literal(32, 'i32'), shl(k, 1)), 0, 32)), clamp(sub(shl(k, 1), 32), 0, 32))),
      set(y, convert('i64', load(at(seeds, -64, [clamp(convert('i32', shr(d, 24)), 64, 255), 1])))),
      ...list(steps, () => [
        set(t, shr(mul(y, y), 30)), set(t, shr(mul(t, d), 32)),
        set(y, shr(mul(y, sub(literal(3n * 2n ** 30n, 'i64'), t)), 31)),
      ]).flat(),
    ],
  };
};
