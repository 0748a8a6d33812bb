/**
 * Per-channel scales and offsets after a convolution or `linear` move into its weights and bias: batch normalisation, a matrix
 * product's added bias, a scale. A normalisation behind no such op stays: it is one affine map, and one table or rescale in integers.
 *
 *     batch_norm(conv(x, W, b)) = conv(x, s·W, s·(b - mean) + bias),  s = scale/√(variance + ε)      Jacob et al., 2018
 *
 *     %c = conv(%x, %W, %b); %n = batch_norm(%c, …)   ->   %n = conv(%x, %W', %b')
 */
import { constantOf, isNode, type Node, type Value } from '../ir/graph.ts';
import { joinSites } from '../ir/op.ts';
import { add, batchNorm, conv, div, mul, pad } from '../ir/ops/index.ts';
import { rule, type Rewriter, type Rule } from '../ir/rewrite.ts';
import { channelsOf, vector } from './arithmetic.ts';
import { foldRules } from './fold-constants.ts';
import { applyRules, definePass } from './pass.ts';

interface Accumulating { readonly node: Node; readonly weight: Float32Array; readonly bias: Float32Array | null; readonly channels: number }

/** A conv or linear with constant parameters that nothing else reads. */
const accumulating = (value: Value, b: Rewriter): Accumulating | null => {
  const node = value.def;
  if (!isNode(node) || (node.op !== 'conv' && node.op !== 'linear') || b.useCount(value) > 1) return null;
  const weight = constantOf(node.inputs['weight'] as Value);
  const biasValue = node.inputs['bias'] as Value | null;
  const bias = constantOf(biasValue);
  if (weight === null || (biasValue !== null && bias === null)) return null;
  return { node, weight: weight.data as Float32Array, bias: bias && (bias.data as Float32Array), channels: weight.type.shape[0] as number };
};

/** The op with y = scale·(what it computed) + offset, channel by channel; products in float64, rounded once. */
const scaledAndShifted = ({ node, weight, bias, channels }: Accumulating, scale: ArrayLike<number> | null, offset: ArrayLike<number> | null, b: Rewriter, output: Value): Value => {
  b.site = joinSites(node.site, b.site);
  const row = weight.length / channels;
  const old = node.inputs['weight'] as Value;
  const W = scale === null ? old
    : b.constant(`${old.name}.scaled`, { type: old.type, data: weight.map((w, i) => w * scale[Math.floor(i / row)]) });
  const sums = Float32Array.from({ length: channels }, (_, c) => (bias?.[c] ?? 0) * (scale?.[c] ?? 1) + (offset?.[c] ?? 0));
  const shift = bias === null && offset === null ? null : b.constant(`${output.name}.bias`, vector(sums));
  return b.emit(node.decl as never, { ...node.inputs, weight: W, bias: shift } as never, node.attrs, { replaces: output });
};

/** s = scale/√(variance + ε) and t = bias - mean·s, in float64. */
const affineOf = (inputs: Readonly<Record<'scale' | 'bias' | 'mean' | 'variance', Value>>, epsilon: number): { readonly s: Float64Array; readonly t: Float64Array } | null => {
  const [scale, bias, mean, variance] = [inputs.scale, inputs.bias, inputs.mean, inputs.variance].map((value) => constantOf(value)?.data as Float32Array | undefined);
  if (!scale || !bias || !mean || !variance) return null;
  const s = Float64Array.from(scale, (g, c) => g / Math.sqrt(variance[c] + epsilon));
  return { s, t: s.map((factor, c) => bias[c] - mean[c] * factor) };
};

const foldNormIntoWeights = rule(batchNorm, 'fold-norm-into-weights', ({ inputs, attrs: { epsilon }, output }, b) => {
  const before = accumulating(inputs.x, b);
  const affine = affineOf(inputs, epsilon);
  return before && affine && scaledAndShifted(before, affine.s, affine.t, b, output);
});
/** x/c = x·(1/c), where every 1/c is a float32 other than 0; the last bits may differ, since 1/c is rounded. */
const multiplyByReciprocal = rule(div, 'multiply-by-reciprocal', ({ inputs: { x, y }, output }, b) => {
  const divisor = constantOf(y);
  if (divisor === null || !(divisor.data instanceof Float32Array)) return null;
  const data = divisor.data.map((c) => 1 / c);
  if (!data.every((c) => c !== 0 && Number.isFinite(c))) return b.decline('the reciprocal of its divisor is no finite number other than 0');
  return b.emit(mul, { x, y: b.constant(`${output.name}.factor`, { type: divisor.type, data }) }, {}, { replaces: output });
});
/** linear(x)·c = linear(x; c·W, c·b) */
const foldScale = rule(mul, 'fold-scale', ({ inputs: { x, y }, output }, b) => {
  for (const [value, factor] of [[x, y], [y, x]]) {
    const before = accumulating(value, b);
    const scale = before && value.type.shape.length >= factor.type.shape.length ? channelsOf(factor, before.channels) : null;
    if (before !== null && scale !== null) return scaledAndShifted(before, scale, null, b, output);
  }
  return null;
});
/** linear(x) + c = linear(x; W, b + c) */
const foldOffset = rule(add, 'fold-offset', ({ inputs: { x, y }, output }, b) => {
  for (const [value, term] of [[x, y], [y, x]]) {
    const before = accumulating(value, b);
    const offset = before && value.type.shape.length >= term.type.shape.length ? channelsOf(term, before.channels) : null;
    if (before !== null && offset !== null) return scaledAndShifted(before, null, offset, b, output);
  }
  return null;
});

/** conv(pad(x)) = conv(x) with larger pads, for a border of zeros around rows and columns. */
const foldPad = rule(conv, 'fold-pad', ({ inputs: { x, weight, bias }, attrs, output }, b) => {
  if (!isNode(x.def) || x.def.op !== pad.name || x.def.attrs['value'] !== 0) return null;
  const pads = x.def.attrs['pads'] as readonly number[];
  if (pads.length !== 8 || [0, 3, 4, 7].some((side) => pads[side] !== 0)) return null;
  const sides = [pads[1], pads[2], pads[5], pads[6]].map((count, i) => count + attrs.pads[i]);
  return b.emit(conv, { x: x.def.inputs['x'] as Value, weight, bias }, { ...attrs, pads: sides }, { replaces: output });
});

export const biasRules: readonly Rule[] = [foldOffset];
export const affineRules: readonly Rule[] = [multiplyByReciprocal, foldNormIntoWeights, foldScale, foldOffset, foldPad];

export const foldBatchNorm = definePass({
  name: 'fold-batch-norm', from: 'float', to: 'float',
  summary: 'move batch normalisation, scales and offsets into the weights before them',
  paper: 'Jacob et al. 2018, Quantization and training of neural networks for efficient integer-arithmetic-only inference',
  options: {},
  run: (graph, _, context) => applyRules(graph, [...foldRules, ...affineRules], 'fold-batch-norm', context, 16),
});
