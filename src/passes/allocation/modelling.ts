/** The programme of a network: groups of tied layers, what their widths cost on every meter and lose by a table; and back from its answer to widths. */
import { printWidths, uniformWidth, type ChosenWidths } from '../../ir/ops/widths.ts';
import type { Meter } from './costs.ts';
import type { Layer } from './layers.ts';
import type { Assignment, Group, Programme } from './programme.ts';
import type { LossTable } from './sensitivity.ts';
import type { Widths } from './variants.ts';

/** What a programme is made of. */
export interface Material {
  readonly layers: readonly Layer[];
  /** widths that each layer may have */
  readonly choices: readonly (readonly ChosenWidths[])[];
  /** layers that share their widths */
  readonly groups: readonly (readonly number[])[];
  readonly meters: readonly Meter[];
  /** the width that a rule of the user sets */
  readonly kept: readonly (number | null)[];
}

/** Choices of a tied group: the widths that all its members may have; a kept member decides for all. */
const groupChoices = ({ choices, kept, layers }: Material, group: readonly number[]): readonly (readonly ChosenWidths[])[] => {
  if (group.length === 1) return choices[group[0]].map((widths) => [widths]);
  const leading = group.find((i) => kept[i] !== null) ?? group.find((i) => layers[i].parameters > 0) ?? group[0];
  return choices[leading].map((widths) => group.map((i): ChosenWidths => (layers[i].parameters > 0 ? { weights: widths.weights ?? uniformWidth(8), activations: widths.activations } : { weights: null, activations: widths.activations })));
};

export interface Modelled {
  readonly programme: Programme;
  /** widths by group, choice and member */
  readonly options: readonly (readonly (readonly ChosenWidths[])[])[];
}

export const programmeOf = (material: Material, table: LossTable, limits: readonly number[]): Modelled => {
  const { groups, layers, meters } = material;
  const options = groups.map((group) => groupChoices(material, group));
  const list = groups.map((group, g): Group => ({
    name: group.map((i) => layers[i].name).join(' = '),
    choices: options[g].map((members) => ({
      name: members.map(printWidths).join(' '),
      loss: group.reduce((sum, i, m) => sum + lossAt(table, i, members[m]), 0),
      usage: meters.map((meter) => group.reduce((sum, i, m) => sum + meter.cost(layers[i], members[m]), 0)),
    })),
  }));
  // a limit that is absent still counts in the report, but binds nothing
  return { options, programme: { groups: list, limits: meters.map(({ label, fixed, resource }, r) => ({ resource: label.startsWith('size on') ? resource : label, most: Math.min(limits[r], 1e15) - fixed, fixed })) } };
};

/** The programme without losses: what widths there are, and what they cost. */
export const frameOf = (material: Material, limits: readonly number[]): Modelled => programmeOf(material, { name: 'none', loss: () => 0 }, limits);

/** Widths that a tied layer has only because another chose them may not have been measured: then the next measured ones count. */
const lossAt = (table: LossTable, layer: number, widths: ChosenWidths): number => {
  const { weights } = widths;
  const found = table.loss(layer, widths);
  if (found !== Infinity || weights === null) return found === Infinity ? 0 : found;
  for (let { bits } = weights; bits >= 2; bits--) {
    const next = table.loss(layer, { ...widths, weights: uniformWidth(bits) });
    if (next !== Infinity) return next;
  }
  return 0;
};

export const widthsOf = ({ groups, layers }: Material, { options }: Pick<Modelled, 'options'>, assignment: Assignment): Widths =>
  new Map(groups.flatMap((group, g) => group.map((i, m) => [layers[i].name, options[g][assignment[g]][m]] as const)));
