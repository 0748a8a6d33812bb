/**
 * Relaxed SIMD: what tells whether an engine has the product of pairs of bytes, and computes it right.
 *
 * `i16x8.relaxed_dot_i8x16_i7x16_s` leaves to the engine whether bytes of the second operand have a sign, and what becomes of sums beyond
 * 16 bits. With a second operand in 0 … 127 there is no such byte, and no such sum: 2·128·127 < 2^15. (WebAssembly Core Specification
 * 3.0, "Relaxed Integer Dot Product".) `i32x4.relaxed_dot_i8x16_i7x16_add_s` is not used: compilers of first tier have got it wrong.
 */
import { engine, Module } from '../../wasm/index.ts';

const [A, B, SUMS] = [0, 16, 32];

/** A module that multiplies two vectors in its memory. */
export const relaxedProbe = (): Uint8Array => {
  const module = new Module();
  module.memory({ initial: 1 });
  module.export('memory', 'memory');
  module.func('product', [], [], (code) => {
    code.i32(SUMS).i32(A).memory('v128.load').i32(B).memory('v128.load').op('i16x8.relaxed_dot_i8x16_i7x16_s').memory('v128.store');
  }, { export: true });
  return module.encode();
};

/** What Node must be started with to run such modules; nothing where it has them anyway, as from version 22 on. */
export const relaxedFlags = (): readonly string[] => (engine.validate(relaxedProbe()) ? [] : ['--experimental-wasm-relaxed-simd']);

/** The ES module's own test: `relaxed` is true where the faster module can be trusted. */
export const relaxedText = (): string => `\
/** A module of one product of byte pairs, and whether this engine takes it and sums as the program needs it. */
const probe = new Uint8Array([${[...relaxedProbe()].join(', ')}]);
const multipliesBytes = () => {
  if (!WebAssembly.validate(probe)) return false;
  const { memory, product } = new WebAssembly.Instance(new WebAssembly.Module(probe)).exports;
  const [a, b, sums] = [new Int8Array(memory.buffer, ${A}, 16), new Int8Array(memory.buffer, ${B}, 16), new Int16Array(memory.buffer, ${SUMS}, 8)];
  for (let round = 0; round < 64; round++) {
    for (let i = 0; i < 16; i++) {
      // the first rounds: all extremes beside each other
      a[i] = round < 4 ? (round + (i >> 1)) % 2 === 0 ? -128 : 127 : round * 37 + i * 91;
      b[i] = round < 2 ? 127 : (round * 53 + i * 29) & 127;
    }
    product();
    for (let i = 0; i < 8; i++) if (sums[i] !== a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1]) return false;
  }
  return true;
};
/** Whether this engine has relaxed SIMD and passed the test: then load() takes the faster of the two modules. */
export const relaxed = multipliesBytes();
`;
