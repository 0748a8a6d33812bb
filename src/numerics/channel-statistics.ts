/**
 * Extremes and moments of each channel of a float32 array, and counts of histogram bins, in WebAssembly SIMD. Sums are in float64 in
 * the order of the rows, so the bits are those of the plain loops.
 */
import { functionOf, Module, type Code, type Memory } from '../wasm/index.ts';
import { SLACK_BYTES } from './f32-kernels.ts';
import { growTo, onOwnMemory } from './own-memory.ts';
import { advance, copyLocal, whilePositive } from './wasm-loops.ts';

export interface ChannelSums {
  readonly low: Float64Array;
  readonly high: Float64Array;
  readonly sum: Float64Array;
  readonly squares: Float64Array;
}

/** Channels that one turn of the kernel takes: two vectors. */
const GROUP = 8;
/** Bytes of results for a group: least and greatest as float32, sums and squares as float64. */
const RESULT_BYTES = GROUP * (4 + 4 + 8 + 8);

/** Of rows of `channels` numbers: the least and greatest of each channel, Σx and Σx². */
export const channelStatistics = (data: Float32Array, channels: number): ChannelSums => {
  const groups = Math.ceil(channels / GROUP);
  const dataBytes = align(data.byteLength + SLACK_BYTES);
  const { memory, channelKernel } = kernels(dataBytes + groups * RESULT_BYTES);
  new Float32Array(memory.buffer, 0, data.length).set(data);
  channelKernel(0, data.length / channels, channels, dataBytes);
  const reals = new Float32Array(memory.buffer);
  const doubles = new Float64Array(memory.buffer);
  const take = (from: Float32Array | Float64Array, offset: number): Float64Array => {
    const taken = new Float64Array(channels);
    for (let first = 0, at = dataBytes + offset; first < channels; first += GROUP, at += RESULT_BYTES) {
      const count = Math.min(GROUP, channels - first);
      for (let c = 0; c < count; c++) taken[first + c] = from[at / from.BYTES_PER_ELEMENT + c];
    }
    return taken;
  };
  return { low: take(reals, 0), high: take(reals, GROUP * 4), sum: take(doubles, GROUP * 8), squares: take(doubles, GROUP * 16) };
};

/** counts[floor(x·scale) − first] += 1 for each x; every index must lie inside, and |x·scale| below 2^31. */
export const countBins = (data: Float32Array, scale: number, first: number, counts: Float64Array): void => {
  // few numbers are sooner counted one by one than copied
  const vectors = data.length < counts.length ? 0 : Math.floor(data.length / 4);
  for (let i = vectors * 4; i < data.length; i++) counts[Math.floor(data[i] * scale) - first]++;
  if (vectors === 0) return;
  const dataBytes = align(data.byteLength);
  const { memory, countKernel } = kernels(dataBytes + 2 * counts.length * 4);
  new Float32Array(memory.buffer, 0, data.length).set(data);
  const counted = new Uint32Array(memory.buffer, dataBytes, 2 * counts.length).fill(0);
  countKernel(0, vectors, scale, dataBytes - first * 4, dataBytes + (counts.length - first) * 4);
  for (let i = 0; i < counts.length; i++) counts[i] += counted[i] + counted[counts.length + i];
};

const align = (bytes: number): number => Math.ceil(bytes / 64) * 64;

interface Kernels {
  readonly memory: Memory;
  readonly channelKernel: (data: number, rows: number, channels: number, results: number) => void;
  readonly countKernel: (data: number, vectors: number, scale: number, even: number, odd: number) => void;
}
let made: Kernels | null = null;

/** The kernels on a memory of at least `bytes`. */
const kernels = (bytes: number): Kernels => {
  if (made === null) {
    const { memory, instance } = onOwnMemory(code());
    made = { memory, channelKernel: functionOf(instance, 'channels') as Kernels['channelKernel'], countKernel: functionOf(instance, 'count') as Kernels['countKernel'] };
  }
  growTo(made.memory, bytes);
  return made;
};

const code = (): Uint8Array => {
  const module = new Module();
  module.importMemory('env', 'memory', { initial: 1 });
  module.func('channels', ['i32', 'i32', 'i32', 'i32'], [], (body, data, rows, channels, results) => {
    const [row, left, stride] = [body.local('i32'), body.local('i32'), body.local('i32')];
    const x = body.local('v128');
    const wide = body.local('v128');
    const vectors = (count: number) => Array.from({ length: count }, () => body.local('v128'));
    const [low, high, sum, squares] = [vectors(2), vectors(2), vectors(4), vectors(4)];
    body.get(channels).i32(4).op('i32.mul').set(stride);
    whilePositive(body, channels, () => {
      for (let v = 0; v < 2; v++) {
        body.f32(Infinity).op('f32x4.splat').set(low[v]);
        body.f32(-Infinity).op('f32x4.splat').set(high[v]);
      }
      for (const one of [...sum, ...squares]) body.f64(0).op('f64x2.splat').set(one);
      copyLocal(body, row, data);
      copyLocal(body, left, rows);
      whilePositive(body, left, () => {
        for (let v = 0; v < 2; v++) {
          body.get(row).memory('v128.load', 16 * v, 4).set(x);
          body.get(low[v]).get(x).op('f32x4.min').set(low[v]);
          body.get(high[v]).get(x).op('f32x4.max').set(high[v]);
          for (let half = 0; half < 2; half++) {
            if (half === 0) body.get(x); else upperHalf(body, x);
            body.op('f64x2.promote_low_f32x4').set(wide);
            body.get(sum[2 * v + half]).get(wide).op('f64x2.add').set(sum[2 * v + half]);
            body.get(squares[2 * v + half]).get(wide).get(wide).op('f64x2.mul').op('f64x2.add').set(squares[2 * v + half]);
          }
        }
        body.get(row).get(stride).op('i32.add').set(row);
        advance(body, left, -1);
      });
      const store = (list: typeof low, offset: number): void => list.forEach((vector, i) => body.get(results).get(vector).memory('v128.store', offset + 16 * i, 16));
      store(low, 0);
      store(high, GROUP * 4);
      store(sum, GROUP * 8);
      store(squares, GROUP * 16);
      advance(body, results, RESULT_BYTES);
      advance(body, data, GROUP * 4);
      advance(body, channels, -GROUP);
    });
  }, { export: true });
  // neighbours often fall into one bin: two tables keep one count from waiting for the other
  module.func('count', ['i32', 'i32', 'f64', 'i32', 'i32'], [], (body, data, vectors, scale, even, odd) => {
    const bin = body.local('i32');
    const [x, bins] = [body.local('v128'), body.local('v128')];
    whilePositive(body, vectors, () => {
      body.get(data).memory('v128.load', 0, 4).set(x);
      for (let half = 0; half < 2; half++) {
        if (half === 0) body.get(x); else upperHalf(body, x);
        body.op('f64x2.promote_low_f32x4').get(scale).op('f64x2.splat').op('f64x2.mul').op('f64x2.floor');
        // adding 3·2^51 leaves the whole number in the low bits
        body.f64(6755399441055744).op('f64x2.splat').op('f64x2.add').set(bins);
        [even, odd].forEach((table, lane) => {
          body.get(bins).lane('i32x4.extract_lane', 2 * lane).i32(2).op('i32.shl').get(table).op('i32.add').tee(bin);
          body.get(bin).memory('i32.load', 0, 4).i32(1).op('i32.add').memory('i32.store', 0, 4);
        });
      }
      advance(body, data, 16);
      advance(body, vectors, -1);
    });
  }, { export: true });
  return module.encode();
};

/** Pushes the two upper numbers of a vector, moved down. */
const upperHalf = (body: Code, x: ReturnType<Code['local']>): Code =>
  body.get(x).get(x).shuffle([8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15]);
