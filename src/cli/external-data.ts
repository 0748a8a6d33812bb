/** External weight data of an ONNX model: files beside the model, read by range, never outside its folder. */
import { closeSync, fstatSync, openSync, readSync, realpathSync } from 'node:fs';
import { dirname, isAbsolute, join, relative } from 'node:path';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { reasonOf } from './command.ts';

export const externalDataOf = (modelPath: string) => (location: string, offset: number, length: number | null): Uint8Array => {
  const folder = dirname(modelPath);
  const path = join(folder, location);
  let descriptor: number;
  try {
    const inside = relative(realpathSync(folder), realpathSync(path));
    if (isAbsolute(location) || isAbsolute(inside) || inside.startsWith('..')) {
      throw new CompileError(errors.unreadableFile(location, 'external data must lie in the folder of the model'));
    }
    descriptor = openSync(path, 'r');
  } catch (cause) {
    if (cause instanceof CompileError) throw cause;
    throw new CompileError(errors.unreadableFile(path, reasonOf(cause)));
  }
  try {
    const size = fstatSync(descriptor).size;
    const count = length ?? size - offset;
    if (offset < 0 || count < 0 || offset + count > size) {
      throw new CompileError(errors.unreadableFile(path, `the model asks for bytes ${offset} to ${offset + count}, the file has ${size}`));
    }
    const bytes = new Uint8Array(count);
    for (let done = 0; done < count; ) {
      const got = readSync(descriptor, bytes, done, count - done, offset + done);
      if (got === 0) throw new CompileError(errors.unreadableFile(path, 'it ended early'));
      done += got;
    }
    return bytes;
  } finally {
    closeSync(descriptor);
  }
};
