/**
 * Folds changes of channel coordinates into the constants around the changed values. The function of the graph stays, in real
 * arithmetic; in float32 up to the rounding of the folded constants, which `preservesFunction` measures by running both graphs.
 */
import { createExecutor } from '../../calibration/executor.ts';
import type { Sample } from '../../calibration/samples.ts';
import { isConstant, operandsOf, usersOf, type Graph, type Value } from '../../ir/graph.ts';
import { mapGraph, mapOperands } from '../../ir/rewrite.ts';
import { tensor } from '../../ir/type.ts';
import { equalChanges, identity, isIdentity, type Change } from './change.ts';
import { ruleOf } from './channel-rules.ts';

/** Largest difference of an output, as a share of its largest number, that rounding of folded constants may make. */
const TOLERANCE = 1e-5;

/**
 * The graph with the values in new coordinates. Throws RangeError where a node cannot take its changes; changes of whole sites
 * (channel-classes.ts) always fit.
 */
export const applyChanges = (graph: Graph<'float'>, changes: ReadonlyMap<Value, Change>): Graph<'float'> => {
  const change = (value: Value): Change => changes.get(value) ?? identity;
  const folded = new Map<Value, { readonly changes: readonly Change[]; readonly made: Value }[]>();
  const shared = [...usersOf(graph)].filter(([value, users]) => isConstant(value) && users.length > 1).map(([{ name }]) => name);
  return mapGraph(graph, 'float', (node, now, b) => {
    if ([...operandsOf(node), node.output].every((value) => isIdentity(change(value)))) return null;
    // other readers of a shared constant may keep it
    b.reserve(shared);
    const constants = ruleOf(node).fold(node, {
      change,
      constant: (stem, type, data) => b.constant(stem, tensor(type, data)),
      shared: (old, under, make) => {
        const versions = folded.get(old) ?? [];
        const known = versions.find((one) => one.changes.every((was, i) => equalChanges(was, under[i])));
        if (known !== undefined) return known.made;
        const made = under.every(isIdentity) ? old : b.constant(old.name, tensor(old.type, make()));
        folded.set(old, [...versions, { changes: under, made }]);
        return made;
      },
    });
    if (constants === null) throw new RangeError(`${node.op} "${node.output.name}" cannot take the change of its channels`);
    const operands = Object.fromEntries(Object.entries(constants).map(([slot, operand]) =>
      [slot, Array.isArray(operand) ? (operand as readonly Value[]).map(now) : operand]));
    return b.copy(node, { ...mapOperands(node, now), ...operands });
  });
};

/** max|Δ| / max|y| of the outputs of two graphs on the samples; 0 where both are all 0. */
export const largestDifference = (before: Graph<'float'>, after: Graph<'float'>, samples: readonly Sample[]): number => {
  const [p, q] = [createExecutor(before), createExecutor(after)];
  let worst = 0;
  for (const sample of samples) {
    const [expected, found] = [p.run(sample), q.run(sample)];
    for (const [name, { data }] of Object.entries(expected)) {
      const other = found[name].data;
      let [most, difference] = [0, 0];
      for (let i = 0; i < data.length; i++) {
        most = Math.max(most, Math.abs(Number(data[i])));
        difference = Math.max(difference, Math.abs(Number(data[i]) - Number(other[i])));
      }
      worst = Math.max(worst, difference === 0 ? 0 : difference / most);
    }
  }
  return worst;
};

/** Whether the outputs of both graphs agree on the samples but for the rounding of folded constants. */
export const preservesFunction = (before: Graph<'float'>, after: Graph<'float'>, samples: readonly Sample[]): boolean =>
  largestDifference(before, after, samples) <= TOLERANCE;
