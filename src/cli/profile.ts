/** `lowbitc profile`: times the kernels by shape and width into a table. */
import { statSync } from 'node:fs';
import type { Command } from 'commander';
import { loadFolder } from '../artefact/load.ts';
import { whyNot } from '../artefact/runners.ts';
import { describe, kernelOf, type KernelShape } from '../bench/kernels.ts';
import { currentLoad, thisMachine } from '../bench/machine.ts';
import { commonShapes, kernelsOf, profile, readTable, tableFormat, writeTable, type Timing } from '../bench/profile.ts';
import { variantsHere } from '../bench/sides.ts';
import { importBound } from '../compile.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Graph } from '../ir/graph.ts';
import { canonicalizePasses } from '../passes/canonicalize.ts';
import { runPass } from '../passes/pass.ts';
import { collect, commaList, newCommand, perform, reasonOf, withCommonOptions, type CommonOptions, type Outcome } from './command.ts';
import { externalDataOf } from './external-data.ts';
import { dimBindings, readBytes, shapeBindings, wholeNumber } from './options.ts';
import { table, type Cell, type Terminal } from './terminal.ts';
import { version } from './version.ts';

interface ProfileFlags extends CommonOptions {
  readonly output: string;
  readonly target?: readonly string[];
  readonly dim?: readonly string[];
  readonly shape?: readonly string[];
  readonly ms: string;
  readonly cflags: string;
  readonly fresh?: boolean;
}

export const profileCommand = (finish: (exitCode: number) => void): Command => withCommonOptions(newCommand('profile', 'time the kernels on this machine, by shape and width, into a table')
  .argument('[model]', 'a model.onnx or an output folder whose layers are timed (default: common shapes)')
  .option('-o, --output <table.json>', 'the table; what it holds already is not timed again', 'lowbitc-profile.json')
  .option('-t, --target <names>', 'cpu, wasm; repeatable or a comma list (default: both)', commaList)
  .option('--dim <symbol=n>', 'size of a symbolic dimension of the model; repeatable', collect)
  .option('--shape <input=AxBxC>', 'shape of an input of the model; repeatable', collect)
  .option('--ms <n>', 'milliseconds of each kernel', '60')
  .option('--cflags <flags>', 'what the C is compiled with', '-O3')
  .option('--fresh', 'start over'))
  .addHelpText('after', `
The table holds timings of one machine, C compiler and version of lowbitc. An interrupted command goes on where it stopped.

Examples:
  lowbitc profile
  lowbitc profile model.onnx -o table.json --target wasm`)
  .action(async (model: string | undefined, flags: ProfileFlags) => finish(await perform(flags, (terminal) => profileMachine(model, flags, terminal))));

const timed = ['cpu', 'wasm'] as const;
const isTimed = (target: string): target is Timing['target'] => (timed as readonly string[]).includes(target);

const profileMachine = async (model: string | undefined, flags: ProfileFlags, terminal: Terminal): Promise<Outcome> => {
  const { output } = flags;
  const targets = targetsOf(flags.target);
  const ms = wholeNumber('--ms', flags.ms, 1);
  const cflags = flags.cflags.split(/\s+/).filter((flag) => flag !== '');
  const machine = thisMachine();
  const before = flags.fresh ? null : readTable(output, version, machine, cflags);
  const shapes = model === undefined ? commonShapes : await shapesOf(model, flags);
  const load = currentLoad();
  const { timings, added } = await profile({
    kernels: kernelsOf(shapes), targets: targets.map((target) => (target === 'wasm' ? target : variantsHere(cflags)[0])), ms, cflags, known: before?.kernels ?? [], progress: terminal.progress.bind(terminal),
    save: (kernels) => {
      try {
        writeTable(output, { lowbitc: version, format: tableFormat, machine, cflags, kernels });
      } catch (cause) {
        throw new CompileError(errors.unwritableFile(output, reasonOf(cause)), 'usage');
      }
    },
  });
  return {
    text: `${textOf(shapes, timings, terminal)}\n\n${output}: ${added} timings added, ${machine.cpu}, load ${load} before and ${currentLoad()} after`,
    document: { output, added, machine, load: { before: load, after: currentLoad() }, kernels: timings },
  };
};

const targetsOf = (given: readonly string[] | undefined): readonly Timing['target'][] => {
  const unknown = given?.find((target) => !isTimed(target));
  if (unknown !== undefined) throw new CompileError(errors.unknownTarget(unknown, timed), 'usage');
  const chosen = timed.filter((target) => given === undefined || given.includes(target));
  return chosen.filter((target) => {
    const why = whyNot(target);
    if (why !== null && given !== undefined) throw new CompileError(errors.targetCannotRun(target, why), 'usage');
    return why === null;
  });
};

/** The shapes of the layers of a model, each once. */
const shapesOf = async (model: string, flags: ProfileFlags): Promise<readonly KernelShape[]> => {
  const graph = statSync(model, { throwIfNoEntry: false })?.isDirectory() ? loadFolder(model).graph : await canonical(model, flags);
  const shapes = new Map<string, KernelShape>();
  for (const node of graph.nodes) {
    const shape = kernelOf(node)?.shape;
    if (shape !== undefined) shapes.set(JSON.stringify(shape), shape);
  }
  return [...shapes.values()];
};

/** The model as the quantizing passes find it: the sizes of its layers are final. */
const canonical = async (path: string, { dim = [], shape = [] }: ProfileFlags): Promise<Graph> => {
  let { graph }: { graph: Graph } = importBound(readBytes(path), { dims: dimBindings(dim), shapes: shapeBindings(shape), externalData: externalDataOf(path) });
  for (const pass of canonicalizePasses) graph = await runPass(pass, graph);
  return graph;
};

const textOf = (shapes: readonly KernelShape[], timings: readonly Timing[], terminal: Terminal): string => {
  const widthOf = ({ weightBits, codebook = false }: Timing): string => (weightBits === null ? 'none' : `${weightBits}${codebook ? ' by codebook' : ''} bits`);
  const widths = [...new Set(timings.map(widthOf))].sort();
  const groups = new Map<string, Timing[]>();
  for (const timing of timings) {
    const key = `${timing.target} (${timing.instructions}), activations of ${timing.activationBits} bits`;
    groups.set(key, [...(groups.get(key) ?? []), timing]);
  }
  const speed = (timing: Timing | undefined): string => (timing === undefined ? '' : (timing.macs / (timing.bestMs * 1e6)).toFixed(1));
  return [...groups].map(([name, group]) => {
    const rows = shapes.map((shape): Cell[] => {
      const own = group.filter((timing) => timing.shape.op === shape.op && describe(timing.shape) === describe(shape));
      return [describe(shape), ...widths.map((width) => speed(own.find((timing) => widthOf(timing) === width)))];
    });
    return `${terminal.style('bold', name)}, GMAC/s\n${table([['weights of', ...widths], ...rows])}`;
  }).join('\n\n');
};
