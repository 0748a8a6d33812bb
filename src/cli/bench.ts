/** `lowbitc bench`: the compiled programs against each other and against ONNX Runtime on the source model. */
import { basename } from 'node:path';
import { Option, type Command } from 'commander';
import { loadFolder, loadSource, type Folder } from '../artefact/load.ts';
import { whyNot } from '../artefact/runners.ts';
import type { Variant } from '../backends/c/variants.ts';
import { titleOf } from '../bench/instructions.ts';
import { currentLoad, thisMachine } from '../bench/machine.ts';
import { compete, measureLimits, timeLayers, type Layers, type Result } from '../bench/measure.ts';
import { compiledC, compiledWasm, inRuntime, peerNames, variantsHere, type Contender, type Peer } from '../bench/sides.ts';
import { CompileError, type Diagnostic } from '../ir/diagnostic.ts';
import { staticShape } from '../ir/dim.ts';
import { errors, warnings } from '../ir/errors.ts';
import { collect, commaList, enforceDenied, newCommand, perform, withCommonOptions, type CommonOptions, type Outcome } from './command.ts';
import { externalDataOf } from './external-data.ts';
import { wholeNumber } from './options.ts';
import { chosenTargets } from './sample-options.ts';
import { grouped, table, type Cell, type Terminal } from './terminal.ts';

interface BenchFlags extends CommonOptions {
  readonly target?: readonly string[];
  readonly peer?: readonly Peer[];
  readonly peerModel?: readonly string[];
  readonly model?: string;
  readonly ms: string;
  readonly rounds: string;
  readonly starts: string;
  readonly cflags: string;
  readonly instructions?: readonly string[];
  readonly layers?: boolean;
}

const peerList = (value: string, previous: readonly string[] = []): readonly string[] => {
  const names = commaList(value, previous);
  const unknown = names.find((name) => !peerNames.includes(name as Peer));
  if (unknown !== undefined) return fail('--peer', unknown, peerNames.join(' or '));
  return names;
};

export const benchCommand = (finish: (exitCode: number) => void): Command => withCommonOptions(newCommand('bench', 'time a compiled program, layer by layer or against ONNX Runtime')
  .argument('<dir>', 'output folder of compile')
  .option('-t, --target <names>', 'only these targets; repeatable or a comma list', commaList)
  .addOption(new Option('--peer <names>', 'also time the source model in onnxruntime (onnxruntime-node) or onnxruntime-web; repeatable or a comma list').argParser(peerList))
  .option('--peer-model <model.onnx>', 'also time this model in the peers, a quantized one for instance; repeatable', collect)
  .option('--model <model.onnx>', 'the source model, if it has moved')
  .option('--instructions <names>', 'also time the C cut down to one instruction set, portable or avx2 for instance; repeatable or a comma list', commaList)
  .option('--layers', 'time every step too: milliseconds, multiply-accumulates, share of what the machine can multiply')
  .option('--ms <n>', 'milliseconds of each side in each round', '300')
  .option('--rounds <n>', 'rounds, in which all sides take turns', '5')
  .option('--starts <n>', 'processes started to time the first output', '3')
  .option('--cflags <flags>', 'what the C is compiled with', '-O3'))
  .addHelpText('after', `
One thread everywhere. Best and median are wall time of one run; CPU is the mean CPU time of the thread, which other processes do not
lengthen. Where the machine is loaded, compare best with best. Inputs are made up: speed does not depend on them.
The first output is timed from just before the program, module or package is loaded. The last columns say how many times as long
a peer takes at its best.

Examples:
  lowbitc bench out/model
  lowbitc bench out/model --peer onnxruntime,onnxruntime-web
  lowbitc bench out/model --target cpu --layers --json`)
  .action(async (path: string, flags: BenchFlags) => finish(await perform(flags, (terminal) => benchFolder(path, flags, terminal))));

/** Targets that can be timed. */
const timed = ['cpu', 'wasm'] as const;

const benchFolder = async (path: string, flags: BenchFlags, terminal: Terminal): Promise<Outcome> => {
  const folder = loadFolder(path);
  const effort = { rounds: wholeNumber('--rounds', flags.rounds, 1), ms: wholeNumber('--ms', flags.ms, 1), starts: wholeNumber('--starts', flags.starts, 1) };
  const cflags = flags.cflags.split(/\s+/).filter((flag) => flag !== '');
  const { targets, skipped } = runnable(folder, flags.target);
  const here = targets.includes('cpu') ? variantsHere(cflags) : [];
  const contenders = [
    ...targets.map((target): Contender => (target === 'cpu' ? compiledC(folder, cflags) : compiledWasm(folder))),
    ...chosenVariants(flags.instructions ?? [], here).map((variant) => compiledC(folder, cflags, variant)),
    ...peersOf(folder, flags),
  ];
  const progress = terminal.progress.bind(terminal);
  const before = currentLoad();
  const { macs } = folder.manifest;
  const results = await compete(contenders, macs.total, effort, progress);
  const layers: [string, Layers][] = [];
  if (flags.layers) for (const target of targets) {
    layers.push([target, await timeLayers(folder.graph, target === 'cpu' ? here[0] : target, await measureLimits(target), effort, cflags, progress)]);
  }
  const machine = thisMachine();
  const load = { before, after: currentLoad() };
  const ratios = ratiosOf(results);
  const instructions = here.length === 0 ? null : titleOf(here[0]);
  return {
    text: textOf({ folder, results, ratios, layers, instructions, load, cpu: machine.cpu }, terminal),
    document: {
      name: folder.manifest.name, bits: folder.manifest.bits, macs: macs.total, machine, load, ...effort, threads: 1, cflags, instructions,
      sides: results, ratios, ...(flags.layers ? { layers: Object.fromEntries(layers) } : {}),
    },
    diagnostics: enforceDenied(skipped, flags.deny),
  };
};

const runnable = (folder: Folder, given: readonly string[] | undefined): { readonly targets: readonly (typeof timed)[number][]; readonly skipped: readonly Diagnostic[] } => {
  const skipped: Diagnostic[] = [];
  const targets = chosenTargets(given, folder, []).filter((target) => {
    const why = (timed as readonly string[]).includes(target) ? whyNot(target) : 'lowbitc does not know how to time it';
    if (why === null) return true;
    if (given !== undefined) throw new CompileError(errors.targetCannotRun(target, why), 'usage');
    skipped.push(warnings.targetSkipped(target, why));
    return false;
  });
  return { targets: targets as readonly (typeof timed)[number][], skipped };
};

/** Variants by name; each must run here. */
const chosenVariants = (names: readonly string[], here: readonly Variant[]): readonly Variant[] => [...new Set(names)].map((name) =>
  here.find((variant) => variant.name === name) ?? fail('--instructions', name, here.length === 0 ? 'target cpu' : here.map((variant) => variant.name).join(' or ')));
const fail = (flag: string, value: string, expected: string): never => { throw new CompileError(errors.badOption(flag, value, expected), 'usage'); };

/** Every peer with the source model and with each model given for it. */
const peersOf = (folder: Folder, { peer = [], peerModel = [], model }: BenchFlags): readonly Contender[] => {
  if (peer.length === 0 && peerModel.length > 0) throw new CompileError(errors.badCommandLine('--peer-model needs --peer', 'add --peer onnxruntime'), 'usage');
  if (peer.length === 0) return [];
  if (folder.manifest.binding.cutAt !== null) throw new CompileError(errors.badCommandLine('the model was cut with --cut-at, and peers run whole models only', 'leave --peer out'), 'usage');
  const source = loadSource(folder, model, externalDataOf);
  const inputs = source.graph.inputs.map(({ name, type }) => ({ name, shape: staticShape(type.shape) }));
  return [...new Set(peer)].flatMap((one) => [
    inRuntime(one, one, source.path, inputs), ...peerModel.map((file) => inRuntime(`${one} ${basename(file)}`, one, file, inputs)),
  ]);
};

/** How many times as long a peer takes. */
interface Ratio {
  readonly target: string;
  readonly peer: string;
  readonly best: number;
  readonly median: number;
  readonly start: number;
}
const ratiosOf = (results: readonly Result[]): readonly Ratio[] => {
  const of = (kind: Result['kind']): readonly Result[] => results.filter((result) => result.kind === kind);
  return of('target').flatMap((target) => of('peer').map((peer): Ratio => ({
    target: target.name, peer: peer.name, best: peer.bestMs / target.bestMs, median: peer.medianMs / target.medianMs, start: peer.start.bestMs / target.start.bestMs,
  })));
};

const milliseconds = (ms: number): string => ms.toFixed(ms >= 100 ? 1 : ms >= 1 ? 3 : 4);
const microseconds = (ms: number): string => (1000 * ms).toFixed(2);
const times = (ratio: number): string => `${ratio >= 100 ? ratio.toFixed(0) : ratio.toPrecision(3)}×`;

interface Shown {
  readonly folder: Folder;
  readonly results: readonly Result[];
  readonly ratios: readonly Ratio[];
  readonly layers: readonly (readonly [string, Layers])[];
  readonly instructions: string | null;
  readonly load: { readonly before: number; readonly after: number };
  readonly cpu: string;
}
const textOf = ({ folder, results, ratios, layers, instructions, load, cpu }: Shown, terminal: Terminal): string => {
  const { name, macs } = folder.manifest;
  const targets = results.filter(({ kind }) => kind === 'target');
  const rows = results.map((result): Cell[] => [
    result.name === 'cpu' ? `cpu (${instructions})` : result.name, milliseconds(result.bestMs), milliseconds(result.medianMs), result.cpuMs === null ? '–' : milliseconds(result.cpuMs),
    result.gmacs.toFixed(1), milliseconds(result.start.bestMs),
    ...targets.map(({ name: target }) => ratios.find((ratio) => ratio.peer === result.name && ratio.target === target)).map((ratio) => (ratio === undefined ? '' : times(ratio.best))),
  ]);
  return [
    terminal.style('bold', `${name}: ${grouped(macs.total)} MACs`), `${cpu}, one thread, load ${load.before} before and ${load.after} after`, '',
    table([['ms', 'best', 'median', 'CPU', 'GMAC/s', 'first output', ...(ratios.length === 0 ? [] : targets.map((target) => `by ${target.name}`))], ...rows]),
    ...layers.flatMap(([target, found]) => ['', layersText(target, found, terminal)]),
  ].join('\n');
};

const layersText = (target: string, { instructions, limits, steps }: Layers, terminal: Terminal): string => {
  const total = steps.reduce((sum, { bestMs }) => sum + bestMs, 0);
  const limit = limits.length === 0 ? 'limit unknown' : `limits: ${limits.map(({ primitive, kind, rate }) => `${primitive} ${kind === 'dot' ? `${rate.toFixed(0)} GMAC/s` : `${rate.toFixed(1)} G codes/s`}`).join(', ')}`;
  const rows = steps.map(({ name, ops, macs, bestMs, medianMs, gmacs, share }): Cell[] => [
    microseconds(bestMs), microseconds(medianMs), `${((100 * bestMs) / total).toFixed(1)} %`, grouped(macs), gmacs === null ? '' : gmacs.toFixed(1),
    share === null ? '' : `${(100 * share).toFixed(0)} %`, `${name} (${ops.join(', ')})`,
  ]);
  return [
    `${terminal.style('bold', `layers of ${target}`)} in ${instructions}; ${limit}`,
    table([['best µs', 'median', 'of all', 'MACs', 'GMAC/s', 'of limit', ''], ...rows, [microseconds(total), '', '', '', '', '', 'sum of the best']]),
  ].join('\n');
};
