/**
 * Nodes of the same op on the same operands with the same attributes become one.
 *
 *     %a = sub(%x, %m); %b = sub(%x, %m)   ->   %a
 */
import { constantOf, type Graph, type Node, type Value } from '../ir/graph.ts';
import { mapGraph, mapOperands } from '../ir/rewrite.ts';
import { equalTypes, type Tensor } from '../ir/type.ts';
import { definePass } from './pass.ts';

/** Constants up to this many elements are compared by content. */
const SMALL_CONSTANT = 64;

export const mergeDuplicates = definePass({
  name: 'merge-duplicates', from: 'float', to: 'float',
  summary: 'compute what is computed twice only once',
  options: {},
  run: (graph) => {
    const known = new Map<string, Value>();
    const numbers = new Map<unknown, number>();
    const numberOf = (key: unknown): number => {
      const found = numbers.get(key) ?? numbers.size;
      numbers.set(key, found);
      return found;
    };
    const identity = (value: Value): string => {
      const tensor = constantOf(value);
      return tensor !== null && tensor.data.length <= SMALL_CONSTANT ? contentOf(tensor) : `#${numberOf(tensor ?? value)}`;
    };
    let merged = 0;
    const result: Graph<'float'> = mapGraph(graph, 'float', (node: Node, now, b) => {
      const inputs = mapOperands(node, now);
      const operands = Object.entries(inputs).map(([slot, operand]) =>
        `${slot}=${operand === null ? '' : [operand].flat().map((value) => identity(value as Value)).join()}`);
      const key = `${node.op}(${operands.join(';')})${JSON.stringify(node.attrs, infinitiesToo)}`;
      const twin = known.get(key);
      if (twin !== undefined && equalTypes(twin.type, node.output.type)) {
        merged++;
        return twin;
      }
      const value = b.copy(node, inputs);
      known.set(key, value);
      return value;
    });
    return merged === 0 ? graph : result;
  },
});

const contentOf = ({ type, data }: Tensor): string => `${type.dtype}[${type.shape.join()}]${Array.from(data as ArrayLike<number | bigint>, String).join()}`;
const infinitiesToo = (_key: string, value: unknown): unknown => (typeof value === 'number' && !Number.isFinite(value) ? String(value) : value);
