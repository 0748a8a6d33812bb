/**
 * Lets the compiled model take raw integer data: the float input becomes data, and (data − mean)/std, which callers of the float model
 * computed outside, becomes the first op of the graph. On byte data it lowers to one 256-entry table per channel.
 *
 *     (%x: f32[1, 3, 32, 32])  →  (%x: data), %n = batch_norm(transpose(%x)) …
 *
 * Channels are axis 1 of the ONNX input where it has rank 4; with one mean and one std, the same numbers hold for every element.
 */
import { batchNorm, reshape, transpose } from '../ir/ops/index.ts';
import type { Builder } from '../ir/build.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Value } from '../ir/graph.ts';
import type { Attr } from '../ir/op.ts';
import { mapGraph } from '../ir/rewrite.ts';
import { f32, tensor } from '../ir/type.ts';
import { definePass } from './pass.ts';

const reals = (doc: string): Attr<readonly number[]> => ({
  doc, fallback: undefined, expected: 'a list of numbers',
  check: (value): value is readonly number[] => Array.isArray(value) && value.length > 0 && value.every((n) => typeof n === 'number' && Number.isFinite(n)),
});

export const normalizeInput = definePass<'float', 'float', { readonly mean: readonly number[]; readonly std: readonly number[] }>({
  name: 'normalize-input',
  from: 'float',
  to: 'float',
  summary: 'take raw integer data and normalise it inside the graph',
  options: { mean: reals('subtracted, one number for each channel or one for all'), std: reals('divided by, likewise; none is 0') },
  run: (graph, { mean, std }) => {
    if (mean.every((m) => m === 0) && std.every((s) => s === 1)) return graph;
    const [target, ...others] = graph.inputs.filter(({ type }) => type.dtype === 'f32');
    if (target === undefined || others.length > 0) throw new CompileError(errors.cannotNormalize('the model has not exactly one float input'), 'usage');
    const rank = target.type.shape.length;
    const channels = Math.max(mean.length, std.length);
    const channelDim = target.type.shape[rank === 4 ? 1 : rank - 1];
    if (channels > 1 && (rank !== 4 || channelDim !== channels)) {
      throw new CompileError(errors.cannotNormalize(`${channels} means for an input of shape [${target.type.shape.map(String).join(', ')}]`), 'usage');
    }
    if (std.some((s) => s === 0)) throw new CompileError(errors.cannotNormalize('a standard deviation is 0'), 'usage');
    return mapGraph(graph, 'float', (_, __, ___) => null, (input, b) => {
      const data = b.input(input.name, input.type);
      return input === target ? normalized(data, mean, std, b) : data;
    });
  },
});

const normalized = (data: Value, mean: readonly number[], std: readonly number[], b: Builder): Value => {
  const channels = Math.max(mean.length, std.length);
  const shape = data.type.shape;
  const perChannel = (name: string, of: (c: number) => number): Value =>
    b.constant(`${data.name}.${name}`, tensor(f32(channels), Float32Array.from({ length: channels }, (_, c) => of(c))));
  const parameters = () => ({
    scale: perChannel('scale', (c) => 1 / (std[c] ?? std[0])), bias: perChannel('bias', () => 0),
    mean: perChannel('mean', (c) => mean[c] ?? mean[0]), variance: perChannel('variance', () => 1),
  });
  if (channels === 1) {
    const flat = b.emit(reshape, { x: data }, { shape: [...shape, 1] });
    const real = b.emit(batchNorm, { x: flat, ...parameters() }, { epsilon: 0 }, { name: `${data.name}.normalized` });
    return b.emit(reshape, { x: real }, { shape });
  }
  const last = b.emit(transpose, { x: data }, { perm: [0, 2, 3, 1] });
  const real = b.emit(batchNorm, { x: last, ...parameters() }, { epsilon: 0 }, { name: `${data.name}.normalized` });
  return b.emit(transpose, { x: real }, { perm: [0, 3, 1, 2] });
};
