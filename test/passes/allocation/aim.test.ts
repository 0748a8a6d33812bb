/** Passes before the choice of bits reckon with those that the budget leaves, and a uniform network within it is then the one that its own pipeline makes. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { openSamples } from '../../../src/calibration/samples.ts';
import { compile, type Compilation, type CompileOptions } from '../../../src/compile.ts';
import { printGraph } from '../../../src/ir/print.ts';
import { aimedBits } from '../../../src/passes/allocation/aim.ts';
import { bareContext } from '../../../src/passes/pass.ts';

const example = (path: string): string => new URL(`../../../examples/${path}`, import.meta.url).pathname;
const stopped = new Error('stopped');
/** glyph-cnn for WebAssembly; `last`: stops after this pass. */
const compiled = async (options: Partial<CompileOptions>, last?: string): Promise<{ readonly whole: Compilation | null; readonly aims: readonly unknown[]; readonly graph: string }> => {
  const aims: unknown[] = [];
  let graph = '';
  const observer = {
    after: ({ pass }: { readonly pass: { readonly name: string } }, _: number, made: Parameters<typeof printGraph>[0], { settled }: { readonly settled: Readonly<Record<string, unknown>> }): void => {
      if (pass.name === 'shift-channels' || pass.name === 'migrate-scales') aims.push(settled['weights'] ?? null);
      if (pass.name !== last) return;
      graph = printGraph(made);
      throw stopped;
    },
  };
  const whole = await compile(readFileSync(example('models/glyph-cnn.onnx')), {
    name: 'net', targets: ['wasm'], openSamples: (inputs) => openSamples(example('data/calib.npy'), inputs, { count: 8 }), normalization: { mean: [127.5], std: [127.5], dtype: 'u8' },
    threads: 1, observers: [observer], ...options,
  }).catch((cause: unknown) => {
    if (cause !== stopped) throw cause;
    return null;
  });
  return { whole, aims, graph };
};
const aimedAt = (budget: string, targets: readonly string[] = ['wasm']) => compiled({ bits: 'mixed', allocation: { budget }, targets }, 'migrate-scales');

describe('what passes before the choice of bits aim at', () => {
  it.each(['w6a8', 'w4a8', 'w3a8'])('is the bits of %s within the bytes of that network, and channels migrate as there', async (bits) => {
    const { whole } = await compiled({ bits, effort: 'low' });
    const { aims, graph } = await aimedAt(`size=${whole!.targets[0].weightBytes}`);
    expect(aims).toEqual([Number(bits[1]), Number(bits[1])]);
    expect(graph).toBe((await compiled({ bits }, 'migrate-scales')).graph);
  }, 240_000);
  it('ends at what weights can have', async () => {
    expect((await aimedAt('size=1K')).aims).toEqual([2, 2]);
    expect((await aimedAt('size=10M')).aims).toEqual([8, 8]);
  }, 240_000);
  it('is 4 bits where no size is given, and what the pass is told where it is told something', async () => {
    expect((await aimedAt('drop=1%')).aims).toEqual([4, 4]);
    expect((await aimedAt('size=48K', [])).aims).toEqual([4, 4]);
    const { whole } = await compiled({ bits: 'w8a8', effort: 'low' });
    expect(await aimedBits(7, whole!.float, bareContext(null))).toBe(7);
    expect(await aimedBits(0, whole!.float, bareContext(null))).toBe(4);
  }, 240_000);
});
