/** One schedule for each kernel op: the table by which a step becomes a loop function. */
import type { Value } from '../../ir/graph.ts';
import type { KernelNode } from '../../ir/ops/kernels.ts';
import type { Step, View } from '../group.ts';
import { attention } from './attention.ts';
import { conv } from './conv.ts';
import { clamp, requantizeMul, table, tableInterpolated } from './elementwise.ts';
import { elemOf, product, shapeOf, type Schedule } from './kernel.ts';
import { layerNorm } from './layer-norm.ts';
import { concat, gatherRows, pad, reshape, slice, transpose } from './layout.ts';
import { linear, residualInPlace } from './linear.ts';
import { matmul } from './matmul.ts';
import { maxPool, sumPool } from './pool.ts';
import { reduceMax, reduceSum } from './reduce.ts';
import { requantize } from './requantize.ts';
import { softmax } from './softmax.ts';
import type { Target } from './target.ts';

export const schedules: { readonly [Op in KernelNode['op']]: Schedule } = {
  conv_acc: conv, linear_acc: linear, matmul_acc: matmul, requantize, requantize_words: requantize, requantize_add: requantize, requantize_mul: requantizeMul, clamp, table,
  table_interpolated: tableInterpolated, gather_rows: gatherRows, max_pool: maxPool, sum_pool: sumPool, reduce_sum: reduceSum, reduce_max: reduceMax,
  softmax, attention_int: attention, layer_norm_int: layerNorm, reshape, transpose, concat, slice, pad,
};

/**
 * The operands whose memory a step's result may take over, since each element is written after the last read of it: operands of
 * element-wise steps and the second operand of a fused addition. Element, size and all other operands must agree.
 */
export const overwritable = (step: Step, target: Target, viewOf: (value: Value) => View): readonly Value[] => {
  const { root, output } = step;
  const size = product(shapeOf(output));
  const alone = (value: Value): boolean =>
    value.def.op !== 'const' && elemOf(value.type.dtype) === elemOf(output.type.dtype) && product(shapeOf(value)) === size
    && step.operands.every((other) => other === value || viewOf(other).base !== viewOf(value).base);
  const read = (slot: string): readonly Value[] => (root.inputs[slot] === undefined ? [] : [root.inputs[slot] as Value]);
  switch (root.op) {
    case 'requantize': case 'requantize_words': case 'requantize_add': {
      const [x, y] = [read('x'), read('y')];
      return x[0] === y[0] ? [] : [...x, ...y].filter(alone);
    }
    case 'requantize_mul': return root.inputs['x'] === root.inputs['y'] ? [] : read('x').filter(alone);
    case 'clamp': case 'table': case 'table_interpolated': return read('x').filter(alone);
    case 'linear_acc': case 'conv_acc': {
      const y = residualInPlace(step, target);
      return y === null || y === root.inputs['x'] ? [] : [y].filter(alone);
    }
    default: return [];
  }
};
