/** Runs the Verilog of a program under iverilog, where that is installed. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { MemoryFile } from '../../../src/backends/accelerator/files.ts';
import type { Machine } from '../../../src/backends/accelerator/machine.ts';
import { rtlFiles } from '../../../src/backends/accelerator/rtl/index.ts';
import type { Codes } from '../../../src/backends/run.ts';
import type { TypedArray } from '../../../src/ir/dtype.ts';

export const has = (tool: string): boolean => spawnSync(tool, ['-V'], { stdio: 'ignore' }).error === undefined;

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
