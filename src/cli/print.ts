/** `lowbitc print`: the graph of a folder or of a model as text, at one stage. */
import { statSync } from 'node:fs';
import { Option, type Command } from 'commander';
import { loadFolder, loadSource } from '../artefact/load.ts';
import { compile, importBound } from '../compile.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Graph, Stage } from '../ir/graph.ts';
import { printGraph } from '../ir/print.ts';
import { newCommand, perform, withCommonOptions, type CommonOptions, type Outcome } from './command.ts';
import { readModelFlags, withModelOptions, type ModelFlags } from './compile-options.ts';
import { externalDataOf } from './external-data.ts';
import { readBytes } from './options.ts';
import type { Terminal } from './terminal.ts';

interface PrintFlags extends CommonOptions, ModelFlags {
  readonly stage?: Stage;
}

export const printCommand = (finish: (exitCode: number) => void): Command => withCommonOptions(withModelOptions(newCommand('print', 'print the graph of a folder or of a model')
  .argument('<dir|model.onnx>', 'output folder, or model')
  .addOption(new Option('--stage <stage>', 'float: as imported; quant: before lowering; kernel: integers only (default: kernel for a folder, float for a model)').choices(['float', 'quant', 'kernel']))))
  .addHelpText('after', `
A folder holds its kernel graph; its float graph is read from the source model. The quant stage, and the kernel stage of a model, are
computed, and need the flags of compile.

Examples:
  lowbitc print out/model
  lowbitc print model.onnx
  lowbitc print model.onnx --stage quant --calib samples.npy`)
  .action(async (path: string, flags: PrintFlags) => finish(await perform(flags, (terminal) => printIt(path, flags, terminal))));

const printIt = async (path: string, flags: PrintFlags, terminal: Terminal): Promise<Outcome> => {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  const stage = flags.stage ?? (isFolder ? 'kernel' : 'float');
  const graph = isFolder ? graphOfFolder(path, stage) : await graphOfModel(path, stage, flags, terminal);
  const text = printGraph(graph);
  return { text, document: { stage, graph: text } };
};

const graphOfFolder = (path: string, stage: Stage): Graph => {
  const folder = loadFolder(path);
  if (stage === 'kernel') return folder.graph;
  if (stage === 'float') return loadSource(folder, undefined, externalDataOf).graph;
  throw new CompileError(errors.badCommandLine('a folder does not hold its quant stage', `lowbitc print <model.onnx> --stage quant --calib <data> --passes @${path}/pipeline.json`), 'usage');
};

const graphOfModel = async (path: string, stage: Stage, flags: PrintFlags, terminal: Terminal): Promise<Graph> => {
  const model = readBytes(path);
  const { options } = await readModelFlags(path, flags, []);
  if (stage === 'float') return importBound(model, options).graph;
  let last: Graph | null = null;
  await compile(model, {
    ...options, observers: [{ after: (_, __, graph) => { if (graph.stage === stage) last = graph; } }],
    onProgress: (label, done, total) => terminal.progress(label, done, total),
  });
  if (last === null) throw new CompileError(errors.stageNotReached(stage), 'usage');
  return last;
};
