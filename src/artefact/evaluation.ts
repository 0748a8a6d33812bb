/** Targets of a folder against the float model, and both against labels, sample by sample in constant memory. */
import { dequantized } from '../calibration/executor.ts';
import { labelMeter, referenceMeter, type LabelMetrics, type ReferenceMetrics } from '../calibration/metrics.ts';
import { codesAt, type Sample, type Samples } from '../calibration/samples.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { sizeOf } from '../ir/dim.ts';
import type { Graph } from '../ir/graph.ts';
import { takesData, type FloatRun, type Folder } from './load.ts';
import type { Runner } from './runners.ts';

/** Labels of samples: `at(i)` gives those of sample i, one for each row of the output. */
export interface Labels {
  readonly name: string;
  readonly samples: number;
  at(index: number): ArrayLike<number | bigint>;
}
export interface Evaluation {
  readonly samples: number;
  /** null without labels */
  readonly float: LabelMetrics | null;
  readonly targets: readonly { readonly target: string; readonly labels: LabelMetrics | null; readonly reference: ReferenceMetrics }[];
}

/** Samples that the targets take at once. */
const chunk = 64;

export interface EvaluationInput {
  readonly folder: Folder;
  readonly source: Graph<'float'>;
  readonly float: FloatRun;
  /** the data as the float model takes them, and as the compiled program does */
  readonly reals: Samples;
  readonly codes: Samples;
  readonly labels: Labels | null;
  readonly runners: readonly Runner[];
  readonly onProgress: (done: number, total: number) => void;
}

/** Judges the first output of the model; its last axis are the classes. */
export const evaluateFolder = async ({ folder, source, float, reals, codes, labels, runners, onProgress }: EvaluationInput): Promise<Evaluation> => {
  if (labels !== null && labels.samples < reals.count) throw new CompileError(errors.badLabels(labels.name, `they are for ${labels.samples} samples, the data holds ${reals.count}`), 'usage');
  const [{ name, value }] = source.outputs;
  const classes = classesOf(source, labels, value.type.shape.at(-1));
  const meters = runners.map((runner) => ({ runner, label: classes === null || labels === null ? null : labelMeter(classes), reference: referenceMeter(classes) }));
  const floatLabels = classes === null || labels === null ? null : labelMeter(classes);
  for (let first = 0; first < reals.count; first += chunk) {
    const indices = Array.from({ length: Math.min(chunk, reals.count - first) }, (_, i) => first + i);
    const exact: Float32Array[] = [];
    for (const index of indices) exact.push((await float(reals.get(index)))[name].data as Float32Array);
    indices.forEach((index, i) => floatLabels?.add(exact[i], labels!.at(index)));
    const inputs = indices.map((index) => codesAt(codes, index, folder.graph.inputs, takesData(folder)));
    for (const { runner, label, reference } of meters) {
      const outputs = (await runner.run(inputs)).map((sample: Sample) => dequantized(sample[name]).data as Float32Array);
      indices.forEach((index, i) => {
        label?.add(outputs[i], labels!.at(index));
        reference.add(outputs[i], exact[i]);
      });
    }
    onProgress(first + indices.length, reals.count);
  }
  return {
    samples: reals.count, float: floatLabels?.result() ?? null,
    targets: meters.map(({ runner, label, reference }) => ({ target: runner.target, labels: label?.result() ?? null, reference: reference.result() })),
  };
};

/** The length of the last axis; null where it is 1 or there is none, so that there are no classes to choose from. */
const classesOf = (source: Graph<'float'>, labels: Labels | null, last: unknown): number | null => {
  const classes = typeof last === 'number' && last > 1 && sizeOf(source.outputs[0].value.type.shape) > 1 ? last : null;
  if (classes === null && labels !== null) throw new CompileError(errors.badLabels(labels.name, `output ${source.outputs[0].name} has no classes`), 'usage');
  return classes;
};
