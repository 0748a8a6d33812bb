/** The JSON files of a compiled accelerator program. */
import type { Port } from '../interface.ts';
import type { Engine } from './isa.ts';

/** A value and its place, on chip in ABUF or outside. */
export interface PlacedTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** how the codes lie there */
  readonly element: string;
  readonly memory: 'ABUF' | 'outside';
  readonly address: number;
  readonly bytes: number;
  /** steps during which it keeps its content */
  readonly first: number;
  readonly last: number;
}
export interface MemoryFile {
  /** bytes of the memory outside that a run needs */
  readonly bytes: number;
  /** what is copied there before the first run */
  readonly blobs: readonly { readonly file: string; readonly address: number; readonly bytes: number }[];
  readonly inputs: readonly (Pick<Port, 'name' | 'dtype' | 'shape' | 'elements' | 'bytes' | 'scale' | 'zero'> & { readonly address: number })[];
  readonly outputs: MemoryFile['inputs'];
  readonly tensors: readonly PlacedTensor[];
}

export interface LayerTime {
  readonly name: string;
  readonly ops: readonly string[];
  /** ONNX nodes it comes from */
  readonly from: readonly string[];
  readonly firstInstruction: number;
  readonly instructions: number;
  /** cycles until its last instruction ends, after that of the layer before; a layer may begin while the one before still runs */
  readonly cycles: number;
  /** cycles each engine is at work */
  readonly busy: Readonly<Record<Engine, number>>;
  readonly macs: number;
  /** macs / products of the array at these widths in these cycles, or in those that it works for the layer if they are more */
  readonly utilisation: number;
  readonly bytesLoaded: number;
  readonly bytesStored: number;
  /** what works most in these cycles, whatever layer it works for: the array, the vector engine, LD or ST (`bandwidth`); `latency` where none works half of the time */
  readonly bound: 'bandwidth' | 'array' | 'vector' | 'latency';
}
export interface ScheduleFile {
  readonly machine: string;
  readonly cycles: number;
  readonly microseconds: number;
  readonly layers: readonly LayerTime[];
  /** engine, start and end of every instruction, in program order */
  readonly instructions: readonly (readonly [op: string, start: number, end: number])[];
}
