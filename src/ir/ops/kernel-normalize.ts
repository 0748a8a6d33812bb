/**
 * Rows divided by a sum or a deviation, with a reciprocal found at run time by a table and Newton steps (`numerics/reciprocal.ts`,
 * `numerics/rsqrt.ts`): softmax, attention, layer norm. No division, no root.
 */
import {
  clamp, dyadicWords, highOf, lowOf, mulShift, mulShiftRound, wordsOf,
} from '../../numerics/dyadic.ts';
import { reciprocal } from '../../numerics/reciprocal.ts';
import { rsqrt } from '../../numerics/rsqrt.ts';
import { sizeOf, type StaticShape } from '../dim.ts';
import { storageBytes } from '../dtype.ts';
import { defineOp, int, int64, misuse } from '../op.ts';
import {
  channelsOf, clampedType, codesOf, codeTensor, expectDType, expectPerChannel, expectShift, fixedShape, isActivation, packed, shapeOf, to,
} from './kernel-checks.ts';

/** Entries of the exponential table of `attention_int`: E[z] = round(32767·e^(−z/256)); the last entry is 0. */
export const EXP_LENGTH = 2816;

const rowRescale = {
  newtonSteps: int('Newton steps of the reciprocal: 0, 1 or 2', 1),
  mulOut: int('M of the row: (y·mulOut) >> 31, y the reciprocal in Q31'),
  shiftOut: int('shift of the row: shiftOut + 31 − lz, between 32 and 62'),
  zero: int('zero point of the output, added after the shift', 0), low: int('least code'), high: int('greatest code'), to,
};
const expectRowRescale = ({ newtonSteps, mulOut, shiftOut }: Readonly<Record<'newtonSteps' | 'mulOut' | 'shiftOut', number>>): void => {
  if (newtonSteps < 0 || newtonSteps > 2) misuse(`"newtonSteps" must be 0, 1 or 2, not ${newtonSteps}`);
  if (mulOut < 0 || mulOut >= 2 ** 31) misuse(`"mulOut" must lie in 0…2^31−1, not ${mulOut}`);
  if (shiftOut < 1 || shiftOut > 62) misuse(`"shiftOut" must lie in 1…62, not ${shiftOut}`);
};
const expectTable = (slot: string, type: Parameters<typeof fixedShape>[1], dtype: string, length: number): void => {
  expectDType(slot, type, (own) => own === dtype, dtype);
  if (fixedShape(slot, type, 1)[0] !== length) misuse(`operand "${slot}" must have ${length} entries`);
};

/**
 * Along the last axis: d = max x − x, e = fine[d], or (coarse[d >> 8]·fine[d & 255] + 2^29) >> 30, then e >>= eShift; S = Σe < 2^32;
 * (y, lz) = reciprocal(S), M = (y·mulOut) >> 31, s = shiftOut + 31 − lz; p = clamp(((e·M + 2^(s−1)) >> s) + zero, low, high).
 */
export const softmax = defineOp({
  name: 'softmax',
  summary: 'softmax of codes along the last axis, materialised',
  reads: 'codes',
  operands: { x: 'one', fine: 'one', coarse: 'optional' },
  attrs: {
    eShift: int('bits dropped from each exponential, so that a row sums below 2^32', 0),
    ...rowRescale, newtonSteps: int('Newton steps of the reciprocal: 0, 1 or 2', 2),
  },
  infer: ({ x, fine, coarse }, { eShift, low, high, to, ...rescale }) => {
    expectDType('x', x, isActivation, 'codes of at most 16 bits');
    expectTable('fine', fine, 'i32', 256);
    if (coarse !== null) expectTable('coarse', coarse, 'i32', 256);
    if (coarse === null && storageBytes(x.dtype) > 1) misuse('codes of 16 bits need the table "coarse"');
    if (eShift < 0 || eShift > 30) misuse(`"eShift" must lie in 0…30, not ${eShift}`);
    expectRowRescale(rescale);
    const shape = fixedShape('x', x);
    if (shape.length === 0) misuse('x has no axis');
    return codeTensor(clampedType(low, high, to), shape);
  },
  evaluate: ({ x, fine, coarse }, { eShift, newtonSteps, mulOut, shiftOut, zero, low, high }, type) => {
    const codes = codesOf(x);
    const length = channelsOf(shapeOf(x));
    const [fines, coarses] = [codesOf(fine), coarse && codesOf(coarse)];
    const out = new Int32Array(codes.length);
    const e = new Float64Array(length);
    for (let at = 0; at < out.length; at += length) {
      const row = codes.subarray(at, at + length);
      const top = row.reduce((a, b) => Math.max(a, b));
      let sum = 0;
      for (let j = 0; j < length; j++) {
        const d = top - row[j];
        e[j] = (coarses === null ? fines[d] : mulShiftRound(coarses[d >> 8], fines[d & 255], 30)) >> eShift;
        sum += e[j];
      }
      const { y, lz } = reciprocal(sum, newtonSteps);
      const mul = mulShift(y, mulOut, 31);
      const shift = shiftOut + 31 - lz;
      for (let j = 0; j < length; j++) out[at + j] = clamp(mulShiftRound(e[j], mul, shift) + zero, low, high);
    }
    return packed(type, out);
  },
});

/**
 * For each sample b, head h and query t, over the keys j that the mask allows (all without a mask):
 * acc_j = Σ_d q[b,t,h,d]·k[b,j,h,d], m = max acc_j, z_j = min(((m − acc_j)·mulLogit + addLogit) >> shiftLogit, 2815),
 * e_j = exp[z_j] >> eShift, S = Σ e_j, O_d = Σ_j e_j·v[b,j,h,d], (y, lz) = reciprocal(S), M = (y·mulOut) >> 31,
 * s = shiftOut + 31 − lz, out = clamp(((O_d·M + 2^(s−1)) >> s) + zero, low, high). acc, S and O fit 32 bits; zero points of q, k, v are 0.
 */
export const attentionInt = defineOp({
  name: 'attention_int',
  summary: 'attention with the softmax division deferred to one reciprocal a row',
  reads: 'codes',
  operands: { q: 'one', k: 'one', v: 'one', mask: 'optional', exp: 'one' },
  attrs: {
    heads: int('number of heads; channels are [heads, depth]'),
    mulLogit: int('factor from logit accumulators to 1/256 of the exponent, 0 ≤ mulLogit < 2^31'),
    addLogit: int64('rounding half of the exponent, 0 ≤ addLogit < 2^shiftLogit'), shiftLogit: int('bits dropped, 1 to 62'),
    eShift: int('bits dropped from each exponential, so that a row of O fits 32 bits', 0), ...rowRescale,
  },
  infer: ({ q, k, v, mask, exp }, { heads, mulLogit, addLogit, shiftLogit, eShift, low, high, to, ...rescale }) => {
    for (const [slot, operand] of [['q', q], ['k', k], ['v', v]] as const) expectDType(slot, operand, isActivation, 'codes of at most 16 bits');
    expectTable('exp', exp, 'i16', EXP_LENGTH);
    expectShift('shiftLogit', shiftLogit, 1);
    expectRowRescale(rescale);
    if (mulLogit < 0 || mulLogit >= 2 ** 31) misuse(`"mulLogit" must lie in 0…2^31−1, not ${mulLogit}`);
    if (addLogit < 0n || addLogit >= 1n << BigInt(shiftLogit)) misuse(`"addLogit" must lie in 0…2^${shiftLogit}−1, not ${addLogit}`);
    if (eShift < 0 || eShift > 14) misuse(`"eShift" must lie in 0…14, not ${eShift}`);
    const [batch, rows, width] = fixedShape('q', q, 3);
    const [batchK, keys, widthK] = fixedShape('k', k, 3);
    const [batchV, keysV, widthV] = fixedShape('v', v, 3);
    if (batchK !== batch || batchV !== batch || keysV !== keys || widthK !== width) {
      misuse(`[${q.shape.join(', ')}], [${k.shape.join(', ')}], [${v.shape.join(', ')}] do not fit together`);
    }
    if (heads < 1 || width % heads !== 0 || widthV % heads !== 0) misuse(`${width} and ${widthV} channels do not split into ${heads} heads`);
    if (mask !== null) {
      const [maskRows, maskKeys] = fixedShape('mask', mask, 2);
      if (mask.dtype !== 'bool' || maskRows !== rows || maskKeys !== keys) misuse(`"mask" must be bool[${rows}, ${keys}]`);
    }
    return codeTensor(clampedType(low, high, to), [batch, rows, widthV]);
  },
  evaluate: ({ q, k, v, mask, exp }, attrs, type) => {
    const { heads, mulLogit, shiftLogit, eShift, newtonSteps, mulOut, shiftOut, zero, low, high } = attrs;
    const [addHi, addLo] = [highOf(attrs.addLogit), lowOf(attrs.addLogit)];
    const [batch, rows, width] = shapeOf(q);
    const [, keys, widthV] = shapeOf(v);
    const [depth, depthV] = [width / heads, widthV / heads];
    const [queries, keyCodes, values, table, allowed] = [codesOf(q), codesOf(k), codesOf(v), codesOf(exp), mask && codesOf(mask)];
    const out = new Int32Array(sizeOf(type.shape));
    const acc = new Int32Array(keys);
    const sums = new Int32Array(depthV);
    for (let b = 0; b < batch; b++) for (let h = 0; h < heads; h++) for (let t = 0; t < rows; t++) {
      const query = (b * rows + t) * width + h * depth;
      let top = -Infinity;
      for (let j = 0; j < keys; j++) {
        if (allowed !== null && allowed[t * keys + j] === 0) continue;
        const key = (b * keys + j) * width + h * depth;
        let dot = 0;
        for (let d = 0; d < depth; d++) dot = (dot + Math.imul(queries[query + d], keyCodes[key + d])) | 0;
        acc[j] = dot;
        if (dot > top) top = dot;
      }
      let sum = 0;
      sums.fill(0);
      for (let j = 0; j < keys; j++) {
        if (allowed !== null && allowed[t * keys + j] === 0) continue;
        const z = Math.min(dyadicWords(top - acc[j], mulLogit, addHi, addLo, shiftLogit), EXP_LENGTH - 1);
        const e = table[z] >> eShift;
        sum += e;
        const value = (b * keys + j) * widthV + h * depthV;
        for (let d = 0; d < depthV; d++) sums[d] = (sums[d] + Math.imul(e, values[value + d])) | 0;
      }
      const { y, lz } = reciprocal(sum, newtonSteps);
      const mul = mulShift(y, mulOut, 31);
      const shift = shiftOut + 31 - lz;
      const at = (b * rows + t) * widthV + h * depthV;
      for (let d = 0; d < depthV; d++) out[at + d] = clamp(mulShiftRound(sums[d], mul, shift) + zero, low, high);
    }
    return packed(type, out);
  },
});

/**
 * Along the last axis of C codes: s1 = Σx, s2 = Σx², D = C·s2 − s1² + epsilon, (y, k) = rsqrt(D),
 * n = ((C·x − s1)·y + 2^(r−1)) >> r with r = 30 + k − fraction, out = clamp((n·mul[c] + add[c]) >> shift, low, high).
 * n is the normalised value with `fraction` binary digits, |n| ≤ √C·2^fraction; mul may be negative, |mul| < 2^31.
 */
export const layerNormInt = defineOp({
  name: 'layer_norm_int',
  summary: 'rows brought to mean 0 and deviation 1, scaled and shifted per channel',
  reads: 'codes',
  operands: { x: 'one', mul: 'one', add: 'one' },
  attrs: {
    epsilon: int64('C²·ε/scale², at least 1'), newtonSteps: int('Newton steps of the reciprocal root: 0, 1 or 2', 1),
    fraction: int('binary digits of the normalised value, 0 to 26', 14), shift: int('bits dropped, 32 to 62'),
    low: int('least code'), high: int('greatest code'), to,
  },
  infer: ({ x, mul, add }, { epsilon, newtonSteps, fraction, shift, low, high, to }) => {
    expectDType('x', x, isActivation, 'codes of at most 16 bits');
    expectShift('shift', shift, 32);
    if (epsilon < 1n) misuse(`"epsilon" must be at least 1, not ${epsilon}`);
    if (newtonSteps < 0 || newtonSteps > 2) misuse(`"newtonSteps" must be 0, 1 or 2, not ${newtonSteps}`);
    if (fraction < 0 || fraction > 26) misuse(`"fraction" must lie in 0…26, not ${fraction}`);
    const shape = fixedShape('x', x);
    if (shape.length === 0) misuse('x has no axis');
    expectPerChannel('mul', mul, 'i32', channelsOf(shape));
    expectPerChannel('add', add, 'i64', channelsOf(shape));
    return codeTensor(clampedType(low, high, to), shape);
  },
  evaluate: ({ x, mul, add }, { epsilon, newtonSteps, fraction, shift, low, high }, type) => {
    const codes = codesOf(x);
    const channels = channelsOf(type.shape as StaticShape);
    const [muls, { hi, lo }] = [codesOf(mul), wordsOf(add.data as BigInt64Array)];
    const [mulStep, addStep] = [muls.length === 1 ? 0 : 1, lo.length === 1 ? 0 : 1];
    const out = new Int32Array(codes.length);
    for (let at = 0; at < out.length; at += channels) {
      let s1 = 0, s2 = 0;
      for (let c = 0; c < channels; c++) {
        s1 += codes[at + c];
        s2 += codes[at + c] * codes[at + c];
      }
      const { y, k } = rsqrt(BigInt(channels) * BigInt(s2) - BigInt(s1) ** 2n + epsilon, newtonSteps);
      const drop = 30 + k - fraction;
      for (let c = 0; c < channels; c++) {
        const n = mulShiftRound(channels * codes[at + c] - s1, y, drop);
        out[at + c] = clamp(dyadicWords(n, muls[c * mulStep], hi[c * addStep], lo[c * addStep], shift), low, high);
      }
    }
    return packed(type, out);
  },
});
