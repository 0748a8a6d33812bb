/**
 * A bias that a file adds after a matrix product or convolution moves into it.
 *
 *     %m = linear(%x, %W); %y = add(%m, %c)   ->   %y = linear(%x, %W, %c)
 */
import { biasRules } from './fold-batch-norm.ts';
import { applyRules, definePass } from './pass.ts';
import { LAYOUT_SWEEPS, layoutRules } from './simplify-layout.ts';

export const recognizeLinear = definePass({
  name: 'recognize-linear', from: 'float', to: 'float',
  summary: 'move the bias that is added after a linear or conv into it',
  options: {},
  run: (graph, _, context) => applyRules(graph, [...biasRules, ...layoutRules], 'recognize-linear', context, LAYOUT_SWEEPS),
});
