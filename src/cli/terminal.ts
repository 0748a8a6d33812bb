/**
 * What the commands write. Results go to stdout, everything else to stderr, so that output can be piped; with --json stdout holds one
 * document. Progress is one line that rewrites itself on a terminal, and plain lines with -v elsewhere.
 */
import { styleText } from 'node:util';
import { formatDiagnostic, type Diagnostic } from '../ir/diagnostic.ts';

export interface TerminalOptions {
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly verbose?: boolean;
  /** false with --no-progress */
  readonly progress?: boolean;
}
export type Style = Parameters<typeof styleText>[0];

/** NO_COLOR wins over FORCE_COLOR; without either, a terminal that is not `dumb` gets colours. */
const hasColours = (stream: NodeJS.WriteStream, env: NodeJS.ProcessEnv): boolean => {
  if (env['NO_COLOR'] !== undefined && env['NO_COLOR'] !== '') return false;
  if (env['FORCE_COLOR'] !== undefined) return env['FORCE_COLOR'] !== '0' && env['FORCE_COLOR'] !== 'false';
  return stream.isTTY === true && env['TERM'] !== 'dumb';
};

/** Between two redraws of the progress line. */
const redrawMilliseconds = 80;

export class Terminal {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  private readonly live: boolean;
  private readonly colourOut = hasColours(process.stdout, process.env);
  private readonly colourErr = hasColours(process.stderr, process.env);
  private shown = false;
  private lastDraw = 0;
  private lastLabel = '';

  constructor({ json = false, quiet = false, verbose = false, progress = true }: TerminalOptions = {}) {
    this.json = json;
    this.quiet = quiet;
    this.verbose = verbose && !quiet;
    this.live = progress && !quiet && process.stderr.isTTY === true && process.env['TERM'] !== 'dumb';
  }

  /** Text in a style, for stdout; plain where stdout has no colours. */
  style(style: Style, text: string): string {
    return this.colourOut ? styleText(style, text, { validateStream: false }) : text;
  }

  /** A result. Nothing with --json, whose document is the result. */
  print(text: string): void {
    if (this.json || this.quiet) return;
    this.clear();
    process.stdout.write(`${text}\n`);
  }

  /** The only thing on stdout with --json. */
  document(value: object): void {
    process.stdout.write(`${JSON.stringify(value, (_, entry: unknown) => (typeof entry === 'bigint' ? Number(entry) : entry), 2)}\n`);
  }

  /** A remark for who watches, on stderr; only with -v. */
  remark(text: string): void {
    if (!this.verbose) return;
    this.clear();
    process.stderr.write(`${text}\n`);
  }

  /** On stderr; errors also with -q. With --json they stand in the document instead. */
  diagnostic(one: Diagnostic): void {
    if (this.json || (this.quiet && one.severity === 'warning')) return;
    this.clear();
    const text = formatDiagnostic(one);
    const head = `${one.severity} ${one.code}`;
    const styled = this.colourErr ? styleText(['bold', one.severity === 'error' ? 'red' : 'yellow'], head, { validateStream: false }) + text.slice(head.length) : text;
    process.stderr.write(`${styled}\n`);
  }

  progress(label: string, done: number, total: number): void {
    const text = total > 0 ? `${label} ${done}/${total}` : label;
    if (this.live) {
      const now = performance.now();
      if (done < total && now - this.lastDraw < redrawMilliseconds) return;
      this.lastDraw = now;
      const width = (process.stderr.columns ?? 80) - 1;
      process.stderr.write(`\r\x1b[2K${text.slice(0, width)}`);
      this.shown = true;
    } else if (this.verbose && label !== this.lastLabel) {
      this.lastLabel = label;
      process.stderr.write(`${text}\n`);
    }
  }

  /** Takes the progress line away. */
  clear(): void {
    if (!this.shown) return;
    process.stderr.write('\r\x1b[2K');
    this.shown = false;
  }
}

export type Cell = string | number;

/** Rows in columns two spaces apart: numbers to the right, texts to the left. */
export const table = (rows: readonly (readonly Cell[])[], indent = '  '): string => {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => { widths[i] = Math.max(widths[i] ?? 0, String(cell).length); });
  const isNumeric = (cell: Cell): boolean => typeof cell === 'number' || /^[-+±≥≤~]?\d/.test(cell);
  return rows.map((row) =>
    (indent + row.map((cell, i) => (isNumeric(cell) ? String(cell).padStart(widths[i]) : String(cell).padEnd(widths[i]))).join('  ')).trimEnd(),
  ).join('\n');
};

/** Names and what they are, all to the left. */
export const pairs = (rows: readonly (readonly [string, string])[], indent = '  '): string => {
  const width = Math.max(0, ...rows.map(([name]) => name.length));
  return rows.map(([name, text]) => `${indent}${name.padEnd(width)}  ${text}`).join('\n');
};

/** `12,345`. */
export const grouped = (count: number): string => String(count).replace(/\B(?=(\d{3})+(?!\d))/g, ',');

/** `58.4 kB` with powers of 1000, as file tables have it. */
export const bytesText = (bytes: number): string =>
  bytes < 1000 ? `${bytes} B` : bytes < 1e6 ? `${(bytes / 1000).toFixed(bytes < 1e5 ? 2 : 1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;

export const decibels = (value: number | null): string => (value === null ? '–' : Number.isFinite(value) ? `${value.toFixed(1)} dB` : 'exact');
