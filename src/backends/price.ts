/** The costs of lowered programs: bytes of constants by step, and the pieces of the arena. */
import type { Buffer } from '../loops/types.ts';
import type { ProgramPrice } from './backend.ts';
import type { LoweredProgram } from './lower.ts';

/** Versions of one program that lie in one binary, each content once. `keyOf` is equal for equal contents. */
export const priceOf = (versions: readonly LoweredProgram[], keyOf: (buffer: Buffer) => unknown): ProgramPrice => {
  const charged = new Set<unknown>();
  const steps = versions[0].constantsOf.map((_, step) => {
    let weightBytes = 0;
    for (const { constantsOf } of versions) for (const buffer of constantsOf[step]) {
      const key = keyOf(buffer);
      if (charged.has(key)) continue;
      charged.add(key);
      weightBytes += buffer.data!.byteLength;
    }
    return { weightBytes, microseconds: null };
  });
  const largest = versions.reduce((most, version) => (version.plan.arenaBytes > most.plan.arenaBytes ? version : most));
  return { weightBytes: steps.reduce((sum, step) => sum + step.weightBytes, 0), arenaBytes: largest.plan.arenaBytes, steps, pieces: largest.plan.pieces };
};
