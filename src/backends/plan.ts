/**
 * Memory plan: where every value of the program stands. Inputs and outputs of the graph belong to the caller; everything else lies in
 * one arena whose size is known at compile time. Two pieces of the arena overlap only if no step needs both.
 */
import { isNode, type Graph, type Value } from '../ir/graph.ts';
import { bytesOf, type Grouping, type Step } from './group.ts';

/** Which memory, and the byte offset in it. `index` is the position in the graph's list of inputs or outputs, 0 for the others. */
export interface Place {
  readonly memory: 'input' | 'output' | 'arena' | 'constant';
  readonly index: number;
  readonly offset: number;
  readonly bytes: number;
  /** of scratch memory: where it begins within that of its step, which every thread has its own copy of */
  readonly own?: number;
}
/** A piece of the arena and the steps, first and last, during which it must keep its content. */
export interface Piece {
  readonly name: string;
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
  readonly offset: number;
}
/** A graph output that is not written where it belongs, since it is an input, a constant, or a part of another value. */
export interface OutputCopy {
  readonly from: Value;
  readonly output: number;
  readonly bytes: number;
}
export interface Plan {
  readonly placeOf: (value: Value) => Place;
  /** for each step, where its scratch memory lies; null where it has none */
  readonly scratch: readonly (Place | null)[];
  readonly copies: readonly OutputCopy[];
  /** for each step, the operand whose memory its result takes over, or null */
  readonly inPlace: readonly (Value | null)[];
  readonly pieces: readonly Piece[];
  readonly arenaBytes: number;
  /** the most that is alive at once: no plan can need less */
  readonly liveBytes: number;
}

export interface PlanOptions {
  /** bytes of scratch memory of each step */
  readonly scratchBytes: readonly number[];
  /** for each step, the operands whose memory its result may overwrite element by element; the first that dies there is taken */
  readonly overwrites: readonly (readonly Value[])[];
  /** every piece starts at a multiple of this */
  readonly alignment: 16 | 64;
}

export const planMemory = (graph: Graph, { steps, viewOf }: Grouping, { scratchBytes, overwrites, alignment }: PlanOptions): Plan => {
  const lifetimes = lifetimesOf(graph, steps, viewOf);
  const { claimed, copies } = claimOutputs(graph, viewOf);
  const { merged, inPlace } = mergeInPlace(steps, viewOf, lifetimes, overwrites, claimed);

  const requests: Request[] = [];
  for (const [base, { first, last }] of lifetimes) {
    if (!claimed.has(base) && !merged.has(base)) requests.push({ owner: base, name: base.name, bytes: bytesOf(base), first, last });
  }
  scratchBytes.forEach((bytes, step) => {
    if (bytes > 0) requests.push({ owner: step, name: `scratch of ${steps[step].output.name}`, bytes, first: step, last: step });
  });
  const { offsets, size } = placePieces(requests, alignment);

  const rootOf = (base: Value): Value => { const into = merged.get(base); return into === undefined ? base : rootOf(into); };
  const inputs = new Map(graph.inputs.map((value, i) => [value, i]));
  const placeOf = (value: Value): Place => {
    const { base, offset } = viewOf(value);
    const bytes = bytesOf(value);
    if (base.def.op === 'const') return { memory: 'constant', index: 0, offset, bytes };
    const input = inputs.get(base);
    if (input !== undefined) return { memory: 'input', index: input, offset, bytes };
    const root = rootOf(base);
    const output = claimed.get(root);
    if (output !== undefined) return { memory: 'output', index: output, offset, bytes };
    return { memory: 'arena', index: 0, offset: offsets.get(root)! + offset, bytes };
  };
  return {
    placeOf, copies, inPlace, arenaBytes: size,
    scratch: scratchBytes.map((bytes, step) => (bytes > 0 ? { memory: 'arena', index: 0, offset: offsets.get(step)!, bytes } : null)),
    pieces: requests.map(({ owner, name, bytes, first, last }) => ({ name, bytes, first, last, offset: offsets.get(owner)! })),
    liveBytes: Math.max(0, ...steps.map((_, step) => sum(requests.filter(({ first, last }) => first <= step && step <= last).map(({ bytes }) => bytes)))),
  };
};

/** Bases that are written where a graph output belongs, with its index; and the outputs that are not. */
export const claimOutputs = (graph: Graph, viewOf: Grouping['viewOf']): { readonly claimed: ReadonlyMap<Value, number>; readonly copies: readonly OutputCopy[] } => {
  const claimed = new Map<Value, number>();
  const copies: OutputCopy[] = [];
  graph.outputs.forEach(({ value }, output) => {
    const { base, offset } = viewOf(value);
    if (isNode(base.def) && offset === 0 && bytesOf(base) === bytesOf(value) && !claimed.has(base)) claimed.set(base, output);
    else copies.push({ from: value, output, bytes: bytesOf(value) });
  });
  return { claimed, copies };
};

const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);

export interface Lifetime {
  first: number;
  last: number;
}

/** First writing and last reading step of every base that steps make; graph outputs live until after the last step. */
export const lifetimesOf = (graph: Graph, steps: readonly Step[], viewOf: Grouping['viewOf']): Map<Value, Lifetime> => {
  const lifetimes = new Map<Value, Lifetime>();
  const touch = (value: Value, step: number): void => {
    const { base } = viewOf(value);
    if (!isNode(base.def)) return;
    const lifetime = lifetimes.get(base);
    if (lifetime === undefined) lifetimes.set(base, { first: step, last: step });
    else lifetime.last = Math.max(lifetime.last, step);
  };
  steps.forEach(({ operands, output }, step) => [...operands, output].forEach((value) => touch(value, step)));
  graph.outputs.forEach(({ value }) => touch(value, steps.length));
  return lifetimes;
};

/**
 * Results that take over the memory of an operand: the step reads and writes element by element, nothing reads the operand later, and
 * both fill their memory exactly. Returns the base that each such result stands in, and lengthens that base's life.
 */
const mergeInPlace = (
  steps: readonly Step[], viewOf: Grouping['viewOf'], lifetimes: ReadonlyMap<Value, Lifetime>, overwrites: readonly (readonly Value[])[],
  claimed: ReadonlyMap<Value, number>,
): { readonly merged: ReadonlyMap<Value, Value>; readonly inPlace: readonly (Value | null)[] } => {
  const merged = new Map<Value, Value>();
  const inPlace: (Value | null)[] = steps.map(() => null);
  const rootOf = (base: Value): Value => { const into = merged.get(base); return into === undefined ? base : rootOf(into); };
  steps.forEach((step, i) => {
    const result = viewOf(step.output).base;
    if (result !== step.output || claimed.has(result)) return;
    const dies = (operand: Value): boolean => {
      const source = viewOf(operand).base;
      return lifetimes.get(source)?.last === i && !claimed.has(rootOf(source)) && bytesOf(operand) === bytesOf(source) && bytesOf(result) === bytesOf(source);
    };
    const operand = overwrites[i].find(dies);
    if (operand === undefined) return;
    const source = viewOf(operand).base;
    merged.set(result, source);
    inPlace[i] = operand;
    const root = lifetimes.get(rootOf(source))!;
    root.last = Math.max(root.last, lifetimes.get(result)!.last);
  });
  return { merged, inPlace };
};

export interface Request {
  readonly owner: Value | number;
  readonly name: string;
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

/**
 * Offsets by best fit: pieces in a given order, each into the smallest gap, between the pieces alive at the same time, that holds it.
 * Three orders are tried (largest first, longest-lived first, earliest first) and the smallest arena is kept.
 */
export const placePieces = (requests: readonly Request[], alignment: number): { offsets: ReadonlyMap<Value | number, number>; size: number } => {
  const span = ({ first, last }: Request): number => last - first;
  const orders: readonly ((a: Request, b: Request) => number)[] = [
    (a, b) => b.bytes - a.bytes || a.first - b.first,
    (a, b) => span(b) - span(a) || b.bytes - a.bytes || a.first - b.first,
    (a, b) => a.first - b.first || b.bytes - a.bytes,
  ];
  const plans = orders.map((order) => placeInOrder([...requests].sort(order), alignment));
  return plans.reduce((best, plan) => (plan.size < best.size ? plan : best));
};

const placeInOrder = (requests: readonly Request[], alignment: number): { offsets: Map<Value | number, number>; size: number } => {
  const alignUp = (offset: number): number => Math.ceil(offset / alignment) * alignment;
  const placed: { request: Request; offset: number }[] = [];
  const offsets = new Map<Value | number, number>();
  let size = 0;
  for (const request of requests) {
    const rivals = placed.filter(({ request: other }) => other.first <= request.last && request.first <= other.last).sort((a, b) => a.offset - b.offset);
    let end = 0;
    let best: { offset: number; gap: number } | null = null;
    for (const { request: other, offset } of rivals) {
      const gap = offset - end;
      if (gap >= request.bytes && (best === null || gap < best.gap)) best = { offset: end, gap };
      end = Math.max(end, alignUp(offset + other.bytes));
    }
    const offset = best?.offset ?? end;
    placed.push({ request, offset });
    offsets.set(request.owner, offset);
    size = Math.max(size, alignUp(offset + request.bytes));
  }
  return { offsets, size };
};
