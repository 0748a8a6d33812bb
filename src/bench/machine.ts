/** The machine that a measurement was taken on. Timings of different machines say nothing about each other. */
import { spawnSync } from 'node:child_process';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { cCompiler } from '../backends/run.ts';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly architecture: string;
  readonly platform: string;
  readonly node: string;
  /** first line of what the C compiler says of itself; null where there is none */
  readonly compiler: string | null;
}

export const thisMachine = (): Machine => {
  const compiler = cCompiler();
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: availableParallelism(), architecture: process.arch, platform: process.platform, node: process.version,
    compiler: compiler === null ? null : spawnSync(compiler, ['--version'], { encoding: 'utf8' }).stdout.split('\n')[0].trim(),
  };
};
export const sameMachine = (a: Machine, b: Machine): boolean => JSON.stringify(a) === JSON.stringify(b);

/** Processes that want a core, averaged over the last minute: above 0 before a measurement, something else is running. */
export const currentLoad = (): number => Math.round(loadavg()[0] * 100) / 100;
