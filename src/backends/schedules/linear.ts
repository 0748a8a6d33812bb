/**
 * `linear_acc`: rows of codes times a constant matrix. Rows are widened to 16 bits a block at a time, small enough to stay near the
 * core, and every panel of weights passes over the block. Also the convolution of one tap and stride 1, whose rows are pixels.
 */
import type { Value } from '../../ir/graph.ts';
import { at, buffer, fn, index, loop, moved } from '../../loops/build.ts';
import type { Elem, Fn, Index, Stmt } from '../../loops/types.ts';
import type { Step } from '../group.ts';
import { constant, elemOf, operand, packed, product, scratch, shapeOf, type Binding, type Kernel, type Schedule, type ScheduleContext } from './kernel.ts';
import { columnsPerPanel, constantsLength, fillRows, multiply, packPanels, panelConstants, packsNibbles, panelLength, panelStarts, targetFor, unpackedLength, walkOf, widenRows, type Walk } from './gemm.ts';
import { makeRescale, rescaleBindings, rescaleClass, rescaleValues, type RescaleClass } from './rescale.ts';
import type { Target } from './target.ts';

interface Shape {
  readonly rows: number;
  readonly columns: number;
  readonly walk: Walk;
  readonly x: Elem;
  readonly rescale: RescaleClass;
  readonly inPlace: boolean;
  readonly target: Target;
}

export const linear: Schedule = (step, context) => {
  const [x, weight] = [step.root.inputs['x'] as Value, step.root.inputs['weight'] as Value];
  const [columns, depth] = shapeOf(weight);
  return rowProduct(step, context, product(shapeOf(x)) / depth, depth, columns);
};

/** x [rows, depth] · weightᵀ [columns, depth], rescaled. */
export const rowProduct = (step: Step, context: ScheduleContext, rows: number, depth: number, columns: number): Kernel => {
  const [x, weight] = [step.root.inputs['x'] as Value, step.root.inputs['weight'] as Value];
  const target = targetFor(context.target, columns);
  const walk = walkOf([], [], depth, target, packsNibbles(weight.type.dtype));
  const key: Shape = { rows, columns, walk, x: elemOf(x.type.dtype), rescale: rescaleClass(step), inPlace: context.inPlace !== null, target };
  const packedWeights = packPanels(constant(weight).data as Int8Array, columns, walk, target);
  const block = blockRows(key);
  const unpacked = unpackedLength(walk, target);
  const buffers: readonly Binding[] = [
    { kind: 'value', value: step.output }, operand(x), packed(weight.name, packedWeights), ...(block === null ? [] : [scratch('i16', block * walk.padded)]),
    ...(unpacked === null ? [] : [scratch('i8', unpacked)]),
    ...rescaleBindings(step, !key.inPlace, (list) => panelConstants(list, columns, target)),
  ];
  return { fn: context.share('linear', key, linearFn(context)), buffers, values: rescaleValues(step) };
};

/** The second operand of a fused addition, where no column is computed twice and so none is read after it was overwritten. */
export const residualInPlace = (step: Step, target: Target): Value | null => {
  const node = step.rescale;
  if (node === null || node.op !== 'requantize_add') return null;
  const { group = 1 } = step.root.attrs as { group?: number };
  const outputs = shapeOf(step.root.inputs['weight'] as Value)[0];
  const columns = outputs === group ? outputs : outputs / group;
  const width = outputs === group && group > 1 ? 2 * Math.min(4, target.lanes) : columnsPerPanel(targetFor(target, columns));
  return target.lanes === 1 || columns % width === 0 ? (node.inputs['y'] as Value) : null;
};

/** Rows widened at a time; null where the rows can be read as they are. */
const blockRows = ({ rows, walk, x, target }: Shape): number | null => {
  if (x === 'i16' && walk.run === walk.padded) return null;
  const height = target.tile[0];
  const fit = Math.floor(target.blockBytes / (2 * walk.padded * height)) * height;
  return Math.min(rows, Math.max(height, fit));
};

const linearFn = ({ share }: ScheduleContext) => (name: string, shape: Shape): Fn => {
  const { rows, columns, walk, x, rescale: ending, inPlace, target } = shape;
  const result = buffer('out', ending.out, rows * columns, 'out');
  const source = buffer('x', x, rows * walk.run, 'in');
  const weights = buffer('w', 'i8', panelStarts(columns, target).length * panelLength(walk, target), 'const');
  const rescale = makeRescale(ending, target, { channels: constantsLength(columns, target), y: rows * columns }, inPlace ? result : null);
  const tile = { walk, rowA: walk.padded, rowOut: columns, a: 'i16' as const, b: 'i8' as const, rescale: ending, inPlace, target };
  const block = blockRows(shape);
  const y = rescale.y;
  const bytes = unpackedLength(walk, target);
  const unpacked = bytes === null ? null : buffer('unpacked', 'i8', bytes, 'temp');
  const temporary = unpacked === null ? [] : [unpacked];
  if (block === null) {
    const body = multiply(tile, rows, columns, rescale, { out: at(result), a: at(source), b: at(weights), y: y === null ? null : at(y), channel: [], unpacked }, share);
    return fn(name, { buffers: [result, source, weights, ...temporary, ...rescale.buffers], values: rescale.values }, body);
  }
  const wide = buffer('wide', 'i16', block * walk.padded, 'temp');
  const pass = (count: number, first: number, terms: readonly (readonly [Index, number])[]): readonly Stmt[] => {
    const from = (stride: number): readonly (readonly [Index, number])[] => terms.map(([i, n]) => [i, n * stride]);
    return [
      ...widenRows(at(source, first * walk.run, ...from(walk.run)), at(wide), count, walk.run, walk.run, walk.padded, 0, target),
      ...(walk.padded === walk.run ? [] : fillRows(at(wide, walk.run), count, walk.padded - walk.run, walk.padded, 0, target)),
      ...multiply(tile, count, columns, rescale, {
        out: at(result, first * columns, ...from(columns)), a: at(wide), b: at(weights), channel: [], unpacked,
        y: y === null ? null : moved(at(y), first * columns, ...from(columns)),
      }, share),
    ];
  };
  const blocks = Math.floor(rows / block);
  const i = index('block', blocks);
  const body = [loop(i, pass(block, 0, [[i, block]])), ...(rows % block === 0 ? [] : pass(rows % block, blocks * block, []))];
  return fn(name, { buffers: [result, source, weights, wide, ...temporary, ...rescale.buffers], values: rescale.values }, body);
};
