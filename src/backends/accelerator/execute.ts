/** What each instruction does to the memories, bit for bit. Nothing outside a memory, and nothing unwritten, is ever read. */
import { CompileError } from '../../ir/diagnostic.ts';
import { errors } from '../../ir/errors.ts';
import { clamp, dyadicWords, dyadicWords2, highOf, lowOf, mulShift, mulShiftRound } from '../../numerics/dyadic.ts';
import { reciprocal } from '../../numerics/reciprocal.ts';
import { rsqrt } from '../../numerics/rsqrt.ts';
import { accessesOf, EXP_ENTRIES, KNOT_ENTRIES, RECORD_BYTES, windowSpan, type Memory, type Window } from './accesses.ts';
import { bytesFor, chipMemories, elementBits, type Element, type FieldsOf, type Instruction, type OpName } from './isa.ts';
import type { Machine } from './machine.ts';

const trap = (kind: string, why: string): never => { throw new CompileError(errors.machineTrap(kind, why, null)); };

/** Elements of whole bytes. */
type Plain = Exclude<Element, 'i4' | 'u4'>;
const arrays = { i8: Int8Array, u8: Uint8Array, i16: Int16Array, u16: Uint16Array, i32: Int32Array, u32: Uint32Array } as const;
type Codes = InstanceType<(typeof arrays)[Plain]>;
const isPlain = (element: Element): element is Plain => element !== 'i4' && element !== 'u4';

const bytesOf = (name: Memory, size: number): Uint8Array<ArrayBuffer> => {
  try {
    return new Uint8Array(size);
  } catch {
    return trap('no room', `this computer has no ${size} bytes for ${name}`);
  }
};

/** Bytes, and for each byte whether it was written. */
class Store {
  readonly bytes: Uint8Array<ArrayBuffer>;
  private readonly written: Uint8Array;
  readonly name: Memory;
  constructor(name: Memory, size: number) {
    this.name = name;
    [this.bytes, this.written] = [bytesOf(name, size), bytesOf(name, size)];
  }
  check(from: number, to: number): void {
    if (from < 0 || to > this.bytes.length) trap('out of bounds', `bytes ${from} to ${to - 1} of ${this.name}, which has ${this.bytes.length}`);
  }
  checkWritten(from: number, to: number): void {
    const hole = this.written.subarray(from, to).indexOf(0);
    if (hole >= 0) trap('uninitialised read', `byte ${from + hole} of ${this.name} was never written`);
  }
  view(element: Plain, from: number, count: number): Codes {
    if (from % (elementBits(element) / 8) !== 0) trap('misaligned', `${element} at byte ${from} of ${this.name}`);
    return new arrays[element](this.bytes.buffer, from, count);
  }
  /** Elements as 32-bit integers, copied. */
  codes(element: Element, from: number, count: number): Int32Array {
    if (isPlain(element)) return new Int32Array(this.view(element, from, count));
    const out = new Int32Array(count);
    const drop = element === 'i4' ? 28 : 0;
    for (let i = 0; i < count; i++) {
      const code = (this.bytes[from + (i >> 1)] >> ((i & 1) << 2)) & 15;
      out[i] = (code << drop) >> drop;
    }
    return out;
  }
  put(element: Element, from: number, codes: Int32Array): void {
    if (isPlain(element)) this.view(element, from, codes.length).set(codes);
    else for (let i = 0; i < codes.length; i += 2) this.bytes[from + (i >> 1)] = (codes[i] & 15) | (i + 1 < codes.length ? (codes[i + 1] & 15) << 4 : 0);
    this.written.fill(1, from, from + bytesFor(element, codes.length));
  }
  /** `codes` of n elements in rows of `channels`. */
  rows(element: Element, from: number, n: number, channels: number, pitch: number): Int32Array {
    if (pitch === 0 || n === 0) return this.codes(element, from, n);
    const out = new Int32Array(n);
    for (let at = 0, row = from; at < n; at += channels, row += pitch) out.set(this.codes(element, row, channels), at);
    return out;
  }
  putRows(element: Element, from: number, codes: Int32Array, channels: number, pitch: number): void {
    if (pitch === 0) return this.put(element, from, codes);
    for (let at = 0, row = from; at < codes.length; at += channels, row += pitch) this.put(element, row, codes.subarray(at, at + channels));
  }
  putBytes(from: number, bytes: Uint8Array): void {
    this.bytes.set(bytes, from);
    this.written.fill(1, from, from + bytes.length);
  }
}

/** Steps of one instruction beyond which a program is taken for broken: seconds of simulation. */
const MOST_STEPS = 2 ** 32;
const expectWork = (steps: number): void => { if (steps > MOST_STEPS) trap('endless instruction', `it takes ${steps} steps`); };
/** Elements that an instruction may spread out, by windows that overlap or strides of 0; a memory of 2^24 bytes has fewer. */
const MOST_ELEMENTS = 2 ** 27;
const expectRoom = (elements: number): void => { if (elements > MOST_ELEMENTS) trap('endless instruction', `it works on ${elements} elements at once`); };
/** What a run of bytes costs beside its bytes. */
const RUN_STEPS = 256;

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

const eachRun = (f: Omit<FieldsOf<'LD'>, 'memory'>, run: (far: number, chip: number) => void): void => {
  if (f.run === 0) return;
  expectWork(f.n0 * f.n1 * f.n2 * Math.max(RUN_STEPS, f.run));
  for (let i = 0; i < f.n0; i++) for (let j = 0; j < f.n1; j++) for (let k = 0; k < f.n2; k++) run(f.far + i * f.f0 + j * f.f1 + k * f.f2, f.chip + i * f.c0 + j * f.c1 + k * f.c2);
};

type Source = Pick<FieldsOf<'CLIP'>, 'xMemory' | 'x' | 'xElement'>;
type Target = Pick<FieldsOf<'CLIP'>, 'zMemory' | 'z' | 'zElement'>;
const take = (memories: Memories, { xMemory, x, xElement }: Source, n: number): Int32Array => memories.of(xMemory).codes(xElement, x, n);
const give = (memories: Memories, { zMemory, z, zElement }: Target, codes: Int32Array): void => memories.of(zMemory).put(zElement, z, codes);
type RowSource = Source & { readonly xPitch: number; readonly n: number; readonly channels: number };
const takeRows = (memories: Memories, { xMemory, x, xElement, n, channels, xPitch }: RowSource): Int32Array => memories.of(xMemory).rows(xElement, x, n, channels, xPitch);
const giveRows = (memories: Memories, { zMemory, z, zElement, channels, zPitch }: Target & { readonly channels: number; readonly zPitch: number }, codes: Int32Array): void =>
  memories.of(zMemory).putRows(zElement, z, codes, channels, zPitch);
/** Rows of channels are whole. */
const expectRows = ({ n, channels }: { readonly n: number; readonly channels: number }, pitches: readonly number[]): void => {
  if (channels === 0) trap('bad field', 'there are no channels');
  if (n % channels !== 0 && pitches.some((pitch) => pitch > 0)) trap('bad field', `${n} elements are no whole rows of ${channels}`);
};

/** The first `count` of packed weights. */
const unpack = (bytes: Uint8Array, base: number, bits: FieldsOf<'MM'>['wBits'], signed: boolean, count: number): Int32Array => {
  const out = new Int32Array(count);
  if (bits === 'ternary') {
    for (let at = 0, byte = base; at < count; byte++) for (let digit = 0, rest = bytes[byte]; digit < 5 && at < count; digit++, at++, rest = Math.floor(rest / 3)) out[at] = (rest % 3) - 1;
    return out;
  }
  const width = Number(bits);
  const drop = 32 - width;
  const perByte = 8 / width;
  for (let at = 0; at < count; at++) {
    const code = width === 16 ? bytes[base + 2 * at] | (bytes[base + 2 * at + 1] << 8) : width === 8 ? bytes[base + at] : bytes[base + Math.floor(at / perByte)] >> ((at % perByte) * width);
    out[at] = signed ? (code << drop) >> drop : (code << drop) >>> drop;
  }
  return out;
};

/** The elements of the part of an image that windows read: at [y − top][x − left][k], `depth` of them at each position. */
interface Patch {
  readonly codes: Int32Array;
  readonly width: number;
  readonly top: number;
  readonly left: number;
}
const patchOf = (store: Store, element: Element, w: Window, base: number, depth: number): Patch => {
  const top = Math.max(0, w.firstRow);
  const left = Math.max(0, w.firstColumn);
  const bottom = Math.min(w.imageRows, w.firstRow + (w.rows - 1) * w.rowStride + (w.tapRows - 1) * w.rowDilation + 1);
  const right = Math.min(w.imageColumns, w.firstColumn + (w.columns - 1) * w.columnStride + (w.tapColumns - 1) * w.columnDilation + 1);
  if (windowSpan(w, base, 1) === null) return { codes: new Int32Array(0), width: 0, top, left };
  const width = right - left;
  expectRoom((bottom - top) * width * depth);
  const codes = new Int32Array((bottom - top) * width * depth);
  const dense = isPlain(element) && w.columnPitch === bytesFor(element, depth);
  for (let y = top, at = 0; y < bottom; y++) {
    const row = base + y * w.rowPitch;
    if (dense) {
      codes.set(store.codes(element, row + left * w.columnPitch, width * depth), at);
      at += width * depth;
    } else for (let x = left; x < right; x++, at += depth) codes.set(store.codes(element, row + x * w.columnPitch, depth), at);
  }
  return { codes, width, top, left };
};

/** Steps along one axis: for each output and tap the coordinate in the patch, −1 outside the image. */
const coordinates = (count: number, taps: number, first: number, stride: number, dilation: number, size: number, origin: number): Int32Array => {
  expectRoom(count * taps);
  return Int32Array.from({ length: count * taps }, (_, i) => {
    const at = first + Math.floor(i / taps) * stride + (i % taps) * dilation;
    return at < 0 || at >= size ? -1 : at - origin;
  });
};

const product = (memories: Memories, f: FieldsOf<'MM'>): void => {
  const channelwise = f.depthwise === 1;
  const [taps, depth, pixels] = [f.tapRows * f.tapColumns, channelwise ? f.outputs : f.depth, f.rows * f.columns];
  const sumLength = taps * (channelwise ? 1 : depth);
  expectWork(pixels * f.outputs * sumLength);
  if (pixels * f.outputs * sumLength === 0) return;
  const { codes: a, width, top, left } = patchOf(memories.of('ABUF'), f.aElement, f, f.a, depth);
  expectRoom(Math.max(f.outputs * sumLength, taps * depth));
  if (f.aZero !== 0) for (let i = 0; i < a.length; i++) a[i] -= f.aZero;
  const ys = coordinates(f.rows, f.tapRows, f.firstRow, f.rowStride, f.rowDilation, f.imageRows, top);
  const xs = coordinates(f.columns, f.tapColumns, f.firstColumn, f.columnStride, f.columnDilation, f.imageColumns, left);
  const packed = unpack(memories.of('WBUF').bytes, f.w, f.wBits, f.wSigned === 1, (f.outputs - 1) * f.wChannel + (sumLength - 1) * f.wTap + 1);
  const w = new Int32Array(f.outputs * sumLength);
  for (let n = 0, i = 0; n < f.outputs; n++) for (let t = 0; t < sumLength; t++, i++) w[i] = packed[n * f.wChannel + t * f.wTap] - f.wZero;
  const border = f.border - f.aZero;
  const obuf = memories.of('OBUF');
  const sums = new Int32Array(f.outputs);
  const patch = new Int32Array(taps * depth);
  for (let p = 0; p < pixels; p++) {
    const [i, j] = [Math.floor(p / f.columns), p % f.columns];
    for (let r = 0, to = 0; r < f.tapRows; r++) {
      const y = ys[i * f.tapRows + r];
      for (let q = 0; q < f.tapColumns; q++) {
        const x = xs[j * f.tapColumns + q];
        const end = to + depth;
        if (y < 0 || x < 0) while (to < end) patch[to++] = border;
        else for (let from = (y * width + x) * depth; to < end;) patch[to++] = a[from++];
      }
    }
    const o = f.o + 4 * p * f.pitch;
    if (f.accumulate === 1) sums.set(obuf.codes('i32', o, f.outputs)); else sums.fill(0);
    if (channelwise) {
      for (let t = 0, at = 0; t < taps; t++) for (let n = 0; n < depth; n++, at++) sums[n] += Math.imul(patch[at], w[n * taps + t]);
    } else {
      for (let n = 0, at = 0; n < f.outputs; n++) {
        let sum = 0;
        for (let k = 0; k < sumLength; k++, at++) sum = (sum + Math.imul(patch[k], w[at])) | 0;
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
  MMV: product,
  MV: (memories, f) => {
    const [source, sink] = [memories.of(f.fromMemory), memories.of(f.toMemory)];
    eachRun({ ...f, far: f.from, chip: f.to, f0: f.s0, f1: f.s1, f2: f.s2, c0: f.d0, c1: f.d1, c2: f.d2 }, (from, to) => sink.putBytes(to, source.bytes.slice(from, from + f.run)));
  },
  RQ: (memories, f) => {
    expectShift(f.shift, 32);
    expectRows(f, [f.xPitch, f.zPitch]);
    const x = takeRows(memories, f);
    const count = f.perChannel === 1 ? f.channels : 1;
    const { first, lo, hi } = recordsAt(memories, f.par, count);
    for (let i = 0, c = 0; i < x.length; i++, c = c + 1 === count ? 0 : c + 1) x[i] = clamp(dyadicWords(x[i] << f.preShift, first[c], hi[c], lo[c], f.shift), f.low, f.high);
    giveRows(memories, f, x);
  },
  ADD2: (memories, f) => {
    expectShift(f.shift, 1);
    expectRows(f, [f.xPitch, f.yPitch, f.zPitch]);
    const x = takeRows(memories, f);
    const y = memories.of(f.yMemory).rows(f.yElement, f.y, f.n, f.channels, f.yPitch);
    const count = f.perChannel === 1 ? f.channels : 1;
    const { first, second, lo, hi } = recordsAt(memories, f.par, count);
    for (let i = 0, c = 0; i < x.length; i++, c = c + 1 === count ? 0 : c + 1) x[i] = clamp(dyadicWords2(x[i], first[c], y[i], second[c], hi[c], lo[c], f.shift), f.low, f.high);
    giveRows(memories, f, x);
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
    if (elementBits(f.xElement) > 8 || elementBits(f.zElement) > 16) trap('bad field', `tables of ${f.xElement} to ${f.zElement} do not exist`);
    if (f.rows === 0) trap('bad field', 'there are no tables');
    expectRows(f, [f.xPitch, f.zPitch]);
    const entries = memories.of('PBUF').codes(isPlain(f.zElement) ? f.zElement : f.zElement === 'i4' ? 'i8' : 'u8', f.lut, f.rows * 256);
    const base = f.xElement === 'i8' || f.xElement === 'i4' ? 128 : 0;
    const x = takeRows(memories, f);
    for (let i = 0; i < x.length; i++) x[i] = entries[((i % f.channels) % f.rows) * 256 + x[i] + base];
    giveRows(memories, f, x);
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
    if (f.rows * f.columns * f.tapRows * f.tapColumns * f.depth === 0) return;
    const { codes: x, width, top, left } = patchOf(memories.of(f.xMemory), f.xElement, f, f.x, f.depth);
    const ys = coordinates(f.rows, f.tapRows, f.firstRow, f.rowStride, f.rowDilation, f.imageRows, top);
    const xs = coordinates(f.columns, f.tapColumns, f.firstColumn, f.columnStride, f.columnDilation, f.imageColumns, left);
    const max = f.kind === 'max';
    const z = new Int32Array(f.rows * f.columns * f.depth).fill(max ? -(2 ** 31) : 0);
    for (let i = 0, at = 0; i < f.rows; i++) for (let j = 0; j < f.columns; j++, at += f.depth) {
      for (let r = 0; r < f.tapRows; r++) for (let q = 0; q < f.tapColumns; q++) {
        const [y, column] = [ys[i * f.tapRows + r], xs[j * f.tapColumns + q]];
        const outside = y < 0 || column < 0;
        if (outside && max) continue;
        const from = (y * width + column) * f.depth;
        for (let c = 0; c < f.depth; c++) {
          const code = outside ? f.border : x[from + c];
          z[at + c] = max ? Math.max(z[at + c], code) : (z[at + c] + code) | 0;
        }
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
