/** `max_pool` and `sum_pool`: windows of an image, channels innermost. Without a border the image is read where it stands. */
import type { Value } from '../../ir/graph.ts';
import { add, at, buffer, call, fn, index, list, load, loop, max, moved, set, store, variable, zero } from '../../loops/build.ts';
import type { Address, Elem, Expr, Fn, Stmt } from '../../loops/types.ts';
import { elemOf, limits, operand, perChannel, scratch, type Binding, type Schedule, type ScheduleContext } from './kernel.ts';
import { overNest } from './nest.ts';
import { makeRescale, rescaleBindings, rescaleClass, rescaleValues, type RescaleClass } from './rescale.ts';
import { bandLength, bandOf, inResult, overBlocks, windowShapeOf, type Band, type WindowAttrs, type WindowShape } from './rows.ts';
import { vectorLanes, type Target } from './target.ts';
import { inReadingOrder, readWords, runOf } from './words.ts';

interface Shape {
  readonly op: 'max_pool' | 'sum_pool';
  readonly window: WindowShape;
  /** null: no border, the image is read in place */
  readonly band: Band | null;
  readonly fill: number;
  readonly x: Elem;
  readonly rescale: RescaleClass;
}
interface PoolAttrs extends WindowAttrs {
  readonly kernel: readonly number[];
  readonly padCode?: number;
}

const schedule = (op: Shape['op']): Schedule => (step, context) => {
  const x = step.root.inputs['x'] as Value;
  const { kernel, strides, pads, dilations = [1, 1], padCode } = step.root.attrs as unknown as PoolAttrs;
  const window = windowShapeOf(x, step.output, kernel, { strides, pads, dilations });
  const e = elemOf(x.type.dtype);
  const band = pads.every((n) => n === 0) ? null : bandOf(window, e, 0, context.target);
  const key: Shape = { op, window, band, fill: padCode ?? limits(e)[0], x: e, rescale: rescaleClass(step) };
  const buffers: readonly Binding[] = [
    { kind: 'value', value: step.output }, operand(x), ...(band === null ? [] : [scratch(e, bandLength(band))]),
    ...rescaleBindings(step, true, (constants) => inReadingOrder(perChannel(constants, window.channels), context.target)),
  ];
  return { fn: context.share(op, key, poolFn(context)), buffers, values: rescaleValues(step) };
};
export const maxPool = schedule('max_pool');
export const sumPool = schedule('sum_pool');

const poolFn = ({ share, target }: ScheduleContext) => (name: string, { op, window: w, band, fill, x, rescale: ending }: Shape): Fn => {
  const { channels } = w;
  const pixels = w.batch * w.outHeight * w.outWidth;
  const perRow = w.outWidth * channels;
  const result = buffer('out', ending.out, pixels * channels, 'out');
  const source = buffer('x', x, w.batch * w.height * w.width * channels, 'in');
  const rescale = makeRescale(ending, target, { channels, y: pixels * channels });
  const row = band === null ? w.width * channels : band.row;
  const shape: RowShape = { op, kernel: w.kernel, dilations: w.dilations, stride: w.strides[1], outWidth: w.outWidth, channels, row, x, rescale: ending, target };
  const pooled = (out: Address, from: Address): Stmt => call(share(`${op}_row`, shape, rowFn), [
    out, from, ...rescale.buffers.map((one) => (one === rescale.y ? moved(at(one), out.offset, ...out.terms) : at(one))),
  ], [], rescale.values);
  if (band === null) {
    const [n, r] = [index('sample', w.batch), index('row', w.outHeight)];
    const body = [loop(n, [loop(r, [
      pooled(at(result, 0, [n, w.outHeight * perRow], [r, perRow]), at(source, 0, [n, w.height * row], [r, w.strides[0] * row])),
    ])])];
    return fn(name, { buffers: [result, source, ...rescale.buffers], values: rescale.values }, body);
  }
  const rows = buffer('rows', x, bandLength(band), 'temp');
  const body = overBlocks(w, band, source, rows, fill, target, (block) => {
    const r = index('row', block.rows);
    return [loop(r, [pooled(inResult(result, block, 0, perRow, [[r, perRow]]), at(rows, 0, [r, w.strides[0] * band.row]))])];
  });
  return fn(name, { buffers: [result, source, rows, ...rescale.buffers], values: rescale.values }, body);
};

interface RowShape {
  readonly op: Shape['op'];
  readonly kernel: readonly number[];
  readonly dilations: readonly number[];
  readonly stride: number;
  readonly outWidth: number;
  readonly channels: number;
  /** elements of one row of the image or band */
  readonly row: number;
  readonly x: Elem;
  readonly rescale: RescaleClass;
  readonly target: Target;
}

/** One row of output pixels. */
const rowFn = (name: string, { op, kernel: [kh, kw], dilations, stride, outWidth, channels, row, x, rescale: ending, target }: RowShape): Fn => {
  const result = buffer('out', ending.out, outWidth * channels, 'out');
  const source = buffer('x', x, (kh - 1) * dilations[0] * row + ((outWidth - 1) * stride + (kw - 1) * dilations[1] + 1) * channels, 'in');
  const rescale = makeRescale(ending, target, { channels, y: outWidth * channels });
  const nest = { shape: [outWidth, channels], strides: [[channels, 1], [stride * channels, 1], [0, 1]] };
  const [ky, kx] = [index('ky', kh), index('kx', kw)];
  const tap = (from: Address): Address => moved(from, 0, [ky, dilations[0] * row], [kx, dilations[1] * channels]);
  const overTaps = (body: readonly Stmt[]): Stmt => loop(ky, [loop(kx, body)]);

  if (op === 'max_pool') {
    const body = overNest(nest, vectorLanes(target, x), (run, locate) => {
      const top = variable('top', x, run);
      return [set(top, load(locate(1, source), run)), overTaps([set(top, max(top, load(tap(locate(1, source)), run)))]), store(locate(0, result), top)];
    });
    return fn(name, { buffers: [result, source] }, body);
  }
  const prepared = new Map([1, runOf(target.lanes)].map((run) => [run, rescale.prepare(run)]));
  const body = overNest(nest, runOf(target.lanes), (run, locate) => {
    const { channels: constantsOf, finish } = prepared.get(run)!;
    const { clear, accumulate, sums } = summing(run, target, tap(locate(1, source)));
    const { setup, constants } = constantsOf((one) => ({ from: locate(2, one), stride: 1 }));
    return [...clear, overTaps(accumulate), ...setup, ...finish(sums, constants, locate(0, result), rescale.y === null ? null : { from: locate(0, rescale.y), stride: 1 })];
  });
  return fn(name, { buffers: [result, source, ...rescale.buffers], values: rescale.values }, [...[...prepared.values()].flatMap(({ setup }) => setup), ...body]);
};

/** Variables that sum a run, the statements that clear them, and those that add the run at an address. */
export const summing = (run: number, { lanes }: Target, from: Address): { readonly clear: readonly Stmt[]; readonly accumulate: readonly Stmt[]; readonly sums: readonly Expr[] } => {
  const sums = list(run === 1 ? 1 : 2, (i) => variable(`sum${i}`, 'i32', run === 1 ? 1 : lanes));
  const words = readWords(from, 1, run);
  return {
    sums, clear: sums.map((v) => set(v, zero('i32', v.type.n))),
    accumulate: [...words.setup, ...sums.map((v, i) => set(v, add(v, words.parts[i])))],
  };
};
