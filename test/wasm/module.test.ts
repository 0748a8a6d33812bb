import { describe, expect, it } from 'vitest';
import loadWabt from 'wabt';
import { divisions, engine, floatInstructions, functionOf, instantiate, Module, scan, type Memory } from '../../src/wasm/index.ts';

const wabt = await loadWabt();

describe('module', () => {
  it('runs a float dot product over its own memory', () => {
    const module = new Module();
    module.memory({ initial: 1 });
    module.export('memory', 'memory');
    module.func('dot', ['i32', 'i32', 'i32'], ['f32'], (code, a, b, n) => {
      const total = code.local('v128'), end = code.local('i32');
      code.get(a).get(n).i32(2).op('i32.shl').op('i32.add').set(end);
      code.loop((again) => code
        .get(total).get(a).memory('v128.load').get(b).memory('v128.load').op('f32x4.mul').op('f32x4.add').set(total)
        .get(b).i32(16).op('i32.add').set(b)
        .get(a).i32(16).op('i32.add').tee(a).get(end).op('i32.lt_u').brIf(again));
      for (let lane = 0; lane < 4; lane++) {
        code.get(total).lane('f32x4.extract_lane', lane);
        if (lane > 0) code.op('f32.add');
      }
    }, { export: true });
    const bytes = module.encode({ names: true });
    expect(engine.validate(bytes)).toBe(true);
    expect(wabt.readWasm(bytes, { readDebugNames: true, simd: true }).toText({ foldExprs: false, inlineExport: false })).toContain('(func $dot');
    const instance = instantiate(bytes);
    const data = new Float32Array((instance.exports.memory as Memory).buffer);
    data.set([1, 2, 3, 4, 5, 6, 7, 8], 0);
    data.set([1, 1, 1, 1, 2, 2, 2, 2], 8);
    expect(functionOf(instance, 'dot')(0, 32, 8)).toBe(10 + 52);
    expect(floatInstructions(scan(bytes)).sort()).toEqual(['f32.add', 'f32x4.add', 'f32x4.extract_lane', 'f32x4.mul']);
  });

  it('imports memory, functions and globals, holds data and globals, branches and calls', () => {
    const module = new Module();
    const log = module.importFunc('host', 'log', ['i32'], []);
    module.importMemory('host', 'memory', { initial: 1 });
    const base = module.importGlobal('host', 'base', 'i32');
    const count = module.global('i64', -5n, true);
    module.data(100, Uint8Array.of(7, 8, 9));
    const clampSum = module.func('clampSum', ['i32', 'i32'], ['i32'], (code, a, b) => code
      .get(a).get(b).op('i32.add').tee(a).i32(100).op('i32.gt_s')
      .if(() => code.i32(100), () => code.get(a), 'i32'));
    module.func('main', [], ['i64'], (code) => {
      code.block((out) => {
        code.i32(60).i32(70).call(clampSum).tee(code.local('i32')).call(log);
        code.i32(1).brIf(out);
        code.op('unreachable');
      });
      code.globalGet(base).memory('i32.load8_u', 2).call(log);
      code.globalGet(count).i64(-(2n ** 40n)).op('i64.add').globalSet(count);
      code.globalGet(count);
    }, { export: true });
    const bytes = module.encode();
    expect(engine.validate(bytes)).toBe(true);
    const seen: number[] = [];
    const memory = new engine.Memory({ initial: 1 });
    const globalOf = (globalThis as never as { WebAssembly: { Global: new (t: object, v: number) => object } }).WebAssembly.Global;
    const instance = instantiate(bytes, { host: { memory, log: (x: number) => seen.push(x), base: new globalOf({ value: 'i32' }, 100) } });
    expect(functionOf(instance, 'main')()).toBe(-5n - 2n ** 40n);
    expect(seen).toEqual([100, 9]);
  });

  it('encodes extreme constants exactly', () => {
    const values = [0, 1, -1, 63, 64, -64, -65, 127, 128, 2 ** 31 - 1, -(2 ** 31)];
    const wide = [0n, -1n, 2n ** 63n - 1n, -(2n ** 63n), 2n ** 62n, 2n ** 35n - 1n];
    const module = new Module();
    values.forEach((v, i) => module.func(`n${i}`, [], ['i32'], (code) => code.i32(v), { export: true }));
    wide.forEach((v, i) => module.func(`w${i}`, [], ['i64'], (code) => code.i64(v), { export: true }));
    module.func('f', [], ['f64'], (code) => code.f64(Math.PI), { export: true });
    const instance = instantiate(module.encode());
    values.forEach((v, i) => { expect(functionOf(instance, `n${i}`)()).toBe(v); });
    wide.forEach((v, i) => { expect(functionOf(instance, `w${i}`)()).toBe(v); });
    expect(functionOf(instance, 'f')()).toBe(Math.PI);
  });

  it('refuses what the format cannot say', () => {
    const module = new Module();
    module.memory({ initial: 1 });
    expect(() => module.importFunc('a', 'b', [], [])).toThrow('after a definition');
    expect(() => { module.memory({ initial: 1 }); }).toThrow('one memory');
    expect(() => module.func('f', [], [], (code) => code.shuffle([1, 2]))).toThrow('shuffle');
  });
});

describe('scan', () => {
  const planted = (write: Parameters<Module['func']>[3]) => {
    const module = new Module();
    module.func('f', [], [], write);
    return scan(module.encode());
  };
  it('finds a planted float instruction and a planted division', () => {
    expect(floatInstructions(planted((code) => code.i32(1).op('f32.convert_i32_s').op('drop')))).toEqual(['f32.convert_i32_s']);
    expect(divisions(planted((code) => code.i64(1).i64(2).op('i64.rem_u').op('drop')))).toEqual(['i64.rem_u']);
  });
  it('does not mistake the bytes of a constant for instructions', () => {
    const found = planted((code) => code.v128(Array.from({ length: 16 }, () => 0x92)).op('drop').i64(0x9292929292n).op('drop'));
    expect(floatInstructions(found)).toEqual([]);
    expect(divisions(found)).toEqual([]);
    expect(found.counts.get('drop')).toBe(2);
  });
  it('refuses what is no module', () => {
    expect(() => scan(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))).toThrow('not a WebAssembly module');
  });
});
