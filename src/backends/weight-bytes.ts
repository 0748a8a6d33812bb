/**
 * How many bytes the weights of a layer take in a target, from the shape alone: what allocation of widths asks for each layer and each
 * width before there is a program. Per-channel constants, whose size no width changes, are not in it.
 */
import { variants } from './c/variants.ts';
import { storedWidth } from './schedules/codes.ts';
import { convWalk } from './schedules/conv.ts';
import { depthwiseBytes } from './schedules/depthwise.ts';
import { targetFor, walkOf } from './schedules/gemm.ts';
import { quadsFor } from './schedules/quads.ts';
import type { RescaleClass } from './schedules/rescale.ts';
import { simd128, type Target } from './schedules/target.ts';
import { groupLength } from './schedules/weights.ts';

/** A layer with constant weights. */
export interface WeightLayer {
  /** [outputs, depth] of a matrix, or [outputs, kernel height, kernel width, channels per group] of a convolution */
  readonly weight: readonly number[];
  /** of a convolution; 1 where left out */
  readonly group?: number;
  /** down and across; 1 where left out */
  readonly dilations?: readonly number[];
  /** one tap at stride 1 without a border is a matrix product; else windows are walked row by row */
  readonly strides?: readonly number[];
  readonly pads?: readonly number[];
  /** codes of the activations: bytes, signed by default, or words */
  readonly x?: 'i8' | 'u8' | 'i16';
}

/** The usual end of a layer: one rescale to bytes. */
const ending: RescaleClass = { kind: 'one', preShifted: false, wide: true, narrow: false, y: null, code: 'i8', natural: true, table: null, out: 'i8' };

interface Stored {
  /** equal layouts of one layer are stored once in a binary */
  readonly layout: string;
  readonly bytes: number;
}
const storedIn = (layer: WeightLayer, bits: number, target: Target): Stored => {
  const { weight, group = 1, dilations = [1, 1], strides = [1, 1], pads = [], x = 'i8' } = layer;
  const outputs = weight[0];
  const perGroup = weight[weight.length - 1];
  const taps = weight.length === 2 ? 1 : weight[1] * weight[2];
  if (weight.length === 2 || (taps === 1 && group === 1 && strides.every((s) => s === 1) && pads.every((p) => p === 0))) {
    const quads = quadsFor(target, x, bits, perGroup, outputs, ending);
    const own = quads === null ? targetFor(target, outputs) : target;
    const walk = walkOf([], [], perGroup, own, storedWidth(bits), quads);
    return { layout: quads === null ? `panels ${own.name} ${own.lanes}` : 'quads', bytes: groupLength(outputs, walk, own) };
  }
  if (perGroup === 1 && outputs === group) return depthwiseBytes(group, weight.slice(1, 3), x, storedWidth(bits), ending, target);
  const { walk, target: own } = convWalk(weight, { group, dilations }, perGroup * group, 0, x, bits, ending, target);
  // runs without padding stand side by side as one long run would
  const quads = walk.run === walk.padded ? `quads ${walk.counts.reduce((a, b) => a * b, walk.run)}` : `quads ${walk.counts} ${walk.padded}`;
  return { layout: walk.quads === null ? `panels ${own.name} ${own.lanes}` : quads, bytes: group * groupLength(outputs / group, walk, own) };
};

/** In the C: all layouts of the family of processors whose binary holds most. */
const inC = (layer: WeightLayer, bits: number): number => Math.max(...[...new Set(variants.map(({ family }) => family))].map((family) => {
  const layouts = new Map(variants.filter((variant) => variant.family === family).map(({ schedule }) => {
    const { layout, bytes } = storedIn(layer, bits, schedule);
    return [layout, bytes] as const;
  }));
  return [...layouts.values()].reduce((sum, bytes) => sum + bytes, 0);
}));
/** The accelerator packs rows of 2, 4 or 8 bits a code. */
const inAccelerator = ({ weight }: WeightLayer, bits: number): number =>
  weight[0] * Math.ceil((weight.slice(1).reduce((a, b) => a * b, 1) * (bits <= 2 ? 2 : bits <= 4 ? 4 : 8)) / 8);

/** Stored bytes of a layer's weights at a width of 2 to 8 bits, in the target of that name; without one, bits/8 a weight. */
export const weightBytes = (layer: WeightLayer, bits: number, target: string): number => {
  switch (target.split(':')[0]) {
    case 'cpu': return inC(layer, bits);
    case 'wasm': return storedIn(layer, bits, simd128).bytes;
    case 'accel': return inAccelerator(layer, bits);
    default: return Math.ceil((layer.weight.reduce((a, b) => a * b, 1) * bits) / 8);
  }
};
