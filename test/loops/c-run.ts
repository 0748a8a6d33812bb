/** Runs loop programs as C, here or in an emulator: one file, one compiler call and one process for a whole list of programs. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cPrinter, ctypeOf, portable, type CTarget } from '../../src/backends/c/print.ts';
import { bytesOf } from '../../src/loops/build.ts';
import { allocateContents } from '../../src/loops/interpret.ts';
import type { Buffer as LoopBuffer, Contents, Program } from '../../src/loops/types.ts';

/** Where C is compiled and run. */
export interface Host {
  readonly compiler: string;
  readonly flags: readonly string[];
  /** text that the program needs before its main */
  readonly start: string;
  /** the command that runs the program `p` of the current folder */
  readonly command: readonly [string, ...string[]];
}
export const native: Host = { compiler: 'cc', flags: [], start: '', command: ['./p'] };
/** Whether this machine has a command. */
export const has = (command: string): boolean => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
export const hasCompiler = has(native.compiler);

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

/** A main that reads all read-only buffers from a file, runs each program, and writes all written ones to another. */
const mainOf = (programs: readonly Program[]): string => [
  '#include <stdio.h>', 'int main(void)', '{', '    FILE *in = fopen("in", "rb"), *out = fopen("out", "wb");', '    if (in == NULL || out == NULL) return 1;',
  ...programs.flatMap((p, n) => [
    '    {',
    ...p.buffers.flatMap((b, i) => [
      `        static ${ctypeOf(b.e)} b${n}_${i}[${b.length}];`,
      ...(written(b) ? [] : [`        if (fread(b${n}_${i}, sizeof b${n}_${i}, 1, in) != 1) return 1;`]),
    ]),
    `        ${p.name}(${p.buffers.map((_, i) => `b${n}_${i}`).join(', ')});`,
    ...p.buffers.flatMap((b, i) => (written(b) ? [`        if (fwrite(b${n}_${i}, sizeof b${n}_${i}, 1, out) != 1) return 1;`] : [])),
    '    }',
  ]),
  '    return fclose(out);', '}', '',
].join('\n');

/** Results of each case, by buffer. */
export const runC = (cases: readonly CCase[], flags: readonly string[], target: CTarget = portable, host: Host = native): ReadonlyMap<LoopBuffer, Contents>[] => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-'));
  try {
    const programs = cases.map(({ program }) => program);
    writeFileSync(join(folder, 'p.c'), printC(programs, target) + host.start + mainOf(programs));
    execFileSync(host.compiler, ['-std=c99', ...host.flags, ...flags, '-o', 'p', 'p.c'], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
    writeFileSync(join(folder, 'in'), Buffer.concat(cases.flatMap(({ program, memory }) => program.buffers.filter((b) => !written(b)).map((b) => {
      const data = memory.get(b) ?? b.data ?? allocateContents(b.e, b.length);
      return Buffer.from(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    }))));
    const [command, ...args] = host.command;
    execFileSync(command, args, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
    const output = readFileSync(join(folder, 'out'));
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
