/** The closing table of `compile`. */
import { gzipSync } from 'node:zlib';
import type { Bundle } from '../artefact/bundle.ts';
import type { Report } from '../artefact/report.ts';
import type { PassRecord } from '../passes/pipeline.ts';
import { allocationText } from './allocation-report.ts';
import { bytesText, decibels, grouped, pairs, table, type Cell, type Terminal } from './terminal.ts';

export const closingTable = (folder: string, { files, manifest, report, certificate }: Bundle, seconds: number, terminal: Terminal): string => {
  const rows = files.map(({ path, bytes }): Cell[] => [path, bytesText(bytes.length), `${bytesText(gzipSync(bytes).length)} gzip`]);
  const widths = Object.entries(manifest.macs.byWidth).map(([width, macs]) => `${grouped(macs)} ${width}`).join(', ');
  const outputs = manifest.outputs.map(({ name }) => report.noise?.outputs.find((one) => one.name === name)).filter((one) => one !== undefined);
  const facts: (readonly [string, string])[] = [
    ['targets', manifest.targets.map(({ name, weightBytes, arenaBytes }) => `${name} (weights ${bytesText(weightBytes)}, arena ${bytesText(arenaBytes)})`).join(', ')],
    ['MACs', widths],
    ...(outputs.length === 0 ? [] : [['SQNR', outputs.map(({ name, sqnrDb }) => `${name} ${decibels(sqnrDb)}`).join(', ') + ` against float, ${report.noise!.samples} calibration samples`] as const]),
    ...(report.ledger.length === 0 ? [] : [['measured', gainsText(report.ledger)] as const]),
    ['integer-only', certificate.integerOnly ? 'yes, certified for the files above' : terminal.style('red', 'NO: see certificate.json')],
    ['time', `${seconds.toFixed(1)} s`],
  ];
  const worst = report.worst.map(({ name, op, from, sqnrDb }): Cell[] => [decibels(sqnrDb), op, name, from.at(-1) ?? '']);
  return [
    `${terminal.style('bold', folder)}`, table(rows), '', pairs(facts),
    ...(report.allocation === undefined ? [] : ['', allocationText(report.allocation)]),
    ...(worst.length === 0 ? [] : ['', `  least precise layers${keepHint(manifest.bits)}`, table(worst, '    ')]),
  ].join('\n');
};

/** Passes that measured their changes: sites changed, and dB won at the outputs; report.json has the lines. */
const gainsText = (ledger: Report['ledger']): string => [...new Set(ledger.map(({ pass }) => pass))].map((name) => {
  const lines = ledger.filter(({ pass }) => pass === name);
  const sites = lines.filter(({ site, kept }) => site !== null && kept).length;
  if (sites === 0) return `${name} stood aside`;
  const outputs = lines.findLast(({ kept, outputsDb }) => kept && outputsDb !== null)?.outputsDb;
  const won = outputs ? `, ${outputs.after >= outputs.before ? '+' : ''}${decibels(outputs.after - outputs.before)}` : '';
  return `${name} (${sites} ${sites === 1 ? 'site' : 'sites'}${won})`;
}).join(', ');

/** What keeps a layer at more bits, where there are more to be had. */
const keepHint = (bits: string): string => (bits.startsWith('w8') || bits === 'mixed' ? '' : "; --keep '<name>=8' gives one of them 8 bits");

export const timeTable = (records: readonly PassRecord[]): string =>
  table([...records.map(({ pass, milliseconds, nodes, changed }): Cell[] => [`${milliseconds.toFixed(1)} ms`, pass, `${nodes} nodes`, changed ? '' : 'unchanged'])]);

export const compileDocument = (folder: string, { files, manifest, report, certificate }: Bundle, records: readonly PassRecord[], seconds: number): object => ({
  output: folder,
  files: files.map(({ path, bytes }) => ({ path, bytes: bytes.length, gzipBytes: gzipSync(bytes).length })),
  targets: manifest.targets, weightBytes: manifest.weightBytes, arenaBytes: manifest.arenaBytes, macs: manifest.macs,
  sqnrDb: Object.fromEntries((report.noise?.outputs ?? []).map(({ name, sqnrDb }) => [name, sqnrDb])),
  ...(report.allocation === undefined ? {} : { allocation: report.allocation }),
  worst: report.worst, integerOnly: certificate.integerOnly, seconds: Math.round(seconds * 1000) / 1000,
  passes: records.map(({ pass, milliseconds, nodes, changed }) => ({ pass, milliseconds: Math.round(milliseconds * 10) / 10, nodes, changed })),
});
