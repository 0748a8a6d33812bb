/** Matrix product and depthwise convolution written by hand for machines with wide vectors, with plain references. */
import {
  at, buffer, constants, dot, dyadic, grid, index, list, load, loop, narrow, pack, program, set, splat, store, variable, zero, zip,
} from '../../src/loops/build.ts';
import { interpret } from '../../src/loops/interpret.ts';
import type { Buffer, Contents, Elem, Expr, Pairing, Stmt } from '../../src/loops/types.ts';
import { Random } from '../loops/random-programs.ts';
import type { Sample } from '../loops/samples.ts';

export interface Shape {
  /** i32 lanes of a vector of sums */
  readonly lanes: number;
  /** neighbours that a dot product joins */
  readonly d: 2 | 4;
  readonly pairing: Pairing | null;
  /** element of the stored activations: what the dot product takes, or one that widens to it */
  readonly x: 'u8' | 'i8' | 'i16';
  /** rows and vectors of the register tile of a matrix product */
  readonly tile: readonly [rows: number, vectors: number];
}

const SHIFT = 38;
const saturated = (x: number): number => Math.min(Math.max(x, -128), 127);
const rescaled = (acc: number, m: number, c: bigint): number => saturated(Number((BigInt(acc) * BigInt(m) + c) >> BigInt(SHIFT)));

/** One, two or four vectors of 32-bit codes as one vector of bytes. */
const joined = (q: readonly Expr[]): Expr => (
  q.length === 1 ? narrow('i8', q[0]) : q.length === 2 ? narrow('i8', pack('i16', q[0], q[1])) : pack('i8', pack('i16', q[0], q[1]), pack('i16', q[2], q[3])));
/** The lanes of an expression in lane numbers. */
const lanesOf = (e: Expr, inputs: readonly Buffer[]): readonly number[] => {
  const y = buffer('y', e.type.e, e.type.n, 'out');
  return [...(interpret(program('order', [...inputs, y], [store(at(y), e)]), new Map()).get(y)! as Iterable<number>)];
};
/** Which lane of which vector `joined` puts at each place, counted through all vectors. */
const order = (vectors: number, lanes: number): readonly number[] => {
  const inputs = list(vectors, (v) => constants(`v${v}`, Int32Array.from({ length: lanes }, (_, i) => v * lanes + i)));
  return lanesOf(joined(inputs.map((b) => load(at(b), lanes))), inputs);
};

/** The addends of a vector of sums, as the pairing wants them. */
const addends = (c: Buffer, L: number, from: readonly (readonly [ReturnType<typeof index>, number])[], offset: number): readonly Expr[] =>
  (L === 1 ? [load(at(c, offset, ...from))] : [load(at(c, offset, ...from), L / 2), load(at(c, offset + L / 2, ...from), L / 2)]);
const paired = (c: readonly bigint[], L: number, pairing: Pairing | null): readonly bigint[] =>
  (L === 1 || pairing === 'halves' ? c : [...c.filter((_, i) => i % 2 === 0), ...c.filter((_, i) => i % 2 === 1)]);
const chunks = <T>(items: readonly T[], size: number): readonly (readonly T[])[] => list(Math.ceil(items.length / size), (i) => items.slice(i * size, i * size + size));

const randomScales = (random: Random, n: number): { readonly muls: Int32Array; readonly adds: readonly bigint[] } => ({
  muls: Int32Array.from({ length: n }, (_, i) => (i % 7 === 0 ? 2 ** 31 - 1 : random.below(2 ** 26) + 2 ** 22)),
  adds: list(n, () => (BigInt(random.below(100) - 50) << BigInt(SHIFT)) + (1n << BigInt(SHIFT - 1))),
});
const randomCodes = (random: Random, e: 'u8' | 'i8' | 'i16', n: number): Contents => {
  const value = (): number => (random.below(10) === 0 ? random.pick([0, 255]) : random.below(256));
  return e === 'u8' ? Uint8Array.from({ length: n }, value) : e === 'i8' ? Int8Array.from({ length: n }, () => value() - 128) : Int16Array.from({ length: n }, () => value() - 128);
};

/** y[m, n] = saturate((Σ_k x[m, k]·w[n, k])·mul[n] + add[n] >> shift) to i8; weights in panels of columns, d neighbours along k together. */
export const gemm = ({ M, K, N }: { readonly M: number; readonly K: number; readonly N: number }, { lanes: L, d, pairing, x: xe, tile: [MR, NV] }: Shape, seed = 1): Sample => {
  const NB = NV * L;
  const e: Elem = d === 4 ? xe : 'i16';
  const be: Elem = d === 4 ? 'i8' : 'i16';
  const group = L === 1 ? 1 : NV % 4 === 0 ? 4 : NV % 2 === 0 ? 2 : 1;
  const X = buffer('X', xe, M * K, 'in'), W = buffer('W', 'i8', N * K, 'const'), Y = buffer('Y', 'i8', M * N, 'out');
  const Mul = buffer('Mul', 'i32', N, 'const'), C = buffer('C', 'i64', N, 'const');
  const tile = (rows: number, m0: number, count: number, n: ReturnType<typeof index>): Stmt => {
    const m = index('m', count), k = index('k', K / d);
    const acc = grid(rows, NV, (i, j) => variable(`acc${i}_${j}`, 'i32', L));
    const b = list(NV, (j) => variable(`b${j}`, be, d * L));
    const a = variable('a', e, d * L);
    const finish = (i: number): Stmt[] => chunks(acc[i], group).map((some, g) => store(at(Y, (m0 + i) * N + g * group * L, [m, rows * N], [n, NB]), joined(some.map((v, j) =>
      dyadic(SHIFT, pairing ?? 'halves', v, load(at(Mul, (g * group + j) * L, [n, NB]), L), addends(C, L, [[n, NB]], (g * group + j) * L))))));
    return loop(m, [
      ...acc.flat().map((v) => set(v, 0)),
      loop(k, [
        ...b.map((v, j) => set(v, load(at(W, j * d * L, [n, NB * K], [k, NB * d]), d * L, be))),
        ...list(rows, (i) => [set(a, splat(at(X, (m0 + i) * K, [m, rows * K], [k, d]), d, L, e)), ...b.map((v, j) => set(acc[i][j], dot(d, acc[i][j], a, v), { pin: true }))]).flat(),
      ]),
      ...list(rows, finish).flat(),
    ]);
  };
  const random = new Random(seed);
  const x = randomCodes(random, xe, M * K);
  const weights = Int8Array.from({ length: N * K }, () => random.pick([-128, 127, random.below(256) - 128]));
  const { muls, adds } = randomScales(random, N);
  // place p of a group of vectors holds the sum of vector·lane places[p], so that column belongs there
  const places = order(group, L);
  const columnOf = new Map(places.map((lane, p) => [lane, p]));
  const column = (n: number): number => { const within = n % (group * L); return n - within + columnOf.get(within)!; };
  const packed = new Int8Array(N * K);
  for (let n = 0; n < N; n++) for (let k = 0; k < K; k++) packed[Math.floor(n / NB) * NB * K + Math.floor(k / d) * NB * d + (n % NB) * d + (k % d)] = weights[column(n) * K + k];
  const expected = new Int8Array(M * N);
  for (let m = 0; m < M; m++) for (let n = 0; n < N; n++) {
    let acc = 0;
    for (let k = 0; k < K; k++) acc += Number(x[m * K + k]) * weights[n * K + k];
    expected[m * N + n] = rescaled(acc, muls[n], adds[n]);
  }
  const n = index('n', N / NB);
  const full = Math.floor(M / MR), rest = M % MR;
  const body = loop(n, [...(full > 0 ? [tile(MR, 0, full, n)] : []), ...(rest > 0 ? [tile(rest, full * MR, 1, n)] : [])]);
  return {
    program: program('gemm', [X, W, Mul, C, Y], [body]), out: Y, expected,
    memory: new Map<Buffer, Contents>([[X, x], [W, packed], [Mul, Int32Array.from({ length: N }, (_, i) => muls[column(i)])],
      [C, BigInt64Array.from(chunks(list(N, (i) => adds[column(i)]), L).flatMap((some) => paired(some, L, pairing)))]]),
  };
};

/**
 * 3×3 depthwise convolution, stride 1, of a bordered image: y[i, j, c] from x[i…i+2, j…j+2, c]. The rows of one column are interleaved
 * so that neighbours belong to one channel; each column serves three outputs as it slides through the registers.
 */
export const depthwise = ({ H, W, C }: { readonly H: number; readonly W: number; readonly C: number }, { lanes: L, d, pairing, x: xe }: Shape, seed = 2): Sample => {
  const P = d * L;                                                    // channels of a step
  const groups = Math.ceil(3 / d);                                    // vectors of rows in a column
  const e: Elem = d === 4 ? xe : 'i16';
  const be: Elem = d === 4 ? 'i8' : 'i16';
  const X = buffer('X', xe, (H + 2) * (W + 2) * C, 'in'), Wt = buffer('W', be, 3 * groups * d * C, 'const'), Y = buffer('Y', 'i8', H * W * C, 'out');
  const Mul = buffer('Mul', 'i32', C, 'const'), Add = buffer('Add', 'i64', C, 'const');
  const interleaved = (rows: readonly Expr[]): readonly Expr[] => {
    if (rows.length === 2) return [zip(0, 1, rows[0], rows[1]), zip(1, 1, rows[0], rows[1])];
    const halves = ([0, 1] as const).map((h) => [zip(h, 1, rows[0], rows[1]), zip(h, 1, rows[2], rows[3])]);
    return halves.flatMap(([a, b]) => [zip(0, 2, a, b), zip(1, 2, a, b)]);
  };
  const c = index('c', C / P), y = index('y', H);
  const columns = grid(3, groups * d, (t, v) => variable(`x${t}_${v}`, e, P));
  const fill = (column: readonly ReturnType<typeof variable>[], offset: number, ...terms: (readonly [ReturnType<typeof index>, number])[]): Stmt[] => {
    const row = list(groups * d, (r) => (r < 3 ? variable(`r${r}`, e, P) : zero(e, P)));
    const rows = row.map((v, r): Stmt[] => (v.op === 'var' ? [set(v, load(at(X, (r * (W + 2) + offset) * C, [y, (W + 2) * C], [c, P], ...terms), P, e))] : [])).flat();
    return [...rows, ...chunks(row, d).flatMap((some, g) => interleaved(some).map((v, i) => set(column[g * d + i], v)))];
  };
  const acc = list(d, (v) => variable(`acc${v}`, 'i32', L));
  const weight = (t: number, v: number): Expr => load(at(Wt, (t * groups * d + v) * P, [c, 3 * groups * d * P]), P);
  const m = list(d, (v) => variable(`m${v}`, 'i32', L));
  const add = list(d, () => list(2, (h) => variable(`add${h}`, 'i64', L / 2)));
  const random = new Random(seed);
  const xs = randomCodes(random, xe, X.length);
  const weights = Int8Array.from({ length: 9 * C }, () => random.pick([-128, 127, random.below(256) - 128]));   // [ky, kx, c]
  const { muls, adds } = randomScales(random, C);
  // the channel of each lane of each sum, from interleaving channel numbers
  const counting = list(P, (i) => i);
  const numbers = constants('numbers', d === 2 ? Int16Array.from(counting) : xe === 'u8' ? Uint8Array.from(counting) : Int8Array.from(counting));
  const channels = interleaved(list(d, () => load(at(numbers), P))).map((v) => lanesOf(v, [numbers]).filter((_, i) => i % d === 0));
  const packedW = d === 4 ? new Int8Array(Wt.length) : new Int16Array(Wt.length);
  for (let block = 0; block < C / P; block++) for (let t = 0; t < 3; t++) for (let g = 0; g < groups; g++) for (let v = 0; v < d; v++) for (let lane = 0; lane < L; lane++) for (let r = 0; r < d; r++) {
    const ky = g * d + r;
    packedW[(((block * 3 + t) * groups + g) * d + v) * P + lane * d + r] = ky < 3 ? weights[(ky * 3 + t) * C + block * P + channels[v][lane]] : 0;
  }
  const scaled = <T>(values: readonly T[]): readonly T[] => chunks(values, P).flatMap((block) => channels.flatMap((some) => some.map((i) => block[i])));
  const expected = new Int8Array(H * W * C);
  for (let i = 0; i < H; i++) for (let k = 0; k < W; k++) for (let ch = 0; ch < C; ch++) {
    let sum = 0;
    for (let ky = 0; ky < 3; ky++) for (let kx = 0; kx < 3; kx++) sum += Number(xs[((i + ky) * (W + 2) + k + kx) * C + ch]) * weights[(ky * 3 + kx) * C + ch];
    expected[(i * W + k) * C + ch] = rescaled(sum, muls[ch], adds[ch]);
  }
  // three outputs at a time, so that columns change their roles without moving
  const [j, whole] = [index('j', Math.max(1, Math.floor(W / 3))), 3 * Math.floor(W / 3)];
  const output = (phase: number, offset: number, ...terms: (readonly [ReturnType<typeof index>, number])[]): Stmt[] => {
    const column = (t: number): readonly ReturnType<typeof variable>[] => columns[(phase + t) % 3];
    return [
      ...fill(column(2), offset + 2, ...terms),
      ...acc.map((v) => set(v, zero('i32', L))),
      ...list(3, (t) => list(groups * d, (v) => set(acc[v % d], dot(d, acc[v % d], column(t)[v], weight(t, v))))).flat(),
      store(at(Y, offset * C, [y, W * C], [c, P], ...terms), joined(acc.map((v, i) => dyadic(SHIFT, pairing ?? 'halves', v, m[i], add[i])))),
    ];
  };
  const body = loop(c, [
    ...m.map((v, i) => set(v, load(at(Mul, i * L, [c, P]), L))), ...add.flatMap((pair, i) => pair.map((v, h) => set(v, load(at(Add, i * L + (h * L) / 2, [c, P]), L / 2)))),
    loop(y, [
      ...fill(columns[0], 0), ...fill(columns[1], 1),
      ...(whole === 0 ? [] : [loop(j, list(3, (p) => output(p, p, [j, 3 * C])).flat())]), ...list(W - whole, (p) => output(p, whole + p)).flat(),
    ]),
  ]);
  return {
    program: program('depthwise', [X, Wt, Mul, Add, Y], [body]), out: Y, expected,
    memory: new Map<Buffer, Contents>([[X, xs], [Wt, packedW], [Mul, Int32Array.from(scaled([...muls]))],
      [Add, BigInt64Array.from(chunks(scaled(adds), L).flatMap((some) => paired(some, L, pairing)))]]),
  };
};
