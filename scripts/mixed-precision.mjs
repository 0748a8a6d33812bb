// Measures mixed precision on the labelled models of scripts/models.mjs and writes docs/mixed-precision.md:
//   npm run mixed-precision -- [--only name,…] [--parts w4a8,w6a8,drop,formats,latency] [--count n] [--fresh] [--page]
// Every finished cell is kept in docs/measured/mixed-precision/<model>.json with a digest of the compiler, so an interrupted run goes on where it stopped;
// --page only writes the page from what is there. `w4a8` and `w6a8` compile a model uniformly, take the bytes of its weights as a budget of size,
// and compile it with bits of its own for every layer; `formats` compiles some models with uniform codes and with codebooks; `drop` finds the smallest program within one percent; `latency` times the kernels of some
// models, compiles within a budget of latency by that table, and times the whole programs: give it a machine that does nothing else.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compile, openSamples } from '../dist/index.js';
import { compilerDigest, judge, openCells, openSet } from './labelled.mjs';
import { compileArguments, models, root } from './models.mjs';

const { values: options } = parseArgs({ options: {
  only: { type: 'string' }, parts: { type: 'string', default: 'w4a8,w6a8,drop,formats' }, count: { type: 'string', default: '2000' }, fresh: { type: 'boolean' }, page: { type: 'boolean' },
} });
const uniforms = ['w4a8', 'w6a8'];
const dropped = ['mlperf-tiny-ic', 'mlperf-tiny-kws', 'resnet20', 'cct', 'mobilenet-v1-0.25-224'];
const formatted = ['glyph-cnn', 'mlperf-tiny-ic', 'mlperf-tiny-kws', 'kwt1', 'resnet20'];
const formatBits = [4, 3, 2];
const timed = ['glyph-cnn', 'mlperf-tiny-ic', 'mlperf-tiny-kws', 'glyph-vit'];
/** Share of the w8a8 program's bytes that the timed programs may take, so that widths differ. */
const TIMED_SIZE = 0.75;
const { of: cellsOf, save } = openCells('mixed-precision', options.fresh && !options.page);

/** Seconds by what was in progress, for the steps of the allocation. */
const stopwatch = () => {
  const steps = ['price widths', 'sensitivity', 'try out widths', 'refine', 'smallest network'];
  const seconds = Object.fromEntries(steps.map((step) => [step, 0]));
  let [current, since] = [null, performance.now()];
  const turn = (next) => {
    const now = performance.now();
    if (current !== null) seconds[current] += (now - since) / 1000;
    [current, since] = [next, now];
  };
  return {
    onProgress: (label) => { const step = steps.find((one) => label.startsWith(one)); if (step !== undefined && step !== current) turn(step); },
    observers: [{ after: ({ pass }) => { if (pass.name === 'allocate-bits') turn(null); } }],
    seconds,
  };
};

/** Bits of the weights that an allocation chose: their mean over the parameters, and how many layers have which width, widest first. */
const widthsOf = ({ layers }) => {
  const weighted = layers.filter(({ parameters }) => parameters > 0).map(({ chosen, parameters }) => ({ width: /^w(\dc?)/.exec(chosen)[1], parameters }));
  const total = weighted.reduce((sum, { parameters }) => sum + parameters, 0);
  const counts = new Map();
  for (const { width } of weighted) counts.set(width, (counts.get(width) ?? 0) + 1);
  return {
    mean: weighted.reduce((sum, { width, parameters }) => sum + Number.parseInt(width, 10) * parameters, 0) / total,
    layers: [...counts].sort(([a], [b]) => (a < b ? 1 : -1)),
  };
};

/** A model compiled to WebAssembly and judged on its labelled set. */
const measured = async (set, { bits, budget }) => {
  const { entry, bytes, normalization } = set;
  const watch = stopwatch();
  const start = performance.now();
  const compiled = await compile(bytes, {
    name: 'net', targets: ['wasm'], bits, openSamples: (inputs) => openSamples(join(entry.data, 'calib.npy'), inputs), ...(normalization ? { normalization } : {}),
    ...(budget === undefined ? {} : { allocation: { budget } }), onProgress: watch.onProgress, observers: watch.observers,
  });
  const seconds = (performance.now() - start) / 1000;
  const allocation = compiled.records.find(({ pass }) => pass === 'allocate-bits')?.parts.allocation;
  const own = allocation === undefined ? {} : {
    steps: watch.seconds, widths: widthsOf(allocation), promisedBytes: allocation.limits.find(({ resource }) => resource === 'size')?.predicted, drop: allocation.drop, samples: allocation.samples,
  };
  return { seconds, weightBytes: compiled.targets[0].weightBytes, ...own, ...await judge(set, compiled) };
};

const lowbitc = (...args) => execFileSync(process.execPath, [join(root, 'dist', 'cli.js'), ...args], { encoding: 'utf8', maxBuffer: 2 ** 28, stdio: ['ignore', 'pipe', 'inherit'] });
/** What a table of timings says of a program of mixed bits, and what its best run takes, on a target. */
const latency = (entry, target, folder) => {
  const table = join(folder, 'table.json');
  lowbitc('profile', entry.model, '-o', table, '-t', target, '-q');
  const compiled = (name, ...more) => {
    const out = join(folder, `${target}-${name}`);
    lowbitc(...compileArguments(entry, out), '-t', target, '--calib-count', '32', '--effort', 'low', '-q', ...more);
    return { out, manifest: JSON.parse(readFileSync(join(out, 'manifest.json'), 'utf8')), report: JSON.parse(readFileSync(join(out, 'report.json'), 'utf8')) };
  };
  const { manifest: { weightBytes } } = compiled('w8a8', '--bits', 'w8a8');
  const { out, report: { allocation } } = compiled('mixed', '--budget', `size=${Math.ceil(TIMED_SIZE * weightBytes)},latency=10s`, '--timings', table, '--allocate', 'measure: output-error');
  const { sides: [side], load, machine, instructions } = JSON.parse(lowbitc('bench', out, '-t', target, '--rounds', '8', '--ms', '200', '--starts', '1', '--json'));
  return { predictedMs: allocation.limits.find(({ resource }) => resource === 'latency').predicted / 1000, bestMs: side.bestMs, medianMs: side.medianMs, load: load.before, cpu: machine.cpu, instructions, widths: widthsOf(allocation) };
};

const run = async () => {
  const digest = compilerDigest();
  const parts = options.parts.split(',');
  const entries = models.filter(({ name, present, copyOf }) => present && copyOf === undefined && (!options.only || options.only.split(',').includes(name)));
  for (const entry of entries) {
    const cells = cellsOf(entry.name);
    let set = null;
    const cell = async (key, request) => {
      if (cells[key]?.compiler === digest) return cells[key];
      process.stderr.write(`${entry.name} ${key} …\n`);
      set ??= openSet(entry, Number(options.count));
      cells[key] = { compiler: digest, ...await measured(set, request()) };
      save(entry.name);
      return cells[key];
    };
    for (const bits of uniforms.filter((one) => parts.includes(one))) {
      const { weightBytes } = await cell(`${bits} uniform`, () => ({ bits }));
      await cell(`${bits} mixed`, () => ({ bits: 'mixed', budget: `size=${weightBytes}` }));
    }
    if (parts.includes('drop') && dropped.includes(entry.name)) {
      await cell('w8a8 uniform', () => ({ bits: 'w8a8' }));
      await cell('drop', () => ({ bits: 'mixed', budget: 'drop=1%' }));
    }
    if (parts.includes('formats') && formatted.includes(entry.name)) {
      for (const bits of formatBits) for (const format of ['', 'c']) await cell(`w${bits}${format}a8 uniform`, () => ({ bits: `w${bits}${format}a8` }));
    }
    if (parts.includes('latency') && timed.includes(entry.name)) {
      const folder = mkdtempSync(join(tmpdir(), 'lowbitc-'));
      try {
        for (const target of ['cpu', 'wasm']) {
          if (cells[`latency ${target}`]?.compiler === digest) continue;
          process.stderr.write(`${entry.name} latency ${target} …\n`);
          cells[`latency ${target}`] = { compiler: digest, ...latency(entry, target, folder) };
          save(entry.name);
        }
      } finally {
        rmSync(folder, { recursive: true });
      }
    }
  }
};

// ---- the page

const percent = (x) => (x * 100).toFixed(2).replace('-0.00', '0.00');
const table = (head, rows, left = 2) => [head, head.map((_, i) => (i < left ? '---' : '--:')), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');
/** Bits of the weights, mean over the parameters, and how many layers have which. */
const bitsOf = ({ widths: { mean, layers } }) => `${mean.toFixed(2)} (${layers.map(([width, count]) => `${count}×${width}`).join(' ')})`;
/** What the programme said that the program would take, as its error. */
const promisedOf = ({ promisedBytes, weightBytes }) => {
  const off = (100 * (promisedBytes - weightBytes)) / weightBytes;
  return `${off > 0 ? '+' : ''}${off.toFixed(2)} %`.replace(/^[+-]0\.00/, '0.00');
};
const page = () => {
  const digest = compilerDigest();
  const aged = (one) => (one.compiler === digest ? '' : ' †');
  const present = models.filter(({ name }) => Object.keys(cellsOf(name)).length > 0);
  const pairs = present.flatMap(({ name }) => uniforms.flatMap((bits) => {
    const [uniform, mixed] = ['uniform', 'mixed'].map((kind) => cellsOf(name)[`${bits} ${kind}`]);
    return uniform === undefined || mixed === undefined ? [] : [{ name, bits, uniform, mixed }];
  }));
  const rows = pairs.map(({ name, bits, uniform, mixed }) => {
    const both = (of) => `${of(uniform)} → ${of(mixed)}`;
    const better = [mixed.top1 > uniform.top1 && 'top-1', mixed.sqnrDb > uniform.sqnrDb && 'SQNR', mixed.crossEntropy < uniform.crossEntropy && 'cross entropy'].filter((one) => one);
    return [name, bits, uniform.count, percent(uniform.float.top1), both(({ top1 }) => percent(top1)) + aged(mixed), both(({ sqnrDb }) => sqnrDb.toFixed(1)), both(({ agreement }) => percent(agreement)), both(({ crossEntropy }) => crossEntropy.toFixed(3)),
      better.join(', ') || '**none**', both(({ weightBytes }) => weightBytes), promisedOf(mixed), bitsOf(mixed), both(({ seconds }) => seconds.toFixed(0))];
  });
  const beaten = pairs.filter(({ uniform, mixed }) => mixed.top1 > uniform.top1 || mixed.sqnrDb > uniform.sqnrDb).length;
  const steps = pairs.map(({ name, bits, mixed }) => [name, bits, mixed.samples, ...Object.values(mixed.steps).slice(0, 4).map((s) => s.toFixed(0)), (mixed.seconds - Object.values(mixed.steps).reduce((a, b) => a + b, 0)).toFixed(0)]);
  const drops = present.flatMap(({ name }) => {
    const [wide, small] = ['w8a8 uniform', 'drop'].map((key) => cellsOf(name)[key]);
    if (wide === undefined || small === undefined) return [];
    return [[name, `${small.weightBytes} of ${wide.weightBytes}`, `${((100 * small.weightBytes) / wide.weightBytes).toFixed(1)} %`, bitsOf(small), `${percent(small.drop.value)} ± ${percent(small.drop.error)} on ${small.drop.samples}`, small.count,
      percent(small.float.top1 - small.top1) + aged(small), percent(wide.float.top1 - wide.top1), percent(small.agreement), small.seconds.toFixed(0)]];
  });
  const formats = present.flatMap(({ name }) => formatBits.flatMap((bits) => {
    const [plain, coded] = ['', 'c'].map((format) => cellsOf(name)[`w${bits}${format}a8 uniform`]);
    if (plain === undefined || coded === undefined) return [];
    const both = (of) => `${of(plain)} → ${of(coded)}`;
    return [[name, bits, plain.count, percent(plain.float.top1), both(({ top1 }) => percent(top1)) + (aged(plain) || aged(coded)), both(({ sqnrDb }) => sqnrDb.toFixed(1)), both(({ crossEntropy }) => crossEntropy.toFixed(3)), both(({ weightBytes }) => weightBytes)]];
  }));
  const latencies = present.flatMap(({ name }) => ['cpu', 'wasm'].flatMap((target) => {
    const one = cellsOf(name)[`latency ${target}`];
    return one === undefined ? [] : [[name, `${target}${one.instructions === null ? '' : ` (${one.instructions})`}`, bitsOf(one), one.predictedMs.toFixed(4), one.bestMs.toFixed(4), one.medianMs.toFixed(4),
      `${one.predictedMs > one.bestMs ? '+' : ''}${(100 * (one.predictedMs / one.bestMs - 1)).toFixed(0)} %`, one.load.toFixed(1)]];
  }));
  const missing = models.filter(({ copyOf }) => copyOf === undefined).flatMap(({ name }) => uniforms.filter((bits) => !pairs.some((one) => one.name === name && one.bits === bits)).map((bits) => `${name} ${bits}`));
  const old = present.some(({ name }) => Object.values(cellsOf(name)).some((one) => aged(one) !== ''));
  writeFileSync(join(root, 'docs', 'mixed-precision.md'), `# Mixed precision

What \`--budget\` brings on the labelled models of docs/accuracy.md: programs for WebAssembly, by the default pipeline (\`--effort normal\`), activations of 8 bits.
Top-1 and drop in percent, on n labelled samples that no step of the compilation saw; SQNR of the outputs in dB against the float model; agreement is the share of samples with the float
model's class; cross entropy in nats. Seconds are those of one compilation on a machine that did other work as well.
Copies of a network by other exporters (${models.filter(({ copyOf }) => copyOf !== undefined).map(({ name }) => name).join(', ')}) become the same graph and are not measured again.
Regenerate with \`npm run mixed-precision\`${missing.length > 0 ? `.\nNot measured: ${missing.join('; ')}` : ''}.${old ? '\n†: measured with another state of the compiler than the newest cells.' : ''}

## At the bytes of a uniform network

Uniform → mixed: the budget is \`size=\` the bytes of the weights of the uniform program, and mixed bits have to be better within it. They are better in top-1 or SQNR
in ${beaten} of ${pairs.length} cases. Passes before the choice aim at the bits that the budget leaves on average, so what is chosen from begins where the uniform network does; where that itself is the best
that was tried, it is chosen. Bits of the weights: their mean over the parameters, and the layers that have each width (4c: places in a codebook of 16 levels). Promised: by how much the programme's sum of bytes was
off those of the program. Embeddings take 16 bits in the uniform network; mixed bits give them 8 where that adds next to no noise (charlm), and their bytes to layers.

${table(['model', 'bytes of', 'n', 'float top-1', 'top-1', 'SQNR', 'agreement', 'cross entropy', 'better in', 'weight bytes', 'promised', 'bits', 'seconds'], rows)}

## Codebooks

A layer's weights of 2 to 4 bits may be places in a codebook: 2^b levels of its own, each an integer of 7 bits, shared by all output channels (\`w4c\`), in place of multiples of a step (\`w4\`). Programs store
places and look the levels up in a register, so a layer takes 2^b bytes more and the same products. Mixed bits choose the format layer by layer; \`--bits w4ca8\` takes codebooks throughout.
The same network with uniform codes → with codebooks in all layers, activations of 8 bits:

${formats.length === 0 ? 'Not measured.' : table(['model', 'bits', 'n', 'float top-1', 'top-1', 'SQNR', 'cross entropy', 'weight bytes'], formats, 1)}

## The smallest network within a drop

\`--budget drop=1%\`: top-1 may lose one percent against the float model, judged without labels on part of the calibration samples that is held out from everything else:
there the mean with its standard error has to stay within it.
Beside it the size of the uniform w8a8 program and the drop on the labelled set.

${drops.length === 0 ? 'Not measured.' : table(['model', 'weight bytes', 'of w8a8', 'bits', 'drop when chosen', 'n', 'drop', 'drop of w8a8', 'agreement', 'seconds'], drops, 1)}

## Latency

Predicted by the table of \`lowbitc profile\` for this machine, and the best and the median of many runs of the compiled program (milliseconds, \`npm run mixed-precision -- --parts latency\`).
The bits are those within ${100 * TIMED_SIZE} % of the bytes of w8a8. The table holds what multiplies: layers and attention. Norms, tables and sums that a program computes beside them are not in it, so a
transformer takes longer than that. Timings of a machine that does other work err upwards, those of single kernels more than those of whole programs; the load is that before the program was timed.

${latencies.length === 0 ? 'Not measured.' : table(['model', 'target', 'bits', 'predicted', 'best', 'median', 'error', 'load'], latencies)}

## Where the time goes

Seconds of each step of the choice, and of the rest of the compilation. Networks that are tried out are measured on the given number of samples.

${table(['model', 'bytes of', 'samples', 'price widths', 'sensitivity', 'try out', 'refine', 'the rest'], steps)}
`);
  process.stderr.write(`docs/mixed-precision.md: ${rows.length} rows\n`);
};

if (!options.page) await run();
page();
