/** Runs the commands of the README's tour and puts what they print into it: `npm run build && node scripts/readme.mjs`. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const path = `${root}/README.md`;
const text = readFileSync(path, 'utf8').replace(/^(\$ npx lowbitc ([^\n]*)\n)[\s\S]*?(?=^```$)/gm, (_, line, args) => {
  const output = execFileSync(process.execPath, ['dist/cli.js', ...args.split(' ')], { cwd: root, encoding: 'utf8', env: { ...process.env, NO_COLOR: '1' }, stdio: ['ignore', 'pipe', 'ignore'] });
  return `${line}${output.trimEnd()}\n`;
});
writeFileSync(path, text);
