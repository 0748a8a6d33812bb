/**
 * Two tables in a row are one: a function of a byte stays a function of that byte.
 *
 *     %b = table(%a, %f)  %c = table(%b, %g)  →  %c = table(%a, g∘f)
 */
import { allocate } from '../ir/dtype.ts';
import { constantOf, isNode, type Value } from '../ir/graph.ts';
import type { NodeOf } from '../ir/op.ts';
import { table } from '../ir/ops/kernel-table.ts';
import { rule } from '../ir/rewrite.ts';
import { tensor, tensorType } from '../ir/type.ts';
import { applyRules, definePass } from './pass.ts';

/** g[f[x]], where the inner result has no other reader and both tables serve all channels. */
const tableOfTable = rule(table, 'table-of-table', (node, b): Value | null => {
  const inner = isNode(node.inputs.x.def) && node.inputs.x.def.op === 'table' ? (node.inputs.x.def as unknown as NodeOf<typeof table>) : null;
  if (inner === null || b.useCount(inner.output) !== 1) return null;
  const [f, g] = [constantOf(inner.inputs.values)!, constantOf(node.inputs.values)!];
  if (g.type.shape.length !== 1) return b.decline('the outer table differs between channels');
  const data = allocate(g.type.dtype, f.data.length);
  const base = inner.output.type.dtype[0] === 'u' ? 0 : 128;
  f.data.forEach((code, i) => { data[i] = g.data[Number(code) + base]; });
  const values = b.constant(`${node.output.name}.table`, tensor(tensorType(g.type.dtype, f.type.shape), data));
  return b.emit(table, { x: inner.inputs.x, values }, inner.attrs, { replaces: node.output, type: node.output.type });
});

export const composeTables = definePass<'kernel', 'kernel'>({
  name: 'compose-tables',
  from: 'kernel',
  to: 'kernel',
  summary: 'merge tables that follow one another',
  options: {},
  run: (graph, _, context) => applyRules(graph, [tableOfTable], 'compose-tables', context),
});
