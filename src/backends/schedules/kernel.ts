/** What a schedule returns: a loop function and what its parameters are bound to in one step of the program. */
import type { Value } from '../../ir/graph.ts';
import { staticShape } from '../../ir/dim.ts';
import { isSigned, storageBytes, type DType } from '../../ir/dtype.ts';
import type { Tensor } from '../../ir/type.ts';
import { constantOf } from '../../ir/graph.ts';
import { limitsOf } from '../../loops/build.ts';
import type { Contents, Elem, Fn } from '../../loops/types.ts';
import type { Step } from '../group.ts';
import type { Target } from './target.ts';

/** What a buffer parameter stands for: a value of the graph, packed constants, or memory used during this step only. */
export type Binding =
  | { readonly kind: 'value'; readonly value: Value }
  | { readonly kind: 'constant'; readonly name: string; readonly data: Contents }
  | { readonly kind: 'scratch'; readonly e: Elem; readonly length: number };

export interface Kernel {
  readonly fn: Fn;
  /** one for each buffer parameter */
  readonly buffers: readonly Binding[];
  /** one for each scalar parameter */
  readonly values: readonly (number | bigint)[];
}

export interface ScheduleContext {
  readonly target: Target;
  /** the operand whose memory the result takes over, or null */
  readonly inPlace: Value | null;
  /** The function made by `build`, or the one made before for this stem under an equal key: layers of one shape class share code. */
  readonly share: <K>(stem: string, key: K, build: (name: string, key: K) => Fn) => Fn;
}
export type Schedule = (step: Step, context: ScheduleContext) => Kernel;

const wordElems = { i16: 'i16', u16: 'u16', i32: 'i32', u32: 'u32', i64: 'i64' } as const;
/** The element that stores codes of a dtype: narrow codes take a byte. */
export const elemOf = (dtype: DType): Elem =>
  storageBytes(dtype) === 1 ? (isSigned(dtype) ? 'i8' : 'u8') : wordElems[dtype as keyof typeof wordElems];

/** Least and greatest value of an element of at most 32 bits. */
export const limits = (e: Elem): readonly [number, number] => {
  const [low, high] = limitsOf(e);
  return [Number(low), Number(high)];
};

export const shapeOf = (value: Value): readonly number[] => staticShape(value.type.shape);
export const product = (numbers: readonly number[]): number => numbers.reduce((a, b) => a * b, 1);

/** The tensor of an operand that the op requires to be constant. */
export const constant = (value: Value): Tensor => {
  const tensor = constantOf(value);
  if (tensor === null) throw new RangeError(`"${value.name}" must be constant`);
  return tensor;
};

/** An operand as it stands in memory: computed, or a constant in its natural order. */
export const operand = (value: Value): Binding => {
  const tensor = constantOf(value);
  return tensor === null ? { kind: 'value', value } : { kind: 'constant', name: value.name, data: tensor.data as Contents };
};
export const packed = (name: string, data: Contents): Binding => ({ kind: 'constant', name, data });
export const scratch = (e: Elem, length: number): Binding => ({ kind: 'scratch', e, length });

/** A zeroed list of the same element. */
export const emptyLike = <T extends Contents>(list: T, length: number): T =>
  new (list.constructor as unknown as { new(length: number): T })(length);

/** One entry for each of `count` channels; a single entry is repeated. */
export const perChannel = <T extends Contents>(list: T, count: number): T =>
  list.length === count ? list : emptyLike(list, count).fill(list[0] as never) as T;
