/** The ops of the float and quant stages. Kernel ops are declared in `kernel-*.ts`. */
import type { NodeOf } from '../op.ts';
import { binaryOps } from './binary.ts';
import { attention, linear, matmul } from './contraction.ts';
import { layoutOps } from './layout.ts';
import { batchNorm, layerNorm, rmsNorm, softmax } from './normalize.ts';
import { dequantize, quantize } from './quantize.ts';
import { reduceMax, reduceMean, reduceSum } from './reduce.ts';
import { unaryOps } from './unary.ts';
import { averagePool, conv, maxPool } from './window.ts';

export * from './binary.ts';
export { attention, linear, matmul } from './contraction.ts';
export { concat, expand, gather, layoutOps, pad, reshape, slice, transpose, where } from './layout.ts';
export { batchNorm, layerNorm, rmsNorm, softmax } from './normalize.ts';
export { dequantize, quantize } from './quantize.ts';
export { reduceMax, reduceMean, reduceSum } from './reduce.ts';
export * from './unary.ts';
export { averagePool, conv, maxPool } from './window.ts';

export const floatOps = [
  ...unaryOps, ...binaryOps, linear, matmul, attention, conv, maxPool, averagePool, batchNorm, softmax, layerNorm, rmsNorm,
  reduceMean, reduceSum, reduceMax, ...layoutOps, quantize, dequantize,
] as const;
export type FloatNode = NodeOf<(typeof floatOps)[number]>;
