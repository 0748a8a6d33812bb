/**
 * How far the outputs of a quantised graph are from those of the float graph on a set of samples, by three measures:
 *
 *     noise   Σ (ŷ − y)² / Σ y², the inverse of the signal-to-noise ratio, mean over the outputs
 *     kl      mean over rows of Σ_c p_c·log(p_c/p̂_c), p the float model's probabilities of the classes
 *     drop    what top-1 loses: with labels its difference; without, mean over rows of p(the float model's class) − p(the class chosen),
 *             the loss that is to be expected if the float model's probabilities are right about itself
 *
 * The last two are for a first output that is rows of classes.
 */
import type { Graph } from '../../ir/graph.ts';
import type { Tensor } from '../../ir/type.ts';
import { areProbabilities, argmax, meanWithError } from '../../calibration/metrics.ts';
import { defineJob, mapSamples } from '../../calibration/pool.ts';
import type { Sample, Samples } from '../../calibration/samples.ts';
import { exp, log } from '../../numerics/real-math.ts';
import type { HeldOut } from '../pass.ts';

export interface Judgement {
  readonly noise: number;
  /** null where the output is no rows of classes */
  readonly kl: number | null;
  readonly drop: number | null;
  /** standard error of the drop: by how much it differs from one set of so many samples to the next */
  readonly dropError: number | null;
}

export interface Judge {
  /** samples that a graph is judged on */
  readonly count: number;
  /** length of a row of the first output; null where it is no rows of classes */
  readonly classes: number | null;
  /** what the graphs are run on, the first `count` of them */
  readonly samples: Samples;
  /** `from`: what a graph that begins in the middle takes, sample by sample */
  of(graph: Graph<'float' | 'quant'>, from?: Samples): Promise<Judgement>;
  /** a judge on the first of these samples */
  onFirst(count: number): Judge;
}

/** An output of more axes than this is an image or a map, not rows of classes. */
const MOST_AXES = 3;
/** Classes of the first output's rows. */
export const classesOf = (graph: Graph): number | null => {
  const { shape } = graph.outputs[0].value.type;
  const last = shape.at(-1);
  return shape.length <= MOST_AXES && typeof last === 'number' && last > 1 ? last : null;
};

/** The outputs of a block of samples, in order of the graph's outputs. */
export const outputsJob = defineJob(import.meta.url, 'outputsJob', (_: null, graph) => {
  const found: Float32Array[][] = [];
  return {
    sample: (executor, sample) => {
      const outputs: Sample = executor.run(sample);
      found.push(graph.outputs.map(({ name }) => Float32Array.from((outputs[name] as Tensor).data as Float32Array)));
    },
    finish: () => found,
  };
});

const outputsOf = async (graph: Graph<'float' | 'quant'>, samples: Samples, count: number, progress: () => void): Promise<readonly (readonly Float32Array[])[]> => {
  const all: (readonly Float32Array[])[] = [];
  await mapSamples(graph, samples, outputsJob, null, (block) => { all.push(...block); progress(); }, { count });
  return all;
};

const rowsOf = (output: Float32Array, classes: number, probabilities: boolean): Float64Array => {
  const rows = Float64Array.from(output);
  if (probabilities) return rows;
  for (let at = 0; at < rows.length; at += classes) {
    let greatest = -Infinity;
    for (let c = 0; c < classes; c++) greatest = Math.max(greatest, rows[at + c]);
    let total = 0;
    for (let c = 0; c < classes; c++) total += rows[at + c] = exp(rows[at + c] - greatest);
    for (let c = 0; c < classes; c++) rows[at + c] /= total;
  }
  return rows;
};
/** Smaller probabilities count as this much, so that one of 0 does not decide alone. */
const LEAST_PROBABILITY = 1e-6;

/** A judge that has run the float graph once. */
export const openJudge = async (reference: Graph<'float'>, { samples, labels }: HeldOut, most: number, progress: () => void = () => undefined): Promise<Judge> => {
  const count = Math.min(most, samples.count);
  const exact = await outputsOf(reference, samples, count, progress);
  const classes = classesOf(reference);
  const probabilities = classes !== null && areProbabilities(exact[0][0], classes);
  const believed = classes === null ? [] : exact.map(([first]) => rowsOf(first, classes, probabilities));
  const judgeOn = (own: number): Judge => ({
    count: own, classes, samples, onFirst: (fewer) => judgeOn(Math.min(own, fewer)),
    async of(graph, from = samples) {
      const found = await outputsOf(graph, from, own, progress);
      const sums = exact[0].map(() => ({ signal: 0, noise: 0 }));
      let [kl, rows] = [0, 0];
      const drops = new Float64Array(found.length);
      found.forEach((outputs, i) => {
        outputs.forEach((output, o) => {
          const wanted = exact[i][o];
          for (let at = 0; at < output.length; at++) {
            sums[o].signal += wanted[at] * wanted[at];
            sums[o].noise += (output[at] - wanted[at]) ** 2;
          }
        });
        if (classes === null) return;
        const [p, q] = [believed[i], rowsOf(outputs[0], classes, probabilities)];
        const known = labels?.(i);
        for (let at = 0; at < p.length; at += classes) {
          const [own, chosen] = [argmax(exact[i][0], at, classes), argmax(outputs[0], at, classes)];
          if (known === undefined) drops[i] += p[at + own] - p[at + chosen];
          else drops[i] += Number(own === Number(known[at / classes])) - Number(chosen === Number(known[at / classes]));
          for (let c = 0; c < classes; c++) {
            if (p[at + c] > 0) kl += p[at + c] * (log(Math.max(p[at + c], LEAST_PROBABILITY)) - log(Math.max(q[at + c], LEAST_PROBABILITY)));
          }
          rows++;
        }
      });
      const noise = sums.reduce((sum, one) => sum + (one.signal === 0 ? Number(one.noise > 0) : one.noise / one.signal), 0) / sums.length;
      if (classes === null) return { noise, kl: null, drop: null, dropError: null };
      const { mean, error } = meanWithError(drops.map((drop) => (drop * own) / rows));
      return { noise, kl: Math.max(0, kl / rows), drop: mean, dropError: error };
    },
  });
  return judgeOn(count);
};
