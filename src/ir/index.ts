/** The language: types, graphs, ops, text form, invariants and the reference interpreter. */
export { defineAnalysis, factOf, type Analysis } from './analysis.ts';
export { Builder } from './build.ts';
export { CompileError, exitCodes, formatDiagnostic, type Diagnostic, type FailureKind } from './diagnostic.ts';
export { bindDim, isStatic, printShape, sizeOf, staticShape, stridesOf, symbol, symbolsOf, type Dim, type Shape, type StaticShape } from './dim.ts';
export { allocate, bitsOf, isInteger, isSigned, narrowest, rangeOf, type DType, type IntegerDType, type TypedArray } from './dtype.ts';
export { evaluateGraph, type EvaluateOptions, type Tensors } from './evaluate.ts';
export {
  constantOf, constantsOf, isConstant, isNode, operandsOf, useCounts, usersOf, type Constant, type Graph, type Input, type Node, type Output, type Stage, type Value,
} from './graph.ts';
export {
  defineOp, flag, int, int64, ints, joinSites, misuse, noSite, oneOf, real, word, type AnyOpDef, type Arity, type Arms, type Attr, type NodeOf, type OpDef, type Operands, type Site, type Slots,
} from './op.ts';
export * from './ops/index.ts';
export * as kernels from './ops/kernels.ts';
export { parseGraph, type ParseOptions } from './parse.ts';
export { printGraph, type PrintOptions } from './print.ts';
export { perChannel, perTensor, quantizeReal, scaleAt, scaleOf, zeroAt, zeroOf, type QuantType, type UniformQuant } from './quant.ts';
export { mapGraph, mapOperands, rewrite, rule, Rewriter, type Rule } from './rewrite.ts';
export { equalTypes, f32, tensor, tensorType, zeros, type Tensor, type TensorType } from './type.ts';
export { verify } from './verify.ts';
export { WeightStore } from './weights.ts';
