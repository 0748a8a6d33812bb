/**
 * Evaluates nodes whose operands are all constants, and drops nodes that change nothing.
 *
 *     %c = add(%a, %b), both constant   ->   %c constant
 */
import { equalShapes, isStaticShape, sizeOf } from '../ir/dim.ts';
import { foldNode, MAX_CONSTANT_SIZE } from '../ir/fold.ts';
import { constantOf, type Value } from '../ir/graph.ts';
import { add, concat, div, expand, mul, pad, slice, sub } from '../ir/ops/index.ts';
import { rule, type Rule } from '../ir/rewrite.ts';
import { zeros } from '../ir/type.ts';
import { applyRules, definePass } from './pass.ts';

/** Every element of a constant is `number`. */
export const isAll = (value: Value, number: number): boolean => {
  const tensor = constantOf(value);
  return tensor !== null && tensor.data.length > 0 && tensor.data.every((one: number | bigint) => Number(one) === number);
};
const keepsShape = (x: Value, output: Value): Value | null => (equalShapes(x.type.shape, output.type.shape) ? x : null);

/** f(constants) = its value. */
const evaluateConstants: Rule = { name: 'evaluate-constants', root: '*', apply: (node) => foldNode(node) };
/** x + 0 = 0 + x = x */
const dropZeroSum = rule(add, 'drop-zero-sum', ({ inputs: { x, y }, output }) =>
  isAll(y, 0) ? keepsShape(x, output) : isAll(x, 0) ? keepsShape(y, output) : null);
/** x - 0 = x */
const dropZeroDifference = rule(sub, 'drop-zero-difference', ({ inputs: { x, y }, output }) => (isAll(y, 0) ? keepsShape(x, output) : null));
/** x·1 = 1·x = x */
const dropUnitProduct = rule(mul, 'drop-unit-product', ({ inputs: { x, y }, output }) =>
  isAll(y, 1) ? keepsShape(x, output) : isAll(x, 1) ? keepsShape(y, output) : null);
/** x·0 = 0·x = 0 for the finite numbers that networks compute. */
const zeroProduct = rule(mul, 'zero-product', ({ inputs: { x, y }, output }, b) =>
  (isAll(x, 0) || isAll(y, 0)) && isStaticShape(output.type.shape) && sizeOf(output.type.shape) <= MAX_CONSTANT_SIZE ? b.constant(`${output.name}.zero`, zeros(output.type)) : null);
/** x/1 = x */
const dropUnitQuotient = rule(div, 'drop-unit-quotient', ({ inputs: { x, y }, output }) => (isAll(y, 1) ? keepsShape(x, output) : null));
/** The whole of an axis is the tensor itself. */
const dropFullSlice = rule(slice, 'drop-full-slice', ({ inputs: { x }, attrs, output }) => (attrs.step === 1 && attrs.start === 0 ? keepsShape(x, output) : null));
const dropEmptyPad = rule(pad, 'drop-empty-pad', ({ inputs: { x }, attrs }) => (attrs.pads.every((count) => count === 0) ? x : null));
const dropSingleConcat = rule(concat, 'drop-single-concat', ({ inputs: { xs } }) => (xs.length === 1 ? xs[0] : null));
const dropFullExpand = rule(expand, 'drop-full-expand', ({ inputs: { x }, output }) => keepsShape(x, output));

export const foldRules: readonly Rule[] = [
  evaluateConstants, dropZeroSum, dropZeroDifference, dropUnitProduct, zeroProduct, dropUnitQuotient, dropFullSlice, dropEmptyPad, dropSingleConcat, dropFullExpand,
];

export const foldConstants = definePass({
  name: 'fold-constants', from: 'float', to: 'float',
  summary: 'evaluate what depends on constants alone and drop nodes that change nothing',
  options: {},
  run: (graph, _, context) => applyRules(graph, foldRules, 'fold-constants', context),
});
