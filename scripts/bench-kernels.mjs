// Times single kernels in every instruction set that runs here, with each C compiler that is installed, and in WebAssembly:
// npm run bench:kernels -- [--ms n] [--rounds n] [--only text] [--json]. Without --json it also puts them into docs/speed.md; --only times what
// has the text in its name and leaves the other rows there (docs/measured/speed.json).
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { titleOf } from '../dist/bench/instructions.js';
import { describe, kernelGraph, macsOf } from '../dist/bench/kernels.js';
import { currentLoad, thisMachine } from '../dist/bench/machine.js';
import { measureLimits } from '../dist/bench/measure.js';
import { joined } from '../dist/bench/side.js';
import { relaxedSimd, simd128 } from '../dist/backends/schedules/target.js';
import { cSteps, variantsHere, wasmSteps } from '../dist/bench/sides.js';
import { root } from './models.mjs';
import { kernelTable, readSpeed, withKernels, writeSpeed } from './speed-page.mjs';

const { values: options } = parseArgs({ options: { ms: { type: 'string', default: '200' }, rounds: { type: 'string', default: '5' }, only: { type: 'string', default: '' }, json: { type: 'boolean' } } });
const [ms, rounds] = [Number(options.ms), Number(options.rounds)];

const linear = (rows, depth, columns) => ({ op: 'linear', rows, depth, columns });
const depthwise = (size, channels) => ({
  op: 'conv', batch: 1, height: size, width: size, channels, outputs: channels, kernel: [3, 3], strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], group: channels,
});
const kernels = [linear(64, 768, 768), linear(1, 768, 768), depthwise(56, 144)].flatMap((shape) =>
  (shape.op === 'linear' ? [8, 4] : [8]).map((weightBits) => ({ shape, weightBits, activationBits: 8 })));
const square = (size, channels, outputs, side) => ({
  op: 'conv', batch: 1, height: size, width: size, channels, outputs, kernel: [side, side], strides: [1, 1], pads: Array(4).fill((side - 1) / 2), dilations: [1, 1], group: 1,
});
/** What the two forms of WebAssembly differ in: weights of less than 8 bits. */
const narrow = [[linear(64, 768, 768), 6], [linear(64, 768, 768), 2], [square(14, 256, 256, 3), 4], [square(28, 96, 192, 1), 4]].map(([shape, weightBits]) => ({ shape, weightBits, activationBits: 8 }));

const compilers = ['gcc', 'clang'].filter((command) => spawnSync(command, ['--version']).status === 0);
const sides = [];
const add = async (name, compiler, timed, start) => {
  if (name.includes(options.only)) sides.push({ name, compiler, timed, side: await start(timed.map(kernelGraph)) });
};
for (const compiler of compilers) {
  process.env.CC = compiler;
  for (const variant of variantsHere(['-O3'])) {
    await add(variant.name === 'fallback' ? `${titleOf(variant)}, weights of the vectors` : titleOf(variant), compiler, kernels, (graphs) => cSteps(graphs, variant, ['-O3']));
  }
}
await add(simd128.name, null, [...kernels, ...narrow], (graphs) => wasmSteps(graphs));
await add(relaxedSimd.name, null, [...kernels, ...narrow].filter(({ weightBits }) => weightBits < 8), (graphs) => wasmSteps(graphs, relaxedSimd));

const load = { before: currentLoad() };
const found = sides.map(({ timed }) => timed.map(() => []));
for (let round = 0; round <= rounds; round++) for (const [s, { side, timed }] of sides.entries()) for (const k of timed.keys()) {
  const times = await side.each(k, ms);
  // the first round brings engine and operands up to speed
  if (round > 0) found[s][k].push(times);
}
load.after = currentLoad();
sides.forEach(({ side }) => side.close());
delete process.env.CC;
const limits = { cpu: compilers.length === 0 ? [] : await measureLimits('cpu'), wasm: await measureLimits('wasm') };

const report = {
  machine: thisMachine(), lowbitc: JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version, load, ms, rounds, limits, day: new Date().toISOString().slice(0, 10),
  compilers: Object.fromEntries(compilers.map((command) => [command, spawnSync(command, ['--version'], { encoding: 'utf8' }).stdout.split('\n')[0]])),
  rows: sides.flatMap(({ name, compiler, timed }, s) => timed.map(({ shape, weightBits, activationBits }, k) => {
    const times = joined(found[s][k]);
    return { instructions: name, compiler, kernel: describe(shape), weightBits, activationBits, ...times, gmacs: macsOf(shape) / (times.bestMs * 1e6) };
  })),
};
if (options.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
else {
  const before = readSpeed();
  if (options.only === '') writeSpeed(withKernels(before, report));
  else if (before.kernels !== null) writeSpeed({ ...before, kernels: { ...before.kernels, rows: [...before.kernels.rows.filter(({ instructions }) => !instructions.includes(options.only)), ...report.rows] } });
  process.stdout.write(`${kernelTable(report)}\n`);
}
process.exit(0);
