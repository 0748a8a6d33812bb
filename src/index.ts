/** The public surface of the package; `lowbitc/ir`, `lowbitc/passes` and `lowbitc/backends` hold the parts to build one's own pipeline. */
export { compile, importBound, pipelineFor, toolboxWith, type Compilation, type CompiledTarget, type CompileOptions } from './compile.ts';
export { buildToolbox, definePlugin, type PlacedPass, type Plugin, type Toolbox } from './plugin.ts';
export { createCalibration, type Calibration, type CalibrationOptions, type RangeRequest, type ValueRange } from './calibration/calibration.ts';
export { createExecutor, dequantized, quantized, type FloatExecutor } from './calibration/executor.ts';
export { codesAt, openSamples, samplesInMemory, syntheticSamples, type Sample, type SampleInput, type SampleOptions, type Samples } from './calibration/samples.ts';
export { encodeNpy } from './calibration/npy.ts';
export { encodeNpz } from './calibration/npz.ts';
export { CompileError, formatDiagnostic, type Diagnostic } from './ir/diagnostic.ts';
export { importModel, type Imported, type ImportOptions } from './onnx/import.ts';
