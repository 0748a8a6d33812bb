/**
 * The text form of a graph, canonical and lossless: `parseGraph(printGraph(g))` equals g (the log of passes in sites excepted), and
 * printing what was parsed gives the same text again.
 *
 *     graph @mlp : kernel (%x: i8<0.05, -3>[1, 64]) -> (%y, "probabilities": %p) {
 *       %w = const random(seed: 7) : i8[10, 64]
 *       %acc = linear_acc(%x, %w) {bound: [-1040384, 1048576]} : i32[1, 10]  @ "fc1 (Gemm)"
 *       …
 *     }
 *
 * - Types: `dtype<quant>[shape]`; quant is `<scale>`, `<scale, zero>`, `<scale, zero, low..high>` (zero 0 and the full range of the dtype
 *   are left out), with `axis n:` and lists for scales along an axis. Scales are the shortest decimals that round to their float32.
 * - One node a line: operands in declared order, `_` for an absent one before a present one, `[…]` around a list operand; attributes in
 *   declared order, defaults left out.
 * - A constant stands before its first reader: as a list, `splat(v)`, `iota`, `random(seed: n)`, or by digest and place in the side file.
 * - Names that are no identifiers are quoted. An output shows its ONNX name where that is not its value's name.
 */
import { isStatic, type Dim, type Shape, type SymbolicDim } from './dim.ts';
import { rangeOf, type IntegerDType } from './dtype.ts';
import { constantOf, operandsOf, type Graph, type Node, type Value } from './graph.ts';
import { INLINE_LENGTH, literalOf, printFloat32, printNumber } from './literal.ts';
import type { UniformQuant } from './quant.ts';
import type { Site } from './op.ts';
import type { Tensor, TensorType } from './type.ts';
import { digestOf, WeightStore } from './weights.ts';

export interface PrintOptions {
  /** takes the data of large constants; without it they are named by their digest alone, and the text cannot be read back */
  readonly weights?: WeightStore;
}

export const printGraph = (graph: Graph, { weights }: PrintOptions = {}): string => {
  const lines: string[] = [];
  const written = new Set<Value>();
  const constant = (value: Value): void => {
    const tensor = constantOf(value);
    if (tensor === null || written.has(value)) return;
    written.add(value);
    lines.push(`  ${printName(value.name)} = const ${printConstant(tensor, weights)} : ${printType(value.type, weights)}`);
  };
  for (const node of graph.nodes) {
    operandsOf(node).forEach(constant);
    lines.push(`  ${printNode(node, weights)}`);
  }
  graph.outputs.forEach(({ value }) => constant(value));
  const inputs = graph.inputs.map(({ name, type }) => `${printName(name)}: ${printType(type, weights)}`);
  const outputs = graph.outputs.map(({ name, value }) => `${name === value.name ? '' : `${JSON.stringify(name)}: `}${printName(value.name)}`);
  const head = `graph @${printWord(graph.name)} : ${graph.stage} (${inputs.join(', ')}) -> (${outputs.join(', ')}) {`;
  return `${[head, ...lines, '}'].join('\n')}\n`;
};

const printConstant = (tensor: Tensor, weights: WeightStore | undefined): string => literalOf(tensor) ?? printFile(tensor.data, weights);

const printFile = (data: Tensor['data'], weights: WeightStore | undefined, length = ''): string => {
  if (weights === undefined) return `file("${digestOf(data)}"${length})`;
  const { digest, offset } = weights.add(data);
  return `file("${digest}", offset: ${offset}${length})`;
};
/** A long list of a quantisation; its length stands with it. */
const printFileList = (data: Float32Array | Int32Array, weights: WeightStore | undefined): string =>
  printFile(data, weights, `, length: ${data.length}`);

/** One line: `%name = op(operands) {attributes} : type  @ "origin"`. */
const printNode = (node: Node, weights: WeightStore | undefined): string => {
  const attrs = Object.entries(node.decl.attrs)
    .filter(([key, attr]) => printAttr((attr as { fallback: unknown }).fallback) !== printAttr(node.attrs[key]))
    .map(([key]) => `${key}: ${printAttr(node.attrs[key])}`);
  return [
    `${printName(node.output.name)} = ${node.op}(${printOperands(node)})`, ...(attrs.length === 0 ? [] : [` {${attrs.join(', ')}}`]),
    ` : ${printType(node.output.type, weights)}`, printSite(node.site),
  ].join('');
};

const printOperands = (node: Node): string => {
  const slots = Object.keys(node.decl.operands).map((slot) => {
    const operand = node.inputs[slot];
    if (operand === null || operand === undefined) return '_';
    const names = [operand as Value | readonly Value[]].flat().map(({ name }) => printName(name)).join(', ');
    return Array.isArray(operand) ? `[${names}]` : names;
  });
  while (slots.at(-1) === '_') slots.pop();
  return slots.join(', ');
};

const printSite = ({ origins }: Site): string => (origins.length === 0 ? '' : `  @ ${origins.map((origin) => JSON.stringify(origin)).join(', ')}`);

/** What stands as it is after `%`; everything else is quoted. */
const plainName = /^[A-Za-z0-9_][A-Za-z0-9_.]*$/;
/** What stands as it is as a graph's name, an attribute value or a symbol. */
const plainWord = /^[A-Za-z_][A-Za-z0-9_.]*$/;
/** Words that would read as numbers or flags. */
const reserved: ReadonlySet<string> = new Set(['true', 'false', 'inf', 'nan', 'null']);

export const printName = (name: string): string => `%${plainName.test(name) ? name : JSON.stringify(name)}`;

const printWord = (name: string): string => (plainWord.test(name) && !reserved.has(name) ? name : JSON.stringify(name));

/** An attribute: numbers, 64-bit integers with `n`, flags, words, lists, and sizes with symbols. */
const printAttr = (value: unknown): string => {
  if (typeof value === 'number') return printNumber(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'string') return printWord(value);
  if (Array.isArray(value)) return `[${value.map((item) => (typeof item === 'string' ? JSON.stringify(item) : printAttr(item))).join(', ')}]`;
  if (typeof value === 'object' && value !== null && 'terms' in value) return printDimension(value as SymbolicDim);
  return String(value);
};

const printDimension = (dim: Dim): string => {
  if (isStatic(dim)) return String(dim);
  const terms = dim.terms.map(([name, k]) => (k === 1 ? printWord(name) : `${k}*${printWord(name)}`));
  if (dim.constant !== 0) terms.push(String(dim.constant));
  return terms.reduce((text, term) => (term.startsWith('-') ? `${text}${term}` : `${text}+${term}`));
};
const printDimensions = (shape: Shape): string => `[${shape.map(printDimension).join(', ')}]`;

export const printType = ({ dtype, shape, quant }: TensorType, weights?: WeightStore): string =>
  `${dtype}${quant === null ? '' : printQuant(quant, dtype as IntegerDType, weights)}${printDimensions(shape)}`;

const printQuant = ({ scale, zero, axis, low, high }: UniformQuant, dtype: IntegerDType, weights: WeightStore | undefined): string => {
  const scales = typeof scale === 'number' ? printFloat32(scale)
    : scale.length > INLINE_LENGTH ? printFileList(Float32Array.from(scale), weights) : `[${scale.map(printFloat32).join(', ')}]`;
  const zeros = typeof zero === 'number' ? (zero === 0 ? [] : [String(zero)])
    : [zero.length > INLINE_LENGTH ? printFileList(Int32Array.from(zero), weights) : `[${zero.join(', ')}]`];
  const [least, greatest] = rangeOf(dtype);
  const range = low === least && high === greatest ? [] : [`${low}..${high}`];
  return `<${axis === null ? '' : `axis ${axis}: `}${[scales, ...zeros, ...range].join(', ')}>`;
};
