/** What a target is: kernel graph in, files out. */
import type { Graph } from '../ir/graph.ts';
import { groupSteps, type Grouping } from './group.ts';
import { accelerator } from './accelerator/emit.ts';
import { cpu } from './c/emit.ts';
import type { Piece } from './plan.ts';
import { wasm } from './wasm/emit.ts';

export interface Artefact {
  /** relative to the output folder, with forward slashes */
  readonly path: string;
  readonly bytes: Uint8Array;
}

/** A verified kernel graph and the steps it is computed in. */
export interface Program extends Grouping {
  readonly graph: Graph<'kernel'>;
}
export const programOf = (graph: Graph<'kernel'>): Program => ({ graph, ...groupSteps(graph) });

export interface EmitOptions {
  /** stem of file names and C symbols; made an identifier by the rule of `identifier.ts` */
  readonly name: string;
}
export interface Emission {
  readonly artefacts: readonly Artefact[];
  /** working memory of one run, without the inputs and outputs that the caller owns */
  readonly arenaBytes: number;
  /** constants as stored in the artefacts: weights, multipliers, tables */
  readonly weightBytes: number;
}

/** What a program takes, step by step. */
export interface ProgramPrice {
  readonly weightBytes: number;
  readonly arenaBytes: number;
  /** in the order of the program's steps; a constant that several read is charged to the first */
  readonly steps: readonly { readonly weightBytes: number; /** null where the target has no model of its time */ readonly microseconds: number | null }[];
  /** of the arena; empty where they do not depend on widths as a sum would tell */
  readonly pieces: readonly Piece[];
}

export interface Backend {
  /** as given to `--target`; also the folder of its artefacts */
  readonly name: string;
  readonly summary: string;
  /** the same target for what follows the name in `--target name:setting`, for targets that come in variants */
  configure?(setting: string): Backend;
  /** bits of the greatest rescaling factor, without its sign, where the target multiplies by fewer than 31 */
  readonly multiplierBits?: number;
  /** false where the target rescales with 64-bit sums only */
  readonly rescalesWords?: boolean;
  emit(program: Program, options: EmitOptions): Emission | Promise<Emission>;
  /** the costs of the program without making its files; a target without it is not asked when bits are chosen */
  price?(program: Program): ProgramPrice;
}

/** The targets that come with the compiler. */
export const builtInBackends: readonly Backend[] = [cpu, wasm, accelerator];
