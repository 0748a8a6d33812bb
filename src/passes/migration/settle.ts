/**
 * From proposals to a graph: changes are kept only as far as the float graph keeps its outputs and the quantised one gains. Shared by the
 * passes that migrate channels; each says what it did, and what it measured, with `context.note`.
 */
import type { Graph, Value } from '../../ir/graph.ts';
import type { BeforeAfter, Gain, Note, PassContext } from '../pass.ts';
import { applyChanges, preservesFunction } from './apply.ts';
import { changed, scaleAt, shiftAt, type Change } from './change.ts';
import { joined } from './search.ts';
import type { Facts } from './site-loss.ts';
import { openTrial } from './trial.ts';
import { compared, mayGain, spreadSamples } from '../output-meter.ts';

export interface Proposal {
  readonly changes: ReadonlyMap<Value, Change>;
  /** changes that go with it in the measurement, without and with it: what later passes are expected to do at the site */
  readonly companions?: readonly [ReadonlyMap<Value, Change>, ReadonlyMap<Value, Change>];
  /** gain at the site in dB, by which proposals are ranked */
  readonly gainDb: number;
  /** signal to noise at the site, as it is measured without and with the change */
  readonly siteDb: BeforeAfter;
  readonly note: Note;
  /** of constants that it adds to the program; 0 where absent */
  readonly bytes?: number;
}

/** Samples on which the float graphs are compared. */
const CHECKED = 4;

/** So often the weaker half is given up before nothing is changed. */
const TRIES = 4;

/** Changes of coordinates end in constants that were there before: they take no bytes and no operations, but for what a proposal says of itself. */
const costOf = (proposals: readonly Proposal[]): Pick<Gain, 'bytes' | 'operations'> => ({ bytes: proposals.reduce((sum, { bytes = 0 }) => sum + bytes, 0), operations: 0 });
const free = costOf([]);

const noteOf = (one: Proposal, kept: boolean, text = one.note.text): Note => ({ ...one.note, text, gain: { kept, siteDb: one.siteDb, outputsDb: null, ...(kept ? costOf([one]) : free) } });

/**
 * Applies the proposals that keep the function and, together, improve the outputs by `leastGainDb` as far as the measurement can tell; the
 * weaker half is given up as long as they do not.
 */
export const settle = async (
  { graph, moments, widths }: Facts, proposals: readonly Proposal[], leastGainDb: number, context: PassContext,
): Promise<Graph<'float'>> => {
  if (proposals.length === 0) {
    context.note({ site: null, text: 'no site gains', gain: { kept: false, siteDb: null, outputsDb: null, ...free } });
    return graph;
  }
  const samples = spreadSamples(context.calibration!.samples, 0, 1, CHECKED);
  const exact = (list: readonly Proposal[]): boolean => preservesFunction(graph, applyChanges(graph, joined(...list.map(({ changes }) => changes))), samples);
  const all = [...proposals].sort((a, b) => b.gainDb - a.gainDb);
  let kept = exact(all) ? all : all.filter((one) => {
    const keeps = exact([one]);
    if (!keeps) context.note(noteOf(one, false, `${one.note.text}: left out, float32 rounding would change the outputs`));
    return keeps;
  });
  const trial = openTrial(graph, widths, context);
  const measured = (chosen: readonly Proposal[]): Promise<Float64Array | null> => trial.sqnrDb(applyChanges(graph, joined(...all.flatMap((one): readonly ReadonlyMap<Value, Change>[] => {
    const [without, beside] = one.companions ?? [new Map(), new Map()];
    return chosen.includes(one) ? [beside, one.changes] : [without];
  }))));
  const before = await measured([]);
  for (let tries = 0; kept.length > 0 && tries < TRIES; tries++, kept = kept.slice(0, Math.floor(kept.length / 2))) {
    const after = await measured(kept);
    const outputsDb = before === null || after === null ? null : compared(before, after);
    if (outputsDb === null || mayGain(outputsDb, leastGainDb)) {
      for (const one of all) context.note(noteOf(one, kept.includes(one), kept.includes(one) ? undefined : `${one.note.text}: left out, the outputs do not gain`));
      const text = `${kept.length} sites${outputsDb === null ? '; the outputs could not be measured' : ''}`;
      context.note({ site: null, text, gain: { kept: true, siteDb: null, outputsDb, ...costOf(kept) } });
      const changes = joined(...kept.map((one) => one.changes));
      const settled = applyChanges(graph, changes);
      context.calibration!.adoptMoments(settled, movedMoments(moments, changes));
      return settled;
    }
    context.note({ site: null, text: `${kept.length} sites did not improve the outputs`, gain: { kept: false, siteDb: null, outputsDb, ...free } });
  }
  return graph;
};

/** Moments in the new coordinates. */
const movedMoments = (moments: Facts['moments'], changes: ReadonlyMap<Value, Change>): Facts['moments'] => {
  const moved = new Map(moments);
  for (const [{ name }, change] of changes) {
    const { low, high, mean, squares } = moments.get(name)!;
    const channels = low.length;
    const means = Float64Array.from(changed(mean, channels, change));
    moved.set(name, {
      low: Float64Array.from(changed(low, channels, change)), high: Float64Array.from(changed(high, channels, change)), mean: means,
      squares: squares.map((power, c) => {
        const [s, z] = [scaleAt(change, c), shiftAt(change, c)];
        return Math.max(means[c] * means[c], (power - 2 * z * mean[c] + z * z) / (s * s));
      }),
    });
  }
  return moved;
};
