/** The instruction sets that kernels are timed in: what schedules, printer and compiler must know of each. */
import { portable, type CTarget } from '../backends/c/print.ts';
import { portableC, type Target } from '../backends/schedules/target.ts';

export interface InstructionSet {
  readonly name: string;
  readonly schedule: Target;
  readonly printer: CTarget;
  /** what the C compiler needs beside its optimisation */
  readonly flags: readonly string[];
}

/** Those that this machine can run; the last is the one that the compiled C uses here. */
export const instructionSets = (): readonly InstructionSet[] => [{ name: 'portable C', schedule: portableC, printer: portable, flags: [] }];
export const bestInstructionSet = (): InstructionSet => instructionSets().at(-1)!;
