/**
 * Multipliers of fewer bits, for machines whose rescaling multiplies by less than 31 bits. With d the bits that are too many,
 *
 *     M' = (M + 2^(d−1)) >> d,   C' = (C·2^e + 2^(d−1)) >> d,   s' = s − d + e,   x shifted left by e bits more
 *
 * where e keeps s' at 32 where the kernel asks for that. The factor M·2^-s changes by 2^-bits of itself at most, for all channels whose
 * multiplier fills the width. A node whose codes leave no room for e keeps its multipliers. Rows that are rescaled by the reciprocal of
 * their own sum have factors of 31 bits whatever the constants are, and stay as they are.
 */
import { accumulatorBounds, hullOf, type Bounds } from '../ir/bounds.ts';
import { factOf } from '../ir/analysis.ts';
import type { Builder } from '../ir/build.ts';
import { staticShape } from '../ir/dim.ts';
import { constantOf, type Node, type Value } from '../ir/graph.ts';
import { int } from '../ir/op.ts';
import { mapGraph, mapOperands } from '../ir/rewrite.ts';
import { tensor } from '../ir/type.ts';
import { definePass } from './pass.ts';

const shiftRounded = (value: bigint, bits: number): bigint => (bits <= 0 ? value << BigInt(-bits) : (value + (1n << BigInt(bits - 1))) >> BigInt(bits));
const numberRounded = (value: number, bits: number): number => Number(shiftRounded(BigInt(value), bits));

/** The least number of bits to drop so that every multiplier rounds to one below 2^bits. */
const excess = (multipliers: Iterable<number>, bits: number): number => {
  let most = 0;
  for (const mul of multipliers) most = Math.max(most, Math.abs(mul));
  let drop = 0;
  while (numberRounded(most, drop) >= 2 ** bits) drop++;
  return drop;
};

/** Constants of a rescaling with one record a channel: which slots hold multipliers, and how far x can be shifted left to keep the shift at 32. */
interface Form {
  readonly slots: readonly string[];
  /** attribute that shifts x, and how much more it can; null where the shift may fall below 32 */
  readonly widen: string | null;
  room(node: Node, bounds: Bounds): number;
}
/** Bits by which a 32-bit value of an interval can be shifted left. */
const roomOf = ([low, high]: readonly [number, number]): number => {
  let room = 0;
  while (room < 31 && Math.max(-low, high + 1) * 2 ** (room + 1) <= 2 ** 31) room++;
  return room;
};
const forms: Readonly<Record<string, Form>> = {
  requantize: { slots: ['mul'], widen: 'preShift', room: (node, bounds) => roomOf(hullOf(bounds.get(node.inputs['x'] as Value)!)) - Number(node.attrs['preShift']) },
  requantize_add: { slots: ['mulX', 'mulY'], widen: null, room: () => 0 },
  // |n| ≤ √C·2^fraction
  layer_norm_int: { slots: ['mul'], widen: 'fraction', room: (node) => Math.min(24 - Number(node.attrs['fraction']), 30 - Math.ceil(Math.log2(staticShape(node.output.type.shape).at(-1)!) / 2) - Number(node.attrs['fraction'])) },
};

const narrowRecords = (node: Node, now: (value: Value) => Value, b: Builder, bounds: Bounds, bits: number, { slots, widen, room }: Form): Value | null => {
  const muls = slots.map((slot) => constantOf(node.inputs[slot] as Value)!);
  const drop = excess(muls.flatMap(({ data }) => [...data as Int32Array]), bits);
  if (drop === 0) return null;
  const shift = Number(node.attrs['shift']);
  const more = widen === null ? 0 : Math.max(0, 32 - (shift - drop));
  if (more > Math.max(0, room(node, bounds)) || shift - drop + more < 1) return null;
  const add = constantOf(node.inputs['add'] as Value)!;
  const renewed = Object.fromEntries(slots.map((slot, i) => [slot, b.constant(`${node.output.name}.${slot}`, tensor(muls[i].type, Int32Array.from(muls[i].data as Int32Array, (mul) => numberRounded(mul, drop))))]));
  const sum = b.constant(`${node.output.name}.add`, tensor(add.type, BigInt64Array.from(add.data as BigInt64Array, (value) => shiftRounded(value << BigInt(more), drop))));
  const attrs = { ...node.attrs, shift: shift - drop + more, ...(widen === null ? {} : { [widen]: Number(node.attrs[widen]) + more }) };
  return b.emit(node.decl, { ...mapOperands(node, now), ...renewed, add: sum } as never, attrs as never, { replaces: node.output, type: node.output.type });
};

const narrowProduct = (node: Node, now: (value: Value) => Value, b: Builder, bits: number): Value | null => {
  const { mul, shift, add } = node.attrs as { mul: number; shift: number; add: bigint };
  const drop = excess([mul], bits);
  if (drop === 0 || shift - drop < 1) return null;
  return b.emit(node.decl, mapOperands(node, now) as never, { ...node.attrs, mul: numberRounded(mul, drop), shift: shift - drop, add: shiftRounded(add, drop) } as never, { replaces: node.output, type: node.output.type });
};

export const narrowMultipliers = definePass<'kernel', 'kernel', { readonly bits: number }>({
  name: 'narrow-multipliers',
  from: 'kernel',
  to: 'kernel',
  summary: 'rescaling factors of fewer bits, for a machine with a narrow multiplier',
  changes: 'factors, by 2^-bits of themselves at most',
  options: { bits: int('bits of a multiplier without its sign, 8 to 31', 31) },
  run: (graph, { bits }) => {
    if (bits >= 31) return graph;
    const bounds = factOf(graph, accumulatorBounds);
    let changed = false;
    const narrowed = mapGraph<'kernel', 'kernel'>(graph, 'kernel', (node, now, b) => {
      const form = forms[node.op];
      const made = form !== undefined ? narrowRecords(node, now, b, bounds, bits, form) : node.op === 'requantize_mul' ? narrowProduct(node, now, b, bits) : null;
      changed ||= made !== null;
      return made;
    });
    return changed ? narrowed : graph;
  },
});
