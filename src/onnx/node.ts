/**
 * One ONNX node as its handler sees it: operands by position, attributes by name and type, and `emit` to make graph nodes under the
 * names of the ONNX outputs. Attributes that a handler does not read are reported.
 */
import { Builder } from '../ir/build.ts';
import { CompileError, quoteName } from '../ir/diagnostic.ts';
import { isStatic, isStaticShape, printDim, printShape, sizeOf, type Dim, type Shape } from '../ir/dim.ts';
import { errors } from '../ir/errors.ts';
import { foldNode } from '../ir/fold.ts';
import { constantOf, isNode, type Value } from '../ir/graph.ts';
import { Misuse, type OpDef, type Operands, type Site, type Slots } from '../ir/op.ts';
import { axisOf } from '../ir/ops/elements.ts';
import { tensorType, type Tensor } from '../ir/type.ts';
import { isKnown, known, moveKnown, type Known, type Term } from './known.ts';
import { attributeTypes, type AttributeProto, type GraphProto, type NodeProto, type TensorProto } from './schema.ts';
import { isRealType, readTensor, type ExternalData, type HostTensor } from './tensor.ts';

/** Thrown by `refuse`; the importer goes on and reports all refusals together. */
export class Refusal extends Error {}

/** Largest tensor that the graph may hold, in elements. */
export const MAX_VALUE_SIZE = 2 ** 31;

const utf8 = new TextDecoder();

export interface NodeContext {
  readonly builder: Builder;
  readonly externalData: ExternalData | null;
  /** operator set version of the node's domain */
  readonly version: number;
  /** opens a sub-graph in the scope of the node and returns its outputs */
  inline(graph: GraphProto): readonly Term[];
}

export class OnnxNode {
  readonly proto: NodeProto;
  readonly inputs: readonly (Term | null)[];
  readonly site: Site;
  /** `name (OpType)` */
  readonly place: string;
  private readonly context: NodeContext;
  private readonly attributes: ReadonlyMap<string, AttributeProto>;
  private readonly read = new Set<string>();

  constructor(proto: NodeProto, place: string, inputs: readonly (Term | null)[], context: NodeContext) {
    this.proto = proto;
    this.place = place;
    this.inputs = inputs;
    this.context = context;
    this.site = { origins: [place], passes: [] };
    this.attributes = new Map((proto.attribute ?? []).map((attribute) => [attribute.name ?? '', attribute]));
  }

  get opType(): string { return this.proto.opType ?? ''; }
  get version(): number { return this.context.version; }
  get builder(): Builder { return this.context.builder; }
  get outputCount(): number { return this.proto.output?.length ?? 0; }

  /** The model is wrong at this node. */
  fail(why: string): never { throw new CompileError(errors.badNode(why, this.place)); }
  /** The model may be right, but this form of the op is not supported. */
  refuse(why: string): never { throw new Refusal(why); }

  // ---- operands

  has(index: number): boolean { return (this.inputs[index] ?? null) !== null; }
  term(index: number): Term { return this.inputs[index] ?? this.fail(`${quoteName(this.opType)} lacks its input ${index}`); }
  optional(index: number): Term | null { return this.inputs[index] ?? null; }
  /** An operand as a graph value; known integers become a constant. */
  value(index: number): Value { return this.toValue(this.term(index)); }
  shape(index: number): Shape {
    const term = this.term(index);
    return isKnown(term) ? term.shape : term.type.shape;
  }
  rank(index: number): number { return this.shape(index).length; }
  /** The elements of a constant real operand. */
  constant(index: number): Tensor {
    const term = this.term(index);
    return (isKnown(term) ? null : constantOf(term)) ?? this.refuse(`input ${index} must be constant`);
  }
  /** One constant real number. */
  scalar(index: number): number {
    const term = this.term(index);
    const data = isKnown(term) ? this.numbers(index) : this.constant(index).data;
    return data.length === 1 ? Number(data[0]) : this.refuse(`input ${index} must be one number, not ${data.length}`);
  }
  known(index: number): Known {
    const term = this.term(index);
    return isKnown(term) ? term : this.refuse(`input ${index} must be known while compiling, but it is computed`);
  }
  /** Known sizes, perhaps symbolic. */
  dims(index: number): readonly Dim[] { return Array.from(this.known(index).data); }
  /** Known integers without symbols. */
  numbers(index: number): readonly number[] {
    return this.dims(index).map((dim) => (isStatic(dim) ? dim : this.refuse(`${printDim(dim)} must be a number; bind it with --dim`)));
  }
  /** A list that is an attribute in old versions and an input in new ones; null where absent. */
  intsFrom(attribute: string, input: number): readonly number[] | null {
    if (this.has(input)) return this.numbers(input);
    return this.attr(attribute) === null ? null : this.ints(attribute);
  }

  toValue(term: Term): Value {
    if (!isKnown(term)) return term;
    const data = Array.from(term.data, (dim) => (isStatic(dim) ? dim : this.refuse(`${printDim(dim)} is needed as a number; bind it with --dim`)));
    const bool = term.elementType === 'bool';
    if (!bool && data.some((value) => value !== (value | 0))) this.refuse('integers beyond 32 bits');
    const type = tensorType(bool ? 'bool' : 'i32', term.shape);
    return this.builder.constant(this.derivedName('known'), { type, data: bool ? Uint8Array.from(data) : Int32Array.from(data) });
  }
  realConstant(shape: readonly number[], data: ArrayLike<number>, stem = 'constant'): Value {
    return this.builder.constant(this.derivedName(stem), { type: tensorType('f32', shape), data: Float32Array.from(data) });
  }

  // ---- attributes

  private attr(name: string): AttributeProto | null {
    this.read.add(name);
    return this.attributes.get(name) ?? null;
  }
  private field<K extends 'f' | 'i' | 's' | 't' | 'g' | 'ints' | 'floats' | 'strings'>(name: string, field: K): NonNullable<AttributeProto[K]> | null {
    const attribute = this.attr(name);
    if (attribute === null) return null;
    const declared = attribute.type === undefined || attribute.type === 0 ? field : attributeTypes[attribute.type];
    if (declared !== field) return this.fail(`attribute ${quoteName(name)} has the wrong type`);
    const value = attribute[field];
    if (value === undefined && (field === 'ints' || field === 'floats' || field === 'strings')) return [] as never;
    return value ?? this.fail(`attribute ${quoteName(name)} has no value`);
  }
  private checked(name: string, value: number | bigint): number {
    return typeof value === 'number' ? value : this.fail(`attribute ${quoteName(name)}: ${value} is too large`);
  }
  int(name: string, fallback?: number): number {
    const value = this.field(name, 'i');
    if (value !== null) return this.checked(name, value);
    return fallback ?? this.fail(`attribute ${quoteName(name)} is missing`);
  }
  ints(name: string, fallback?: readonly number[]): readonly number[] {
    const value = this.field(name, 'ints');
    if (value !== null) return value.map((one) => this.checked(name, one));
    return fallback ?? this.fail(`attribute ${quoteName(name)} is missing`);
  }
  /** Integers of any size, cut to the safe range: the ends of slices use the greatest integer for "to the end". */
  clampedInts(name: string): readonly number[] | null {
    return this.field(name, 'ints')?.map((one) => Number(one)) ?? null;
  }
  float(name: string, fallback?: number): number {
    return this.field(name, 'f') ?? fallback ?? this.fail(`attribute ${quoteName(name)} is missing`);
  }
  string(name: string, fallback?: string): string {
    const value = this.field(name, 's');
    return value === null ? (fallback ?? this.fail(`attribute ${quoteName(name)} is missing`)) : utf8.decode(value);
  }
  strings(name: string): readonly string[] { return (this.field(name, 'strings') ?? []).map((text) => utf8.decode(text)); }
  tensor(name: string): HostTensor | null {
    const proto: TensorProto | null = this.field(name, 't');
    return proto === null ? null : readTensor(proto, this.context.externalData);
  }
  floats(name: string): readonly number[] | null { return this.field(name, 'floats'); }
  graph(name: string): GraphProto { return this.field(name, 'g') ?? this.fail(`attribute ${quoteName(name)} is missing`); }
  inline(graph: GraphProto): readonly Term[] { return this.context.inline(graph); }
  hasAttr(name: string): boolean { return this.attr(name) !== null; }
  /** Attributes that change nothing for a frozen model. */
  ignore(...names: readonly string[]): void { names.forEach((name) => this.read.add(name)); }
  unread(): readonly string[] { return [...this.attributes.keys()].filter((name) => !this.read.has(name)); }

  axis(axis: number, rank: number): number {
    const normal = axis < 0 ? axis + rank : axis;
    return Number.isInteger(normal) && normal >= 0 && normal < rank ? normal : this.fail(`axis ${axis} is outside a tensor of rank ${rank}`);
  }
  axes(axes: readonly number[], rank: number): readonly number[] { return axes.map((axis) => axisOf(axis, rank)); }

  // ---- results

  outputName(index: number): string { return this.proto.output?.[index] || this.derivedName(`output${index}`); }
  private derivedName(stem: string): string { return `${this.proto.output?.find((name) => name !== '') ?? this.opType}.${stem}`; }

  /** A tensor from the file as a term: reals become constants of the graph, integers and booleans stay known. */
  tensorTerm({ elementType, shape, data }: HostTensor, name: string): Term {
    if (!isRealType(elementType)) return known(elementType, shape, data);
    return this.builder.constant(name, { type: tensorType('f32', shape), data: data as Float32Array });
  }

  /**
   * A node of the graph. `as` is the output it stands for, or the stem of an intermediate name. Nodes of constants are evaluated at
   * once.
   */
  emit<N extends string, O extends Operands, A extends object>(
    decl: OpDef<N, O, A>, inputs: Slots<O, Value>, attrs: { readonly [K in keyof A]?: A[K] } = {}, as: number | string = 0,
  ): Value {
    const name = typeof as === 'number' ? this.outputName(as) : this.derivedName(as);
    const value = this.builder.emit(decl, inputs, attrs, { name, site: this.site });
    const { shape } = value.type;
    if (isStaticShape(shape) && sizeOf(shape) > MAX_VALUE_SIZE) {
      throw new CompileError(errors.tooLarge(`${quoteName(name)} [${printShape(shape)}]`, sizeOf(shape), MAX_VALUE_SIZE, this.place));
    }
    return (isNode(value.def) && foldNode(value.def)) || value;
  }

  /** A layout op on terms: known integers stay known when all operands are. */
  move<N extends string, O extends Operands, A extends object>(
    decl: OpDef<N, O, A>, inputs: Slots<O, Term>, attrs: A, as: number | string = 0,
  ): Term {
    const terms = Object.values(inputs as Readonly<Record<string, Term | readonly Term[]>>).flat() as readonly Term[];
    if (!terms.every(isKnown)) {
      const values = Object.entries(inputs as Readonly<Record<string, Term | readonly Term[]>>).map(([slot, one]) =>
        [slot, Array.isArray(one) ? one.map((term: Term) => this.toValue(term)) : this.toValue(one as Term)]);
      return this.emit(decl, Object.fromEntries(values) as Slots<O, Value>, attrs, as);
    }
    try {
      return moveKnown(decl, inputs as Slots<O, Known>, attrs);
    } catch (cause) {
      if (cause instanceof Misuse) return this.fail(cause.message);
      throw cause;
    }
  }
}

/** Makes the outputs of one ONNX node; null for an output that nothing may read. */
export type Handler = (node: OnnxNode) => Term | readonly (Term | null)[];
export type Handlers = Readonly<Record<string, Handler>>;
