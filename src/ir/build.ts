/**
 * The Builder is the only way to make nodes: a mutable draft that checks operands and attributes against the declaration, infers
 * types, keeps names unique, and freezes the result.
 */
import { CompileError } from './diagnostic.ts';
import { errors } from './errors.ts';
import type { Constant, Graph, Input, Node, Output, Stage, Value } from './graph.ts';
import { isNode, operandsOf } from './graph.ts';
import { Misuse, noSite, type AnyOpDef, type OpDef, type Operands, type Site, type Slots } from './op.ts';
import { realType, type Tensor, type TensorType } from './type.ts';

export interface EmitOptions {
  readonly name?: string;
  /** The value that this one replaces: its name is taken over. */
  readonly replaces?: Value;
  readonly site?: Site;
  /** The output type where it says more than inference does: the quantised type at the quant stage. Its shape must agree. */
  readonly type?: TensorType;
}
type RequiredAttrs<A> = { readonly [K in keyof A]?: A[K] };

export class Builder {
  private readonly names = new Set<string>();
  private readonly draft: Node[] = [];
  private readonly graphInputs: Value[] = [];
  /** site given to nodes that are emitted without one */
  site: Site = noSite;

  /** `stem`, or `stem.1`, `stem.2`, … when taken. */
  uniqueName(stem: string): string {
    let name = stem;
    for (let n = 1; this.names.has(name); n++) name = `${stem}.${n}`;
    this.names.add(name);
    return name;
  }

  /** Keeps the names of values that another graph already uses, so that `uniqueName` avoids them. */
  reserve(names: Iterable<string>): void {
    for (const name of names) this.names.add(name);
  }

  input(name: string, type: TensorType): Value {
    this.names.add(name);
    const value: Value = Object.freeze({ name, type, def: Object.freeze<Input>({ op: 'input' }) });
    this.graphInputs.push(value);
    return value;
  }

  constant(stem: string, tensor: Tensor): Value {
    return Object.freeze({ name: this.uniqueName(stem), type: tensor.type, def: Object.freeze<Constant>({ op: 'const', tensor }) });
  }

  emit<N extends string, O extends Operands, A extends object>(
    decl: OpDef<N, O, A>, inputs: Slots<O, Value>, attrs: RequiredAttrs<A> = {}, { name, replaces, site = this.site, type }: EmitOptions = {},
  ): Value {
    const full = completeAttrs(decl, attrs, site);
    const inferred = inferType(decl, inputs, full, site);
    const output = { name: replaces?.name ?? this.uniqueName(name ?? decl.name), type: type ?? inferred, def: null as unknown as Node };
    const node: Node = { op: decl.name, inputs: Object.freeze({ ...inputs }), attrs: full as Readonly<Record<string, unknown>>, decl, output, site };
    output.def = node;
    Object.freeze(output);
    this.draft.push(Object.freeze(node));
    return output;
  }

  /** The node on other operands of the same types: name and site stay, and what is not given anew. */
  copy(node: Node, inputs: Node['inputs'], type: TensorType = node.output.type, attrs: Node['attrs'] = node.attrs): Value {
    this.names.add(node.output.name);
    const output = { name: node.output.name, type, def: null as unknown as Node };
    output.def = Object.freeze({ ...node, attrs, inputs: Object.freeze({ ...inputs }), output });
    this.draft.push(output.def);
    return Object.freeze(output);
  }

  /** Takes over a node whose operands are unchanged, without remaking it. */
  adopt(node: Node): Value {
    this.draft.push(node);
    this.names.add(node.output.name);
    return node.output;
  }

  /** Drops nodes that no output needs and freezes. Inputs stay even when unused: they are the interface. */
  finish<S extends Stage>(stage: S, name: string, outputs: readonly Output[]): Graph<S> {
    const live = new Set<Node>();
    const mark = (value: Value): void => { if (isNode(value.def)) live.add(value.def); };
    outputs.forEach(({ value }) => mark(value));
    for (let i = this.draft.length - 1; i >= 0; i--) if (live.has(this.draft[i])) operandsOf(this.draft[i]).forEach(mark);
    return Object.freeze({
      stage, name, inputs: Object.freeze([...this.graphInputs]),
      nodes: Object.freeze(this.draft.filter((node) => live.has(node))), outputs: Object.freeze([...outputs]),
    });
  }
}

const completeAttrs = (decl: AnyOpDef, given: object, site: Site): object => {
  const full: Record<string, unknown> = {};
  for (const key of Object.keys(given)) {
    if (!(key in decl.attrs)) throw new CompileError(errors.misusedOp(decl.name, `it has no attribute "${key}"`, site), 'model');
  }
  for (const [key, attr] of Object.entries<AnyOpDef['attrs'][string]>(decl.attrs)) {
    const value = (given as Record<string, unknown>)[key] ?? attr.fallback;
    if (!attr.check(value)) throw new CompileError(errors.misusedOp(decl.name, `attribute "${key}" must be ${attr.expected}`, site));
    full[key] = value;
  }
  return Object.freeze(full);
};

const inferType = (decl: AnyOpDef, inputs: Readonly<Record<string, unknown>>, attrs: object, site: Site): TensorType => {
  const types: Record<string, unknown> = {};
  const seen = (value: Value): TensorType => (decl.reads === 'codes' ? value.type : realType(value.type));
  for (const [slot, arity] of Object.entries<string>(decl.operands)) {
    const operand = inputs[slot] as Value | null | undefined | readonly Value[];
    if (arity === 'one' && !operand) throw new CompileError(errors.misusedOp(decl.name, `operand "${slot}" is missing`, site));
    types[slot] = operand === null || operand === undefined ? null
      : Array.isArray(operand) ? (operand as readonly Value[]).map(seen) : seen(operand as Value);
  }
  try {
    return decl.infer(types as never, attrs as never);
  } catch (cause) {
    if (cause instanceof Misuse) throw new CompileError(errors.misusedOp(decl.name, cause.message, site));
    throw cause;
  }
};
