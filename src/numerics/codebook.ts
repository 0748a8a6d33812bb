/**
 * Codebooks for weights: 2^b levels for all rows of a matrix, each row with a step of its own. Values u of rows scaled alike, with
 * importances p, get levels ℓ of small Σ p·(u − ℓ(u))² by Lloyd's iteration: bounds midway between neighbours, levels at the means of what
 * lies between. It begins with levels as dense as the cube root of the values, which is best where there are many of them (Panter and Dite
 * 1951). One level is 0, and all are integers times a unit.
 *
 * Sources: Lloyd 1982, Least squares quantization in PCM; Kim et al. 2024, SqueezeLLM (values weighted by the curvature of the loss).
 */

/** Greatest magnitude of a level: 7 bits with sign, so that the sum of two products with bytes fits 16 bits. */
export const GREATEST_LEVEL = 63;
/** Values are gathered in as many bins between the least and the greatest; fine enough for 16 levels of 7 bits. */
const BINS = 4096;
const ROUNDS = 200;
/** Share of the greatest value that no level moves any more when the iteration ends. */
const SETTLED = 1e-6;

export interface Codebook {
  /** ascending, with 0 among them */
  readonly levels: Int8Array;
  /** a level of 1 in units of the values */
  readonly unit: number;
}

/** Values of one row, scaled like all others, and how much an error in each counts. */
export interface WeightedValues {
  readonly values: Float64Array;
  readonly importances: Float64Array;
}

export const codebookFor = (rows: readonly WeightedValues[], bits: number): Codebook => {
  let greatest = 0;
  for (const { values } of rows) for (const value of values) greatest = Math.max(greatest, Math.abs(value));
  if (greatest === 0) return { levels: Int8Array.of(0), unit: 1 };
  const [mass, moment] = [new Float64Array(BINS), new Float64Array(BINS)];
  for (const { values, importances } of rows) {
    values.forEach((value, k) => {
      const bin = Math.min(BINS - 1, Math.floor(((value / greatest + 1) / 2) * BINS));
      mass[bin] += importances[k];
      moment[bin] += importances[k] * value;
    });
  }
  const levels = lloyd(mass, moment, greatest, 2 ** bits);
  const unit = levels.reduce((most, level) => Math.max(most, Math.abs(level)), 0) / GREATEST_LEVEL;
  if (unit === 0) return { levels: Int8Array.of(0), unit: 1 };
  return { levels: Int8Array.from(new Set(Array.from(levels, (level) => Math.round(level / unit)))).sort(), unit };
};

/** Levels of little error for values in bins over [−greatest, greatest]. */
const lloyd = (mass: Float64Array, moment: Float64Array, greatest: number, count: number): Float64Array => {
  const centre = (bin: number): number => (((bin + 0.5) / BINS) * 2 - 1) * greatest;
  const density = mass.map(cubeRoot);
  const whole = density.reduce((sum, one) => sum + one, 0);
  const levels = new Float64Array(count);
  for (let bin = 0, found = 0, sum = 0; bin < BINS; bin++) {
    sum += density[bin];
    while (found < count && sum >= ((found + 0.5) / count) * whole) levels[found++] = centre(bin);
  }
  const zero = levels.reduce((best, level, i) => (Math.abs(level) < Math.abs(levels[best]) ? i : best), 0);
  levels[zero] = 0;
  for (let round = 0, moved = Infinity; round < ROUNDS && moved > SETTLED * greatest; round++) {
    moved = 0;
    for (let i = 0, bin = 0; i < count; i++) {
      const bound = i === count - 1 ? Infinity : (levels[i] + levels[i + 1]) / 2;
      let [own, sum] = [0, 0];
      for (; bin < BINS && centre(bin) < bound; bin++) { own += mass[bin]; sum += moment[bin]; }
      if (own === 0 || i === zero) continue;
      moved = Math.max(moved, Math.abs(sum / own - levels[i]));
      levels[i] = sum / own;
    }
  }
  return levels;
};

/** By Newton's iteration, so that it is the same number on every machine; x ≥ 0. */
const cubeRoot = (x: number): number => {
  if (x <= 0) return 0;
  let root = 1;
  // a power of two near the root makes up for any size of x
  while (root * root * root < x) root *= 2;
  while (root * root * root > x) root /= 2;
  for (let i = 0; i < 6; i++) root = (2 * root + x / (root * root)) / 3;
  return root;
};
