/** What the layers of a graph cost: multiply-accumulates, parameters, and the widths they run at. Layers are the nodes that multiply. */
import { bindDim, sizeOf, symbolsOf, type Shape } from './dim.ts';
import { bitsOf } from './dtype.ts';
import { constantsOf, type Graph, type Node, type Value } from './graph.ts';

export interface LayerCost {
  /** the output value's name */
  readonly name: string;
  readonly op: string;
  /** ONNX nodes it came from */
  readonly from: readonly string[];
  /** as stored; null where both operands are activations */
  readonly weightBits: number | null;
  /** stored as places in a codebook */
  readonly codebook: boolean;
  /** bits of the codes that arrive, which may lie in wider elements */
  readonly activationBits: number;
  readonly macs: number;
  readonly parameters: number;
}

/** Multiply-accumulates of a node by its op's name, and the two operands that are multiplied; sizes with unbound symbols as 1. */
type Counter = (node: Node, size: (shape: Shape) => number) => { readonly macs: number; readonly left: Value; readonly right: Value };

const operand = (node: Node, slot: string): Value => node.inputs[slot] as Value;
const byFilter: Counter = (node, size) => {
  const weight = operand(node, 'weight');
  return { macs: size(node.output.type.shape) * size(weight.type.shape.slice(1)), left: operand(node, 'x'), right: weight };
};
const byInnerSize: Counter = (node, size) => {
  const [left, right] = [operand(node, 'a'), operand(node, 'b')];
  return { macs: size(node.output.type.shape) * size(left.type.shape.slice(-1)), left, right };
};
/** q·kᵀ and the weighted sum of v: B·T·S·(heads·D + heads·Dv). */
const byAttention: Counter = (node, size) => {
  const [q, k, v] = [operand(node, 'q'), operand(node, 'k'), operand(node, 'v')];
  const steps = size(k.type.shape.slice(1, 2));
  return { macs: size(q.type.shape) * steps + size(node.output.type.shape) * steps, left: q, right: k.type.dtype === v.type.dtype ? k : v };
};

const counters: Readonly<Record<string, Counter>> = {
  conv: byFilter, linear: byFilter, conv_acc: byFilter, linear_acc: byFilter,
  matmul: byInnerSize, matmul_acc: byInnerSize, attention: byAttention, attention_int: byAttention,
};

/** Multiply-accumulates of a node that multiplies; null for other nodes. */
export const macsOf = (node: Node): number | null => counters[node.op]?.(node, sizeWithUnits).macs ?? null;

export const layerCosts = (graph: Graph): readonly LayerCost[] => graph.nodes.flatMap((node) => {
  const counter = counters[node.op];
  if (counter === undefined) return [];
  const { macs, left, right } = counter(node, sizeWithUnits);
  const constant = right.def.op === 'const';
  const indexBits = Number(node.attrs['indexBits'] ?? 0);
  return [{
    name: node.output.name, op: node.op, from: node.site.origins,
    weightBits: constant ? indexBits || bitsOf(right.type.dtype) : null, codebook: indexBits > 0, activationBits: bitsOfCodes(left),
    macs, parameters: constant ? sizeWithUnits(right.type.shape) : 0,
  }];
});

/** Bits that tell the codes of a value apart: those of its range where it is quantized, of its element elsewhere. */
const bitsOfCodes = ({ type: { dtype, quant } }: Value): number => (quant === null ? bitsOf(dtype) : Math.ceil(Math.log2(quant.high - quant.low + 1)));

export const totalMacs = (layers: readonly LayerCost[]): number => layers.reduce((sum, { macs }) => sum + macs, 0);

/** `w8a8` for a constant weight, `w4ca8` for one by codebook, `a8a8` where both operands are activations. */
export const widthOf = ({ weightBits, codebook, activationBits }: LayerCost): string =>
  weightBits === null ? `a${activationBits}a${activationBits}` : `w${weightBits}${codebook ? 'c' : ''}a${activationBits}`;

export const macsByWidth = (layers: readonly LayerCost[]): Readonly<Record<string, number>> => {
  const sums = new Map<string, number>();
  for (const layer of layers) sums.set(widthOf(layer), (sums.get(widthOf(layer)) ?? 0) + layer.macs);
  return Object.fromEntries([...sums].sort(([a], [b]) => (a < b ? -1 : 1)));
};

/** Elements of all constants that the graph reads. */
export const parameterCount = (graph: Graph): number =>
  constantsOf(graph).reduce((sum, { type }) => sum + sizeOf(type.shape), 0);

const sizeWithUnits = (shape: Shape): number =>
  sizeOf(shape.map((dim) => bindDim(dim, new Map(symbolsOf([dim]).map((name) => [name, 1])))));
