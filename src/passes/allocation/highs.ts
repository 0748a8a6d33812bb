/** HiGHS as an engine (the optional package `highs`): slower to start than GLPK, closer to the optimum of large programmes. It reads models as text. */
import type { Engine } from './solver.ts';
import type { Programme } from './programme.ts';

/** The part of the package that is used; it may be absent, so its own types are not relied on. */
interface Highs {
  solve(text: string, options: Readonly<Record<string, unknown>>): { readonly Status: string; readonly ObjectiveValue: number; readonly Columns: Readonly<Record<string, { readonly Primal?: number }>> };
}
const packageName = 'highs';

const variable = (g: number, c: number): string => `x${g}_${c}`;
/** Terms of a sum, some to a line: the format limits the length of lines. */
const sumOf = (terms: readonly (readonly [number, string])[]): string => {
  const written = terms.map(([factor, name]) => `${factor < 0 ? '-' : '+'} ${Math.abs(factor).toExponential(16)} ${name}`);
  return Array.from({ length: Math.ceil(written.length / 8) }, (_, i) => written.slice(8 * i, 8 * i + 8).join(' ')).join('\n ');
};

/** Losses are scaled so that the greatest is 1000: the engine's tolerances are absolute. */
const lossUnit = ({ groups }: Programme): number => Math.max(...groups.flatMap(({ choices }) => choices.map(({ loss }) => Math.abs(loss)))) / 1000 || 1;

const modelText = (programme: Programme, whole: boolean): string => {
  const { groups, limits } = programme;
  const unit = lossUnit(programme);
  const all = groups.flatMap(({ choices }, g) => choices.map((choice, c) => ({ name: variable(g, c), choice })));
  return [
    'Minimize', ` loss: ${sumOf(all.map(({ name, choice }) => [choice.loss / unit, name]))}`, 'Subject To',
    ...groups.map(({ choices }, g) => ` one${g}: ${sumOf(choices.map((_, c) => [1, variable(g, c)]))} = 1`),
    ...limits.map(({ most }, r) => {
      const scale = Math.abs(most) || 1;
      return ` limit${r}: ${sumOf(all.map(({ name, choice }) => [choice.usage[r] / scale, name]))} <= ${(most / scale).toExponential(16)}`;
    }),
    ...(whole ? ['Binary', ...all.map(({ name }) => ` ${name}`)] : ['Bounds', ...all.map(({ name }) => ` 0 <= ${name} <= 1`)]), 'End', '',
  ].join('\n');
};

export const highsEngine = async (): Promise<Engine> => {
  const { default: load } = await import(packageName) as { readonly default: () => Promise<Highs> };
  const highs = await load();
  return {
    name: 'highs',
    solve: (programme, { gap, seconds }) => {
      const { Status, Columns } = highs.solve(modelText(programme, true), { mip_rel_gap: gap, time_limit: seconds, output_flag: false });
      const chosen = programme.groups.map(({ choices }, g) => choices.findIndex((_, c) => (Columns[variable(g, c)]?.Primal ?? 0) > 0.5));
      return Promise.resolve(Status === 'Infeasible' || chosen.includes(-1) ? null : { assignment: chosen, provenGap: Status === 'Optimal' ? gap : null, stopped: Status !== 'Optimal' });
    },
    relaxed: (programme) => {
      const { Status, ObjectiveValue } = highs.solve(modelText(programme, false), { output_flag: false });
      return Promise.resolve(Status === 'Optimal' ? { loss: ObjectiveValue * lossUnit(programme) } : null);
    },
  };
};
