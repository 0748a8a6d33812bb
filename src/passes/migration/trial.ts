/**
 * What a change is worth for the network as a whole: the graph before and after is quantised by plain rounding with corrected biases on
 * the first half of the calibration samples, and its outputs are compared with the float graph on samples of the second half.
 */
import { CompileError } from '../../ir/diagnostic.ts';
import type { Graph } from '../../ir/graph.ts';
import { createCalibration } from '../../calibration/calibration.ts';
import { samplesInMemory } from '../../calibration/samples.ts';
import { correctBias } from '../correct-bias.ts';
import { affordable, openOutputMeter, spreadSamples, withoutFinalSoftmax } from '../output-meter.ts';
import { quietly, runPass, type PassContext } from '../pass.ts';
import { quantizeActivations } from '../quantize-activations.ts';
import { quantizeWeights } from '../quantize-weights.ts';
import type { Widths } from './site-loss.ts';

/** Fewest and most samples that ranges are taken from. */
const [FEWEST, MOST] = [8, 32];
/** One sample in so many is used to correct biases, which runs both graphs node by node. */
const CORRECTED = 3;

export interface Trial {
  /** signal to noise of the outputs in dB, sample by sample; null where some op of the graph has no integer form */
  sqnrDb(graph: Graph<'float'>): Promise<Float64Array | null>;
}

export const openTrial = (whole: Graph<'float'>, { weights, activations, attention }: Widths, context: PassContext): Trial => {
  const original = withoutFinalSoftmax(whole);
  const { samples } = context.calibration!;
  const count = affordable(original, FEWEST, MOST);
  const chosen = spreadSamples(samples, 0, 0.5, count);
  const meter = openOutputMeter(original, samples);
  const calibration = createCalibration(samplesInMemory(samples.inputs, chosen), { data: null, threads: null });
  const quiet: PassContext = { ...quietly(context), calibration, progress: () => undefined };
  const quantised = async (graph: Graph<'float'>): Promise<Graph<'quant'>> => {
    const rounded = await runPass(quantizeWeights, await runPass(quantizeActivations, graph, { bits: activations, attention }, quiet), { bits: weights }, quiet);
    return runPass(correctBias, rounded, { samples: Math.ceil(count / CORRECTED) }, { ...quiet, reference: graph });
  };
  return {
    async sqnrDb(graph) {
      const made = await quantised(withoutFinalSoftmax(graph)).catch((cause: unknown) => {
        if (cause instanceof CompileError && cause.kind === 'unsupported') return null;
        throw cause;
      });
      return made === null ? null : meter.sqnrDb(made);
    },
  };
};
