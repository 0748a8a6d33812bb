/**
 * Rescales with 64-bit products become rescales in 32-bit words where that is proven to be near enough:
 *
 *     %y = requantize(%x, M, C) {s}  →  %y = requantize_words(%x, m, a) {drop: d, shift: t, error: e}
 *
 *     |((x >> d)·m + a)·2^-t − ((x << preShift)·M + C)·2^-s| ≤ e·2^-20 ≤ 1/32 of a step
 *
 * for every x of the interval that the real weights leave, except where the result is an end of its range, and with no product and no sum outside 32
 * bits for any x of it. Codes of at most 8 bits alone: a 32nd of their step is a thousandth of what rounding does to them. Machines
 * multiply words in one instruction; a 64-bit product takes several. Anything else keeps the exact form.
 */
import { factOf } from '../ir/analysis.ts';
import { accumulatorBounds, type Bounds } from '../ir/bounds.ts';
import type { Builder } from '../ir/build.ts';
import { constantOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import type { NodeOf } from '../ir/op.ts';
import { MOST_WORDS_ERROR, requantizeWords, WORDS_ERROR_UNIT, type requantize } from '../ir/ops/kernel-requantize.ts';
import type { OutputDType } from '../ir/ops/kernel-checks.ts';
import { mapGraph } from '../ir/rewrite.ts';
import { tensor, tensorType } from '../ir/type.ts';
import { chooseWords } from '../numerics/choose-words.ts';
import { definePass } from './pass.ts';

const wordsOf = (node: NodeOf<typeof requantize>, now: (value: Value) => Value, b: Builder, bounds: Bounds): Value | null => {
  const { shift, preShift, low, high } = node.attrs;
  const { low: least, high: greatest } = bounds.get(node.inputs.x)!;
  const [mul, add] = [constantOf(node.inputs.mul), constantOf(node.inputs.add)];
  if (high - low > 255 || mul === null || add === null) return null;
  const long = { mul: mul.data as Int32Array, add: add.data as BigInt64Array, shift, preShift, low, high, least, greatest };
  const words = chooseWords(long, MOST_WORDS_ERROR * WORDS_ERROR_UNIT);
  if (words === null) return null;
  const list = (slot: string, data: Int32Array): Value => b.constant(`${node.output.name}.${slot}`, tensor(tensorType('i32', [data.length]), data));
  return b.emit(requantizeWords, { x: now(node.inputs.x), mul: list('mul', words.mul), add: list('add', words.add) }, {
    drop: words.drop, shift: words.shift, error: Math.ceil(words.error / WORDS_ERROR_UNIT), low, high, to: node.output.type.dtype as OutputDType,
  }, { replaces: node.output, type: node.output.type });
};

/** The graph with all rescales in words that can be; the same graph where none can. */
const inWords = (graph: Graph<'kernel'>): Graph<'kernel'> => {
  const bounds = factOf(graph, accumulatorBounds);
  let changed = false;
  const rewritten = mapGraph<'kernel', 'kernel'>(graph, 'kernel', (node: Node, now, b) => {
    const made = node.op === 'requantize' ? wordsOf(node as unknown as NodeOf<typeof requantize>, now, b, bounds) : null;
    changed ||= made !== null;
    return made;
  });
  return changed ? rewritten : graph;
};

export const rescaleInWords = definePass<'kernel', 'kernel'>({
  name: 'rescale-in-words',
  from: 'kernel',
  to: 'kernel',
  summary: 'rescale with products of 32 bits where the error is proven to be small',
  changes: 'each rescale that it takes by at most a 32nd of a step before it is rounded; the bound is in the graph',
  options: {},
  run: inWords,
});
