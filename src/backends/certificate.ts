/**
 * The machine code behind the C: compiled with the compiler that is here, disassembled, and searched for arithmetic, comparison and
 * conversion of real numbers, for integer division, and for calls into a library that could hide either. Moves, logic and shuffles of
 * vector registers are no arithmetic, whichever type their names mention. What it finds depends on the compiler, so it is a check of
 * this machine and no part of the files.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { cCompiler } from './run.ts';

export interface ObjectScan {
  readonly file: string;
  readonly architecture: string;
  readonly instructions: number;
  /** mnemonics that compute with real numbers, and how often each occurs */
  readonly float: Readonly<Record<string, number>>;
  readonly division: Readonly<Record<string, number>>;
  /** functions called from outside the library, other than those that a compiler may call by itself */
  readonly foreign: readonly string[];
}

/** Instructions on real numbers and integer divisions, by architecture as `objdump -f` names it. */
const machines: readonly { readonly name: RegExp; readonly float: RegExp; readonly division: RegExp }[] = [
  {
    name: /x86-64|i386/,
    float: /^(?:v?(?:add|sub|mul|div|sqrt|min|max|rcp|rsqrt|round|hadd|hsub|addsub|dp|cmp\w*|reduce|scalef|range|getexp|getmant|fixupimm|rcp14|rsqrt14|rndscale)(?:ss|sd|ps|pd|sh|ph)|v?u?comi(?:ss|sd|sh)|v?cvt\w+|vf(?:n?m(?:add|sub)|maddsub|msubadd|c?maddc|c?mulc)\w+|f(?!xsave|xrstor)\w+)$/,
    division: /^i?div[bwlq]?$/,
  },
  {
    name: /aarch64/,
    float: /^(?:f(?!mov$)\w+|[su]cvtf|bf\w*(?:dot|mla|mmla|cvt)\w*)$/,
    division: /^[su]div$/,
  },
  {
    name: /^arm/,
    float: /^v(?!mov|ldr|str|ldm|stm|push|pop|msr|mrs)\w+\.f(?:16|32|64).*$|^vcvt.*$/,
    division: /^[su]div(?:eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)?$/,
  },
];
/** What a compiler may call without being asked, and how it learns what the processor can do. */
const expectedSymbols: ReadonlySet<string> = new Set(['memcpy', 'memset', 'memmove', '__stack_chk_fail', '_GLOBAL_OFFSET_TABLE_', '__cpu_indicator_init', '__cpu_model', '__cpu_features2']);

/** The library of a `cpu` folder as machine code; a sentence instead where this machine has no compiler or no disassembler for it. */
export const scanObjects = (folder: string, flags: readonly string[] = ['-O3']): readonly ObjectScan[] | string => {
  const compiler = cCompiler();
  if (compiler === null) return 'there is no C compiler';
  if (spawnSync('objdump', ['--version'], { stdio: 'ignore' }).status !== 0) return 'there is no objdump';
  const scratch = mkdtempSync(join(tmpdir(), 'lowbitc-objects-'));
  try {
    const scans: ObjectScan[] = [];
    const defined = new Set<string>();
    const needed: (readonly [ObjectScan, readonly string[]])[] = [];
    for (const file of readdirSync(folder).filter((name) => name.endsWith('.c') && name !== 'main.c').sort()) {
      const object = join(scratch, `${file}.o`);
      const made = spawnSync(compiler, ['-std=c99', '-fno-strict-aliasing', ...flags, '-c', resolve(folder, file), '-o', object], { encoding: 'utf8' });
      if (made.status !== 0) return `${compiler} failed on ${file}`;
      const dump = (option: string): string => spawnSync('objdump', [option, '--no-show-raw-insn', object], { encoding: 'utf8', maxBuffer: 2 ** 30 }).stdout;
      const architecture = /architecture:\s*([^\s,]+)/.exec(dump('-f'))?.[1] ?? 'unknown';
      const machine = machines.find(({ name }) => name.test(architecture));
      if (machine === undefined) return `the instructions of ${architecture} are not known`;
      const symbols = symbolsIn(dump('-t'));
      symbols.defined.forEach((name) => defined.add(name));
      const one = { file, architecture, ...countIn(dump('-d'), machine) };
      needed.push([{ ...one, foreign: [] }, symbols.undefined]);
    }
    for (const [one, names] of needed) scans.push({ ...one, foreign: names.filter((name) => !defined.has(name) && !expectedSymbols.has(name)) });
    return scans;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
};

/** Prefixes that objdump prints before the instruction they belong to. */
const instructionPrefixes: ReadonlySet<string> = new Set(['rep', 'repz', 'repnz', 'lock', 'bnd', 'notrack', 'data16', 'cs', 'ds', 'es', 'fs', 'gs', 'ss', 'addr32']);

const countIn = (disassembly: string, { float, division }: (typeof machines)[number]): Pick<ObjectScan, 'instructions' | 'float' | 'division'> => {
  const counts = new Map<string, number>();
  let instructions = 0;
  for (const [, text] of disassembly.matchAll(/^\s+[0-9a-f]+:\t(.*)$/gm)) {
    const mnemonic = text.trim().split(/\s+/).find((word) => !instructionPrefixes.has(word));
    if (mnemonic === undefined) continue;
    instructions++;
    counts.set(mnemonic, (counts.get(mnemonic) ?? 0) + 1);
  }
  const pick = (pattern: RegExp): Readonly<Record<string, number>> => Object.fromEntries([...counts].filter(([mnemonic]) => pattern.test(mnemonic)).sort());
  return { instructions, float: pick(float), division: pick(division) };
};

const symbolsIn = (table: string): { readonly defined: readonly string[]; readonly undefined: readonly string[] } => {
  const lines = [...table.matchAll(/^[0-9a-f]{8,16} .{7} (\S+)\t[0-9a-f]+ +(?:\.hidden )?(\S+)$/gm)];
  return { defined: lines.filter(([, section]) => section !== '*UND*').map(([, , name]) => name), undefined: lines.filter(([, section]) => section === '*UND*').map(([, , name]) => name) };
};
