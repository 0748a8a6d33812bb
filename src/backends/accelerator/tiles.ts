/** A shape cut into boxes that are contiguous in row-major order, each of at most so many elements. */
export interface Tile {
  readonly start: readonly number[];
  readonly counts: readonly number[];
  /** row-major index of the first element */
  readonly offset: number;
  readonly size: number;
}

/** `whole`: trailing axes that are never cut; null where even these do not fit. */
export const tilesOf = (shape: readonly number[], most: number, whole: number): readonly Tile[] | null => {
  const suffix = [...shape, 1];
  for (let i = shape.length - 1; i >= 0; i--) suffix[i] = shape[i] * suffix[i + 1];
  const fixed = shape.length - Math.min(whole, shape.length);
  if (suffix[fixed] > most) return null;
  let axis = fixed;
  while (axis > 0 && suffix[axis - 1] <= most) axis--;
  if (axis === 0) return [{ start: shape.map(() => 0), counts: shape, offset: 0, size: suffix[0] }];
  // axis − 1 is cut, into pieces of nearly equal size
  const pieces = Math.ceil(shape[axis - 1] / Math.floor(most / suffix[axis]));
  const step = Math.ceil(shape[axis - 1] / pieces);
  const tiles: Tile[] = [];
  const outer = shape.slice(0, axis - 1);
  const index = outer.map(() => 0);
  for (let at = 0, total = outer.reduce((product, dim) => product * dim, 1); at < total; at++) {
    for (let from = 0; from < shape[axis - 1]; from += step) {
      const count = Math.min(step, shape[axis - 1] - from);
      tiles.push({
        start: [...index, from, ...shape.slice(axis).map(() => 0)], counts: [...outer.map(() => 1), count, ...shape.slice(axis)],
        offset: at * suffix[axis - 1] + from * suffix[axis], size: count * suffix[axis],
      });
    }
    for (let i = index.length - 1; i >= 0 && ++index[i] === outer[i]; i--) index[i] = 0;
  }
  return tiles;
};
