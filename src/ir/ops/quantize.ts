/**
 * Borders between number formats at the quant stage. Both are the identity on real numbers; what they change is the output type,
 * which is given when they are emitted: `quantize` rounds to the codes of its type, `dequantize` leaves the codes for real numbers.
 */
import { defineOp } from '../op.ts';
import { tensorType } from '../type.ts';
import { realShape } from './elements.ts';

export const quantize = defineOp({
  name: 'quantize',
  summary: 'the nearest code of the output type: floor(x/scale + 1/2) + zero, saturated to [low, high]',
  operands: { x: 'one' },
  attrs: {},
  infer: ({ x }) => tensorType('f32', realShape(x, 'x')),
  evaluate: ({ x }) => x,
});
export const dequantize = defineOp({
  name: 'dequantize',
  summary: 'the real numbers (code - zero)·scale that the codes of x stand for',
  operands: { x: 'one' },
  attrs: {},
  infer: ({ x }) => tensorType('f32', realShape(x, 'x')),
  evaluate: ({ x }) => x,
});
