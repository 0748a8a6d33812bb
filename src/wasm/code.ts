/**
 * The body of one function, written instruction by instruction in stack order. Blocks take their content as a callback and hand it a
 * label; branch depths are computed. Example, the sum of the first n floats at p:
 *
 *     module.func('sum', ['i32', 'i32'], ['f32'], (code, p, n) => {
 *       const total = code.local('f32'), end = code.local('i32');
 *       code.get(p).get(n).i32(2).op('i32.shl').op('i32.add').set(end);
 *       code.loop((again) => code
 *         .get(total).get(p).memory('f32.load').op('f32.add').set(total)
 *         .get(p).i32(4).op('i32.add').tee(p).get(end).op('i32.lt_u').brIf(again));
 *       code.get(total);
 *     });
 */
import { Bytes } from './bytes.ts';
import { accessBytes, opcodes, type LaneMemoryOp, type LaneOp, type MemoryOp, type OpName, type PlainOp } from './opcodes.ts';

export type ValueType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';
const codes: Readonly<Record<ValueType, number>> = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b };
export const typeCode = (t: ValueType): number => codes[t];
const EMPTY_BLOCK = 0x40;

/** A parameter or local variable of one function. */
export interface Local {
  readonly type: ValueType;
  readonly index: number;
}
export interface Func {
  readonly index: number;
  readonly name: string;
  readonly params: readonly ValueType[];
  readonly results: readonly ValueType[];
}
export interface Global {
  readonly index: number;
  readonly type: ValueType;
  readonly mutable: boolean;
}
/** Target of branches: the end of a block or an if, the start of a loop. */
export interface Label { readonly level: number }

export class Code {
  private readonly out = new Bytes();
  private readonly locals: ValueType[] = [];
  private readonly params: number;
  private level = 0;
  constructor(params: readonly ValueType[]) {
    this.params = params.length;
  }

  /** A new local variable, zero at entry. */
  local(t: ValueType): Local {
    this.locals.push(t);
    return { type: t, index: this.params + this.locals.length - 1 };
  }
  private code(name: OpName): this {
    const found = opcodes.get(name);
    if (found === undefined) throw new Error(`no WebAssembly instruction "${name}"`);
    if (found.prefix === 0) this.out.byte(found.code);
    else this.out.byte(found.prefix).unsigned(found.code);
    return this;
  }

  get(local: Local): this { this.code('local.get').out.unsigned(local.index); return this; }
  set(local: Local): this { this.code('local.set').out.unsigned(local.index); return this; }
  tee(local: Local): this { this.code('local.tee').out.unsigned(local.index); return this; }
  globalGet(global: Global): this { this.code('global.get').out.unsigned(global.index); return this; }
  globalSet(global: Global): this { this.code('global.set').out.unsigned(global.index); return this; }

  /** A constant; −2^31 … 2^32−1, the upper half meaning its two's complement. */
  i32(value: number): this { this.code('i32.const').out.signed(value | 0); return this; }
  i64(value: number | bigint): this { this.code('i64.const').out.signed(BigInt.asIntN(64, BigInt(value))); return this; }
  f32(value: number): this { this.code('f32.const').out.f32(value); return this; }
  f64(value: number): this { this.code('f64.const').out.f64(value); return this; }
  /** A vector constant of sixteen bytes. */
  v128(bytes: ArrayLike<number>): this {
    if (bytes.length !== 16) throw new RangeError(`a vector constant has 16 bytes, not ${bytes.length}`);
    this.code('v128.const').out.bytes(bytes);
    return this;
  }

  op(name: PlainOp): this {
    this.code(name);
    const immediate = opcodes.get(name)!.immediate;
    if (immediate === 'zero') this.out.byte(0);
    if (immediate === 'zeroZero') this.out.byte(0).byte(0);
    return this;
  }
  private memoryArgument(name: string, offset: number, align: number): void {
    this.out.unsigned(Math.log2(align)).unsigned(offset);
    if (!Number.isInteger(offset) || offset < 0 || offset >= 2 ** 32) throw new RangeError(`${name}: offset ${offset}`);
  }
  /** A load, a store or an atomic at offset bytes from the address on the stack; `align` is a promise in bytes, for plain accesses a hint. */
  memory(name: MemoryOp, offset = 0, align = name.includes('atomic') ? accessBytes(name) : 1): this {
    this.code(name).memoryArgument(name, offset, align);
    return this;
  }
  lane(name: LaneOp, lane: number): this { this.code(name).out.byte(lane); return this; }
  memoryLane(name: LaneMemoryOp, lane: number, offset = 0, align = 1): this {
    this.code(name).memoryArgument(name, offset, align);
    this.out.byte(lane);
    return this;
  }
  /** Result byte i is byte lanes[i] of the two operands joined (0 … 15 the first, 16 … 31 the second). */
  shuffle(lanes: readonly number[]): this {
    if (lanes.length !== 16 || lanes.some((l) => !Number.isInteger(l) || l < 0 || l > 31)) throw new RangeError(`shuffle: lanes ${lanes.join(', ')}`);
    this.code('i8x16.shuffle').out.bytes(lanes);
    return this;
  }

  private nested(name: 'block' | 'loop' | 'if', body: (label: Label) => unknown, result: ValueType | null): void {
    this.code(name).out.byte(result === null ? EMPTY_BLOCK : typeCode(result));
    this.level++;
    body({ level: this.level });
    this.level--;
  }
  /** A branch to the label leaves the block. */
  block(body: (label: Label) => unknown, result: ValueType | null = null): this {
    this.nested('block', body, result);
    return this.code('end');
  }
  /** A branch to the label starts the next iteration; without one the loop is left at its end. */
  loop(body: (label: Label) => unknown, result: ValueType | null = null): this {
    this.nested('loop', body, result);
    return this.code('end');
  }
  /** Takes an i32 condition from the stack. */
  if(then: (label: Label) => unknown, otherwise: ((label: Label) => unknown) | null = null, result: ValueType | null = null): this {
    this.nested('if', then, result);
    if (otherwise !== null) {
      this.code('else').level++;
      otherwise({ level: this.level });
      this.level--;
    }
    return this.code('end');
  }
  br(label: Label): this { this.code('br').out.unsigned(this.level - label.level); return this; }
  brIf(label: Label): this { this.code('br_if').out.unsigned(this.level - label.level); return this; }
  call(target: Func): this { this.code('call').out.unsigned(target.index); return this; }

  /** The instructions alone, as initial values and addresses of data need them. */
  expression(): Uint8Array {
    return this.code('end').out.take();
  }
  /** The entry of the code section: size, locals in runs of one type, instructions. */
  finish(): Uint8Array {
    const runs: [ValueType, number][] = [];
    for (const t of this.locals) {
      const last = runs.at(-1);
      if (last !== undefined && last[0] === t) last[1]++;
      else runs.push([t, 1]);
    }
    const body = new Bytes().unsigned(runs.length);
    for (const [t, n] of runs) body.unsigned(n).byte(typeCode(t));
    body.bytes(this.expression());
    return new Bytes().counted(body.take()).take();
  }
}
