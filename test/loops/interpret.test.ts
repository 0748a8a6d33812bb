import { describe, expect, it } from 'vitest';
import {
  across, add, addSat, addWrap, and, at, broadcast, buffer, call, clz, constants, convert, dot, dyadic, dyadic2, fn, index, literal, load, lookup, loop, mul, mulQ15, mulWrap, narrow, pack, pick, program,
  reduce, select, set, shl, shr, shru, splat, store, subSat, variable, widen, zip,
} from '../../src/loops/build.ts';
import { interpret } from '../../src/loops/interpret.ts';
import type { Contents, Expr } from '../../src/loops/types.ts';
import { functionsOf, shareFunctions, unrolled } from '../../src/loops/walk.ts';

/** The lanes of one expression. */
const lanes = (e: Expr, ...inputs: ReturnType<typeof constants>[]): (number | bigint)[] => {
  const y = buffer('y', e.type.e, e.type.n, 'out');
  return [...(interpret(program('p', [...inputs, y], [store(at(y), e)]), new Map()).get(y)! as Iterable<number | bigint>)];
};
const bytes = constants('bytes', Int8Array.from({ length: 32 }, (_, i) => i));
const words = constants('words', Int16Array.from({ length: 16 }, (_, i) => 100 * i - 700));
const seq = (n: number, f: (i: number) => number): number[] => Array.from({ length: n }, (_, i) => f(i));

describe('meaning of the expressions', () => {
  it('arithmetic wraps, saturates, or must fit', () => {
    expect(lanes(addWrap(literal(127, 'i8'), 1))).toEqual([-128]);
    expect(lanes(mulWrap(literal(2 ** 31 - 1, 'i32'), 2 ** 31 - 1))).toEqual([1]);
    expect(lanes(mulWrap(literal(2n ** 63n - 1n, 'i64'), 3n))).toEqual([2n ** 63n - 3n]);
    expect(lanes(addSat(literal(127, 'i8'), 1))).toEqual([127]);
    expect(lanes(subSat(literal(3, 'u8'), 5))).toEqual([0]);
    expect(() => lanes(add(literal(2 ** 31 - 1, 'i32'), 1))).toThrow('add overflows i32');
    expect(() => lanes(mul(literal(2n ** 62n, 'i64'), 2n))).toThrow('mul overflows i64');
    expect(() => lanes(mulQ15(literal(-32768, 'i16'), -32768))).toThrow('mulQ15 overflows');
    expect(lanes(mulQ15(literal(16384, 'i16'), -1))).toEqual([0]);       // −0.5 rounds up
  });
  it('shifts', () => {
    expect(lanes(shl(literal(0x41, 'i8'), 1))).toEqual([-126]);
    expect(lanes(shr(literal(-5, 'i16'), 1))).toEqual([-3]);
    expect(lanes(shr(literal(0xfffffffe, 'u32'), 31))).toEqual([1]);
    expect(lanes(shru(literal(-1, 'i8'), 1))).toEqual([127]);
    expect(lanes(shru(literal(-1n, 'i64'), 63))).toEqual([1n]);
    expect(() => lanes(shl(literal(1, 'i32'), 32))).toThrow('shift of i32 by 32');
  });
  it('conversions', () => {
    expect(lanes(convert('u8', literal(-1, 'i32')))).toEqual([255]);
    expect(lanes(convert('i64', literal(0xffffffff, 'u32')))).toEqual([0xffffffffn]);
    expect(lanes(convert('i32', literal(2n ** 31n, 'i64')))).toEqual([-(2 ** 31)]);
    expect(lanes(narrow('u8', literal(-7, 'i32')))).toEqual([0]);
    expect(lanes(narrow('i32', literal(2n ** 40n, 'i64')))).toEqual([2 ** 31 - 1]);
    expect(lanes(widen(1, load(at(bytes), 8)), bytes)).toEqual([4, 5, 6, 7]);
  });
  it('loads', () => {
    expect(lanes(splat(at(bytes, 4), 2, 4, 'i16'), bytes)).toEqual([4, 5, 4, 5, 4, 5, 4, 5]);
    expect(lanes(lookup(at(words, 1), load(at(bytes, 2), 4)), words, bytes)).toEqual([-400, -300, -200, -100]);
    expect(lanes(broadcast(load(at(words, 9)), 4), words)).toEqual([200, 200, 200, 200]);
    expect(() => lanes(load(at(words, 10), 8), words)).toThrow('elements 10 … 17 of 16');
  });
  it('tables in a register', () => {
    const table = (first: number): Expr => addWrap(load(at(bytes), 16), first);
    const index = and(load(at(bytes, 3), 4), 15);
    expect(lanes(pick(table(100), index), bytes)).toEqual([103, 104, 105, 106]);
    expect(lanes(pick(convert('u8', table(0)), convert('i16', index)), bytes)).toEqual([3, 4, 5, 6]);
    expect(() => lanes(pick(convert('u8', table(1)), convert('i16', index)), bytes)).toThrow('the table begins with 1');
    expect(() => lanes(pick(table(0), load(at(bytes, 14), 4)), bytes)).toThrow('entry 16 of 16');
    expect(() => pick(load(at(bytes), 8), index)).toThrow('pick: i8x4 in i8x8');
  });
  it('lanes within 16-byte blocks', () => {
    const wide = load(at(bytes), 32);
    expect(lanes(zip(0, 1, wide, wide), bytes)).toEqual([...seq(16, (i) => i >> 1), ...seq(16, (i) => 16 + (i >> 1))]);
    expect(lanes(zip(1, 4, load(at(bytes), 16), load(at(bytes, 16), 16)), bytes)).toEqual([8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31]);
    const shorts = load(at(words), 16);
    expect(lanes(pack('i8', shorts, shorts), words).slice(0, 16)).toEqual([...seq(8, (i) => Math.max(100 * i - 700, -128)), ...seq(8, (i) => Math.max(100 * i - 700, -128))]);
    expect(lanes(pack('i8', shorts, shorts), words).slice(16, 20)).toEqual([100, 127, 127, 127]);
  });
  it('sums of products', () => {
    const v = load(at(bytes), 8, 'i16');
    expect(lanes(dot(2, literal(10, 'i32', 4), v, v), bytes)).toEqual([11, 23, 51, 95]);
    expect(lanes(reduce(2, [load(at(bytes), 4, 'i32'), load(at(bytes, 4), 4, 'i32')]), bytes)).toEqual([1, 5, 9, 13]);
    expect(lanes(reduce(4, seq(4, (p) => 4 * p).map((p) => load(at(bytes, p), 4, 'i32'))), bytes)).toEqual([6, 22, 38, 54]);
    expect(lanes(across('add', v), bytes)).toEqual([28]);
    expect(() => lanes(dot(1, literal(2 ** 31 - 1, 'i32'), literal(1, 'i32'), literal(1, 'i32')))).toThrow('dot overflows i32');
  });
  it('dyadic: the test vector of the rescale, its ties, its pairings', () => {
    const [m, c] = [53024287, 54724245670n - (3n << 33n)];
    expect(lanes(dyadic(32, 'halves', literal(9337, 'i32'), m, c))).toEqual([Number((9337n * 53024287n + c) >> 32n)]);
    expect(lanes(dyadic(32, 'halves', literal(1, 'i32'), 2 ** 30, 1n << 31n))).toEqual([0]);
    expect(lanes(dyadic(32, 'halves', literal(2, 'i32'), 2 ** 30, 1n << 31n))).toEqual([1]);       // 0.5 rounds up
    expect(lanes(dyadic(32, 'halves', literal(-2, 'i32'), 2 ** 30, 1n << 31n))).toEqual([0]);      // −0.5 rounds up
    const halves = [constants('a', BigInt64Array.of(0n, 1n)), constants('b', BigInt64Array.of(2n, 3n))];
    const parts = halves.map((b) => shl(load(at(b), 2), 32));
    expect(lanes(dyadic(32, 'halves', literal(0, 'i32', 4), 1, parts), ...halves)).toEqual([0, 1, 2, 3]);
    expect(lanes(dyadic(32, 'evenodd', literal(0, 'i32', 4), 1, parts), ...halves)).toEqual([0, 2, 1, 3]);
    expect(lanes(dyadic2(33, 'halves', literal(-7, 'i32'), 2 ** 31 - 1, literal(9, 'i32'), 2 ** 30, 1n << 32n))).toEqual([Number((-7n * (2n ** 31n - 1n) + 9n * 2n ** 30n + 2n ** 32n) >> 33n)]);
    expect(() => lanes(dyadic(32, 'halves', literal(2 ** 31 - 1, 'i32'), 2 ** 31 - 1, 2n ** 63n - 1n))).toThrow('dyadic overflows i64');
  });
  it('choices', () => {
    expect(lanes(select('lt', load(at(bytes), 4), 2, literal(7, 'i8', 4), -7), bytes)).toEqual([7, 7, -7, -7]);
    expect([0n, 1n, -1n].flatMap((value) => lanes(clz(literal(value, 'i64'))))).toEqual([64n, 63n, 0n]);
  });
});

describe('programs', () => {
  const [x, y] = [constants('x', Int32Array.from({ length: 8 }, (_, i) => i)), buffer('y', 'i32', 8, 'out')];
  const twice = (name: string, length: number) => {
    const [p, q, i, v] = [buffer(`${name}In`, 'i32', length, 'in'), buffer(`${name}Out`, 'i32', length, 'out'), index(`${name}I`, length), variable(`${name}V`, 'i32')];
    return fn(name, { buffers: [p, q], note: name }, [loop(i, [set(v, load(at(p, 0, [i, 1]))), store(at(q, 0, [i, 1]), add(v, v))], 'unroll')]);
  };
  const i = index('i', 2);
  const run = program('run', [x, y], [loop(i, [call(twice('first', 2), [at(x, 0, [i, 4]), at(y, 0, [i, 4])]), call(twice('second', 2), [at(x, 2, [i, 4]), at(y, 2, [i, 4])])])]);
  const result = (p: typeof run): Contents => interpret(p, new Map()).get(y)!;

  it('equal functions are shared, different ones are not', () => {
    expect(functionsOf(run.body)).toHaveLength(2);
    expect(functionsOf(shareFunctions(run).body).map(({ name }) => name)).toEqual(['first']);
    const mixed = program('mixed', [x, y], [call(twice('a', 2), [x, y]), call(twice('b', 4), [x, y])]);
    expect(functionsOf(shareFunctions(mixed).body)).toHaveLength(2);
    expect(result(shareFunctions(run))).toEqual(result(run));
    expect([...result(run) as Int32Array]).toEqual([0, 2, 4, 6, 8, 10, 12, 14]);
  });
  it('unrolled loops mean the same and are gone', () => {
    const [callee] = functionsOf(run.body);
    expect(unrolled(callee.body).map(({ s }) => s)).toEqual(['set', 'store', 'set', 'store']);
    expect(unrolled(run.body)).toHaveLength(1);
  });
  it('stops at a variable that was never set', () => {
    const v = variable('v', 'i32');
    expect(() => interpret(program('p', [y], [store(at(y), v)]), new Map())).toThrow('read before it is set');
  });
});
