import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeNpy, type NpyData } from '../../src/calibration/npy.ts';
import { encodeNpz } from '../../src/calibration/npz.ts';
import { codesAt, openSamples, reopenSamples, samplesInMemory, syntheticSamples } from '../../src/calibration/samples.ts';
import { symbol } from '../../src/ir/dim.ts';
import { perTensor } from '../../src/ir/quant.ts';
import { f32, tensor, tensorType, type TensorType } from '../../src/ir/type.ts';

let folder = '';
beforeAll(() => { folder = mkdtempSync(join(tmpdir(), 'samples-')); });
afterAll(() => rmSync(folder, { recursive: true }));

const npy = (name: string, shape: readonly number[], data: NpyData): string => {
  const path = join(folder, name);
  writeFileSync(path, encodeNpy(shape, data));
  return path;
};
const count = (length: number, from = 0): Float32Array => Float32Array.from({ length }, (_, i) => from + i);
const input = (type: TensorType, name = 'x') => ({ name, type });

describe('shapes', () => {
  it('the first axis counts samples', () => {
    const samples = openSamples(npy('a.npy', [3, 2, 2], count(12)), [input(f32(1, 2, 2))]);
    expect(samples.count).toBe(3);
    expect(samples.get(1)['x']).toEqual(tensor(f32(1, 2, 2), count(4, 4)));
    expect([...samples].length).toBe(3);
    expect(() => samples.get(3)).toThrow(RangeError);
  });
  it('reshaped when the element counts agree', () => expect(openSamples(npy('b.npy', [3, 4], count(12)), [input(f32(1, 2, 2))]).get(2)['x'].data).toEqual(count(4, 8)));
  it('a batch takes several rows, the rest is left', () => {
    const samples = openSamples(npy('c.npy', [7, 4], count(28)), [input(f32(3, 2, 2))]);
    expect([samples.count, samples.rowsPerSample]).toEqual([2, 3]);
    expect(samples.get(1)['x'].data).toEqual(count(12, 12));
  });
  it('one whole batch', () => expect(openSamples(npy('batch.npy', [3, 4], count(12)), [input(f32(3, 2, 2))])).toMatchObject({ count: 1, rowsPerSample: 3 }));
  it('a single sample without its axis', () => expect(openSamples(npy('d.npy', [3, 5, 5], count(75)), [input(f32(1, 3, 5, 5))]).count).toBe(1));
  it('an open batch is one', () => expect(openSamples(npy('e.npy', [2, 4], count(8)), [input(f32(symbol('N'), 4))]).get(0)['x'].type).toEqual(f32(1, 4)));
  it('other open sizes are an error', () => expect(() => openSamples(npy('e.npy', [2, 4], count(8)), [input(f32(1, symbol('T')))])).toThrow(/LB0511/));
  it('what does not fit', () => expect(() => openSamples(npy('f.npy', [2, 5], count(10)), [input(f32(1, 4))])).toThrow(/LB0504.*\[5\].*\[1, 4\]/s));
  it('only the first samples', () => expect(openSamples(npy('g.npy', [9, 4], count(36)), [input(f32(1, 4))], { count: 2 }).count).toBe(2));
  it('no samples', () => expect(() => openSamples(npy('h.npy', [0, 4], new Float32Array(0)), [input(f32(1, 4))])).toThrow(/LB0510/));
});

describe('numbers', () => {
  const image = input(f32(1, 2, 1, 2));
  it('mean and deviation of each channel', () => {
    const samples = openSamples(npy('i.npy', [1, 2, 1, 2], Uint8Array.of(0, 255, 10, 20)), [image], { mean: [127.5, 10], std: [127.5, 2] });
    expect(samples.get(0)['x'].data).toEqual(Float32Array.of(-1, 1, 0, 5));
    expect(samples.raw(0)['x']).toEqual(tensor(tensorType('u8', [1, 2, 1, 2]), Uint8Array.of(0, 255, 10, 20)));
  });
  it('channels last, one number for all', () => {
    const last = input(f32(1, 2, 1, 3));
    const path = npy('j.npy', [1, 2, 1, 3], Int16Array.of(1, 2, 3, 4, 5, 6));
    expect(openSamples(path, [last], { mean: [1, 2, 3], std: [2] }).get(0)['x'].data).toEqual(Float32Array.of(0, 0, 0, 1.5, 1.5, 1.5));
    expect(openSamples(path, [last], { std: [2] }).get(0)['x'].data).toEqual(Float32Array.of(0.5, 1, 1.5, 2, 2.5, 3));
  });
  it.each([[{ mean: [1, 2, 3] }], [{ std: [0] }], [{ std: [1, -1] }], [{ mean: [NaN] }], [{ mean: [1, 2], std: [1, 2, 3] }]])('%j does not fit', (options) =>
    expect(() => openSamples(npy('k.npy', [1, 2, 1, 2], Uint8Array.of(1, 2, 3, 4)), [image], options)).toThrow(/LB0508/));
  it('NaN and infinity name file and sample', () => {
    const bad = openSamples(npy('l.npy', [3, 2], Float32Array.of(1, 2, 3, 4, 5, NaN)), [input(f32(1, 2))]);
    expect(bad.get(1)['x'].data).toEqual(count(2, 3));
    expect(() => bad.get(2)).toThrow(/LB0506: sample 2 of .*l\.npy" holds NaN/);
    expect(() => openSamples(npy('m.npy', [1, 2], Float64Array.of(1, 1e300)), [input(f32(1, 2))]).get(0)).toThrow(/LB0506.*infinity/);
  });
  it('integers widen and narrow where they fit', () => {
    const tokens = input(tensorType('i64', [1, 2]), 't');
    expect(openSamples(npy('n.npy', [1, 2], Uint8Array.of(7, 9)), [tokens]).get(0)['t'].data).toEqual(BigInt64Array.of(7n, 9n));
    expect(openSamples(npy('o.npy', [1, 2], BigInt64Array.of(7n, -9n)), [input(tensorType('i32', [1, 2]))]).get(0)['x'].data).toEqual(Int32Array.of(7, -9));
    expect(openSamples(npy('p.npy', [1, 2], Float32Array.of(7, 9)), [tokens]).get(0)['t'].data).toEqual(BigInt64Array.of(7n, 9n));
    expect(() => openSamples(npy('q.npy', [1, 2], Float32Array.of(7, 9.5)), [tokens]).get(0)).toThrow(/LB0507.*9\.5/);
    expect(() => openSamples(npy('r.npy', [1, 2], BigInt64Array.of(2n ** 40n, 1n)), [input(tensorType('i32', [1, 2]))]).get(0)).toThrow(/LB0507/);
  });
  it('what a compiled graph takes: the data themselves, or codes', () => {
    const path = npy('s.npy', [1, 4], Uint8Array.of(0, 100, 200, 255));
    const samples = openSamples(path, [input(f32(1, 4))], { mean: [100], std: [50] });
    const codes = input(tensorType('i8', [1, 4], perTensor('i8', 0.5, 1)));
    expect(codesAt(samples, 0, [codes], () => false)['x'].data).toEqual(Int8Array.of(-3, 1, 5, 7));
    const bytes = input(tensorType('u8', [1, 4], perTensor('u8', 0.02, 100)));
    expect(codesAt(samples, 0, [bytes], () => true)['x'].data).toEqual(Uint8Array.of(0, 100, 200, 255));
    expect(codesAt(samples, 0, [input(tensorType('i16', [1, 4]))], () => true)['x'].data).toEqual(Int16Array.of(0, 100, 200, 255));
  });
});

describe('several inputs and files', () => {
  const inputs = [input(f32(1, 2), 'a'), input(tensorType('i64', [1]), 'b')];
  const arrays = { a: { shape: [2, 2], data: count(4) }, b: { shape: [2], data: BigInt64Array.of(5n, 6n) } };
  const expectBoth = (samples: ReturnType<typeof openSamples>): void => {
    expect(samples.count).toBe(2);
    expect(samples.get(1)).toEqual({ a: tensor(f32(1, 2), count(2, 2)), b: tensor(tensorType('i64', [1]), BigInt64Array.of(6n)) });
  };
  it('npz with the names of the inputs', () => {
    const path = join(folder, 'x.npz');
    writeFileSync(path, encodeNpz(arrays));
    expectBoth(openSamples(path, inputs));
    writeFileSync(path, encodeNpz({ a: arrays.a }));
    expect(() => openSamples(path, inputs)).toThrow(/LB0505.*"b".*it has "a"/s);
    expect(openSamples(path, [input(f32(1, 2), 'other')]).count).toBe(2);
  });
  it('a path for each input', () => {
    const paths = { a: npy('pa.npy', [2, 2], count(4)), b: npy('pb.npy', [2], BigInt64Array.of(5n, 6n)) };
    expectBoth(openSamples(paths, inputs));
    expect(() => openSamples({ a: paths.a }, inputs)).toThrow(/LB0505/);
    expect(() => openSamples({ a: paths.a, b: npy('pc.npy', [3], BigInt64Array.of(5n, 6n, 7n)) }, inputs)).toThrow(/LB0509/);
    expect(() => openSamples(paths.a, inputs)).toThrow(/LB0505/);
  });
  it('a folder of files named like the inputs', () => {
    mkdirSync(join(folder, 'named'));
    npy('named/a.npy', [2, 2], count(4));
    npy('named/b.npy', [2], BigInt64Array.of(5n, 6n));
    expectBoth(openSamples(join(folder, 'named'), inputs));
  });
  it('a folder of samples, by name', () => {
    mkdirSync(join(folder, 'list'));
    npy('list/2.npy', [2], count(2, 20));
    npy('list/1.npy', [2, 2], count(4, 10));
    npy('list/10.npy', [1, 2], count(2, 30));
    writeFileSync(join(folder, 'list', 'readme.txt'), 'not a sample');
    const samples = openSamples(join(folder, 'list'), [input(f32(1, 2))]);
    expect([...samples].map((sample) => sample['x'].data[0])).toEqual([10, 12, 30, 20]);
  });
  it('a missing file', () => expect(() => openSamples(join(folder, 'none.npy'), [input(f32(1))])).toThrow(/LB0501.*no such file/));
});

describe('digest', () => {
  it('says whether the samples are the same', () => {
    const inputs = [input(f32(1, 2))];
    const path = npy('digest.npy', [3, 2], count(6));
    const digest = openSamples(path, inputs).digest;
    expect(digest).toMatch(/^[0-9a-f]{64}$/);
    expect(openSamples(npy('same.npy', [3, 1, 2], count(6)), inputs).digest).toBe(digest);
    expect(openSamples(path, inputs, { count: 2 }).digest).not.toBe(digest);
    expect(openSamples(path, inputs, { std: [2] }).digest).not.toBe(digest);
    expect(openSamples(npy('other.npy', [3, 2], count(6, 1)), inputs).digest).not.toBe(digest);
  });
  it('survives the way to another thread', () => {
    const samples = openSamples(join(folder, 'digest.npy'), [input(f32(1, 2))], { count: 2, std: [3] });
    expect(reopenSamples(structuredClone(samples.source)).digest).toBe(samples.digest);
    const held = samplesInMemory([input(f32(1, 2))], [...samples]);
    expect(reopenSamples(structuredClone(held.source)).get(1)).toEqual(samples.get(1));
  });
});

it('synthetic samples are those of their seed', () => {
  const inputs = [input(f32(symbol('N'), 4)), input(tensorType('i64', [1, 3]), 'tokens')];
  expect([...syntheticSamples(inputs, 3, 1)]).toEqual([...syntheticSamples(inputs, 3, 1)]);
  expect([...syntheticSamples(inputs, 3, 1)]).not.toEqual([...syntheticSamples(inputs, 3, 2)]);
});
