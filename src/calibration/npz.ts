/**
 * NumPy's `.npz` archives: zip files whose members are `.npy` files. Members that are stored plainly, as `numpy.savez` does, are read
 * row by row from the file; deflated ones are unpacked one member at a time.
 */
import { inflateSync, zipSync } from 'fflate';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { memorySource, type ByteSource } from './bytes.ts';
import { encodeNpy, openNpy, type NpyData, type NpyFile } from './npy.ts';

/** The end record and the longest comment that may follow it. */
const END_SIZE = 22;
const LONGEST_COMMENT = 65535;
const END_MARK = 0x06054b50;
const END64_LOCATOR_MARK = 0x07064b50;
const END64_MARK = 0x06064b50;
const ENTRY_MARK = 0x02014b50;
const LOCAL_MARK = 0x04034b50;
const STORED = 0;
const DEFLATED = 8;
/** Deflate cannot shrink data further; a member that claims more is a bomb. */
const GREATEST_RATIO = 1032;

interface Entry {
  readonly name: string;
  readonly method: number;
  readonly encrypted: boolean;
  readonly packedSize: number;
  readonly size: number;
  readonly headerAt: number;
}

/** The arrays of an archive by name, without the `.npy` that ends each member's name. */
export const openNpz = (source: ByteSource): ReadonlyMap<string, NpyFile> => {
  const fail = (why: string): never => { throw new CompileError(errors.badNpz(source.name, why), 'usage'); };
  const read = (offset: number, length: number): DataView => {
    if (!(offset >= 0 && length >= 0 && offset + length <= source.size)) fail('it points outside itself');
    return new DataView(source.read(offset, length).buffer);
  };
  const files = new Map<string, NpyFile>();
  for (const entry of readDirectory(source, read, fail)) {
    if (!entry.name.endsWith('.npy')) continue;
    const name = entry.name.slice(0, -'.npy'.length);
    if (files.has(name)) fail(`it holds two arrays named ${JSON.stringify(name)}`);
    files.set(name, openNpy(openMember(source, entry, read, fail)));
  }
  if (files.size === 0) fail('it holds no arrays');
  return files;
};

const readDirectory = (source: ByteSource, read: (offset: number, length: number) => DataView, fail: (why: string) => never): readonly Entry[] => {
  const tailSize = Math.min(source.size, END_SIZE + LONGEST_COMMENT);
  if (tailSize < END_SIZE) return fail('it is too short for a zip file');
  const tail = read(source.size - tailSize, tailSize);
  let end = tailSize - END_SIZE;
  while (end >= 0 && tail.getUint32(end, true) !== END_MARK) end--;
  if (end < 0) return fail('it is not a zip file');
  let count = tail.getUint16(end + 10, true);
  let size = tail.getUint32(end + 12, true);
  let offset = tail.getUint32(end + 16, true);
  const endAt = source.size - tailSize + end;
  if ((count === 0xffff || size === 0xffffffff || offset === 0xffffffff) && endAt >= 20) {
    const locator = read(endAt - 20, 20);
    if (locator.getUint32(0, true) === END64_LOCATOR_MARK) {
      const end64 = read(Number(locator.getBigUint64(8, true)), 56);
      if (end64.getUint32(0, true) !== END64_MARK) return fail('its directory is damaged');
      count = Number(end64.getBigUint64(32, true));
      size = Number(end64.getBigUint64(40, true));
      offset = Number(end64.getBigUint64(48, true));
    }
  }
  const directory = read(offset, size);
  const entries: Entry[] = [];
  for (let at = 0; entries.length < count; ) {
    if (at + 46 > size || directory.getUint32(at, true) !== ENTRY_MARK) return fail('its directory is damaged');
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((field) => directory.getUint16(at + field, true));
    const next = at + 46 + nameLength + extraLength + commentLength;
    if (next > size) return fail('its directory is damaged');
    const name = new TextDecoder().decode(new Uint8Array(directory.buffer, at + 46, nameLength));
    // sizes too large for 32 bits stand, in this order, in the extra field with id 1
    const wide = wideFields(directory, at + 46 + nameLength, extraLength);
    const field = (from: number): number => {
      const value = directory.getUint32(at + from, true);
      return value === 0xffffffff ? (wide.shift() ?? fail('its directory is damaged')) : value;
    };
    const [entrySize, packedSize, headerAt] = [field(24), field(20), field(42)];
    entries.push({
      name, size: entrySize, packedSize, headerAt,
      method: directory.getUint16(at + 10, true), encrypted: (directory.getUint16(at + 8, true) & 1) !== 0,
    });
    at = next;
  }
  return entries;
};

const wideFields = (directory: DataView, start: number, length: number): number[] => {
  for (let at = start; at + 4 <= start + length; ) {
    const size = directory.getUint16(at + 2, true);
    if (at + 4 + size > start + length) return [];
    if (directory.getUint16(at, true) === 1) {
      return Array.from({ length: size >> 3 }, (_, i) => Number(directory.getBigUint64(at + 4 + 8 * i, true)));
    }
    at += 4 + size;
  }
  return [];
};

const openMember = (source: ByteSource, entry: Entry, read: (offset: number, length: number) => DataView, fail: (why: string) => never): ByteSource => {
  const name = `${source.name}:${entry.name}`;
  if (entry.encrypted) return fail(`${JSON.stringify(entry.name)} is encrypted`);
  const header = read(entry.headerAt, 30);
  if (header.getUint32(0, true) !== LOCAL_MARK) return fail('its directory is damaged');
  const start = entry.headerAt + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  if (start + entry.packedSize > source.size) return fail('it ends early');
  if (entry.method === STORED) {
    if (entry.size !== entry.packedSize) return fail('its directory is damaged');
    return { name, size: entry.size, read: (offset, length) => source.read(start + offset, length) };
  }
  if (entry.method !== DEFLATED) return fail(`${JSON.stringify(entry.name)} is packed by method ${entry.method}; use numpy.savez or numpy.savez_compressed`);
  if (entry.size > (entry.packedSize + 1) * GREATEST_RATIO) return fail(`${JSON.stringify(entry.name)} claims ${entry.size} bytes`);
  let unpacked: ByteSource | null = null;
  const unpack = (): ByteSource => {
    try {
      unpacked ??= memorySource(name, inflateSync(source.read(start, entry.packedSize), { out: new Uint8Array(entry.size) }));
    } catch (cause) {
      return fail(`${JSON.stringify(entry.name)} is damaged (${(cause as Error).message})`);
    }
    return unpacked.size === entry.size ? unpacked : fail(`${JSON.stringify(entry.name)} is damaged`);
  };
  return { name, size: entry.size, read: (offset, length) => unpack().read(offset, length) };
};

/** A deflated archive of named arrays, the same bytes each time. */
export const encodeNpz = (named: Readonly<Record<string, { readonly shape: readonly number[]; readonly data: NpyData }>>): Uint8Array =>
  zipSync(Object.fromEntries(Object.entries(named).map(([name, { shape, data }]) => [`${name}.npy`, encodeNpy(shape, data)])), { mtime: '1980-01-01T00:00:00' });
