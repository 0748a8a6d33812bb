/** The arm of every kernel op. */
import type { KernelNode } from '../../../ir/ops/kernels.ts';
import type { Step } from '../../group.ts';
import { lacking, type Stream } from '../stream.ts';
import { plainStep, rescaleStep, tableStep } from './elements.ts';
import { concatStep, copyStep, gatherStep, padStep, sliceStep, transposeStep } from './moves.ts';
import { convStep, linearStep, matmulStep, poolStep } from './products.ts';
import { reduceStep } from './reduce.ts';
import { attentionStep, layerNormStep, softmaxStep } from './rows.ts';

/** The records of RQ hold factors for 64-bit sums; a compilation for this machine leaves rescales as they are (`rescalesWords` of the backend). */
const noWords = (stream: Stream, { root }: Step): never => { throw lacking(stream, 'rescale in 32-bit words', root); };

export const steps: { readonly [N in KernelNode['op']]: (stream: Stream, step: Step) => void } = {
  conv_acc: convStep, linear_acc: linearStep, matmul_acc: matmulStep,
  requantize: rescaleStep, requantize_words: noWords, requantize_add: rescaleStep, requantize_mul: plainStep, clamp: plainStep,
  table: tableStep, table_interpolated: plainStep, gather_rows: gatherStep,
  max_pool: poolStep, sum_pool: poolStep, reduce_sum: reduceStep, reduce_max: reduceStep,
  softmax: softmaxStep, attention_int: attentionStep, layer_norm_int: layerNormStep,
  transpose: transposeStep, concat: concatStep, slice: sliceStep, pad: padStep,
  // views of their operand; a step only where nothing else could hold the value
  reshape: (stream, { root, output }) => copyStep(stream, root.inputs['x'] as never, stream.homeOf(output), root),
};
