/**
 * The float executor: runs a float graph, or a quant graph in its defined meaning, on real numbers. Deterministic: a run is a fixed
 * sequence of IEEE operations (numerics/f32-kernels.ts, numerics/real-math.ts), so results have the same bits on every machine.
 *
 * At the quant stage a node dequantises its operands, computes in real numbers and quantises its result. The executor keeps real numbers
 * between nodes: (code − zero)·scale after rounding to a code, from which the code can be had back exactly (`quantized`).
 *
 * All real values live in one WebAssembly memory that is laid out before the first run: constants, packed weights, then values, which
 * share space when their lives do not overlap. A run allocates next to nothing.
 */
import { CompileError } from '../ir/diagnostic.ts';
import { printShape, sizeOf } from '../ir/dim.ts';
import { allocate } from '../ir/dtype.ts';
import { errors } from '../ir/errors.ts';
import { constantOf, isConstant, operandsOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import { realType, type Tensor } from '../ir/type.ts';
import { f32Kernels, PAGE_BYTES, SLACK_BYTES } from '../numerics/f32-kernels.ts';
import { engine } from '../wasm/index.ts';
import { dequantized } from './codes.ts';
import { aligned, Layout, type Heap, type Place, type Step } from './layout.ts';
import { planNode, planRounding } from './plan-node.ts';
import type { Sample } from './samples.ts';

export { dequantized, quantized } from './codes.ts';

/** Sees each value right after it is computed, in real numbers. The tensor's data are overwritten later: copy what is to be kept. */
export type Observer = (value: Value, tensor: Tensor) => void;

export interface FloatExecutor {
  readonly graph: Graph<'float' | 'quant'>;
  /** Outputs by their ONNX name, in real numbers (integers where the value is not quantised but integer). */
  run(inputs: Sample, observe?: Observer): Sample;
}

/** Most bytes that WebAssembly can address. */
const MOST_BYTES = 2 ** 32;

export const createExecutor = (graph: Graph<'float' | 'quant'>): FloatExecutor => {
  const layout = new Layout();
  const values = placeValues(graph);
  const constants = new Map<Value, Place>();
  const placeOf = (value: Value): Place => {
    const root = values.rootOf(value);
    const known = values.places.get(root) ?? constants.get(root);
    if (known !== undefined) return known;
    const made: Place = { offset: isReal(value) ? placeConstant(layout, realConstant(value)) : 0, integers: isReal(value) ? null : constantOf(value)!.data };
    constants.set(root, made);
    return made;
  };
  const thunks = graph.nodes.map((node): ((heap: Heap) => Step) => {
    const compute = values.aliases.has(node.output) ? null : planNode(node, layout, placeOf);
    const round = compute !== null && node.output.type.quant !== null ? planRounding(node.output.type, placeOf(node.output)) : null;
    return (heap) => {
      const [first, second] = [compute?.(heap), round?.(heap)];
      return () => { first?.(); second?.(); };
    };
  });
  const inputRounding = graph.inputs.map(({ type }, i) => (type.quant === null ? null : planRounding(type, placeOf(graph.inputs[i]))));
  graph.outputs.forEach(({ value }) => placeOf(value));
  const heap = makeHeap(layout, values);
  const steps = thunks.map((thunk) => thunk(heap));
  const inputSteps = inputRounding.map((round) => round?.(heap));
  const view = (value: Value): Tensor => {
    const { offset, integers } = placeOf(value);
    const type = realType(value.type);
    return { type, data: integers ?? heap.f32.subarray(offset / 4, offset / 4 + sizeOf(type.shape)) };
  };
  const run = (inputs: Sample, observe?: Observer): Sample => {
    graph.inputs.forEach((input, i) => {
      load(input, inputs[input.name], placeOf(input), heap);
      inputSteps[i]?.();
      observe?.(input, view(input));
    });
    graph.nodes.forEach((node, i) => {
      steps[i]();
      observe?.(node.output, view(node.output));
    });
    return Object.fromEntries(graph.outputs.map(({ name, value }) => {
      const { type, data } = view(value);
      return [name, { type, data: data.slice() }];
    }));
  };
  return { graph, run };
};

/**
 * The meaning of single nodes in real numbers, before any rounding of their outputs: `evaluate(node, valueOf)` with the real tensors of
 * the node's operands. The plan of the last node is kept, so evaluating one node on many samples is cheap.
 */
export const realEvaluator = (): ((node: Node, valueOf: (value: Value) => Tensor) => Tensor) => {
  let last: { readonly node: Node; readonly executor: FloatExecutor; readonly operands: readonly Value[] } | null = null;
  return (node, valueOf) => {
    if (last?.node !== node) {
      const graph = isolated(node);
      last = { node, executor: createExecutor(graph), operands: [...new Set(operandsOf(node))].filter((value) => !isConstant(value)) };
    }
    return last.executor.run(Object.fromEntries(last.operands.map((value) => [value.name, valueOf(value)])))[node.output.name];
  };
};

/** A graph of the node alone; its operands are inputs and its output keeps real numbers. */
const isolated = (node: Node): Graph<'float'> => {
  const renewed = new Map<Value, Value>();
  const input = (value: Value): Value => {
    if (isConstant(value)) return value;
    const made = renewed.get(value) ?? { name: value.name, type: realType(value.type), def: { op: 'input' as const } };
    renewed.set(value, made);
    return made;
  };
  const inputs = Object.fromEntries(Object.entries(node.inputs).map(([slot, operand]) =>
    [slot, operand === null ? null : Array.isArray(operand) ? operand.map(input) : input(operand as Value)]));
  const output: { name: string; type: Value['type']; def: Value['def'] } = { name: node.output.name, type: realType(node.output.type), def: { op: 'input' } };
  const copy: Node = { ...node, inputs, output };
  output.def = copy;
  return { stage: 'float', name: node.output.name, inputs: [...renewed.values()], nodes: [copy], outputs: [{ name: output.name, value: output }] };
};

const isReal = (value: Value): boolean => realType(value.type).dtype === 'f32';

const realConstants = new WeakMap<Tensor, Float32Array>();
/** A constant in real numbers; dequantised once. */
const realConstant = (value: Value): Float32Array => {
  const codes = constantOf(value)!;
  if (codes.type.quant === null) return codes.data as Float32Array;
  const known = realConstants.get(codes);
  if (known !== undefined) return known;
  const made = dequantized(codes).data as Float32Array;
  realConstants.set(codes, made);
  return made;
};

const load = ({ name, type }: Value, given: Tensor | undefined, place: Place, heap: Heap): void => {
  if (given === undefined) throw new CompileError(errors.missingInput('the sample', name, []));
  const size = sizeOf(type.shape);
  if (given.data.length !== size) throw new CompileError(errors.sampleShape('the sample', [1, ...(given.type.shape as readonly number[])], name, printShape(type.shape)));
  if (place.integers !== null) (place.integers as Float32Array).set(given.data as Float32Array);
  else heap.f32.set(dequantized(given).data as Float32Array, place.offset / 4);
};

interface Values {
  readonly places: ReadonlyMap<Value, Place>;
  /** values that are another value under a new shape */
  readonly aliases: ReadonlySet<Value>;
  rootOf(value: Value): Value;
  /** bytes that the values need together, and where they begin */
  readonly bytes: number;
  readonly base: { offset: number };
}

/** Ops that leave the elements alone: their result is their operand. */
const identities: ReadonlySet<string> = new Set(['reshape', 'quantize', 'dequantize']);

const sameCodes = (a: Value, b: Value): boolean => a.type.dtype === b.type.dtype && JSON.stringify(a.type.quant) === JSON.stringify(b.type.quant);

/**
 * Offsets for every computed value: largest first, each at the lowest offset that is free for as long as the value lives.
 */
const placeValues = (graph: Graph): Values => {
  const roots = new Map<Value, Value>();
  const rootOf = (value: Value): Value => roots.get(value) ?? value;
  const born = new Map<Value, number>();
  const dies = new Map<Value, number>();
  graph.inputs.forEach((input) => born.set(input, -1));
  graph.nodes.forEach((node, i) => {
    const source = (node.inputs as { readonly x?: Value }).x;
    // a real result of dequantize is what its operand already is; otherwise the codes must agree
    const same = source !== undefined && identities.has(node.op) && isReal(node.output) && !isConstant(rootOf(source))
      && (node.op === 'dequantize' || sameCodes(source, node.output));
    if (same) roots.set(node.output, rootOf(source));
    else born.set(node.output, i);
    for (const operand of operandsOf(node)) dies.set(rootOf(operand), i);
  });
  graph.outputs.forEach(({ value }) => dies.set(rootOf(value), graph.nodes.length));
  const places = new Map<Value, Place>();
  const base = { offset: 0 };
  // what is placed so far, by start
  const taken: Taken[] = [];
  let bytes = 0;
  const sized = [...born.keys()].map((value) => ({ value, size: aligned(sizeOf(value.type.shape) * 4) })).sort((a, b) => b.size - a.size);
  for (const { value, size } of sized) {
    if (!isReal(value)) {
      places.set(value, { offset: 0, integers: allocate(value.type.dtype, sizeOf(value.type.shape)) });
      continue;
    }
    const [from, to] = [born.get(value)!, dies.get(value) ?? born.get(value)!];
    let start = 0;
    for (const other of taken) {
      if (other.from > to || other.to < from) continue;
      if (other.start >= start + size) break;
      start = Math.max(start, other.end);
    }
    const next = taken.findIndex((other) => other.start > start);
    taken.splice(next < 0 ? taken.length : next, 0, { start, end: start + size, from, to });
    bytes = Math.max(bytes, start + size);
    places.set(value, { get offset() { return base.offset + start; }, integers: null });
  }
  return { places, aliases: new Set(roots.keys()), rootOf, bytes, base };
};

/** Bytes [start, end) from the birth of a value at one node to its last reader. */
interface Taken {
  readonly start: number;
  readonly end: number;
  readonly from: number;
  readonly to: number;
}

const placeConstant = (layout: Layout, numbers: Float32Array): number => layout.constant(numbers.length, (to) => to.set(numbers));

const makeHeap = (layout: Layout, values: Values): Heap => {
  values.base.offset = layout.bytes;
  const total = layout.bytes + values.bytes + SLACK_BYTES;
  if (total > MOST_BYTES) throw new CompileError(errors.tooLargeToRun(total));
  const memory = new engine.Memory({ initial: Math.ceil(total / PAGE_BYTES) });
  const heap: Heap = { f32: new Float32Array(memory.buffer), kernels: f32Kernels(memory), scratch: layout.scratchOffset, zeros: layout.zerosOffset };
  layout.fill(heap.f32);
  return heap;
};
