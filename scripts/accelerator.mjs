// Cycles of the models on the accelerator: npm run accelerator -- [--only name,…] [--bits w8a8,w4a4,mixed] [--machines tiny,mid,large] [--count 4].
// Each program is run by the simulator from its encoded form and compared with the reference bit for bit. Writes docs/accelerator.md; finished rows
// are kept in .cache/accelerator.json, so an interrupted run goes on where it stopped (--fresh starts over, --page only writes the page).
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { models, root } from './models.mjs';

const { values: options } = parseArgs({ options: {
  only: { type: 'string', default: 'mlperf-tiny-ic,mlperf-tiny-kws,resnet20,glyph-cnn,glyph-vit,cct,mobilenet-v1-0.25-224' }, bits: { type: 'string', default: 'w8a8,w4a4,mixed' },
  machines: { type: 'string', default: 'tiny,mid,large' }, count: { type: 'string', default: '4' }, calib: { type: 'string', default: '32' }, fresh: { type: 'boolean' }, page: { type: 'boolean' },
} });
const dist = process.env.LOWBITC_DIST ?? join(root, 'dist');
const [{ compile }, { openSamples, codesAt }, { rawDataType }, { channelsLast, compileProgram }, { scheduleOf }, { simulate }, { machineOf }, { encodeProgram, decodeProgram }, { runProgram }, { evaluateGraph }, { folderStore }, { layerCosts, widthOf }] = await Promise.all([
  'compile.js', 'calibration/samples.js', 'cli/options.js', 'backends/accelerator/program.js', 'backends/accelerator/schedule.js', 'backends/accelerator/simulate.js', 'backends/accelerator/machine.js',
  'backends/accelerator/encode.js', 'backends/accelerator/run.js', 'ir/evaluate.js', 'cli/measurement-store.js', 'ir/cost.js',
].map((file) => import(join(dist, file))));
/** The machine whose cycle model the bits of *mixed* are chosen by. */
const budgetMachine = 'mid';
const store = join(root, '.cache', 'accelerator.json');
const rows = !options.fresh && existsSync(store) ? JSON.parse(readFileSync(store, 'utf8')) : {};

/** A graph at one pair of widths, or at bits chosen for a latency on the machine `budgetMachine`. */
const kernelGraph = async ({ name, model, data, mean, std }, bits, microseconds) => {
  const calib = join(data, 'calib.npy');
  const normalization = mean ? { mean, std, dtype: rawDataType(calib) } : undefined;
  const common = { name, targets: [], threads: 1, bits, ...(normalization && { normalization }), openSamples: (inputs) => openSamples(calib, inputs, { count: Number(options.calib) }) };
  if (bits !== 'mixed') return (await compile(readFileSync(model), common)).graph;
  return (await compile(readFileSync(model), { ...common, targets: [`accel:${budgetMachine}`], allocation: { budget: `latency=${microseconds.toFixed(3)}us` }, store: folderStore(join(root, '.cache', 'allocation')) })).graph;
};
/** The latency asked of mixed bits: midway between those of w8a8 and w4a4. */
const budgetOf = (name) => {
  const [wide, narrow] = ['w8a8', 'w4a4'].map((bits) => rows[`${name} ${bits} ${budgetMachine}`]?.schedule.microseconds);
  return wide === undefined || narrow === undefined ? null : (wide + narrow) / 2;
};

/** Layers of each pair of widths, the widest first. */
const widthsOf = (graph) => {
  const counts = new Map();
  for (const layer of layerCosts(graph)) counts.set(widthOf(layer), (counts.get(widthOf(layer)) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => (a < b ? 1 : -1));
};

const measure = (graph, { data, mean }, machineName) => {
  const machine = machineOf(machineName);
  const program = channelsLast(graph);
  const { program: code, memory, blobs, stepOf } = compileProgram(program, machine);
  const schedule = scheduleOf(machine, code, simulate(code, machine, null), stepOf, program.steps);
  const bytes = encodeProgram(code);
  const loaded = { machine, memory, program: decodeProgram(bytes), blobs: memory.blobs.map(({ file }) => blobs[file.replace('.bin', '')]) };
  const samples = openSamples(join(data, 'calib.npy'), graph.inputs, { count: Number(options.count) });
  let mismatches = 0;
  for (let i = 0; i < samples.count; i++) {
    const sample = codesAt(samples, i, graph.inputs, () => mean !== undefined);
    const { outputs, timeline } = runProgram(loaded, Object.fromEntries(Object.entries(sample).map(([key, tensor]) => [key, tensor.data])));
    const equal = [...evaluateGraph(graph, sample)].every(([output, tensor]) => tensor.data.every((code, at) => code === outputs[output][at]));
    if (!equal || timeline.cycles !== schedule.cycles) mismatches++;
  }
  const { instructions, layers, ...whole } = schedule;
  return { samples: samples.count, mismatches, instructions: code.length, programBytes: bytes.length, weightBytes: blobs.weights.length, schedule: { ...whole, layers } };
};

if (!options.page) for (const name of options.only.split(',')) for (const bits of options.bits.split(',')) {
  const entry = models.find((one) => one.name === name);
  const missing = options.machines.split(',').filter((machine) => !rows[`${name} ${bits} ${machine}`]);
  if (!entry?.present || missing.length === 0) continue;
  process.stderr.write(`${name} ${bits} …\n`);
  const microseconds = bits === 'mixed' ? budgetOf(name) : null;
  if (bits === 'mixed' && microseconds === null) {
    process.stderr.write(`  left out: mixed needs w8a8 and w4a4 on ${budgetMachine} first\n`);
    continue;
  }
  let graph;
  try {
    graph = await kernelGraph(entry, bits, microseconds);
  } catch (cause) {
    process.stderr.write(`  left out: ${cause.message}\n`);
    continue;
  }
  for (const machine of missing) {
    try {
      rows[`${name} ${bits} ${machine}`] = { ...measure(graph, entry, machine), ...(microseconds === null ? {} : { budget: microseconds, widths: widthsOf(graph) }) };
    } catch (cause) {
      process.stderr.write(`  ${machine} left out: ${cause.message}\n`);
      continue;
    }
    const { mismatches, schedule } = rows[`${name} ${bits} ${machine}`];
    process.stderr.write(`  ${machine}: ${schedule.cycles} cycles, ${mismatches} samples differ\n`);
    mkdirSync(join(root, '.cache'), { recursive: true });
    writeFileSync(store, JSON.stringify(rows));
  }
}

const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);
const percent = (x) => `${(100 * x).toFixed(1)} %`;
const kilo = (x) => (x / 1000).toFixed(1);
const widths = ['w8a8', 'mixed', 'w4a4'];
const machines = ['tiny', 'mid', 'large'];
const names = models.map(({ name }) => name).filter((name) => Object.keys(rows).some((key) => key.startsWith(`${name} `)));
const keys = names.flatMap((name) => machines.flatMap((machine) => widths.map((bits) => `${name} ${bits} ${machine}`))).filter((key) => rows[key]);
const whole = keys.map((key) => {
  const [name, bits, machine] = key.split(' ');
  const { samples, mismatches, schedule: { cycles, microseconds, layers } } = rows[key];
  const wide = rows[`${name} w8a8 ${machine}`];
  const busy = (engine) => percent(sum(layers.map((layer) => layer.busy[engine])) / cycles);
  const bound = ['array', 'vector', 'bandwidth', 'latency'].map((what) => [what, sum(layers.filter((layer) => layer.bound === what).map((layer) => layer.cycles))]).filter(([, share]) => share > 0)
    .sort((a, b) => b[1] - a[1]).map(([what, share]) => `${what} ${Math.round((100 * share) / cycles)} %`).join(', ');
  return `| ${name} | ${machine} | ${bits} | ${mismatches === 0 ? `${samples} equal` : `${mismatches} of ${samples} differ`} | ${cycles} | ${microseconds} | ${wide === undefined ? '' : (cycles / wide.schedule.cycles).toFixed(2)} | ${kilo(sum(layers.map((layer) => layer.bytesLoaded)))} | ${kilo(sum(layers.map((layer) => layer.bytesStored)))} | ${busy('LD')} | ${busy('MM')} | ${busy('VE')} | ${busy('ST')} | ${bound} |`;
});
const layered = keys.filter((key) => key.endsWith(' mid') && !key.includes(' mixed ')).map((key) => `<details><summary>${key}: ${rows[key].schedule.cycles} cycles</summary>

| layer | ops | MACs | cycles | array in use | bytes in | bytes out | bound by |
|---|---|---|---|---|---|---|---|
${rows[key].schedule.layers.map((layer) => `| ${layer.name} | ${layer.ops.join(', ')} | ${layer.macs} | ${layer.cycles} | ${percent(layer.utilisation)} | ${layer.bytesLoaded} | ${layer.bytesStored} | ${layer.bound} |`).join('\n')}

</details>
`);
writeFileSync(join(root, 'docs', 'accelerator.md'), `# Models on the accelerator

Made by \`npm run accelerator\`. Each program was encoded, decoded and executed by the simulator on samples of the model's own data, and every output compared with the
reference interpreter bit for bit. Cycles are those of the model in \`src/backends/accelerator/cycles.ts\`, which depend on the program alone; the machines are described in [lb1.md](lb1.md).

- *of w8a8*: cycles divided by those of w8a8 on the same machine.
- *mixed*: bits of every layer chosen by \`allocate-bits\` for a latency midway between w8a8 and w4a4 on "${budgetMachine}", with this cycle model as its table of latencies; the
  same program on the other machines. [What was chosen](#mixed-bits) stands below.
- *kB in, out*: bytes that LD and ST move from and to the memory outside. What fits stays in ABUF from layer to layer.
- *LD, MM, VE, ST*: share of the cycles in which the engine works.
- *bound by*: what works most while a layer runs: the *array*, the *vector* engine, or the *bandwidth* of the memory outside; *latency* where none of them works half of the time.
  The shares are those of the cycles.

| model | machine | bits | samples | cycles | µs | of w8a8 | kB in | kB out | LD | MM | VE | ST | bound by |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
${whole.join('\n')}

## Mixed bits

What \`--target accel:${budgetMachine} --budget latency=…\` chose, and the cycles of the program that came out.

| model | latency asked, µs | got, µs | layers |
|---|---|---|---|
${names.map((name) => [name, rows[`${name} mixed ${budgetMachine}`]]).filter(([, row]) => row).map(([name, { budget, widths: chosen, schedule }]) => `| ${name} | ${budget.toFixed(1)} | ${schedule.microseconds.toFixed(1)} | ${chosen.map(([pair, count]) => `${count} × ${pair}`).join(', ')} |`).join('\n')}

## Layers on the machine "mid"

A layer's cycles run from the end of the layer before to its own end; layers overlap, so a layer may have begun earlier. *Array in use* is the share of the products that the
array could have made in these cycles at the widths of the layer.

${layered.join('\n')}`);
