/**
 * The rule driver. A sweep remakes each node on its new operands, in order, and offers it to the rules of its op; a rule returns the
 * value that replaces the node, or null. Nodes whose operands did not change and that no rule took are shared, not copied.
 */
import { Builder } from './build.ts';
import { useCounts, usersOf, type Graph, type Node, type Stage, type Value } from './graph.ts';
import { joinSites, type NodeOf, type Operands, type OpDef } from './op.ts';

/** Builder of one sweep, which also answers questions about the graph that is being rewritten. */
export class Rewriter extends Builder {
  private readonly counts: ReadonlyMap<Value, number>;
  private readonly users: ReadonlyMap<Value, readonly Node[]>;
  private readonly originals = new Map<Value, Value>();
  readonly nearMisses: NearMiss[] = [];
  rule = '';

  readonly graph: Graph;
  constructor(graph: Graph) {
    super();
    this.graph = graph;
    this.counts = useCounts(graph);
    this.users = usersOf(graph);
  }

  /** How often the value was read in the graph before the sweep; 1 for a value made during it. */
  useCount(value: Value): number {
    return this.counts.get(this.originals.get(value) ?? value) ?? 1;
  }
  /** The nodes that read the value in the graph before the sweep. */
  usersOf(value: Value): readonly Node[] {
    return this.users.get(this.originals.get(value) ?? value) ?? [];
  }
  /** Gives up with a reason that is worth telling. */
  decline(reason: string): null {
    this.nearMisses.push({ rule: this.rule, node: this.site.origins.join(', '), reason });
    return null;
  }
  /** @internal records that `value` stands for `original` in the new graph */
  replaced(original: Value, value: Value): void {
    if (original !== value) this.originals.set(value, original);
  }
}

export interface Rule {
  readonly name: string;
  /** the root op that the rule is offered; '*' for every op */
  readonly root: string;
  apply(node: Node, b: Rewriter): Value | null;
}

/** A rule anchored at one op, its node typed by the declaration. Its doc comment carries the equation that makes it right. */
export const rule = <N extends string, O extends Operands, A extends object>(
  root: OpDef<N, O, A>, name: string, apply: (node: NodeOf<OpDef<N, O, A>>, b: Rewriter) => Value | null,
): Rule => ({ name, root: root.name, apply: apply as Rule['apply'] });

/** A rule that gave up at a node that it nearly matched. */
export interface NearMiss {
  readonly rule: string;
  readonly node: string;
  readonly reason: string;
}

export interface RewriteResult<S extends Stage> {
  readonly graph: Graph<S>;
  /** how often each rule fired, in order of first firing */
  readonly firings: ReadonlyMap<string, number>;
  /** near misses of the last sweep: what still stands in the graph */
  readonly nearMisses: readonly NearMiss[];
}

/** Sweeps until nothing fires (at most `sweeps` times). Returns the same graph when no rule fired. */
export const rewrite = <S extends Stage>(graph: Graph<S>, rules: readonly Rule[], passName: string, sweeps = 8): RewriteResult<S> => {
  const firings = new Map<string, number>();
  let current = graph;
  let nearMisses: readonly NearMiss[] = [];
  for (let n = 0; n < sweeps; n++) {
    const swept = sweep(current, rules, passName, firings);
    nearMisses = swept.nearMisses;
    if (swept.graph === current) break;
    current = swept.graph;
  }
  return { graph: current, firings, nearMisses };
};

const sweep = <S extends Stage>(
  graph: Graph<S>, rules: readonly Rule[], passName: string, firings: Map<string, number>,
): { readonly graph: Graph<S>; readonly nearMisses: readonly NearMiss[] } => {
  const byRoot = new Map<string, Rule[]>();
  for (const one of rules) byRoot.set(one.root, [...(byRoot.get(one.root) ?? []), one]);
  const b = new Rewriter(graph);
  const renewed = new Map<Value, Value>();
  const now = (value: Value): Value => renewed.get(value) ?? value;
  let fired = false;
  b.reserve(graph.nodes.map(({ output }) => output.name));
  for (const input of graph.inputs) {
    const made = b.input(input.name, input.type);
    b.replaced(input, made);
    renewed.set(input, made);
  }
  for (const node of graph.nodes) {
    const remade = remake(node, now, b);
    let value = remade.output;
    b.replaced(node.output, value);
    for (const one of [...(byRoot.get(node.op) ?? []), ...(byRoot.get('*') ?? [])]) {
      b.site = joinSites(node.site, { origins: [], passes: [passName] });
      b.rule = one.name;
      const result = one.apply(remade, b);
      if (result === null || result === remade.output) continue;
      value = result;
      b.replaced(node.output, value);
      firings.set(one.name, (firings.get(one.name) ?? 0) + 1);
      fired = true;
      break;
    }
    renewed.set(node.output, value);
  }
  if (!fired) return { graph, nearMisses: b.nearMisses };
  const outputs = graph.outputs.map(({ name, value }) => ({ name, value: now(value) }));
  return { graph: b.finish(graph.stage, graph.name, outputs), nearMisses: b.nearMisses };
};

/** The node on its new operands; its name, attributes and type stay. */
const remake = (node: Node, now: (value: Value) => Value, b: Builder): Node => {
  const inputs: Record<string, Value | null | readonly Value[]> = {};
  let changed = false;
  for (const [slot, operand] of Object.entries(node.inputs)) {
    const next = operand === null ? null : Array.isArray(operand) ? operand.map(now) : now(operand as Value);
    changed ||= Array.isArray(operand) ? operand.some((value, i) => value !== (next as readonly Value[])[i]) : next !== operand;
    inputs[slot] = next;
  }
  return (changed ? b.copy(node, inputs) : b.adopt(node)).def as Node;
};

/**
 * Remakes the whole graph node by node: `make` returns the new value for a node on its new operands, or null to copy it. For passes
 * that change types rather than match patterns.
 */
export const mapGraph = <S extends Stage, T extends Stage>(
  graph: Graph<S>, stage: T,
  make: (node: Node, now: (value: Value) => Value, b: Builder) => Value | null,
  makeInput: (input: Value, b: Builder) => Value = (input, b) => b.input(input.name, input.type),
): Graph<T> => {
  const b = new Builder();
  const renewed = new Map<Value, Value>();
  const now = (value: Value): Value => renewed.get(value) ?? value;
  for (const input of graph.inputs) renewed.set(input, makeInput(input, b));
  for (const node of graph.nodes) {
    b.site = node.site;
    const value = make(node, now, b) ?? b.copy(node, mapOperands(node, now));
    renewed.set(node.output, value);
  }
  return b.finish(stage, graph.name, graph.outputs.map(({ name, value }) => ({ name, value: now(value) })));
};

/** The operands of a node, each sent through `now`. */
export const mapOperands = (node: Node, now: (value: Value) => Value): Node['inputs'] =>
  Object.fromEntries(Object.entries(node.inputs).map(([slot, operand]) =>
    [slot, operand === null ? null : Array.isArray(operand) ? operand.map(now) : now(operand as Value)]));
