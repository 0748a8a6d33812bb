/** Golden vectors: one sample of random codes from a fixed seed, and what every step must make of it by the reference interpreter. */
import { sizeOf } from '../../ir/dim.ts';
import { allocate, rangeOf, type IntegerDType } from '../../ir/dtype.ts';
import { evaluateGraph } from '../../ir/evaluate.ts';
import type { Value } from '../../ir/graph.ts';
import type { Tensor } from '../../ir/type.ts';
import { createRandom } from '../../numerics/random.ts';
import type { Program } from '../backend.ts';
import { interfaceOf } from '../interface.ts';

const SEED = 1;

export interface GoldenFile {
  readonly file: string;
  readonly name: string;
  readonly role: 'input' | 'step' | 'output';
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export const goldenOf = ({ graph, steps }: Program): readonly GoldenFile[] => {
  const random = createRandom(SEED);
  const ports = interfaceOf(graph);
  const inputs = new Map(graph.inputs.map(({ name, type }, i): [string, Tensor] => {
    const data = allocate(type.dtype, sizeOf(type.shape));
    const [least, greatest] = type.dtype === 'i64' ? [0, 0] : rangeOf(type.dtype as IntegerDType);
    const [low, high] = [Math.max(least, ports.inputs[i].low), Math.min(greatest, ports.inputs[i].high)];
    for (let at = 0; at < data.length; at++) {
      const code = low + random.below(Math.min(2 ** 32 - 1, high - low) + 1);
      data[at] = (type.dtype === 'i64' ? BigInt(code) : code) as never;
    }
    return [name, { type, data }];
  }));
  const wanted = new Set(steps.map(({ output }) => output));
  const seen = new Map<Value, Tensor>();
  const outputs = evaluateGraph(graph, inputs, { observe: (value, tensor) => { if (wanted.has(value)) seen.set(value, tensor); } });
  const file = (role: GoldenFile['role'], index: number, name: string, { type, data }: Tensor): GoldenFile => ({
    file: `golden/${role}-${String(index).padStart(3, '0')}.bin`, name, role, dtype: type.dtype, shape: type.shape as readonly number[], bytes: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
  });
  return [
    ...graph.inputs.map(({ name }, i) => file('input', i, name, inputs.get(name)!)),
    ...steps.map(({ output }, i) => file('step', i, output.name, seen.get(output)!)),
    ...graph.outputs.map(({ name }, i) => file('output', i, name, outputs.get(name)!)),
  ];
};
