/** Writes docs/cli.md from the declarations of the commands: `npm run build && node scripts/cli-page.mjs`. With --print, to stdout. */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { buildProgram } from '../dist/cli/program.js';

const notes = {
  compile: `
The folder is written beside its place and renamed when it is complete; an existing folder is replaced only if lowbitc made it, or with \`--force\`.
A fault of the compiler leaves \`<dir>.crash/\` with the graph before the failing pass, the rest of the pipeline, and the command that repeats it.

| file | what |
|---|---|
| \`manifest.json\` | source, inputs and outputs with shape, dtype, scale and zero; targets, files with SHA-256, layers with bits and MACs, sizes |
| \`pipeline.json\` | the passes with all options, and the settings: \`--passes @pipeline.json\` with the same model and data gives the same bytes |
| \`certificate.json\` | proof of every accumulator, scan of every instruction and token: no float, no division |
| \`report.json\` | what each pass did; a ledger of what its changes gained, in dB, and what they cost; signal-to-noise ratio of each layer |
| \`model.lbir\`, \`model.weights.bin\` | the kernel graph as text, and its constants |
| \`cpu/\` | \`<name>.h\`, \`<name>.c\`, \`<name>_weights.c\`, \`main.c\` (raw samples on stdin, results on stdout), Makefile, CMakeLists.txt |
| \`wasm/\` | \`<name>.wasm\`, \`<name>.mjs\` (ES module without dependencies), \`<name>.d.ts\`; of \`wasm:threads\` also \`<name>.worker.mjs\`, of \`wasm:relaxed\` also \`<name>.relaxed.wasm\`, which \`load()\` takes where the engine has relaxed SIMD |

Names of the model become identifiers so: every run of other characters than ASCII letters and digits becomes one underscore; a name that would be empty, start with a digit
or be a keyword gets the prefix \`t_\`; equal names get \`_2\`, \`_3\`, ….

Paths in the manifest are relative to the folder, so it finds its model and calibration data as long as all move together. Two folders of equal depth beside each other have equal bytes.

Calibration data: \`.npy\`, first axis = samples, reshaped where the number of elements agrees; \`.npz\`, keys = input names; a folder of \`.npy\`, named like the inputs, or for a
single input all in the order of their names. With \`--mean\` and \`--std\` the data must be uint8 or int16, and the compiled program takes them as they are. Without data lowbitc refuses.

A pipeline is text, \`pass{option: value, …}, pass, …\`, or JSON, \`[{"pass": "…", "options": {…}}]\`. A file is given as \`@file\`; of a \`pipeline.json\` the bits, seed, dims, shapes and normalisation hold too,
unless the command line says otherwise.`,
  eval: `
\`--json\`: \`{ "samples": n, "float": { "top1", "top5", "crossEntropy" }, "targets": { "wasm": { "top1", "top5", "crossEntropy", "agreement", "sqnrDb" } } }\`, fractions of 1. Beside them stands
\`top1Interval\`, the 95 % interval by Wilson's score; with one label for each position also \`perplexity\`; \`top5\` is absent with five classes or fewer.`,
  verify: `
A difference is reported with sample, output and element, and with the first value of the kernel graph that differs: the target is emitted again for cut graphs, by bisection.`,
  bench: `
Every side is a process of its own: the C of the folder with a generated timing program, the ES module of the folder in Node, the peers in Node. Rounds of all sides alternate; the best of
all rounds and the middle of their medians are shown, and the least mean CPU time. \`onnxruntime\` is the package \`onnxruntime-node\`; both packages are looked for in the folder named by
\`LOWBITC_PEERS\`, where lowbitc is run, and beside lowbitc.

With \`--layers\` each step of the program is timed as the program runs it, one after another. "Of limit" is the time that its multiply-accumulates take at the machine's fastest integer dot
product, and its rescaled codes at the fastest exact rescale, by the time it takes. Both limits are measured by loops that do nothing else; where no such loop is known for a machine the column is empty.

\`--json\`: \`{ "name", "bits", "macs", "machine", "load": { "before", "after" }, "rounds", "ms", "starts", "threads", "cflags", "instructions", "sides", "ratios", "layers" }\`. A side is
\`{ "name", "kind": "target" | "peer", "runs", "bestMs", "medianMs", "cpuMs", "gmacs", "start": { "runs", "bestMs", "medianMs" } }\`, a ratio \`{ "target", "peer", "best", "median", "start" }\`, how many
times as long the peer takes. \`layers\` holds for each target \`{ "instructions", "limits", "steps" }\`, a step \`{ "name", "ops", "from", "macs", "runs", "bestMs", "medianMs", "cpuMs", "gmacs", "share" }\`;
what is unknown is null.`,
  profile: `
The form of the table is in [profile.md](profile.md). A model.onnx is brought into the form in which its layers are quantized, so it needs no data; each shape is timed once, at every width.`,
};

const flagTable = (command) => {
  const help = command.createHelp();
  return help.visibleOptions(command).map((option) => {
    const fallback = option.defaultValue === undefined || option.negate ? '' : ` (default: ${option.defaultValue})`;
    const choices = option.argChoices ? ` (${option.argChoices.join(', ')})` : '';
    return `| \`${option.flags.replaceAll('|', '\\|')}\` | ${option.description.replaceAll('|', '\\|')}${choices}${fallback} |`;
  }).join('\n');
};
/** The examples and remarks after the options of --help. */
const epilogue = (command) => {
  let text = '';
  command.configureOutput({ writeOut: (part) => { text += part; } });
  command.outputHelp();
  const at = text.indexOf('  -h, --help');
  return text.slice(text.indexOf('\n', at)).trim();
};

const program = buildProgram();
const sections = program.commands.filter((command) => command.name() !== 'help').map((command) => {
  const usage = `lowbitc ${command.name()} ${command.registeredArguments.map((argument) => (argument.required ? `<${argument.name()}>` : `[${argument.name()}]`)).join(' ')}`;
  return `## ${command.name()}

\`${usage} [flags]\`: ${command.summary()}.

| flag | |
|---|---|
${flagTable(command)}

\`\`\`
${epilogue(command)}
\`\`\`
${notes[command.name()] ?? ''}`.trimEnd();
});

const page = `# Command line

<!-- made by scripts/cli-page.mjs from the declarations of the commands -->

Results go to stdout, everything else to stderr. With \`--json\` stdout holds one JSON document and nothing else; diagnostics, errors included, stand in its field \`diagnostics\`
as \`{ code, severity, message, at, within, help }\`. Colours follow \`NO_COLOR\` (wins) and \`FORCE_COLOR\`; progress appears on a terminal, with \`-v\` as plain lines elsewhere.

| exit code | |
|---|---|
| 0 | ok |
| 1 | model or compile error |
| 2 | usage or configuration |
| 3 | verification mismatch |
| 4 | budget not met |
| 5 | unsupported operators |
| 70 | fault of the compiler |
| 130 | interrupted |

${sections.join('\n\n')}
`;

if (process.argv.includes('--print')) process.stdout.write(page);
else writeFileSync(fileURLToPath(new URL('../docs/cli.md', import.meta.url)), page);
