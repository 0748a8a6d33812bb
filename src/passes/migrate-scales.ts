/**
 * Moves the ranges of activation channels into the weights that read them, so that one scale serves the whole tensor:
 *
 *     y = W·x = (W·diag(s))·(x/s),   x/s from the constants of whatever makes x (LayerNorm γ and β, rows of a layer)
 *
 *     %n = layer_norm(%x, %γ, %β); %y = linear(%n, %W)   →   %n = layer_norm(%x, %γ/s, %β/s); %y = linear(%n, %W·s)
 *
 * Sites are found over all readers of a value: LayerNorm before projections and MLPs, values of attention before the output projection,
 * queries against keys, layers joined by ReLU or pooling, and whole residual streams of convolutional networks. At each site four
 * families of scales compete (migration/families.ts), by the loss that rounding is expected to cause and, for the best few, by the
 * loss on recorded samples. What is kept must improve the outputs of the quantised network on samples it was not chosen with; where nothing
 * does, the graph stays as it is.
 *
 * Where networks normalise after the addition, a LayerNorm result is added back as well; with `residuals` the addition undoes the scales,
 * channel by channel (migration/free-edges.ts).
 *
 * Layers joined by ReLU6 take scales of at most 1: the ceiling then lets s·6 through, which stays above all that calibration data reached
 * (search.ts); other inputs may be cut earlier than before, as they are at the ends of every calibrated range. A ceiling for each channel
 * would allow no more: only ratios of scales change what one step for the tensor costs, and channels that reach 6 set it either way.
 *
 * Sources: Wei et al. 2023, Outlier Suppression+; Xiao et al. 2023, SmoothQuant; Li et al. 2023, RepQ-ViT; Nagel et al. 2019, Data-free
 * quantization.
 */
import { int, oneOf, real } from '../ir/op.ts';
import { decibels } from '../calibration/metrics.ts';
import { withAim } from './allocation/aim.ts';
import { channelClasses, changesOf, type Site } from './migration/channel-classes.ts';
import { identity } from './migration/change.ts';
import type { Candidate } from './migration/families.ts';
import { freed, residualsOption, tidied } from './migration/free-edges.ts';
import { rankedScales, readValues, type Scored } from './migration/search.ts';
import { settle, type Proposal } from './migration/settle.ts';
import { factsOf, widthOptions, type Facts, type Widths } from './migration/site-loss.ts';
import { probedSqnr, probeSite, record, recordedSamples, type ProbeSite, type Recording } from './migration/site-probe.ts';
import { definePass } from './pass.ts';

export interface MigrateScalesOptions extends Widths {
  readonly refine: number;
  readonly residuals: boolean;
  readonly families: 'all' | Exclude<Candidate['family'], 'none'>;
  readonly leastGain: number;
  readonly leastOutputGain: number;
}

export const migrateScales = definePass<'float', 'float', MigrateScalesOptions>({
  name: 'migrate-scales',
  from: 'float',
  to: 'float',
  summary: 'move ranges of activation channels into the weights that read them',
  paper: 'Wei et al. 2023, Outlier Suppression+',
  changes: 'none within the calibrated range; a channel before a ceiling (ReLU6) may be cut earlier beyond it',
  options: {
    ...widthOptions,
    families: oneOf('rules for scales that compete', ['all', 'threshold', 'power', 'equal', 'layers'], 'all'),
    residuals: residualsOption,
    refine: int('best candidates of a site that are tried on recorded samples', 3),
    leastGain: real('dB that a site must gain', 0.1),
    leastOutputGain: real('dB that the outputs must gain; below 0 they may lose as much', 0.1),
  },
  async run(closed, options, context) {
    const { calibration } = context;
    if (calibration === null) return closed;
    const widths = await withAim(options, closed, context);
    const { graph, moments } = freed(closed, await calibration.channelMoments(closed), { residuals: options.residuals, borders: false });
    const facts = factsOf(graph, moments, widths);
    const sites = channelClasses(graph).scaleSites.flatMap((site): readonly Ranked[] => {
      const list = bestOfFamilies(rankedScales(site, facts), options.leastGain).filter(({ candidate: { family } }) => options.families === 'all' || family === options.families);
      return list.length === 0 ? [] : [{ site, list: list.slice(0, options.refine), probe: probeSite(site.members.map(({ value }) => value), facts) }];
    });
    if (sites.length === 0) return tidied(settle(facts, [], 0, context), graph, closed, calibration);
    const probes = sites.map(({ probe }) => probe);
    const recording = record(graph, probes, recordedSamples(graph, probes, calibration.samples));
    const proposals = sites.flatMap((ranked, i) => {
      context.progress('migrate-scales', i, sites.length);
      const found = proposed(ranked, recording, facts);
      return found !== null && found.gainDb >= options.leastGain ? [found] : [];
    });
    return tidied(settle(facts, proposals, options.leastOutputGain, context), graph, closed, calibration);
  },
});

interface Ranked {
  readonly site: Site;
  /** the best of each family that is expected to gain, by rising loss */
  readonly list: readonly Scored[];
  readonly probe: ProbeSite;
}

/** The first of each family, as far as it is expected to gain so many dB. */
const bestOfFamilies = (ranked: readonly Scored[], leastGainDb: number): readonly Scored[] => {
  const none = ranked.find(({ candidate: { family } }) => family === 'none')!;
  const better = ranked.filter(({ loss }) => decibels(none.loss, loss) >= leastGainDb && loss < none.loss);
  return better.filter(({ candidate: { family } }, i) => better.findIndex((one) => one.candidate.family === family) === i);
};

/** The candidate with the best results on recorded samples. */
const proposed = ({ site, list, probe }: Ranked, recording: Recording, facts: Facts): Proposal | null => {
  const sqnrBefore = probedSqnr(probe, () => identity, recording, facts);
  let best: Proposal | null = null;
  for (const { candidate } of list) {
    const changes = changesOf(site, candidate.scale, null);
    const sqnrAfter = probedSqnr(probe, (value) => changes.get(value) ?? identity, recording, facts);
    if (best !== null && sqnrAfter - sqnrBefore <= best.gainDb) continue;
    best = {
      changes, gainDb: sqnrAfter - sqnrBefore, siteDb: { before: sqnrBefore, after: sqnrAfter },
      note: { site: nameOf(site, facts), text: `scales by ${candidate.family}`, figures: { parameter: candidate.parameter } },
    };
  }
  return best;
};

/** A site is called by the first value that is rounded there. */
const nameOf = (site: Site, facts: Facts): string => readValues(site, facts)[0].name;
