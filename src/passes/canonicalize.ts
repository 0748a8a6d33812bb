/**
 * The clean-up of an imported graph: what every later pass relies on. After it convolutions and pools stand without transposes
 * between them, norms, activations and attention are one op each, every `linear` has its bias and its own weights.
 */
import { foldBatchNorm } from './fold-batch-norm.ts';
import { foldConstants } from './fold-constants.ts';
import { mergeDuplicates } from './merge-duplicates.ts';
import type { AnyPass } from './pass.ts';
import { recognizeActivations } from './recognize-activations.ts';
import { recognizeAttention } from './recognize-attention.ts';
import { recognizeLinear } from './recognize-linear.ts';
import { recognizeNorms } from './recognize-norms.ts';
import { simplifyLayout } from './simplify-layout.ts';
import { splitLinear } from './split-linear.ts';

/** In the order in which they run. Each runs once; those that leave views behind clean up after themselves. */
export const canonicalizePasses: readonly AnyPass[] = [
  foldConstants, simplifyLayout, mergeDuplicates, recognizeLinear, recognizeNorms, recognizeActivations, recognizeAttention, foldBatchNorm,
  splitLinear,
];

export { foldBatchNorm, foldConstants, mergeDuplicates, recognizeActivations, recognizeAttention, recognizeLinear, recognizeNorms, simplifyLayout, splitLinear };
