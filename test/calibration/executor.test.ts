import { describe, expect, it } from 'vitest';
import { createExecutor, dequantized, quantized, realEvaluator } from '../../src/calibration/executor.ts';
import { Builder } from '../../src/ir/build.ts';
import { sizeOf } from '../../src/ir/dim.ts';
import { constantOf, type Graph, type Node, type Value } from '../../src/ir/graph.ts';
import * as ops from '../../src/ir/ops/index.ts';
import { perChannel, perTensor } from '../../src/ir/quant.ts';
import { f32, realType, tensor, tensorType, type Tensor, type TensorType } from '../../src/ir/type.ts';
import { createRandom } from '../../src/numerics/random.ts';

const random = createRandom(7);
const normal = (...shape: number[]): Tensor => tensor(f32(...shape), Float32Array.from({ length: sizeOf(shape) }, () => random.normal()));
const pick = <T>(items: readonly T[]): T => items[random.below(items.length)];

/** Runs every node by its declaration alone. */
const interpret = (graph: Graph, inputs: Readonly<Record<string, Tensor>>): Map<Value, Tensor> => {
  const known = new Map<Value, Tensor>(graph.inputs.map((input) => [input, inputs[input.name]]));
  const of = (value: Value): Tensor => known.get(value) ?? dequantized(constantOf(value)!);
  for (const node of graph.nodes) {
    const slots = Object.fromEntries(Object.entries(node.inputs).map(([slot, operand]) =>
      [slot, operand === null ? null : Array.isArray(operand) ? operand.map(of) : of(operand as Value)]));
    const real = node.decl.evaluate(slots as never, node.attrs as never, realType(node.output.type));
    known.set(node.output, node.output.type.quant === null ? real : dequantized(quantized(real, node.output.type)));
  }
  return known;
};

/** Largest difference relative to the largest reference magnitude. */
const distance = (actual: Tensor, expected: Tensor): number => {
  expect(actual.type.shape).toEqual(expected.type.shape);
  let [worst, largest] = [0, 1e-30];
  for (let i = 0; i < expected.data.length; i++) {
    worst = Math.max(worst, Math.abs(Number(actual.data[i]) - Number(expected.data[i])));
    largest = Math.max(largest, Math.abs(Number(expected.data[i])));
  }
  return worst / largest;
};

const agree = (graph: Graph<'float'>, bound = 2e-6): void => {
  const inputs = Object.fromEntries(graph.inputs.map(({ name, type }) => [name, normal(...(type.shape as number[]))]));
  const expected = interpret(graph, inputs);
  const executor = createExecutor(graph);
  const seen: string[] = [];
  const outputs = executor.run(inputs, (value, actual) => {
    seen.push(value.name);
    expect([value.name, distance(actual, expected.get(value)!) < bound]).toEqual([value.name, true]);
  });
  expect(seen).toEqual([...graph.inputs, ...graph.nodes.map(({ output }) => output)].map(({ name }) => name));
  for (const { name, value } of graph.outputs) expect(distance(outputs[name], expected.get(value)!)).toBeLessThan(bound);
  expect(executor.run(inputs)).toEqual(outputs);
};

const single = (inputs: readonly TensorType[], make: (b: Builder, ...xs: Value[]) => Value): Graph<'float'> => {
  const b = new Builder();
  const values = inputs.map((type, i) => b.input(`x${i}`, type));
  const value = make(b, ...values);
  return b.finish('float', 'g', [{ name: 'y', value }]);
};

describe('convolution', () => {
  const cases = Array.from({ length: 60 }, (_, i) => {
    const group = pick([1, 1, 2, 3]);
    const [kh, kw] = [pick([1, 2, 3, 5]), pick([1, 3, 4])];
    const depth = pick([1, 2, 3, 4, 9]);
    return {
      i, group, kh, kw, depth, outputs: group * pick([1, 2, 5, 8, 12]), batch: pick([1, 1, 2]), height: 5 + random.below(9), width: 4 + random.below(9),
      strides: [pick([1, 1, 2]), pick([1, 1, 2, 3])], dilations: [pick([1, 1, 2]), pick([1, 1, 2])], bias: pick([true, false]),
      pads: [0, 1, 2, 3].map(() => pick([0, 1, 2])),
    };
  });
  it.each(cases)('$i: $group groups of $depth to $outputs, $kh×$kw', ({ group, kh, kw, depth, outputs, batch, height, width, strides, dilations, pads, bias }) => {
    const needed = [(kh - 1) * dilations[0] + 1, (kw - 1) * dilations[1] + 1];
    agree(single([f32(batch, height + needed[0], width + needed[1], depth * group)], (b, x) => b.emit(ops.conv, {
      x, weight: b.constant('w', normal(outputs, kh, kw, depth)), bias: bias ? b.constant('b', normal(outputs)) : null,
    }, { group, strides, pads, dilations })));
  });
  it.each([1, 3, 4, 8, 10, 16])('depthwise, %d channels', (channels) => {
    for (const [kh, kw, stride, pad] of [[3, 3, 1, 1], [3, 3, 2, 1], [5, 5, 1, 0], [1, 9, 1, 0]]) {
      agree(single([f32(2, 9, 11, channels)], (b, x) => b.emit(ops.conv, {
        x, weight: b.constant('w', normal(channels, kh, kw, 1)), bias: b.constant('b', normal(channels)),
      }, { group: channels, strides: [stride, stride], pads: [pad, pad, pad, pad] })));
    }
  });
  it('a computed weight', () => agree(single([f32(1, 6, 6, 3), f32(4, 3, 3, 3)], (b, x, weight) => b.emit(ops.conv, { x, weight, bias: null }))));
});

describe('products', () => {
  it.each([[1, 1, 1], [1, 5, 7], [3, 8, 8], [7, 64, 17], [13, 33, 40], [197, 48, 100]])('linear %d×%d×%d', (rows, depth, outputs) => agree(
    single([f32(2, rows, depth)], (b, x) => b.emit(ops.linear, { x, weight: b.constant('w', normal(outputs, depth)), bias: b.constant('b', normal(outputs)) }))));
  it.each([true, false])('matmul with broadcast batches, transposed: %s', (transposeB) => agree(
    single([f32(3, 1, 5, 9), transposeB ? f32(2, 11, 9) : f32(2, 9, 11)], (b, x, y) => b.emit(ops.matmul, { a: x, b: y }, { transposeB }))));
  it('matmul by a constant', () => agree(single([f32(4, 9)], (b, x) => b.emit(ops.matmul, { a: x, b: b.constant('w', normal(9, 3)) }))));
  it.each([true, false])('attention, masked: %s', (masked) => agree(single([f32(2, 7, 12), f32(2, 7, 12), f32(2, 7, 15)], (b, q, k, v) => b.emit(ops.attention, {
    q, k, v, mask: masked ? b.constant('m', tensor(tensorType('bool', [7, 7]), Uint8Array.from({ length: 49 }, (_, i) => Number(i % 7 <= Math.floor(i / 7))))) : null,
  }, { heads: 3, scale: 0.5 }))));
});

describe('elementwise', () => {
  const attrs: Readonly<Record<string, object>> = { pow: { exponent: 2 }, clip: { low: -1, high: 2 } };
  it.each(ops.unaryOps.filter(({ name }) => name !== 'log' && name !== 'sqrt').map((op) => [op.name, op] as const))('%s', (name, op) =>
    agree(single([f32(2, 5, 7)], (b, x) => b.emit(op as never, { x } as never, attrs[name] ?? {}))));
  const shapes: readonly (readonly [number[], number[]])[] = [
    [[2, 3, 5], [2, 3, 5]], [[2, 3, 5], [5]], [[5], [2, 3, 5]], [[2, 3, 5], [3, 5]], [[2, 3, 5], [1, 1, 1]], [[2, 3, 5], [2, 1, 5]], [[2, 3, 1], [1, 5]], [[], [4]], [[], []],
  ];
  it.each(ops.binaryOps.map((op) => [op.name, op] as const))('%s', (_, op) => {
    for (const [a, c] of shapes) {
      agree(single([f32(...a), f32(...c)], (b, x, y) => b.emit(op, { x, y })), 1e-4);
      agree(single([f32(...a)], (b, x) => b.emit(op, { x, y: b.constant('c', normal(...c)) })));
      agree(single([f32(...c)], (b, y) => b.emit(op, { x: b.constant('c', normal(...a)), y })), 1e-4);
    }
  });
});

describe('rows and shapes', () => {
  it.each([-1, 0, 1])('softmax over axis %d', (axis) => agree(single([f32(3, 4, 5)], (b, x) => b.emit(ops.softmax, { x }, { axis }))));
  it('normalisation', () => {
    const constant = (b: Builder): Value => b.constant('c', normal(6));
    agree(single([f32(3, 6)], (b, x) => b.emit(ops.layerNorm, { x, scale: constant(b), bias: constant(b) })));
    agree(single([f32(3, 6)], (b, x) => b.emit(ops.rmsNorm, { x, scale: constant(b) })));
    agree(single([f32(3, 6)], (b, x) => b.emit(ops.batchNorm, { x, scale: constant(b), bias: constant(b), mean: constant(b), variance: b.constant('v', tensor(f32(6), Float32Array.of(1, 2, 3, 4, 5, 6))) })));
  });
  it.each([[[1, 2]], [[0]], [[-1]], [[0, 2]], [[0, 1, 2]]])('reductions over %j', (axes) => {
    for (const op of [ops.reduceMean, ops.reduceSum, ops.reduceMax]) agree(single([f32(3, 4, 5)], (b, x) => b.emit(op, { x }, { axes, keepDims: true })));
  });
  it('moving elements', () => {
    for (const perm of [[2, 0, 1], [0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 1, 0]]) agree(single([f32(2, 3, 4)], (b, x) => b.emit(ops.transpose, { x }, { perm })));
    agree(single([f32(1, 5, 1, 20)], (b, x) => b.emit(ops.transpose, { x }, { perm: [0, 3, 2, 1] })));
    agree(single([f32(4, 5, 20)], (b, x) => b.emit(ops.slice, { x }, { axis: 1, start: 1, end: 3 })));
    agree(single([f32(4, 5, 20)], (b, x) => b.emit(ops.slice, { x }, { axis: 0, start: 3, end: -1, step: -1 })));
    agree(single([f32()], (b, x) => b.emit(ops.expand, { x }, { shape: [2, 3] })));
    agree(single([f32(2, 3, 4)], (b, x) => b.emit(ops.slice, { x }, { axis: 2, start: 3, end: -1, step: -2 })));
    agree(single([f32(2, 3, 4)], (b, x) => b.emit(ops.reshape, { x: b.emit(ops.reshape, { x }, { shape: [6, 4] }) }, { shape: [4, 6] })));
    agree(single([f32(1, 3, 1)], (b, x) => b.emit(ops.expand, { x }, { shape: [2, 3, 4] })));
    agree(single([f32(1, 3), f32(2, 3)], (b, x, y) => b.emit(ops.concat, { xs: [x, y, x] }, { axis: 0 })));
    agree(single([f32(2, 3)], (b, x) => b.emit(ops.pad, { x }, { pads: [1, 0, 0, 2], value: 3 })));
    agree(single([f32(1, 7, 7, 3)], (b, x) => b.emit(ops.maxPool, { x }, { kernel: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] })));
    agree(single([f32(1, 7, 7, 3)], (b, x) => b.emit(ops.averagePool, { x }, { kernel: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] })));
  });
  it('integer inputs', () => {
    const b = new Builder();
    const tokens = b.input('tokens', tensorType('i64', [4]));
    const rows = b.emit(ops.gather, { table: b.constant('table', normal(10, 3)), indices: tokens });
    const graph = b.finish('float', 'g', [{ name: 'rows', value: rows }, { name: 'tokens', value: tokens }]);
    const given = tensor(tensorType('i64', [4]), BigInt64Array.of(9n, 0n, 3n, 3n));
    const outputs = createExecutor(graph).run({ tokens: given });
    expect(outputs['tokens'].data).toEqual(given.data);
    expect(outputs['rows']).toEqual(interpret(graph, { tokens: given }).get(rows));
  });
});

/** A chain with branches: values die at different times, so a wrong reuse of memory shows. */
const randomGraph = (): Graph<'float'> => {
  const b = new Builder();
  const pool: Value[] = [b.input('x', f32(1, 6, 6, 8)), b.input('y', f32(1, 6, 6, 8))];
  for (let n = 0; n < 24; n++) {
    const [x, y] = [pick(pool), pick(pool)];
    const made = pick<() => Value>([
      () => b.emit(ops.add, { x, y }), () => b.emit(ops.mul, { x, y: b.emit(ops.sigmoid, { x: y }) }), () => b.emit(ops.relu, { x }),
      () => b.emit(ops.conv, { x, weight: b.constant('w', normal(8, 3, 3, 8)), bias: null }, { pads: [1, 1, 1, 1] }),
      () => b.emit(ops.conv, { x, weight: b.constant('w', normal(8, 3, 3, 1)), bias: null }, { pads: [1, 1, 1, 1], group: 8 }),
      () => b.emit(ops.layerNorm, { x, scale: null, bias: null }), () => b.emit(ops.hardSwish, { x }),
      () => b.emit(ops.reshape, { x: b.emit(ops.linear, { x: b.emit(ops.reshape, { x }, { shape: [36, 8] }), weight: b.constant('w', normal(8, 8)), bias: null }) }, { shape: [1, 6, 6, 8] }),
      () => b.emit(ops.mul, { x, y: b.constant('c', normal(8)) }), () => b.emit(ops.transpose, { x }, { perm: [0, 2, 1, 3] }),
    ])();
    // keeps numbers near 1, so that differences stay comparable
    pool.push(b.emit(ops.layerNorm, { x: made, scale: null, bias: null }));
  }
  return b.finish('float', 'random', [{ name: 'a', value: pool[pool.length - 1] }, { name: 'b', value: pick(pool) }]);
};
it('random graphs agree with the reference', () => { for (let n = 0; n < 30; n++) agree(randomGraph(), 3e-5); });

describe('quant stage', () => {
  const build = (): { readonly graph: Graph<'quant'>; readonly x: Tensor } => {
    const b = new Builder();
    const x = b.input('x', tensorType('i8', [1, 5, 5, 4], perTensor('i8', 0.05, 3)));
    const weight = quantized(normal(6, 3, 3, 4), tensorType('i8', [6, 3, 3, 4], perChannel([0.01, 0.02, 0.03, 0.02, 0.01, 0.05], 0, [-127, 127])));
    const codes = (shape: number[], scale: number, zero: number): TensorType => tensorType('i8', shape, perTensor('i8', scale, zero));
    const y = b.emit(ops.conv, { x, weight: b.constant('w', weight), bias: b.constant('b', normal(6)) }, { pads: [1, 1, 1, 1] }, { type: codes([1, 5, 5, 6], 0.11, -20) });
    const flat = b.emit(ops.reshape, { x: y }, { shape: [25, 6] }, { type: codes([25, 6], 0.11, -20) });
    const finer = b.emit(ops.quantize, { x: flat }, {}, { type: codes([25, 6], 0.3, 4) });
    const sum = b.emit(ops.add, { x: flat, y: finer }, {}, { type: codes([25, 6], 0.2, 0) });
    const real = b.emit(ops.dequantize, { x: sum });
    const graph = b.finish('quant', 'q', [{ name: 'y', value: b.emit(ops.softmax, { x: real }) }, { name: 'finer', value: finer }]);
    return { graph, x: normal(1, 5, 5, 4) };
  };
  it('dequantises, computes, quantises', () => {
    const { graph, x } = build();
    const rounded = dequantized(quantized(x, graph.inputs[0].type));
    const expected = interpret(graph, { x: rounded });
    const outputs = createExecutor(graph).run({ x }, (value, actual) => {
      if (value.type.quant === null) return;
      // a sum that differs in its last bit may fall to the next code at a tie; here none does
      expect([value.name, actual.data]).toEqual([value.name, (expected.get(value) ?? rounded).data]);
    });
    expect(quantized(outputs['finer'], graph.outputs[1].value.type).data).toEqual(quantized(expected.get(graph.outputs[1].value)!, graph.outputs[1].value.type).data);
  });
  it('takes codes as well as real numbers', () => {
    const { graph, x } = build();
    const executor = createExecutor(graph);
    expect(executor.run({ x: quantized(x, graph.inputs[0].type) })).toEqual(executor.run({ x }));
  });
  it('single nodes, before rounding', () => {
    const { graph, x } = build();
    const rounded = dequantized(quantized(x, graph.inputs[0].type));
    const node = graph.nodes[0] as Node;
    const all = createExecutor(graph);
    let expected: Tensor | null = null;
    all.run({ x }, (value, seen) => { if (value === node.output) expected = { type: seen.type, data: seen.data.slice() }; });
    const before = realEvaluator()(node, () => rounded);
    expect(dequantized(quantized(before, node.output.type)).data).toEqual(expected!.data);
    expect(before.data).not.toEqual(expected!.data);
  });
});

it('names an input that is missing or has the wrong size', () => {
  const graph = single([f32(2, 3)], (b, x) => b.emit(ops.relu, { x }));
  expect(() => createExecutor(graph).run({})).toThrow(/LB0505.*"x0"/s);
  expect(() => createExecutor(graph).run({ x0: normal(2, 2) })).toThrow(/LB0504/);
});
