/** Binary encoder of WebAssembly, and the scan of what it wrote. */
export * from './engine.ts';
export * from './opcodes.ts';
export * from './code.ts';
export * from './module.ts';
export * from './scan.ts';
