/** The commands put together, and the way from arguments to an exit code. */
import { Command, CommanderError } from 'commander';
import { removeUnfinished } from '../artefact/output-folder.ts';
import { interruptedCode, reportFailure } from './command.ts';
import { benchCommand } from './bench.ts';
import { checkCommand } from './check.ts';
import { compileCommand } from './compile.ts';
import { evalCommand } from './eval.ts';
import { passesCommand } from './passes.ts';
import { printCommand } from './print.ts';
import { profileCommand } from './profile.ts';
import { runCommand } from './run.ts';
import { Terminal } from './terminal.ts';
import { verifyCommand } from './verify.ts';
import { version } from './version.ts';

/** `finish` takes the exit code of the command that ran. */
export const buildProgram = (finish: (exitCode: number) => void = () => undefined): Command => {
  const program = new Command('lowbitc')
    .description('Compiles an ONNX model into a program of integers only: C, WebAssembly.')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help for a command')
    .showHelpAfterError(false)
    .showSuggestionAfterError(true)
    .addHelpText('after', `
Examples:
  lowbitc check model.onnx
  lowbitc compile model.onnx -o out/model --calib samples.npy
  lowbitc eval out/model --input image=test.npy --labels labels.npy
  lowbitc verify out/model

Exit codes: 0 ok, 1 model or compile error, 2 usage, 3 verification mismatch, 4 budget not met,
            5 unsupported operators, 70 internal error, 130 interrupted.`);
  const commands = [compileCommand, checkCommand, runCommand, evalCommand, verifyCommand, benchCommand, profileCommand, printCommand, passesCommand];
  commands.forEach((make) => program.addCommand(make(finish)));
  for (const command of [program, ...program.commands]) {
    command.exitOverride().configureOutput({ writeErr: () => undefined }).helpOption('-h, --help', 'print help');
  }
  return program;
};

export const main = async (args: readonly string[]): Promise<number> => {
  process.once('SIGINT', () => {
    removeUnfinished();
    process.stderr.write('\ninterrupted\n');
    process.exit(interruptedCode);
  });
  process.stdout.on('error', (cause: NodeJS.ErrnoException) => { if (cause.code === 'EPIPE') process.exit(0); });
  let exitCode = 0;
  const program = buildProgram((code) => { exitCode = code; });
  try {
    if (args.length === 0) {
      program.outputHelp();
      return 0;
    }
    await program.parseAsync(args, { from: 'user' });
    return exitCode;
  } catch (cause) {
    if (cause instanceof CommanderError && cause.exitCode === 0) return 0;
    return reportFailure(cause, new Terminal({ json: args.includes('--json') }));
  }
};
