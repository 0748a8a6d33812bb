/** The page on ONNX operators lists exactly the handlers. */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { handlers } from '../../src/onnx/ops/index.ts';

test('docs/onnx-operators.md lists every handler once', () => {
  const page = readFileSync(resolve(dirname(fileURLToPath(import.meta.url)), '../../docs/onnx-operators.md'), 'utf8');
  const rows = page.split('\n').filter((line) => line.startsWith('| ')).slice(1);
  const listed = rows.flatMap((row) => [...row.matchAll(/`([\w.]+)`/g)].map(([, name]) => name));
  expect(listed.sort()).toEqual(Object.keys(handlers).sort());
});
