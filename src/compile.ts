/** From model bytes to artefacts in memory: import → pipeline → backends. Nothing here touches files. */
import { builtInBackends, programOf, type Artefact, type Backend } from './backends/backend.ts';
import { createCalibration } from './calibration/calibration.ts';
import { partOf, split, type Samples } from './calibration/samples.ts';
import { bindSymbols } from './ir/bind-symbols.ts';
import { CompileError, type Diagnostic } from './ir/diagnostic.ts';
import { isStatic, symbolsOf } from './ir/dim.ts';
import { errors, warnings } from './ir/errors.ts';
import type { Graph, Node } from './ir/graph.ts';
import type { AnyOpDef } from './ir/op.ts';
import { floatOps } from './ir/ops/index.ts';
import { verify } from './ir/verify.ts';
import { importModel } from './onnx/import.ts';
import { builtInPasses } from './passes/index.ts';
import type { HeldOut, MeasurementStore, PassContext, TargetPrice } from './passes/pass.ts';
import { resolvePipeline, runPipeline, toPipeline, type PassRecord, type Pipeline, type PipelineObserver, type ResolvedStep } from './passes/pipeline.ts';
import type { WeightForm } from './numerics/power-weights.ts';
import { placePasses, presetPipeline, withoutPasses, type Effort, type RescaleForm } from './passes/presets.ts';
import { buildToolbox, type Plugin, type Toolbox } from './plugin.ts';

/** The bytes of an ONNX file, or a ModelProto object. */
export type ModelSource = Uint8Array | object;

export interface CompileOptions {
  /** stem of the emitted names; an identifier is derived from it */
  readonly name: string;
  /** `cpu`, `wasm`, `accel`, or a plugin's backend; `name:setting` for one that comes in variants */
  readonly targets: readonly string[];
  /** symbol → size, and input → shape */
  readonly dims?: Readonly<Record<string, number>>;
  readonly shapes?: Readonly<Record<string, readonly number[]>>;
  readonly cutAt?: string;
  /** `w8a8` and the like, or `mixed`; picks the preset where no pipeline is given */
  readonly bits?: string;
  /** how much time the preset may take for accuracy; `normal` by default */
  readonly effort?: Effort;
  /** weights of attention as powers of two, for targets that shift instead of multiplying; `exact` by default */
  readonly softmax?: WeightForm;
  /** products of rescales in 64 bits, or in 32 where the error is proven to be small; `exact` by default */
  readonly rescale?: RescaleForm;
  /** options of the pass that chooses mixed bits */
  readonly allocation?: Readonly<Record<string, unknown>>;
  readonly pipeline?: Pipeline;
  readonly disabledPasses?: readonly string[];
  readonly plugins?: readonly Plugin[];
  readonly seed?: number;
  /** opens the sample set against the imported graph's inputs; null when there is no data */
  readonly openSamples: ((inputs: Graph['inputs']) => Samples) | null;
  /** float input = (data − mean) / std, per channel; the compiled model then takes the data itself, and samples hold the data */
  readonly normalization?: { readonly mean: readonly number[]; readonly std: readonly number[]; readonly dtype: 'u8' | 'i16' };
  /** worker threads of calibration; the result does not depend on it */
  readonly threads?: number;
  /** data kept apart from calibration on which results are judged, opened against the imported graph's inputs */
  readonly openHeldOut?: (inputs: Graph['inputs']) => HeldOut;
  /** the classes of the calibration samples, for those that a pass holds out of them */
  readonly openLabels?: (samples: Samples) => NonNullable<HeldOut['labels']>;
  /** keeps measurements from one compilation to the next */
  readonly store?: MeasurementStore;
  /** microseconds of a step on a target by its first node, from a table of timings; null where the table does not hold it */
  readonly timeOf?: (node: Node, target: string) => number | null;
  readonly observers?: readonly PipelineObserver[];
  readonly onProgress?: (label: string, done: number, total: number) => void;
  /** reads external weight data: location, offset, length → bytes */
  readonly externalData?: (location: string, offset: number, length: number | null) => Uint8Array;
}

export interface CompiledTarget {
  readonly name: string;
  /** paths relative to the output folder */
  readonly files: readonly Artefact[];
  readonly weightBytes: number;
  readonly arenaBytes: number;
}

export interface Compilation {
  /** the model as imported, symbols bound */
  readonly float: Graph<'float'>;
  /** the last graph of the pipeline; a kernel graph unless the pipeline stops earlier */
  readonly graph: Graph;
  /** the pipeline that ran, all defaults written out */
  readonly pipeline: Pipeline;
  readonly records: readonly PassRecord[];
  readonly diagnostics: readonly Diagnostic[];
  /** empty when the pipeline stops before the kernel stage */
  readonly targets: readonly CompiledTarget[];
  readonly samples: { readonly count: number; readonly digest: string } | null;
}

/** The built-in ops, passes and backends, and those of the plugins. */
export const toolboxWith = (plugins: readonly Plugin[]): Toolbox =>
  buildToolbox({ ops: floatOps as readonly object[] as readonly AnyOpDef[], passes: builtInPasses, backends: builtInBackends }, plugins);

/** The backends of targets written as `name` or `name:setting`. */
export const backendsFor = ({ backends }: Toolbox, targets: readonly string[]): readonly Backend[] => {
  const chosen = targets.map((target) => {
    const colon = target.indexOf(':');
    const name = colon < 0 ? target : target.slice(0, colon);
    const backend = backends.get(name) ?? fail(errors.unknownTarget(name, [...backends.keys()]));
    if (colon < 0) return backend;
    return backend.configure?.(target.slice(colon + 1)) ?? fail(errors.badCommandLine(`target "${name}" comes in one variant only`, `write --target ${name}`));
  });
  const twice = chosen.find(({ name }, i) => chosen.findIndex((other) => other.name === name) !== i);
  return twice === undefined ? chosen : fail(errors.badCommandLine(`target "${twice.name}" is named twice`, 'compile one variant of it into each folder'));
};

/** A model ready for passes: imported, and every symbol bound. A free leading axis is a batch and becomes 1. */
export const importBound = (model: ModelSource, options: Pick<CompileOptions, 'dims' | 'shapes' | 'cutAt' | 'externalData'>):
{ readonly graph: Graph<'float'>; readonly diagnostics: readonly Diagnostic[] } => {
  const { graph, warnings: found } = importModel(model, options);
  const free = symbolsOf(graph.inputs.flatMap(({ type }) => type.shape));
  const batches = new Set(graph.inputs.flatMap(({ type: { shape } }) => (shape.length > 0 && !isStatic(shape[0]) ? symbolsOf([shape[0]]) : [])));
  const unbound = free.filter((symbol) => !batches.has(symbol));
  if (unbound.length > 0) throw new CompileError(errors.unboundSymbols(unbound), 'usage');
  if (free.length === 0) return { graph, diagnostics: found };
  return {
    graph: bindSymbols(graph, new Map(free.map((symbol) => [symbol, 1]))),
    diagnostics: [...found, ...free.map((symbol) => warnings.batchBound(symbol))],
  };
};

/** The pipeline that a compilation runs: the given one or the preset, with plugin passes put in and disabled ones left out. */
export const pipelineFor = (options: Pick<CompileOptions, 'pipeline' | 'bits' | 'effort' | 'softmax' | 'rescale' | 'allocation' | 'normalization' | 'plugins' | 'disabledPasses'>): Pipeline => {
  const placed = (options.plugins ?? []).flatMap((plugin) => plugin.passes ?? []);
  const pipeline = options.pipeline ?? placePasses(
    presetPipeline({
      bits: options.bits ?? 'w8a8', normalization: options.normalization ?? null, effort: options.effort ?? 'normal', softmax: options.softmax ?? 'exact', rescale: options.rescale ?? 'exact', ...(options.allocation === undefined ? {} : { allocation: options.allocation }),
    }),
    placed.map(({ pass, ...place }) => ({ name: pass.name, ...place })),
  );
  return withoutPasses(pipeline, options.disabledPasses ?? []);
};

/** The pipeline with rescaling factors narrowed, for all targets alike, to what the narrowest multiplier among them takes. */
const forMultipliers = (pipeline: Pipeline, backends: readonly Backend[]): Pipeline => {
  const long = backends.find(({ rescalesWords = true }) => !rescalesWords);
  if (long !== undefined && pipeline.some(({ pass }) => pass === 'rescale-in-words')) throw new CompileError(errors.rescalesInWords(long.name), 'usage');
  const bits = Math.min(31, ...backends.map(({ multiplierBits }) => multiplierBits ?? 31));
  const lowers = pipeline.some(({ pass }) => pass === 'lower-to-kernels');
  const narrowed = pipeline.some(({ pass, options }) => pass === 'narrow-multipliers' && Number(options['bits'] ?? 31) <= bits);
  return bits === 31 || !lowers || narrowed ? pipeline : [...pipeline, { pass: 'narrow-multipliers', options: { bits } }];
};

export const compile = async (model: ModelSource, options: CompileOptions): Promise<Compilation> => {
  const toolbox = toolboxWith(options.plugins ?? []);
  const backends = backendsFor(toolbox, options.targets);
  const steps = resolvePipeline(forMultipliers(pipelineFor(options), backends), toolbox.passes);
  const { graph: float, diagnostics: imported } = importBound(model, options);
  const diagnostics: Diagnostic[] = [...imported];
  const { samples, heldOut } = divided(steps, options.openSamples?.(float.inputs) ?? null, options, float.inputs);
  const onProgress = options.onProgress ?? (() => undefined);
  const calibration = samples === null ? null
    : createCalibration(samples, { data: options.normalization?.dtype ?? null, threads: options.threads ?? null, onProgress });
  const context: PassContext = {
    calibration, seed: options.seed ?? 0, reference: null, note: () => undefined,
    rest: [], settle: () => undefined, explain: () => undefined, prices: backends.length === 0 ? null : pricesOf(backends, options.timeOf),
    heldOut, store: options.store ?? null,
    warn: (diagnostic) => diagnostics.push(diagnostic), progress: onProgress,
  };
  const verifying: PipelineObserver = { after: (_, __, graph) => assertValid(graph) };
  try {
    const { graph, records } = await runPipeline(float, steps, context, [verifying, ...(options.observers ?? [])]);
    const targets = graph.stage === 'kernel' ? await emitAll(graph as Graph<'kernel'>, backends, options.name) : [];
    return {
      float, graph, pipeline: toPipeline(steps, records), records, diagnostics, targets,
      samples: samples === null ? null : { count: samples.count, digest: samples.digest },
    };
  } finally {
    await calibration?.close();
  }
};

/**
 * The calibration samples, and what results are judged on. Where a step asks for part of the samples to be held out, the calibration and all
 * that is made with it never see that part; the step says so in its options, so that the same list of steps divides them alike.
 */
const divided = (steps: readonly ResolvedStep[], samples: Samples | null, { openHeldOut, openLabels }: CompileOptions, inputs: Graph['inputs']): { readonly samples: Samples | null; readonly heldOut: HeldOut | null } => {
  const given = openHeldOut?.(inputs) ?? null;
  const share = Math.max(0, ...steps.map(({ pass, options }) => pass.holdsOut?.(options) ?? 0));
  const parts = given !== null || samples === null || share === 0 ? null : split(samples, share);
  if (parts === null) return { samples, heldOut: given };
  const labels = openLabels?.(samples!);
  return { samples: partOf(samples!, parts.kept), heldOut: { samples: partOf(samples!, parts.apart), labels: labels === undefined ? null : (index) => labels(parts.apart[index]) } };
};

const emitAll = async (graph: Graph<'kernel'>, backends: readonly Backend[], name: string): Promise<readonly CompiledTarget[]> => {
  const program = programOf(graph);
  const targets: CompiledTarget[] = [];
  for (const backend of backends) {
    const { artefacts, weightBytes, arenaBytes } = await backend.emit(program, { name });
    targets.push({ name: backend.name, files: artefacts, weightBytes, arenaBytes });
  }
  return targets;
};

/** What the targets charge. Time comes from the target's own model, or from the table. */
const pricesOf = (backends: readonly Backend[], timeOf: CompileOptions['timeOf']): PassContext['prices'] => (graph) => {
  const program = programOf(graph);
  return backends.flatMap((backend): TargetPrice[] => {
    const price = backend.price?.(program);
    return price === undefined ? [] : [{
      target: backend.name, weightBytes: price.weightBytes, arenaBytes: price.arenaBytes,
      steps: price.steps.map(({ weightBytes, microseconds }, i) => ({
        name: program.steps[i].root.output.name, weightBytes, microseconds: microseconds ?? timeOf?.(program.steps[i].root, backend.name) ?? null,
      })),
      pieces: price.pieces.map(({ name, bytes, first, last }) => ({ owner: name, bytes, first, last })),
    }];
  });
};

/** A pass that leaves an invalid graph behind is a fault of the pass. */
const assertValid = (graph: Graph): void => {
  const faults = verify(graph);
  if (faults.length > 0) throw new CompileError(faults, 'internal');
};

const fail = (diagnostic: Diagnostic): never => { throw new CompileError(diagnostic, 'usage'); };

