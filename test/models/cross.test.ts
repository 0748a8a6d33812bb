// The generated C on other machines: compiled for aarch64 and two Cortex-M, run under QEMU, equal to the reference bit for bit.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { loadFolder, takesData, type Folder } from '../../src/artefact/load.ts';
import { referenceRunner } from '../../src/artefact/runners.ts';
import { onlyMacro, portableVariant } from '../../src/backends/c/variants.ts';
import { identifier } from '../../src/backends/identifier.ts';
import { interfaceOf } from '../../src/backends/interface.ts';
import { codesAt, openSamples, type Sample } from '../../src/calibration/samples.ts';
import type { TypedArray } from '../../src/ir/dtype.ts';
import { example, lowbitc, root, scratchFolder } from '../cli/lowbitc.ts';

const scratch = scratchFolder();
const sampleCount = 3;
const lacks = (...tools: readonly string[]): string | undefined => tools.find((tool) => spawnSync(tool, ['--version']).status !== 0);
const run = (command: string, args: readonly string[], input?: Uint8Array): Buffer => {
  const { status, stdout, stderr, error } = spawnSync(command, args, { input, maxBuffer: 2 ** 26 });
  if (status !== 0) throw new Error(`${command} ended with ${status}: ${error?.message ?? stderr.toString()}`);
  return stdout;
};
const bytesOf = ({ buffer, byteOffset, byteLength }: TypedArray): Uint8Array => new Uint8Array(buffer, byteOffset, byteLength);

interface Case {
  readonly folder: Folder;
  readonly sources: readonly string[];
  readonly id: string;
  readonly input: Buffer;
  readonly expected: Buffer;
}

/** The model compiled to C, and what the reference makes of a few samples, as raw bytes one sample after another. */
const prepare = async (model: string): Promise<Case> => {
  const path = join(scratch, model);
  const { status, stderr } = lowbitc('compile', example(`models/${model}.onnx`), '-o', path, '-t', 'cpu', '--calib', example('data/calib.npy'), '--calib-count', '8', '--mean', '127.5', '--std', '127.5');
  if (status !== 0) throw new Error(stderr);
  const folder = loadFolder(path);
  const { inputs } = folder.graph;
  const samples = openSamples(example('data/eval.npy'), inputs, { count: sampleCount });
  const codes = Array.from({ length: sampleCount }, (_, i): Sample => codesAt(samples, i, inputs, takesData(folder)));
  const results = await referenceRunner(folder.graph).run(codes);
  const flat = (list: readonly Sample[], names: readonly string[]): Buffer => Buffer.concat(list.flatMap((sample) => names.map((name) => bytesOf(sample[name].data))));
  const id = identifier(model);
  return {
    folder, id, sources: readdirSync(join(path, 'cpu')).filter((file) => file.endsWith('.c') && file !== 'main.c').map((file) => join(path, 'cpu', file)),
    input: flat(codes, inputs.map(({ name }) => name)), expected: flat(results, folder.graph.outputs.map(({ name }) => name)),
  };
};

/** What the preprocessor takes for the machine, and the C that every compiler takes. */
const versions = ['its own', 'portable'] as const;
const optionsOf = ({ id }: Case, version: (typeof versions)[number]): readonly string[] => (version === 'portable' ? [`-D${onlyMacro(id, portableVariant)}`] : []);

/** A firmware that holds the samples and prints the bytes of the results in hexadecimal. */
const firmware = ({ folder, id, input }: Case): string => {
  const { inputs: [x], outputs: [y] } = interfaceOf(folder.graph);
  return `
#include <stdio.h>
#include "${id}.h"
static const uint8_t samples[] = { ${[...input].join(',')} };
static uint8_t arena[${id.toUpperCase()}_ARENA_BYTES + 1] __attribute__((aligned(16)));
static uint8_t result[${y.bytes}] __attribute__((aligned(8)));
int main(void)
{
    for (int i = 0; i < ${sampleCount}; i++) {
        ${id}_inputs in = { .${x.id} = (const void *)(samples + i * ${x.bytes}) };
        ${id}_outputs out = { .${y.id} = (void *)result };
        if (${id}_run(&in, &out, arena) != 0) return 1;
        for (int k = 0; k < ${y.bytes}; k++) printf("%02x", result[k]);
    }
    return 0;
}
`;
};

describe.each(['glyph-cnn', 'glyph-vit'])('%s', (model) => {
  let made: Case;
  beforeAll(async () => { made = await prepare(model); }, 240_000);

  const missingArm64 = lacks('aarch64-linux-gnu-gcc', 'qemu-aarch64');
  test.skipIf(missingArm64).each(versions)(`aarch64, %s${missingArm64 ? `: skipped, there is no ${missingArm64}` : ''}`, (version) => {
    const program = join(scratch, `${model}-aarch64-${version}`);
    run('aarch64-linux-gnu-gcc', ['-O2', '-std=c99', '-static', ...optionsOf(made, version), ...made.sources, join(scratch, model, 'cpu', 'main.c'), '-o', program]);
    expect(run('qemu-aarch64', [program], made.input).equals(made.expected)).toBe(true);
  }, 240_000);

  const missingArm = lacks('arm-none-eabi-gcc', 'qemu-system-arm');
  const boards = [['cortex-m4', 'mps2-an386'], ['cortex-m7', 'mps2-an500']] as const;
  test.skipIf(missingArm).each(boards.flatMap(([cpu, board]) => versions.map((version) => ({ cpu, board, version }))))(`$cpu on $board, $version${missingArm ? `: skipped, there is no ${missingArm}` : ''}`, ({ cpu, board, version }) => {
    const build = join(scratch, `${model}-${cpu}-${version}`);
    const start = join(root, 'test/models/cortex-m');
    mkdirSync(build);
    writeFileSync(join(build, 'firmware.c'), firmware(made));
    run('arm-none-eabi-gcc', [
      `-mcpu=${cpu}`, '-mthumb', '-O2', '-std=c99', '--specs=rdimon.specs', '-nostartfiles', '-T', join(start, 'link.ld'), '-I', join(scratch, model, 'cpu'), ...optionsOf(made, version),
      join(start, 'start.c'), join(build, 'firmware.c'), ...made.sources, '-o', join(build, 'firmware.elf'),
    ]);
    const printed = run('qemu-system-arm', ['-M', board, '-nographic', '-semihosting-config', 'enable=on,target=native', '-kernel', join(build, 'firmware.elf')]);
    expect(printed.toString().trim()).toBe(made.expected.toString('hex'));
  }, 240_000);
});
