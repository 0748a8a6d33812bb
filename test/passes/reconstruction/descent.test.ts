// Gradient descent within one MLP, and what single tokens count at the outputs.
import { expect, it } from 'vitest';
import { Builder } from '../../../src/ir/build.ts';
import { isNode } from '../../../src/ir/graph.ts';
import { linear, relu, slice } from '../../../src/ir/ops/index.ts';
import { f32, tensor } from '../../../src/ir/type.ts';
import { createRandom } from '../../../src/numerics/random.ts';
import { descend, hiddenRows, mlpGradient, type MlpTokens, type MlpWeights } from '../../../src/passes/reconstruction/descent.ts';
import { tokenImportance } from '../../../src/passes/reconstruction/importance.ts';

const layer = (weight: readonly number[], bias: readonly number[]) => ({ weight: Float64Array.from(weight), bias: Float64Array.from(bias) });
const near = (found: ArrayLike<number>, expected: readonly number[]): void => expected.forEach((x, i) => expect(found[i]).toBeCloseTo(x, 7));

it('the gradient of a small MLP', () => {
  const mlp: MlpWeights = { first: layer([0.2, -0.4, 0.7, 0.1], [0.1, -0.3]), second: layer([0.6, -0.5], [0.05]) };
  const { loss, gradient } = mlpGradient(mlp, { x: Float32Array.of(0.5, -1), y: Float32Array.of(0.4), importance: null }, [0]);
  expect(loss).toBeCloseTo(1e-4, 8);
  near(gradient.second.weight, [0.012, 0]);
  near(gradient.second.bias, [0.02]);
  near(gradient.first.weight, [0.006, -0.012, 0, 0]);
  near(gradient.first.bias, [0.012, 0]);
});

/** An MLP and tokens drawn at random, with targets that it does not meet. */
const drawn = (seed: number): { readonly mlp: MlpWeights; readonly tokens: MlpTokens } => {
  const random = createRandom(seed);
  const normal = (count: number): number[] => Array.from({ length: count }, () => random.normal());
  return {
    mlp: { first: layer(normal(15), normal(5)), second: layer(normal(10), normal(2)) },
    tokens: { x: Float32Array.from(normal(60)), y: Float32Array.from(normal(40)), importance: Float32Array.from({ length: 20 }, () => 0.5 + random.uniform()) },
  };
};

it.each([Infinity, 0.8])('the gradient is the slope of the loss, activations limited to %d', (ceiling) => {
  const { mlp, tokens } = drawn(4);
  const rows = Array.from({ length: 20 }, (_, i) => i);
  const { gradient } = mlpGradient(mlp, tokens, rows, ceiling);
  const parts = (weights: MlpWeights): readonly Float64Array[] => [weights.first.weight, weights.first.bias, weights.second.weight, weights.second.bias];
  parts(mlp).forEach((list, p) => list.forEach((value, i) => {
    const lossAt = (x: number): number => { list[i] = x; return mlpGradient(mlp, tokens, rows, ceiling).loss; };
    const slope = (lossAt(value + 1e-6) - lossAt(value - 1e-6)) / 2e-6;
    list[i] = value;
    expect(parts(gradient)[p][i]).toBeCloseTo(slope, 4);
  }));
});

it('descent lowers the loss, the same way every time', () => {
  const { mlp, tokens } = drawn(5);
  const rows = Array.from({ length: 20 }, (_, i) => i);
  const options = { steps: 200, batch: 8, rate: 1e-2, ceiling: Infinity, seed: 1 };
  const found = descend(mlp, tokens, options);
  expect(mlpGradient(found, tokens, rows).loss).toBeLessThan(mlpGradient(mlp, tokens, rows).loss / 2);
  expect(descend(mlp, tokens, options)).toEqual(found);
  expect(descend(mlp, tokens, { ...options, steps: 0 })).toEqual(mlp);
});

it('hidden rows are those of the first layer behind a ReLU', () => near(hiddenRows(layer([1, -1, 2, 0], [0, -3]), Float32Array.of(2, 0.5, 1, 3)), [1.5, 1, 0, 0]));

it('only the token that the outputs read counts', () => {
  const random = createRandom(2);
  const b = new Builder();
  const constant = (...shape: readonly number[]) => b.constant('w', tensor(f32(...shape), Float32Array.from({ length: shape.reduce((p, n) => p * n, 1) }, () => random.normal())));
  const x = b.input('x', f32(1, 4, 3));
  const hidden = b.emit(linear, { x: b.emit(relu, { x: b.emit(linear, { x, weight: constant(6, 3), bias: null }) }), weight: constant(3, 6), bias: null });
  const graph = b.finish('float', 'g', [{ name: 'logits', value: b.emit(linear, { x: b.emit(slice, { x: hidden }, { axis: 1, start: 0, end: 1 }), weight: constant(5, 3), bias: null }) }]);
  const value = graph.nodes.find(({ output }) => output.name === hidden.name)!.output;
  expect(isNode(value.def)).toBe(true);
  const sample = { x: tensor(f32(1, 4, 3), Float32Array.from({ length: 12 }, () => random.normal())) };
  const [first, ...others] = tokenImportance(graph, value, [sample], 4, 0);
  expect(first).toBeCloseTo(4, 1);
  for (const one of others) expect(one).toBeLessThan(0.1);
});
