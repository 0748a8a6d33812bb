/** Calibration streams: four times the samples take no more memory, but for what the collector leaves lying. Reads ../shared/models. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = join(root, '..', 'shared', 'models', 'mobilenet-v1-0.25-224');
const present = existsSync(folder);

/** Peak resident kilobytes of one `lowbitc compile`. */
const peakOf = (calib: string, out: string): number => {
  const report = 'data:text/javascript,process.on("exit",()=>console.error(`\\npeak ${process.resourceUsage().maxRSS}`))';
  const { stderr, status } = spawnSync(process.execPath, [
    '--import', report, join(root, 'dist', 'cli.js'), 'compile', join(folder, 'model.onnx'), '-o', out, '--calib', calib,
    '--mean', '127.5,127.5,127.5', '--std', '127.5,127.5,127.5', '--threads', '1', '-q', '--force',
  ], { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  return Number(/^peak (\d+)$/m.exec(stderr)![1]);
};

describe('memory of calibration', () => {
  it.skipIf(!present)('is the same for 64 and 256 samples of MobileNetV1-0.25 (../shared/models)', { timeout: 300_000, retry: 1 }, () => {
    const scratch = mkdtempSync(join(tmpdir(), 'lowbitc-memory-'));
    try {
      const few = join(folder, 'calib.npy');
      const many = join(scratch, 'calib.npy');
      writeFileSync(many, tiled(few, 4));
      const [small, large] = [peakOf(few, join(scratch, 'few')), peakOf(many, join(scratch, 'many'))];
      expect(large / small).toBeLessThan(1.1);
    } finally {
      rmSync(scratch, { recursive: true });
    }
  });
});

/** The samples of a file, `times` over. */
const tiled = (path: string, times: number): Uint8Array => {
  const file = readFileSync(path);
  const start = 10 + file.readUInt16LE(8);
  const header = file.toString('latin1', 0, start);
  const more = header.replace(/\((\d+),/, (_, count: string) => `(${Number(count) * times},`);
  const padded = `${more.trimEnd().padEnd(start - 1)}\n`;
  return Buffer.concat([Buffer.from(padded, 'latin1'), ...Array.from({ length: times }, () => file.subarray(start))]);
};
