/** Rows divided at run time: softmax, attention, layer norm. Their constants come from numerics/choose-normalize.ts. */
import { CompileError } from '../../ir/diagnostic.ts';
import { staticShape } from '../../ir/dim.ts';
import { errors, placeOf, warnings } from '../../ir/errors.ts';
import { constantOf, type Node, type Value } from '../../ir/graph.ts';
import type { NodeOf } from '../../ir/op.ts';
import type * as float from '../../ir/ops/index.ts';
import { attentionInt, layerNormInt, softmax as softmaxCodes } from '../../ir/ops/kernel-normalize.ts';
import { scaleOf, zeroOf, type UniformQuant } from '../../ir/quant.ts';
import { chooseAttention, chooseLayerNorm, chooseSoftmax, type OutputCodes } from '../../numerics/choose-normalize.ts';
import { channelsOf, outputDType, quantOf, type Codes, type Lowering } from './lowering.ts';

/** e^(x − max) over its sum along the last axis, from two-level tables in Q30. */
export const softmax = (node: NodeOf<typeof float.softmax>, lowering: Lowering): Codes => {
  const x = lowering.codes(node.inputs.x);
  const rank = x.type.shape.length;
  if (node.attrs.axis !== -1 && node.attrs.axis !== rank - 1) throw new CompileError(errors.noIntegerForm(node), 'unsupported');
  const chosen = chooseSoftmax({ bits: x.type.dtype === 'i16' ? 16 : 8, scaleIn: scaleOf(quantOf(x)), length: channelsOf(x), ...outputOf(node) })
    ?? outOfRange(node);
  const name = node.output.name;
  if (lowering.softmax.form !== 'exact') lowering.context.warn(warnings.softmaxKept(node, lowering.softmax.form));
  return codes(lowering.b.emit(softmaxCodes, {
    x, fine: lowering.words(`${name}.fine`, chosen.fine), coarse: chosen.coarse && lowering.words(`${name}.coarse`, chosen.coarse),
  }, { ...chosen.attrs, to: outputDType(node.output.type) }, { replaces: node.output, type: node.output.type }));
};

/**
 * Attention with the division deferred to one reciprocal a row. q, k and v have zero point 0. Weights of another form than `exact` are powers
 * of two (numerics/power-weights.ts); only their table differs.
 */
export const attention = (node: NodeOf<typeof float.attention>, lowering: Lowering): Codes => {
  const [q, k, v] = [lowering.codes(node.inputs.q), lowering.codes(node.inputs.k), lowering.codes(node.inputs.v)];
  const { form, bits } = lowering.softmax;
  const chosen = chooseAttention({
    scaleQ: scaleOf(quantOf(q)), scaleK: scaleOf(quantOf(k)), scaleV: scaleOf(quantOf(v)), logitScale: node.attrs.scale,
    depth: channelsOf(q) / node.attrs.heads, keys: staticShape(k.type.shape)[1],
    magnitudeQ: magnitudeOf(q), magnitudeK: magnitudeOf(k), magnitudeV: magnitudeOf(v), powers: form === 'exact' ? null : { form, bits }, ...outputOf(node),
  }) ?? outOfRange(node);
  if (form !== 'exact') {
    const distinct = new Set(chosen.exp).size;
    lowering.context.note({ site: node.output.name, text: `weights are ${form} codes of ${bits} bits, products with values are shifts`, figures: { values: distinct } });
  }
  return codes(lowering.b.emit(attentionInt, {
    q, k, v, mask: node.inputs.mask && lowering.codes(node.inputs.mask), exp: lowering.exponentials(chosen.exp),
  }, { heads: node.attrs.heads, ...chosen.attrs, to: outputDType(node.output.type) }, { replaces: node.output, type: node.output.type }));
};

export const layerNorm = (node: NodeOf<typeof float.layerNorm>, lowering: Lowering): Codes => {
  const x = lowering.codes(node.inputs.x);
  const channels = channelsOf(x);
  const reals = (value: Value | null, fallback: number): ArrayLike<number> =>
    (constantOf(value)?.data as Float32Array | undefined) ?? new Float64Array(channels).fill(fallback);
  const chosen = chooseLayerNorm({
    gamma: reals(node.inputs.scale, 1), beta: reals(node.inputs.bias, 0), epsilon: node.attrs.epsilon, scaleIn: scaleOf(quantOf(x)),
    channels, spanIn: quantOf(x).high - quantOf(x).low, ...outputOf(node),
  }) ?? outOfRange(node);
  const name = node.output.name;
  return codes(lowering.b.emit(layerNormInt, {
    x, mul: lowering.words(`${name}.mul`, chosen.mul), add: lowering.longs(`${name}.add`, chosen.add),
  }, { ...chosen.attrs, to: outputDType(node.output.type) }, { replaces: node.output, type: node.output.type }));
};

const codes = (value: Value): Codes => ({ kind: 'codes', value });

const outputOf = (node: { readonly output: Value }): OutputCodes => {
  const quant = node.output.type.quant as UniformQuant;
  return { scaleOut: scaleOf(quant), zeroOut: zeroOf(quant), low: quant.low, high: quant.high };
};

const magnitudeOf = (value: Value): number => Math.max(quantOf(value).high, -quantOf(value).low);

const outOfRange = (node: Pick<Node, 'site' | 'output'>): never => {
  throw new CompileError(errors.cannotRescale(placeOf(node.site) ?? node.output.name), 'model');
};

