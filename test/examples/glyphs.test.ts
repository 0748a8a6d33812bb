import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

// @ts-expect-error a plain script without declarations
const { files } = await import('../../examples/data/generate.mjs') as { files: Record<string, () => Buffer> };

test.each(Object.keys(files))('the generator makes %s byte by byte', (name) => {
  const stored = readFileSync(new URL(`../../examples/data/${name}`, import.meta.url));
  expect(Buffer.compare(files[name](), stored)).toBe(0);
});
