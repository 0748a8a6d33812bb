/** Stored integers that stand for real numbers: weights that a file keeps quantized become real constants. */
import { isKnown } from '../known.ts';
import type { Handler, Handlers } from '../node.ts';

/** (code - zero)·scale, one scale for all, for each index of an axis, or for each block along it. */
const dequantize: Handler = (n) => {
  n.ignore('output_dtype', 'saturate');
  const x = n.term(0);
  if (!isKnown(x)) return n.refuse('it stands between computed values; give the model before it was quantized');
  const codes = n.numbers(0);
  const scale = n.constant(1);
  const zeros = n.has(2) ? n.numbers(2) : [];
  const rank = x.shape.length;
  const single = scale.data.length === 1;
  const axis = single ? 0 : n.axis(n.int('axis', 1), rank);
  const block = n.int('block_size', 0);
  const size = rank === 0 ? 1 : x.shape[axis];
  const inner = x.shape.slice(axis + 1).reduce((product, dim) => product * dim, 1);
  const outer = codes.length / (size * inner);
  const rows = block === 0 ? size : Math.ceil(size / block);
  const expected = single ? 1 : block === 0 ? size : outer * rows * inner;
  if (scale.data.length !== expected || (zeros.length > 0 && zeros.length !== expected)) n.fail(`${scale.data.length} scales and ${zeros.length} zero points for [${x.shape.join(', ')}]`);
  const at = (i: number): number => {
    if (single) return 0;
    const along = Math.floor(i / inner) % size;
    return block === 0 ? along : (Math.floor(i / (inner * size)) * rows + Math.floor(along / block)) * inner + (i % inner);
  };
  n.ignore('axis', 'block_size');
  return n.realConstant(x.shape, codes.map((code, i) => (code - (zeros[at(i)] ?? 0)) * Number(scale.data[at(i)])), 'dequantized');
};

const quantize: Handler = (n) => n.refuse('it rounds computed values; give the model before it was quantized');

export const quantizers: Handlers = { DequantizeLinear: dequantize, QuantizeLinear: quantize };
