/** Which declarations each stage knows. Some names stand for a real op and for its kernel: the stage tells which is meant. */
import type { Stage } from '../graph.ts';
import type { AnyOpDef } from '../op.ts';
import { floatOps } from './index.ts';
import { kernelOps } from './kernels.ts';

const byName = (ops: readonly object[]): ReadonlyMap<string, AnyOpDef> => new Map((ops as readonly AnyOpDef[]).map((op) => [op.name, op]));
const real = byName(floatOps);

/** Ops of a stage by name; plugin ops come on top at the float and quant stages. */
export const opsOfStage: Readonly<Record<Stage, ReadonlyMap<string, AnyOpDef>>> = { float: real, quant: real, kernel: byName(kernelOps) };
