/**
 * Where the values of a program stand. What a step made and another reads stays in ABUF from its first to its last step as far as
 * there is room beside the tiles of the steps in between; the rest lies outside, and so do inputs and outputs of the graph. Codes
 * of four bits lie two to a byte where every step that touches them can work on pairs.
 */
import { accumulatorBounds, hullOf } from '../../ir/bounds.ts';
import { factOf } from '../../ir/analysis.ts';
import { isStaticShape, sizeOf, staticShape } from '../../ir/dim.ts';
import { bitsOf, storageBytes } from '../../ir/dtype.ts';
import { isConstant, isNode, operandsOf, type Value } from '../../ir/graph.ts';
import type { Program } from '../backend.ts';
import type { Step } from '../group.ts';
import { claimOutputs, lifetimesOf, placePieces, type Lifetime, type OutputCopy, type Request } from '../plan.ts';
import { alignUp } from './blobs.ts';
import { bytesFor, type Element } from './isa.ts';
import type { Machine } from './machine.ts';
import { plainElement } from './steps/finish.ts';
import type { Home } from './stream.ts';

export interface Homes {
  /** null for a constant */
  readonly homeOf: (value: Value) => Home | { readonly memory: 'input' | 'output'; readonly index: number; readonly address: number } | null;
  readonly elementOf: (value: Value) => Element;
  readonly activationBits: (value: Value) => 4 | 8 | 16;
  /** the widest part of ABUF that holds no value during a step */
  readonly freeAt: (step: number) => readonly [from: number, to: number];
  /** bases on chip during a step, with their bytes */
  readonly onChipAt: (step: number) => readonly { readonly base: Value; readonly bytes: number }[];
  readonly copies: readonly OutputCopy[];
  /** bytes outside for values that are neither inputs nor outputs */
  readonly arenaBytes: number;
}

interface Resident extends Lifetime { readonly base: Value; readonly from: number; readonly to: number }

/** `refused`: bases that must stand outside. */
export const planHomes = ({ graph, steps, viewOf }: Program, machine: Machine, refused: ReadonlySet<Value>): Homes => {
  const size = machine.memories.ABUF;
  const lifetimes = lifetimesOf(graph, steps, viewOf);
  const { claimed, copies } = claimOutputs(graph, viewOf);
  const elements = elementsOf({ graph, steps, viewOf }, new Set([...claimed.keys(), ...copies.map(({ from }) => viewOf(from).base)]));
  const elementOf = (value: Value): Element => elements.get(viewOf(value).base) ?? plainElement(value.type.dtype);
  const bytesOf = (base: Value): number => bytesFor(elementOf(base), sizeOf(base.type.shape));

  // the table of a gathering is read by the engine that loads, from outside
  const gathered = new Set(steps.flatMap(({ root }) => (root.op === 'gather_rows' ? [viewOf(root.inputs['table'] as Value).base] : [])));
  const reads = new Map<Value, number>();
  for (const { operands } of steps) for (const base of new Set(operands.map((value) => viewOf(value).base))) reads.set(base, (reads.get(base) ?? 0) + 1);
  const span = (base: Value): number => lifetimes.get(base)!.last - lifetimes.get(base)!.first + 1;
  /** moves saved for each step of a life */
  const gain = (base: Value): number => (1 + (reads.get(base) ?? 0)) / span(base);
  const candidates = [...lifetimes.keys()].filter((base) => !claimed.has(base) && !refused.has(base) && !gathered.has(base) && bytesOf(base) > 0 && bytesOf(base) <= size)
    .map((base, order) => ({ base, order })).sort((a, b) => gain(b.base) - gain(a.base) || bytesOf(b.base) - bytesOf(a.base) || a.order - b.order).map(({ base }) => base);

  let residents: readonly Resident[] = [];
  // a second round knows which values stand outside, and leaves room for their tiles
  let inside = new Set(candidates);
  for (let round = 0; round < 2; round++) {
    const touched = steps.map(({ operands, output }) => [...new Set([...operands, output].map((value) => viewOf(value).base))]);
    const tiles = touched.map((bases) => Math.min(size / 4, bases.filter((base) => !inside.has(base)).reduce((sum, base) => sum + 2 * alignUp(bytesOf(base)), 0)));
    residents = candidates.reduce<readonly Resident[]>((placed, base) => {
      const { first, last } = lifetimes.get(base)!;
      const from = firstGap(placed.filter((other) => other.first <= last && first <= other.last), alignUp(bytesOf(base)), size);
      if (from === null) return placed;
      const more = [...placed, { base, first, last, from, to: from + alignUp(bytesOf(base)) }];
      for (let step = first; step <= Math.min(last, steps.length - 1); step++) {
        const [free, end] = widestGap(more, step, size);
        if (end - free < tiles[step]) return placed;
      }
      return more;
    }, []);
    inside = new Set(residents.map(({ base }) => base));
  }

  const outside = [...lifetimes].filter(([base]) => !claimed.has(base) && !inside.has(base)).map(([base, { first, last }]): Request => ({ owner: base, name: base.name, bytes: bytesOf(base), first, last }));
  const { offsets, size: arenaBytes } = placePieces(outside, 64);
  const chip = new Map(residents.map(({ base, from }) => [base, from]));
  const inputs = new Map(graph.inputs.map((value, i) => [value, i]));
  const bounds = factOf(graph, accumulatorBounds);
  return {
    elementOf, copies, arenaBytes,
    activationBits: (value) => (bitsOf(value.type.dtype) > 8 ? 16 : bitsOf(value.type.dtype) <= 4 || fourBits(hullOf(bounds.get(value)!)) !== null ? 4 : 8),
    freeAt: (step) => widestGap(residents, step, size),
    onChipAt: (step) => residents.filter(({ first, last }) => first <= step && step <= last).map(({ base, from, to }) => ({ base, bytes: to - from })),
    homeOf: (value) => {
      const { base, offset } = viewOf(value);
      if (isConstant(base)) return null;
      // offsets of views count bytes of whole codes
      const shift = offset / storageBytes(base.type.dtype);
      const address = bytesFor(elementOf(base), shift);
      const input = inputs.get(base);
      if (input !== undefined) return { memory: 'input', index: input, address };
      const output = claimed.get(base);
      if (output !== undefined) return { memory: 'output', index: output, address };
      const resident = chip.get(base);
      return resident === undefined ? { memory: 'outside', address: offsets.get(base)! + address } : { memory: 'ABUF', address: resident + address };
    },
  };
};

/** Gaps between pieces of a memory, in order. */
const gapsOf = (pieces: readonly { readonly from: number; readonly to: number }[], size: number): readonly (readonly [number, number])[] => {
  const gaps: [number, number][] = [];
  let at = 0;
  for (const { from, to } of [...pieces].sort((a, b) => a.from - b.from)) {
    if (from > at) gaps.push([at, from]);
    at = Math.max(at, to);
  }
  if (size > at) gaps.push([at, size]);
  return gaps;
};
const firstGap = (pieces: readonly Resident[], bytes: number, size: number): number | null => gapsOf(pieces, size).find(([from, to]) => to - from >= bytes)?.[0] ?? null;
const widestGap = (residents: readonly Resident[], step: number, size: number): readonly [number, number] =>
  gapsOf(residents.filter(({ first, last }) => first <= step && step <= last), size).reduce<readonly [number, number]>((best, gap) => (gap[1] - gap[0] > best[1] - best[0] ? gap : best), [0, 0]);

/** The element of four bits that holds every code of an interval. */
const fourBits = ([low, high]: readonly [number, number]): Element | null => (low >= -8 && high <= 7 ? 'i4' : low >= 0 && high <= 15 ? 'u4' : null);

/** Operands that steps can read two to a byte; all others are read as whole bytes. */
const readsPairs: Readonly<Record<string, readonly string[]>> = {
  conv_acc: ['x'], linear_acc: ['x'], max_pool: ['x'], sum_pool: ['x'], requantize: ['x'], requantize_add: ['x', 'y'], table: ['x'], layer_norm_int: ['x'],
};
/** Roots whose result can be written so. */
const writesPairs: ReadonlySet<string> = new Set(['conv_acc', 'linear_acc', 'matmul_acc', 'max_pool', 'sum_pool', 'requantize', 'requantize_add', 'table', 'layer_norm_int']);
/** The longest row of pairs: rows are not cut. */
const MOST_ROW = 4096;

/** Bases whose codes lie two to a byte. `whole`: bases that others read as bytes. */
const elementsOf = ({ graph, steps, viewOf }: Program, whole: ReadonlySet<Value>): ReadonlyMap<Value, Element> => {
  const bounds = factOf(graph, accumulatorBounds);
  const members = new Map<Value, Value[]>();
  for (const value of graph.nodes.map(({ output }) => output)) {
    const { base } = viewOf(value);
    members.set(base, [...(members.get(base) ?? []), value]);
  }
  const made = new Map<Value, boolean>();
  const refusedBy = (step: Step): readonly Value[] => {
    const table = [step.root, step.table].find((node) => node?.op === 'table');
    const oneTable = table === undefined || table === null || staticShape((table.inputs['values'] as Value).type.shape).length === 1;
    const nodes = [step.root, ...(step.rescale === null ? [] : [step.rescale]), ...(step.table === null ? [] : [step.table])];
    const inside = new Set(nodes.map(({ output }) => output));
    const apart = (node: Step['root']): boolean => node.op === 'conv_acc' && Number(node.attrs['group']) > 1 && (staticShape((node.inputs['x'] as Value).type.shape).at(-1)! / Number(node.attrs['group'])) % 2 === 1
      && !(Number(node.attrs['group']) === staticShape((node.inputs['x'] as Value).type.shape).at(-1)! && staticShape((node.inputs['weight'] as Value).type.shape)[0] === Number(node.attrs['group']));
    return nodes.flatMap((node) => {
      const allowed = oneTable && !apart(node) ? readsPairs[node.op] ?? [] : [];
      // a residual of another shape is brought in by boxes of single codes
      const broadcast = node.op === 'requantize_add' && !sameShape(node.inputs['x'] as Value, node.inputs['y'] as Value);
      return operandsOf(node).filter((value) => !inside.has(value) && (broadcast || !allowed.some((slot) => node.inputs[slot] === value)));
    });
  };
  const refused = new Set<Value>([...whole, ...steps.flatMap((step) => [...refusedBy(step), ...(writesPairs.has(step.root.op) ? [] : [step.output])]).map((value) => viewOf(value).base)]);
  for (const { output } of steps) made.set(viewOf(output).base, true);
  const elements = new Map<Value, Element>();
  for (const [base, values] of members) {
    if (!isNode(base.def) || refused.has(base) || !made.has(base)) continue;
    const hulls = values.map((value) => bounds.get(value)).filter((interval) => interval !== undefined).map(hullOf);
    const hull = [Math.min(...hulls.map(([low]) => low)), Math.max(...hulls.map(([, high]) => high))] as const;
    const element = storageBytes(base.type.dtype) === 1 ? fourBits(hull) : null;
    const paired = values.every((value) => isStaticShape(value.type.shape) && (value.type.shape.at(-1) ?? 1) % 2 === 0 && value.type.shape.at(-1)! <= MOST_ROW && viewOf(value).offset % 2 === 0);
    if (element !== null && paired) elements.set(base, element);
  }
  return elements;
};
const sameShape = (a: Value, b: Value): boolean => JSON.stringify(a.type.shape) === JSON.stringify(b.type.shape);
