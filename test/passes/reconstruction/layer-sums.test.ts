/** What fit-weights collects: rows times weights give the layer, and the sums are the centred moments. */
import { describe, expect, it } from 'vitest';
import { createExecutor } from '../../../src/calibration/executor.ts';
import { evaluateGraph } from '../../../src/ir/evaluate.ts';
import type { Graph, Value } from '../../../src/ir/graph.ts';
import { parseGraph } from '../../../src/ir/parse.ts';
import { tensor } from '../../../src/ir/type.ts';
import { quadraticForm } from '../../../src/numerics/quadratic-form.ts';
import { createRandom } from '../../../src/numerics/random.ts';
import { layerRows, readTheSame, rowProducts } from '../../../src/passes/reconstruction/layer-rows.ts';
import { chosenDamping, type Rounding } from '../../../src/passes/reconstruction/chosen-damping.ts';
import { layerSums } from '../../../src/passes/reconstruction/layer-sums.ts';

const random = createRandom(5);
const normals = (length: number): Float32Array => Float32Array.from({ length }, () => random.normal());

describe('rows of a layer', () => {
  it.each([
    ['linear', '%y = linear(%x, %w) : f32[3, 4]', 'f32[3, 6]', 'f32[4, 6]'],
    ['padded and strided', '%y = conv(%x, %w) {strides: [2, 1], pads: [1, 1, 0, 2]} : f32[1, 2, 5, 4]', 'f32[1, 5, 4, 2]', 'f32[4, 3, 3, 2]'],
    ['dilated, in groups', '%y = conv(%x, %w) {dilations: [2, 2], group: 2} : f32[1, 3, 2, 6]', 'f32[1, 5, 4, 4]', 'f32[6, 2, 2, 2]'],
    ['depthwise', '%y = conv(%x, %w) {pads: [1, 1, 1, 1], group: 3} : f32[1, 4, 4, 3]', 'f32[1, 4, 4, 3]', 'f32[3, 3, 3, 1]'],
  ])('%s', (_, layer, x, w) => {
    const graph = parseGraph(`graph @g : float (%x: ${x}) -> (%y) {\n  %w = const random(seed: 3) : ${w}\n  ${layer}\n}\n`);
    const node = graph.nodes[0];
    const { groups, depth, outputs, positions, gather } = layerRows(node);
    const input = tensor(graph.inputs[0].type, normals(graph.inputs[0].type.shape.reduce<number>((product, n) => product * (n as number), 1)));
    const weights = (node.inputs['weight'] as Value).def as unknown as { readonly tensor: { readonly data: Float32Array } };
    const expected = evaluateGraph(graph, { x: input }).get('y')!.data as Float32Array;
    const rows = new Float32Array(positions * depth);
    for (let g = 0; g < groups; g++) {
      gather(input.data as Float32Array, g, Int32Array.from({ length: positions }, (_value, p) => p), rows);
      for (let p = 0; p < positions; p++) for (let o = 0; o < outputs; o++) {
        let sum = 0;
        for (let k = 0; k < depth; k++) sum += rows[p * depth + k] * weights.tensor.data[(g * outputs + o) * depth + k];
        expect(sum).toBeCloseTo(expected[(p * groups + g) * outputs + o], 4);
      }
    }
  });
});

describe('products of some rows', () => {
  it.each([
    ['linear with a bias', '%b = const random(seed: 4) : f32[40]\n  %y = linear(%x, %w, %b) : f32[50, 40]', 'f32[50, 70]', 'f32[40, 70]'],
    ['a padded window', '%y = conv(%x, %w) {strides: [2, 1], pads: [1, 1, 1, 1]} : f32[1, 6, 12, 24]', 'f32[1, 12, 12, 20]', 'f32[24, 3, 3, 20]'],
    ['a spread window', '%y = conv(%x, %w) {dilations: [2, 2]} : f32[1, 8, 8, 9]', 'f32[1, 12, 12, 20]', 'f32[9, 3, 3, 20]'],
  ])('have the bits of the whole layer: %s', (_, layer, x, w) => {
    const graph = parseGraph(`graph @g : float (%x: ${x}) -> (%y) {\n  %w = const random(seed: 3) : ${w}\n  ${layer}\n}\n`);
    const [node, type] = [graph.nodes[0], graph.inputs[0].type];
    const rows = layerRows(node);
    const input = tensor(type, normals(type.shape.reduce<number>((product, n) => product * (n as number), 1)));
    const whole = createExecutor(graph as Graph<'float'>).run({ x: input })['y'].data;
    const chosen = Int32Array.from({ length: 7 }, (_value, k) => Math.floor(((k + 0.5) * rows.positions) / 7));
    const some = new Float32Array(chosen.length * rows.depth);
    rows.gather(input.data as Float32Array, 0, chosen, some);
    const found = rowProducts(node, rows, chosen.length)(some);
    chosen.forEach((p, k) => {
      for (let o = 0; o < rows.outputs; o++) expect(found[k * rows.outputs + o]).toBe(whole[p * rows.outputs + o]);
    });
  });

  it('queries and keys read the same rows, another window does not', () => {
    const graph = parseGraph(`graph @g : float (%x: f32[1, 6, 6, 4]) -> (%q, %k, %s, %z) {
  %w = const random(seed: 1) : f32[3, 3, 3, 4]
  %v = const random(seed: 2) : f32[5, 3, 3, 4]
  %q = conv(%x, %w) : f32[1, 4, 4, 3]
  %k = conv(%x, %v) : f32[1, 4, 4, 5]
  %s = conv(%x, %v) {strides: [2, 2]} : f32[1, 2, 2, 5]
  %r = relu(%x) : f32[1, 6, 6, 4]
  %z = conv(%r, %v) : f32[1, 4, 4, 5]
}
`);
    const [query, key, strided, , other] = graph.nodes;
    expect([key, strided, other].map((node) => readTheSame(query, node))).toEqual([true, false, false]);
  });
});

describe('sums', () => {
  it('beside those of another layer have the bits of sums of their own', () => {
    const depth = 40;
    const blocks = [0, 1, 0].map((part) => ({ part, x: normals(30 * depth), first: normals(30 * 3), second: normals(30 * 5) }));
    const [one, alone] = [layerSums(depth, 3, 2), layerSums(depth, 5, 2)];
    for (const { part, x, first, second } of blocks) { one.add(x, first, part); alone.add(x, second, part); }
    const beside = one.beside(5);
    for (const { part, x, second } of blocks) beside.add(x, second, part);
    for (const part of [undefined, 0, 1]) {
      expect(beside.covariance(part)).toEqual(alone.covariance(part));
      expect(beside.cross(part)).toEqual(alone.cross(part));
    }
    expect(beside.rows).toBe(alone.rows);
    expect(beside.form(0.1).solve(beside.cross())).toEqual(quadraticForm(alone.covariance(), depth, 0.1).solve(alone.cross()));
  });

  it('are centred, also where the mean is large beside the spread', () => {
    const [depth, outputs, rows] = [5, 2, 300];
    const [x, r] = [normals(rows * depth).map((value, i) => 100 + (i % depth) + value), normals(rows * outputs)];
    const sums = layerSums(depth, outputs);
    sums.add(x.subarray(0, 100 * depth), r.subarray(0, 100 * outputs));
    sums.add(x.subarray(100 * depth), r.subarray(100 * outputs));
    const mean = (data: Float32Array, width: number, k: number): number => data.reduce((sum, value, i) => sum + (i % width === k ? value / rows : 0), 0);
    const moment = (a: Float32Array, i: number, wide: number, b: Float32Array, j: number, width: number): number => {
      const [p, q] = [mean(a, wide, i), mean(b, width, j)];
      return Array.from({ length: rows }, (_, row) => (a[row * wide + i] - p) * (b[row * width + j] - q)).reduce((sum, value) => sum + value, 0);
    };
    const [covariance, cross] = [sums.covariance(), sums.cross()];
    for (let i = 0; i < depth; i++) for (let j = 0; j < depth; j++) expect(covariance[i * depth + j]).toBeCloseTo(moment(x, i, depth, x, j, depth), 1);
    for (let o = 0; o < outputs; o++) for (let k = 0; k < depth; k++) expect(cross[o * depth + k]).toBeCloseTo(moment(r, o, outputs, x, k, depth), 1);
    expect(sums.rows).toBe(rows);
  });

  it('regression towards what a layer misses: w = 2 becomes 1.88', () => {
    // x = 1, -0.5, 2.5 and y = 2.2, -0.8, 4.6, without a bias
    const missing = [2.2 - 2, -0.8 + 1, 4.6 - 5];
    const cross = missing[0] * 1 + missing[1] * -0.5 + missing[2] * 2.5;
    expect(2 + quadraticForm(Float64Array.of(7.5), 1, 1e-9).solve(Float64Array.of(cross))[0]).toBeCloseTo(1.88, 6);
  });
});


describe('damping', () => {
  const [depth, rows] = [6, 400];
  const sumsWith = (missing: (x: Float32Array, part: number) => number) => {
    const sums = layerSums(depth, 1, 2);
    for (const part of [0, 1]) {
      const x = normals(rows * depth);
      sums.add(x, Float32Array.from({ length: rows }, (_, i) => missing(x.subarray(i * depth, (i + 1) * depth), part)), part);
    }
    return sums;
  };

  const weights = new Float64Array(depth);
  const unrounded: Rounding = (_, row) => row;

  it('is small where both halves miss the same', () => {
    expect(chosenDamping([{ sums: sumsWith(([first, second]) => 0.5 * first - second), real: weights }], depth, 1, unrounded)).toEqual({ share: 0.001, regression: true });
  });

  it('is the greatest where all cost the same, next to what rounding costs', () => {
    const alike = [{ sums: sumsWith(([first]) => 0.01 * first), real: new Float64Array(depth).fill(0.4) }];
    expect(chosenDamping(alike, depth, 1, (_, row) => row.map(Math.round)).share).toBe(1);
  });

  it('regression stands aside where the halves miss opposite things', () => {
    expect(chosenDamping([{ sums: sumsWith(([first], part) => (part === 0 ? first : -first)), real: weights }], depth, 1, unrounded).regression).toBe(false);
  });

  it('regression stands aside where rounding takes away all that it gains', () => {
    expect(chosenDamping([{ sums: sumsWith(([first]) => 0.4 * first), real: weights }], depth, 1, (_, row) => row.map(Math.round)).regression).toBe(false);
    expect(chosenDamping([{ sums: sumsWith(([first]) => first), real: weights }], depth, 1, (_, row) => row.map(Math.round)).regression).toBe(true);
  });

  it('sums of parts add up to those of all', () => {
    const sums = layerSums(depth, 2, 2);
    const whole = layerSums(depth, 2);
    for (const part of [0, 1, 0]) {
      const [x, r] = [normals(50 * depth), normals(50 * 2)];
      sums.add(x, r, part);
      whole.add(x, r);
    }
    sums.covariance().forEach((value, i) => expect(value).toBeCloseTo(whole.covariance()[i], 3));
    sums.cross().forEach((value, i) => expect(value).toBeCloseTo(whole.cross()[i], 3));
    expect([sums.rowsOf(0), sums.rowsOf(1), sums.rows]).toEqual([100, 50, 150]);
  });
});
