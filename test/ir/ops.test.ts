/** Declarations of the float ops: what they refuse, and their meaning where an edge could go wrong. */
import { describe, expect, test } from 'vitest';
import { Builder } from '../../src/ir/build.ts';
import { symbol } from '../../src/ir/dim.ts';
import { evaluateGraph } from '../../src/ir/evaluate.ts';
import type { Value } from '../../src/ir/graph.ts';
import {
  attention, averagePool, clip, concat, conv, expand, floatOps, gather, gelu, hardSigmoid, linear, maxPool, pad, pow, reduceMean, reshape, sigmoid, slice,
  softmax, softplus, transpose, unaryOps,
} from '../../src/ir/ops/index.ts';
import { f32, tensor, tensorType, type TensorType } from '../../src/ir/type.ts';
import { viewOf } from '../../src/ir/view.ts';

const input = (b: Builder, shape: readonly number[], name = 'x'): Value => b.input(name, f32(...shape));
const made = (make: (b: Builder) => Value): Value => make(new Builder());
const refused = (make: (b: Builder) => Value): string => { try { made(make); } catch (cause) { return (cause as Error).message; } return 'accepted'; };
const iota = (type: TensorType, start = 0): { type: TensorType; data: Float32Array } =>
  ({ type, data: Float32Array.from({ length: (type.shape as number[]).reduce((a, d) => a * d, 1) }, (_, i) => start + i) });
const evaluated = (shape: readonly number[], make: (x: Value, b: Builder) => Value): readonly number[] => {
  const b = new Builder();
  const value = make(input(b, shape), b);
  const graph = b.finish('float', 'g', [{ name: 'y', value }]);
  return Array.from(evaluateGraph(graph, { x: iota(f32(...shape)) }).get('y')!.data, Number);
};

test('every op has a name of its own and a summary', () => {
  expect(new Set(floatOps.map(({ name }) => name)).size).toBe(floatOps.length);
  for (const { name, summary } of floatOps) expect([/^[a-z0-9_]+$/.test(name), summary.length > 1]).toEqual([true, true]);
});

describe('functions of one number', () => {
  test('are finite and ordered where they should be, far out too', () => {
    for (const x of [-1e30, -100, 0, 100, 1e30]) {
      expect(sigmoid.real(x, {})).toBeGreaterThanOrEqual(0);
      expect(sigmoid.real(x, {})).toBeLessThanOrEqual(1);
      expect(Number.isFinite(softplus.real(x, {}))).toBe(true);
      for (const form of ['erf', 'tanh'] as const) expect(gelu.real(x, { form })).toBeCloseTo(Math.max(x, 0), 5);
    }
  });
  test('the ends of clip may be infinite', () => expect([clip.real(5, { low: -Infinity, high: 2 }), clip.real(-5, { low: -Infinity, high: 2 })]).toEqual([2, -5]));
  test('hard_sigmoid has the slope of ONNX by default', () => expect(hardSigmoid.attrs.alpha.fallback).toBe(0.2));
  test('powers', () => expect([[2, 3], [4, 0.5], [2, -1], [-2, 3], [9, 1.5]].map(([x, exponent]) => Math.fround(pow.real(x, { exponent })))).toEqual([8, 2, 0.5, -8, 27]));
  test('each is exported in the table', () => expect(unaryOps.every(({ real }) => typeof real === 'function')).toBe(true));
});

describe('misuse is refused in the op\'s words', () => {
  const w = (b: Builder, shape: readonly number[]): Value => b.constant('w', iota(f32(...shape)));
  const cases: readonly (readonly [string, (b: Builder) => Value, RegExp])[] = [
    ['linear with other inner sizes', (b) => b.emit(linear, { x: input(b, [2, 3]), weight: w(b, [4, 5]), bias: null }), /does not fit the weight/],
    ['a bias of another length', (b) => b.emit(linear, { x: input(b, [2, 3]), weight: w(b, [4, 3]), bias: w(b, [3]) }), /one number per output channel/],
    ['conv with too few channels', (b) => b.emit(conv, { x: input(b, [1, 4, 4, 3]), weight: w(b, [4, 3, 3, 2]), bias: null }), /in 1 group/],
    ['a window beyond the input', (b) => b.emit(maxPool, { x: input(b, [1, 2, 2, 1]) }, { kernel: [3, 3] }), /larger than the padded input/],
    ['a pad as large as the window', (b) => b.emit(averagePool, { x: input(b, [1, 4, 4, 1]) }, { kernel: [2, 2], pads: [2, 0, 0, 0] }), /as large as the window/],
    ['a reshape of another size', (b) => b.emit(reshape, { x: input(b, [2, 3]) }, { shape: [5] }), /cannot become/],
    ['an order of axes with a repeat', (b) => b.emit(transpose, { x: input(b, [2, 3]) }, { perm: [0, 0] }), /no order/],
    ['a slice beyond the axis', (b) => b.emit(slice, { x: input(b, [3]) }, { axis: 0, start: 1, end: 4 }), /outside axis 0/],
    ['a concatenation of other shapes', (b) => b.emit(concat, { xs: [input(b, [2, 3]), input(b, [3, 3], 'z')] }, { axis: 1 }), /differ beside axis 1/],
    ['an expansion of a long axis', (b) => b.emit(expand, { x: input(b, [2]) }, { shape: [3] }), /do not broadcast|does not expand/],
    ['real indices', (b) => b.emit(gather, { table: input(b, [2]), indices: input(b, [1], 'i') }), /must be integers/],
    ['heads that do not divide', (b) => b.emit(attention, { q: input(b, [1, 2, 3]), k: input(b, [1, 2, 3], 'k'), v: input(b, [1, 2, 3], 'v'), mask: null }, { heads: 2, scale: 1 }), /2 heads/],
    ['an axis out of range', (b) => b.emit(softmax, { x: input(b, [2]) }, { axis: 1 }), /axis 1/],
    ['one axis twice', (b) => b.emit(reduceMean, { x: input(b, [2, 2]) }, { axes: [1, -1] }), /twice/],
  ];
  for (const [what, make, words] of cases) test(what, () => expect(refused(make)).toMatch(words));
});

describe('edges', () => {
  test('padding never wins in max_pool, for negative inputs too', () => {
    expect(evaluated([1, 1, 2, 1], (x, b) => b.emit(maxPool, { x: b.emit(unaryOps.find(({ name }) => name === 'neg') as never, { x }) }, { kernel: [1, 2], pads: [0, 1, 0, 0] }))).toEqual([-0, -0]);
  });
  test('average_pool divides by the taps inside, or by all', () => {
    const pool = (countPad: boolean) => evaluated([1, 1, 2, 1], (x, b) => b.emit(averagePool, { x }, { kernel: [1, 2], pads: [0, 0, 0, 1], countPad }));
    expect([pool(false), pool(true)]).toEqual([[0.5, 1], [0.5, 0.5]]);
  });
  test('slices run backwards', () => expect(evaluated([4], (x, b) => b.emit(slice, { x }, { axis: 0, start: 3, end: -1, step: -2 }))).toEqual([3, 1]));
  test('pad fills with its value', () => expect(evaluated([2], (x, b) => b.emit(pad, { x }, { pads: [1, 2], value: 9 }))).toEqual([9, 0, 1, 9, 9]));
  test('transpose of three axes', () => expect(evaluated([1, 2, 3], (x, b) => b.emit(transpose, { x }, { perm: [2, 0, 1] }))).toEqual([0, 3, 1, 4, 2, 5]));
  test('groups see their own channels only', () => {
    expect(evaluated([1, 1, 1, 2], (x, b) => b.emit(conv, { x, weight: b.constant('w', tensor(f32(2, 1, 1, 1), Float32Array.of(10, 100))), bias: null }, { group: 2 }))).toEqual([0, 100]);
  });
  test('layout ops keep any element type', () => {
    const b = new Builder();
    const x = b.input('x', tensorType('i8', [2, 3]));
    const y = b.emit(transpose, { x: b.emit(reshape, { x }, { shape: [3, 2] }) }, { perm: [1, 0] });
    expect(y.type.dtype).toBe('i8');
  });
  test('symbols cancel in reshape', () => {
    const b = new Builder();
    const x = b.input('x', tensorType('f32', [symbol('N'), symbol('T'), 12]));
    expect(b.emit(reshape, { x }, { shape: [symbol('N'), symbol('T'), 3, 4] }).type.shape).toHaveLength(4);
    expect(() => b.emit(reshape, { x }, { shape: [symbol('N'), 3, 4] })).toThrow(/cannot become/);
  });
});

describe('views', () => {
  test('a chain of reshapes, transposes and slices is strides over its source', () => {
    const b = new Builder();
    const x = input(b, [2, 6, 12]);
    const heads = b.emit(transpose, { x: b.emit(reshape, { x }, { shape: [2, 6, 3, 4] }) }, { perm: [0, 2, 3, 1] });
    const view = viewOf(b.emit(slice, { x: heads }, { axis: 1, start: 1, end: 3 }), ['reshape', 'transpose', 'slice'])!;
    expect([view.source.name, view.sizes, view.strides, view.offset]).toEqual(['x', [2, 2, 4, 6], [72, 4, 1, 12], 4]);
  });
  test('a reshape across strides starts over', () => {
    const b = new Builder();
    const turned = b.emit(transpose, { x: input(b, [2, 3]) }, { perm: [1, 0] });
    const flat = b.emit(reshape, { x: turned }, { shape: [6] });
    expect(viewOf(flat)!.source).toBe(flat);
  });
});
