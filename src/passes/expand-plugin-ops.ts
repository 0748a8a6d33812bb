/**
 * Replaces every op of a plugin by the core ops that its declaration gives for it, so that later passes meet core ops only.
 *
 *     %y = acme.snake(%x)  →  %s = …  %y = add(%x, %s)
 *
 * A plugin op without `lower` stays, and fails with its name where it would need an integer form.
 */
import type { Rule } from '../ir/rewrite.ts';
import { applyRules, definePass } from './pass.ts';

/** A plugin op is what its declaration says it is. */
const lowerPluginOp: Rule = { name: 'lower-plugin-op', root: '*', apply: (node, b) => node.decl.lower?.(node, b) ?? null };

export const expandPluginOps = definePass<'float', 'float'>({
  name: 'expand-plugin-ops',
  from: 'float',
  to: 'float',
  summary: 'replace ops of plugins by the core ops that they stand for',
  options: {},
  run: (graph, _, context) => applyRules(graph, [lowerPluginOp], 'expand-plugin-ops', context),
});
