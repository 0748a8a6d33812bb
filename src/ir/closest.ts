/** Suggestions for misspelt names. */

/** The nearest known name within a third of its length, by edit distance; null when nothing is near. */
export const closest = (name: string, known: readonly string[]): string | null => {
  const ranked = known.map((candidate) => [editDistance(name, candidate), candidate] as const).sort(([a], [b]) => a - b);
  const best = ranked[0];
  return best !== undefined && best[0] <= Math.max(2, best[1].length / 3) ? best[1] : null;
};
const editDistance = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const above = row;
    row = [i];
    for (let j = 1; j <= b.length; j++) row[j] = Math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
  }
  return row[b.length];
};
