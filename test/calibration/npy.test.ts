import { describe, expect, it } from 'vitest';
import { memorySource } from '../../src/calibration/bytes.ts';
import { encodeNpy, openNpy, readNpy, type NpyData } from '../../src/calibration/npy.ts';
import { encodeNpz, openNpz } from '../../src/calibration/npz.ts';
import { zipSync } from 'fflate';

const file = (header: string, data: Uint8Array = new Uint8Array(0), version = 1): Uint8Array => {
  const text = new TextEncoder().encode(header);
  const length = version === 1 ? [text.length & 255, text.length >> 8] : [text.length & 255, (text.length >> 8) & 255, (text.length >> 16) & 255, 0];
  return Uint8Array.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, version, 0, ...length, ...text, ...data]);
};
const read = (bytes: Uint8Array) => readNpy(memorySource('x.npy', bytes));
const header = (descr: string, shape: string, fortran = 'False'): string => `{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }\n`;

describe('round trip', () => {
  const arrays: readonly NpyData[] = [
    Float32Array.of(1, -2.5, 3, 0.1, 5, 6), Float64Array.of(1, -2.5, 3, 0.1, 5, 6), Int8Array.of(-128, 127, 0, 1, 2, 3), Uint8Array.of(0, 255, 1, 2, 3, 4),
    Int16Array.of(-32768, 32767, 0, 1, 2, 3), Uint16Array.of(0, 65535, 1, 2, 3, 4), Int32Array.of(-(2 ** 31), 1, 2, 3, 4, 5), Uint32Array.of(2 ** 32 - 1, 1, 2, 3, 4, 5),
    BigInt64Array.of(-(2n ** 63n), 1n, 2n, 3n, 4n, 5n), BigUint64Array.of(2n ** 64n - 1n, 1n, 2n, 3n, 4n, 5n),
  ];
  it.each(arrays.map((data) => [data.constructor.name, data] as const))('%s', (_, data) => {
    const bytes = encodeNpy([2, 3], data);
    expect((bytes.length - data.byteLength) % 64).toBe(0);
    expect(read(bytes)).toMatchObject({ shape: [2, 3], data });
  });
  it('scalar and empty', () => {
    expect(read(encodeNpy([], Float32Array.of(7)))).toMatchObject({ shape: [], data: Float32Array.of(7) });
    expect(read(encodeNpy([0, 3], new Float32Array(0)))).toMatchObject({ shape: [0, 3] });
  });
});

describe('forms that NumPy writes', () => {
  it('big-endian', () => {
    expect(read(file(header('>i2', '(3,)'), Uint8Array.of(0, 1, 255, 255, 1, 0))).data).toEqual(Int16Array.of(1, -1, 256));
    expect(read(file(header('>f8', '(1,)'), Uint8Array.of(0x40, 0x09, 0x21, 0xfb, 0x54, 0x44, 0x2d, 0x18))).data).toEqual(Float64Array.of(Math.PI));
  });
  it('half precision: normal, subnormal, zero, negative', () => {
    expect(read(file(header('<f2', '(5,)'), Uint8Array.of(0x00, 0x3c, 0x01, 0x00, 0x00, 0x80, 0x00, 0xc0, 0xff, 0x7b))).data)
      .toEqual(Float32Array.of(1, 2 ** -24, -0, -2, 65504));
  });
  it('bool', () => expect(read(file(header('|b1', '(2,)'), Uint8Array.of(1, 0)))).toMatchObject({ dtype: 'b1', data: Uint8Array.of(1, 0) }));
  it('Fortran order', () => {
    const npy = openNpy(memorySource('f.npy', file(header('|i1', '(2, 3, 2)', 'True'), Uint8Array.from({ length: 12 }, (_, i) => i))));
    expect(npy.read(0, 2)).toEqual(Int8Array.of(0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11));
    expect(npy.read(1, 1)).toEqual(Int8Array.of(1, 7, 3, 9, 5, 11));
  });
  it('versions 2 and 3', () => {
    for (const version of [2, 3]) expect(read(file(header('|u1', '(2,)'), Uint8Array.of(4, 5), version)).data).toEqual(Uint8Array.of(4, 5));
  });
  it('a row is read without the rest', () => {
    const source = memorySource('x.npy', encodeNpy([1000, 4], Float32Array.from({ length: 4000 }, (_, i) => i)));
    let most = 0;
    const npy = openNpy({ ...source, read: (offset, length) => { most = Math.max(most, length); return source.read(offset, length); } });
    expect(npy.read(999, 1)).toEqual(Float32Array.of(3996, 3997, 3998, 3999));
    expect(most).toBeLessThan(200);
  });
});

describe('hostile files', () => {
  const cases: readonly (readonly [string, Uint8Array])[] = [
    ['empty', new Uint8Array(0)],
    ['not npy', new TextEncoder().encode('{"a": 1, "b": 2}')],
    ['unknown version', file(header('|u1', '(1,)'), Uint8Array.of(1), 9)],
    ['header longer than the file', Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 255, 255, 1)],
    ['header of 4 GiB', Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 2, 0, 255, 255, 255, 255)],
    ['too few data', file(header('<f4', '(1000000, 1000000)'))],
    ['product beyond every integer', file(header('<f4', `(${new Array(20).fill('999999999').join(', ')})`))],
    ['negative size', file(header('<f4', '(-1,)'))],
    ['fraction', file(header('<f4', '(1.5,)'))],
    ['40 axes', file(header('<f4', `(${new Array(40).fill('1').join(', ')})`), new Uint8Array(4))],
    ['objects', file(header('|O', '(1,)'), new Uint8Array(8))],
    ['records', file(`{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }`, new Uint8Array(4))],
    ['complex', file(header('<c8', '(1,)'), new Uint8Array(8))],
    ['no shape', file(`{'descr': '<f4', 'fortran_order': False}`, new Uint8Array(4))],
    ['property of Object', file(header('constructor', '(1,)'), new Uint8Array(8))],
  ];
  it.each(cases)('%s', (_, bytes) => expect(() => read(bytes)).toThrow(/LB0502/));
});

describe('npz', () => {
  const open = (bytes: Uint8Array) => openNpz(memorySource('x.npz', bytes));
  const arrays = { a: { shape: [2], data: Float32Array.of(1, 2) }, 'b/c': { shape: [3, 1], data: Int8Array.of(1, 2, 3) } };
  it('round trip, deflated', () => {
    const files = open(encodeNpz(arrays));
    expect([...files.keys()]).toEqual(['a', 'b/c']);
    expect(files.get('b/c')!.read(1, 2)).toEqual(Int8Array.of(2, 3));
  });
  it('the same bytes each time', () => expect(encodeNpz(arrays)).toEqual(encodeNpz(arrays)));
  it('stored members are read in place', () => {
    const member = encodeNpy([2, 2], Float32Array.of(1, 2, 3, 4));
    const files = open(zipSync({ 'x.npy': member, 'note.txt': Uint8Array.of(1) }, { level: 0 }));
    expect([...files.keys()]).toEqual(['x']);
    expect(files.get('x')!.read(1, 1)).toEqual(Float32Array.of(3, 4));
  });
  it('every truncation and every flipped byte is an error or reads the same', () => {
    const whole = encodeNpz(arrays);
    const attempt = (bytes: Uint8Array): void => {
      try {
        for (const npy of open(bytes).values()) npy.read(0, npy.rows);
      } catch (error) {
        expect((error as Error).message).toMatch(/LB050[23]/);
      }
    };
    for (let length = 0; length < whole.length; length++) attempt(whole.slice(0, length));
    for (let at = 0; at < whole.length; at++) attempt(whole.with(at, whole[at] ^ 0xff));
  });
  it('no arrays', () => expect(() => open(zipSync({ 'a.txt': Uint8Array.of(1) }))).toThrow(/LB0503/));
});
