/** The cycle model as the table of latencies by which bits are chosen. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import type { ScheduleFile } from '../../../src/backends/accelerator/files.ts';
import { openSamples } from '../../../src/calibration/samples.ts';
import { compile, type Compilation } from '../../../src/compile.ts';
import { CompileError } from '../../../src/ir/diagnostic.ts';
import { layerCosts, widthOf } from '../../../src/ir/cost.ts';

const file = (name: string): string => fileURLToPath(new URL(`../../../examples/${name}`, import.meta.url));
/** The first layers of glyph-cnn, where products take the time on this machine. */
const compileWith = (bits: string, budget?: string): Promise<Compilation> => compile(readFileSync(file('models/glyph-cnn.onnx')), {
  name: 'glyph', targets: ['accel:tiny'], bits, threads: 1, cutAt: '/a/a.4/BatchNormalization_output_0', normalization: { mean: [127.5], std: [127.5], dtype: 'u8' },
  openSamples: (inputs) => openSamples(file('data/calib.npy'), inputs, { count: 4 }), ...(budget === undefined ? {} : { allocation: { budget } }),
});
const scheduleOf = ({ targets }: Compilation): ScheduleFile => JSON.parse(new TextDecoder().decode(targets[0].files.find(({ path }) => path === 'accel/schedule.json')!.bytes)) as ScheduleFile;

it('a latency between those of w8a8 and w2a8 is kept by the program, with bits between them', async () => {
  const [wide, narrow] = [scheduleOf(await compileWith('w8a8')), scheduleOf(await compileWith('w2a8'))];
  const asked = (wide.microseconds + narrow.microseconds) / 2;
  const mixed = await compileWith('mixed', `latency=${asked.toFixed(2)}us`);
  const { microseconds, layers } = scheduleOf(mixed);
  expect(microseconds).toBeLessThanOrEqual(asked);
  expect(microseconds).toBeGreaterThan(0.8 * asked);
  expect(new Set(layerCosts(mixed.graph).map(widthOf)).size).toBeGreaterThan(1);
  // what is added up by layers is the time of the whole
  expect(layers.reduce((sum, { cycles }) => sum + cycles, 0)).toBe(scheduleOf(mixed).cycles - 1);
}, 240_000);

it('a latency that no bits reach is an error that names the target', async () => {
  const refusal = await compileWith('mixed', 'latency=1us').then(() => '', (cause: unknown) => (cause instanceof CompileError ? cause.diagnostics[0].message : Promise.reject(cause)));
  expect(refusal).toMatch(/latency/);
}, 240_000);
