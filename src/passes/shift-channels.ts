/**
 * Moves channels that lie to one side of 0 to the middle, so that the range of a tensor is that of its widest channel and not of their
 * union, and its codes need no zero point:
 *
 *     y = W·x + b = W·(x − z) + (b + W·z),   z = (max x + min x)/2 for each channel
 *
 *     %n = layer_norm(%x, %γ, %β); %y = linear(%n, %W, %b)   →   %n = layer_norm(%x, %γ, %β − z); %y = linear(%n, %W, %b + %W·z)
 *
 * Besides LayerNorm results this holds for the values of attention, whose weights sum to 1, for its keys, whose shift moves all logits
 * of a row alike and vanishes, and for layers that follow each other without an activation. A shift often pays only once scales are
 * migrated too (one channel far from 0 hides behind another that is wide), so a site is judged alone and together with its best scales.
 *
 * With `residuals` and `borders`, operands that would hold a value where it is take the shift up (migration/free-edges.ts).
 *
 * Source: Wei et al. 2023, Outlier Suppression+.
 */
import { real } from '../ir/op.ts';
import type { Value } from '../ir/graph.ts';
import { decibels } from '../calibration/metrics.ts';
import { withAim } from './allocation/aim.ts';
import { identity, type Change } from './migration/change.ts';
import { channelClasses, changesOf, type Site } from './migration/channel-classes.ts';
import { borderSize, bordersOption, freed, residualsOption, tidied, type Freedom } from './migration/free-edges.ts';
import { joined, lossOf, middleShift, rankedScales, readValues } from './migration/search.ts';
import { settle, type Proposal } from './migration/settle.ts';
import { factsOf, termsOf, widthOptions, type Facts, type Widths } from './migration/site-loss.ts';
import { probedSqnr, probeSite, record, recordedSamples, type ProbeSite, type Recording } from './migration/site-probe.ts';
import { definePass } from './pass.ts';

export interface ShiftChannelsOptions extends Widths, Freedom {
  readonly leastGain: number;
}

export const shiftChannels = definePass<'float', 'float', ShiftChannelsOptions>({
  name: 'shift-channels',
  from: 'float',
  to: 'float',
  summary: 'centre activation channels at 0, the shifts moved into the biases that follow',
  paper: 'Wei et al. 2023, Outlier Suppression+',
  options: {
    ...widthOptions,
    residuals: residualsOption,
    borders: bordersOption,
    leastGain: real('dB that a site must gain; the outputs may lose no more than that', 0.1),
  },
  async run(closed, options, context) {
    const { calibration } = context;
    if (calibration === null) return closed;
    const widths = await withAim(options, closed, context);
    const { graph, moments } = freed(closed, await calibration.channelMoments(closed), options);
    const facts = factsOf(graph, moments, widths);
    const { shiftSites, scaleSites } = channelClasses(graph);
    const promising = shiftSites.flatMap((site): readonly Shifted[] => {
      const found = readValues(site, facts).length === 0 ? null : shifted(site, scaleSites, facts, options.leastGain);
      return found === null ? [] : [found];
    });
    if (promising.length === 0) return tidied(settle(facts, [], 0, context), graph, closed, calibration);
    const probes = promising.map(({ probe }) => probe);
    const recording = record(graph, probes, recordedSamples(graph, probes, calibration.samples));
    const proposals = promising.flatMap((one, i) => {
      context.progress('shift-channels', i, promising.length);
      const found = proposed(one, recording, facts);
      return found.gainDb >= ((found.bytes ?? 0) > 0 ? Math.max(BORDER_GAIN, options.leastGain) : options.leastGain) ? [found] : [];
    });
    return tidied(settle(facts, proposals, -options.leastGain, context), graph, closed, calibration);
  },
});

/** dB that a site must gain where borders are written out: a border is a copy of the image at run time. */
const BORDER_GAIN = 1;

interface Shifted {
  readonly site: Site;
  readonly shifts: ReadonlyMap<Value, Change>;
  /** the best scales without and with the shifts */
  readonly scales: readonly [ReadonlyMap<Value, Change>, ReadonlyMap<Value, Change>];
  readonly probe: ProbeSite;
}

/** The shifts of a site if rounding is expected to cost less with them, alone or together with scales; else null. */
const shifted = (site: Site, scaleSites: readonly Site[], facts: Facts, leastGainDb: number): Shifted | null => {
  const shifts = changesOf(site, null, middleShift(site, facts));
  const own = new Set(site.members.map(({ value }) => value));
  const beside = scaleSites.filter(({ members }) => members.some(({ value }) => own.has(value)));
  const values = [...new Set([...own, ...beside.flatMap(({ members }) => members.map(({ value }) => value))])];
  const terms = termsOf(values, facts);
  const scalesUnder = (under: ReadonlyMap<Value, Change>): ReadonlyMap<Value, Change> =>
    new Map(beside.flatMap((one) => [...changesOf(one, rankedScales(one, facts, under)[0].candidate.scale, null)]));
  const none: ReadonlyMap<Value, Change> = new Map();
  const scales = [scalesUnder(none), scalesUnder(shifts)] as const;
  const gainDb = Math.max(decibels(lossOf(terms, none), lossOf(terms, shifts)), decibels(lossOf(terms, scales[0]), lossOf(terms, joined(scales[1], shifts))));
  return gainDb >= leastGainDb ? { site, shifts, scales, probe: probeSite(values, facts) } : null;
};

const proposed = ({ site, shifts, scales, probe }: Shifted, recording: Recording, facts: Facts): Proposal => {
  const measured = (changes: ReadonlyMap<Value, Change>): number => probedSqnr(probe, (value) => changes.get(value) ?? identity, recording, facts);
  const [sqnrBefore, sqnrAfter] = [measured(new Map()), measured(shifts)];
  const [scaledBefore, scaledAfter] = [measured(scales[0]), measured(joined(scales[1], shifts))];
  return {
    changes: shifts,
    companions: scales,
    gainDb: Math.max(sqnrAfter - sqnrBefore, scaledAfter - scaledBefore),
    siteDb: { before: sqnrBefore, after: sqnrAfter },
    note: { site: readValues(site, facts)[0].name, text: 'centred channels', figures: { scaledBefore, scaledAfter } },
    bytes: site.members.reduce((sum, { value }) => sum + borderSize(value), 0),
  };
};
