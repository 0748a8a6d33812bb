// The first node after which a target leaves the reference is found, whatever node it is.
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { firstDifferingNode } from '../../src/artefact/first-difference.ts';
import { loadFolder, takesData, type Folder } from '../../src/artefact/load.ts';
import { programOf, type Backend } from '../../src/backends/backend.ts';
import { groupSteps } from '../../src/backends/group.ts';
import { wasm } from '../../src/backends/wasm/emit.ts';
import { codesAt, openSamples, type Sample } from '../../src/calibration/samples.ts';
import type { Graph } from '../../src/ir/graph.ts';
import { mapGraph, mapOperands } from '../../src/ir/rewrite.ts';
import { example, glyphFlags, lowbitc, scratchFolder } from '../cli/lowbitc.ts';

const scratch = scratchFolder();
let folder: Folder;
let sample: Sample;
beforeAll(() => {
  const path = join(scratch, 'glyph');
  lowbitc('compile', ...glyphFlags, '-o', path, '-t', 'wasm');
  folder = loadFolder(path);
  sample = codesAt(openSamples(example('data/eval.npy'), folder.graph.inputs, { count: 1 }), 0, folder.graph.inputs, takesData(folder));
}, 240_000);

/** WebAssembly with a fault: one rescale saturates early. */
const faultyAt = (name: string): Backend => {
  const corrupt = (graph: Graph<'kernel'>): Graph<'kernel'> => mapGraph(graph, 'kernel', (node, now, b) => (node.output.name !== name ? null
    : b.emit(node.decl, mapOperands(node, now) as never, { ...node.attrs, high: (node.attrs['low'] as number) + 1, to: 'i8' }, { replaces: node.output, type: node.output.type })));
  return { ...wasm, emit: ({ graph }, options) => wasm.emit(programOf(corrupt(graph)), options) };
};

test('no difference: null', async () => {
  expect(await firstDifferingNode(folder.graph, wasm, sample)).toBe(null);
});

test.each([0, 3, 7])('a fault in rescale %i', async (index) => {
  const rescales = groupSteps(folder.graph).steps.flatMap(({ rescale, table }) => (rescale?.op === 'requantize' && table === null ? [rescale] : []));
  const { name } = rescales[index].output;
  expect(await firstDifferingNode(folder.graph, faultyAt(name), sample)).toBe(name);
}, 240_000);
