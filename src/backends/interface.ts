/** What a compiled program shows to its caller: named tensors of integer codes and what the codes mean. */
import { printShape, sizeOf, staticShape } from '../ir/dim.ts';
import { bitsOf, isSigned, rangeOf, storageBytes, type DType, type IntegerDType } from '../ir/dtype.ts';
import type { Graph } from '../ir/graph.ts';
import { isPerTensor, scaleOf, zeroOf } from '../ir/quant.ts';
import type { TensorType } from '../ir/type.ts';
import { identifiers } from './identifier.ts';

export interface Port {
  /** the ONNX name */
  readonly name: string;
  readonly id: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly elements: number;
  readonly bytes: number;
  /** real = (code − zero) · scale; null where the codes are plain integers such as token indices */
  readonly scale: number | null;
  readonly zero: number;
  /** least and greatest code in use */
  readonly low: number;
  readonly high: number;
}
export interface ProgramInterface {
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
}

export const interfaceOf = (graph: Graph): ProgramInterface => ({
  inputs: ports(graph.inputs.map(({ name, type }) => ({ name, type }))),
  outputs: ports(graph.outputs.map(({ name, value }) => ({ name, type: value.type }))),
});

const ports = (tensors: readonly { name: string; type: TensorType }[]): readonly Port[] => {
  const ids = identifiers(tensors.map(({ name }) => name));
  return tensors.map(({ name, type: { dtype, shape, quant } }, i) => {
    const known = quant !== null && isPerTensor(quant) ? quant : null;
    const [low, high] = known === null ? rangeOf(dtype as IntegerDType) : [known.low, known.high];
    const elements = sizeOf(shape);
    return {
      name, id: ids[i], dtype, shape: staticShape(shape), elements, bytes: elements * storageBytes(dtype),
      scale: known === null ? null : scaleOf(known), zero: known === null ? 0 : zeroOf(known), low, high,
    };
  });
};

/** The type of one stored element in C: narrow codes take a byte. */
export const cTypeOf = (dtype: DType): string => `${isSigned(dtype) ? 'int' : 'uint'}${storageBits(dtype)}_t`;

/** The JavaScript array that holds the codes. */
export const arrayTypeOf = (dtype: DType): string =>
  dtype === 'i64' ? 'BigInt64Array' : `${isSigned(dtype) ? 'Int' : 'Uint'}${storageBits(dtype)}Array`;

const storageBits = (dtype: DType): number => Math.max(8, storageBytes(dtype) * 8);

/** `int8 [1, 224, 224, 3]`, for comments. */
export const printPort = ({ dtype, shape }: Port): string =>
  `${dtype === 'bool' ? 'bool' : `${isSigned(dtype) ? 'int' : 'uint'}${bitsOf(dtype)}`} [${printShape(shape)}]`;
