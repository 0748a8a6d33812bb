/** What each model is after the clean-up passes: its ops, and where transposes are left. */
import { describe, expect, test } from 'vitest';
import { importBound } from '../../src/compile.ts';
import { constantOf, operandsOf, type Graph, type Value } from '../../src/ir/graph.ts';
import { printType } from '../../src/ir/print.ts';
import { verify } from '../../src/ir/verify.ts';
import { digestOf } from '../../src/ir/weights.ts';
import { importModel } from '../../src/onnx/import.ts';
import { canonicalGraph, histogramOf, modelFiles, readModel, unlessAbsent, type ModelFile } from './models.ts';

const ops: Readonly<Record<ModelFile, string>> = {
  'own/glyph-cnn/model': 'conv 9, relu 8, add 1, hard_swish 1, linear 1, reduce_mean 1, reshape 1',
  'own/glyph-vit/model': 'linear 25, add 9, layer_norm 9, attention 4, gelu 4, reshape 2, conv 1, reduce_mean 1',
  'own/glyph-vit-outlier/model': 'linear 25, add 9, layer_norm 9, attention 4, gelu 4, reshape 2, conv 1, reduce_mean 1',
  'cct/model': 'linear 25, add 9, layer_norm 9, attention 4, gelu 4, conv 3, relu 3, reduce_mean 1, reshape 1, transpose 1',
  'cct/model_opset13': 'linear 25, add 9, layer_norm 9, attention 4, gelu 4, conv 3, relu 3, reduce_mean 1, reshape 1, transpose 1',
  'cct/model_opset13_b1': 'linear 25, add 9, layer_norm 9, attention 4, gelu 4, conv 3, relu 3, reduce_mean 1, reshape 1, transpose 1',
  'cct-outlier/model': 'linear 25, add 9, layer_norm 9, attention 4, gelu 4, conv 3, relu 3, reduce_mean 1, reshape 1, transpose 1',
  'resnet20/model': 'conv 21, relu 19, add 9, linear 1, reduce_mean 1, transpose 1',
  'resnet20/model_opset13': 'conv 21, relu 19, add 9, linear 1, reduce_mean 1, transpose 1',
  'resnet20-skew/model': 'conv 21, relu 19, add 9, linear 1, reduce_mean 1, transpose 1',
  'charlm/model': 'linear 13, add 5, layer_norm 5, attention 2, gelu 2, gather 1',
  'charlm/model_opset13': 'linear 13, add 5, layer_norm 5, attention 2, gelu 2, gather 1',
  'mlperf-tiny-ic/model': 'conv 9, relu 7, add 3, linear 1, reduce_mean 1, softmax 1, transpose 1',
  'mlperf-tiny-kws/model': 'conv 9, relu 9, linear 1, reduce_mean 1, reshape 1, softmax 1',
  'mobilenet-v1-0.25-224/model': 'conv 28, clip 27, reduce_mean 1, reshape 1, softmax 1, transpose 1',
  'kwt1/model': 'linear 74, add 25, layer_norm 24, attention 12, gelu 12, concat 1, reshape 1, slice 1',
  'kwt1/model_tf_style': 'linear 78, add 26, layer_norm 24, attention 12, gelu 12, mul 3, reshape 3, clip 1, concat 1, gather 1, log 1, slice 1, sqrt 1',
  'mnist-cnn/model': 'conv 2, max_pool 2, relu 2, reshape 2, linear 1',
  'super-resolution/model': 'conv 4, relu 3, reshape 3, transpose 1',
  'ultraface-rfb-320/model': 'conv 52, relu 37, reshape 8, mul 5, concat 4, add 3, slice 2, exp 1, softmax 1, sub 1, transpose 1',
  'kws-encodings/micro_kws_m_static_fp32': 'relu 5, conv 3, linear 3, average_pool 2, reshape 2, max_pool 1, softmax 1',
  'mnist-lstm/model': 'add 135, linear 113, slice 111, mul 83, sigmoid 83, tanh 56, reshape 30, concat 1, softmax 1',
  'silero-vad/model': 'reshape 14, linear 8, add 6, conv 6, mul 5, relu 5, slice 5, sigmoid 4, concat 2, tanh 2, sqrt 1',
};

/** Transposes that do not read a graph input. */
const innerTransposes = (graph: Graph): readonly string[] =>
  graph.nodes.filter((node) => node.op === 'transpose' && operandsOf(node).some(({ def }) => def.op !== 'input')).map(({ output }) => output.name);

describe('canonical graphs', () => {
  for (const file of modelFiles) {
    test(file, unlessAbsent(file), async () => {
      const { graph, warnings } = importModel(readModel(file));
      expect(warnings).toEqual([]);
      expect(verify(graph)).toEqual([]);
      const canonical = await canonicalGraph(graph);
      expect(verify(canonical)).toEqual([]);
      expect(histogramOf(canonical)).toBe(ops[file]);
      // The pixel shuffle of super-resolution is a transpose by nature.
      expect(innerTransposes(canonical)).toHaveLength(file === 'super-resolution/model' ? 1 : 0);
      expect(await canonicalGraph(canonical), 'clean-up is idempotent').toBe(canonical);
    });
  }
});

/** What a graph computes, line by line, without the names of values and ONNX nodes: operands by the place of what makes them, constants by their data. */
const structureOf = (graph: Graph): readonly string[] => {
  const places = new Map<Value, string>(graph.inputs.map((input, i) => [input, `input ${i}`]));
  const placeOf = (value: Value): string => {
    const constant = constantOf(value);
    return constant === null ? places.get(value)! : digestOf(constant.data);
  };
  const lines = graph.nodes.map((node, i) => {
    places.set(node.output, `${i}`);
    return `${i} = ${node.op}(${operandsOf(node).map(placeOf).join(', ')}) ${JSON.stringify(node.attrs)} ${printType(node.output.type)}`;
  });
  return [...lines, ...graph.outputs.map(({ value }) => placeOf(value))];
};

describe('copies of a network by other exporters are the same graph but for names', () => {
  for (const [copy, original] of [['cct/model_opset13', 'cct/model'], ['cct/model_opset13_b1', 'cct/model'], ['resnet20/model_opset13', 'resnet20/model'], ['charlm/model_opset13', 'charlm/model']] as const) {
    test(`${copy} and ${original}`, unlessAbsent(copy), async () => {
      const [one, other] = await Promise.all([copy, original].map(async (file) => structureOf(await canonicalGraph(importBound(readModel(file), {}).graph))));
      expect(one).toEqual(other);
    });
  }
});
