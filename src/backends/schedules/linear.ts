/**
 * `linear_acc`: rows of codes times a constant matrix. Rows are widened to 16 bits a block at a time, small enough to stay near the
 * core, and every panel of weights passes over the block. Also the convolution of one tap and stride 1, whose rows are pixels.
 */
import type { Value } from '../../ir/graph.ts';
import { at, buffer, bytesOf, fn, index, loop, moved } from '../../loops/build.ts';
import type { Elem, Fn, Index, Stmt } from '../../loops/types.ts';
import type { Step } from '../group.ts';
import { elemOf, operand, product, scratch, shapeOf, type Binding, type Kernel, type Schedule, type ScheduleContext } from './kernel.ts';
import { columnsPerPanel, fillRows, targetFor, walkOf, widenedLength, widenRows, type Walk } from './gemm.ts';
import { storedWeights, weightWidth } from './levels.ts';
import { rowsInOrder } from './pairs.ts';
import { PANEL } from './quad-panel.ts';
import { quadRows, quadsFor, quadTarget } from './quads.ts';
import { makeRescale, rescaleBindings, rescaleClass, rescaleValues, type RescaleClass } from './rescale.ts';
import { markFor, once } from './split.ts';
import type { Target } from './target.ts';
import { channelConstants, channelsLength, rowElem, weightBindings, weightBuffers } from './weights.ts';

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
  const ending = rescaleClass(step);
  const quads = quadsFor(context.target, elemOf(x.type.dtype), weightWidth(step.root), depth, columns, ending);
  const target = quads === null ? targetFor(context.target, columns) : quadTarget(context.target, columns);
  // rows that are padded are padded with 0
  const stored = storedWeights(step.root, false);
  const walk = walkOf([], [], depth, target, stored.bits, quads, elemOf(x.type.dtype), stored.levels !== null);
  const key: Shape = { rows, columns, walk, x: elemOf(x.type.dtype), rescale: ending, inPlace: context.inPlace !== null, target };
  const block = blockRows(key);
  const buffers: readonly Binding[] = [
    { kind: 'value', value: step.output }, operand(x), ...weightBindings(weight.name, stored, columns, walk, target, 1, ending.out, block ?? rows), ...(block === null ? [] : [scratch(rowElem(walk), block * walk.padded)]),
    ...rescaleBindings(step, !key.inPlace, (list) => channelConstants(list, columns, walk, target)),
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
  const width = outputs === group && group > 1 ? 2 * Math.min(4, target.lanes) : (target.quads ?? target.narrowQuads) !== null && columns >= PANEL ? PANEL : columnsPerPanel(targetFor(target, columns));
  return target.lanes === 1 || columns % width === 0 ? (node.inputs['y'] as Value) : null;
};

/** Rows that share a panel that was unpacked or widened, at least, near the core or not. */
const UNPACKED_ROWS = 48;
/** Rows widened at a time; null where the rows can be read as they are. */
const blockRows = ({ rows, columns, walk, x, target }: Shape): number | null => {
  const e = rowElem(walk);
  if (x === e && walk.run === walk.padded) return null;
  const height = walk.quads === null ? target.tile[0] : quadRows(target, walk.quads, rows, columns);
  const fit = Math.floor(target.blockBytes / (bytesOf(e) * walk.padded * height)) * height;
  const inOrder = rowsInOrder(walk, rows, columns, height, target);
  if (inOrder !== null && inOrder > fit) return inOrder;
  // blocks of equal height
  const shared = Math.ceil(rows / Math.max(1, Math.floor(rows / UNPACKED_ROWS)) / height) * height;
  const least = walk.bits === 8 && widenedLength(walk, rows, target) === null ? height : shared;
  return Math.min(rows, Math.max(least, fit));
};

const linearFn = ({ share }: ScheduleContext) => (name: string, shape: Shape): Fn => {
  const { rows, columns, walk, x, rescale: ending, inPlace, target } = shape;
  const result = buffer('out', ending.out, rows * columns, 'out');
  const source = buffer('x', x, rows * walk.run, 'in');
  const rescale = makeRescale(ending, target, { channels: channelsLength(columns, walk, target), y: rows * columns }, inPlace ? result : null);
  const a = rowElem(walk);
  const tile = { walk, rowA: walk.padded, rowOut: columns, a, b: 'i8' as const, rescale: ending, inPlace, target };
  const block = blockRows(shape);
  const y = rescale.y;
  const weights = weightBuffers(columns, walk, target, ending.out, 1, block ?? rows);
  const fixed = [result, source, ...weights.buffers];
  const mark = markFor(rows * columns * walk.run, rows * columns, target);
  if (block === null) {
    const body = weights.multiply(tile, rows, rescale, { out: at(result), a: at(source), y: y === null ? null : at(y), group: null, mark }, share);
    return fn(name, { buffers: [...fixed, ...rescale.buffers], values: rescale.values }, body);
  }
  const wide = buffer('wide', a, block * walk.padded, 'temp');
  const blocks = Math.floor(rows / block);
  // one block is shared by its panels, several as they are
  const [overBlocks, overPanels] = blocks > 1 ? [mark, null] : [null, mark];
  const pass = (count: number, first: number, terms: readonly (readonly [Index, number])[]): readonly Stmt[] => {
    const from = (stride: number): readonly (readonly [Index, number])[] => terms.map(([i, n]) => [i, n * stride]);
    return [
      ...widenRows(at(source, first * walk.run, ...from(walk.run)), at(wide), count, walk.run, walk.run, walk.padded, 0, target),
      ...(walk.padded === walk.run ? [] : fillRows(at(wide, walk.run), count, walk.padded - walk.run, walk.padded, 0, target)),
      ...weights.multiply(tile, count, rescale, {
        out: at(result, first * columns, ...from(columns)), a: at(wide), group: null, mark: overPanels,
        y: y === null ? null : moved(at(y), first * columns, ...from(columns)),
      }, share),
    ];
  };
  const i = index('block', blocks);
  const body = [loop(i, pass(block, 0, [[i, block]]), overBlocks), ...once(rows % block === 0 ? [] : pass(rows % block, blocks * block, []), overBlocks)];
  return fn(name, { buffers: [...fixed, wide, ...rescale.buffers], values: rescale.values }, body);
};
