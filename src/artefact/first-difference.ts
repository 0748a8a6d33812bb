/**
 * The first node after which a target differs from the reference. Programs show only their outputs, so the target is emitted again for
 * the graph cut after a step, and the cut is moved by bisection: steps before the fault agree, the step of the fault differs.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { programOf, type Backend } from '../backends/backend.ts';
import { groupSteps } from '../backends/group.ts';
import type { Sample } from '../calibration/samples.ts';
import { isNode, operandsOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import { launch, referenceRunner } from './runners.ts';

/** Null where the target emitted anew agrees everywhere: then the files are not what this version emits. */
export const firstDifferingNode = async (graph: Graph<'kernel'>, backend: Backend, sample: Sample): Promise<string | null> => {
  const ends = groupSteps(graph).steps.map(({ output }) => output);
  const differs = (value: Value): Promise<boolean> => differsAt(cutAfter(graph, value), backend, sample);
  if (ends.length === 0 || !(await differs(ends[ends.length - 1]))) return null;
  let [low, high] = [0, ends.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (await differs(ends[middle])) high = middle;
    else low = middle + 1;
  }
  return ends[low].name;
};

/** The graph whose only output is `value`. */
const cutAfter = (graph: Graph<'kernel'>, value: Value): Graph<'kernel'> => {
  const live = new Set<Node>();
  const mark = ({ def }: Value): void => {
    if (!isNode(def) || live.has(def)) return;
    live.add(def);
    operandsOf(def).forEach(mark);
  };
  mark(value);
  return { ...graph, nodes: graph.nodes.filter((node) => live.has(node)), outputs: [{ name: value.name, value }] };
};

const differsAt = async (graph: Graph<'kernel'>, backend: Backend, sample: Sample): Promise<boolean> => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-cut-'));
  try {
    for (const { path, bytes } of (await backend.emit(programOf(graph), { name: 'cut' })).artefacts) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), bytes);
    }
    const runner = await launch(backend.name, join(folder, backend.name), 'cut', graph);
    const [[expected], [found]] = [await referenceRunner(graph).run([sample]), await runner.run([sample])];
    return graph.outputs.some(({ name }) => expected[name].data.some((code, i) => code !== found[name].data[i]));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};
