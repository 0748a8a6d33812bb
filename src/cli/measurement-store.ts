/** Measurements kept in a folder, a file for each, named by the digest of what was measured. */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { MeasurementStore } from '../passes/pass.ts';

export const folderStore = (folder: string): MeasurementStore => {
  const pathOf = (key: string): string => join(folder, `${createHash('sha256').update(key).digest('hex').slice(0, 32)}.json`);
  return {
    get(key) {
      try {
        const { key: stored, value } = JSON.parse(readFileSync(pathOf(key), 'utf8')) as { key: string; value: unknown };
        return stored === key ? value : undefined;
      } catch {
        // absent, or left half-written by another program: measured again
        return undefined;
      }
    },
    put(key, value) {
      mkdirSync(folder, { recursive: true });
      const draft = `${pathOf(key)}.${process.pid}`;
      writeFileSync(draft, JSON.stringify({ key, value }));
      renameSync(draft, pathOf(key));
    },
  };
};
