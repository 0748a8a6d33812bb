/**
 * Opcodes of WebAssembly 1.0 with sign extension, saturating conversion, bulk memory and fixed-width SIMD, the few atomics that a thread
 * pool needs, and relaxed SIMD's product of bytes. Names are those of the text format. Source: WebAssembly Core Specification 2.0, appendix
 * "Index of Instructions"; atomics: Threads proposal; the product of bytes: Core Specification 3.0.
 */

/**
 * What follows an opcode: nothing, a memory argument (alignment, offset), a lane, both, sixteen lanes, or one of the forms that have
 * their own method in the code builder.
 */
export type Immediate =
  | 'none' | 'memory' | 'lane' | 'memoryLane' | 'lanes16' | 'bytes16'
  | 'i32' | 'i64' | 'f32' | 'f64' | 'local' | 'global' | 'function' | 'label' | 'labels' | 'blockType' | 'indirect' | 'selectTypes'
  | 'zero' | 'zeroZero' | 'segmentZero' | 'segment';

export interface Opcode {
  /** 0 for a one-byte opcode, else the prefix byte 0xfc, 0xfd or 0xfe */
  readonly prefix: number;
  readonly code: number;
  readonly immediate: Immediate;
}

const compares = ['eq', 'ne', 'lt_s', 'lt_u', 'gt_s', 'gt_u', 'le_s', 'le_u', 'ge_s', 'ge_u'] as const;
const floatCompares = ['eq', 'ne', 'lt', 'gt', 'le', 'ge'] as const;
const integerOps = ['clz', 'ctz', 'popcnt', 'add', 'sub', 'mul', 'div_s', 'div_u', 'rem_s', 'rem_u', 'and', 'or', 'xor', 'shl', 'shr_s', 'shr_u', 'rotl', 'rotr'] as const;
const floatOps = ['abs', 'neg', 'ceil', 'floor', 'trunc', 'nearest', 'sqrt', 'add', 'sub', 'mul', 'div', 'min', 'max', 'copysign'] as const;
const on = <P extends string, N extends string>(prefix: P, names: readonly N[]) => names.map((name) => `${prefix}.${name}` as const);

/** 0x45 … 0xc4, in order. */
const numeric = [
  'i32.eqz', ...on('i32', compares), 'i64.eqz', ...on('i64', compares), ...on('f32', floatCompares), ...on('f64', floatCompares),
  ...on('i32', integerOps), ...on('i64', integerOps), ...on('f32', floatOps), ...on('f64', floatOps),
  'i32.wrap_i64', 'i32.trunc_f32_s', 'i32.trunc_f32_u', 'i32.trunc_f64_s', 'i32.trunc_f64_u', 'i64.extend_i32_s', 'i64.extend_i32_u',
  'i64.trunc_f32_s', 'i64.trunc_f32_u', 'i64.trunc_f64_s', 'i64.trunc_f64_u', 'f32.convert_i32_s', 'f32.convert_i32_u', 'f32.convert_i64_s',
  'f32.convert_i64_u', 'f32.demote_f64', 'f64.convert_i32_s', 'f64.convert_i32_u', 'f64.convert_i64_s', 'f64.convert_i64_u', 'f64.promote_f32',
  'i32.reinterpret_f32', 'i64.reinterpret_f64', 'f32.reinterpret_i32', 'f64.reinterpret_i64',
  'i32.extend8_s', 'i32.extend16_s', 'i64.extend8_s', 'i64.extend16_s', 'i64.extend32_s',
] as const;

/** 0x28 … 0x3e, in order. */
const scalarMemory = [
  'i32.load', 'i64.load', 'f32.load', 'f64.load', 'i32.load8_s', 'i32.load8_u', 'i32.load16_s', 'i32.load16_u', 'i64.load8_s', 'i64.load8_u',
  'i64.load16_s', 'i64.load16_u', 'i64.load32_s', 'i64.load32_u', 'i32.store', 'i64.store', 'f32.store', 'f64.store', 'i32.store8',
  'i32.store16', 'i64.store8', 'i64.store16', 'i64.store32',
] as const;

/** 0xfc 0 … 7 */
const saturating = [
  'i32.trunc_sat_f32_s', 'i32.trunc_sat_f32_u', 'i32.trunc_sat_f64_s', 'i32.trunc_sat_f64_u',
  'i64.trunc_sat_f32_s', 'i64.trunc_sat_f32_u', 'i64.trunc_sat_f64_s', 'i64.trunc_sat_f64_u',
] as const;

/** 0xfd 0 … 11 */
const vectorMemory = [
  'v128.load', 'v128.load8x8_s', 'v128.load8x8_u', 'v128.load16x4_s', 'v128.load16x4_u', 'v128.load32x2_s', 'v128.load32x2_u',
  'v128.load8_splat', 'v128.load16_splat', 'v128.load32_splat', 'v128.load64_splat', 'v128.store',
] as const;

/** 0xfd 21 … 34 */
const laneAccess = [
  'i8x16.extract_lane_s', 'i8x16.extract_lane_u', 'i8x16.replace_lane', 'i16x8.extract_lane_s', 'i16x8.extract_lane_u', 'i16x8.replace_lane',
  'i32x4.extract_lane', 'i32x4.replace_lane', 'i64x2.extract_lane', 'i64x2.replace_lane', 'f32x4.extract_lane', 'f32x4.replace_lane',
  'f64x2.extract_lane', 'f64x2.replace_lane',
] as const;

/** 0xfd 84 … 91 */
const laneMemory = [
  'v128.load8_lane', 'v128.load16_lane', 'v128.load32_lane', 'v128.load64_lane', 'v128.store8_lane', 'v128.store16_lane', 'v128.store32_lane', 'v128.store64_lane',
] as const;

/** Vector instructions without immediate by their first code; the codes of a run follow each other. */
const vectorRuns = [
  [14, ['i8x16.swizzle', 'i8x16.splat', 'i16x8.splat', 'i32x4.splat', 'i64x2.splat', 'f32x4.splat', 'f64x2.splat']],
  [35, [...on('i8x16', compares), ...on('i16x8', compares), ...on('i32x4', compares), ...on('f32x4', floatCompares), ...on('f64x2', floatCompares),
    'v128.not', 'v128.and', 'v128.andnot', 'v128.or', 'v128.xor', 'v128.bitselect', 'v128.any_true']],
  [94, ['f32x4.demote_f64x2_zero', 'f64x2.promote_low_f32x4',
    'i8x16.abs', 'i8x16.neg', 'i8x16.popcnt', 'i8x16.all_true', 'i8x16.bitmask', 'i8x16.narrow_i16x8_s', 'i8x16.narrow_i16x8_u',
    'f32x4.ceil', 'f32x4.floor', 'f32x4.trunc', 'f32x4.nearest', 'i8x16.shl', 'i8x16.shr_s', 'i8x16.shr_u', 'i8x16.add', 'i8x16.add_sat_s',
    'i8x16.add_sat_u', 'i8x16.sub', 'i8x16.sub_sat_s', 'i8x16.sub_sat_u', 'f64x2.ceil', 'f64x2.floor', 'i8x16.min_s', 'i8x16.min_u',
    'i8x16.max_s', 'i8x16.max_u', 'f64x2.trunc', 'i8x16.avgr_u', 'i16x8.extadd_pairwise_i8x16_s', 'i16x8.extadd_pairwise_i8x16_u',
    'i32x4.extadd_pairwise_i16x8_s', 'i32x4.extadd_pairwise_i16x8_u', 'i16x8.abs', 'i16x8.neg', 'i16x8.q15mulr_sat_s', 'i16x8.all_true',
    'i16x8.bitmask', 'i16x8.narrow_i32x4_s', 'i16x8.narrow_i32x4_u', 'i16x8.extend_low_i8x16_s', 'i16x8.extend_high_i8x16_s',
    'i16x8.extend_low_i8x16_u', 'i16x8.extend_high_i8x16_u', 'i16x8.shl', 'i16x8.shr_s', 'i16x8.shr_u', 'i16x8.add', 'i16x8.add_sat_s',
    'i16x8.add_sat_u', 'i16x8.sub', 'i16x8.sub_sat_s', 'i16x8.sub_sat_u', 'f64x2.nearest', 'i16x8.mul', 'i16x8.min_s', 'i16x8.min_u',
    'i16x8.max_s', 'i16x8.max_u']],
  [155, ['i16x8.avgr_u', 'i16x8.extmul_low_i8x16_s', 'i16x8.extmul_high_i8x16_s', 'i16x8.extmul_low_i8x16_u', 'i16x8.extmul_high_i8x16_u', 'i32x4.abs', 'i32x4.neg']],
  [163, ['i32x4.all_true', 'i32x4.bitmask']],
  [167, ['i32x4.extend_low_i16x8_s', 'i32x4.extend_high_i16x8_s', 'i32x4.extend_low_i16x8_u', 'i32x4.extend_high_i16x8_u', 'i32x4.shl', 'i32x4.shr_s', 'i32x4.shr_u', 'i32x4.add']],
  [177, ['i32x4.sub']],
  [181, ['i32x4.mul', 'i32x4.min_s', 'i32x4.min_u', 'i32x4.max_s', 'i32x4.max_u', 'i32x4.dot_i16x8_s']],
  [188, ['i32x4.extmul_low_i16x8_s', 'i32x4.extmul_high_i16x8_s', 'i32x4.extmul_low_i16x8_u', 'i32x4.extmul_high_i16x8_u', 'i64x2.abs', 'i64x2.neg']],
  [195, ['i64x2.all_true', 'i64x2.bitmask']],
  [199, ['i64x2.extend_low_i32x4_s', 'i64x2.extend_high_i32x4_s', 'i64x2.extend_low_i32x4_u', 'i64x2.extend_high_i32x4_u', 'i64x2.shl', 'i64x2.shr_s', 'i64x2.shr_u', 'i64x2.add']],
  [209, ['i64x2.sub']],
  [213, ['i64x2.mul', 'i64x2.eq', 'i64x2.ne', 'i64x2.lt_s', 'i64x2.gt_s', 'i64x2.le_s', 'i64x2.ge_s',
    'i64x2.extmul_low_i32x4_s', 'i64x2.extmul_high_i32x4_s', 'i64x2.extmul_low_i32x4_u', 'i64x2.extmul_high_i32x4_u', 'f32x4.abs', 'f32x4.neg']],
  [227, ['f32x4.sqrt', 'f32x4.add', 'f32x4.sub', 'f32x4.mul', 'f32x4.div', 'f32x4.min', 'f32x4.max', 'f32x4.pmin', 'f32x4.pmax', 'f64x2.abs', 'f64x2.neg']],
  [239, ['f64x2.sqrt', 'f64x2.add', 'f64x2.sub', 'f64x2.mul', 'f64x2.div', 'f64x2.min', 'f64x2.max', 'f64x2.pmin', 'f64x2.pmax',
    'i32x4.trunc_sat_f32x4_s', 'i32x4.trunc_sat_f32x4_u', 'f32x4.convert_i32x4_s', 'f32x4.convert_i32x4_u', 'i32x4.trunc_sat_f64x2_s_zero',
    'i32x4.trunc_sat_f64x2_u_zero', 'f64x2.convert_low_i32x4_s', 'f64x2.convert_low_i32x4_u']],
  [274, ['i16x8.relaxed_dot_i8x16_i7x16_s']],
] as const satisfies readonly (readonly [number, readonly string[]])[];

const control = [
  ['unreachable', 0x00, 'none'], ['nop', 0x01, 'none'], ['block', 0x02, 'blockType'], ['loop', 0x03, 'blockType'], ['if', 0x04, 'blockType'],
  ['else', 0x05, 'none'], ['end', 0x0b, 'none'], ['br', 0x0c, 'label'], ['br_if', 0x0d, 'label'], ['br_table', 0x0e, 'labels'], ['return', 0x0f, 'none'],
  ['call', 0x10, 'function'], ['call_indirect', 0x11, 'indirect'], ['drop', 0x1a, 'none'], ['select', 0x1b, 'none'], ['select_t', 0x1c, 'selectTypes'],
  ['local.get', 0x20, 'local'], ['local.set', 0x21, 'local'], ['local.tee', 0x22, 'local'], ['global.get', 0x23, 'global'], ['global.set', 0x24, 'global'],
  ['memory.size', 0x3f, 'zero'], ['memory.grow', 0x40, 'zero'], ['i32.const', 0x41, 'i32'], ['i64.const', 0x42, 'i64'], ['f32.const', 0x43, 'f32'], ['f64.const', 0x44, 'f64'],
] as const satisfies readonly (readonly [string, number, Immediate])[];
const bulk = [['memory.init', 8, 'segmentZero'], ['data.drop', 9, 'segment'], ['memory.copy', 10, 'zeroZero'], ['memory.fill', 11, 'zero']] as const;
const atomics = [
  ['memory.atomic.notify', 0x00], ['memory.atomic.wait32', 0x01], ['i32.atomic.load', 0x10], ['i32.atomic.store', 0x17],
  ['i32.atomic.rmw.add', 0x1e], ['i32.atomic.rmw.sub', 0x25], ['i32.atomic.rmw.xchg', 0x41], ['i32.atomic.rmw.cmpxchg', 0x48],
] as const;

type VectorPlain = (typeof vectorRuns)[number][1][number];
/** Instructions without immediate. */
export type PlainOp = (typeof numeric)[number] | (typeof saturating)[number] | VectorPlain
  | 'unreachable' | 'nop' | 'return' | 'drop' | 'select' | 'memory.size' | 'memory.grow' | 'memory.copy' | 'memory.fill';
/** Loads, stores and atomics: an address on the stack, an offset in the instruction. */
export type MemoryOp = (typeof scalarMemory)[number] | (typeof vectorMemory)[number] | 'v128.load32_zero' | 'v128.load64_zero' | (typeof atomics)[number][0];
export type LaneOp = (typeof laneAccess)[number];
export type LaneMemoryOp = (typeof laneMemory)[number];
export type OpName = PlainOp | MemoryOp | LaneOp | LaneMemoryOp | (typeof control)[number][0] | (typeof bulk)[number][0] | 'v128.const' | 'i8x16.shuffle';

const table = new Map<string, Opcode>();
const define = (names: readonly string[], prefix: number, first: number, immediate: Immediate): void =>
  names.forEach((name, i) => { table.set(name, { prefix, code: first + i, immediate }); });
for (const [name, code, immediate] of control) define([name], 0, code, immediate);
define(scalarMemory, 0, 0x28, 'memory');
define(numeric, 0, 0x45, 'none');
define(saturating, 0xfc, 0, 'none');
for (const [name, code, immediate] of bulk) define([name], 0xfc, code, immediate);
define(vectorMemory, 0xfd, 0, 'memory');
define(['v128.const'], 0xfd, 12, 'bytes16');
define(['i8x16.shuffle'], 0xfd, 13, 'lanes16');
define(laneAccess, 0xfd, 21, 'lane');
define(laneMemory, 0xfd, 84, 'memoryLane');
define(['v128.load32_zero', 'v128.load64_zero'], 0xfd, 92, 'memory');
for (const [first, names] of vectorRuns) define(names, 0xfd, first, 'none');
for (const [name, code] of atomics) define([name], 0xfe, code, 'memory');

/** Every instruction by name. */
export const opcodes: ReadonlyMap<string, Opcode> = table;

/** Bytes that a memory instruction touches: its natural alignment, the one that atomics must state. */
export const accessBytes = (name: string): number => {
  if (name.includes('atomic')) return 4;
  if (/x[248]_[su]$/.test(name)) return 8;                                     // v128.load8x8_s: eight bytes, widened
  const bits = /(?:load|store)(\d+)/.exec(name)?.[1];
  return bits !== undefined ? Number(bits) / 8 : Number(name.slice(1, name.indexOf('.'))) / 8;
};
