/**
 * Strided views: what a chain of reshapes, transposes and slices does to the elements of its source. A chain whose view is
 * row-major again is one reshape; one that is row-major after reordering axes is a reshape and a transpose.
 */
import { bindDim, symbolsOf, type Shape } from './dim.ts';
import { isNode, type Value } from './graph.ts';

export interface View {
  readonly source: Value;
  readonly sizes: readonly number[];
  /** distance in elements of the source; 0 along axes of size 1 */
  readonly strides: readonly number[];
  readonly offset: number;
  /** ops from the source to the value, first to last */
  readonly ops: readonly string[];
  /** product of the scalars that the elements are multiplied by on the way */
  readonly factor: number;
}

/** A product with one number, for views that look through scalings. */
export interface Scaled { readonly x: Value; readonly factor: number }

/** Sizes that stand for symbols while a view is analysed: large primes, so that equality of sizes means equality of expressions. */
const STAND_INS = [1000003, 1000033, 1000037, 1000039, 1000081, 1000099, 1000117, 1000121] as const;

/** Sizes with stand-ins for symbols (in name order), or null where there are more symbols than stand-ins. */
export const genericSizes = (shape: Shape, symbols: readonly string[] = symbolsOf(shape)): readonly number[] | null => {
  const names = [...symbols].sort();
  if (names.length > STAND_INS.length) return null;
  const bindings = new Map(names.map((name, i) => [name, STAND_INS[i]] as const));
  const sizes = shape.map((dim) => bindDim(dim, bindings));
  return sizes.every((size): size is number => typeof size === 'number') ? sizes : null;
};

const contiguous = (sizes: readonly number[]): readonly number[] => {
  const strides = new Array<number>(sizes.length).fill(0);
  let stride = 1;
  for (let axis = sizes.length - 1; axis >= 0; axis--) {
    if (sizes[axis] === 1) continue;
    strides[axis] = stride;
    stride *= sizes[axis];
  }
  return strides;
};

/** Strides of the same elements under other sizes, or null where they would not be a strided view. */
export const reshapeStrides = (sizes: readonly number[], strides: readonly number[], target: readonly number[]): readonly number[] | null => {
  // Axes of size 1 say nothing; neighbours that follow on each other are one run.
  const runs: { size: number; stride: number }[] = [];
  sizes.forEach((size, axis) => {
    if (size === 1) return;
    const last = runs[runs.length - 1];
    if (last !== undefined && last.stride === strides[axis] * size) Object.assign(last, { size: last.size * size, stride: strides[axis] });
    else runs.push({ size, stride: strides[axis] });
  });
  const result = new Array<number>(target.length).fill(0);
  let axis = target.length - 1;
  for (const { size, stride } of runs.reverse()) {
    let covered = 1;
    for (; axis >= 0 && covered < size; axis--) {
      if (target[axis] === 1) continue;
      result[axis] = stride * covered;
      covered *= target[axis];
    }
    if (covered !== size) return null;
  }
  return target.slice(0, axis + 1).every((size) => size === 1) ? result : null;
};

/** The ops that a view looks through. */
export type ViewOp = 'reshape' | 'transpose' | 'slice';

/**
 * The value as a view of the earliest value that it is a strided view of, through the given ops and, where `scaledOf` is given,
 * through scalings.
 */
export const viewOf = (
  value: Value, through: readonly ViewOp[] = ['reshape', 'transpose'], scaledOf: (value: Value) => Scaled | null = () => null,
): View | null => {
  const chain: Value[] = [];
  let source = value;
  while (isNode(source.def)) {
    const next = (through as readonly string[]).includes(source.def.op) ? (source.def.inputs['x'] as Value) : scaledOf(source)?.x;
    if (next === undefined) break;
    chain.unshift(source);
    source = next;
  }
  const symbols = [...new Set([source, ...chain].flatMap(({ type }) => symbolsOf(type.shape)))];
  // A reshape that cannot be a view starts over with its own output as the source.
  const begin = (at: Value): View | null => {
    const sizes = genericSizes(at.type.shape, symbols);
    return sizes && { source: at, sizes, strides: contiguous(sizes), offset: 0, ops: [], factor: 1 };
  };
  let view = begin(source);
  for (const step of chain) {
    if (view === null) return null;
    const scaled = scaledOf(step);
    view = scaled !== null ? { ...view, factor: view.factor * scaled.factor, ops: [...view.ops, 'scale'] } : apply(view, step, symbols) ?? begin(step);
  }
  return view;
};

const apply = (view: View, step: Value, symbols: readonly string[]): View | null => {
  if (!isNode(step.def)) return null;
  const { op, attrs } = step.def;
  const sizes = genericSizes(step.type.shape, symbols);
  if (sizes === null) return null;
  const ops = [...view.ops, op];
  if (op === 'transpose') return { ...view, sizes, strides: (attrs['perm'] as readonly number[]).map((axis) => view.strides[axis]), ops };
  if (op === 'reshape') {
    const strides = reshapeStrides(view.sizes, view.strides, sizes);
    return strides && { ...view, sizes, strides, ops };
  }
  const { axis, start, step: by } = attrs as { readonly axis: number; readonly start: number; readonly step: number };
  const along = axis < 0 ? axis + sizes.length : axis;
  return {
    ...view, sizes, ops, offset: view.offset + start * view.strides[along],
    strides: view.strides.map((stride, i) => (i !== along ? stride : sizes[i] === 1 ? 0 : stride * by)),
  };
};

/** Axes by descending stride, each axis of size 1 behind the axis before it: the order in which the elements lie in the source. */
export const memoryOrder = ({ sizes, strides }: View): readonly number[] => {
  const order: number[] = [];
  const solid = sizes.map((_, axis) => axis).filter((axis) => sizes[axis] !== 1).sort((a, b) => strides[b] - strides[a]);
  let lead = 0;
  for (; lead < sizes.length && sizes[lead] === 1; lead++) order.push(lead);
  for (const axis of solid) {
    order.push(axis);
    for (let next = axis + 1; next < sizes.length && sizes[next] === 1; next++) order.push(next);
  }
  return order;
};

/** Whether the view, its axes taken in `order`, runs through all its elements one after another. */
export const isDense = ({ sizes, strides }: View, order: readonly number[]): boolean => {
  let stride = 1;
  for (const axis of [...order].reverse()) {
    if (sizes[axis] === 1) continue;
    if (strides[axis] !== stride) return false;
    stride *= sizes[axis];
  }
  return true;
};
