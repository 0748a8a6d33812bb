/**
 * Every message of the compiler, one function each, sorted by code, so that the list can be read as a whole.
 * LB01 command line · LB02 IR, text and plugins · LB03 quantization and lowering · LB04 ONNX import · LB05 data and calibration ·
 * LB06 backends and artefacts · LB07 passes and pipelines · LB08 verification · LB90 faults of the compiler itself.
 */
import { quoteName, type Diagnostic } from './diagnostic.ts';
import type { Site } from './op.ts';

type Code = Diagnostic['code'];
const error = (code: Code, message: string, at: string | null = null, help: string | null = null): Diagnostic =>
  ({ code, severity: 'error', message, at, within: null, help });
const warning = (code: Code, message: string, at: string | null = null, help: string | null = null): Diagnostic =>
  ({ code, severity: 'warning', message, at, within: null, help });

/** The ONNX nodes of a site in one line, or null for a node that the compiler made from nothing. */
export const placeOf = (site: Site): string | null => {
  if (site.origins.length === 0) return null;
  const shown = site.origins.slice(0, 3).join(', ');
  return site.origins.length > 3 ? `${shown} and ${site.origins.length - 3} more` : shown;
};

export const errors = {
  // ---- LB01 command line
  badCommandLine: (what: string, help: string | null) => error('LB0101', what, null, help),
  badOption: (flag: string, value: string, expected: string) => error('LB0102', `${flag} ${quoteName(value)}: ${expected} was expected`),
  optionNotAvailable: (flag: string, value: string, available: string) =>
    error('LB0103', `${flag} ${quoteName(value)} is not available in this version`, null, available),
  unreadableFile: (path: string, why: string) => error('LB0104', `${quoteName(path)} cannot be read: ${why}`, null, 'check the path'),
  unwritableFile: (path: string, why: string) => error('LB0105', `${quoteName(path)} cannot be written: ${why}`, null, 'check the path and its permissions'),
  fileSystem: (path: string, why: string) => error('LB0122', `${quoteName(path)} cannot be used: ${why}`, null, 'check the path and its permissions'),
  outputExists: (folder: string) =>
    error('LB0106', `${quoteName(folder)} exists and was not made by lowbitc`, null, 'choose another -o, or replace it with --force'),
  notAnArtefact: (folder: string, why: string) =>
    error('LB0107', `${quoteName(folder)} is not an output folder of lowbitc: ${why}`, null, 'make one with: lowbitc compile <model.onnx> -o <dir>'),
  unknownTarget: (name: string, known: readonly string[]) =>
    error('LB0108', `there is no target ${quoteName(name)} here`, null, `available: ${known.join(', ')}`),
  unknownInput: (name: string, known: readonly string[]) =>
    error('LB0110', `the model has no input ${quoteName(name)}`, null, `its inputs are: ${known.join(', ')}`),
  sourceNotFound: (path: string) =>
    error('LB0111', `the source model ${quoteName(path)} of this folder is not there`, null, 'say where it is with --model <file.onnx>'),
  sourceChanged: (path: string) =>
    error('LB0112', `${quoteName(path)} is not the model that this folder was compiled from: its SHA-256 differs`, null, 'compile again, or give the right file with --model'),
  badPlugin: (path: string, why: string) =>
    error('LB0113', `the plugin ${quoteName(path)} cannot be loaded: ${why}`, null, 'a plugin is a module whose default export is definePlugin({ name, … })'),
  pipelineStopsEarly: (stage: string) =>
    error('LB0109', `the pipeline ends at the ${stage} stage, where there is nothing to emit`, null, 'end it with lower-to-kernels, or look at its result with --stop-after'),
  targetCannotRun: (target: string, why: string) => error('LB0121', `target ${quoteName(target)} cannot be run here: ${why}`),
  timingFailed: (what: string, why: string) => error('LB0123', `${quoteName(what)} cannot be timed: ${why}`),
  noPeer: (name: string, why: string) =>
    error('LB0124', `the package ${quoteName(name)} cannot be used: ${why}`, null, `install it with: npm install --no-save ${name}; or name the folder where it is installed in LOWBITC_PEERS; or leave --peer out`),
  otherMachine: (path: string) =>
    error('LB0125', `${quoteName(path)} holds timings of another machine, compiler or version`, null, 'start over with --fresh, or choose another -o'),
  badTable: (path: string, why: string) => error('LB0126', `${quoteName(path)} is no table of timings: ${why}`, null, 'start over with --fresh, or choose another -o'),
  stageNotReached: (stage: string) => error('LB0120', `the pipeline has no graph at the ${stage} stage`),
  keepsNothing: (text: string, layers: readonly string[]) =>
    error('LB0119', `--keep ${quoteName(text)} matches no layer`, null, `the layers are: ${layers.join(', ')}${layers.length === 8 ? ', …' : ''}`),
  damagedArtefact: (path: string, why: string) =>
    error('LB0114', `${quoteName(path)} is damaged: ${why}`, null, 'compile again'),

  unboundSymbols: (symbols: readonly string[]) =>
    error('LB0115', `the model leaves ${symbols.map(quoteName).join(', ')} open`, null, `give a size: --dim ${symbols[0]}=1`),

  // ---- LB02 IR, text and plugins
  misusedOp: (op: string, why: string, site: Site) => error('LB0201', `${quoteName(op)}: ${why}`, placeOf(site)),
  nameClash: (kind: string, name: string, first: string, second: string) =>
    error('LB0202', `${kind} ${quoteName(name)} comes from both ${quoteName(first)} and ${quoteName(second)}`, null, 'rename one, or load only one of the plugins'),

  badText: (why: string, line: number, column: number, source: string, help: string | null = null) =>
    error('LB0203', why, `line ${line}, column ${column}\n  ${source}\n  ${' '.repeat(Math.max(0, column - 1))}^`, help),
  missingWeights: (digest: string) =>
    error('LB0204', `the constant ${quoteName(digest)} is not in the weights file`, null, 'give the model.weights.bin that was written with this text'),
  damagedWeights: (digest: string) =>
    error('LB0205', `the constant ${quoteName(digest)} does not have the content that its digest names`, null, 'the weights file is damaged or belongs to another graph; write both again'),
  badInput: (input: string, why: string) => error('LB0206', `input ${quoteName(input)}: ${why}`),
  notANumber: (index: number) =>
    error('LB0207', `element ${index} is not a number`, null, 'look for infinite or undefined numbers in the inputs and constants of the model'),
  /** A broken invariant of a graph; codes LB0210 to LB0229, listed in `verify.ts`. */
  invalidGraph: (code: Code, why: string, value: string, site: Site) =>
    error(code, why, [`%${value}`, placeOf(site)].filter((part) => part !== null).join(', ')),

  // ---- LB03 quantization and lowering
  needsData: (pass: string) =>
    error('LB0301', `pass ${quoteName(pass)} needs calibration data`, null, 'give samples with --calib <file.npy>, or --synthetic to go on with made-up ones'),
  noIntegerForm: (node: { readonly op: string; readonly site: Site }) =>
    error('LB0302', `${quoteName(node.op)} has no integer form`, placeOf(node.site), 'cut the model before it with --cut-at, or give a plugin op for it with lower()'),

  cannotRescale: (at: string) =>
    error('LB0305', 'no multiplier and shift represent the scale of this value without overflow', at, 'give it more bits with --keep, or look at its range with lowbitc print --stage quant'),
  needsReference: (pass: string) =>
    error('LB0304', `pass ${quoteName(pass)} compares with the float graph, and the pipeline holds none`, null, 'start the pipeline from the model, or hand in the float graph as reference'),
  weightNotANumber: (node: { readonly op: string; readonly site: Site }) =>
    error('LB0310', `a weight of ${quoteName(node.op)} is not a number (NaN)`, placeOf(node.site), 'check the model: it computes NaN wherever this weight is used'),
  notFiniteRange: (node: { readonly op: string; readonly site: Site }, value: string) =>
    error('LB0311', `${quoteName(value)} becomes infinite on the calibration samples`, placeOf(node.site), 'check the model and the samples; compare with: lowbitc run <dir> --target float'),
  cannotNormalize: (why: string) => error('LB0303', `--mean and --std do not fit: ${why}`, null, 'give one number, or one for each channel of a [N, C, H, W] input'),

  // ---- LB04 ONNX import
  brokenFile: (offset: number, why: string) =>
    error('LB0401', `the file is not a readable ONNX model: ${why}`, `byte ${offset}`, 'check that the file is complete; export or download it again'),
  brokenModel: (why: string, at: string | null = null) =>
    error('LB0402', why, at, 'check the model with onnx.checker.check_model(path, full_check=True), or export it again'),
  brokenTensor: (name: string, why: string) =>
    error('LB0403', `tensor ${quoteName(name)}: ${why}`, null, 'export the model again'),
  externalData: (name: string, why: string) =>
    error('LB0404', `external data of tensor ${quoteName(name)}: ${why}`, null, 'keep the data file in the folder of the model, or save the model as one file'),
  tooLarge: (what: string, size: number, limit: number, at: string | null = null) =>
    error('LB0405', `${what} would have ${size} elements, more than ${limit}`, at, 'check the shapes; bind other sizes with --dim or --shape'),
  unsupportedNodes: (op: string, why: string | null, names: readonly string[]) =>
    error('LB0406', `${quoteName(op)} ${why === null ? 'is not supported' : `is not supported here: ${why}`} (${names.length} node${names.length === 1 ? '' : 's'})`,
      names.slice(0, 5).map(quoteName).join(', ') + (names.length > 5 ? ` and ${names.length - 5} more` : ''),
      'cut the model before these nodes with --cut-at <value>, or replace them in the export'),
  badBinding: (what: string, known: readonly string[]) =>
    error('LB0407', what, null, known.length > 0 ? `available: ${known.slice(0, 20).map(quoteName).join(', ')}` : null),
  badNode: (why: string, at: string) =>
    error('LB0408', why, at, 'check the model with onnx.checker.check_model(path, full_check=True); bind symbolic sizes with --dim'),

  // ---- LB05 data and calibration
  unreadableData: (path: string, why: string) =>
    error('LB0501', `${quoteName(path)} cannot be read: ${why}`, null, 'check the path given to --calib or --input'),
  badNpy: (path: string, why: string) =>
    error('LB0502', `${quoteName(path)} is not a usable .npy file: ${why}`, null, 'write it with numpy.save'),
  badNpz: (path: string, why: string) =>
    error('LB0503', `${quoteName(path)} is not a usable .npz file: ${why}`, null, 'write it with numpy.savez(path, <input name>=array, …)'),
  sampleShape: (path: string, shape: readonly number[], input: string, wanted: string) =>
    error('LB0504', `the samples in ${quoteName(path)} have the shape [${shape.slice(1).join(', ')}], but input ${quoteName(input)} takes [${wanted}]`, null,
      'the first axis of the file counts samples; the rest must hold as many elements as one run of the input'),
  missingInput: (path: string, input: string, has: readonly string[]) =>
    error('LB0505', `${quoteName(path)} has no samples for input ${quoteName(input)}`, null,
      `it has ${has.slice(0, 8).map(quoteName).join(', ')}; name each array or file like the input it is for`),
  notFinite: (path: string, sample: number, what: string) =>
    error('LB0506', `sample ${sample} of ${quoteName(path)} holds ${what}`, null, 'remove the sample, or repair what wrote the file'),
  sampleRange: (path: string, sample: number, value: string, dtype: string, input: string) =>
    error('LB0507', `sample ${sample} of ${quoteName(path)} holds ${value}, which is no ${dtype} for input ${quoteName(input)}`),
  badNormalization: (why: string) =>
    error('LB0508', `--mean and --std do not fit: ${why}`, null, 'give one number, or one for each channel of the input'),
  unequalCounts: (first: string, firstCount: number, second: string, secondCount: number) =>
    error('LB0509', `${quoteName(first)} holds ${firstCount} samples, but ${quoteName(second)} ${secondCount}`),
  noSamples: (path: string) => error('LB0510', `${quoteName(path)} holds no samples`),
  symbolicInput: (input: string, shape: string) =>
    error('LB0511', `input ${quoteName(input)} has the shape [${shape}], whose sizes are not all known`, null, 'give the sizes with --dim or --shape'),
  noOnnxRuntime: (why: string) =>
    error('LB0512', `onnxruntime-node cannot be used: ${why}`, null,
      'install it with: ONNXRUNTIME_NODE_INSTALL=skip npm install onnxruntime-node; or leave --executor out'),
  tooLargeToRun: (bytes: number) =>
    error('LB0514', `the float model needs ${Math.ceil(bytes / 2 ** 20)} MiB to run, more than the 4096 MiB of its executor`, null, 'lower the batch with --dim'),
  badLabels: (path: string, why: string) => error('LB0513', `the labels in ${quoteName(path)} do not fit: ${why}`),

  // ---- LB06 backends and artefacts
  badMachine: (where: string, why: string) =>
    error('LB0640', `the machine description ${quoteName(where)} cannot be used: ${why}`, null, 'start from the target.json that lowbitc compile -t accel writes'),
  machineLacks: (machine: string, what: string, value: string, site: Site) =>
    error('LB0641', `machine ${quoteName(machine)} has no ${what}`, [`%${value}`, placeOf(site)].filter((part) => part !== null).join(', '), 'describe a machine that has it, or cut the model before this node with --cut-at'),
  tooLargeForMachine: (machine: string, memory: string, needs: number, has: number, value: string, site: Site) =>
    error('LB0642', `the smallest tile needs ${needs} bytes of ${memory}, machine ${quoteName(machine)} has ${has}`, [`%${value}`, placeOf(site)].filter((part) => part !== null).join(', '), `give the machine more ${memory}`),
  machineTrap: (trap: string, why: string, at: string | null) => error('LB0643', `the accelerator program trapped (${trap}): ${why}`, at, 'compile again'),

  // ---- LB07 passes and pipelines
  unknownPass: (name: string, near: string | null) =>
    error('LB0701', `there is no pass ${quoteName(name)}`, null, near === null ? 'list the passes with: lowbitc passes' : `did you mean "${near}"?`),
  passOutOfOrder: (name: string, needs: string, has: string) =>
    error('LB0702', `pass ${quoteName(name)} takes a ${needs} graph, but the graph is ${has} at this place`, null, 'move it; lowbitc passes shows the stages of each'),
  badPassOption: (name: string, why: string) => error('LB0703', `pass ${quoteName(name)}: ${why}`, null, `lowbitc passes ${name}`),
  badBits: (bits: string) => error('LB0705', `${quoteName(bits)} names no precision`, null, 'write w8a8: weight bits 2 to 8, activation bits 4 to 8 or 16; w4ca8 for weights of 2 to 4 bits by codebook'),
  noAnchor: (pass: string, anchor: string) =>
    error('LB0706', `pass ${quoteName(pass)} asks to stand next to ${quoteName(anchor)}, which the pipeline does not hold`, null, 'name both in --passes'),
  rescalesInWords: (target: string) => error('LB0732', `target ${quoteName(target)} multiplies rescales to 64 bits`, null, 'leave out --rescale words and the pass rescale-in-words, or compile for the other targets alone'),
  notInPipeline: (pass: string) => error('LB0707', `pass ${quoteName(pass)} is not in the pipeline`, null, 'see the pipeline with: lowbitc compile … -v'),
  /** `limit` is a resource, and where it is limited: `ram on wasm at step 3`. */
  limitTooSmall: (limit: string, most: number, least: number) => {
    const [resource, ...place] = limit.split(' ');
    return error('LB0720', `the budget ${resource}=${most} cannot be met${place.map((word) => ` ${word}`).join('')}: the least bits everywhere take ${least}`, null, `give at least --budget ${resource}=${Math.ceil(least)}`);
  },
  limitsConflict: (resources: readonly string[], nearest: readonly { readonly resource: string; readonly least: number }[]) =>
    error('LB0721', `the budgets ${resources.join(', ')} cannot be met together`, null,
      nearest.map(({ resource, least }) => `with the others as they are, ${resource} needs about ${Number(least.toPrecision(4))}`).join('; ') || 'raise them'),
  badBudget: (part: string, why: string) =>
    error('LB0723', `the budget ${quoteName(part)} cannot be read: ${why}`, null, 'write it as in --budget size=96K,ram=64K,latency=20ms,bops=1.2G,drop=1%'),
  noEngine: (name: string, why: string) =>
    error('LB0731', `the solver ${quoteName(name)} cannot be used: ${why}`, null, name === 'glpk' ? 'npm install glpk.js' : `npm install ${name}, or leave allocate-bits{engine: ${name}} out`),
  noTargetToPrice: () => error('LB0724', 'a budget of size, ram or latency needs a target that it is for', null, 'give a target with --target'),
  noTimings: (layers: readonly string[]) =>
    error('LB0725', `a latency budget needs the times of all layers, and ${layers.length} are not known: ${layers.slice(0, 3).join(', ')}${layers.length > 3 ? ', …' : ''}`, null,
      'time them with: lowbitc profile <model.onnx> -o table.json, and give --timings table.json'),
  contradictoryKeep: (keep: readonly string[], layers: readonly string[]) =>
    error('LB0726', `--keep gives different bits to layers that read one value: ${layers.map(quoteName).join(', ')}`, null, `give them the same bits; --keep is ${keep.join(', ')}`),
  noWidths: (layer: string) => error('LB0727', `layer ${quoteName(layer)} has no width that can be chosen`, null, 'offer more widths: allocate-bits{weights: [4, 8]}'),
  dropNeedsClasses: (output: string) =>
    error('LB0728', `a budget of drop needs classes, and output ${quoteName(output)} has none`, null, 'give another budget, as in --budget size=96K'),
  dropNotMet: (most: number, least: number, samples: number) =>
    error('LB0729', `the budget drop=${Number((100 * most).toPrecision(3))}% cannot be met: the widest bits that the other budgets allow lose ${Number((100 * least).toPrecision(3))} % on ${samples} samples`, null,
      `give at least --budget drop=${Number((Math.ceil(1000 * Math.max(0, least)) / 10).toPrecision(3))}%`),
  badAssignment: (text: string, why: string) => error('LB0730', `the recorded widths ${quoteName(text)} do not fit the model: ${why}`, null, 'leave the assignment out, and bits are chosen anew'),
  noAllocation: (seconds: number) => error('LB0722', `no assignment of bits was found within ${seconds} s`, null, `loosen a budget, or give the solver more time with --allocate 'seconds: ${Math.max(20, 4 * seconds)}'`),
  badPipelineText: (why: string, text: string) =>
    error('LB0704', `the pipeline ${quoteName(text)} cannot be read: ${why}`, null, "write it as: 'fold-batch-norm, quantize-weights{bits: 8}'"),

  // ---- LB08 verification

  // ---- LB90 faults of the compiler itself
  internal: (what: string, at: string | null = null) =>
    error('LB9001', `internal error: ${what}`, at, 'this is a fault of lowbitc; please report it with the crash folder'),
} as const;

export const warnings = {
  unknownFields: (fields: readonly string[]) =>
    warning('LB0420', `the model uses parts of a newer ONNX that are ignored: ${fields.slice(0, 5).join(', ')}`, null, 'compare the results with the source model'),
  newerOpset: (version: number, known: number) =>
    warning('LB0421', `operator set ${version} is newer than ${known}, the newest that was checked`, null, 'compare the results with the source model'),
  ignoredAttributes: (at: string, names: readonly string[]) =>
    warning('LB0422', `attribute ${names.map(quoteName).join(', ')} is not known and was ignored`, at, 'compare the results with the source model'),
  declaredShape: (name: string, declared: string, found: string) =>
    warning('LB0423', `${quoteName(name)} is declared as [${declared}] but has the shape [${found}]`, null, null),
  syntheticData: () =>
    warning('LB0117', 'the ranges come from random data (--synthetic): the program computes, but its results mean nothing', null, 'give real samples with --calib'),
  targetSkipped: (target: string, why: string) => warning('LB0118', `target ${quoteName(target)} was not run: ${why}`),
  softmaxKept: (node: { readonly site: Site; readonly output: { readonly name: string } }, form: string) =>
    warning('LB0306', `the softmax stays as it is: only weights inside an attention become ${form} codes`, placeOf(node.site) ?? node.output.name, 'leave --softmax out if the target multiplies'),
  batchBound: (symbol: string) => warning('LB0116', `the batch ${quoteName(symbol)} was set to 1`, null, `choose another with --dim ${symbol}=8`),
} as const;
