/** `lowbitc compile`: flags → options of `compile()`, its result → a folder and a closing table. */
import type { Command } from 'commander';
import { bundle, pathFrom, type Bundle } from '../artefact/bundle.ts';
import { sha256 } from '../artefact/manifest.ts';
import { measureNoise } from '../artefact/noise.ts';
import { checkReplaceable, jsonFile, textFile, writeCrashFolder, writeFolder } from '../artefact/output-folder.ts';
import type { Samples } from '../calibration/samples.ts';
import { compile, pipelineFor } from '../compile.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors, warnings } from '../ir/errors.ts';
import type { Graph } from '../ir/graph.ts';
import { printGraph } from '../ir/print.ts';
import { printPipeline, type Pipeline, type PipelineObserver } from '../passes/pipeline.ts';
import { commaList, enforceDenied, failureOf, newCommand, perform, reasonOf, withCommonOptions, type CommonOptions, type Outcome } from './command.ts';
import { readModelFlags, withModelOptions, type ModelFlags, type Request } from './compile-options.ts';
import { closingTable, compileDocument, timeTable } from './compile-report.ts';
import { dumpObserver, Stopped, stopObserver } from './observers.ts';
import { readBytes } from './options.ts';
import type { Terminal } from './terminal.ts';
import { version } from './version.ts';

interface CompileFlags extends CommonOptions, ModelFlags {
  readonly output?: string;
  readonly target?: readonly string[];
  readonly time?: boolean;
  readonly dump?: string;
  readonly stopAfter?: string;
  readonly force?: boolean;
}

export const compileCommand = (finish: (exitCode: number) => void): Command => withCommonOptions(withModelOptions(newCommand('compile', 'compile a model into a folder')
  .argument('<model.onnx>', 'the model')
  .option('-o, --output <dir>', 'folder to make; one that lowbitc made is replaced')
  .option('-t, --target <names>', 'cpu (C), wasm (wasm:threads: workers may share a run; wasm:relaxed: a faster module for weights of at most 7 bits beside the plain one), accel (accel:tiny, accel:mid, accel:large or accel:<machine.json>); repeatable or a comma list (default: cpu,wasm)', commaList))
  .option('--time', 'show the time of each pass')
  .option('--dump <dir>', 'write the graph as text after each pass')
  .option('--stop-after <pass>', 'stop after this pass and print the graph; writes no folder')
  .option('--force', 'replace the output folder whatever it holds'))
  .addHelpText('after', `
Examples:
  lowbitc compile model.onnx -o out/model --calib samples.npy
  lowbitc compile model.onnx -o out/model -t wasm --calib bytes.npy --mean 127.5 --std 127.5
  lowbitc compile model.onnx -o out/again --calib samples.npy --passes @out/model/pipeline.json
  lowbitc compile model.onnx --synthetic --stop-after quantize-weights`)
  .action(async (model: string, flags: CompileFlags) => finish(await perform(flags, (terminal) => compileModel(model, flags, terminal))));

/** What the command keeps of a run of the pipeline: material of the report, or of the crash folder. */
class Watch {
  float: Graph<'float'> | null = null;
  quant: Graph<'quant'> | null = null;
  failure: { readonly pass: string; readonly graph: Graph; readonly rest: Pipeline } | null = null;
  readonly observer: PipelineObserver = {
    before: (_, __, graph) => this.see(graph),
    after: (_, __, graph) => this.see(graph),
    onFailure: ({ pass }, _, graph, rest) => { this.failure = { pass: pass.name, graph, rest }; },
  };
  private see(graph: Graph): void {
    if (graph.stage === 'float') this.float = graph as Graph<'float'>;
    if (graph.stage === 'quant') this.quant = graph as Graph<'quant'>;
  }
}

const compileModel = async (modelPath: string, flags: CompileFlags, terminal: Terminal): Promise<Outcome> => {
  const start = performance.now();
  const { output, stopAfter, force = false } = flags;
  if (output === undefined && stopAfter === undefined) {
    throw new CompileError(errors.badCommandLine('compile needs -o <dir>', 'lowbitc compile model.onnx -o out/model'), 'usage');
  }
  if (output !== undefined) checkReplaceable(output, force);
  const model = readBytes(modelPath);
  const request = await readModelFlags(modelPath, flags, flags.target ?? ['cpu', 'wasm']);
  const pipeline = pipelineFor(request.options);
  terminal.remark(`pipeline: ${printPipeline(pipeline)}`);
  if (stopAfter !== undefined && !pipeline.some(({ pass }) => pass === stopAfter)) throw new CompileError(errors.notInPipeline(stopAfter), 'usage');
  const watch = new Watch();
  let samples: Samples | null = null;
  const { openSamples } = request.options;
  const observers: PipelineObserver[] = [
    watch.observer,
    ...(flags.dump === undefined ? [] : [dumpObserver(flags.dump)]),
    ...(stopAfter === undefined ? [] : [stopObserver(stopAfter)]),
  ];
  try {
    const compilation = await compile(model, {
      ...request.options, observers, openSamples: openSamples && ((inputs) => (samples = openSamples(inputs))),
      onProgress: (label, done, total) => terminal.progress(label, done, total),
    });
    const diagnostics = enforceDenied([...(request.synthetic ? [warnings.syntheticData()] : []), ...compilation.diagnostics], flags.deny);
    if (compilation.graph.stage !== 'kernel') throw new CompileError(errors.pipelineStopsEarly(compilation.graph.stage), 'usage');
    terminal.progress('measuring layers', 0, 0);
    const noise = samples === null || watch.float === null || watch.quant === null ? null : measureNoise(watch.float, watch.quant, samples);
    const bundled = bundle(compilation, {
      name: request.options.name, version, bits: request.bits, seed: request.options.seed ?? 0, noise,
      calibrationPath: flags.calib === undefined ? null : pathFrom(output!, flags.calib),
      source: { path: pathFrom(output!, modelPath), sha256: sha256(model) },
      binding: { dims: request.options.dims ?? {}, shapes: request.options.shapes ?? {}, cutAt: request.options.cutAt ?? null },
      normalization: request.normalization,
    });
    checkKept(bundled, request);
    writeOut(output!, bundled, force);
    const seconds = (performance.now() - start) / 1000;
    return {
      text: [...(flags.time ? [timeTable(compilation.records), ''] : []), closingTable(output!, bundled, seconds, terminal)].join('\n'),
      document: compileDocument(output!, bundled, compilation.records, seconds), diagnostics,
    };
  } catch (cause) {
    if (cause instanceof Stopped) return { text: printGraph(cause.graph), document: { stoppedAfter: stopAfter, graph: printGraph(cause.graph) } };
    throw withCrashFolder(cause, output, watch);
  }
};

/** A --keep that matches nothing is a mistake of the user, never ignored. */
const checkKept = ({ manifest }: Bundle, { kept }: Request): void => {
  const names = manifest.layers.flatMap(({ name, from }) => [name, ...from, ...from.map((origin) => origin.replace(/ \([^()]*\)$/, ''))]);
  // the pass that chooses mixed bits has compared them with the layers
  if (manifest.bits === 'mixed') return;
  const idle = kept.find(({ matches }) => !names.some(matches));
  if (idle !== undefined) throw new CompileError(errors.keepsNothing(idle.text, manifest.layers.slice(0, 8).map(({ name }) => name)), 'usage');
};

const writeOut = (output: string, { files }: Bundle, force: boolean): void => {
  try {
    writeFolder(output, files, force);
  } catch (cause) {
    throw cause instanceof CompileError ? cause : new CompileError(errors.unwritableFile(output, reasonOf(cause)), 'usage');
  }
};

/** Keeps what reproduces a fault of the compiler, and says where. */
const withCrashFolder = (cause: unknown, output: string | undefined, { failure }: Watch): unknown => {
  const { diagnostics, kind } = failureOf(cause);
  if (kind !== 'internal' || output === undefined) return cause;
  const command = `lowbitc ${process.argv.slice(2).map(quoted).join(' ')}\n`;
  const files = [
    textFile('command.txt', command),
    textFile('error.txt', `lowbitc ${version}, Node ${process.version}, ${process.platform} ${process.arch}\n${cause instanceof Error ? cause.stack ?? cause.message : String(cause)}\n`),
    ...(failure === null ? [] : [textFile(`before-${failure.pass}.lbir`, printGraph(failure.graph)), jsonFile('rest.json', failure.rest)]),
  ];
  try {
    const folder = writeCrashFolder(output, files);
    const help = `this is a fault of lowbitc; please report it with the folder ${folder}, whose command.txt repeats it`;
    return new CompileError(diagnostics.map((one) => (one.code === 'LB9001' ? { ...one, within: one.within ?? failure?.pass ?? null, help } : one)), 'internal');
  } catch {
    return cause;
  }
};

const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
