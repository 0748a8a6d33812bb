/** Layers that keep a width of their own: `stem*=8` as an option of the passes that choose widths. */
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Graph, Node } from '../ir/graph.ts';
import type { Attr } from '../ir/op.ts';

/** Ops that multiply, and so have a width. */
const multiplying: ReadonlySet<string> = new Set(['conv', 'linear', 'matmul', 'attention']);

const form = /^(.+)=([2-8])$/;

export const keepOption: Attr<readonly string[]> = {
  doc: "layers with a width of their own: a list of 'glob=bits', the glob matching a value or an ONNX node; the last match counts",
  fallback: [],
  expected: "a list of 'glob=bits' with 2 to 8 bits",
  check: (value): value is readonly string[] => Array.isArray(value) && value.every((text) => typeof text === 'string' && form.test(text)),
};

/** The width that a node keeps, or null. A glob that matches no layer of the graph is a mistake of the user. */
export const keptWidths = (keep: readonly string[], graph: Graph): ((node: Node) => number | null) => {
  const layers = graph.nodes.filter(({ op }) => multiplying.has(op));
  const kept = keep.map((text) => {
    const [, glob, bits] = form.exec(text)!;
    const pattern = patternOf(glob);
    const matches = (node: Node): boolean => namesOf(node).some((name) => pattern.test(name));
    if (!layers.some(matches)) throw new CompileError(errors.keepsNothing(text, layers.slice(0, 8).map(({ output }) => output.name)), 'usage');
    return { bits: Number(bits), matches };
  });
  return (node) => (multiplying.has(node.op) ? kept.findLast(({ matches }) => matches(node))?.bits ?? null : null);
};

/** The value, and the ONNX nodes it came from, with and without their op. */
const namesOf = ({ output, site }: Node): readonly string[] =>
  [output.name, ...site.origins, ...site.origins.map((origin) => origin.replace(/ \([^()]*\)$/, ''))];

/** `*` and `?` as in shells, except that `*` also matches `/`. */
const patternOf = (glob: string): RegExp =>
  new RegExp(`^${glob.replace(/[.+^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*').replaceAll('?', '.')}$`);
