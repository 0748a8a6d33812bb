/** Worked examples of the published rules, in numbers. */
import { describe, expect, it } from 'vitest';
import { Builder } from '../../../src/ir/build.ts';
import { evaluateGraph } from '../../../src/ir/evaluate.ts';
import { constantOf, type Graph, type Node, type Value } from '../../../src/ir/graph.ts';
import { batchNorm, conv, linear } from '../../../src/ir/ops/index.ts';
import { f32, tensor } from '../../../src/ir/type.ts';
import { applyChanges } from '../../../src/passes/migration/apply.ts';
import { changed, changeOf, type Change } from '../../../src/passes/migration/change.ts';
import { channelClasses } from '../../../src/passes/migration/channel-classes.ts';
import { candidatesFor, powerScale, thresholdScale } from '../../../src/passes/migration/families.ts';

const list = (values: ArrayLike<number>): number[] => Array.from(values);
const near = (found: ArrayLike<number>, expected: readonly number[], digits = 5): void => {
  expect(found.length).toBe(expected.length);
  expected.forEach((value, i) => expect(found[i]).toBeCloseTo(value, digits));
};

/** A layer behind something that takes any change: y = W·x + b. */
const layer = (rows: number, weight: readonly number[], bias: readonly number[] | null): { readonly graph: Graph<'float'>; readonly x: Value } => {
  const b = new Builder();
  const channels = weight.length / (bias?.length ?? 1);
  const vector = (name: string, values: readonly number[]): Value => b.constant(name, tensor(f32(values.length), Float32Array.from(values)));
  const same = (value: number): number[] => new Array<number>(channels).fill(value);
  const x = b.emit(batchNorm, { x: b.input('in', f32(rows, channels)), scale: vector('g', same(1)), bias: vector('o', same(0)), mean: vector('m', same(0)), variance: vector('v', same(1)) }, { epsilon: 0 });
  const outputs = weight.length / channels;
  const y = b.emit(linear, { x, weight: b.constant('w', tensor(f32(outputs, channels), Float32Array.from(weight))), bias: bias && vector('b', bias) });
  return { graph: b.finish('float', 'g', [{ name: 'y', value: y }]), x };
};
const lastNode = ({ nodes }: Graph): Node => nodes[nodes.length - 1];
const numbers = (value: unknown): number[] => list(constantOf(value as Value)!.data as Float32Array);

describe('Outlier Suppression+ (Wei et al. 2023): four tokens, three channels', () => {
  const X = [-60, 0.5, 1, -90, -0.7, 9, -70, 0.1, 30, -80, -0.3, -2];
  const W = [0.02, 0.5, -0.1, -0.01, 0.3, 0.2];
  const bias = [0.1, -0.2];
  const shift = Float64Array.of(-75, -0.1, 14);
  const half = Float64Array.of(15, 0.6, 16);

  it('scales only the channels beyond the threshold', () => {
    near(thresholdScale(half, 8), [1.875, 1, 2]);
    near(thresholdScale(half, 4), [3.75, 1, 4]);
    near(thresholdScale(half, 2.2), [6.818182, 1, 7.272727]);
  });

  it('keeps the function, and moves the shift into the bias', () => {
    const { graph, x } = layer(4, W, bias);
    const after = applyChanges(graph, new Map([[x, changeOf({ shift, scale: thresholdScale(half, 4) })]]));
    near(numbers(lastNode(after).inputs['bias']), [-2.85, 3.32]);
    const input = { in: tensor(f32(4, 3), Float32Array.from(X)) };
    const [p, q] = [evaluateGraph(graph, input).get('y')!.data, evaluateGraph(after, input).get('y')!.data];
    near(p as Float32Array, [-0.95, 0.75, -2.95, 2.29, -4.25, 6.53, -1.45, 0.11]);
    near(q as Float32Array, list(p as Float32Array), 4);
  });

  it('has the published losses: 4-bit symmetric codes for the whole of both tensors', () => {
    // halves go to the even neighbour
    const nearest = (v: number): number => (Math.abs(v % 1) === 0.5 ? 2 * Math.round(v / 2) : Math.round(v));
    const rounded = (data: ArrayLike<number>): number[] => {
      const step = Math.max(...list(data).map(Math.abs)) / 7;
      return list(data).map((v) => nearest(v / step) * step);
    };
    const products = (x: ArrayLike<number>, w: ArrayLike<number>): number[] =>
      Array.from({ length: 8 }, (_, i) => [0, 1, 2].reduce((sum, k) => sum + x[Math.floor(i / 2) * 3 + k] * w[(i % 2) * 3 + k], 0));
    const loss = (change: Change): number => {
      const x = list(X).map((v, i) => (v - (change.shift?.[i % 3] ?? 0)) / (change.scale?.[i % 3] ?? 1));
      const w = W.map((v, i) => v * (change.scale?.[i % 3] ?? 1));
      const [exact, found] = [products(x, w), products(rounded(x), rounded(w))];
      return exact.reduce((sum, y, i) => sum + (y - found[i]) ** 2, 0) / 4;
    };
    expect(loss(changeOf({}))).toBeCloseTo(4.230535, 5);
    expect(loss(changeOf({ shift }))).toBeCloseTo(0.348852, 5);
    for (const [threshold, expected] of [[8, 0.25809], [4, 0.085675], [2, 0.055527], [1, 0.075333]] as const) {
      expect(loss(changeOf({ shift, scale: thresholdScale(half, threshold) }))).toBeCloseTo(expected, 4);
    }
  });
});

it('SmoothQuant (Xiao et al. 2023): ranges shared by activations and weights', () => {
  const [x, w] = [Float64Array.of(8, 0.5, 2), Float64Array.of(0.2, 0.5, 0.1)];
  near(powerScale(x, w, 0.5), [6.324555, 1, 4.472136]);
  near(powerScale(x, w, 0.75), [7.113118, 0.707107, 2.990698]);
});

it('AWQ (Lin et al. 2024) is the same rule with all weights alike', () => {
  near(powerScale(Float64Array.of(4, 0.25, 1), Float64Array.of(1, 1, 1), 0.5), [2, 0.5, 1]);
});

describe('RepQ-ViT (Li et al. 2023): one range for all channels', () => {
  // per-channel codes of steps [.02, .04, .06] and zeros [10, 20, 30] as codes of one step .04 and zero 20
  const half = Float64Array.of(0.02, 0.04, 0.06);
  const equal = candidatesFor({ halfRange: half, opposite: Float64Array.of(1, 1, 1), producer: null, reciprocal: false }).find(({ family }) => family === 'equal')!;

  it('scales by the share of the mean', () => near(equal.scale, [0.5, 1, 1.5]));

  it('gives the codes of per-channel scales', () => {
    const change = changeOf({ scale: equal.scale, shift: Float64Array.of(0.2, 0, -0.6) });
    const codes = list(changed([0.5, -0.3, 1.1], 3, change)).map((v) => Math.round(v / 0.04 + 20));
    expect(codes).toEqual([35, 12, 48]);
    const { graph, x } = layer(1, [0.5, -1, 0.25], [0]);
    const after = applyChanges(graph, new Map([[x, change]]));
    near(numbers(lastNode(after).inputs['weight']), [0.25, -1, 0.375]);
    near(numbers(lastNode(after).inputs['bias']), [-0.05]);
  });
});

describe('a shift next to padding', () => {
  // w = [1, 1, 1] over [10, 10] gives [20, 20]; shifted by 10 and padded with 0, it would give [30, 30]
  const padded = (pads: readonly number[], width: number) => {
    const b = new Builder();
    const ones = (name: string, ...shape: number[]): Value => b.constant(name, tensor(f32(...shape), new Float32Array(shape.reduce((a, n) => a * n, 1)).fill(1)));
    const x = b.emit(conv, { x: b.input('in', f32(1, 1, width, 1)), weight: ones('w0', 1, 1, 1, 1), bias: null });
    const y = b.emit(conv, { x, weight: ones('w', 1, 1, 3, 1), bias: null }, { pads });
    return { graph: b.finish('float', 'g', [{ name: 'y', value: y }]), x };
  };

  it('is not offered, and refused', () => {
    const { graph, x } = padded([0, 1, 0, 1], 2);
    expect(evaluateGraph(graph, { in: tensor(f32(1, 1, 2, 1), Float32Array.of(10, 10)) }).get('y')!.data).toEqual(Float32Array.of(20, 20));
    expect(channelClasses(graph).shiftSites.filter(({ members }) => members.some(({ value }) => value === x))).toEqual([]);
    expect(() => applyChanges(graph, new Map([[x, changeOf({ shift: Float64Array.of(10) })]]))).toThrow('cannot take the change');
  });

  it('is free where nothing is padded', () => {
    const { graph, x } = padded([0, 0, 0, 0], 4);
    const after = applyChanges(graph, new Map([[x, changeOf({ shift: Float64Array.of(10) })]]));
    const input = { in: tensor(f32(1, 1, 4, 1), Float32Array.of(10, 11, 12, 13)) };
    expect(evaluateGraph(after, input).get('y')!.data).toEqual(evaluateGraph(graph, input).get('y')!.data);
  });
});
