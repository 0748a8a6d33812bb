/** Modules of hand-written kernels that work on one memory of their own, which grows with the largest work so far. */
import { engine, type Memory } from '../wasm/index.ts';
import { PAGE_BYTES } from './f32-kernels.ts';

/** An instance of a module that imports `env.memory`, of one page at first. */
export const onOwnMemory = (code: Uint8Array) => {
  const memory = new engine.Memory({ initial: 1 });
  return { memory, instance: new engine.Instance(new engine.Module(code), { env: { memory } }) };
};

/** Makes room for so many bytes; views of the memory made before are void if it grows. */
export const growTo = (memory: Memory, bytes: number): void => {
  const missing = Math.ceil(bytes / PAGE_BYTES) - memory.buffer.byteLength / PAGE_BYTES;
  if (missing > 0) memory.grow(missing);
};
