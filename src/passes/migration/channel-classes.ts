/**
 * Which channels of a graph change together. Every channel of every real value is an element of two union-finds, one for scales
 * (whose links also say whether a scale goes with its root's or against it, as q and k of attention do) and one for shifts; whole
 * values are elements of a third one for orders. What cannot change is held.
 *
 * A site is a connected set of values together with its free classes: the numbers that a pass may choose there.
 */
import { constantOf, operandsOf, usersOf, type Graph, type Value } from '../../ir/graph.ts';
import { changeOf, type Change } from './change.ts';
import { channelsOf, ruleOf, type Part, type Relations } from './channel-rules.ts';

/** The class of each channel of a value, numbered within the site; −1 where it cannot change. */
export interface Member {
  readonly value: Value;
  readonly classes: Int32Array;
  /** −1 where the scale of the channel is the inverse of that of its class; all 1 in a shift site */
  readonly signs: Int8Array;
}
export interface Site {
  readonly kind: 'scale' | 'shift';
  /** in graph order */
  readonly members: readonly Member[];
  /** number of free classes */
  readonly size: number;
}

/** Values that share one order of their channels. */
export interface OrderSite {
  readonly values: readonly Value[];
  readonly channels: number;
  /** channels stay inside equal blocks, so many of them */
  readonly blocks: number;
}

export interface ChannelClasses {
  readonly scaleSites: readonly Site[];
  readonly shiftSites: readonly Site[];
  readonly orderSites: readonly OrderSite[];
}

export const channelClasses = (graph: Graph<'float'>): ChannelClasses => {
  const values = [...graph.inputs, ...graph.nodes.map(({ output }) => output)].filter((value) => channelsOf(value) > 0);
  const classes = new Classes(values);
  for (const value of graph.inputs) classes.hold(value, 'scale', 'shift', 'order');
  for (const { value } of graph.outputs) classes.hold(value, 'scale', 'shift', 'order');
  for (const node of graph.nodes) ruleOf(node).relate(node, classes);
  relateSharedWeights(graph, classes);
  return { scaleSites: classes.sites('scale'), shiftSites: classes.sites('shift'), orderSites: classes.orderSites() };
};

/** Numbers for the classes of a site, one scale and one shift for each, as changes of its values. */
export const changesOf = ({ members }: Site, scale: Float64Array | null, shift: Float64Array | null): Map<Value, Change> =>
  new Map(members.map(({ value, classes, signs }) => {
    const take = (list: Float64Array | null, neutral: number, at: (one: number, c: number) => number): Float64Array | null =>
      (list === null ? null : Float64Array.from(classes, (id, c) => (id < 0 ? neutral : at(list[id], c))));
    return [value, changeOf({ scale: take(scale, 1, (s, c) => (signs[c] < 0 ? 1 / s : s)), shift: take(shift, 0, (z) => z), order: null })];
  }));

/** An order for the channels of a site, as changes of its values. */
export const orderChanges = ({ values }: OrderSite, order: Int32Array): Map<Value, Change> => {
  const change = changeOf({ order });
  return new Map(values.map((value) => [value, change]));
};

/** One weight that several layers read can only be changed in one way: their operands change together, and so do their results. */
const relateSharedWeights = (graph: Graph<'float'>, to: Relations): void => {
  for (const [value, users] of usersOf(graph)) {
    if (constantOf(value) === null || users.length < 2) continue;
    const layers = users.filter((node) => ['linear', 'conv', 'gather'].includes(node.op) && (node.inputs['weight'] === value || node.inputs['table'] === value));
    const [first, ...others] = layers;
    if (first === undefined) continue;
    const alike = layers.length === users.length && others.every((node) => node.op === first.op && node.attrs['group'] === first.attrs['group']);
    for (const node of others) {
      if (first.op !== 'gather') to.same(first.inputs['x'] as Value, node.inputs['x'] as Value);
      to.same(first.output, node.output);
    }
    if (!alike) for (const node of users) [...operandsOf(node), node.output].forEach((one) => to.hold(one, 'scale', 'shift', 'order'));
  }
};

/** Union-find with a sign on each link. */
class SignedClasses {
  private readonly parent: Int32Array;
  private readonly sign: Int8Array;
  readonly held: Uint8Array;

  constructor(size: number) {
    this.parent = Int32Array.from({ length: size }, (_, i) => i);
    this.sign = new Int8Array(size).fill(1);
    this.held = new Uint8Array(size);
  }
  find(item: number): { readonly root: number; readonly sign: number } {
    let root = item;
    let sign = 1;
    while (this.parent[root] !== root) {
      sign *= this.sign[root];
      root = this.parent[root];
    }
    // every item on the way points to the root from now on
    for (let at = item, rest = sign; at !== root;) {
      const [up, own] = [this.parent[at], this.sign[at]];
      this.parent[at] = root;
      this.sign[at] = rest;
      rest *= own;
      at = up;
    }
    return { root, sign };
  }
  join(a: number, b: number, sign: 1 | -1 = 1): void {
    const [p, q] = [this.find(a), this.find(b)];
    if (p.root === q.root) {
      // a scale that is its own inverse is 1
      if (p.sign !== q.sign * sign) this.held[p.root] = 1;
      return;
    }
    this.parent[q.root] = p.root;
    this.sign[q.root] = p.sign * q.sign * sign;
    this.held[p.root] |= this.held[q.root];
  }
  hold(item: number): void {
    this.held[this.find(item).root] = 1;
  }
}

class Classes implements Relations {
  private readonly values: readonly Value[];
  private readonly first = new Map<Value, number>();
  private readonly indices = new Map<Value, number>();
  private readonly scales: SignedClasses;
  private readonly shifts: SignedClasses;
  private readonly orders: SignedClasses;
  private readonly blockCounts: Int32Array;

  constructor(values: readonly Value[]) {
    this.values = values;
    let total = 0;
    values.forEach((value, i) => {
      this.first.set(value, total);
      this.indices.set(value, i);
      total += channelsOf(value);
    });
    this.scales = new SignedClasses(total);
    this.shifts = new SignedClasses(total);
    this.orders = new SignedClasses(values.length);
    this.blockCounts = new Int32Array(values.length).fill(1);
  }

  same(x: Value, y: Value): void {
    this.pairs(x, y, (i, j) => { this.scales.join(i, j); this.shifts.join(i, j); });
    this.sameOrder(x, y);
  }
  sameChannel(x: Value, i: number, y: Value, j: number): void {
    const [p, q] = [this.first.get(x), this.first.get(y)];
    if (p !== undefined && q !== undefined) {
      this.scales.join(p + i, q + j);
      this.shifts.join(p + i, q + j);
    }
    this.hold(x, 'order', ...(q === undefined ? ['scale', 'shift'] as const : []));
    this.hold(y, 'order', ...(p === undefined ? ['scale', 'shift'] as const : []));
  }
  sameScale(x: Value, y: Value): void {
    this.pairs(x, y, (i, j) => this.scales.join(i, j));
    for (const value of [x, y]) this.hold(value, 'shift');
    this.sameOrder(x, y);
  }
  reciprocal(x: Value, y: Value): void {
    this.pairs(x, y, (i, j) => this.scales.join(i, j, -1));
    this.sameOrder(x, y);
  }
  sameOrder(x: Value, y: Value): void {
    const [i, j] = [this.indices.get(x), this.indices.get(y)];
    if (i !== undefined && j !== undefined && channelsOf(x) === channelsOf(y)) this.orders.join(i, j);
    else for (const value of [x, y]) this.hold(value, 'order');
  }
  hold(value: Value, ...parts: readonly Part[]): void {
    const at = this.first.get(value);
    if (at === undefined) return;
    for (const part of parts) {
      if (part === 'order') this.orders.hold(this.indices.get(value)!);
      else for (let c = 0; c < channelsOf(value); c++) (part === 'scale' ? this.scales : this.shifts).hold(at + c);
    }
  }
  blocks(value: Value, count: number): void {
    const index = this.indices.get(value);
    if (index !== undefined) this.blockCounts[index] = Math.max(this.blockCounts[index], count);
  }

  /** Calls `visit` with every pair of channels; where they cannot be paired, or one is not a real number, both are held. */
  private pairs(x: Value, y: Value, visit: (i: number, j: number) => void): void {
    const [p, q] = [this.first.get(x), this.first.get(y)];
    if (p === undefined || q === undefined || channelsOf(x) !== channelsOf(y)) return [x, y].forEach((value) => this.hold(value, 'scale', 'shift'));
    for (let c = 0; c < channelsOf(x); c++) visit(p + c, q + c);
  }

  sites(kind: Site['kind']): readonly Site[] {
    const classes = kind === 'scale' ? this.scales : this.shifts;
    // values are connected where they share a class
    const linked = new SignedClasses(this.values.length);
    const owner = new Map<number, number>();
    const free = this.values.map((value, i) => {
      const at = this.first.get(value)!;
      return Array.from({ length: channelsOf(value) }, (_, c) => {
        const { root, sign } = classes.find(at + c);
        if (classes.held[root] === 1) return null;
        const known = owner.get(root);
        if (known === undefined) owner.set(root, i); else linked.join(known, i);
        return { root, sign };
      });
    });
    const groups = new Map<number, number[]>();
    this.values.forEach((_, i) => {
      if (free[i].every((one) => one === null)) return;
      const { root } = linked.find(i);
      groups.set(root, [...(groups.get(root) ?? []), i]);
    });
    return [...groups.values()].map((indices): Site => {
      const ids = new Map<number, number>();
      const idOf = (root: number): number => ids.get(root) ?? (ids.set(root, ids.size), ids.size - 1);
      const members = indices.map((i): Member => ({
        value: this.values[i],
        classes: Int32Array.from(free[i], (one) => (one === null ? -1 : idOf(one.root))),
        signs: Int8Array.from(free[i], (one) => one?.sign ?? 1),
      }));
      return { kind, members, size: ids.size };
    });
  }

  orderSites(): readonly OrderSite[] {
    const groups = new Map<number, number[]>();
    this.values.forEach((_, i) => {
      const { root } = this.orders.find(i);
      if (this.orders.held[root] === 0) groups.set(root, [...(groups.get(root) ?? []), i]);
    });
    return [...groups.values()].map((indices) => ({
      values: indices.map((i) => this.values[i]),
      channels: channelsOf(this.values[indices[0]]),
      blocks: Math.max(...indices.map((i) => this.blockCounts[i])),
    }));
  }
}
