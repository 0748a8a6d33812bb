/** A thread of the pool: builds its executor once, then answers one request for a block at a time. */
import { parentPort, workerData } from 'node:worker_threads';
import { CompileError } from '../ir/diagnostic.ts';
import type { Graph } from '../ir/graph.ts';
import { createExecutor } from './executor.ts';
import { fromPlain } from './plain-graph.ts';
import { runBlock, type Assignment, type Job, type Reply, type Request } from './pool.ts';
import { reopenSamples } from './samples.ts';

const reply = (message: Reply): void => parentPort!.postMessage(message);
const attempt = async (work: () => Promise<void> | void): Promise<void> => {
  try {
    await work();
  } catch (cause) {
    const { message, stack = '' } = cause as Error;
    const own = cause instanceof CompileError;
    reply({ failure: { message, stack, diagnostics: own ? cause.diagnostics : null, kind: own ? cause.kind : 'internal' } });
  }
};

await attempt(async () => {
  const { graph, samples: source, module, name, argument } = workerData as Assignment;
  const job = ((await import(module)) as Readonly<Record<string, Job<unknown, unknown>>>)[name];
  const executor = createExecutor(fromPlain(graph) as Graph<'float' | 'quant'>);
  const samples = reopenSamples(source);
  parentPort!.on('message', ({ block, range }: Request) => {
    void attempt(() => reply({ block, result: runBlock(job, argument, executor, samples, range) }));
  });
});
