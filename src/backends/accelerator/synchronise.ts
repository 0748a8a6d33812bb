/**
 * Semaphores for a stream of instructions, from what they read and write. Whoever reads waits for the writer, whoever writes waits for
 * the writer and the readers before it, each through the semaphore between the two engines. Since engines run in order, one token for
 * each advance of "the latest instruction of E that D must have seen" is enough: tokens are put in and taken out in the same order. Every
 * wait points back in the stream, so the program cannot come to a standstill.
 */
import { accessesOf, type Access, type Memory } from './accesses.ts';
import { engineOf, engines, type Instruction, type Synchronised } from './isa.ts';

/** A stretch of memory with one history: the last writer and, since then, the last reader of each engine; −1 for none. */
interface Segment {
  readonly from: number;
  readonly to: number;
  readonly writer: number;
  readonly readers: readonly number[];
}
const nobody = [-1, -1, -1, -1] as const;

class History {
  private segments: Segment[] = [];

  /** Calls `seen` for each instruction that the access must follow, and records the access. */
  touch({ from, to, write }: Access, index: number, engine: number, seen: (earlier: number) => void): void {
    let first = 0;
    for (let high = this.segments.length; first < high;) {
      const middle = (first + high) >> 1;
      if (this.segments[middle].to <= from) first = middle + 1; else high = middle;
    }
    let last = first;
    const replaced: Segment[] = [];
    let at = from;
    const put = (segment: Segment): void => { if (segment.to > segment.from) replaced.push(segment); };
    const mark = (start: number, end: number, old: Segment | null): void => put(write ? { from: start, to: end, writer: index, readers: nobody }
      : { from: start, to: end, writer: old?.writer ?? -1, readers: (old?.readers ?? nobody).map((reader, e) => (e === engine ? index : reader)) });
    for (; last < this.segments.length && this.segments[last].from < to; last++) {
      const segment = this.segments[last];
      if (segment.writer >= 0) seen(segment.writer);
      if (write) segment.readers.forEach((reader) => { if (reader >= 0) seen(reader); });
      if (segment.from < from) put({ ...segment, to: from });
      mark(at, Math.max(at, segment.from), null);
      const end = Math.min(to, segment.to);
      mark(Math.max(at, segment.from), end, segment);
      at = end;
      if (segment.to > to) put({ ...segment, from: to });
    }
    mark(at, to, null);
    this.segments.splice(first, last - first, ...joined(replaced));
  }
}

/** Neighbours with the same history become one. */
const joined = (segments: readonly Segment[]): readonly Segment[] => {
  const out: Segment[] = [];
  for (const segment of [...segments].sort((a, b) => a.from - b.from)) {
    const before = out.at(-1);
    const same = before !== undefined && before.to === segment.from && before.writer === segment.writer && before.readers.every((reader, e) => reader === segment.readers[e]);
    if (same) out[out.length - 1] = { ...before, to: segment.to };
    else out.push(segment);
  }
  return out;
};

export const synchronise = (stream: readonly Instruction[]): readonly Synchronised[] => {
  const histories = new Map<Memory, History>();
  const engineAt = stream.map((one) => engines.indexOf(engineOf(one)));
  const wait = stream.map(() => 0);
  const signal = stream.map(() => 0);
  /** [from][to] the latest instruction of `from` that `to` has waited for */
  const known = engines.map(() => engines.map(() => -1));
  stream.forEach((one, index) => {
    const engine = engineAt[index];
    const latest = [-1, -1, -1, -1];
    for (const access of accessesOf(one)) {
      let history = histories.get(access.memory);
      if (history === undefined) histories.set(access.memory, (history = new History()));
      history.touch(access, index, engine, (earlier) => { latest[engineAt[earlier]] = Math.max(latest[engineAt[earlier]], earlier); });
    }
    latest.forEach((earlier, from) => {
      if (from === engine || earlier <= known[from][engine]) return;
      known[from][engine] = earlier;
      wait[index] |= 1 << from;
      signal[earlier] |= 1 << engine;
    });
  });
  return stream.map((one, i) => ({ ...one, wait: wait[i], signal: signal[i] }));
};
