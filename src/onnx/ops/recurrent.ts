/**
 * Recurrent layers, unrolled: the sequence has a known length, and every step becomes ops of its own. Each gate has its own linears, so
 * that each gets its own range later. Weights are shared by the steps.
 */
import { isStatic, type Dim } from '../../ir/dim.ts';
import { constantOf, type Value } from '../../ir/graph.ts';
import { add, concat, linear, mul, reshape, sigmoid, slice, sub, tanh, transpose } from '../../ir/ops/index.ts';
import type { Handler, Handlers, OnnxNode } from '../node.ts';

/** Longest sequence that is unrolled. */
const MAX_STEPS = 256;

interface Layer {
  readonly steps: number;
  readonly batch: Dim;
  readonly hidden: number;
  readonly directions: readonly ('forward' | 'reverse')[];
  /** [steps, batch, inputs] */
  readonly x: Value;
  /** false: [steps, batch, ..]; true: [batch, steps, ..], as `layout` says */
  readonly batchFirst: boolean;
}
/** One step: the gates' share of the input at step t, and the state; returns the new state, the output first. */
type StepOf = (t: number, state: readonly Value[], stem: string) => readonly Value[];

const layerOf = (n: OnnxNode, gates: number, activations: readonly string[]): Layer => {
  const direction = n.string('direction', 'forward');
  const directions = direction === 'bidirectional' ? ['forward', 'reverse'] as const : [direction === 'reverse' ? 'reverse' as const : 'forward' as const];
  n.ignore('activation_alpha', 'activation_beta', 'hidden_size', 'activations');
  if (n.hasAttr('activations')) {
    const names = n.strings('activations');
    if (names.some((name, i) => name !== activations[i % activations.length])) n.refuse(`the activations ${names.join(', ')}`);
  }
  if (n.hasAttr('clip')) n.refuse('clipped gates');
  const batchFirst = n.int('layout', 0) !== 0;
  const given = n.value(0);
  const x = batchFirst ? n.emit(transpose, { x: given }, { perm: [1, 0, 2] }, 'steps') : given;
  const [steps, batch] = x.type.shape;
  if (!isStatic(steps) || steps > MAX_STEPS) return n.refuse(`a sequence of ${isStatic(steps) ? steps : 'unknown'} steps`);
  if (n.has(4) && n.numbers(4).some((length) => length !== steps)) n.refuse('sequences of different lengths');
  const recurrence = n.value(2).type.shape;
  const hidden = recurrence[recurrence.length - 1];
  if (!isStatic(hidden) || recurrence[1] !== gates * hidden || recurrence[0] !== directions.length) return n.fail('the recurrence weight does not fit');
  if ([1, 2].some((index) => constantOf(n.value(index)) === null)) n.refuse('its weights are computed');
  return { steps, batch, hidden, directions, x, batchFirst };
};

/** Rows [from, to) of one direction of a parameter [directions, rows, ..]. */
const part = (n: OnnxNode, index: number, direction: number, from: number, to: number, stem: string): Value => {
  const all = n.value(index);
  const one = n.emit(slice, { x: all }, { axis: 0, start: direction, end: direction + 1 }, `${stem}.direction`);
  const rows = n.emit(slice, { x: one }, { axis: 1, start: from, end: to }, `${stem}.rows`);
  return n.emit(reshape, { x: rows }, { shape: rows.type.shape.slice(1) }, stem);
};
/** The bias of a gate of one direction, of the input (0) or the recurrence (1); null where the layer has none. */
const biasOf = (n: OnnxNode, direction: number, gate: number, hidden: number, gates: number, side: 0 | 1, stem: string): Value | null =>
  n.has(3) ? part(n, 3, direction, (side * gates + gate) * hidden, (side * gates + gate + 1) * hidden, stem) : null;
const sum = (n: OnnxNode, a: Value | null, b: Value | null, stem: string): Value | null => (a !== null && b !== null ? n.emit(add, { x: a, y: b }, {}, stem) : null);

/** W·x of one gate for all steps, then cut into steps of [batch, hidden]. */
const projected = (n: OnnxNode, { x, steps, batch, hidden }: Layer, direction: number, gate: number, bias: Value | null, stem: string): readonly Value[] => {
  const weight = part(n, 1, direction, gate * hidden, (gate + 1) * hidden, `${stem}.weight`);
  const all = n.emit(linear, { x, weight, bias }, {}, `${stem}.input`);
  return Array.from({ length: steps }, (_, t) => {
    const one = n.emit(slice, { x: all }, { axis: 0, start: t, end: t + 1 }, `${stem}.at${t}`);
    return n.emit(reshape, { x: one }, { shape: [batch, hidden] }, `${stem}.step${t}`);
  });
};

/** Runs the steps of every direction and lays out the results: all outputs, last output, other last states. */
const unrolled = (n: OnnxNode, layer: Layer, initial: readonly number[], stepOf: (direction: number) => StepOf): readonly Value[] => {
  const { steps, batch, hidden, directions, batchFirst } = layer;
  const finals = directions.map((way, d) => {
    let state: readonly Value[] = initial.map((index): Value => {
      if (!n.has(index)) return n.realConstant([1, hidden], new Float32Array(hidden), `state${index}`);
      const given = batchFirst ? n.emit(transpose, { x: n.value(index) }, { perm: [1, 0, 2] }, `state${index}.turned`) : n.value(index);
      const one = n.emit(slice, { x: given }, { axis: 0, start: d, end: d + 1 }, `state${index}.direction${d}`);
      return n.emit(reshape, { x: one }, { shape: [batch, hidden] }, `state${index}.start${d}`);
    });
    const step = stepOf(d);
    const outputs: Value[] = [];
    for (let k = 0; k < steps; k++) {
      const t = way === 'forward' ? k : steps - 1 - k;
      state = step(t, state, `${way}.step${t}`);
      outputs[t] = state[0];
    }
    return { outputs, state };
  });
  const stack = (values: readonly Value[], axis: number, stem: string): Value => (values.length === 1 ? values[0] : n.emit(concat, { xs: values }, { axis }, stem));
  const shaped = (x: Value, shape: readonly Dim[], stem: string): Value => n.emit(reshape, { x }, { shape }, stem);
  const sequences = finals.map(({ outputs }, d) => stack(outputs.map((x, t) => shaped(x, [1, 1, batch, hidden], `all${d}.${t}`)), 0, `all${d}`));
  const turned = (x: Value, perm: readonly number[], as: number): Value => (batchFirst ? n.emit(transpose, { x }, { perm }, as) : x);
  const lasts = initial.map((_, i) => stack(finals.map(({ state }, d) => shaped(state[i], [1, batch, hidden], `last${d}.${i}`)), 0, `last.${i}`));
  return [turned(stack(sequences, 1, 'all'), [2, 0, 1, 3], 0), ...lasts.map((x, i) => turned(x, [1, 0, 2], i + 1))];
};

/** Hochreiter and Schmidhuber, 1997: gates i, o, f and candidate c in ONNX's order; c' = f·c + i·g, h' = o·tanh(c'). */
const lstm: Handler = (n) => {
  const layer = layerOf(n, 4, ['Sigmoid', 'Tanh', 'Tanh']);
  if (n.has(7)) n.refuse('peepholes');
  if (n.int('input_forget', 0) !== 0) n.refuse('coupled input and forget gates');
  const { hidden } = layer;
  return unrolled(n, layer, [5, 6], (d) => {
    const gates = ['i', 'o', 'f', 'c'].map((name, gate) => {
      const stem = `direction${d}.${name}`;
      const bias = sum(n, biasOf(n, d, gate, hidden, 4, 0, `${stem}.bias.input`), biasOf(n, d, gate, hidden, 4, 1, `${stem}.bias.state`), `${stem}.bias`);
      return { inputs: projected(n, layer, d, gate, bias, stem), weight: part(n, 2, d, gate * hidden, (gate + 1) * hidden, `${stem}.recurrence`) };
    });
    return (t, [h, c], stem) => {
      const [input, output, forget, candidate] = gates.map(({ inputs, weight }, gate) => {
        const name = `${stem}.${'iofc'[gate]}`;
        const total = n.emit(add, { x: inputs[t], y: n.emit(linear, { x: h, weight, bias: null }, {}, `${name}.state`) }, {}, `${name}.sum`);
        return n.emit(gate === 3 ? tanh : sigmoid, { x: total }, {}, name);
      });
      const kept = n.emit(mul, { x: forget, y: c }, {}, `${stem}.kept`);
      const cell = n.emit(add, { x: kept, y: n.emit(mul, { x: input, y: candidate }, {}, `${stem}.new`) }, {}, `${stem}.cell`);
      return [n.emit(mul, { x: output, y: n.emit(tanh, { x: cell }, {}, `${stem}.squashed`) }, {}, `${stem}.output`), cell];
    };
  });
};

/** Cho et al., 2014: gates z, r and candidate h in ONNX's order; h' = (1 - z)·g + z·h, the reset before or after the recurrence. */
const gru: Handler = (n) => {
  const layer = layerOf(n, 3, ['Sigmoid', 'Tanh']);
  const resetsLater = n.int('linear_before_reset', 0) !== 0;
  const { hidden } = layer;
  return unrolled(n, layer, [5], (d) => {
    const gates = ['z', 'r', 'h'].map((name, gate) => {
      const stem = `direction${d}.${name}`;
      const [ofInput, ofState] = [biasOf(n, d, gate, hidden, 3, 0, `${stem}.bias.input`), biasOf(n, d, gate, hidden, 3, 1, `${stem}.bias.state`)];
      const separate = gate === 2 && resetsLater;
      const bias = separate ? ofInput : sum(n, ofInput, ofState, `${stem}.bias`);
      return {
        inputs: projected(n, layer, d, gate, bias, stem), bias: separate ? ofState : null,
        weight: part(n, 2, d, gate * hidden, (gate + 1) * hidden, `${stem}.recurrence`),
      };
    });
    const share = (gate: number, x: Value, stem: string): Value => n.emit(linear, { x, weight: gates[gate].weight, bias: gates[gate].bias }, {}, stem);
    return (t, [h], stem) => {
      const [update, reset] = [0, 1].map((gate) => {
        const name = `${stem}.${'zr'[gate]}`;
        return n.emit(sigmoid, { x: n.emit(add, { x: gates[gate].inputs[t], y: share(gate, h, `${name}.state`) }, {}, `${name}.sum`) }, {}, name);
      });
      const recurrent = resetsLater ? n.emit(mul, { x: reset, y: share(2, h, `${stem}.h.state`) }, {}, `${stem}.h.reset`)
        : share(2, n.emit(mul, { x: reset, y: h }, {}, `${stem}.h.reset`), `${stem}.h.state`);
      const candidate = n.emit(tanh, { x: n.emit(add, { x: gates[2].inputs[t], y: recurrent }, {}, `${stem}.h.sum`) }, {}, `${stem}.h`);
      // (1 - z)·g + z·h = g + z·(h - g)
      const change = n.emit(mul, { x: update, y: n.emit(sub, { x: h, y: candidate }, {}, `${stem}.gap`) }, {}, `${stem}.change`);
      return [n.emit(add, { x: candidate, y: change }, {}, `${stem}.output`)];
    };
  });
};

export const recurrent: Handlers = { LSTM: lstm, GRU: gru };
