/** Random access to the bytes of a file without holding the file in memory. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';

export interface ByteSource {
  /** what the user calls it, for messages */
  readonly name: string;
  readonly size: number;
  /** Exactly `length` bytes from `offset`, aligned to 8 in memory; ranges outside the source are the caller's fault. */
  read(offset: number, length: number): Uint8Array;
}

/** The bytes of a file, opened for each read so that nothing needs closing. */
export const fileSource = (path: string): ByteSource => {
  const size = withFile(path, (descriptor) => fstatSync(descriptor).size);
  const read = (offset: number, length: number): Uint8Array => withFile(path, (descriptor) => {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const got = readSync(descriptor, bytes, done, length - done, offset + done);
      if (got === 0) throw new CompileError(errors.unreadableData(path, 'it ended early; was it changed meanwhile?'), 'usage');
      done += got;
    }
    return bytes;
  });
  return { name: path, size, read };
};

export const memorySource = (name: string, bytes: Uint8Array): ByteSource =>
  ({ name, size: bytes.length, read: (offset, length) => bytes.slice(offset, offset + length) });

const withFile = <T>(path: string, use: (descriptor: number) => T): T => {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (cause) {
    throw new CompileError(errors.unreadableData(path, (cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file' : (cause as Error).message), 'usage');
  }
  try {
    return use(descriptor);
  } finally {
    closeSync(descriptor);
  }
};
