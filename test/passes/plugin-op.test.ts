import { describe, expect, it } from 'vitest';
import { Builder } from '../../src/ir/build.ts';
import { evaluateGraph } from '../../src/ir/evaluate.ts';
import type { Node, Value } from '../../src/ir/graph.ts';
import { defineOp, real, type OpDef } from '../../src/ir/op.ts';
import { add, mul, relu } from '../../src/ir/ops/index.ts';
import { parseGraph } from '../../src/ir/parse.ts';
import { printGraph } from '../../src/ir/print.ts';
import { f32, tensor } from '../../src/ir/type.ts';
import { verify } from '../../src/ir/verify.ts';
import { expandPluginOps } from '../../src/passes/expand-plugin-ops.ts';
import { runPass } from '../../src/passes/pass.ts';
import { buildToolbox, definePlugin } from '../../src/plugin.ts';

/** x + factor·relu(x): an op that the core does not have. */
const boost: OpDef<'acme.boost', { readonly x: 'one' }, { readonly factor: number }> = defineOp({
  name: 'acme.boost',
  summary: 'x + factor·relu(x)',
  operands: { x: 'one' },
  attrs: { factor: real('share that is added above 0') },
  infer: ({ x }) => x,
  evaluate: ({ x }, { factor }, type) => tensor(type, (x.data as Float32Array).map((v) => v + factor * Math.max(0, v))),
  lower: (node: Node, b: Builder): Value => {
    const x = node.inputs['x'] as Value;
    const factor = b.constant('factor', tensor(f32(1), Float32Array.of(node.attrs['factor'] as number)));
    const part = b.emit(mul, { x: b.emit(relu, { x }), y: factor });
    return b.emit(add, { x, y: part }, {}, { replaces: node.output });
  },
});

const text = 'graph @g : float (%x: f32[3]) -> (%y) {\n  %y = acme.boost(%x) {factor: 0.5} : f32[3]\n}\n';

describe('an op of a plugin', () => {
  const plugin = definePlugin({ name: 'acme', ops: [boost] });
  const ops = buildToolbox({ ops: [], passes: [], backends: [] }, [plugin]).ops;

  it('has text form, verification and reference meaning from its declaration', () => {
    const graph = parseGraph(text, { ops });
    expect(printGraph(graph)).toBe(text);
    expect(verify(graph)).toEqual([]);
    expect([...evaluateGraph(graph, { x: tensor(f32(3), Float32Array.of(-2, 0, 4)) }).get('y')!.data]).toEqual([-2, 0, 6]);
  });

  it('is lowered to core ops that mean the same', async () => {
    const graph = parseGraph(text, { ops });
    const lowered = await runPass(expandPluginOps, graph as never);
    expect(lowered.nodes.map(({ op }) => op)).toEqual(['relu', 'mul', 'add']);
    const x = tensor(f32(3), Float32Array.of(-2, 0, 4));
    expect(evaluateGraph(lowered, { x }).get('y')!.data).toEqual(evaluateGraph(graph, { x }).get('y')!.data);
  });

  it('clashes with another owner of its name, both named', () => {
    expect(() => buildToolbox({ ops: [boost], passes: [], backends: [] }, [plugin])).toThrow('op "acme.boost" comes from both "lowbitc" and "acme"');
  });
});
