/**
 * Gives every value its integer type: float graph → quant graph.
 *
 * Rules, in the order in which they decide:
 *  - a value read only by a ReLU or clip takes that activation's type, and the activation vanishes: saturation at the code of 0 (or
 *    of the bounds) is the activation, exactly;
 *  - the result of a convolution or linear map that only an addition reads stays real (`f32`): the kernel adds its accumulator to the
 *    other operand and rounds once;
 *  - values that move elements without arithmetic (reshape, concat, max pool, …) share one type;
 *  - operands of multiplications are `bits` wide; the residual stream, logits and graph outputs are 16 bits wide, and a narrower
 *    copy (`quantize`) is made for the readers that multiply;
 *  - attention and activation-by-activation products read symmetric codes, everything else affine ones: real = (code − zero)·scale.
 *
 *     %h = relu(%c)  →  %c = conv(…) : i8<0.0235, zero -128>[…]
 *
 * Ranges always hold 0, so that padding and ReLU are exact. Sources: Jacob et al. 2018 (affine codes); Yao et al. 2021, HAWQ-V3 (wide
 * residual stream).
 */
import { CompileError } from '../ir/diagnostic.ts';
import { rangeOf, type IntegerDType } from '../ir/dtype.ts';
import { errors } from '../ir/errors.ts';
import { constantOf, isNode, usersOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import { quantizeTensor } from '../ir/evaluate.ts';
import { int, oneOf, real } from '../ir/op.ts';
import { quantize, unaryOps, type FloatNode } from '../ir/ops/index.ts';
import { quantizeReal, type UniformQuant } from '../ir/quant.ts';
import { mapOperands } from '../ir/rewrite.ts';
import { Builder } from '../ir/build.ts';
import { tensorType, type TensorType } from '../ir/type.ts';
import { sizeOf } from '../ir/dim.ts';
import { definePass } from './pass.ts';
import type { ValueRange } from '../calibration/calibration.ts';

/** Headroom of 16-bit values over the calibrated range: a quarter of their codes, for inputs beyond the calibration set. */
const WIDE_HEADROOM = 1.25;

export interface QuantizeActivationsOptions {
  readonly bits: number;
  readonly range: 'min-max' | 'percentile' | 'mse';
  readonly percentile: number;
  readonly residual: 'auto' | 'wide' | 'narrow';
  readonly outputBits: number;
}

export const quantizeActivations = definePass<'float', 'quant', QuantizeActivationsOptions>({
  name: 'quantize-activations',
  from: 'float',
  to: 'quant',
  summary: 'choose an integer type for every value from calibrated ranges',
  paper: 'Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference',
  changes: 'rounding to the chosen codes, saturation outside the calibrated range',
  options: {
    bits: int('width of the operands of multiplications, 2 to 8', 8),
    range: oneOf('how a range is taken from the calibration data', ['min-max', 'percentile', 'mse'], 'min-max'),
    percentile: real('share of values inside the range when range is percentile', 0.9999),
    residual: oneOf('width of sums that are added to again: wide is 16 bits; auto is wide where a LayerNorm reads the sum', ['auto', 'wide', 'narrow'], 'auto'),
    outputBits: int('width of graph outputs, 8 or 16', 16),
  },
  async run(graph, options, context) {
    const refused = nodesWithoutIntegerForm(graph);
    if (refused.length > 0) throw new CompileError(refused.map(errors.noIntegerForm), 'unsupported');
    const { calibration } = context;
    if (calibration === null) throw new CompileError(errors.needsData('quantize-activations'), 'usage');
    const ranges = await calibration.ranges(graph, { method: options.range, bits: options.bits, percentile: options.percentile });
    return new Typing(graph, options, ranges).quantGraph();
  },
});

/** How an op treats the types of its operands and of its result. */
interface Trait {
  /** `narrow`: operands are multiplied, at most 8 bits; `symmetric`: also zero point 0; `any`: 8 or 16 bits */
  readonly reads: 'narrow' | 'symmetric' | 'any';
  /** `rescales`: any output type; `ties`: the type of its operand */
  readonly gives: 'rescales' | 'ties';
}
const rescales = (reads: Trait['reads']): Trait => ({ reads, gives: 'rescales' });
const ties: Trait = { reads: 'any', gives: 'ties' };

const unary = Object.fromEntries(unaryOps.map((op) => [op.name, rescales('narrow')])) as Record<(typeof unaryOps)[number]['name'], Trait>;
const traits: Readonly<Record<FloatNode['op'], Trait | null>> = {
  ...unary, relu: ties, clip: ties,
  conv: rescales('narrow'), linear: rescales('narrow'), matmul: rescales('symmetric'), attention: rescales('symmetric'),
  add: rescales('any'), sub: rescales('any'), mul: rescales('any'), batch_norm: rescales('any'), layer_norm: rescales('any'),
  softmax: rescales('any'), reduce_mean: rescales('any'), reduce_sum: rescales('any'), average_pool: rescales('any'),
  max_pool: ties, reduce_max: ties, reshape: ties, transpose: ties, slice: ties, concat: ties, pad: ties, gather: ties,
  quantize: rescales('any'), dequantize: rescales('any'),
  div: null, min: null, max: null, rms_norm: null, expand: null, where: null,
};
const accumulating: ReadonlySet<string> = new Set(['conv', 'linear', 'matmul']);

/** Nodes that no pass can turn into integers. */
export const nodesWithoutIntegerForm = (graph: Graph<'float'>): readonly Node[] =>
  graph.nodes.filter(({ op }) => ((traits as Readonly<Record<string, Trait | null>>)[op] ?? null) === null);

const traitOf = (node: Node): Trait => {
  const trait = (traits as Readonly<Record<string, Trait | null>>)[node.op] ?? null;
  if (trait === null) throw new CompileError(errors.noIntegerForm(node), 'unsupported');
  return trait;
};

class Typing {
  private readonly graph: Graph<'float'>;
  private readonly options: QuantizeActivationsOptions;
  private readonly ranges: ReadonlyMap<string, ValueRange>;
  private readonly users: ReadonlyMap<Value, readonly Node[]>;
  private readonly outputs: ReadonlySet<Value>;
  private readonly classes = new Classes<Value>();
  private readonly exact = new Set<Value>();
  private readonly absorbed = new Map<Value, Node>();

  constructor(graph: Graph<'float'>, options: QuantizeActivationsOptions, ranges: ReadonlyMap<string, ValueRange>) {
    this.graph = graph;
    this.options = options;
    this.ranges = ranges;
    this.users = usersOf(graph);
    this.outputs = new Set(graph.outputs.map(({ value }) => value));
    for (const node of graph.nodes) this.decide(node);
  }

  quantGraph(): Graph<'quant'> {
    const types = this.typesOfClasses();
    const typeOf = (value: Value): TensorType => types.get(this.classes.find(value)) ?? value.type;
    const b = new Builder();
    const renewed = new Map<Value, Value>();
    const narrowed = new Map<Value, Value>();
    const now = (value: Value): Value => {
      const constant = constantOf(value);
      return renewed.get(value) ?? (constant === null ? value : remember(renewed, value, b.constant(value.name, constant)));
    };
    for (const input of this.graph.inputs) {
      const type = input.type.dtype === 'f32' ? withShape(typeOf(input), input) : input.type;
      renewed.set(input, b.input(input.name, type));
    }
    for (const node of this.graph.nodes) {
      b.site = node.site;
      if (this.absorbed.has(node.output)) { renewed.set(node.output, now((node.inputs as { x: Value }).x)); continue; }
      const narrow = traitOf(node).reads !== 'any';
      const read = (value: Value): Value => {
        const made = this.operand(node, value, now, b, typeOf);
        if (!narrow || made.type.quant === null || made.def.op === 'const' || isNarrow(made.type)) return made;
        return narrowed.get(made) ?? remember(narrowed, made, b.emit(quantize, { x: made }, {},
          { name: `${made.name}.narrow`, type: this.narrowCopy(value, traitOf(node).reads === 'symmetric') }));
      };
      const activation = this.activationOn(node.output);
      const codes = withShape(typeOf(node.output), node.output);
      const type = this.exact.has(node.output) ? node.output.type : activation === null ? codes : limited(codes, activation);
      renewed.set(node.output, b.copy(node, mapOperands(node, read), type));
    }
    return b.finish('quant', this.graph.name, this.graph.outputs.map(({ name, value }) => ({ name, value: now(value) })));
  }

  /** Ties, absorbed activations and sums that stay real. Nodes come in topological order. */
  private decide(node: Node): void {
    const trait = traitOf(node);
    const x = (node.inputs as { x?: Value }).x;
    if ((node.op === 'relu' || node.op === 'clip') && x !== undefined && this.soleUse(x) && isNode(x.def) && traitOf(x.def).gives === 'rescales' && x.def.op !== 'softmax') {
      this.absorbed.set(node.output, node);
      this.classes.join(x, node.output);
    } else if (trait.gives === 'ties') {
      for (const operand of tiedOperands(node)) this.classes.join(operand, node.output);
    }
    if (node.op === 'add') this.keepOneReal(node);
  }

  private keepOneReal(node: Node): void {
    const { x, y } = node.inputs as { x: Value; y: Value };
    if (x === y) return;
    const position = (value: Value): number => (isNode(value.def) ? this.graph.nodes.indexOf(value.def) : -1);
    const candidates = [x, y].filter((value) => isNode(value.def) && accumulating.has(value.def.op) && this.soleUse(value)
      && sizeOf(value.type.shape) === sizeOf(node.output.type.shape));
    const latest = candidates.sort((p, q) => position(q) - position(p))[0];
    if (latest !== undefined) this.exact.add(latest);
  }

  /** The absorbed activation that reads a value, if there is one. */
  private activationOn(value: Value): Node | null {
    const [user] = this.users.get(value) ?? [];
    return user !== undefined && this.absorbed.has(user.output) ? user : null;
  }

  private soleUse(value: Value): boolean {
    return (this.users.get(value)?.length ?? 0) === 1 && !this.outputs.has(value);
  }

  private typesOfClasses(): Map<Value, TensorType> {
    const members = new Map<Value, Value[]>();
    const values = [...this.graph.inputs, ...this.graph.nodes.map(({ output }) => output)];
    for (const value of values) if (value.type.dtype === 'f32' && !this.exact.has(value)) {
      const root = this.classes.find(value);
      members.set(root, [...(members.get(root) ?? []), value]);
    }
    return new Map([...members].map(([root, list]) => [root, this.typeOfClass(list)]));
  }

  private typeOfClass(members: readonly Value[]): TensorType {
    const bytes = members.find((value) => value.def.op === 'input' && this.ranges.get(value.name)?.codes !== undefined);
    if (bytes !== undefined) return codesOfData(this.ranges.get(bytes.name)!.codes!);
    if (members.some((value) => isNode(value.def) && value.def.op === 'softmax')) return probabilities;
    const range = this.jointRange(members);
    if (members.some((value) => this.isWide(value))) return wideType(range);
    return narrowType(range, this.options.bits, members.some((value) => this.readSymmetric(value)));
  }

  /** The union of the members' ranges, each limited by the activation it went through. */
  private jointRange(members: readonly Value[]): Range {
    const replaced = new Set([...this.absorbed.values()].map((node) => (node.inputs as { x: Value }).x));
    const ranges = members.filter((value) => !replaced.has(value)).map((value) => this.rangeOf(value));
    return { low: Math.min(0, ...ranges.map(({ low }) => low)), high: Math.max(0, ...ranges.map(({ high }) => high)) };
  }

  private rangeOf(value: Value): Range {
    const found = this.ranges.get(value.name);
    if (found === undefined) throw new CompileError(errors.internal(`no range was measured for ${value.name}`), 'internal');
    const activation = this.absorbed.get(value);
    if (activation === undefined) return found;
    const { floor, ceiling } = activationBounds(activation);
    return { low: Math.max(found.low, floor), high: Math.min(found.high, ceiling) };
  }

  private isWide(value: Value): boolean {
    if (this.outputs.has(value) && this.options.outputBits === 16) return true;
    const users = this.users.get(value) ?? [];
    if (users.some((node) => node.op === 'softmax')) return true;
    if (this.options.residual === 'narrow') return false;
    if (isNode(value.def) && value.def.op === 'add' && users.some((node) => node.op === 'layer_norm')) return true;
    return users.some((node) => node.op === 'add') && (this.options.residual === 'wide' || this.onNormalizedStream(value));
  }

  /** Whether a chain of additions leads from the value to a LayerNorm, or from one to it. */
  private onNormalizedStream(value: Value): boolean {
    const users = this.users.get(value) ?? [];
    const ahead = users.some((node) => node.op === 'layer_norm' || (node.op === 'add' && this.onNormalizedStream(node.output)));
    return ahead || (isNode(value.def) && value.def.op === 'layer_norm');
  }

  private readSymmetric(value: Value): boolean {
    return (this.users.get(value) ?? []).some((node) => traitOf(node).reads === 'symmetric'
      || (traitOf(node).gives === 'ties' && this.readSymmetric(node.output)));
  }

  private narrowCopy(value: Value, symmetric: boolean): TensorType {
    const { low, high } = this.rangeOf(value);
    return withShape(narrowType({ low: Math.min(0, low), high: Math.max(0, high) }, this.options.bits, symmetric), value);
  }

  /** A constant operand of element-wise arithmetic becomes 16-bit codes; tables take the type of what is read from them. */
  private operand(node: Node, value: Value, now: (value: Value) => Value, b: Builder, typeOf: (value: Value) => TensorType): Value {
    const constant = constantOf(value);
    if (constant === null || constant.type.dtype !== 'f32') return now(value);
    if (traitOf(node).gives === 'ties') return b.constant(value.name, quantizeTensor(constant, withShape(typeOf(node.output), value)));
    if (node.op === 'add' || node.op === 'sub' || node.op === 'mul') {
      const largest = (constant.data as Float32Array).reduce((most, v) => Math.max(most, Math.abs(v)), 0);
      return b.constant(value.name, quantizeTensor(constant, withShape(symmetricType('i16', largest), value)));
    }
    return now(value);
  }
}

interface Range {
  readonly low: number;
  readonly high: number;
}

const activationBounds = (node: Node): { floor: number; ceiling: number } =>
  node.op === 'relu' ? { floor: 0, ceiling: Infinity } : { floor: node.attrs.low as number, ceiling: node.attrs.high as number };

const isNarrow = (type: TensorType): boolean => type.quant !== null && type.quant.low >= -128 && type.quant.high <= 255;

const withShape = (type: TensorType, value: Value): TensorType => tensorType(type.dtype, value.type.shape, type.quant);

/** A value that is 0 throughout, or too small for a float32 step, has step 1. */
const scaleFor = (span: number, codes: number): number => Math.fround(span / codes) || 1;

const symmetricType = (dtype: IntegerDType, largest: number, codes = rangeOf(dtype)[1]): TensorType =>
  tensorType(dtype, [], { kind: 'uniform', scale: scaleFor(largest, codes), zero: 0, axis: null, low: -codes, high: codes });

const wideType = (range: Range): TensorType => symmetricType('i16', Math.max(range.high, -range.low) * WIDE_HEADROOM);

const narrowType = (range: Range, bits: number, symmetric: boolean): TensorType => {
  const [low, high] = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1];
  if (symmetric) return symmetricType('i8', Math.max(range.high, -range.low), high);
  const scale = scaleFor(range.high - range.low, high - low);
  const zero = Math.min(high, Math.max(low, low - Math.floor(range.low / scale + 0.5)));
  return tensorType('i8', [], { kind: 'uniform', scale, zero, axis: null, low, high });
};

/** The type with its codes limited to what the activation lets through. */
const limited = (type: TensorType, activation: Node): TensorType => {
  const quant = type.quant as UniformQuant;
  const { floor, ceiling } = activationBounds(activation);
  const code = (real: number): number => quantizeReal(real, quant.scale as number, quant.zero as number, quant.low, quant.high);
  return tensorType(type.dtype, type.shape, { ...quant, low: code(floor), high: code(ceiling) });
};

/** Softmax results: 1 is code 65535, so the scale is the float32 next to 1/65535. */
const probabilities = tensorType('u16', [], { kind: 'uniform', scale: Math.fround(1 / 65535), zero: 0, axis: null, low: 0, high: 65535 });

/** Integer data that the caller hands in as it is: code = value. */
const codesOfData = (dtype: 'u8' | 'i16'): TensorType =>
  tensorType(dtype, [], { kind: 'uniform', scale: 1, zero: 0, axis: null, low: rangeOf(dtype)[0], high: rangeOf(dtype)[1] });

const tiedOperands = (node: Node): readonly Value[] => {
  if (node.op === 'gather') return [];
  const { x, xs } = node.inputs as { x?: Value; xs?: readonly Value[] };
  return [...(x ? [x] : []), ...(xs ?? [])].filter((value) => value.type.dtype === 'f32' && constantOf(value) === null);
};

const remember = <K, V>(map: Map<K, V>, key: K, value: V): V => { map.set(key, value); return value; };

/** Union-find. */
class Classes<T> {
  private readonly parent = new Map<T, T>();
  find(item: T): T {
    const up = this.parent.get(item);
    if (up === undefined) return item;
    const root = this.find(up);
    this.parent.set(item, root);
    return root;
  }
  join(a: T, b: T): void {
    const [p, q] = [this.find(a), this.find(b)];
    if (p !== q) this.parent.set(q, p);
  }
}
