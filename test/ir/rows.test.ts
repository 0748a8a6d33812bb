/** Softmax, attention, layer norm and tables against real arithmetic: the stated errors in steps of the output. */
import { describe, expect, it } from 'vitest';
import { Builder } from '../../src/ir/build.ts';
import { allocate, type IntegerDType } from '../../src/ir/dtype.ts';
import { evaluateGraph } from '../../src/ir/evaluate.ts';
import type { Graph, Value } from '../../src/ir/graph.ts';
import { attentionInt, layerNormInt, softmax } from '../../src/ir/ops/kernel-normalize.ts';
import { table, tableInterpolated } from '../../src/ir/ops/kernel-table.ts';
import { perTensor } from '../../src/ir/quant.ts';
import { tensor, tensorType, type Tensor } from '../../src/ir/type.ts';
import { verify } from '../../src/ir/verify.ts';
import { chooseAttention, chooseLayerNorm, chooseSoftmax, expTable } from '../../src/numerics/choose-normalize.ts';
import { createRandom } from '../../src/numerics/random.ts';

const codes = (dtype: IntegerDType, shape: readonly number[], values: ArrayLike<number>): Tensor => {
  const data = allocate(dtype, values.length);
  (data as Int32Array).set(values);
  return tensor(tensorType(dtype, shape), data);
};
const constant = (b: Builder, name: string, dtype: IntegerDType, values: ArrayLike<number> | BigInt64Array): Value =>
  b.constant(name, values instanceof BigInt64Array
    ? tensor(tensorType('i64', [values.length]), values) : codes(dtype, [values.length], values as ArrayLike<number>));
const run = (graph: Graph, inputs: Record<string, Tensor>): readonly number[] => {
  expect(verify(graph)).toEqual([]);
  return Array.from([...evaluateGraph(graph, inputs).values()][0].data as Int32Array);
};
const normals = (count: number, deviation: number, seed: number, [low, high]: readonly [number, number] = [-128, 127]): number[] => {
  const source = createRandom(seed);
  return Array.from({ length: count }, () => Math.min(high, Math.max(low, Math.round(source.normal() * deviation))));
};
const greatestError = (reals: readonly number[], found: readonly number[], low: number, high: number): number =>
  Math.max(...reals.map((real, i) => Math.abs(Math.min(high, Math.max(low, real)) - found[i])));
/** How many codes differ from rounding the real numbers half up. */
const misrounded = (reals: readonly number[], found: readonly number[], low: number, high: number): number =>
  reals.filter((real, i) => Math.min(high, Math.max(low, Math.floor(real + 0.5))) !== found[i]).length / reals.length;

describe('table', () => {
  it('of GELU at scale 0.05 is exact', () => {
    const erf = (x: number): number => {
      // Maclaurin series; |x| < 5 here
      let [sum, term] = [0, x];
      for (let n = 0; n < 200; n++, term *= -(x * x) / n) sum += term / (2 * n + 1);
      return sum * 2 / Math.sqrt(Math.PI);
    };
    const gelu = (x: number): number => 0.5 * x * (1 + erf(x / Math.SQRT2));
    const values = Array.from({ length: 256 }, (_, i) => Math.min(127, Math.max(-128, Math.floor(gelu(0.05 * (i - 128)) / 0.05 + 0.5))));
    const b = new Builder();
    const x = b.input('x', tensorType('i8', [12]));
    const graph = b.finish('kernel', 'gelu', [{ name: 'y', value: b.emit(table, { x, values: constant(b, 'gelu', 'i8', values) }) }]);
    const inputs = [-128, -60, -40, -20, -10, -1, 0, 1, 10, 20, 60, 127];
    expect(run(graph, { x: codes('i8', [12], inputs) })).toEqual([0, 0, -1, -3, -3, 0, 0, 1, 7, 17, 60, 127]);
  });

  it('interpolated, of a sigmoid on [-8, 8], is off by at most 1.3 steps of 16 bits', () => {
    const sigmoid = (code: number): number => 32767 / (1 + Math.exp((-8 * code) / 32768));
    const b = new Builder();
    const x = b.input('x', tensorType('i16', [8192]));
    const knots = constant(b, 'knots', 'i16', Array.from({ length: 513 }, (_, i) => Math.floor(sigmoid(i * 128 - 32768) + 0.5)));
    const graph = b.finish('kernel', 'sigmoid', [{ name: 'y', value: b.emit(tableInterpolated, { x, values: knots }) }]);
    const inputs = Array.from({ length: 8192 }, (_, i) => i * 8 - 32768);
    expect(greatestError(inputs.map(sigmoid), run(graph, { x: codes('i16', [8192], inputs) }), -32768, 32767)).toBeLessThan(1.3);
  });
});

describe('softmax', () => {
  it.each([
    ['i8', 8, 197, 1 / 65536, 65535, 'u16', 0.51], ['i16', 16, 197, 1 / 65536, 65535, 'u16', 0.51],
    ['i8', 8, 10, 1 / 255, 255, 'u8', 0.501], ['i16', 16, 1000, 1 / 32767, 32767, 'i16', 0.51],
  ] as const)('of %s, %i bits, %i entries, to steps of %f', (dtype, bits, length, scaleOut, high, to, limit) => {
    const scaleIn = bits === 8 ? 0.05 : 0.05 / 256;
    const rows = 8;
    const range = bits === 8 ? [-128, 127] as const : [-32768, 32767] as const;
    const inputs = normals(rows * length, bits === 8 ? 40 : 40 * 256, length, range);
    const chosen = chooseSoftmax({ bits, scaleIn, length, scaleOut, zeroOut: 0, low: 0, high })!;
    const b = new Builder();
    const x = b.input('x', tensorType(dtype, [rows, length]));
    const graph = b.finish('kernel', 'softmax', [{
      name: 'p', value: b.emit(softmax, {
        x, fine: constant(b, 'fine', 'i32', chosen.fine), coarse: chosen.coarse && constant(b, 'coarse', 'i32', chosen.coarse),
      }, { ...chosen.attrs, to }),
    }]);
    const reals = Array.from({ length: rows }, (_, r) => {
      const row = inputs.slice(r * length, (r + 1) * length);
      const e = row.map((code) => Math.exp(scaleIn * (code - Math.max(...row))));
      const sum = e.reduce((a, c) => a + c);
      return e.map((value) => value / sum / scaleOut);
    }).flat();
    expect(greatestError(reals, run(graph, { x: codes(dtype, [rows, length], inputs) }), 0, high)).toBeLessThan(limit);
  });
});

describe('attention_int', () => {
  const heads = 2, depth = 64, keys = 197, queries = 20;
  const [scaleQ, scaleK, scaleV, scaleOut, logitScale] = [0.05, 0.05, 0.02, 0.015, 0.125];
  const q = normals(queries * heads * depth, 30, 1), k = normals(keys * heads * depth, 30, 2), v = normals(keys * heads * depth, 40, 3);
  const real = (allowed: (t: number, j: number) => boolean): number[] => {
    const out: number[] = [];
    for (let t = 0; t < queries; t++) for (let h = 0; h < heads; h++) {
      const logits = Array.from({ length: keys }, (_, j) => {
        let dot = 0;
        for (let d = 0; d < depth; d++) dot += q[(t * heads + h) * depth + d] * k[(j * heads + h) * depth + d];
        return allowed(t, j) ? dot * scaleQ * scaleK * logitScale : -Infinity;
      });
      const e = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
      const sum = e.reduce((a, b) => a + b);
      for (let d = 0; d < depth; d++) out.push(e.reduce((total, weight, j) => total + weight * v[(j * heads + h) * depth + d], 0) * scaleV / sum / scaleOut);
    }
    return out;
  };
  const build = (masked: boolean): Graph => {
    const chosen = chooseAttention({
      scaleQ, scaleK, scaleV, logitScale, depth, keys, magnitudeQ: 128, magnitudeK: 128, magnitudeV: 128, scaleOut, zeroOut: 5, low: -128, high: 127,
    })!;
    const b = new Builder();
    const input = (name: string, rows: number): Value => b.input(name, tensorType('i8', [1, rows, heads * depth]));
    const staircase = Array.from({ length: queries * keys }, (_, i) => Number(i % keys <= Math.floor(i / keys) * 9));
    const mask = masked ? b.constant('mask', codes('bool', [queries, keys], staircase)) : null;
    const exp = constant(b, 'exp', 'i16', chosen.exp);
    const value = b.emit(attentionInt, { q: input('q', queries), k: input('k', keys), v: input('v', keys), mask, exp }, { heads, ...chosen.attrs });
    return b.finish('kernel', 'attention', [{ name: 'y', value }]);
  };
  const inputs = { q: codes('i8', [1, queries, heads * depth], q), k: codes('i8', [1, keys, heads * depth], k), v: codes('i8', [1, keys, heads * depth], v) };

  it('is off by at most 0.55 steps and rounds at most 2 % differently', () => {
    const [reals, found] = [real(() => true).map((y) => y + 5), run(build(false), inputs)];
    expect(greatestError(reals, found, -128, 127)).toBeLessThan(0.55);
    expect(misrounded(reals, found, -128, 127)).toBeLessThan(0.02);
  });

  it('leaves masked keys out, also from the maximum', () => {
    const reals = real((t, j) => j <= t * 9).map((y) => y + 5);
    expect(greatestError(reals, run(build(true), inputs), -128, 127)).toBeLessThan(0.55);
  });

  it('drops bits of the exponentials where many keys would overflow', () => {
    const request = { scaleQ, scaleK, scaleV, logitScale, depth, magnitudeQ: 128, magnitudeK: 128, magnitudeV: 128, scaleOut, zeroOut: 0, low: -128, high: 127 };
    expect(chooseAttention({ ...request, keys: 511 })!.attrs.eShift).toBe(0);
    expect(chooseAttention({ ...request, keys: 4096 })!.attrs.eShift).toBe(3);
  });

  it('reads exponentials from one table', () => {
    const table = expTable();
    expect([table.length, table[0], table[256], table[2815]]).toEqual([2816, 32767, Math.round(32767 / Math.E), 0]);
  });
});

describe('layer_norm_int', () => {
  it.each([
    [192, 30, 'i8', 0.502], [768, 3, 'i8', 0.502], [64, 30, 'i16', 0.51],
  ] as const)('of %i channels with deviation %i to %s', (channels, deviation, to, limit) => {
    const rows = 50;
    const source = createRandom(5);
    const gamma = Array.from({ length: channels }, () => 1 + source.normal() / 3 - 2 * Number(source.uniform() < 0.1));
    const beta = Array.from({ length: channels }, () => source.normal() / 3);
    const [low, high] = to === 'i8' ? [-128, 127] : [-32768, 32767];
    const [scaleIn, scaleOut, zeroOut, epsilon] = [0.05, to === 'i8' ? 0.03 : 0.0001, to === 'i8' ? -4 : 0, 1e-6];
    const inputs = normals(rows * channels, deviation, channels);
    const chosen = chooseLayerNorm({ gamma, beta, epsilon, scaleIn, channels, spanIn: 255, scaleOut, zeroOut, low, high })!;
    const b = new Builder();
    const x = b.input('x', tensorType('i8', [rows, channels], perTensor('i8', scaleIn, 11)));
    const value = b.emit(layerNormInt, { x, mul: constant(b, 'mul', 'i32', chosen.mul), add: constant(b, 'add', 'i64', chosen.add) }, chosen.attrs);
    const found = run(b.finish('kernel', 'norm', [{ name: 'y', value }]), { x: codes('i8', [rows, channels], inputs) });
    const reals = Array.from({ length: rows }, (_, r) => {
      const row = inputs.slice(r * channels, (r + 1) * channels).map((code) => code * scaleIn);
      const mean = row.reduce((a, c) => a + c) / channels;
      const variance = row.reduce((a, c) => a + (c - mean) ** 2, 0) / channels;
      return row.map((value, c) => ((value - mean) / Math.sqrt(variance + epsilon) * gamma[c] + beta[c]) / scaleOut + zeroOut);
    }).flat();
    expect(greatestError(reals, found, low, high)).toBeLessThan(limit);
    expect(misrounded(reals, found, low, high)).toBeLessThan(to === 'i8' ? 0.001 : 0.01);
  });

  it('gives the offsets for a row without deviation', () => {
    const chosen = chooseLayerNorm({
      gamma: [1, 1], beta: [0.3, -0.3], epsilon: 1e-5, scaleIn: 0.1, channels: 2, spanIn: 255, scaleOut: 0.1, zeroOut: 1, low: -128, high: 127,
    })!;
    const b = new Builder();
    const x = b.input('x', tensorType('i8', [1, 2]));
    const value = b.emit(layerNormInt, { x, mul: constant(b, 'mul', 'i32', chosen.mul), add: constant(b, 'add', 'i64', chosen.add) }, chosen.attrs);
    expect(run(b.finish('kernel', 'norm', [{ name: 'y', value }]), { x: codes('i8', [1, 2], [99, 99]) })).toEqual([4, -2]);
  });
});
