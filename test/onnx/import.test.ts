/** What the importer makes of forms that the models of the differential test do not have. */
import { describe, expect, test } from 'vitest';
import { bindSymbols } from '../../src/ir/bind-symbols.ts';
import { printShape } from '../../src/ir/dim.ts';
import { evaluateGraph } from '../../src/ir/evaluate.ts';
import { constantOf, type Graph } from '../../src/ir/graph.ts';
import { tensorType, type Tensor } from '../../src/ir/type.ts';
import { importModel, type ImportOptions } from '../../src/onnx/import.ts';
import type { TensorProto } from '../../src/onnx/schema.ts';
import { floats, ints, model, node, noise, value, type ModelParts } from './build.ts';
import { histogramOf } from './models.ts';

const graphOf = (parts: ModelParts, options: ImportOptions = {}): Graph<'float'> => importModel(model(parts), options).graph;
const shapeOf = (graph: Graph): string => printShape(graph.outputs[0].value.type.shape);
const tensorOf = (shape: readonly number[], data: readonly number[]): Tensor => ({ type: tensorType('f32', shape), data: Float32Array.from(data) });
const run = (graph: Graph, inputs: Readonly<Record<string, Tensor>>): readonly number[] =>
  Array.from([...evaluateGraph(graph, inputs).values()][0].data, Number);
const message = (act: () => unknown): string => {
  try { act(); } catch (cause) { return (cause as Error).message; }
  return 'no error';
};

describe('symbolic sizes', () => {
  const flattened: ModelParts = {
    inputs: [value('x', ['N', 3, 'H', 4])], outputs: ['y'],
    tensors: [ints('zero', [0], []), ints('minus', [-1]), ints('twelve', [12]), ints('axes', [0]), ints('two', [2], [])],
    nodes: [
      node('Shape', ['x'], ['s']), node('Gather', ['s', 'zero'], ['n']), node('Gather', ['s', 'two'], ['h']), node('Unsqueeze', ['n', 'axes'], ['n1']),
      node('Unsqueeze', ['h', 'axes'], ['h1']), node('Mul', ['h1', 'twelve'], ['rest']), node('Concat', ['n1', 'rest'], ['target'], { axis: 0 }),
      node('Reshape', ['x', 'target'], ['y']),
    ],
  };
  test('shape arithmetic leaves no nodes', () => {
    const graph = graphOf(flattened);
    expect(histogramOf(graph)).toBe('reshape 1');
    expect(shapeOf(graph)).toBe('N, 12*H');
  });
  test('are bound at import and afterwards', () => {
    expect(shapeOf(graphOf(flattened, { dims: { N: 2, H: 5 } }))).toBe('2, 60');
    expect(shapeOf(graphOf(flattened, { shapes: { x: [2, 3, 5, 4] } }))).toBe('2, 60');
    const bound = bindSymbols(graphOf(flattened), new Map([['N', 2]]));
    expect(shapeOf(bound)).toBe('2, 12*H');
    expect(bindSymbols(bound, new Map([['N', 3]]))).toBe(bound);
  });
  test('a binding that the model does not have is refused with what it has', () => {
    expect(message(() => graphOf(flattened, { dims: { B: 2 } }))).toMatch(/no dimension "B"[\s\S]*"N", "H"/);
    expect(message(() => graphOf(flattened, { shapes: { z: [1] } }))).toMatch(/no input "z"[\s\S]*"x"/);
    expect(message(() => graphOf(flattened, { shapes: { x: [1, 4, 5, 4] } }))).toMatch(/declares \[N, 3, H, 4\]/);
  });
  test('what needs a number says which symbol', () => {
    const pooled = { ...flattened, nodes: [node('MaxPool', ['x'], ['y'], { kernel_shape: [2, 2], strides: [2, 2] })] };
    expect(message(() => graphOf(pooled))).toMatch(/H/);
  });
});

describe('cutting', () => {
  const chain: ModelParts = { inputs: [value('x', [1, 4])], outputs: ['y'], nodes: [node('Relu', ['x'], ['a']), node('NonMaxSuppression', ['a'], ['y'])] };
  test('what lies behind the cut is not read', () => expect(histogramOf(graphOf(chain, { cutAt: 'a' }))).toBe('relu 1'));
  test('a value that is not there is named', () => expect(message(() => graphOf(chain, { cutAt: 'b' }))).toMatch(/computes no value "b"[\s\S]*"a"/));
});

describe('constants', () => {
  const constantFrom = (tensor: TensorProto, options: ImportOptions = {}): readonly number[] => {
    const graph = graphOf({ inputs: [value('x', [1])], outputs: ['y'], tensors: [{ ...tensor, name: 'c' }], nodes: [node('Add', ['x', 'c'], ['y'])] }, options);
    const add = graph.nodes[0];
    return Array.from(constantOf(add.inputs['y'] as never)!.data, Number);
  };
  const bytes = (...list: readonly number[]): Uint8Array => Uint8Array.from([99, ...list]).subarray(1);
  test('raw data at any alignment', () => expect(constantFrom({ dims: [1], dataType: 1, rawData: bytes(0, 0, 0x80, 0x3f) })).toEqual([1]));
  test('half precision', () => expect(constantFrom({ dims: [4], dataType: 10, int32Data: [0x3c00, 0xc000, 0x0001, 0x7c00] })).toEqual([1, -2, 2 ** -24, Infinity]));
  test('bfloat16', () => expect(constantFrom({ dims: [2], dataType: 16, rawData: bytes(0x80, 0x3f, 0x00, 0xc0) })).toEqual([1, -2]));
  test('double', () => expect(constantFrom({ dims: [1], dataType: 11, doubleData: [0.1] })).toEqual([Math.fround(0.1)]));
  test('external data', () => {
    const asked: unknown[] = [];
    const externalData = (...request: readonly unknown[]): Uint8Array => { asked.push(request); return bytes(0, 0, 0, 0x40); };
    const entry = (key: string, text: string): { key: string; value: string } => ({ key, value: text });
    const tensor = { dims: [1], dataType: 1, dataLocation: 1, externalData: [entry('location', 'w/data.bin'), entry('offset', '64'), entry('length', '4')] };
    expect(constantFrom(tensor, { externalData })).toEqual([2]);
    expect(asked).toEqual([['w/data.bin', 64, 4]]);
    expect(message(() => constantFrom(tensor))).toMatch(/without its folder/);
  });
  test('packed codes of four bits, low half first', () => {
    const graph = graphOf({
      inputs: [value('x', [1])], outputs: ['y'], tensors: [{ name: 'q', dims: [3], dataType: 22, rawData: bytes(0x8f, 0x07) }, floats('s', [], [0.5])],
      nodes: [node('DequantizeLinear', ['q', 's'], ['w']), node('Add', ['x', 'w'], ['y'])], opset: 21,
    });
    expect(run(graph, { x: tensorOf([1], [0]) })).toEqual([-0.5, -4, 3.5]);
  });
  test('an initializer that is listed as an input is none', () => {
    const graph = graphOf({ inputs: [value('x', [1, 2]), value('w', [2, 2])], outputs: ['y'], tensors: [noise('w', [2, 2])], nodes: [node('MatMul', ['x', 'w'], ['y'])], opset: 8 });
    expect(graph.inputs.map(({ name }) => name)).toEqual(['x']);
  });
});

describe('functions and branches', () => {
  test('a local function is inlined, its attributes by name', () => {
    const graph = graphOf({
      inputs: [value('x', [2])], outputs: ['y'], nodes: [node('Leak', ['x'], ['y'], { slope: { float: 0.5 } }, 'mine')],
      more: {
        opsetImport: [{ domain: '', version: 17 }, { domain: 'mine', version: 1 }],
        functions: [{ name: 'Leak', domain: 'mine', input: ['a'], output: ['b'], attribute: ['slope'], opsetImport: [{ domain: '', version: 17 }],
          node: [{ opType: 'LeakyRelu', input: ['a'], output: ['b'], attribute: [{ name: 'alpha', refAttrName: 'slope', type: 1 }] }] }],
      },
    });
    expect(run(graph, { x: tensorOf([2], [-2, 2]) })).toEqual([-1, 2]);
    expect(graph.nodes[0].site.origins).toEqual(['y_node/b (LeakyRelu)']);
  });
  test('the branch of a known condition takes the place of If', () => {
    const branch = (op: string): object => ({ node: [node(op, ['x'], [`${op}_out`])], output: [{ name: `${op}_out` }] });
    const graph = graphOf({
      inputs: [value('x', [2])], outputs: ['y'], tensors: [ints('two', [2])],
      nodes: [node('Shape', ['x'], ['s']), node('Equal', ['s', 'two'], ['c']), node('If', ['c'], ['y'], { then_branch: { graph: branch('Neg') }, else_branch: { graph: branch('Abs') } })],
    });
    expect(histogramOf(graph)).toBe('neg 1');
  });
});

describe('versions', () => {
  test('softmax before 13 sums over all axes behind its own', () => {
    const parts = { inputs: [value('x', [1, 2, 2])], outputs: ['y'], nodes: [node('Softmax', ['x'], ['y'])] };
    const x = tensorOf([1, 2, 2], [0, 0, 0, 0]);
    expect(run(graphOf({ ...parts, opset: 11 }), { x })).toEqual([0.25, 0.25, 0.25, 0.25]);
    expect(run(graphOf({ ...parts, opset: 13 }), { x })).toEqual([0.5, 0.5, 0.5, 0.5]);
  });
  test('clip takes its limits from attributes before 11, from inputs after', () => {
    const x = tensorOf([2], [-5, 5]);
    const old = graphOf({ inputs: [value('x', [2])], outputs: ['y'], nodes: [node('Clip', ['x'], ['y'], { min: { float: 0 } })], opset: 6 });
    const late = graphOf({ inputs: [value('x', [2])], outputs: ['y'], tensors: [floats('m', [], [1])], nodes: [node('Clip', ['x', '', 'm'], ['y'])] });
    expect(run(old, { x })).toEqual([0, 5]);
    expect(run(late, { x })).toEqual([-5, 1]);
  });
  test('before 7 the second operand may stand at an axis', () => {
    const graph = graphOf({ inputs: [value('x', [1, 2, 2])], outputs: ['y'], tensors: [floats('b', [2], [10, 20])], nodes: [node('Add', ['x', 'b'], ['y'], { broadcast: 1, axis: 1 })], opset: 6 });
    expect(run(graph, { x: tensorOf([1, 2, 2], [1, 2, 3, 4]) })).toEqual([11, 12, 23, 24]);
  });
  test('a newer operator set is imported with a warning', () => {
    const { warnings } = importModel(model({ inputs: [value('x', [1])], outputs: ['y'], nodes: [node('Relu', ['x'], ['y'])], opset: 99 }));
    expect(warnings.map(({ code }) => code)).toEqual(['LB0421']);
  });
  test('an attribute that is not known is reported', () => {
    const { warnings } = importModel(model({ inputs: [value('x', [1])], outputs: ['y'], nodes: [node('Relu', ['x'], ['y'], { slope: 1 })] }));
    expect(warnings[0].message).toMatch(/"slope"/);
  });
});

test('nodes may stand in any order and go without names', () => {
  const graph = graphOf({ inputs: [value('x', [1])], outputs: ['y'], nodes: [{ ...node('Neg', ['a'], ['y']), name: '' }, node('Relu', ['x'], ['a'])] });
  expect(graph.nodes.map(({ op, output, site }) => [op, output.name, site.origins[0]])).toEqual([['relu', 'a', 'a_node (Relu)'], ['neg', 'y', 'y (Neg)']]);
});
test('integer inputs are 32-bit integers of the graph', () => {
  const graph = graphOf({ inputs: [value('t', [1, 2], 'int64')], outputs: ['y'], tensors: [noise('e', [5, 3])], nodes: [node('Gather', ['e', 't'], ['y'])] });
  expect(graph.inputs[0].type.dtype).toBe('i32');
  expect(shapeOf(graph)).toBe('1, 2, 3');
});
