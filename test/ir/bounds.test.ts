/** Intervals hold every code that evaluation can produce, and are tight where the weights decide. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { factOf } from '../../src/ir/analysis.ts';
import { accumulatorBounds, hullOf, rowIntervals, type Interval } from '../../src/ir/bounds.ts';
import { Builder } from '../../src/ir/build.ts';
import { sizeOf } from '../../src/ir/dim.ts';
import { evaluateGraph } from '../../src/ir/evaluate.ts';
import type { Graph, Value } from '../../src/ir/graph.ts';
import { random } from '../../src/ir/literal.ts';
import { convAcc, linearAcc, matmulAcc } from '../../src/ir/ops/kernel-accumulate.ts';
import { maxPool, reduceMax, reduceSum, sumPool } from '../../src/ir/ops/kernel-reduce.ts';
import { clamp, requantize, requantizeAdd, requantizeMul } from '../../src/ir/ops/kernel-requantize.ts';
import { table } from '../../src/ir/ops/kernel-table.ts';
import { concat, pad, reshape, slice, transpose } from '../../src/ir/ops/layout.ts';
import { parseGraph } from '../../src/ir/parse.ts';
import { tensor, tensorType, type Tensor } from '../../src/ir/type.ts';
import { chooseDyadic, chooseDyadicAdd } from '../../src/numerics/choose-dyadic.ts';

const boundOf = (graph: Graph, name: string): Interval => [...factOf(graph, accumulatorBounds)].find(([value]) => value.name === name)![1];

describe('intervals', () => {
  it('of a linear layer come from its weights, row by row', () => {
    const graph = parseGraph(`graph @g : kernel (%x: i8<1, -10..20>[1, 3]) -> (%y) {
      %w = const [1, -2, 0, 3, 3, 3] : i8[2, 3]
      %y = linear_acc(%x, %w) {bound: [-90, 180]} : i32[1, 2]
    }`);
    expect(boundOf(graph, 'y')).toEqual({ low: Float64Array.of(-10 - 40, -90), high: Float64Array.of(20 + 20, 180) });
  });

  it('hold partial sums in any order: codes above 0 still reach down to 0', () => {
    const weight: Tensor = tensor(tensorType('i8', [1, 2]), Int8Array.of(1, -1));
    expect(rowIntervals(weight, { low: 5, high: 10 }, null)).toEqual({ low: Float64Array.of(-10), high: Float64Array.of(10) });
  });

  it('count the code of the padding', () => {
    const weight: Tensor = tensor(tensorType('i8', [1, 1, 2, 1]), Int8Array.of(1, 2));
    expect(hullOf(rowIntervals(weight, { low: 0, high: 10 }, -7))).toEqual([-21, 30]);
  });

  it('of a table are the entries that its codes can reach', () => {
    const graph = parseGraph(`graph @g : kernel (%x: i8<1, -4..3>[2]) -> (%y) {
      %t = const iota : i16[256]
      %y = table(%x, %t) : i16[2]
    }`);
    expect(hullOf(boundOf(graph, 'y'))).toEqual([124, 131]);
  });

  it('of a requantize are the rescaled interval of each channel', () => {
    const graph = parseGraph(`graph @g : kernel (%x: i32<1, -100..100>[1, 2]) -> (%y) {
      %m = const [1073741824, 0] : i32[2]
      %c = const [2147483648, 30064771072] : i64[2]
      %y = requantize(%x, %m, %c) {shift: 32, low: -128, high: 20} : i8[1, 2]
    }`);
    expect(boundOf(graph, 'y')).toEqual({ low: Float64Array.of(-25, 7), high: Float64Array.of(20, 7) });
  });
});

it('of a requantize_words are the rescaled interval of each channel', () => {
  const graph = parseGraph(`graph @g : kernel (%x: i32<1, -101..101>[1, 2]) -> (%y) {
    %m = const [512, 0] : i32[2]
    %c = const [512, 7168] : i32[2]
    %y = requantize_words(%x, %m, %c) {drop: 1, shift: 10, error: 100, low: -128, high: 20} : i8[1, 2]
  }`);
  expect(boundOf(graph, 'y')).toEqual({ low: Float64Array.of(-25, 7), high: Float64Array.of(20, 7) });
});

/** One more kernel on a value [1, H, W, C] of bytes; the result is bytes of the same rank. */
type Step = (b: Builder, x: Value, seed: number) => Value;
const weights = (b: Builder, shape: readonly number[], seed: number): Value =>
  b.constant('w', tensor(tensorType('i8', shape), random(tensorType('i8', shape), seed)));
const rescale = (b: Builder, acc: Value, low: readonly number[], high: readonly number[], scale: number): Value => {
  const chosen = chooseDyadic({ scales: [scale], least: low, greatest: high, offsets: [3.3], zero: -5, low: -100, high: 120 })!;
  const mul = b.constant('mul', tensor(tensorType('i32', [chosen.mul.length]), chosen.mul));
  const add = b.constant('add', tensor(tensorType('i64', [chosen.add.length]), chosen.add));
  return b.emit(requantize, { x: acc, mul, add }, { shift: chosen.shift, preShift: chosen.preShift, low: -100, high: 120 });
};
const channels = (x: Value): number => x.type.shape[3] as number;
const wide = [[-(2 ** 24)], [2 ** 24]] as const;
const bound = [-(2 ** 24), 2 ** 24];
const steps: Readonly<Record<string, Step>> = {
  conv: (b, x, seed) => {
    const weight = weights(b, [3, 2, 2, channels(x)], seed);
    return rescale(b, b.emit(convAcc, { x, weight }, { pads: [1, 0, 0, 1], padCode: -5, bound }), ...wide, 0.003);
  },
  depthwise: (b, x, seed) => {
    const weight = weights(b, [channels(x), 2, 2, 1], seed);
    return rescale(b, b.emit(convAcc, { x, weight }, { pads: [0, 1, 1, 0], group: channels(x), padCode: 9, bound }), ...wide, 0.01);
  },
  linear: (b, x, seed) => rescale(b, b.emit(linearAcc, { x, weight: weights(b, [4, channels(x)], seed) }, { bound }), ...wide, 0.005),
  matmul: (b, x) => rescale(b, b.emit(matmulAcc, { a: x, b: x }, { transposeB: true, aZero: -5, bZero: 3, bound }), ...wide, 0.0001),
  add: (b, x) => {
    const term = { scales: [0.7], least: [-128], greatest: [127] };
    const chosen = chooseDyadicAdd({ x: term, y: { ...term, scales: [-0.4] }, zero: 1, low: -90, high: 100 })!;
    const word = (data: Int32Array): Value => b.constant('mul', tensor(tensorType('i32', [1]), data));
    const y = b.emit(clamp, { x }, { low: -20, high: 90 });
    const add = b.constant('add', tensor(tensorType('i64', [1]), chosen.add));
    return b.emit(requantizeAdd, { x, y, mulX: word(chosen.mulX), mulY: word(chosen.mulY), add }, { shift: chosen.shift, low: -90, high: 100 });
  },
  mul: (b, x) => b.emit(requantizeMul, { x, y: x }, { zeroX: -3, zeroY: 7, mul: 2 ** 30, add: 1n << 36n, shift: 37, low: -50, high: 100 }),
  table: (b, x, seed) => b.emit(table, { x, values: weights(b, [256], seed) }),
  tables: (b, x, seed) => b.emit(table, { x, values: weights(b, [channels(x), 256], seed) }),
  maxPool: (b, x) => b.emit(maxPool, { x }, { kernel: [2, 2], pads: [1, 1, 0, 0] }),
  sumPool: (b, x) => rescale(b, b.emit(sumPool, { x }, { kernel: [2, 1], pads: [1, 0, 0, 0], padCode: 4 }), ...wide, 0.3),
  reduce: (b, x) => b.emit(reduceMax, { x: rescale(b, b.emit(reduceSum, { x }, { axes: [1], keepDims: true }), ...wide, 0.2) }, { axes: [3], keepDims: true }),
  layout: (b, x) => b.emit(transpose, { x: b.emit(concat, { xs: [x, b.emit(slice, { x }, { axis: 3, start: 0, end: 1 })] }, { axis: 3 }) }, { perm: [0, 1, 3, 2] }),
  pad: (b, x) => b.emit(pad, { x: b.emit(reshape, { x }, { shape: x.type.shape }) }, { pads: [0, 0, 0, 1, 0, 0, 0, 0], value: 77 }),
};

describe('evaluation', () => {
  it('stays inside the intervals', () => {
    const names = Object.keys(steps);
    fc.assert(fc.property(fc.array(fc.constantFrom(...names), { minLength: 1, maxLength: 5 }), fc.nat(1000), (chain, seed) => {
      const b = new Builder();
      const x = b.input('x', tensorType('i8', [1, 3, 3, 2]));
      const y = chain.reduce((value, name, i) => steps[name](b, value, seed + i), x);
      const graph = b.finish('kernel', 'chain', [{ name: 'y', value: y }]);
      const bounds = factOf(graph, accumulatorBounds);
      const data = random(x.type, seed + 100);
      evaluateGraph(graph, { x: tensor(x.type, data) }, {
        observe: (value, { data }) => {
          const { low, high } = bounds.get(value)!;
          const last = (value.type.shape.at(-1) ?? 1) as number;
          expect([1, last]).toContain(low.length);
          for (let i = 0; i < sizeOf(value.type.shape); i++) {
            const c = low.length === 1 ? 0 : i % last;
            const inside = Number(data[i]) >= low[c] && Number(data[i]) <= high[c];
            if (!inside) expect.fail(`${value.name}[${i}] = ${data[i]} outside ${low[c]}..${high[c]} after ${chain.join(', ')}`);
          }
        },
      });
    }), { numRuns: 300 });
  });
});
