/** The fast loops of convolution, linear and matrix product against their formulas, element by element. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Builder } from '../../src/ir/build.ts';
import { sizeOf, type StaticShape } from '../../src/ir/dim.ts';
import { rangeOf, type IntegerDType } from '../../src/ir/dtype.ts';
import { evaluateGraph } from '../../src/ir/evaluate.ts';
import { random } from '../../src/ir/literal.ts';
import { convAcc, matmulAcc } from '../../src/ir/ops/kernel-accumulate.ts';
import { tensor, tensorType, type Tensor } from '../../src/ir/type.ts';

const codes = (dtype: IntegerDType, shape: StaticShape, seed: number): Tensor => tensor(tensorType(dtype, shape), random(tensorType(dtype, shape), seed));
const at = ({ data, type }: Tensor, ...index: readonly number[]): number =>
  Number(data[index.reduce((offset, i, axis) => offset * (type.shape[axis] as number) + i, 0)]);
const anyBound = [-(2 ** 31), 2 ** 31 - 1];
const pair = (min: number, max: number): fc.Arbitrary<number[]> => fc.array(fc.integer({ min, max }), { minLength: 2, maxLength: 2 });

describe('conv_acc', () => {
  it('equals its sum over taps for any window, grouping and dtype', () => {
    const geometry = fc.record({
      batch: fc.integer({ min: 1, max: 2 }), size: pair(1, 6), kernel: pair(1, 3), strides: pair(1, 2), dilations: pair(1, 2),
      pads: fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 4, maxLength: 4 }),
      group: fc.integer({ min: 1, max: 3 }), inputs: fc.integer({ min: 1, max: 3 }), outputs: fc.integer({ min: 1, max: 6 }),
      dtype: fc.constantFrom<IntegerDType>('i8', 'u8', 'i16', 'u4'), width: fc.constantFrom<IntegerDType>('i8', 'i4', 'i2'), seed: fc.nat(100),
    }).filter(({ size, kernel, dilations, pads }) => [0, 1].every((axis) => size[axis] + pads[axis] + pads[axis + 2] > (kernel[axis] - 1) * dilations[axis]));
    fc.assert(fc.property(geometry, ({ batch, size, kernel, strides, dilations, pads, group, inputs, outputs, dtype, width, seed }) => {
      const image = codes(dtype, [batch, ...size, inputs * group], seed);
      const filter = codes(width, [outputs * group, ...kernel, inputs], seed + 1);
      const padCode = rangeOf(dtype)[1] - 3;
      const b = new Builder();
      const value = b.emit(convAcc, { x: b.input('x', image.type), weight: b.constant('w', filter) }, { strides, pads, dilations, group, padCode, bound: anyBound });
      const found = evaluateGraph(b.finish('kernel', 'g', [{ name: 'y', value }]), { x: image }).get('y')!;
      const [, oh, ow] = value.type.shape as StaticShape;
      for (let n = 0; n < batch; n++) for (let i = 0; i < oh; i++) for (let j = 0; j < ow; j++) for (let o = 0; o < outputs * group; o++) {
        let sum = 0;
        for (let p = 0; p < kernel[0]; p++) for (let q = 0; q < kernel[1]; q++) for (let c = 0; c < inputs; c++) {
          const [row, column] = [i * strides[0] + p * dilations[0] - pads[0], j * strides[1] + q * dilations[1] - pads[1]];
          const inside = row >= 0 && row < size[0] && column >= 0 && column < size[1];
          sum += at(filter, o, p, q, c) * (inside ? at(image, n, row, column, Math.floor(o / outputs) * inputs + c) : padCode);
        }
        if (at(found, n, i, j, o) !== sum) expect.fail(`[${n}, ${i}, ${j}, ${o}] is ${at(found, n, i, j, o)}, not ${sum}`);
      }
    }), { numRuns: 200 });
  });
});

describe('matmul_acc', () => {
  it('equals its sum with broadcast batches and either layout of b', () => {
    const shape = fc.record({
      batchA: fc.constantFrom([], [1], [2], [3, 1], [3, 2]), batchB: fc.constantFrom([], [1], [2], [3, 1], [3, 2]), rows: fc.integer({ min: 1, max: 5 }),
      depth: fc.integer({ min: 1, max: 9 }), columns: fc.integer({ min: 1, max: 6 }), transposeB: fc.boolean(),
      aZero: fc.integer({ min: -128, max: 127 }), bZero: fc.integer({ min: -128, max: 127 }), seed: fc.nat(100),
    });
    fc.assert(fc.property(shape, ({ batchA, batchB, rows, depth, columns, transposeB, aZero, bZero, seed }) => {
      const a = codes('i8', [...batchA, rows, depth], seed);
      const b = codes('i8', [...batchB, ...(transposeB ? [columns, depth] : [depth, columns])], seed + 1);
      const builder = new Builder();
      const value = builder.emit(matmulAcc, { a: builder.input('a', a.type), b: builder.input('b', b.type) }, { transposeB, aZero, bZero, bound: anyBound });
      const found = evaluateGraph(builder.finish('kernel', 'g', [{ name: 'y', value }]), { a, b }).get('y')!;
      const batch = (value.type.shape as StaticShape).slice(0, -2);
      const pick = (own: readonly number[], index: readonly number[]): readonly number[] =>
        own.map((dim, axis) => (dim === 1 ? 0 : index[axis + index.length - own.length]));
      for (let flat = 0; flat < sizeOf(batch); flat++) {
        const index = batch.map((dim, axis) => Math.floor(flat / sizeOf(batch.slice(axis + 1))) % dim);
        for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) {
          let sum = 0;
          for (let d = 0; d < depth; d++) {
            const left = at(a, ...pick(batchA, index), i, d) - aZero;
            sum += left * (at(b, ...pick(batchB, index), ...(transposeB ? [j, d] : [d, j])) - bZero);
          }
          expect(at(found, ...index, i, j)).toBe(sum);
        }
      }
    }), { numRuns: 200 });
  });
});
