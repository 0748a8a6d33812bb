/**
 * Codes of real numbers, min(max(floor(x/scale + 1/2) + zero, low), high) in float64, in WebAssembly SIMD: two lanes do what the plain
 * loop does to one number, so the codes are the same. NaN gives 0, as storing it in an array of integers does.
 */
import { functionOf, Module, type Code, type Local } from '../wasm/index.ts';
import { onOwnMemory } from './own-memory.ts';
import { advance, whilePositive } from './wasm-loops.ts';

/** Numbers taken at a time: they and their codes stay near the core. */
const CHUNK = 8192;
const GROUP = 8;
const CODES_AT = CHUNK * Float32Array.BYTES_PER_ELEMENT;

export type KernelCodes = Int8Array | Uint8Array | Int16Array;
const endings = { Int8Array: 'i8x16.narrow_i16x8_s', Uint8Array: 'i8x16.narrow_i16x8_u', Int16Array: null } as const;
type Ending = keyof typeof endings;
type Rounding = (groups: number, scale: number, zero: number, low: number, high: number) => void;

let shared: { readonly reals: Float32Array; readonly buffer: ArrayBuffer; readonly kernels: Readonly<Record<Ending, Rounding>> } | null = null;

/** Whether codes of this array come from the kernel. */
export const hasKernel = (codes: object): codes is KernelCodes => codes.constructor.name in endings;

/** codes[i] for i in [from, to), as far as whole groups go; where it stopped. low and high fit the elements. */
export const roundGroups = (data: Float32Array, codes: KernelCodes, from: number, to: number, scale: number, zero: number, low: number, high: number): number => {
  shared ??= made();
  const { reals, buffer, kernels } = shared;
  const name = codes.constructor.name as Ending;
  const found = new (codes.constructor as new (buffer: ArrayBuffer, offset: number, length: number) => KernelCodes)(buffer, CODES_AT, CHUNK);
  const end = to - ((to - from) % GROUP);
  for (let at = from; at < end; at += CHUNK) {
    const count = Math.min(CHUNK, end - at);
    reals.set(data.subarray(at, at + count));
    kernels[name](count / GROUP, scale, zero, low, high);
    codes.set(found.subarray(0, count), at);
  }
  return end;
};

const made = (): NonNullable<typeof shared> => {
  const module = new Module();
  module.importMemory('env', 'memory', { initial: 1 });
  for (const [name, narrow] of Object.entries(endings)) {
    module.func(name, ['i32', 'f64', 'f64', 'f64', 'f64'], [], (code: Code, groups: Local, scale: Local, zero: Local, low: Local, high: Local) => {
      const [from, to] = [code.local('i32'), code.local('i32')];
      const pair = (offset: number): void => {
        code.get(from).memory('v128.load64_zero', offset, 4).op('f64x2.promote_low_f32x4').get(scale).op('f64x2.splat').op('f64x2.div');
        code.f64(0.5).op('f64x2.splat').op('f64x2.add').op('f64x2.floor').get(zero).op('f64x2.splat').op('f64x2.add');
        code.get(low).op('f64x2.splat').op('f64x2.max').get(high).op('f64x2.splat').op('f64x2.min').op('i32x4.trunc_sat_f64x2_s_zero');
      };
      const four = (offset: number): void => {
        pair(offset);
        pair(offset + 8);
        code.shuffle([0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]);
      };
      const words = code.local('v128');
      code.i32(CODES_AT).set(to);
      whilePositive(code, groups, () => {
        four(0);
        four(16);
        code.op('i16x8.narrow_i32x4_s').set(words);
        if (narrow === null) code.get(to).get(words).memory('v128.store', 0, 2);
        else code.get(to).get(words).get(words).op(narrow).memoryLane('v128.store64_lane', 0, 0, 1);
        advance(code, from, 4 * GROUP);
        advance(code, to, narrow === null ? 2 * GROUP : GROUP);
        advance(code, groups, -1);
      });
    }, { export: true });
  }
  const { memory, instance } = onOwnMemory(module.encode());
  const kernels = Object.fromEntries(Object.keys(endings).map((name) => [name, functionOf(instance, name) as Rounding])) as Record<Ending, Rounding>;
  return { reals: new Float32Array(memory.buffer, 0, CHUNK), buffer: memory.buffer as ArrayBuffer, kernels };
};
