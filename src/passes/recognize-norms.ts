/**
 * Layer and RMS normalisation that a file spells out in arithmetic become one op each.
 *
 *     layer_norm(x) = γ·(x - μ)/√(mean((x - μ)²) + ε) + β,  μ = mean(x)            Ba, Kiros and Hinton, 2016
 *     rms_norm(x)   = γ·x/√(mean(x²) + ε)                                          Zhang and Sennrich, 2019
 *
 * The division may be a product with a reciprocal or with a power -1/2, the square a power or a product, and γ may be multiplied
 * into the reciprocal first, as in x·m + (β - μ·m) with m = γ/√(…).
 */
import { normalAxis } from '../ir/dim.ts';
import { isNode, type Value } from '../ir/graph.ts';
import { joinSites } from '../ir/op.ts';
import { add, div, layerNorm, mul, rmsNorm } from '../ir/ops/index.ts';
import { rule, type Rewriter, type Rule } from '../ir/rewrite.ts';
import { channelsOf, operandOf, pairOf, plusScalar, siteBetween, vector } from './arithmetic.ts';
import { foldRules } from './fold-constants.ts';
import { applyRules, definePass } from './pass.ts';

/** x where value is the mean of x over its last axis, which stays. */
const meanOf = (value: Value): Value | null => {
  const x = operandOf(value, 'reduce_mean');
  if (x === null || !isNode(value.def)) return null;
  const { axes, keepDims } = value.def.attrs as { readonly axes: readonly number[]; readonly keepDims: boolean };
  const rank = x.type.shape.length;
  return keepDims && axes.length === 1 && normalAxis(axes[0], rank) === rank - 1 ? x : null;
};
/** x where value = x². */
const squareOf = (value: Value): Value | null => {
  if (isNode(value.def) && value.def.op === 'pow' && value.def.attrs['exponent'] === 2) return value.def.inputs['x'] as Value;
  const pair = pairOf(value, 'mul');
  return pair !== null && pair[0] === pair[1] ? pair[0] : null;
};
/** x where value = x - mean(x). */
const centredOf = (value: Value): Value | null => {
  const pair = pairOf(value, 'sub');
  return pair !== null && meanOf(pair[1]) === pair[0] ? pair[0] : null;
};
/** The value whose mean of squares is under the root, and ε, where value = √(mean(v²) + ε). */
const rootOf = (value: Value): { readonly v: Value; readonly epsilon: number } | null => {
  const radicand = operandOf(value, 'sqrt');
  return radicand && meanSquareOf(radicand);
};
const meanSquareOf = (value: Value): { readonly v: Value; readonly epsilon: number } | null => {
  const shifted = plusScalar(value) ?? { x: value, scalar: 0 };
  const squares = meanOf(shifted.x);
  const v = squares && squareOf(squares);
  return v && { v, epsilon: shifted.scalar };
};
/** The same, where value = 1/√(…). */
const inverseRootOf = (value: Value): { readonly v: Value; readonly epsilon: number } | null => {
  const root = operandOf(value, 'reciprocal');
  if (root !== null) return rootOf(root);
  if (isNode(value.def) && value.def.op === 'pow' && value.def.attrs['exponent'] === -0.5) return meanSquareOf(value.def.inputs['x'] as Value);
  return null;
};

const isSame = (a: Value, b: Value): boolean => a === b || (centredOf(a) !== null && centredOf(a) === centredOf(b));

/** numerator/√(mean(v²) + ε) as a norm without γ and β. */
const normalized = (numerator: Value, { v, epsilon }: { readonly v: Value; readonly epsilon: number }, b: Rewriter, output: Value): Value | null => {
  if (!isSame(numerator, v)) return null;
  const centred = centredOf(v);
  b.site = siteBetween(output, [centred ?? v], b.site);
  return centred !== null ? b.emit(layerNorm, { x: centred, scale: null, bias: null }, { epsilon }, { replaces: output })
    : b.emit(rmsNorm, { x: v, scale: null }, { epsilon }, { replaces: output });
};

/** d/√(mean(d²) + ε) */
const recognizeQuotient = rule(div, 'recognize-quotient', ({ inputs: { x, y }, output }, b) => {
  const root = rootOf(y);
  return root && normalized(x, root, b, output);
});
/** d·(1/√(mean(d²) + ε)) */
const recognizeProduct = rule(mul, 'recognize-product', ({ inputs: { x, y }, output }, b) => {
  for (const [numerator, inverse] of [[x, y], [y, x]]) {
    const root = inverseRootOf(inverse);
    const norm = root && normalized(numerator, root, b, output);
    if (norm) return norm;
  }
  return null;
});

/** m = γ/√(mean((x - μ)²) + ε), with or without γ. */
const gainOf = (value: Value): { readonly gamma: Value | null; readonly v: Value; readonly epsilon: number } | null => {
  const bare = inverseRootOf(value);
  if (bare !== null) return { gamma: null, ...bare };
  const pair = pairOf(value, 'mul');
  for (const [gamma, inverse] of pair === null ? [] : [pair, [pair[1], pair[0]]]) {
    const root = inverseRootOf(inverse);
    if (root !== null) return { gamma, ...root };
  }
  return null;
};
/** x·m + (β - μ·m) = γ·(x - μ)/√(…) + β */
const recognizeExpanded = rule(add, 'recognize-expanded', ({ inputs: { x, y }, output }, b) => {
  for (const [scaled, rest] of [[x, y], [y, x]]) {
    const factors = pairOf(scaled, 'mul');
    const offset = pairOf(rest, 'sub');
    const shifted = offset && pairOf(offset[1], 'mul');
    if (factors === null || offset === null || shifted === null) continue;
    for (const [source, m] of [factors, [factors[1], factors[0]]]) {
      const gain = gainOf(m);
      const mean = shifted[0] === m ? shifted[1] : shifted[1] === m ? shifted[0] : null;
      if (gain === null || mean === null || centredOf(gain.v) !== source || meanOf(mean) !== source) continue;
      const channels = lastSize(source);
      const [gamma, beta] = [gain.gamma === null ? null : channelsOf(gain.gamma, channels), channelsOf(offset[0], channels)];
      if ((gain.gamma !== null && gamma === null) || beta === null) continue;
      b.site = siteBetween(output, [source], b.site);
      const scale = gamma && b.constant(`${output.name}.scale`, vector(gamma));
      return b.emit(layerNorm, { x: source, scale, bias: b.constant(`${output.name}.bias`, vector(beta)) }, { epsilon: gain.epsilon }, { replaces: output });
    }
  }
  return null;
});

const lastSize = ({ type: { shape } }: Value): number => {
  const last = shape[shape.length - 1];
  return typeof last === 'number' ? last : -1;
};

/** norm(x)·γ where the norm has no γ and no β yet. */
const absorbScale = rule(mul, 'absorb-scale', ({ inputs: { x, y }, output }, b) => {
  for (const [norm, factor] of [[x, y], [y, x]]) {
    if (!isNode(norm.def) || (norm.def.op !== 'layer_norm' && norm.def.op !== 'rms_norm') || b.useCount(norm) > 1) continue;
    const { inputs, attrs, op } = norm.def;
    const gamma = channelsOf(factor, lastSize(norm));
    if (inputs['scale'] !== null || (inputs['bias'] ?? null) !== null || gamma === null) continue;
    b.site = joinSites(norm.def.site, b.site);
    const scale = b.constant(`${output.name}.scale`, vector(gamma));
    const source = inputs['x'] as Value;
    return op === 'layer_norm' ? b.emit(layerNorm, { x: source, scale, bias: null }, attrs, { replaces: output })
      : b.emit(rmsNorm, { x: source, scale }, attrs, { replaces: output });
  }
  return null;
});
/** layer_norm(x) + β where the norm has no β yet. */
const absorbBias = rule(add, 'absorb-bias', ({ inputs: { x, y }, output }, b) => {
  for (const [norm, term] of [[x, y], [y, x]]) {
    if (!isNode(norm.def) || norm.def.op !== 'layer_norm' || b.useCount(norm) > 1) continue;
    const { inputs, attrs } = norm.def;
    const beta = channelsOf(term, lastSize(norm));
    if (inputs['bias'] !== null || beta === null) continue;
    b.site = joinSites(norm.def.site, b.site);
    const bias = b.constant(`${output.name}.bias`, vector(beta));
    return b.emit(layerNorm, { x: inputs['x'] as Value, scale: inputs['scale'] as Value | null, bias }, attrs, { replaces: output });
  }
  return null;
});

export const normRules: readonly Rule[] = [recognizeQuotient, recognizeProduct, recognizeExpanded, absorbScale, absorbBias];

export const recognizeNorms = definePass({
  name: 'recognize-norms', from: 'float', to: 'float',
  summary: 'join the arithmetic of layer and RMS normalisation to one op each',
  paper: 'Ba, Kiros and Hinton 2016, Layer normalization',
  options: {},
  run: (graph, _, context) => applyRules(graph, [...foldRules, ...normRules], 'recognize-norms', context, 16),
});
