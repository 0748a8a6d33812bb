/** Ops that slide a window over [N, H, W, C]: convolution and pooling. Channels last; pads are top, left, bottom, right. */
import { addDims, divDims, isStatic, printDim, printShape, sizeOf, staticShape, type Dim, type Shape, type StaticShape } from '../dim.ts';
import { allocate } from '../dtype.ts';
import { defineOp, flag, int, ints, misuse } from '../op.ts';
import { tensorType } from '../type.ts';
import { checkBias } from './contraction.ts';
import { rankOf, realShape, reals, staticDim } from './elements.ts';
import { widthsAttr } from './widths.ts';

export interface Window {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly pads: readonly number[];
  readonly dilations: readonly number[];
}
const windowAttrs = {
  strides: ints('step of the window: down, right', [1, 1]),
  pads: ints('rows and columns added: top, left, bottom, right', [0, 0, 0, 0]),
  dilations: ints('distance of taps: down, right', [1, 1]),
};

/** [OH, OW] of a window over [H, W]. */
export const windowShape = (size: Shape, { kernel, strides, pads, dilations }: Window): Shape => {
  if (kernel.length !== 2 || strides.length !== 2 || dilations.length !== 2 || pads.length !== 4) misuse('kernel, strides and dilations take 2 numbers, pads 4');
  if ([...kernel, ...strides, ...dilations].some((n) => n < 1) || pads.some((n) => n < 0)) misuse('sizes of a window must be positive');
  return [0, 1].map((side): Dim => {
    const room = addDims(size[side], pads[side] + pads[side + 2] - (kernel[side] - 1) * dilations[side] - 1);
    if (isStatic(room)) return room >= 0 ? Math.floor(room / strides[side]) + 1 : misuse(`the window is larger than the padded input [${printShape(size)}]`);
    const steps = divDims(room, strides[side]);
    return steps === null ? misuse(`the output size (${printDim(room)})/${strides[side]} is not known; bind its symbol`) : addDims(steps, 1);
  });
};

/** Calls `visit` with the offset of the pixel of every tap inside the input, and the number of the tap. */
const eachTap = (
  [height, width]: StaticShape, { kernel, strides, pads, dilations }: Window, oy: number, ox: number, visit: (pixel: number, tap: number) => void,
): void => {
  for (let ky = 0; ky < kernel[0]; ky++) {
    const y = oy * strides[0] - pads[0] + ky * dilations[0];
    if (y < 0 || y >= height) continue;
    for (let kx = 0; kx < kernel[1]; kx++) {
      const x = ox * strides[1] - pads[1] + kx * dilations[1];
      if (x >= 0 && x < width) visit(y * width + x, ky * kernel[1] + kx);
    }
  }
};

export const conv = defineOp({
  name: 'conv',
  summary: 'convolution: x [N, H, W, I], weight [O, KH, KW, I/group], bias [O] -> [N, OH, OW, O]',
  operands: { x: 'one', weight: 'one', bias: 'optional' },
  attrs: { ...windowAttrs, group: int('channels are split into this many groups', 1), widths: widthsAttr },
  infer: ({ x, weight, bias }, { group, ...attrs }) => {
    const [batch, height, width, channels] = rankOf(realShape(x, 'x'), 4, 'x');
    const [outputs, kh, kw, depth] = staticShape(rankOf(realShape(weight, 'weight'), 4, 'weight'));
    if (group < 1 || staticDim(channels, 'the number of channels') !== depth * group || outputs % group !== 0) {
      misuse(`x [${printShape(x.shape)}] does not fit the weight [${printShape(weight.shape)}] in ${group} group(s)`);
    }
    checkBias(bias?.shape ?? null, outputs);
    return tensorType('f32', [batch, ...windowShape([height, width], { kernel: [kh, kw], ...attrs }), outputs]);
  },
  evaluate: ({ x, weight, bias }, { group, ...attrs }, type) => {
    const [a, w] = [reals(x), reals(weight)];
    const b = bias === null ? null : reals(bias);
    const [, height, width, channels] = staticShape(x.type.shape);
    const [outputs, kh, kw, depth] = staticShape(weight.type.shape);
    const [batch, oh, ow] = staticShape(type.shape);
    const window = { kernel: [kh, kw], ...attrs };
    const data = new Float32Array(sizeOf(type.shape));
    const sums = new Float64Array(outputs);
    for (let n = 0, at = 0; n < batch; n++) for (let oy = 0; oy < oh; oy++) for (let ox = 0; ox < ow; ox++, at += outputs) {
      for (let o = 0; o < outputs; o++) sums[o] = b === null ? 0 : b[o];
      eachTap([height, width], window, oy, ox, (pixel, tap) => {
        const base = (n * height * width + pixel) * channels;
        for (let o = 0; o < outputs; o++) {
          const from = base + Math.floor((o * group) / outputs) * depth;
          const row = (o * kh * kw + tap) * depth;
          let sum = sums[o];
          for (let c = 0; c < depth; c++) sum += a[from + c] * w[row + c];
          sums[o] = sum;
        }
      });
      data.set(sums, at);
    }
    return { type, data };
  },
});

const poolAttrs = { kernel: ints('size of the window: height, width'), ...windowAttrs };
const poolShape = (shape: Shape, window: Window): Shape => {
  const [batch, height, width, channels] = rankOf(shape, 4, 'x');
  if (window.pads.some((pad, side) => pad > 0 && pad >= (window.kernel[side % 2] - 1) * window.dilations[side % 2] + 1)) misuse('a pad is as large as the window');
  return [batch, ...windowShape([height, width], window), channels];
};

export const maxPool = defineOp({
  name: 'max_pool',
  summary: 'greatest element of each window, channel by channel; padding never wins; any element type',
  operands: { x: 'one' },
  attrs: poolAttrs,
  infer: ({ x }, attrs) => tensorType(x.dtype, poolShape(x.shape, attrs)),
  evaluate: ({ x }, attrs, type) => {
    const [, height, width, channels] = staticShape(x.type.shape);
    const [batch, oh, ow] = staticShape(type.shape);
    const data = allocate(type.dtype, sizeOf(type.shape));
    for (let n = 0, at = 0; n < batch; n++) for (let oy = 0; oy < oh; oy++) for (let ox = 0; ox < ow; ox++, at += channels) {
      let first = true;
      eachTap([height, width], attrs, oy, ox, (pixel) => {
        const base = (n * height * width + pixel) * channels;
        for (let c = 0; c < channels; c++) if (first || x.data[base + c] > data[at + c]) data[at + c] = x.data[base + c];
        first = false;
      });
    }
    return { type, data };
  },
});

export const averagePool = defineOp({
  name: 'average_pool',
  summary: 'mean of each window, channel by channel',
  operands: { x: 'one' },
  attrs: { ...poolAttrs, countPad: flag('padding counts as zeros; otherwise the mean is over the taps inside the input', false) },
  infer: ({ x }, { countPad: _, ...attrs }) => tensorType('f32', poolShape(realShape(x, 'x'), attrs)),
  evaluate: ({ x }, { countPad, ...attrs }, type) => {
    const a = reals(x);
    const [, height, width, channels] = staticShape(x.type.shape);
    const [batch, oh, ow] = staticShape(type.shape);
    const data = new Float32Array(sizeOf(type.shape));
    const sums = new Float64Array(channels);
    for (let n = 0, at = 0; n < batch; n++) for (let oy = 0; oy < oh; oy++) for (let ox = 0; ox < ow; ox++, at += channels) {
      let taps = 0;
      sums.fill(0);
      eachTap([height, width], attrs, oy, ox, (pixel) => {
        const base = (n * height * width + pixel) * channels;
        for (let c = 0; c < channels; c++) sums[c] += a[base + c];
        taps++;
      });
      const count = countPad ? attrs.kernel[0] * attrs.kernel[1] : taps;
      for (let c = 0; c < channels; c++) data[at + c] = sums[c] / count;
    }
    return { type, data };
  },
});
