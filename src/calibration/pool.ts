/**
 * Work over the samples of a set, spread over threads. The set is cut into blocks of a fixed number of samples; a job turns a block into
 * a result, and results are handed on in the order of the blocks. Which thread ran a block leaves no trace, so any number of threads
 * gives the same bytes.
 *
 * A thread finds a job by the module that exports it. Threads run only the built JavaScript: from TypeScript sources, as under vitest,
 * Node 20 cannot start one, and everything runs in the calling thread. So does a graph with ops of plugins.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { CompileError, type Diagnostic, type FailureKind } from '../ir/diagnostic.ts';
import type { Graph } from '../ir/graph.ts';
import { createExecutor, type FloatExecutor } from './executor.ts';
import { canSend, toPlain, type PlainGraph } from './plain-graph.ts';
import type { Sample, SampleSource, Samples } from './samples.ts';

/** Takes samples in turn and gives one result for all of them; both sides must survive a structured clone. */
export interface Block<R> {
  sample(executor: FloatExecutor, sample: Sample, index: number): void;
  finish(): R;
}
export interface Job<A, R> {
  /** URL of the module that exports this job under `name` */
  readonly module: string;
  readonly name: string;
  readonly start: (argument: A, graph: Graph<'float' | 'quant'>) => Block<R>;
}
export const defineJob = <A, R>(module: string, name: string, start: Job<A, R>['start']): Job<A, R> => Object.freeze({ module, name, start });

export interface MapOptions {
  /** by default one for each core, at most four, and one where the work is small */
  readonly threads?: number;
  /** only the first `count` samples */
  readonly count?: number;
  readonly progress?: (done: number, total: number) => void;
}

/** Samples in a block. Part of the meaning of results that are sums of floats: do not tie it to the number of threads. */
const BLOCK = 4;
const MOST_THREADS = 4;
/** Milliseconds of remaining work below which threads do not pay: each takes a second to start on a busy machine, and 40 MB. */
const WORTH_THREADS = 8000;

/** Runs the job on every block and hands the results to `take` in order. */
export const mapSamples = async <A, R>(
  graph: Graph<'float' | 'quant'>, samples: Samples, job: Job<A, R>, argument: A, take: (result: R, first: number) => void, options: MapOptions = {},
): Promise<void> => {
  const count = Math.min(samples.count, options.count ?? samples.count);
  const blocks = Math.ceil(count / BLOCK);
  const rangeOf = (block: number): readonly [number, number] => [block * BLOCK, Math.min(count, (block + 1) * BLOCK)];
  const done = (block: number, result: R): void => {
    take(result, block * BLOCK);
    options.progress?.(rangeOf(block)[1], count);
  };
  const runHere = async (executor: FloatExecutor, from: number, to: number): Promise<void> => {
    for (let block = from; block < to; block++) {
      done(block, runBlock(job, argument, executor, samples, rangeOf(block)));
      // lets a terminal draw and an interrupt arrive
      await new Promise((resolve) => { setImmediate(resolve); });
    }
  };
  const runSpread = (threads: number, from: number): Promise<void> => {
    const assignment: Assignment = { graph: toPlain(graph), samples: samples.source, module: job.module, name: job.name, argument };
    return runInThreads(assignment, threads, from, blocks, rangeOf, (block, result) => done(block, result as R));
  };
  const possible = import.meta.url.endsWith('.js') && job.module.endsWith('.js') && canSend(graph);
  const threads = possible ? Math.min(options.threads ?? Math.min(MOST_THREADS, availableParallelism()), blocks) : 1;
  if (threads > 1 && options.threads !== undefined) return runSpread(threads, 0);
  const executor = createExecutor(graph);
  if (threads <= 1) return runHere(executor, 0, blocks);
  // the first block shows whether the rest is worth starting threads for
  const start = performance.now();
  await runHere(executor, 0, 1);
  return (performance.now() - start) * (blocks - 1) < WORTH_THREADS ? runHere(executor, 1, blocks) : runSpread(threads, 1);
};

export const runBlock = <A, R>(job: Job<A, R>, argument: A, executor: FloatExecutor, samples: Samples, [from, to]: readonly [number, number]): R => {
  const block = job.start(argument, executor.graph);
  for (let index = from; index < to; index++) block.sample(executor, samples.get(index), index);
  return block.finish();
};

/** What a thread is started with. */
export interface Assignment {
  readonly graph: PlainGraph;
  readonly samples: SampleSource;
  readonly module: string;
  readonly name: string;
  readonly argument: unknown;
}
export interface Request {
  readonly block: number;
  readonly range: readonly [number, number];
}
export type Reply =
  | { readonly block: number; readonly result: unknown }
  | { readonly failure: { readonly message: string; readonly stack: string; readonly diagnostics: readonly Diagnostic[] | null; readonly kind: FailureKind } };

const runInThreads = async (
  assignment: Assignment, threads: number, from: number, to: number, rangeOf: (block: number) => readonly [number, number], done: (block: number, result: unknown) => void,
): Promise<void> => {
  const workers = Array.from({ length: threads }, () => new Worker(new URL('./worker.js', import.meta.url), { workerData: assignment, execArgv: [] }));
  const waiting = new Map<number, unknown>();
  const idle: Worker[] = [];
  let next = from;
  let merged = from;
  try {
    await new Promise<void>((resolve, reject) => {
      // a slow block must not let finished ones pile up without bound
      const feed = (): void => {
        while (idle.length > 0 && next < to && next - merged < 4 * threads) {
          const request: Request = { block: next, range: rangeOf(next) };
          next++;
          idle.pop()!.postMessage(request);
        }
      };
      const accept = (worker: Worker, reply: Reply): void => {
        if ('failure' in reply) return reject(failureOf(reply.failure));
        waiting.set(reply.block, reply.result);
        for (; waiting.has(merged); merged++) {
          done(merged, waiting.get(merged));
          waiting.delete(merged);
        }
        if (merged === to) return resolve();
        idle.push(worker);
        feed();
      };
      for (const worker of workers) {
        worker.on('message', (reply: Reply) => {
          try { accept(worker, reply); } catch (cause) { reject(cause as Error); }
        });
        worker.on('error', reject);
        worker.on('exit', (code) => { if (merged < to) reject(new Error(`a worker thread ended with code ${code}`)); });
        idle.push(worker);
      }
      feed();
    });
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
};

const failureOf = ({ message, stack, diagnostics, kind }: Extract<Reply, { failure: unknown }>['failure']): Error =>
  diagnostics === null ? Object.assign(new Error(message), { stack }) : new CompileError(diagnostics, kind);
