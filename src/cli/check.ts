/** `lowbitc check`: what a model is made of, and everything in it that cannot be compiled, without data. */
import type { Command } from 'commander';
import { layerCosts, parameterCount, totalMacs } from '../ir/cost.ts';
import { syntheticSamples } from '../calibration/samples.ts';
import { compile, importBound, type CompileOptions } from '../compile.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { printShape } from '../ir/dim.ts';
import type { Graph } from '../ir/graph.ts';
import { decodeModel } from '../onnx/protobuf.ts';
import { collect, enforceDenied, newCommand, perform, withCommonOptions, type CommonOptions, type Outcome } from './command.ts';
import { externalDataOf } from './external-data.ts';
import { dimBindings, readBytes, shapeBindings } from './options.ts';
import { grouped, table } from './terminal.ts';

interface CheckFlags extends CommonOptions {
  readonly dim?: readonly string[];
  readonly shape?: readonly string[];
  readonly cutAt?: string;
}

export const checkCommand = (finish: (exitCode: number) => void): Command => withCommonOptions(newCommand('check', 'show operators, shapes and costs of a model, and all that is unsupported'))
  .argument('<model.onnx>', 'the model')
  .option('--dim <symbol=n>', 'size of a symbolic dimension; repeatable', collect)
  .option('--shape <input=AxBxC>', 'shape of an input; repeatable', collect)
  .option('--cut-at <value>', 'end the model at this value')
  .addHelpText('after', `
Examples:
  lowbitc check model.onnx
  lowbitc check detector.onnx --shape image=1x3x320x320 --cut-at scores`)
  .action(async (path: string, flags: CheckFlags) => finish(await perform(flags, async () => checkModel(path, flags))));

const checkModel = async (path: string, flags: CheckFlags): Promise<Outcome> => {
  const bytes = readBytes(path);
  const options = {
    name: 'model', targets: [], dims: dimBindings(flags.dim ?? []), shapes: shapeBindings(flags.shape ?? []), externalData: externalDataOf(path),
    ...(flags.cutAt === undefined ? {} : { cutAt: flags.cutAt }),
  };
  const { graph, diagnostics } = importBound(bytes, options);
  await tryLowering(bytes, options);
  const judged = enforceDenied(diagnostics, flags.deny);
  const onnx = histogram((decodeModel(bytes).graph?.node ?? []).map(({ opType }) => opType ?? ''));
  const layers = layerCosts(graph);
  const facts = { parameters: parameterCount(graph), macs: totalMacs(layers) };
  const ports = portsOf(graph);
  const text = [
    table([
      ...ports.inputs.map(({ name, dtype, shape }) => ['input', name, `${dtype}[${shape}]`]),
      ...ports.outputs.map(({ name, dtype, shape }) => ['output', name, `${dtype}[${shape}]`]),
    ], ''), '',
    `operators: ${onnx.map(([op, count]) => `${op} ${count}`).join(', ')}`,
    `as read:   ${histogram(graph.nodes.map(({ op }) => op)).map(([op, count]) => `${op} ${count}`).join(', ')}`, '',
    table(layers.map(({ name, op, macs, parameters, from }) => [op, name, grouped(macs), 'MACs', grouped(parameters), 'weights', from.at(-1) ?? '']), ''), '',
    `${grouped(facts.macs)} MACs, ${grouped(facts.parameters)} parameters; every operator has an integer form`,
  ].join('\n');
  return { text, document: { ...ports, operators: Object.fromEntries(onnx), ...facts, layers, supported: true }, diagnostics: judged };
};

/** The only proof that every node has an integer form is to give it one. A made-up sample does for that; what else fails on it says nothing of the model. */
const tryLowering = async (bytes: Uint8Array, options: Omit<CompileOptions, 'openSamples'>): Promise<void> => {
  try {
    await compile(bytes, { ...options, openSamples: (inputs) => syntheticSamples(inputs, 1, 0) });
  } catch (cause) {
    if (!(cause instanceof CompileError) || cause.kind === 'unsupported' || cause.kind === 'internal') throw cause;
  }
};

const portsOf = (graph: Graph): Record<'inputs' | 'outputs', readonly { name: string; dtype: string; shape: string }[]> => ({
  inputs: graph.inputs.map(({ name, type }) => ({ name, dtype: type.dtype, shape: printShape(type.shape) })),
  outputs: graph.outputs.map(({ name, value: { type } }) => ({ name, dtype: type.dtype, shape: printShape(type.shape) })),
});

const histogram = (words: readonly string[]): readonly (readonly [string, number])[] => {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return [...counts].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
};
