/** The state of one lowering: what each quantised value has become, and how accumulators are rounded. */
import type { Builder } from '../../ir/build.ts';
import { CompileError } from '../../ir/diagnostic.ts';
import { staticShape } from '../../ir/dim.ts';
import type { IntegerDType } from '../../ir/dtype.ts';
import { errors, placeOf } from '../../ir/errors.ts';
import { constantOf, type Node, type Value } from '../../ir/graph.ts';
import { requantize } from '../../ir/ops/kernel-requantize.ts';
import type { OutputDType } from '../../ir/ops/kernel-checks.ts';
import { scaleOf, zeroOf, type UniformQuant } from '../../ir/quant.ts';
import { tensor, tensorType, type TensorType } from '../../ir/type.ts';
import { chooseDyadic } from '../../numerics/choose-dyadic.ts';
import type { WeightForm } from '../../numerics/power-weights.ts';
import type { PassContext } from '../pass.ts';

/** Codes of a quantised type. */
export interface Codes {
  readonly kind: 'codes';
  readonly value: Value;
}
/** 32-bit sums: real = factor[c]·(acc − zero[c]) + offset[c], c the index on the last axis. */
export interface Sum {
  readonly kind: 'sum';
  readonly value: Value;
  readonly factors: Float64Array;
  /** integers: what the zero points of the operands add up to */
  readonly zeros: Float64Array;
  readonly offsets: Float64Array;
  /** proven interval of the accumulator, for each channel */
  readonly low: Float64Array;
  readonly high: Float64Array;
}
export type Lowered = Codes | Sum;

export interface SoftmaxOptions {
  readonly form: WeightForm;
  readonly bits: number;
}

export class Lowering {
  readonly b: Builder;
  readonly context: PassContext;
  private readonly lowered = new Map<Value, Lowered>();
  private readonly constants = new Map<Value, Value>();
  private readonly exponentialTables = new Map<string, Value>();
  /** what weights of attention are rounded to */
  readonly softmax: SoftmaxOptions;

  constructor(b: Builder, context: PassContext, softmax: SoftmaxOptions) {
    this.b = b;
    this.context = context;
    this.softmax = softmax;
  }

  define(value: Value, lowered: Lowered): void {
    this.lowered.set(value, lowered);
  }

  /** Takes the result of a node, rounding a sum where the node's type is quantised. */
  finish(node: Node, result: Lowered): void {
    const type = node.output.type;
    if (type.quant === null && result.kind === 'codes' && type.dtype === 'f32') throw new CompileError(errors.noIntegerForm(node), 'unsupported');
    this.define(node.output, type.quant !== null && result.kind === 'sum' ? { kind: 'codes', value: this.round(result, node) } : result);
  }

  of(value: Value): Lowered {
    const found = this.lowered.get(value);
    if (found !== undefined) return found;
    const constant = constantOf(value);
    if (constant === null) throw new CompileError(errors.internal(`${value.name} was not lowered`), 'internal');
    const made = this.constants.get(value) ?? this.b.constant(value.name, constant);
    this.constants.set(value, made);
    return { kind: 'codes', value: made };
  }

  codes(value: Value): Value {
    const found = this.of(value);
    if (found.kind !== 'codes') throw new CompileError(errors.internal(`${value.name} is read as codes but was left as a sum`), 'internal');
    return found.value;
  }

  /** clamp((acc·M + C) >> s) to the type of the node's output, with its name. */
  round({ value, factors, zeros, offsets, low, high }: Sum, node: Node): Value {
    const type = node.output.type;
    const quant = type.quant as UniformQuant;
    const scale = scaleOf(quant);
    const chosen = chooseDyadic({
      scales: factors.map((f) => f / scale), zeros, offsets: offsets.map((o) => o / scale), least: low, greatest: high,
      zero: zeroOf(quant), low: quant.low, high: quant.high,
    });
    if (chosen === null) throw new CompileError(errors.cannotRescale(placeOf(node.site) ?? node.output.name), 'model');
    return this.b.emit(requantize, {
      x: value, mul: this.words(`${node.output.name}.mul`, chosen.mul), add: this.longs(`${node.output.name}.add`, chosen.add),
    }, { shift: chosen.shift, preShift: chosen.preShift, low: quant.low, high: quant.high, to: outputDType(type) }, { replaces: node.output, type });
  }

  words(name: string, data: Int32Array): Value {
    return this.b.constant(name, tensor(tensorType('i32', [data.length]), data));
  }
  /** A table of exponentials, one for all attentions of the graph that have the same. */
  exponentials(table: Int16Array): Value {
    const key = table.join();
    const known = this.exponentialTables.get(key);
    if (known !== undefined) return known;
    const made = this.b.constant('exp', tensor(tensorType('i16', [table.length]), table));
    this.exponentialTables.set(key, made);
    return made;
  }
  longs(name: string, data: BigInt64Array): Value {
    return this.b.constant(name, tensor(tensorType('i64', [data.length]), data));
  }
}

/** The storage of a quantised type as a kernel writes it. */
export const outputDType = (type: TensorType): OutputDType => type.dtype as OutputDType;
export const integerDType = (type: TensorType): IntegerDType => type.dtype as IntegerDType;

export const quantOf = (value: Value): UniformQuant => value.type.quant as UniformQuant;

/** Size of the last axis, 1 for a scalar. */
export const channelsOf = (value: Value): number => staticShape(value.type.shape).at(-1) ?? 1;

/** A codes value seen as a sum: real = scale·(code − zero) on every channel. */
export const asSum = (value: Value): Sum => {
  const quant = quantOf(value);
  const channels = channelsOf(value);
  const fill = (x: number): Float64Array => new Float64Array(channels).fill(x);
  return { kind: 'sum', value, factors: fill(scaleOf(quant)), zeros: fill(zeroOf(quant)), offsets: fill(0), low: fill(quant.low), high: fill(quant.high) };
};
