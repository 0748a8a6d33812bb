/** The passes that come with the compiler, and what it takes to run and combine them. */
import { allocateBits } from './allocate-bits.ts';
import { canonicalizePasses } from './canonicalize.ts';
import { composeTables } from './compose-tables.ts';
import { correctBias } from './correct-bias.ts';
import { expandPluginOps } from './expand-plugin-ops.ts';
import { fitWeights } from './fit-weights.ts';
import { lowerToKernels } from './lower-to-kernels.ts';
import { migrateScales } from './migrate-scales.ts';
import { narrowMultipliers } from './narrow-multipliers.ts';
import { normalizeInput } from './normalize-input.ts';
import type { AnyPass } from './pass.ts';
import { pruneDeadInputs } from './prune-dead-inputs.ts';
import { quantizeActivations } from './quantize-activations.ts';
import { quantizeWeights } from './quantize-weights.ts';
import { reorderChannels } from './reorder-channels.ts';
import { rescaleInWords } from './rescale-in-words.ts';
import { rewriteGelu } from './rewrite-gelu.ts';
import { shiftChannels } from './shift-channels.ts';

export const builtInPasses: readonly AnyPass[] = [
  normalizeInput, ...canonicalizePasses, expandPluginOps, pruneDeadInputs, rewriteGelu, shiftChannels, migrateScales, reorderChannels, allocateBits, quantizeActivations, quantizeWeights, correctBias, fitWeights, lowerToKernels, composeTables, rescaleInWords, narrowMultipliers,
];

export * from './canonicalize.ts';
export { allocateBits, composeTables, correctBias, expandPluginOps, fitWeights, lowerToKernels, migrateScales, narrowMultipliers, normalizeInput, pruneDeadInputs, quantizeActivations, quantizeWeights, reorderChannels, rescaleInWords, rewriteGelu, shiftChannels };
export { bareContext, completeOptions, definePass, runPass, type AnyPass, type Note, type Pass, type PassContext } from './pass.ts';
export { parsePipeline, printPipeline, resolvePipeline, runPipeline, toPipeline, type PassRecord, type Pipeline, type PipelineObserver, type ResolvedStep, type Step } from './pipeline.ts';
export { efforts, parseBits, placePasses, presetPipeline, rescaleForms, withoutPasses, type Effort, type PresetRequest, type RescaleForm } from './presets.ts';
