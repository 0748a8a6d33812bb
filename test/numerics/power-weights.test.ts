/** Codes of attention weights that are exponents: published vectors, and sums with values by shifts and additions alone. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { log2Quantizer, logSqrt2Quantizer, powerTable, shiftUniformQuantizer, weightForms, type PowerForm } from '../../src/numerics/power-weights.ts';

const forms = weightForms.filter((form): form is PowerForm => form !== 'exact');
const shares = [0.95, 0.5, 0.3, 0.07, 0.01, 0.004];

describe('codes', () => {
  it('log2 of FQ-ViT in 4 bits', () => {
    expect(shares.map(log2Quantizer(4).code)).toEqual([0, 1, 2, 4, 7, 8]);
  });

  it('log √2 of RepQ-ViT in 4 bits: what lies beyond the codes is 0', () => {
    const { code, value } = logSqrt2Quantizer(4);
    expect(shares.slice(0, 5).map(code)).toEqual([0, 2, 3, 8, 13]);
    [1, 0.5, 0.353553, 0.0625, 0.011049, 0].forEach((expected, i) => expect(value(code(shares[i]))).toBeCloseTo(expected, 6));
  });

  it('shift-uniform-log2 of I&S-ViT in 3 bits with η = 0.01', () => {
    const { code, value, exponent } = shiftUniformQuantizer(3, 0.01);
    const list = [0.0005, 0.004, 0.02, 0.07, 0.2, 0.5, 0.95];
    expect(list.map(code)).toEqual([0, 1, 2, 3, 5, 6, 7]);
    [-0.0021875, 0.005625, 0.02125, 0.0525, 0.24, 0.49, 0.99].forEach((expected, i) => expect(value(code(list[i]))).toBeCloseTo(expected, 9));
    expect(Array.from({ length: 8 }, (_, q) => exponent(q))).toEqual([-7, -6, -5, -4, -3, -2, -1, 0]);
    [0.003905, 0.016884, 0.041979, 0.090499, 0.184309, 0.365685, 0.716366].forEach((threshold, q) => {
      expect([code(threshold - 2e-6), code(threshold + 2e-6)]).toEqual([q, q + 1]);
    });
  });

  it('shift-uniform-log2 wastes codes above 3 bits where η is large', () => {
    const exponents = (bits: number, eta: number): number[] => Array.from({ length: 2 ** bits }, (_, q) => shiftUniformQuantizer(bits, eta).exponent(q) + 0);
    expect(exponents(4, 0.01)).toEqual([-7, -6, -6, -5, -5, -4, -4, -4, -3, -3, -2, -2, -1, -1, 0, 0]);
    expect([new Set(exponents(4, 0.1)).size, new Set(exponents(3, 0.03)).size]).toEqual([4, 6]);
  });

  it('sums with values are those of shifted values less η times their sum', () => {
    const [e, v] = [[-1, -3, -7], [64, -32, 128]];
    expect(e.reduce((sum, k, j) => sum + (2 ** k - 0.01) * v[j], 0)).toBeCloseTo(27.4, 9);
    expect(e.reduce((sum, k, j) => sum + (v[j] >> -k), 0) - 0.01 * v.reduce((a, b) => a + b)).toBeCloseTo(27.4, 9);
  });
});

describe('tables', () => {
  it.each(forms)('%s: every limit gives falling entries from the greatest logit to 0', (form) => {
    for (const bits of [2, 3, 4, 6, 8]) for (const limit of [32767, 16383, 4095, 127, 8]) {
      const { table, one } = powerTable(form, bits, limit)!;
      expect([table.length, table[0], table[2815]]).toEqual([2816, one, 0]);
      expect(one).toBeLessThanOrEqual(limit);
      expect(one).toBeGreaterThan(0);
      expect(table.every((entry, z) => z === 0 || entry <= table[z - 1])).toBe(true);
      expect(new Set(table).size).toBeLessThanOrEqual(2 ** bits);
    }
    expect(powerTable(form, 4, 7)).toBeNull();
  });

  const values = fc.array(fc.tuple(fc.nat(2815), fc.integer({ min: -128, max: 127 })), { minLength: 1, maxLength: 64 });
  const product = (table: Int16Array, list: readonly (readonly [number, number])[]): number => list.reduce((sum, [z, v]) => sum + table[z] * v, 0);

  it('log2: Σ e·v is a sum of shifted values', () => {
    const { table } = powerTable('log2', 4, 32767)!;
    fc.assert(fc.property(values, (list) => {
      let sum = 0;
      for (const [z, v] of list) if (table[z] !== 0) sum += v << (31 - Math.clz32(table[z]));
      expect(sum).toBe(product(table, list));
    }));
  });

  it('log √2: two sums of shifted values, one factor for each', () => {
    const { table, one } = powerTable('log-sqrt2', 4, 32767)!;
    const [a, b] = [239, 169];
    expect(one % a).toBe(0);
    fc.assert(fc.property(values, (list) => {
      const sums = [0, 0];
      for (const [z, v] of list) {
        const odd = table[z] % a === 0 ? 0 : 1;
        const power = table[z] / [a, b][odd];
        expect(Number.isInteger(power) && (power & (power - 1)) === 0).toBe(true);
        if (power !== 0) sums[odd] += v << (31 - Math.clz32(power));
      }
      expect(a * sums[0] + b * sums[1]).toBe(product(table, list));
    }));
  });

  it('shift-uniform: a sum of shifted values less the sum of values, shifted', () => {
    const { table, one } = powerTable('shift-uniform', 4, 32767)!;
    const eta = 2 ** (32 - Math.clz32(one)) - one;
    expect(eta & (eta - 1)).toBe(0);
    fc.assert(fc.property(values, (list) => {
      let [sum, all] = [0, 0];
      for (const [z, v] of list) {
        const power = table[z] + eta;
        expect(power & (power - 1)).toBe(0);
        sum += v << (31 - Math.clz32(power));
        all += v;
      }
      expect(sum - (all << (31 - Math.clz32(eta)))).toBe(product(table, list));
    }));
  });
});
