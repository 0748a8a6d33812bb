/**
 * Sums of products of columns, Σ_k y[k, i]·x[k, n], in WebAssembly SIMD, in float32 or float64. Each sum runs in the order of k, so the
 * bits do not depend on how tiles are cut. Rows lie in memory as they are added: a tile reads neighbouring columns of a row and moves on by
 * whole rows.
 */
import { SLACK_BYTES } from './f32-kernels.ts';
import { growTo, onOwnMemory } from './own-memory.ts';
import { functionOf, Module, type Local, type Memory, type PlainOp } from '../wasm/index.ts';
import { advance, copyLocal, whilePositive } from './wasm-loops.ts';

/** Columns of y of one tile, and vectors of columns of x. */
const [TALL, VECTORS] = [4, 2];
/** Rows that a tile takes at once: their pieces stay in the nearest cache while all tiles pass. */
const ROWS = 128;

/** What the sums are taken in. */
interface Precision {
  readonly bytes: 4 | 8;
  /** columns of x of one tile */
  readonly wide: number;
  readonly splat: 'v128.load32_splat' | 'v128.load64_splat';
  readonly mul: PlainOp;
  readonly add: PlainOp;
}
const precisions = {
  single: { bytes: 4, wide: 4 * VECTORS, splat: 'v128.load32_splat', mul: 'f32x4.mul', add: 'f32x4.add' },
  double: { bytes: 8, wide: 2 * VECTORS, splat: 'v128.load64_splat', mul: 'f64x2.mul', add: 'f64x2.add' },
} as const satisfies Readonly<Record<string, Precision>>;

type Multiply = (y: number, yStride: number, tile: number, x: number, xStride: number, out: number, outStride: number, left: number, right: number, rows: number, lower: number) => void;
type Accumulate = (sums: number, products: number, stride: number, left: number, right: number) => void;
let shared: { readonly memory: Memory; readonly single: Multiply; readonly double: Multiply; readonly accumulate: Accumulate } | null = null;

/** Adds Σ_k y[k, i]·x[k, n] of `count` rows to matrix [left, right]; where y is x, what is added beyond the diagonal is undefined. */
type AddProducts = (matrix: Float64Array, y: Float32Array, x: Float32Array, left: number, right: number, count: number) => void;

/** Sums in float32. */
export const addProducts: AddProducts = (matrix, y, x, left, right, count) => {
  const { memory, products, stride, end, accumulate } = multiplied('single', y, x, left, right, count, matrix.byteLength);
  const sums = new Float64Array(memory.buffer, end, matrix.length);
  sums.set(matrix);
  accumulate(end, products, stride * Float32Array.BYTES_PER_ELEMENT, left, right);
  matrix.set(sums);
};

/** Sums in float64. */
export const addExactProducts: AddProducts = (matrix, y, x, left, right, count) => {
  const { memory, products, stride } = multiplied('double', y, x, left, right, count, 0);
  const sums = new Float64Array(memory.buffer, products, left * stride);
  for (let i = 0, at = 0; i < left; i++) for (let n = 0, from = i * stride; n < right; n++, at++, from++) matrix[at] += sums[from];
};

/** The products of some rows at `products`, `stride` numbers a row; from `end` on there are `more` bytes. */
const multiplied = (precision: keyof typeof precisions, y: Float32Array, x: Float32Array, left: number, right: number, count: number, more: number) => {
  const { bytes, wide } = precisions[precision];
  const lower = y === x;
  const stride = Math.ceil(right / wide) * wide;
  const room = (length: number): number => Math.ceil((length * bytes + SLACK_BYTES) / 64) * 64;
  const xAt = lower ? 0 : room(y.length);
  const tile = xAt + room(x.length);
  const products = tile + room(ROWS * TALL);
  const length = Math.ceil(left / TALL) * TALL * stride;
  const end = products + room(length);
  const kernels = kernelsOn(end + more);
  const { buffer } = kernels.memory;
  const numbers = bytes === 4 ? new Float32Array(buffer) : new Float64Array(buffer, 0, end / bytes);
  numbers.set(x, xAt / bytes);
  if (!lower) numbers.set(y, 0);
  numbers.fill(0, products / bytes, products / bytes + length);
  for (let first = 0; first < count; first += ROWS) {
    const rows = Math.min(ROWS, count - first);
    kernels[precision](first * left * bytes, left * bytes, tile, xAt + first * right * bytes, right * bytes, products, stride * bytes, left, right, rows, Number(lower));
  }
  return { ...kernels, products, stride, end };
};

const kernelsOn = (bytes: number): NonNullable<typeof shared> => {
  if (shared === null) {
    const { memory, instance } = onOwnMemory(code());
    shared = { memory, single: functionOf(instance, 'single') as Multiply, double: functionOf(instance, 'double') as Multiply, accumulate: functionOf(instance, 'accumulate') as Accumulate };
  }
  growTo(shared.memory, bytes);
  return shared;
};

const code = (): Uint8Array => {
  const module = new Module();
  module.importMemory('env', 'memory', { initial: 1 });
  const i32 = 'i32' as const;
  for (const [name, { bytes, wide, splat, mul, add }] of Object.entries(precisions)) module.func(name, [i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32], [], (body, y, yStride, tile, x, xStride, out, outStride, left, right, rows, lower) => {
    const [columns, reach, yAt, xAt, outAt, at, k] = Array.from({ length: 7 }, () => body.local(i32));
    const vectors = (count: number): readonly Local[] => Array.from({ length: count }, () => body.local('v128'));
    const [sums, parts, [factor]] = [Array.from({ length: TALL }, () => vectors(VECTORS)), vectors(VECTORS), vectors(1)];
    const eachSum = (visit: (sum: Local, offset: number) => void): void => {
      copyLocal(body, at, outAt);
      sums.forEach((row, r) => {
        row.forEach((sum, v) => visit(sum, 16 * v));
        if (r + 1 < TALL) body.get(at).get(outStride).op('i32.add').set(at);
      });
    };
    // columns of x that the sums up to the diagonal reach
    body.i32(TALL).set(reach);
    whilePositive(body, left, () => {
      copyLocal(body, columns, right);
      body.get(lower).if(() => copyLocal(body, columns, reach));
      copyLocal(body, xAt, x);
      copyLocal(body, outAt, out);
      // columns of y side by side, as rows that are a power of two apart would push each other out of the cache
      copyLocal(body, yAt, y);
      copyLocal(body, at, tile);
      copyLocal(body, k, rows);
      whilePositive(body, k, () => {
        for (let offset = 0; offset < TALL * bytes; offset += 16) body.get(at).get(yAt).memory('v128.load', offset, 4).memory('v128.store', offset, 16);
        body.get(yAt).get(yStride).op('i32.add').set(yAt);
        advance(body, at, TALL * bytes);
        advance(body, k, -1);
      });
      whilePositive(body, columns, () => {
        eachSum((sum, offset) => body.get(at).memory('v128.load', offset, 4).set(sum));
        copyLocal(body, yAt, tile);
        copyLocal(body, at, xAt);
        copyLocal(body, k, rows);
        whilePositive(body, k, () => {
          parts.forEach((part, v) => body.get(at).memory('v128.load', 16 * v, 4).set(part));
          sums.forEach((row, r) => {
            body.get(yAt).memory(splat, bytes * r, 4).set(factor);
            row.forEach((sum, v) => body.get(sum).get(factor).get(parts[v]).op(mul).op(add).set(sum));
          });
          advance(body, yAt, TALL * bytes);
          body.get(at).get(xStride).op('i32.add').set(at);
          advance(body, k, -1);
        });
        eachSum((sum, offset) => body.get(at).get(sum).memory('v128.store', offset, 4));
        advance(body, xAt, wide * bytes);
        advance(body, outAt, wide * bytes);
        advance(body, columns, -wide);
      });
      advance(body, y, TALL * bytes);
      body.get(out).get(outStride).i32(TALL).op('i32.mul').op('i32.add').set(out);
      advance(body, reach, TALL);
      advance(body, left, -TALL);
    });
  }, { export: true });
  module.func('accumulate', [i32, i32, i32, i32, i32], [], (body, sums, products, stride, left, right) => {
    const [at, pairs] = [body.local(i32), body.local(i32)];
    whilePositive(body, left, () => {
      copyLocal(body, at, products);
      body.get(right).i32(1).op('i32.shr_u').set(pairs);
      whilePositive(body, pairs, () => {
        body.get(sums).get(sums).memory('v128.load', 0, 8).get(at).memory('v128.load64_zero', 0, 4).op('f64x2.promote_low_f32x4').op('f64x2.add').memory('v128.store', 0, 8);
        advance(body, sums, 16);
        advance(body, at, 8);
        advance(body, pairs, -1);
      });
      body.get(right).i32(1).op('i32.and').if(() => {
        body.get(sums).get(sums).memory('f64.load').get(at).memory('f32.load').op('f64.promote_f32').op('f64.add').memory('f64.store');
        advance(body, sums, 8);
      });
      body.get(products).get(stride).op('i32.add').set(products);
      advance(body, left, -1);
    });
  }, { export: true });
  return module.encode();
};
