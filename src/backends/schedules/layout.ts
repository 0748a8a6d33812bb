/** Moving elements: reshape, transpose, concat, slice, pad, gather_rows. Nothing is computed; any element type. */
import { normalAxis } from '../../ir/dim.ts';
import type { Value } from '../../ir/graph.ts';
import { at, buffer, clamp, convert, fn, index, literal, load, loop, moved, set, store, variable } from '../../loops/build.ts';
import type { Elem, Fn, Stmt } from '../../loops/types.ts';
import { elemOf, limits, operand, product, shapeOf, type Kernel, type Schedule, type ScheduleContext } from './kernel.ts';
import { collapse, overNest, rowMajor, type Nest } from './nest.ts';
import { vectorLanes, type Target } from './target.ts';

/** A block of elements that one operand gives to the result: strides of result and operand, and where each begins. */
interface Block {
  readonly nest: Nest;
  readonly operand: number;
  readonly to: number;
  readonly from: number;
}
interface MoveShape {
  readonly e: Elem;
  readonly length: number;
  readonly lengths: readonly number[];
  readonly blocks: readonly Block[];
  /** code that fills the result first, where the blocks leave gaps */
  readonly fill: number | null;
}

const move = (stem: string, output: Value, operands: readonly Value[], blocks: readonly Block[], { target, share }: ScheduleContext, fill: number | null = null): Kernel => {
  const key: MoveShape = {
    e: elemOf(output.type.dtype), length: product(shapeOf(output)), lengths: operands.map((value) => product(shapeOf(value))), blocks, fill,
  };
  return { fn: share(stem, key, moveFn(target)), buffers: [{ kind: 'value', value: output }, ...operands.map(operand)], values: [] };
};

const moveFn = (target: Target) => (name: string, { e, length, lengths, blocks, fill }: MoveShape): Fn => {
  const result = buffer('out', e, length, 'out');
  const sources = lengths.map((n, k) => buffer(`x${k}`, e, n, 'in'));
  const lanes = vectorLanes(target, e);
  const filled: readonly Stmt[] = fill === null ? [] : overNest({ shape: [length], strides: [[1]] }, lanes, (run, locate) => [store(locate(0, result), literal(fill, e, run))]);
  const body = blocks.flatMap(({ nest, operand: k, to, from }) =>
    overNest(nest, lanes, (run, locate) => [store(locate(0, result, to), load(locate(1, sources[k], from), run))]));
  return fn(name, { buffers: [result, ...sources] }, [...filled, ...body]);
};

/** The elements of one value as another, in order. */
export const copy = (from: Value, to: Value, context: ScheduleContext): Kernel =>
  move('copy', to, [from], [{ nest: collapse([product(shapeOf(to))], [[1], [1]]), operand: 0, to: 0, from: 0 }], context);

export const reshape: Schedule = ({ root, output }, context) => copy(root.inputs['x'] as Value, output, context);

export const transpose: Schedule = ({ root, output }, context) => {
  const x = root.inputs['x'] as Value;
  const { perm } = root.attrs as { perm: readonly number[] };
  const strides = rowMajor(shapeOf(x));
  const shape = shapeOf(output);
  return move('transpose', output, [x], [{ nest: collapse(shape, [rowMajor(shape), perm.map((axis) => strides[axis])]), operand: 0, to: 0, from: 0 }], context);
};

export const slice: Schedule = ({ root, output }, context) => {
  const x = root.inputs['x'] as Value;
  const { axis, start, step } = root.attrs as { axis: number; start: number; step: number };
  const strides = rowMajor(shapeOf(x));
  const along = normalAxis(axis, strides.length)!;
  const shape = shapeOf(output);
  const nest = collapse(shape, [rowMajor(shape), strides.map((stride, a) => (a === along ? stride * step : stride))]);
  return move('slice', output, [x], [{ nest, operand: 0, to: 0, from: start * strides[along] }], context);
};

export const concat: Schedule = ({ root, output }, context) => {
  const parts = root.inputs['xs'] as readonly Value[];
  const operands = [...new Set(parts)];
  const shape = shapeOf(output);
  const along = normalAxis((root.attrs as { axis: number }).axis, shape.length)!;
  const strides = rowMajor(shape);
  let start = 0;
  const blocks = parts.map((part): Block => {
    const own = shapeOf(part);
    const to = start * strides[along];
    start += own[along];
    return { nest: collapse(own, [strides, rowMajor(own)]), operand: operands.indexOf(part), to, from: 0 };
  });
  return move('concat', output, operands, blocks, context);
};

export const pad: Schedule = ({ root, output }, context) => {
  const x = root.inputs['x'] as Value;
  const { pads, value } = root.attrs as { pads: readonly number[]; value: number };
  const own = shapeOf(x);
  const strides = rowMajor(shapeOf(output));
  const to = strides.reduce((sum, stride, axis) => sum + stride * pads[axis], 0);
  return move('pad', output, [x], [{ nest: collapse(own, [strides, rowMajor(own)]), operand: 0, to, from: 0 }], context, value);
};

// ---- gather_rows

interface GatherShape {
  readonly e: Elem;
  readonly rows: number;
  readonly row: number;
  readonly indices: Elem;
  readonly count: number;
}

export const gatherRows: Schedule = ({ root, output }, { target, share }) => {
  const [table, indices] = [root.inputs['table'] as Value, root.inputs['indices'] as Value];
  const [rows, ...row] = shapeOf(table);
  const key: GatherShape = { e: elemOf(table.type.dtype), rows, row: product(row), indices: elemOf(indices.type.dtype), count: product(shapeOf(indices)) };
  return { fn: share('gather_rows', key, gatherFn(target)), buffers: [{ kind: 'value', value: output }, operand(table), operand(indices)], values: [] };
};

/** A u32 index above 2^31 is negative as i32 and must still clamp to the last row, so the clamp happens before the conversion. */
const gatherFn = (target: Target) => (name: string, { e, rows, row, indices, count }: GatherShape): Fn => {
  const result = buffer('out', e, count * row, 'out');
  const table = buffer('rows', e, rows * row, 'in');
  const list = buffer('indices', indices, count, 'in');
  const i = index('i', count);
  const chosen = variable('chosen', 'i32');
  const [least, greatest] = limits(indices);
  return fn(name, { buffers: [result, table, list] }, [loop(i, [
    set(chosen, convert('i32', clamp(load(at(list, 0, [i, 1])), Math.max(0, least), Math.min(rows - 1, greatest)))),
    ...overNest({ shape: [row], strides: [[1], [1]] }, vectorLanes(target, e), (run, locate) => [
      store(moved(locate(0, result), 0, [i, row]), load(moved(locate(1, table), 0, [chosen, row]), run)),
    ]),
  ])]);
};
