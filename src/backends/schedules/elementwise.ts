/** `requantize_mul`, `clamp`, `table` and `table_interpolated`: one result element from one element of each operand. */
import type { Value } from '../../ir/graph.ts';
import { normalAxis } from '../../ir/dim.ts';
import { add, and, at, broadcast, buffer, clamp as limited, convert, dyadic, fn, load, max, min, mul, parameter, set, shr, sub, variable } from '../../loops/build.ts';
import type { Buffer, Elem, Expr, Fn, Stmt } from '../../loops/types.ts';
import { elemOf, limits, operand, shapeOf, type Binding, type Schedule } from './kernel.ts';
import { broadcastStrides, collapse, extentOf, overNest, rowMajor, type Nest } from './nest.ts';
import { tableEntry } from './rescale.ts';
import { vectorLanes, type Target } from './target.ts';
import { boundsOf, readWords, runOf, toCodes, writeCodes } from './words.ts';

/** The buffer of an operand, or the result's own where the operand is overwritten. */
const sourceOf = (name: string, e: Elem, nest: Nest, k: number, result: Buffer, shared: boolean): Buffer =>
  shared ? result : buffer(name, e, extentOf(nest, k), 'in');
const unlessShared = <T>(shared: boolean, one: T): readonly T[] => (shared ? [] : [one]);

// ---- requantize_mul

interface ProductShape {
  /** strides of result, x, y */
  readonly nest: Nest;
  readonly x: Elem;
  readonly y: Elem;
  readonly out: Elem;
  readonly wide: boolean;
  readonly natural: boolean;
  readonly alias: 'x' | null;
}
interface ProductAttrs {
  readonly zeroX: number;
  readonly zeroY: number;
  readonly mul: number;
  readonly add: bigint;
  readonly shift: number;
  readonly low: number;
  readonly high: number;
}

export const requantizeMul: Schedule = ({ root, output }, { target, inPlace, share }) => {
  const [x, y] = [root.inputs['x'] as Value, root.inputs['y'] as Value];
  const { zeroX, zeroY, mul: factor, add: addend, shift, low, high } = root.attrs as unknown as ProductAttrs;
  const shape = shapeOf(x);
  const out = elemOf(output.type.dtype);
  const [least, greatest] = limits(out);
  const key: ProductShape = {
    nest: collapse(shape, [rowMajor(shape), rowMajor(shape), broadcastStrides(shapeOf(y), shape)]), x: elemOf(x.type.dtype), y: elemOf(y.type.dtype),
    out, wide: shift >= 32, natural: low === least && high === greatest, alias: inPlace === x ? 'x' : null,
  };
  const buffers: readonly Binding[] = [{ kind: 'value', value: output }, ...unlessShared(key.alias === 'x', operand(x)), operand(y)];
  return { fn: share('requantize_mul', key, productFn(target)), buffers, values: [zeroX, zeroY, factor, addend, shift, low, high] };
};

const productFn = (target: Target) => (name: string, { nest, x, y, out, wide, natural, alias }: ProductShape): Fn => {
  const result = buffer('out', out, extentOf(nest, 0), 'out');
  const [left, right] = [sourceOf('x', x, nest, 1, result, alias === 'x'), buffer('y', y, extentOf(nest, 2), 'in')];
  const [zeroX, zeroY, factor] = ['zeroX', 'zeroY', 'mul'].map((one) => parameter(one, 'i32'));
  const addend = parameter('add', 'i64');
  const shift = parameter('shift', 'i32', wide ? 32 : 1, wide ? 62 : 31);
  const [low, high] = [parameter('low', 'i32', ...limits(out)), parameter('high', 'i32', ...limits(out))];
  const inner = nest.shape.length - 1;
  const prepare = (run: number): { setup: readonly Stmt[]; spread: (v: Expr) => Expr; bounds: ReturnType<typeof boundsOf>; addends: readonly Expr[] } => {
    const bounds = boundsOf(low, high, out, run, natural);
    if (run === 1) return { setup: [], spread: (v) => v, bounds, addends: [addend] };
    const wideAdd = variable('addends', 'i64', run / 4);
    const spread = new Map([zeroX, zeroY, factor].map((v) => [v as Expr, variable(`${v.name}s`, 'i32', run / 2)]));
    return {
      setup: [...bounds.setup, set(wideAdd, broadcast(addend, run / 4)), ...[...spread].map(([v, many]) => set(many, broadcast(v, run / 2)))],
      spread: (v) => spread.get(v)!, bounds, addends: [wideAdd, wideAdd],
    };
  };
  const prepared = new Map([1, runOf(target.lanes)].map((run) => [run, prepare(run)]));
  const body = overNest(nest, runOf(target.lanes), (run, locate) => {
    const { spread, bounds, addends } = prepared.get(run)!;
    const [a, b] = [readWords(locate(1, left), nest.strides[1][inner], run), readWords(locate(2, right), nest.strides[2][inner], run)];
    const products = a.parts.map((part, i) => mul(sub(part, spread(zeroX)), sub(b.parts[i], spread(zeroY))));
    const scaled = products.map((one) => dyadic(shift, target.pairing, one, spread(factor), addends));
    return [...a.setup, ...b.setup, ...writeCodes(locate(0, result), toCodes(scaled, out, bounds))];
  });
  return fn(name, { buffers: [result, ...unlessShared(alias === 'x', left), right], values: [zeroX, zeroY, factor, addend, shift, low, high] },
    [...[...prepared.values()].flatMap(({ setup }) => setup), ...body]);
};

// ---- clamp

interface ClampShape {
  readonly nest: Nest;
  readonly e: Elem;
  readonly alias: boolean;
}

export const clamp: Schedule = ({ root, output }, { target, inPlace, share }) => {
  const x = root.inputs['x'] as Value;
  const e = elemOf(x.type.dtype);
  const shape = shapeOf(x);
  const [least, greatest] = limits(e);
  const { low, high } = root.attrs as { low: number; high: number };
  const inside = (code: number): number => Math.min(greatest, Math.max(least, code));
  const key: ClampShape = { nest: collapse(shape, [rowMajor(shape), rowMajor(shape)]), e, alias: inPlace === x };
  const buffers: readonly Binding[] = [{ kind: 'value', value: output }, ...unlessShared(key.alias, operand(x))];
  return { fn: share('clamp', key, clampFn(target)), buffers, values: [inside(low), inside(high)] };
};

const clampFn = (target: Target) => (name: string, { nest, e, alias }: ClampShape): Fn => {
  const result = buffer('out', e, extentOf(nest, 0), 'out');
  const source = sourceOf('x', e, nest, 1, result, alias);
  const [low, high] = [parameter('low', e, ...limits(e)), parameter('high', e, ...limits(e))];
  const body = overNest(nest, vectorLanes(target, e), (run, locate) =>
    writeCodes(locate(0, result), [min(max(load(locate(1, source), run), broadcast(low, run)), broadcast(high, run))]));
  return fn(name, { buffers: [result, ...unlessShared(alias, source)], values: [low, high] }, body);
};

// ---- table

interface TableShape {
  /** strides of result, x, table (256 for each row) */
  readonly nest: Nest;
  readonly x: Elem;
  readonly out: Elem;
  readonly alias: boolean;
}

export const table: Schedule = ({ root, output }, { target, inPlace, share }) => {
  const [x, values] = [root.inputs['x'] as Value, root.inputs['values'] as Value];
  const shape = shapeOf(x);
  const rows = shapeOf(values).length === 1 ? null : normalAxis((root.attrs as { axis: number }).axis, shape.length);
  const nest = collapse(shape, [rowMajor(shape), rowMajor(shape), shape.map((_, axis) => (axis === rows ? 256 : 0))]);
  const key: TableShape = { nest, x: elemOf(x.type.dtype), out: elemOf(values.type.dtype), alias: inPlace === x };
  const buffers: readonly Binding[] = [{ kind: 'value', value: output }, ...unlessShared(key.alias, operand(x)), operand(values)];
  return { fn: share('table', key, tableFn(target)), buffers, values: [] };
};

const tableFn = ({ lanes }: Target) => (name: string, { nest, x, out, alias }: TableShape): Fn => {
  const result = buffer('out', out, extentOf(nest, 0), 'out');
  const source = sourceOf('x', x, nest, 1, result, alias);
  const entries = buffer('values', out, extentOf(nest, 2) - 1 + 256, 'const');
  const byRow = nest.strides[2].some((stride) => stride !== 0);
  const body = overNest(nest, byRow || x !== out ? 1 : runOf(lanes), (run, locate) => {
    const code = variable('code', x, run);
    const row = locate(2, entries).terms;
    return [set(code, load(locate(1, source), run)), ...writeCodes(locate(0, result), [tableEntry(entries, code, row)])];
  });
  return fn(name, { buffers: [result, ...unlessShared(alias, source), entries] }, body);
};

// ---- table_interpolated

interface InterpolatedShape {
  readonly nest: Nest;
  readonly alias: boolean;
}

export const tableInterpolated: Schedule = ({ root, output }, { inPlace, share }) => {
  const [x, values] = [root.inputs['x'] as Value, root.inputs['values'] as Value];
  const shape = shapeOf(x);
  const key: InterpolatedShape = { nest: collapse(shape, [rowMajor(shape), rowMajor(shape)]), alias: inPlace === x };
  const buffers: readonly Binding[] = [{ kind: 'value', value: output }, ...unlessShared(key.alias, operand(x)), operand(values)];
  return { fn: share('table_interpolated', key, interpolatedFn), buffers, values: [] };
};

/** Knots lie 128 codes apart; the knot index of a code is in 0…511. */
const KNOT_BITS = 7;

const interpolatedFn = (name: string, { nest, alias }: InterpolatedShape): Fn => {
  const result = buffer('out', 'i16', extentOf(nest, 0), 'out');
  const source = sourceOf('x', 'i16', nest, 1, result, alias);
  const knots = buffer('values', 'i16', 513, 'const');
  const [code, knot, here, next] = ['code', 'knot', 'here', 'next'].map((v) => variable(v, 'i32'));
  const body = overNest(nest, 1, (_run, locate) => [
    set(code, add(convert('i32', load(locate(1, source))), 32768)),
    set(knot, limited(shr(code, KNOT_BITS), 0, 511)),
    set(here, load(at(knots, 0, [knot, 1]), 1, 'i32')),
    set(next, load(at(knots, 1, [knot, 1]), 1, 'i32')),
    ...writeCodes(locate(0, result), [convert('i16', add(here, shr(add(mul(sub(next, here), and(code, 127)), 64), KNOT_BITS)))]),
  ]);
  return fn(name, { buffers: [result, ...unlessShared(alias, source), knots] }, body);
};


