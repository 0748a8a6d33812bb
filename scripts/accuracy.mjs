// Measures every labelled model: npm run accuracy -- [--only name,…] [--bits w8a8] . Writes docs/accuracy.md; finished rows are kept in
// .cache/accuracy.json, so an interrupted run goes on where it stopped (--fresh starts over).
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compileArguments, evalArguments, models, root } from './models.mjs';

const { values: options } = parseArgs({ options: { only: { type: 'string' }, bits: { type: 'string', default: 'w8a8' }, fresh: { type: 'boolean' } } });
const cli = join(root, 'dist', 'cli.js');
const store = join(root, '.cache', 'accuracy.json');
const rows = !options.fresh && existsSync(store) ? JSON.parse(readFileSync(store, 'utf8')) : {};
const only = options.only?.split(',');
const run = (args) => JSON.parse(execFileSync(process.execPath, [cli, ...args, '--json'], { maxBuffer: 2 ** 28, stdio: ['ignore', 'pipe', 'inherit'] }));

const measure = (entry) => {
  const out = join(mkdtempSync(join(tmpdir(), 'lowbitc-')), entry.name);
  const start = performance.now();
  run([...compileArguments(entry, out), '--bits', options.bits]);
  const seconds = (performance.now() - start) / 1000;
  const evaluation = run([...evalArguments(entry, out), '--target', 'wasm']);
  const verified = run(['verify', out]);
  const { weightBytes, arenaBytes } = JSON.parse(readFileSync(join(out, 'manifest.json'), 'utf8'));
  rmSync(out, { recursive: true });
  return { seconds, evaluation, verified, weightBytes, arenaBytes };
};

for (const entry of models) {
  const key = `${entry.name} ${options.bits}`;
  if (!entry.present || (only && !only.includes(entry.name)) || (rows[key] && !only)) continue;
  process.stderr.write(`${key} …\n`);
  rows[key] = measure(entry);
  mkdirSync(join(root, '.cache'), { recursive: true });
  writeFileSync(store, JSON.stringify(rows, null, 1));
}

const percent = (x) => (x * 100).toFixed(2);
const wilson = (p, n) => {
  const z = 1.96;
  const half = (z * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n))) / (1 + (z * z) / n);
  return (half * 100).toFixed(1);
};
const lines = Object.entries(rows).map(([key, { seconds, evaluation, verified, weightBytes, arenaBytes }]) => {
  const [name, bits] = key.split(' ');
  const { float, targets: { wasm }, samples } = evaluation;
  const exact = Object.values(verified.targets).every(({ mismatches }) => mismatches === 0);
  const perplexity = wasm.perplexity ? ` (perplexity ${float.perplexity.toFixed(3)} → ${wasm.perplexity.toFixed(3)})` : '';
  return `| ${name} | ${bits} | ${samples} | ${percent(float.top1)} ± ${wilson(float.top1, samples)} | ${percent(wasm.top1)} | ${percent(float.top1 - wasm.top1)} `
    + `| ${float.crossEntropy.toFixed(4)} → ${wasm.crossEntropy.toFixed(4)}${perplexity} | ${percent(wasm.agreement)} | ${wasm.sqnrDb.toFixed(1)} `
    + `| ${Object.keys(verified.targets).join(' = ')}${exact ? '' : ' DIFFER'} | ${weightBytes} | ${arenaBytes} | ${seconds.toFixed(1)} |`;
});
writeFileSync(join(root, 'docs', 'accuracy.md'), `# Accuracy

Top-1 of the float model and of the compiled integer program on the labelled sets, with the number of samples and the half-width of the
float model's 95 % interval (Wilson). The drop is in points; small sets are better judged by agreement (share of samples with the same
top-1 as the float model), cross entropy and SQNR of the outputs. "Equal" names the targets that gave the same bits as the reference
interpreter on the calibration samples. Regenerate with \`npm run accuracy\`.

| model | bits | n | float top-1 | integer top-1 | drop | cross entropy | agreement | SQNR dB | equal to the reference | weight bytes | arena bytes | compile s |
|---|---|--:|--:|--:|--:|--:|--:|--:|---|--:|--:|--:|
${lines.join('\n')}
`);
process.stderr.write(`docs/accuracy.md: ${lines.length} rows\n`);
