/** Damaged and hostile models end in a CompileError that says what is wrong, quickly, whatever is damaged. */
import { describe, expect, test } from 'vitest';
import { CompileError } from '../../src/ir/diagnostic.ts';
import { importModel } from '../../src/onnx/import.ts';
import { encodeModel } from '../../src/onnx/protobuf.ts';
import type { ModelProto, NodeProto } from '../../src/onnx/schema.ts';
import { canonicalGraph } from './models.ts';
import { floats, ints, model, node, noise, value, type ModelParts } from './build.ts';

const MUTATIONS = 300;
const MOST_MILLISECONDS = 10_000;

/** A small network with every kind of content: convolution, shape arithmetic, raw and typed data, attributes. */
const sound: ModelParts = {
  inputs: [value('x', ['N', 2, 6, 6])],
  outputs: ['y'],
  tensors: [noise('w', [3, 2, 3, 3]), noise('b', [3]), noise('fc', [48, 4]), ints('minus', [-1]), ints('zero', [0], []), floats('one', [1], [1])],
  nodes: [
    node('Conv', ['x', 'w', 'b'], ['c'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1], strides: [2, 2] }),
    node('Relu', ['c'], ['r']),
    node('Resize', ['r', '', 'scales'], ['u'], { mode: 'nearest', coordinate_transformation_mode: 'asymmetric', nearest_mode: 'floor' }),
    node('MaxPool', ['u'], ['p'], { kernel_shape: [3, 3], strides: [1, 1] }),
    node('Shape', ['p'], ['s']), node('Gather', ['s', 'zero'], ['n'], { axis: 0 }), node('Unsqueeze', ['n', 'axes'], ['n1']),
    node('Concat', ['n1', 'minus'], ['target'], { axis: 0 }), node('Reshape', ['p', 'target'], ['flat']),
    node('MatMul', ['flat', 'fc'], ['m']), node('Softmax', ['m'], ['y'], { axis: -1 }),
  ],
};
const parts: ModelParts = { ...sound, tensors: [...sound.tensors ?? [], floats('scales', [4], [1, 1, 2, 2]), ints('axes', [0])] };

/** The error of an import; fails on anything but success or a CompileError in time. */
const attempt = (source: Uint8Array | object): CompileError | null => {
  const start = performance.now();
  try {
    importModel(source);
    return null;
  } catch (cause) {
    if (!(cause instanceof CompileError)) throw cause;
    expect(cause.kind).not.toBe('internal');
    expect(cause.message).not.toMatch(/\n\s+at .*\.ts:\d+/);
    return cause;
  } finally {
    expect(performance.now() - start).toBeLessThan(MOST_MILLISECONDS);
  }
};
const errorOf = (source: Uint8Array | object): string => attempt(source)?.message ?? 'no error';

const random = (seed: number): (() => number) => {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
};

test('the sound model is imported', () => expect(attempt(encodeModel(model(parts)))).toBeNull());

describe('random damage', () => {
  const bytes = encodeModel(model(parts));
  const kinds: Readonly<Record<string, (r: () => number) => Uint8Array>> = {
    'bit flips': (r) => {
      const copy = bytes.slice();
      for (let n = 0; n <= r() * 4; n++) copy[Math.floor(r() * copy.length)] ^= 1 << Math.floor(r() * 8);
      return copy;
    },
    truncation: (r) => bytes.slice(0, Math.floor(r() * bytes.length)),
    'length bombs': (r) => {
      const copy = bytes.slice();
      const at = Math.floor(r() * (copy.length - 5));
      copy.set([0xff, 0xff, 0xff, 0xff, 0x0f].slice(0, 1 + Math.floor(r() * 5)), at);
      return copy;
    },
    'bytes cut out': (r) => {
      const at = Math.floor(r() * bytes.length);
      return Uint8Array.from([...bytes.slice(0, at), ...bytes.slice(at + 1 + Math.floor(r() * 16))]);
    },
    'bytes put in': (r) => {
      const at = Math.floor(r() * bytes.length);
      return Uint8Array.from([...bytes.slice(0, at), ...Array.from({ length: 1 + Math.floor(r() * 16) }, () => Math.floor(r() * 256)), ...bytes.slice(at)]);
    },
  };
  const per = Math.ceil(MUTATIONS / Object.keys(kinds).length);
  for (const [kind, damage] of Object.entries(kinds)) {
    test(`${kind}: ${per} models`, () => {
      for (let seed = 1; seed <= per; seed++) attempt(damage(random(seed * 7919)));
    });
  }
  test('a damaged model that is imported is cleaned up like any other', async () => {
    let imported = 0;
    for (let seed = 1; seed <= MUTATIONS; seed++) {
      try {
        await canonicalGraph(importModel(kinds['bit flips'](random(seed * 104729))).graph);
        imported++;
      } catch (cause) {
        if (!(cause instanceof CompileError)) throw cause;
      }
    }
    expect(imported).toBeGreaterThan(0);
  });
  test('fields of the message replaced by other values', () => {
    const strange = [-1, 0, 2 ** 31, 2 ** 53 - 1, 2n ** 63n - 1n, 1e9];
    const r = random(5);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(r() * list.length)];
    for (let n = 0; n < 100; n++) {
      const copy = structuredClone(model(parts)) as any;
      const where = pick(['dims', 'attribute', 'input', 'shape', 'type', 'ints']);
      if (where === 'dims') pick<any>(copy.graph.initializer).dims = [pick(strange), pick(strange)];
      else if (where === 'ints') copy.graph.initializer[3].int64Data = [pick(strange)];
      else if (where === 'attribute') { const a = pick<any>(copy.graph.node.flatMap((one: NodeProto) => one.attribute)); if (a.ints) a.ints = [pick(strange), pick(strange), 3, 3]; else a.i = pick(strange); }
      else if (where === 'input') pick<any>(copy.graph.node).input = [pick(['x', 'w', 'y', 'nowhere', 's', 'r'])];
      else if (where === 'shape') copy.graph.input[0].type.tensorType.shape.dim[Math.floor(r() * 4)] = { dimValue: pick(strange) };
      else pick<any>(copy.graph.initializer).dataType = Math.floor(r() * 30);
      attempt(copy);
    }
  });
});

describe('what is wrong is said', () => {
  const broken = (change: Partial<ModelParts>, more: Partial<ModelProto> = {}): string => errorOf(model({ ...parts, ...change, more }));
  const cases: readonly (readonly [string, () => string, RegExp])[] = [
    ['an empty file', () => errorOf(new Uint8Array()), /holds no graph/],
    ['text', () => errorOf(new TextEncoder().encode('<html>not found</html>')), /LB040[12]/],
    ['an unknown op', () => broken({ nodes: [node('Wobble', ['x'], ['y'])] }), /"Wobble" is not supported \(1 node\)[\s\S]*"y_node"/],
    ['all unknown ops at once', () => broken({ nodes: [node('A', ['x'], ['p']), node('A', ['p'], ['q']), node('B', ['q'], ['y'])] }), /"A"[\s\S]*\(2 nodes\)[\s\S]*"B"/],
    ['a cycle', () => broken({ nodes: [node('Add', ['x', 'q'], ['p']), node('Relu', ['p'], ['q']), node('Relu', ['q'], ['y'])] }), /depends on its own result[\s\S]*_node/],
    ['a value computed twice', () => broken({ nodes: [node('Relu', ['x'], ['y']), node('Relu', ['x'], ['y'])] }), /"y" is computed by two nodes/],
    ['two initializers of one name', () => broken({ tensors: [ints('a', [1]), ints('a', [1])] }), /two initializers are called "a"/],
    ['a dangling input', () => broken({ nodes: [node('Relu', ['gone'], ['y'])] }), /"gone" is read but nothing computes it[\s\S]*y_node \(Relu\)/],
    ['a missing output', () => broken({ outputs: ['elsewhere'] }), /nothing computes the output "elsewhere"/],
    ['shapes that do not fit', () => broken({ tensors: [...parts.tensors!.filter(({ name }) => name !== 'w'), noise('w', [3, 5, 3, 3])] }), /conv[\s\S]*does not fit[\s\S]*c_node \(Conv\)/],
    ['a tensor with too few elements', () => broken({ tensors: [floats('w', [3, 2, 3, 3], [1])] }), /tensor "w": 1 elements/],
    ['a tensor of impossible size', () => broken({ tensors: [{ name: 'w', dataType: 1, dims: [2 ** 40, 2 ** 40] }] }), /more than/],
    ['a huge expansion', () => broken({ nodes: [node('ConstantOfShape', ['big'], ['y'])], tensors: [ints('big', [2 ** 20, 2 ** 20])] }), /LB0405[\s\S]*y_node/],
    ['no operator set', () => broken({}, { opsetImport: [] }), /does not name its operator set/],
    ['strings', () => broken({ tensors: [...parts.tensors!.slice(1), { name: 'w', dataType: 8, dims: [1], stringData: [new Uint8Array(1)] }] }), /"string tensor" is not supported/],
    ['a missing attribute', () => broken({ nodes: [node('MaxPool', ['x'], ['y'])] }), /attribute "kernel_shape" is missing/],
    ['an attribute of the wrong type', () => broken({ nodes: [node('MaxPool', ['x'], ['y'], { kernel_shape: 3 })] }), /"kernel_shape" has the wrong type/],
    ['data outside the folder', () => broken({ tensors: [{ name: 'w', dataType: 1, dims: [3, 2, 3, 3], dataLocation: 1, externalData: [{ key: 'location', value: '../secret' }] }] }), /leaves the folder/],
    ['data at an absolute path', () => broken({ tensors: [{ name: 'w', dataType: 1, dims: [3, 2, 3, 3], dataLocation: 1, externalData: [{ key: 'location', value: '/etc/passwd' }] }] }), /leaves the folder/],
    ['a weight that is computed', () => broken({ nodes: [node('Mul', ['x', 'x'], ['v']), node('Conv', ['x', 'v'], ['y'])] }), /weight is computed/],
    ['deep nesting', () => errorOf({ graph: deep(100) }), /nest deeper/],
    ['a function that calls itself', () => broken({ nodes: [node('F', ['x'], ['y'], {}, 'mine')] }, {
      opsetImport: [{ domain: '', version: 17 }, { domain: 'mine', version: 1 }],
      functions: [{ name: 'F', domain: 'mine', input: ['a'], output: ['b'], node: [node('F', ['a'], ['b'], {}, 'mine')] }],
    }), /without end/],
  ];
  for (const [what, run, message] of cases) test(what, () => expect(run()).toMatch(message));

  test('a chain of 20,000 nodes', () => {
    const nodes = Array.from({ length: 20_000 }, (_, i) => node('Relu', [i === 0 ? 'x' : `v${i - 1}`], [`v${i}`]));
    expect(attempt(model({ ...parts, nodes: nodes.reverse(), outputs: ['v19999'] }))).toBeNull();
  });
});

const deep = (levels: number): object =>
  (levels === 0 ? {} : { node: [{ opType: 'If', attribute: [{ name: 'then_branch', type: 5, g: deep(levels - 1) }] }] });
