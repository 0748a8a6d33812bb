/**
 * The cycle model. An instruction occupies its engine for
 *
 *     LD, ST, GATHER   latency + beats;  FILL  ceil(bytes / bytesPerCycle);  MV  start + beats
 *     MM               ceil(P / rows) · ceil(O / columns) · (ceil(K / perCycle) + fill), K the products of a sum
 *     MM of filters of single channels:  the same with max(ceil(taps / perCycle), ceil(tapRows · columnStride · activationBits / 8)) for ceil(K / perCycle)
 *     VE               start + passes · ceil(n / lanes), passes as named below
 *
 * and engines run at the same time as far as the semaphores let them.
 *
 * Filters of single channels share no activations between columns, so the window is what counts: a cycle brings a byte to each element of
 * the array, one tap row for its pixels (of which neighbours share all but their strides), while the lanes of an element work on different taps.
 *
 * Beats of a box: outside, a beat is bytesPerCycle contiguous bytes; on chip, as many banks of a byte. Where the inner dimension is contiguous
 * outside, its n2·run bytes are one burst, and the runs of a beat go to the chip at once as far as they meet different banks:
 * with g = gcd(stride on chip, bytesPerCycle), bytesPerCycle / g of them if g ≥ run, else one. So the transposition of rows of bytes is free where
 * the stride is odd. Otherwise each run takes ceil(run / bytesPerCycle) beats.
 */
import { bytesFor, type FieldsOf, type Instruction, type OpName } from './isa.ts';
import { lanesFor, type Machine } from './machine.ts';

const { ceil } = Math;

const gcd = (a: number, b: number): number => (b === 0 ? Math.abs(a) : gcd(b, a % b));

export interface Runs {
  readonly outer: number;
  readonly inner: number;
  readonly run: number;
  /** bytes from one run of the inner dimension to the next */
  readonly far: number;
  readonly chip: number;
}
/** Runs that meet different banks of a byte. */
const together = (run: number, stride: number, banks: number): number => {
  const shared = gcd(stride, banks);
  return shared >= run ? banks / shared : 1;
};
const beats = ({ dma: { bytesPerCycle } }: Machine, { outer, inner, run, far, chip }: Runs): number =>
  outer * (inner > 1 && far === run && chip !== run ? ceil(Math.max((inner * run) / bytesPerCycle, inner / together(run, chip, bytesPerCycle)))
    : far === run && chip === run ? ceil((inner * run) / bytesPerCycle) : inner * ceil(run / bytesPerCycle));

/** Cycles of a box from outside or to it. */
export const moveCycles = (machine: Machine, runs: Runs): number => machine.dma.latency + beats(machine, runs);
/** A box of so many runs that are not contiguous outside. */
export const runCycles = (machine: Machine, count: number, run: number): number => moveCycles(machine, { outer: count, inner: 1, run, far: run, chip: run });
/** Cycles of a box from one place on chip to another: both sides have banks. */
export const chipCycles = ({ dma: { bytesPerCycle }, vector }: Machine, { outer, inner, run, far, chip }: Runs): number =>
  vector.start + outer * (far === run && chip === run ? ceil((inner * run) / bytesPerCycle)
    : run >= bytesPerCycle ? inner * ceil(run / bytesPerCycle)
    : ceil(inner / Math.max(1, Math.min(together(run, far, bytesPerCycle), together(run, chip, bytesPerCycle), Math.floor(bytesPerCycle / run)))));

export interface Product {
  readonly pixels: number;
  readonly outputs: number;
  /** products of one sum */
  readonly depth: number;
  readonly weightBits: number;
  readonly activationBits: number;
  readonly depthwise: boolean;
  /** of the window, for filters of single channels */
  readonly tapRows: number;
  readonly columnStride: number;
}
/** Cycles of products; infinite where the machine has no mode for their widths. */
export const productCycles = (machine: Machine, { pixels, outputs, depth, weightBits, activationBits, depthwise, tapRows, columnStride }: Product): number => {
  const mode = lanesFor(machine, weightBits, activationBits);
  const { rows, columns, fill } = machine.array;
  if (mode === null) return Infinity;
  const feed = depthwise ? ceil((tapRows * columnStride * activationBits) / 8) : 0;
  return ceil(pixels / rows) * ceil(outputs / columns) * (Math.max(ceil(depth / mode.perCycle), feed) + fill);
};

/** Cycles of `passes` over n elements. */
export const vectorCycles = ({ vector }: Machine, n: number, passes = 1): number => vector.start + passes * ceil(n / vector.lanes);

const box = (machine: Machine, f: FieldsOf<'LD'>): number => moveCycles(machine, { outer: f.n0 * f.n1, inner: f.n2, run: f.run, far: f.f2, chip: f.c2 });
/** Bits that the lanes are chosen by; ternary weights run as those of two bits. */
export const laneBits = (bits: FieldsOf<'MM'>['wBits']): number => (bits === 'ternary' ? 2 : Number(bits));

const table: { readonly [N in OpName]: (machine: Machine, fields: FieldsOf<N>) => number } = {
  END: () => 1,
  LD: box,
  ST: box,
  FILL: ({ dma }, f) => ceil(bytesFor(f.element, f.count) / dma.bytesPerCycle),
  MV: (machine, f) => chipCycles(machine, { outer: f.n0 * f.n1, inner: f.n2, run: f.run, far: f.s2, chip: f.d2 }),
  GATHER: (machine, f) => machine.dma.latency + f.count * ceil(f.run / machine.dma.bytesPerCycle),
  MM: (machine, f) => productCycles(machine, {
    pixels: f.rows * f.columns, outputs: f.outputs, depth: f.tapRows * f.tapColumns * (f.depthwise === 1 ? 1 : f.depth),
    weightBits: laneBits(f.wBits), activationBits: Number(f.aBits), depthwise: f.depthwise === 1, tapRows: f.tapRows, columnStride: f.columnStride,
  }),
  MMV: (machine, f) => vectorCycles(machine, f.rows * f.columns * f.outputs * f.tapRows * f.tapColumns * (f.depthwise === 1 ? 1 : f.depth)),
  RQ: (machine, f) => vectorCycles(machine, f.n),
  // two products a lane
  ADD2: (machine, f) => vectorCycles(machine, f.n, 2),
  MUL2: (machine, f) => vectorCycles(machine, f.n, 2),
  CLIP: (machine, f) => vectorCycles(machine, f.n),
  LUT: (machine, f) => vectorCycles(machine, f.n),
  // two reads of the table
  LUTI: (machine, f) => vectorCycles(machine, f.n, 2),
  POOL: (machine, f) => vectorCycles(machine, f.rows * f.columns * f.depth, f.tapRows * f.tapColumns),
  RED: (machine, f) => vectorCycles(machine, f.outer * f.reduce * f.inner),
  // maximum, exponentials, rescaling; sixteen cycles a row for the reciprocal
  SMAX: (machine, f) => vectorCycles(machine, f.count * f.length, 3) + 16 * f.count,
  EXPS: (machine, f) => vectorCycles(machine, f.count * f.length, 2),
  NRM: (machine, f) => vectorCycles(machine, f.count * f.length) + 16 * f.count,
  // sums, normalisation, rescaling; twenty-four cycles a row for the reciprocal root
  LNRM: (machine, f) => vectorCycles(machine, f.count * f.length, 3) + 24 * f.count,
};

export const cyclesOf = (machine: Machine, one: Instruction): number => (table[one.op] as (machine: Machine, fields: object) => number)(machine, one.fields);
