/**
 * Loop programs as functions of a WebAssembly module: one for each loop function (body.ts) and one that runs the program.
 *
 * **Threads.** As in the C (`c/threads.ts`): a function with loops that threads share takes the number of its thread and the share of each,
 * and of such a loop each thread does as many iterations side by side.
 */
import type { Buffer, Fn, Program, Stmt } from '../../loops/types.ts';
import { functionsOf, isShared, unrolled } from '../../loops/walk.ts';
import type { Func, Global } from '../../wasm/code.ts';
import type { Module } from '../../wasm/module.ts';
import { Body, valueType } from './body.ts';
import type { Base } from './cursors.ts';

export interface WasmPrinter {
  /** Adds the function that runs a program, exported under its name, and every loop function it calls that is not there yet. */
  entry(program: Program): Func;
  /**
   * The same for threads that all call it, with their number, how many there are, their share (`Threads`) and a word that goes to `meet`: steps that are not
   * shared are the first one's, and after steps all call `meet`. `ownOf`: bytes from where a thread's scratch memory begins to a buffer
   * in it, null for others; the first one's begins at `scratch`, the next `stride` bytes on.
   */
  sharedEntry(program: Program, meet: Func, ownOf: (buffer: Buffer) => number | null, scratch: number, stride: number): Func;
}

type Call = Extract<Stmt, { s: 'call' }>;

/** Prints into a module whose imports are complete; `address` places the static buffers, in bytes. */
export const wasmPrinter = (module: Module, address: (buffer: Buffer) => number, threaded = false): WasmPrinter => {
  const printed = new Map<Fn, Func>();
  const nameOf = (fn: Fn): Func => printed.get(fn)!;
  const globals: Global[] = [];
  const globalOf = (number: number): Global => (globals[number] ??= module.global('v128', 0, true));
  const define = (fn: Fn): void => {
    if (printed.has(fn)) return;
    const shared = threaded && isShared(fn);
    const params = [
      ...fn.buffers.map(() => 'i32' as const), ...fn.indices.map(() => 'i32' as const), ...fn.values.map((v) => valueType(v.type)), ...(shared ? ['i32', 'i32'] as const : []),
    ];
    printed.set(fn, module.func(fn.name, params, [], (code, ...locals) => {
      const buffers = new Map(fn.buffers.map((b, i) => [b, locals[i]] as const));
      const indices = new Map(fn.indices.map((x, i) => [x, locals[fn.buffers.length + i]] as const));
      const values = new Map(fn.values.map((v, i) => [v, locals[fn.buffers.length + fn.indices.length + i]] as const));
      const threads = shared ? { thread: locals[locals.length - 2], share: locals[locals.length - 1] } : null;
      new Body(code, unrolled(fn.body, shared), (b) => buffers.get(b) ?? 0, indices, values, nameOf, globalOf, threads).print();
    }));
  };
  return {
    entry: (program) => {
      functionsOf(program.body).forEach(define);
      return module.func(program.name, [], [], (code) => {
        new Body(code, unrolled(program.body), address, new Map(), new Map(), nameOf, globalOf, null).print();
      }, { export: true });
    },
    sharedEntry: (program, meet, ownOf, scratch, stride) => {
      functionsOf(program.body).forEach(define);
      const takesPart = (stmt: Stmt): stmt is Call => stmt.s === 'call' && isShared(stmt.fn);
      const own = new Set(program.body.filter(takesPart).flatMap(({ args }) => args.buffers.map((at) => at.buffer)));
      return module.func(program.name, ['i32', 'i32', 'i32', 'i32'], [], (code, thread, threads, share, word) => {
        const base = code.local('i32');
        code.get(thread).i32(stride).op('i32.mul').i32(scratch).op('i32.add').set(base);
        const baseOf = (buffer: Buffer): Base => {
          const offset = own.has(buffer) ? ownOf(buffer) : null;
          return offset === null ? address(buffer) : { local: base, offset };
        };
        const print = (stmts: readonly Stmt[]): void => { new Body(code, unrolled(stmts), baseOf, new Map(), new Map(), nameOf, globalOf, { thread, share }).print(); };
        for (let i = 0; i < program.body.length;) {
          let end = i + 1;
          if (takesPart(program.body[i])) print([program.body[i]]);
          else {
            while (end < program.body.length && !takesPart(program.body[end])) end++;
            const alone = program.body.slice(i, end);
            code.get(thread).op('i32.eqz').if(() => { print(alone); });
          }
          code.get(threads).get(word).call(meet);
          i = end;
        }
      }, { export: true });
    },
  };
};
