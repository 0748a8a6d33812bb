/** `softmax`: row by row; exponentials are looked up and kept as 32-bit words until their sum is known. */
import type { Value } from '../../ir/graph.ts';
import { add, and, at, broadcast, buffer, convert, dyadic, fn, index, literal, load, loop, max, moved, mul, parameter, set, shr, store, sub, variable } from '../../loops/build.ts';
import type { Buffer, Elem, Expr, Fn, Index } from '../../loops/types.ts';
import { elemOf, limits, operand, product, scratch, shapeOf, type Binding, type Schedule } from './kernel.ts';
import { overNest } from './nest.ts';
import { reciprocalBinding, reciprocalBuffer, rowHalf, rowScale } from './reciprocal.ts';
import type { Target } from './target.ts';
import { boundsOf, readWords, runOf, toCodes, writeCodes } from './words.ts';

interface Shape {
  readonly rows: number;
  readonly length: number;
  readonly x: Elem;
  readonly out: Elem;
  readonly coarse: boolean;
  readonly newtonSteps: number;
}
interface SoftmaxAttrs {
  readonly eShift: number;
  readonly newtonSteps: number;
  readonly mulOut: number;
  readonly shiftOut: number;
  readonly zero: number;
  readonly low: number;
  readonly high: number;
}

export const softmax: Schedule = ({ root, output }, { target, share }) => {
  const [x, fine, coarse] = [root.inputs['x'] as Value, root.inputs['fine'] as Value, root.inputs['coarse'] as Value | null];
  const { eShift, newtonSteps, mulOut, shiftOut, zero, low, high } = root.attrs as unknown as SoftmaxAttrs;
  const shape = shapeOf(x);
  const length = shape[shape.length - 1];
  const key: Shape = { rows: product(shape) / length, length, x: elemOf(x.type.dtype), out: elemOf(output.type.dtype), coarse: coarse !== null, newtonSteps };
  const buffers: readonly Binding[] = [
    { kind: 'value', value: output }, operand(x), scratch('i32', length), operand(fine), ...(coarse === null ? [] : [operand(coarse)]), reciprocalBinding,
  ];
  return { fn: share('softmax', key, softmaxFn(target)), buffers, values: [eShift, mulOut, shiftOut, zero, low, high] };
};

const softmaxFn = ({ lanes, pairing }: Target) => (name: string, { rows, length, x, out, coarse, newtonSteps }: Shape): Fn => {
  const result = buffer('out', out, rows * length, 'out');
  const source = buffer('x', x, rows * length, 'in');
  const weights = buffer('e', 'i32', length, 'temp');
  const [fine, coarses, seeds] = [buffer('fine', 'i32', 256, 'const'), buffer('coarse', 'i32', 256, 'const'), reciprocalBuffer()];
  const eShift = parameter('eShift', 'i32', 0, 30);
  const [mulOut, shiftOut, zero] = [parameter('mulOut', 'i32'), parameter('shiftOut', 'i32', 1, 62), parameter('zero', 'i32')];
  const [low, high] = [parameter('low', 'i32', ...limits(out)), parameter('high', 'i32', ...limits(out))];
  const [r, i, j] = [index('row', rows), index('i', length), index('j', length)];
  const [top, d, e, total] = [variable('top', 'i32'), variable('d', 'i32'), variable('one', 'i32'), variable('total', 'i64')];
  const code = (position: Index): Expr => convert('i32', load(at(source, 0, [r, length], [position, 1])));
  const scale = rowScale(total, seeds, newtonSteps, mulOut, shiftOut);
  const half = variable('half', 'i64');
  const entry = (table: Buffer, by: Expr): Expr => load(at(table, 0, [and(by, 255), 1]));
  const twoTables = convert('i32', shr(add(mul(convert('i64', entry(coarses, shr(d, 8))), convert('i64', entry(fine, d))), 1 << 29), 30));
  const bounds = new Map([1, runOf(lanes)].map((run) => [run, boundsOf(low, high, out, run, false)]));
  return fn(name, { buffers: [result, source, weights, fine, ...(coarse ? [coarses] : []), seeds], values: [eShift, mulOut, shiftOut, zero, low, high] }, [
    ...[...bounds.values()].flatMap(({ setup }) => setup),
    loop(r, [
      set(top, literal(-(2 ** 31), 'i32')),
      loop(i, [set(top, max(top, code(i)))]),
      set(total, literal(0, 'i64')),
      loop(j, [
        set(d, sub(top, code(j))),
        set(e, shr(coarse ? twoTables : entry(fine, d), eShift)),
        set(total, add(total, convert('i64', e))),
        store(at(weights, 0, [j, 1]), e),
      ]),
      ...scale.setup,
      set(half, rowHalf(scale.shift)),
      ...overNest({ shape: [length], strides: [[1]] }, runOf(lanes), (run, locate) => {
        const words = readWords(locate(0, weights), 1, run);
        const n = words.parts[0].type.n;
        const addends = n === 1 ? [half] : [broadcast(half, n / 2), broadcast(half, n / 2)];
        const shares = words.parts.map((part) => add(dyadic(scale.shift, pairing, part, broadcast(scale.factor, n), addends), broadcast(zero, n)));
        return [...words.setup, ...writeCodes(moved(locate(0, result), 0, [r, length]), toCodes(shares, out, bounds.get(run)!))];
      }),
    ]),
  ]);
};
