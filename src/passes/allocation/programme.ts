/**
 * The multiple-choice knapsack behind bit allocation: each group of tied layers takes exactly one of its options, every resource stays
 * within its limit, and the summed loss is least.
 *
 *     min Σ_g Σ_o loss[g,o]·x[g,o]   s.t.   Σ_o x[g,o] = 1,   Σ_g Σ_o usage[g,o,r]·x[g,o] ≤ limit[r],   x ∈ {0, 1}
 *
 * A peak, such as the arena, is one resource for each moment that may be the peak. Sources: Yao et al. 2021, HAWQ-V3; Hubara et al.
 * 2021, CalibTIP.
 */
export interface Choice {
  /** what is chosen, for reports: `w4a8` */
  readonly name: string;
  readonly loss: number;
  /** what it takes of each resource, in the order of `limits` */
  readonly usage: readonly number[];
}
export interface Group {
  readonly name: string;
  readonly choices: readonly Choice[];
}
export interface Limit {
  readonly resource: string;
  readonly most: number;
  /** what is spent beside the choices, already taken off `most`; for messages */
  readonly fixed?: number;
}
export interface Programme {
  readonly groups: readonly Group[];
  readonly limits: readonly Limit[];
}

/** One choice for each group, by index. */
export type Assignment = readonly number[];

export const lossOf = ({ groups }: Programme, assignment: Assignment): number =>
  groups.reduce((sum, { choices }, g) => sum + choices[assignment[g]].loss, 0);

export const usageOf = ({ groups, limits }: Programme, assignment: Assignment): readonly number[] =>
  limits.map((_, r) => groups.reduce((sum, { choices }, g) => sum + choices[assignment[g]].usage[r], 0));

/** Room for the rounding of sums, relative to a limit. */
const ROUNDING = 1e-9;

export const isFeasible = (programme: Programme, assignment: Assignment): boolean =>
  usageOf(programme, assignment).every((used, r) => used <= programme.limits[r].most + ROUNDING * Math.abs(programme.limits[r].most));

/** The least that any assignment takes of a resource. */
export const leastUsage = ({ groups }: Programme, r: number): number =>
  groups.reduce((sum, { choices }) => sum + Math.min(...choices.map(({ usage }) => usage[r])), 0);

/**
 * The programme without choices that another of the same group beats or equals everywhere, and the indices of those that stay. An
 * optimum of the smaller programme is an optimum of the whole.
 */
export const withoutDominated = ({ groups, limits }: Programme): { readonly programme: Programme; readonly kept: readonly (readonly number[])[] } => {
  const beats = (a: Choice, b: Choice): boolean => a.loss <= b.loss && a.usage.every((used, r) => used <= b.usage[r]);
  const kept = groups.map(({ choices }) => choices.flatMap((choice, i) =>
    (choices.some((other, j) => j !== i && beats(other, choice) && (!beats(choice, other) || j < i)) ? [] : [i])));
  return { programme: { groups: groups.map(({ name, choices }, g) => ({ name, choices: kept[g].map((i) => choices[i]) })), limits }, kept };
};

/**
 * Improves a feasible assignment by changing one group, or two groups together, as long as the loss falls. Deterministic: the first
 * best change in order is taken.
 */
export const improved = (programme: Programme, start: Assignment): Assignment => {
  const { groups, limits } = programme;
  let current = [...start];
  const slackOf = (used: readonly number[]): number[] => limits.map(({ most }, r) => most + ROUNDING * Math.abs(most) - used[r]);
  for (;;) {
    const slack = slackOf(usageOf(programme, current));
    const moves = groups.flatMap(({ choices }, g) => choices.flatMap((choice, to) => {
      const from = choices[current[g]];
      return to === current[g] ? [] : [{ g, to, gain: from.loss - choice.loss, takes: choice.usage.map((used, r) => used - from.usage[r]) }];
    }));
    const fits = (takes: readonly number[]): boolean => takes.every((more, r) => more <= slack[r]);
    let best: { readonly gain: number; readonly changes: readonly (typeof moves)[number][] } = { gain: 0, changes: [] };
    const helpful = moves.filter(({ gain }) => gain > 0).sort((a, b) => b.gain - a.gain);
    for (const move of helpful) {
      if (move.gain <= best.gain) break;
      if (fits(move.takes)) { best = { gain: move.gain, changes: [move] }; continue; }
      for (const giving of moves) {
        const gain = move.gain + giving.gain;
        if (giving.g !== move.g && gain > best.gain && fits(move.takes.map((more, r) => more + giving.takes[r]))) best = { gain, changes: [move, giving] };
      }
    }
    // gains below rounding would go round in circles
    if (best.gain <= 1e-12 * Math.abs(lossOf(programme, current))) return current;
    for (const { g, to } of best.changes) current[g] = to;
    current = [...current];
  }
};
