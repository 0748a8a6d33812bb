/**
 * Sums of products of columns, Σ_k y[k, i]·x[k, n], in WebAssembly SIMD: float32, each sum in the order of k, so the bits do not depend on
 * how tiles are cut. Rows lie in memory as they are added: a tile reads neighbouring columns of a row and moves on by whole rows.
 */
import { PAGE_BYTES, SLACK_BYTES } from './f32-kernels.ts';
import { engine, functionOf, Module, type Memory } from '../wasm/index.ts';
import { advance, copyLocal, whilePositive } from './wasm-loops.ts';

/** Sums of one tile: columns of y by columns of x. */
const [TALL, WIDE] = [4, 8];
/** Rows that a tile takes at once: their pieces stay in the nearest cache while all tiles pass. */
const ROWS = 128;
const BYTES = Float32Array.BYTES_PER_ELEMENT;

type Multiply = (y: number, yStride: number, tile: number, x: number, xStride: number, out: number, outStride: number, left: number, right: number, rows: number, lower: number) => void;
type Accumulate = (sums: number, products: number, stride: number, left: number, right: number) => void;
let shared: { readonly memory: Memory; readonly multiply: Multiply; readonly accumulate: Accumulate } | null = null;

/** Adds Σ_k y[k, i]·x[k, n] of `count` rows to matrix [left, right]; where y is x, what is added beyond the diagonal is undefined. */
export const addProducts = (matrix: Float64Array, y: Float32Array, x: Float32Array, left: number, right: number, count: number): void => {
  const lower = y === x;
  const stride = Math.ceil(right / WIDE) * WIDE;
  const room = (length: number): number => Math.ceil((length * BYTES + SLACK_BYTES) / 64) * 64;
  const xAt = lower ? 0 : room(y.length);
  const tileAt = xAt + room(x.length);
  const outAt = tileAt + room(ROWS * TALL);
  const length = Math.ceil(left / TALL) * TALL * stride;
  const sumsAt = outAt + room(length);
  const { memory, multiply, accumulate } = kernelWith(sumsAt + matrix.byteLength);
  const f32 = new Float32Array(memory.buffer);
  f32.set(x, xAt / BYTES);
  if (!lower) f32.set(y, 0);
  f32.fill(0, outAt / BYTES, outAt / BYTES + length);
  for (let first = 0; first < count; first += ROWS) {
    multiply(first * left * BYTES, left * BYTES, tileAt, xAt + first * right * BYTES, right * BYTES, outAt, stride * BYTES, left, right, Math.min(ROWS, count - first), Number(lower));
  }
  const sums = new Float64Array(memory.buffer, sumsAt, matrix.length);
  sums.set(matrix);
  accumulate(sumsAt, outAt, stride * BYTES, left, right);
  matrix.set(sums);
};

const kernelWith = (bytes: number): NonNullable<typeof shared> => {
  if (shared === null) {
    const memory = new engine.Memory({ initial: 1 });
    const instance = new engine.Instance(new engine.Module(code()), { env: { memory } });
    shared = { memory, multiply: functionOf(instance, 'multiply') as Multiply, accumulate: functionOf(instance, 'accumulate') as Accumulate };
  }
  const missing = Math.ceil(bytes / PAGE_BYTES) - shared.memory.buffer.byteLength / PAGE_BYTES;
  if (missing > 0) shared.memory.grow(missing);
  return shared;
};

const code = (): Uint8Array => {
  const module = new Module();
  module.importMemory('env', 'memory', { initial: 1 });
  const i32 = 'i32' as const;
  module.func('multiply', [i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32], [], (body, y, yStride, tile, x, xStride, out, outStride, left, right, rows, lower) => {
    const [columns, reach, yAt, xAt, outAt, at, k] = Array.from({ length: 7 }, () => body.local(i32));
    const sums = Array.from({ length: TALL }, () => [body.local('v128'), body.local('v128')] as const);
    const [first, second, factor] = [body.local('v128'), body.local('v128'), body.local('v128')];
    const eachSum = (visit: (sum: (typeof sums)[number][number], offset: number) => void): void => {
      copyLocal(body, at, outAt);
      sums.forEach((pair, r) => {
        pair.forEach((sum, half) => visit(sum, 16 * half));
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
        body.get(at).get(yAt).memory('v128.load', 0, 4).memory('v128.store', 0, 16);
        body.get(yAt).get(yStride).op('i32.add').set(yAt);
        advance(body, at, TALL * BYTES);
        advance(body, k, -1);
      });
      whilePositive(body, columns, () => {
        eachSum((sum, offset) => body.get(at).memory('v128.load', offset, 4).set(sum));
        copyLocal(body, yAt, tile);
        copyLocal(body, at, xAt);
        copyLocal(body, k, rows);
        whilePositive(body, k, () => {
          body.get(at).memory('v128.load', 0, 4).set(first).get(at).memory('v128.load', 16, 4).set(second);
          sums.forEach((pair, r) => {
            body.get(yAt).memory('v128.load32_splat', 4 * r, 4).set(factor);
            pair.forEach((sum, half) => body.get(sum).get(factor).get(half === 0 ? first : second).op('f32x4.mul').op('f32x4.add').set(sum));
          });
          advance(body, yAt, TALL * BYTES);
          body.get(at).get(xStride).op('i32.add').set(at);
          advance(body, k, -1);
        });
        eachSum((sum, offset) => body.get(at).get(sum).memory('v128.store', offset, 4));
        advance(body, xAt, WIDE * BYTES);
        advance(body, outAt, WIDE * BYTES);
        advance(body, columns, -WIDE);
      });
      advance(body, y, TALL * BYTES);
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
