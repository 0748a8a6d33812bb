/** `report.json`: what each pass did and why, and how far every layer is from the float model. */
import type { Compilation } from '../compile.ts';
import type { Note } from '../passes/pass.ts';
import type { NoiseReport, ValueNoise } from './noise.ts';

export interface Report {
  readonly passes: readonly { readonly pass: string; readonly nodes: number; readonly changed: boolean; readonly notes: readonly Note[] }[];
  /** null where there was no data, or the pipeline has no quantised stage */
  readonly noise: NoiseReport | null;
  /** the five layers with the least signal-to-noise ratio, worst first */
  readonly worst: readonly ValueNoise[];
}

const shownWorst = 5;

export const reportOf = ({ records }: Pick<Compilation, 'records'>, noise: NoiseReport | null): Report => ({
  passes: records.map(({ pass, nodes, changed, notes }) => ({ pass, nodes, changed, notes })),
  noise,
  worst: (noise?.layers ?? []).filter(({ sqnrDb }) => sqnrDb !== null).toSorted((a, b) => a.sqnrDb! - b.sqnrDb!).slice(0, shownWorst),
});
