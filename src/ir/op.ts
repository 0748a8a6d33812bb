/**
 * Ops. Each is declared once with `defineOp`: operands by name, typed attributes, shape inference and the reference meaning. Every
 * table over ops (lowering, schedules, emission) is a mapped type over the declarations, so a missing arm does not compile.
 */
import type { Tensor, TensorType } from './type.ts';
import type { Builder } from './build.ts';
import type { Node, Value } from './graph.ts';

/** Required, possibly absent (null), or any number of operands. */
export type Arity = 'one' | 'optional' | 'many';
export type Operands = Readonly<Record<string, Arity>>;
export type Slot<A extends Arity, T> = A extends 'one' ? T : A extends 'optional' ? T | null : readonly T[];
export type Slots<O extends Operands, T> = { readonly [K in keyof O]: Slot<O[K], T> };

/** One attribute: documented, with its default (undefined = required), and its check. Values print and parse as JSON, bigint as digits + `n`. */
export interface Attr<T> {
  readonly doc: string;
  readonly fallback: T | undefined;
  readonly check: (value: unknown) => value is T;
  readonly expected: string;
}
export type Attrs<A> = { readonly [K in keyof A]: Attr<A[K]> };

const attr = <T>(expected: string, check: (value: unknown) => boolean) => (doc: string, fallback?: T): Attr<T> =>
  ({ doc, fallback, expected, check: check as (value: unknown) => value is T });
const isInt = (value: unknown): boolean => Number.isSafeInteger(value);
const isReal = (value: unknown): boolean => typeof value === 'number' && !Number.isNaN(value);
export const int = attr<number>('an integer', isInt);
export const ints = attr<readonly number[]>('a list of integers', (value) => Array.isArray(value) && value.every(isInt));
export const int64 = attr<bigint>('a 64-bit integer', (value) => typeof value === 'bigint' && BigInt.asIntN(64, value) === value);
export const real = attr<number>('a number', isReal);
export const flag = attr<boolean>('true or false', (value) => typeof value === 'boolean');
export const word = attr<string>('a word', (value) => typeof value === 'string');
export const oneOf = <const T extends string>(doc: string, choices: readonly T[], fallback?: T): Attr<T> =>
  attr<T>(choices.join(' or '), (value) => (choices as readonly unknown[]).includes(value))(doc, fallback);

/** Where an op stands, for messages; `fail` throws a CompileError that names the ONNX node. */
export interface Site {
  /** ONNX nodes this came from, as `name (OpType)`, oldest first */
  readonly origins: readonly string[];
  /** passes that remade it, in order */
  readonly passes: readonly string[];
}
export const noSite: Site = { origins: [], passes: [] };
export const joinSites = (...sites: readonly Site[]): Site => ({
  origins: [...new Set(sites.flatMap((site) => site.origins))],
  passes: [...new Set(sites.flatMap((site) => site.passes))],
});

export interface OpDef<N extends string = string, O extends Operands = Operands, A extends object = object> {
  readonly name: N;
  readonly summary: string;
  readonly operands: O;
  readonly attrs: Attrs<A>;
  /** What `infer` sees of a quantised operand: the real numbers that it stands for, or, for kernels, its integer codes. */
  readonly reads?: 'codes';
  /** Shape and dtype of the output. Throws `Misuse` with a sentence where operands or attributes do not fit. */
  infer(inputs: Slots<O, TensorType>, attrs: A): TensorType;
  /**
   * The reference meaning. Float ops read and write real numbers in Float32Array (inner sums in float64); kernel ops read and
   * write integer codes, and define the result for every backend bit by bit.
   */
  evaluate(inputs: Slots<O, Tensor>, attrs: A, type: TensorType): Tensor;
  /** For ops of plugins: the same value in core ops. `expand-plugin-ops` calls it at the float stage. */
  readonly lower?: (node: Node, b: Builder) => Value;
}
/** An op seen without its type parameters. */
export type AnyOpDef = OpDef<string, any, any>;

export const defineOp = <const N extends string, const O extends Operands, A extends object>(def: OpDef<N, O, A>): OpDef<N, O, A> => Object.freeze(def);

/** Thrown by `infer` when an op is misused; the caller adds the node and turns it into a diagnostic. */
export class Misuse extends Error {}
export const misuse = (message: string): never => { throw new Misuse(message); };

/** The node of a declaration, with named operands and typed attributes. */
export type NodeOf<D> = D extends OpDef<infer N, infer O, infer A>
  ? { readonly op: N; readonly inputs: Slots<O, Value>; readonly attrs: A; readonly decl: D; readonly output: Value; readonly site: Site }
  : never;

/** A table with exactly one entry for each op of a union of nodes. */
export type Arms<Node extends { readonly op: string }, R> = { readonly [K in Node['op']]: (node: Extract<Node, { readonly op: K }>) => R };
