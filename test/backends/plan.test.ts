import { describe, expect, it } from 'vitest';
import { identifier, identifiers, lower, planMemory, portableC, programOf, simd128, groupSteps } from '../../src/backends/index.ts';
import { Builder } from '../../src/ir/build.ts';
import type { Graph, Value } from '../../src/ir/graph.ts';
import { linearAcc } from '../../src/ir/ops/kernel-accumulate.ts';
import { clamp, requantize, requantizeAdd } from '../../src/ir/ops/kernel-requantize.ts';
import { table } from '../../src/ir/ops/kernel-table.ts';
import { concat, reshape } from '../../src/ir/ops/layout.ts';
import { tensorType } from '../../src/ir/type.ts';
import { cases, sceneOf, type Scene } from './kernel-cases.ts';

const graphOf = (build: (s: Scene) => readonly Value[]): Graph<'kernel'> => {
  const b = new Builder();
  return b.finish('kernel', 'g', build(sceneOf(b, 'g', 1)).map((value, i) => ({ name: `out${i}`, value })));
};
const layer = (s: Scene, x: Value): Value => s.b.emit(linearAcc, { x, weight: s.constant('i8', [x.type.shape.at(-1) as number, x.type.shape.at(-1) as number]) }, { bound: [-1e6, 1e6] });
const rescaled = (s: Scene, x: Value): Value => s.b.emit(requantize, { x, mul: s.list('i32', [2 ** 30]), add: s.list('i64', [0n]) }, { shift: 40, low: -128, high: 127 });

describe('steps', () => {
  it('join an accumulator, the rescale that alone reads it, and the table after that', () => {
    const { steps } = groupSteps(graphOf((s) => [s.b.emit(table, { x: rescaled(s, layer(s, s.input('i8', 2, 8))), values: s.constant('i8', [256]) }, {})]));
    expect(steps.map(({ root, rescale, table: last }) => [root.op, rescale?.op, last?.op])).toEqual([['linear_acc', 'requantize', 'table']]);
  });
  it('keep an accumulator that something else reads', () => {
    const { steps } = groupSteps(graphOf((s) => {
      const acc = layer(s, s.input('i8', 2, 8));
      return [rescaled(s, acc), acc];
    }));
    expect(steps.map(({ root, rescale }) => [root.op, rescale])).toEqual([['linear_acc', null], ['requantize', null]]);
  });
  it('let producers write a concatenation along the outermost axis', () => {
    const graph = graphOf((s) => {
      const x = s.input('i8', 2, 8);
      const parts = [rescaled(s, layer(s, x)), s.b.emit(reshape, { x: rescaled(s, layer(s, x)) }, { shape: [2, 8] })];
      return [s.b.emit(clamp, { x: s.b.emit(concat, { xs: parts }, { axis: 0 }) }, { low: 0, high: 9 })];
    });
    const { steps, viewOf } = groupSteps(graph);
    expect(steps.map(({ root }) => root.op)).toEqual(['linear_acc', 'linear_acc', 'clamp']);
    expect(steps.slice(0, 2).map(({ output }) => viewOf(output).offset)).toEqual([0, 16]);
  });
});

describe('memory plan', () => {
  const chain = (s: Scene, length: number): Value => Array.from({ length }).reduce<Value>((x) => rescaled(s, layer(s, x)), s.input('i8', 64, 64));
  const planOf = (graph: Graph<'kernel'>) => {
    const grouping = groupSteps(graph);
    return planMemory(graph, grouping, { scratchBytes: grouping.steps.map(() => 0), overwrites: grouping.steps.map(() => []), alignment: 16 });
  };
  it('of a chain is two buffers', () => {
    expect(planOf(graphOf((s) => [chain(s, 6)])).arenaBytes).toBe(2 * 64 * 64);
  });
  it('writes the last value to the output of the caller', () => {
    const graph = graphOf((s) => [chain(s, 3)]);
    expect(planOf(graph).placeOf(graph.outputs[0].value)).toMatchObject({ memory: 'output', index: 0 });
  });
  it('never lets two pieces share bytes while both live, and stays near what lives at once', () => {
    for (let seed = 0; seed < 20; seed++) {
      const graph = graphOf((s) => {
        const values = [s.input('i8', 8, 16)];
        for (let n = 0; n < 30; n++) {
          const [x, y] = [s.dice.pick(values), s.dice.pick(values)];
          values.push(s.b.emit(requantizeAdd, { x, y, mulX: s.list('i32', [1]), mulY: s.list('i32', [2]), add: s.list('i64', [0n]) }, { shift: 2, low: -128, high: 127, to: s.dice.pick(['i8', 'i16', 'i32']) }));
        }
        return [values.at(-1)!];
      });
      const { pieces, arenaBytes, liveBytes } = planOf(graph);
      pieces.forEach((a, i) => pieces.slice(0, i).forEach((b) => {
        const together = a.first <= b.last && b.first <= a.last;
        expect(together && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes).toBe(false);
      }));
      expect(arenaBytes).toBeGreaterThanOrEqual(liveBytes);
      expect(arenaBytes).toBeLessThanOrEqual(1.35 * liveBytes);
    }
  });
  it('takes over the memory of an operand that dies in an element-wise step', () => {
    const graph = graphOf((s) => {
      const x = chain(s, 1);
      return [rescaled(s, layer(s, s.b.emit(table, { x: s.b.emit(clamp, { x }, { low: -5, high: 5 }), values: s.constant('i8', [256]) }, {})))];
    });
    const { plan } = lower(programOf(graph), portableC);
    expect(plan.inPlace.map((value) => value !== null)).toEqual([false, true, true, false]);
  });
});

describe('identifiers', () => {
  it('follow the rule', () => {
    expect(['images:0', '/conv1/Conv_output_0', '1x', 'float', '', '__a__b__', 'größe'].map(identifier))
      .toEqual(['images_0', 'conv1_Conv_output_0', 't_1x', 't_float', 't', 'a_b', 'gr_e']);
    expect(identifiers(['x', 'X', 'x.', 'x_2'])).toEqual(['x', 'X_2', 'x_3', 'x_2_2']);
  });
});

it('equal shapes share one function', () => {
  const graph = graphOf((s) => [layer(s, rescaled(s, layer(s, rescaled(s, layer(s, s.input('i8', 4, 16))))))]);
  const { loops } = lower(programOf(graph), simd128);
  expect(new Set(loops.body.map((stmt) => (stmt.s === 'call' ? stmt.fn : null))).size).toBe(2);
});
it('lowering is reproducible', () => {
  const build = () => graphOf((s) => cases.slice(0, 20).map((one) => one.build({ ...s, input: (dtype, ...shape) => s.b.input(s.b.uniqueName('x'), tensorType(dtype, shape)) })));
  const text = (graph: Graph<'kernel'>): string => JSON.stringify(lower(programOf(graph), simd128).loops, (_, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value));
  expect(text(build())).toBe(text(build()));
});
