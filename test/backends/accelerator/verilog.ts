/** Runs the Verilog of a program under iverilog, where that is installed. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import type { MemoryFile } from '../../../src/backends/accelerator/files.ts';
import type { Machine } from '../../../src/backends/accelerator/machine.ts';
import { coreText, rtlFiles } from '../../../src/backends/accelerator/rtl/index.ts';
import type { Codes } from '../../../src/backends/run.ts';
import type { TypedArray } from '../../../src/ir/dtype.ts';

export const has = (tool: string): boolean => spawnSync(tool, ['--version'], { stdio: 'ignore' }).error === undefined;

/** What a tool says about the core of a machine; empty where it has nothing to say. */
const saidBy = (machine: Machine, tool: string, ...args: readonly string[]): string => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-core-'));
  writeFileSync(join(folder, 'lb1_core.v'), coreText(machine));
  const { status, stdout, stderr } = spawnSync(tool, [...args, 'lb1_core.v'], { cwd: folder, encoding: 'utf8' });
  rmSync(folder, { recursive: true });
  return `${stdout}${stderr}${status === 0 ? '' : `ended with ${status}`}`;
};
export const elaborates = (machine: Machine): string => saidBy(machine, 'iverilog', '-g2005', '-Wall', '-Wno-timescale', '-t', 'null');
export const lints = (machine: Machine): string => saidBy(machine, 'verilator', '--lint-only', '--unroll-count', '1', '--top-module', 'lb1_core');

export interface Bench {
  readonly folder: string;
  /** the program that the memory of the bench holds is replaced by another of the same length */
  run(program?: Uint8Array, inputs?: Codes, limit?: number): { readonly cycles: number; readonly error: string; readonly outputs: readonly Uint8Array[]; readonly text: string };
}

export const benchOf = (machine: Machine, memory: MemoryFile, program: Uint8Array, blobs: readonly Uint8Array[]): Bench => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-rtl-'));
  const put = (path: string, bytes: Uint8Array | string): void => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), bytes);
  };
  for (const [path, text] of rtlFiles(machine, memory, program.length)) put(path, text);
  memory.blobs.forEach(({ file }, i) => put(file, blobs[i]));
  put('program.bin', program);
  const made = spawnSync('iverilog', ['-g2005', '-o', 'core.vvp', 'rtl/lb1_core.v', 'rtl/lb1_tb.v'], { cwd: folder, encoding: 'utf8' });
  if (made.status !== 0) throw new Error(made.stderr);
  return {
    folder,
    run: (other = program, inputs = {}, limit = 1_000_000) => {
      put('program.bin', other);
      memory.inputs.forEach(({ name, bytes }, i) => {
        const codes = inputs[name] as TypedArray | undefined;
        put(`golden/input-${String(i).padStart(3, '0')}.bin`, codes === undefined ? new Uint8Array(bytes) : new Uint8Array(codes.buffer, codes.byteOffset, codes.byteLength));
      });
      const { stdout } = spawnSync('vvp', ['core.vvp', '+folder=./', '+inputs=golden/', '+outputs=golden/', `+limit=${limit}`], { cwd: folder, encoding: 'utf8' });
      const error = /error \d+ (\w+)/.exec(stdout)?.[1] ?? stdout;
      return {
        cycles: Number(/cycles (\d+)/.exec(stdout)?.[1]), error: stdout.includes('gave up') ? 'LIMIT' : error, text: stdout,
        outputs: error === 'NONE' && !stdout.includes('gave up') ? memory.outputs.map((_, i) => new Uint8Array(readFileSync(join(folder, `golden/output-${String(i).padStart(3, '0')}.bin`)))) : [],
      };
    },
  };
};

/** A core compiled by verilator, with the bench of a program that is one image of the memory outside: it runs any program of the machine. */
export interface CompiledCore {
  run(memory: MemoryFile, program: Uint8Array, blobs: readonly Uint8Array[], inputs: Codes, limit?: number): { readonly cycles: number; readonly error: string; readonly outside: Uint8Array };
  remove(): void;
}
/** `most`: bytes of the memory outside. Loops stay loops in the C++, and it is optimised a little: half a minute to make, a hundred thousand cycles a second. */
export const compileCore = (machine: Machine, most = 2 ** 20): CompiledCore => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-core-'));
  const programBytes = 2 ** 18;
  const image: Pick<MemoryFile, 'bytes' | 'blobs' | 'inputs' | 'outputs'> = { bytes: most, blobs: [{ file: 'image.bin', address: 0, bytes: most }], inputs: [], outputs: [{ name: 'image', dtype: 'u8', shape: [most], elements: most, bytes: most, scale: null, zero: 0, address: 0 }] };
  for (const [path, text] of rtlFiles(machine, image, programBytes)) writeFileSync(join(folder, basename(path)), text);
  const command = (tool: string, ...args: readonly string[]): void => {
    const { status, stdout, stderr } = spawnSync(tool, args, { cwd: folder, encoding: 'utf8' });
    if (status !== 0) throw new Error(`${tool}: ${stdout}${stderr}`);
  };
  command('verilator', '--cc', '--exe', '--main', '--timing', '--top-module', 'lb1_tb', '-Wno-fatal', '-Wno-lint', '-Wno-style', '--unroll-count', '1', '--output-split', '0',
    '--x-assign', 'fast', '--x-initial', 'fast', '--Mdir', 'made', '-o', 'core', 'lb1_core.v', 'lb1_tb.v');
  command('make', '-j2', '-C', 'made', '-f', 'Vlb1_tb.mk', 'OPT_FAST=-O1', 'OPT_SLOW=-O0', 'OPT_GLOBAL=-O0', 'core');
  return {
    run: (memory, program, blobs, inputs, limit = 10_000_000) => {
      if (memory.bytes > most || program.length > programBytes) throw new Error('the program is too large for the bench');
      const outside = new Uint8Array(most);
      memory.blobs.forEach(({ address }, i) => outside.set(blobs[i], address));
      for (const { name, address } of memory.inputs) {
        const codes = inputs[name] as TypedArray;
        outside.set(new Uint8Array(codes.buffer, codes.byteOffset, codes.byteLength), address);
      }
      writeFileSync(join(folder, 'image.bin'), outside);
      writeFileSync(join(folder, 'program.bin'), program);
      const { stdout } = spawnSync(join(folder, 'made', 'core'), ['+folder=./', '+inputs=./', '+outputs=./', `+limit=${limit}`], { cwd: folder, encoding: 'utf8' });
      return {
        cycles: Number(/cycles (\d+)/.exec(stdout)?.[1]), error: stdout.includes('gave up') ? 'LIMIT' : /error \d+ (\w+)/.exec(stdout)?.[1] ?? stdout,
        outside: new Uint8Array(readFileSync(join(folder, 'output-000.bin'))),
      };
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
};
