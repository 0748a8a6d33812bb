/**
 * Instructions ↔ 128-bit words. The first word holds op[6], wait[4], signal[4]; then the fields in declared order, from the low bits
 * upwards, none across the end of a word. What does not fit goes to EXT words, which begin with op[6] = 63. Bits not in use are 0.
 *
 * A program begins with a header of 16 bytes: `LB1` and a zero byte, the number of words (u32), the CRC-32 of the words (u32), 0 (u32).
 */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import { fieldEntries, isa, opNames, type Field, type Instruction, type OpName, type Synchronised } from './isa.ts';

export const WORD_BITS = 128;
const WORD_BYTES = WORD_BITS / 8;
export const OP_BITS = 6;
export const MASK_BITS = 4;
export const EXT = 63;
const HEADER = [0x4c, 0x42, 0x31, 0] as const;

export interface Slot {
  readonly name: string;
  readonly field: Field;
  readonly word: number;
  readonly bit: number;
}
/** Where the fields of an op lie, and how many words it takes. */
export interface Format {
  readonly words: number;
  readonly slots: readonly Slot[];
}
const formatOf = (name: OpName): Format => {
  let [word, bit] = [0, OP_BITS + 2 * MASK_BITS];
  const slots = fieldEntries(name).map(([name, field]): Slot => {
    if (bit + field.bits > WORD_BITS) [word, bit] = [word + 1, OP_BITS];
    const slot = { name, field, word, bit };
    bit += field.bits;
    return slot;
  });
  return { words: word + 1, slots };
};
export const formats = Object.fromEntries(opNames.map((name) => [name, formatOf(name)])) as Readonly<Record<OpName, Format>>;
const byCode = new Map(opNames.map((name) => [isa[name].code, name]));

const bitsFor = (field: Field, value: unknown, site: string): bigint => {
  const fail = (): never => { throw new CompileError(errors.internal(`${site}: ${String(value)} does not fit its field`), 'internal'); };
  if (field.kind === 'choice') {
    const index = field.choices.indexOf(value as string);
    return index < 0 ? fail() : BigInt(index);
  }
  if (field.kind === 'wide' ? typeof value !== 'bigint' : !Number.isSafeInteger(value)) return fail();
  const number = BigInt(value as number | bigint);
  const cut = BigInt.asUintN(field.bits, number);
  const back = field.kind === 'unsigned' ? cut : BigInt.asIntN(field.bits, cut);
  return back === number ? cut : fail();
};

const valueOf = (field: Field, bits: bigint): number | bigint | string | null => {
  if (field.kind === 'choice') return field.choices[Number(bits)] ?? null;
  if (field.kind === 'wide') return BigInt.asIntN(64, bits);
  return Number(field.kind === 'signed' ? BigInt.asIntN(field.bits, bits) : bits);
};

const wordsOf = ({ op, fields, wait, signal }: Synchronised): readonly bigint[] => {
  const { words, slots } = formats[op];
  const out = Array.from({ length: words }, (_, i) => BigInt(i === 0 ? isa[op].code : EXT));
  out[0] |= (BigInt(wait) << BigInt(OP_BITS)) | (BigInt(signal) << BigInt(OP_BITS + MASK_BITS));
  for (const { name, field, word, bit } of slots) out[word] |= bitsFor(field, (fields as Readonly<Record<string, unknown>>)[name], `${op}.${name}`) << BigInt(bit);
  return out;
};

const low64 = (1n << 64n) - 1n;
export const encodeProgram = (program: readonly Synchronised[]): Uint8Array => {
  const words = program.flatMap(wordsOf);
  const bytes = new Uint8Array(WORD_BYTES * (words.length + 1));
  const view = new DataView(bytes.buffer);
  words.forEach((word, i) => {
    view.setBigUint64(WORD_BYTES * (i + 1), word & low64, true);
    view.setBigUint64(WORD_BYTES * (i + 1) + 8, word >> 64n, true);
  });
  bytes.set(HEADER);
  view.setUint32(4, words.length, true);
  view.setUint32(8, crc32(bytes.subarray(WORD_BYTES)), true);
  return bytes;
};

const undecodable = (why: string, word: number | null = null): never => {
  throw new CompileError(errors.machineTrap('undecodable program', why, word === null ? null : `word ${word}`));
};

/** The instructions of a program; traps where the bytes are none. */
export const decodeProgram = (bytes: Uint8Array): readonly Synchronised[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < WORD_BYTES || HEADER.some((byte, i) => bytes[i] !== byte)) undecodable('it does not begin with "LB1"');
  const count = view.getUint32(4, true);
  if (bytes.length !== WORD_BYTES * (count + 1)) undecodable(`its header names ${count} words, it has ${bytes.length / WORD_BYTES - 1}`);
  if (view.getUint32(12, true) !== 0) undecodable('the last field of its header is not 0');
  if (view.getUint32(8, true) !== crc32(bytes.subarray(WORD_BYTES))) undecodable('its checksum is wrong');
  return decodeWords(Array.from({ length: count }, (_, i) => view.getBigUint64(WORD_BYTES * (i + 1), true) | (view.getBigUint64(WORD_BYTES * (i + 1) + 8, true) << 64n)));
};

const take = (word: bigint, bit: number, bits: number): bigint => BigInt.asUintN(bits, word >> BigInt(bit));

export const decodeWords = (words: readonly bigint[]): readonly Synchronised[] => {
  const program: Synchronised[] = [];
  for (let at = 0; at < words.length;) {
    const code = Number(take(words[at], 0, OP_BITS));
    const op = byCode.get(code) ?? undecodable(code === EXT ? 'an EXT word has no instruction before it' : `there is no op ${code}`, at);
    const { words: length, slots } = formats[op];
    if (at + length > words.length) undecodable(`${op} takes ${length} words and the program ends before`, at);
    const fields: Record<string, number | bigint | string> = {};
    for (const { name, field, word, bit } of slots) fields[name] = valueOf(field, take(words[at + word], bit, field.bits)) ?? undecodable(`field ${name} of ${op} names nothing`, at + word);
    const decoded = { op, fields, wait: Number(take(words[at], OP_BITS, MASK_BITS)), signal: Number(take(words[at], OP_BITS + MASK_BITS, MASK_BITS)) } as unknown as Synchronised;
    wordsOf(decoded).forEach((word, i) => { if (word !== words[at + i]) undecodable(`${op} has bits set that mean nothing, or lacks its EXT word`, at + i); });
    program.push(decoded);
    at += length;
  }
  return program;
};

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  let rest = n;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0xedb88320 : rest >>> 1;
  return rest >>> 0;
});
/** CRC-32 of IEEE 802.3. */
export const crc32 = (bytes: Uint8Array): number => {
  let rest = 0xffffffff;
  for (const byte of bytes) rest = (rest >>> 8) ^ crcTable[(rest ^ byte) & 255];
  return (rest ^ 0xffffffff) >>> 0;
};

export const wordCount = ({ op }: Instruction): number => formats[op].words;
