/** Groups of channels that would share a scale. */

export interface Groups {
  /** positions at which groups end, in units of channels; the last is the number of channels */
  readonly ends: readonly number[];
  /** Σ over groups of size·range² */
  readonly cost: number;
}

/**
 * The cut of a rising list of ranges into at most `count` contiguous groups with the least Σ size·range², the range of a group being that of
 * its last member rounded up to `largest` divided by a power of two: groups can then be joined by shifts. Groups end at multiples of
 * `multiple`. By dynamic programming over the places where a group may end.
 */
export const bestGroups = (ranges: Float64Array, largest: number, count: number, multiple: number): Groups => {
  const total = ranges.length;
  const places = [0];
  for (let end = multiple; end < total; end += multiple) places.push(end);
  places.push(total);
  const costOf = (from: number, to: number): number => {
    const range = roundedUp(ranges[to - 1], largest);
    return (to - from) * range * range;
  };
  // least cost of the channels before a place in so many groups, and where the last of these groups begins
  let least = places.map((end, i) => (i === 0 ? 0 : costOf(0, end)));
  const begins: Int32Array[] = [new Int32Array(places.length)];
  for (let groups = 2; groups <= count; groups++) {
    const begin = begins[groups - 2].slice();
    const next = least.slice();
    for (let i = 1; i < places.length; i++) for (let j = 1; j < i; j++) {
      const cost = least[j] + costOf(places[j], places[i]);
      if (cost < next[i]) [next[i], begin[i]] = [cost, j];
    }
    begins.push(begin);
    least = next;
  }
  const ends: number[] = [];
  for (let i = places.length - 1, groups = count - 1; i > 0; groups--) {
    ends.unshift(places[i]);
    i = begins[Math.max(0, groups)][i];
  }
  return { ends, cost: least[places.length - 1] };
};

/** The least largest/2^k that is not below the range; 0 for channels that are always 0. */
const roundedUp = (range: number, largest: number): number => {
  if (range <= 0) return 0;
  let rounded = largest;
  while (rounded / 2 >= range) rounded /= 2;
  return rounded;
};
