/** `layer_norm_int`: two sums over a row, one reciprocal root, then two dyadics for each element. */
import type { Value } from '../../ir/graph.ts';
import { across, add, addWrap, and, at, broadcast, buffer, convert, dot, dyadic, fn, index, literal, load, loop, mul, parameter, set, shl, shr, shru, sub, variable, zero, zip } from '../../loops/build.ts';
import type { Buffer, Elem, Expr, Fn, Index, Stmt, Var } from '../../loops/types.ts';
import { bytesOf } from '../../loops/build.ts';
import { constant, elemOf, limits, operand, packed, perChannel, product, shapeOf, type Binding, type Schedule } from './kernel.ts';
import { overNest } from './nest.ts';
import { rootOf, rsqrtBinding, rsqrtBuffer } from './reciprocal.ts';
import type { Target } from './target.ts';
import { boundsOf, inReadingOrder, readAddends, readWords, runOf, toCodes, writeCodes } from './words.ts';

interface Shape {
  readonly rows: number;
  readonly channels: number;
  readonly x: Elem;
  readonly out: Elem;
  readonly newtonSteps: number;
  readonly fraction: number;
}
interface LayerNormAttrs {
  readonly epsilon: bigint;
  readonly newtonSteps: number;
  readonly fraction: number;
  readonly shift: number;
  readonly low: number;
  readonly high: number;
}

export const layerNorm: Schedule = ({ root, output }, { target, share }) => {
  const x = root.inputs['x'] as Value;
  const { epsilon, newtonSteps, fraction, shift, low, high } = root.attrs as unknown as LayerNormAttrs;
  const shape = shapeOf(x);
  const channels = shape[shape.length - 1];
  const key: Shape = { rows: product(shape) / channels, channels, x: elemOf(x.type.dtype), out: elemOf(output.type.dtype), newtonSteps, fraction };
  const list = (slot: 'mul' | 'add'): Binding => {
    const value = root.inputs[slot] as Value;
    return packed(value.name, inReadingOrder(perChannel(constant(value).data as Int32Array | BigInt64Array, channels), targetFor(target, key)));
  };
  const buffers: readonly Binding[] = [{ kind: 'value', value: output }, operand(x), list('mul'), list('add'), rsqrtBinding];
  return { fn: share('layer_norm', key, layerNormFn(target)), buffers, values: [epsilon, shift, low, high] };
};

/** Whether every sum of squares of bytes fits 32 bits. */
const squaresFit = (x: Elem, channels: number): boolean => bytesOf(x) === 1 && channels <= 2 ** 31 / (limits('u8')[1] ** 2) - 1;
/** Whether C·x − s1 fits 32 bits for all codes. */
const differenceFits = (x: Elem, channels: number): boolean => 2 * channels * Math.max(...limits(x).map(Math.abs)) < 2 ** 31;

const targetFor = (target: Target, { x, channels }: Shape): Target => (differenceFits(x, channels) ? target : { ...target, lanes: 1 });

const layerNormFn = (target: Target) => (name: string, shape: Shape): Fn => {
  const { rows, channels, x, out, newtonSteps, fraction } = shape;
  const { lanes, pairing } = targetFor(target, shape);
  const result = buffer('out', out, rows * channels, 'out');
  const source = buffer('x', x, rows * channels, 'in');
  const [muls, adds, seeds] = [buffer('mul', 'i32', channels, 'const'), buffer('add', 'i64', channels, 'const'), rsqrtBuffer()];
  const [epsilon, shift] = [parameter('epsilon', 'i64'), parameter('shift', 'i32', 32, 62)];
  const [low, high] = [parameter('low', 'i32', ...limits(out)), parameter('high', 'i32', ...limits(out))];
  const r = index('row', rows);
  const [s1, s2, value] = [variable('s1', 'i64'), variable('s2', 'i64'), variable('value', 'i64')];
  const root = rootOf(value, seeds, newtonSteps);
  const [drop, half, less] = [variable('drop', 'i32'), variable('half', 'i64'), variable('s1Word', 'i32')];
  const negated = variable('negatedY', 'i32');
  const bounds = new Map([1, runOf(lanes)].map((run) => [run, boundsOf(low, high, out, run, false)]));

  /** n of a run. With vectors −y, which fits i32 where y may not, times s1 − C·x. */
  const normalised = (parts: readonly Expr[]): readonly Expr[] => parts.map((part) => {
    const n = part.type.n;
    if (lanes === 1) {
      const difference = sub(mul(convert('i64', part), literal(channels, 'i64')), s1);
      return convert('i32', shr(add(mul(difference, root.y), half), drop));
    }
    const addends = n === 1 ? [half] : [broadcast(half, n / 2), broadcast(half, n / 2)];
    return dyadic(drop, pairing, sub(broadcast(less, n), mul(part, channels)), broadcast(negated, n), addends);
  });
  return fn(name, { buffers: [result, source, muls, adds, seeds], values: [epsilon, shift, low, high] }, [
    ...[...bounds.values()].flatMap(({ setup }) => setup),
    loop(r, [
      ...momentSums(source, r, channels, lanes, s1, s2),
      set(value, add(sub(mul(s2, channels), mul(s1, s1)), epsilon)),
      ...root.setup,
      set(drop, sub(add(root.k, 30), fraction)),
      set(half, shl(literal(1, 'i64'), sub(drop, 1))),
      ...(lanes === 1 ? [] : [set(less, convert('i32', s1)), set(negated, convert('i32', sub(literal(0, 'i64'), root.y)))]),
      ...overNest({ shape: [channels], strides: [[1], [1]] }, runOf(lanes), (run, locate) => {
        const there = locate(0, source);
        const words = readWords({ ...there, terms: [...there.terms, [r, channels]] }, 1, run);
        const factors = readWords(locate(1, muls), 1, run);
        const addends = readAddends(locate(1, adds), 1, run);
        const scaled = normalised(words.parts).map((n, i) => dyadic(shift, pairing, n, factors.parts[i], addends[i]));
        const to = locate(0, result);
        return [...words.setup, ...factors.setup, ...writeCodes({ ...to, terms: [...to.terms, [r, channels]] }, toCodes(scaled, out, bounds.get(run)!))];
      }),
    ]),
  ]);
};

/**
 * s1 = Σx and s2 = Σx² of a row. Squares of bytes are summed as 32-bit words. A pair of squares of 16-bit codes is at most 2^31: its lower
 * and its upper half, 0…65535 each, are summed apart, which fits 32 bits for the channels that `differenceFits` lets through.
 */
const momentSums = (source: Buffer, r: Index, channels: number, lanes: number, s1: Var, s2: Var): readonly Stmt[] => {
  const fits = squaresFit(source.e, channels);
  const sumElem = fits ? 'i32' : 'i64';
  const [a, b] = [variable('a', sumElem), variable('b', sumElem)];
  const one = (offset: number, count: number): readonly Stmt[] => {
    if (count === 0) return [];
    const c = index('c', count);
    const code = variable('code', sumElem);
    return [loop(c, [set(code, convert(sumElem, load(at(source, offset, [r, channels], [c, 1])))), set(a, add(a, code)), set(b, add(b, mul(code, code)))])];
  };
  const run = 2 * lanes;
  const whole = lanes === 1 || !(fits || source.e === 'i16') ? 0 : Math.floor(channels / run);
  const vector: Stmt[] = [];
  if (whole > 0) {
    const c = index('c', whole);
    const [va, vb, vc] = ['va', 'vb', 'vc'].map((name) => variable(name, 'i32', lanes));
    const codes = variable('codes', 'i16', run);
    const read = [set(codes, load(at(source, 0, [r, channels], [c, run]), run, 'i16')), set(va, dot(2, va, codes, literal(1, 'i16', run)))];
    if (fits) {
      vector.push(set(va, zero('i32', lanes)), set(vb, zero('i32', lanes)), loop(c, [...read, set(vb, dot(2, vb, codes, codes))]), set(b, across('add', vb)));
    } else {
      const [even, odd, squares] = [variable('even', 'i16', run), variable('odd', 'i16', run), variable('squares', 'i32', lanes)];
      const [all, none] = [literal(-1, 'i16', run), literal(0, 'i16', run)];
      const square = (kept: Var): Expr => dot(2, zero('i32', lanes), and(codes, kept), codes);
      vector.push(
        set(even, zip(0, 1, all, none)), set(odd, zip(0, 1, none, all)), ...[va, vb, vc].map((v) => set(v, zero('i32', lanes))),
        loop(c, [...read, set(squares, addWrap(square(even), square(odd))), set(vb, add(vb, and(squares, literal(0xffff, 'i32', lanes)))), set(vc, add(vc, shru(squares, 16)))]),
        set(b, add(shl(convert('i64', across('add', vc)), 16), convert('i64', across('add', vb)))),
      );
    }
    vector.push(set(a, convert(sumElem, across('add', va))));
  }
  const begin = whole > 0 ? vector : [set(a, zero(sumElem)), set(b, zero(sumElem))];
  return [...begin, ...one(whole * run, channels - whole * run), set(s1, convert('i64', a)), set(s2, convert('i64', b))];
};
