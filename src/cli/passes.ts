/** `lowbitc passes [name]`: the passes at hand, or the declaration of one. */
import type { Command } from 'commander';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Attr } from '../ir/op.ts';
import type { AnyPass } from '../passes/pass.ts';
import { closest } from '../ir/closest.ts';
import { toolboxWith } from '../compile.ts';
import { collect, newCommand, perform, withCommonOptions, type CommonOptions, type Outcome } from './command.ts';
import { loadPlugins } from './options.ts';
import { table } from './terminal.ts';

interface PassesOptions extends CommonOptions {
  readonly plugin?: readonly string[];
}

export const passesCommand = (finish: (exitCode: number) => void): Command => withCommonOptions(newCommand('passes', 'list the passes, or explain one'))
  .argument('[name]', 'the pass to explain')
  .option('--plugin <module>', 'also those of this plugin; repeatable', collect)
  .addHelpText('after', `
Examples:
  lowbitc passes
  lowbitc passes quantize-weights`)
  .action(async (name: string | undefined, options: PassesOptions) => finish(await perform(options, async () => {
    const { passes } = toolboxWith(await loadPlugins(options.plugin ?? []));
    if (name === undefined) return listPasses([...passes.values()]);
    const pass = passes.get(name);
    if (pass === undefined) throw new CompileError(errors.unknownPass(name, closest(name, [...passes.keys()])), 'usage');
    return explainPass(pass);
  })));

const listPasses = (passes: readonly AnyPass[]): Outcome => ({
  text: table(passes.map(({ name, from, to, summary }) => [name, from === to ? from : `${from} → ${to}`, summary]), ''),
  document: { passes: passes.map(describe) },
});

const explainPass = (pass: AnyPass): Outcome => {
  const { name, from, to, summary, paper, changes } = pass;
  const options = optionsOf(pass);
  const lines = [
    `${name}: ${summary}`, '',
    table([
      ['stages', from === to ? from : `${from} → ${to}`],
      ['meaning', changes ?? 'kept exactly, in real arithmetic'],
      ...(paper === undefined ? [] : [['paper', paper]]),
    ], ''),
    ...(options.length === 0 ? [] : ['', 'options', table(options.map(({ name, doc, expected, fallback }) =>
      [name, fallback === undefined ? 'required' : `default ${JSON.stringify(fallback)}`, `${doc} (${expected})`]))]),
  ];
  return { text: lines.join('\n'), document: describe(pass) };
};

const optionsOf = (pass: AnyPass): readonly { name: string; doc: string; expected: string; fallback: unknown }[] =>
  Object.entries<Attr<unknown>>(pass.options).map(([name, { doc, expected, fallback }]) => ({ name, doc, expected, fallback }));

const describe = (pass: AnyPass): object => ({
  name: pass.name, from: pass.from, to: pass.to, summary: pass.summary, paper: pass.paper ?? null, changes: pass.changes ?? null, options: optionsOf(pass),
});
