/**
 * A side of a measurement: a child process that holds things ready to run, runs them over and over on command, and says how long they
 * took. C programs and Node scripts speak the same lines, so that rounds of all sides can alternate:
 *
 *     < ready <ns to the first output>
 *     > each <item> <ns>           runs one item for about that long
 *     < <runs> <best> <median> <cpu>
 *     > chain <ns>                 runs all items in turn, timing each
 *     < <runs> <best> <median> <cpu>          one line for each item
 *
 * Times are nanoseconds of one run: best and median of wall time, and the mean CPU time of the running thread, −1 where unknown. An
 * item that this machine cannot run has 0 runs. The process ends when its input does.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';

/** Milliseconds of one run. */
export interface Times {
  readonly runs: number;
  readonly bestMs: number;
  readonly medianMs: number;
  /** CPU time of the running thread: what a run takes when no other process holds the core; null where unknown */
  readonly cpuMs: number | null;
}

/** What a side says when it starts, and for each item: counts and nanoseconds. */
export const readyWord = 'ready';
/** How long a side may take to answer beyond what it was asked to spend. */
const PATIENCE_MS = 300_000;
/** Characters of stderr that are kept for a message. */
const KEPT_WORDS = 4000;
/** Nanoseconds in a millisecond. */
const NANOSECONDS = 1e6;

export class Side {
  readonly name: string;
  private readonly child: ChildProcess;
  private readonly items: number;
  private readonly lines: AsyncIterator<string>;
  /** the end of what the process wrote to stderr */
  private said = '';
  private startNs = 0;

  private constructor(name: string, child: ChildProcess, items: number) {
    this.name = name;
    this.child = child;
    this.items = items;
    this.lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    child.stderr!.setEncoding('utf8').on('data', (text: string) => { this.said = (this.said + text).slice(-KEPT_WORDS); });
    child.on('error', (cause) => { this.said = cause.message; });
    child.stdin!.on('error', () => undefined);
  }

  /** Starts a process; resolves when it is ready. `items` is how many things it holds. */
  static async start(name: string, command: string, args: readonly string[], items = 1): Promise<Side> {
    const side = new Side(name, spawn(command, args, { stdio: 'pipe' }), items);
    const [word, startNs] = (await side.line()).split(' ');
    if (word !== readyWord) throw side.failed(`it said "${word}"`);
    side.startNs = Number(startNs);
    return side;
  }
  /** From just before the program is loaded to its first output; 0 for items without a first output. */
  get startMs(): number {
    return this.startNs / NANOSECONDS;
  }

  /** Runs one item for about `ms` milliseconds, three times at least. Null where this machine cannot run it. */
  async each(item: number, ms: number): Promise<Times | null> {
    this.child.stdin!.write(`each ${item} ${Math.round(ms * NANOSECONDS)}\n`);
    return timesOf(await this.line(ms));
  }
  /** Runs all items in turn for about `ms` milliseconds, three times at least, and gives the times of each. */
  async chain(ms: number): Promise<readonly Times[]> {
    this.child.stdin!.write(`chain ${Math.round(ms * NANOSECONDS)}\n`);
    const found: Times[] = [];
    for (let i = 0; i < this.items; i++) found.push(timesOf(await this.line(ms))!);
    return found;
  }
  close(): void {
    this.child.stdin!.end();
    this.child.kill();
  }

  private async line(ms = 0): Promise<string> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<null>((resolve) => { timer = setTimeout(() => resolve(null), PATIENCE_MS + ms); });
    const answer = await Promise.race([this.lines.next(), late]);
    clearTimeout(timer);
    if (answer === null) throw this.failed('it does not answer');
    if (answer.done === true) throw this.failed(this.lastWords());
    return answer.value;
  }
  /** The message of an error without its stack. */
  private lastWords(): string {
    return this.said.trim().split('\n').find((line) => /\S/.test(line) && !/^\s+at /.test(line)) ?? 'it ended without a word';
  }
  private failed(why: string): CompileError {
    this.child.kill();
    return new CompileError(errors.timingFailed(this.name, why));
  }
}

const timesOf = (line: string): Times | null => {
  const [runs, best, median, cpu] = line.split(' ').map(Number);
  if (runs === 0) return null;
  return { runs, bestMs: best / NANOSECONDS, medianMs: median / NANOSECONDS, cpuMs: cpu < 0 ? null : cpu / NANOSECONDS };
};

export const middleOf = (numbers: readonly number[]): number => {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
};

/** Rounds as one: the best of the bests, the middle of the medians, the least CPU time, which no other process lengthens. */
export const joined = (rounds: readonly Times[]): Times => {
  const cpu = rounds.flatMap(({ cpuMs }) => (cpuMs === null ? [] : [cpuMs]));
  return {
    runs: rounds.reduce((sum, { runs }) => sum + runs, 0), bestMs: Math.min(...rounds.map(({ bestMs }) => bestMs)),
    medianMs: middleOf(rounds.map(({ medianMs }) => medianMs)), cpuMs: cpu.length === 0 ? null : Math.min(...cpu),
  };
};
