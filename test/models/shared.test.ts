// Other trained models, where they lie beside the repository: compiled, equal to the reference on every target, and close to the float model.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { lowbitc, root, scratchFolder } from '../cli/lowbitc.ts';

const scratch = scratchFolder();
const models = join(root, '..', 'shared', 'models');
const cifar = ['--mean', '125.307,122.961,113.8575', '--std', '62.985,62.0925,66.708'];

/** Model file, folder of its data, flags, and the least share of samples that the integer program must decide as the float model does. */
const cases: readonly (readonly [file: string, data: string, flags: readonly string[], agreement: number])[] = [
  ['mlperf-tiny-ic/model.onnx', 'mlperf-tiny-ic', ['--mean', '0', '--std', '1'], 0.95],
  ['mlperf-tiny-kws/model.onnx', 'mlperf-tiny-kws', [], 0.95],
  ['mobilenet-v1-0.25-224/model.onnx', 'mobilenet-v1-0.25-224', ['--mean', '127.5', '--std', '127.5'], 0.85],
  ['kwt1/model.onnx', 'kwt1', [], 0.95],
  ['cct/model.onnx', 'cifar10', cifar, 0.95],
  ['cct/model_opset13.onnx', 'cifar10', cifar, 0.95],
  ['cct/model_opset13_b1.onnx', 'cifar10', cifar, 0.95],
  ['resnet20/model.onnx', 'cifar10', cifar, 0.95],
  ['charlm/model.onnx', 'charlm', [], 0.95],
];

for (const [file, data, flags, agreement] of cases) {
  const present = existsSync(join(models, file)) && existsSync(join(models, data, 'eval.npy'));
  test.skipIf(!present)(`${file}${present ? '' : ': skipped, the model is not here'}`, () => check(file, data, flags, agreement), 240_000);
}

function check(file: string, data: string, flags: readonly string[], agreement: number): void {
  const folder = join(scratch, file.replaceAll('/', '-'));
  const compiled = lowbitc('compile', join(models, file), '-o', folder, '--calib', join(models, data, 'calib.npy'), '--calib-count', '64', ...flags);
  expect(compiled.status, compiled.stderr).toBe(0);
  const verified = lowbitc('verify', folder, '--count', '3', '--json');
  expect(verified.status, verified.stdout).toBe(0);
  const { stdout } = lowbitc('eval', folder, '-t', 'wasm', '--input', join(models, data, 'eval.npy'), '--labels', join(models, data, 'eval_labels.npy'), '--count', '140', '--json');
  const { targets } = JSON.parse(stdout) as { targets: { wasm: { agreement: number } } };
  expect(targets.wasm.agreement).toBeGreaterThanOrEqual(agreement);
}
