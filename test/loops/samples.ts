/** Kernels written by hand in the loop language, each for scalar machines and for 128-bit vectors, with plain references. */
import {
  across, add, affine, and, at, buffer, call, clamp, clz, convert, dot, dyadic, fn, grid, index, list, literal, load, lookup, loop, max, mul, narrow, pack, program, select,
  set, shl, shr, splat, store, sub, variable, xor, zero, zip,
} from '../../src/loops/build.ts';
import type { Buffer, Contents, Elem, Expr, Fn, Program, Stmt } from '../../src/loops/types.ts';
import { Random } from './random-programs.ts';

export interface Sample {
  readonly program: Program;
  readonly memory: ReadonlyMap<Buffer, Contents>;
  readonly out: Buffer;
  readonly expected: Contents;
}

/** What a schedule asks of a machine: i32 lanes, neighbours in a dot product, register tile. */
export interface Machine {
  readonly lanes: 1 | 4;
  readonly d: 1 | 2;
  readonly rows: number;
  readonly vectors: number;
}
export const scalar: Machine = { lanes: 1, d: 1, rows: 8, vectors: 1 };
export const simd128: Machine = { lanes: 4, d: 2, rows: 4, vectors: 2 };

const saturated = (x: number): number => Math.min(Math.max(x, -128), 127);
const rescale = (acc: number, m: number, c: bigint, s: number): number => Number((BigInt(acc) * BigInt(m) + c) >> BigInt(s));

/** y[m, n] = narrow((Σ_k x[m, k]·w[n, k])·mul[n] + add[n] >> shift), x i16, w and y i8. */
export const gemm = ({ M, K, N }: { readonly M: number; readonly K: number; readonly N: number }, machine: Machine, seed = 1): Sample => {
  const { lanes: L, d, rows: MR, vectors: NV } = machine;
  const NB = NV * L;
  const shift = 40;
  const tile = (rows: number): Fn => {
    const x = buffer('x', 'i16', rows * K, 'in'), w = buffer('w', 'i8', NB * K, 'const');
    const m = buffer('m', 'i32', NB, 'const'), c = buffer('c', 'i64', NB, 'const'), y = buffer('y', 'i8', (rows - 1) * N + NB, 'out');
    const e: Elem = d === 1 ? 'i32' : 'i16';
    const k = index('k', K / d);
    const acc = grid(rows, NV, (i, j) => variable(`acc${i}${j}`, 'i32', L));
    const b = list(NV, (j) => variable(`b${j}`, e, d * L));
    const a = variable('a', e, d * L);
    const step: Stmt[] = [
      ...b.map((v, j) => set(v, load(at(w, j * d * L, [k, NB * d]), d * L, e))),
      ...list(rows, (i) => [set(a, splat(at(x, i * K, [k, d]), d, L, e)), ...b.map((v, j) => set(acc[i][j], dot(d, acc[i][j], a, v)))]).flat(),
    ];
    const halves = (j: number): Expr[] => (L === 1 ? [load(at(c, j))] : [load(at(c, j * L), L / 2), load(at(c, j * L + L / 2), L / 2)]);
    const finish = (i: number): Stmt[] => {
      const q = acc[i].map((v, j) => dyadic(shift, 'halves', v, load(at(m, j * L), L), halves(j)));
      if (L === 1) return q.map((v, j) => store(at(y, i * N + j), narrow('i8', v)));
      return list(NV / 2, (j) => store(at(y, i * N + 2 * j * L), narrow('i8', pack('i16', q[2 * j], q[2 * j + 1]))));
    };
    return fn(`gemm_${rows}x${NB}`, { buffers: [x, w, m, c, y], note: `${rows} rows times ${NB} columns` }, [
      ...acc.flat().map((v) => set(v, 0)), loop(k, step), ...list(rows, finish).flat()]);
  };
  const random = new Random(seed);
  const natural = Int8Array.from({ length: N * K }, () => random.below(256) - 128);
  const X = buffer('X', 'i16', M * K, 'in'), Y = buffer('Y', 'i8', M * N, 'out');
  const W = buffer('W', 'i8', N * K, 'const'), Mul = buffer('Mul', 'i32', N, 'const'), C = buffer('C', 'i64', N, 'const');
  const packed = new Int8Array(N * K);
  for (let n = 0; n < N; n++) for (let k = 0; k < K; k++) {
    packed[Math.floor(n / NB) * NB * K + Math.floor(k / d) * NB * d + (n % NB) * d + (k % d)] = natural[n * K + k];
  }
  const x = Int16Array.from({ length: M * K }, () => random.below(511) - 255);
  const muls = Int32Array.from({ length: N }, () => random.below(2 ** 25) + 2 ** 24);
  const adds = BigInt64Array.from({ length: N }, () => (BigInt(random.below(100) - 50) << BigInt(shift)) + (1n << BigInt(shift - 1)));
  const expected = new Int8Array(M * N);
  for (let m = 0; m < M; m++) for (let n = 0; n < N; n++) {
    let acc = 0;
    for (let k = 0; k < K; k++) acc += x[m * K + k] * natural[n * K + k];
    expected[m * N + n] = saturated(rescale(acc, muls[n], adds[n], shift));
  }
  const full = Math.floor(M / MR), rest = M % MR, n = index('n', N / NB);
  const panel = (rows: number, m0: number, ...m: [ReturnType<typeof index>, number][]): Stmt => call(tile(rows), [
    at(X, m0 * K, ...m.map(([i, s]) => [i, s * K] as const)), at(W, 0, [n, NB * K]), at(Mul, 0, [n, NB]), at(C, 0, [n, NB]), at(Y, m0 * N, ...m.map(([i, s]) => [i, s * N] as const), [n, NB])]);
  const m = index('m', Math.max(full, 1));
  const body = loop(n, [...(full > 0 ? [loop(m, [panel(MR, 0, [m, MR])])] : []), ...(rest > 0 ? [panel(rest, full * MR)] : [])]);
  return {
    program: program('gemm', [X, W, Mul, C, Y], [body]), out: Y, expected,
    memory: new Map<Buffer, Contents>([[X, x], [W, packed], [Mul, muls], [C, adds]]),
  };
};

/** 3×3 depthwise, stride 1, no border: y = narrow((Σ taps x·w)·m + c >> 34), channels innermost, x u8, w and y i8. */
export const depthwise = ({ H, W, C }: { readonly H: number; readonly W: number; readonly C: number }, machine: Machine, seed = 2): Sample => {
  const { lanes: L } = machine;
  const block = L === 1 ? 1 : 8;
  const [OH, OW] = [H - 2, W - 2];
  const x = buffer('x', 'u8', H * W * C, 'in'), w = buffer('w', 'i8', 9 * C, 'const'), y = buffer('y', 'i8', OH * OW * C, 'out');
  const multiplier = 99_000_000, addend = (3n << 34n) + (1n << 33n);
  const [oy, ox, c] = [index('oy', OH), index('ox', OW), index('c', C / block)];
  const taps = list(9, (t) => [Math.floor(t / 3), t % 3] as const);
  const tapX = (t: number, n: number, e: Elem): Expr => load(at(x, (taps[t][0] * W + taps[t][1]) * C, [oy, W * C], [ox, C], [c, block]), n, e);
  const tapW = (t: number, n: number, e: Elem): Expr => load(at(w, t * C, [c, block]), n, e);
  const to = at(y, 0, [oy, OW * C], [ox, C], [c, block]);
  const scalarBody = (): Stmt[] => {
    const acc = variable('acc', 'i32');
    return [
      set(acc, list(9, (t) => mul(tapX(t, 1, 'i32'), tapW(t, 1, 'i32'))).reduce((a, b) => add(a, b))),
      store(to, narrow('i8', dyadic(34, 'halves', acc, multiplier, addend)))];
  };
  const vectorBody = (): Stmt[] => {                                   // pairs of taps, interleaved for the dot product
    const acc = [variable('low', 'i32', 4), variable('high', 'i32', 4)];
    const pairs = list(5, (p) => [0, 1].map((h) => {
      const other = (tap: (t: number, n: number, e: Elem) => Expr): Expr => (2 * p + 1 < 9 ? tap(2 * p + 1, 8, 'i16') : zero('i16', 8));
      return set(acc[h], dot(2, acc[h], zip(h as 0 | 1, 1, tapX(2 * p, 8, 'i16'), other(tapX)), zip(h as 0 | 1, 1, tapW(2 * p, 8, 'i16'), other(tapW))));
    })).flat();
    const q = acc.map((v) => dyadic(34, 'halves', v, multiplier, addend));
    return [...acc.map((v) => set(v, 0)), ...pairs, store(to, narrow('i8', pack('i16', q[0], q[1])))];
  };
  const random = new Random(seed);
  const xs = Uint8Array.from({ length: H * W * C }, () => random.below(256)), ws = Int8Array.from({ length: 9 * C }, () => random.below(256) - 128);
  const expected = new Int8Array(OH * OW * C);
  for (let i = 0; i < OH; i++) for (let j = 0; j < OW; j++) for (let k = 0; k < C; k++) {
    const acc = taps.reduce((s, [dy, dx], t) => s + xs[((i + dy) * W + j + dx) * C + k] * ws[t * C + k], 0);
    expected[(i * OW + j) * C + k] = saturated(rescale(acc, multiplier, addend, 34));
  }
  return {
    program: program('depthwise', [x, w, y], [loop(oy, [loop(ox, [loop(c, L === 1 ? scalarBody() : vectorBody())])])]), out: y, expected,
    memory: new Map<Buffer, Contents>([[x, xs], [w, ws]]),
  };
};

/**
 * Row normalisation to Q14: n = ((C·x − s1)·y + half) >> (30 + k − 14), where y·2^−30·2^−k = 1/sqrt(D), D = C·s2 − s1² + 1: one
 * table look-up by the leading bits of D and one Newton step, in 64-bit scalars.
 */
export const normalise = (rows: number, C: number, machine: Machine, seed = 3): Sample => {
  const wide = machine.lanes > 1;
  const x = buffer('x', 'i8', rows * C, 'in'), seeds = buffer('seeds', 'u16', 192, 'const'), y = buffer('y', 'i16', rows * C, 'out');
  const r = index('r', rows), c = index('c', wide ? C / 8 : C), out = index('out', C);
  const [s1, s2] = [variable('s1', 'i32'), variable('s2', 'i32')];
  const sums: Stmt[] = wide
    ? ((): Stmt[] => {
      const [v, a, b] = [variable('v', 'i16', 8), variable('a', 'i32', 4), variable('b', 'i32', 4)];
      return [set(a, 0), set(b, 0), loop(c, [
        set(v, load(at(x, 0, [r, C], [c, 8]), 8, 'i16')), set(a, dot(2, a, v, literal(1, 'i16', 8))), set(b, dot(2, b, v, v))]),
      set(s1, across('add', a)), set(s2, across('add', b))];
    })()
    : [set(s1, 0), set(s2, 0), loop(c, [
      set(s1, add(s1, load(at(x, 0, [r, C], [c, 1]), 1, 'i32'))), set(s2, add(s2, mul(load(at(x, 0, [r, C], [c, 1]), 1, 'i32'), load(at(x, 0, [r, C], [c, 1]), 1, 'i32'))))])];
  const [D, k, d, y0, t, q, n] = [variable('D', 'i64'), variable('k', 'i32'), variable('d', 'i64'), variable('y0', 'i64'), variable('t', 'i64'), variable('q', 'i64'), variable('n', 'i64')];
  const i64 = (e: Expr): Expr => convert('i64', e);
  const step: Stmt[] = [
    set(D, add(sub(mul(i64(s2), C), mul(i64(s1), i64(s1))), 1)),
    set(k, shr(sub(65, convert('i32', clz(D))), 1)),
    // d = D·2^(32−2k) in [2^30, 2^32): one shift left, or one right
    set(d, select('le', k, 16, shl(D, and(sub(32, shl(k, 1)), 63)), shr(D, and(sub(shl(k, 1), 32), 63)))),
    set(y0, shl(convert('i64', load(at(seeds, 0, [clamp(sub(convert('i32', shr(d, 24)), 64), 0, 191), 1]))), 16)),
    set(t, shr(mul(y0, y0), 30)),
    set(t, shr(mul(t, d), 32)),
    set(q, shr(mul(y0, sub(3n << 30n, t)), 31)),
    loop(out, [
      set(n, sub(mul(i64(load(at(x, 0, [r, C], [out, 1]), 1, 'i32')), C), i64(s1))),
      set(n, shr(add(mul(n, q), shl(literal(1n, 'i64'), clamp(add(k, 15), 0, 62))), clamp(add(k, 16), 0, 63))),
      store(at(y, 0, [r, C], [out, 1]), narrow('i16', n)),
    ]),
  ];
  const random = new Random(seed);
  const xs = Int8Array.from({ length: rows * C }, (_, i) => (i < C ? 7 : random.below(256) - 128));
  const table = Uint16Array.from({ length: 192 }, (_, i) => Math.round(2 ** 14 / Math.sqrt((i + 64.5) / 256)));
  const expected = new Int16Array(rows * C);
  for (let row = 0; row < rows; row++) {
    const values = [...xs.subarray(row * C, row * C + C)].map(BigInt);
    const a = values.reduce((s, v) => s + v, 0n), b = values.reduce((s, v) => s + v * v, 0n), big = BigInt(C) * b - a * a + 1n;
    const kk = BigInt(Math.ceil(big.toString(2).length / 2));
    const dd = kk <= 16n ? big << (32n - 2n * kk) : big >> (2n * kk - 32n);
    const first = BigInt(table[Number(dd >> 24n) - 64]) << 16n;
    const newton = (first * ((3n << 30n) - ((((first * first) >> 30n) * dd) >> 32n))) >> 31n;
    values.forEach((v, i) => {
      const value = ((BigInt(C) * v - a) * newton + (1n << (kk + 15n))) >> (kk + 16n);
      expected[row * C + i] = Math.min(Math.max(Number(value), -32768), 32767);
    });
  }
  return { program: program('normalise', [x, seeds, y], [loop(r, [...sums, ...step])]), out: y, expected, memory: new Map<Buffer, Contents>([[x, xs], [seeds, table]]) };
};

/** y = table[x xor 128], then the running maximum of each row in the last column: a byte table, an index argument, a parallel loop. */
export const table = (rows: number, C: number, machine: Machine, seed = 4): Sample => {
  const n = machine.lanes === 1 ? 1 : 16;
  const X = buffer('X', 'i8', rows * C, 'in'), T = buffer('T', 'i8', 256, 'const'), Y = buffer('Y', 'i8', rows * C, 'out');
  const [x, t, y] = [buffer('x', 'i8', rows * C, 'in'), buffer('t', 'i8', 256, 'const'), buffer('y', 'i8', rows * C, 'out')];
  const [row, c, r] = [index('row', rows), index('c', C / n), index('r', rows)];
  const largest = variable('largest', 'i8', n);
  const line = fn('line', { buffers: [x, t, y], indices: [row] }, [
    set(largest, -128),
    loop(c, [
      set(largest, max(largest, lookup(at(t), convert('u8', xor(load(at(x, 0, [row, C], [c, n]), n), -128))))),
      store(at(y, 0, [row, C], [c, n]), lookup(at(t), convert('u8', xor(load(at(x, 0, [row, C], [c, n]), n), -128)))),
    ]),
    store(at(y, C - 1, [row, C]), across('max', largest)),
  ]);
  const random = new Random(seed);
  const xs = Int8Array.from({ length: rows * C }, () => random.below(256) - 128), ts = Int8Array.from({ length: 256 }, () => random.below(200) - 128);
  const expected = Int8Array.from(xs, (v) => ts[v + 128]);
  for (let i = 0; i < rows; i++) expected[i * C + C - 1] = Math.max(...expected.subarray(i * C, i * C + C));
  return {
    program: program('table', [X, T, Y], [loop(r, [call(line, [X, T, Y], [affine(rows - 1, [r, -1])])], 'parallel')]), out: Y, expected,
    memory: new Map<Buffer, Contents>([[X, xs], [T, ts]]),
  };
};

/** Every sample on both kinds of machine. */
export const samples = (machine: Machine): readonly Sample[] => [
  gemm({ M: 13, K: 64, N: 32 }, machine), gemm({ M: 3, K: 32, N: 16 }, machine), depthwise({ H: 5, W: 6, C: 48 }, machine), normalise(4, 48, machine), table(5, 48, machine)];
