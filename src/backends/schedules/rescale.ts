/**
 * The last part of a step: 32-bit sums to stored codes. One dyadic rescale, or the sum of two operands with one rounding, the clamp,
 * and a table of bytes; or nothing, where the sums themselves are the result.
 */
import type { Node, Value } from '../../ir/graph.ts';
import { rangeOf, type IntegerDType } from '../../ir/dtype.ts';
import { add, at, buffer, dyadic, dyadic2, load, lookup, moved, mul, parameter, set, shl, shr, variable } from '../../loops/build.ts';
import type { Address, Buffer, Contents, Elem, Expr, Index, Pairing, Stmt, Var } from '../../loops/types.ts';
import type { Step } from '../group.ts';
import { constant, elemOf, limits, operand, packed, type Binding } from './kernel.ts';
import type { Target } from './target.ts';
import { boundsOf, readAddends, readWords, toCodes, writeCodes, writeWords, type Bounds } from './words.ts';

/** What of a rescale decides the code; everything else is an argument. */
export interface RescaleClass {
  readonly kind: 'none' | 'one' | 'two';
  /** whether the accumulator is shifted left first */
  readonly preShifted: boolean;
  /** whether the shift is 32 or more */
  readonly wide: boolean;
  /** whether all products and sums fit 32 bits: of a `requantize_words`, and of a `requantize_add` whose terms are found to fit */
  readonly narrow: boolean;
  /** whether the accumulator loses bits first */
  readonly drops: boolean;
  /** element of the second operand */
  readonly y: Elem | null;
  /** element of the clamped codes */
  readonly code: Elem;
  /** whether the clamp is the range of that element */
  readonly natural: boolean;
  /** element of the table's entries */
  readonly table: Elem | null;
  /** element of the result */
  readonly out: Elem;
}

interface RequantizeAttrs {
  readonly shift: number;
  readonly preShift?: number;
  readonly drop?: number;
  readonly low: number;
  readonly high: number;
}

/** The rescale node of a step: of an accumulating root, or the root itself. */
export const rescaleNode = ({ root, rescale }: Step): Node | null =>
  rescale ?? (root.op === 'requantize' || root.op === 'requantize_words' || root.op === 'requantize_add' ? root : null);

export const rescaleClass = (step: Step): RescaleClass => {
  const out = elemOf(step.output.type.dtype);
  const node = rescaleNode(step);
  if (node === null) return { kind: 'none', preShifted: false, wide: true, narrow: false, drops: false, y: null, code: out, natural: true, table: null, out };
  const { shift, preShift = 0, drop = 0, low, high } = node.attrs as unknown as RequantizeAttrs;
  const sum = node.op === 'requantize_add';
  const code = elemOf(node.output.type.dtype);
  const [least, greatest] = limits(code);
  return {
    kind: sum ? 'two' : 'one', preShifted: preShift > 0, wide: shift >= 32, narrow: node.op === 'requantize_words' || (sum && shift < 32 && fitsWords(node)),
    drops: drop > 0, y: sum ? elemOf((node.inputs['y'] as Value).type.dtype) : null,
    code, natural: low === least && high === greatest, table: step.table === null ? null : out, out,
  };
};

/** |x|·|mulX| + |y|·|mulY| + |add| < 2^31 for all codes of x and y and all channels. */
const fitsWords = (node: Node): boolean => {
  const greatest = (slot: string): bigint => {
    const [low, high] = rangeOf((node.inputs[slot] as Value).type.dtype as IntegerDType);
    return BigInt(Math.max(-low, high));
  };
  const largest = (slot: string): bigint => {
    let most = 0n;
    for (const entry of constant(node.inputs[slot] as Value).data) {
      const size = BigInt(entry) < 0n ? -BigInt(entry) : BigInt(entry);
      if (size > most) most = size;
    }
    return most;
  };
  return greatest('x') * largest('mulX') + greatest('y') * largest('mulY') + largest('add') < 2n ** 31n;
};

/** The parameters of a rescale within a loop function. */
export interface Rescale {
  /** per channel: multiplier (two for a sum) and addend */
  readonly channels: readonly Buffer[];
  /** the second operand, or null */
  readonly y: Buffer | null;
  readonly table: Buffer | null;
  readonly values: readonly Var[];
  /** every buffer, in the order of `rescaleBindings` */
  readonly buffers: readonly Buffer[];
  /** statements at the start of the function, for runs of one length and vectors of half of it, or of `lanes` */
  prepare(run: number, lanes?: number): Prepared;
}
export interface Prepared {
  readonly setup: readonly Stmt[];
  /** Constants of a run of channels, read once for all rows of a tile; pinned, lest a compiler keep them in registers that the sums need. */
  channels(locate: (buffer: Buffer) => { readonly from: Address; readonly stride: number }): { readonly setup: readonly Stmt[]; readonly constants: Constants };
  /** Sums of a run to codes, stored at `to`; `y` is where the second operand of the run stands. */
  finish(sums: readonly Expr[], constants: Constants, to: Address, y: { readonly from: Address; readonly stride: number } | null): readonly Stmt[];
}
interface Constants {
  readonly factors: readonly (readonly Expr[])[];
  readonly addends: readonly (readonly Expr[])[];
}

/**
 * Declares the parameters. `channels` and `yLength` are how many elements of the constants and of the second operand one call touches;
 * `y` given = the buffer that holds the second operand (in place: the result's own).
 */
export const makeRescale = (shape: RescaleClass, { pairing }: Target, lengths: { readonly channels: number; readonly y: number }, sharedY: Buffer | null = null): Rescale => {
  const { kind, preShifted, wide, narrow, drops, code, natural } = shape;
  const channels = kind === 'none' ? []
    : [...(kind === 'one' ? ['mul'] : ['mulX', 'mulY']).map((factor) => buffer(factor, 'i32', lengths.channels, 'const')), buffer('add', narrow ? 'i32' : 'i64', lengths.channels, 'const')];
  const y = shape.y === null ? null : sharedY ?? buffer('y', shape.y, lengths.y, 'in');
  const table = shape.table === null ? null : buffer('table', shape.table, 256, 'const');
  const shift = parameter('shift', 'i32', wide ? 32 : 1, wide ? 62 : 31);
  const before = drops ? parameter('drop', 'i32', 0, 30) : preShifted ? parameter('preShift', 'i32', 0, 31) : null;
  const [low, high] = [parameter('low', 'i32', ...limits(code)), parameter('high', 'i32', ...limits(code))];
  const values = kind === 'none' ? [] : [shift, ...(before === null ? [] : [before]), low, high];

  const prepare = (run: number, lanes = run / 2): Prepared => {
    const bounds: Bounds = boundsOf(low, high, code, run, natural, lanes);
    return {
      setup: kind === 'none' ? [] : bounds.setup,
      channels(locate) {
        if (kind === 'none') return { setup: [], constants: { factors: [], addends: [] } };
        const setup: Stmt[] = [];
        const kept = (e: Expr): Expr => {
          const v = variable('k', e.type.e, e.type.n);
          setup.push(set(v, e, { pin: e.type.n > 1 && (narrow && kind === 'one' ? 'address' : true) }));
          return v;
        };
        const factors = channels.slice(0, -1).map((one) => {
          const { from, stride } = locate(one);
          const words = readWords(from, stride, run, lanes);
          setup.push(...words.setup);
          return words.parts.map((part) => (part.op === 'var' ? part : kept(part)));
        });
        const { from, stride } = locate(channels[channels.length - 1]);
        if (!narrow) return { setup, constants: { factors, addends: readAddends(from, stride, run, lanes).map((parts) => parts.map(kept)) } };
        const words = readWords(from, stride, run, lanes);
        setup.push(...words.setup);
        return { setup, constants: { factors, addends: words.parts.map((part) => [part.op === 'var' ? part : kept(part)]) } };
      },
      finish(sums, { factors, addends }, to, second) {
        if (kind === 'none') return writeWords(to, sums);
        const other = second === null ? { setup: [], parts: [] } : readWords(second.from, second.stride, run, lanes);
        const scaled = sums.map((sum, i) => (kind === 'one'
          ? rescaled(shape, pairing, sum, before, factors[0][i], addends[i], shift)
          : narrow ? shr(add(add(mul(sum, factors[0][i]), mul(other.parts[i], factors[1][i])), addends[i][0]), shift)
            : dyadic2(shift, pairing, sum, factors[0][i], other.parts[i], factors[1][i], addends[i])));
        const pins = run === 1 && !narrow ? scaled.map(pinned) : null;
        const setup = [...other.setup, ...(pins ?? []).map(({ setup: one }) => one)];
        const codes = toCodes(pins?.map(({ v }) => v) ?? scaled, code, bounds);
        if (table === null) return [...setup, ...writeCodes(to, codes)];
        const indices = codes.map((one) => ({ one, v: variable('code', code, one.type.n) }));
        return [...setup, ...indices.map(({ one, v }) => set(v, one)), ...writeCodes(to, indices.map(({ v }) => tableEntry(table, v)))];
      },
    };
  };
  return { channels, y: sharedY === null ? y : null, table, values, buffers: [...channels, ...(y !== null && sharedY === null ? [y] : []), ...(table === null ? [] : [table])], prepare };
};

/** One sum by its factor; `before`: how far it is shifted first. The addend is one word, or what `dyadic` reads. */
export const rescaled = ({ narrow, drops }: RescaleClass, pairing: Pairing, sum: Expr, before: Expr | null, factor: Expr, addend: readonly Expr[], shift: Expr): Expr => {
  const moved = before === null ? sum : drops ? shr(sum, before) : shl(sum, before);
  return narrow ? shr(add(mul(moved, factor), addend[0]), shift) : dyadic(shift, pairing, moved, factor, addend);
};

/** A scalar dyadic kept scalar: compilers would emulate 64-bit vector products where one machine multiply does. */
const pinned = (e: Expr): { readonly v: Var; readonly setup: Stmt } => {
  const v = variable('scaled', 'i32');
  return { v, setup: set(v, e, { pin: true }) };
};

/** The entry of a table of 256 for byte codes: signed codes count from −128. */
export const tableEntry = (table: Buffer, code: Expr, row: readonly (readonly [Index, number])[] = []): Expr => {
  const base = code.type.e === 'i8' ? 128 : 0;
  return code.type.n === 1 ? load(at(table, base, ...row, [code, 1])) : lookup(moved(at(table, base), 0, ...row), code);
};

/** What the parameters of `makeRescale` are bound to. `layout` orders and pads a list of per-channel constants. */
export const rescaleBindings = (step: Step, withY: boolean, layout: <T extends Contents>(constants: T) => T): readonly Binding[] => {
  const node = rescaleNode(step);
  if (node === null) return [];
  const list = (slot: string, asWords = false): Binding => {
    const value = node.inputs[slot] as Value;
    const entries = constant(value).data as Contents;
    return packed(value.name, layout(asWords ? Int32Array.from(entries as BigInt64Array, Number) : entries));
  };
  const { narrow } = rescaleClass(step);
  const scale = node.op === 'requantize_add' ? [list('mulX'), list('mulY'), list('add', narrow)] : [list('mul'), list('add')];
  const y = node.op === 'requantize_add' && withY ? [operand(node.inputs['y'] as Value)] : [];
  return [...scale, ...y, ...(step.table === null ? [] : [operand(step.table.inputs['values'] as Value)])];
};

export const rescaleValues = (step: Step): readonly number[] => {
  const node = rescaleNode(step);
  if (node === null) return [];
  const { shift, preShift = 0, drop = 0, low, high } = node.attrs as unknown as RequantizeAttrs;
  return [shift, ...[drop, preShift].filter((bits) => bits > 0), low, high];
};
