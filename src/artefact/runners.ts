/** What runs a compiled program: the reference interpreter, and the artefacts of an output folder as they lie there. */
import { join } from 'node:path';
import { loadProgram, runProgram } from '../backends/accelerator/run.ts';
import { interfaceOf } from '../backends/interface.ts';
import { cCompiler, runC, runWasm, type Codes } from '../backends/run.ts';
import type { Sample } from '../calibration/samples.ts';
import { CompileError, type Diagnostic } from '../ir/diagnostic.ts';
import { sizeOf } from '../ir/dim.ts';
import { errors, warnings } from '../ir/errors.ts';
import { evaluateGraph } from '../ir/evaluate.ts';
import type { Graph } from '../ir/graph.ts';
import { targetFolder, type Folder } from './load.ts';

/** Integer codes of the inputs → integer codes of the outputs, by name, for several samples in turn. */
export interface Runner {
  readonly target: string;
  run(samples: readonly Sample[]): Promise<readonly Sample[]>;
}

export const referenceRunner = (graph: Graph<'kernel'>): Runner => ({
  target: 'reference',
  run: async (samples) => samples.map((sample) => Object.fromEntries(evaluateGraph(graph, sample))),
});

/** How to start each target that this machine can run; `missing` says what it lacks. */
interface Launcher {
  missing(): string | null;
  open(folder: string, name: string, graph: Graph<'kernel'>): Promise<Runner['run']>;
}

const launchers: Readonly<Record<string, Launcher>> = {
  cpu: {
    missing: () => (cCompiler() === null ? 'there is no C compiler; install one, or name it in CC' : null),
    open: async (folder, name, graph) => {
      const ports = interfaceOf(graph);
      return async (samples) => (await runC(folder, name, ports, samples.map(codesOf))).map((codes) => tensorsOf(codes, graph));
    },
  },
  wasm: {
    missing: () => null,
    open: async (folder, name, graph) => {
      const run = await runWasm(folder, name);
      return async (samples) => samples.map((sample) => tensorsOf(run(codesOf(sample)), graph));
    },
  },
  accel: {
    missing: () => null,
    open: async (folder, _name, graph) => {
      const loaded = loadProgram(folder);
      for (const { name, value: { type } } of graph.outputs) {
        const port = loaded.memory.outputs.find((one) => one.name === name);
        if (port?.dtype !== type.dtype || port.elements !== sizeOf(type.shape)) throw new CompileError(errors.damagedArtefact(join(folder, 'memory.json'), `it does not give ${name} as the graph does`));
      }
      return async (samples) => samples.map((sample) => tensorsOf(runProgram(loaded, codesOf(sample)).outputs, graph));
    },
  },
};

const codesOf = (sample: Sample): Codes => Object.fromEntries(Object.entries(sample).map(([name, { data }]) => [name, data]));
const tensorsOf = (codes: Codes, { outputs }: Graph<'kernel'>): Sample =>
  Object.fromEntries(outputs.map(({ name, value: { type } }) => [name, { type, data: codes[name] }]));

/** A runner of a target in a folder of files; throws where this machine cannot run it. */
export const launch = async (target: string, folder: string, name: string, graph: Graph<'kernel'>): Promise<Runner> => {
  const why = whyNot(target);
  if (why !== null) throw new CompileError(errors.targetCannotRun(target, why), 'usage');
  return { target, run: await launchers[target].open(folder, name, graph) };
};

/** Targets of the folder that can be run here; the reference always can. */
export const runnableTargets = ({ manifest }: Folder): readonly string[] => [...manifest.targets.map(({ name }) => name).filter((name) => whyNot(name) === null), 'reference'];

/** What keeps this machine from running a target; null where nothing does. */
export const whyNot = (target: string): string | null => {
  const launcher = launchers[target] as Launcher | undefined;
  return launcher === undefined ? 'lowbitc does not know how' : launcher.missing();
};

export const openRunner = async (folder: Folder, target: string): Promise<Runner> => target === 'reference'
  ? referenceRunner(folder.graph) : launch(target, targetFolder(folder, target), folder.manifest.name, folder.graph);

/** Runners of several targets. One that cannot run here is an error if the user named it, else skipped with a warning. */
export const openRunners = async (folder: Folder, targets: readonly string[], named: boolean): Promise<{ readonly runners: readonly Runner[]; readonly skipped: readonly Diagnostic[] }> => {
  const runners: Runner[] = [];
  const skipped: Diagnostic[] = [];
  for (const target of targets) {
    const why = target === 'reference' ? null : whyNot(target);
    if (why !== null && !named) skipped.push(warnings.targetSkipped(target, why));
    else runners.push(await openRunner(folder, target));
  }
  return { runners, skipped };
};
