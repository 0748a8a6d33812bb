/**
 * What a change is worth for the network as a whole: the graph before and after is quantised by plain rounding with corrected biases on
 * the first half of the calibration samples, and its outputs are compared with the float graph on samples of the second half.
 */
import { CompileError } from '../../ir/diagnostic.ts';
import type { Graph } from '../../ir/graph.ts';
import { createCalibration } from '../../calibration/calibration.ts';
import { createExecutor } from '../../calibration/executor.ts';
import { decibels } from '../../calibration/metrics.ts';
import { samplesInMemory, type Sample, type Samples } from '../../calibration/samples.ts';
import { correctBias } from '../correct-bias.ts';
import { runPass, type PassContext } from '../pass.ts';
import { quantizeActivations } from '../quantize-activations.ts';
import { quantizeWeights } from '../quantize-weights.ts';
import type { Widths } from './site-loss.ts';

/** Samples that ranges are taken from, that biases are corrected on, and outputs compared on. */
const RANGED = 64;
const CORRECTED = 16;
const COMPARED = 32;
/** Noise below this share of the signal, 140 dB, counts as none. */
const LEAST_NOISE = 1e-14;

/** Evenly spread samples of a part of the set: [from, to) as shares of its length. */
export const spreadSamples = (samples: Samples, from: number, to: number, most: number): readonly Sample[] => {
  const [first, last] = [Math.floor(samples.count * from), Math.max(Math.floor(samples.count * to), Math.floor(samples.count * from) + 1)];
  const count = Math.min(most, last - first);
  return Array.from({ length: count }, (_, i) => samples.get(first + Math.floor((i * (last - first)) / count)));
};

export interface Trial {
  /** signal to noise of the outputs in dB, the mean over samples; null where some op of the graph has no integer form */
  sqnrDb(graph: Graph<'float'>): Promise<number | null>;
}

export const openTrial = (original: Graph<'float'>, { weights, activations }: Widths, context: PassContext): Trial => {
  const { samples } = context.calibration!;
  const chosen = spreadSamples(samples, 0, 0.5, RANGED);
  const held = spreadSamples(samples, samples.count > 1 ? 0.5 : 0, 1, COMPARED);
  const float = createExecutor(original);
  const references = held.map((sample) => float.run(sample));
  const calibration = createCalibration(samplesInMemory(samples.inputs, chosen), { data: null, threads: null });
  const quiet: PassContext = { ...context, calibration, note: () => undefined, warn: () => undefined, progress: () => undefined };
  const quantised = async (graph: Graph<'float'>): Promise<Graph<'quant'>> => {
    const rounded = await runPass(quantizeWeights, await runPass(quantizeActivations, graph, { bits: activations }, quiet), { bits: weights }, quiet);
    return runPass(correctBias, rounded, { samples: CORRECTED }, { ...quiet, reference: graph });
  };
  return {
    async sqnrDb(graph) {
      const made = await quantised(graph).catch((cause: unknown) => {
        if (cause instanceof CompileError && cause.kind === 'unsupported') return null;
        throw cause;
      });
      if (made === null) return null;
      const executor = createExecutor(made);
      // the mean over samples of dB: a few hard samples must not decide alone
      return held.reduce((sum, sample, i) => {
        const found = executor.run(sample);
        const shares = Object.entries(references[i]).map(([name, { data }]) =>
          squares(data.length, (at) => Number(found[name].data[at]) - Number(data[at])) / (squares(data.length, (at) => Number(data[at])) || 1));
        return sum + decibels(1, Math.max(LEAST_NOISE, shares.reduce((total, share) => total + share, 0) / shares.length));
      }, 0) / held.length;
    },
  };
};

const squares = (length: number, at: (i: number) => number): number => {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += at(i) * at(i);
  return sum;
};
