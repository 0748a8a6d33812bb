/**
 * `conv_acc`. One tap, stride 1, no border and one group: a product over pixels. Every other shape reads a band of rows: a row of the
 * product is a window, its runs are the rows of taps (or the taps, where dilation or groups part them). One channel per group is
 * `depthwise.ts`.
 */
import type { Value } from '../../ir/graph.ts';
import { at, buffer, fn, index, loop, moved } from '../../loops/build.ts';
import type { Elem, Fn } from '../../loops/types.ts';
import { depthwise } from './depthwise.ts';
import { multiply, packPanels, panelLength, panelStarts, targetFor, walkOf, type Walk } from './gemm.ts';
import { constant, elemOf, operand, packed, perChannel, scratch, shapeOf, type Binding, type Schedule, type ScheduleContext } from './kernel.ts';
import { rowProduct } from './linear.ts';
import { makeRescale, rescaleBindings, rescaleClass, rescaleValues, type RescaleClass } from './rescale.ts';
import { bandLength, bandOf, inResult, overBlocks, windowShapeOf, type Band, type WindowAttrs, type WindowShape } from './rows.ts';
import type { Target } from './target.ts';

export interface ConvAttrs extends WindowAttrs {
  readonly group: number;
  readonly padCode: number;
}
interface Shape {
  readonly window: WindowShape;
  readonly band: Band;
  readonly group: number;
  readonly padCode: number;
  readonly outputs: number;
  readonly walk: Walk;
  readonly x: Elem;
  readonly rescale: RescaleClass;
  readonly inPlace: boolean;
  readonly target: Target;
}

export const conv: Schedule = (step, context) => {
  const [x, weight] = [step.root.inputs['x'] as Value, step.root.inputs['weight'] as Value];
  const attrs = step.root.attrs as unknown as ConvAttrs;
  const [outputs, kh, kw, perGroup] = shapeOf(weight);
  const window = windowShapeOf(x, step.output, [kh, kw], attrs);
  const plain = kh === 1 && kw === 1 && attrs.group === 1 && [...attrs.strides].every((s) => s === 1) && attrs.pads.every((p) => p === 0);
  if (plain) return rowProduct(step, context, window.batch * window.height * window.width, window.channels, outputs);
  if (perGroup === 1 && outputs === window.channels) return depthwise(step, context, window, attrs.padCode);

  const columns = outputs / attrs.group;
  const target = targetFor(context.target, columns);
  const joined = attrs.group === 1 && attrs.dilations[1] === 1;
  const bandRow = (attrs.pads[1] + window.width + attrs.pads[3]) * window.channels;
  const walk = joined ? walkOf([kh], [attrs.dilations[0] * bandRow], kw * perGroup, target)
    : walkOf([kh, kw], [attrs.dilations[0] * bandRow, attrs.dilations[1] * window.channels], perGroup, target);
  const band = bandOf(window, 'i16', walk.padded - walk.run, context.target);
  const key: Shape = {
    window, band, group: attrs.group, padCode: attrs.padCode, outputs, walk, x: elemOf(x.type.dtype), rescale: rescaleClass(step), inPlace: context.inPlace !== null, target,
  };
  const filter = kh * kw * perGroup;
  const weights = constant(weight).data as Int8Array;
  const groupLength = panelStarts(columns, target).length * panelLength(walk, target);
  const panels = new Int8Array(attrs.group * groupLength);
  for (let g = 0; g < attrs.group; g++) panels.set(packPanels(weights.subarray(g * columns * filter, (g + 1) * columns * filter), columns, walk, target), g * groupLength);
  const buffers: readonly Binding[] = [
    { kind: 'value', value: step.output }, operand(x), packed(weight.name, panels), scratch('i16', bandLength(band)),
    ...rescaleBindings(step, !key.inPlace, (list) => perChannel(list, outputs)),
  ];
  return { fn: context.share('conv', key, convFn(context)), buffers, values: rescaleValues(step) };
};

const convFn = ({ share }: ScheduleContext) => (name: string, { window: w, band, group, padCode, outputs, walk, x, rescale: ending, inPlace, target }: Shape): Fn => {
  const pixels = w.batch * w.outHeight * w.outWidth;
  const columns = outputs / group;
  const groupLength = panelStarts(columns, target).length * panelLength(walk, target);
  const result = buffer('out', ending.out, pixels * outputs, 'out');
  const source = buffer('x', x, w.batch * w.height * w.width * w.channels, 'in');
  const weights = buffer('w', 'i8', group * groupLength, 'const');
  const rows = buffer('rows', 'i16', bandLength(band), 'temp');
  const rescale = makeRescale(ending, target, { channels: outputs, y: pixels * outputs }, inPlace ? result : null);
  const tile = { walk, rowA: w.strides[1] * w.channels, rowOut: outputs, a: 'i16' as const, b: 'i8' as const, rescale: ending, inPlace, target };
  const body = overBlocks(w, band, source, rows, padCode, target, (block) => {
    const r = index('row', block.rows);
    const perRow = w.outWidth * outputs;
    const products = Array.from({ length: group }, (_, g) => {
      const out = moved(inResult(result, block, 0, perRow, [[r, perRow]]), g * columns);
      return multiply(tile, w.outWidth, columns, rescale, {
        out, a: at(rows, g * (w.channels / group), [r, w.strides[0] * band.row]), b: at(weights, g * groupLength),
        y: rescale.y === null ? null : moved(at(rescale.y), out.offset, ...out.terms), channel: g * columns,
      }, share);
    });
    return [loop(r, products.flat())];
  });
  return fn(name, { buffers: [result, source, weights, rows, ...rescale.buffers], values: rescale.values }, body);
};
