/**
 * `matmul_acc`: both operands are computed, so the panels of b are packed at run time, once for each matrix of b, and its zero point
 * is taken off on the way; rows of a are widened likewise, a block at a time.
 */
import type { Value } from '../../ir/graph.ts';
import { at, buffer, fn, index, loop, moved } from '../../loops/build.ts';
import type { Elem, Fn, Index, Stmt } from '../../loops/types.ts';
import { constantsLength, fillRows, multiply, panelConstants, panelLength, panelStarts, scalarOf, targetFor, walkOf, widenRows, type Walk } from './gemm.ts';
import { elemOf, operand, product, scratch, shapeOf, type Binding, type Schedule, type ScheduleContext } from './kernel.ts';
import { broadcastStrides, collapse, rowMajor, type Nest } from './nest.ts';
import { packAtRunTime } from './panels.ts';
import { makeRescale, rescaleBindings, rescaleClass, rescaleValues, type RescaleClass } from './rescale.ts';
import { markFor, once } from './split.ts';
import type { Target } from './target.ts';

interface Shape {
  /** leading axes; strides of result, a and b in matrices */
  readonly batch: Nest;
  readonly rows: number;
  readonly columns: number;
  readonly walk: Walk;
  readonly block: number;
  readonly transposeB: boolean;
  readonly a: Elem;
  readonly b: Elem;
  /** element of the widened operands */
  readonly wide: 'i16' | 'i32';
  readonly aZero: number;
  readonly bZero: number;
  readonly lengths: readonly number[];
  readonly rescale: RescaleClass;
  readonly target: Target;
}
interface MatmulAttrs {
  readonly transposeB: boolean;
  readonly aZero: number;
  readonly bZero: number;
}

export const matmul: Schedule = (step, context) => {
  const [a, b] = [step.root.inputs['a'] as Value, step.root.inputs['b'] as Value];
  const { transposeB, aZero, bZero } = step.root.attrs as unknown as MatmulAttrs;
  const [aShape, bShape, outShape] = [shapeOf(a), shapeOf(b), shapeOf(step.root.output)];
  const [rows, columns] = outShape.slice(-2);
  const depth = aShape[aShape.length - 1];
  const leading = outShape.slice(0, -2);
  const [aElem, bElem] = [elemOf(a.type.dtype), elemOf(b.type.dtype)];
  /** A halfword less a zero point may need 17 bits. */
  const wide = (aElem === 'i16' && aZero !== 0) || (bElem === 'i16' && bZero !== 0) ? 'i32' : 'i16';
  const target = wide === 'i32' ? scalarOf(context.target) : targetFor(context.target, columns);
  const walk = walkOf([], [], depth, target);
  const height = target.tile[0];
  const fit = Math.floor(target.blockBytes / (2 * walk.padded * height)) * height;
  const key: Shape = {
    batch: collapse(leading, [rowMajor(leading), broadcastStrides(aShape.slice(0, -2), leading), broadcastStrides(bShape.slice(0, -2), leading)]),
    rows, columns, walk, block: Math.min(rows, Math.max(height, fit)), transposeB, a: aElem, b: bElem, wide, aZero, bZero,
    lengths: [product(outShape), product(aShape), product(bShape)], rescale: rescaleClass(step), target,
  };
  const buffers: readonly Binding[] = [
    { kind: 'value', value: step.output }, operand(a), operand(b), scratch(wide, panelStarts(columns, target).length * panelLength(walk, target)),
    scratch(wide, key.block * walk.padded), ...rescaleBindings(step, true, (list) => panelConstants(list, columns, target)),
  ];
  return { fn: context.share('matmul', key, matmulFn(context)), buffers, values: rescaleValues(step) };
};

type Terms = readonly (readonly [Index, number])[];

const matmulFn = ({ share }: ScheduleContext) => (name: string, shape: Shape): Fn => {
  const { batch, rows, columns, walk, block, transposeB, a, b, wide, aZero, bZero, lengths, rescale: ending, target } = shape;
  const depth = walk.run;
  const result = buffer('out', ending.out, lengths[0], 'out');
  const [left, right] = [buffer('a', a, lengths[1], 'in'), buffer('b', b, lengths[2], 'in')];
  const panels = buffer('panels', wide, panelStarts(columns, target).length * panelLength(walk, target), 'temp');
  const lines = buffer('rows', wide, block * walk.padded, 'temp');
  const rescale = makeRescale(ending, target, { channels: constantsLength(columns, target), y: lengths[0] });
  const tile = { walk, rowA: walk.padded, rowOut: columns, a: wide, b: wide, rescale: ending, inPlace: false, target };
  const axes = batch.shape.map((size, axis) => index(`batch${axis}`, size));
  const matrix = (k: number, size: number): Terms => axes.map((i, axis) => [i, batch.strides[k][axis] * size]);
  const pass = (count: number, first: number, terms: Terms): readonly Stmt[] => {
    const by = (n: number): Terms => terms.map(([i, stride]) => [i, stride * n]);
    const out = at(result, first * columns, ...matrix(0, rows * columns), ...by(columns));
    return [
      ...widenRows(at(left, first * depth, ...matrix(1, rows * depth), ...by(depth)), at(lines), count, depth, depth, walk.padded, aZero, target),
      ...(walk.padded === depth ? [] : fillRows(at(lines, depth), count, walk.padded - depth, walk.padded, 0, target)),
      ...multiply(tile, count, columns, rescale, {
        out, a: at(lines), b: at(panels), channel: [], y: rescale.y === null ? null : moved(at(rescale.y), out.offset, ...out.terms),
      }, share),
    ];
  };
  const blocks = Math.floor(rows / block);
  const i = index('block', blocks);
  const source = at(right, 0, ...matrix(2, depth * columns));
  const mark = markFor(lengths[0] * depth, lengths[0], target);
  const overMatrices = batch.shape[0] > 1;
  const body = [
    ...packAtRunTime(source, at(panels), columns, walk, transposeB ? 1 : columns, transposeB ? depth : 1, bZero, target),
    loop(i, pass(block, 0, [[i, block]]), overMatrices ? null : mark), ...once(rows % block === 0 ? [] : pass(rows % block, blocks * block, []), overMatrices ? null : mark),
  ];
  return fn(name, { buffers: [result, left, right, panels, lines, ...rescale.buffers], values: rescale.values },
    axes.reduceRight<readonly Stmt[]>((stmts, over, axis) => [loop(over, stmts, axis === 0 && overMatrices ? mark : null)], body));
};
