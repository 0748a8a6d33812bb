/** What a schedule needs to know of a machine. Another instruction set is another record, not another schedule. */
import { bytesOf } from '../../loops/build.ts';
import type { Elem, Pairing } from '../../loops/types.ts';

export interface Target {
  readonly name: string;
  /** 32-bit lanes of a vector; 1 = no vectors, the compiler behind the C does what it can */
  readonly lanes: 1 | 4 | 8 | 16;
  /** neighbours along K that one dot product joins; 2 takes 16-bit operands, 1 multiplies 32-bit ones */
  readonly dot: 1 | 2;
  /** rows and vectors of the register tile of matrix products */
  readonly tile: readonly [rows: number, vectors: number];
  /**
   * Constant weights in the layout that all vector machines share (quads.ts): the element of rows that its dot product of four bytes
   * takes, or i16 where it multiplies pairs of words; null where the target keeps a layout of its own.
   */
  readonly quads: 'u8' | 'i8' | 'i16' | null;
  /**
   * The same for weights of at most 7 bits, whose sums of two products with bytes fit 16 bits; null: as `quads`. i8: weights stand as
   * code + 2^(bits−1), without sign, and sums of products are added in 16 bits for as long as they surely fit.
   */
  readonly narrowQuads: 'u8' | 'i8' | null;
  /**
   * Whether panels for many rows are first put in the order of pairs (pairs.ts), which spares every tile the joining of two sums for each
   * column: where that costs several instructions.
   */
  readonly ordersPairs: boolean;
  /** whether panels for many rows are first widened to words, which spares every tile to widen them as it reads: where products leave the machine no time for it */
  readonly widensPanels: boolean;
  /** how the 64-bit constants of a dyadic are ordered in two vectors */
  readonly pairing: Pairing;
  /** bytes of widened rows that a matrix product keeps near the core */
  readonly blockBytes: number;
}

/** C99 without intrinsics: eight scalar dot products side by side, which compilers vectorise along K. */
export const portableC: Target = { name: 'portable C', lanes: 1, dot: 1, tile: [8, 1], quads: null, narrowQuads: null, ordersPairs: false, widensPanels: false, pairing: 'halves', blockBytes: 16384 };

/** The same where the binary also holds versions with vectors, whose weights it reads. */
export const portableBesideVectors: Target = { ...portableC, name: 'portable C beside vectors', quads: 'i16' };

/** WebAssembly SIMD128. The tile keeps rows·vectors + vectors + rows + (vectors − 1) ≤ 15 registers, beyond which engines spill. */
export const simd128: Target = { name: 'WebAssembly SIMD128', lanes: 4, dot: 2, tile: [4, 2], quads: null, narrowQuads: null, ordersPairs: false, widensPanels: true, pairing: 'halves', blockBytes: 16384 };

/** The same with relaxed SIMD: products of pairs of bytes, of which the second lies in 0 … 127. */
export const relaxedSimd: Target = { ...simd128, name: 'WebAssembly relaxed SIMD', narrowQuads: 'i8' };

/** x86-64 with vectors of 32 bytes. */
export const avx2: Target = { name: 'AVX2', lanes: 8, dot: 2, tile: [6, 2], quads: 'i16', narrowQuads: 'u8', ordersPairs: true, widensPanels: false, pairing: 'evenodd', blockBytes: 16384 };

/** x86-64 with vectors of 64 bytes and dot products that add to the sum. */
export const avx512vnni: Target = { name: 'AVX-512 VNNI', lanes: 16, dot: 2, tile: [4, 4], quads: 'u8', narrowQuads: null, ordersPairs: false, widensPanels: false, pairing: 'evenodd', blockBytes: 16384 };

/** 64-bit Arm with dot products of four bytes. */
export const neonDot: Target = { name: 'NEON with dot products', lanes: 4, dot: 2, tile: [4, 4], quads: 'i8', narrowQuads: null, ordersPairs: false, widensPanels: false, pairing: 'halves', blockBytes: 16384 };

/** 64-bit Arm. */
export const neon: Target = { name: 'NEON', lanes: 4, dot: 2, tile: [4, 4], quads: 'i16', narrowQuads: null, ordersPairs: false, widensPanels: false, pairing: 'halves', blockBytes: 16384 };

/** Cortex-M with the DSP extension: sums are scalars, products of two halfwords go through one instruction. */
export const cortexM: Target = { name: 'Cortex-M DSP', lanes: 1, dot: 2, tile: [4, 1], quads: null, narrowQuads: null, ordersPairs: false, widensPanels: false, pairing: 'halves', blockBytes: 4096 };

/** Lanes of one vector of an element; 1 without vectors. */
export const vectorLanes = ({ lanes }: Target, e: Elem): number => (lanes === 1 ? 1 : (4 * lanes) / bytesOf(e));
