/** Engines by name. Both are reached by dynamic import, so that a compilation without a budget loads none. */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import { glpkEngine } from './glpk.ts';
import { highsEngine } from './highs.ts';
import type { Engine } from './solver.ts';

const engines = { glpk: glpkEngine, highs: highsEngine } as const;
export const engineNames = Object.keys(engines) as readonly (keyof typeof engines)[];

/** Throws, saying what to install, where the package is absent. */
export const openEngine = async (name: keyof typeof engines): Promise<Engine> => {
  try {
    return await engines[name]();
  } catch (cause) {
    throw new CompileError(errors.noEngine(name, (cause as Error).message.split('\n')[0]), 'usage');
  }
};
