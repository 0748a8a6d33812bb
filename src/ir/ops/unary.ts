/**
 * Functions of one real number, applied to every element. One table: name, attributes and `real`, the function itself, from which
 * passes build 256-entry tables and from which the reference meaning follows.
 */
import { erf as erfOf, exp as expOf, log as logOf, tanh as tanhOf } from '../../numerics/real-math.ts';
import { oneOf, real, type Attrs, type OpDef } from '../op.ts';
import { tensorType } from '../type.ts';
import { fill, realShape, reals } from './elements.ts';

export interface UnaryOp<N extends string, A extends object> extends OpDef<N, { readonly x: 'one' }, A> {
  /** The function on one real number, in float64. */
  readonly real: (x: number, attrs: A) => number;
}

const unary = <const N extends string, A extends object>(
  name: N, summary: string, attrs: Attrs<A>, real: (x: number, attrs: A) => number,
): UnaryOp<N, A> => Object.freeze({
  name, summary, attrs, real,
  operands: { x: 'one' } as const,
  infer: ({ x }) => tensorType('f32', realShape(x, 'x')),
  evaluate: ({ x }, given) => {
    const from = reals(x);
    return fill(x.type.shape, (i) => real(from[i], given));
  },
} satisfies UnaryOp<N, A>);

const clamp = (x: number, low: number, high: number): number => Math.min(high, Math.max(low, x));
const sigmoidOf = (x: number): number => {
  const e = expOf(-Math.abs(x));
  return (x < 0 ? e : 1) / (1 + e);
};
const softplusOf = (x: number): number => Math.max(x, 0) + logOf(1 + expOf(-Math.abs(x)));
/** √(1/2) */
const HALF_ROOT = Math.SQRT1_2;
/** √(2/π), the slope inside tanh of the tanh form of GELU. */
const GELU_SLOPE = 0.7978845608028654;
/** Cubic coefficient of the tanh form of GELU (Hendrycks and Gimpel, 2016). */
const GELU_CUBE = 0.044715;

export const relu = unary('relu', 'max(x, 0)', {}, (x) => Math.max(x, 0));
export const clip = unary('clip', 'x limited to [low, high]', {
  low: real('lower limit, may be -Infinity', -Infinity), high: real('upper limit, may be Infinity', Infinity),
}, (x, { low, high }) => clamp(x, low, high));
export const gelu = unary('gelu', 'x·Φ(x), Gaussian error linear unit', {
  form: oneOf('exact, or the tanh approximation', ['erf', 'tanh'], 'erf'),
}, (x, { form }) => form === 'erf'
  ? 0.5 * x * (1 + erfOf(x * HALF_ROOT))
  : 0.5 * x * (1 + tanhOf(GELU_SLOPE * (x + GELU_CUBE * x * x * x))));
export const silu = unary('silu', 'x·σ(slope·x)', { slope: real('1, or 1.702 for the sigmoid form of GELU', 1) },
  (x, { slope }) => x * sigmoidOf(slope * x));
export const sigmoid = unary('sigmoid', '1/(1 + e^-x)', {}, sigmoidOf);
export const tanh = unary('tanh', 'hyperbolic tangent', {}, (x) => tanhOf(x));
export const hardSwish = unary('hard_swish', 'x·clip(x/6 + 1/2, 0, 1)', {}, (x) => x * clamp(x / 6 + 0.5, 0, 1));
export const hardSigmoid = unary('hard_sigmoid', 'clip(alpha·x + beta, 0, 1)', { alpha: real('slope', 0.2), beta: real('value at 0', 0.5) },
  (x, { alpha, beta }) => clamp(alpha * x + beta, 0, 1));
export const leakyRelu = unary('leaky_relu', 'x, or alpha·x below 0', { alpha: real('slope below 0', 0.01) }, (x, { alpha }) => (x < 0 ? alpha * x : x));
export const elu = unary('elu', 'x, or alpha·(e^x - 1) below 0', { alpha: real('limit below 0', 1) }, (x, { alpha }) => (x < 0 ? alpha * (expOf(x) - 1) : x));
export const softplus = unary('softplus', 'log(1 + e^x)', {}, softplusOf);
export const mish = unary('mish', 'x·tanh(log(1 + e^x))', {}, (x) => x * tanhOf(softplusOf(x)));
export const erf = unary('erf', 'error function', {}, (x) => erfOf(x));
export const exp = unary('exp', 'e^x', {}, (x) => expOf(x));
export const log = unary('log', 'natural logarithm', {}, (x) => logOf(x));
export const sqrt = unary('sqrt', 'square root', {}, (x) => Math.sqrt(x));
export const reciprocal = unary('reciprocal', '1/x', {}, (x) => 1 / x);
export const neg = unary('neg', '-x', {}, (x) => -x);
export const abs = unary('abs', '|x|', {}, (x) => Math.abs(x));

/** x^exponent: exact products for small integers and square roots, e^(exponent·log x) otherwise; negative bases need an integer. */
const powOf = (x: number, exponent: number): number => {
  if (exponent < 0) return 1 / powOf(x, -exponent);
  if (Number.isInteger(exponent) && exponent <= 64) {
    let product = 1;
    for (let n = 0; n < exponent; n++) product *= x;
    return product;
  }
  if (exponent === 0.5) return Math.sqrt(x);
  if (x === 0) return 0;
  const magnitude = expOf(exponent * logOf(Math.abs(x)));
  if (x > 0) return magnitude;
  return Number.isInteger(exponent) ? (exponent % 2 === 0 ? magnitude : -magnitude) : NaN;
};
export const pow = unary('pow', 'x to a constant power', { exponent: real('the power') }, (x, { exponent }) => powOf(x, exponent));

export const unaryOps = [
  relu, clip, gelu, silu, sigmoid, tanh, hardSwish, hardSigmoid, leakyRelu, elu, softplus, mish, erf, exp, log, sqrt, reciprocal, neg, abs, pow,
] as const;
