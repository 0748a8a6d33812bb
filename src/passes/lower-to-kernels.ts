/**
 * quant graph → kernel graph: every real op on quantised types becomes integer kernels, every scale an integer multiplier and a shift.
 *
 *     %y = conv(%x, %w, %b) : i8<…>[…]  →  %a = conv_acc(%x, %w) : i32[…]   %y = requantize(%a, %mul, %add) : i8<…>[…]
 *
 * A sum of products is carried as an accumulator together with what one unit of it is worth and its real offset (bias, zero points);
 * the node that rounds it folds all of that into its multiplier and its 64-bit constant, so each value is rounded exactly once.
 * Functions of a byte become 256-entry tables. Kernels and their meaning: docs/kernels.md.
 */
import { Builder } from '../ir/build.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import type { Node } from '../ir/graph.ts';
import { unaryOps, type FloatNode } from '../ir/ops/index.ts';
import { int, oneOf, type Arms } from '../ir/op.ts';
import { tensorType } from '../ir/type.ts';
import { weightForms, type WeightForm } from '../numerics/power-weights.ts';
import { addition, difference, perChannelMap, product } from './lowering/elementwise.ts';
import { Lowering, type Lowered } from './lowering/lowering.ts';
import { attention, layerNorm, softmax } from './lowering/rows.ts';
import { averagePool, conv, linear, matmul, reduceMean, reduceSum } from './lowering/sums.ts';
import { clampCodes, copy, embedding, paddedCopy, unaryTable } from './lowering/moves.ts';
import { definePass } from './pass.ts';

export interface LowerToKernelsOptions {
  readonly softmax: WeightForm;
  readonly softmaxBits: number;
}

export const lowerToKernels = definePass<'quant', 'kernel', LowerToKernelsOptions>({
  name: 'lower-to-kernels',
  from: 'quant',
  to: 'kernel',
  summary: 'turn real ops on quantised types into integer kernels',
  changes: 'each rescale by its proven error bound, far below half a step',
  options: {
    softmax: oneOf('weights of attention: exact exponentials, or powers of two for targets that shift instead of multiplying', weightForms, 'exact'),
    softmaxBits: int('bits of the codes of weights that are powers of two, 2 to 8', 4),
  },
  run: (graph, { softmax: form, softmaxBits }, context) => {
    if (softmaxBits < 2 || softmaxBits > 8) throw new CompileError(errors.badOption('softmaxBits', String(softmaxBits), '2 to 8'), 'usage');
    const b = new Builder();
    const lowering = new Lowering(b, context, { form, bits: softmaxBits });
    for (const input of graph.inputs) {
      const type = input.type.dtype === 'i64' ? tensorType('i32', input.type.shape) : input.type;
      if (type.dtype === 'f32') throw new CompileError(errors.internal(`input ${input.name} has no integer type`), 'internal');
      lowering.define(input, { kind: 'codes', value: b.input(input.name, type) });
    }
    for (const node of graph.nodes) {
      b.site = node.site;
      lowering.finish(node, armOf(node)(node as never, lowering));
    }
    return b.finish('kernel', graph.name, graph.outputs.map(({ name, value }) => ({ name, value: lowering.codes(value) })));
  },
});

type Arm = (node: never, lowering: Lowering) => Lowered;
const refuse = (node: Node): Lowered => { throw new CompileError(errors.noIntegerForm(node), 'unsupported'); };

type UnaryName = (typeof unaryOps)[number]['name'];
const unaryArms = Object.fromEntries(unaryOps.map((op) => [op.name, unaryTable as Arm])) as Record<UnaryName, Arm>;

const arms: { readonly [K in keyof Arms<FloatNode, Lowered>]: Arm } = {
  ...unaryArms, relu: clampCodes, clip: clampCodes,
  conv, linear, matmul, reduce_mean: reduceMean, reduce_sum: reduceSum, average_pool: averagePool,
  add: addition, sub: difference, mul: product, batch_norm: perChannelMap, quantize: perChannelMap,
  softmax, attention, layer_norm: layerNorm,
  reshape: copy, transpose: copy, concat: copy, slice: copy, max_pool: copy, reduce_max: copy, pad: paddedCopy, gather: embedding,
  div: refuse, min: refuse, max: refuse, rms_norm: refuse, expand: refuse, where: refuse, dequantize: refuse,
};

const armOf = (node: Node): Arm => (arms as Readonly<Record<string, Arm>>)[node.op] ?? refuse;

