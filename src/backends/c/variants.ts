/**
 * The versions of a C program: the portable one, and one for each instruction set. All are in every output folder; the preprocessor
 * leaves out those that the compiler at hand cannot make, and of the rest the running processor decides.
 *
 * `<NAME>_ONLY_<VARIANT>` defined for all files keeps that one alone, for measurements, tests and small binaries.
 */
import { avx2, avx512vnni, cortexM, neon, neonDot, portableBesideVectors, portableC, type Target } from '../schedules/target.ts';
import { machines, type CMachine } from './machines.ts';
import { portable, type CTarget } from './print.ts';

export interface Variant {
  /** part of file names, functions and macros */
  readonly name: string;
  readonly schedule: Target;
  readonly printer: CTarget;
  /** versions of one family stand in one binary */
  readonly family: 'x86-64' | '64-bit Arm' | 'Cortex-M' | 'any';
  /** null for the portable one, which every compiler can make and every processor runs */
  readonly machine: CMachine | null;
}

const on = (family: Variant['family'], machine: CMachine, schedule: Target): Variant => ({ name: machine.name, schedule, printer: machine.target, family, machine });
/** One for each instruction set, the fastest first. */
export const machineVariants: readonly Variant[] = [
  on('x86-64', machines.avx512vnni, avx512vnni), on('x86-64', machines.avx2, avx2),
  on('64-bit Arm', machines.neonDot, neonDot), on('64-bit Arm', machines.neon, neon), on('Cortex-M', machines.cortexM, cortexM),
];
/** For processors that have none of them: with weights of its own, or with those of the versions that stand beside it in the binary. */
export const portableVariant: Variant = { name: 'portable', schedule: portableC, printer: portable, family: 'any', machine: null };
export const fallbackVariant: Variant = { name: 'fallback', schedule: portableBesideVectors, printer: portable, family: 'x86-64', machine: null };
export const variants: readonly Variant[] = [...machineVariants, fallbackVariant, portableVariant];

/** The macro that is 1 where a variant is compiled and 0 elsewhere. */
export const presentMacro = (id: string, { name }: Variant): string => `${id}_WITH_${name}`.toUpperCase();
/** The option that keeps one variant alone. */
export const onlyMacro = (id: string, { name }: Variant): string => `${id}_ONLY_${name}`.toUpperCase();

/** Defines `presentMacro` of every variant. */
export const presenceText = (id: string): string => {
  const asked = variants.map((variant) => `defined(${onlyMacro(id, variant)})`).join(' || ');
  const present = (some: readonly Variant[]): string => some.map((variant) => presentMacro(id, variant)).join(' || ') || '0';
  /** A processor that compiled code can be started on may lack what a variant asks for at run time, but not what the compiler was told. */
  const [certain, tested] = [true, false].map((sure) => machineVariants.filter(({ machine }) => (machine!.features.length === 0) === sure));
  const conditionOf = (variant: Variant): string =>
    variant.machine !== null ? `(${variant.machine.guard})` : variant === fallbackVariant ? `(${present(tested)}) && !(${present(certain)})` : `!(${present([...machineVariants, fallbackVariant])})`;
  return [`#if ${asked}`, `#define ${id.toUpperCase()}_ONLY_ONE 1`, '#else', `#define ${id.toUpperCase()}_ONLY_ONE 0`, '#endif', ...variants.flatMap((variant) => [
    `#if defined(${onlyMacro(id, variant)}) || (!${id.toUpperCase()}_ONLY_ONE && ${conditionOf(variant)})`, `#define ${presentMacro(id, variant)} 1`, '#else', `#define ${presentMacro(id, variant)} 0`, '#endif',
  ])].join('\n');
};
