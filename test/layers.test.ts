// Imports go down: each layer may import itself and the layers named for it, nothing else.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const source = fileURLToPath(new URL('../src', import.meta.url));

/** Layer → layers below it. A folder or a file of `src`. */
const below: Readonly<Record<string, readonly string[]>> = {
  wasm: [],
  loops: [],
  numerics: ['wasm'],
  ir: ['numerics'],
  onnx: ['ir', 'numerics'],
  calibration: ['ir', 'numerics', 'wasm'],
  passes: ['calibration', 'ir', 'numerics'],
  backends: ['ir', 'numerics', 'wasm', 'loops'],
  'plugin.ts': ['backends', 'passes', 'ir'],
  'compile.ts': ['plugin.ts', 'backends', 'passes', 'calibration', 'onnx', 'ir', 'numerics'],
  artefact: ['compile.ts', 'plugin.ts', 'backends', 'passes', 'calibration', 'onnx', 'ir', 'numerics', 'wasm'],
  bench: ['artefact', 'backends', 'passes', 'ir', 'numerics', 'loops', 'wasm'],
  'index.ts': ['artefact', 'compile.ts', 'plugin.ts', 'backends', 'passes', 'calibration', 'onnx', 'ir', 'numerics'],
  cli: ['bench', 'artefact', 'compile.ts', 'plugin.ts', 'backends', 'passes', 'calibration', 'onnx', 'ir', 'numerics'],
  'cli.ts': ['cli'],
};

const layerOf = (path: string): string => relative(source, path).split(/[/\\]/)[0];
const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts')).map((name) => join(source, name));

/** Relative imports of a file, static and dynamic, types included. */
const importsOf = (file: string): readonly string[] =>
  [...readFileSync(file, 'utf8').matchAll(/(?:\bfrom|\bimport\(?)\s*['"](\.{1,2}\/[^'"]+)['"]/g)].map((match) => join(dirname(file), match[1]));

test('every file of src belongs to a known layer', () => {
  expect([...new Set(files.map(layerOf))].filter((layer) => !(layer in below))).toEqual([]);
});

test('the layers have an order', () => {
  const order = Object.keys(below);
  for (const [layer, others] of Object.entries(below)) {
    for (const other of others) expect(order.indexOf(other), `${layer} → ${other}`).toBeLessThan(order.indexOf(layer));
  }
});

test('imports go down', () => {
  const upward = files.flatMap((file) => importsOf(file)
    .filter((target) => layerOf(target) !== layerOf(file) && !below[layerOf(file)]?.includes(layerOf(target)))
    .map((target) => `${relative(source, file)} imports ${relative(source, target)}`));
  expect(upward).toEqual([]);
});

test('the protobuf reader, and nothing else, knows protobufjs', () => {
  const users = files.filter((file) => /['"](protobufjs|onnx-proto)/.test(readFileSync(file, 'utf8'))).map(layerOf);
  expect([...new Set(users)].filter((layer) => layer !== 'onnx')).toEqual([]);
});
