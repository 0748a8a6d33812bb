import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import loadWabt from 'wabt';
import { add, at, buffer, fn, index, literal, load, lookup, loop, mul, program, set, store, sub, call, variable, dot } from '../../src/loops/build.ts';
import { interpret } from '../../src/loops/interpret.ts';
import type { Stmt } from '../../src/loops/types.ts';
import { verify } from '../../src/loops/verify.ts';
import { divisions, engine, floatInstructions, scan } from '../../src/wasm/index.ts';
import { firstDifference, randomCase } from '../loops/random-programs.ts';
import { samples, scalar, simd128 } from '../loops/samples.ts';
import { loadWasm, printWasm } from '../loops/wasm-run.ts';

const wabt = await loadWabt();

describe('WebAssembly equals the interpreter', () => {
  it('on random programs of scalars and vectors', () => {
    fc.assert(fc.property(fc.integer(), fc.integer({ min: 1, max: 10 }), fc.boolean(), (seed, size, lanes) => {
      const { program, memory } = randomCase(seed, size, lanes);
      verify(program);
      const loaded = loadWasm(program, memory);
      loaded.run();
      expect(firstDifference(program, interpret(program, memory), (b) => loaded.of(b))).toBeNull();
    }), { numRuns: 400 });
  }, 240_000);

  for (const machine of [scalar, simd128]) for (const sample of samples(machine)) {
    it(`${sample.program.name} at ${machine.lanes} lanes, and both equal the plain reference`, () => {
      verify(sample.program);
      const loaded = loadWasm(sample.program, sample.memory);
      loaded.run();
      expect(loaded.of(sample.out)).toEqual(sample.expected);
      expect(interpret(sample.program, sample.memory).get(sample.out)).toEqual(sample.expected);
    });
  }
});

describe('the module', () => {
  it('validates, disassembles, and holds no float and no division', () => {
    for (let seed = 0; seed < 40; seed++) {
      const { bytes } = printWasm(randomCase(seed, 10, seed % 2 === 0).program);
      expect(engine.validate(bytes)).toBe(true);
      expect(wabt.readWasm(bytes, { readDebugNames: false, simd: true }).toText({ foldExprs: false, inlineExport: false })).toContain('(func');
      const found = scan(bytes);
      expect([floatInstructions(found), divisions(found)]).toEqual([[], []]);
    }
  }, 30_000);

  it('multiplies in no loop to find an address', () => {
    const { counts } = scan(printWasm(samples(simd128)[0].program).bytes);
    expect(counts.has('i32.mul')).toBe(false);
    expect(counts.get('i32x4.dot_i16x8_s')).toBe(4 * 2 + 1 * 2);        // the full tile and the remainder
  });

  it('refuses what the machine has not', () => {
    const [x, y] = [buffer('x', 'i8', 64, 'in'), buffer('y', 'i32', 16, 'out')];
    const quads = program('quads', [x, y], [store(at(y), dot(4, literal(0, 'i32', 4), load(at(x), 16), load(at(x), 16)))]);
    expect(() => printWasm(quads)).toThrow('no dot product of bytes');
    const wide = program('wide', [x, y], [store(at(y), load(at(x), 16, 'i32'))]);
    expect(() => printWasm(wide)).toThrow('at most 16 bytes');
  });

  it('brings sums out of loops by way of globals, past further loops and calls that do the same', () => {
    const [x, y] = [buffer('x', 'i16', 1024, 'in'), buffer('y', 'i32', 64, 'out')];
    const [from, to] = [buffer('from', 'i16', 256, 'in'), buffer('to', 'i32', 16, 'out')];
    const sumsOf = (source: typeof x, into: typeof y, between: readonly Stmt[]): readonly Stmt[] => {
      const [a, b, once, i, j, k] = [variable('a', 'i32', 4), variable('b', 'i32', 4), variable('once', 'i32', 4), index('i', 4), index('j', 8), index('k', 8)];
      const word = (offset: number) => load(at(source, offset, [i, 32], [j, 4]), 4, 'i32');
      return [
        set(a, literal(0, 'i32', 4)), set(b, literal(5, 'i32', 4)),
        loop(i, [loop(j, [set(a, add(a, word(0))), set(b, sub(b, word(128))), set(once, word(64))])]),
        store(at(into), add(a, 1)), ...between,
        loop(k, [set(a, add(a, b)), set(b, add(b, load(at(source, 0, [k, 4]), 4, 'i32')))]),
        store(at(into, 4), add(a, b)), store(at(into, 8), once), store(at(into, 12), sub(b, once)),
      ];
    };
    const inner = fn('inner', { buffers: [from, to] }, sumsOf(from, to, []));
    const run = program('run', [x, y], [...sumsOf(x, y, [call(inner, [at(x, 512), at(y, 16)])]), call(inner, [at(x, 256), at(y, 32)])]);
    verify(run);
    const memory = new Map([[x, Int16Array.from({ length: 1024 }, (_, n) => ((n * 7919) % 65536) - 32768)]]);
    const loaded = loadWasm(run, memory);
    loaded.run();
    expect([...loaded.of(y)]).toEqual([...interpret(run, memory).get(y)!]);
    const { counts } = scan(printWasm(run).bytes);
    expect([counts.get('global.set'), counts.get('global.get')]).toEqual([10, 10]);       // in each of two functions a, b and once, then a and b
  });

  it('reaches below the start of a low table by a computed index', () => {
    const [table, codes, y] = [buffer('table', 'i8', 256, 'in'), buffer('codes', 'i8', 8, 'in'), buffer('y', 'i8', 32, 'out')];
    const [t, c, out, i] = [buffer('t', 'i8', 256, 'in'), buffer('c', 'i8', 8, 'in'), buffer('out', 'i8', 16, 'out'), index('i', 8)];
    const body = (from: typeof table, by: typeof codes, to: typeof y) => [
      loop(i, [store(at(to, 0, [i, 1]), load(at(from, 128, [load(at(by, 0, [i, 1])), 1])))]), store(at(to, 8), lookup(at(from, 128), load(at(by), 8)))];
    const inner = fn('inner', { buffers: [t, c, out] }, body(t, c, out));
    const run = program('run', [table, codes, y], [...body(table, codes, y), call(inner, [table, codes, at(y, 16)])]);
    verify(run);
    const values = [-128, -127, -1, 0, 1, 2, 126, 127];
    const loaded = loadWasm(run, new Map([[table, Int8Array.from({ length: 256 }, (_, n) => n - 128)], [codes, Int8Array.from(values)]]));
    loaded.run();
    expect([...loaded.of(y)]).toEqual([...values, ...values, ...values, ...values]);
  });

  it('shares functions between calls and steps through negative strides', () => {
    const [x, y] = [buffer('x', 'i32', 12, 'in'), buffer('y', 'i32', 12, 'out')];
    const [p, q, i, back] = [buffer('p', 'i32', 4, 'in'), buffer('q', 'i32', 4, 'out'), index('i', 4), index('back', 3)];
    const v = variable('v', 'i32');
    const reverse = fn('reverse', { buffers: [p, q] }, [loop(i, [set(v, load(at(p, 3, [i, -1]))), store(at(q, 0, [i, 1]), mul(v, 2))])]);
    const run = program('run', [x, y], [loop(back, [call(reverse, [at(x, 8, [back, -4]), at(y, 0, [back, 4])])])]);
    verify(run);
    const loaded = loadWasm(run, new Map([[x, Int32Array.from({ length: 12 }, (_, n) => n)]]));
    loaded.run();
    expect([...loaded.of(y)]).toEqual([11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0].map((n) => 2 * n));
  });
});
