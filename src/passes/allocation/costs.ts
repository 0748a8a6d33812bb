/**
 * What each layer costs at each of its widths, on every target, read off real programs: the whole network is compiled once for each pair of
 * widths, and the costs of a step belong to the layer whose sums it starts with. What belongs to no layer is a fixed cost.
 */
import { printWidths, uniformWidth, type ChosenWidths } from '../../ir/ops/widths.ts';
import type { TargetPrice } from '../pass.ts';
import type { Budget } from './budget.ts';
import { bitOperations, type Layer } from './layers.ts';

/** A limited resource: a target's bytes, the arena at one moment, time, bit operations. */
export interface Meter {
  readonly resource: 'size' | 'ram' | 'latency' | 'bops';
  /** null for what is the same on all targets */
  readonly target: string | null;
  readonly label: string;
  readonly most: number;
  /** what is spent whatever the bits are */
  readonly fixed: number;
  /** share of a layer's cost that is below what this meter can tell apart: timings differ from run to run */
  readonly resolution: number;
  cost(layer: Layer, widths: ChosenWidths): number;
}

/** Prices of the whole network at one pair of widths. */
export type UniformPrices = ReadonlyMap<string, readonly TargetPrice[]>;

/** The value of a layer that the first node of a step computes sums of. */
const layerOfStep = (name: string): string => name.replace(/\.acc$/, '');

const stepsOf = ({ steps }: TargetPrice, name: string): TargetPrice['steps'] => steps.filter((step) => layerOfStep(step.name) === name);
const total = (numbers: readonly number[]): number => numbers.reduce((sum, n) => sum + n, 0);

/** Bytes of a layer's constants. */
export const layerBytes = (price: TargetPrice, name: string): number => total(stepsOf(price, name).map(({ weightBytes }) => weightBytes));

/** Timings of one kernel differ by about this share between runs. */
const TIME_RESOLUTION = 0.05;

/** The meters of a budget. A time that some layer lacks makes the meter of its target impossible: those layers are named by `missing`. */
export const metersOf = (budget: Budget, layers: readonly Layer[], prices: UniformPrices): { readonly meters: readonly Meter[]; readonly missing: readonly string[] } => {
  const [first] = prices.values();
  const missing: string[] = [];
  const at = (widths: ChosenWidths, target: number): TargetPrice => {
    const found = prices.get(printWidths(widths)) ?? prices.get(printWidths({ weights: uniformWidth(8), activations: widths.activations }));
    return found![target];
  };
  const meters = first.flatMap(({ target }, t): Meter[] => {
    const base = first[t];
    const own: Meter[] = [];
    const sizes = new Set(layers.map(({ name }) => name));
    if (budget.size !== null) {
      own.push({
        resource: 'size', target, label: `size on ${target}`, most: budget.size, resolution: 0,
        fixed: base.weightBytes - total(layers.map(({ name }) => layerBytes(base, name))),
        cost: ({ name }, widths) => layerBytes(at(widths, t), name),
      });
    }
    if (budget.latency !== null) {
      const without = layers.filter(({ name }) => stepsOf(base, name).some(({ microseconds }) => microseconds === null));
      missing.push(...without.map(({ name }) => `${name} on ${target}`));
      own.push({
        resource: 'latency', target, label: `latency on ${target}`, most: budget.latency, resolution: TIME_RESOLUTION,
        fixed: total(base.steps.filter(({ name }) => !sizes.has(layerOfStep(name))).map(({ microseconds }) => microseconds ?? 0)),
        cost: ({ name }, widths) => total(stepsOf(at(widths, t), name).map(({ microseconds }) => microseconds ?? 0)),
      });
    }
    if (budget.ram !== null) own.push(...momentsOf(budget.ram, t, target, layers, prices));
    return own;
  });
  if (budget.bops !== null) {
    meters.push({ resource: 'bops', target: null, label: 'bops', most: budget.bops, fixed: 0, resolution: 0, cost: (layer, widths) => bitOperations(layer, widths) });
  }
  return { meters, missing };
};

/**
 * The arena at each moment that may be its peak. A piece that changes with the widths belongs to the layers that read its value, or to the
 * layer whose scratch memory it is; moments that others exceed whatever the widths are left out.
 */
const momentsOf = (most: number, t: number, target: string, layers: readonly Layer[], prices: UniformPrices): readonly Meter[] => {
  const keys = [...prices.keys()];
  const list = keys.map((key) => prices.get(key)![t]);
  const readers = new Map<string, string>();
  for (const { name, node } of layers) for (const operand of [node.inputs].flatMap((inputs) => Object.values(inputs).flat())) if (operand !== null) readers.set(operand.name, name);
  const names = new Set(layers.map(({ name }) => name));
  const ownerOf = (owner: string): string | null => {
    const scratch = /^scratch of (.*)$/.exec(owner)?.[1];
    const value = (scratch ?? owner).replace(/\.narrow$/, '');
    return scratch !== undefined && names.has(layerOfStep(value)) ? layerOfStep(value) : scratch === undefined ? readers.get(value) ?? null : null;
  };
  if (list.every(({ pieces }) => pieces.length === 0)) {
    return [{ resource: 'ram', target, label: `ram on ${target}`, most, resolution: 0, fixed: Math.min(...list.map(({ arenaBytes }) => arenaBytes)), cost: () => 0 }];
  }
  const steps = Math.max(...list.map(({ steps: own }) => own.length));
  const moments = Array.from({ length: steps }, (_, step) => {
    const alive = list.map(({ pieces }) => {
      const owned = new Map<string | null, number>();
      for (const { owner, bytes, first, last } of pieces) if (first <= step && step <= last) owned.set(ownerOf(owner), (owned.get(ownerOf(owner)) ?? 0) + bytes);
      return owned;
    });
    return { step, alive };
  });
  const peakOf = ({ alive }: (typeof moments)[number], pick: (...numbers: number[]) => number): number => pick(...alive.map((owned) => total([...owned.values()])));
  const surely = Math.max(...moments.map((moment) => peakOf(moment, Math.min)));
  return moments.filter((moment) => peakOf(moment, Math.max) >= surely).map((moment) => {
    const bytesAt = (widths: ChosenWidths, name: string | null): number => {
      const key = keys.indexOf(printWidths(widths));
      return moment.alive[Math.max(0, key)].get(name) ?? 0;
    };
    const base = moment.alive[0];
    const fixed = total([...base].filter(([owner]) => owner === null || !names.has(owner)).map(([, bytes]) => bytes));
    // what the plan adds to what is alive, by alignment and gaps, at the first pair of widths
    const gap = list[0].arenaBytes - Math.max(...moments.map(({ alive }) => total([...alive[0].values()])));
    return { resource: 'ram' as const, target, label: `ram on ${target} at step ${moment.step}`, most, resolution: 0, fixed: fixed + gap, cost: ({ name }: Layer, widths: ChosenWidths) => bytesAt(widths, name) };
  });
};
