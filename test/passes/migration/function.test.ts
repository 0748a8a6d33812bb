/**
 * Every change of channel coordinates that the classes of a graph allow keeps its function: random graphs, random scales, shifts and
 * orders on every site at once.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Builder } from '../../../src/ir/build.ts';
import { sizeOf } from '../../../src/ir/dim.ts';
import { evaluateGraph } from '../../../src/ir/evaluate.ts';
import type { Graph, Value } from '../../../src/ir/graph.ts';
import {
  add, attention, averagePool, batchNorm, concat, conv, gelu, layerNorm, leakyRelu, linear, matmul, maxPool, mul, pad, reduceMean, reduceSum, relu, reshape,
  rmsNorm, slice, softmax, sub, transpose,
} from '../../../src/ir/ops/index.ts';
import { printGraph } from '../../../src/ir/print.ts';
import { f32, tensor } from '../../../src/ir/type.ts';
import { verify } from '../../../src/ir/verify.ts';
import { createRandom, type Random } from '../../../src/numerics/random.ts';
import { applyChanges } from '../../../src/passes/migration/apply.ts';
import { changeOf, identity, type Change } from '../../../src/passes/migration/change.ts';
import { channelClasses, changesOf, orderChanges } from '../../../src/passes/migration/channel-classes.ts';

const WIDTH = 4;
const TOLERANCE = 2e-4;

/** A graph of images [1, 4, 4, 4] and then tokens, with every op that moves, joins or absorbs channel changes. */
const randomGraph = (random: Random): Graph<'float'> => {
  const b = new Builder();
  const constant = (...shape: number[]): Value =>
    b.constant('c', tensor(f32(...shape), Float32Array.from({ length: sizeOf(shape) }, () => random.normal())));
  const positive = (...shape: number[]): Value =>
    b.constant('c', tensor(f32(...shape), Float32Array.from({ length: sizeOf(shape) }, () => 0.5 + random.uniform())));
  const maybe = (value: Value): Value | null => (random.below(4) === 0 ? null : value);
  const layer = (x: Value): Value => {
    const border = random.below(2);
    const [size, pads] = border === 1 ? [3, [1, 1, 1, 1]] : [1, [0, 0, 0, 0]];
    const group = [1, 1, 2, WIDTH][random.below(4)];
    return b.emit(conv, { x, weight: constant(WIDTH, size, size, WIDTH / group), bias: maybe(constant(WIDTH)) }, { pads, group });
  };
  const images: ((x: Value, other: Value) => Value)[] = [
    layer, layer,
    (x) => b.emit(relu, { x }), (x) => b.emit(leakyRelu, { x }, { alpha: 0.25 }), (x) => b.emit(gelu, { x }),
    (x, y) => b.emit(add, { x, y }), (x, y) => b.emit(sub, { x, y }), (x, y) => b.emit(mul, { x, y }),
    (x) => b.emit(add, { x, y: constant(1, 4, 4, WIDTH) }), (x) => b.emit(sub, { x: constant(WIDTH), y: x }), (x) => b.emit(mul, { x, y: constant(1) }),
    (x) => b.emit(batchNorm, { x, scale: constant(WIDTH), bias: constant(WIDTH), mean: constant(WIDTH), variance: positive(WIDTH) }),
    (x) => b.emit(maxPool, { x }, { kernel: [3, 3], pads: [1, 1, 1, 1] }),
    (x) => b.emit(averagePool, { x }, { kernel: [3, 3], pads: [1, 1, 1, 1], countPad: random.below(2) === 1 }),
    (x) => b.emit(slice, { x: b.emit(concat, { xs: [x, layer(x)] }, { axis: 3 }) }, { axis: 3, start: 2, end: 2 + WIDTH }),
    (x) => b.emit(slice, { x: b.emit(pad, { x }, { pads: [0, 1, 0, 0, 0, 0, 0, 0] }) }, { axis: 1, start: 1, end: 5 }),
    (x) => b.emit(transpose, { x }, { perm: [0, 2, 1, 3] }),
  ];
  const project = (x: Value, outputs: number): Value => b.emit(linear, { x, weight: constant(outputs, WIDTH), bias: maybe(constant(outputs)) });
  const dense = (x: Value): Value => project(x, WIDTH);
  const tokens: ((x: Value, other: Value) => Value)[] = [
    dense, dense, (x) => b.emit(relu, { x }), (x) => b.emit(gelu, { x }),
    (x, y) => b.emit(add, { x, y }), (x, y) => b.emit(mul, { x, y }),
    (x) => b.emit(layerNorm, { x, scale: maybe(constant(WIDTH)), bias: maybe(constant(WIDTH)) }),
    (x) => b.emit(rmsNorm, { x, scale: maybe(constant(WIDTH)) }),
    (x) => b.emit(attention, { q: dense(x), k: dense(x), v: dense(x), mask: null }, { heads: 2, scale: 0.5 }),
    (x) => b.emit(matmul, { a: b.emit(softmax, { x: b.emit(matmul, { a: dense(x), b: dense(x) }, { transposeB: true }) }), b: dense(x) }),
    (x) => b.emit(slice, { x: b.emit(concat, { xs: [constant(1, 1, WIDTH), x] }, { axis: 1 }) }, { axis: 1, start: 0, end: 16 }),
  ];
  const chain = (ops: readonly ((x: Value, other: Value) => Value)[], from: Value): Value => {
    const seen = [from];
    for (let i = 0; i < 8; i++) seen.push(ops[random.below(ops.length)](seen.at(-1)!, seen[random.below(seen.length)]));
    return seen.at(-1)!;
  };
  const image = b.input('x', f32(1, 4, 4, WIDTH));
  const last = chain(images, layer(image));
  const pooled = random.below(2) === 0 ? b.emit(reduceMean, { x: last }, { axes: [1, 2] }) : b.emit(reduceSum, { x: last }, { axes: [1, 2] });
  const flat = b.emit(linear, { x: b.emit(reshape, { x: layer(last) }, { shape: [1, 16 * WIDTH] }), weight: constant(3, 16 * WIDTH), bias: null });
  const sequence = chain(tokens, dense(b.emit(reshape, { x: last }, { shape: [1, 16, WIDTH] })));
  const outputs = [flat, b.emit(linear, { x: pooled, weight: constant(2, WIDTH), bias: null }), project(sequence, 2)];
  return b.finish('float', 'g', outputs.map((value, i) => ({ name: `y${i}`, value })));
};

const randomChanges = (graph: Graph<'float'>, random: Random): { readonly changes: Map<Value, Change>; readonly counts: readonly number[] } => {
  const { scaleSites, shiftSites, orderSites } = channelClasses(graph);
  const changes = new Map<Value, Change>();
  const merge = (more: ReadonlyMap<Value, Change>): void => {
    for (const [value, { scale, shift, order }] of more) {
      const known = changes.get(value) ?? identity;
      changes.set(value, changeOf({ scale: scale ?? known.scale, shift: shift ?? known.shift, order: order ?? known.order }));
    }
  };
  // powers of two keep the comparison free of rounding; the rest of the noise is that of other orders of summation
  for (const site of scaleSites) merge(changesOf(site, Float64Array.from({ length: site.size }, () => 2 ** (random.below(5) - 2)), null));
  for (const site of shiftSites) merge(changesOf(site, null, Float64Array.from({ length: site.size }, () => random.normal())));
  for (const site of orderSites) {
    const size = site.channels / site.blocks;
    const order = Array.from({ length: site.blocks }, (_, block) => random.shuffle(Array.from({ length: size }, (_, i) => block * size + i))).flat();
    merge(orderChanges(site, Int32Array.from(order)));
  }
  return { changes, counts: [scaleSites.length, shiftSites.length, orderSites.length] };
};

describe('changes of channel coordinates', () => {
  it('keep the function of random graphs', () => {
    const fired = [0, 0, 0];
    fc.assert(fc.property(fc.nat(2 ** 31), (seed) => {
      const random = createRandom(seed);
      const graph = randomGraph(random);
      expect(verify(graph)).toEqual([]);
      const { changes, counts } = randomChanges(graph, random);
      counts.forEach((count, i) => { fired[i] += count; });
      const after = applyChanges(graph, changes);
      expect(verify(after)).toEqual([]);
      const x = tensor(f32(1, 4, 4, WIDTH), Float32Array.from({ length: 16 * WIDTH }, () => random.normal()));
      const [p, q] = [evaluateGraph(graph, { x }), evaluateGraph(after, { x })];
      for (const [name, { data }] of p) {
        const most = (data as Float32Array).reduce((greatest, y) => Math.max(greatest, Math.abs(y)), 0);
        (data as Float32Array).forEach((y, i) => {
          if (!(Math.abs(y - Number(q.get(name)!.data[i])) <= TOLERANCE * most)) throw new Error(`${name}[${i}]: ${y} became ${q.get(name)!.data[i]}\n${printGraph(graph)}`);
        });
      }
    }), { seed: 7, numRuns: 150 });
    for (const count of fired) expect(count).toBeGreaterThan(100);
  });
});
