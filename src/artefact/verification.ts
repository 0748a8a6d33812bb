/** Targets against the reference interpreter, bit for bit. */
import type { Sample } from '../calibration/samples.ts';
import type { Tensor } from '../ir/type.ts';
import type { Runner } from './runners.ts';

export interface Difference {
  readonly sample: number;
  readonly output: string;
  /** index in row-major order */
  readonly element: number;
  readonly expected: number;
  readonly found: number;
}
export interface TargetVerdict {
  readonly target: string;
  readonly samples: number;
  /** samples with a difference */
  readonly mismatches: number;
  readonly first: Difference | null;
}

/** Samples that the targets take at once. */
const chunk = 16;

export const verifyTargets = async (
  reference: Runner, runners: readonly Runner[], count: number, codesOf: (index: number) => Sample, onProgress: (done: number, total: number) => void,
): Promise<readonly TargetVerdict[]> => {
  const verdicts = runners.map(({ target }) => ({ target, samples: count, mismatches: 0, first: null as Difference | null }));
  for (let start = 0; start < count; start += chunk) {
    const inputs = Array.from({ length: Math.min(chunk, count - start) }, (_, i) => codesOf(start + i));
    const expected = await reference.run(inputs);
    for (const [t, runner] of runners.entries()) {
      const found = await runner.run(inputs);
      expected.forEach((sample, i) => {
        const difference = firstDifference(sample, found[i], start + i);
        if (difference === null) return;
        verdicts[t].mismatches++;
        verdicts[t].first ??= difference;
      });
    }
    onProgress(start + inputs.length, count);
  }
  return verdicts;
};

const firstDifference = (expected: Sample, found: Sample, sample: number): Difference | null => {
  for (const [output, { data }] of Object.entries(expected)) {
    const other = found[output] as Tensor | undefined;
    for (let element = 0; element < data.length; element++) {
      if (data[element] !== other?.data[element]) return { sample, output, element, expected: Number(data[element]), found: Number(other?.data[element] ?? NaN) };
    }
  }
  return null;
};
