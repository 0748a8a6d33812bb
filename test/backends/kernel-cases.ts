/** Cases of the conformance suite: for each kernel op, shapes, widths and attributes that reach every path of its schedules. */
import type { Builder } from '../../src/ir/build.ts';
import type { IntegerDType } from '../../src/ir/dtype.ts';
import { allocate, rangeOf } from '../../src/ir/dtype.ts';
import { sizeOf, staticShape } from '../../src/ir/dim.ts';
import type { Value } from '../../src/ir/graph.ts';
import { convAcc, linearAcc, matmulAcc } from '../../src/ir/ops/kernel-accumulate.ts';
import { attentionInt, EXP_LENGTH, layerNormInt, softmax } from '../../src/ir/ops/kernel-normalize.ts';
import { maxPool, reduceMax, reduceSum, sumPool } from '../../src/ir/ops/kernel-reduce.ts';
import { clamp, requantize, requantizeAdd, requantizeMul, requantizeWords } from '../../src/ir/ops/kernel-requantize.ts';
import { gatherRows, KNOTS, table, tableInterpolated } from '../../src/ir/ops/kernel-table.ts';
import { concat, pad, reshape, slice, transpose } from '../../src/ir/ops/layout.ts';
import { tensor, tensorType } from '../../src/ir/type.ts';
import { powerTable } from '../../src/numerics/power-weights.ts';

/** Whole numbers from a seed: enough for test data, the same everywhere. */
export class Dice {
  private state: number;
  constructor(seed: number) {
    this.state = seed >>> 0;
  }
  next(): number {
    this.state = (Math.imul(this.state, 747796405) + 2891336453) >>> 0;
    const word = Math.imul((this.state >>> ((this.state >>> 28) + 4)) ^ this.state, 277803737) >>> 0;
    return ((word >>> 22) ^ word) >>> 0;
  }
  /** low … high */
  between(low: number, high: number): number {
    return low + Math.floor((this.next() / 2 ** 32) * (high - low + 1));
  }
  pick<T>(list: readonly T[]): T {
    return list[this.between(0, list.length - 1)];
  }
}

/** Codes over the whole range of a dtype, one in eight at an end of it. */
export const randomCodes = (dtype: IntegerDType, length: number, dice: Dice, [low, high] = rangeOf(dtype)) => {
  const data = allocate(dtype, length);
  for (let i = 0; i < length; i++) {
    const code = dice.between(0, 7) === 0 ? dice.pick([low, high]) : dice.between(low, high);
    data[i] = (dtype === 'i64' ? BigInt(code) : code) as never;
  }
  return data;
};

/** One case adds nodes to a graph that all cases share. */
export interface Scene {
  readonly b: Builder;
  readonly dice: Dice;
  input(dtype: IntegerDType, ...shape: number[]): Value;
  constant(dtype: IntegerDType, shape: readonly number[], range?: readonly [number, number]): Value;
  /** any data as a constant */
  list(dtype: IntegerDType, data: readonly (number | bigint)[], shape?: readonly number[]): Value;
}
export interface Case {
  readonly name: string;
  /** too long for the interpreter of loop programs */
  readonly large?: boolean;
  readonly build: (scene: Scene) => Value;
}

export const sceneOf = (b: Builder, name: string, seed: number): Scene => {
  const dice = new Dice(seed);
  let inputs = 0;
  return {
    b, dice,
    input: (dtype, ...shape) => b.input(`${name} x${inputs++}`, tensorType(dtype, shape)),
    constant: (dtype, shape, range) => b.constant('constant', tensor(tensorType(dtype, shape), randomCodes(dtype, sizeOf(shape), dice, range))),
    list: (dtype, data, shape = [data.length]) => {
      const codes = allocate(dtype, data.length);
      data.forEach((value, i) => { codes[i] = value as never; });
      return b.constant('list', tensor(tensorType(dtype, shape), codes));
    },
  };
};

type Ending = 'none' | 'one' | 'one-i16' | 'residual' | 'residual-i16' | 'table' | 'pre' | 'single' | 'relu' | 'u8' | 'words' | 'words-drop';

/** A rescale in words of sums up to `greatest`; the first channel goes to the limits of 32 bits, another may be dead. */
const endedInWords = ({ b, dice, list }: Scene, acc: Value, greatest: number, drops: boolean): Value => {
  const channels = staticShape(acc.type.shape).at(-1) ?? 1;
  const drop = drops ? Math.max(3, Math.ceil(Math.log2(greatest)) - 18) : 0;
  const most = Math.floor(greatest / 2 ** drop) + 1;
  const shift = drops ? 19 : 21;
  const muls = Array.from({ length: channels }, () => Math.floor(((1.3 * 127 * 2 ** shift) / most) * (0.5 + dice.between(0, 50) / 100)));
  const adds = muls.map(() => dice.between(-9, 9) * 2 ** shift + 2 ** (shift - 1) + dice.between(-1000, 1000));
  if (channels > 1 && dice.between(0, 3) === 0) muls[1] = 0;
  muls[0] = Math.floor((2 ** 31 - 1 - Math.abs(adds[0])) / most);
  const [low, high] = drops ? [-20, 100] : [-128, 127];
  return b.emit(requantizeWords, { x: acc, mul: list('i32', muls), add: list('i32', adds) }, { drop, shift, error: 0, low, high });
};

/** A rescale of sums up to `greatest` that fills the output's range and beyond it. */
const ended = (s: Scene, acc: Value, greatest: number, ending: Ending): Value => {
  const { b, dice } = s;
  if (ending === 'none') return acc;
  if (ending === 'words' || ending === 'words-drop') return endedInWords(s, acc, greatest, ending === 'words-drop');
  const shape = staticShape(acc.type.shape);
  const channels = ending === 'single' ? 1 : shape.at(-1) ?? 1;
  const wide = ending === 'one-i16' || ending === 'residual-i16';
  const [low, high] = wide ? [-32768, 32767] : ending === 'relu' ? [-20, 100] : ending === 'u8' ? [0, 255] : [-128, 127];
  const preShift = ending === 'pre' ? Math.max(0, Math.min(3, 30 - Math.ceil(Math.log2(greatest + 1)))) : 0;
  const ratio = (1.3 * high) / (greatest * 2 ** preShift);
  const shift = Math.max(32, Math.min(62, 30 - Math.ceil(Math.log2(ratio))));
  const muls = Array.from({ length: channels }, () => Math.max(0, Math.min(2 ** 31 - 1, Math.floor(ratio * 2 ** shift * (0.5 + dice.between(0, 50) / 100)))));
  const adds = muls.map(() => (BigInt(dice.between(-9, 9)) << BigInt(shift)) + (1n << BigInt(shift - 1)) + BigInt(dice.between(-1000, 1000)));
  if (channels > 1 && dice.between(0, 3) === 0) muls[0] = 0;
  if (ending === 'residual' || ending === 'residual-i16') {
    const y = s.input(wide ? 'i16' : 'i8', ...shape);
    const factors = muls.map(() => Math.floor(dice.between(-90, 90) / 100 * 2 ** Math.min(30, shift)));
    return b.emit(requantizeAdd, { x: acc, y, mulX: s.list('i32', muls), mulY: s.list('i32', factors), add: s.list('i64', adds) }, { shift, low, high, to: wide ? 'i16' : 'i8' });
  }
  const y = b.emit(requantize, { x: acc, mul: s.list('i32', muls), add: s.list('i64', adds) }, { shift, preShift, low, high, ...(ending === 'u8' ? { to: 'u8' as const } : {}) });
  return ending === 'table' ? b.emit(table, { x: y, values: s.constant('i8', [256]) }, {}) : y;
};

const endings: readonly Ending[] = ['none', 'one', 'one-i16', 'residual', 'residual-i16', 'table', 'pre', 'single', 'relu', 'u8', 'words', 'words-drop'];
/** The greatest |sum| of `terms` products. */
const reachOf = (terms: number, x: IntegerDType, weight: number): number => terms * Math.max(...rangeOf(x).map(Math.abs)) * weight;
const bound = (greatest: number): readonly number[] => [-greatest, greatest];

/** Products beyond which a case is large. */
const LARGE = 20000;

/** Weights by their dtype, or by the levels that they take and the bits of an index. */
export type Weights = IntegerDType | { readonly indexBits: 2 | 3 | 4; readonly levels: readonly number[] };
const weightName = (weight: Weights): string => (typeof weight === 'string' ? weight : `of ${weight.indexBits} bits from ${weight.levels}`);
const greatestOf = (weight: Weights): number => (typeof weight === 'string' ? 2 ** (Number(weight.slice(1)) - 1) : Math.max(...weight.levels.map(Math.abs)));
const weightOf = (s: Scene, weight: Weights, shape: readonly number[]): { readonly weight: Value; readonly indexBits: number } => (typeof weight === 'string' ? { weight: s.constant(weight, shape), indexBits: 0 }
  : { weight: s.list('i8', Array.from({ length: sizeOf(shape) }, () => s.dice.pick(weight.levels)), shape), indexBits: weight.indexBits });
/** Random levels: a full table or less, of 8 bits, of few, of one sign, with 0 or without. */
export const randomLevels = (dice: Dice): Weights => {
  const indexBits = dice.pick([2, 3, 4] as const);
  const [low, high] = dice.pick([[-128, 127], [-127, 127], [-63, 63], [-40, 20], [3, 60], [-100, -1]] as const);
  const count = dice.pick([2 ** indexBits, 2 ** indexBits, dice.between(1, 2 ** indexBits)]);
  const levels = new Set<number>([dice.pick([low, high])]);
  while (levels.size < count) levels.add(dice.between(low, high));
  return { indexBits, levels: [...levels] };
};

export const linearCase = (rows: readonly number[], k: number, n: number, x: IntegerDType, weights: Weights, ending: Ending): Case => ({
  name: `linear [${rows}]x${k}x${n} ${x} ${weightName(weights)} ${ending}`, large: rows[0] * k * n > LARGE,
  build: (s) => {
    const greatest = reachOf(k, x, greatestOf(weights));
    const xs = s.input(x, ...rows, k);
    const { weight, indexBits } = weightOf(s, weights, [n, k]);
    return ended(s, s.b.emit(linearAcc, { x: xs, weight }, { bound: bound(greatest), indexBits }), greatest, ending);
  },
});

interface ConvOptions {
  readonly size: readonly [h: number, w: number];
  readonly kernel: readonly [number, number];
  readonly inputs: number;
  readonly outputs: number;
  readonly group?: number;
  readonly strides?: readonly number[];
  readonly pads?: readonly number[];
  readonly dilations?: readonly number[];
  readonly batch?: number;
  readonly x?: IntegerDType;
  readonly weight?: Weights;
  /** whether x is an input of planes, transposed to channels last */
  readonly planes?: boolean;
}
export const convCase = (o: ConvOptions, ending: Ending): Case => {
  const { size, kernel, inputs, outputs, group = 1, strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], batch = 1, x = 'i8', weight = 'i8', planes = false } = o;
  return {
    large: (size[0] * size[1] * kernel[0] * kernel[1] * inputs * outputs) / group > LARGE,
    name: `conv ${batch}x${size}x${inputs} ${kernel} -> ${outputs} group ${group} strides ${strides} pads ${pads} dilations ${dilations} ${x} ${weightName(weight)} ${ending}${planes ? ' of planes' : ''}`,
    build: (s) => {
      const per = inputs / group;
      const greatest = reachOf(kernel[0] * kernel[1] * per, x, greatestOf(weight));
      const [low, high] = rangeOf(x);
      const xs = planes ? s.b.emit(transpose, { x: s.input(x, batch, inputs, ...size) }, { perm: [0, 2, 3, 1] }) : s.input(x, batch, ...size, inputs);
      const { weight: values, indexBits } = weightOf(s, weight, [outputs, ...kernel, per]);
      const acc = s.b.emit(convAcc, { x: xs, weight: values }, { strides, pads, dilations, group, padCode: s.dice.between(low, high), bound: bound(greatest), indexBits });
      return ended(s, acc, greatest, ending);
    },
  };
};

const matmulCase = (a: readonly number[], c: readonly number[], transposeB: boolean, zeros: readonly [number, number], dtypes: readonly [IntegerDType, IntegerDType], ending: Ending): Case => ({
  large: sizeOf(a) * c[c.length - 1] > LARGE,
  name: `matmul [${a}] [${c}] ${transposeB ? 'transposed' : 'plain'} zeros ${zeros} ${dtypes} ${ending}`,
  build: (s) => {
    const k = a[a.length - 1];
    const greatest = k * 260 * (dtypes.includes('i16') ? 33000 : 260);
    const acc = s.b.emit(matmulAcc, { a: s.input(dtypes[0], ...a), b: s.input(dtypes[1], ...c) }, { transposeB, aZero: zeros[0], bZero: zeros[1], bound: bound(greatest) });
    return ended(s, acc, greatest, ending);
  },
});

const fixedCases: readonly Case[] = [
  // products: rows, depth and columns around the tile, the panel, the pair and the block
  ...endings.map((ending) => linearCase([5], 17, 11, 'i8', 'i8', ending)),
  ...endings.map((ending) => linearCase([2, 9], 16, 16, 'i8', 'i8', ending)),
  linearCase([1], 64, 10, 'i8', 'i8', 'one'), linearCase([3], 1, 1, 'i8', 'i8', 'one'), linearCase([1], 33, 7, 'u8', 'i4', 'one'), linearCase([7], 30, 8, 'i16', 'i8', 'one-i16'),
  linearCase([4], 31, 9, 'i16', 'i2', 'residual-i16'), linearCase([1200], 6, 8, 'i8', 'i8', 'one'), linearCase([6], 600, 24, 'i8', 'i6', 'one'),
  linearCase([2], 4096, 12, 'i8', 'i8', 'residual'),
  // rows enough for panels in the order of pairs, behind them part of a panel
  linearCase([25], 18, 40, 'i8', 'i8', 'one'), linearCase([31], 22, 56, 'u8', 'i8', 'residual'), linearCase([101], 130, 16, 'i8', 'i8', 'one'),
  convCase({ size: [21, 23], kernel: [3, 3], inputs: 3, outputs: 24, strides: [2, 2], pads: [1, 1, 1, 1] }, 'one'),
  convCase({ size: [17, 19], kernel: [2, 3], inputs: 12, outputs: 48, group: 2, strides: [1, 2], pads: [0, 1, 1, 0] }, 'residual'),
  // windows
  ...endings.map((ending) => convCase({ size: [6, 7], kernel: [3, 3], inputs: 5, outputs: 9, pads: [1, 1, 1, 1] }, ending)),
  convCase({ size: [8, 8], kernel: [3, 3], inputs: 16, outputs: 16, pads: [1, 1, 1, 1], batch: 2 }, 'one'),
  convCase({ size: [9, 9], kernel: [3, 3], inputs: 3, outputs: 8, strides: [2, 2], pads: [0, 1, 1, 0], x: 'u8' }, 'one'),
  convCase({ size: [7, 5], kernel: [5, 3], inputs: 4, outputs: 12, dilations: [1, 2], pads: [2, 2, 2, 2] }, 'relu'),
  convCase({ size: [4, 4], kernel: [1, 1], inputs: 12, outputs: 20 }, 'residual'), convCase({ size: [5, 6], kernel: [1, 1], inputs: 7, outputs: 8, strides: [2, 2] }, 'one'),
  convCase({ size: [1, 20], kernel: [1, 5], inputs: 6, outputs: 10, pads: [0, 2, 0, 2] }, 'table'), convCase({ size: [7, 7], kernel: [7, 7], inputs: 4, outputs: 9, pads: [3, 3, 3, 3] }, 'one'),
  convCase({ size: [6, 6], kernel: [3, 3], inputs: 8, outputs: 16, group: 2, pads: [1, 0, 1, 2] }, 'one'), convCase({ size: [5, 5], kernel: [3, 3], inputs: 6, outputs: 12, group: 6, pads: [1, 1, 1, 1] }, 'one'),
  convCase({ size: [3, 3], kernel: [3, 3], inputs: 3, outputs: 3, pads: [3, 3, 3, 3], dilations: [2, 2] }, 'one'), convCase({ size: [40, 40], kernel: [3, 3], inputs: 32, outputs: 8, pads: [1, 1, 1, 1] }, 'one'),
  convCase({ size: [6, 6], kernel: [2, 2], inputs: 6, outputs: 8, x: 'i16', pads: [0, 0, 1, 1] }, 'one-i16'),
  // 3×3 taps and stride 1 with enough channels: whole and cut tiles, several bands, packed weights, and weights too large for 32-bit sums of tiles
  convCase({ size: [7, 9], kernel: [3, 3], inputs: 20, outputs: 32, pads: [1, 1, 1, 1], x: 'u8', batch: 2 }, 'residual'),
  convCase({ size: [31, 13], kernel: [3, 3], inputs: 16, outputs: 16 }, 'one-i16'), convCase({ size: [26, 41], kernel: [3, 3], inputs: 16, outputs: 16, pads: [0, 2, 1, 1] }, 'relu'),
  convCase({ size: [8, 6], kernel: [3, 3], inputs: 24, outputs: 32, pads: [1, 1, 1, 1], weight: 'i4' }, 'one'), convCase({ size: [6, 6], kernel: [3, 3], inputs: 1700, outputs: 16, pads: [1, 1, 1, 1], x: 'u8' }, 'one'),
  // packed weights: whole spans in one row and many, rests of every length, segments, groups, and one channel a group
  ...(['i2', 'i3', 'i4', 'i5', 'i6'] as const).flatMap((weight) => [
    linearCase([1], 64, 33, 'i8', weight, 'one'), linearCase([9], 64, 40, 'i8', weight, 'table'), linearCase([2], 45, 19, 'u8', weight, 'one'),
    convCase({ size: [6, 7], kernel: [3, 3], inputs: 5, outputs: 9, pads: [1, 1, 1, 1], weight }, 'one'),
    convCase({ size: [5, 6], kernel: [3, 3], inputs: 37, outputs: 37, group: 37, pads: [1, 1, 1, 1], weight }, 'one'),
  ]),
  linearCase([70], 20, 24, 'i16', 'i3', 'one-i16'), linearCase([5], 7, 3, 'u8', 'i5', 'one'), linearCase([1], 160, 80, 'u8', 'i6', 'one'), linearCase([3], 32, 70, 'u8', 'i7', 'residual'),
  convCase({ size: [6, 6], kernel: [3, 3], inputs: 10, outputs: 36, group: 2, pads: [1, 1, 1, 1], dilations: [1, 2], weight: 'i5' }, 'residual'),
  convCase({ size: [9, 5], kernel: [3, 3], inputs: 16, outputs: 20, pads: [1, 1, 1, 1], x: 'u8', weight: 'i4' }, 'table'),
  convCase({ size: [6, 5], kernel: [5, 3], inputs: 11, outputs: 11, group: 11, pads: [2, 1, 2, 1], strides: [2, 1], weight: 'i3' }, 'residual'),
  convCase({ size: [6, 6], kernel: [3, 3], inputs: 10, outputs: 24, group: 2, pads: [1, 1, 1, 1], weight: 'i4' }, 'residual'),
  // weights of few levels: of 8 bits and of fewer, without 0, with less than a full table; in registers and unpacked, with rests, edges, segments and groups
  ...([
    { indexBits: 4, levels: [-127, -90, -64, -40, -21, -9, -2, 0, 3, 10, 22, 41, 65, 91, 110, 127] }, { indexBits: 4, levels: [-63, -44, -30, -20, -12, -6, -2, -1, 1, 3, 8, 15, 24, 36, 50, 63] },
    { indexBits: 3, levels: [-128, -60, -20, -5, 5, 21, 61, 127] }, { indexBits: 3, levels: [-12, -8, -4, -2, 0, 3] }, { indexBits: 2, levels: [-100, -3, 40, 127] }, { indexBits: 2, levels: [-1, 5] },
  ] as const).flatMap((weight, i) => [
    linearCase([1], 64, 33, 'i8', weight, 'one'), linearCase([9], 64, 40, 'i8', weight, 'table'), linearCase([2], 45, 19, 'u8', weight, 'one'),
    convCase({ size: [6, 7], kernel: [3, 3], inputs: 5, outputs: 9, pads: [1, 1, 1, 1], weight }, 'one'), convCase({ size: [5, 6], kernel: [3, 3], inputs: 37, outputs: 37, group: 37, pads: [1, 1, 1, 1], weight }, 'one'),
    ...(i > 1 ? [] : [
      linearCase([3], 70, 9, 'i16', weight, 'one-i16'), linearCase([1], 128, 16, 'u8', weight, 'one'), linearCase([2], 50, 5, 'i8', weight, 'residual'),
      convCase({ size: [8, 6], kernel: [3, 3], inputs: 16, outputs: 32, pads: [1, 1, 1, 1], weight }, 'one'), convCase({ size: [6, 6], kernel: [3, 3], inputs: 10, outputs: 24, group: 2, pads: [1, 1, 1, 1], x: 'u8', weight }, 'residual'),
      convCase({ size: [6, 5], kernel: [5, 2], inputs: 11, outputs: 11, group: 11, pads: [2, 1, 2, 1], x: 'u8', weight }, 'residual'),
    ]),
  ]),
  linearCase([1], 260, 40, 'u8', { indexBits: 4, levels: [127] }, 'one'), linearCase([2], 40000, 16, 'u8', { indexBits: 4, levels: [-128, 127, 100, -77] }, 'one'),
  // few planes brought to channels last: the convolution reads them as they stand; more planes, other windows and 16 bits do not
  ...endings.map((ending) => convCase({ size: [9, 8], kernel: [3, 3], inputs: 3, outputs: 8, strides: [2, 2], pads: [1, 1, 1, 1], planes: true }, ending)),
  convCase({ size: [11, 7], kernel: [5, 3], inputs: 2, outputs: 40, strides: [1, 2], pads: [2, 0, 1, 1], batch: 2, x: 'u8', planes: true }, 'one'), convCase({ size: [8, 8], kernel: [4, 4], inputs: 4, outputs: 24, strides: [4, 4], weight: 'i4', planes: true }, 'one'),
  convCase({ size: [9, 9], kernel: [3, 3], inputs: 3, outputs: 16, dilations: [2, 1], pads: [2, 1, 2, 1], weight: { indexBits: 4, levels: [-90, -3, 2, 64] }, planes: true }, 'table'), convCase({ size: [30, 70], kernel: [7, 7], inputs: 3, outputs: 20, strides: [2, 2], pads: [3, 3, 3, 3], x: 'u8', planes: true }, 'one'),
  convCase({ size: [6, 8], kernel: [3, 3], inputs: 1, outputs: 5, pads: [1, 1, 1, 1], planes: true }, 'one'), convCase({ size: [5, 6], kernel: [1, 3], inputs: 3, outputs: 33, pads: [0, 1, 0, 1], weight: 'i2', planes: true }, 'residual'),
  convCase({ size: [5, 6], kernel: [3, 3], inputs: 6, outputs: 7, pads: [1, 1, 1, 1], planes: true }, 'one'), convCase({ size: [5, 6], kernel: [3, 3], inputs: 3, outputs: 3, group: 3, pads: [1, 1, 1, 1], planes: true }, 'one'),
  convCase({ size: [5, 6], kernel: [3, 3], inputs: 2, outputs: 9, dilations: [1, 2], planes: true }, 'one'), convCase({ size: [5, 6], kernel: [2, 2], inputs: 2, outputs: 9, x: 'i16', planes: true }, 'one'), convCase({ size: [5, 6], kernel: [1, 1], inputs: 3, outputs: 9, planes: true }, 'one'),
  // depthwise
  ...endings.map((ending) => convCase({ size: [5, 6], kernel: [3, 3], inputs: 11, outputs: 11, group: 11, pads: [1, 1, 1, 1] }, ending)),
  convCase({ size: [8, 8], kernel: [3, 3], inputs: 16, outputs: 16, group: 16, strides: [2, 2], pads: [0, 0, 1, 1], batch: 2 }, 'residual'), convCase({ size: [6, 9], kernel: [5, 5], inputs: 8, outputs: 8, group: 8, pads: [2, 2, 2, 2], x: 'u8' }, 'one'),
  convCase({ size: [6, 6], kernel: [3, 3], inputs: 3, outputs: 3, group: 3, dilations: [2, 1], pads: [2, 1, 2, 1] }, 'one'), convCase({ size: [4, 4], kernel: [2, 2], inputs: 24, outputs: 24, group: 24 }, 'one-i16'),
  // few channels: pixels stand side by side, the last ones end with the row
  convCase({ size: [7, 36], kernel: [3, 3], inputs: 8, outputs: 8, group: 8, strides: [2, 2], pads: [0, 0, 1, 1], x: 'u8', batch: 2 }, 'one'), convCase({ size: [9, 71], kernel: [3, 3], inputs: 4, outputs: 4, group: 4, strides: [1, 2], pads: [1, 1, 1, 1] }, 'one'),
  convCase({ size: [6, 23], kernel: [2, 5], inputs: 16, outputs: 16, group: 16, strides: [2, 2], pads: [2, 1, 2, 2], weight: 'i4' }, 'one'), convCase({ size: [5, 66], kernel: [3, 1], inputs: 2, outputs: 2, group: 2, strides: [2, 2], pads: [1, 0, 1, 0], x: 'u8' }, 'one'),
  convCase({ size: [5, 18], kernel: [3, 3], inputs: 8, outputs: 8, group: 8, pads: [1, 1, 1, 1], x: 'u8', batch: 2 }, 'one'), convCase({ size: [7, 21], kernel: [3, 3], inputs: 4, outputs: 4, group: 4, strides: [2, 1], pads: [1, 0, 0, 1] }, 'one'),
  convCase({ size: [6, 9], kernel: [5, 2], inputs: 16, outputs: 16, group: 16, pads: [2, 1, 2, 1], weight: 'i4' }, 'one'), convCase({ size: [3, 68], kernel: [2, 4], inputs: 2, outputs: 2, group: 2, pads: [0, 2, 1, 1], x: 'u8', weight: 'i3' }, 'one'),
  // windows of so many taps that their rows are looped over, and wide ones that are not
  ...([[24, 'one'], [11, 'residual'], [3, 'one']] as const).map(([channels, ending]) => convCase({ size: [9, 8], kernel: [8, 7], inputs: channels, outputs: channels, group: channels, pads: [4, 3, 3, 3], x: 'u8' }, ending)),
  convCase({ size: [8, 9], kernel: [7, 7], inputs: 16, outputs: 16, group: 16, strides: [1, 2], pads: [3, 3, 3, 3] }, 'one'), convCase({ size: [5, 9], kernel: [5, 5], inputs: 80, outputs: 80, group: 80, strides: [2, 2], pads: [2, 2, 2, 2] }, 'one'),
  // whole vectors of channels, and the rest with pixels side by side; odd numbers of rows, a last row alone, columns beyond both ends
  convCase({ size: [9, 7], kernel: [3, 3], inputs: 144, outputs: 144, group: 144, pads: [1, 1, 1, 1], weight: 'i4' }, 'table'), convCase({ size: [5, 6], kernel: [3, 3], inputs: 80, outputs: 80, group: 80, pads: [1, 2, 1, 1], x: 'u8' }, 'one'),
  convCase({ size: [4, 9], kernel: [3, 3], inputs: 112, outputs: 112, group: 112, strides: [2, 2], pads: [0, 1, 1, 0] }, 'one'), convCase({ size: [5, 5], kernel: [2, 3], inputs: 48, outputs: 48, group: 48, pads: [1, 3, 0, 0], x: 'u8' }, 'one'),
  convCase({ size: [1, 5], kernel: [3, 3], inputs: 64, outputs: 64, group: 64, pads: [1, 1, 1, 1] }, 'one'), convCase({ size: [2, 2], kernel: [3, 3], inputs: 64, outputs: 64, group: 64, pads: [2, 2, 2, 2], weight: { indexBits: 4, levels: [-7, -3, 2, 5] } }, 'one'),
  convCase({ size: [3, 4], kernel: [5, 5], inputs: 64, outputs: 64, group: 64, strides: [2, 2], pads: [2, 2, 2, 2], batch: 2 }, 'one'), convCase({ size: [6, 6], kernel: [3, 3], inputs: 32, outputs: 32, group: 32, dilations: [2, 2], pads: [2, 2, 2, 2], x: 'u8' }, 'one'),
  convCase({ size: [3, 46], kernel: [3, 3], inputs: 96, outputs: 96, group: 96, strides: [2, 2], pads: [1, 1, 1, 1], x: 'u8' }, 'one'), convCase({ size: [5, 8], kernel: [1, 4], inputs: 26, outputs: 26, group: 26, pads: [0, 2, 0, 1] }, 'one'),
  // products of two computed matrices
  matmulCase([4, 6], [6, 9], false, [0, 0], ['i8', 'i8'], 'one'), matmulCase([2, 3, 5, 7], [2, 3, 8, 7], true, [3, -5], ['i8', 'i8'], 'none'), matmulCase([3, 1, 9, 16], [1, 2, 16, 16], false, [-128, 127], ['i8', 'u8'], 'residual'),
  matmulCase([5, 3], [2, 3, 4], false, [10, 0], ['u8', 'i8'], 'table'), matmulCase([2, 6, 8], [2, 12, 8], true, [0, 0], ['i16', 'i8'], 'one-i16'), matmulCase([2, 9], [9, 10], false, [100, 0], ['i16', 'i8'], 'none'),
  matmulCase([2, 3, 21], [2, 70, 21], true, [3, 7], ['i8', 'u8'], 'one'), matmulCase([3, 21], [21, 70], false, [3, -5], ['u8', 'i8'], 'one'),
  matmulCase([70, 300], [300, 8], false, [1, 1], ['i8', 'i8'], 'one'),
  // element by element
  ...(['one', 'one-i16', 'residual', 'table', 'pre', 'single', 'relu', 'u8', 'words', 'words-drop'] as const).flatMap((ending) => (['i8', 'u8', 'i16', 'i32'] as const).map((dtype): Case => ({
    name: `rescale ${dtype} ${ending}`,
    build: (s) => {
      const x = s.input(dtype, 3, 5, 13);
      const small = dtype === 'i32' ? s.b.emit(clamp, { x }, { low: -(2 ** 30), high: 2 ** 30 }) : x;
      return ended(s, small, dtype === 'i32' ? 2 ** 30 : rangeOf(dtype)[1] + 1, ending);
    },
  }))),
  ...([[3, 5, 13], [13], [5, 1], [1, 5, 13], [1]] as const).map((shape): Case => ({
    name: `sum with y [${shape}]`,
    build: (s) => {
      const [x, y] = [s.input('i8', 3, 5, 13), s.input('i8', ...shape)];
      const adds = [(5n << 20n) + (1n << 19n)];
      return s.b.emit(requantizeAdd, { x, y, mulX: s.list('i32', [700000]), mulY: s.list('i32', [-500000]), add: s.list('i64', adds) }, { shift: 20, low: -128, high: 127 });
    },
  })),
  {
    name: 'sum in place, then of itself',
    build: (s) => {
      const x = s.input('i8', 4, 24);
      const one = s.b.emit(clamp, { x }, { low: -100, high: 100 });
      const rescaled = ended(s, one, 128, 'one');
      const constants = () => ({ mulX: s.list('i32', [400000]), mulY: s.list('i32', [300000]), add: s.list('i64', [1n << 19n]) });
      const twice = s.b.emit(requantizeAdd, { x: rescaled, y: rescaled, ...constants() }, { shift: 20, low: -128, high: 127 });
      return s.b.emit(requantizeAdd, { x: s.b.emit(table, { x: twice, values: s.constant('i8', [256]) }, {}), y: one, ...constants() }, { shift: 20, low: -128, high: 127 });
    },
  },
  ...([16, 11] as const).map((width): Case => ({
    name: `block of width ${width} that adds its own operand`,
    build: (s) => {
      const greatest = width * 16384;
      const layer = (x: Value, y: Value): Value => {
        const acc = s.b.emit(linearAcc, { x, weight: s.constant('i8', [width, width]) }, { bound: bound(greatest) });
        return s.b.emit(requantizeAdd, { x: acc, y, mulX: s.list('i32', [Math.floor(2 ** 41 / greatest)]), mulY: s.list('i32', [2 ** 30]), add: s.list('i64', [1n << 33n]) }, { shift: 34, low: -128, high: 127 });
      };
      const first = s.b.emit(clamp, { x: s.input('i8', 5, width) }, { low: -120, high: 120 });
      const second = layer(first, first);
      return layer(s.b.emit(table, { x: second, values: s.constant('i8', [256]) }, {}), second);
    },
  })),
  { name: 'sum with a constant', build: (s) => s.b.emit(requantizeAdd, { x: s.input('i16', 6, 9), y: s.constant('i16', [1, 9]), mulX: s.constant('i32', [9], [0, 2 ** 30]), mulY: s.constant('i32', [9], [-(2 ** 30), 2 ** 30]), add: s.list('i64', [1n << 36n]) }, { shift: 37, low: -32768, high: 32767 }) },
  ...([['i8', 'i8', 18, 'i8'], ['i8', 'u8', 33, 'i16'], ['i16', 'i8', 40, 'i16'], ['u8', 'i16', 36, 'u8']] as const).map(([x, y, shift, to]): Case => ({
    name: `product ${x} ${y} ${shift} ${to}`,
    build: (s) => {
      const half = 1n << BigInt(shift - 1);
      const [low, high] = rangeOf(to);
      const greatest = 2 ** (Number(x.slice(1)) + Number(y.slice(1)));
      return s.b.emit(requantizeMul, { x: s.input(x, 2, 6, 11), y: s.input(y, 2, 1, 11) },
        { zeroX: 3, zeroY: -2, mul: Math.min(2 ** 31 - 1, Math.floor((high * 2 * 2 ** shift) / greatest)), add: half + (1n << BigInt(shift)), shift, low, high, to });
    },
  })),
  ...(['i8', 'u8', 'i16', 'u16', 'i32'] as const).map((dtype): Case => ({ name: `clamp ${dtype}`, build: (s) => s.b.emit(clamp, { x: s.input(dtype, 3, 37) }, { low: rangeOf(dtype)[0] * 0.7 + 9 | 0, high: rangeOf(dtype)[1] * 0.6 | 0 }) })),
  ...([['i8', 'i8'], ['u8', 'u8'], ['i8', 'u8'], ['i4', 'i16'], ['u8', 'u16']] as const).map(([x, out]): Case => ({ name: `table ${x} ${out}`, build: (s) => s.b.emit(table, { x: s.input(x, 5, 21), values: s.constant(out, [256]) }, {}) })),
  { name: 'table by channel', build: (s) => s.b.emit(table, { x: s.input('i8', 2, 3, 5, 4), values: s.constant('i8', [4, 256]) }, {}) },
  { name: 'table by axis 1', build: (s) => s.b.emit(table, { x: s.input('u8', 2, 3, 5, 4), values: s.constant('i16', [3, 256]) }, { axis: 1 }) },
  { name: 'table interpolated', build: (s) => s.b.emit(tableInterpolated, { x: s.input('i16', 70), values: s.constant('i16', [KNOTS]) }, {}) },
  ...(['i8', 'i16', 'i32', 'i64'] as const).map((dtype): Case => ({ name: `gather ${dtype}`, build: (s) => s.b.emit(gatherRows, { table: s.constant(dtype, [6, 3, 7], [-100, 100]), indices: s.input(dtype === 'i8' ? 'i8' : 'i32', 2, 4) }, {}) })),
  // pools and reductions
  ...(['i8', 'u8', 'i16', 'i32'] as const).flatMap((dtype): readonly Case[] => [
    { name: `max pool ${dtype}`, build: (s) => s.b.emit(maxPool, { x: s.input(dtype, 2, 7, 6, 19) }, { kernel: [3, 2], strides: [2, 1], pads: [1, 1, 1, 0] }) },
    { name: `max pool without border ${dtype}`, build: (s) => s.b.emit(maxPool, { x: s.input(dtype, 1, 8, 9, 8) }, { kernel: [2, 2], strides: [2, 2], dilations: [2, 3] }) },
  ]),
  ...endings.map((ending): Case => ({ name: `sum pool ${ending}`, build: (s) => ended(s, s.b.emit(sumPool, { x: s.input('i8', 2, 5, 5, 11) }, { kernel: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1], padCode: -7 }), 9 * 128, ending) })),
  { name: 'global sum pool', build: (s) => ended(s, s.b.emit(sumPool, { x: s.input('u8', 1, 7, 7, 20) }, { kernel: [7, 7] }), 49 * 255, 'one') },
  { name: 'sum pool of i16', build: (s) => ended(s, s.b.emit(sumPool, { x: s.input('i16', 1, 4, 4, 9) }, { kernel: [2, 2], strides: [2, 2] }), 4 * 32768, 'one-i16') },
  ...([[[1, 2], true], [[0], false], [[3], true], [[1, 3], false], [[0, 1, 2, 3], false], [[-1], false]] as const).flatMap(([axes, keepDims]): readonly Case[] => [
    { name: `reduce sum ${axes} ${keepDims}`, build: (s) => ended(s, s.b.emit(reduceSum, { x: s.input('i8', 3, 4, 5, 18) }, { axes, keepDims }), 128 * (axes as readonly number[]).reduce((n, axis) => n * [3, 4, 5, 18].at(axis)!, 1), s.dice.pick(['none', 'one', 'residual', 'table'])) },
    { name: `reduce max ${axes} ${keepDims}`, build: (s) => s.b.emit(reduceMax, { x: s.input('i16', 3, 4, 5, 18) }, { axes, keepDims }) },
  ]),
  // rows
  ...([['i8', 1, 2], ['i8', 40, 1], ['i16', 33, 2], ['u8', 17, 0], ['i16', 8, 1]] as const).map(([dtype, length, newtonSteps]): Case => ({
    name: `softmax ${dtype} ${length} ${newtonSteps}`,
    build: (s) => {
      const step = dtype === 'i16' ? 0.0002 : 0.03;
      const entries = (scale: number) => Array.from({ length: 256 }, (_, i) => Math.min(2 ** 30, Math.floor(Math.exp(-i * scale) * 2 ** 30 + 0.5)));
      return s.b.emit(softmax, { x: s.input(dtype, 4, length), fine: s.list('i32', entries(step)), coarse: dtype === 'i16' ? s.list('i32', entries(step * 256)) : null },
        { eShift: 6, newtonSteps, mulOut: 2 ** 30, shiftOut: 14, zero: 0, low: 0, high: 65535, to: 'u16' });
    },
  })),
  ...([
    [1, 5, 9, 2, 8, 8, 'i8', false, 'i8'], [2, 17, 17, 3, 6, 5, 'i8', false, 'i8'], [1, 10, 10, 2, 16, 16, 'i8', true, 'i8'], [1, 9, 33, 1, 7, 9, 'i16', false, 'i16'], [1, 1, 4, 1, 4, 3, 'i8', false, 'i16'], [1, 13, 70, 1, 19, 68, 'i8', false, 'i8'],
    [1, 7, 19, 2, 8, 6, 'i8', false, 'i8', 'log2'], [1, 9, 9, 1, 5, 7, 'i16', true, 'i16', 'log-sqrt2'], [1, 3, 40, 1, 8, 16, 'i8', false, 'i8', 'shift-uniform'],
  ] as const).map(([batch, rows, keys, heads, depth, depthV, dtype, masked, to, powers]): Case => ({
    name: `attention ${batch}x${rows}x${keys} heads ${heads} depths ${depth} ${depthV} ${dtype} ${masked ? 'masked' : 'open'} ${to}${powers === undefined ? '' : ` ${powers}`}`,
    build: (s) => {
      const narrow = (x: Value): Value => (dtype === 'i16' ? s.b.emit(clamp, { x }, { low: -3000, high: 3000 }) : x);
      const [q, k] = [s.input(dtype, batch, rows, heads * depth), s.input(dtype, batch, keys, heads * depth)].map(narrow);
      const mask = masked ? s.list('bool', Array.from({ length: rows * keys }, (_, i) => (i % keys <= Math.floor(i / keys) ? 1 : 0)), [rows, keys]) : null;
      // a row of e·v fits 32 bits
      const exp = s.list('i16', powers === undefined ? Array.from({ length: EXP_LENGTH }, (_, z) => (z === EXP_LENGTH - 1 ? 0 : Math.floor(32767 * Math.exp(-z / 256) + 0.5)))
        : [...powerTable(powers, 4, Math.min(32767, Math.floor((2 ** 31 - 1) / (keys * 128))))!.table]);
      const greatest = depth * (dtype === 'i16' ? 9e6 : 16384);
      const shiftLogit = s.dice.pick([24, 31, 36, 40]);
      const mulLogit = Math.min(2 ** 31 - 1, Math.floor((3000 * 2 ** shiftLogit) / greatest));
      const v = s.input('i8', batch, keys, heads * depthV);
      const [low, high] = rangeOf(to);
      return s.b.emit(attentionInt, { q, k, v, mask, exp },
        { heads, mulLogit, addLogit: 1n << BigInt(shiftLogit - 1), shiftLogit, eShift: keys > 32 || powers !== undefined ? 0 : 1, newtonSteps: s.dice.between(0, 2), mulOut: 2 ** 30, shiftOut: to === 'i16' ? 22 : 30, zero: s.dice.between(-5, 5), low, high, to });
    },
  })),
  ...([['i8', 40, 1, 14, 'i8'], ['i8', 7, 2, 14, 'i16'], ['i16', 24, 2, 16, 'i16'], ['u8', 16, 0, 12, 'i8'], ['i8', 1, 1, 14, 'i8'], ['i16', 65, 1, 14, 'i8']] as const).map(([dtype, channels, newtonSteps, fraction, to]): Case => ({
    name: `layer norm ${dtype} ${channels} ${newtonSteps} ${fraction} ${to}`,
    build: (s) => {
      const [low, high] = rangeOf(to);
      const unit = (high / 2) * 2 ** (40 - fraction);
      const muls = Array.from({ length: channels }, () => Math.max(-(2 ** 31) + 1, Math.min(2 ** 31 - 1, Math.floor(unit * (s.dice.between(-100, 100) / 100)))));
      const adds = muls.map(() => (BigInt(s.dice.between(-30, 30)) << 40n) + (1n << 39n));
      return s.b.emit(layerNormInt, { x: s.input(dtype, 3, 2, channels), mul: s.list('i32', muls), add: s.list('i64', adds) }, { epsilon: 7n, newtonSteps, fraction, shift: 40, low, high, to });
    },
  })),
  // layout
  ...(['i8', 'u16', 'i32', 'i64'] as const).flatMap((dtype): readonly Case[] => [
    { name: `transpose ${dtype}`, build: (s) => s.b.emit(transpose, { x: s.input(dtype, 2, 3, 4, 17) }, { perm: [2, 0, 3, 1] }) },
    { name: `concat ${dtype}`, build: (s) => { const x = s.input(dtype, 2, 3, 4); return s.b.emit(concat, { xs: [x, s.constant(dtype, [2, 20, 4], [-9, 9].map((n) => (dtype[0] === 'u' ? n + 9 : n)) as never), x] }, { axis: 1 }); } },
    { name: `slice ${dtype}`, build: (s) => s.b.emit(slice, { x: s.input(dtype, 3, 40, 3) }, { axis: 1, start: 38, end: 2, step: -3 }) },
    { name: `pad ${dtype}`, build: (s) => s.b.emit(pad, { x: s.input(dtype, 2, 5, 6) }, { pads: [0, 1, 2, 1, 0, 3], value: 7 }) },
  ]),
  { name: 'transpose of the last axes kept', build: (s) => s.b.emit(transpose, { x: s.input('i8', 4, 5, 32) }, { perm: [1, 0, 2] }) },
  {
    name: 'views: reshape, contiguous slice, concat in place',
    build: (s) => {
      const x = s.input('i8', 4, 6);
      const flat = s.b.emit(reshape, { x }, { shape: [24] });
      const head = s.b.emit(slice, { x: flat }, { axis: 0, start: 5, end: 17, step: 1 });
      const left = s.b.emit(table, { x: head, values: s.constant('i8', [256]) }, {});
      const right = s.b.emit(clamp, { x: s.b.emit(reshape, { x: left }, { shape: [3, 4] }) }, { low: -110, high: 120 });
      const both = s.b.emit(concat, { xs: [left, s.b.emit(reshape, { x: right }, { shape: [12] })] }, { axis: 0 });
      return s.b.emit(reshape, { x: s.b.emit(clamp, { x: both }, { low: -100, high: 115 }) }, { shape: [2, 12] });
    },
  },
  { name: 'a constant as output', build: (s) => s.constant('i8', [30]) },
  { name: 'an input as output', build: (s) => s.input('i16', 9) },
  { name: 'part of a value as output', build: (s) => s.b.emit(slice, { x: s.b.emit(clamp, { x: s.input('i16', 9) }, { low: -5, high: 99 }) }, { axis: 0, start: 2, end: 7, step: 1 }) },
];

const randomWeights = (dice: Dice, dtypes: readonly IntegerDType[]): Weights => (dice.between(0, 3) === 0 ? randomLevels(dice) : dice.pick(dtypes));
/** Whether a case rescales in words, which machines that multiply to 64 bits alone refuse. */
export const inWords = ({ name }: Case): boolean => name.includes('words');
/** Cases with sizes drawn from a seed. */
export const randomCases = (seed: number, count: number): readonly Case[] => {
  const dice = new Dice(seed);
  return Array.from({ length: count }, (): Case => {
    const ending = dice.pick(endings);
    const x = dice.pick(['i8', 'u8', 'i8', 'i16'] as const);
    switch (dice.between(0, 3)) {
      case 0: return linearCase([dice.between(1, 40)], dice.between(1, 70), dice.between(1, 40), x, randomWeights(dice, ['i2', 'i3', 'i4', 'i5', 'i6', 'i8']), ending);
      case 1: {
        const group = dice.pick([1, 1, 2, 3]);
        const kernel = [dice.between(1, 4), dice.between(1, 4)] as const;
        const dilations = [dice.between(1, 2), dice.between(1, 2)];
        const size = [dice.between(1, 9) + kernel[0] * dilations[0], dice.between(1, 9) + kernel[1] * dilations[1]] as const;
        return convCase({ size, kernel, dilations, inputs: group * dice.between(1, 9), outputs: group * dice.between(1, 17), group, strides: [dice.between(1, 3), dice.between(1, 3)], pads: Array.from({ length: 4 }, () => dice.between(0, 4)), batch: dice.between(1, 2), x, weight: randomWeights(dice, ['i2', 'i3', 'i4', 'i5', 'i6', 'i8']), planes: dice.between(0, 2) === 0 }, ending);
      }
      case 2: {
        const channels = dice.between(1, 40);
        const kernel = [dice.between(1, 5), dice.between(1, 5)] as const;
        return convCase({ size: [dice.between(5, 9), dice.between(5, 9)], kernel, inputs: channels, outputs: channels, group: channels, strides: [dice.between(1, 2), dice.between(1, 2)], pads: Array.from({ length: 4 }, () => dice.between(0, 2)), x, weight: randomWeights(dice, ['i3', 'i4', 'i6', 'i8', 'i8']) }, ending);
      }
      default: {
        const [m, k, n] = [dice.between(1, 20), dice.between(1, 40), dice.between(1, 30)];
        const transposed = dice.pick([true, false]);
        return matmulCase([2, m, k], transposed ? [2, n, k] : [2, k, n], transposed, [dice.between(-9, 9), dice.between(-9, 9)].map((zero) => (x === 'u8' ? Math.abs(zero) : zero)) as never, [x, 'i8'], ending);
      }
    }
  });
};

export const cases: readonly Case[] = fixedCases;
