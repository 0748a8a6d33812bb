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
  /** bits of the factors of RQ, ADD2, MUL2 and LNRM, without sign; factors found at run time (SMAX, EXPS, NRM) have 31 */
  readonly multiplierBits: number;
  readonly ops: readonly OpName[];
}

interface Rule { readonly path: readonly string[]; readonly least: number; readonly most: number; readonly doc: string }
const rule = (path: string, least: number, most: number, doc: string): Rule => ({ path: path.split('.'), least, most, doc });
/** Every number of a description, with its range; the published schema and the check are made from this list. */
export const numberRules: readonly Rule[] = [
  rule('clockMHz', 1, 10000, 'clock in MHz'),
  rule('array.rows', 1, 1024, 'output pixels at once'), rule('array.columns', 1, 1024, 'output channels at once'), rule('array.fill', 0, 1024, 'cycles until a new tile of both is on its way'),
  rule('memories.ABUF', 1024, 2 ** 24, 'bytes for activations'), rule('memories.WBUF', 1024, 2 ** 24, 'bytes for weights'),
  rule('memories.PBUF', 1024, 2 ** 24, 'bytes for parameters and tables'), rule('memories.OBUF', 1024, 2 ** 24, 'bytes for 32-bit sums'),
  rule('dma.bytesPerCycle', 1, 4096, 'bytes that move in a cycle, and banks of a byte on chip'), rule('dma.latency', 0, 100000, 'cycles before the first byte'),
  rule('vector.lanes', 1, 4096, 'elements of the vector engine in a cycle'), rule('vector.start', 0, 1024, 'cycles to start an instruction of it'),
  rule('multiplierBits', 8, 31, 'bits of the factors of RQ, ADD2, MUL2 and LNRM, without sign; with fewer than 31 the factors of all targets of a compilation are narrowed'),
];
/** The fields of an entry of `lanes`. */
export const lanesRules = [
  { key: 'weightBits', among: [2, 4, 8, 16] }, { key: 'activationBits', among: [4, 8, 16] }, { key: 'perCycle', least: 1, most: 1024 },
] as const;
/** Instructions that no program does without. */
export const needed = ['END', 'LD', 'ST'] as const;

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
  const described = isObject(given) ? Object.fromEntries(Object.entries(given).filter(([key]) => key !== '$schema')) : given;
  const machine = expectKeys(described, ['format', 'name', 'clockMHz', 'array', 'lanes', 'memories', 'dma', 'vector', 'multiplierBits', 'ops'], '');
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
    const lane = expectKeys(entry, lanesRules.map(({ key }) => key), `lanes[${i}]`);
    for (const { key, ...allowed } of lanesRules) {
      const value = lane[key] as number;
      if ('among' in allowed && !(allowed.among as readonly number[]).includes(value)) fail(`lanes[${i}].${key} must be one of ${allowed.among.join(', ')}, not ${JSON.stringify(value)}`);
      if ('least' in allowed && (!Number.isInteger(value) || value < allowed.least || value > allowed.most)) fail(`lanes[${i}].${key} must be a whole number from ${allowed.least} to ${allowed.most}, not ${JSON.stringify(value)}`);
    }
  });
  const ops = machine['ops'];
  if (!Array.isArray(ops)) return fail('ops must be a list');
  const stranger = ops.find((name) => !opNames.includes(name));
  if (stranger !== undefined) fail(`ops names ${JSON.stringify(stranger)}; LB1 has ${opNames.join(', ')}`);
  const absent = needed.find((name) => !ops.includes(name));
  if (absent !== undefined) fail(`ops must hold ${absent}`);
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
