/** Every lane operation on all pairs of edge values: limits, neighbours of zero, halves; ties of roundings; saturation in every place. */
import {
  addSat, addWrap, and, at, bitsOf, buffer, bytesOf, constants, convert, dot, dyadic, dyadic2, index, isSigned, limitsOf, list, literal, load, loop, max, min, mulQ15, mulWrap,
  narrow, or, pack, program, select, shl, shr, shru, store, subSat, subWrap, widen, xor, zip,
} from '../../src/loops/build.ts';
import { allocateContents } from '../../src/loops/interpret.ts';
import type { Buffer, Elem, Expr, Stmt } from '../../src/loops/types.ts';
import { elements, type Case, type Vectors } from '../loops/random-programs.ts';

const LENGTH = 192;
const edgesOf = (e: Elem): readonly bigint[] => {
  const [low, high] = limitsOf(e);
  const inner = isSigned(e) ? [-2n, -1n, 0n, 1n, 2n] : [0n, 1n, 2n, high / 2n, high / 2n + 1n];
  return [low, low + 1n, low / 2n, ...inner, high / 3n, high / 2n + (isSigned(e) ? 1n : 2n), high - 1n, high];
};
const edgesIn = (name: string, e: Elem, pick: (i: number) => number): Buffer => {
  const edges = edgesOf(e);
  const data = allocateContents(e, LENGTH);
  for (let i = 0; i < LENGTH; i++) data[i] = e === 'i64' ? edges[pick(i) % edges.length] : Number(edges[pick(i) % edges.length]);
  return constants(`${name}_${e}`, data);
};

/** The operations on vectors of `size` bytes. */
export const edgeCase = (size: number, { pairing, quads, sizes }: Vectors, name: string): Case => {
  const many = edgesOf('i8').length;
  const first = Object.fromEntries(elements.map((e) => [e, edgesIn('a', e, (i) => i)])) as Record<Elem, Buffer>;
  const second = Object.fromEntries(elements.map((e) => [e, edgesIn('b', e, (i) => Math.floor(i / many))])) as Record<Elem, Buffer>;
  const outputs: Buffer[] = [];
  const body = elements.flatMap((e): Stmt[] => {
    const n = size / bytesOf(e), bits = bitsOf(e);
    if (n < 2) return [];
    const i = index(`i_${e}`, LENGTH / n);
    const [a, b] = [load(at(first[e], 0, [i, n]), n), load(at(second[e], 0, [i, n]), n)];
    const whole = size >= 16;
    const half = elements.filter((x) => 2 * bitsOf(x) === bits), wide = elements.filter((x) => bitsOf(x) === 2 * bits);
    const results: Expr[] = [
      ...[addWrap, subWrap, mulWrap, min, max, and, or, xor].map((f) => f(a, b)),
      ...(['eq', 'ne', 'lt', 'le', 'gt', 'ge'] as const).map((compare) => select(compare, a, b, a, b)),
      ...[1, bits / 2, bits - 1].flatMap((by) => [shl(a, by), shr(a, by), shru(a, by)]),
      ...(bits <= 16 ? [addSat(a, b), subSat(a, b)] : []),
      ...(e === 'i16' ? [mulQ15(a, max(b, -32767)), mulQ15(a, literal(16384, 'i16', n))] : []),
      ...(bits === 64 ? [] : [widen(0, a), widen(1, a)]),
      ...wide.filter((x) => isSigned(x) && bits < 64 && sizes.includes(2 * size)).map((x) => convert(x, a)),
      ...(isSigned(e) && bits < 64 ? elements.filter((x) => bitsOf(x) < bits && bytesOf(x) * n >= 2).map((x) => narrow(x, a)) : []),
      ...(whole && isSigned(e) && bits < 64 ? half.map((x) => pack(x, a, b)) : []),
      ...(whole ? [1, 2, 4, 8].filter((unit) => unit >= bytesOf(e)).flatMap((unit) => [zip(0, unit / bytesOf(e), a, b), zip(1, unit / bytesOf(e), a, b)]) : []),
    ];
    if (e === 'i32' && whole) {
      const m = and(b, 0x7fffffff);
      for (const s of [1, 31, 32, 33, 40, 62]) results.push(dyadic(s, pairing, a, m, 1n << BigInt(s - 1)), dyadic2(s, pairing, a, and(b, 0x3fffffff), b, 0x3fffffff, -1n));
      // ties: odd multiples of a half
      results.push(dyadic(33, pairing, a, literal(1, 'i32', n), 1n << 32n), dyadic(32, pairing, a, literal(2 ** 30, 'i32', n), 1n << 31n));
    }
    if (e === 'i32' && (whole || size === 8)) {
      // the sum fits though a pair of products alone does not
      const least = (x: Elem, lanes: number): Expr => literal(limitsOf(x)[0], x, lanes);
      results.push(dot(2, literal(-1, 'i32', n), least('i16', 2 * n), least('i16', 2 * n)));
      for (const x of quads) results.push(dot(4, and(a, 0xffff), load(at(first[x], 0, [i, 1]), 4 * n), load(at(second.i8, 0, [i, 1]), 4 * n)), dot(4, literal(0, 'i32', n), literal(x === 'u8' ? 255 : -128, x, 4 * n), least('i8', 4 * n)));
    }
    return [loop(i, results.map((value) => {
      const to = buffer(`y${outputs.length}`, value.type.e, (LENGTH / n) * value.type.n, 'out');
      outputs.push(to);
      return store(at(to, 0, [i, value.type.n]), value);
    }))];
  });
  const scalars = size === 4 ? [literal(-1, 'i32')].flatMap((acc) => [
    dot(2, acc, literal(-32768, 'i16', 2), literal(-32768, 'i16', 2)), ...quads.map((x) => dot(4, acc, literal(x === 'u8' ? 255 : -128, x, 4), literal(-128, 'i8', 4)))]) : [];
  const single = buffer('single', 'i32', Math.max(1, scalars.length), 'out');
  const inputs = list(elements.length, (i) => [first[elements[i]], second[elements[i]]]).flat();
  return { program: program(name, [...inputs, ...outputs, single], [...body, ...scalars.map((e, i) => store(at(single, i), e))]), memory: new Map() };
};
