/**
 * The reference interpreter. Float graphs compute real numbers; at the quant stage each node dequantizes its operands, computes real
 * numbers and quantizes its result; kernel graphs compute codes, and every backend equals these bit for bit.
 */
import { CompileError } from './diagnostic.ts';
import { isStaticShape, printShape, sizeOf, staticShape, stridesOf, type StaticShape } from './dim.ts';
import { allocate } from './dtype.ts';
import { errors } from './errors.ts';
import { constantOf, operandsOf, useCounts, type Graph, type Node, type Value } from './graph.ts';
import { quantizeReal, scaleAt, zeroAt } from './quant.ts';
import { realType, tensorType, type Tensor, type TensorType } from './type.ts';

export interface EvaluateOptions {
  /** Called with every input and every computed value, in order, at the moment it is known. */
  readonly observe?: (value: Value, tensor: Tensor) => void;
}
export type Tensors = ReadonlyMap<string, Tensor> | Readonly<Record<string, Tensor>>;

/**
 * Runs the graph on tensors named like its inputs and returns its outputs by their ONNX names. An input of real numbers given for a
 * quantised type is quantized by the boundary rule. Tensors that nothing reads any more are dropped on the way.
 */
export const evaluateGraph = (graph: Graph, inputs: Tensors, { observe }: EvaluateOptions = {}): Map<string, Tensor> => {
  const given = inputs instanceof Map ? inputs as ReadonlyMap<string, Tensor> : new Map(Object.entries(inputs));
  const held = new Map<Value, Tensor>();
  const remaining = new Map(useCounts(graph));
  const define = (value: Value, tensor: Tensor): void => {
    observe?.(value, tensor);
    if (remaining.has(value)) held.set(value, tensor);
  };
  const read = (value: Value): Tensor => constantOf(value) ?? held.get(value)!;
  const release = (value: Value): void => {
    const left = remaining.get(value)! - 1;
    remaining.set(value, left);
    if (left === 0) held.delete(value);
  };
  for (const input of graph.inputs) define(input, acceptInput(input, given.get(input.name)));
  for (const node of graph.nodes) {
    define(node.output, graph.stage === 'quant' ? evaluateQuantised(node, read) : evaluateNode(node, read, node.output.type));
    operandsOf(node).forEach(release);
  }
  return new Map(graph.outputs.map(({ name, value }) => [name, read(value)]));
};

const evaluateNode = (node: Node, read: (value: Value) => Tensor, type: TensorType): Tensor => {
  const tensors = Object.fromEntries(Object.entries(node.inputs).map(([slot, operand]) =>
    [slot, operand === null ? null : Array.isArray(operand) ? (operand as readonly Value[]).map(read) : read(operand as Value)]));
  return node.decl.evaluate(tensors as never, node.attrs, type);
};

const evaluateQuantised = (node: Node, read: (value: Value) => Tensor): Tensor => {
  const { type } = node.output;
  const real = evaluateNode(node, (value) => (value.def.op === 'const' ? realConstant(read(value)) : dequantizeTensor(read(value))), realType(type));
  return type.quant === null ? real : quantizeTensor(real, type);
};

const realConstants = new WeakMap<Tensor, Tensor>();
const realConstant = (tensor: Tensor): Tensor => {
  let real = realConstants.get(tensor);
  if (real === undefined) realConstants.set(tensor, (real = dequantizeTensor(tensor)));
  return real;
};

/** Index on the quantisation axis of each run of equal scale: elements i with floor(i / inner) % count = index. */
const axisRuns = (shape: StaticShape, axis: number | null): { readonly inner: number; readonly count: number } =>
  axis === null ? { inner: Math.max(1, sizeOf(shape)), count: 1 } : { inner: stridesOf(shape)[axis], count: shape[axis] };

/** The real numbers that codes stand for, rounded to float32; a tensor without quantisation as it is. */
export const dequantizeTensor = (tensor: Tensor): Tensor => {
  const { quant } = tensor.type;
  if (quant === null) return tensor;
  const { inner, count } = axisRuns(staticShape(tensor.type.shape), quant.axis);
  const data = new Float32Array(tensor.data.length);
  for (let from = 0, run = 0; from < data.length; from += inner, run++) {
    const [scale, zero] = [scaleAt(quant, run % count), zeroAt(quant, run % count)];
    for (let i = from; i < from + inner; i++) data[i] = (Number(tensor.data[i]) - zero) * scale;
  }
  return { type: realType(tensor.type), data };
};

/** The nearest codes of a quantised type: floor(x/scale + 1/2) + zero in float64, saturated. Throws where x holds NaN. */
export const quantizeTensor = (tensor: Tensor, type: TensorType): Tensor => {
  const quant = type.quant!;
  const { inner, count } = axisRuns(staticShape(type.shape), quant.axis);
  const data = allocate(type.dtype, tensor.data.length);
  for (let from = 0, run = 0; from < data.length; from += inner, run++) {
    const [scale, zero] = [scaleAt(quant, run % count), zeroAt(quant, run % count)];
    for (let i = from; i < from + inner; i++) {
      const real = tensor.data[i] as number;
      if (Number.isNaN(real)) throw new CompileError(errors.notANumber(i));
      data[i] = quantizeReal(real, scale, zero, quant.low, quant.high);
    }
  }
  return { type, data };
};

const acceptInput = ({ name, type }: Value, tensor: Tensor | undefined): Tensor => {
  const fail = (why: string): never => { throw new CompileError(errors.badInput(name, why)); };
  if (tensor === undefined) return fail('no tensor was given');
  if (!isStaticShape(type.shape)) return fail(`the shape [${printShape(type.shape)}] has symbols; bind them first`);
  const [wanted, found] = [printShape(type.shape), printShape(tensor.type.shape)];
  if (wanted !== found) return fail(`the shape is [${found}], the graph takes [${wanted}]`);
  if (tensor.type.dtype === type.dtype) return { type, data: tensor.data };
  if (type.quant === null || tensor.type.dtype !== 'f32') return fail(`the elements are ${tensor.type.dtype}, the graph takes ${type.dtype}`);
  if ((tensor.data as Float32Array).some(Number.isNaN)) return fail('it holds NaN');
  return quantizeTensor(tensor, tensorType(type.dtype, type.shape, type.quant));
};
