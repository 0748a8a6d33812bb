/**
 * The messages of onnx.proto (IR version 14, proto2), one line a field: `number type`, `[]` for repeated, `packed` where the file
 * format packs numbers. Fields stand in number order, which is the order they are written in. The TypeScript types of messages are
 * derived from this table, so it is the only description of the format.
 */
export const messages = {
  ModelProto: {
    irVersion: '1 int64', producerName: '2 string', producerVersion: '3 string', domain: '4 string', modelVersion: '5 int64',
    docString: '6 string', graph: '7 GraphProto', opsetImport: '8 OperatorSetIdProto[]', metadataProps: '14 StringStringEntryProto[]',
    trainingInfo: '20 TrainingInfoProto[]', functions: '25 FunctionProto[]', configuration: '26 DeviceConfigurationProto[]',
  },
  OperatorSetIdProto: { domain: '1 string', version: '2 int64' },
  StringStringEntryProto: { key: '1 string', value: '2 string' },
  GraphProto: {
    node: '1 NodeProto[]', name: '2 string', initializer: '5 TensorProto[]', docString: '10 string', input: '11 ValueInfoProto[]',
    output: '12 ValueInfoProto[]', valueInfo: '13 ValueInfoProto[]', quantizationAnnotation: '14 TensorAnnotation[]',
    sparseInitializer: '15 SparseTensorProto[]', metadataProps: '16 StringStringEntryProto[]',
  },
  NodeProto: {
    input: '1 string[]', output: '2 string[]', name: '3 string', opType: '4 string', attribute: '5 AttributeProto[]',
    docString: '6 string', domain: '7 string', overload: '8 string', metadataProps: '9 StringStringEntryProto[]',
    deviceConfigurations: '10 NodeDeviceConfigurationProto[]',
  },
  AttributeProto: {
    name: '1 string', f: '2 float', i: '3 int64', s: '4 bytes', t: '5 TensorProto', g: '6 GraphProto', floats: '7 float[]',
    ints: '8 int64[]', strings: '9 bytes[]', tensors: '10 TensorProto[]', graphs: '11 GraphProto[]', docString: '13 string',
    tp: '14 TypeProto', typeProtos: '15 TypeProto[]', type: '20 int32', refAttrName: '21 string',
    sparseTensor: '22 SparseTensorProto', sparseTensors: '23 SparseTensorProto[]',
  },
  TensorProto: {
    dims: '1 int64[]', dataType: '2 int32', segment: '3 Segment', floatData: '4 packed float[]', int32Data: '5 packed int32[]',
    stringData: '6 bytes[]', int64Data: '7 packed int64[]', name: '8 string', rawData: '9 bytes', doubleData: '10 packed double[]',
    uint64Data: '11 packed uint64[]', docString: '12 string', externalData: '13 StringStringEntryProto[]', dataLocation: '14 int32',
    metadataProps: '16 StringStringEntryProto[]',
  },
  Segment: { begin: '1 int64', end: '2 int64' },
  SparseTensorProto: { values: '1 TensorProto', indices: '2 TensorProto', dims: '3 int64[]' },
  ValueInfoProto: { name: '1 string', type: '2 TypeProto', docString: '3 string', metadataProps: '4 StringStringEntryProto[]' },
  TypeProto: {
    tensorType: '1 TensorTypeProto', sequenceType: '4 SequenceTypeProto', mapType: '5 MapTypeProto', denotation: '6 string',
    opaqueType: '7 OpaqueTypeProto', sparseTensorType: '8 TensorTypeProto', optionalType: '9 SequenceTypeProto',
  },
  TensorTypeProto: { elemType: '1 int32', shape: '2 TensorShapeProto' },
  SequenceTypeProto: { elemType: '1 TypeProto' },
  MapTypeProto: { keyType: '1 int32', valueType: '2 TypeProto' },
  OpaqueTypeProto: { domain: '1 string', name: '2 string' },
  TensorShapeProto: { dim: '1 Dimension[]' },
  Dimension: { dimValue: '1 int64', dimParam: '2 string', denotation: '3 string' },
  TensorAnnotation: { tensorName: '1 string', quantParameterTensorNames: '2 StringStringEntryProto[]' },
  TrainingInfoProto: {
    initialization: '1 GraphProto', algorithm: '2 GraphProto', initializationBinding: '3 StringStringEntryProto[]',
    updateBinding: '4 StringStringEntryProto[]',
  },
  FunctionProto: {
    name: '1 string', input: '4 string[]', output: '5 string[]', attribute: '6 string[]', node: '7 NodeProto[]', docString: '8 string',
    opsetImport: '9 OperatorSetIdProto[]', domain: '10 string', attributeProto: '11 AttributeProto[]', valueInfo: '12 ValueInfoProto[]',
    overload: '13 string', metadataProps: '14 StringStringEntryProto[]',
  },
  DeviceConfigurationProto: { name: '1 string', numDevices: '2 int32', device: '3 string[]' },
  NodeDeviceConfigurationProto: { configurationId: '1 string', shardingSpec: '2 ShardingSpecProto[]', pipelineStage: '3 int32' },
  ShardingSpecProto: {
    tensorName: '1 string', device: '2 int64[]', indexToDeviceGroupMap: '3 IntIntListEntryProto[]', shardedDim: '4 ShardedDimProto[]',
  },
  IntIntListEntryProto: { key: '1 int64', value: '2 int64[]' },
  ShardedDimProto: { axis: '1 int64', simpleSharding: '2 SimpleShardedDimProto[]' },
  SimpleShardedDimProto: { dimValue: '1 int64', dimParam: '2 string', numShards: '3 int64' },
} as const satisfies Readonly<Record<string, Readonly<Record<string, `${number} ${string}`>>>>;

export type Schema = typeof messages;
export type MessageName = keyof Schema;
export type ScalarName = 'int32' | 'int64' | 'uint64' | 'float' | 'double' | 'string' | 'bytes';

/** A 64-bit integer: a number where it is safe, a bigint outside ±(2^53 - 1). */
export type Integer = number | bigint;
interface Scalars { int32: number; int64: Integer; uint64: Integer; float: number; double: number; string: string; bytes: Uint8Array }
type Element<T extends string> = T extends keyof Scalars ? Scalars[T] : T extends MessageName ? Message<T> : never;
type FieldType<S extends string> =
  S extends `${number} packed ${infer T}[]` ? readonly Element<T>[]
    : S extends `${number} ${infer T}[]` ? readonly Element<T>[]
      : S extends `${number} ${infer T}` ? Element<T> : never;

/** Absent fields are absent properties. `unknownFields` keeps what this schema does not know, ready to be written back. */
export type Message<K extends MessageName> =
  { readonly [F in keyof Schema[K]]?: FieldType<Schema[K][F] & string> } & { readonly unknownFields?: readonly UnknownField[] };

export interface UnknownField {
  readonly number: number;
  /** tag and content as they stood in the file */
  readonly bytes: Uint8Array;
}

export type ModelProto = Message<'ModelProto'>;
export type GraphProto = Message<'GraphProto'>;
export type NodeProto = Message<'NodeProto'>;
export type AttributeProto = Message<'AttributeProto'>;
export type TensorProto = Message<'TensorProto'>;
export type ValueInfoProto = Message<'ValueInfoProto'>;
export type FunctionProto = Message<'FunctionProto'>;

/** One field, its line taken apart. */
export interface Field {
  readonly name: string;
  readonly number: number;
  readonly type: ScalarName | MessageName;
  readonly repeated: boolean;
  readonly packed: boolean;
}
const parseField = (name: string, line: string): Field => {
  const [, number, packed, type, repeated] = /^(\d+) (packed )?(\w+)(\[\])?$/.exec(line) as unknown as readonly (string | undefined)[];
  return { name, number: Number(number), type: type as Field['type'], repeated: repeated !== undefined, packed: packed !== undefined };
};
export const fieldsOf: Readonly<Record<MessageName, readonly Field[]>> = Object.fromEntries(
  Object.entries(messages).map(([message, fields]) => [message, Object.entries(fields).map(([name, line]) => parseField(name, line))]),
) as unknown as Record<MessageName, readonly Field[]>;

export const isMessageName = (type: Field['type']): type is MessageName => type in messages;

/** TensorProto.DataType, by number. */
export const elementTypes = [
  'undefined', 'float', 'uint8', 'int8', 'uint16', 'int16', 'int32', 'int64', 'string', 'bool', 'float16', 'double', 'uint32', 'uint64',
  'complex64', 'complex128', 'bfloat16', 'float8e4m3fn', 'float8e4m3fnuz', 'float8e5m2', 'float8e5m2fnuz', 'uint4', 'int4', 'float4e2m1',
  'float8e8m0', 'uint2', 'int2', 'float6e2m3', 'float6e3m2',
] as const;
export type ElementType = (typeof elementTypes)[number];

/** AttributeProto.AttributeType, by number, with the field that holds the value. */
export const attributeTypes: Readonly<Record<number, keyof AttributeProto>> = {
  1: 'f', 2: 'i', 3: 's', 4: 't', 5: 'g', 6: 'floats', 7: 'ints', 8: 'strings', 9: 'tensors', 10: 'graphs', 11: 'sparseTensor',
  12: 'sparseTensors', 13: 'tp', 14: 'typeProtos',
};
