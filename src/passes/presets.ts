/** From what the user asks for to an explicit pipeline. Presets only build the list; nothing else depends on them. */
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { parseWidths, type WeightFormat } from '../ir/ops/widths.ts';
import type { WeightForm } from '../numerics/power-weights.ts';
import { AIM } from './allocation/aim.ts';
import { canonicalizePasses } from './canonicalize.ts';
import type { Pipeline, Step } from './pipeline.ts';

/** `words`: rescales to bytes multiply words, within a proven 32nd of a step. */
export const rescaleForms = ['exact', 'words'] as const;
export type RescaleForm = (typeof rescaleForms)[number];

/** How much time the compilation may take for accuracy. */
export const efforts = ['low', 'normal', 'high'] as const;
export type Effort = (typeof efforts)[number];

export interface PresetRequest {
  /** `w8a8`: weight bits 2 to 8, activation bits 4 to 8 or 16; `w4ca8`: weights of 2 to 4 bits by codebook; `mixed`: chosen for every layer within the budget */
  readonly bits: string;
  /** options of `allocate-bits`, where bits are mixed */
  readonly allocation?: Step['options'];
  readonly normalization: { readonly mean: readonly number[]; readonly std: readonly number[] } | null;
  /** `normal` by default */
  readonly effort?: Effort;
  /** weights of attention as powers of two; `exact` by default */
  readonly softmax?: WeightForm;
  /** products of rescales: 64 bits, or 32 where the error is proven to be small; `exact` by default */
  readonly rescale?: RescaleForm;
}

/** Of layers for which no bits were chosen, and in which the others begin; passes before the choice aim at what its budget leaves. */
const mixedBits = { weights: 4, format: 'uniform', activations: 8 } as const;

/**
 * Low: ranges, nearest rounding and biases alone at 8 bits; below, weights rounded one after the other on few samples. Normal: channels
 * migrate where that is measured to help, and weights below 8 bits are fitted. High: more samples and candidates, 8-bit weights are fitted
 * as well, and what costs minutes or operations is tried too, kept where the outputs gain: ReLU in place of GELU with MLPs refitted by
 * descent, and hidden channels in groups with scales of their own.
 */
export const presetPipeline = ({ bits, normalization, effort = 'normal', allocation = {}, softmax = 'exact', rescale = 'exact' }: PresetRequest): Pipeline => {
  const mixed = bits === 'mixed';
  const { weights, format, activations } = mixed ? mixedBits : parseBits(bits);
  const step = (pass: string, options: Step['options'] = {}): Step => ({ pass, options });
  const widths = { weights: mixed ? AIM : weights, activations };
  const migration = {
    low: [],
    normal: [step('shift-channels', widths), step('migrate-scales', widths)],
    high: [
      step('rewrite-gelu', { when: 'measured', steps: 400, weightBits: widths.weights, activationBits: activations }),
      step('shift-channels', widths), step('migrate-scales', { ...widths, refine: 6 }), step('reorder-channels', widths),
    ],
  };
  const inFormat = format === 'uniform' ? {} : { format };
  const fitting = { low: { rounding: 'plane', steps: 8, samples: 32 }, normal: {}, high: { steps: 32, samples: 512 } };
  return [
    ...(normalization === null ? [] : [step('normalize-input', { mean: normalization.mean, std: normalization.std })]),
    ...canonicalizePasses.map(({ name }) => step(name)),
    step('expand-plugin-ops'),
    step('prune-dead-inputs'),
    ...migration[effort],
    ...(mixed ? [step('allocate-bits', allocation)] : []),
    step('quantize-activations', { bits: activations, range: activations < 8 ? 'mse' : 'min-max' }),
    ...(weights < 8 || effort === 'high' ? [step('fit-weights', { bits: weights, ...inFormat, ...fitting[effort] })] : []),
    // these two act on what fit-weights leaves: all layers where it is not in the list or left out by --disable-pass
    step('quantize-weights', { bits: weights, ...inFormat }),
    step('correct-bias'),
    step('lower-to-kernels', softmax === 'exact' ? {} : { softmax }),
    step('compose-tables'),
    ...(rescale === 'words' ? [step('rescale-in-words')] : []),
  ];
};

/** `w4a8` → 4 bits, uniform, and 8; `w4ca8` by codebook */
export const parseBits = (bits: string): { readonly weights: number; readonly format: WeightFormat; readonly activations: number } => {
  const found = parseWidths(bits);
  if (found === null || found.weights === null || found.activations < 4) throw new CompileError(errors.badBits(bits), 'usage');
  return { weights: found.weights.bits, format: found.weights.format, activations: found.activations };
};

/** Puts passes into a pipeline next to the ones they name; a pass without a place stays out. */
export const placePasses = (
  pipeline: Pipeline, placed: readonly { readonly name: string; readonly before?: string; readonly after?: string; readonly options?: Step['options'] }[],
): Pipeline => {
  const steps = [...pipeline];
  for (const { name, before, after, options = {} } of placed) {
    const anchor = before ?? after;
    if (anchor === undefined) continue;
    const at = before === undefined ? steps.findLastIndex(({ pass }) => pass === anchor) : steps.findIndex(({ pass }) => pass === anchor);
    if (at < 0) throw new CompileError(errors.noAnchor(name, anchor), 'usage');
    steps.splice(before === undefined ? at + 1 : at, 0, { pass: name, options });
  }
  return steps;
};

/** The pipeline without the named passes. Passes that lead from one stage to the next cannot be left out. */
export const withoutPasses = (pipeline: Pipeline, disabled: readonly string[]): Pipeline => {
  for (const name of disabled) {
    if (!pipeline.some(({ pass }) => pass === name)) throw new CompileError(errors.notInPipeline(name), 'usage');
  }
  return pipeline.filter(({ pass }) => !disabled.includes(pass));
};
