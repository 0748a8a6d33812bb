/** From model bytes to artefacts in memory: import → pipeline → backends. Nothing here touches files. */
import type { Artefact } from './backends/backend.ts';
import type { Samples } from './calibration/samples.ts';
import type { Diagnostic } from './ir/diagnostic.ts';
import type { Graph } from './ir/graph.ts';
import type { PassRecord, Pipeline, PipelineObserver } from './passes/pipeline.ts';
import type { Plugin } from './plugin.ts';

export interface CompileOptions {
  /** stem of the emitted names; an identifier is derived from it */
  readonly name: string;
  /** `cpu`, `wasm`, or a plugin's backend */
  readonly targets: readonly string[];
  /** symbol → size, and input → shape */
  readonly dims?: Readonly<Record<string, number>>;
  readonly shapes?: Readonly<Record<string, readonly number[]>>;
  readonly cutAt?: string;
  /** `w8a8` and the like; picks the preset where no pipeline is given */
  readonly bits?: string;
  readonly pipeline?: Pipeline;
  readonly disabledPasses?: readonly string[];
  readonly plugins?: readonly Plugin[];
  readonly seed?: number;
  /** opened against the imported graph's inputs; null only with `synthetic` */
  readonly openSamples: ((inputs: Graph['inputs']) => Promise<Samples>) | null;
  readonly synthetic?: boolean;
  /** float input = (data − mean) / std, per channel; the compiled model then takes the data itself */
  readonly normalization?: { readonly mean: readonly number[]; readonly std: readonly number[]; readonly dtype: 'u8' | 'i16' };
  readonly threads?: number;
  readonly observers?: readonly PipelineObserver[];
  readonly onProgress?: (label: string, done: number, total: number) => void;
  /** reads external weight data: location, offset, length → bytes */
  readonly externalData?: (location: string, offset: number, length: number | null) => Uint8Array;
}

export interface Compilation {
  readonly float: Graph<'float'>;
  readonly kernel: Graph<'kernel'>;
  /** the pipeline that ran, all defaults written out */
  readonly pipeline: Pipeline;
  readonly records: readonly PassRecord[];
  readonly diagnostics: readonly Diagnostic[];
  /** per target: its files (paths relative to the output folder) and sizes */
  readonly targets: readonly { readonly name: string; readonly files: readonly Artefact[]; readonly weightBytes: number; readonly arenaBytes: number }[];
  readonly samples: { readonly count: number; readonly digest: string } | null;
}
