/**
 * Where rounding hurts: each layer of the quantised graph against the value of the same name in the float graph it came from, on
 * calibration samples. The error of a layer is what has come up to it, its own and that of all layers before.
 *
 *     sqnr = 10·log10(Σ y² / Σ (ŷ − y)²)
 */
import { createExecutor } from '../calibration/executor.ts';
import type { Samples } from '../calibration/samples.ts';
import type { Graph, Value } from '../ir/graph.ts';

export interface ValueNoise {
  readonly name: string;
  readonly op: string;
  readonly from: readonly string[];
  /** decibels with two decimals; null where the values are equal */
  readonly sqnrDb: number | null;
}
export interface NoiseReport {
  readonly samples: number;
  /** graph outputs by their ONNX names */
  readonly outputs: readonly { readonly name: string; readonly sqnrDb: number | null }[];
  readonly layers: readonly ValueNoise[];
}

/** Layers are few and errors alike from sample to sample: more than these change little. */
const mostSamples = 16;
const measuredOps: ReadonlySet<string> = new Set(['conv', 'linear', 'matmul', 'attention']);

export const measureNoise = (float: Graph<'float'>, quant: Graph<'quant'>, samples: Samples): NoiseReport => {
  const count = Math.min(mostSamples, samples.count);
  const nodes = quant.nodes.filter(({ op }) => measuredOps.has(op));
  const wanted = new Set([...nodes.map(({ output }) => output.name), ...quant.outputs.map(({ value }) => value.name)]);
  const counterparts = counterpartsOf(float, quant);
  const sums = new Map<string, { signal: number; noise: number }>();
  const [exact, rounded] = [createExecutor(float), createExecutor(quant)];
  for (let index = 0; index < count; index++) {
    const sample = samples.get(index);
    const reference = new Map<string, Float32Array>();
    exact.run(sample, ({ name }: Value, { data }) => {
      const counterpart = counterparts.get(name);
      if (counterpart !== undefined && wanted.has(counterpart)) reference.set(counterpart, (data as Float32Array).slice());
    });
    rounded.run(sample, ({ name }: Value, { data }) => {
      const known = reference.get(name);
      if (known === undefined || known.length !== data.length) return;
      const sum = sums.get(name) ?? { signal: 0, noise: 0 };
      for (let i = 0; i < known.length; i++) {
        sum.signal += known[i] ** 2;
        sum.noise += ((data[i] as number) - known[i]) ** 2;
      }
      sums.set(name, sum);
    });
  }
  const sqnrOf = (name: string): readonly { readonly sqnrDb: number | null }[] => {
    const sum = sums.get(name);
    return sum === undefined ? [] : [{ sqnrDb: ratio(sum.signal, sum.noise) }];
  };
  return {
    samples: count,
    outputs: quant.outputs.flatMap(({ name, value }) => sqnrOf(value.name).map((one) => ({ name, ...one }))),
    layers: nodes.flatMap(({ op, output: { name }, site }) => sqnrOf(name).map((one) => ({ name, op, from: site.origins, ...one }))),
  };
};

/**
 * Value of the float graph → name of the value of the quantised graph that stands for it. Names stay, but an activation that became
 * the saturation of the value before it is gone: what stands for its result bears that value's name.
 */
const counterpartsOf = (float: Graph<'float'>, quant: Graph<'quant'>): ReadonlyMap<string, string> => {
  const kept = new Set([...quant.inputs, ...quant.nodes.map(({ output }) => output)].map(({ name }) => name));
  const names = new Map([...kept].map((name) => [name, name]));
  for (const node of float.nodes) {
    const operand = node.inputs['x'] as Value | undefined;
    if (kept.has(node.output.name) || operand === undefined || !saturating.has(node.op)) continue;
    const standsFor = names.get(operand.name);
    if (standsFor === undefined) continue;
    names.delete(operand.name);
    names.set(node.output.name, standsFor);
  }
  return names;
};
const saturating: ReadonlySet<string> = new Set(['relu', 'clip']);

const ratio = (signal: number, noise: number): number | null => (noise === 0 ? null : Math.round(1000 * Math.log10(signal / noise)) / 100);
