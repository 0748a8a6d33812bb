/** `accel/rtl/`: a core in Verilog-2005 for a machine, and a test bench for a program. */
import type { Machine } from '../machine.ts';
import { coreText } from './core.ts';
import type { Instruction } from '../isa.ts';
import { activationWidths, coreOps, weightWidths } from './declaration.ts';
import { testbenchText, type Placed } from './testbench.ts';

export { coreErrors, coreObstacle, coreOps } from './declaration.ts';

/** What a program uses and the core lacks. */
export const missingFrom = (program: readonly Instruction[]): readonly string[] => [...new Set(program.flatMap((one) => {
  if (!(coreOps as readonly string[]).includes(one.op)) return [one.op];
  if (one.op !== 'MM') return [];
  const { wBits, aBits, aElement, depthwise } = one.fields;
  return (weightWidths as readonly number[]).includes(Number(wBits)) && (activationWidths as readonly number[]).includes(Number(aBits)) && Number(aElement.slice(1)) <= Math.max(8, Number(aBits)) && !(depthwise === 1 && Number(aElement.slice(1)) > 8)
    ? [] : [`products of ${wBits}${wBits === 'ternary' ? '' : '-bit'} weights and ${aBits}-bit activations${depthwise === 1 ? ' in filters of single channels' : ''}`];
}))];
export { coreText, testbenchText };

export const rtlFiles = (machine: Machine, memory: Placed, programBytes: number): readonly (readonly [path: string, text: string])[] => [
  ['rtl/lb1_core.v', coreText(machine)],
  ['rtl/lb1_tb.v', testbenchText(machine, memory, programBytes)],
];
