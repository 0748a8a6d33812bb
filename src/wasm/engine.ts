/**
 * The part of the WebAssembly JavaScript interface that the compiler uses, as a value with types of its own: no library of the DOM is
 * needed to compile us, and users who have one see no clash.
 */
export interface Memory {
  readonly buffer: ArrayBuffer;
  /** Grows by pages of 64 KiB; returns the old size in pages. */
  grow(pages: number): number;
}
export interface Compiled { readonly __compiled: never }
export type Exported = Memory | ((...args: (number | bigint)[]) => number | bigint | undefined);
export interface Instance { readonly exports: Readonly<Record<string, Exported>> }
export type Imports = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

export interface Engine {
  readonly Module: new (bytes: Uint8Array) => Compiled;
  readonly Instance: new (compiled: Compiled, imports?: Imports) => Instance;
  readonly Memory: new (limits: { readonly initial: number; readonly maximum?: number; readonly shared?: boolean }) => Memory;
  validate(bytes: Uint8Array): boolean;
}

export const engine = (globalThis as unknown as { readonly WebAssembly: Engine }).WebAssembly;

/** Compiles and instantiates in one step, synchronously. */
export const instantiate = (bytes: Uint8Array, imports: Imports = {}): Instance => new engine.Instance(new engine.Module(bytes), imports);

/** An exported function of an instance; an error names it where it is missing. */
export const functionOf = (instance: Instance, name: string): ((...args: (number | bigint)[]) => number | bigint | undefined) => {
  const found = instance.exports[name];
  if (typeof found !== 'function') throw new Error(`the module exports no function "${name}"`);
  return found;
};
