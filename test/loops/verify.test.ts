import { describe, expect, it } from 'vitest';
import {
  add, affine, and, at, buffer, call, clamp, clz, constants, convert, dyadic, fn, index, literal, load, lookup, loop, min, moved, mul, parameter, pick, program, set, shl, shr, store, sub, variable,
} from '../../src/loops/build.ts';
import type { Buffer, Expr, Stmt } from '../../src/loops/types.ts';
import { affineRange, rangesOf, verify } from '../../src/loops/verify.ts';

const x = buffer('x', 'i32', 16, 'in'), y = buffer('y', 'i32', 16, 'out'), t = buffer('t', 'i8', 256, 'const');
const i = index('i', 4), j = index('j', 4);
const v = variable('v', 'i32');
const check = (...body: Stmt[]): (() => void) => () => { verify(program('p', [x, y, t], body)); };
const from = (value: Expr): Expr => load(at(t, 0, [value, 1]), 1, 'i32');

describe('verify accepts', () => {
  it('accesses that just fit', check(loop(i, [loop(j, [store(at(y, 0, [i, 4], [j, 1]), load(at(x, 15, [i, -4], [j, -1])))])])));
  it('computed indices that are clamped, masked, narrow or shifted into range', check(
    set(v, load(at(x))),
    store(at(y), from(clamp(v, 0, 255))), store(at(y), from(and(v, 255))), store(at(y), from(convert('i32', convert('u8', v)))),
    store(at(y), from(min(and(shr(v, 3), 1023), 255))), store(at(y), from(clz(v))), store(at(y), lookup(at(t, 128), convert('i8', v), 'i32')),
    store(at(y), load(at(t, 64, [clamp(v, -16, 47), 4]), 1, 'i32'))));
  it('variables set first in a loop that always runs', check(loop(i, [set(v, load(at(x, 0, [i, 1])))]), store(at(y), v)));
  it('written arguments that do not overlap the others', () => {
    const [a, b] = [buffer('a', 'i32', 4, 'in'), buffer('b', 'i32', 4, 'out')];
    const copy = fn('copy', { buffers: [a, b] }, [loop(i, [store(at(b, 0, [i, 1]), load(at(a, 0, [i, 1])))])]);
    expect(check(loop(j, [call(copy, [at(y, 0), at(y, 4)]), call(copy, [x, at(y, 0, [j, 4])])]))).not.toThrow();
    const row = index('row', 2);
    expect(check(loop(row, [call(copy, [at(y, 0, [row, 8]), at(y, 4, [row, 8])])]))).not.toThrow();
    expect(check(loop(row, [call(copy, [at(y, 0, [row, 4]), at(y, 4)])]))).toThrow('may overlap');
  });
});

describe('verify refuses', () => {
  const cases: Readonly<Record<string, readonly [string, () => void]>> = {
    'an index past the end': ['reaches 1 … 16 of 16', check(loop(i, [loop(j, [store(at(y, 1, [i, 4], [j, 1]), 0)])]))],
    'lanes past the end': ['reaches 14 … 17', check(store(at(y, 14), load(at(x), 4)))],
    'a negative address': ['reaches -1', check(store(at(y, -1), 0))],
    'an unbounded computed index': ['x[0 + value*1]', check(store(at(y), load(at(x, 0, [load(at(x)), 1]))))],
    'an unbounded lookup': ['reaches -128 … 127', check(store(at(y), lookup(at(t), load(at(t)), 'i32')))],
    'a pick beyond its table': ['an index lies in 0 … 31, not in 0 … 15', check(set(variable('p', 'i8', 8), pick(load(at(t), 16), and(load(at(t), 8), 31))))],
    'an index that is not bound': ['index i is not bound', check(store(at(y, 0, [i, 1]), 0))],
    'an index bound twice': ['bound twice', check(loop(i, [loop(i, [store(at(y, 0, [i, 1]), 0)])]))],
    'a read before the set': ['read before it is set', check(store(at(y), v), set(v, 0))],
    'a write to an input': ['read only', check(store(at(x), 0))],
    'a buffer from elsewhere': ['not declared', check(store(at(buffer('z', 'i32', 4, 'out')), 0))],
    'a shift by too much': ['not in 0 … 31', check(set(v, load(at(x))), store(at(y), shl(v, v)))],
    'a dyadic shift of 63': ['not in 0 … 62', check(store(at(y), dyadic(63, 'halves', load(at(x)), 1, 0n)))],
  };
  for (const [title, [message, run]] of Object.entries(cases)) it(title, () => { expect(run).toThrow(message); });

  it('calls that do not match', () => {
    const [a, b]: Buffer[] = [buffer('a', 'i32', 8, 'in'), buffer('b', 'i32', 4, 'out')];
    const [m, s] = [index('m', 2), parameter('s', 'i32', 0, 7)];
    const callee = fn('callee', { buffers: [a, b], indices: [m], values: [s] }, [store(at(b, 0, [m, 1]), shr(load(at(a, 0, [m, 4])), s))]);
    expect(check(call(callee, [x, y], [1], [7]))).not.toThrow();
    expect(check(call(callee, [at(x, 9), y], [1], [7]))).toThrow('reaches 9 … 16');
    expect(check(call(callee, [x, x], [1], [7]))).toThrow('x is read only, but b is written');
    expect(check(call(callee, [t, y], [1], [7]))).toThrow('a has i32 elements, t i8');
    expect(check(call(callee, [x, y], [2], [7]))).toThrow('index m gets 2 … 2 of 2');
    expect(check(call(callee, [x, y], [1], [8]))).toThrow('s gets 8 … 8, not in 0 … 7');
    expect(check(call(callee, [at(y, 2), y], [1], [7]))).toThrow('may overlap');
    expect(() => call(callee, [x], [1], [7])).toThrow('wrong number of arguments');
  });
});

describe('ranges', () => {
  it('of affine sums', () => { expect(affineRange(affine(3, [i, 4], [j, -2]))).toEqual([-3, 15]); });
  it('of variables, as the union over their settings', () => {
    const [a, b] = [variable('a', 'i32'), variable('b', 'i32')];
    const range = rangesOf([set(a, 3), set(a, and(load(at(x)), 7)), set(b, 0), loop(i, [set(b, add(b, 1))])]);
    expect(range(a)).toEqual([0, 7]);
    expect(range(b)).toEqual([1 - 2 ** 31, 2 ** 31 - 1]);
    expect(range(sub(mul(a, 2), 1))).toEqual([-1, 13]);
    expect(range(clz(a))).toEqual([29, 32]);
    expect(range(dyadic(40, 'halves', a, 5, 0n))).toEqual([-(2 ** 23), 2 ** 23 - 1]);
  });
});

describe('builders refuse what has no meaning', () => {
  it('types that differ, literals that do not fit, narrowing loads', () => {
    expect(() => add(load(at(x)), load(at(t)))).toThrow('add: i32 and i8');
    expect(() => literal(128, 'i8')).toThrow('128 does not fit i8');
    expect(() => load(at(x), 1, 'i8')).toThrow('i32 does not widen to i8');
    expect(() => at(x, 0, [load(at(x)), 1], [load(at(x)), 1])).toThrow('at most one computed term');
    expect(() => store(at(t), load(at(x)))).toThrow('store to t: i8 = i32');
    expect(() => index('i', 0)).toThrow('not a positive integer');
  });
  it('moves addresses and joins equal terms', () => {
    expect(moved(at(x, 1, [i, 2]), 3, [i, 4], [j, 0])).toEqual(at(x, 4, [i, 6]));
    expect(constants('c', Int16Array.of(1, 2))).toMatchObject({ e: 'i16', length: 2, role: 'const' });
  });
});
