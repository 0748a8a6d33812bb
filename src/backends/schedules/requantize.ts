/** `requantize` and `requantize_add` that stand alone, with the table that may follow: element by element. */
import type { Value } from '../../ir/graph.ts';
import { buffer, fn } from '../../loops/build.ts';
import type { Elem, Fn } from '../../loops/types.ts';
import { elemOf, operand, perChannel, shapeOf, type Binding, type Schedule } from './kernel.ts';
import { broadcastStrides, collapse, extentOf, overNest, rowMajor, type Nest } from './nest.ts';
import { makeRescale, rescaleBindings, rescaleClass, rescaleNode, rescaleValues, type RescaleClass } from './rescale.ts';
import type { Target } from './target.ts';
import { inReadingOrder, readWords, runOf } from './words.ts';

interface Shape {
  /** strides of: result, x, per-channel constants, and y of a sum */
  readonly nest: Nest;
  readonly x: Elem;
  readonly rescale: RescaleClass;
  /** the operand that shares the result's memory */
  readonly alias: 'x' | 'y' | null;
}

export const requantize: Schedule = (step, { target, inPlace, share }) => {
  const rescale = rescaleClass(step);
  const node = rescaleNode(step)!;
  const x = node.inputs['x'] as Value;
  const y = rescale.kind === 'two' ? (node.inputs['y'] as Value) : null;
  const shape = shapeOf(x);
  const natural = rowMajor(shape);
  const lists = [node.inputs['mul'], node.inputs['mulX'], node.inputs['mulY'], node.inputs['add']].filter((list) => list !== undefined) as Value[];
  const varies = lists.some((list) => shapeOf(list)[0] > 1);
  const channel = shape.map((_, axis) => (varies && axis === shape.length - 1 ? 1 : 0));
  const nest = collapse(shape, [natural, natural, channel, ...(y === null ? [] : [broadcastStrides(shapeOf(y), shape)])]);
  const alias = inPlace === null ? null : inPlace === x ? 'x' : 'y';
  const key: Shape = { nest, x: elemOf(x.type.dtype), rescale, alias };
  const channels = extentOf(nest, 2);
  const buffers: readonly Binding[] = [
    { kind: 'value', value: step.output }, ...(alias === 'x' ? [] : [operand(x)]),
    ...rescaleBindings(step, alias !== 'y', (list) => inReadingOrder(perChannel(list, channels), target)),
  ];
  return { fn: share('requantize', key, requantizeFn(target)), buffers, values: rescaleValues(step) };
};

const requantizeFn = (target: Target) => (name: string, { nest, x, rescale: shape, alias }: Shape): Fn => {
  const result = buffer('out', shape.out, extentOf(nest, 0), 'out');
  const source = alias === 'x' ? result : buffer('x', x, extentOf(nest, 1), 'in');
  const lengths = { channels: extentOf(nest, 2), y: shape.kind === 'two' ? extentOf(nest, 3) : 0 };
  const rescale = makeRescale(shape, target, lengths, alias === 'y' ? result : null);
  const second = alias === 'y' ? result : rescale.y;
  const inner = nest.shape.length - 1;
  const prepared = new Map([1, runOf(target.lanes)].map((run) => [run, rescale.prepare(run)]));
  const body = overNest(nest, runOf(target.lanes), (run, locate) => {
    const { channels, finish } = prepared.get(run)!;
    const sums = readWords(locate(1, source), nest.strides[1][inner], run);
    const { setup, constants } = channels((list) => ({ from: locate(2, list), stride: nest.strides[2][inner] }));
    const y = second === null ? null : { from: locate(3, second), stride: nest.strides[3][inner] };
    return [...sums.setup, ...setup, ...finish(sums.parts, constants, locate(0, result), y)];
  });
  const setup = [...prepared.values()].flatMap((one) => one.setup);
  return fn(name, { buffers: [result, ...(alias === 'x' ? [] : [source]), ...rescale.buffers], values: rescale.values }, [...setup, ...body]);
};
