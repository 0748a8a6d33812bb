/** `reduce_sum` and `reduce_max`: loops over the kept axes, and within each over the others. */
import { normalAxis } from '../../ir/dim.ts';
import type { Value } from '../../ir/graph.ts';
import { buffer, fn, index, load, loop, max, moved, set, store, variable } from '../../loops/build.ts';
import type { Address, Elem, Fn, Stmt } from '../../loops/types.ts';
import { elemOf, operand, perChannel, product, shapeOf, type Binding, type Schedule } from './kernel.ts';
import { collapse, extentOf, overNest, rowMajor, type Nest } from './nest.ts';
import { summing } from './pool.ts';
import { makeRescale, rescaleBindings, rescaleClass, rescaleNode, rescaleValues, type RescaleClass } from './rescale.ts';
import { vectorLanes, type Target } from './target.ts';
import { inReadingOrder, runOf } from './words.ts';

interface Shape {
  readonly op: 'reduce_sum' | 'reduce_max';
  /** strides of result, x and per-channel constants */
  readonly kept: Nest;
  /** strides of x */
  readonly reduced: Nest;
  readonly length: number;
  readonly x: Elem;
  readonly rescale: RescaleClass;
}

const schedule = (op: Shape['op']): Schedule => (step, { target, share }) => {
  const x = step.root.inputs['x'] as Value;
  const shape = shapeOf(x);
  const reduced = new Set((step.root.attrs as unknown as { axes: readonly number[] }).axes.map((axis) => normalAxis(axis, shape.length)!));
  const strides = rowMajor(shape);
  const pick = (wanted: boolean): readonly number[] => shape.map((_, axis) => axis).filter((axis) => reduced.has(axis) === wanted);
  const [keptAxes, reducedAxes] = [pick(false), pick(true)];
  const keptShape = keptAxes.map((axis) => shape[axis]);
  const node = rescaleNode(step);
  const lists = node === null ? [] : (['mul', 'mulX', 'mulY', 'add'].flatMap((slot) => (node.inputs[slot] === undefined ? [] : [node.inputs[slot] as Value])));
  const varies = lists.some((one) => shapeOf(one)[0] > 1);
  const kept = collapse(keptShape, [rowMajor(keptShape), keptAxes.map((axis) => strides[axis]), keptAxes.map((_, i) => (varies && i === keptAxes.length - 1 ? 1 : 0))]);
  const key: Shape = {
    op, kept, reduced: collapse(reducedAxes.map((axis) => shape[axis]), [reducedAxes.map((axis) => strides[axis])]), length: product(shape), x: elemOf(x.type.dtype), rescale: rescaleClass(step),
  };
  const buffers: readonly Binding[] = [{ kind: 'value', value: step.output }, operand(x), ...rescaleBindings(step, true, (constants) => inReadingOrder(perChannel(constants, extentOf(kept, 2)), target))];
  return { fn: share(op, key, reduceFn(target)), buffers, values: rescaleValues(step) };
};
export const reduceSum = schedule('reduce_sum');
export const reduceMax = schedule('reduce_max');

const reduceFn = (target: Target) => (name: string, { op, kept, reduced, length, x, rescale: ending }: Shape): Fn => {
  const result = buffer('out', ending.out, extentOf(kept, 0), 'out');
  const source = buffer('x', x, length, 'in');
  const rescale = makeRescale(ending, target, { channels: extentOf(kept, 2), y: extentOf(kept, 0) });
  const inner = kept.shape.length - 1;
  const axes = reduced.shape.map((size, axis) => index(`r${axis}`, size));
  const term = (from: Address): Address => moved(from, 0, ...axes.map((r, axis) => [r, reduced.strides[0][axis]] as const));
  const overTerms = (body: readonly Stmt[]): readonly Stmt[] => axes.reduceRight<readonly Stmt[]>((stmts, r) => [loop(r, stmts)], body);
  if (op === 'reduce_max') {
    const body = overNest(kept, vectorLanes(target, x), (run, locate) => {
      const top = variable('top', x, run);
      return [set(top, load(locate(1, source), run)), ...overTerms([set(top, max(top, load(term(locate(1, source)), run)))]), store(locate(0, result), top)];
    });
    return fn(name, { buffers: [result, source] }, body);
  }
  const prepared = new Map([1, runOf(target.lanes)].map((run) => [run, rescale.prepare(run)]));
  const body = overNest(kept, runOf(target.lanes), (run, locate) => {
    const { channels, finish } = prepared.get(run)!;
    const { clear, accumulate, sums } = summing(run, target, term(locate(1, source)));
    const { setup, constants } = channels((one) => ({ from: locate(2, one), stride: kept.strides[2][inner] }));
    return [...clear, ...overTerms(accumulate), ...setup, ...finish(sums, constants, locate(0, result), rescale.y === null ? null : { from: locate(0, rescale.y), stride: 1 })];
  });
  return fn(name, { buffers: [result, source, ...rescale.buffers], values: rescale.values }, [...[...prepared.values()].flatMap(({ setup }) => setup), ...body]);
};
