/** Chosen bits on the terminal: what each layer got and what that costs, how far each limit is used, and the front over size as a plot. */
import type { Explanation } from '../passes/allocation/explain.ts';
import { resourceText } from '../passes/allocation/budget.ts';
import { bytesText, pairs, table, type Cell } from './terminal.ts';

/** Widest bar of the plot. */
const BAR = 32;
/** Layers that are listed; the others stand in report.json. */
const LISTED = 24;

const digits = (x: number): string => (x === 0 ? '0' : x.toPrecision(2));

export const allocationText = ({ layers, limits, loss, candidates, drop, tables, front, measure, engine, samples }: Explanation): string => {
  const total = layers.reduce((sum, { choices, chosen }) => sum + (choices.find(({ widths }) => widths === chosen)?.loss ?? 0), 0) || 1;
  const rows = layers.map(({ name, parameters, chosen, choices, kept }): Cell[] => {
    const own = choices.find(({ widths }) => widths === chosen);
    return [name, chosen, parameters, own === undefined ? '' : `${((100 * own.loss) / total).toFixed(1)} %`, kept ? 'kept' : choices.length === 1 ? 'one choice' : ''];
  });
  const facts: (readonly [string, string])[] = [
    ...limits.map(({ label, resource, most, predicted, real, tenthMoreSaves }) => [
      label, `${resourceText(resource, real ?? predicted)} of ${resourceText(resource, most)}; a tenth more ${tenthMoreSaves < 0.001 ? 'buys nothing' : `saves ${(100 * tenthMoreSaves).toFixed(0)} % of the loss`}`,
    ] as const),
    ['loss', `${digits(loss.measured)} (${loss.kind === 'kl' ? 'nats of KL divergence' : 'noise to signal'}) on ${samples} samples${loss.predicted === null ? '' : `, ${digits(loss.predicted)} as a sum over layers`}`],
    ['solver', loss.gap === null ? 'a uniform network was better than what the programme gave' : `${engine}${loss.stopped ? ' ran out of time' : ''}, ${loss.gap === 0 ? 'proven best' : `within ${(100 * loss.gap).toPrecision(2)} % of the bound`} for ${measure}`],
    ...(candidates.length < 2 && candidates.every(({ refined }) => refined === 0) ? [] : [['tried', candidates.map((one) => `${one.name}${one.refined === 0 ? '' : ` with ${one.refined} layers refined`} ${digits(one.kl ?? one.noise)}${one.chosen ? ' (chosen)' : ''}`).join(', ')] as const]),
    ...(tables.length === 0 ? [] : [['tables', tables.map(({ name, bits }) => `${name} ${bits} bits`).join(', ')] as const]),
    ...(drop === null ? [] : [['drop', `${(100 * drop.value).toFixed(2)} ± ${(100 * drop.error).toFixed(2)} % on ${drop.samples} ${drop.labelled ? 'labelled samples' : 'samples, by the float model\'s own probabilities'}; ${drop.tried.length} sizes tried`] as const]),
  ];
  const most = Math.max(...front.map((point) => point.loss), 1e-30);
  const plot = front.map(({ sizeBytes, meanBits, loss: own }): Cell[] => [bytesText(sizeBytes), `${meanBits.toFixed(2)} bits`, '▇'.repeat(Math.max(1, Math.round((BAR * own) / most))), digits(own)]);
  return [
    '  bits by layer, and the share of the loss', table([['layer', 'bits', 'weights', 'loss', ''], ...rows.slice(0, LISTED)], '    '),
    ...(rows.length > LISTED ? [`    … ${rows.length - LISTED} more in report.json`] : []),
    '', pairs(facts),
    ...(plot.length < 2 ? [] : ['', '  size and least loss', table(plot, '    ')]),
  ].join('\n');
};
