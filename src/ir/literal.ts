/** Short forms of constants in the text: `splat(v)`, `iota`, and `random(seed: n)` for tests. */
import { createRandom } from '../numerics/random.ts';
import { sizeOf } from './dim.ts';
import { allocate, bitsOf, rangeOf, type IntegerDType, type TypedArray } from './dtype.ts';
import type { Tensor, TensorType } from './type.ts';

/** Constants of up to so many elements are written element by element. */
export const INLINE_LENGTH = 32;
/** Random integers wider than it are drawn from this many bits, so that sums of them stay small. */
const RANDOM_BITS = 16;

const filled = (type: TensorType, at: (index: number) => number | bigint): TypedArray => {
  const data = allocate(type.dtype, sizeOf(type.shape));
  for (let i = 0; i < data.length; i++) data[i] = at(i);
  return data;
};
/** An integer as the element type wants it. */
const element = (dtype: string, value: number): number | bigint => (dtype === 'i64' ? BigInt(value) : value);

export const splat = (type: TensorType, value: number | bigint): TypedArray => filled(type, () => value);
export const iota = (type: TensorType): TypedArray => filled(type, (i) => element(type.dtype, i));

const recipes = new WeakMap<TypedArray, string>();
/** Uniform codes of the type's range, or real numbers in [−1, 1): the same for the same seed everywhere. Remembers that it was so made. */
export const random = (type: TensorType, seed: number): TypedArray => {
  const source = createRandom(seed);
  const { dtype, quant } = type;
  const data = filled(type, () => {
    if (dtype === 'f32') return source.uniform() * 2 - 1;
    const [low, high] = quant !== null ? [quant.low, quant.high]
      : bitsOf(dtype) <= RANDOM_BITS ? rangeOf(dtype as IntegerDType) : [-(2 ** (RANDOM_BITS - 1)), 2 ** (RANDOM_BITS - 1) - 1];
    return element(dtype, low + source.below(high - low + 1));
  });
  recipes.set(data, `random(seed: ${seed})`);
  return data;
};

/** A number as the text writes it: the fewest digits that read back as the same double. */
export const printNumber = (value: number): string =>
  Number.isNaN(value) ? 'nan' : value === Infinity ? 'inf' : value === -Infinity ? '-inf' : Object.is(value, -0) ? '-0' : String(value);

/** A float32 value with the fewest digits that read back as it. */
export const printFloat32 = (value: number): string => {
  for (let digits = 1; digits <= 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return printNumber(Object.is(value, -0) ? -0 : short);
  }
  return printNumber(value);
};

export const printElement = (dtype: string, value: number | bigint): string =>
  typeof value === 'bigint' ? String(value) : dtype === 'f32' ? printFloat32(value) : String(value);

/** The short text of a constant, or null where it has to go to the side file. */
export const literalOf = ({ type, data }: Tensor): string | null => {
  const made = recipes.get(data);
  if (made !== undefined) return made;
  const same = (i: number): boolean => Object.is(data[i], data[0]);
  const each = (test: (i: number) => boolean): boolean => {
    for (let i = 0; i < data.length; i++) if (!test(i)) return false;
    return true;
  };
  if (data.length > 4 && each(same)) return `splat(${printElement(type.dtype, data[0])})`;
  if (data.length > 4 && each((i) => Number(data[i]) === i)) return 'iota';
  return data.length > INLINE_LENGTH ? null : `[${Array.from(data as ArrayLike<number>, (value) => printElement(type.dtype, value)).join(', ')}]`;
};
