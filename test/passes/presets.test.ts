/** Presets are explicit lists: every width and effort resolves, and what each effort adds is there to see. */
import { describe, expect, it } from 'vitest';
import { builtInPasses } from '../../src/passes/index.ts';
import { printPipeline, resolvePipeline, type Pipeline } from '../../src/passes/pipeline.ts';
import { efforts, presetPipeline, type Effort } from '../../src/passes/presets.ts';

const passes = new Map(builtInPasses.map((pass) => [pass.name, pass]));
const preset = (bits: string, effort: Effort): Pipeline => presetPipeline({ bits, normalization: null, effort });
const names = (pipeline: Pipeline): readonly string[] => pipeline.map(({ pass }) => pass);

describe('presets', () => {
  it.each(['w8a8', 'w6a6', 'w4a8', 'w4a4', 'w2a4', 'w8a16'])('%s resolves at every effort', (bits) => {
    for (const effort of efforts) expect(resolvePipeline(preset(bits, effort), passes).at(-1)!.pass.to).toBe('kernel');
  });
  it('low effort migrates nothing and fits weights below 8 bits in little time', () => {
    expect(names(preset('w8a8', 'low'))).not.toContain('migrate-scales');
    expect(names(preset('w8a8', 'low'))).not.toContain('fit-weights');
    expect(printPipeline(preset('w4a4', 'low'))).toContain('fit-weights{bits: 4, rounding: plane, steps: 8, samples: 32}');
  });
  it('normal effort fits weights below 8 bits, high effort all', () => {
    expect(names(preset('w8a8', 'normal'))).not.toContain('fit-weights');
    expect(printPipeline(preset('w6a6', 'normal'))).toContain('fit-weights{bits: 6}');
    expect(printPipeline(preset('w8a8', 'high'))).toContain('fit-weights{bits: 8, steps: 32, samples: 512}');
  });
  it('high effort tries ReLU in place of GELU, with descent, and groups of channels', () => {
    expect(printPipeline(preset('w4a4', 'high'))).toMatch(/rewrite-gelu\{[^}]*when: measured, steps: 400[^}]*weightBits: 4, activationBits: 4/);
    expect(names(preset('w8a8', 'high'))).toContain('reorder-channels');
    for (const pass of ['rewrite-gelu', 'reorder-channels']) expect(names(preset('w4a4', 'normal'))).not.toContain(pass);
  });
  it('codebooks and rescales in words are asked for', () => {
    expect(printPipeline(preset('w3ca8', 'normal'))).toContain('fit-weights{bits: 3, format: codebook}');
    expect(names(preset('w8a8', 'normal'))).not.toContain('rescale-in-words');
    expect(presetPipeline({ bits: 'w8a8', normalization: null, rescale: 'words' }).at(-1)!.pass).toBe('rescale-in-words');
  });
  it.each(['w5ca8', 'w8a3', 'w1a8', 'w8a12', 'a8w8', ''])('"%s" names no precision', (bits) => expect(() => preset(bits, 'normal')).toThrow(/names no precision/));
});
