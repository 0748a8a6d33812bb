/**
 * Sorts channels by their range, so that neighbours are alike:
 *
 *     %h = linear(%x, %W1, %b1); %y = linear(relu(%h), %W2)   →   rows of %W1 and %b1, and columns of %W2, in the order of the ranges of %h
 *
 * Which values must share an order is found by union-find over the axes of all values (migration/channel-classes.ts): hidden channels of MLPs
 * and attention heads, chains of convolutions, and the residual stream with everything that writes or reads it. All orders end in
 * constants, so the program does the same work as before.
 *
 * What is gained is room for scales of groups of neighbours whose ratios are powers of two, and for block formats; a tensor with one
 * scale does not see the order of its channels. The pass says what groups would gain, and leaves alone what they would not.
 *
 * Sources: Yuan et al. 2023, RPTQ; Trukhanov and Soloveychik 2024, Accurate Block Quantization in LLMs with Outliers.
 */
import { int, real } from '../ir/op.ts';
import type { Value } from '../ir/graph.ts';
import { decibels } from '../calibration/metrics.ts';
import type { ChannelMoments } from '../calibration/calibration.ts';
import { applyChanges, preservesFunction } from './migration/apply.ts';
import type { Change } from './migration/change.ts';
import { channelClasses, orderChanges, type OrderSite } from './migration/channel-classes.ts';
import { bestGroups } from './migration/partition.ts';
import { spreadSamples } from './migration/trial.ts';
import { definePass } from './pass.ts';

export interface ReorderChannelsOptions {
  readonly groups: number;
  readonly multiple: number;
  readonly leastGain: number;
}

/** Samples on which the float graphs are compared. */
const CHECKED = 4;

export const reorderChannels = definePass<'float', 'float', ReorderChannelsOptions>({
  name: 'reorder-channels',
  from: 'float',
  to: 'float',
  summary: 'sort channels by range, for groups and blocks of like channels',
  paper: 'Yuan et al. 2023, RPTQ: Reorder-Based Post-Training Quantization for Large Language Models',
  options: {
    groups: int('groups of channels that would have a scale of their own', 4),
    multiple: int('groups end at multiples of so many channels', 8),
    leastGain: real('dB that groups must gain over one scale for all channels', 1),
  },
  async run(graph, options, context) {
    if (context.calibration === null) return graph;
    const moments = await context.calibration.channelMoments(graph);
    const sorted = channelClasses(graph).orderSites.flatMap((site) => sortedSite(site, moments, options) ?? []);
    if (sorted.length === 0) return graph;
    const changes = new Map<Value, Change>(sorted.flatMap(({ site, order }) => [...orderChanges(site, order)]));
    const next = applyChanges(graph, changes);
    if (!preservesFunction(graph, next, spreadSamples(context.calibration.samples, 0, 1, CHECKED))) {
      context.note({ site: null, text: 'left alone: sums in another order change the outputs by more than float32 rounding may' });
      return graph;
    }
    for (const { site, gainDb, ends } of sorted) {
      context.note({ site: site.values[0].name, text: 'channels in the order of their ranges', figures: { values: site.values.length, gainOfGroupsDb: gainDb, groupEnds: ends.join(' ') } });
    }
    return next;
  },
});

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
