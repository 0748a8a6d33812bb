/** Made-up inputs: speed does not depend on what is computed, as long as every code lies in its range. */
import { allocate, type TypedArray } from '../ir/dtype.ts';
import type { Port } from '../backends/interface.ts';
import { createRandom } from '../numerics/random.ts';

/** Plain integers, such as token indices, stay below this. */
const MOST_INDEX = 128;

/** Codes over the whole range of a port; the same on every call. */
export const madeUpCodes = ({ dtype, elements, scale, low, high }: Pick<Port, 'dtype' | 'elements' | 'scale' | 'low' | 'high'>): TypedArray => {
  const random = createRandom(1);
  const [least, most] = scale === null ? [Math.max(0, low), Math.min(high, MOST_INDEX - 1)] : [low, high];
  const codes = allocate(dtype, elements);
  for (let i = 0; i < elements; i++) {
    const code = least + random.below(most - least + 1);
    codes[i] = dtype === 'i64' ? BigInt(code) : code;
  }
  return codes;
};
