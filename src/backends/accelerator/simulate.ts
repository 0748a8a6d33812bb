/**
 * The machine, instruction by instruction: four engines in order, tokens in semaphores, time in cycles. When an instruction begins, its
 * effect takes place; that no instruction running at the same time touches the same bytes is checked, so the moment does not matter.
 */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import { accessesOf, type Access } from './accesses.ts';
import { printInstruction } from './assembly.ts';
import { cyclesOf, laneBits } from './cycles.ts';
import type { Memories } from './execute.ts';
import { engineOf, engines, type Synchronised } from './isa.ts';
import { lanesFor, type Machine } from './machine.ts';

/** When each instruction ran. */
export interface Timeline {
  readonly start: readonly number[];
  readonly end: readonly number[];
  readonly cycles: number;
}

interface Running { readonly end: number; readonly index: number; readonly accesses: readonly Access[] }

const at = (program: readonly Synchronised[], index: number): string => `instruction ${index}: ${printInstruction(program[index])}`;
const trap = (kind: string, why: string, where: string | null): never => { throw new CompileError(errors.machineTrap(kind, why, where)); };

/** Runs a program on memories, or, with null, only counts its time, which does not depend on data. */
export const simulate = (program: readonly Synchronised[], machine: Machine, memories: Memories | null, after: (index: number) => void = () => undefined): Timeline => {
  if (program.at(-1)?.op !== 'END' || program.findIndex(({ op }) => op === 'END') !== program.length - 1) trap('undecodable program', 'END must be the last instruction, and no other', null);
  const known = new Set(machine.ops);
  const queues = engines.map((engine) => program.flatMap((one, index) => (engineOf(one) === engine ? [index] : [])));
  const heads = engines.map(() => 0);
  const free = engines.map(() => 0);
  /** [from][to] the moments at which tokens came in, oldest first */
  const tokens = engines.map(() => engines.map((): number[] => []));
  const running: (Running | null)[] = engines.map(() => null);
  const [start, end] = [program.map(() => 0), program.map(() => 0)];
  const ready = (engine: number): number => {
    const index = queues[engine][heads[engine]];
    if (index === undefined) return Infinity;
    let moment = free[engine];
    for (let from = 0; from < engines.length; from++) if ((program[index].wait >> from) & 1) moment = Math.max(moment, tokens[from][engine][0] ?? Infinity);
    return moment;
  };
  for (let left = program.length; left > 0; left--) {
    const moments = engines.map((_, engine) => ready(engine));
    const moment = Math.min(...moments);
    if (moment === Infinity) {
      const stuck = queues.flatMap((queue, engine) => (heads[engine] < queue.length ? [queue[heads[engine]]] : []));
      trap('deadlock', 'every engine waits for a token that nobody gives', stuck.map((index) => at(program, index)).join('\n      '));
    }
    const engine = moments.indexOf(moment);
    const index = queues[engine][heads[engine]++];
    const one = program[index];
    if (!known.has(one.op)) trap('unknown op', `machine ${machine.name} has no ${one.op}`, at(program, index));
    if (one.op === 'MM' && lanesFor(machine, laneBits(one.fields.wBits), Number(one.fields.aBits)) === null) trap('unknown op', `machine ${machine.name} has no products of these widths`, at(program, index));
    for (let from = 0; from < engines.length; from++) if ((one.wait >> from) & 1) tokens[from][engine].shift();
    const accesses = memories === null ? [] : accessesOf(one);
    running.forEach((other, e) => {
      if (other === null || e === engine || other.end <= moment) return;
      const clash = accesses.find((mine) => other.accesses.some((theirs) => theirs.memory === mine.memory && (mine.write || theirs.write) && mine.from < theirs.to && theirs.from < mine.to));
      if (clash !== undefined) trap('race', `it touches ${clash.memory} ${clash.from} to ${clash.to - 1} while another instruction does\n      ${at(program, other.index)}`, at(program, index));
    });
    if (memories !== null) withPlace(() => memories.execute(one), () => at(program, index));
    after(index);
    start[index] = moment;
    end[index] = moment + cyclesOf(machine, one);
    free[engine] = end[index];
    running[engine] = { end: end[index], index, accesses };
    for (let to = 0; to < engines.length; to++) if ((one.signal >> to) & 1) tokens[engine][to].push(end[index]);
  }
  tokens.forEach((row, from) => row.forEach((queue, to) => {
    if (queue.length > 0) trap('unbalanced semaphore', `${queue.length} tokens from ${engines[from]} to ${engines[to]} are left over`, null);
  }));
  return { start, end, cycles: Math.max(...end) };
};

const withPlace = (run: () => void, where: () => string): void => {
  try {
    run();
  } catch (cause) {
    if (cause instanceof CompileError && cause.diagnostics[0].at === null) throw new CompileError({ ...cause.diagnostics[0], at: where() }, cause.kind);
    throw cause;
  }
};
