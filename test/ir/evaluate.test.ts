/** Running graphs of each stage. */
import { describe, expect, it } from 'vitest';
import { CompileError } from '../../src/ir/diagnostic.ts';
import { dequantizeTensor, evaluateGraph, quantizeTensor } from '../../src/ir/evaluate.ts';
import { parseGraph } from '../../src/ir/parse.ts';
import { f32, tensor, tensorType, type Tensor } from '../../src/ir/type.ts';

const reals = (...values: number[]): Tensor => tensor(f32(values.length), Float32Array.from(values));
const codeOf = (run: () => unknown): string => {
  try {
    run();
    return 'none';
  } catch (cause) {
    return (cause as CompileError).diagnostics[0].message;
  }
};

describe('evaluateGraph', () => {
  it('computes real numbers at the float stage', () => {
    const graph = parseGraph('graph @g : float (%x: f32[3]) -> ("out": %y) {\n  %y = relu(%x) : f32[3]\n}');
    expect([...evaluateGraph(graph, { x: reals(-1, 0.5, 2) })]).toEqual([['out', reals(0, 0.5, 2)]]);
  });

  it('dequantizes, computes and quantizes at the quant stage', () => {
    const graph = parseGraph('graph @g : quant (%x: i8<0.5, 1>[4]) -> (%y) {\n  %y = relu(%x) : i8<0.25, -128>[4]\n}');
    const x = tensor(tensorType('i8', [4]), Int8Array.of(-7, 1, 2, 127));
    expect(Array.from(evaluateGraph(graph, { x }).get('y')!.data as Int8Array)).toEqual([-128, -128, -126, 124]);
  });

  it('takes real numbers for a quantised input by the boundary rule: halves up, saturated', () => {
    const graph = parseGraph('graph @g : kernel (%x: i8<0.5, 1>[5]) -> (%x) {\n}');
    expect(Array.from(evaluateGraph(graph, { x: reals(0.25, -0.25, 0.24, 1000, -1000) }).get('x')!.data as Int8Array)).toEqual([2, 1, 1, 127, -128]);
  });

  it('shows every value once, in order', () => {
    const graph = parseGraph('graph @g : kernel (%x: i8[1]) -> (%z) {\n  %y = clamp(%x) {low: 0, high: 5} : i8[1]\n  %z = clamp(%y) {low: 0, high: 3} : i8[1]\n}');
    const seen: string[] = [];
    evaluateGraph(graph, new Map([['x', tensor(tensorType('i8', [1]), Int8Array.of(9))]]), { observe: ({ name }, { data }) => seen.push(`${name}=${data[0]}`) });
    expect(seen).toEqual(['x=9', 'y=5', 'z=3']);
  });

  it('says what is wrong with an input', () => {
    const graph = parseGraph('graph @g : float (%x: f32[2]) -> (%x) {\n}');
    expect(codeOf(() => evaluateGraph(graph, {}))).toBe('input "x": no tensor was given');
    expect(codeOf(() => evaluateGraph(graph, { x: reals(1) }))).toBe('input "x": the shape is [1], the graph takes [2]');
    expect(codeOf(() => evaluateGraph(graph, { x: tensor(tensorType('i8', [2]), new Int8Array(2)) }))).toBe('input "x": the elements are i8, the graph takes f32');
    const symbolic = parseGraph('graph @g : float (%x: f32[N]) -> (%x) {\n}');
    expect(codeOf(() => evaluateGraph(symbolic, { x: reals(1) }))).toBe('input "x": the shape [N] has symbols; bind them first');
    const quantised = parseGraph('graph @g : quant (%x: i8<0.5>[1]) -> (%x) {\n}');
    expect(codeOf(() => evaluateGraph(quantised, { x: reals(NaN) }))).toBe('input "x": it holds NaN');
  });
});

describe('quantisation along an axis', () => {
  const type = tensorType('i8', [2, 2, 2], { kind: 'uniform', scale: [0.5, 0.25], zero: [0, 1], axis: 1, low: -128, high: 127 });
  it('uses the scale of each index', () => {
    const codes = tensor(type, Int8Array.of(1, 2, 1, 2, 3, 4, 5, 6));
    const real = dequantizeTensor(codes);
    expect(Array.from(real.data as Float32Array)).toEqual([0.5, 1, 0, 0.25, 1.5, 2, 1, 1.25]);
    expect(quantizeTensor(real, type)).toEqual(codes);
  });
});
