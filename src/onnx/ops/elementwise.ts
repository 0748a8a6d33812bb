/** Functions of single elements, and of pairs with broadcasting. */
import { constantOf, type Value } from '../../ir/graph.ts';
import type { OpDef } from '../../ir/op.ts';
import {
  abs, add, clip, div, elu, erf, exp, gelu, hardSigmoid, hardSwish, leakyRelu, log, max, min, mish, mul, neg, pow, reciprocal, relu, reshape,
  sigmoid, silu, softplus, sqrt, sub, tanh, where, type BinaryOp, type UnaryOp,
} from '../../ir/ops/index.ts';
import { combineKnown, isKnown, known, selectKnown, unaryOnKnown, type Known, type Term } from '../known.ts';
import type { Handler, Handlers, OnnxNode } from '../node.ts';
import { elementTypes } from '../schema.ts';
import { isRealType } from '../tensor.ts';

type Plain = OpDef<string, { readonly x: 'one' }, object>;

/** An op without attributes; on known integers by its entry of `unaryOnKnown`. */
const unary = (decl: UnaryOp<string, object>): Handler => (n) => {
  n.ignore('consumed_inputs');
  const x = n.term(0);
  return isKnown(x) && n.opType in unaryOnKnown ? mapKnown(n, x) : n.emit(decl as Plain, { x: n.value(0) });
};
const mapKnown = (n: OnnxNode, x: Known): Known =>
  known(x.elementType, x.shape, Array.from(x.data, (dim) => unaryOnKnown[n.opType](dim) ?? n.refuse('its operand is not known; bind the symbols with --dim')));

const onKnown: Handler = (n) => {
  const x = n.term(0);
  return isKnown(x) ? mapKnown(n, x) : n.refuse('it works on integers that are computed');
};

/** Before version 7, y may be aligned with an axis of x that is not the last: `broadcast` and `axis`. */
const aligned = (n: OnnxNode, y: Term): Term => {
  if (n.version >= 7) return y;
  n.ignore('consumed_inputs');
  const broadcast = n.int('broadcast', 0);
  const axis = n.hasAttr('axis') ? n.int('axis') : null;
  if (broadcast === 0 || axis === null) return y;
  const shape = isKnown(y) ? y.shape : y.type.shape;
  const trailing = n.rank(0) - n.axis(axis, n.rank(0)) - shape.length;
  return n.move(reshape, { x: y }, { shape: [...shape, ...new Array<number>(Math.max(0, trailing)).fill(1)] }, 'aligned');
};

const combine = (n: OnnxNode, op: string, decl: BinaryOp<string> | null, x: Term, y: Term, as: number | string = 0): Term => {
  if (isKnown(x) && isKnown(y)) {
    const result = combineKnown(op, x, y);
    return typeof result === 'string' ? n.refuse(result) : result;
  }
  if (decl === null) return n.refuse('it compares numbers that are computed');
  if ([x, y].some((one) => !isKnown(one) && one.type.dtype !== 'f32')) return n.refuse('it calculates with integers that are known only when the model runs');
  return n.emit(decl, { x: n.toValue(x), y: n.toValue(y) }, {}, as);
};
const binary = (decl: BinaryOp<string>): Handler => (n) => combine(n, n.opType, decl, n.term(0), aligned(n, n.term(1)));

/** Any number of operands, joined from the left. */
const variadic = (op: string, decl: BinaryOp<string>): Handler => (n) => {
  n.ignore('consumed_inputs');
  const terms = n.inputs.map((_, i) => n.term(i));
  if (terms.length === 0) n.fail(`"${n.opType}" has no inputs`);
  return terms.slice(1).reduce<Term>((sum, term, i) => combine(n, op, decl, sum, term, i === terms.length - 2 ? 0 : `part${i}`), terms[0]);
};

/** Comparisons of known integers, or of real constants. */
const compare: Handler = (n) => {
  const operand = (index: number): Known => {
    const term = n.term(index);
    if (isKnown(term)) return term;
    const tensor = constantOf(term) ?? n.refuse('it compares numbers that are computed');
    return known('float', tensor.type.shape as readonly number[], Array.from(tensor.data, Number));
  };
  const result = combineKnown(n.opType, operand(0), operand(1));
  return typeof result === 'string' ? n.refuse(result) : result;
};

const power: Handler = (n) => {
  const [x, y] = [n.term(0), n.term(1)];
  if (isKnown(x) && isKnown(y)) return combine(n, 'Pow', null, x, y);
  return n.emit(pow, { x: n.value(0) }, { exponent: n.scalar(1) });
};

const limits: Handler = (n) => {
  const bound = (name: string, index: number, fallback: number): number =>
    n.version < 11 ? n.float(name, fallback) : n.has(index) ? n.scalar(index) : fallback;
  n.ignore('consumed_inputs');
  const x = n.term(0);
  const [low, high] = [bound('min', 1, -Infinity), bound('max', 2, Infinity)];
  if (isKnown(x)) return known(x.elementType, x.shape, n.numbers(0).map((value) => Math.min(high, Math.max(low, value))));
  return n.emit(clip, { x: n.value(0) }, { low: Math.min(low, high), high });
};

const prelu: Handler = (n) => {
  const [x, slope] = [n.value(0), n.value(1)];
  const constant = constantOf(slope);
  if (constant !== null && constant.data.length === 1) return n.emit(leakyRelu, { x }, { alpha: Number(constant.data[0]) });
  // prelu(x) = relu(x) - slope·relu(-x); the slope of rank 1 runs along axis 1 in files before version 7
  const wide = n.version < 7 && slope.type.shape.length === 1
    ? n.emit(reshape, { x: slope }, { shape: [...slope.type.shape, ...new Array<number>(x.type.shape.length - 2).fill(1)] }, 'slope') : slope;
  const below = n.emit(relu, { x: n.emit(neg, { x }, {}, 'negative') }, {}, 'below');
  return n.emit(sub, { x: n.emit(relu, { x }, {}, 'above'), y: n.emit(mul, { x: below, y: wide }, {}, 'sloped') });
};

/** Scale of SELU and its alpha, as in ONNX (Klambauer et al., 2017). */
const SELU_GAMMA = 1.0507009873554805;
const SELU_ALPHA = 1.6732632423543772;

const cast: Handler = (n) => {
  n.ignore('saturate', 'round_mode');
  const to = n.opType === 'CastLike' ? (isKnown(n.term(1)) ? n.known(1).elementType : 'float') : elementTypes[n.int('to')] ?? n.fail('the target type is not known');
  const x = n.term(0);
  const truth = (value: number): number => Number(value !== 0);
  if (isKnown(x)) {
    if (isRealType(to)) return n.realConstant(x.shape, n.numbers(0), 'cast');
    return known(to, x.shape, to === 'bool' ? n.numbers(0).map(truth) : x.data);
  }
  const constant = constantOf(x);
  if (constant !== null && constant.type.dtype === 'f32' && !isRealType(to)) {
    const values = Array.from(constant.data, Number);
    return known(to, constant.type.shape as readonly number[], values.map(to === 'bool' ? truth : Math.trunc));
  }
  const real = x.type.dtype === 'f32';
  return real === isRealType(to) && to !== 'bool' ? x : n.refuse(`a computed ${x.type.dtype} to ${to}`);
};

const select: Handler = (n) => {
  const [x, y] = [n.term(1), n.term(2)];
  if (isKnown(x) && isKnown(y)) {
    const result = selectKnown(n.known(0), x, y);
    return typeof result === 'string' ? n.refuse(result) : result;
  }
  return n.emit(where, { condition: n.value(0), x: n.value(1), y: n.value(2) });
};

const modulo: Handler = (n) => {
  n.ignore('fmod');
  return combine(n, n.opType, null, n.term(0), n.term(1));
};

const identity: Handler = (n) => n.term(0);

export const elementwise: Handlers = {
  Relu: unary(relu), Sigmoid: unary(sigmoid), Tanh: unary(tanh), Erf: unary(erf), Exp: unary(exp), Log: unary(log), Sqrt: unary(sqrt),
  Reciprocal: unary(reciprocal), Neg: unary(neg), Abs: unary(abs), Softplus: unary(softplus), Mish: unary(mish), HardSwish: unary(hardSwish),
  Not: onKnown, Floor: onKnown, Ceil: onKnown, Round: onKnown,
  HardSigmoid: (n) => n.emit(hardSigmoid, { x: n.value(0) }, { alpha: n.float('alpha', 0.2), beta: n.float('beta', 0.5) }),
  LeakyRelu: (n) => n.emit(leakyRelu, { x: n.value(0) }, { alpha: n.float('alpha', 0.01) }),
  Elu: (n) => n.emit(elu, { x: n.value(0) }, { alpha: n.float('alpha', 1) }),
  Selu: (n) => {
    const inner = n.emit(elu, { x: n.value(0) }, { alpha: n.float('alpha', SELU_ALPHA) }, 'elu');
    return n.emit(mul, { x: inner, y: n.realConstant([], [n.float('gamma', SELU_GAMMA)], 'gamma') });
  },
  Gelu: (n) => n.emit(gelu, { x: n.value(0) }, { form: n.string('approximate', 'none') === 'tanh' ? 'tanh' : 'erf' }),
  'com.microsoft.Gelu': (n) => n.emit(gelu, { x: n.value(0) }),
  'com.microsoft.BiasGelu': (n) => n.emit(gelu, { x: n.emit(add, { x: n.value(0), y: n.value(1) }, {}, 'biased') }),
  'com.microsoft.FastGelu': (n) =>
    n.emit(gelu, { x: n.has(1) ? n.emit(add, { x: n.value(0), y: n.value(1) }, {}, 'biased') : n.value(0) }, { form: 'tanh' }),
  'com.microsoft.QuickGelu': (n) => n.emit(silu, { x: n.value(0) }, { slope: n.float('alpha', 1.702) }),
  Swish: (n) => n.emit(silu, { x: n.value(0) }, { slope: n.float('alpha', 1) }),
  PRelu: prelu,
  Clip: limits,
  Add: binary(add), Sub: binary(sub), Mul: binary(mul), Div: binary(div), Pow: power, Mod: modulo, And: compare, Or: compare, Xor: compare,
  Equal: compare, Less: compare, LessOrEqual: compare, Greater: compare, GreaterOrEqual: compare,
  Sum: variadic('Add', add), Min: variadic('Min', min), Max: variadic('Max', max),
  Mean: (n) => {
    const sum = variadic('Add', add)(n) as Value;
    return n.emit(mul, { x: sum, y: n.realConstant([], [1 / n.inputs.length], 'share') }, {}, 'mean');
  },
  Where: select,
  Cast: cast, CastLike: cast,
  Identity: identity,
  Dropout: (n) => {
    n.ignore('ratio', 'seed', 'is_test', 'consumed_inputs');
    if (n.has(2) && n.scalar(2) !== 0) return n.refuse('training mode');
    return [n.term(0), null];
  },
};
