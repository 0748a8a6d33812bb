/** The one memory of an executor while it is being planned: sizes first, addresses when all sizes are known. */
import type { TypedArray } from '../ir/dtype.ts';
import type { F32Kernels } from '../numerics/f32-kernels.ts';
import { SLACK_BYTES } from '../numerics/f32-kernels.ts';
import { erfTable } from '../numerics/real-math.ts';

/** Where a value lives: in the memory when it holds real numbers, otherwise in an array of its own. */
export interface Place {
  /** in bytes; known once the heap is made */
  readonly offset: number;
  readonly integers: TypedArray | null;
}

/** The memory, laid out. */
export interface Heap {
  readonly f32: Float32Array;
  readonly kernels: F32Kernels;
  /** byte offset of the space that every node may use while it runs */
  readonly scratch: number;
  /** byte offset of as many zeros as any node asked for */
  readonly zeros: number;
}
export type Step = () => void;

const ALIGNMENT = 64;
export const aligned = (bytes: number): number => Math.ceil((bytes + SLACK_BYTES) / ALIGNMENT) * ALIGNMENT;

export class Layout {
  private readonly constants: { readonly offset: number; readonly write: (to: Float32Array) => void; readonly length: number }[] = [];
  private constantBytes = 0;
  private erfOffset: number | null = null;
  private scratchBytes = 0;
  private zeroBytes = 0;

  /** Room for a constant of `length` floats; its offset. `write` fills it once the memory exists. */
  constant(length: number, write: (to: Float32Array) => void): number {
    const offset = this.constantBytes;
    this.constants.push({ offset, write, length });
    this.constantBytes += aligned(length * 4);
    return offset;
  }
  /** The offset of erfTable. */
  erfTable(): number {
    // copying float32 moves the bytes of the doubles unchanged
    this.erfOffset ??= this.constant(erfTable.length * 2, (to) => to.set(new Float32Array(erfTable.buffer)));
    return this.erfOffset;
  }
  /** Room for arrays that live only while one node runs; their offsets from `heap.scratch`, in bytes. */
  scratch(...bytes: readonly number[]): readonly number[] {
    let end = 0;
    const offsets = bytes.map((size) => {
      const start = end;
      end += aligned(size);
      return start;
    });
    this.scratchBytes = Math.max(this.scratchBytes, end);
    return offsets;
  }
  /** `heap.zeros` will hold at least this many floats. */
  zeros(length: number): void {
    this.zeroBytes = Math.max(this.zeroBytes, aligned(length * 4));
  }
  get scratchOffset(): number { return this.constantBytes; }
  get zerosOffset(): number { return this.constantBytes + this.scratchBytes; }
  get bytes(): number { return this.zerosOffset + this.zeroBytes; }

  fill(memory: Float32Array): void {
    for (const { offset, write, length } of this.constants) write(memory.subarray(offset / 4, offset / 4 + length));
  }
}
