/** Times of a table of `lowbitc profile`, looked up by the node that a step begins with. */
import { readFileSync } from 'node:fs';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Node } from '../ir/graph.ts';
import { kernelKey, kernelOf, type Kernel } from './kernels.ts';
import { tableFormat, type Table } from './profile.ts';

const keyOf = (target: string, kernel: Kernel): string => [target, kernelKey(kernel)].join('\n');

/** Microseconds of a step, or null where the table does not hold its kernel. */
export const timesFrom = (path: string): ((node: Node, target: string) => number | null) => {
  let table: Partial<Table>;
  try {
    table = JSON.parse(readFileSync(path, 'utf8')) as Partial<Table>;
  } catch (cause) {
    throw new CompileError(errors.badTable(path, (cause as Error).message.split('\n')[0]), 'usage');
  }
  if (table.format !== tableFormat || !Array.isArray(table.kernels)) throw new CompileError(errors.badTable(path, `it is no table of format ${tableFormat}`), 'usage');
  const times = new Map(table.kernels.map((timing) => [keyOf(timing.target, timing), timing.bestMs * 1000]));
  return (node, target) => {
    const kernel = kernelOf(node);
    // codes of four to eight bits are stored in bytes, and 8 stands for them all
    return kernel === null ? null : times.get(keyOf(target, { ...kernel, activationBits: Math.max(8, kernel.activationBits) })) ?? null;
  };
};
