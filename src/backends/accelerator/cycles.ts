/**
 * The cycle model. An instruction occupies its engine for
 *
 *     LD, ST, GATHER   latency + Σ over runs ceil(run / bytesPerCycle);  FILL  ceil(bytes / bytesPerCycle)
 *     MM               ceil(P / rows) · ceil(O / columns) · (ceil(K / perCycle) + fill), K the products of a sum;
 *                      filters of single channels take one tap a cycle: perCycle = 1
 *     VE               start + passes · ceil(n / lanes), passes as named below
 *
 * and engines run at the same time as far as the semaphores let them.
 */
import { elementBytes, type FieldsOf, type Instruction, type OpName } from './isa.ts';
import { lanesFor, type Machine } from './machine.ts';

const { ceil } = Math;

/** Cycles of a box of runs. */
export const moveCycles = ({ dma }: Machine, runs: number, run: number): number => dma.latency + runs * ceil(run / dma.bytesPerCycle);

export interface Product {
  readonly pixels: number;
  readonly outputs: number;
  /** products of one sum */
  readonly depth: number;
  readonly weightBits: number;
  readonly activationBits: number;
  readonly depthwise: boolean;
}
/** Cycles of products; infinite where the machine has no mode for their widths. */
export const productCycles = (machine: Machine, { pixels, outputs, depth, weightBits, activationBits, depthwise }: Product): number => {
  const mode = lanesFor(machine, weightBits, activationBits);
  const { rows, columns, fill } = machine.array;
  return mode === null ? Infinity : ceil(pixels / rows) * ceil(outputs / columns) * (ceil(depth / (depthwise ? 1 : mode.perCycle)) + fill);
};

/** Cycles of `passes` over n elements. */
export const vectorCycles = ({ vector }: Machine, n: number, passes = 1): number => vector.start + passes * ceil(n / vector.lanes);

const box = (machine: Machine, f: FieldsOf<'LD'>): number => moveCycles(machine, f.n0 * f.n1 * f.n2, f.run);

const table: { readonly [N in OpName]: (machine: Machine, fields: FieldsOf<N>) => number } = {
  END: () => 1,
  LD: box,
  ST: box,
  FILL: ({ dma }, f) => ceil((f.count * elementBytes(f.element)) / dma.bytesPerCycle),
  GATHER: (machine, f) => moveCycles(machine, f.count, f.run),
  MM: (machine, f) => productCycles(machine, {
    pixels: f.rows * f.columns, outputs: f.outputs, depth: f.tapRows * f.tapColumns * (f.depthwise === 1 ? 1 : f.depth),
    weightBits: Number(f.wBits), activationBits: Number(f.aBits), depthwise: f.depthwise === 1,
  }),
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
