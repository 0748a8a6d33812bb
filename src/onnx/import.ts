/**
 * ONNX model -> float graph. Nodes are taken in topological order, each by the handler of its op; integers that depend on shapes
 * alone are computed on the way and leave no nodes. What is not supported is collected and reported together.
 */
import { Builder } from '../ir/build.ts';
import { CompileError, quoteName, type Diagnostic } from '../ir/diagnostic.ts';
import { equalDims, printShape, symbol, type Dim, type Shape } from '../ir/dim.ts';
import { errors, warnings as warningTexts } from '../ir/errors.ts';
import type { Graph, Output } from '../ir/graph.ts';
import { tensorType } from '../ir/type.ts';
import { isKnown, type Term } from './known.ts';
import { MAX_VALUE_SIZE, OnnxNode, Refusal, type NodeContext } from './node.ts';
import { handlers } from './ops/index.ts';
import { decodeModel, fromProtoObject, unknownFieldsOf } from './protobuf.ts';
import { elementTypes, type AttributeProto, type FunctionProto, type GraphProto, type ModelProto, type NodeProto, type ValueInfoProto } from './schema.ts';
import { isIntegerType, isRealType, readTensor, type ExternalData } from './tensor.ts';

export interface ImportOptions {
  /** sizes of symbolic dimensions */
  readonly dims?: Readonly<Record<string, number>>;
  /** whole shapes of inputs */
  readonly shapes?: Readonly<Record<string, readonly number[]>>;
  /** a value that becomes the only output; what lies behind it is not read */
  readonly cutAt?: string;
  /** reads external weight data: location relative to the model, offset, length */
  readonly externalData?: ExternalData;
}
export interface Imported {
  readonly graph: Graph<'float'>;
  readonly warnings: readonly Diagnostic[];
}

/** Newest operator set whose ops were checked against their specification. */
const NEWEST_OPSET = 25;
/** Deepest nesting of functions and branches that is followed. */
const MAX_SCOPES = 32;

/** Names of one graph or function body; `outer` is the graph around it. */
interface Scope {
  readonly terms: Map<string, Term | 'unavailable'>;
  readonly outer: Scope | null;
  readonly opsets: ReadonlyMap<string, number>;
  /** attributes of the call, for a function body */
  readonly attributes: ReadonlyMap<string, AttributeProto> | null;
  readonly depth: number;
}

/** Imports a model from its bytes, or from a ModelProto object of ours or of `onnx-proto`. */
export const importModel = (model: Uint8Array | object, options: ImportOptions = {}): Imported => {
  try {
    return new Importer(model instanceof Uint8Array ? decodeModel(model) : fromProtoObject(model), options).run();
  } catch (cause) {
    if (cause instanceof CompileError) throw cause;
    // A damaged file must never end in a stack trace: what its checks let through is still a fault of the model's data.
    if (cause instanceof RangeError || cause instanceof TypeError) throw new CompileError(errors.brokenModel(`the model cannot be read: ${cause.message}`));
    throw cause;
  }
};

class Importer {
  private readonly model: ModelProto;
  private readonly options: ImportOptions;
  private readonly builder = new Builder();
  private readonly warnings: Diagnostic[] = [];
  private readonly functions: ReadonlyMap<string, FunctionProto>;
  /** op and reason → places */
  private readonly refused = new Map<string, { readonly op: string; readonly why: string | null; readonly places: string[] }>();
  private readonly usedDims = new Set<string>();

  constructor(model: ModelProto, options: ImportOptions) {
    this.model = model;
    this.options = options;
    this.functions = new Map((model.functions ?? []).map((one) => [functionKey(one.domain, one.name, one.overload), one]));
  }

  run(): Imported {
    const { model } = this;
    const graph = model.graph ?? this.broken('the file holds no graph');
    const unknown = unknownFieldsOf(model);
    if (unknown.length > 0) this.warnings.push(warningTexts.unknownFields(unknown));
    const opsets = opsetsOf(model.opsetImport ?? []);
    const version = opsets.get('') ?? this.broken('the model does not name its operator set');
    if (version > NEWEST_OPSET) this.warnings.push(warningTexts.newerOpset(version, NEWEST_OPSET));
    const scope: Scope = { terms: new Map(), outer: null, opsets, attributes: null, depth: 0 };
    const outputs = this.outputNames(graph);
    const live = liveNodes(orderNodes(graph.node ?? [], (why, at) => this.broken(why, at)), outputs);
    const wanted = new Set([...outputs, ...live.flatMap(readNames)]);
    this.readInitializers(graph, scope, wanted);
    this.readInputs(graph, scope);
    this.checkBindings(graph);
    for (const node of live) this.importNode(node, scope);
    this.reportRefused();
    return { graph: this.builder.finish('float', graph.name || 'model', this.readOutputs(graph, scope, outputs)), warnings: this.warnings };
  }

  private broken(why: string, at: string | null = null): never { throw new CompileError(errors.brokenModel(why, at)); }

  private outputNames(graph: GraphProto): readonly string[] {
    const produced = (): string[] => (graph.node ?? []).flatMap(({ output }) => output ?? []).filter((name) => name !== '');
    if (this.options.cutAt !== undefined) {
      const { cutAt } = this.options;
      if (!produced().includes(cutAt)) throw new CompileError(errors.badBinding(`--cut-at: the model computes no value ${quoteName(cutAt)}`, nearest(cutAt, produced())), 'usage');
      return [cutAt];
    }
    const names = (graph.output ?? []).map(({ name }) => name ?? '');
    if (names.length === 0) this.broken('the graph has no outputs');
    const repeated = names.find((name, i) => names.indexOf(name) !== i);
    if (repeated !== undefined) this.broken(`two outputs are called ${quoteName(repeated)}`);
    return names;
  }

  private readInitializers(graph: GraphProto, scope: Scope, wanted: ReadonlySet<string>): void {
    if ((graph.sparseInitializer ?? []).length > 0) this.refuse('sparse initializer', null, graph.sparseInitializer?.[0].values?.name ?? '');
    const seen = new Set<string>();
    for (const proto of graph.initializer ?? []) {
      const name = proto.name ?? '';
      if (name === '') this.broken('an initializer has no name');
      if (seen.has(name)) this.broken(`two initializers are called ${quoteName(name)}`);
      seen.add(name);
      if (!wanted.has(name)) continue;
      if (elementTypes[proto.dataType ?? 0] === 'string') {
        this.refuse('string tensor', null, name);
        scope.terms.set(name, 'unavailable');
        continue;
      }
      const tensor = readTensor(proto, this.options.externalData ?? null);
      scope.terms.set(name, isRealType(tensor.elementType)
        ? this.builder.constant(name, { type: tensorType('f32', tensor.shape), data: tensor.data as Float32Array })
        : { elementType: tensor.elementType, shape: tensor.shape, data: tensor.data });
    }
  }

  private readInputs(graph: GraphProto, scope: Scope): void {
    const initialized = new Set((graph.initializer ?? []).map(({ name }) => name));
    const seen = new Set<string>();
    for (const info of graph.input ?? []) {
      const name = info.name ?? '';
      if (name === '') this.broken('a graph input has no name');
      if (seen.has(name)) this.broken(`two inputs are called ${quoteName(name)}`);
      seen.add(name);
      // Before IR version 4 every initializer is listed as an input too.
      if (initialized.has(name)) continue;
      const type = info.type?.tensorType;
      if (type === undefined) {
        this.refuse('graph input that is no tensor', null, name);
        scope.terms.set(name, 'unavailable');
        continue;
      }
      const element = elementTypes[type.elemType ?? 0];
      const dtype = isRealType(element) ? 'f32' : isIntegerType(element) ? 'i32' : element === 'bool' ? 'bool' : null;
      if (dtype === null) {
        this.refuse('graph input', `elements of type ${element ?? type.elemType}`, name);
        scope.terms.set(name, 'unavailable');
        continue;
      }
      scope.terms.set(name, this.builder.input(name, tensorType(dtype, this.inputShape(info))));
    }
  }

  private inputShape(info: ValueInfoProto): Shape {
    const name = info.name ?? '';
    const declaredShape = info.type?.tensorType?.shape;
    const declared = declaredShape && (declaredShape.dim ?? []);
    const given = this.options.shapes?.[name];
    if (given !== undefined) {
      if (given.some((size) => !Number.isSafeInteger(size) || size < 1)) throw new CompileError(errors.badBinding(`--shape ${name}: sizes must be positive integers`, []), 'usage');
      const agrees = declared === undefined || (declared.length === given.length && declared.every(({ dimValue }, i) => dimValue === undefined || dimValue === given[i] || Number(dimValue) < 1));
      if (!agrees) throw new CompileError(errors.badBinding(`--shape ${name}: the model declares [${declared?.map((dim) => dim.dimParam ?? dim.dimValue ?? '?').join(', ')}]`, []), 'usage');
    }
    if (declared === undefined && given === undefined) return this.broken(`input ${quoteName(name)} has no shape`, 'give one with --shape');
    const shape = (given ?? declared ?? []).map((dim, axis): Dim => {
      if (typeof dim === 'number') return dim;
      if (typeof dim.dimValue === 'number' && dim.dimValue > 0) return dim.dimValue;
      if (typeof dim.dimValue === 'bigint') return this.broken(`input ${quoteName(name)} has a size of ${dim.dimValue}`);
      const param = dim.dimParam || `${name}.${axis}`;
      this.usedDims.add(param);
      const size = this.options.dims?.[param];
      if (size === undefined) return symbol(param);
      if (!Number.isSafeInteger(size) || size < 1) throw new CompileError(errors.badBinding(`--dim ${param}: the size must be a positive integer`, []), 'usage');
      return size;
    });
    const size = shape.reduce<number>((all, dim) => all * (typeof dim === 'number' ? dim : 1), 1);
    if (size > MAX_VALUE_SIZE) throw new CompileError(errors.tooLarge(`input ${quoteName(name)}`, size, MAX_VALUE_SIZE));
    return shape;
  }

  private checkBindings(graph: GraphProto): void {
    const inputs = new Set((graph.input ?? []).map(({ name }) => name ?? ''));
    for (const name of Object.keys(this.options.shapes ?? {})) {
      if (!inputs.has(name)) throw new CompileError(errors.badBinding(`--shape: the model has no input ${quoteName(name)}`, [...inputs]), 'usage');
    }
    const declared = new Set((graph.input ?? []).flatMap(({ type }) => type?.tensorType?.shape?.dim ?? []).map(({ dimParam }) => dimParam ?? ''));
    for (const name of Object.keys(this.options.dims ?? {})) {
      if (!this.usedDims.has(name) && !declared.has(name)) throw new CompileError(errors.badBinding(`--dim: the model has no dimension ${quoteName(name)}`, [...this.usedDims]), 'usage');
    }
  }

  private readOutputs(graph: GraphProto, scope: Scope, names: readonly string[]): readonly Output[] {
    const declared = new Map([...(graph.output ?? []), ...(graph.valueInfo ?? [])].map((info) => [info.name, info.type?.tensorType?.shape?.dim]));
    return names.map((name) => {
      const term = scope.terms.get(name) ?? this.broken(`nothing computes the output ${quoteName(name)}`);
      if (term === 'unavailable') {
        throw new CompileError(errors.unsupportedNodes(this.unusedOutputs.get(name) ?? name, 'it is an output of the model', [name]), 'unsupported');
      }
      if (isKnown(term)) return this.broken(`the output ${quoteName(name)} does not depend on data: it is known while compiling`);
      const dims = declared.get(name);
      const wrong = dims !== undefined && (dims.length !== term.type.shape.length
        || dims.some(({ dimValue }, i) => typeof dimValue === 'number' && dimValue > 0 && typeof term.type.shape[i] === 'number' && !equalDims(dimValue, term.type.shape[i])));
      if (wrong) this.warnings.push(warningTexts.declaredShape(name, dims.map((dim) => dim.dimParam ?? dim.dimValue ?? '?').join(', '), printShape(term.type.shape)));
      return { name, value: term };
    });
  }

  // ---- nodes

  private importNode(proto: NodeProto, scope: Scope): void {
    const place = placeOf(proto);
    const names = (proto.input ?? []).map((name) => (name === '' ? null : this.lookUp(name, scope, place)));
    const outputs = proto.output ?? [];
    const poison = (): void => outputs.forEach((name) => scope.terms.set(name, 'unavailable'));
    const domain = normalDomain(proto.domain);
    const op = domain === '' ? proto.opType ?? '' : `${domain}.${proto.opType}`;
    const body = this.functions.get(functionKey(proto.domain, proto.opType, proto.overload));
    const handler = Object.hasOwn(handlers, op) ? handlers[op] : undefined;
    if (body === undefined && handler === undefined) {
      this.refuse(op, null, placeName(proto));
      return poison();
    }
    if (names.includes('unavailable')) return poison();
    const inputs = names as readonly (Term | null)[];
    const results = body !== undefined ? this.callFunction(body, proto, inputs, scope, place) : this.callHandler(handler as NonNullable<typeof handler>, op, proto, inputs, scope, place);
    if (results === null) return poison();
    outputs.forEach((name, i) => {
      if (name === '') return;
      if (scope.terms.has(name)) this.broken(`${quoteName(name)} is computed twice`, place);
      scope.terms.set(name, results[i] ?? 'unavailable');
      if ((results[i] ?? null) === null) this.unusedOutputs.set(name, `output ${i} of ${place}`);
    });
  }
  /** outputs that handlers do not provide, such as a dropout mask: an error only where something reads them */
  private readonly unusedOutputs = new Map<string, string>();

  private callHandler(
    handler: (node: OnnxNode) => Term | readonly (Term | null)[], op: string, proto: NodeProto, inputs: readonly (Term | null)[], scope: Scope, place: string,
  ): readonly (Term | null)[] | null {
    const attribute = (proto.attribute ?? []).flatMap((one): readonly AttributeProto[] => {
      if (!one.refAttrName) return [one];
      const given = scope.attributes?.get(one.refAttrName);
      return given === undefined ? [] : [{ ...given, name: one.name ?? '' }];
    });
    const domain = normalDomain(proto.domain);
    const version = scope.opsets.get(domain) ?? this.broken(`the model does not say which version of the operator set ${quoteName(domain)} it uses`, place);
    const context: NodeContext = {
      builder: this.builder, externalData: this.options.externalData ?? null, version,
      inline: (graph) => this.inlineGraph(graph, scope, place),
    };
    const node = new OnnxNode({ ...proto, attribute }, place, inputs, context);
    try {
      const result = handler(node);
      const left = node.unread();
      if (left.length > 0) this.warnings.push(warningTexts.ignoredAttributes(place, left));
      return Array.isArray(result) ? (result as readonly (Term | null)[]) : [result as Term];
    } catch (cause) {
      if (cause instanceof Refusal) {
        this.refuse(op, cause.message, placeName(proto));
        return null;
      }
      if (cause instanceof RangeError || cause instanceof TypeError) throw new CompileError(errors.badNode(`the node cannot be read: ${cause.message}`, place));
      throw cause;
    }
  }

  private callFunction(body: FunctionProto, call: NodeProto, inputs: readonly (Term | null)[], scope: Scope, place: string): readonly (Term | null)[] | null {
    if (scope.depth >= MAX_SCOPES) return this.broken('functions call each other without end', place);
    const attributes = new Map<string, AttributeProto>([
      ...(body.attributeProto ?? []).map((one) => [one.name ?? '', one] as const), ...(call.attribute ?? []).map((one) => [one.name ?? '', one] as const),
    ]);
    const inner: Scope = { terms: new Map(), outer: null, opsets: new Map([...scope.opsets, ...opsetsOf(body.opsetImport ?? [])]), attributes, depth: scope.depth + 1 };
    (body.input ?? []).forEach((name, i) => { if (inputs[i]) inner.terms.set(name, inputs[i]); });
    return this.runBody(body.node ?? [], body.output ?? [], inner, call.name || placeName(call));
  }

  private inlineGraph(graph: GraphProto, scope: Scope, place: string): readonly Term[] {
    if (scope.depth >= MAX_SCOPES) return this.broken('branches nest without end', place);
    const inner: Scope = { terms: new Map(), outer: scope, opsets: scope.opsets, attributes: scope.attributes, depth: scope.depth + 1 };
    const outputs = (graph.output ?? []).map(({ name }) => name ?? '');
    this.readInitializers(graph, inner, new Set((graph.initializer ?? []).map(({ name }) => name ?? '')));
    const results = this.runBody(graph.node ?? [], outputs, inner, place);
    if (results === null || results.includes(null)) throw new Refusal('its branch holds what is not supported');
    return results as readonly Term[];
  }

  private runBody(nodes: readonly NodeProto[], outputs: readonly string[], scope: Scope, place: string): readonly (Term | null)[] | null {
    const live = liveNodes(orderNodes(nodes, (why, at) => this.broken(why, at)), outputs);
    for (const node of live) this.importNode({ ...node, name: `${place}/${node.name || node.output?.[0] || node.opType}` }, scope);
    const results = outputs.map((name) => this.lookUp(name, scope, place));
    return results.includes('unavailable') ? null : (results as readonly Term[]);
  }

  private lookUp(name: string, scope: Scope, place: string): Term | 'unavailable' | null {
    for (let at: Scope | null = scope; at !== null; at = at.outer) {
      const term = at.terms.get(name);
      if (term === 'unavailable' && this.unusedOutputs.has(name)) this.refuse('unused output', this.unusedOutputs.get(name) ?? null, name);
      if (term !== undefined) return term;
    }
    // An optional input that the caller of a function left out.
    if (scope.attributes !== null && scope.outer === null) return null;
    return this.broken(`${quoteName(name)} is read but nothing computes it`, place);
  }

  private refuse(op: string, why: string | null, place: string): void {
    const key = `${op}\0${why ?? ''}`;
    const entry = this.refused.get(key);
    if (entry === undefined) this.refused.set(key, { op, why, places: [place] });
    else entry.places.push(place);
  }
  private reportRefused(): void {
    if (this.refused.size === 0) return;
    const list = [...this.refused.values()].sort((a, b) => (a.op < b.op ? -1 : a.op > b.op ? 1 : b.places.length - a.places.length));
    throw new CompileError(list.map(({ op, why, places }) => errors.unsupportedNodes(op, why, places)), 'unsupported');
  }
}

const normalDomain = (domain: string | undefined): string => (domain === 'ai.onnx' ? '' : domain ?? '');
const opsetsOf = (list: NonNullable<ModelProto['opsetImport']>): ReadonlyMap<string, number> =>
  new Map(list.map(({ domain, version }) => [normalDomain(domain), Number(version ?? 0)]));
const functionKey = (domain: string | undefined, name: string | undefined, overload: string | undefined): string =>
  `${normalDomain(domain)}\0${name ?? ''}\0${overload ?? ''}`;

const placeName = (node: NodeProto): string => node.name || node.output?.find((name) => name !== '') || '(unnamed)';
/** `name (OpType)`; nodes without a name go by their first output. */
const placeOf = (node: NodeProto): string => `${placeName(node)} (${node.opType || '?'})`;

/** Names a node reads, those of its sub-graphs included. */
const readNames = (node: NodeProto): readonly string[] => [
  ...(node.input ?? []).filter((name) => name !== ''),
  ...(node.attribute ?? []).flatMap(({ g, graphs }) => [...(g ? [g] : []), ...(graphs ?? [])]).flatMap((graph) =>
    [...(graph.node ?? []).flatMap(readNames), ...(graph.output ?? []).map(({ name }) => name ?? '')]),
];

/** Nodes in topological order, files out of order included. Reports double definitions and cycles. */
const orderNodes = (nodes: readonly NodeProto[], broken: (why: string, at: string) => never): readonly NodeProto[] => {
  const producer = new Map<string, number>();
  nodes.forEach((node, i) => {
    for (const name of node.output ?? []) {
      if (name === '') continue;
      if (producer.has(name)) broken(`${quoteName(name)} is computed by two nodes`, placeOf(node));
      producer.set(name, i);
    }
  });
  const order: NodeProto[] = [];
  const state = new Uint8Array(nodes.length);
  for (let start = 0; start < nodes.length; start++) {
    // Depth-first with an explicit stack: a long chain must not exhaust the call stack. 1 = open, 2 = done.
    const stack = [start];
    while (stack.length > 0) {
      const at = stack[stack.length - 1];
      if (state[at] === 2) { stack.pop(); continue; }
      const waiting = readNames(nodes[at]).map((name) => producer.get(name)).filter((i): i is number => i !== undefined && state[i] !== 2);
      if (waiting.length === 0) {
        state[at] = 2;
        order.push(nodes[at]);
        stack.pop();
        continue;
      }
      state[at] = 1;
      for (const i of waiting) if (state[i] === 1) broken('the node depends on its own result', placeOf(nodes[i])); else stack.push(i);
    }
  }
  return order;
};

const liveNodes = (nodes: readonly NodeProto[], outputs: readonly string[]): readonly NodeProto[] => {
  const wanted = new Set(outputs);
  const live: NodeProto[] = [];
  for (let i = nodes.length - 1; i >= 0; i--) {
    if (!(nodes[i].output ?? []).some((name) => wanted.has(name))) continue;
    live.push(nodes[i]);
    readNames(nodes[i]).forEach((name) => wanted.add(name));
  }
  return live.reverse();
};

const nearest = (name: string, known: readonly string[]): readonly string[] => {
  const lower = name.toLowerCase();
  const alike = known.filter((one) => one.toLowerCase().includes(lower) || lower.includes(one.toLowerCase()));
  return alike.length > 0 ? alike : known;
};
