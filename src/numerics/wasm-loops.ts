/** Idioms of hand-written WebAssembly code. */
import type { Code, Local } from '../wasm/index.ts';

/** Runs the body while the counter is positive; the body ends by lowering it. */
export const whilePositive = (code: Code, counter: Local, body: () => unknown): Code =>
  code.block((done) => code.loop((again) => {
    code.get(counter).i32(0).op('i32.le_s').brIf(done);
    body();
    code.br(again);
  }));
/** local += amount */
export const advance = (code: Code, local: Local, amount: number | Local): Code => {
  code.get(local);
  if (typeof amount === 'number') code.i32(amount); else code.get(amount);
  return code.op('i32.add').set(local);
};
/** to = from */
export const copyLocal = (code: Code, to: Local, from: Local): Code => code.get(from).set(to);
