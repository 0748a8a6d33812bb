/**
 * Groups of hidden channels as layers of their own. A hidden value that one layer makes and, through functions of single elements, one
 * layer reads, is cut along its channels:
 *
 *     %h = linear(%x, %W1, %b1); %a = gelu(%h); %y = linear(%a, %W2, %b2)
 *  →  %h0 = linear(%x, %W1[0:k], %b1[0:k]);  %a0 = gelu(%h0);  %y0 = linear(%a0, %W2[:, 0:k], %b2)
 *     %h1 = linear(%x, %W1[k:], %b1[k:]);    %a1 = gelu(%h1);  %y1 = linear(%a1, %W2[:, k:]);    %y = add(%y0, %y1)
 *
 * The function stays. Each group of activations has a range of its own, and so has each row of weights within a group: block
 * quantization along the reduction axis, with one multiplication more for each output and group and no more products.
 */
import { sizeOf, staticShape } from '../../ir/dim.ts';
import { constantOf, usersOf, type Graph, type Node, type Value } from '../../ir/graph.ts';
import { joinSites } from '../../ir/op.ts';
import { add, linear, unaryOps } from '../../ir/ops/index.ts';
import { mapGraph } from '../../ir/rewrite.ts';
import type { Builder } from '../../ir/build.ts';
import { tensor, tensorType, type Tensor } from '../../ir/type.ts';
import { channelsOf } from './channel-rules.ts';

/** A hidden value: the layer that makes it, functions of single elements in order, and the layer that reads the last of them. */
export interface Hidden {
  readonly first: Node;
  readonly functions: readonly Node[];
  readonly second: Node;
}

const pointwise: ReadonlySet<string> = new Set([...unaryOps.map(({ name }) => name), 'relu', 'clip', 'leaky_relu']);

/** Every hidden value whose layers can be cut. */
export const hiddenValues = (graph: Graph<'float'>): readonly Hidden[] => {
  const users = usersOf(graph);
  const outputs = new Set(graph.outputs.map(({ value }) => value));
  const soleReader = (value: Value): Node | null => {
    const list = users.get(value) ?? [];
    return list.length === 1 && !outputs.has(value) ? list[0] : null;
  };
  return graph.nodes.flatMap((first): readonly Hidden[] => {
    if (!isConstantLinear(first)) return [];
    const functions: Node[] = [];
    let reader = soleReader(first.output);
    for (; reader !== null && pointwise.has(reader.op) && reader.inputs['x'] !== undefined; reader = soleReader(reader.output)) functions.push(reader);
    return reader !== null && isConstantLinear(reader) ? [{ first, functions, second: reader }] : [];
  });
};

const isConstantLinear = ({ op, inputs }: Node): boolean => {
  const bias = inputs['bias'] as Value | null | undefined;
  return op === 'linear' && constantOf(inputs['weight'] as Value) !== null && (bias == null || constantOf(bias) !== null);
};

/** The value whose codes the groups have: what the second layer reads. */
export const readBy = ({ second }: Hidden): Value => second.inputs['x'] as Value;

/** The graph with each hidden value in groups that end at these channels; the last end is the number of channels. */
export const inGroups = (graph: Graph<'float'>, cuts: ReadonlyMap<Hidden, readonly number[]>, pass: string): Graph<'float'> => {
  const bySecond = new Map([...cuts].map(([hidden, ends]) => [hidden.second, { hidden, ends }]));
  return mapGraph(graph, 'float', (node, now, b) => {
    const cut = bySecond.get(node);
    return cut === undefined ? null : grouped(cut.hidden, cut.ends, now, b, pass);
  });
};

const grouped = ({ first, functions, second }: Hidden, ends: readonly number[], now: (value: Value) => Value, b: Builder, pass: string): Value => {
  const parts = ends.map((end, g) => {
    const from = g === 0 ? 0 : ends[g - 1];
    const name = (value: Value): string => `${value.name}.group${g}`;
    const sited = (node: Node) => joinSites(node.site, { origins: [], passes: [pass] });
    const [weight, bias, columns] = [first.inputs['weight'] as Value, first.inputs['bias'] as Value | null, second.inputs['weight'] as Value];
    let hidden: Value = b.emit(linear, {
      x: now(first.inputs['x'] as Value), weight: b.constant(name(weight), rowsOf(constantOf(weight)!, from, end)),
      bias: bias && b.constant(name(bias), rowsOf(constantOf(bias)!, from, end)),
    }, {}, { name: name(first.output), site: sited(first) });
    for (const node of functions) hidden = b.emit(node.decl as never, { ...node.inputs, x: hidden } as never, node.attrs, { name: name(node.output), site: sited(node) });
    return b.emit(linear, {
      x: hidden, weight: b.constant(name(columns), columnsOf(constantOf(columns)!, from, end)),
      bias: g === 0 && second.inputs['bias'] ? now(second.inputs['bias'] as Value) : null,
    }, {}, { name: name(second.output), site: sited(second) });
  });
  const site = joinSites(second.site, { origins: [], passes: [pass] });
  return parts.reduce((sum, part, g) =>
    b.emit(add, { x: sum, y: part }, {}, g === parts.length - 1 ? { replaces: second.output, site } : { name: `${second.output.name}.sum${g}`, site }));
};

const rowsOf = ({ type, data }: Tensor, from: number, end: number): Tensor => {
  const [rows, ...rest] = staticShape(type.shape);
  const length = data.length / rows;
  return tensor(tensorType('f32', [end - from, ...rest]), (data as Float32Array).slice(from * length, end * length));
};
const columnsOf = ({ type, data }: Tensor, from: number, end: number): Tensor => {
  const [rows, depth] = staticShape(type.shape);
  const taken = new Float32Array(rows * (end - from));
  for (let row = 0; row < rows; row++) taken.set((data as Float32Array).subarray(row * depth + from, row * depth + end), row * (end - from));
  return tensor(tensorType('f32', [rows, end - from]), taken);
};

/** The layers of a hidden value as a graph of their own, from what the first reads to what the second gives. */
export const alone = ({ first, functions, second }: Hidden): Graph<'float'> => {
  const x = first.inputs['x'] as Value;
  const input: Value = { name: x.name, type: x.type, def: { op: 'input' } };
  const whole: Graph<'float'> = { stage: 'float', name: second.output.name, inputs: [input], nodes: [first, ...functions, second], outputs: [{ name: second.output.name, value: second.output }] };
  return mapGraph(whole, 'float', (node, now, b) => (node === first ? b.copy(node, { ...node.inputs, x: now(input) }) : null));
};

/** Integer operations that more groups take in a run: one more rescaled sum for each output and group. */
export const operationsOf = ({ second }: Hidden, groups: number): number => sizeOf(second.output.type.shape) * (groups - 1);

/** Bytes of constants that more groups take: a multiplier and an offset for each output, and a table for each function. */
export const bytesOf = ({ second, functions }: Hidden, groups: number): number => (groups - 1) * (channelsOf(second.output) * 12 + functions.length * 256);
