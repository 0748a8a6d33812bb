/** `report.json`: what each pass did and why, and how far every layer is from the float model. */
import type { Compilation } from '../compile.ts';
import type { Explanation } from '../passes/allocation/explain.ts';
import type { Gain, Note } from '../passes/pass.ts';
import type { NoiseReport, ValueNoise } from './noise.ts';

/** What one pass did at one site, or over the whole graph, and what that was worth. */
export interface LedgerLine extends Gain {
  readonly pass: string;
  /** the value it is about; null for the whole graph */
  readonly site: string | null;
  readonly text: string;
}

export interface Report {
  readonly passes: readonly { readonly pass: string; readonly nodes: number; readonly changed: boolean; readonly notes: readonly Note[] }[];
  /** every change that a pass has measured, in the order of the pipeline */
  readonly ledger: readonly LedgerLine[];
  /** null where there was no data, or the pipeline has no quantised stage */
  readonly noise: NoiseReport | null;
  /** the five layers with the least signal-to-noise ratio, worst first */
  readonly worst: readonly ValueNoise[];
  /** how bits were chosen; absent where they were given */
  readonly allocation?: Explanation;
}

const shownWorst = 5;

export const reportOf = ({ records }: Pick<Compilation, 'records'>, noise: NoiseReport | null): Report => ({
  passes: records.map(({ pass, nodes, changed, notes }) => ({ pass, nodes, changed, notes })),
  ledger: ledgerOf(records),
  noise,
  worst: (noise?.layers ?? []).filter(({ sqnrDb }) => sqnrDb !== null).toSorted((a, b) => a.sqnrDb! - b.sqnrDb!).slice(0, shownWorst),
  ...Object.assign({}, ...records.map(({ parts }) => parts)) as object,
});

const ledgerOf = (records: Compilation['records']): readonly LedgerLine[] =>
  records.flatMap(({ pass, notes }) => notes.flatMap(({ site, text, gain }) => (gain === undefined ? [] : [{ pass, site, text, ...gain }])));
