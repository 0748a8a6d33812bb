/** Observers of a pipeline that the command line offers: graph texts after each pass, and an early stop. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Graph } from '../ir/graph.ts';
import { printGraph } from '../ir/print.ts';
import type { PipelineObserver } from '../passes/pipeline.ts';
import { reasonOf } from './command.ts';

/** Writes `00-import.lbir`, `01-<pass>.lbir`, …; large constants stand in them as digests. */
export const dumpObserver = (folder: string): PipelineObserver => {
  const write = (index: number, name: string, graph: Graph): void => {
    try {
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, `${String(index).padStart(2, '0')}-${name}.lbir`), printGraph(graph));
    } catch (cause) {
      throw new CompileError(errors.unwritableFile(folder, reasonOf(cause)), 'usage');
    }
  };
  return {
    before: (_, index, graph) => { if (index === 0) write(0, 'import', graph); },
    after: ({ pass }, index, graph) => write(index + 1, pass.name, graph),
  };
};

/** Thrown to leave the pipeline after the pass that the user named. */
export class Stopped extends Error {
  readonly graph: Graph;
  constructor(graph: Graph) {
    super('stopped');
    this.graph = graph;
  }
}
export const stopObserver = (name: string): PipelineObserver => ({
  after: ({ pass }, _, graph) => { if (pass.name === name) throw new Stopped(graph); },
});
