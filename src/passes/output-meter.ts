/**
 * How near the outputs of a quantised graph come to those of the float graph, on calibration samples of the second half of the set. Outputs that are
 * the probabilities of a softmax are compared as what it reads: where a sample is classified with confidence, its probabilities are 0 and 1
 * whatever the noise, and their dB would say nothing of it.
 */
import { Builder } from '../ir/build.ts';
import { macsOf } from '../ir/cost.ts';
import { constantOf, isNode, usersOf, type Graph, type Value } from '../ir/graph.ts';
import { mapOperands } from '../ir/rewrite.ts';
import { createExecutor } from '../calibration/executor.ts';
import { decibels, meanWithError } from '../calibration/metrics.ts';
import type { Sample, Samples } from '../calibration/samples.ts';
import type { BeforeAfter } from './pass.ts';

/** Multiplications that a number of runs may take together; it decides how many samples are run. */
const BUDGET = 4e9;
/** Fewest and most samples that outputs are compared on: below 8 bits the dB of single samples scatter by several. */
const [FEWEST_HELD, MOST_HELD] = [16, 128];
/** Noise below this share of the signal, 140 dB, counts as none. */
const LEAST_NOISE = 1e-14;

/** Evenly spread places of a part of the set: [from, to) as shares of its length. */
const spreadPlaces = (samples: Samples, from: number, to: number, most: number): readonly number[] => {
  const [first, last] = [Math.floor(samples.count * from), Math.max(Math.floor(samples.count * to), Math.floor(samples.count * from) + 1)];
  const count = Math.min(most, last - first);
  return Array.from({ length: count }, (_, i) => first + Math.floor((i * (last - first)) / count));
};
/** The samples there, all held at once. */
export const spreadSamples = (samples: Samples, from: number, to: number, most: number): readonly Sample[] =>
  spreadPlaces(samples, from, to, most).map((place) => samples.get(place));

/** Multiplications of the layers of a graph in one run. */
const multiplications = (graph: Graph<'float'>): number =>
  graph.nodes.reduce((sum, node) => sum + (constantOf((node.inputs['weight'] as Value | undefined) ?? null) === null ? 0 : macsOf(node) ?? 0), 1);

/** How many samples may be run, from `fewest` to `most`. */
export const affordable = (graph: Graph<'float'>, fewest: number, most: number): number =>
  Math.min(most, Math.max(fewest, Math.floor(BUDGET / multiplications(graph))));

/** Two trials on the same samples: mean dB, and what a difference of the means is worth. */
export interface Comparison extends BeforeAfter {
  /** standard error of after − before, from the differences sample by sample */
  readonly error: number;
}

export const compared = (before: Float64Array, after: Float64Array): Comparison => {
  const { error } = meanWithError(after.map((x, i) => x - before[i]));
  return { before: meanWithError(before).mean, after: meanWithError(after).mean, error };
};
/** Whether so many dB may be gained, within one standard error: for changes that cost nothing and gain at their site. */
export const mayGain = ({ before, after, error }: Comparison, leastDb: number): boolean => after - before + error >= leastDb;
/** Whether so many dB are gained, and more than a standard error: for changes that cost something. */
export const surelyGains = ({ before, after, error }: Comparison, leastDb: number): boolean => after - before >= Math.max(leastDb, error);

/** The graph with what a softmax reads in place of each output that it makes. */
export const withoutFinalSoftmax = <S extends 'float' | 'quant'>(graph: Graph<S>): Graph<S> => {
  const users = usersOf(graph);
  const final = new Set(graph.outputs.map(({ value: { def } }) => def).filter((def) => isNode(def) && def.op === 'softmax' && !users.has(def.output)));
  if (final.size === 0) return graph;
  const b = new Builder();
  const renewed = new Map<Value, Value>(graph.inputs.map((input) => [input, b.input(input.name, input.type)]));
  const now = (value: Value): Value => renewed.get(value) ?? value;
  for (const node of graph.nodes) renewed.set(node.output, final.has(node) ? now((node.inputs as { x: Value }).x) : b.copy(node, mapOperands(node, now)));
  return b.finish(graph.stage, graph.name, graph.outputs.map(({ name, value }) => ({ name, value: now(value) })));
};

/** How far the outputs of integer graphs are from those of a float graph, on samples of the second half of the set. */
export interface OutputMeter {
  /** signal to noise of the outputs in dB, sample by sample */
  sqnrDb(graph: Graph<'quant'>): Float64Array;
}

export const openOutputMeter = (whole: Graph<'float'>, samples: Samples): OutputMeter => {
  const original = withoutFinalSoftmax(whole);
  // read anew for each graph: they are many, and would be held while all sites are tried
  const held = spreadPlaces(samples, samples.count > 1 ? 0.5 : 0, 1, affordable(original, FEWEST_HELD, MOST_HELD));
  const float = createExecutor(original);
  const references = held.map((place) => float.run(samples.get(place)));
  return {
    sqnrDb(graph) {
      const executor = createExecutor(withoutFinalSoftmax(graph));
      return Float64Array.from(held, (place, i) => {
        const found = executor.run(samples.get(place));
        const shares = Object.entries(references[i]).map(([name, { data }]) =>
          squares(data.length, (at) => Number(found[name].data[at]) - Number(data[at])) / (squares(data.length, (at) => Number(data[at])) || 1));
        return decibels(1, Math.max(LEAST_NOISE, shares.reduce((total, share) => total + share, 0) / shares.length));
      });
    },
  };
};

const squares = (length: number, at: (i: number) => number): number => {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += at(i) * at(i);
  return sum;
};
