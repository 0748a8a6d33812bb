/** Functions of two real tensors with numpy broadcasting. `real` is the function on one pair of numbers. */
import { defineOp, type OpDef } from '../op.ts';
import { tensorType } from '../type.ts';
import { broadcastOf, broadcastOffsets, fill, realShape, reals } from './elements.ts';

type Pair = { readonly x: 'one'; readonly y: 'one' };
export interface BinaryOp<N extends string> extends OpDef<N, Pair, object> {
  readonly real: (x: number, y: number) => number;
}

const binary = <const N extends string>(name: N, summary: string, real: (x: number, y: number) => number): BinaryOp<N> => Object.freeze({
  ...defineOp<N, Pair, object>({
    name, summary,
    operands: { x: 'one', y: 'one' },
    attrs: {},
    infer: ({ x, y }) => tensorType('f32', broadcastOf(realShape(x, 'x'), realShape(y, 'y'))),
    evaluate: ({ x, y }, _, { shape }) => {
      const [a, b] = [reals(x), reals(y)];
      const [i, j] = [broadcastOffsets(x.type.shape, shape), broadcastOffsets(y.type.shape, shape)];
      return fill(shape, (n) => real(a[i[n]], b[j[n]]));
    },
  }),
  real,
});

export const add = binary('add', 'x + y', (x, y) => x + y);
export const sub = binary('sub', 'x - y', (x, y) => x - y);
export const mul = binary('mul', 'x·y', (x, y) => x * y);
export const div = binary('div', 'x/y', (x, y) => x / y);
export const min = binary('min', 'the lesser of x and y', (x, y) => Math.min(x, y));
export const max = binary('max', 'the greater of x and y', (x, y) => Math.max(x, y));

export const binaryOps = [add, sub, mul, div, min, max] as const;
