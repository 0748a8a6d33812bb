// Cycles of the models on the accelerator: npm run accelerator -- [--only name,…] [--bits w8a8,w4a4] [--machines tiny,mid,large] [--count 4].
// Each program is run by the simulator and compared with the reference bit for bit. Writes docs/accelerator.md; finished rows are kept in
// .cache/accelerator.json, so an interrupted run goes on where it stopped (--fresh starts over).
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compileArguments, models, root } from './models.mjs';

const { values: options } = parseArgs({ options: {
  only: { type: 'string', default: 'glyph-cnn,glyph-vit,mlperf-tiny-ic,mlperf-tiny-kws,mobilenet-v1-0.25-224,resnet20,cct' }, bits: { type: 'string', default: 'w8a8,w4a4' },
  machines: { type: 'string', default: 'tiny,mid,large' }, count: { type: 'string', default: '4' }, fresh: { type: 'boolean' },
} });
const cli = process.env.LOWBITC_CLI ?? join(root, 'dist', 'cli.js');
const store = join(root, '.cache', 'accelerator.json');
const rows = !options.fresh && existsSync(store) ? JSON.parse(readFileSync(store, 'utf8')) : {};
const run = (args) => JSON.parse(execFileSync(process.execPath, [cli, ...args, '--json'], { maxBuffer: 2 ** 28, stdio: ['ignore', 'pipe', 'inherit'] }));

/** The pipeline of a w8a8 compilation with other widths, as a file. */
const narrowed = (home, out, bits) => {
  const [, weights, activations] = /^w(\d)a(\d)$/.exec(bits).map(Number);
  const pipeline = JSON.parse(readFileSync(join(out, 'pipeline.json'), 'utf8'));
  for (const { pass, options } of pipeline.passes) {
    if ('weights' in options) Object.assign(options, { weights, activations });
    if (pass === 'quantize-weights') options.bits = weights;
    if (pass === 'quantize-activations') Object.assign(options, { bits: activations, range: activations < 8 ? 'mse' : 'min-max' });
  }
  writeFileSync(join(home, 'pipeline.json'), JSON.stringify(pipeline));
  return join(home, 'pipeline.json');
};

const measure = (entry, bits, machine) => {
  const home = mkdtempSync(join(tmpdir(), 'lowbitc-'));
  try {
    const out = join(home, entry.name);
    const flags = ['-t', `accel:${machine}`, '--calib-count', '64'];
    run([...compileArguments(entry, out), ...flags]);
    if (bits !== 'w8a8') run([...compileArguments(entry, out), ...flags, '--passes', `@${narrowed(home, out, bits)}`]);
    const { targets } = run(['verify', out, '--target', 'accel', '--count', options.count]);
    const { instructions, ...schedule } = JSON.parse(readFileSync(join(out, 'accel', 'schedule.json'), 'utf8'));
    return { samples: targets.accel.samples, mismatches: targets.accel.mismatches, instructions: instructions.length, schedule };
  } finally {
    rmSync(home, { recursive: true });
  }
};

for (const name of options.only.split(',')) for (const bits of options.bits.split(',')) for (const machine of options.machines.split(',')) {
  const entry = models.find((one) => one.name === name);
  const key = `${name} ${bits} ${machine}`;
  if (!entry?.present || rows[key]) continue;
  process.stderr.write(`${key} …\n`);
  try {
    rows[key] = measure(entry, bits, machine);
  } catch (cause) {
    process.stderr.write(`  left out: ${cause.message.split('\n')[0]}\n`);
    continue;
  }
  mkdirSync(join(root, '.cache'), { recursive: true });
  writeFileSync(store, JSON.stringify(rows));
}

const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);
const percent = (x) => `${(100 * x).toFixed(1)} %`;
const keys = Object.keys(rows).sort();
const whole = keys.map((key) => {
  const [name, bits, machine] = key.split(' ');
  const { samples, mismatches, schedule: { cycles, microseconds, layers } } = rows[key];
  const wide = rows[`${name} w8a8 ${machine}`];
  const busy = (engine) => percent(sum(layers.map((layer) => layer.busy[engine])) / cycles);
  return `| ${name} | ${bits} | ${machine} | ${mismatches === 0 ? `${samples} samples equal` : `${mismatches} of ${samples} differ`} | ${cycles} | ${microseconds} | ${wide === undefined ? '' : (cycles / wide.schedule.cycles).toFixed(2)} | ${busy('LD')} | ${busy('MM')} | ${busy('VE')} | ${busy('ST')} |`;
});
const layered = keys.filter((key) => key.endsWith(' mid')).map((key) => `### ${key}

| layer | ops | MACs | cycles | array in use | bytes in | bytes out | bound by |
|---|---|---|---|---|---|---|---|
${rows[key].schedule.layers.map((layer) => `| ${layer.name} | ${layer.ops.join(', ')} | ${layer.macs} | ${layer.cycles} | ${percent(layer.utilisation)} | ${layer.bytesLoaded} | ${layer.bytesStored} | ${layer.bound} |`).join('\n')}
`);
writeFileSync(join(root, 'docs', 'accelerator.md'), `# Models on the accelerator

Made by \`npm run accelerator\`. Each program was executed by the simulator, which is compared with the reference interpreter bit for bit. Cycles are those of the model
in \`src/backends/accelerator/cycles.ts\`; the machines are described in [lb1.md](lb1.md). LD, MM, VE, ST: share of the cycles in which the engine works.

| model | bits | machine | against the reference | cycles | µs | of w8a8 | LD | MM | VE | ST |
|---|---|---|---|---|---|---|---|---|---|---|
${whole.join('\n')}

## Layers on the machine "mid"

${layered.join('\n')}`);
