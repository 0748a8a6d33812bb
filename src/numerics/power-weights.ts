/**
 * Weights of attention whose codes are exponents, so that their sums with values are shifts and additions:
 *
 *     log2            x̂ = 2^−k,                     k = rne(−log2 x)
 *     log-sqrt2       x̂ = 2^−⌈k/2⌉ (·√2 for odd k), k = rne(−2·log2 x):   a·Σ (v << even) + b·Σ (v << odd), b/a ≈ 1/√2
 *     shift-uniform   x̂ = 2^e(q) − η,               q = uniform code of log2(x + η):   Σ (v << e) − η·Σ v
 *
 * x is a weight before the division, e^(logit − greatest logit), whose greatest value is 1; the division by the sum of the rounded weights
 * comes after the sums, so rows still sum to exactly 1. Of 2^bits codes one stands for 0.
 *
 * Sources: Lin et al. 2022, FQ-ViT (log2); Li et al. 2023, RepQ-ViT (log √2); Zhong et al. 2023, I&S-ViT (shift-uniform-log2). Theirs round the
 * divided weights; η is a power of two here, so that 0 is met exactly.
 */
import { exp, log } from './real-math.ts';

export const weightForms = ['exact', 'log2', 'log-sqrt2', 'shift-uniform'] as const;
export type WeightForm = (typeof weightForms)[number];
export type PowerForm = Exclude<WeightForm, 'exact'>;

/** Codes of numbers in 0…1. */
export interface LogQuantizer {
  code(x: number): number;
  value(code: number): number;
}

const log2 = (x: number): number => log(x) / Math.LN2;
/** Nearest integer, halves to the even one. */
const nearest = (x: number): number => {
  const up = Math.floor(x + 0.5);
  return up - x === 0.5 && up % 2 !== 0 ? up - 1 : up;
};

/** Steps of a factor 2^(1/halves), the last code for 0. */
const logarithmic = (bits: number, halves: 1 | 2): LogQuantizer => {
  const zero = 2 ** bits - 1;
  return {
    code: (x) => (x <= 0 ? zero : Math.min(zero, Math.max(0, nearest(-halves * log2(x))))),
    value: (k) => (k >= zero ? 0 : halves === 1 ? 2 ** -k : 2 ** -Math.ceil(k / 2) * (k % 2 === 1 ? Math.SQRT2 : 1)),
  };
};
export const log2Quantizer = (bits: number): LogQuantizer => logarithmic(bits, 1);
export const logSqrt2Quantizer = (bits: number): LogQuantizer => logarithmic(bits, 2);

/** With `exponent(q) = rne(q·d + log2 η)`, d such that the codes span log2 η … log2(1 + η). */
export const shiftUniformQuantizer = (bits: number, eta: number): LogQuantizer & { exponent(code: number): number } => {
  const most = 2 ** bits - 1;
  const [least, greatest] = [log2(eta), log2(1 + eta)];
  const step = (greatest - least) / most;
  const exponent = (q: number): number => nearest(q * step + least);
  return { code: (x) => Math.min(most, Math.max(0, nearest((log2(x + eta) - least) / step))), exponent, value: (q) => 2 ** exponent(q) - eta };
};

/** Integer weights by exponent: entry z stands for e^(−z/256). */
export interface PowerTable {
  readonly table: Int16Array;
  /** the greatest entry, that of the greatest logit */
  readonly one: number;
}

/** Steps of the exponent in the table, and its length; the last entry is 0. */
const [STEPS, LENGTH] = [256, 2816];
/** Pairs with b/a near 1/√2, convergents of its continued fraction: finer ones leave room for fewer octaves. */
const ROOTS = [[239, 169], [99, 70], [41, 29], [17, 12], [7, 5], [3, 2]] as const;
/** Powers of two tried for η. */
const LEAST_ETA = 10;

/** The table of a form with entries of at most `limit` ≤ 32767; null where not even two exponents fit. */
export const powerTable = (form: PowerForm, bits: number, limit: number): PowerTable | null => {
  const fits = (unit: number): number => 31 - Math.clz32(Math.floor(limit / unit));
  if (limit < 8) return null;
  if (form === 'log-sqrt2') return rootTable(bits, ROOTS.find(([a]) => fits(a) >= 2 ** (bits - 1) - 1) ?? ROOTS[ROOTS.length - 1], fits);
  const top = Math.min(14, fits(1));
  return form === 'log2' ? log2Table(bits, top) : shiftUniformTable(bits, top);
};

const tableOf = (entry: (x: number) => number): Int16Array => Int16Array.from({ length: LENGTH }, (_, z) => (z === LENGTH - 1 ? 0 : entry(exp(-z / STEPS))));

const log2Table = (bits: number, top: number): PowerTable => {
  const { code } = log2Quantizer(bits);
  const entry = (k: number): number => (k === 2 ** bits - 1 || k > top ? 0 : 2 ** (top - k));
  return { table: tableOf((x) => entry(code(x))), one: 2 ** top };
};

const rootTable = (bits: number, [a, b]: readonly [number, number], fits: (unit: number) => number): PowerTable => {
  const top = fits(a);
  const { code } = logSqrt2Quantizer(bits);
  const entry = (k: number): number => (k === 2 ** bits - 1 || k >> 1 > top ? 0 : (k % 2 === 0 ? a : b) * 2 ** (top - (k >> 1)));
  return { table: tableOf((x) => entry(code(x))), one: a * 2 ** top };
};

/** η = 2^−n with the least Σ (x̂ − x)² over logits that are spread evenly. */
const shiftUniformTable = (bits: number, top: number): PowerTable => {
  const made = Array.from({ length: Math.min(top, LEAST_ETA) }, (_, i) => {
    const eta = 2 ** -(i + 1);
    const quantizer = shiftUniformQuantizer(bits, eta);
    let error = 0;
    for (let z = 0; z < LENGTH; z++) {
      const x = exp(-z / STEPS);
      error += (quantizer.value(quantizer.code(x)) - x) ** 2;
    }
    return { eta, error, quantizer };
  });
  const { eta, quantizer: { code, exponent } } = made.reduce((best, one) => (one.error < best.error ? one : best));
  const entry = (q: number): number => 2 ** (top + exponent(q)) - 2 ** top * eta;
  return { table: tableOf((x) => entry(code(x))), one: entry(code(1)) };
};
