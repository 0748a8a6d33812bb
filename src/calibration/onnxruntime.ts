/**
 * ONNX Runtime as a float reference, where the optional package `onnxruntime-node` is installed: it runs the original model, so it
 * checks our import and executor as well as being faster on large models. It gives graph outputs only; statistics of values inside the
 * graph always come from our executor, whose results have the same bits on every machine. ONNX Runtime's do not.
 */
import { CompileError } from '../ir/diagnostic.ts';
import { allocate, type DType, type TypedArray } from '../ir/dtype.ts';
import { errors } from '../ir/errors.ts';
import { tensor, tensorType, type Tensor } from '../ir/type.ts';
import type { Sample } from './samples.ts';

/** Runs a model on one sample at a time. */
export interface ModelRunner {
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Outputs by their ONNX name. */
  run(sample: Sample): Promise<Sample>;
  close(): Promise<void>;
}

// the part of the package's interface that is used; its own types would make it a dependency of ours
interface RuntimeTensor {
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: TypedArray;
}
interface Session {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly { readonly name: string; readonly type: string }[];
  run(feeds: Readonly<Record<string, RuntimeTensor>>): Promise<Readonly<Record<string, RuntimeTensor>>>;
  release(): Promise<void>;
}
interface Runtime {
  readonly InferenceSession: { create(model: string | Uint8Array, options: { readonly intraOpNumThreads: number; readonly logSeverityLevel: number }): Promise<Session> };
  readonly Tensor: new (type: string, data: TypedArray, dims: readonly number[]) => RuntimeTensor;
}

const typeNames: Readonly<Partial<Record<DType, string>>> = {
  f32: 'float32', i8: 'int8', u8: 'uint8', i16: 'int16', u16: 'uint16', i32: 'int32', u32: 'uint32', i64: 'int64', bool: 'bool',
};
const dtypes: ReadonlyMap<string, DType> = new Map(Object.entries(typeNames).map(([dtype, name]) => [name, dtype as DType]));
/** Errors only: warnings would stand among the lines of the command. */
const ERRORS_ONLY = 3;

/** Opens a model file (with its external data beside it) or a model in memory. */
export const openOnnxRuntime = async (model: string | Uint8Array): Promise<ModelRunner> => {
  const { InferenceSession, Tensor: RuntimeTensorOf } = await loadRuntime();
  const session = await InferenceSession.create(model, { intraOpNumThreads: 1, logSeverityLevel: ERRORS_ONLY }).catch((cause: Error) => {
    throw new CompileError(errors.noOnnxRuntime(cause.message));
  });
  const fromRuntime = (name: string, { type, dims, data }: RuntimeTensor): Tensor => {
    const dtype = dtypes.get(type);
    if (dtype === undefined) throw new CompileError(errors.noOnnxRuntime(`output "${name}" holds ${type}`));
    return tensor(tensorType(dtype, dims.map(Number)), data);
  };
  return {
    inputs: session.inputNames, outputs: session.outputNames,
    async run(sample) {
      const feeds = Object.fromEntries(session.inputNames.map((name) => {
        const given = sample[name];
        if (given === undefined) throw new CompileError(errors.missingInput('the sample', name, Object.keys(sample)));
        // the import may narrow integers, which the model itself takes as it declares them
        const wanted = dtypes.get(session.inputMetadata.find((input) => input.name === name)?.type ?? '') ?? given.type.dtype;
        return [name, new RuntimeTensorOf(typeNames[wanted]!, converted(given, wanted), given.type.shape as readonly number[])];
      }));
      return Object.fromEntries(Object.entries(await session.run(feeds)).map(([name, output]) => [name, fromRuntime(name, output)]));
    },
    close: () => session.release(),
  };
};

const converted = ({ type, data }: Tensor, dtype: DType): TypedArray => {
  if (type.dtype === dtype) return data;
  const result = allocate(dtype, data.length);
  for (let i = 0; i < data.length; i++) result[i] = dtype === 'i64' ? BigInt(data[i]) : Number(data[i]);
  return result;
};

const loadRuntime = async (): Promise<Runtime> => {
  // a name that the compiler of types cannot see: the package may be absent
  const name: string = 'onnxruntime-node';
  try {
    const found = (await import(name)) as { readonly default?: Runtime } & Runtime;
    return found.default ?? found;
  } catch (cause) {
    throw new CompileError(errors.noOnnxRuntime((cause as Error).message.split('\n')[0]), 'usage');
  }
};
