/**
 * The table of timings: how long this compiler's kernels take on this machine, by shape and width. Its form is in docs/profile.md.
 *
 * Each kernel runs alone, over and over, its operands near the core; inside a program, weights that do not stay in the caches cost more.
 * Widths that a target stores and computes alike are measured once.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { codebookBits } from '../ir/ops/widths.ts';
import type { Variant } from '../backends/c/variants.ts';
import { titleOf } from './instructions.ts';
import { codeOf } from './items.ts';
import { kernelGraph, kernelKey, macsOf, type Kernel, type KernelShape } from './kernels.ts';
import { sameMachine, type Machine } from './machine.ts';
import { wasmTitle, type Progress } from './measure.ts';
import { joined, type Times } from './side.ts';
import { cSteps, wasmSteps } from './sides.ts';

/** Raised when a field changes its meaning or goes away. */
export const tableFormat = 2;

export interface Timing extends Kernel {
  readonly target: 'cpu' | 'wasm';
  /** what the kernel was printed for */
  readonly instructions: string;
  readonly macs: number;
  readonly bestMs: number;
  readonly medianMs: number;
}
export interface Table {
  /** version of lowbitc */
  readonly lowbitc: string;
  readonly format: typeof tableFormat;
  readonly machine: Machine;
  /** what the C was compiled with */
  readonly cflags: readonly string[];
  readonly kernels: readonly Timing[];
}

const linear = (rows: number, depth: number, columns: number): KernelShape => ({ op: 'linear', rows, depth, columns });
const conv = (size: number, channels: number, outputs: number, kernel: number, stride = 1, group = 1): KernelShape => {
  const border = Math.floor(kernel / 2);
  return {
    op: 'conv', batch: 1, height: size, width: size, channels, outputs, kernel: [kernel, kernel], strides: [stride, stride], pads: [border, border, border, border],
    dilations: [1, 1], group,
  };
};
const depthwise = (size: number, channels: number, stride = 1): KernelShape => conv(size, channels, channels, 3, stride, channels);

/** Shapes of small and middling nets, for a table that fits models in general. */
export const commonShapes: readonly KernelShape[] = [
  linear(1, 256, 256), linear(1, 768, 768), linear(16, 128, 128), linear(64, 64, 64), linear(64, 384, 384), linear(197, 192, 576),
  conv(32, 16, 16, 3), conv(16, 64, 64, 3), conv(28, 64, 64, 3), conv(7, 256, 256, 3), conv(96, 3, 16, 3, 2), conv(28, 24, 144, 1), conv(14, 384, 64, 1),
  depthwise(28, 96), depthwise(14, 384), depthwise(28, 96, 2),
  { op: 'matmul', batch: 3, rows: 64, depth: 64, columns: 64, transposeB: true },
  { op: 'attention', batch: 1, rows: 64, keys: 64, heads: 3, depth: 64, valueDepth: 64 },
];

/** Widths of weights and activations of one layer; four to eight bits of activations are stored in bytes, so 8 stands for them. */
const weightWidths = [2, 3, 4, 5, 6, 7, 8] as const;
const activationWidths = [8, 16] as const;

export const kernelsOf = (shapes: readonly KernelShape[]): readonly Kernel[] => shapes.flatMap((shape) => activationWidths.flatMap((activationBits): Kernel[] =>
  shape.op === 'linear' || shape.op === 'conv'
    ? [...weightWidths.map((weightBits) => ({ shape, weightBits, activationBits })), ...codebookBits.map((weightBits) => ({ shape, weightBits, codebook: true, activationBits }))]
    : [{ shape, weightBits: null, activationBits }]));

/** What a timing is of; equal for equal kernels. */
const keyOf = (kernel: Kernel, target: Timing['target'], instructions: string): string => [target, instructions, kernelKey(kernel)].join('\n');

export interface ProfileRequest {
  readonly kernels: readonly Kernel[];
  /** a variant of the C, WebAssembly */
  readonly targets: readonly (Variant | 'wasm')[];
  /** of each kernel */
  readonly ms: number;
  readonly cflags: readonly string[];
  readonly progress: Progress;
  /** timings from before; called with more whenever some are done */
  readonly known: readonly Timing[];
  readonly save: (timings: readonly Timing[]) => void;
}

/** Kernels that are compiled together; what is lost when the command is interrupted. */
const GROUP = 12;
const WARM_MS = 5;
/** A kernel's time is taken in so many parts, all kernels of a group in turns: what else the machine does for a while then slows a part of each, not all of one. */
const ROUNDS = 6;

/** Times what is not known yet. Returns the timings of all kernels asked for, and how many of them are new. */
export const profile = async ({ kernels, targets, ms, cflags, progress, known, save }: ProfileRequest): Promise<{ readonly timings: readonly Timing[]; readonly added: number }> => {
  const timings = new Map(known.map((timing) => [keyOf(timing, timing.target, timing.instructions), timing]));
  const key = (kernel: Kernel, target: Variant | 'wasm'): string => keyOf(kernel, ...nameOf(target));
  const total = kernels.length * targets.length;
  let added = 0;
  for (const [t, target] of targets.entries()) {
    const [name, instructions] = nameOf(target);
    const missing = kernels.filter((kernel) => !timings.has(key(kernel, target)));
    let done = kernels.length - missing.length;
    const alike = new Map<string, Kernel[]>();
    for (const kernel of missing) {
      const code = codeOf(kernelGraph(kernel), target);
      alike.set(code, [...(alike.get(code) ?? []), kernel]);
    }
    const classes = [...alike.values()];
    for (let first = 0; first < classes.length; first += GROUP) {
      const group = classes.slice(first, first + GROUP);
      progress(`time ${instructions}`, t * kernels.length + done, total);
      const times = await timeEach(group.map(([kernel]) => kernel), target, ms, cflags);
      group.forEach((members, i) => members.forEach((kernel) => {
        const { bestMs, medianMs } = times[i];
        timings.set(key(kernel, target), { target: name, instructions, ...kernel, macs: macsOf(kernel.shape), bestMs, medianMs });
        added++;
        done++;
      }));
      save([...timings.values()]);
    }
  }
  return { timings: targets.flatMap((target) => kernels.map((kernel) => timings.get(key(kernel, target))!)), added };
};

const nameOf = (target: Variant | 'wasm'): readonly [Timing['target'], string] => (target === 'wasm' ? ['wasm', wasmTitle] : ['cpu', titleOf(target)]);

const timeEach = async (kernels: readonly Kernel[], target: Variant | 'wasm', ms: number, cflags: readonly string[]): Promise<readonly Times[]> => {
  const graphs = kernels.map(kernelGraph);
  const side = await (target === 'wasm' ? wasmSteps(graphs) : cSteps(graphs, target, cflags));
  try {
    const parts = kernels.map((): Times[] => []);
    // the engine compiles what runs often; what it makes of it comes into use with the next round
    for (const i of kernels.keys()) for (let round = 0; round < (target === 'wasm' ? 4 : 1); round++) await side.each(i, WARM_MS);
    for (let round = 0; round < ROUNDS; round++) for (const i of kernels.keys()) parts[i].push((await side.each(i, ms / ROUNDS))!);
    return parts.map(joined);
  } finally {
    side.close();
  }
};

/** A table from before, null where there is none. It must be of this machine, version and compiler flags. */
export const readTable = (path: string, version: string, machine: Machine, cflags: readonly string[]): Table | null => {
  if (!existsSync(path)) return null;
  const fail = (why: string): never => { throw new CompileError(errors.badTable(path, why), 'usage'); };
  let parsed: Partial<Table>;
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8')) as Partial<Table>;
  } catch (cause) {
    return fail((cause as Error).message);
  }
  if (typeof parsed !== 'object' || parsed === null || parsed.machine === undefined || !Array.isArray(parsed.kernels)) return fail('it has no machine and kernels');
  if (parsed.format !== tableFormat) return fail(`it is of format ${String(parsed.format)}, not ${tableFormat}`);
  if (parsed.lowbitc !== version || !sameMachine(parsed.machine, machine) || JSON.stringify(parsed.cflags) !== JSON.stringify(cflags)) {
    throw new CompileError(errors.otherMachine(path), 'usage');
  }
  return parsed as Table;
};

/** Replaces the file in one step, so that an interrupted command leaves a whole one. */
export const writeTable = (path: string, table: Table): void => {
  const draft = `${path}.${process.pid}.new`;
  const { kernels, ...head } = table;
  const rows = kernels.map((timing) => `    ${JSON.stringify(timing)}`).join(',\n');
  writeFileSync(draft, `${JSON.stringify(head, null, 2).slice(0, -2)},\n  "kernels": [\n${rows}\n  ]\n}\n`);
  renameSync(draft, path);
};
