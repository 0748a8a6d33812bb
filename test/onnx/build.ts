/** Small ONNX models from a few lines. */
import type { AttributeProto, ElementType, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto } from '../../src/onnx/schema.ts';
import { elementTypes } from '../../src/onnx/schema.ts';

export type AttributeValue = number | string | readonly number[] | { readonly float: number } | { readonly floats: readonly number[] } | { readonly tensor: TensorProto } | { readonly graph: GraphProto };

const attribute = (name: string, value: AttributeValue): AttributeProto => {
  if (typeof value === 'number') return { name, i: value, type: 2 };
  if (typeof value === 'string') return { name, s: new TextEncoder().encode(value), type: 3 };
  if ('float' in value) return { name, f: value.float, type: 1 };
  if ('floats' in value) return { name, floats: value.floats, type: 6 };
  if ('tensor' in value) return { name, t: value.tensor, type: 4 };
  if ('graph' in value) return { name, g: value.graph, type: 5 };
  return { name, ints: value as readonly number[], type: 7 };
};

export const node = (opType: string, input: readonly string[], output: readonly string[], attributes: Readonly<Record<string, AttributeValue>> = {}, domain = ''): NodeProto =>
  ({ opType, input, output, name: `${output[0]}_node`, domain, attribute: Object.entries(attributes).map(([name, value]) => attribute(name, value)) });

export const value = (name: string, dims: readonly (number | string)[] | null, type: ElementType = 'float'): ValueInfoProto => ({
  name,
  type: { tensorType: {
    elemType: elementTypes.indexOf(type),
    ...(dims === null ? {} : { shape: { dim: dims.map((dim) => (typeof dim === 'number' ? { dimValue: dim } : { dimParam: dim })) } }),
  } },
});

export const floats = (name: string, dims: readonly number[], data: readonly number[]): TensorProto => ({ name, dims, dataType: 1, floatData: data });
export const ints = (name: string, data: readonly number[], dims: readonly number[] = [data.length]): TensorProto => ({ name, dims, dataType: 7, int64Data: data });
/** Reproducible numbers between -1 and 1. */
export const noise = (name: string, dims: readonly number[]): TensorProto =>
  floats(name, dims, Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => Math.fround(Math.sin(i * 12.9898 + name.length) * 0.9)));

export interface ModelParts {
  readonly nodes: readonly NodeProto[];
  readonly inputs: readonly ValueInfoProto[];
  readonly outputs: readonly string[];
  readonly tensors?: readonly TensorProto[];
  readonly opset?: number;
  readonly more?: Partial<ModelProto>;
}
export const model = ({ nodes, inputs, outputs, tensors = [], opset = 17, more = {} }: ModelParts): ModelProto => ({
  irVersion: 8, opsetImport: [{ domain: '', version: opset }, { domain: 'com.microsoft', version: 1 }],
  graph: { name: 'g', node: nodes, input: inputs, output: outputs.map((name) => ({ name })), initializer: tensors }, ...more,
});
