// Measures the labelled models of scripts/models.mjs at w8a8, w6a6, w4a8 and w4a4 and writes docs/accuracy.md:
//   npm run accuracy -- [--only name,…] [--bits w4a4,…] [--cells naive,default,less,high,alone] [--count n] [--fresh] [--page]
// Every finished cell is kept in docs/measured/accuracy/<model>.json with a digest of its pipeline and of the code that it runs, so an interrupted run goes on where
// it stopped, and several may run beside each other on different models; --page only writes the page from what is there. A cell is one program: the pass list without what it adds (naive), the
// preset (default), or the preset less one pass; `high` are the preset of high effort and that less the passes that it adds, which takes minutes each; `alone`
// compiles by the command line, with nothing beside it, and keeps seconds and memory. A pass that changed nothing is stated, not measured again, and so is a program that was measured before.
// Outputs come from the WebAssembly; for the presets the C of the same kernel graph is compiled too and compared on a few samples.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { cCompiler } from '../dist/backends/run.js';
import { compile, openSamples, pipelineFor } from '../dist/index.js';
import { printGraph } from '../dist/ir/print.js';
import { compared, compilerDigest, judge, openCells, openSet } from './labelled.mjs';
import { compileArguments, models, root } from './models.mjs';

const { values: options } = parseArgs({ options: {
  only: { type: 'string' }, bits: { type: 'string', default: 'w8a8,w6a6,w4a8,w4a4' }, cells: { type: 'string', default: 'naive,default,less' },
  count: { type: 'string', default: '2000' }, fresh: { type: 'boolean' }, page: { type: 'boolean' },
} });
/** Finished cells of a model by `bits name`. */
const { of: cellsOf, save } = openCells('accuracy', options.fresh && !options.page);
const widths = ['w8a8', 'w6a6', 'w4a8', 'w4a4'];
/** Passes that only serve accuracy: without them, plain rounding to ranges from least to greatest is left. */
const measured = ['prune-dead-inputs', 'rewrite-gelu', 'shift-channels', 'migrate-scales', 'reorder-channels', 'fit-weights', 'correct-bias'];

/** Passes that only the presets of high effort hold. */
const highOnly = ['rewrite-gelu', 'reorder-channels'];

/** A pipeline on a model, measured. `programs` holds what was measured before, by the text of its kernel graph. */
const measure = async (set, bits, pipeline, programs, withC) => {
  const start = performance.now();
  const { entry, bytes, normalization } = set;
  const compiled = await compile(bytes, {
    name: 'net', targets: withC && cCompiler() !== null ? ['wasm', 'cpu'] : ['wasm'], bits, pipeline, openSamples: (inputs) => openSamples(join(entry.data, 'calib.npy'), inputs), ...(normalization ? { normalization } : {}),
  });
  const seconds = (performance.now() - start) / 1000;
  const idle = compiled.records.filter(({ changed }) => !changed).map(({ pass }) => pass);
  const weightBytes = Math.max(...compiled.targets.map((target) => target.weightBytes));
  const digest = createHash('sha256').update(printGraph(compiled.graph)).digest('hex');
  const facts = { seconds, idle, weightBytes, digest };
  const known = programs.get(digest);
  if (known !== undefined && known.count === set.count && !(withC && known.equal === null)) return { ...known, ...facts };
  const result = { ...facts, ...await judge(set, compiled) };
  programs.set(digest, result);
  return result;
};

/** Programs measured before on the same data, by the digest of their kernel graph. */
const measuredOn = (data) => new Map(models.filter((entry) => entry.data === data).flatMap(({ name }) => Object.values(cellsOf(name)).map((one) => [one.digest, one])));

const presetOf = (entry, width, effort = 'normal') => pipelineFor({ bits: width, effort, normalization: entry.mean ? { mean: entry.mean, std: entry.std } : null });
/** The pipeline of a cell by its name. */
const pipelineOf = (entry, width, name) => {
  const high = name.startsWith('high');
  const preset = presetOf(entry, width, high ? 'high' : 'normal');
  const less = (passes) => preset.filter(({ pass }) => !passes.includes(pass));
  if (name === 'default' || name === 'alone' || name === 'high') return preset;
  if (high) return less([name.slice('high less '.length)]);
  if (name !== 'naive') return less([name.slice('less '.length)]);
  return less(measured).map(({ pass, options: given }) => ({ pass, options: pass === 'quantize-activations' ? { ...given, range: 'min-max' } : given }));
};
const signOf = (pipeline) => createHash('sha256').update(JSON.stringify([compilerDigest(pipeline), pipeline])).digest('hex').slice(0, 16);

/** Seconds and the most memory of one compilation by the command line, and the load before it. */
const aloneOf = (entry, width) => {
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-'));
  try {
    const [load] = loadavg();
    const start = performance.now();
    const { status, stderr } = spawnSync(process.execPath, [
      '--import', 'data:text/javascript,process.on("exit",()=>process.stderr.write(`rss ${process.resourceUsage().maxRSS}`))',
      join(root, 'dist', 'cli.js'), ...compileArguments(entry, join(folder, 'net')), '--bits', width, '-t', 'wasm', '-q',
    ], { encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] });
    const peak = /rss (\d+)$/.exec(stderr);
    if (status !== 0 || peak === null) throw new Error(`${entry.name} ${width}: ${stderr}`);
    return { seconds: (performance.now() - start) / 1000, peakMB: Number(peak[1]) * 1024 / 1e6, load };
  } finally {
    rmSync(folder, { recursive: true });
  }
};

const run = async () => {
  const [bits, wanted] = [options.bits.split(','), options.cells.split(',')];
  const entries = models.filter(({ name, present }) => present && (!options.only || options.only.split(',').includes(name)));
  const sets = new Map();
  const programs = new Map();
  const kept = async (entry, width, name, make) => {
    const [key, cells, pipeline] = [`${width} ${name}`, cellsOf(entry.name), pipelineOf(entry, width, name)];
    const sign = signOf(pipeline);
    if (cells[key]?.sign === sign) return;
    process.stderr.write(`${entry.name} ${key} …\n`);
    cells[key] = { ...await make(pipeline), sign };
    save(entry.name);
  };
  const cell = (entry, width, name) => kept(entry, width, name, (pipeline) => {
    const set = sets.get(entry.name) ?? openSet(entry, Number(options.count));
    sets.set(entry.name, set);
    if (!programs.has(entry.data)) programs.set(entry.data, measuredOn(entry.data));
    return measure(set, width, pipeline, programs.get(entry.data), name === 'default');
  });
  const lessThan = async (entry, width, whole, prefix, preset) => {
    if (whole === undefined || entry.copyOf !== undefined) return;
    for (const pass of measured) {
      if (preset.some((step) => step.pass === pass) && !whole.idle.includes(pass)) await cell(entry, width, `${prefix}${pass}`);
    }
  };
  const rounds = {
    default: (entry, width) => cell(entry, width, 'default'),
    naive: (entry, width) => cell(entry, width, 'naive'),
    less: (entry, width) => lessThan(entry, width, cellsOf(entry.name)[`${width} default`], 'less ', presetOf(entry, width)),
    high: async (entry, width) => {
      await cell(entry, width, 'high');
      await lessThan(entry, width, cellsOf(entry.name)[`${width} high`], 'high less ', presetOf(entry, width, 'high').filter(({ pass }) => highOnly.includes(pass)));
    },
    alone: (entry, width) => kept(entry, width, 'alone', () => aloneOf(entry, width)),
  };
  for (const some of [['default', 'naive'], ['less'], ['high'], ['alone']]) for (const entry of entries) for (const width of bits) for (const round of some) {
    if (wanted.includes(round)) await rounds[round](entry, width);
  }
};

// ---- the page

const percent = (x) => (x * 100).toFixed(2);
const points = (x) => (x * 100).toFixed(2).replace('-0.00', '0.00');
const table = (head, rows) => [head, head.map((_, i) => (i < 2 ? '---' : '--:')), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');
const page = () => {
  const signed = new Map(models.flatMap((entry) => Object.entries(cellsOf(entry.name)).map(([key, one]) => {
    const [width, ...name] = key.split(' ');
    return [one, one.sign === signOf(pipelineOf(entry, width, name.join(' ')))];
  })));
  const aged = (one) => (signed.get(one) ? '' : ' †');
  const present = models.filter(({ name }) => Object.keys(cellsOf(name)).length > 0);
  const has = (name, width) => ['naive', 'default'].some((cell) => cellsOf(name)[`${width} ${cell}`] !== undefined);
  const absent = models.flatMap(({ name }) => {
    const missing = widths.filter((width) => !has(name, width));
    return missing.length === 0 ? [] : [`${name} ${missing.length === widths.length ? 'at any width' : `at ${missing.join(', ')}`}`];
  });
  const rows = present.flatMap(({ name }) => widths.filter((width) => has(name, width)).map((width) => {
    const [naive, whole] = ['naive', 'default'].map((cell) => cellsOf(name)[`${width} ${cell}`]);
    const some = whole ?? naive;
    const { float } = some;
    const of = (one, text) => (one === undefined ? 'not measured' : text(one));
    const entropy = (one) => `${one.crossEntropy.toFixed(3)}${one.perplexity ? ` (perplexity ${one.perplexity.toFixed(3)})` : ''}`;
    return [name, width, some.count, `${percent(float.top1)} (${percent(float.low)} … ${percent(float.high)})`, of(naive, (one) => points(one.float.top1 - one.top1) + aged(one)), of(whole, (one) => percent(one.top1) + aged(one)),
      of(whole, (one) => `**${points(one.float.top1 - one.top1)}**`), `${float.crossEntropy.toFixed(3)} → ${of(whole, entropy)}`, of(naive, (one) => percent(one.agreement)), of(whole, (one) => percent(one.agreement)),
      of(naive, (one) => one.sqnrDb.toFixed(1)), of(whole, (one) => one.sqnrDb.toFixed(1)), of(whole, (one) => one.seconds.toFixed(0)), of(whole, (one) => one.weightBytes)];
  }));
  const effects = (one) => `${points(one.float.top1 - one.top1)} / ${one.sqnrDb.toFixed(1)}${aged(one)}`;
  const ablations = present.filter(({ copyOf }) => copyOf === undefined).flatMap(({ name }) => widths.flatMap((width) => {
    const whole = cellsOf(name)[`${width} default`];
    if (whole === undefined) return [];
    const without = measured.map((pass) => {
      const one = cellsOf(name)[`${width} less ${pass}`];
      if (one !== undefined) return effects(one);
      const idle = whole.idle.includes(pass);
      const listed = idle || pipelineFor({ bits: width, normalization: null }).some((step) => step.pass === pass);
      return idle ? 'same' : listed ? 'not measured' : '–';
    });
    return [[name, width, effects(whole), ...without]];
  }));
  const high = present.flatMap(({ name }) => widths.flatMap((width) => {
    const [whole, more] = ['default', 'high'].map((cell) => cellsOf(name)[`${width} ${cell}`]);
    if (whole === undefined || more === undefined) return [];
    const without = highOnly.map((pass) => {
      const one = cellsOf(name)[`${width} high less ${pass}`];
      return one !== undefined ? effects(one) : more.idle.includes(pass) ? 'same' : 'not measured';
    });
    return [[name, width, effects(whole), effects(more), ...without, `${whole.seconds.toFixed(0)} → ${more.seconds.toFixed(0)}`]];
  }));
  const alone = present.flatMap(({ name }) => widths.flatMap((width) => {
    const one = cellsOf(name)[`${width} alone`];
    return one === undefined ? [] : [[name, width, `${one.seconds.toFixed(1)}${aged(one)}`, one.peakMB.toFixed(0), one.load.toFixed(1)]];
  }));
  const twins = [['glyph-vit-outlier', 'glyph-vit'], ['cct-outlier', 'cct'], ['resnet20-skew', 'resnet20']].flatMap(([damaged, whole]) => widths.flatMap((width) => {
    const [naive, cured, twin] = [cellsOf(damaged)[`${width} naive`], cellsOf(damaged)[`${width} default`], cellsOf(whole)[`${width} default`]];
    if (cured === undefined || twin === undefined) return [];
    return [[damaged, width, naive === undefined ? 'not measured' : percent(naive.top1), percent(cured.top1) + aged(cured), percent(twin.top1) + aged(twin), points(twin.top1 - cured.top1)]];
  }));
  const copies = models.filter(({ copyOf }) => copyOf !== undefined);
  const all = present.flatMap(({ name }) => Object.values(cellsOf(name)));
  const checked = all.filter(({ equal }) => equal === true || equal === false);
  const exact = checked.every(({ equal }) => equal);
  writeFileSync(join(root, 'docs', 'accuracy.md'), `# Accuracy

The float model against the compiled integer program on labelled sets, by the default pipeline of each width (\`--effort normal\`) and by plain rounding
("naive": ranges from least to greatest, nearest codes, no corrections). Top-1 in percent with the 95 % interval of the float model (Wilson); the drop in points.
Small sets are better judged by agreement (share of samples with the same top-1 as the float model), cross entropy in nats and SQNR of the outputs in dB.
${exact ? `C and WebAssembly gave the same bits in all ${checked.length} programs compared` : 'C and WebAssembly DIFFER in some program'}, on at least ${compared} samples each. Seconds are those of one compilation for both, without the C compiler, on a machine that did other work as well.
\`w4a8\`: what is multiplied by weights has 8 bits, weights 4. At every width these keep more: operands of attention 8 bits, what the first and the last layers read and pooled vectors 8 (inputs 16 where one
wide channel would drown the others), sums that no activation limits 8, the residual stream between LayerNorms, logits and softmax 16.
Regenerate with \`npm run accuracy\`; what was not measured says so.${absent.length > 0 ? `\nNot measured: ${absent.join('; ')}.` : ''}${all.some((one) => aged(one) !== '') ? '\n†: measured with an earlier state of the compiler.' : ''}

${table(['model', 'bits', 'n', 'float top-1', 'naive drop', 'top-1', 'drop', 'cross entropy', 'naive agreement', 'agreement', 'naive SQNR', 'SQNR', 'compile s', 'weight bytes'], rows)}

## Damage undone

Models whose channels were scaled apart and shifted in ways that leave the float outputs as they are, against the model before the damage: top-1 in percent by plain
rounding, by the default pipeline, that of the undamaged twin by the same pipeline, and how many points the first lies below it.

${table(['model', 'bits', 'naive', 'default', 'undamaged', 'below'], twins)}

## What each pass brings

Drop in points / SQNR in dB of the default pipeline, and of it less one pass. "same": the pass found nothing to do or measured no gain and stood aside, so the program is the same;
"–": the preset of that width does not hold it. ${copies.map(({ name }) => name).join(' and ')} are other exports of ${copies[0].copyOf} and become the same graph, so what holds for one holds for all.

${table(['model', 'bits', 'default', ...measured.map((pass) => `less ${pass}`)], ablations)}

## High effort

\`--effort high\` tries ReLU in place of GELU with MLPs refitted, groups of like channels, and fits weights on more samples. Drop in points / SQNR in dB of the preset of normal effort, of that of high effort,
and of the latter less one of the two passes that only it holds (\`npm run accuracy -- --cells high\`, minutes a program). "same": the pass measured no gain and stood aside.

${high.length === 0 ? 'Not measured.' : table(['model', 'bits', 'normal', 'high', ...highOnly.map((pass) => `high less ${pass}`), 'compile s'], high)}

## Compile time and memory

\`lowbitc compile --bits w4a4 -t wasm\` at normal effort, process and all, on two cores with nothing beside it (\`--cells alone\`); the load is that before it began.

${alone.length === 0 ? 'Not measured.' : table(['model', 'bits', 'seconds', 'peak MB', 'load'], alone)}
`);
  process.stderr.write(`docs/accuracy.md: ${rows.length} rows\n`);
};

if (!options.page) await run();
page();
