/**
 * The versions of a C program: the portable one, and one for each instruction set. All are in every output folder; the preprocessor
 * leaves out those that the compiler at hand cannot make, and of the rest the running processor decides.
 *
 * `<NAME>_ONLY_<VARIANT>` defined for all files keeps that one alone, for measurements, tests and small binaries.
 */
import { avx2, avx512vnni, portableC, type Target } from '../schedules/target.ts';
import { machines, type CMachine } from './machines.ts';
import { portable, type CTarget } from './print.ts';

export interface Variant {
  /** part of file names, functions and macros */
  readonly name: string;
  readonly schedule: Target;
  readonly printer: CTarget;
  /** null for the portable one, which every compiler can make and every processor runs */
  readonly machine: CMachine | null;
}

export const portableVariant: Variant = { name: 'portable', schedule: portableC, printer: portable, machine: null };
const on = (machine: CMachine, schedule: Target): Variant => ({ name: machine.name, schedule, printer: machine.target, machine });
/** The fastest first. */
export const machineVariants: readonly Variant[] = [on(machines.avx512vnni, avx512vnni), on(machines.avx2, avx2)];
export const variants: readonly Variant[] = [...machineVariants, portableVariant];

/** The macro that is 1 where a variant is compiled and 0 elsewhere. */
export const presentMacro = (id: string, { name }: Variant): string => `${id}_WITH_${name}`.toUpperCase();
/** The option that keeps one variant alone. */
export const onlyMacro = (id: string, { name }: Variant): string => `${id}_ONLY_${name}`.toUpperCase();

/** Defines `presentMacro` of every variant. The portable one is there unless another was asked for or needs no test at run time. */
export const presenceText = (id: string): string => {
  const asked = variants.map((variant) => `defined(${onlyMacro(id, variant)})`).join(' || ');
  const conditionOf = ({ machine }: Variant): string => (machine === null ? certain(id) : machine.guard);
  return [
    ...machineVariants, portableVariant,
  ].map((variant) => `\
#if defined(${onlyMacro(id, variant)}) || (!(${asked}) && ${conditionOf(variant)})
#define ${presentMacro(id, variant)} 1
#else
#define ${presentMacro(id, variant)} 0
#endif`).join('\n');
};
/** Where no variant that is compiled runs on every processor that the program can be started on. */
const certain = (id: string): string => {
  const sure = machineVariants.filter(({ machine }) => machine!.features.length === 0);
  return sure.length === 0 ? '1' : `!(${sure.map((variant) => presentMacro(id, variant)).join(' || ')})`;
};
