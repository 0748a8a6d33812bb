/** What all commands share: common flags, the way from an exception to diagnostics and an exit code, one place that prints them. */
import { Command, CommanderError, Option } from 'commander';
import { CompileError, exitCodes, type Diagnostic, type FailureKind } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { Terminal, type TerminalOptions } from './terminal.ts';

/** What a command has to say; `text` for people, `document` for --json, `diagnostics` in both. */
export interface Outcome {
  readonly text: string;
  readonly document: object;
  readonly diagnostics?: readonly Diagnostic[];
  /** 0 unless the command finished and found something wrong */
  readonly exitCode?: number;
}

export interface CommonOptions extends TerminalOptions {
  /** codes of warnings that end the command as errors do */
  readonly deny?: readonly string[];
}

/** Exit code of a command that Ctrl-C ended. */
export const interruptedCode = 130;

export const collect = (value: string, previous: readonly string[] = []): readonly string[] => [...previous, value];
export const commaList = (value: string, previous: readonly string[] = []): readonly string[] =>
  [...previous, ...value.split(',').map((word) => word.trim()).filter((word) => word !== '')];

/** A command with the flags that every command has. */
export const newCommand = (name: string, summary: string): Command =>
  new Command(name).summary(summary).description(`${summary[0].toUpperCase()}${summary.slice(1)}.`).showHelpAfterError(false);

export const withCommonOptions = (command: Command): Command => command
  .addOption(new Option('--json', 'print one JSON document on stdout, diagnostics included'))
  .addOption(new Option('--deny <code>', 'treat the warning with this code as an error; repeatable').argParser(collect))
  .addOption(new Option('-v, --verbose', 'say more; progress as plain lines where there is no terminal'))
  .addOption(new Option('-q, --quiet', 'print errors only'))
  .addOption(new Option('--no-progress', 'no progress line'));

/** Runs the body of a command and prints what comes of it. Returns the exit code. */
export const perform = async (options: CommonOptions, body: (terminal: Terminal) => Promise<Outcome>): Promise<number> => {
  const terminal = new Terminal(options);
  try {
    const { text, document, diagnostics = [], exitCode = 0 } = await body(terminal);
    terminal.clear();
    diagnostics.forEach((one) => terminal.diagnostic(one));
    if (terminal.json) terminal.document({ ...document, diagnostics });
    else if (text !== '') terminal.print(text);
    return exitCode;
  } catch (cause) {
    return reportFailure(cause, terminal);
  }
};

/** Turns a warning whose code is denied into an error, and ends the command if there is one. */
export const enforceDenied = (diagnostics: readonly Diagnostic[], denied: readonly string[] = []): readonly Diagnostic[] => {
  const judged = diagnostics.map((one): Diagnostic => (denied.includes(one.code) ? { ...one, severity: 'error' } : one));
  if (judged.some(({ severity }) => severity === 'error')) throw new CompileError(judged, 'model');
  return judged;
};

export const reportFailure = (cause: unknown, terminal: Terminal): number => {
  const { diagnostics, kind } = failureOf(cause);
  terminal.clear();
  diagnostics.forEach((one) => terminal.diagnostic(one));
  if (terminal.json) terminal.document({ diagnostics, exitCode: exitCodes[kind] });
  if (terminal.verbose && kind === 'internal' && cause instanceof Error) process.stderr.write(`${cause.stack ?? ''}\n`);
  return exitCodes[kind];
};

/** Every exception as diagnostics: ours as they are, those of the command-line parser and the file system translated, the rest as faults of the compiler. */
export const failureOf = (cause: unknown): { readonly diagnostics: readonly Diagnostic[]; readonly kind: FailureKind } => {
  if (cause instanceof CompileError) return { diagnostics: cause.diagnostics, kind: cause.kind };
  if (cause instanceof CommanderError) return { diagnostics: [fromCommander(cause)], kind: 'usage' };
  const { syscall, path } = cause as NodeJS.ErrnoException;
  if (cause instanceof Error && syscall !== undefined && path !== undefined) return { diagnostics: [errors.fileSystem(path, reasonOf(cause))], kind: 'usage' };
  const what = cause instanceof Error ? cause.message : String(cause);
  return { diagnostics: [errors.internal(what.split('\n')[0])], kind: 'internal' };
};

/** `error: unknown option '--traget'\n(Did you mean --target?)` → message and help. */
const fromCommander = ({ message }: CommanderError): Diagnostic => {
  const [first, ...rest] = message.replace(/^error: /, '').split('\n');
  const suggestion = /^\((.*)\)$/.exec(rest.join(' ').trim())?.[1];
  return errors.badCommandLine(first.replace(/'([^']*)'/g, '"$1"'), suggestion?.replace(/^D/, 'd').replace(/mean (.*)\?/, 'mean "$1"?') ?? 'lowbitc --help lists commands and flags');
};

/** The words of a file-system error, for a message. */
export const reasonOf = (cause: unknown): string => {
  const { code, message } = cause as NodeJS.ErrnoException;
  const words: Readonly<Record<string, string>> = {
    ENOENT: 'no such file', EISDIR: 'it is a folder', ENOTDIR: 'a part of the path is not a folder', EACCES: 'permission denied',
    EROFS: 'the file system is read-only', ENOSPC: 'no space left', ERR_FS_FILE_TOO_LARGE: 'it is larger than 2 GiB; keep the weights as external data',
  };
  return words[code ?? ''] ?? String(message).split('\n')[0];
};
