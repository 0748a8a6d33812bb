/**
 * The Node side of a measurement, a process of its own: `node worker.js <job as JSON>`. Holds a compiled WebAssembly program, single
 * steps of one, or a model in ONNX Runtime, and answers as `side.ts` says. CPU time is that of the main thread, known on Linux only.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import type { TypedArray } from '../ir/dtype.ts';
import { createRandom } from '../numerics/random.ts';
import { functionOf, instantiate } from '../wasm/index.ts';
import { BATCH_NS } from './c-driver.ts';
import { madeUpCodes } from './inputs.ts';
import { readyWord } from './side.ts';
import type { Port } from '../backends/interface.ts';

export interface ModelInput {
  readonly name: string;
  readonly shape: readonly number[];
}
export type Job =
  /** the ES module of a compiled program, on several threads if it was made for them */
  | { readonly kind: 'program'; readonly module: string; readonly inputs: readonly Port[]; readonly threads: number }
  /** exports of a module without imports */
  | { readonly kind: 'items'; readonly wasm: string; readonly exports: readonly string[] }
  /** a model in a package of the interface of ONNX Runtime; `entry` is the file that `require` finds */
  | { readonly kind: 'onnxruntime'; readonly entry: string; readonly web: boolean; readonly model: string; readonly inputs: readonly ModelInput[] };

type Item = () => unknown;
interface Opened {
  readonly items: readonly Item[];
  /** items return promises */
  readonly asynchronous: boolean;
  /** nanoseconds from before loading to the first output */
  readonly startNs: number;
}

const now = (): number => performance.now() * 1e6;

const openProgram = async ({ module, inputs, threads }: Extract<Job, { kind: 'program' }>): Promise<Opened> => {
  const feeds = Object.fromEntries(inputs.map((port) => [port.name, madeUpCodes(port)]));
  const begin = now();
  const { load } = await import(pathToFileURL(module).href) as {
    load(source: undefined, options: { readonly threads: number }): Promise<{ run(inputs: Readonly<Record<string, TypedArray>>): unknown }>;
  };
  const model = await load(undefined, { threads });
  const run = (): unknown => model.run(feeds);
  run();
  return { items: [run], asynchronous: false, startNs: now() - begin };
};

const openItems = ({ wasm, exports }: Extract<Job, { kind: 'items' }>): Opened => {
  const instance = instantiate(readFileSync(wasm));
  return { items: exports.map((name) => functionOf(instance, name)), asynchronous: false, startNs: 0 };
};

// the part of the package's interface that is used
interface RuntimeTensor { readonly dims: readonly number[] }
interface Session {
  readonly inputNames: readonly string[];
  readonly inputMetadata?: readonly { readonly name: string; readonly type?: string }[];
  run(feeds: Readonly<Record<string, RuntimeTensor>>): Promise<unknown>;
}
interface Runtime {
  readonly env: { readonly wasm: { numThreads: number } };
  readonly InferenceSession: { create(model: string | Uint8Array, options: object): Promise<Session> };
  readonly Tensor: new (type: string, data: unknown, dims: readonly number[]) => RuntimeTensor;
}

/** One thread, all optimisations of the graph, no worker that spins. */
const sessionOptions = { intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: 'sequential', graphOptimizationLevel: 'all', logSeverityLevel: 3 };

const openRuntime = async ({ entry, web, model, inputs }: Extract<Job, { kind: 'onnxruntime' }>): Promise<Opened> => {
  const begin = now();
  const runtime = createRequire(entry)(entry) as Runtime;
  if (web) runtime.env.wasm.numThreads = 1;
  const session = await runtime.InferenceSession.create(web ? new Uint8Array(readFileSync(model)) : model, web ? { ...sessionOptions, executionProviders: ['wasm'] } : sessionOptions);
  const shapes = new Map(inputs.map(({ name, shape }) => [name, shape]));
  const feeds = Object.fromEntries(session.inputNames.map((name) => {
    const shape = shapes.get(name);
    if (shape === undefined) throw new Error(`the model has an input "${name}" that is not an input of the compiled program`);
    const type = session.inputMetadata?.find((input) => input.name === name)?.type ?? 'float32';
    return [name, new runtime.Tensor(type, madeUpReals(type, shape.reduce((a, b) => a * b, 1)), shape)];
  }));
  const run = (): Promise<unknown> => session.run(feeds);
  await run();
  return { items: [run], asynchronous: true, startNs: now() - begin };
};

/** Standard normal reals, small whole numbers. */
const madeUpReals = (type: string, elements: number): unknown => {
  const random = createRandom(1);
  const fill = <T>(array: { readonly length: number; [i: number]: T }, draw: () => T): unknown => {
    for (let i = 0; i < array.length; i++) array[i] = draw();
    return array;
  };
  switch (type) {
    case 'float32': return fill(new Float32Array(elements), () => random.normal());
    case 'float64': return fill(new Float64Array(elements), () => random.normal());
    case 'int64': return fill(new BigInt64Array(elements), () => BigInt(random.below(128)));
    case 'int32': return fill(new Int32Array(elements), () => random.below(128));
    case 'uint8': return fill(new Uint8Array(elements), () => random.below(256));
    case 'int8': return fill(new Int8Array(elements), () => random.below(256) - 128);
    case 'bool': return fill(new Uint8Array(elements), () => random.below(2));
    default: throw new Error(`inputs of type ${type} cannot be made up`);
  }
};

/** CPU time of the main thread in nanoseconds; NaN where the system does not tell. */
const mainThreadNs = (): number => {
  try {
    return Number(readFileSync('/proc/self/schedstat', 'utf8').split(' ')[0]);
  } catch {
    return NaN;
  }
};

const measurer = ({ items, asynchronous }: Opened) => {
  const repeat = async (item: Item, batch: number): Promise<number> => {
    const begin = now();
    if (asynchronous) for (let i = 0; i < batch; i++) await item();
    else for (let i = 0; i < batch; i++) item();
    return now() - begin;
  };
  const line = (runs: number, times: readonly number[], cpu: number): string => {
    const sorted = [...times].sort((a, b) => a - b);
    return [runs, sorted[0].toFixed(1), sorted[Math.floor(sorted.length / 2)].toFixed(1), Number.isNaN(cpu) ? -1 : cpu.toFixed(1)].join(' ');
  };
  const each = async (item: number, span: number): Promise<readonly string[]> => {
    let batch = 1;
    for (let took = await repeat(items[item], batch); took < BATCH_NS; took = await repeat(items[item], batch)) batch *= took < BATCH_NS / 10 ? 8 : 2;
    const [begin, cpu] = [now(), mainThreadNs()];
    const times: number[] = [];
    do times.push((await repeat(items[item], batch)) / batch); while (times.length < 3 || now() - begin < span);
    const runs = times.length * batch;
    return [line(runs, times, (mainThreadNs() - cpu) / runs)];
  };
  const chain = async (span: number): Promise<readonly string[]> => {
    const reading = Math.min(...Array.from({ length: 1000 }, () => { const t = now(); return now() - t; }));
    const times = items.map((): number[] => []);
    const begin = now();
    do {
      let from = now();
      for (let i = 0; i < items.length; i++) {
        items[i]();
        const to = now();
        times[i].push(Math.max(0, to - from - reading));
        from = to;
      }
    } while (times[0].length < 3 || now() - begin < span);
    return times.map((one) => line(one.length, one, NaN));
  };
  return { each, chain };
};

const main = async (): Promise<void> => {
  const job = JSON.parse(process.argv[2]) as Job;
  const opened = await (job.kind === 'program' ? openProgram(job) : job.kind === 'items' ? openItems(job) : openRuntime(job));
  const { each, chain } = measurer(opened);
  process.stdout.write(`${readyWord} ${Math.round(opened.startNs)}\n`);
  for await (const command of createInterface({ input: process.stdin })) {
    const [word, ...numbers] = command.split(' ');
    const answer = word === 'each' ? await each(Number(numbers[0]), Number(numbers[1])) : await chain(Number(numbers[0]));
    process.stdout.write(`${answer.join('\n')}\n`);
  }
};

try {
  await main();
  process.exit(0);
} catch (cause) {
  process.stderr.write(`${(cause as Error).message}\n`);
  process.exit(1);
}
