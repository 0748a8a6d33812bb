/**
 * Golden cases: each `.lbir` file holds a graph, the pipeline that runs on it, and the graph that comes out. `npx vitest -u` rewrites the
 * part after the mark; read the diff as code. A case named `keeps-…` shows a graph that the pass must leave alone.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { createCalibration, type Calibration } from '../../src/calibration/calibration.ts';
import { samplesInMemory } from '../../src/calibration/samples.ts';
import type { Graph } from '../../src/ir/graph.ts';
import { f32, tensor } from '../../src/ir/type.ts';
import { parseGraph } from '../../src/ir/parse.ts';
import { printGraph } from '../../src/ir/print.ts';
import { verify } from '../../src/ir/verify.ts';
import { bareContext } from '../../src/passes/pass.ts';
import { builtInPasses } from '../../src/passes/index.ts';
import { parsePipeline, resolvePipeline, runPipeline } from '../../src/passes/pipeline.ts';

const here = dirname(fileURLToPath(import.meta.url));
const MARK = '// ---- after\n';
const passes = new Map(builtInPasses.map((pass) => [pass.name, pass]));
const files = readdirSync(here, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.lbir')).sort();

const directive = (text: string, name: string): readonly string[] =>
  [...text.matchAll(new RegExp(`^// ${name}:? (.*)$`, 'gm'))].map((found) => found[1]);

/** `// sample %x: [1, 2]` lines as a sample set, else `// range %x: -1 .. 2` and `// channels` lines as facts. */
const calibrationOf = (text: string, graph: Graph): Calibration => {
  const list = directive(text, 'sample').map((line) => {
    const [, name, elements] = /^%(\S+): \[(.*)\]$/.exec(line)!;
    const data = Float32Array.from(elements.split(',').map(Number));
    return { [name]: tensor(f32(1, data.length), data) };
  });
  return list.length > 0 ? createCalibration(samplesInMemory(graph.inputs, list), { data: null, threads: 1 }) : factsOf(text);
};

const factsOf = (text: string): Calibration => {
  const ranges = new Map(directive(text, 'range').map((line) => {
    const [, name, low, high] = /^%(\S+): (\S+) \.\. (\S+)$/.exec(line)!;
    return [name, { low: Number(low), high: Number(high) }] as const;
  }));
  const channels = new Map(directive(text, 'channels').map((line) => {
    const [, name, lows, highs] = /^%(\S+): \[(.*)\] \.\. \[(.*)\]$/.exec(line)!;
    const list = (part: string): Float64Array => Float64Array.from(part.split(',').map(Number));
    return [name, { low: list(lows), high: list(highs) }] as const;
  }));
  return { ranges: async () => ranges, channelRanges: async () => channels, channelMoments: async () => new Map() } as unknown as Calibration;
};

describe('pass cases', () => {
  it.each(files)('%s', async (file) => {
    const path = join(here, file);
    const before = readFileSync(path, 'utf8').split(MARK)[0];
    const graph = parseGraph(before);
    const steps = resolvePipeline(parsePipeline(directive(before, 'pipeline').join(', ')), passes, graph.stage);
    const { graph: after, records } = await runPipeline(graph, steps, bareContext(calibrationOf(before, graph)));
    expect(verify(after)).toEqual([]);
    if (relative(here, path).includes('keeps-')) expect(records.every(({ changed }) => !changed)).toBe(true);
    await expect(`${before}${MARK}${printGraph(after)}`).toMatchFileSnapshot(path);
  });

  it('every built-in pass has a case; expand-plugin-ops, which needs an op from outside, has plugin-op.test.ts', () => {
    const folders = new Set(files.map((file) => file.split('/')[0]));
    expect([...passes.keys()].filter((name) => !folders.has(name))).toEqual(['expand-plugin-ops']);
  });
});
