/** Convolutions, products with constant and computed matrices, and pools as windows. */
import { sizeOf, staticShape, type StaticShape } from '../../../ir/dim.ts';
import { isSigned, rangeOf, storageBytes, type IntegerDType } from '../../../ir/dtype.ts';
import type { Node, Value } from '../../../ir/graph.ts';
import { broadcastOffsets } from '../../../ir/ops/elements.ts';
import type { Step } from '../../group.ts';
import { packRows } from '../blobs.ts';
import { denseStrides, elementOf, move, moveBytes, type Stream } from '../stream.ts';
import { activationBits, dataOf } from './finish.ts';
import { windowStep, type Geometry, type Weights } from './window.ts';

const shapeOf = (value: Value): StaticShape => staticShape(value.type.shape);

/** The narrowest packing that holds every code. */
const packingOf = (codes: ArrayLike<number>): 2 | 4 | 8 => {
  let [low, high] = [0, 0];
  for (let i = 0; i < codes.length; i++) {
    low = Math.min(low, codes[i]);
    high = Math.max(high, codes[i]);
  }
  return low >= -2 && high <= 1 ? 2 : low >= -8 && high <= 7 ? 4 : 8;
};

/** A constant matrix [outputs, taps], packed. */
const constantWeights = (stream: Stream, node: Node, x: Value, weight: Value): Weights => {
  const codes = dataOf(weight);
  const outputs = shapeOf(weight)[0];
  const bits = packingOf(codes);
  const rowBytes = Math.ceil(((codes.length / outputs) * bits) / 8);
  const address = stream.put('weights', packRows(codes, outputs, bits));
  return {
    bits, signed: true, activationBits: activationBits(x), aZero: 0, wZero: 0,
    bytes: (count) => count * rowBytes, steps: () => [(rowBytes * 8) / bits, 1], traffic: (count) => [1, count * rowBytes],
    key: (_, from, count) => `${from}+${count}`,
    load: (_, from, count, place) => moveBytes(stream, 'LD', 'WBUF', count * rowBytes, address + from * rowBytes, place, node),
  };
};

const noWindow = { taps: [1, 1], strides: [1, 1], dilations: [1, 1], top: 0, left: 0, padCode: 0, groups: 1, channelwise: false } as const;
const operand = (x: Value): Pick<Geometry, 'x' | 'element' | 'elementBytes'> => ({ x, element: elementOf(x.type.dtype), elementBytes: storageBytes(x.type.dtype) });
type WindowAttrs = { strides: [number, number]; pads: number[]; dilations?: [number, number]; padCode?: number; group?: number; kernel?: [number, number] };

export const convStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const { strides, pads, dilations, padCode, group } = node.attrs as unknown as Required<WindowAttrs>;
  const [x, weight] = [node.inputs['x'] as Value, node.inputs['weight'] as Value];
  const [images, height, width, channels] = shapeOf(x);
  const [outputs, kh, kw, perGroup] = shapeOf(weight);
  const [, outHeight, outWidth] = shapeOf(node.output);
  windowStep(stream, step, {
    node, ...operand(x), images, imageAt: (image) => image * height * width * channels, height, width, channels, outHeight, outWidth, outputs, taps: [kh, kw], strides, dilations,
    top: pads[0], left: pads[1], padCode, groups: group, channelwise: group > 1 && perGroup === 1 && outputs === channels, product: constantWeights(stream, node, x, weight), pool: null,
  });
};

export const linearStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const [x, weight] = [node.inputs['x'] as Value, node.inputs['weight'] as Value];
  const [outputs, depth] = shapeOf(weight);
  const rows = sizeOf(x.type.shape) / depth;
  windowStep(stream, step, {
    ...noWindow, node, ...operand(x), images: 1, imageAt: () => 0, height: rows, width: 1, channels: depth, outHeight: rows, outWidth: 1, outputs, product: constantWeights(stream, node, x, weight), pool: null,
  });
};

export const matmulStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const [a, b] = [node.inputs['a'] as Value, node.inputs['b'] as Value];
  const { transposeB, aZero, bZero } = node.attrs as { transposeB: boolean; aZero: number; bZero: number };
  const [aShape, bShape, shape] = [shapeOf(a), shapeOf(b), shapeOf(node.output)];
  const [rows, depth] = aShape.slice(-2);
  const columns = shape[shape.length - 1];
  const batch = shape.slice(0, -2);
  const fromA = broadcastOffsets(aShape.slice(0, -2), batch);
  const fromB = broadcastOffsets(bShape.slice(0, -2), batch);
  const size = storageBytes(b.type.dtype);
  const product: Weights = {
    bits: size === 1 ? 8 : 16, signed: isSigned(b.type.dtype), activationBits: activationBits(a), aZero, wZero: bZero,
    bytes: (count) => count * depth * size, steps: (count) => (transposeB ? [depth, 1] : [1, count]),
    traffic: (count) => (transposeB || count === columns ? [1, count * depth * size] : [depth, count * size]),
    key: (image, from, count) => `${fromB[image]}: ${from}+${count}`,
    load: (image, from, count, place) => {
      const address = stream.addressOf(b) + fromB[image] * depth * columns * size;
      if (transposeB) moveBytes(stream, 'LD', 'WBUF', count * depth * size, address + from * depth * size, place, node);
      else move(stream, 'LD', 'WBUF', size, [depth, count], { address: address + from * size, strides: [columns * size, size] }, { address: place, strides: denseStrides([depth, count], size) }, node);
    },
  };
  windowStep(stream, step, {
    ...noWindow, node, ...operand(a), images: fromA.length, imageAt: (image) => fromA[image] * rows * depth, height: rows, width: 1, channels: depth, outHeight: rows, outWidth: 1, outputs: columns, product, pool: null,
  });
};

export const poolStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const { kernel, strides, pads, dilations = [1, 1], padCode } = node.attrs as unknown as Required<WindowAttrs>;
  const x = node.inputs['x'] as Value;
  const [images, height, width, channels] = shapeOf(x);
  const [, outHeight, outWidth] = shapeOf(node.output);
  const kind = node.op === 'max_pool' ? 'max' : 'sum';
  windowStep(stream, step, {
    node, ...operand(x), images, imageAt: (image) => image * height * width * channels, height, width, channels, outHeight, outWidth, outputs: channels, taps: kernel, strides, dilations, top: pads[0], left: pads[1],
    // every window meets the image, so the least code never wins where it should not
    padCode: kind === 'max' ? rangeOf(elementOf(x.type.dtype) as IntegerDType)[0] : padCode, groups: channels, channelwise: true, product: null, pool: kind,
  });
};
