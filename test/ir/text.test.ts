/** The text form: canonical files stay as they are, and every op, type and name survives the way to text and back. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CompileError } from '../../src/ir/diagnostic.ts';
import { addDims, scaleDim, symbol, type Dim } from '../../src/ir/dim.ts';
import { isDType, rangeOf, type DType, type IntegerDType } from '../../src/ir/dtype.ts';
import { constantOf, constantsOf, type Graph, type Node, type Stage, type Value } from '../../src/ir/graph.ts';
import { random } from '../../src/ir/literal.ts';
import { defineOp, noSite, type AnyOpDef } from '../../src/ir/op.ts';
import { opsOfStage } from '../../src/ir/ops/stages.ts';
import { parseGraph } from '../../src/ir/parse.ts';
import { printGraph } from '../../src/ir/print.ts';
import type { UniformQuant } from '../../src/ir/quant.ts';
import { tensorType, type TensorType } from '../../src/ir/type.ts';
import { verify } from '../../src/ir/verify.ts';
import { WeightStore } from '../../src/ir/weights.ts';
import { casesIn, readCase, withoutComments } from './cases.ts';

const input = (name: string, type: TensorType): Value => ({ name, type, def: { op: 'input' } });
const graphOf = (stage: Stage, inputs: readonly Value[], nodes: readonly Node[], outputs: readonly Value[]): Graph =>
  ({ stage, name: 'g', inputs, nodes, outputs: outputs.map((value) => ({ name: value.name, value })) });
const nodeOf = (decl: AnyOpDef, inputs: Node['inputs'], attrs: Node['attrs'], name: string, type: TensorType): Node => {
  const output = { name, type, def: null as unknown as Node };
  output.def = { op: decl.name, inputs, attrs, decl, output, site: noSite };
  return output.def;
};

/** Everything that text must carry, with names in place of references. */
const contentOf = (graph: Graph): unknown => ({
  stage: graph.stage, name: graph.name, outputs: graph.outputs.map(({ name, value }) => [name, value.name]),
  inputs: graph.inputs.map(({ name, type }) => ({ name, type })),
  constants: constantsOf(graph).map((value) => ({ name: value.name, type: value.type, data: constantOf(value)!.data })),
  nodes: graph.nodes.map(({ op, inputs, attrs, output, site }) => ({
    op, attrs, origins: site.origins, name: output.name, type: output.type,
    inputs: Object.entries(inputs).map(([slot, operand]) => [slot, [operand].flat().map((value) => (value as Value | null)?.name)]),
  })),
});
const expectRoundTrip = (graph: Graph, weights = new WeightStore()): void => {
  const text = printGraph(graph, { weights });
  const back = parseGraph(text, { weights: new WeightStore(weights.bytes()) });
  expect(contentOf(back)).toEqual(contentOf(graph));
  expect(printGraph(back, { weights: new WeightStore() })).toBe(text);
};

describe('canonical texts', () => {
  it.each(casesIn('text'))('%s', (file) => {
    const text = readCase('text', file);
    expect(printGraph(parseGraph(text))).toBe(withoutComments(text));
  });
});

describe('every op', () => {
  const candidates: readonly unknown[] = [7, 2.5, 7n, true, 'x', [1, 2], [addDims(scaleDim(symbol('N'), 2), 1), 3], -Infinity];
  const ops = (['float', 'kernel'] as const).flatMap((stage) => [...opsOfStage[stage].values()].map((decl) => [`${stage} ${decl.name}`, stage, decl] as const));

  it.each(ops)('%s', (_, stage, decl) => {
    const inputs: Value[] = [];
    const operand = (slot: string): Value => {
      const value = input(`${slot}${inputs.length}`, tensorType('i8', [2, 3]));
      inputs.push(value);
      return value;
    };
    const attrs: Record<string, unknown> = {};
    for (const [key, attr] of Object.entries<{ readonly expected: string; check(value: unknown): boolean }>(decl.attrs)) {
      attrs[key] = [...candidates, ...attr.expected.split(' or ')].find((value) => attr.check(value));
    }
    const slots = (optional: boolean): Node['inputs'] => Object.fromEntries(Object.entries<string>(decl.operands).map(([slot, arity]) =>
      [slot, arity === 'many' ? [operand(slot), operand(slot)] : arity === 'one' || optional ? operand(slot) : null]));
    const nodes = [nodeOf(decl, slots(true), attrs, 'full', tensorType('i8', [2, 3])), nodeOf(decl, slots(false), attrs, 'least', tensorType('i8', [2, 3]))];
    expectRoundTrip(graphOf(stage, inputs, nodes, nodes.map(({ output }) => output)));
  });
});

describe('plugin ops', () => {
  const decl = defineOp({ name: 'acme.swish', summary: 'x·σ(x)', operands: { x: 'one' }, attrs: {}, infer: ({ x }) => x, evaluate: ({ x }) => x });
  const text = 'graph @g : float (%x: f32[2]) -> (%y) {\n  %y = acme.swish(%x) : f32[2]\n}\n';

  it('are read where their declarations are given', () => {
    const graph = parseGraph(text, { ops: new Map([[decl.name, decl as AnyOpDef]]) });
    expect(verify(graph)).toEqual([]);
    expect(printGraph(graph)).toBe(text);
    expect(() => parseGraph(text)).toThrow('there is no op "acme.swish" at this stage');
  });
});

describe('every type', () => {
  const names = ['f32', 'bool', 'i16', 'u16', 'i32', 'u32', 'i64', ...[2, 3, 4, 5, 6, 7, 8].flatMap((bits) => [`i${bits}`, `u${bits}`])].filter(isDType);
  const scale = fc.float({ min: Math.fround(1e-30), max: Math.fround(1e30), noNaN: true });
  const symbolName = fc.oneof(fc.constantFrom('N', 'seq', 'batch'), fc.string({ minLength: 1, maxLength: 6 }));
  const dim: fc.Arbitrary<Dim> = fc.oneof(fc.nat(7), fc.tuple(symbolName, fc.integer({ min: 1, max: 3 }), fc.integer({ min: -3, max: 3 }))
    .map(([name, k, c]) => addDims(scaleDim(symbol(name), k), c)));
  const quantOf = (dtype: IntegerDType, shape: readonly Dim[]): fc.Arbitrary<UniformQuant> => {
    const [least, greatest] = dtype === 'i64' ? [-1000, 1000] : rangeOf(dtype);
    const code = fc.integer({ min: least, max: greatest });
    const range = fc.tuple(code, code).map(([a, b]) => ({ low: Math.min(a, b), high: Math.max(a, b) }));
    const tensorWide = fc.record({ scale, zero: code, range })
      .map<UniformQuant>(({ scale, zero, range }) => ({ kind: 'uniform', scale, zero, axis: null, ...range }));
    const length = typeof shape[0] === 'number' ? shape[0] : 0;
    if (length === 0) return tensorWide;
    const list = <T>(item: fc.Arbitrary<T>): fc.Arbitrary<T[]> => fc.array(item, { minLength: length, maxLength: length });
    const alongAxis = fc.record({ scale: list(scale), zero: fc.oneof(fc.constant(0), list(code)), range })
      .map<UniformQuant>(({ scale, zero, range }) => ({ kind: 'uniform', scale, zero, axis: 0, ...range }));
    return fc.oneof(tensorWide, alongAxis);
  };
  const type: fc.Arbitrary<TensorType> = fc.tuple(fc.constantFrom<DType>(...names), fc.array(dim, { maxLength: 4 })).chain(([dtype, shape]) =>
    fc.option(dtype === 'f32' ? fc.constant(null) : quantOf(dtype, shape), { nil: null }).map((quant) => tensorType(dtype, shape, quant)));

  it('with any quantisation, sizes and names', () => {
    fc.assert(fc.property(fc.uniqueArray(fc.tuple(fc.string({ minLength: 1 }), type), { minLength: 1, maxLength: 4, selector: ([name]) => name }), (pairs) => {
      const inputs = pairs.map(([name, own]) => input(name, own));
      expectRoundTrip(graphOf('quant', inputs, [], inputs));
    }), { numRuns: 300 });
  });

  it.each(names)('constants of %s, in the text and beside it', (dtype) => {
    const constants = [[3], [2, 40], [0]].map((shape, i) => {
      const own = tensorType(dtype, shape);
      // a copy: what `random` made itself would print as its seed
      const data = random(own, i + 1).slice();
      return { name: `c${i}`, type: own, def: { op: 'const', tensor: { type: own, data } } } as Value;
    });
    expectRoundTrip(graphOf('quant', [], [], constants));
  });

  it('scales along a long axis go to the side file', () => {
    const scales = Array.from({ length: 100 }, (_, i) => Math.fround(0.01 * (i + 1)));
    const own = tensorType('i8', [100], { kind: 'uniform', scale: scales, zero: scales.map((_, i) => i), axis: 0, low: -100, high: 100 });
    expectRoundTrip(graphOf('kernel', [input('x', own)], [], []));
  });
});

describe('the side file', () => {
  const big = (seed: number, name = `c${seed}`): Value => {
    const own = tensorType('i8', [100]);
    return { name, type: own, def: { op: 'const', tensor: { type: own, data: random(own, seed).slice() } } } as Value;
  };
  const graph = graphOf('kernel', [], [], [big(1), big(2), big(1, 'again')]);

  it('holds equal data once, each at a multiple of 64 bytes', () => {
    const weights = new WeightStore();
    const offsets = [...printGraph(graph, { weights }).matchAll(/offset: (\d+)/g)].map(([, offset]) => Number(offset));
    expect(offsets).toEqual([0, 128, 0]);
    expect(weights.bytes().length).toBe(228);
  });

  it('is refused where it is cut or changed', () => {
    const weights = new WeightStore();
    const text = printGraph(graph, { weights });
    const codeOf = (bytes: Uint8Array): string => {
      try {
        parseGraph(text, { weights: bytes });
        return 'none';
      } catch (cause) {
        return (cause as CompileError).diagnostics[0].code;
      }
    };
    expect(codeOf(weights.bytes())).toBe('none');
    expect(codeOf(weights.bytes().slice(0, 150))).toBe('LB0204');
    const changed = weights.bytes().slice();
    changed[3] ^= 1;
    expect(codeOf(changed)).toBe('LB0205');
  });
});
