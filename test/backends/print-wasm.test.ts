import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import loadWabt from 'wabt';
import { at, buffer, fn, index, literal, load, lookup, loop, mul, program, set, store, call, variable, dot } from '../../src/loops/build.ts';
import { interpret } from '../../src/loops/interpret.ts';
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
  }, 60_000);

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
