/**
 * Kernel graph → steps, the calls that a compiled program makes.
 *
 * An accumulating node and the rescale that alone reads it are one step, so that the 32-bit sums never reach memory:
 *
 *     %a = conv_acc(%x, %w)  %b = requantize_add(%a, %skip, …)  %c = table(%b, …)      →   one step that writes %c
 *
 * A transposition of few planes to channels last that one convolution alone reads is no step either: the convolution reads the planes.
 *
 * Nodes that only rename elements are no steps but views: a reshape, a slice that is contiguous, and a concatenation along the
 * outermost axis whose producers can write their parts in place.
 */
import { isNode, operandsOf, useCounts, type Graph, type Node, type Value } from '../ir/graph.ts';
import { equalShapes, normalAxis, sizeOf, staticShape, stridesOf } from '../ir/dim.ts';
import { storageBytes } from '../ir/dtype.ts';

export interface Step {
  /** the node that decides the schedule */
  readonly root: Node;
  /** the `requantize` or `requantize_add` that reads an accumulating root and is computed with it */
  readonly rescale: Node | null;
  /** the table of 256 entries applied to the result */
  readonly table: Node | null;
  /** whether the x of a convolution stands as planes, [N, C, H, W], where its type says [N, H, W, C] */
  readonly planes: boolean;
  /** what the step reads at run time, each value once; constants are not among them */
  readonly operands: readonly Value[];
  readonly output: Value;
}

/** Where the elements of a value stand: inside the memory of `base`, from a byte offset on. */
export interface View {
  readonly base: Value;
  readonly offset: number;
}

export interface Grouping {
  readonly steps: readonly Step[];
  /** every input, node output and constant operand; a value with memory of its own is its own base */
  readonly viewOf: (value: Value) => View;
}

export const bytesOf = (value: Value): number => sizeOf(value.type.shape) * storageBytes(value.type.dtype);

const accumulating: ReadonlySet<string> = new Set(['conv_acc', 'linear_acc', 'matmul_acc', 'sum_pool', 'reduce_sum']);
const rescaling: ReadonlySet<string> = new Set(['requantize', 'requantize_words', 'requantize_add']);

/** Channels up to which planes are read as they stand: each row of taps of a plane is padded by itself. */
const MOST_PLANES = 4;

/** `planes`: whether convolutions can read planes. */
export const groupSteps = (graph: Graph, { planes = true }: { readonly planes?: boolean } = {}): Grouping => {
  const uses = useCounts(graph);
  const reader = soleReaders(graph, uses);
  const views = new Map<Value, View>();
  const viewOf = (value: Value): View => views.get(value) ?? { base: value, offset: 0 };
  const outputs = new Set(graph.outputs.map(({ value }) => value));
  const taken = new Set<Node>();
  const asPlanes = new Set<Value>();
  const steps: { step: Step; last: Node }[] = [];
  for (const root of graph.nodes) {
    if (taken.has(root)) continue;
    const inPlanes = planes && !outputs.has(root.output) && readAsPlanes(root, reader.get(root.output));
    const view = inPlanes ? viewOf(root.inputs['x'] as Value) : viewOfNode(root, viewOf);
    if (view !== null) {
      if (inPlanes) asPlanes.add(root.output);
      views.set(root.output, view);
      continue;
    }
    const rescale = accumulating.has(root.op) ? rescaleOf(root, reader) : null;
    const table = rescale !== null || rescaling.has(root.op) ? tableOf(rescale ?? root, reader) : null;
    const nodes = [root, rescale, table].filter((node) => node !== null);
    nodes.forEach((node) => taken.add(node));
    const inside = new Set(nodes.map(({ output }) => output));
    const operands = [...new Set(nodes.flatMap(operandsOf))].filter((value) => !inside.has(value) && value.def.op !== 'const');
    const last = nodes[nodes.length - 1];
    steps.push({ step: { root, rescale, table, planes: asPlanes.has(root.inputs['x'] as Value), operands, output: last.output }, last });
  }
  const order = new Map(graph.nodes.map((node, i) => [node, i]));
  steps.sort((a, b) => order.get(a.last)! - order.get(b.last)!);
  const kept = steps.map(({ step }) => step).filter((step) => !writtenInPlace(step, views, viewOf, outputs));
  return { steps: kept, viewOf };
};

/** For each node output that is read exactly once, by a node: that node. */
const soleReaders = (graph: Graph, uses: ReadonlyMap<Value, number>): ReadonlyMap<Value, Node> => {
  const readers = new Map<Value, Node>();
  for (const node of graph.nodes) for (const value of operandsOf(node)) if (uses.get(value) === 1 && isNode(value.def)) readers.set(value, node);
  return readers;
};

/** Whether a node brings few planes to channels last for a convolution of several taps, of bytes, with one group and taps side by side in a row. */
const readAsPlanes = (node: Node, reader: Node | undefined): boolean => {
  if (node.op !== 'transpose' || reader?.op !== 'conv_acc' || reader.inputs['x'] !== node.output || String(node.attrs['perm']) !== '0,2,3,1') return false;
  const [, kh, kw] = staticShape((reader.inputs['weight'] as Value).type.shape);
  const { group, dilations } = reader.attrs as { group: number; dilations: readonly number[] };
  return group === 1 && dilations[1] === 1 && kh * kw > 1 && storageBytes(node.output.type.dtype) === 1 && staticShape(node.output.type.shape)[3] <= MOST_PLANES;
};

/** The rescale of an accumulator. A second operand that is broadcast keeps an addition apart: the fused form reads it in step. */
const rescaleOf = ({ output }: Node, reader: ReadonlyMap<Value, Node>): Node | null => {
  const node = reader.get(output);
  if (node === undefined || !rescaling.has(node.op) || node.inputs['x'] !== output) return null;
  const y = node.inputs['y'] as Value | undefined;
  return y === undefined || equalShapes(y.type.shape, output.type.shape) ? node : null;
};

/** A table over byte codes, one for the whole tensor, that alone reads the rescaled value. */
const tableOf = ({ output }: Node, reader: ReadonlyMap<Value, Node>): Node | null => {
  const node = reader.get(output);
  if (node === undefined || node.op !== 'table' || node.inputs['x'] !== output) return null;
  const values = node.inputs['values'] as Value;
  return values.type.shape.length === 1 && storageBytes(output.type.dtype) === 1 ? node : null;
};

/** The view that a node is, or null where it computes or moves something. */
const viewOfNode = (node: Node, viewOf: (value: Value) => View): View | null => {
  if (node.op === 'reshape') return viewOf(node.inputs['x'] as Value);
  if (node.op !== 'slice') return null;
  const x = node.inputs['x'] as Value;
  const { axis, start, step } = node.attrs as { axis: number; start: number; step: number };
  const shape = staticShape(x.type.shape);
  const along = normalAxis(axis, shape.length)!;
  if (step !== 1 || shape.slice(0, along).some((dim) => dim !== 1)) return null;
  const { base, offset } = viewOf(x);
  return { base, offset: offset + start * stridesOf(shape)[along] * storageBytes(x.type.dtype) };
};

/**
 * Whether a concatenation along the outermost axis is written by its producers: every operand fills memory of its own, made by a step,
 * that is no other operand and no graph output. Then the operands become views of the result.
 */
const writtenInPlace = (step: Step, views: Map<Value, View>, viewOf: (value: Value) => View, outputs: ReadonlySet<Value>): boolean => {
  if (step.root.op !== 'concat') return false;
  const parts = step.root.inputs['xs'] as readonly Value[];
  const { axis } = step.root.attrs as { axis: number };
  const shape = staticShape(step.output.type.shape);
  const outer = shape.slice(0, normalAxis(axis, shape.length)!);
  const bases = parts.map((part) => viewOf(part).base);
  const movable = (base: Value, i: number): boolean => isNode(base.def) && bytesOf(base) === bytesOf(parts[i]) && !outputs.has(base) && !outputs.has(parts[i]);
  if (outer.some((dim) => dim !== 1) || new Set(bases).size !== bases.length || !bases.every(movable)) return false;
  let offset = 0;
  for (const base of bases) {
    rebase(base, { base: step.output, offset }, views);
    offset += bytesOf(base);
  }
  return true;
};

/** Moves a base, and every view of it, into another base. */
const rebase = (base: Value, target: View, views: Map<Value, View>): void => {
  for (const [value, view] of views) if (view.base === base) views.set(value, { base: target.base, offset: target.offset + view.offset });
  views.set(base, target);
};
