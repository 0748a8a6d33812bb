/** What each instruction does to the memories, bit for bit. Nothing outside a memory, and nothing unwritten, is ever read. */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import { clamp, dyadicWords, dyadicWords2, highOf, lowOf, mulShift, mulShiftRound } from '../../numerics/dyadic.ts';
import { reciprocal } from '../../numerics/reciprocal.ts';
import { rsqrt } from '../../numerics/rsqrt.ts';
import { accessesOf, EXP_ENTRIES, KNOT_ENTRIES, RECORD_BYTES, type Memory } from './accesses.ts';
import { chipMemories, elementBytes, type Element, type FieldsOf, type Instruction, type OpName } from './isa.ts';
import type { Machine } from './machine.ts';

const trap = (kind: string, why: string): never => { throw new CompileError(errors.machineTrap(kind, why, null)); };

const arrays = { i8: Int8Array, u8: Uint8Array, i16: Int16Array, u16: Uint16Array, i32: Int32Array, u32: Uint32Array } as const;
type Codes = InstanceType<(typeof arrays)[Element]>;

/** Bytes, and for each byte whether it was written. */
class Store {
  readonly bytes: Uint8Array<ArrayBuffer>;
  private readonly written: Uint8Array;
  readonly name: Memory;
  constructor(name: Memory, size: number) {
    this.name = name;
    this.bytes = new Uint8Array(size);
    this.written = new Uint8Array(size);
  }
  check(from: number, to: number): void {
    if (from < 0 || to > this.bytes.length) trap('out of bounds', `bytes ${from} to ${to - 1} of ${this.name}, which has ${this.bytes.length}`);
  }
  checkWritten(from: number, to: number): void {
    const hole = this.written.subarray(from, to).indexOf(0);
    if (hole >= 0) trap('uninitialised read', `byte ${from + hole} of ${this.name} was never written`);
  }
  view(element: Element, from: number, count: number): Codes {
    if (from % elementBytes(element) !== 0) trap('misaligned', `${element} at byte ${from} of ${this.name}`);
    return new arrays[element](this.bytes.buffer, from, count);
  }
  /** Elements as 32-bit integers, copied. */
  codes(element: Element, from: number, count: number): Int32Array {
    return new Int32Array(this.view(element, from, count));
  }
  put(element: Element, from: number, codes: Int32Array): void {
    this.view(element, from, codes.length).set(codes);
    this.written.fill(1, from, from + codes.length * elementBytes(element));
  }
  putBytes(from: number, bytes: Uint8Array): void {
    this.bytes.set(bytes, from);
    this.written.fill(1, from, from + bytes.length);
  }
}

/** Steps of one instruction beyond which a program is taken for broken. */
const MOST_STEPS = 2 ** 32;
const expectWork = (steps: number): void => { if (steps > MOST_STEPS) trap('endless instruction', `it takes ${steps} steps`); };

export class Memories {
  readonly stores: ReadonlyMap<Memory, Store>;
  constructor({ memories }: Machine, outsideBytes: number) {
    this.stores = new Map<Memory, Store>([...chipMemories.map((name): [Memory, Store] => [name, new Store(name, memories[name])]), ['outside', new Store('outside', outsideBytes)]]);
  }
  of(name: Memory): Store {
    return this.stores.get(name)!;
  }
  /** Does what the instruction says. */
  execute(one: Instruction): void {
    for (const { memory, from, to, write } of accessesOf(one)) {
      const store = this.of(memory);
      store.check(from, to);
      // outside, boxes may have gaps that nobody wrote; they check each run
      if (!write && memory !== 'outside') store.checkWritten(from, to);
    }
    (table[one.op] as (memories: Memories, fields: object) => void)(this, one.fields);
  }
}

interface Records { readonly first: Int32Array; readonly second: Int32Array; readonly lo: Uint32Array; readonly hi: Int32Array }
const recordsAt = (memories: Memories, par: number, count: number): Records => {
  const words = memories.of('PBUF').codes('i32', par, (count * RECORD_BYTES) / 4);
  const column = (at: number): Int32Array => Int32Array.from({ length: count }, (_, i) => words[4 * i + at]);
  return { first: column(0), second: column(1), lo: Uint32Array.from(column(2)), hi: column(3) };
};

const eachRun = (f: FieldsOf<'LD'>, run: (far: number, chip: number) => void): void => {
  if (f.run === 0) return;
  expectWork(f.n0 * f.n1 * f.n2 * f.run);
  for (let i = 0; i < f.n0; i++) for (let j = 0; j < f.n1; j++) for (let k = 0; k < f.n2; k++) run(f.far + i * f.f0 + j * f.f1 + k * f.f2, f.chip + i * f.c0 + j * f.c1 + k * f.c2);
};

type Source = Pick<FieldsOf<'RQ'>, 'xMemory' | 'x' | 'xElement'>;
type Target = Pick<FieldsOf<'RQ'>, 'zMemory' | 'z' | 'zElement'>;
const take = (memories: Memories, { xMemory, x, xElement }: Source, n: number): Int32Array => memories.of(xMemory).codes(xElement, x, n);
const give = (memories: Memories, { zMemory, z, zElement }: Target, codes: Int32Array): void => memories.of(zMemory).put(zElement, z, codes);

/** Element `index` of packed weights. */
const unpacker = (bytes: Uint8Array, base: number, bits: number, signed: boolean): ((index: number) => number) => {
  if (bits === 16) return (index) => { const code = bytes[base + 2 * index] | (bytes[base + 2 * index + 1] << 8); return signed ? (code << 16) >> 16 : code; };
  if (bits === 8) return signed ? (index) => (bytes[base + index] << 24) >> 24 : (index) => bytes[base + index];
  const perByte = 8 / bits;
  const drop = 32 - bits;
  return (index) => {
    const code = bytes[base + Math.floor(index / perByte)] >> ((index % perByte) * bits);
    return signed ? (code << drop) >> drop : (code << drop) >>> drop;
  };
};

const product = (memories: Memories, f: FieldsOf<'MM'>): void => {
  const [taps, depth, pixels] = [f.tapRows * f.tapColumns, f.depthwise === 1 ? 1 : f.depth, f.rows * f.columns];
  const sumLength = taps * depth;
  expectWork(pixels * f.outputs * sumLength);
  if (pixels * f.outputs * sumLength === 0) return;
  const size = elementBytes(f.aElement);
  const strides = [f.rowStride, f.columnStride, f.tapRowStride, f.tapColumnStride];
  if (strides.some((stride) => stride % size !== 0)) trap('misaligned', `strides of ${f.aElement} are ${strides.join(', ')} bytes`);
  const span = strides.map((stride) => stride / size);
  const reach = (f.rows - 1) * span[0] + (f.columns - 1) * span[1] + (f.tapRows - 1) * span[2] + (f.tapColumns - 1) * span[3] + (f.depthwise === 1 ? f.outputs : depth);
  const a = memories.of('ABUF').codes(f.aElement, f.a, reach);
  if (f.aZero !== 0) for (let i = 0; i < a.length; i++) a[i] -= f.aZero;
  const at = unpacker(memories.of('WBUF').bytes, f.w, Number(f.wBits), f.wSigned === 1);
  const w = new Int32Array(f.outputs * sumLength);
  for (let n = 0, i = 0; n < f.outputs; n++) for (let t = 0; t < sumLength; t++, i++) w[i] = at(n * f.wChannel + t * f.wTap) - f.wZero;
  const tapAt = Int32Array.from({ length: taps }, (_, t) => Math.floor(t / f.tapColumns) * span[2] + (t % f.tapColumns) * span[3]);
  const obuf = memories.of('OBUF');
  const sums = new Int32Array(f.outputs);
  const patch = new Int32Array(sumLength);
  for (let p = 0; p < pixels; p++) {
    const pixel = Math.floor(p / f.columns) * span[0] + (p % f.columns) * span[1];
    const o = f.o + 4 * p * f.pitch;
    if (f.accumulate === 1) sums.set(obuf.codes('i32', o, f.outputs)); else sums.fill(0);
    if (f.depthwise === 1) {
      for (let t = 0; t < taps; t++) for (let n = 0; n < f.outputs; n++) sums[n] += Math.imul(a[pixel + tapAt[t] + n], w[n * taps + t]);
    } else {
      for (let t = 0; t < taps; t++) for (let k = 0, from = pixel + tapAt[t]; k < depth; k++) patch[t * depth + k] = a[from + k];
      for (let n = 0, i = 0; n < f.outputs; n++) {
        let sum = 0;
        for (let k = 0; k < sumLength; k++, i++) sum = (sum + Math.imul(patch[k], w[i])) | 0;
        sums[n] += sum;
      }
    }
    obuf.put('i32', o, sums);
  }
};

/** The rescaling of a row by the reciprocal of its total. */
const rowRescale = (total: number, f: Pick<FieldsOf<'NRM'>, 'newton' | 'mulOut' | 'shiftOut' | 'zero' | 'low' | 'high'>): ((value: number) => number) => {
  if (total === 0) trap('division', 'the total of a row is 0');
  const { y, lz } = reciprocal(total, f.newton);
  const mul = mulShift(y, f.mulOut, 31);
  const shift = f.shiftOut + 31 - lz;
  if (shift < 1 || shift > 62) trap('bad shift', `a row would be shifted by ${shift} bits`);
  return (value) => clamp(mulShiftRound(value, mul, shift) + f.zero, f.low, f.high);
};
const expectShift = (shift: number, least: number): void => { if (shift < least || shift > 62) trap('bad shift', `${shift} does not lie in ${least} to 62`); };
const expectNewton = (steps: number): void => { if (steps > 2) trap('bad field', 'there are at most two Newton steps'); };
const expectChannels = (channels: number): void => { if (channels === 0) trap('bad field', 'there are no channels'); };

const table: { readonly [N in OpName]: (memories: Memories, fields: FieldsOf<N>) => void } = {
  END: () => undefined,
  LD: (memories, f) => {
    const [outside, chip] = [memories.of('outside'), memories.of(f.memory)];
    eachRun(f, (far, at) => {
      outside.checkWritten(far, far + f.run);
      chip.putBytes(at, outside.bytes.subarray(far, far + f.run));
    });
  },
  ST: (memories, f) => {
    const [outside, chip] = [memories.of('outside'), memories.of(f.memory)];
    eachRun(f, (far, at) => outside.putBytes(far, chip.bytes.subarray(at, at + f.run)));
  },
  FILL: (memories, f) => memories.of(f.memory).put(f.element, f.chip, new Int32Array(f.count).fill(f.value)),
  GATHER: (memories, f) => {
    if (f.rows === 0) trap('bad field', 'the table has no rows');
    const [outside, abuf] = [memories.of('outside'), memories.of('ABUF')];
    abuf.codes(f.indexElement, f.index, f.count).forEach((index, i) => {
      const far = f.far + clamp(index, 0, f.rows - 1) * f.pitch;
      outside.checkWritten(far, far + f.run);
      abuf.putBytes(f.chip + i * f.run, outside.bytes.subarray(far, far + f.run));
    });
  },
  MM: product,
  RQ: (memories, f) => {
    expectShift(f.shift, 32);
    expectChannels(f.channels);
    const x = take(memories, f, f.n);
    const count = f.perChannel === 1 ? f.channels : 1;
    const { first, lo, hi } = recordsAt(memories, f.par, count);
    give(memories, f, x.map((code, i) => clamp(dyadicWords(code << f.preShift, first[i % count], hi[i % count], lo[i % count], f.shift), f.low, f.high)));
  },
  ADD2: (memories, f) => {
    expectShift(f.shift, 1);
    expectChannels(f.channels);
    const x = take(memories, f, f.n);
    const y = memories.of(f.yMemory).codes(f.yElement, f.y, f.n);
    const count = f.perChannel === 1 ? f.channels : 1;
    const { first, second, lo, hi } = recordsAt(memories, f.par, count);
    give(memories, f, x.map((code, i) => clamp(dyadicWords2(code, first[i % count], y[i], second[i % count], hi[i % count], lo[i % count], f.shift), f.low, f.high)));
  },
  MUL2: (memories, f) => {
    expectShift(f.shift, 1);
    const x = take(memories, f, f.n);
    const y = memories.of(f.yMemory).codes(f.yElement, f.y, f.n);
    const [hi, lo] = [highOf(f.add), lowOf(f.add)];
    give(memories, f, x.map((code, i) => clamp(dyadicWords((code - f.zeroX) * (y[i] - f.zeroY), f.mul, hi, lo, f.shift), f.low, f.high)));
  },
  CLIP: (memories, f) => give(memories, f, take(memories, f, f.n).map((code) => clamp(code, f.low, f.high))),
  LUT: (memories, f) => {
    if (elementBytes(f.xElement) !== 1 || elementBytes(f.zElement) > 2) trap('bad field', `tables of ${f.xElement} to ${f.zElement} do not exist`);
    expectChannels(f.rows);
    const entries = memories.of('PBUF').codes(f.zElement, f.lut, f.rows * 256);
    const base = f.xElement === 'i8' ? 128 : 0;
    give(memories, f, take(memories, f, f.n).map((code, i) => entries[(i % f.rows) * 256 + code + base]));
  },
  LUTI: (memories, f) => {
    if (f.xElement !== 'i16') trap('bad field', 'knots are for i16');
    const knots = memories.of('PBUF').codes('i16', f.lut, KNOT_ENTRIES);
    give(memories, f, take(memories, f, f.n).map((code) => {
      const [i, o] = [(code + 32768) >> 7, (code + 32768) & 127];
      return knots[i] + (((knots[i + 1] - knots[i]) * o + 64) >> 7);
    }));
  },
  POOL: (memories, f) => {
    expectWork(f.rows * f.columns * f.tapRows * f.tapColumns * f.depth);
    const size = elementBytes(f.xElement);
    const [row, column, tapRow, tapColumn] = [f.rowStride, f.columnStride, f.tapRowStride, f.tapColumnStride].map((stride) => (stride % size === 0 ? stride / size : trap('misaligned', `a stride of ${stride} bytes`)));
    if (f.rows * f.columns * f.tapRows * f.tapColumns * f.depth === 0) return;
    const x = take(memories, f, (f.rows - 1) * row + (f.columns - 1) * column + (f.tapRows - 1) * tapRow + (f.tapColumns - 1) * tapColumn + f.depth);
    const join = f.kind === 'max' ? (a: number, b: number) => Math.max(a, b) : (a: number, b: number) => (a + b) | 0;
    const z = new Int32Array(f.rows * f.columns * f.depth).fill(f.kind === 'max' ? -(2 ** 31) : 0);
    for (let i = 0, at = 0; i < f.rows; i++) for (let j = 0; j < f.columns; j++, at += f.depth) {
      for (let r = 0; r < f.tapRows; r++) for (let q = 0; q < f.tapColumns; q++) {
        const from = i * row + j * column + r * tapRow + q * tapColumn;
        for (let c = 0; c < f.depth; c++) z[at + c] = join(z[at + c], x[from + c]);
      }
    }
    give(memories, f, z);
  },
  RED: (memories, f) => {
    expectWork(f.outer * f.reduce * f.inner);
    const x = take(memories, f, f.outer * f.reduce * f.inner);
    const join = f.kind === 'max' ? (a: number, b: number) => Math.max(a, b) : (a: number, b: number) => (a + b) | 0;
    const z = f.accumulate === 1 ? memories.of(f.zMemory).codes(f.zElement, f.z, f.outer * f.inner) : new Int32Array(f.outer * f.inner).fill(f.kind === 'max' ? -(2 ** 31) : 0);
    for (let o = 0, at = 0; o < f.outer; o++) for (let r = 0; r < f.reduce; r++) for (let i = 0; i < f.inner; i++, at++) z[o * f.inner + i] = join(z[o * f.inner + i], x[at]);
    give(memories, f, z);
  },
  SMAX: (memories, f) => {
    expectNewton(f.newton);
    const x = take(memories, f, f.count * f.length);
    const fine = memories.of('PBUF').codes('i32', f.fine, 256);
    const coarse = f.two === 1 ? memories.of('PBUF').codes('i32', f.coarse, 256) : null;
    const z = new Int32Array(x.length);
    for (let at = 0; at < z.length; at += f.length) {
      const row = x.subarray(at, at + f.length);
      const top = row.reduce((a, b) => Math.max(a, b));
      const e = Array.from(row, (code) => {
        const d = top - code;
        if (d > (coarse === null ? 255 : 65535)) trap('out of bounds', 'a difference lies beyond the table of exponentials');
        return (coarse === null ? fine[d] : mulShiftRound(coarse[d >> 8], fine[d & 255], 30)) >> f.eShift;
      });
      const rescaled = rowRescale(e.reduce((a, b) => a + b, 0), f);
      e.forEach((value, i) => { z[at + i] = rescaled(value); });
    }
    give(memories, f, z);
  },
  EXPS: (memories, f) => {
    expectShift(f.shiftLogit, 1);
    const x = memories.of(f.xMemory).codes('i32', f.x, f.count * f.length);
    const allowed = f.masked === 1 ? memories.of('PBUF').codes('u8', f.mask, x.length) : null;
    const exp = memories.of('PBUF').codes('i16', f.lut, EXP_ENTRIES);
    const [hi, lo] = [highOf(f.addLogit), lowOf(f.addLogit)];
    const z = new Int32Array(x.length);
    const totals = new Int32Array(f.count);
    for (let row = 0; row < f.count; row++) {
      const at = row * f.length;
      let top = -Infinity;
      for (let i = at; i < at + f.length; i++) if (allowed === null || allowed[i] !== 0) top = Math.max(top, x[i]);
      let total = 0;
      for (let i = at; i < at + f.length; i++) {
        if (allowed !== null && allowed[i] === 0) continue;
        const index = Math.min(dyadicWords(top - x[i], f.mulLogit, hi, lo, f.shiftLogit), EXP_ENTRIES - 1);
        z[i] = exp[Math.max(0, index)] >> f.eShift;
        total += z[i];
      }
      totals[row] = total;
    }
    memories.of(f.zMemory).put('i16', f.z, z);
    memories.of('OBUF').put('i32', f.sum, totals);
  },
  NRM: (memories, f) => {
    expectNewton(f.newton);
    const x = memories.of(f.xMemory).codes('i32', f.x, f.count * f.length);
    const totals = memories.of('OBUF').codes('i32', f.sum, f.count);
    const z = new Int32Array(x.length);
    for (let row = 0; row < f.count; row++) {
      const rescaled = rowRescale(totals[row] >>> 0, f);
      for (let i = row * f.length; i < (row + 1) * f.length; i++) z[i] = rescaled(x[i]);
    }
    give(memories, f, z);
  },
  LNRM: (memories, f) => {
    expectNewton(f.newton);
    expectShift(f.shift, 32);
    const x = take(memories, f, f.count * f.length);
    const count = f.perChannel === 1 ? f.length : 1;
    const { first, lo, hi } = recordsAt(memories, f.par, count);
    const z = new Int32Array(x.length);
    for (let at = 0; at < x.length; at += f.length) {
      let [s1, s2] = [0, 0];
      for (let c = 0; c < f.length; c++) {
        s1 += x[at + c];
        s2 += x[at + c] * x[at + c];
      }
      const spread = BigInt(f.length) * BigInt(s2) - BigInt(s1) ** 2n + f.epsilon;
      if (spread < 1n) trap('division', 'the variance of a row is 0');
      const { y, k } = rsqrt(spread, f.newton);
      const drop = 30 + k - f.fraction;
      if (drop < 1 || drop > 62) trap('bad shift', `a row would be shifted by ${drop} bits`);
      for (let c = 0; c < f.length; c++) {
        const n = mulShiftRound(f.length * x[at + c] - s1, y, drop);
        z[at + c] = clamp(dyadicWords(n, first[c % count], hi[c % count], lo[c % count], f.shift), f.low, f.high);
      }
    }
    give(memories, f, z);
  },
};
