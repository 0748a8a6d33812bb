/**
 * How the executor runs each op. The plan of a node fixes shapes, packed weights and addresses once; its step then only computes. Ops
 * without a plan of their own run their reference meaning, `evaluate`.
 */
import { sizeOf, staticShape, stridesOf, type StaticShape } from '../ir/dim.ts';
import { constantOf, type Node, type Value } from '../ir/graph.ts';
import { attention, batchNorm, conv, linear, matmul, softmax, type FloatNode } from '../ir/ops/index.ts';
import { broadcastOffsets, viewOffsets } from '../ir/ops/elements.ts';
import type { BinaryOp } from '../ir/ops/binary.ts';
import type { UnaryOp } from '../ir/ops/unary.ts';
import type { NodeOf } from '../ir/op.ts';
import { quantizeReal, scaleAt, zeroAt, scaleOf, zeroOf } from '../ir/quant.ts';
import { realType, type Tensor, type TensorType } from '../ir/type.ts';
import { PANEL, packedLength, packPanels, SCRATCH_BYTES, type F32Kernels } from '../numerics/f32-kernels.ts';
import type { RealFunction } from '../numerics/real-math-simd.ts';
import { exp } from '../numerics/real-math.ts';
import { dequantized } from './codes.ts';
import type { Heap, Layout, Place, Step } from './layout.ts';

export type PlaceOf = (value: Value) => Place;
type Plan = (heap: Heap) => Step;
/** A plan, or null where this form of the op has none of its own. */
type Planner<N> = (node: N, layout: Layout, placeOf: PlaceOf) => Plan | null;

export const planNode = (node: Node, layout: Layout, placeOf: PlaceOf): Plan =>
  (planners as Readonly<Record<string, Planner<Node> | undefined>>)[node.op]?.(node, layout, placeOf) ?? planReference(node, layout, placeOf);

/** The node's own `evaluate`, its result copied to its place. */
const planReference = (node: Node, _: Layout, placeOf: PlaceOf): Plan => {
  const places = new Map<Value, Place>();
  const visit = (operand: Value | null | readonly Value[]): void => {
    if (operand === null) return;
    if (Array.isArray(operand)) (operand as readonly Value[]).forEach(visit);
    else places.set(operand as Value, placeOf(operand as Value));
  };
  Object.values(node.inputs).forEach(visit);
  const out = placeOf(node.output);
  const type = realType(node.output.type);
  return (heap) => {
    const tensorOf = (value: Value): Tensor => ({ type: realType(value.type), data: places.get(value)!.integers ?? realsAt(heap, places.get(value)!, value) });
    const inputs = Object.fromEntries(Object.entries(node.inputs).map(([slot, operand]) =>
      [slot, operand === null ? null : Array.isArray(operand) ? operand.map(tensorOf) : tensorOf(operand as Value)]));
    const to = out.integers ?? realsAt(heap, out, node.output);
    return () => (to as Float32Array).set(node.decl.evaluate(inputs as never, node.attrs as never, type).data as Float32Array);
  };
};

const realsAt = (heap: Heap, { offset }: Place, { type }: Value): Float32Array => heap.f32.subarray(offset / 4, offset / 4 + sizeOf(type.shape));

/** A constant operand in real numbers, or null where it is computed. */
const realConstant = (value: Value): Float32Array | null => {
  const found = constantOf(value);
  return found === null ? null : (dequantized(found).data as Float32Array);
};
const lastDim = (shape: TensorType['shape']): number => staticShape(shape)[shape.length - 1];

// ---- sums of products

/** Weights [O, K] in panels, and the bias filled up to whole panels. */
const packWeights = (layout: Layout, weight: Float32Array, bias: Float32Array | null, first: number, outputs: number, depth: number):
{ readonly panels: number; readonly bias: number } => ({
  panels: layout.constant(packedLength(depth, outputs), (to) => packPanels((k, n) => weight[(first + n) * depth + k], depth, outputs, to)),
  bias: layout.constant(Math.ceil(outputs / PANEL) * PANEL, (to) => { if (bias !== null) to.set(bias.subarray(first, first + outputs)); }),
});

/** The bias as numbers; undefined where it is computed, which no plan handles. */
const biasOf = (bias: Value | null): Float32Array | null | undefined => (bias === null ? null : realConstant(bias) ?? undefined);

const planLinear: Planner<NodeOf<typeof linear>> = ({ inputs: { x, weight, bias }, output }, layout, placeOf) => {
  const [w, b] = [realConstant(weight), biasOf(bias)];
  if (w === null || b === undefined) return null;
  const [outputs, depth] = staticShape(weight.type.shape);
  const rows = sizeOf(output.type.shape) / outputs;
  const packed = packWeights(layout, w, b, 0, outputs, depth);
  layout.scratch(SCRATCH_BYTES);
  const [from, to] = [placeOf(x), placeOf(output)];
  return ({ kernels, scratch }) => () =>
    kernels.gemm(from.offset, depth * 4, packed.panels, packed.bias, to.offset, outputs * 4, rows, outputs, 1, 0, 1, 0, depth, scratch);
};

/** The image with its border of zeros: rows of `width` pixels. */
interface Padded {
  readonly height: number;
  readonly width: number;
  /** copies image n into scratch and returns where it begins, or returns the image itself where there is no border */
  prepare(heap: Heap, from: number, n: number): number;
}
const padded = (shape: StaticShape, pads: readonly number[], scratchOffset: number): Padded => {
  const [, height, width, channels] = shape;
  const [top, left, bottom, right] = pads;
  const [tall, wide] = [height + top + bottom, width + left + right];
  const image = height * width * channels;
  return {
    height: tall, width: wide,
    prepare: ({ f32, scratch }, from, n) => {
      const start = from / 4 + n * image;
      if (tall === height && wide === width) return start * 4;
      const to = (scratch + scratchOffset) / 4;
      f32.fill(0, to, to + tall * wide * channels);
      for (let y = 0; y < height; y++) {
        const row = start + y * width * channels;
        f32.copyWithin(to + ((y + top) * wide + left) * channels, row, row + width * channels);
      }
      return to * 4;
    },
  };
};

const planConv: Planner<NodeOf<typeof conv>> = (node, layout, placeOf) => {
  const { inputs: { x, weight, bias }, attrs: { group, strides, pads, dilations }, output } = node;
  const [w, b] = [realConstant(weight), biasOf(bias)];
  if (w === null || b === undefined) return null;
  const shape = staticShape(x.type.shape);
  const channels = shape[3];
  const [outputs, kh, kw, depth] = staticShape(weight.type.shape);
  const [batch, oh, ow] = staticShape(output.type.shape);
  const [tile, border] = layout.scratch(SCRATCH_BYTES, (shape[1] + pads[0] + pads[2]) * (shape[2] + pads[1] + pads[3]) * channels * 4);
  const image = padded(shape, pads, border);
  const [from, to] = [placeOf(x), placeOf(output)];
  const rowBytes = image.width * channels * 4;
  const [yStride, xStride] = [strides[0] * rowBytes, strides[1] * channels * 4];
  const [iStride, jStride] = [dilations[0] * rowBytes, dilations[1] * channels * 4];
  const eachImage = (run: (heap: Heap, image: number, out: number) => void): Plan => (heap) => () => {
    for (let n = 0; n < batch; n++) run(heap, image.prepare(heap, from.offset, n), to.offset + n * oh * ow * outputs * 4);
  };
  if (depth === 1 && group === channels && outputs === channels) {
    const wide = Math.ceil(channels / 4) * 4;
    const taps = layout.constant(kh * kw * wide, (into) => {
      for (let tap = 0; tap < kh * kw; tap++) for (let c = 0; c < channels; c++) into[tap * wide + c] = w[c * kh * kw + tap];
    });
    const start = layout.constant(wide, (into) => { if (b !== null) into.set(b); });
    return eachImage(({ kernels }, source, out) =>
      kernels.depthwise(source, taps, start, out, oh, ow, channels, yStride, xStride, kh, kw, iStride, jStride));
  }
  const columns = outputs / group;
  const groups = Array.from({ length: group }, (_, g) => packWeights(layout, w, b, g * columns, columns, kh * kw * depth));
  // taps of one row of the kernel follow each other in memory unless they are spread or belong to other groups as well
  const [inner, length] = group === 1 && dilations[1] === 1 ? [1, kw * depth] : [kw, depth];
  // a 1×1 window that moves by one pixel sees the image as one long row
  const [rows, perRow] = kh * kw === 1 && image.height === oh && image.width === ow ? [1, oh * ow] : [oh, ow];
  return eachImage(({ kernels, scratch }, source, out) => {
    for (let y = 0; y < rows; y++) groups.forEach(({ panels, bias: start }, g) => kernels.gemm(
      source + y * yStride + g * depth * 4, xStride, panels, start, out + (y * perRow * outputs + g * columns) * 4, outputs * 4, perRow, columns,
      kh, iStride, inner, jStride, length, scratch + tile,
    ));
  });
};

const planMatmul: Planner<NodeOf<typeof matmul>> = ({ inputs: { a, b }, attrs: { transposeB }, output }, layout, placeOf) => {
  const shape = staticShape(output.type.shape);
  const [rows, columns] = shape.slice(-2);
  const depth = lastDim(a.type.shape);
  const batch = shape.slice(0, -2);
  const [ofA, ofB] = [a, b].map(({ type }) => broadcastOffsets(type.shape.slice(0, -2), batch));
  const [tile, panels] = layout.scratch(SCRATCH_BYTES, packedLength(depth, columns) * 4);
  layout.zeros(columns + PANEL);
  const [left, right, to] = [placeOf(a), placeOf(b), placeOf(output)];
  const [depthStride, columnStride] = transposeB ? [4, depth * 4] : [columns * 4, 4];
  return ({ kernels, scratch, zeros }) => () => {
    for (let n = 0; n < ofA.length; n++) {
      if (n === 0 || ofB[n] !== ofB[n - 1]) kernels.pack(right.offset + ofB[n] * depth * columns * 4, depthStride, columnStride, depth, columns, scratch + panels);
      kernels.gemm(left.offset + ofA[n] * rows * depth * 4, depth * 4, scratch + panels, zeros, to.offset + n * rows * columns * 4, columns * 4,
        rows, columns, 1, 0, 1, 0, depth, scratch + tile);
    }
  };
};

const planAttention: Planner<NodeOf<typeof attention>> = ({ inputs: { q, k, v, mask }, attrs: { heads, scale }, output }, layout, placeOf) => {
  const [batch, steps, channels] = staticShape(q.type.shape);
  const [, sources, width] = staticShape(v.type.shape);
  const [depth, wide] = [channels / heads, width / heads];
  const allowed = mask === null ? null : placeOf(mask).integers!;
  const [tile, keyPanels, valuePanels, logits] = layout.scratch(
    SCRATCH_BYTES, packedLength(depth, sources) * 4, packedLength(sources, wide) * 4, steps * sources * 4,
  );
  layout.zeros(Math.max(sources, wide) + PANEL);
  const [queries, keys, values, to] = [q, k, v, output].map(placeOf);
  return ({ kernels, f32, scratch, zeros }) => {
    const products = f32.subarray((scratch + logits) / 4, (scratch + logits) / 4 + steps * sources);
    return () => {
      for (let n = 0; n < batch; n++) for (let h = 0; h < heads; h++) {
        kernels.pack(keys.offset + (n * sources * channels + h * depth) * 4, 4, channels * 4, depth, sources, scratch + keyPanels);
        kernels.gemm(queries.offset + (n * steps * channels + h * depth) * 4, channels * 4, scratch + keyPanels, zeros, scratch + logits, sources * 4,
          steps, sources, 1, 0, 1, 0, depth, scratch + tile);
        if (allowed === null && scale > 0) kernels.softmax(scratch + logits, scratch + logits, steps, sources, scale);
        else for (let t = 0; t < steps; t++) softmaxRow(products, t * sources, sources, scale, allowed);
        kernels.pack(values.offset + (n * sources * width + h * wide) * 4, width * 4, 4, sources, wide, scratch + valuePanels);
        kernels.gemm(scratch + logits, sources * 4, scratch + valuePanels, zeros, to.offset + (n * steps * width + h * wide) * 4, width * 4,
          steps, wide, 1, 0, 1, 0, sources, scratch + tile);
      }
    };
  };
};

// ---- rows

/** Softmax of scale·x over `length` elements from `at`, in place; where `allowed` is 0 (by position in the block of rows) the result is 0. */
const softmaxRow = (x: Float32Array, at: number, length: number, scale: number, allowed: ArrayLike<unknown> | null): void => {
  let greatest = -Infinity;
  for (let i = at; i < at + length; i++) if ((allowed === null || allowed[i] !== 0) && scale * x[i] > greatest) greatest = scale * x[i];
  let total = 0;
  for (let i = at; i < at + length; i++) {
    const power = allowed === null || allowed[i] !== 0 ? exp(scale * x[i] - greatest) : 0;
    total += power;
    x[i] = power;
  }
  const inverse = 1 / total;
  for (let i = at; i < at + length; i++) x[i] *= inverse;
};

const planSoftmax: Planner<NodeOf<typeof softmax>> = ({ inputs: { x }, attrs: { axis }, output }, _, placeOf) => {
  const { shape } = output.type;
  if (axis !== -1 && axis !== shape.length - 1) return null;
  const [from, to, length] = [placeOf(x), placeOf(output), lastDim(shape)];
  const rows = sizeOf(shape) / length;
  return ({ kernels }) => () => kernels.softmax(from.offset, to.offset, rows, length, 1);
};

const planBatchNorm: Planner<NodeOf<typeof batchNorm>> = ({ inputs: { x, scale, bias, mean, variance }, attrs: { epsilon }, output }, _, placeOf) => {
  const [g, b, m, v] = [scale, bias, mean, variance].map(realConstant);
  if (g === null || b === null || m === null || v === null) return null;
  const slope = Float64Array.from(g, (s, c) => s / Math.sqrt(v[c] + epsilon));
  const channels = slope.length;
  const [from, to] = [placeOf(x), placeOf(output)];
  return (heap) => {
    const [source, target] = [realsAt(heap, from, x), realsAt(heap, to, output)];
    return () => {
      for (let at = 0; at < source.length; at += channels) for (let c = 0; c < channels; c++) target[at + c] = (source[at + c] - m[c]) * slope[c] + b[c];
    };
  };
};

// ---- elementwise

const planClamp = (low: number, high: number): Planner<Node> => ({ inputs, output }, _, placeOf) => {
  const [from, to, length] = [placeOf(inputs['x'] as Value), placeOf(output), sizeOf(output.type.shape)];
  return ({ kernels }) => () => kernels.clamp(from.offset, to.offset, length, low, high);
};

/** A function that has a kernel, with the number that its attributes add. */
const planReal = (name: RealFunction, parameter = 0): Planner<Node> => ({ inputs, output }, layout, placeOf) => {
  const [from, to, length] = [placeOf(inputs['x'] as Value), placeOf(output), sizeOf(output.type.shape)];
  const table = name === 'erf' || name === 'geluErf' ? layout.erfTable() : 0;
  return ({ kernels }) => () => kernels[name](from.offset, to.offset, length, parameter, table);
};

const planUnary: Planner<Node> = ({ inputs, attrs, decl, output }, _, placeOf) => {
  const { real } = decl as unknown as UnaryOp<string, object>;
  const x = inputs['x'] as Value;
  const [from, to] = [placeOf(x), placeOf(output)];
  return (heap) => {
    const [source, target] = [realsAt(heap, from, x), realsAt(heap, to, output)];
    return () => { for (let i = 0; i < source.length; i++) target[i] = real(source[i], attrs); };
  };
};

/** One operand of a function of two: where its rows begin and how far they are apart. */
interface Rows {
  readonly at: Place | number;
  readonly stride: number;
}

const planBinary = (kernel: keyof Pick<F32Kernels, 'add' | 'sub' | 'mul' | 'div' | 'min' | 'max'>): Planner<Node> => (node, layout, placeOf) => {
  const [x, y] = [node.inputs['x'] as Value, node.inputs['y'] as Value];
  const shape = staticShape(node.output.type.shape);
  const size = sizeOf(shape);
  const length = rowLength(shape, [x, y].map(({ type }) => staticShape(type.shape)));
  const rowsOf = (value: Value): Rows | null => {
    const elements = sizeOf(value.type.shape);
    if (elements === size) return { at: placeOf(value), stride: length * 4 };
    if (elements === length) return { at: placeOf(value), stride: 0 };
    const numbers = realConstant(value);
    if (numbers === null) return null;
    // a constant that repeats otherwise is spread out
    const wide = elements === 1 ? [length] : shape;
    const spread = broadcastOffsets(value.type.shape, wide);
    return { at: layout.constant(spread.length, (to) => spread.forEach((source, i) => { to[i] = numbers[source]; })), stride: elements === 1 ? 0 : length * 4 };
  };
  const [a, b] = [rowsOf(x), rowsOf(y)];
  const to = placeOf(node.output);
  if (a !== null && b !== null) {
    const offset = ({ at }: Rows): number => (typeof at === 'number' ? at : at.offset);
    return ({ kernels }) => () => kernels[kernel](offset(a), a.stride, offset(b), b.stride, to.offset, size / length, length);
  }
  const { real } = node.decl as unknown as BinaryOp<string>;
  const [i, j] = [x, y].map(({ type }) => broadcastOffsets(type.shape, shape));
  const [left, right] = [placeOf(x), placeOf(y)];
  return (heap) => {
    const [p, q, target] = [realsAt(heap, left, x), realsAt(heap, right, y), realsAt(heap, to, node.output)];
    return () => { for (let n = 0; n < target.length; n++) target[n] = real(p[i[n]], q[j[n]]); };
  };
};

/** Elements of a row such that each operand is whole, or one row that repeats: the trailing axes of the smaller operand, else of the result. */
const rowLength = (shape: StaticShape, operands: readonly StaticShape[]): number => {
  const size = sizeOf(shape);
  for (const operand of operands) {
    const own = operand.slice(operand.findIndex((dim) => dim !== 1) >>> 0);
    const elements = sizeOf(own);
    if (elements > 1 && elements < size && own.every((dim, i) => dim === shape[shape.length - own.length + i])) return elements;
  }
  return operands.some((operand) => sizeOf(operand) === 1) ? Math.max(shape.at(-1) ?? 1, 1) : size;
};

// ---- moving elements

/** A view of elements at start + Σ index·strides. */
interface Strided {
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly start: number;
}

/** The view with axes of one element left out and axes joined that one stride can walk. */
const joined = ({ shape, strides, start }: Strided): Strided => {
  const [sizes, steps]: [number[], number[]] = [[], []];
  shape.forEach((size, axis) => {
    if (size === 1) return;
    const last = sizes.length - 1;
    if (last >= 0 && steps[last] === strides[axis] * size) {
      sizes[last] *= size;
      steps[last] = strides[axis];
    } else {
      sizes.push(size);
      steps.push(strides[axis]);
    }
  });
  return sizes.length === 0 ? { shape: [1], strides: [0], start } : { shape: sizes, strides: steps, start };
};

/** From this many neighbours on, one copy of a block is quicker than a loop. */
const BLOCK_COPY = 16;

/** Ops whose result is a strided view of their operand, copied out row by row. */
const planView = (viewOf: (node: Node, shape: StaticShape) => Strided): Planner<Node> => (node, _, placeOf) => {
  const x = node.inputs['x'] as Value;
  if (realType(node.output.type).dtype !== 'f32') return null;
  const { shape, strides, start } = joined(viewOf(node, staticShape(x.type.shape)));
  const [from, to, size] = [placeOf(x), placeOf(node.output), sizeOf(node.output.type.shape)];
  const [length, stride] = [shape[shape.length - 1], strides[strides.length - 1]];
  // where each row of the result begins in the operand
  const rows = viewOffsets(shape.slice(0, -1), strides.slice(0, -1), start);
  return ({ f32 }) => () => {
    const [source, target] = [from.offset / 4, to.offset / 4];
    if (size === 0) return;
    if (stride === 1 && length >= BLOCK_COPY) {
      for (let row = 0, out = target; row < rows.length; row++, out += length) f32.copyWithin(out, source + rows[row], source + rows[row] + length);
      return;
    }
    for (let row = 0, out = target; row < rows.length; row++) {
      for (let i = 0, at = source + rows[row]; i < length; i++, at += stride) f32[out++] = f32[at];
    }
  };
};

const transposed = planView(({ attrs, output }, source) => {
  const strides = stridesOf(source);
  return { shape: staticShape(output.type.shape), strides: (attrs['perm'] as readonly number[]).map((axis) => strides[axis]), start: 0 };
});
const sliced = planView(({ attrs, output }, source) => {
  const strides = stridesOf(source);
  const [axis, first, step] = [attrs['axis'] as number, attrs['start'] as number, attrs['step'] as number];
  const along = axis < 0 ? axis + source.length : axis;
  return { shape: staticShape(output.type.shape), strides: strides.map((s, i) => (i === along ? s * step : s)), start: first * strides[along] };
});
const expanded = planView(({ output }, source) => {
  const [shape, strides] = [staticShape(output.type.shape), stridesOf(source)];
  const lead = shape.length - source.length;
  return { shape, strides: shape.map((_, axis) => (axis < lead || source[axis - lead] === 1 ? 0 : strides[axis - lead])), start: 0 };
});

const planMean: Planner<Node> = (node, _, placeOf) => {
  const x = node.inputs['x'] as Value;
  const shape = staticShape(x.type.shape);
  const axes = (node.attrs['axes'] as readonly number[]).map((axis) => (axis < 0 ? axis + shape.length : axis)).sort((a, b) => a - b);
  // only a run of neighbouring axes, of which the rest before and behind is kept
  if (axes.length === 0 || axes.some((axis, i) => axis !== axes[0] + i)) return null;
  const inner = stridesOf(shape)[axes[axes.length - 1]];
  const count = axes.reduce((product, axis) => product * shape[axis], 1);
  const divisor = node.op === 'reduce_mean' ? count : 1;
  const [from, to] = [placeOf(x), placeOf(node.output)];
  return (heap) => {
    const [source, target] = [realsAt(heap, from, x), realsAt(heap, to, node.output)];
    const sums = new Float64Array(inner);
    return () => {
      for (let outer = 0, at = 0; outer < target.length; outer += inner) {
        sums.fill(0);
        for (let n = 0; n < count; n++) for (let c = 0; c < inner; c++, at++) sums[c] += source[at];
        for (let c = 0; c < inner; c++) target[outer + c] = sums[c] / divisor;
      }
    };
  };
};

// ---- rounding at the quant stage

/** Rounds the real numbers at a place to the codes of a type, leaving the real numbers that the codes stand for. */
export const planRounding = ({ quant, shape }: TensorType, place: Place): Plan => {
  const scheme = quant!;
  const size = sizeOf(shape);
  if (scheme.axis === null) {
    return ({ kernels }) => () => kernels.roundToCodes(place.offset, size, scaleOf(scheme), zeroOf(scheme), scheme.low, scheme.high);
  }
  const inner = sizeOf(shape.slice(scheme.axis + 1));
  const channels = staticShape(shape)[scheme.axis];
  return ({ f32 }) => () => {
    for (let i = 0, at = place.offset / 4; i < size; i++, at++) {
      const c = Math.floor(i / inner) % channels;
      f32[at] = (quantizeReal(f32[at], scaleAt(scheme, c), zeroAt(scheme, c), scheme.low, scheme.high) - zeroAt(scheme, c)) * scaleAt(scheme, c);
    }
  };
};

const planners: { readonly [K in FloatNode['op']]?: Planner<never> } = {
  linear: planLinear, conv: planConv, matmul: planMatmul, attention: planAttention, softmax: planSoftmax, batch_norm: planBatchNorm,
  relu: planClamp(0, Infinity),
  clip: (node: Node, layout: Layout, placeOf: PlaceOf) => planClamp(node.attrs['low'] as number, node.attrs['high'] as number)(node, layout, placeOf),
  exp: planReal('exp'), tanh: planReal('tanh'), sigmoid: planReal('sigmoid'), erf: planReal('erf'),
  silu: (node: Node, layout: Layout, placeOf: PlaceOf) => planReal('silu', node.attrs['slope'] as number)(node, layout, placeOf),
  gelu: (node: Node, layout: Layout, placeOf: PlaceOf) => planReal(node.attrs['form'] === 'erf' ? 'geluErf' : 'geluTanh')(node, layout, placeOf),
  hard_swish: planUnary, hard_sigmoid: planUnary, leaky_relu: planUnary, elu: planUnary, softplus: planUnary, mish: planUnary, log: planUnary,
  sqrt: planUnary, reciprocal: planUnary, neg: planUnary, abs: planUnary, pow: planUnary,
  add: planBinary('add'), sub: planBinary('sub'), mul: planBinary('mul'), div: planBinary('div'), min: planBinary('min'), max: planBinary('max'),
  transpose: transposed, slice: sliced, expand: expanded, reduce_mean: planMean, reduce_sum: planMean,
};
