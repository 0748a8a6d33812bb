/**
 * Gives every value its integer type: float graph → quant graph.
 *
 * Rules, in the order in which they decide:
 *  - a value read only by a ReLU or clip takes that activation's type, and the activation vanishes: saturation at the code of 0 (or
 *    of the bounds) is the activation, exactly;
 *  - the result of a convolution or linear map that only an addition reads stays real (`f32`): the kernel adds its accumulator to the
 *    other operand and rounds once; so does the result of an affine map by channels (`batch_norm`) that only an addition reads;
 *  - values that move elements without arithmetic (reshape, concat, max pool, …) share one type;
 *  - the residual stream, logits, graph outputs, and sums of linear maps that are added to further ones are 16 bits wide;
 *  - what is multiplied by weights is `bits` wide, and what is multiplied by another activation `attention` bits: these widths decide
 *    what a multiplier costs. Of 16 bits only so many codes are used that sums of products with 8-bit weights stay within 32 bits. The network's inputs (16 where 8 would
 *    drown what the first layer makes of them), what is made of them without weights before the first layers (embeddings, normalised), what
 *    the last layers read, pooled vectors, operands of tables and sums that passed no activation have 8;
 *  - widths chosen for a single layer (its attribute `widths`) stand in place of `bits` and `attention`;
 *  - a reader that wants fewer bits than a value has gets a copy (`quantize`);
 *  - attention and activation-by-activation products read symmetric codes, everything else affine ones: real = (code − zero)·scale.
 *
 *     %h = relu(%c)  →  %c = conv(…) : i8<0.0235, zero -128>[…]
 *
 * Ranges always hold 0, so that padding and ReLU are exact. Sources: Jacob et al. 2018 (affine codes); Yao et al. 2021, HAWQ-V3 (wide
 * residual stream); Banner et al. 2019, Post training 4-bit quantization (clipping below 8 bits pays more than it costs).
 */
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { constantOf, isNode, operandsOf, usersOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import { quantizeTensor } from '../ir/evaluate.ts';
import { int, oneOf, real } from '../ir/op.ts';
import { quantize, unaryOps, type FloatNode } from '../ir/ops/index.ts';
import { widthsOf } from '../ir/ops/widths.ts';
import { mapOperands } from '../ir/rewrite.ts';
import { Builder } from '../ir/build.ts';
import type { Tensor, TensorType } from '../ir/type.ts';
import { sizeOf } from '../ir/dim.ts';
import type { Range } from '../calibration/range.ts';
import { decibels } from '../calibration/metrics.ts';
import type { ChannelMoments, RangeRequest, ValueRange } from '../calibration/calibration.ts';
import { activationBounds, codesOfData, limitedType, narrowType, probabilities, symmetricType, unionOf, wideType, withShape } from './activation-types.ts';
import { keepOption, keptWidths } from './kept-layers.ts';
import { definePass } from './pass.ts';
import { UnionFind } from './union-find.ts';

export interface QuantizeActivationsOptions {
  readonly bits: number;
  readonly attention: number;
  readonly range: 'auto' | 'min-max' | 'percentile' | 'mse' | 'kl';
  readonly percentile: number;
  readonly residual: 'auto' | 'wide' | 'narrow';
  readonly outputBits: number;
  readonly keep: readonly string[];
}

export const quantizeActivations = definePass<'float', 'quant', QuantizeActivationsOptions>({
  name: 'quantize-activations',
  from: 'float',
  to: 'quant',
  summary: 'choose an integer type for every value from calibrated ranges',
  paper: 'Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference',
  changes: 'rounding to the chosen codes, saturation outside the calibrated range',
  options: {
    bits: int('width of what is multiplied by weights, 2 to 8 or 16', 8),
    attention: int('width of what is multiplied by other activations, 2 to 8', 8),
    range: oneOf('how the range of up to 8 bits is taken from the calibration data; auto is min-max for 8 bits and mse for fewer', ['auto', 'min-max', 'percentile', 'mse', 'kl'], 'auto'),
    percentile: real('share of values inside the range when range is percentile', 0.9999),
    residual: oneOf('width of sums that are added to again: wide is 16 bits; auto is wide where a LayerNorm reads the sum', ['auto', 'wide', 'narrow'], 'auto'),
    outputBits: int('width of graph outputs, 8 or 16', 16),
    keep: keepOption,
  },
  async run(graph, options, context) {
    const refused = nodesWithoutIntegerForm(graph);
    if (refused.length > 0) throw new CompileError(refused.map(errors.noIntegerForm), 'unsupported');
    const { calibration } = context;
    if (calibration === null) throw new CompileError(errors.needsData('quantize-activations'), 'usage');
    // where histograms will be wanted, one run gathers them together with the extremes
    const narrow = requestFor({ width: options.bits, symmetric: false }, options);
    if (narrow.method !== 'min-max') await calibration.ranges(graph, narrow);
    const extremes = await calibration.ranges(graph, requestFor(wide, options));
    const data = new Map([...extremes].flatMap(([name, { codes }]) => (codes === undefined ? [] : [[name, codes]])));
    const typing = new Typing(graph, options, data, await calibration.channelMoments(graph));
    const ranges = new Map([[keyOf(wide), extremes]]);
    for (const form of typing.forms()) ranges.set(keyOf(form), await calibration.ranges(graph, requestFor(form, options)));
    return typing.quantGraph(({ name }, form) => {
      const found = ranges.get(keyOf(form))?.get(name);
      if (found === undefined) throw new CompileError(errors.internal(`no range was measured for ${name}`), 'internal');
      return found;
    });
  },
});

/** What codes are like. */
interface Form {
  readonly width: number;
  readonly symmetric: boolean;
}
const keyOf = ({ width, symmetric }: Form): string => `${width}${symmetric ? ' symmetric' : ''}`;
const wide: Form = { width: 16, symmetric: true };

/** Values of 16 bits are never clipped: their codes are fine enough for the greatest number seen. */
const requestFor = ({ width, symmetric }: Form, { range, percentile }: QuantizeActivationsOptions): RangeRequest => ({
  method: width === 16 ? 'min-max' : range !== 'auto' ? range : width < 8 ? 'mse' : 'min-max',
  bits: width, percentile, form: symmetric ? 'symmetric' : 'affine',
});

/** How an op treats the types of its operands and of its result. */
interface Trait {
  /** `weights`: multiplied by weights; `activations`: by other activations, zero point 0; `table`: at most 8 bits; `any`: 8 or 16 bits */
  readonly reads: 'weights' | 'activations' | 'table' | 'any';
  /** `rescales`: any output type; `ties`: the type of its operand */
  readonly gives: 'rescales' | 'ties';
}
const rescales = (reads: Trait['reads']): Trait => ({ reads, gives: 'rescales' });
const ties: Trait = { reads: 'any', gives: 'ties' };

const unary = Object.fromEntries(unaryOps.map((op) => [op.name, rescales('table')])) as Record<(typeof unaryOps)[number]['name'], Trait>;
const traits: Readonly<Record<FloatNode['op'], Trait | null>> = {
  ...unary, relu: ties, clip: ties,
  conv: rescales('weights'), linear: rescales('weights'), matmul: rescales('activations'), attention: rescales('activations'),
  add: rescales('any'), sub: rescales('any'), mul: rescales('any'), batch_norm: rescales('any'), layer_norm: rescales('any'),
  softmax: rescales('any'), reduce_mean: rescales('any'), reduce_sum: rescales('any'), average_pool: rescales('any'),
  max_pool: ties, reduce_max: ties, reshape: ties, transpose: ties, slice: ties, concat: ties, pad: ties, gather: ties,
  quantize: rescales('any'), dequantize: rescales('any'),
  div: null, min: null, max: null, rms_norm: null, expand: null, where: null,
};
const accumulating: ReadonlySet<string> = new Set(['conv', 'linear', 'matmul']);
const pooling: ReadonlySet<string> = new Set(['reduce_mean', 'reduce_sum', 'average_pool']);
const elementwise: ReadonlySet<string> = new Set(['add', 'sub', 'mul']);
const functions: ReadonlySet<string> = new Set(unaryOps.map(({ name }) => name));

/** Nodes that no pass can turn into integers. */
export const nodesWithoutIntegerForm = (graph: Graph<'float'>): readonly Node[] =>
  graph.nodes.filter(({ op }) => ((traits as Readonly<Record<string, Trait | null>>)[op] ?? null) === null);

const traitOf = (node: Node): Trait => {
  const trait = (traits as Readonly<Record<string, Trait | null>>)[node.op] ?? null;
  if (trait === null) throw new CompileError(errors.noIntegerForm(node), 'unsupported');
  return trait;
};

type RangeOf = (value: Value, form: Form) => ValueRange;

/** Values that share a type. */
interface Class {
  readonly members: readonly Value[];
  readonly form: Form;
  /** the width at which all readers take it, where it costs too little to narrow it for some */
  readonly readAt: number | null;
}

class Typing {
  private readonly graph: Graph<'float'>;
  private readonly options: QuantizeActivationsOptions;
  /** graph inputs that the caller hands in as integers, and their type */
  private readonly data: ReadonlyMap<string, 'u8' | 'i16'>;
  private readonly moments: ReadonlyMap<string, ChannelMoments>;
  private readonly kept: (node: Node) => number | null;
  private readonly users: ReadonlyMap<Value, readonly Node[]>;
  private readonly outputs: ReadonlySet<Value>;
  /** what is made of the inputs before anything is multiplied by weights or by another activation */
  private readonly early: ReadonlySet<Value>;
  /** what reaches the outputs without being multiplied by weights or by another activation again */
  private readonly late: ReadonlySet<Value>;
  private readonly ties = new UnionFind<Value>();
  private readonly exact = new Set<Value>();
  private readonly absorbed = new Map<Value, Node>();
  private readonly classes: ReadonlyMap<Value, Class>;

  constructor(graph: Graph<'float'>, options: QuantizeActivationsOptions, data: ReadonlyMap<string, 'u8' | 'i16'>, moments: ReadonlyMap<string, ChannelMoments>) {
    this.graph = graph;
    this.options = options;
    this.data = data;
    this.moments = moments;
    this.kept = keptWidths(options.keep, graph);
    this.users = usersOf(graph);
    this.outputs = new Set(graph.outputs.map(({ value }) => value));
    this.early = beforeFirstLayers(graph);
    this.late = behindLastLayers(graph, this.users);
    for (const node of graph.nodes) this.decide(node);
    this.classes = this.classesOfValues();
  }

  /** The forms of all classes and of the copies made of them. */
  forms(): readonly Form[] {
    const copies = this.graph.nodes.flatMap((node) => operandsOf(node).flatMap((value) => this.copyForm(node, value) ?? []));
    return [...new Map([...[...this.classes.values()].map(({ form }) => form), ...copies].map((form) => [keyOf(form), form])).values()];
  }

  quantGraph(rangeOf: RangeOf): Graph<'quant'> {
    const types = new Map([...this.classes].map(([root, one]) => [root, this.typeOf(one, rangeOf)]));
    const typeOf = (value: Value): TensorType => types.get(this.ties.find(value)) ?? value.type;
    const b = new Builder();
    const renewed = new Map<Value, Value>();
    const copies = new Map<string, Value>();
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
      const read = (value: Value): Value => {
        const made = this.operand(node, value, now, b, typeOf);
        const form = this.copyForm(node, value);
        if (form === null) return made;
        const key = `${made.name} ${keyOf(form)}`;
        return copies.get(key) ?? remember(copies, key, b.emit(quantize, { x: made }, {},
          { name: `${made.name}.narrow`, type: withShape(narrowType(unionOf([this.rangeOf(value, form, rangeOf)]), form.width, form.symmetric), value) }));
      };
      const activation = this.activationOn(node.output);
      const codes = withShape(typeOf(node.output), node.output);
      const type = this.exact.has(node.output) ? node.output.type : activation === null ? codes : limitedType(codes, activation);
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
      this.ties.join(x, node.output);
    } else if (trait.gives === 'ties') {
      for (const operand of tiedOperands(node)) this.ties.join(operand, node.output);
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
    if (constantOf(x) !== null || constantOf(y) !== null) return;
    for (const value of [x, y]) if (isNode(value.def) && value.def.op === 'batch_norm' && this.soleUse(value)) this.exact.add(value);
  }

  /** The absorbed activation that reads a value, if there is one. */
  private activationOn(value: Value): Node | null {
    const [user] = this.users.get(value) ?? [];
    return user !== undefined && this.absorbed.has(user.output) ? user : null;
  }

  private soleUse(value: Value): boolean {
    return (this.users.get(value)?.length ?? 0) === 1 && !this.outputs.has(value);
  }

  private classesOfValues(): Map<Value, Class> {
    const members = new Map<Value, Value[]>();
    const values = [...this.graph.inputs, ...this.graph.nodes.map(({ output }) => output)];
    for (const value of values) if (value.type.dtype === 'f32' && !this.exact.has(value)) {
      const root = this.ties.find(value);
      members.set(root, [...(members.get(root) ?? []), value]);
    }
    return new Map([...members].map(([root, list]) => [root, this.classOf(list)]));
  }

  private classOf(members: readonly Value[]): Class {
    const readers = members.flatMap((value) => this.users.get(value) ?? []);
    const some = (has: (value: Value, def: Node | null) => boolean): boolean => members.some((value) => has(value, isNode(value.def) ? value.def : null));
    if (some((value) => narrowTable(value) !== null) && !some((_, def) => def === null || traitOf(def).gives !== 'ties')) return { members, form: { width: 8, symmetric: true }, readAt: null };
    if (some((_, def) => def?.op === 'softmax') || some((value) => this.isWide(value))) return { members, form: wide, readAt: null };
    if (members.some((value) => this.dataOf(value) === 'i16')) return { members, form: wide, readAt: 8 };
    const symmetric = readers.some((node) => traitOf(node).reads === 'activations');
    if (some(({ def }) => def.op === 'input') && members.some((value) => this.needsFineCodes(value))) return { members, form: wide, readAt: 16 };
    const cheap = some((value, def) => value.def.op === 'input' || (def !== null && pooling.has(def.op) && sizeOf(value.type.shape) === value.type.shape.at(-1)));
    if (cheap) return { members, form: { width: 8, symmetric }, readAt: 8 };
    const wanted = readers.flatMap((node) => this.wants(node) ?? []);
    const activated = some((value, def) => this.absorbed.has(value) || functions.has(def?.op ?? ''));
    const summed = !activated && readers.some((node) => elementwise.has(node.op) || this.isExactMap(node));
    const width = wanted.length === 0 || summed ? Math.max(8, ...wanted) : Math.max(...wanted);
    return { members, form: width > 8 ? wide : { width, symmetric }, readAt: null };
  }

  /** Whether 8-bit codes of a value would drown what the layers that read it make of its channels: one wide channel sets the step for all. */
  private needsFineCodes(value: Value): boolean {
    const seen = this.moments.get(value.name);
    if (seen === undefined) return false;
    const step = (Math.max(0, ...seen.high) - Math.min(0, ...seen.low)) / 255;
    return (this.users.get(value) ?? []).some((node) => {
      const weight = constantOf((node.inputs as { weight?: Value }).weight ?? null);
      if (weight === null || weight.type.dtype !== 'f32' || ((node.attrs['group'] as number | undefined) ?? 1) > 1) return false;
      const depth = weight.type.shape.at(-1) as number;
      let [signal, noise] = [0, 0];
      (weight.data as Float32Array).forEach((w, i) => {
        const c = i % depth;
        signal += w * w * Math.max(0, seen.squares[c] - seen.mean[c] * seen.mean[c]);
        noise += (w * w * step * step) / 12;
      });
      return decibels(signal, noise) < LEAST_INPUT_DB;
    });
  }

  private dataOf(value: Value): 'u8' | 'i16' | null {
    return value.def.op === 'input' ? this.data.get(value.name) ?? null : null;
  }

  /** The width at which a node reads what it multiplies or looks up; null for other nodes. */
  private wants(node: Node): number | null {
    // the first layers set what all others work on, nothing makes up for the last ones, and they are few: their inputs are 8 bits wide
    const outer = this.early.has((node.inputs as { x?: Value }).x as Value) || this.late.has(node.output);
    const widths = { weights: outer ? Math.max(8, this.options.bits) : this.options.bits, activations: this.options.attention, table: 8, any: null };
    return this.kept(node) ?? widthsOf(node)?.activations ?? widths[traitOf(node).reads];
  }

  /** The form of the copy that a node reads in place of a value; null where it reads the value itself. */
  private copyForm(node: Node, value: Value): Form | null {
    const one = this.classes.get(this.ties.find(value));
    const wanted = this.wants(node);
    if (one === undefined || wanted === null || value.def.op === 'const' || this.exact.has(value)) return null;
    const width = one.readAt ?? wanted;
    return one.form.width > width ? { width, symmetric: traitOf(node).reads === 'activations' } : null;
  }

  private typeOf({ members, form }: Class, rangeOf: RangeOf): TensorType {
    const data = members.find((value) => this.dataOf(value) !== null);
    if (data !== undefined) return codesOfData(this.dataOf(data)!);
    if (members.some((value) => isNode(value.def) && value.def.op === 'softmax')) return probabilities;
    // what an absorbed activation reads is gone: its result stands in its place
    const replaced = new Set([...this.absorbed.values()].map((node) => (node.inputs as { x: Value }).x));
    const range = unionOf([
      ...members.filter((value) => !replaced.has(value)).map((value) => this.rangeOf(value, form, rangeOf)),
      // rows that no sample looks up count too: narrow codes have no headroom
      ...members.flatMap((value) => extremesOf(narrowTable(value)) ?? []),
    ]);
    return form.width === 16 ? wideType(range, this.mostCodes(members)) : narrowType(range, form.width, form.symmetric);
  }

  /** The range of a value, limited by the activation that it went through. */
  private rangeOf(value: Value, form: Form, rangeOf: RangeOf): Range {
    const found = rangeOf(value, form);
    const activation = this.absorbed.get(value);
    if (activation === undefined) return found;
    const { floor, ceiling } = activationBounds(activation);
    return { low: Math.max(found.low, floor), high: Math.min(found.high, ceiling) };
  }

  /** The greatest 16-bit code with which no sum of a layer that reads the values as they are can leave 32 bits. */
  private mostCodes(members: readonly Value[]): number {
    const read = members.flatMap((value) => (this.users.get(value) ?? []).filter((node) => this.copyForm(node, value) === null));
    const gains = read.map((node) => codeGain(constantOf((node.inputs as { weight?: Value }).weight ?? null)));
    return Math.min(WIDEST_CODE, Math.floor(GREATEST_SUM / Math.max(1, ...gains)));
  }

  private isWide(value: Value): boolean {
    if (this.outputs.has(value) && this.options.outputBits === 16) return true;
    const users = this.users.get(value) ?? [];
    if (users.some((node) => node.op === 'softmax')) return true;
    if (users.length === 1 && this.isPartialSum(value) && users[0].op === 'add' && operandsOf(users[0]).every((operand) => this.isPartialSum(operand))) return true;
    if (this.options.residual === 'narrow') return false;
    if (isNode(value.def) && value.def.op === 'add' && users.some((node) => node.op === 'layer_norm')) return true;
    return users.some((node) => node.op === 'add' || this.isExactMap(node)) && (this.options.residual === 'wide' || this.onNormalizedStream(value));
  }

  /** A linear map, or a sum of nothing but linear maps, that only one node reads: a part of a product that was cut into groups. */
  private isPartialSum(value: Value): boolean {
    if (!isNode(value.def) || !this.soleUse(value)) return false;
    return value.def.op === 'linear' || (value.def.op === 'add' && operandsOf(value.def).every((operand) => this.isPartialSum(operand)));
  }

  /** An affine map that an addition takes in. */
  private isExactMap({ op, output }: Node): boolean {
    return op === 'batch_norm' && this.exact.has(output);
  }

  /** Whether a chain of additions leads from the value to a LayerNorm, or from one to it. */
  private onNormalizedStream(value: Value): boolean {
    const users = this.users.get(value) ?? [];
    const ahead = users.some((node) => node.op === 'layer_norm' || ((node.op === 'add' || this.isExactMap(node)) && this.onNormalizedStream(node.output)));
    return ahead || (isNode(value.def) && value.def.op === 'layer_norm');
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

/** Signal to rounding noise that inputs must have behind the first layer with 8-bit codes; else they take 16 bits. */
const LEAST_INPUT_DB = 30;

/** 2^31 with room for codes that round up and are refitted. */
const GREATEST_SUM = 0.8 * 2 ** 31;
const WIDEST_CODE = 2 ** 15 - 1;
/** Greatest Σ|q| over the rows of a weight whose largest number becomes the code 127; 0 without weights. */
const codeGain = (weight: Tensor | null): number => {
  if (weight === null || weight.type.dtype !== 'f32') return 0;
  const rows = weight.type.shape[0] as number;
  const length = weight.data.length / rows;
  let most = 0;
  for (let row = 0; row < rows; row++) {
    let [largest, sum] = [0, 0];
    for (let i = row * length; i < (row + 1) * length; i++) {
      const magnitude = Math.abs(weight.data[i] as number);
      largest = Math.max(largest, magnitude);
      sum += magnitude;
    }
    if (largest > 0) most = Math.max(most, (127 * sum) / largest + length / 2);
  }
  return most;
};

/** The table of a lookup whose codes are to have 8 bits. */
const narrowTable = ({ def }: Value): Tensor | null => (isNode(def) && def.op === 'gather' && def.attrs['bits'] === 8 ? constantOf(def.inputs['table'] as Value) : null);
const extremesOf = (table: Tensor | null): Range | null => {
  if (table === null) return null;
  let [low, high] = [0, 0];
  for (const v of table.data as Float32Array) { low = Math.min(low, v); high = Math.max(high, v); }
  return { low, high };
};

const beforeFirstLayers = (graph: Graph<'float'>): ReadonlySet<Value> => {
  const early = new Set<Value>(graph.inputs);
  const isEarly = (value: Value): boolean => early.has(value) || constantOf(value) !== null;
  for (const node of graph.nodes) {
    if (['weights', 'activations'].includes(traitOf(node).reads)) continue;
    if (operandsOf(node).every(isEarly)) early.add(node.output);
  }
  return early;
};

/** What reaches the outputs without weights or another activation in between. */
const behindLastLayers = (graph: Graph<'float'>, users: ReadonlyMap<Value, readonly Node[]>): ReadonlySet<Value> => {
  const late = new Set<Value>();
  for (const { output } of [...graph.nodes].reverse()) {
    if ((users.get(output) ?? []).every((node) => !['weights', 'activations'].includes(traitOf(node).reads) && late.has(node.output))) late.add(output);
  }
  return late;
};

const tiedOperands = (node: Node): readonly Value[] => {
  if (node.op === 'gather') return [];
  const { x, xs } = node.inputs as { x?: Value; xs?: readonly Value[] };
  return [...(x ? [x] : []), ...(xs ?? [])].filter((value) => value.type.dtype === 'f32' && constantOf(value) === null);
};

const remember = <K, V>(map: Map<K, V>, key: K, value: V): V => { map.set(key, value); return value; };
