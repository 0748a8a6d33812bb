// The shipped models from ONNX to integers: accuracy on all 2,000 test images against a recorded floor.
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { example, lowbitc, scratchFolder } from '../cli/lowbitc.ts';

const scratch = scratchFolder();
interface Report {
  readonly samples: number;
  readonly float: { readonly top1: number };
  readonly targets: Readonly<Record<string, { readonly top1: number; readonly agreement: number; readonly sqnrDb: number }>>;
}

/** Most that the integer program may lose, in points, and the least agreement with the float model. */
test.each([['glyph-cnn', 0.9465, 0.3, 0.985], ['glyph-vit', 0.953, 0.3, 0.985]])('%s loses next to nothing at 8 bits', (model, float, points, agreement) => {
  const folder = join(scratch, model);
  const compiled = lowbitc('compile', example(`models/${model}.onnx`), '-o', folder, '-t', 'wasm', '--calib', example('data/calib.npy'), '--mean', '127.5', '--std', '127.5');
  expect(compiled.status, compiled.stderr).toBe(0);
  const { stdout } = lowbitc('eval', folder, '--input', `image=${example('data/eval.npy')}`, '--labels', example('data/eval_labels.npy'), '--json');
  const report = JSON.parse(stdout) as Report;
  expect(report.samples).toBe(2000);
  expect(report.float.top1).toBeCloseTo(float, 6);
  expect(100 * (report.float.top1 - report.targets['wasm'].top1)).toBeLessThanOrEqual(points);
  expect(report.targets['wasm'].agreement).toBeGreaterThan(agreement);
}, 180_000);
