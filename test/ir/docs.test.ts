/** docs/kernels.md is complete: a section for each kernel, which names all of its operands and attributes. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { kernelOps } from '../../src/ir/ops/kernels.ts';
import { here } from './cases.ts';

const page = readFileSync(join(here, '../../docs/kernels.md'), 'utf8');
const sections = new Map(page.split(/^### /m).slice(1).map((section) => [section.slice(0, section.indexOf('\n')), section]));

describe('docs/kernels.md', () => {
  it.each(kernelOps.map((op) => [op.name, op] as const))('%s', (name, op) => {
    const section = sections.get(name) ?? expect.fail(`there is no section "### ${name}"`);
    const missing = [...Object.keys(op.operands), ...Object.keys(op.attrs)].filter((word) => !new RegExp(`\\b${word}\\b`).test(section));
    expect(missing).toEqual([]);
  });

  it('has no section for an op that is not there', () => {
    const known: readonly string[] = kernelOps.map(({ name }) => name);
    expect([...sections.keys()].filter((title) => /^[a-z_]+$/.test(title) && !known.includes(title))).toEqual([]);
  });
});
