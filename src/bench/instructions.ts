/** The instruction sets that the compiled C has versions for, and which of them this machine runs. */
import { spawnSync } from 'node:child_process';
import { portableVariant, variants, type Variant } from '../backends/c/variants.ts';

/** In words: `AVX2`, `portable C`. */
export const titleOf = ({ machine, printer }: Variant): string => (machine === null ? 'portable C' : printer.name);

/** Prints a digit for each variant, the fastest first: 1 where this compiler makes it and this processor runs it. */
export const probeText = `\
#include <stdio.h>
int main(void)
{
${variants.map(({ machine }) => (machine === null ? '    putchar(\'1\');' : `\
#if ${machine.guard}
    putchar((${machine.features.map((feature) => `__builtin_cpu_supports("${feature}")`).join(' && ') || '1'}) ? '1' : '0');
#else
    putchar('0');
#endif`)).join('\n')}
    return 0;
}
`;

/** The variants that run here, the fastest first, by what the compiled probe says; the compiled C takes the first. */
export const runnableVariants = (probe: string): readonly Variant[] => {
  const { stdout } = spawnSync(probe, { encoding: 'utf8' });
  const found = variants.filter((_, i) => stdout?.[i] === '1');
  return found.length > 0 ? found : [portableVariant];
};
