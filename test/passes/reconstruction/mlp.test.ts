/** The repair ladder behind a ReLU, against worked examples. */
import { describe, expect, it } from 'vitest';
import { gelu } from '../../../src/ir/ops/index.ts';
import { createRandom } from '../../../src/numerics/random.ts';
import { clamped, mlpSums, neuronSums, withNeurons } from '../../../src/passes/reconstruction/mlp.ts';

const geluOf = (x: number): number => gelu.real(x, { form: 'erf' });
const near = (found: ArrayLike<number>, expected: readonly number[], digits = 5): void => expected.forEach((value, i) => expect(found[i]).toBeCloseTo(value, digits));

describe('one neuron', () => {
  const x = [-2, -1, 0, 1, 2];

  it('is regressed on its ReLU', () => {
    const sums = neuronSums(1);
    sums.add(Float32Array.from(x), Float32Array.from(x, geluOf));
    const { slope, offset } = sums.fit();
    near([slope[0], offset[0]], [0.9985409, -0.0807867]);
    const error = x.reduce((sum, p) => sum + (slope[0] * Math.max(0, p) + offset[0] - geluOf(p)) ** 2, 0) / x.length;
    expect(error).toBeCloseTo(0.00422663, 6);
  });

  it('is regressed with tokens weighed', () => {
    const tokens = [-1, 0, 1, 2];
    const sums = neuronSums(1);
    sums.add(Float32Array.from(tokens), Float32Array.from(tokens, geluOf), Float32Array.of(10, 1, 1, 1));
    const { slope, offset } = sums.fit();
    near([slope[0], offset[0]], [1.037975, -0.14651]);
  });

  it('that never fires becomes its mean', () => {
    const sums = neuronSums(1);
    sums.add(Float32Array.of(-1, -2), Float32Array.of(-0.25, -0.75));
    expect(sums.fit()).toEqual({ slope: Float64Array.of(0), offset: Float64Array.of(-0.5) });
  });
});

describe('two neurons x and 0.5 − x before weights [1, 2] and bias 0.1', () => {
  const x = [-2, -1, 0, 1, 2];
  const before = x.flatMap((v) => [v, 0.5 - v]);
  const targets = Float32Array.from(x, (v) => geluOf(v) + 2 * geluOf(0.5 - v) + 0.1);
  const hidden = Float32Array.from(before, (p) => Math.max(0, p));
  const layer = { weight: Float64Array.of(1, 2), bias: Float64Array.of(0.1) };
  const sums = mlpSums(2, 1);
  sums.add(hidden, targets);
  const variance = (): number => {
    const mean = targets.reduce((sum, y) => sum + y, 0) / 5;
    return targets.reduce((sum, y) => sum + (y - mean) ** 2, 0) / 5;
  };
  /** λ as a share of the mean variance of a neuron */
  const shareOf = (lambda: number): number => {
    const spread = [0, 1].map((i) => {
      const column = x.map((_, t) => hidden[2 * t + i]);
      const mean = column.reduce((sum, a) => sum + a, 0) / 5;
      return column.reduce((sum, a) => sum + (a - mean) ** 2, 0);
    });
    return lambda / ((spread[0] + spread[1]) / 2);
  };

  it('have these outputs', () => near(targets, [5.0234514, 2.7409231, 0.7914625, 0.6328072, 1.8540781]));

  it('least squares', () => {
    const { weight, bias } = sums.ridge(layer, shareOf(1e-9));
    near([...weight, ...bias], [1.097516, 2.146933, -0.382205]);
    expect(sums.relativeError({ weight, bias }) * variance()).toBeCloseTo(0.00589584, 5);
    expect(sums.relativeError(layer) * variance()).toBeCloseTo(0.10174759, 5);
  });

  it('ridge towards the old weights', () => {
    const { weight, bias } = sums.ridge(layer, shareOf(0.1));
    near([...weight, ...bias], [1.087401, 2.138183, -0.368261]);
  });

  it('with the clamped rows stacked', () => {
    const stacked = mlpSums(2, 1);
    stacked.add(hidden, targets);
    stacked.add(clamped(hidden, 1.5), targets, new Float32Array(5).fill(2));
    const { weight, bias } = stacked.ridge(layer, 1e-10);
    near([...weight, ...bias], [1.152978, 2.41947, -0.261304], 4);
  });
});

it('each step of the ladder is at least as good as the one before, on fresh tokens', () => {
  const random = createRandom(5);
  const [inputs, hidden, outputs] = [12, 48, 12];
  const normals = (length: number, scale = 1): Float64Array => Float64Array.from({ length }, () => random.normal() * scale);
  const first = normals(hidden * inputs, 1 / Math.sqrt(inputs));
  const layer = { weight: normals(outputs * hidden, 1 / Math.sqrt(hidden)), bias: normals(outputs) };
  const [fit, held, neurons] = [mlpSums(hidden, outputs), mlpSums(hidden, outputs), neuronSums(hidden)];
  for (let block = 0; block < 24; block++) {
    const tokens = 128;
    const before = new Float32Array(tokens * hidden);
    const targets = new Float32Array(tokens * outputs);
    for (let t = 0; t < tokens; t++) {
      const x = normals(inputs);
      for (let i = 0; i < hidden; i++) before[t * hidden + i] = x.reduce((sum, v, k) => sum + v * first[i * inputs + k], 0);
      for (let o = 0; o < outputs; o++) {
        let sum = layer.bias[o];
        for (let i = 0; i < hidden; i++) sum += layer.weight[o * hidden + i] * geluOf(before[t * hidden + i]);
        targets[t * outputs + o] = sum;
      }
    }
    const rows = before.map((p) => Math.max(0, p));
    if (block >= 18) held.add(rows, targets);
    else {
      fit.add(rows, targets);
      neurons.add(before, before.map(geluOf));
    }
  }
  const steps = [layer, fit.withMean(layer), fit.withMean(withNeurons(layer, neurons.fit())), fit.ridge(layer, 1e-3)].map((one) => held.relativeError(one));
  expect(steps[0]).toBeGreaterThan(0.03);
  expect(steps[1]).toBeLessThan(steps[0] / 2);
  expect(steps[2]).toBeLessThan(steps[1] * 1.02);
  expect(steps[3]).toBeLessThan(steps[1] * 0.95);
});
