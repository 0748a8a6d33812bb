/** The description of a machine, `target.json`: what the compiler may rely on and what the cycle model counts. */
import { CompileError, quoteName } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import { opNames, type OpName } from './isa.ts';
import { presets } from './presets.ts';

export const machineFormat = 'lowbitc-machine-1';

export interface Lanes {
  readonly weightBits: number;
  readonly activationBits: number;
  /** products that one element of the array adds up in a cycle */
  readonly perCycle: number;
}
export interface Machine {
  readonly format: typeof machineFormat;
  readonly name: string;
  readonly clockMHz: number;
  /** rows: output pixels, columns: output channels, fill: cycles until a new tile of both is on its way */
  readonly array: { readonly rows: number; readonly columns: number; readonly fill: number };
  readonly lanes: readonly Lanes[];
  /** bytes */
  readonly memories: { readonly ABUF: number; readonly WBUF: number; readonly PBUF: number; readonly OBUF: number };
  readonly dma: { readonly bytesPerCycle: number; readonly latency: number };
  /** elements of the vector engine in a cycle, and cycles to start an instruction */
  readonly vector: { readonly lanes: number; readonly start: number };
  /** bits of the rescaling multiplier M, without sign */
  readonly multiplierBits: number;
  readonly ops: readonly OpName[];
}

interface Rule { readonly path: readonly string[]; readonly least: number; readonly most: number }
/** Every number of a description, with its range; the published schema and the check are made from this list. */
export const numberRules: readonly Rule[] = [
  { path: ['clockMHz'], least: 1, most: 10000 },
  { path: ['array', 'rows'], least: 1, most: 1024 }, { path: ['array', 'columns'], least: 1, most: 1024 }, { path: ['array', 'fill'], least: 0, most: 1024 },
  ...['ABUF', 'WBUF', 'PBUF', 'OBUF'].map((name) => ({ path: ['memories', name], least: 1024, most: 2 ** 24 })),
  { path: ['dma', 'bytesPerCycle'], least: 1, most: 4096 }, { path: ['dma', 'latency'], least: 0, most: 100000 },
  { path: ['vector', 'lanes'], least: 1, most: 4096 }, { path: ['vector', 'start'], least: 0, most: 1024 },
  { path: ['multiplierBits'], least: 8, most: 31 },
];

type Json = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);

/** A description, checked; `where` names it in messages. */
export const checkMachine = (given: unknown, where: string): Machine => {
  const fail = (why: string): never => { throw new CompileError(errors.badMachine(where, why), 'usage'); };
  const expectKeys = (value: unknown, keys: readonly string[], path: string): Json => {
    if (!isObject(value)) return fail(`${path || 'it'} must be an object`);
    const unknown = Object.keys(value).find((key) => !keys.includes(key));
    if (unknown !== undefined) fail(`${path === '' ? '' : `${path}.`}${unknown} is not known; known: ${keys.join(', ')}`);
    const missing = keys.find((key) => !(key in value));
    if (missing !== undefined) fail(`${path === '' ? '' : `${path}.`}${missing} is missing`);
    return value;
  };
  const machine = expectKeys(given, ['format', 'name', 'clockMHz', 'array', 'lanes', 'memories', 'dma', 'vector', 'multiplierBits', 'ops'], '');
  expectKeys(machine['array'], ['rows', 'columns', 'fill'], 'array');
  expectKeys(machine['memories'], ['ABUF', 'WBUF', 'PBUF', 'OBUF'], 'memories');
  expectKeys(machine['dma'], ['bytesPerCycle', 'latency'], 'dma');
  expectKeys(machine['vector'], ['lanes', 'start'], 'vector');
  if (machine['format'] !== machineFormat) fail(`format must be ${quoteName(machineFormat)}`);
  if (typeof machine['name'] !== 'string' || machine['name'] === '') fail('name must be a text');
  for (const { path, least, most } of numberRules) {
    const value = path.reduce<unknown>((at, key) => (at as Json)[key], machine);
    if (!Number.isInteger(value) || (value as number) < least || (value as number) > most) fail(`${path.join('.')} must be a whole number from ${least} to ${most}, not ${JSON.stringify(value)}`);
  }
  const lanes = machine['lanes'];
  if (!Array.isArray(lanes) || lanes.length === 0) return fail('lanes must be a list with at least one entry');
  lanes.forEach((entry, i) => {
    const { weightBits, activationBits, perCycle } = expectKeys(entry, ['weightBits', 'activationBits', 'perCycle'], `lanes[${i}]`);
    if (![2, 4, 8, 16].includes(weightBits as number)) fail(`lanes[${i}].weightBits must be 2, 4, 8 or 16`);
    if (![4, 8, 16].includes(activationBits as number)) fail(`lanes[${i}].activationBits must be 4, 8 or 16`);
    if (!Number.isInteger(perCycle) || (perCycle as number) < 1 || (perCycle as number) > 1024) fail(`lanes[${i}].perCycle must be a whole number from 1 to 1024`);
  });
  const ops = machine['ops'];
  if (!Array.isArray(ops)) return fail('ops must be a list');
  const stranger = ops.find((name) => !opNames.includes(name));
  if (stranger !== undefined) fail(`ops names ${JSON.stringify(stranger)}; LB1 has ${opNames.join(', ')}`);
  const needed = (['END', 'LD', 'ST'] as const).find((name) => !ops.includes(name));
  if (needed !== undefined) fail(`ops must hold ${needed}`);
  return machine as unknown as Machine;
};

/** A preset by name, or a description as JSON text. */
export const machineOf = (setting: string): Machine => {
  const preset = presets.find(({ name }) => name === setting);
  if (preset !== undefined) return preset;
  if (!setting.trimStart().startsWith('{')) throw new CompileError(errors.badMachine(setting, `it is no preset; there are ${presets.map(({ name }) => name).join(', ')}`), 'usage');
  let parsed: unknown;
  try {
    parsed = JSON.parse(setting);
  } catch (cause) {
    throw new CompileError(errors.badMachine('the given file', (cause as Error).message), 'usage');
  }
  return checkMachine(parsed, isObject(parsed) && typeof parsed['name'] === 'string' ? parsed['name'] : 'the given file');
};

/** Products a cycle for widths, by the narrowest listed mode that holds both; null where there is none. */
export const lanesFor = ({ lanes }: Machine, weightBits: number, activationBits: number): Lanes | null =>
  lanes.filter((mode) => mode.weightBits >= weightBits && mode.activationBits >= activationBits)
    .reduce<Lanes | null>((best, mode) => (best === null || mode.perCycle > best.perCycle ? mode : best), null);
