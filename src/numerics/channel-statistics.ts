/**
 * Extremes and moments of each channel of a float32 array, and counts of histogram bins, in WebAssembly SIMD. Sums are in float64 in
 * the order of the rows, so the bits are those of the plain loops.
 */
import { engine, functionOf, Module, type Code, type Memory } from '../wasm/index.ts';
import { PAGE_BYTES, SLACK_BYTES } from './f32-kernels.ts';
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
  const at = (c: number, offset: number, size: number): number =>
    (dataBytes + Math.floor(c / GROUP) * RESULT_BYTES + offset) / size + (c % GROUP);
  const take = (from: Float32Array | Float64Array, offset: number): Float64Array =>
    Float64Array.from({ length: channels }, (_, c) => from[at(c, offset, from.BYTES_PER_ELEMENT)]);
  return { low: take(reals, 0), high: take(reals, GROUP * 4), sum: take(doubles, GROUP * 8), squares: take(doubles, GROUP * 16) };
};

/** counts[floor(x·scale) − first] += 1 for each x; every index must lie inside. */
export const countBins = (data: Float32Array, scale: number, first: number, counts: Float64Array): void => {
  // copying the counts in and out costs more than counting few numbers here
  if (data.length < counts.length) {
    for (let i = 0; i < data.length; i++) counts[Math.floor(data[i] * scale) - first]++;
    return;
  }
  const dataBytes = align(data.byteLength);
  const { memory, countKernel } = kernels(dataBytes + counts.byteLength);
  new Float32Array(memory.buffer, 0, data.length).set(data);
  const held = new Float64Array(memory.buffer, dataBytes, counts.length);
  held.set(counts);
  countKernel(0, data.length, scale, dataBytes - first * 8);
  counts.set(held);
};

const align = (bytes: number): number => Math.ceil(bytes / 64) * 64;

interface Kernels {
  readonly memory: Memory;
  readonly channelKernel: (data: number, rows: number, channels: number, results: number) => void;
  readonly countKernel: (data: number, length: number, scale: number, counts: number) => void;
}
let made: Kernels | null = null;

/** The kernels on a memory of at least `bytes`. */
const kernels = (bytes: number): Kernels => {
  if (made === null) {
    const memory = new engine.Memory({ initial: 1 });
    const instance = new engine.Instance(new engine.Module(code()), { env: { memory } });
    made = { memory, channelKernel: functionOf(instance, 'channels') as Kernels['channelKernel'], countKernel: functionOf(instance, 'count') as Kernels['countKernel'] };
  }
  const missing = Math.ceil(bytes / PAGE_BYTES) - made.memory.buffer.byteLength / PAGE_BYTES;
  if (missing > 0) made.memory.grow(missing);
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
            body.get(x);
            if (half === 1) upperHalf(body, x);
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
  module.func('count', ['i32', 'i32', 'f64', 'i32'], [], (body, data, length, scale, counts) => {
    const bin = body.local('i32');
    whilePositive(body, length, () => {
      body.get(data).memory('f32.load', 0, 4).op('f64.promote_f32').get(scale).op('f64.mul').op('f64.floor').op('i32.trunc_sat_f64_s');
      body.i32(3).op('i32.shl').get(counts).op('i32.add').tee(bin).get(bin).memory('f64.load', 0, 8).f64(1).op('f64.add').memory('f64.store', 0, 8);
      advance(body, data, 4);
      advance(body, length, -1);
    });
  }, { export: true });
  return module.encode();
};

/** The two upper numbers of the vector on the stack, moved down. */
const upperHalf = (body: Code, x: ReturnType<Code['local']>): Code =>
  body.get(x).shuffle([8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15]);
