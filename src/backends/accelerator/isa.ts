/**
 * The instruction set LB1, declared once: ops, fields, and what each op means. Encoder, decoder, assembler, the reference page and the
 * simulator's tables follow from this declaration.
 *
 * The machine has four engines, each with a queue of its own that runs in order: LD (memory → chip), MM (products), VE (vector engine),
 * ST (chip → memory, or another place on chip). Between every ordered pair of engines stands one counting semaphore. An instruction begins when every semaphore
 * that it waits for (from the engines in `wait`) holds a token, and takes one from each; when it ends it puts one token into the
 * semaphore towards each engine in `signal`.
 *
 * On chip there are four memories, addressed by bytes, little endian: ABUF (activations), WBUF (weights, packed), PBUF (parameters and
 * tables), OBUF (32-bit accumulators). Outside is one memory of up to 2^32 bytes.
 */

export const engines = ['LD', 'MM', 'VE', 'ST'] as const;
export type Engine = (typeof engines)[number];
export const chipMemories = ['ABUF', 'WBUF', 'PBUF', 'OBUF'] as const;
export type ChipMemory = (typeof chipMemories)[number];
/** Elements of a tensor on chip. Two of four bits share a byte, the even one in its low half. */
export const elements = ['i8', 'u8', 'i16', 'u16', 'i32', 'u32', 'i4', 'u4'] as const;
export type Element = (typeof elements)[number];
export const elementBits = (element: Element): number => Number(element.slice(1));
/** Bytes of n elements that follow each other. */
export const bytesFor = (element: Element, n: number): number => Math.ceil((n * elementBits(element)) / 8);

/** A field: an unsigned or signed integer, a 64-bit integer, or one of a list of names, encoded as its index. */
export type Field = { readonly bits: number; readonly doc: string } & (
  { readonly kind: 'unsigned' | 'signed' } | { readonly kind: 'wide' } | { readonly kind: 'choice'; readonly choices: readonly string[] });

const u = (bits: number, doc: string) => ({ kind: 'unsigned', bits, doc }) as const;
const s = (bits: number, doc: string) => ({ kind: 'signed', bits, doc }) as const;
const wide = (doc: string) => ({ kind: 'wide', bits: 64, doc }) as const;
const choice = <const C extends readonly string[]>(choices: C, doc: string) =>
  ({ kind: 'choice', bits: Math.max(1, Math.ceil(Math.log2(choices.length))), choices, doc }) as const;

const address = (what: string) => u(24, `byte address of ${what}`);
const memory = (what: string) => choice(chipMemories, `memory of ${what}`);
const element = (what: string) => choice(elements, `element of ${what}`);
const low = s(32, 'least result');
const high = s(32, 'greatest result');
/** An operand of the vector engine. */
const source = { xMemory: memory('x'), x: address('x'), xElement: element('x') } as const;
const target = { zMemory: memory('z'), z: address('z'), zElement: element('z') } as const;
const box = {
  memory: memory('the chip side'), chip: address('the first byte on chip'), run: u(24, 'bytes that are contiguous on both sides'),
  n0: u(16, 'outer count'), n1: u(16, 'middle count'), n2: u(16, 'inner count'),
  far: u(32, 'byte address outside'),
  f0: s(32, 'outer stride outside'), f1: s(32, 'middle stride outside'), f2: s(32, 'inner stride outside'),
  c0: u(24, 'outer stride on chip'), c1: u(24, 'middle stride on chip'), c2: u(24, 'inner stride on chip'),
} as const;
const window = {
  rows: u(16, 'output rows'), columns: u(16, 'output columns'),
  imageRows: u(16, 'rows of the image'), imageColumns: u(16, 'columns of the image'), rowPitch: u(24, 'bytes from one image row to the next'), columnPitch: u(24, 'bytes from one image column to the next'),
  firstRow: s(16, 'image row under the first tap of output row 0'), firstColumn: s(16, 'image column under the first tap of output column 0'),
  rowStride: u(8, 'image rows from one output row to the next'), columnStride: u(8, 'image columns from one output column to the next'),
  tapRows: u(16, 'rows of the window'), tapColumns: u(16, 'columns of the window'), rowDilation: u(8, 'image rows from one tap row to the next'), columnDilation: u(8, 'image columns from one tap column to the next'),
  border: s(17, 'what is read outside the image'),
} as const;
const newton = u(2, 'Newton steps of the reciprocal');
const rowRescale = { newton, mulOut: u(31, 'factor of the row'), shiftOut: u(6, 'shift of the row before the normalisation of the sum'), zero: s(32, 'added after the shift'), low, high } as const;
const channels = u(16, 'channels: element i belongs to channel i mod channels');
const par = address('the parameter records in PBUF, 16 bytes each');
const perChannel = u(1, '1: one record for each channel, 0: one record for all');
const pitch = (what: string) => u(24, `bytes from one row of channels of ${what} to the next; 0: dense`);
const windowAt = 'position (y, x) = (firstRow + i·rowStride + r·rowDilation, firstColumn + j·columnStride + q·columnDilation) of the image, which is `border` outside of imageRows × imageColumns';
const productMeaning = 'For each output pixel p = (i, j) and output channel n below `outputs`: O[p, n] = Σ over taps (r, q) and k below `depth` of (A − aZero)·(W − wZero), added to the content of O where accumulate is 1. '
  + `A is the element k at ${windowAt}; it lies in ABUF at a + y·rowPitch + x·columnPitch, k elements further. `
  + 'W is element n·wChannel + t·wTap of the packed array at w in WBUF, t counting (r, q, k) in order. With depthwise = 1 depth is 1 and A is the element n instead of k. '
  + 'O is OBUF at o + 4·(p·pitch + n). Sums are 32 bits wide and wrap. Weights are packed from the low bits of a byte upwards; ternary ones stand five to a byte, Σ (W + 1)·3^e over the elements e = 0 to 4 of the byte.';
const productFields = {
  a: address('the image in ABUF'), w: address('the weights in WBUF'), o: address('the sums in OBUF'), aElement: element('the activations'),
  aBits: choice(['4', '8', '16'], 'bits of the activations in use: what the array is paid for'), wBits: choice(['2', '4', '8', '16', 'ternary'], 'bits of a packed weight'), wSigned: u(1, 'weights are signed'),
  ...window, depth: u(16, 'contiguous elements of a tap'), outputs: u(16, 'output channels'), wChannel: u(24, 'elements from one channel to the next'), wTap: u(16, 'elements from one tap to the next'),
  pitch: u(16, 'sums from one pixel to the next'), aZero: s(17, 'zero point of the activations'), wZero: s(17, 'zero point of the weights'), depthwise: u(1, 'each channel has its own filter'), accumulate: u(1, 'add to what O holds'),
} as const;
const rowsOfChannels = 'Element i is element c = i mod channels of row i div channels, and rows of an operand begin at multiples of its pitch, or follow each other where that is 0. ';

interface Op {
  readonly code: number;
  readonly engine: Engine;
  readonly summary: string;
  readonly meaning: string;
  readonly fields: Readonly<Record<string, Field>>;
}
const op = <const F extends Readonly<Record<string, Field>>>(code: number, engine: Engine, summary: string, meaning: string, fields: F) =>
  ({ code, engine, summary, meaning, fields }) as const;

export const isa = {
  END: op(1, 'ST', 'the program is done', 'The last instruction; the machine is done when every queue is empty.', {}),
  LD: op(2, 'LD', 'copy a box of bytes from outside to the chip',
    'For i, j, k below n0, n1, n2: `run` bytes from far + i·f0 + j·f1 + k·f2 to chip + i·c0 + j·c1 + k·c2.', box),
  FILL: op(3, 'LD', 'write one value into a run of elements on chip', 'count elements of `element`, all equal to value.',
    { memory: memory('the run'), chip: address('the run'), element: element('the run'), count: u(24, 'elements'), value: s(32, 'value') }),
  GATHER: op(4, 'LD', 'copy rows picked by indices that lie on chip',
    'For i below count: r = clamp(index[i], 0, rows − 1); `run` bytes from far + r·pitch to ABUF at chip + i·run.',
    { chip: address('the rows in ABUF'), index: address('the indices in ABUF'), indexElement: element('the indices'), count: u(16, 'indices'), rows: u(32, 'rows of the table'), run: u(24, 'bytes of a row'), pitch: u(32, 'bytes from one row to the next'), far: u(32, 'byte address of the table outside') }),
  ST: op(5, 'ST', 'copy a box of bytes from the chip to the outside', 'LD with source and target exchanged.', box),
  MM: op(6, 'MM', 'sums of products of a window of activations with weights', productMeaning, productFields),
  RQ: op(7, 'VE', 'rescale: one multiply, one add, one shift',
    rowsOfChannels + 'z[i] = clamp(((x[i] << preShift)·M + C) >> shift, low, high); record: M i32, 4 bytes 0, C i64. Product and sum have 64 bits.',
    { ...source, xPitch: pitch('x'), ...target, zPitch: pitch('z'), n: u(24, 'elements'), channels, par, perChannel, preShift: u(5, 'bits x is shifted left'), shift: u(6, 'bits dropped'), low, high }),
  ADD2: op(8, 'VE', 'two operands rescaled and summed with one rounding', rowsOfChannels + 'z[i] = clamp((x[i]·Mx + y[i]·My + C) >> shift, low, high); record: Mx i32, My i32, C i64.',
    { ...source, xPitch: pitch('x'), yMemory: memory('y'), y: address('y'), yElement: element('y'), yPitch: pitch('y'), ...target, zPitch: pitch('z'), n: u(24, 'elements'), channels, par, perChannel, shift: u(6, 'bits dropped'), low, high }),
  MUL2: op(9, 'VE', 'the product of two operands, rescaled', 'z[i] = clamp(((x[i] − zeroX)·(y[i] − zeroY)·mul + add) >> shift, low, high).',
    { ...source, yMemory: memory('y'), y: address('y'), yElement: element('y'), ...target, n: u(24, 'elements'), zeroX: s(32, 'zero point of x'), zeroY: s(32, 'zero point of y'), mul: u(31, 'factor'), add: wide('added to the product'), shift: u(6, 'bits dropped'), low, high }),
  CLIP: op(10, 'VE', 'limit', 'z[i] = clamp(x[i], low, high).', { ...source, ...target, n: u(24, 'elements'), low, high }),
  LUT: op(11, 'VE', 'look up bytes in tables of 256 entries', rowsOfChannels + 'z[i] = T[(c mod rows)·256 + x[i] + (128 where x is signed, else 0)]; the entries of T, in PBUF, are of z\'s element, but whole bytes where that has four bits.',
    { ...source, xPitch: pitch('x'), ...target, zPitch: pitch('z'), n: u(24, 'elements'), channels, lut: address('the tables in PBUF'), rows: u(16, 'tables') }),
  LUTI: op(12, 'VE', 'look up halfwords, linear between 513 knots', 'With i = (x + 32768) >> 7, o = (x + 32768) & 127: z = T[i] + (((T[i+1] − T[i])·o + 64) >> 7), T of i16 in PBUF.',
    { ...source, ...target, n: u(24, 'elements'), lut: address('the knots in PBUF') }),
  POOL: op(13, 'VE', 'greatest or sum under a window', `z[i, j, c] = Σ over taps (r, q) of element c at ${windowAt}, or max over the taps that lie inside the image alone, of which there is one at least; it lies at x + y·rowPitch + x·columnPitch, c elements further. z is dense.`,
    { ...source, ...target, kind: choice(['max', 'sum'], 'what is found'), ...window, depth: u(16, 'channels') }),
  RED: op(14, 'VE', 'greatest or sum along the middle axis', 'x[outer, reduce, inner] dense → z[outer, inner]; with accumulate = 1 joined with what z holds.',
    { ...source, ...target, kind: choice(['max', 'sum'], 'what is found'), outer: u(24, 'outer count'), reduce: u(24, 'count along the axis'), inner: u(24, 'inner count'), accumulate: u(1, 'join with z') }),
  SMAX: op(15, 'VE', 'softmax of rows', 'd = max x − x; e = (fine[d], or with two = 1 (coarse[d >> 8]·fine[d & 255] + 2^29) >> 30) >> eShift; S = Σe; z = the rescaling of e by 1/S. Tables of i32[256] in PBUF.',
    { ...source, ...target, count: u(16, 'rows'), length: u(16, 'elements of a row'), fine: address('the table of single steps'), coarse: address('the table of 256 steps'), two: u(1, 'use both tables'), eShift: u(5, 'bits dropped from e'), ...rowRescale }),
  EXPS: op(16, 'VE', 'exponentials of rows of sums, and their totals', 'Over the elements that mask allows: d = max x − x; e = T[min((d·mulLogit + addLogit) >> shiftLogit, 2815)] >> eShift, 0 where not allowed; sum[row] = Σe (u32). x of i32, z of i16, T of i16[2816] in PBUF.',
    { xMemory: memory('x'), x: address('x'), zMemory: memory('z'), z: address('z'), sum: address('the totals in OBUF'), count: u(16, 'rows'), length: u(16, 'elements of a row'), masked: u(1, 'there is a mask'), mask: address('the mask in PBUF, a byte for each element'), lut: address('the exponentials in PBUF'), mulLogit: u(31, 'factor'), addLogit: wide('added'), shiftLogit: u(6, 'bits dropped'), eShift: u(5, 'bits dropped from e') }),
  NRM: op(17, 'VE', 'rows of sums rescaled by the reciprocal of their totals', 'z = the rescaling of x by 1/sum[row]; x of i32.',
    { xMemory: memory('x'), x: address('x'), ...target, sum: address('the totals in OBUF'), count: u(16, 'rows'), length: u(16, 'elements of a row'), ...rowRescale }),
  LNRM: op(18, 'VE', 'layer norm of rows', 's1 = Σx, s2 = Σx², D = length·s2 − s1² + epsilon, (y, k) = the reciprocal root of D, n = ((length·x − s1)·y + 2^(r−1)) >> r with r = 30 + k − fraction, z = clamp((n·M + C) >> shift, low, high); record: M i32, 4 bytes 0, C i64.',
    { ...source, ...target, count: u(16, 'rows'), length: u(16, 'elements of a row'), par, perChannel, epsilon: wide('added to the variance'), newton, fraction: u(5, 'binary digits of n'), shift: u(6, 'bits dropped'), low, high }),
  MMV: op(19, 'VE', 'MM on the vector engine', 'What MM does, one product a lane and cycle: for widths that the array has no mode for.', productFields),
  MV: op(20, 'ST', 'copy a box of bytes from one place on chip to another', 'For i, j, k below n0, n1, n2: `run` bytes from `from` + i·s0 + j·s1 + k·s2 to `to` + i·d0 + j·d1 + k·d2.', {
    fromMemory: memory('the source'), from: address('the first byte of the source'), toMemory: memory('the target'), to: address('the first byte of the target'), run: u(24, 'bytes that are contiguous on both sides'),
    n0: u(16, 'outer count'), n1: u(16, 'middle count'), n2: u(16, 'inner count'),
    s0: s(25, 'outer stride of the source'), s1: s(25, 'middle stride of the source'), s2: s(25, 'inner stride of the source'), d0: u(24, 'outer stride of the target'), d1: u(24, 'middle stride of the target'), d2: u(24, 'inner stride of the target'),
  }),
} as const satisfies Readonly<Record<string, Op>>;

export type OpName = keyof typeof isa;
export const opNames = Object.keys(isa) as readonly OpName[];

type FieldValue<F> = F extends { readonly kind: 'wide' } ? bigint : F extends { readonly choices: infer C extends readonly string[] } ? C[number] : number;
export type FieldsOf<N extends OpName> = { readonly [K in keyof (typeof isa)[N]['fields']]: FieldValue<(typeof isa)[N]['fields'][K]> };
export type InstructionOf<N extends OpName> = { readonly op: N; readonly fields: FieldsOf<N> };
/** An instruction without its semaphores. */
export type Instruction = { [N in OpName]: InstructionOf<N> }[OpName];
/** Masks over `engines`: whom it waits for, whom it signals. */
export type Synchronised = Instruction & { readonly wait: number; readonly signal: number };

export const engineOf = ({ op }: Instruction): Engine => isa[op].engine;
export const fieldEntries = (name: OpName): readonly (readonly [string, Field])[] => Object.entries(isa[name].fields as Readonly<Record<string, Field>>);
export const instruction = <N extends OpName>(name: N, fields: FieldsOf<N>): Instruction => ({ op: name, fields }) as unknown as Instruction;
