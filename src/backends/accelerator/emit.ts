/** Target `accel`: a program of the instruction set LB1 for a described machine, with its memory, its time and vectors to test it. */
import type { Artefact, Backend, Emission, Program, ProgramPrice } from '../backend.ts';
import { printInstruction } from './assembly.ts';
import { blobNames } from './blobs.ts';
import { encodeProgram, wordCount } from './encode.ts';
import { goldenOf } from './golden.ts';
import { machineOf } from './machine.ts';
import type { Machine } from './machine.ts';
import { channelsLast, compileProgram } from './program.ts';
import { coreObstacle, rtlFiles } from './rtl/index.ts';
import { scheduleOf } from './schedule.ts';
import { simulate } from './simulate.ts';
import { specText } from './spec.ts';

export const acceleratorFor = (machine: Machine): Backend => ({
  name: 'accel',
  summary: `LB1 instructions for an accelerator (${machine.name})`,
  configure: (setting) => acceleratorFor(machineOf(setting)),
  multiplierBits: machine.multiplierBits,
  rescalesWords: false,
  emit: ({ graph }: Program, { name }): Emission => {
    const program = channelsLast(graph);
    const compiled = compileProgram(program, machine);
    const schedule = scheduleOf(machine, compiled.program, simulate(compiled.program, machine, null), compiled.stepOf, program.steps);
    const golden = goldenOf(program);
    const text = (value: string): Uint8Array => new TextEncoder().encode(value);
    const json = (value: object): Uint8Array => text(`${JSON.stringify(value, null, 2)}\n`);
    const bytes = encodeProgram(compiled.program);
    const files: readonly (readonly [string, Uint8Array])[] = [
      ['target.json', json(machine)], ['memory.json', json(compiled.memory)],
      ...blobNames.map((blob) => [`${blob}.bin`, compiled.blobs[blob]] as const),
      ['program.bin', bytes], ['program.lst', text(listing(program, compiled))],
      ['schedule.json', text(`${JSON.stringify(schedule)}\n`)],
      ['golden/index.json', json(golden.map(({ bytes, ...rest }) => ({ ...rest, size: bytes.length })))], ...golden.map(({ file, bytes }) => [file, bytes] as const),
      ...(coreObstacle(machine) === null ? rtlFiles(machine, compiled.memory, bytes.length) : []).map(([path, verilog]) => [path, text(verilog)] as const),
      ['SPEC.md', text(specText(name, machine, compiled, schedule))],
    ];
    return {
      artefacts: files.map(([path, bytes]): Artefact => ({ path: `accel/${path}`, bytes })),
      arenaBytes: compiled.arenaBytes, weightBytes: blobNames.reduce((sum, blob) => sum + compiled.blobs[blob].length, 0),
    };
  },
  /** Time is that of the cycle model: what a step adds to the end of the program, as its engines overlap. */
  price: ({ graph }: Program): ProgramPrice => {
    const program = channelsLast(graph);
    const compiled = compileProgram(program, machine);
    const { layers } = scheduleOf(machine, compiled.program, simulate(compiled.program, machine, null), compiled.stepOf, program.steps);
    return {
      weightBytes: compiled.constantBytes.reduce((sum, bytes) => sum + bytes, 0), arenaBytes: compiled.arenaBytes, pieces: [],
      steps: layers.map(({ cycles }, i) => ({ weightBytes: compiled.constantBytes[i], microseconds: cycles / machine.clockMHz })),
    };
  },
});

/** The machine that `--target accel` means. */
export const accelerator = acceleratorFor(machineOf('mid'));

const listing = ({ steps }: Program, { program, stepOf }: ReturnType<typeof compileProgram>): string => {
  const lines: string[] = [];
  let word = 0;
  program.forEach((one, i) => {
    if (i === 0 || stepOf[i] !== stepOf[i - 1]) lines.push('', `; ${steps[stepOf[i]]?.output.name.replaceAll('\n', ' ') ?? 'end'}`);
    lines.push(`${printInstruction(one)} ; ${word}`);
    word += wordCount(one);
  });
  return `${lines.join('\n').trimStart()}\n`;
};
