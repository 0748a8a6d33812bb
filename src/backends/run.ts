/** Runs emitted programs under Node, for tests, verification and measurement: the C through the system's compiler, the WASM in process. */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { allocate, type TypedArray } from '../ir/dtype.ts';
import { identifier } from './identifier.ts';
import type { Port, ProgramInterface } from './interface.ts';

/** Integer codes of tensors by their ONNX names. */
export type Codes = Readonly<Record<string, TypedArray>>;

/** The C compiler: `CC`, else `cc`; null where there is none. */
export const cCompiler = (): string | null => {
  const command = process.env['CC'] ?? 'cc';
  const found = spawnSync(command, ['--version'], { stdio: 'ignore' });
  return found.status === 0 ? command : null;
};

/** Compiles the C in a folder and returns the path of its program. Made once for each content, compiler and flags. */
export const buildC = (folder: string, name: string, flags: readonly string[] = ['-O3'], compiler = cCompiler()): string => {
  if (compiler === null) throw new Error('there is no C compiler; set CC');
  const sources = readdirSync(folder).filter((file) => /\.[ch]$/.test(file)).sort();
  const digest = createHash('sha256').update(JSON.stringify([compiler, flags]));
  for (const file of sources) digest.update(`\0${file}\0`).update(readFileSync(join(folder, file)));
  const home = join(tmpdir(), `lowbitc-${process.getuid?.() ?? 'user'}`);
  mkdirSync(home, { recursive: true, mode: 0o700 });
  const program = join(home, `${identifier(name)}-${digest.digest('hex').slice(0, 32)}`);
  if (existsSync(program)) return program;
  const scratch = mkdtempSync(join(home, 'build-'));
  try {
    const made = join(scratch, 'program');
    const files = sources.filter((file) => file.endsWith('.c')).map((file) => resolve(folder, file));
    const result = spawnSync(compiler, ['-std=c99', '-fno-strict-aliasing', ...flags, ...files, '-o', made], { encoding: 'utf8' });
    if (result.status !== 0) throw new Error(`${compiler} failed on ${folder}:\n${result.stderr}`);
    renameSync(made, program);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return program;
};

const bytesOf = (codes: TypedArray): Uint8Array => new Uint8Array(codes.buffer, codes.byteOffset, codes.byteLength);
const inputOf = (sample: Codes, port: Port): TypedArray => {
  const codes = sample[port.name];
  if (codes === undefined) throw new RangeError(`the sample has no input "${port.name}"`);
  if (codes.byteLength !== port.bytes) throw new RangeError(`input "${port.name}" has ${codes.byteLength} bytes, not ${port.bytes}`);
  return codes;
};

/** Another machine than this one: its compiler, and the command that the path of a program is appended to. */
export interface Emulator {
  readonly compiler: string;
  readonly command: readonly string[];
}

/** Runs samples through the C in a folder, one after another in one process, and returns the outputs of each. */
export const runC = async (folder: string, name: string, { inputs, outputs }: ProgramInterface, samples: Iterable<Codes>, flags?: readonly string[], emulator?: Emulator): Promise<readonly Codes[]> => {
  const [command, ...args] = [...(emulator?.command ?? []), buildC(folder, name, flags, emulator?.compiler)];
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const decoder = new Decoder(outputs);
  child.stdout.on('data', (chunk: Uint8Array) => decoder.take(chunk));
  const closed = once(child, 'close');
  let broken = false;
  child.stdin.on('error', () => { broken = true; });
  for (const sample of samples) {
    const records = inputs.length === 0 ? [new Uint8Array(1)] : inputs.map((port) => bytesOf(inputOf(sample, port)));
    for (const record of records) if (!broken && !child.stdin.write(record)) await Promise.race([once(child.stdin, 'drain'), closed]);
  }
  child.stdin.end();
  const [status] = await closed as [number | null];
  if (status !== 0) throw new Error(`the program of ${folder} ended with status ${status}`);
  return decoder.samples;
};

/** Cuts a stream of bytes into the outputs of samples. */
class Decoder {
  readonly samples: Codes[] = [];
  private readonly ports: readonly Port[];
  private readonly record: Uint8Array;
  private filled = 0;
  constructor(ports: readonly Port[]) {
    this.ports = ports;
    this.record = new Uint8Array(ports.reduce((sum, { bytes }) => sum + bytes, 0));
  }
  take(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length;) {
      const part = chunk.subarray(at, at + this.record.length - this.filled);
      this.record.set(part, this.filled);
      this.filled += part.length;
      at += part.length;
      if (this.filled === this.record.length) this.finish();
    }
  }
  private finish(): void {
    let at = 0;
    const sample: Record<string, TypedArray> = {};
    for (const { name, dtype, elements, bytes } of this.ports) {
      const codes = allocate(dtype, elements);
      bytesOf(codes).set(this.record.subarray(at, at + bytes));
      sample[name] = codes;
      at += bytes;
    }
    this.samples.push(sample);
    this.filled = 0;
  }
}

/** Loads the WASM of a folder; the function runs one sample. */
export const runWasm = async (folder: string, name: string): Promise<(inputs: Codes) => Codes> => {
  const file = resolve(folder, `${identifier(name)}.mjs`);
  const { load } = await import(pathToFileURL(file).href) as { load(source?: unknown): Promise<{ run(inputs: Codes): Codes }> };
  const model = await load();
  return (inputs) => model.run(inputs);
};
