// Weights take in a program as many bits as they have: planes of codes without gaps.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { kernelGraph, type KernelShape } from '../../src/bench/kernels.ts';
import { lower, portableC, programOf, simd128, type Target } from '../../src/backends/index.ts';
import { packCodes, packedLength, storedWidth, unpack, type StoredBits } from '../../src/backends/schedules/codes.ts';
import type { ScheduleContext } from '../../src/backends/schedules/kernel.ts';
import { storedWeights, unpackLevels } from '../../src/backends/schedules/levels.ts';
import { avx2, cortexM, neonDot, relaxedSimd } from '../../src/backends/schedules/target.ts';
import { Builder } from '../../src/ir/build.ts';
import type { Graph } from '../../src/ir/graph.ts';
import { linearAcc } from '../../src/ir/ops/kernel-accumulate.ts';
import { tensor, tensorType } from '../../src/ir/type.ts';
import { at, buffer, constants, program } from '../../src/loops/build.ts';
import { interpret } from '../../src/loops/interpret.ts';
import type { Address, Stmt } from '../../src/loops/types.ts';
import { verify } from '../../src/loops/verify.ts';

/** Makes every function anew. */
const fresh: ScheduleContext['share'] = (stem, key, build) => build(stem, key);
/** What a program that unpacks a list makes of it. */
const unpacked = (statement: (to: Address, from: Address) => Stmt, codes: Int8Array, block: number, bits: StoredBits, table: Int8Array | null = null): Int8Array => {
  const from = constants('packed', packCodes(codes, block, bits));
  const to = buffer('codes', 'i8', codes.length, 'out');
  const stmt = statement(at(to), at(from));
  const others = stmt.s === 'call' ? stmt.args.buffers.map((one) => one.buffer).filter((one) => one !== from && one !== to) : [];
  expect(others.length).toBe(table === null ? 0 : 1);
  const whole = program('unpack', [from, to, ...others], [stmt]);
  verify(whole);
  return interpret(whole, new Map()).get(to) as Int8Array;
};

const shape: KernelShape = { op: 'conv', batch: 1, height: 9, width: 8, channels: 64, outputs: 64, kernel: [3, 3], strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], group: 1 };
const storedBytes = (weightBits: number, target: Target): number => lower(programOf(kernelGraph({ shape, weightBits, activationBits: 8 })), target).constants
  .filter(({ name, e }) => name === 'weight' && e === 'i8').reduce((sum, { data }) => sum + data!.byteLength, 0);

describe.each([2, 3, 4, 5, 6, 7, 8])('%i bits', (bits) => {
  it('bits/8 of a byte a weight, once rows and columns fill their panels', () => {
    for (const target of [portableC, simd128]) expect(storedBytes(bits, target)).toBe((64 * 9 * 64 * storedWidth(bits)) / 8);
  });
  it('packs and unpacks', () => {
    const width = storedWidth(bits);
    fc.assert(fc.property(fc.array(fc.integer({ min: -(2 ** (bits - 1)), max: 2 ** (bits - 1) - 1 }), { minLength: 1, maxLength: 300 }), fc.constantFrom(8, 64, 300), (list, block) => {
      if (width === 8) return;
      const codes = Int8Array.from(list);
      expect(unpacked((to, from) => unpack(to, from, codes.length, block, width, simd128, fresh), codes, block, width)).toEqual(codes);
    }), { numRuns: 30 });
  });
  it('no gaps, whatever the length', () => {
    const width = storedWidth(bits);
    for (const length of [1, 7, 8, 63, 64, 65, 128, 200, 512, 515]) for (const block of [8, 64, length]) {
      const codes = new Int8Array(length);
      expect(packCodes(codes, block, width).length).toBe(packedLength(length, block, width));
      expect(packedLength(length, block, width)).toBeLessThanOrEqual(Math.ceil(length / 8) * width);
    }
  });
});

describe('weights of few levels', () => {
  const weightOf = (data: Int8Array): Graph<'kernel'> => {
    const b = new Builder();
    const depth = data.length / 2;
    const weight = b.constant('weight', tensor(tensorType('i8', [2, depth]), data));
    const acc = b.emit(linearAcc, { x: b.input('x', tensorType('i8', [1, depth])), weight }, { bound: [-(2 ** 30), 2 ** 30], indexBits: 4 });
    return b.finish('kernel', 'levels', [{ name: 'y', value: acc }]);
  };
  const levels = fc.uniqueArray(fc.integer({ min: -128, max: 127 }), { minLength: 1, maxLength: 16 });
  const weights = levels.chain((own) => fc.array(fc.constantFrom(...own), { minLength: 2, maxLength: 200 })).map((list) => Int8Array.from(list.length % 2 === 0 ? list : list.slice(1)));

  it('are their indices and a table in ascending order; with 0 in it where padding asks for 0, or else the codes', () => {
    fc.assert(fc.property(weights, fc.boolean(), (data, pads) => {
      const { codes, bits, levels: table, padding } = storedWeights(weightOf(data).nodes[0], pads);
      const distinct = new Set(data);
      if (pads && !distinct.has(0) && distinct.size === 16) {
        expect([codes, bits, table, padding]).toEqual([data, 8, null, 0]);
        return;
      }
      expect([bits, table!.length]).toEqual([4, 16]);
      expect([...table!]).toEqual([...table!].sort((a, b) => a - b));
      expect(codes.map((code) => table![code + 8])).toEqual(data);
      if (pads) expect(table![padding + 8]).toBe(0);
      for (const [target, offset] of [[portableC, 0], [simd128, 0], [avx2, 0], [relaxedSimd, 64]] as const) {
        if (offset > 0 && data.some((code) => code < -offset || code >= offset)) continue;
        const back = unpacked((to, from) => unpackLevels(to, from, at(constants('levels', table!)), data.length, 64, 4, target, fresh, offset), codes, 64, 4, table!);
        expect(back.map((code) => code - offset)).toEqual(data);
      }
    }), { numRuns: 40 });
  });
  it('take half a byte each and a table of 16, in every program', () => {
    const data = Int8Array.from({ length: 2 * 64 * 16 }, (_, i) => ((i * 37) % 16) * 16 - 128);
    const b = new Builder();
    const acc = b.emit(linearAcc, { x: b.input('x', tensorType('i8', [4, 64])), weight: b.constant('weight', tensor(tensorType('i8', [32, 64]), data)) }, { bound: [-(2 ** 30), 2 ** 30], indexBits: 4 });
    const graph = b.finish('kernel', 'levels', [{ name: 'y', value: acc }]);
    for (const target of [portableC, simd128, relaxedSimd, avx2, neonDot, cortexM]) {
      expect(lower(programOf(graph), target).constants.filter(({ e, name }) => e === 'i8' && name === 'weight').map(({ data: bytes }) => bytes!.byteLength).sort((p, q) => p - q)).toEqual([16, data.length / 2]);
    }
  });
});
