/**
 * Elementary functions with the same bits on every engine. `Math.exp`, `Math.log`, `Math.pow` and `Math.tanh` may differ between
 * engines and their versions; these use only + − · / and comparisons of doubles, which IEEE 754 defines exactly, in a fixed order.
 *
 * Errors are in units in the last place of the double result, as bounded by the argument in each comment and seen in the tests:
 * exp, log < 1; expm1, erf, log1p < 2; tanh, sigmoid < 3; pow < 1 (exact where the result is an integer below 2^53 and y is 1, 2 or 3).
 */

export const LN2_INVERSE = 1.4426950408889634;
/** ln 2 cut after 40 binary digits, so that k·LN2_HIGH is exact for |k| < 2^13, and the rest. */
export const LN2_HIGH = 0.6931471805592082;
export const LN2_LOW = 7.371002565167799e-13;
/** 2/√π as the sum of two doubles. */
const TWO_OVER_ROOT_PI = 1.1283791670955126;
export const TWO_OVER_ROOT_PI_LOW = 1.533545961316588e-17;
/** Above it exp overflows; below the other it is under half of the least double. */
const EXP_HIGHEST = 709.782712893384;
const EXP_LOWEST = -745.1332191019412;

/** 2^k for −1022 ≤ k ≤ 1023, at index k + 1022. */
const powersOfTwo = new Float64Array(2046);
powersOfTwo[1022] = 1;
for (let k = 1; k <= 1023; k++) powersOfTwo[1022 + k] = powersOfTwo[1021 + k] * 2;
for (let k = 1; k <= 1022; k++) powersOfTwo[1022 - k] = powersOfTwo[1023 - k] / 2;

/** 2^k for −1022 ≤ k ≤ 1023, exact on every engine, which `2 ** k` need not be. */
export const powerOfTwo = (k: number): number => powersOfTwo[1022 + k];

/** x·2^k, rounded once. For 1/2 < |x| < 4 and −1080 ≤ k ≤ 1024. */
const scaleByPower = (x: number, k: number): number => {
  if (k >= -1000 && k <= 1000) return x * powersOfTwo[1022 + k];
  return k > 0 ? x * powersOfTwo[1022 + k - 8] * 256 : x * powersOfTwo[1022 + k + 100] * powersOfTwo[1022 - 100];
};

/**
 * (e^r − 1 − r)/r² for |r| ≤ 0.35, by its Taylor series up to r^12/14!: the next term is below 2^-60 of e^r. Neighbouring terms are
 * paired (Estrin), so that the machine works on several at once.
 */
const expTail = (r: number): number => {
  const r2 = r * r;
  const r4 = r2 * r2;
  return 1 / 2 + r * (1 / 6) + r2 * (1 / 24 + r * (1 / 120)) + r4 * (1 / 720 + r * (1 / 5040) + r2 * (1 / 40320 + r * (1 / 362880)))
    + r4 * r4 * (1 / 3628800 + r * (1 / 39916800) + r2 * (1 / 479001600 + r * (1 / 6227020800)) + r4 * (1 / 87178291200));
};

/** e^(high + low) for |low| far below |high|. high = k·ln 2 + r, so the result is 2^k·e^r. */
const expOfSum = (high: number, low: number): number => {
  if (!(high <= EXP_HIGHEST)) return high > 0 ? Infinity : high;
  if (high < EXP_LOWEST) return 0;
  const k = Math.floor(high * LN2_INVERSE + 0.5);
  const rest = high - k * LN2_HIGH;
  const correction = low - k * LN2_LOW;
  const r = rest + correction;
  // what rounding `r` lost, needed where 1 + r is itself rounded
  const lost = rest - r + correction;
  return scaleByPower(1 + (r + (r * r * expTail(r) + lost)), k);
};

/** e^x. NaN gives NaN, overflow Infinity, underflow denormals and 0. */
export const exp = (x: number): number => expOfSum(x, 0);

/** e^x − 1, accurate near 0. */
export const expm1 = (x: number): number => {
  if (x !== x || x === 0) return x;
  if (x > EXP_HIGHEST) return Infinity;
  if (x < -40) return -1;
  const k = Math.floor(x * LN2_INVERSE + 0.5);
  const rest = x - k * LN2_HIGH;
  const r = rest - k * LN2_LOW;
  const lost = rest - r - k * LN2_LOW;
  const tail = r * r * expTail(r) + lost;
  if (k === 0) return r + tail;
  const power = scaleByPower(1, Math.min(k, 1023));
  // 2^k·(1 + r + tail) − 1 with the exact part first
  if (k < 54) return power - 1 + power * (r + tail);
  return k === 1024 ? power * (2 * (1 + (r + tail))) : power * (1 + (r + tail)) - 1;
};

const bits = new Float64Array(1);
const words = new Uint32Array(bits.buffer);
/** Index of the word with sign and exponent, which depends on the byte order of the machine. */
const HIGH_WORD = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1 ? 1 : 0;

/** Exponent k and mantissa m in [√½, √2) of the last `splitExponent`; x = m·2^k. */
let mantissa = 1;
const splitExponent = (x: number): number => {
  let k = 0;
  let y = x;
  if (y < 2.2250738585072014e-308) { y *= 18014398509481984; k = -54; }
  bits[0] = y;
  k += (words[HIGH_WORD] >>> 20) - 1023;
  words[HIGH_WORD] = (words[HIGH_WORD] & 0xfffff) | 0x3ff00000;
  mantissa = bits[0];
  if (mantissa > 1.4142135623730951) { mantissa /= 2; k++; }
  return k;
};

/** 2·(atanh s − s)/s for z = s² ≤ 0.0295, by its series: the next term is below 2^-60. */
const atanhTail = (z: number): number =>
  z * (2 / 3 + z * (2 / 5 + z * (2 / 7 + z * (2 / 9 + z * (2 / 11 + z * (2 / 13 + z * (2 / 15 + z * (2 / 17
    + z * (2 / 19 + z * (2 / 21 + z * (2 / 23)))))))))));

/** log(1 + f) = f − f²/2 + s·(f²/2 + R) with s = f/(2 + f), since 2s = f − s·f and log(1 + f) = 2·atanh s = 2s + s·R. */
const logOfMantissa = (f: number, k: number, low: number): number => {
  const s = f / (2 + f);
  const half = 0.5 * f * f;
  const tail = s * (half + atanhTail(s * s)) + low;
  return k === 0 ? f - (half - tail) : k * LN2_HIGH - (half - (tail + k * LN2_LOW) - f);
};

/** Natural logarithm. −Infinity at 0, NaN below. */
export const log = (x: number): number => {
  if (!(x > 0)) return x === 0 ? -Infinity : NaN;
  if (x === Infinity) return x;
  const k = splitExponent(x);
  return logOfMantissa(mantissa - 1, k, 0);
};

/** log(1 + x), accurate near 0. */
export const log1p = (x: number): number => {
  if (!(x > -1)) return x === -1 ? -Infinity : NaN;
  if (x === Infinity || x === 0) return x;
  if (x > -0.29 && x < 0.41) return logOfMantissa(x, 0, 0);
  const sum = 1 + x;
  const k = splitExponent(sum);
  // 1 + x = sum + lost, and log(sum + lost) = log(sum) + lost/sum to first order
  const lost = x < 1 ? 1 - sum + x : x - sum + 1;
  return logOfMantissa(mantissa - 1, k, lost / sum);
};

/** Hyperbolic tangent: t/(t + 2) with t = e^(2|x|) − 1. */
export const tanh = (x: number): number => {
  const size = x < 0 ? -x : x;
  if (!(size > 1e-8)) return x;
  if (size > 20) return x < 0 ? -1 : 1;
  const t = expm1(2 * size);
  const y = size < 1 ? t / (t + 2) : 1 - 2 / (t + 2);
  return x < 0 ? -y : y;
};

/** 1/(1 + e^−x), with the relative accuracy kept for large negative x. */
export const sigmoid = (x: number): number => {
  if (x >= 0) return 1 / (1 + exp(-x));
  const power = exp(x);
  return power / (1 + power);
};

/** erf is expanded around the centres (i + 1/2)/8 of intervals of this many to the unit, up to where it rounds to 1. */
export const ERF_INTERVALS_PER_UNIT = 8;
export const ERF_ONE_FROM = 6;
export const ERF_TERMS = 15;

/** Levels of the continued fraction below; the rest is about e^(−2x·√(2·levels)), under 2^-70 from x = 1/2 on. */
const ERFC_LEVELS = 1000;

/**
 * erf by formulas that are too slow to call, for the centres of the table: below 1/2 the series 2/√π·e^(−x²)·Σ 2^n x^(2n+1)/(1·3·…·(2n+1)),
 * whose terms are all positive; from there on one minus the continued fraction e^(−x²)/√π·1/(x + (1/2)/(x + (2/2)/(x + (3/2)/(x + …)))).
 */
const erfAtCentre = (x: number): number => {
  if (x >= 0.5) {
    let fraction = x;
    for (let n = ERFC_LEVELS; n >= 1; n--) fraction = x + n / 2 / fraction;
    return 1 - (TWO_OVER_ROOT_PI / 2) * exp(-x * x) / fraction;
  }
  let term = x;
  let sum = 0;
  for (let n = 1; term > 1e-19; n++) {
    sum += term;
    term *= (2 * x * x) / (2 * n + 1);
  }
  return TWO_OVER_ROOT_PI * exp(-x * x) * sum;
};

/**
 * Coefficients of erf(c + h) in powers of h for each centre c. With f = erf′ = 2/√π·e^(−x²) the Taylor coefficients of f follow
 * f′ = −2x·f: (n + 1)·a[n+1] = −2·(c·a[n] + a[n−1]). |h| ≤ 1/16 makes the first term left out less than 2^-58.
 * The first interval holds the odd series around 0 instead, in powers of x², which keeps the relative accuracy of small results.
 */
export const erfTable = ((): Float64Array => {
  const table = new Float64Array(ERF_ONE_FROM * ERF_INTERVALS_PER_UNIT * ERF_TERMS);
  let coefficient = TWO_OVER_ROOT_PI;
  for (let n = 0; n < ERF_TERMS; n++) {
    table[n] = coefficient / (2 * n + 1);
    coefficient /= -(n + 1);
  }
  for (let i = 1; i < ERF_ONE_FROM * ERF_INTERVALS_PER_UNIT; i++) {
    const centre = (i + 0.5) / ERF_INTERVALS_PER_UNIT;
    let before = 0;
    let derivative = TWO_OVER_ROOT_PI * exp(-centre * centre);
    table[i * ERF_TERMS] = erfAtCentre(centre);
    for (let n = 0; n + 1 < ERF_TERMS; n++) {
      table[i * ERF_TERMS + n + 1] = derivative / (n + 1);
      const next = (-2 * (centre * derivative + before)) / (n + 1);
      before = derivative;
      derivative = next;
    }
  }
  return table;
})();

const polynomial = (at: number, h: number): number => {
  const c = erfTable;
  const h2 = h * h;
  const h4 = h2 * h2;
  const middle = c[at + 4] + h * c[at + 5] + h2 * (c[at + 6] + h * c[at + 7]);
  const end = c[at + 8] + h * c[at + 9] + h2 * (c[at + 10] + h * c[at + 11]) + h4 * (c[at + 12] + h * c[at + 13] + h2 * c[at + 14]);
  return c[at] + h * (c[at + 1] + h * (c[at + 2] + h * c[at + 3]) + h * h2 * (middle + h4 * end));
};

/** The error function, 2/√π·∫₀ˣ e^(−t²) dt. */
export const erf = (x: number): number => {
  const size = x < 0 ? -x : x;
  if (size < 1 / ERF_INTERVALS_PER_UNIT) return x * polynomial(0, x * x) + x * TWO_OVER_ROOT_PI_LOW;
  if (!(size < ERF_ONE_FROM)) return x !== x ? x : x < 0 ? -1 : 1;
  const i = Math.floor(size * ERF_INTERVALS_PER_UNIT);
  const y = polynomial(i * ERF_TERMS, size - (i + 0.5) / ERF_INTERVALS_PER_UNIT);
  return x < 0 ? -y : y;
};

/** The rounding error of the last `twoProduct` or `twoSum`. */
let remainder = 0;
/** a·b rounded, with a·b − result in `remainder`: each factor is split into halves of 26 bits, whose products are exact. */
const twoProduct = (a: number, b: number): number => {
  const product = a * b;
  const shiftedA = 134217729 * a;
  const shiftedB = 134217729 * b;
  const highA = shiftedA - (shiftedA - a);
  const highB = shiftedB - (shiftedB - b);
  const lowA = a - highA;
  const lowB = b - highB;
  remainder = lowA * lowB - (product - highA * highB - lowA * highB - highA * lowB);
  return product;
};
const twoSum = (a: number, b: number): number => {
  const sum = a + b;
  const part = sum - a;
  remainder = a - (sum - part) + (b - part);
  return sum;
};

/** 1/(2n + 1) as two doubles for the first terms of the atanh series; later terms are small enough for one. */
const ATANH_PRECISE_TERMS = 6;
const ATANH_TERMS = 15;
const atanhLow = new Float64Array(ATANH_PRECISE_TERMS);
for (let n = 0; n < ATANH_PRECISE_TERMS; n++) {
  const odd = 2 * n + 1;
  const product = twoProduct(1 / odd, odd);
  atanhLow[n] = (1 - product - remainder) / odd;
}

/** log x as two doubles, to a relative error below 2^-66: the result, and the rest in `logLow`. For finite x > 0. */
let logLow = 0;
const preciseLog = (x: number): number => {
  const k = splitExponent(x);
  const f = mantissa - 1;
  const divisor = twoSum(2, f);
  const divisorLow = remainder;
  const s = f / divisor;
  const back = twoProduct(s, divisor);
  const sLow = (f - back - remainder - s * divisorLow) / divisor;
  const z = twoProduct(s, s);
  const zLow = remainder + 2 * s * sLow;
  let high = 1 / (2 * ATANH_TERMS + 1);
  for (let n = ATANH_TERMS - 1; n >= ATANH_PRECISE_TERMS; n--) high = high * z + 1 / (2 * n + 1);
  let low = 0;
  for (let n = ATANH_PRECISE_TERMS - 1; n >= 0; n--) {
    const product = twoProduct(high, z);
    const productLow = remainder + high * zLow + low * z;
    high = twoSum(1 / (2 * n + 1), product);
    low = remainder + productLow + atanhLow[n];
  }
  const product = twoProduct(high, 2 * s);
  const productLow = remainder + high * 2 * sLow + low * 2 * s;
  const sum = twoSum(k * LN2_HIGH, product);
  const sumLow = remainder + productLow + k * LN2_LOW;
  const result = sum + sumLow;
  logLow = sum - result + sumLow;
  return result;
};

const isOdd = (y: number): boolean => y % 2 !== 0;

/** x^y = e^(y·log x) with the logarithm and the product carried in two doubles. Special cases as `Math.pow`. */
export const pow = (x: number, y: number): number => {
  if (y === 0) return 1;
  if (x !== x || y !== y) return NaN;
  if (y === 1) return x;
  if (y === 2) return x * x;
  if (y === 3 && x * x * x < 9007199254740992 && x === Math.floor(x)) return x * x * x;
  if (y === Infinity || y === -Infinity) {
    const size = x < 0 ? -x : x;
    return size === 1 ? NaN : size > 1 === y > 0 ? Infinity : 0;
  }
  const whole = Math.floor(y) === y;
  const negative = whole && isOdd(y) && (x < 0 || Object.is(x, -0));
  if (x === 0) return y < 0 ? (negative ? -Infinity : Infinity) : negative ? -0 : 0;
  if (x < 0 && x !== -Infinity && !whole) return NaN;
  const base = x < 0 ? -x : x;
  if (base === Infinity) return y < 0 ? (negative ? -0 : 0) : negative ? -Infinity : Infinity;
  if (y === 0.5) return Math.sqrt(base);
  const size = powerOf(base, y);
  return negative ? -size : size;
};

const powerOf = (base: number, y: number): number => {
  if (base === 1) return 1;
  const high = preciseLog(base);
  const estimate = high * y;
  // far beyond the range of exp: the exact product is not needed, and could overflow
  if (!(estimate < 800 && estimate > -800)) return estimate > 0 ? Infinity : 0;
  // split y where its halves would overflow in twoProduct; |y| is large only where |log x| is tiny
  const exponent = y > 1e290 || y < -1e290 ? y * 7.888609052210118e-31 : y;
  const factor = exponent === y ? high : high * 1.2676506002282294e30;
  const low = exponent === y ? logLow : logLow * 1.2676506002282294e30;
  const product = twoProduct(factor, exponent);
  return expOfSum(product, remainder + low * exponent);
};
