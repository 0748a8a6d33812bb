/**
 * Sorts channels by their range, so that neighbours are alike, and gives groups of neighbours scales of their own:
 *
 *     %h = linear(%x, %W1, %b1); %y = linear(relu(%h), %W2)   →   rows of %W1 and %b1, and columns of %W2, in the order of the ranges of %h
 *
 * Which values must share an order is found by union-find over the axes of all values (migration/channel-classes.ts): hidden channels of MLPs
 * and attention heads, chains of convolutions, and the residual stream with everything that writes or reads it. All orders end in
 * constants, so the program does the same work as before.
 *
 * A tensor with one scale does not see the order of its channels. What is gained is room for groups of like channels, each with its own
 * codes: hidden values between linear maps are cut where that pays (migration/hidden-groups.ts), each group a product of its own, the
 * products joined by a two-operand rescale, which rounds once. It takes one multiplication more than a join by shifts and leaves the scales
 * of groups and of their rows of weights free, where shifts would tie all of them to powers of two. This also serves where scales cannot
 * migrate, as behind GELU. A cut is kept where the outputs of the quantised network gain on samples it was not chosen with.
 *
 * Sources: Yuan et al. 2023, RPTQ; Trukhanov and Soloveychik 2024, Accurate Block Quantization in LLMs with Outliers.
 */
import { int, oneOf, real } from '../ir/op.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { createCalibration, type ChannelMoments } from '../calibration/calibration.ts';
import { createExecutor } from '../calibration/executor.ts';
import { decibels } from '../calibration/metrics.ts';
import { samplesInMemory, type Sample } from '../calibration/samples.ts';
import { tensor, tensorType } from '../ir/type.ts';
import { withAim } from './allocation/aim.ts';
import { applyChanges, preservesFunction } from './migration/apply.ts';
import type { Change } from './migration/change.ts';
import { channelClasses, orderChanges, type OrderSite } from './migration/channel-classes.ts';
import { alone, bytesOf, hiddenValues, inGroups, operationsOf, readBy, type Hidden } from './migration/hidden-groups.ts';
import { bestGroups } from './migration/partition.ts';
import { widthOptions, type Widths } from './migration/site-loss.ts';
import { openTrial } from './migration/trial.ts';
import { affordable, compared, spreadSamples, surelyGains } from './output-meter.ts';
import { definePass, type BeforeAfter, type PassContext } from './pass.ts';

export interface ReorderChannelsOptions extends Widths {
  readonly groups: number;
  readonly multiple: number;
  readonly leastGain: number;
  readonly cut: 'measured' | 'never';
  readonly leastOutputGain: number;
}

/** Samples on which the float graphs are compared. */
const CHECKED = 4;
/** Fewest and most samples that the layers of one hidden value are measured on. */
const [FEWEST, MOST] = [4, 12];

export const reorderChannels = definePass<'float', 'float', ReorderChannelsOptions>({
  name: 'reorder-channels',
  from: 'float',
  to: 'float',
  summary: 'sort channels by range, and give groups of like channels scales of their own where that pays',
  paper: 'Yuan et al. 2023, RPTQ: Reorder-Based Post-Training Quantization for Large Language Models',
  options: {
    ...widthOptions,
    groups: int('most groups of channels with a scale of their own', 2),
    multiple: int('groups end at multiples of so many channels', 8),
    leastGain: real('dB that the noise of groups must lie below that of one scale for all channels, for a site to be sorted', 1),
    cut: oneOf('measured: hidden values are cut into groups where that gains, and nothing is sorted where none is; never: channels are only sorted', ['measured', 'never'], 'measured'),
    leastOutputGain: real('dB that the layers of a cut value, and the outputs, must gain', 0.3),
  },
  async run(graph, given, context) {
    if (context.calibration === null) return graph;
    const options = await withAim(given, graph, context);
    const moments = await context.calibration.channelMoments(graph);
    const sorted = channelClasses(graph).orderSites.flatMap((site) => sortedSite(site, moments, options) ?? []);
    if (sorted.length === 0) {
      context.note({ site: null, text: 'no channels of unlike ranges', gain: { kept: false, siteDb: null, outputsDb: null, bytes: 0, operations: 0 } });
      return graph;
    }
    const changes = new Map<Value, Change>(sorted.flatMap(({ site, order }) => [...orderChanges(site, order)]));
    const next = applyChanges(graph, changes);
    if (!preservesFunction(graph, next, spreadSamples(context.calibration.samples, 0, 1, CHECKED))) {
      context.note({ site: null, text: 'left alone: sums in another order change the outputs by more than float32 rounding may' });
      return graph;
    }
    // an order alone changes nothing for the better
    const made = options.cut === 'never' ? next : await cutWhereItPays(next, sorted, options, context);
    if (made === null) return graph;
    for (const { site, gainDb, ends } of sorted) {
      context.note({ site: site.values[0].name, text: 'channels in the order of their ranges', figures: { values: site.values.length, gainOfGroupsDb: gainDb, groupEnds: ends.join(' ') } });
    }
    return made;
  },
});

/** A hidden value whose layers gain by groups. */
interface Cut {
  readonly hidden: Hidden;
  readonly ends: readonly number[];
  readonly siteDb: BeforeAfter;
}

/** Cuts the hidden values whose own layers gain, as far as the outputs of the network gain; the weaker half is given up while they do not. Null for no cut. */
const cutWhereItPays = async (graph: Graph<'float'>, sorted: readonly Sorted[], options: ReorderChannelsOptions, context: PassContext): Promise<Graph<'float'> | null> => {
  const endsOf = new Map(sorted.flatMap(({ site, ends }) => (site.blocks > 1 ? [] : site.values.map(({ name }) => [name, ends] as const))));
  const candidates = hiddenValues(graph).flatMap((hidden) => {
    const ends = endsOf.get(readBy(hidden).name);
    return ends !== undefined && ends.length > 1 ? [{ hidden, ends }] : [];
  });
  if (candidates.length === 0) {
    context.note({ site: null, text: 'no hidden value has channels of unlike ranges', gain: { kept: false, siteDb: null, outputsDb: null, bytes: 0, operations: 0 } });
    return null;
  }
  const inputs = recorded(graph, candidates.map(({ hidden }) => hidden), context);
  const gaining: Cut[] = [];
  for (const [i, { hidden, ends }] of candidates.entries()) {
    context.progress('reorder-channels', i, candidates.length);
    const siteDb = await measuredAlone(hidden, ends, inputs, options, context);
    if (siteDb === null) continue;
    if (siteDb.after - siteDb.before >= options.leastOutputGain) gaining.push({ hidden, ends, siteDb });
    else context.note({ site: readBy(hidden).name, text: 'one scale serves as well as groups', gain: { kept: false, siteDb, outputsDb: null, ...costOf(hidden, ends) } });
  }
  gaining.sort((a, b) => (b.siteDb.after - b.siteDb.before) - (a.siteDb.after - a.siteDb.before));
  const cutAt = (cuts: readonly Cut[]): Graph<'float'> => inGroups(graph, new Map(cuts.map(({ hidden, ends }) => [hidden, ends])), 'reorder-channels');
  const trial = openTrial(graph, options, context);
  const before = gaining.length === 0 ? null : await trial.sqnrDb(graph);
  for (let kept: readonly Cut[] = before === null ? [] : gaining; kept.length > 0; kept = kept.slice(0, Math.floor(kept.length / 2))) {
    const made = cutAt(kept);
    const after = await trial.sqnrDb(made);
    const outputsDb = after === null ? null : compared(before!, after);
    const gains = outputsDb !== null && surelyGains(outputsDb, options.leastOutputGain);
    const cost = kept.map(({ hidden, ends }) => costOf(hidden, ends));
    if (gains) {
      for (const { hidden, ends, siteDb } of gaining) {
        const keeps = kept.some((one) => one.hidden === hidden);
        context.note({ site: readBy(hidden).name, text: keeps ? `${ends.length} groups` : 'groups left out, the outputs do not gain', gain: { kept: keeps, siteDb, outputsDb: null, ...costOf(hidden, ends) } });
      }
    }
    context.note({
      site: null, text: gains ? `${kept.length} hidden values in groups` : `${kept.length} hidden values in groups did not improve the outputs`,
      gain: { kept: gains, siteDb: null, outputsDb, bytes: total(cost, ({ bytes }) => bytes), operations: total(cost, ({ operations }) => operations) },
    });
    if (gains) return made;
  }
  return null;
};

const total = <T>(list: readonly T[], of: (one: T) => number): number => list.reduce((sum, one) => sum + of(one), 0);
const costOf = (hidden: Hidden, ends: readonly number[]): { readonly bytes: number; readonly operations: number } =>
  ({ bytes: bytesOf(hidden, ends.length), operations: operationsOf(hidden, ends.length) });

/** What the first layers of hidden values read, on samples of both halves of the set, by the name of the value. */
const recorded = (graph: Graph<'float'>, hidden: readonly Hidden[], { calibration }: PassContext): ReadonlyMap<string, readonly Float32Array[]> => {
  const found = new Map(hidden.map(({ first }) => [(first.inputs['x'] as Value).name, [] as Float32Array[]]));
  const executor = createExecutor(graph);
  for (const sample of spreadSamples(calibration!.samples, 0, 1, 2 * affordable(graph, FEWEST, MOST))) {
    executor.run(sample, ({ name }, { data }) => found.get(name)?.push((data as Float32Array).slice()));
  }
  return found;
};

/** Signal to noise of the layers of a hidden value by themselves, with one scale and with groups; null where it cannot be measured. */
const measuredAlone = async (hidden: Hidden, ends: readonly number[], inputs: ReadonlyMap<string, readonly Float32Array[]>, options: ReorderChannelsOptions, context: PassContext): Promise<BeforeAfter | null> => {
  const whole = alone(hidden);
  const [input] = whole.inputs;
  const samples = (inputs.get(input.name) ?? []).map((data): Sample => ({ [input.name]: tensor(tensorType('f32', input.type.shape), data) }));
  if (samples.length < 2) return null;
  const calibration = createCalibration(samplesInMemory(whole.inputs, samples), { data: null, threads: 1 });
  const trial = openTrial(whole, options, { ...context, calibration });
  const [only] = hiddenValues(whole);
  if (only === undefined) return null;
  const [before, after] = [await trial.sqnrDb(whole), await trial.sqnrDb(inGroups(whole, new Map([[only, ends]]), 'reorder-channels'))];
  return before === null || after === null ? null : compared(before, after);
};

interface Sorted {
  readonly site: OrderSite;
  readonly order: Int32Array;
  /** how much less the noise of one step for each group is than that of one step for all */
  readonly gainDb: number;
  readonly ends: readonly number[];
}

const sortedSite = (site: OrderSite, moments: ReadonlyMap<string, ChannelMoments>, { groups, multiple, leastGain }: ReorderChannelsOptions): Sorted | null => {
  const ranges = rangesOf(site, moments);
  const size = site.channels / site.blocks;
  const order = Int32Array.from({ length: site.blocks }, (_, block) => block).reduce<number[]>((all, block) =>
    [...all, ...Array.from({ length: size }, (_, i) => block * size + i).sort((a, b) => ranges[a] - ranges[b] || a - b)], []);
  const largest = ranges.reduce((most, r) => Math.max(most, r), 0);
  let cost = 0;
  const ends: number[] = [];
  for (let block = 0; block < site.blocks; block++) {
    const found = bestGroups(Float64Array.from(order.slice(block * size, (block + 1) * size), (c) => ranges[c]), largest, groups, multiple);
    cost += found.cost;
    ends.push(...found.ends.map((end) => block * size + end));
  }
  const gainDb = decibels(site.channels * largest * largest, cost);
  const moved = order.some((from, to) => from !== to);
  return moved && largest > 0 && gainDb >= leastGain ? { site, order: Int32Array.from(order), gainDb, ends } : null;
};

/** Half the range of each channel, the largest over the values of the site in units of the largest channel of each. */
const rangesOf = ({ values, channels }: OrderSite, moments: ReadonlyMap<string, ChannelMoments>): Float64Array => {
  const ranges = new Float64Array(channels);
  for (const { name } of values) {
    const seen = moments.get(name);
    if (seen === undefined) continue;
    const halves = seen.low.map((low, c) => (seen.high[c] - low) / 2);
    const largest = halves.reduce((most, h) => Math.max(most, h), 0);
    if (largest > 0) halves.forEach((h, c) => { ranges[c] = Math.max(ranges[c], h / largest); });
  }
  return ranges;
};
