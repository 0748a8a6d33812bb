/**
 * Reads the code of a module and counts its instructions: the evidence behind "integers only, no division". It decodes every
 * instruction, so that an opcode that happens to stand in the bytes of a constant is not counted.
 */
import { opcodes, type Immediate } from './opcodes.ts';

export interface Scan {
  readonly functions: number;
  readonly instructions: number;
  /** how often each instruction occurs, by name */
  readonly counts: ReadonlyMap<string, number>;
}

const names = new Map<number, readonly [string, Immediate]>();
for (const [name, { prefix, code, immediate }] of opcodes) names.set(prefix * 0x10000 + code, [name, immediate]);
const CODE_SECTION = 10;

export const scan = (module: Uint8Array): Scan => {
  const reader = new Reader(module);
  if (reader.fixed(4) !== '0061736d' || reader.fixed(4) !== '01000000') throw new Error('not a WebAssembly module of version 1');
  const counts = new Map<string, number>();
  let functions = 0;
  while (!reader.done()) {
    const id = reader.byte();
    const end = reader.unsigned() + reader.position;
    if (id === CODE_SECTION) {
      functions = reader.unsigned();
      for (let f = 0; f < functions; f++) scanBody(reader, counts);
      if (reader.position !== end) throw new Error('the code section does not end where it says');
    }
    reader.position = end;
  }
  const instructions = [...counts.values()].reduce((a, b) => a + b, 0);
  return { functions, instructions, counts };
};

const scanBody = (reader: Reader, counts: Map<string, number>): void => {
  const size = reader.unsigned();
  const end = reader.position + size;
  for (let runs = reader.unsigned(); runs > 0; runs--) { reader.unsigned(); reader.byte(); }
  while (reader.position < end) {
    const first = reader.byte();
    const prefix = first >= 0xfc && first <= 0xfe ? first : 0;
    const code = prefix === 0 ? first : reader.unsigned();
    const found = names.get(prefix * 0x10000 + code);
    if (found === undefined) throw new Error(`unknown instruction 0x${first.toString(16)} ${prefix === 0 ? '' : code} at byte ${reader.position}`);
    skip[found[1]](reader);
    counts.set(found[0], (counts.get(found[0]) ?? 0) + 1);
  }
};

class Reader {
  position = 0;
  private readonly data: Uint8Array;
  constructor(data: Uint8Array) {
    this.data = data;
  }
  done(): boolean {
    return this.position >= this.data.length;
  }
  byte(): number {
    if (this.done()) throw new Error('the module ends inside an instruction');
    return this.data[this.position++];
  }
  fixed(n: number): string {
    return Array.from({ length: n }, () => this.byte().toString(16).padStart(2, '0')).join('');
  }
  unsigned(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const next = this.byte();
      value += (next & 127) * scale;
      if (next < 128) return value;
    }
  }
  /** Passes over a LEB128 of any width and sign. */
  leb(): void {
    while (this.byte() >= 128);
  }
}

const skip: Readonly<Record<Immediate, (reader: Reader) => void>> = {
  none: () => undefined,
  memory: (r) => { r.leb(); r.leb(); },
  lane: (r) => { r.byte(); },
  memoryLane: (r) => { r.leb(); r.leb(); r.byte(); },
  lanes16: (r) => { r.fixed(16); },
  bytes16: (r) => { r.fixed(16); },
  i32: (r) => { r.leb(); },
  i64: (r) => { r.leb(); },
  f32: (r) => { r.fixed(4); },
  f64: (r) => { r.fixed(8); },
  local: (r) => { r.leb(); },
  global: (r) => { r.leb(); },
  function: (r) => { r.leb(); },
  label: (r) => { r.leb(); },
  labels: (r) => { for (let n = r.unsigned(); n >= 0; n--) r.leb(); },
  blockType: (r) => { r.leb(); },
  indirect: (r) => { r.leb(); r.leb(); },
  selectTypes: (r) => { for (let n = r.unsigned(); n > 0; n--) r.byte(); },
  zero: (r) => { r.byte(); },
  zeroZero: (r) => { r.byte(); r.byte(); },
  segmentZero: (r) => { r.leb(); r.byte(); },
  segment: (r) => { r.leb(); },
};

/** Instructions on floating-point values: arithmetic, comparison, conversion, constants, loads, stores and lanes. */
export const floatInstructions = ({ counts }: Scan): string[] => [...counts.keys()].filter((name) => /(^|_)f(32|64)/.test(name));
/** Integer division and remainder. */
export const divisions = ({ counts }: Scan): string[] => [...counts.keys()].filter((name) => /^i(32|64)\.(div|rem)_[su]$/.test(name));
