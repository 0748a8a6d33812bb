/**
 * What a layer multiplies, as rows: for a group of output channels and a position of the output, the numbers that the weights of one
 * channel meet, in the order of those weights; 0 where a window reads outside the image.
 */
import { Builder } from '../../ir/build.ts';
import { sizeOf, staticShape } from '../../ir/dim.ts';
import { constantOf, type Node, type Value } from '../../ir/graph.ts';
import { linear } from '../../ir/ops/index.ts';
import { reals } from '../../ir/ops/elements.ts';
import { f32, tensor } from '../../ir/type.ts';
import { createExecutor, dequantized } from '../../calibration/executor.ts';

export interface LayerRows {
  /** groups of output channels that read the same numbers */
  readonly groups: number;
  /** numbers in a row: weights of one output channel */
  readonly depth: number;
  /** output channels of one group */
  readonly outputs: number;
  /** positions of one sample */
  readonly positions: number;
  /** writes the rows of a group at these positions, one after the other */
  gather(x: Float32Array, group: number, positions: Int32Array, to: Float32Array): void;
}

export const layerRows = (node: Node): LayerRows => {
  const { x, weight } = node.inputs as { readonly x: Value; readonly weight: Value };
  const shape = staticShape(weight.type.shape);
  const depth = sizeOf(shape) / shape[0];
  if (node.op === 'linear') {
    return {
      groups: 1, depth, outputs: shape[0], positions: sizeOf(node.output.type.shape) / shape[0],
      gather: (from, _, positions, to) => positions.forEach((p, i) => to.set(from.subarray(p * depth, (p + 1) * depth), i * depth)),
    };
  }
  const { group, strides, pads, dilations } = node.attrs as { group: number; strides: readonly number[]; pads: readonly number[]; dilations: readonly number[] };
  const [, height, width, channels] = staticShape(x.type.shape);
  const [, oh, ow] = staticShape(node.output.type.shape);
  const [, kh, kw, perGroup] = shape;
  const [[yStride, xStride], [padTop, padLeft], [yStep, xStep]] = [strides, pads, dilations];
  return {
    groups: group, depth, outputs: shape[0] / group, positions: sizeOf(node.output.type.shape) / shape[0],
    gather(from, g, positions, to) {
      let at = 0;
      for (let n = 0; n < positions.length; n++) {
        const p = positions[n];
        const line = Math.floor(p / ow);
        const image = Math.floor(line / oh);
        const [top, left] = [(line - image * oh) * yStride - padTop, (p - line * ow) * xStride - padLeft];
        for (let i = 0, row = top; i < kh; i++, row += yStep) for (let j = 0, column = left; j < kw; j++, column += xStep, at += perGroup) {
          const inside = row >= 0 && row < height && column >= 0 && column < width;
          const pixel = ((image * height + row) * width + column) * channels + g * perGroup;
          for (let c = 0; c < perGroup; c++) to[at + c] = inside ? from[pixel + c] : 0;
        }
      }
    },
  };
};

/** Whether two layers multiply the same rows. */
export const readTheSame = (a: Node, b: Node): boolean => {
  const windowOf = ({ op, inputs, attrs: { group, strides, pads, dilations } }: Node): string =>
    JSON.stringify([op, staticShape((inputs['weight'] as Value).type.shape).slice(1), group, strides, pads, dilations]);
  return a.inputs['x'] === b.inputs['x'] && windowOf(a) === windowOf(b);
};

/** The layer's results for `count` gathered rows: those that it has at their positions, to the bit. For layers of one group. */
export const rowProducts = (node: Node, { depth, outputs }: LayerRows, count: number): ((x: Float32Array) => Float32Array) => {
  const constant = (value: Value): Float32Array => dequantized(constantOf(value)!).data as Float32Array;
  const { weight, bias } = node.inputs as { readonly weight: Value; readonly bias: Value | null };
  const b = new Builder();
  const type = f32(count, depth);
  const y = b.emit(linear, {
    x: b.input('x', type), weight: b.constant('weight', tensor(f32(outputs, depth), constant(weight))), bias: bias === null ? null : b.constant('bias', tensor(f32(outputs), constant(bias))),
  });
  const executor = createExecutor(b.finish('float', node.output.name, [{ name: 'y', value: y }]));
  return (x) => reals(executor.run({ x: { type, data: x } })['y']);
};
