/** Random loop programs for differential tests: typed expressions over every operation, edge values everywhere. */
import {
  across, add, addSat, addWrap, affine, and, at, bitsOf, broadcast, buffer, bytesOf, call, clamp, clz, convert, dot, dyadic, dyadic2, fn, index, isSigned, limitsOf,
  list, literal, load, lookup, loop, max, min, mul, mulQ15, mulWrap, narrow, or, pack, parameter, pick, program, reduce, select, set, shl, shr, shru, sizeOf, splat, store,
  subSat, subWrap, sum, type, variable, widen, xor, zip,
} from '../../src/loops/build.ts';
import { allocateContents } from '../../src/loops/interpret.ts';
import type { Buffer, Contents, Elem, Expr, Index, Pairing, Program, Stmt, Type, Var } from '../../src/loops/types.ts';

export const elements: readonly Elem[] = ['i8', 'u8', 'i16', 'u16', 'i32', 'u32', 'i64'];

/** A small generator of random numbers (mulberry32); tests need only that it repeats. */
export class Random {
  private state: number;
  constructor(seed: number) {
    this.state = seed >>> 0;
  }
  below(n: number): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  }
  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)];
  }
  /** An edge of the element's range in half of the cases, else anything. */
  value(e: Elem): bigint {
    const [low, high] = limitsOf(e);
    if (this.below(2) === 0) return this.pick([low, low + 1n, high, high - 1n, 0n, 1n, isSigned(e) ? -1n : 2n, high / 2n, high / 2n + 1n]);
    const bits = list(4, () => BigInt(this.below(65536))).reduce((a, b) => (a << 16n) | b);
    const cut = bits >> BigInt(this.below(bitsOf(e)));
    return isSigned(e) ? BigInt.asIntN(bitsOf(e), this.below(2) === 0 ? cut : -cut) : BigInt.asUintN(bitsOf(e), cut);
  }
}

export const randomContents = (random: Random, e: Elem, length: number): Contents => {
  const data = allocateContents(e, length);
  for (let i = 0; i < length; i++) data[i] = e === 'i64' ? random.value(e) : Number(random.value(e));
  return data;
};

/** What random vectors may be. */
export interface Vectors {
  /** sizes in bytes */
  readonly sizes: readonly number[];
  readonly pairing: Pairing;
  /** elements of the first operand of a dot product of bytes */
  readonly quads: readonly Elem[];
  /** whether parts of a register have group splats, dot products and reductions too, and bytes have products */
  readonly parts: boolean;
}
export const simd128Vectors: Vectors = { sizes: [4, 8, 16], pairing: 'halves', quads: [], parts: false };

const ITERATIONS = 3;
interface Context {
  readonly random: Random;
  readonly inputs: Readonly<Record<Elem, Buffer>>;
  readonly table: Readonly<Record<Elem, Buffer>>;
  readonly i: Index;
  readonly m: Index;
  readonly vars: Var[];
  readonly shift: Var;
  readonly vectors: Vectors | null;
  /** elements of each input, and of the results of each statement */
  readonly length: number;
}

export interface Case {
  readonly program: Program;
  readonly memory: ReadonlyMap<Buffer, Contents>;
}

/** `size` statements, with these vectors or with scalars only; `true` stands for vectors of at most sixteen bytes. */
export const randomCase = (seed: number, size: number, lanes: boolean | Vectors, name = 'run'): Case => {
  const random = new Random(seed);
  const vectors = lanes === true ? simd128Vectors : lanes === false ? null : lanes;
  const length = vectors === null ? 64 : Math.max(64, 4 * Math.max(...vectors.sizes));
  const buffers = (prefix: string, length: number, role: Buffer['role']) =>
    Object.fromEntries(elements.map((e) => [e, buffer(`${prefix}_${e}`, e, length, role)])) as Record<Elem, Buffer>;
  const [x, table, y] = [buffers('x', length, 'in'), buffers('table', 256, 'in'), buffers('y', length * size, 'out')];
  const context: Context = { random, inputs: x, table, i: index('i', ITERATIONS), m: index('m', 2), vars: [], shift: parameter('shift', 'i32', 0, 7), vectors, length };
  const body: Stmt[] = [];
  for (let n = 0; n < size; n++) {
    const t = randomType(context);
    const e = expression(context, t, 1 + random.below(3));
    if (random.below(3) === 0) {
      const v = variable(`v${n}`, t.e, t.n);
      body.push(set(v, e, { pin: random.below(4) === 0 && t.n === 1 }));
      context.vars.push(v);
    } else body.push(store(at(y[t.e], length * n, [context.i, t.n]), e));
  }
  const inner = fn('statements', { buffers: [...Object.values(x), ...Object.values(table), ...Object.values(y)], indices: [context.m], values: [context.shift], note: 'a random body' },
    [loop(context.i, body)]);
  const [statics, tables, outs] = [buffers('in', length + 16, 'in'), buffers('lut', 256, 'const'), buffers('out', length * size, 'out')];
  const all = [...Object.values(statics), ...Object.values(tables), ...Object.values(outs)];
  const outer = index('outer', 2);
  const run = program(name, all, [loop(outer, [
    call(inner, [...Object.values(statics).map((b) => at(b, 3, [outer, 5])), ...Object.values(tables), ...Object.values(outs)], [affine(1, [outer, -1])], [random.below(8)], 'from a loop'),
  ])]);
  return { program: run, memory: new Map([...Object.values(statics), ...Object.values(tables)].map((b) => [b, randomContents(random, b.e, b.length)])) };
};

/** Lane counts of the vectors of an element. */
const lanesOf = (vectors: Vectors, e: Elem): readonly number[] => vectors.sizes.map((size) => size / bytesOf(e)).filter((n) => n >= 2);
const randomType = ({ random, vectors }: Context): Type => {
  const e = random.pick(elements);
  const lanes = vectors === null ? [] : lanesOf(vectors, e);
  return lanes.length > 0 && random.below(4) > 0 ? type(e, random.pick(lanes)) : type(e);
};
const narrower = (e: Elem): readonly Elem[] => elements.filter((x) => bitsOf(x) < bitsOf(e) && (isSigned(e) || !isSigned(x)));

const leaf = (c: Context, t: Type): Expr => {
  const { random, inputs, i, m } = c;
  const source = random.below(3) === 0 ? random.pick([t.e, ...narrower(t.e)]) : t.e;
  const known = c.vars.filter((v) => v.type.e === t.e && v.type.n === t.n);
  if (known.length > 0 && random.below(3) === 0) return random.pick(known);
  switch (random.below(4)) {
    case 0: return literal(random.value(t.e), t.e, t.n);
    case 1:
      if (t.n > 1) {
        const k = random.pick([1, 2, 4, 8, 16, 32].filter((n) => n < t.n && (c.vectors!.parts || sizeOf(t) === 16)));
        return k === undefined ? load(at(inputs[source], 2, [i, t.n]), t.n, t.e) : splat(at(inputs[source], random.below(8), [i, 3]), k, t.n / k, t.e);
      }
      return load(at(inputs[source], 4 + random.below(4), [i, -2], [m, 9]), 1, t.e);
    case 2:
      return random.below(2) === 0 ? lookup(at(c.table[source], 0), load(at(inputs.u8, 1, [i, 7]), t.n), t.e) : lookup(at(c.table[source], 128), load(at(inputs.i8, 2, [i, 5]), t.n), t.e);
    default: return load(at(inputs[source], random.below(c.length - t.n * ITERATIONS - 8), [i, t.n], [m, 8]), t.n, t.e);
  }
};
/** Values of few bits, so that exact sums and products fit. */
const small = (c: Context, t: Type): Expr => load(at(c.inputs.i8, c.random.below(8), [c.i, 2]), t.n, t.e);

const expression = (c: Context, t: Type, depth: number): Expr => {
  if (depth === 0) return leaf(c, t);
  const { random } = c;
  const { e, n } = t;
  const bits = bitsOf(e);
  const next = (like: Type = t): Expr => expression(c, like, depth - 1);
  const full = sizeOf(t) >= 16;
  const widest = Math.max(...c.vectors?.sizes ?? [8]);
  const count = (): Expr | number => (random.below(2) === 0 ? random.below(bits) : random.below(2) === 0 ? c.shift : and(next(type('i32')), bits - 1));
  const sameWidth = elements.filter((x) => bitsOf(x) === bits);
  const choices: (() => Expr)[] = [
    () => random.pick([addWrap, subWrap])(next(), next()),
    () => (n > 1 && bits === 8 && !c.vectors!.parts ? next() : mulWrap(next(), next())),
    () => random.pick([min, max, and, or, xor])(next(), next()),
    () => random.pick([shl, shr, shru])(next(), count()),
    () => {
      const compared = type(n === 1 ? random.pick(elements) : random.pick(sameWidth), n);
      return select(random.pick(['eq', 'ne', 'lt', 'le', 'gt', 'ge']), next(compared), next(compared), next(), next());
    },
    () => convert(e, next(type(n === 1 ? random.pick(elements) : random.pick(sameWidth), n))),
  ];
  if (n > 1) choices.push(() => broadcast(next(type(e)), n));
  if (bits <= 16) {
    choices.push(() => random.pick([addSat, subSat])(next(), next()));
    const wide: Elem = random.pick((n === 1 ? ['i16', 'i32', 'i64'] as const : ['i16', 'i32'] as const).filter((w) => bitsOf(w) > bits && (n === 1 || (bitsOf(w) / 8) * n <= widest)));
    if (wide !== undefined) choices.push(() => narrow(e, next(type(wide, n))));
  }
  if (n === 1 && bits >= 32) choices.push(() => clz(next()));
  if (e === 'i16') choices.push(() => mulQ15(next(), max(next(), -32767)));
  if (isSigned(e) && bits >= 16) {
    choices.push(() => add(small(c, t), small(c, t)));
    if (n === 1 || bits > 16) choices.push(() => mul(small(c, t), small(c, t)));
  }
  if (n > 1 && bits > 8) {
    const half: Elem = ({ i16: 'i8', u16: 'u8', i32: 'i16', u32: 'u16', i64: random.pick(['i32', 'u32'] as const), i8: 'i8', u8: 'u8' } as const)[e];
    choices.push(() => widen(random.pick([0, 1]), next(type(half, 2 * n))), () => convert(e, next(type(half, n))));
    choices.push(() => { const h = random.pick([0, 1] as const); const like = type(half, 2 * n); return mulWrap(widen(h, next(like)), widen(h, next(like))); });
  }
  if (n > 1) {
    const narrow = random.pick(narrower(e).filter((from) => bitsOf(from) < bits && bytesOf(from) * n >= 2));
    if (narrow !== undefined) choices.push(() => convert(e, next(type(narrow, n))));
    const by = random.pick(elements.filter((x) => bytesOf(x) * n <= widest));
    choices.push(() => lookup(at(c.table[random.pick([e, ...narrower(e)])]), and(next(type(by, n)), 127), e));
  }
  if (c.vectors !== null && c.vectors.sizes.includes(16) && n > 1 && bits <= 16 && e !== 'u16') {
    const bytes = (from: Elem): Expr => load(at(c.inputs[from], random.below(8)), 16);
    const index = (): Expr => and(next(type(bits === 8 ? random.pick(['i8', 'u8'] as const) : 'i16', n)), random.pick([3, 7, 15]));
    const fromZero = (): Expr => { const start = at(c.inputs.u8, random.below(8)); return subWrap(load(start, 16), broadcast(load(start), 16)); };
    choices.push(() => pick(bits === 8 ? bytes(e) : fromZero(), index()));
  }
  if (full) choices.push(() => zip(random.pick([0, 1]), random.pick([1, 2, 4, 8].map((u) => u / bytesOf(e)).filter((u) => u >= 1)), next(), next()));
  if (full && bits <= 16) { const wide = type(bits === 8 ? 'i16' : 'i32', n / 2); choices.push(() => pack(e, next(wide), next(wide))); }
  if (e === 'i32' && (n === 1 || full)) {
    const i64 = type('i64', n === 1 ? 1 : n / 2);
    const pairing = n === 1 ? 'halves' : c.vectors!.pairing;
    const factor = (): Expr => literal(random.below(2 ** 31 - 1), 'i32', n);
    const addends = (): Expr[] => list(n === 1 ? 1 : 2, () => shr(next(i64), 1));
    choices.push(() => dyadic(random.pick([0, 5, 31, 32, 33, 40, 62]), pairing, next(), factor(), addends()));
    choices.push(() => dyadic(random.pick([add(c.shift, random.pick([3, 32])), add(and(next(type('i32')), 31), 20)]), pairing, next(), factor(), addends()));
    choices.push(() => dyadic2(32 + random.below(8), pairing, shr(next(), 2), factor(), shr(next(), 2), shr(next(), 4), addends()));
    choices.push(() => dot(1, small(c, t), small(c, t), small(c, t)));
  }
  if (e === 'i32' && c.vectors !== null && (full || c.vectors.parts)) {
    const { quads } = c.vectors;
    choices.push(() => dot(2, small(c, t), small(c, type('i16', 2 * n)), small(c, type('i16', 2 * n))));
    if (quads.length > 0) choices.push(() => dot(4, small(c, t), next(type(random.pick(quads), 4 * n)), next(type('i8', 4 * n))));
    // 2·255·64 < 2^15
    if (quads.length > 0) choices.push(() => dot(4, small(c, t), next(type(random.pick(quads), 4 * n)), shr(next(type('i8', 4 * n)), 1), true));
    if (n > 1) choices.push(() => { const k = random.pick([2, 4, 8, 16].filter((groups) => n % groups === 0)); return reduce(k, list(k, () => small(c, t))); });
  }
  if (n === 1 && c.vectors !== null && lanesOf(c.vectors, e).length > 0) {
    const lanes = random.pick(lanesOf(c.vectors, e));
    choices.push(() => across(random.pick(['min', 'max']), next(type(e, lanes))));
    if (isSigned(e) && bits >= 16) choices.push(() => across('add', small(c, type(e, lanes))));
  }
  if (n === 1 && bits >= 16 && isSigned(e)) choices.push(() => sum(list(3, () => small(c, t))));
  if (n === 1) choices.push(() => load(at(c.table[e], 100, [clamp(convert('i32', next(type(random.pick(['i8', 'i16', 'i32', 'u32'] as const)))), -20, 30), 3]), 1));
  return random.pick(choices)();
};

/** Where two results of a program differ first, or null. */
export const firstDifference = (
  { buffers }: Program, expected: ReadonlyMap<Buffer, Contents>, of: (b: Buffer) => Contents,
): { readonly buffer: string; readonly element: number; readonly expected: string; readonly got: string } | null => {
  for (const b of buffers.filter(({ role }) => role === 'out')) {
    const [want, got] = [expected.get(b)!, of(b)];
    for (let i = 0; i < b.length; i++) if (want[i] !== got[i]) return { buffer: b.name, element: i, expected: String(want[i]), got: String(got[i]) };
  }
  return null;
};
