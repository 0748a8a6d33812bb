/** Runs loop programs as C: one file, one compiler call and one process for a whole list of programs. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cPrinter, ctypeOf, portable, type CTarget } from '../../src/backends/c/print.ts';
import { bytesOf } from '../../src/loops/build.ts';
import { allocateContents } from '../../src/loops/interpret.ts';
import type { Buffer as LoopBuffer, Contents, Program } from '../../src/loops/types.ts';

export const hasCompiler = ((): boolean => {
  try {
    execFileSync('cc', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

export interface CCase {
  readonly program: Program;
  readonly memory: ReadonlyMap<LoopBuffer, Contents>;
}
const written = (b: LoopBuffer): boolean => b.role === 'out' || b.role === 'temp';

/** The translation unit of several programs, each an entry of its own name. */
export const printC = (programs: readonly Program[], target: CTarget = portable): string => {
  const printer = cPrinter(target);
  const entries = programs.map((p) => printer.entry(p));
  return `${printer.declarations()}\n\n${entries.join('\n\n')}\n`;
};

/** A main that reads all read-only buffers from stdin, runs each program, and writes all written ones. */
const mainOf = (programs: readonly Program[]): string => [
  '#include <stdio.h>', 'int main(void)', '{',
  ...programs.flatMap((p, n) => [
    '    {',
    ...p.buffers.flatMap((b, i) => [
      `        static ${ctypeOf(b.e)} b${n}_${i}[${b.length}];`,
      ...(written(b) ? [] : [`        if (fread(b${n}_${i}, sizeof b${n}_${i}, 1, stdin) != 1) return 1;`]),
    ]),
    `        ${p.name}(${p.buffers.map((_, i) => `b${n}_${i}`).join(', ')});`,
    ...p.buffers.flatMap((b, i) => (written(b) ? [`        if (fwrite(b${n}_${i}, sizeof b${n}_${i}, 1, stdout) != 1) return 1;`] : [])),
    '    }',
  ]),
  '    return 0;', '}', '',
].join('\n');

/** Results of each case, by buffer. */
export const runC = (cases: readonly CCase[], flags: readonly string[], target: CTarget = portable): ReadonlyMap<LoopBuffer, Contents>[] => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-'));
  try {
    const programs = cases.map(({ program }) => program);
    writeFileSync(join(folder, 'p.c'), printC(programs, target) + mainOf(programs));
    execFileSync('cc', ['-std=c99', ...flags, '-o', 'p', 'p.c'], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
    const input = Buffer.concat(cases.flatMap(({ program, memory }) => program.buffers.filter((b) => !written(b)).map((b) => {
      const data = memory.get(b) ?? b.data ?? allocateContents(b.e, b.length);
      return Buffer.from(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    })));
    const output = execFileSync(join(folder, 'p'), { input, maxBuffer: 2 ** 28 });
    let at = 0;
    return cases.map(({ program }) => new Map(program.buffers.filter(written).map((b) => {
      const data = allocateContents(b.e, b.length);
      new Uint8Array(data.buffer as ArrayBuffer).set(output.subarray(at, at + b.length * bytesOf(b.e)));
      at += b.length * bytesOf(b.e);
      return [b, data] as const;
    })));
  } finally {
    rmSync(folder, { recursive: true });
  }
};
