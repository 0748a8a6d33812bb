/**
 * Operands that would hold the channels of a value where they are, given a node of their own that takes the change up:
 *
 *     residuals    %y = add(%n, %r), %n a LayerNorm      →  %y = add(batch_norm(%n, 1, 0), %r): the map becomes s·n + z, which the kernel of
 *                                                            the addition applies in its multipliers and its offset, channel by channel
 *     borders      %y = conv(%x) {pads: [1, 1, 1, 1]}     →  %y = conv(concat(0, %x, 0)): the zeros become −z/s, the code of what was 0
 *
 * Both say what was there before until a change is folded into them (channel-rules.ts); what no change has reached is put back.
 *
 * Source: Wei et al. 2023, Outlier Suppression+ (residual connections of networks that normalise after the addition).
 */
import type { Calibration, ChannelMoments } from '../../calibration/calibration.ts';
import type { Builder } from '../../ir/build.ts';
import { isStatic, staticShape } from '../../ir/dim.ts';
import { constantOf, isNode, operandsOf, usersOf, type Graph, type Node, type Value } from '../../ir/graph.ts';
import { flag } from '../../ir/op.ts';
import { batchNorm, concat } from '../../ir/ops/index.ts';
import { mapGraph, mapOperands } from '../../ir/rewrite.ts';
import { f32, tensor } from '../../ir/type.ts';
import { channelClasses } from './channel-classes.ts';
import { channelsOf } from './channel-rules.ts';

export interface Freedom {
  readonly residuals: boolean;
  readonly borders: boolean;
}

/** As options of a pass. */
export const residualsOption = flag('normalised values that are added back may change as well; the addition undoes it channel by channel', false);
export const bordersOption = flag('borders of padded convolutions may be written out, so that what they read can be shifted', false);

type Moments = ReadonlyMap<string, ChannelMoments>;
export interface Freed {
  readonly graph: Graph<'float'>;
  readonly moments: Moments;
}

/** The graph with its operands freed, and moments of the values that this adds; the same graph where there are none. */
export const freed = (graph: Graph<'float'>, moments: Moments, { residuals, borders }: Freedom): Freed => {
  const one = residuals ? withFreeResiduals(graph, moments) : { graph, moments };
  return borders ? withFreeBorders(one.graph, one.moments) : one;
};

// ---- residual operands of additions

const filled = (b: Builder, name: string, channels: number, value: number): Value => b.constant(name, tensor(f32(channels), new Float32Array(channels).fill(value)));

/** A LayerNorm result that an addition reads beside other nodes. */
const isResidual = (value: Value, users: ReadonlyMap<Value, readonly Node[]>): boolean =>
  isNode(value.def) && value.def.op === 'layer_norm' && (users.get(value)?.length ?? 0) > 1;

const withFreeResiduals = (graph: Graph<'float'>, moments: Moments): Freed => {
  const users = usersOf(graph);
  const frees = (node: Node): boolean => node.op === 'add' && operandsOf(node).some((value) => isResidual(value, users));
  if (!graph.nodes.some(frees)) return { graph, moments };
  const known = new Map(moments);
  const made = mapGraph(graph, 'float', (node, now, b) => {
    if (!frees(node)) return null;
    const free = (value: Value): Value => {
      if (!isResidual(value, users)) return now(value);
      const [name, channels] = [`${value.name}.residual`, channelsOf(value)];
      const residual = b.emit(batchNorm, {
        x: now(value), scale: filled(b, `${name}.scale`, channels, 1), bias: filled(b, `${name}.bias`, channels, 0),
        mean: filled(b, `${name}.mean`, channels, 0), variance: filled(b, `${name}.variance`, channels, 1),
      }, { epsilon: 0 }, { name });
      known.set(residual.name, moments.get(value.name)!);
      return residual;
    };
    return b.copy(node, mapOperands(node, free));
  });
  return { graph: made, moments: known };
};

const isNeutralMap = (node: Node): boolean => node.op === 'batch_norm' && node.attrs['epsilon'] === 0
  && Object.entries({ scale: 1, bias: 0, mean: 0, variance: 1 }).every(([slot, neutral]) => constantOf(node.inputs[slot] as Value)?.data.every((x) => Number(x) === neutral));

// ---- borders of convolutions

const padsOf = (node: Node): readonly number[] => node.attrs['pads'] as readonly number[];
const hasBorder = (node: Node): boolean => node.op === 'conv' && padsOf(node).some((p) => p > 0) && constantOf(node.inputs['weight'] as Value) !== null
  && (node.inputs['x'] as Value).type.shape.every(isStatic);

/** Zeros around an image, rows outside columns. */
const bordered = (b: Builder, x: Value, [top, left, bottom, right]: readonly number[], stem: string): Value => {
  const around = (image: Value, axis: 1 | 2, before: number, after: number): Value => {
    if (before + after === 0) return image;
    const zeros = (count: number): readonly Value[] => {
      const shape = staticShape(image.type.shape).map((n, i) => (i === axis ? count : n));
      return count === 0 ? [] : [b.constant(`${stem}.border`, tensor(f32(...shape), new Float32Array(shape.reduce((n, m) => n * m))))];
    };
    return b.emit(concat, { xs: [...zeros(before), image, ...zeros(after)] }, { axis }, { name: stem });
  };
  return around(around(x, 2, left, right), 1, top, bottom);
};

/** Moments of an image with zeros around it. */
const momentsWithZeros = ({ low, high, mean, squares }: ChannelMoments, share: number): ChannelMoments =>
  ({ low: low.map((x) => Math.min(0, x)), high: high.map((x) => Math.max(0, x)), mean: mean.map((x) => x * share), squares: squares.map((x) => x * share) });

const withBorders = (graph: Graph<'float'>, moments: Moments, frees: (node: Node) => boolean): Freed => {
  const known = new Map(moments);
  const made = mapGraph(graph, 'float', (node, now, b) => {
    if (!frees(node)) return null;
    const x = node.inputs['x'] as Value;
    const image = bordered(b, now(x), padsOf(node), `${node.output.name}.image`);
    for (let at: Value | undefined = image; at !== undefined && at !== now(x); at = operandsOf(at.def as Node).find((value) => constantOf(value) === null)) {
      const [before, after] = [x, at].map((value) => staticShape(value.type.shape).reduce((n, m) => n * m));
      known.set(at.name, momentsWithZeros(moments.get(x.name)!, before / after));
    }
    return b.copy(node, { ...mapOperands(node, now), x: image }, node.output.type, { ...node.attrs, pads: [0, 0, 0, 0] });
  });
  return { graph: made, moments: known };
};

/** Only images whose channels can be shifted get a border of their own. */
const withFreeBorders = (graph: Graph<'float'>, moments: Moments): Freed => {
  if (!graph.nodes.some(hasBorder)) return { graph, moments };
  const free = new Set(channelClasses(withBorders(graph, moments, hasBorder).graph).shiftSites.flatMap(({ members }) => members.map(({ value }) => value.name)));
  const frees = (node: Node): boolean => hasBorder(node) && free.has((node.inputs['x'] as Value).name);
  return graph.nodes.some(frees) ? withBorders(graph, moments, frees) : { graph, moments };
};

/** Numbers in the constants that are joined to a value, 0 where there are none. */
export const borderSize = ({ def }: Value): number =>
  (isNode(def) && def.op === 'concat' ? (def.inputs['xs'] as readonly Value[]).reduce((sum, x) => sum + (constantOf(x)?.data.length ?? 0), 0) : 0);

/** The image inside a border of zeros, and the pads that say the same; null for anything else. */
const insideBorder = (value: Value): { readonly x: Value; readonly pads: readonly number[] } | null => {
  const pads = [0, 0, 0, 0];
  let at = value;
  for (const axis of [1, 2]) {
    if (!isNode(at.def) || at.def.op !== 'concat' || at.def.attrs['axis'] !== axis) continue;
    const xs = at.def.inputs['xs'] as readonly Value[];
    const middle = xs.findIndex((x) => constantOf(x) === null);
    if (xs.some((x, i) => i !== middle && (constantOf(x)?.data.some((zero) => Number(zero) !== 0) ?? true))) return null;
    const rows = (list: readonly Value[]): number => list.reduce((n, { type }) => n + (type.shape[axis] as number), 0);
    pads[axis - 1] = rows(xs.slice(0, middle));
    pads[axis + 1] = rows(xs.slice(middle + 1));
    at = xs[middle];
  }
  return at === value ? null : { x: at, pads };
};

/**
 * What has become of a freed graph, with that put back which no change has reached: maps that map nothing, borders of zeros. The moments that
 * calibration knows of it are those of the result. It may be a promise, so that a pass is over, and its recordings are free, while that settles.
 */
export const tidied = async (settling: Graph<'float'> | Promise<Graph<'float'>>, open: Graph<'float'>, before: Graph<'float'>, calibration: Calibration): Promise<Graph<'float'>> => {
  const settled = await settling;
  if (settled === open) return before;
  if (open === before) return settled;
  const known = new Set(before.nodes.map(({ output }) => output.name));
  const made = mapGraph(settled, 'float', (node, now, b) => {
    if (!known.has(node.output.name)) return isNeutralMap(node) ? now(node.inputs['x'] as Value) : null;
    const x = node.inputs['x'] as Value | undefined;
    const inside = node.op !== 'conv' || x === undefined || known.has(x.name) ? null : insideBorder(x);
    return inside === null ? null : b.copy(node, { ...mapOperands(node, now), x: now(inside.x) }, node.output.type, { ...node.attrs, pads: inside.pads });
  });
  calibration.adoptMoments(made, await calibration.channelMoments(settled));
  return made;
};
