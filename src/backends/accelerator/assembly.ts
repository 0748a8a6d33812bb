/** Instructions as text, one a line: `MM wait=LD signal=VE a=0 w=0 …`. Masks name engines joined by `+` and are left out where empty. */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import { engines, fieldEntries, isa, type OpName, type Synchronised } from './isa.ts';

const printMask = (mask: number): string => engines.filter((_, i) => (mask >> i) & 1).join('+');

export const printInstruction = ({ op, fields, wait, signal }: Synchronised): string => [
  op, ...(wait === 0 ? [] : [`wait=${printMask(wait)}`]), ...(signal === 0 ? [] : [`signal=${printMask(signal)}`]),
  ...fieldEntries(op).map(([name]) => `${name}=${String((fields as Readonly<Record<string, unknown>>)[name])}`),
].join(' ');

/** Reads a listing: a line an instruction; empty lines and what follows `;` are ignored. */
export const assemble = (text: string): readonly Synchronised[] => text.split('\n').flatMap((source, i): readonly Synchronised[] => {
  const fail = (why: string): never => { throw new CompileError(errors.badText(why, i + 1, 1, source)); };
  const [op, ...parts] = source.replace(/;.*$/, '').trim().split(/\s+/);
  if (op === '') return [];
  if (!(op in isa)) return fail(`there is no op ${op}`);
  const given = new Map(parts.map((part) => part.split('=') as [string, string]));
  const take = (name: string): string | undefined => { const value = given.get(name); given.delete(name); return value; };
  const mask = (name: string): number => (take(name)?.split('+') ?? []).reduce((sum, engine) => {
    const index = (engines as readonly string[]).indexOf(engine);
    return index < 0 ? fail(`there is no engine ${engine}`) : sum | (1 << index);
  }, 0);
  const [wait, signal] = [mask('wait'), mask('signal')];
  const fields = Object.fromEntries(fieldEntries(op as OpName).map(([name, field]) => {
    const value = take(name) ?? fail(`${op} needs ${name}`);
    if (field.kind === 'choice') return [name, field.choices.includes(value) ? value : fail(`${name} is one of ${field.choices.join(', ')}`)];
    if (!/^-?\d+$/.test(value)) return fail(`${name} must be a whole number`);
    const number = BigInt(value);
    const [least, most] = field.kind === 'unsigned' ? [0n, (1n << BigInt(field.bits)) - 1n] : [-(1n << BigInt(field.bits - 1)), (1n << BigInt(field.bits - 1)) - 1n];
    if (number < least || number > most) return fail(`${name} must lie between ${least} and ${most}`);
    return [name, field.kind === 'wide' ? number : Number(number)];
  }));
  if (given.size > 0) fail(`${op} has no ${[...given.keys()].join(', ')}`);
  return [{ op, fields, wait, signal } as unknown as Synchronised];
});
