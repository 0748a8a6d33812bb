/**
 * Graphs that must be refused: every file of `invalid/` marks the offending line with `// error CODE: message`, which the parser's place
 * or the value named by the verifier must meet.
 */
import { describe, expect, it } from 'vitest';
import { CompileError, type Diagnostic } from '../../src/ir/diagnostic.ts';
import { Builder } from '../../src/ir/build.ts';
import type { Graph, Node } from '../../src/ir/graph.ts';
import { noSite } from '../../src/ir/op.ts';
import { clamp } from '../../src/ir/ops/kernel-requantize.ts';
import { relu } from '../../src/ir/ops/index.ts';
import { parseGraph } from '../../src/ir/parse.ts';
import { tensorType } from '../../src/ir/type.ts';
import { verify } from '../../src/ir/verify.ts';
import { casesIn, readCase } from './cases.ts';

const faultsOf = (text: string): readonly Diagnostic[] => {
  try {
    return verify(parseGraph(text));
  } catch (cause) {
    if (cause instanceof CompileError) return cause.diagnostics;
    throw cause;
  }
};
/** The line that a diagnostic points at: the parser's, or where the value is defined. */
const lineOf = ({ at }: Diagnostic, text: string): number => {
  const place = /^line (\d+)/.exec(at!);
  if (place !== null) return Number(place[1]);
  const name = /^%([A-Za-z0-9_.]+)/.exec(at!)![0];
  return text.split('\n').findIndex((line) => line.includes(`${name} =`) || line.includes(`${name}:`)) + 1;
};

describe('invalid graphs', () => {
  it.each(casesIn('invalid'))('%s', (file) => {
    const text = readCase('invalid', file);
    const expected = text.split('\n').flatMap((line, i) => {
      const mark = /\/\/ error (LB\d+): (.*)$/.exec(line);
      return mark === null ? [] : [`line ${i + 1}: ${mark[1]}: ${mark[2]}`];
    });
    expect(faultsOf(text).map((fault) => `line ${lineOf(fault, text)}: ${fault.code}: ${fault.message}`)).toEqual(expected);
  });

  it('a parse error shows the line and a caret', () => {
    expect(faultsOf('graph @g : kernel (%x: i8[4]) -> (%y) {\n  %y = clamp(%x) {low: 0, high: 5} i8[4]\n}')[0]).toMatchObject({
      code: 'LB0203', message: '":" was expected', at: 'line 2, column 36\n    %y = clamp(%x) {low: 0, high: 5} i8[4]\n                                     ^',
    });
  });

  it('a misspelt name comes with a suggestion', () => {
    expect(faultsOf('graph @g : kernel (%image: i8[4]) -> (%y) {\n  %y = clmap(%image) {low: 0, high: 5} : i8[4]\n}')[0].help).toBe('did you mean "clamp"?');
  });
});

describe('faults that text cannot express', () => {
  const valid = (): Graph<'kernel'> => {
    const b = new Builder();
    const x = b.input('x', tensorType('i8', [4]));
    const y = b.emit(clamp, { x }, { low: 0, high: 5 }, { name: 'y' });
    return b.finish('kernel', 'g', [{ name: 'z', value: b.emit(clamp, { x: y }, { low: 1, high: 4 }, { name: 'z' }) }]);
  };
  const codes = (graph: Graph): readonly string[] => verify(graph).map(({ code }) => code);

  it('a valid graph has none', () => expect(codes(valid())).toEqual([]));
  it('LB0210: two values of one name', () => {
    const graph = valid();
    expect(codes({ ...graph, inputs: [...graph.inputs, graph.inputs[0]] })).toEqual(['LB0210']);
  });
  it('LB0211: nodes out of order', () => {
    const graph = valid();
    expect(codes({ ...graph, nodes: [...graph.nodes].reverse() })).toEqual(['LB0211']);
  });
  it('LB0211: an output that is not computed', () => {
    const graph = valid();
    expect(codes({ ...graph, nodes: graph.nodes.slice(0, 1) })).toEqual(['LB0211']);
  });
  it('LB0212: operands of another op', () => {
    const graph = valid();
    const [first, second] = graph.nodes;
    const odd: Node = { ...second, inputs: { y: first.output } };
    expect(codes({ ...graph, nodes: [first, { ...odd, output: second.output }] })).toEqual(['LB0212', 'LB0212']);
  });
  it('LB0213: attributes of another op', () => {
    const graph = valid();
    const [first, second] = graph.nodes;
    expect(codes({ ...graph, nodes: [first, { ...second, attrs: { low: 0.5, high: 5, mid: 1 } }] })).toEqual(['LB0213', 'LB0213']);
  });
  it('LB0216: a real op in a kernel graph', () => {
    const graph = valid();
    const [first, second] = graph.nodes;
    const node: Node = { op: 'relu', inputs: { x: first.output }, attrs: {}, decl: relu as never, output: second.output, site: noSite };
    expect(codes({ ...graph, nodes: [first, node] })).toContain('LB0216');
  });
});
