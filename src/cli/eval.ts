/** `lowbitc eval`: accuracy of the targets beside that of the float model. */
import { type Command } from 'commander';
import { evaluateFolder, type Evaluation, type Labels } from '../artefact/evaluation.ts';
import { loadFolder, loadSource, openFloat } from '../artefact/load.ts';
import { openRunners } from '../artefact/runners.ts';
import { fileSource } from '../calibration/bytes.ts';
import type { Share } from '../calibration/metrics.ts';
import { openNpy } from '../calibration/npy.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { collect, commaList, enforceDenied, newCommand, perform, withCommonOptions, type CommonOptions, type Outcome } from './command.ts';
import { externalDataOf } from './external-data.ts';
import { chosenTargets, executorOption, openFor, samplePaths } from './sample-options.ts';
import { decibels, grouped, table, type Cell, type Terminal } from './terminal.ts';

interface EvalFlags extends CommonOptions {
  readonly target?: readonly string[];
  readonly input?: readonly string[];
  readonly labels?: string;
  readonly model?: string;
  readonly count?: string;
  readonly executor: 'own' | 'onnxruntime';
}

export const evalCommand = (finish: (exitCode: number) => void): Command => withCommonOptions(newCommand('eval', 'measure accuracy against labels and the float model')
  .argument('<dir>', 'output folder of compile')
  .option('--input <name=file>', '.npy with the samples of an input; repeatable; without a name, one file for all', collect)
  .option('--labels <file.npy>', 'classes, one for each sample, or one for each position of each sample')
  .option('-t, --target <names>', 'targets of the folder, or reference; repeatable or a comma list (default: all of the folder)', commaList)
  .option('--model <model.onnx>', 'the source model, if it has moved')
  .addOption(executorOption())
  .option('--count <n>', 'only the first n samples'))
  .addHelpText('after', `
The first output is judged; its last axis are the classes. Outputs that are probabilities already are recognised.
Without labels: agreement with the float model, and signal-to-noise ratio.

Example:
  lowbitc eval out/model --input image=test.npy --labels labels.npy --target wasm`)
  .action(async (path: string, flags: EvalFlags) => finish(await perform(flags, (terminal) => evalFolder(path, flags, terminal))));

const evalFolder = async (path: string, flags: EvalFlags, terminal: Terminal): Promise<Outcome> => {
  const folder = loadFolder(path);
  const targets = chosenTargets(flags.target, folder, ['reference']);
  if (flags.input === undefined) throw new CompileError(errors.badCommandLine('eval needs --input', `lowbitc eval ${path} --input ${folder.graph.inputs[0]?.name ?? 'x'}=<file.npy>`), 'usage');
  const source = loadSource(folder, flags.model, externalDataOf);
  const paths = samplePaths(flags.input, folder.graph.inputs.map(({ name }) => name));
  const reals = openFor(paths, source.graph.inputs, folder.manifest.normalization ?? {}, flags.count);
  const codes = openFor(paths, folder.graph.inputs, {}, flags.count);
  const labels = flags.labels === undefined ? null : openLabels(flags.labels, reals.rowsPerSample);
  const float = await openFloat(source, folder, flags.executor);
  const { runners, skipped } = await openRunners(folder, targets, flags.target !== undefined);
  const evaluation = await evaluateFolder({
    folder, source: source.graph, float, reals, codes, labels, runners, onProgress: (done, total) => terminal.progress('eval', done, total),
  });
  return { text: textOf(evaluation, terminal), document: documentOf(evaluation), diagnostics: enforceDenied(skipped, flags.deny) };
};

const openLabels = (path: string, rowsPerSample: number): Labels => {
  const file = openNpy(fileSource(path));
  return { name: path, samples: Math.floor(file.rows / rowsPerSample), at: (index) => file.read(index * rowsPerSample, rowsPerSample) };
};

const documentOf = ({ samples, float, targets }: Evaluation): object => {
  const labelled = (metrics: Evaluation['float']): object => (metrics === null ? {} : {
    top1: metrics.top1.value, ...(metrics.top5 === null ? {} : { top5: metrics.top5.value }), crossEntropy: metrics.crossEntropy,
    ...(metrics.perplexity === null ? {} : { perplexity: metrics.perplexity }), top1Interval: [metrics.top1.low, metrics.top1.high],
  });
  return {
    samples, float: labelled(float),
    targets: Object.fromEntries(targets.map(({ target, labels, reference }) => [target, {
      ...labelled(labels), ...(reference.agreement === null ? {} : { agreement: reference.agreement.value }), sqnrDb: Number.isFinite(reference.sqnrDb) ? reference.sqnrDb : null,
    }])),
  };
};

const percent = (share: Share): string => `${(100 * share.value).toFixed(2)} %`;

const textOf = ({ samples, float, targets }: Evaluation, terminal: Terminal): string => {
  const hasTop5 = float?.top5 !== null && float !== null;
  const hasPerplexity = float?.perplexity !== null && float !== null;
  const labelled = (metrics: Evaluation['float']): Cell[] => (metrics === null ? [] : [
    percent(metrics.top1), `${(100 * metrics.top1.low).toFixed(1)} … ${(100 * metrics.top1.high).toFixed(1)}`,
    ...(hasTop5 ? [metrics.top5 === null ? '' : percent(metrics.top5)] : []), metrics.crossEntropy.toFixed(4),
    ...(hasPerplexity ? [metrics.perplexity === null ? '' : metrics.perplexity.toFixed(4)] : []),
  ]);
  const head = ['', ...(float === null ? [] : ['top-1', '95 % interval', ...(hasTop5 ? ['top-5'] : []), 'cross entropy', ...(hasPerplexity ? ['perplexity'] : [])]), 'agreement', 'SQNR'];
  const rows: Cell[][] = [
    head,
    ...(float === null ? [] : [['float', ...labelled(float), '', '']]),
    ...targets.map(({ target, labels, reference }) => [target, ...labelled(labels), reference.agreement === null ? '–' : percent(reference.agreement), decibels(reference.sqnrDb)]),
  ];
  return `${terminal.style('bold', `${grouped(samples)} samples`)}\n${table(rows)}`;
};
