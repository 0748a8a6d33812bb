import { describe, expect, it } from 'vitest';
import { f32Kernels } from '../../src/numerics/f32-kernels.ts';
import { realFunctions } from '../../src/numerics/real-math-simd.ts';
import { erfTable, exp } from '../../src/numerics/real-math.ts';
import { createRandom } from '../../src/numerics/random.ts';
import * as ops from '../../src/ir/ops/index.ts';
import { engine } from '../../src/wasm/index.ts';

const memory = new engine.Memory({ initial: 4 });
const kernels = f32Kernels(memory);
const TABLE = 65536;
new Float64Array(memory.buffer, TABLE, erfTable.length).set(erfTable);
const random = createRandom(8);
const special = [0, -0, 1, -1, 0.125, -0.125, 0.12499, 5.9999995, 6, -6, 6.0000005, 8.5, -8.5, 20, -20, 88.7, -87.3, -103, 104, 1e-8, 1e-30, 1e-45, -1e-45, 1e30, -1e30, Infinity, -Infinity];
const xs = Float32Array.of(...special,
  ...Array.from({ length: 4000 }, () => 3 * random.normal()), ...Array.from({ length: 2000 }, () => 40 * random.normal()), ...Array.from({ length: 1000 }, () => random.normal() * 2 ** -(30 * random.uniform())));

const run = (name: (typeof realFunctions)[number], data: Float32Array, parameter = 1): Float32Array => {
  new Float32Array(memory.buffer, 0, data.length).set(data);
  kernels[name](0, 32768, data.length, parameter, TABLE);
  return new Float32Array(memory.buffer, 32768, data.length).slice();
};

const references: Readonly<Record<(typeof realFunctions)[number], (x: number) => number>> = {
  exp: (x) => exp(x), tanh: (x) => ops.tanh.real(x, {}), sigmoid: (x) => ops.sigmoid.real(x, {}), silu: (x) => ops.silu.real(x, { slope: 1.5 }), erf: (x) => ops.erf.real(x, {}),
  geluErf: (x) => ops.gelu.real(x, { form: 'erf' }), geluTanh: (x) => ops.gelu.real(x, { form: 'tanh' }),
};

describe('the bits of the scalar functions', () => {
  it.each(realFunctions)('%s', (name) => {
    const actual = run(name, xs, 1.5);
    // ∞·0 is the one place where limiting the argument of exp shows; executors refuse infinite data
    xs.forEach((x, i) => (name === 'silu' && !Number.isFinite(x)) || expect([x, actual[i]]).toEqual([x, Math.fround(references[name](x))]));
  });
  it.each(realFunctions)('%s of NaN', (name) => expect(run(name, Float32Array.of(NaN, 1))[0]).toBeNaN());
});

it.each([[1, 1], [3, 2], [5, 7], [2, 100], [4, 33]])('softmax of %d rows of %d, in place', (rows, length) => {
  const data = Float32Array.from({ length: rows * length }, () => 10 * random.normal());
  const heap = new Float32Array(memory.buffer, 0, rows * length + 8);
  heap.fill(99);
  heap.set(data);
  kernels.softmax(0, 0, rows, length, 0.5);
  for (let at = 0; at < data.length; at += length) {
    const row = [...data.subarray(at, at + length)].map((x) => 0.5 * x);
    const powers = row.map((x) => exp(x - Math.max(...row)));
    const total = powers.reduce((sum, x) => sum + x);
    powers.forEach((x, i) => expect(Math.abs(heap[at + i] - x / total)).toBeLessThan(2e-7 * (x / total) + 1e-45));
  }
  expect(heap[rows * length]).toBe(99);
});
