/** Which instruction sets this machine has, asked of its processor through its compiler. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CMachine } from '../../src/backends/c/machines.ts';
import { cCompiler } from '../../src/backends/run.ts';

/** Whether programs for a machine can be made and run here; null is the portable program. */
export const runsHere = (machine: CMachine | null): boolean => {
  const compiler = cCompiler();
  if (compiler === null || machine === null) return compiler !== null;
  const folder = mkdtempSync(join(tmpdir(), 'lowbitc-machine-'));
  try {
    const present = machine.features.map((feature) => `__builtin_cpu_supports("${feature}")`).join(' && ') || '1';
    writeFileSync(join(folder, 'ask.c'), `int main(void)\n{\n#if ${machine.guard}\n    return !(${present});\n#else\n    return 1;\n#endif\n}\n`);
    return spawnSync(compiler, ['ask.c', '-o', 'ask'], { cwd: folder, stdio: 'ignore' }).status === 0 && spawnSync(join(folder, 'ask')).status === 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};
