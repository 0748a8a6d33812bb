/** Convolutions, products with constant and computed matrices, and pools as windows. */
import { sizeOf, staticShape, type StaticShape } from '../../../ir/dim.ts';
import { isSigned, storageBytes } from '../../../ir/dtype.ts';
import type { Node, Value } from '../../../ir/graph.ts';
import { broadcastOffsets } from '../../../ir/ops/elements.ts';
import type { Step } from '../../group.ts';
import { packRows, packTernary } from '../blobs.ts';
import { chipCycles, runCycles } from '../cycles.ts';
import type { FieldsOf } from '../isa.ts';
import { denseStrides, loadBytes, move, type Stream } from '../stream.ts';
import { dataOf } from './finish.ts';
import { windowStep, type Weights } from './window.ts';

const shapeOf = (value: Value): StaticShape => staticShape(value.type.shape);

/** The narrowest packing that holds every code. */
const packingOf = (codes: ArrayLike<number>): FieldsOf<'MM'>['wBits'] => {
  let [low, high] = [0, 0];
  for (let i = 0; i < codes.length; i++) {
    low = Math.min(low, codes[i]);
    high = Math.max(high, codes[i]);
  }
  return low >= -1 && high <= 1 ? 'ternary' : low >= -2 && high <= 1 ? '2' : low >= -8 && high <= 7 ? '4' : '8';
};

/** A constant matrix [outputs, taps, depth], packed; each row begins with a byte. */
const constantWeights = (stream: Stream, node: Node, x: Value, weight: Value, depth: number): Weights => {
  const codes = dataOf(weight);
  const outputs = shapeOf(weight)[0];
  const bits = packingOf(codes);
  const packed = bits === 'ternary' ? packTernary(codes, outputs) : packRows(codes, outputs, Number(bits));
  const rowBytes = packed.length / outputs;
  const address = stream.put('weights', packed);
  const perByte = bits === 'ternary' ? 5 : 8 / Number(bits);
  const taps = codes.length / outputs / depth;
  return {
    bits, signed: true, activationBits: stream.activationBits(x), aZero: 0, wZero: 0,
    bytes: (count) => count * rowBytes, steps: () => [bits === 'ternary' ? rowBytes * 5 : (rowBytes * 8) / Number(bits), 1], cycles: (count) => runCycles(stream.machine, 1, count * rowBytes),
    key: (_, from, count) => `${from}+${count}`,
    load: (_, from, count, place) => loadBytes(stream, 'WBUF', count * rowBytes, address + from * rowBytes, place, node),
    pieces: taps > 1 && depth % perByte !== 0 ? null : {
      bytes: (count, length) => count * taps * Math.ceil(length / perByte), steps: (length) => [taps * Math.ceil(length / perByte) * perByte, 1],
      load: (from, count, first, length, place) => {
        const bytes = Math.ceil(length / perByte);
        move(stream, 1, [count, taps, bytes], { memory: 'outside', address: address + from * rowBytes + first / perByte, strides: [rowBytes, depth / perByte, 1] },
          { memory: 'WBUF', address: place, strides: denseStrides([count, taps, bytes]) }, node);
      },
    },
  };
};

const noWindow = { taps: [1, 1], strides: [1, 1], dilations: [1, 1], top: 0, left: 0, padCode: 0, groups: 1, channelwise: false } as const;
type WindowAttrs = { strides: [number, number]; pads: number[]; dilations?: [number, number]; padCode?: number; group?: number; kernel?: [number, number] };

export const convStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const { strides, pads, dilations, padCode, group } = node.attrs as unknown as Required<WindowAttrs>;
  const [x, weight] = [node.inputs['x'] as Value, node.inputs['weight'] as Value];
  const [images, height, width, channels] = shapeOf(x);
  const [outputs, kh, kw, perGroup] = shapeOf(weight);
  const [, outHeight, outWidth] = shapeOf(node.output);
  windowStep(stream, step, {
    node, x, images, imageAt: (image) => image * height * width * channels, height, width, channels, outHeight, outWidth, outputs, taps: [kh, kw], strides, dilations,
    top: pads[0], left: pads[1], padCode, groups: group, channelwise: group > 1 && perGroup === 1 && outputs === channels, product: constantWeights(stream, node, x, weight, perGroup), pool: null,
  });
};

export const linearStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const [x, weight] = [node.inputs['x'] as Value, node.inputs['weight'] as Value];
  const [outputs, depth] = shapeOf(weight);
  const rows = sizeOf(x.type.shape) / depth;
  windowStep(stream, step, {
    ...noWindow, node, x, images: 1, imageAt: () => 0, height: rows, width: 1, channels: depth, outHeight: rows, outWidth: 1, outputs, product: constantWeights(stream, node, x, weight, depth), pool: null,
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
  const home = stream.homeOf(b);
  const product: Weights = {
    bits: size === 1 ? '8' : '16', signed: isSigned(b.type.dtype), activationBits: stream.activationBits(a), aZero, wZero: bZero,
    bytes: (count) => count * depth * size, steps: (count) => (transposeB ? [depth, 1] : [1, count]),
    cycles: (count) => {
      const [runs, run] = transposeB || count === columns ? [1, count * depth * size] : [depth, count * size];
      return home.memory === 'outside' ? runCycles(stream.machine, runs, run) : chipCycles(stream.machine, { outer: runs, inner: 1, run, far: run, chip: run });
    },
    key: (image, from, count) => `${fromB[image]}: ${from}+${count}`, pieces: null,
    load: (image, from, count, place) => {
      const address = home.address + fromB[image] * depth * columns * size;
      const [counts, strides, at] = transposeB ? [[count, depth], [depth * size, size], from * depth * size] : [[depth, count], [columns * size, size], from * size];
      move(stream, size, counts, { memory: home.memory, address: address + at, strides }, { memory: 'WBUF', address: place, strides: denseStrides(counts, size) }, node);
    },
  };
  windowStep(stream, step, {
    ...noWindow, node, x: a, images: fromA.length, imageAt: (image) => fromA[image] * rows * depth, height: rows, width: 1, channels: depth, outHeight: rows, outWidth: 1, outputs: columns, product, pool: null,
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
    node, x, images, imageAt: (image) => image * height * width * channels, height, width, channels, outHeight, outWidth, outputs: channels, taps: kernel, strides, dilations, top: pads[0], left: pads[1],
    padCode: kind === 'max' ? 0 : padCode, groups: channels, channelwise: true, product: null, pool: kind,
  });
};
