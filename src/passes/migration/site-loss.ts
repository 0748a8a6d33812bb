/**
 * What rounding costs at a site, as a function of the change of its channels, from per-channel moments alone. For a layer y = W·x that
 * reads x' = (x − z)/s through codes of step Δ, with weights W' = W·diag(s) rounded in steps δ_i of their row:
 *
 *     L = Σ_i ω_i Σ_j [ W'_ij²·min(σ'_j², Δ²/12) + min(W'_ij², δ_i²/12)·σ'_j² ],   σ'_j² = Var[x_j]/s_j²
 *
 * A channel whose spread is below the step, or a weight below its step, costs no more than its loss altogether. Constant errors do not
 * count: bias correction removes them. ω_i is how strongly the next layer reads output i, so that L does not depend on the scale at
 * which a network keeps an intermediate channel. Products of attention have the same form with the other operand in place of W.
 *
 * Source: Wei et al. 2023, Outlier Suppression+, with its sampled loss replaced by these expectations.
 */
import { staticShape } from '../../ir/dim.ts';
import { constantOf, usersOf, type Graph, type Node, type Value } from '../../ir/graph.ts';
import { int } from '../../ir/op.ts';
import type { ChannelMoments } from '../../calibration/calibration.ts';
import { scaleAt, shiftAt, type Change } from './change.ts';
import { channelsOf } from './channel-rules.ts';

/** Bits that operands will have. */
export interface Widths {
  readonly weights: number;
  readonly activations: number;
  /** of operands of products of activations */
  readonly attention: number;
}

/** As options of a pass. */
export const widthOptions = {
  weights: int('bits that weights will have, 2 to 8; 0: what the size that bits are chosen for leaves on average', 8),
  activations: int('bits of what is multiplied by weights, 2 to 8', 8),
  attention: int('bits of what is multiplied by other activations, 2 to 8', 8),
};

export interface Facts {
  readonly graph: Graph<'float'>;
  readonly users: ReadonlyMap<Value, readonly Node[]>;
  readonly moments: ReadonlyMap<string, ChannelMoments>;
  readonly widths: Widths;
}
export const factsOf = (graph: Graph<'float'>, moments: Facts['moments'], widths: Widths): Facts => ({ graph, users: usersOf(graph), moments, widths });

export type ChangeOf = (value: Value) => Change;

/** One product that reads values of a site. */
export interface Term {
  loss(change: ChangeOf): number;
}

/** Rows of a weight that the loss looks at, at most; evenly spread over the layer. */
const MOST_ROWS = 256;
/** Σ p² of a row of softmax: how much of the noise of single keys and values is left in their weighted sum. */
const CONCENTRATION = 0.1;

/** The terms of all products that read one of the values. */
export const termsOf = (values: readonly Value[], facts: Facts): readonly Term[] => {
  const inside = new Set(values);
  const nodes = new Set(values.flatMap((value) => facts.users.get(value) ?? []));
  return [...nodes].flatMap((node): readonly Term[] => {
    if (node.op === 'linear' || node.op === 'conv') {
      const x = node.inputs['x'] as Value;
      return inside.has(x) && constantOf(node.inputs['weight'] as Value) !== null ? [layerTerm(node, x, facts)] : [];
    }
    return node.op === 'attention' ? attentionTerms(node, inside, facts) : [];
  });
};

// ---- codes of changed channels

interface Spread {
  /** variance of each channel in its new unit */
  readonly variance: Float64Array;
  /** mean of squares of each channel in its new unit */
  readonly squares: Float64Array;
  /** of the codes, in the new unit */
  readonly step: number;
}

const spreadOf = ({ low, high, mean, squares }: ChannelMoments, change: Change, bits: number, symmetric: boolean): Spread => {
  let [least, greatest] = [0, 0];
  const variance = new Float64Array(low.length);
  const power = new Float64Array(low.length);
  for (let c = 0; c < low.length; c++) {
    const [s, z] = [scaleAt(change, c), shiftAt(change, c)];
    least = Math.min(least, (low[c] - z) / s);
    greatest = Math.max(greatest, (high[c] - z) / s);
    variance[c] = Math.max(0, squares[c] - mean[c] * mean[c]) / (s * s);
    const centre = (mean[c] - z) / s;
    power[c] = variance[c] + centre * centre;
  }
  const step = symmetric ? Math.max(-least, greatest) / (2 ** (bits - 1) - 1) : (greatest - least) / (2 ** bits - 1);
  return { variance, squares: power, step };
};

/** Mean square of the error of rounding to multiples of a step. */
const roundingNoise = (step: number): number => (step * step) / 12;

// ---- layers

const layerTerm = (node: Node, x: Value, facts: Facts): Term => {
  const moments = facts.moments.get(x.name)!;
  const { weights: weightBits, activations: bits } = facts.widths;
  const { rows, depth, first, largest, squares, taps, importance } = weightRows(node, facts);
  const most = 2 ** (weightBits - 1) - 1;
  return {
    loss(change) {
      const spread = spreadOf(moments, change(x), bits, false);
      const noise = spread.variance.map((v) => Math.min(v, roundingNoise(spread.step)));
      const scale = Float64Array.from(noise, (_, c) => scaleAt(change(x), c));
      let total = 0;
      for (let r = 0, at = 0; r < rows; r++, at += depth) {
        let greatest = 0;
        for (let d = 0; d < depth; d++) greatest = Math.max(greatest, largest[at + d] * scale[first[r] + d]);
        const weightNoise = taps * roundingNoise(greatest / most);
        let sum = 0;
        for (let d = 0; d < depth; d++) {
          const c = first[r] + d;
          const power = squares[at + d] * scale[c] * scale[c];
          sum += power * noise[c] + Math.min(power, weightNoise) * spread.variance[c];
        }
        total += importance[r] * sum;
      }
      return total;
    },
  };
};

/** The weights of some output channels, joined over the taps of a window. */
interface WeightRows {
  readonly rows: number;
  readonly depth: number;
  readonly taps: number;
  /** first input channel that each row reads */
  readonly first: Int32Array;
  /** of [rows, depth]: greatest magnitude and sum of squares over the taps */
  readonly largest: Float64Array;
  readonly squares: Float64Array;
  /** ω of each row, times the number of rows that it stands for */
  readonly importance: Float64Array;
}

const weightRows = (node: Node, facts: Facts): WeightRows => {
  const weight = constantOf(node.inputs['weight'] as Value)!;
  const shape = staticShape(weight.type.shape);
  const data = weight.data as Float32Array;
  const [outputs, depth] = [shape[0], shape[shape.length - 1]];
  const taps = data.length / outputs / depth;
  const rows = Math.min(outputs, MOST_ROWS);
  const groups = (node.attrs['group'] as number | undefined) ?? 1;
  const gains = gainOf(node.output, facts);
  const made: WeightRows = {
    rows, depth, taps, first: new Int32Array(rows), largest: new Float64Array(rows * depth), squares: new Float64Array(rows * depth), importance: new Float64Array(rows),
  };
  for (let r = 0; r < rows; r++) {
    const row = Math.floor((r * outputs) / rows);
    made.first[r] = Math.floor((row * groups) / outputs) * depth;
    made.importance[r] = (gains[row] * outputs) / rows;
    for (let t = 0, at = row * taps * depth; t < taps; t++) for (let d = 0; d < depth; d++, at++) {
      const w = Math.abs(data[at]);
      made.largest[r * depth + d] = Math.max(made.largest[r * depth + d], w);
      made.squares[r * depth + d] += w * w;
    }
  }
  return made;
};

// ---- attention

const attentionTerms = (node: Node, inside: ReadonlySet<Value>, facts: Facts): readonly Term[] => {
  const [q, k, v] = ['q', 'k', 'v'].map((slot) => node.inputs[slot] as Value);
  const [ofQ, ofK, ofV] = [q, k, v].map((value) => facts.moments.get(value.name)!);
  const bits = facts.widths.attention;
  const gains = gainOf(node.output, facts);
  const logitGain = logitGainOf(node, facts);
  const products: Term = {
    loss(change) {
      const [a, b] = [spreadOf(ofQ, change(q), bits, true), spreadOf(ofK, change(k), bits, true)];
      // what all keys share does not move softmax
      let sum = 0;
      for (let c = 0; c < a.variance.length; c++) {
        sum += Math.min(roundingNoise(a.step), a.squares[c]) * b.variance[c] + Math.min(roundingNoise(b.step), b.variance[c]) * a.squares[c];
      }
      return logitGain * sum;
    },
  };
  const values: Term = {
    loss(change) {
      const spread = spreadOf(ofV, change(v), bits, true);
      const noise = CONCENTRATION * roundingNoise(spread.step);
      const unit = (c: number): number => scaleAt(change(v), c);
      return gains.reduce((sum, gain, c) => sum + gain * Math.min(noise, spread.variance[c]) * unit(c) * unit(c), 0);
    },
  };
  return [...(inside.has(q) || inside.has(k) ? [products] : []), ...(inside.has(v) ? [values] : [])];
};

/** What an error of the products q·k costs: it moves weight between values that differ by their spread. */
const logitGainOf = (node: Node, facts: Facts): number => {
  const v = node.inputs['v'] as Value;
  const { mean, squares } = facts.moments.get(v.name)!;
  const gains = gainOf(node.output, facts);
  const perHead = gains.reduce((sum, gain, c) => sum + gain * Math.max(0, squares[c] - mean[c] * mean[c]), 0) / (node.attrs['heads'] as number);
  const scale = node.attrs['scale'] as number;
  return CONCENTRATION * scale * scale * perHead;
};

// ---- how strongly a value is read

/** Ops through which the next layer is looked for. */
const transparent: ReadonlySet<string> = new Set([
  'relu', 'clip', 'gelu', 'silu', 'hard_swish', 'leaky_relu', 'elu', 'mish', 'reshape', 'transpose', 'max_pool', 'average_pool', 'reduce_mean', 'reduce_max', 'slice', 'concat', 'pad',
]);

/** For each channel, the sum of squares of the weights that read it in the next layers; 1 where it is not read by a layer. */
export const gainOf = (value: Value, facts: Facts): Float64Array => {
  const channels = channelsOf(value);
  const gain = new Float64Array(channels);
  for (const node of facts.users.get(value) ?? []) addGain(node, value, gain, facts);
  return gain.every((g) => g === 0) ? gain.fill(1) : gain;
};

const addGain = (node: Node, value: Value, gain: Float64Array, facts: Facts): void => {
  const ones = (): void => gain.forEach((g, c) => { gain[c] = g + 1; });
  if ((node.op === 'linear' || node.op === 'conv') && node.inputs['x'] === value) return addColumns(node, gain);
  if (node.op === 'attention') {
    const { q, k, v } = node.inputs as Readonly<Record<'q' | 'k' | 'v', Value>>;
    const logits = value === v ? 0 : logitGainOf(node, facts);
    const other = facts.moments.get((value === q ? k : q).name);
    const passed = value === v ? gainOf(node.output, facts) : null;
    const varying = (c: number): number => other!.squares[c] - (value === q ? other!.mean[c] * other!.mean[c] : 0);
    gain.forEach((g, c) => { gain[c] = g + (passed === null ? logits * varying(c) : passed[c]); });
    return;
  }
  if (!transparent.has(node.op) || channelsOf(node.output) !== gain.length) return ones();
  const passed = gainOf(node.output, facts);
  gain.forEach((g, c) => { gain[c] = g + passed[c]; });
};

const addColumns = (node: Node, gain: Float64Array): void => {
  const weight = constantOf(node.inputs['weight'] as Value);
  if (weight === null) return;
  const data = weight.data as Float32Array;
  const shape = staticShape(weight.type.shape);
  const [outputs, depth] = [shape[0], shape[shape.length - 1]];
  const groups = (node.attrs['group'] as number | undefined) ?? 1;
  const length = data.length / outputs;
  for (let row = 0, at = 0; row < outputs; row++) {
    const first = Math.floor((row * groups) / outputs) * depth;
    for (let i = 0; i < length; i++, at++) gain[first + (i % depth)] += data[at] * data[at];
  }
};
