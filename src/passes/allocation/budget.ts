/** Budgets as a user writes them: `size=96K, ram=64K, latency=20ms, bops=1.2G, drop=1%`. */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';

/** Null where the user sets no limit. */
export interface Budget {
  /** bytes of constants as stored: weights, multipliers, tables */
  readonly size: number | null;
  /** bytes of working memory, without the inputs and outputs */
  readonly ram: number | null;
  /** microseconds of one run */
  readonly latency: number | null;
  /** Σ multiply-accumulates · bits of the weights · bits of the activations */
  readonly bops: number | null;
  /** share of the samples, 0 to 1, that top-1 may lose against the float model */
  readonly drop: number | null;
}
export const noBudget: Budget = { size: null, ram: null, latency: null, bops: null, drop: null };

export type Resource = 'size' | 'ram' | 'latency' | 'bops';
export const resources: readonly Resource[] = ['size', 'ram', 'latency', 'bops'];

const bytes = { '': 1, B: 1, K: 1024, KB: 1024, KIB: 1024, M: 2 ** 20, MB: 2 ** 20, MIB: 2 ** 20, G: 2 ** 30, GB: 2 ** 30, GIB: 2 ** 30 };
const units: Readonly<Record<keyof Budget, { readonly of: Readonly<Record<string, number>>; readonly example: string }>> = {
  size: { of: bytes, example: 'size=96K' },
  ram: { of: bytes, example: 'ram=64K' },
  latency: { of: { NS: 1e-3, US: 1, MS: 1e3, S: 1e6 }, example: 'latency=20ms' },
  bops: { of: { '': 1, K: 1e3, M: 1e6, G: 1e9, T: 1e12 }, example: 'bops=1.2G' },
  drop: { of: { '': 1, '%': 0.01 }, example: 'drop=1%' },
};
const isName = (name: string): name is keyof Budget => Object.hasOwn(units, name);

/** Throws, naming the part that cannot be read and what to write. */
export const parseBudget = (text: string): Budget => {
  const fail = (part: string, why: string): never => { throw new CompileError(errors.badBudget(part, why), 'usage'); };
  const found: { -readonly [K in keyof Budget]: Budget[K] } = { ...noBudget };
  for (const part of text.split(',').map((piece) => piece.trim()).filter((piece) => piece !== '')) {
    const [, name, digits, unit] = /^([a-z]+)\s*=\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-zA-Z%]*)$/.exec(part) ?? [];
    if (name === undefined) fail(part, 'a name, a number and a unit are expected');
    if (!isName(name)) return fail(part, `there is no resource "${name}"`);
    const factor = units[name].of[unit.toUpperCase()];
    if (factor === undefined) return fail(part, `${unit === '' ? 'the unit is missing' : `"${unit}" is no unit of it`}`);
    if (found[name] !== null) return fail(part, 'it is given twice');
    found[name] = Number(digits) * factor;
  }
  if (Object.values(found).every((limit) => limit === null)) fail(text, 'it limits nothing');
  if (found.drop !== null && found.drop >= 1) fail(`drop=${found.drop}`, 'a drop is a share below 100 %');
  return found;
};

/** A figure of a resource in its unit. */
export const resourceText = (resource: Resource, value: number): string => {
  switch (resource) {
    case 'size': case 'ram': return value >= 10240 ? `${(value / 1024).toFixed(1)}K` : `${Math.ceil(value)}`;
    case 'latency': return value >= 1000 ? `${(value / 1000).toPrecision(4)}ms` : `${value.toPrecision(4)}us`;
    case 'bops': return value >= 1e9 ? `${(value / 1e9).toPrecision(4)}G` : `${(value / 1e6).toPrecision(4)}M`;
  }
};
