/**
 * The meaning of loop programs, and the oracle of the printers. Plain and slow; it stops with a LoopError where a program leaves a
 * buffer, reads a variable before it is set, shifts too far, or breaks the promise of an exact operation.
 */
import { bitsOf, bytesOf, isSigned, limitsOf, showType } from './build.ts';
import { LoopError, type Address, type Affine, type Binary, type Buffer, type Compare, type Contents, type Elem, type Expr, type Fn, type Index, type Program, type Stmt, type Var } from './types.ts';
import { addressOf } from './walk.ts';

/** Lanes of a value; bigint for i64, else numbers. */
type Lane = number | bigint;
type Lanes = readonly Lane[];

const arrays = { i8: Int8Array, u8: Uint8Array, i16: Int16Array, u16: Uint16Array, i32: Int32Array, u32: Uint32Array, i64: BigInt64Array } as const;
/** A zeroed array for the elements of a buffer. */
export const allocateContents = (e: Elem, length: number): Contents => new arrays[e](length);
/** The same bytes as elements of another type, from element `start` on. */
const viewed = (data: Contents, e: Elem, start: number, length: number): Contents =>
  new arrays[e](data.buffer as ArrayBuffer, data.byteOffset + start * bytesOf(e), length);

interface Frame {
  readonly place: string;
  readonly buffers: ReadonlyMap<Buffer, Contents>;
  readonly indices: Map<Index, number>;
  readonly values: Map<Var, Lanes>;
}

/**
 * Runs the body on the arrays in `memory`, in place; constant buffers may be left out where the program brings their contents, and
 * temporaries are allocated where absent. Returns the memory, complete.
 */
export const interpret = (program: Program, memory: ReadonlyMap<Buffer, Contents>): ReadonlyMap<Buffer, Contents> => {
  const buffers = new Map<Buffer, Contents>();
  for (const b of program.buffers) {
    const data = memory.get(b) ?? b.data ?? allocateContents(b.e, b.length);
    if (data.length !== b.length) throw new LoopError(`${b.name} has ${b.length} elements, not ${data.length}`);
    buffers.set(b, data);
  }
  run(program.body, { place: program.name, buffers, indices: new Map(), values: new Map() });
  return buffers;
};

const run = (body: readonly Stmt[], frame: Frame): void => {
  for (const stmt of body) {
    switch (stmt.s) {
      case 'set': frame.values.set(stmt.v, evaluate(stmt.e, frame)); break;
      case 'store': {
        const lanes = evaluate(stmt.e, frame);
        const [data, start] = locate(stmt.at, lanes.length, frame);
        lanes.forEach((lane, i) => { data[start + i] = lane; });
        break;
      }
      case 'for':
        for (let i = 0; i < stmt.index.count; i++) {
          frame.indices.set(stmt.index, i);
          run(stmt.body, frame);
        }
        frame.indices.delete(stmt.index);
        break;
      case 'call': enter(stmt.fn, stmt, frame);
    }
  }
};

const enter = (fn: Fn, { args }: Extract<Stmt, { s: 'call' }>, frame: Frame): void => {
  const buffers = new Map<Buffer, Contents>();
  fn.buffers.forEach((param, i) => {
    const [data, start] = locate(args.buffers[i], param.length, frame);
    buffers.set(param, viewed(data, param.e, start, param.length));
  });
  const indices = new Map(fn.indices.map((param, i) => [param, affineValue(args.indices[i], frame)] as const));
  const values = new Map(fn.values.map((param, i) => [param, evaluate(args.values[i], frame)] as const));
  run(fn.body, { place: fn.name, buffers, indices, values });
};

const stop = (frame: Frame, why: string): never => { throw new LoopError(`${frame.place}: ${why}`); };

const affineValue = ({ offset, terms }: Affine, frame: Frame): number =>
  terms.reduce((s, [i, stride]) => s + (frame.indices.get(i) ?? stop(frame, `index ${i.name} is not bound`)) * stride, offset);

/** The array of an address and the position in it of the first of `length` elements. */
const locate = (a: Address, length: number, frame: Frame): readonly [Contents, number] => {
  const data = frame.buffers.get(a.buffer) ?? stop(frame, `buffer ${a.buffer.name} is not declared here`);
  const computed = a.computed === null ? 0 : Number(evaluate(a.computed.value, frame)[0]) * a.computed.stride;
  const start = affineValue(a, frame) + computed;
  if (start < 0 || start + length > data.length) stop(frame, `${a.buffer.name}: elements ${start} … ${start + length - 1} of ${data.length}`);
  return [data, start];
};

/** The low bits of an exact result, as the element holds them. */
const wrap = (value: Lane, e: Elem): Lane => {
  const bits = bitsOf(e);
  if (typeof value === 'number' && Number.isSafeInteger(value) && bits < 64) {
    const low = value - Math.floor(value / 2 ** bits) * 2 ** bits;
    return isSigned(e) && low >= 2 ** (bits - 1) ? low - 2 ** bits : low;
  }
  const low = isSigned(e) ? BigInt.asIntN(bits, BigInt(value)) : BigInt.asUintN(bits, BigInt(value));
  return e === 'i64' ? low : Number(low);
};
/** Limits in the kind of number that holds the element, for quick comparison. */
const limits = Object.fromEntries((Object.keys(arrays) as Elem[]).map((e) => [e, e === 'i64' ? limitsOf(e) : limitsOf(e).map(Number)])) as
  unknown as Readonly<Record<Elem, readonly [Lane, Lane]>>;
const saturate = (value: Lane, e: Elem): Lane => {
  const [low, high] = limits[e];
  const kept = value < low ? low : value > high ? high : value;
  return e === 'i64' ? BigInt(kept) : Number(kept);
};
const fits = (value: Lane, e: Elem): boolean => value >= limits[e][0] && value <= limits[e][1];
/** The value if it fits the element; the exact operations promise that it does. */
const exact = (value: Lane, e: Elem, what: string, frame: Frame): Lane => (fits(value, e) ? value : stop(frame, `${what} overflows ${e}: ${value}`));

const arithmetic: Readonly<Record<'add' | 'sub' | 'mul', (a: Lane, b: Lane) => Lane>> = {
  add: (a, b) => (typeof a === 'bigint' ? a + (b as bigint) : a + (b as number)),
  sub: (a, b) => (typeof a === 'bigint' ? a - (b as bigint) : a - (b as number)),
  mul: (a, b) => {
    if (typeof a === 'bigint') return a * (b as bigint);
    const product = a * (b as number);
    return Number.isSafeInteger(product) ? product : BigInt(a) * BigInt(b);
  },
};
/** Both as 64-bit patterns, joined, cut to the element. */
const bitwise = (f: (a: bigint, b: bigint) => bigint) => (a: Lane, b: Lane, e: Elem): Lane =>
  wrap(f(BigInt.asUintN(64, BigInt(a)), BigInt.asUintN(64, BigInt(b))), e);
const bits = { and: bitwise((a, b) => a & b), or: bitwise((a, b) => a | b), xor: bitwise((a, b) => a ^ b) } as const;

const binary = (op: Binary, a: Lane, b: Lane, e: Elem, frame: Frame): Lane => {
  switch (op) {
    case 'add': case 'sub': case 'mul': return exact(arithmetic[op](a, b), e, op, frame);
    case 'addWrap': return wrap(arithmetic.add(a, b), e);
    case 'subWrap': return wrap(arithmetic.sub(a, b), e);
    case 'mulWrap': return wrap(arithmetic.mul(a, b), e);
    case 'addSat': return saturate(arithmetic.add(a, b), e);
    case 'subSat': return saturate(arithmetic.sub(a, b), e);
    case 'min': return a < b ? a : b;
    case 'max': return a > b ? a : b;
    default: return bits[op](a, b, e);
  }
};
const compares: Readonly<Record<Compare, (a: Lane, b: Lane) => boolean>> = {
  eq: (a, b) => a === b, ne: (a, b) => a !== b, lt: (a, b) => a < b, le: (a, b) => a <= b, gt: (a, b) => a > b, ge: (a, b) => a >= b,
};

/** (total) >> by, low 32 bits; the total must fit 64 bits. */
const rescaled = (total: bigint, by: bigint, frame: Frame): number => {
  exact(total, 'i64', 'dyadic', frame);
  return Number(BigInt.asIntN(32, total >> by));
};
/** The addend of lane i of n, from the two halves. */
const addend = (c: readonly Lanes[], i: number, n: number, pairing: 'evenodd' | 'halves'): bigint =>
  BigInt(n === 1 ? c[0][0] : pairing === 'evenodd' ? c[i % 2][i >> 1] : c[i < n / 2 ? 0 : 1][i % (n / 2)]);

const BLOCK = 16;
const evaluate = (e: Expr, frame: Frame): Lanes => {
  const of = (x: Expr): Lanes => evaluate(x, frame);
  const { e: elem, n } = e.type;
  const each = (make: (i: number) => Lane): Lane[] => Array.from({ length: n }, (_, i) => make(i));
  const widenedTo = (x: Lane): Lane => (elem === 'i64' ? BigInt(x) : x);
  switch (e.op) {
    case 'var': return frame.values.get(e) ?? stop(frame, `variable ${e.name} is read before it is set`);
    case 'const': return each(() => e.value);
    case 'load': case 'splat': {
      const length = e.op === 'load' ? n : e.k;
      const [data, start] = locate(addressOf(e)!, length, frame);
      return each((i) => widenedTo(data[start + (i % length)]));
    }
    case 'lookup': {
      const [data, start] = locate(e.at, 0, frame);
      return of(e.index).map((i) => widenedTo(data[start + Number(i)] ?? stop(frame, `${e.at.buffer.name}: element ${start + Number(i)} of ${data.length}`)));
    }
    case 'pick': {
      const table = of(e.table);
      if (elem === 'i16' && table[0] !== 0) stop(frame, `pick of words: the table begins with ${table[0]}`);
      return of(e.index).map((i) => table[Number(i)] ?? stop(frame, `pick: entry ${i} of ${table.length}`));
    }
    case 'broadcast': { const [a] = of(e.a); return each(() => a); }
    case 'shl': case 'shr': case 'shru': {
      const by = BigInt(of(e.by)[0]);
      if (by < 0n || by >= BigInt(bitsOf(elem))) stop(frame, `shift of ${showType(e.type)} by ${by}`);
      return of(e.a).map((a) => e.op === 'shl' ? wrap(BigInt(a) << by, elem)
        : wrap((e.op === 'shr' ? BigInt(a) : BigInt.asUintN(bitsOf(elem), BigInt(a))) >> by, elem));
    }
    case 'select': {
      const [a, b, x, y] = [of(e.a), of(e.b), of(e.x), of(e.y)];
      return each((i) => (compares[e.compare](a[i], b[i]) ? x[i] : y[i]));
    }
    case 'clz': {
      const pattern = BigInt.asUintN(bitsOf(elem), BigInt(of(e.a)[0]));
      return [widenedTo(bitsOf(elem) - (pattern === 0n ? 0 : pattern.toString(2).length))];
    }
    case 'mulQ15': {
      const [a, b] = [of(e.a), of(e.b)];
      return each((i) => exact((Number(a[i]) * Number(b[i]) + 0x4000) >> 15, 'i16', 'mulQ15', frame));
    }
    case 'convert': return of(e.a).map((a) => wrap(a, elem));
    case 'widen': { const a = of(e.a); return each((i) => widenedTo(a[e.half * n + i])); }
    case 'narrow': return of(e.a).map((a) => saturate(a, elem));
    case 'pack': {
      const [a, b] = [of(e.a), of(e.b)];
      const lanes = BLOCK / bytesOf(elem), source = lanes / 2;
      return each((i) => {
        const [block, lane] = [Math.floor(i / lanes), i % lanes];
        return saturate((lane < source ? a : b)[block * source + (lane % source)], elem);
      });
    }
    case 'zip': {
      const [a, b] = [of(e.a), of(e.b)];
      const lanes = BLOCK / bytesOf(elem);
      return each((i) => {
        const [block, lane] = [Math.floor(i / lanes), i % lanes];
        const group = Math.floor(lane / e.unit);
        return (group % 2 === 0 ? a : b)[block * lanes + e.half * (lanes / 2) + (group >> 1) * e.unit + (lane % e.unit)];
      });
    }
    case 'dot': {
      const [acc, a, b] = [of(e.acc), of(e.a), of(e.b)];
      return each((i) => {
        const products = Array.from({ length: e.d }, (_, j) => Number(exact(arithmetic.mul(a[e.d * i + j], b[e.d * i + j]), 'i32', 'dot', frame)));
        if (elem === 'i16') for (let j = 0; j < e.d; j++) exact(Number(b[e.d * i + j]), 'u8', 'dot of bytes', frame);
        if (e.paired) for (const j of [0, 2]) exact(products[j] + products[j + 1], 'i16', 'dot of pairs', frame);
        return exact(products.reduce((s, x) => s + x, Number(acc[i])), elem, 'dot', frame);
      });
    }
    case 'reduce': {
      const parts = e.parts.map(of);
      const groups = n / e.k;
      return each((i) => {
        let total = 0;
        for (let j = 0; j < e.k; j++) total += Number(parts[Math.floor(i / groups)][(i % groups) * e.k + j]);
        return exact(total, elem, 'reduce', frame);
      });
    }
    case 'across': {
      const join = (a: Lane, b: Lane): Lane => e.by === 'add' ? exact(arithmetic.add(a, b), elem, 'across', frame) : binary(e.by, a, b, elem, frame);
      return [of(e.a).reduce(join)];
    }
    case 'dyadic': {
      const [acc, m, c, by] = [of(e.acc), of(e.m), e.c.map(of), shiftOf(e.shift, frame)];
      return each((i) => rescaled(BigInt(acc[i]) * BigInt(m[i]) + addend(c, i, n, e.pairing), by, frame));
    }
    case 'dyadic2': {
      const [x, mx, y, my, c, by] = [of(e.x), of(e.mx), of(e.y), of(e.my), e.c.map(of), shiftOf(e.shift, frame)];
      return each((i) => rescaled(BigInt(x[i]) * BigInt(mx[i]) + BigInt(y[i]) * BigInt(my[i]) + addend(c, i, n, e.pairing), by, frame));
    }
    default: {
      const [a, b] = [of(e.a), of(e.b)];
      return each((i) => binary(e.op, a[i], b[i], elem, frame));
    }
  }
};

const shiftOf = (e: Expr, frame: Frame): bigint => {
  const by = BigInt(evaluate(e, frame)[0]);
  return by >= 0n && by <= 62n ? by : stop(frame, `dyadic shift by ${by}`);
};
