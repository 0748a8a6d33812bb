/** The search for scales at one site: families on the loss from moments first, the best few on the exact loss. */
import { staticShape } from '../../ir/dim.ts';
import { constantOf, isNode, type Node, type Value } from '../../ir/graph.ts';
import { changeOf, identity, shiftAt, type Change } from './change.ts';
import { changesOf, type Site } from './channel-classes.ts';
import { ceilingOf } from './channel-rules.ts';
import { candidatesFor, finerThresholds, noScale, type Candidate, type Magnitudes } from './families.ts';
import { termsOf, type ChangeOf, type Facts, type Term } from './site-loss.ts';

export interface Scored {
  readonly candidate: Candidate;
  readonly loss: number;
}

/** Values of a site that products read: what is rounded there. */
export const readValues = ({ members }: Site, facts: Facts): readonly Value[] =>
  members.map(({ value }) => value).filter((value) => (facts.users.get(value) ?? []).some((node) => readsAsFactor(node, value)));
const readsAsFactor = (node: Node, value: Value): boolean =>
  node.op === 'attention' || node.op === 'matmul' || ((node.op === 'linear' || node.op === 'conv') && node.inputs['x'] === value);

/** Scales and shifts of all maps in one; where two change the same part of a value, the later one counts. */
export const joined = (...maps: readonly ReadonlyMap<Value, Change>[]): ReadonlyMap<Value, Change> => {
  const all = new Map<Value, Change>();
  for (const map of maps) for (const [value, { scale, shift }] of map) {
    const known = all.get(value) ?? identity;
    all.set(value, changeOf({ scale: scale ?? known.scale, shift: shift ?? known.shift }));
  }
  return all;
};

export const lossOf = (terms: readonly Term[], changes: ReadonlyMap<Value, Change>): number => {
  const change: ChangeOf = (value) => changes.get(value) ?? identity;
  return terms.reduce((sum, term) => sum + term.loss(change), 0);
};

/** The candidates of a site by rising loss, the identity among them; `shifts` are changes that hold at the same time. */
export const rankedScales = (site: Site, facts: Facts, shifts: ReadonlyMap<Value, Change> = new Map()): readonly Scored[] => {
  const terms = termsOf(site.members.map(({ value }) => value), facts);
  const score = (candidate: Candidate): Scored => ({ candidate, loss: lossOf(terms, joined(changesOf(site, candidate.scale, null), shifts)) });
  const none = score(noScale(site.size));
  if (terms.length === 0) return [none];
  const magnitudes = magnitudesOf(site, facts, shifts);
  const shares = ceilingShares(site, facts);
  const under = (list: readonly Candidate[]): readonly Candidate[] => (shares === null ? list : list.map((one) => ({ ...one, scale: underCeilings(one.scale, shares) })));
  const byLoss = (list: readonly Scored[]): Scored[] => [...list].sort((a, b) => a.loss - b.loss);
  const coarse = byLoss([none, ...under(candidatesFor(magnitudes)).map(score)]);
  const threshold = coarse.find(({ candidate: { family } }) => family === 'threshold');
  return threshold === undefined ? coarse : byLoss([...coarse, ...under(finerThresholds(magnitudes, threshold.candidate)).map(score)]);
};

/** Beyond calibration data a channel may reach this multiple of the largest number seen in it before its ceiling cuts it … */
const CEILING_HEADROOM = 1.1;
/** … and in any case this share of the ceiling: a channel that calibration data never woke must not be silenced. */
const LEAST_CEILING = 1 / 16;

/**
 * For each class, the share of the ceilings of its values (ReLU6) that it must keep, as a scale s ≤ 1 lets s·ceiling through; null without
 * ceilings. Classes whose scales also go the other way keep all of it.
 */
const ceilingShares = ({ members, size }: Site, { moments }: Facts): Float64Array | null => {
  const capped = members.filter(({ value }) => isNode(value.def) && ceilingOf(value.def) !== null);
  if (capped.length === 0) return null;
  const shares = new Float64Array(size).fill(LEAST_CEILING);
  for (const { value, classes, signs } of capped) {
    const ceiling = ceilingOf(value.def as Node)!;
    const { high } = moments.get(value.name)!;
    classes.forEach((id, c) => {
      if (id >= 0) shares[id] = Math.max(shares[id], signs[c] < 0 ? 1 : (high[c] * CEILING_HEADROOM) / ceiling);
    });
  }
  return shares.map((share) => Math.min(1, share));
};

/** The scales, divided by the largest and raised to the shares: at most 1, so that no channel meets its ceiling within its calibrated range. */
const underCeilings = (scale: Float64Array, shares: Float64Array): Float64Array => {
  const most = scale.reduce((a, b) => Math.max(a, b));
  return scale.map((s, id) => Math.min(1, Math.max(s / most, shares[id])));
};

const magnitudesOf = (site: Site, facts: Facts, shifts: ReadonlyMap<Value, Change>): Magnitudes => {
  const read = new Set(readValues(site, facts));
  const halfRange = new Float64Array(site.size);
  const against = new Float64Array(site.size);
  const weights = new Float64Array(site.size);
  const rows = new Float64Array(site.size);
  let reciprocal = false;
  let layers = false;
  for (const { value, classes, signs } of site.members) {
    const raise = (list: Float64Array, at: (c: number) => number): void =>
      classes.forEach((id, c) => { if (id >= 0) list[id] = Math.max(list[id], at(c)); });
    if (read.has(value)) {
      const { low, high } = facts.moments.get(value.name)!;
      const shift = shifts.get(value) ?? identity;
      const half = (c: number): number => Math.max(Math.abs(low[c] - shiftAt(shift, c)), Math.abs(high[c] - shiftAt(shift, c)));
      raise(halfRange, (c) => (signs[c] > 0 ? half(c) : 0));
      raise(against, (c) => (signs[c] < 0 ? half(c) : 0));
      reciprocal ||= signs.some((sign) => sign < 0);
      for (const node of facts.users.get(value) ?? []) {
        const columns = largestColumns(node, value);
        if (columns !== null) raise(weights, (c) => columns[c]);
      }
    }
    const made = isNode(value.def) ? largestRows(value.def) : null;
    if (made === null) continue;
    layers = true;
    raise(rows, (c) => made[c]);
  }
  return { halfRange, opposite: reciprocal ? against : weights, producer: layers ? rows : null, reciprocal };
};

const layerWeight = (node: Node): { readonly data: Float32Array; readonly outputs: number; readonly depth: number; readonly groups: number } | null => {
  const weight = node.op === 'linear' || node.op === 'conv' ? constantOf(node.inputs['weight'] as Value) : null;
  if (weight === null) return null;
  const shape = staticShape(weight.type.shape);
  return { data: weight.data as Float32Array, outputs: shape[0], depth: shape[shape.length - 1], groups: (node.attrs['group'] as number | undefined) ?? 1 };
};

/** Largest weight that reads each channel of a value. */
const largestColumns = (node: Node, value: Value): Float64Array | null => {
  const layer = layerWeight(node);
  if (layer === null || node.inputs['x'] !== value) return null;
  const { data, outputs, depth, groups } = layer;
  const largest = new Float64Array(depth * groups);
  const length = data.length / outputs;
  for (let at = 0; at < data.length; at++) {
    const c = Math.floor((Math.floor(at / length) * groups) / outputs) * depth + (at % depth);
    largest[c] = Math.max(largest[c], Math.abs(data[at]));
  }
  return largest;
};

/** Largest weight of each row of a layer. */
const largestRows = (node: Node): Float64Array | null => {
  const layer = layerWeight(node);
  if (layer === null) return null;
  const { data, outputs } = layer;
  const length = data.length / outputs;
  return Float64Array.from({ length: outputs }, (_, row) => {
    let most = 0;
    for (let at = row * length; at < (row + 1) * length; at++) most = Math.max(most, Math.abs(data[at]));
    return most;
  });
};

/** The middle of the range of each class over the values that products read. */
export const middleShift = (site: Site, facts: Facts): Float64Array => {
  const read = new Set(readValues(site, facts));
  const low = new Float64Array(site.size).fill(Infinity);
  const high = new Float64Array(site.size).fill(-Infinity);
  for (const { value, classes } of site.members) {
    if (!read.has(value)) continue;
    const moments = facts.moments.get(value.name)!;
    classes.forEach((id, c) => {
      if (id < 0) return;
      low[id] = Math.min(low[id], moments.low[c]);
      high[id] = Math.max(high[id], moments.high[c]);
    });
  }
  return low.map((l, id) => (l <= high[id] ? (l + high[id]) / 2 : 0));
};
