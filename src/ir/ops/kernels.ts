/**
 * The closed set of kernels: all that a kernel graph may hold, and all that a backend must have a schedule for. `docs/kernels.md`
 * states the meaning of each; its `evaluate` defines the result bit for bit.
 */
import type { NodeOf } from '../op.ts';
import { convAcc, linearAcc, matmulAcc } from './kernel-accumulate.ts';
import { attentionInt, layerNormInt, softmax } from './kernel-normalize.ts';
import { maxPool, reduceMax, reduceSum, sumPool } from './kernel-reduce.ts';
import { clamp, requantize, requantizeAdd, requantizeMul, requantizeWords } from './kernel-requantize.ts';
import { gatherRows, table, tableInterpolated } from './kernel-table.ts';
import { concat, pad, reshape, slice, transpose } from './layout.ts';

export const kernelOps = [
  convAcc, linearAcc, matmulAcc, requantize, requantizeWords, requantizeAdd, requantizeMul, clamp, table, tableInterpolated, gatherRows,
  maxPool, sumPool, reduceSum, reduceMax, softmax, attentionInt, layerNormInt, reshape, transpose, concat, slice, pad,
] as const;
export type KernelNode = NodeOf<(typeof kernelOps)[number]>;
