/**
 * Activation functions that a file spells out in arithmetic become one op each.
 *
 *     gelu(x)       = ½·x·(1 + erf(x/√2))  or  ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))     Hendrycks and Gimpel, 2016
 *     silu(x)       = x·σ(slope·x)                                                          Elfwing et al., 2017
 *     hard_swish(x) = x·clip(x + 3, 0, 6)/6  or  x·hard_sigmoid(x; 1/6, 1/2)                Howard et al., 2019
 *     clip(x)       = min(max(x, low), high)
 *
 *     %e = erf(%s); %p = add(%e, 1); %q = mul(%x, %p); %g = mul(%q, 0.5)   ->   %g = gelu(%x)
 */
import { isNode, type Node, type Value } from '../ir/graph.ts';
import { clip, div, gelu, hardSwish, max, min, mish, mul, relu, silu } from '../ir/ops/index.ts';
import { rule, type Rewriter, type Rule } from '../ir/rewrite.ts';
import { near, operandOf, plainScalarOf, plusScalar, productOf, siteBetween } from './arithmetic.ts';
import { foldRules } from './fold-constants.ts';
import { applyRules, definePass } from './pass.ts';

/** √(2/π) and the cubic coefficient of the tanh form. */
const GELU_SLOPE = 0.7978845608;
const GELU_CUBE = 0.044715;

/** value = scalar·x for one x. */
const scaledOf = (value: Value): { readonly x: Value; readonly scalar: number } | null => {
  const { scalar, factors } = productOf(value);
  return factors.length === 1 ? { x: factors[0], scalar } : null;
};

/** c·x³, spelled as a power or as products. */
const cubeOf = (value: Value, x: Value): number | null => {
  const { scalar, factors } = productOf(value);
  const degree = factors.reduce((sum, factor) => sum + degreeOf(factor, x), 0);
  return degree === 3 ? scalar : null;
};
/** n where value = xⁿ, NaN otherwise. */
const degreeOf = (value: Value, x: Value): number => {
  if (value === x) return 1;
  return isNode(value.def) && value.def.op === 'pow' && value.def.inputs['x'] === x ? (value.def.attrs['exponent'] as number) : NaN;
};

/** Whether u = √(2/π)·(x + 0.044715·x³), also with x factored out. */
const isTanhArgument = (u: Value, x: Value): boolean => {
  const { scalar, factors } = productOf(u);
  if (!near(scalar, GELU_SLOPE)) return false;
  if (factors.length === 1) {
    const sum = isNode(factors[0].def) && factors[0].def.op === 'add' ? [factors[0].def.inputs['x'], factors[0].def.inputs['y']] as Value[] : [];
    return sum.length === 2 && sum.some((one, i) => one === x && near(cubeOf(sum[1 - i], x) ?? NaN, GELU_CUBE));
  }
  if (factors.length !== 2 || !factors.includes(x)) return false;
  const rest = plusScalar(factors[0] === x ? factors[1] : factors[0]);
  if (rest === null || rest.scalar !== 1) return false;
  const square = productOf(rest.x);
  return square.factors.reduce((sum, factor) => sum + degreeOf(factor, x), 0) === 2 && near(square.scalar, GELU_CUBE);
};

/** The activation that a product of x, one function of x and a scalar is; null for any other product. */
const activationOf = (x: Value, gate: Value, scalar: number, b: Rewriter, output: Value): Value | null => {
  const to = { replaces: output };
  const shifted = plusScalar(gate);
  if (near(scalar, 0.5) && shifted?.scalar === 1) {
    const inner = operandOf(shifted.x, 'erf');
    const argument = inner && scaledOf(inner);
    if (argument && argument.x === x && near(argument.scalar, Math.SQRT1_2)) return b.emit(gelu, { x }, { form: 'erf' }, to);
    const cubic = operandOf(shifted.x, 'tanh');
    if (cubic && isTanhArgument(cubic, x)) return b.emit(gelu, { x }, { form: 'tanh' }, to);
  }
  if (scalar === 1) {
    const logistic = operandOf(gate, 'sigmoid');
    const argument = logistic && (logistic === x ? { x, scalar: 1 } : scaledOf(logistic));
    if (argument?.x === x && argument.scalar > 0) return b.emit(silu, { x }, { slope: argument.scalar }, to);
    const soft = operandOf(gate, 'tanh');
    if (soft && operandOf(soft, 'softplus') === x) return b.emit(mish, { x }, {}, to);
    if (isNode(gate.def) && gate.def.op === 'hard_sigmoid' && gate.def.inputs['x'] === x
      && near(gate.def.attrs['alpha'] as number, 1 / 6) && near(gate.def.attrs['beta'] as number, 0.5)) return b.emit(hardSwish, { x }, {}, to);
  }
  if (near(scalar, 1 / 6) && isNode(gate.def) && gate.def.op === 'clip' && gate.def.attrs['low'] === 0 && gate.def.attrs['high'] === 6) {
    const sum = plusScalar(gate.def.inputs['x'] as Value);
    if (sum?.x === x && sum.scalar === 3) return b.emit(hardSwish, { x }, {}, to);
  }
  return null;
};

/** scalar·x·f(x): every activation of this file but clip is of this form, whether a product or a quotient comes last. */
const recognizeGate = (node: Node, b: Rewriter): Value | null => {
  const { output } = node;
  const { scalar, factors } = productOf(output);
  if (factors.length !== 2) return null;
  const own = b.site;
  const found = (x: Value, gate: Value): Value | null => {
    b.site = siteBetween(output, [x], own);
    return activationOf(x, gate, scalar, b, output);
  };
  return found(factors[0], factors[1]) ?? found(factors[1], factors[0]);
};
const recognizeProduct = rule(mul, 'recognize-gated-product', (node, b) => recognizeGate(node as Node, b));
const recognizeQuotient = rule(div, 'recognize-gated-quotient', (node, b) => recognizeGate(node as Node, b));

/** The limits that the producer of a value already keeps. */
const limitsOf = (value: Value): { readonly x: Value; readonly low: number; readonly high: number } => {
  if (isNode(value.def) && value.def.op === 'clip') return { x: value.def.inputs['x'] as Value, low: value.def.attrs['low'] as number, high: value.def.attrs['high'] as number };
  if (isNode(value.def) && value.def.op === 'relu') return { x: value.def.inputs['x'] as Value, low: 0, high: Infinity };
  return { x: value, low: -Infinity, high: Infinity };
};
/** min(x, c) and max(x, c) limit x; limits of limits are joined: clip(clip(x; a, b); c, d) = clip(x; max(a, c), min(b, d)) for c ≤ b, a ≤ d. */
const limit = (x: Value, low: number, high: number, b: Rewriter, output: Value): Value | null => {
  const inner = limitsOf(x);
  const joined = low <= inner.high && inner.low <= high ? inner : { x, low: -Infinity, high: Infinity };
  return b.emit(clip, { x: joined.x }, { low: Math.max(low, joined.low), high: Math.min(high, joined.high) }, { replaces: output });
};
const minToClip = rule(min, 'min-to-clip', ({ inputs: { x, y }, output }, b) => {
  const [left, right] = [plainScalarOf(x), plainScalarOf(y)];
  return right !== null ? limit(x, -Infinity, right, b, output) : left !== null ? limit(y, -Infinity, left, b, output) : null;
});
const maxToClip = rule(max, 'max-to-clip', ({ inputs: { x, y }, output }, b) => {
  const [left, right] = [plainScalarOf(x), plainScalarOf(y)];
  return right !== null ? limit(x, right, Infinity, b, output) : left !== null ? limit(y, left, Infinity, b, output) : null;
});
const joinClips = rule(clip, 'join-clips', ({ inputs: { x }, attrs: { low, high }, output }, b) =>
  limitsOf(x).x === x ? null : limit(x, low, high, b, output));
/** clip(x; 0, ∞) = relu(x) */
const clipToRelu = rule(clip, 'clip-to-relu', ({ inputs: { x }, attrs: { low, high }, output }, b) =>
  low === 0 && high === Infinity ? b.emit(relu, { x }, {}, { replaces: output }) : null);

export const activationRules: readonly Rule[] = [recognizeProduct, recognizeQuotient, minToClip, maxToClip, joinClips, clipToRelu];

export const recognizeActivations = definePass({
  name: 'recognize-activations', from: 'float', to: 'float',
  summary: 'join the arithmetic of gelu, silu, hard-swish and clip to one op each',
  paper: 'Hendrycks and Gimpel 2016, Gaussian error linear units; Howard et al. 2019, Searching for MobileNetV3',
  options: {},
  run: (graph, _, context) => applyRules(graph, [...foldRules, ...activationRules], 'recognize-activations', context, 16),
});
