/**
 * The code of one loop function as WebAssembly with fixed-width SIMD. A value of at most 32 bits is an i32 (sign- or zero-extended as its
 * element says), an i64 is an i64, and up to sixteen bytes of lanes are a v128 whose upper bytes, where there are fewer, mean nothing.
 */
import { bitsOf, bytesOf, isSigned, limitsOf, showType, sizeOf } from '../../loops/build.ts';
import { LoopError, type Address, type Buffer, type Elem, type Expr, type Fn, type Index, type Stmt, type Type, type Var } from '../../loops/types.ts';
import { rangesOf, type Ranges } from '../../loops/verify.ts';
import { isShared } from '../../loops/walk.ts';
import type { Code, Func, Global, Local, ValueType } from '../../wasm/code.ts';
import type { LaneMemoryOp, LaneOp, MemoryOp, PlainOp } from '../../wasm/opcodes.ts';
import { Cursors, type Base } from './cursors.ts';
import { Away, leaving, type InGlobals } from './leaving.ts';
import { SHARE_BITS, type Threads } from './threads.ts';


const REGISTER = 16;
export const valueType = (t: Type): ValueType => {
  if (t.n === 1) return t.e === 'i64' ? 'i64' : 'i32';
  if (![2, 4, 8, 16].includes(sizeOf(t))) throw new LoopError(`a WebAssembly vector has at most 16 bytes, not ${showType(t)}`);
  return 'v128';
};
/** Prefix of vector instructions on this element: i8x16 … i64x2. */
const shapes = { 8: 'i8x16', 16: 'i16x8', 32: 'i32x4', 64: 'i64x2' } as const;
const shapeOf = (e: Elem): (typeof shapes)[8 | 16 | 32 | 64] => shapes[bitsOf(e)];
const sign = (e: Elem): 's' | 'u' => (isSigned(e) ? 's' : 'u');
/** Name of an instruction put together from parts; the code builder refuses one that does not exist. */
const plain = (name: string): PlainOp => name as PlainOp;

const bytes = (from: number, n: number): number[] => Array.from({ length: n }, (_, i) => from + i);
/** A shuffle that takes groups of `unit` bytes, given by the numbers of the groups in the two operands joined. */
const groups = (unit: number, picks: readonly number[]): number[] => picks.flatMap((p) => bytes(p * unit, unit));
const EVEN_WORDS = groups(4, [0, 2, 4, 6]);
const ODD_WORDS = groups(4, [1, 3, 5, 7]);

/** The code of one function. */
export class Body {
  private readonly code: Code;
  private readonly body: readonly Stmt[];
  private readonly indices: ReadonlyMap<Index, Local>;
  private readonly vars: Map<Var, Local>;
  private readonly funcOf: (fn: Fn) => Func;
  private readonly threads: Threads | null;
  private readonly range: Ranges;
  private readonly away: Away;
  private readonly cursors: Cursors;
  /** whether the loops in hand make vectors that leave them for globals: then registers are few */
  private crowded = false;

  constructor(
    code: Code, body: readonly Stmt[], baseOf: (b: Buffer) => Base, indices: ReadonlyMap<Index, Local>, values: ReadonlyMap<Var, Local>, funcOf: (fn: Fn) => Func,
    globalOf: (number: number) => Global, threads: Threads | null,
  ) {
    this.code = code;
    this.body = body;
    this.cursors = new Cursors(code, baseOf, indices.keys());
    this.indices = indices;
    this.vars = new Map(values);
    this.funcOf = funcOf;
    this.away = new Away(code, (v) => this.localOf(v), globalOf);
    this.threads = threads;
    this.range = rangesOf(body);
  }

  print(): void {
    this.cursors.plan(this.body);
    for (const [index, local] of this.indices) {
      for (const { local: cursor, outer, stride } of this.cursors.movedBy(index)) {
        this.cursors.push(outer);
        this.code.get(local).i32(stride).op('i32.mul').op('i32.add').set(cursor);
      }
    }
    this.statements(this.body);
  }

  // ---- addresses

  /** Pushes the variable part of an address; what it returns goes to the offset field. */
  private address(a: Address, extra: { readonly low: number; push(): void } | null = null): number {
    const place = this.cursors.placeOf(a);
    const computed = a.computed;
    const low = (extra?.low ?? 0) + (computed === null ? 0 : Math.min(...this.range(computed.value).map((x) => x * computed.stride)));
    const inField = place.offset >= 0 && low >= 0;
    if (place.base === null && inField && (computed !== null || extra !== null)) this.computedTerms(computed, a, extra);
    else {
      if (inField) this.cursors.push({ base: place.base, offset: 0 });
      else this.cursors.push(place);
      if (computed !== null || extra !== null) {
        this.computedTerms(computed, a, extra);
        this.code.op('i32.add');
      }
    }
    return inField ? place.offset : 0;
  }
  private computedTerms(computed: Address['computed'], { buffer }: Address, extra: { push(): void } | null): void {
    if (computed !== null) {
      this.expr(computed.value);
      this.times(computed.stride * bytesOf(buffer.e));
    }
    if (extra !== null) {
      extra.push();
      this.times(bytesOf(buffer.e));
      if (computed !== null) this.code.op('i32.add');
    }
  }
  private times(factor: number): void {
    if (factor === 1) return;
    const log = Math.log2(factor);
    if (Number.isInteger(log)) this.code.i32(log).op('i32.shl');
    else this.code.i32(factor).op('i32.mul');
  }

  // ---- statements

  private statements(body: readonly Stmt[]): void {
    let away: InGlobals = new Map();
    for (const [i, stmt] of body.entries()) {
      away = this.away.broughtBack(away, stmt);
      switch (stmt.s) {
        case 'set':
          this.expr(stmt.e);
          this.code.set(this.localOf(stmt.v));
          break;
        case 'store': this.store(stmt.at, stmt.e); break;
        case 'for': {
          const vectors = leaving(stmt, body.slice(i + 1));
          const outer = this.crowded;
          this.crowded ||= vectors.length > 0;
          this.loop(stmt);
          this.crowded = outer;
          away = new Map([...away, ...this.away.put(vectors)]);
          break;
        }
        case 'call':
          for (const a of stmt.args.buffers) {
            const offset = this.address(a);
            if (offset !== 0) this.code.i32(offset).op('i32.add');
          }
          for (const i of stmt.args.indices) this.cursors.push(this.cursors.placeOfIndex(i));
          for (const e of stmt.args.values) this.expr(e);
          if (this.threads !== null && isShared(stmt.fn)) this.code.get(this.threads.thread).get(this.threads.share);
          this.code.call(this.funcOf(stmt.fn));
      }
    }
  }
  private localOf(v: Var): Local {
    const known = this.vars.get(v) ?? this.code.local(valueType(v.type));
    this.vars.set(v, known);
    return known;
  }
  private loop(stmt: Extract<Stmt, { s: 'for' }>): void {
    if (this.threads !== null && stmt.mark === 'parallel') { this.sharedLoop(stmt, this.threads); return; }
    const { index, body } = stmt;
    const cursors = this.cursors.movedBy(index);
    for (const { local, outer } of cursors) {
      this.cursors.push(outer);
      this.code.set(local);
    }
    if (cursors.length > 0 && this.crowded) {
      // it ends where its first cursor arrives: that place stays the same, where a count would be one more value to carry along
      const [{ local: first, stride }] = cursors;
      const end = this.code.local('i32');
      this.code.get(first).i32(stride * index.count).op('i32.add').set(end);
      this.code.loop((again) => {
        this.cursors.within(index, () => { this.statements(body); });
        for (const { local, stride: step } of cursors.slice(1)) this.code.get(local).i32(step).op('i32.add').set(local);
        this.code.get(first).i32(stride).op('i32.add').tee(first).get(end).op('i32.ne').brIf(again);
      });
      return;
    }
    const left = this.code.local('i32');
    this.code.i32(index.count).set(left);
    this.code.loop((again) => {
      this.cursors.within(index, () => { this.statements(body); });
      for (const { local, stride } of cursors) this.code.get(local).i32(stride).op('i32.add').set(local);
      this.code.get(left).i32(1).op('i32.sub').tee(left).brIf(again);
    });
  }
  /** Iterations ⌊count·thread/threads⌋ to those of the next thread: side by side, since neighbours write into the same lines of the cache. What is done once is the first thread's. */
  private sharedLoop({ index, body }: Extract<Stmt, { s: 'for' }>, { thread, share }: Threads): void {
    const { code } = this;
    const [next, end] = [code.local('i32'), code.local('i32')];
    if (index.count === 1) {
      code.i32(0).set(next);
      code.get(thread).op('i32.eqz').set(end);
    } else {
      // count·(threads·share − 2^30) < 2^30 for any count that there is: the last share ends with the loop
      const first = (local: Local): void => { code.op('i64.extend_i32_u').get(share).op('i64.extend_i32_u').op('i64.mul').i64(index.count).op('i64.mul').i64(SHARE_BITS).op('i64.shr_u').op('i32.wrap_i64').set(local); };
      code.get(thread);
      first(next);
      code.get(thread).i32(1).op('i32.add');
      first(end);
    }
    code.get(next).get(end).op('i32.lt_s').if(() => {
      const cursors = this.cursors.movedBy(index);
      for (const { local, outer, stride } of cursors) {
        this.cursors.push(outer);
        code.get(next).i32(stride).op('i32.mul').op('i32.add').set(local);
      }
      code.loop((again) => {
        this.cursors.within(index, () => { this.statements(body); });
        for (const { local, stride } of cursors) code.get(local).i32(stride).op('i32.add').set(local);
        code.get(next).i32(1).op('i32.add').tee(next).get(end).op('i32.lt_s').brIf(again);
      });
    });
  }
  private store(to: Address, value: Expr): void {
    const offset = this.address(to);
    if (value.type.n === 1) {
      this.lowBits(value);
      const width = bitsOf(value.type.e);
      this.code.memory(width === 64 ? 'i64.store' : width === 32 ? 'i32.store' : `i32.store${width}`, offset, width / 8);
      return;
    }
    this.expr(value);
    const size = sizeOf(value.type);
    if (size === REGISTER) this.code.memory('v128.store', offset, bytesOf(value.type.e));
    else this.code.memoryLane(`v128.store${size * 8}_lane` as LaneMemoryOp, 0, offset, bytesOf(value.type.e));
  }
  /** A scalar of which only the bits that are stored count: a conversion to a narrower element costs nothing. */
  private lowBits(e: Expr): void {
    if (e.op !== 'convert' || e.type.e === 'i64' || bitsOf(e.type.e) > bitsOf(e.a.type.e)) { this.expr(e); return; }
    this.expr(e.a);
    if (e.a.type.e === 'i64') this.code.op('i32.wrap_i64');
  }

  // ---- expressions: each leaves its value on the stack

  private expr(e: Expr): void {
    if (e.type.n > 1) { this.vector(e); return; }
    this.scalar(e);
  }
  private held(e: Expr): Local {
    if (e.op === 'var') return this.localOf(e);
    const local = this.code.local(valueType(e.type));
    this.expr(e);
    this.code.set(local);
    return local;
  }
  /** Brings the i32 on the stack into the range of a narrow element. */
  private normalise(e: Elem): void {
    if (e === 'i8') this.code.op('i32.extend8_s');
    if (e === 'i16') this.code.op('i32.extend16_s');
    if (e === 'u8') this.code.i32(0xff).op('i32.and');
    if (e === 'u16') this.code.i32(0xffff).op('i32.and');
  }
  private literal(value: number | bigint, e: Elem): void {
    if (e === 'i64') this.code.i64(value);
    else this.code.i32(Number(value));
  }
  /** A shift count as the scalar instruction wants it. */
  private count(by: Expr, e: Elem): void {
    if (e !== 'i64') { this.expr(by); return; }
    if (by.op === 'const') this.code.i64(by.value);
    else { this.expr(by); this.code.op('i64.extend_i32_u'); }
  }

  private scalar(e: Expr): void {
    const { code } = this;
    const elem = e.type.e;
    const p = elem === 'i64' ? 'i64' : 'i32';
    switch (e.op) {
      case 'var': code.get(this.localOf(e)); return;
      case 'const': this.literal(e.value, elem); return;
      case 'load': this.scalarLoad(e.at, elem, null); return;
      case 'lookup': this.scalarLoad(e.at, elem, this.laneIndex(e.index, () => { this.expr(e.index); })); return;
      case 'add': case 'sub': case 'mul': case 'and': case 'or': case 'xor':
        this.expr(e.a); this.expr(e.b);
        code.op(`${p}.${e.op}`);
        return;
      case 'addWrap': case 'subWrap': case 'mulWrap':
        this.expr(e.a); this.expr(e.b);
        code.op(plain(`${p}.${e.op.slice(0, 3)}`));
        this.normalise(elem);
        return;
      case 'addSat': case 'subSat':
        this.expr(e.a); this.expr(e.b);
        code.op(plain(`i32.${e.op.slice(0, 3)}`));
        this.saturate('i32', elem);
        return;
      case 'min': case 'max': this.least(e.op, this.held(e.a), this.held(e.b), elem); return;
      case 'shl':
        this.expr(e.a); this.count(e.by, elem);
        code.op(`${p}.shl`);
        this.normalise(elem);
        return;
      case 'shr':
        this.expr(e.a); this.count(e.by, elem);
        code.op(`${p}.shr_${sign(elem)}`);
        return;
      case 'shru':
        this.expr(e.a);
        if (bitsOf(elem) < 32) this.normalise(elem === 'i8' ? 'u8' : elem === 'i16' ? 'u16' : elem);
        this.count(e.by, elem);
        code.op(`${p}.shr_u`);
        this.normalise(elem);
        return;
      case 'select':
        this.expr(e.x); this.expr(e.y); this.expr(e.a); this.expr(e.b);
        code.op(plain(`${e.a.type.e === 'i64' ? 'i64' : 'i32'}.${e.compare}${e.compare === 'eq' || e.compare === 'ne' ? '' : `_${sign(e.a.type.e)}`}`)).op('select');
        return;
      case 'clz': this.expr(e.a); code.op(`${p}.clz`); return;
      case 'mulQ15':
        this.expr(e.a); this.expr(e.b);
        code.op('i32.mul').i32(0x4000).op('i32.add').i32(15).op('i32.shr_s');
        return;
      case 'convert': this.convertScalar(e.a, elem); return;
      case 'narrow':
        this.expr(e.a);
        this.saturate(e.a.type.e === 'i64' ? 'i64' : 'i32', elem);
        return;
      case 'dot':
        this.expr(e.acc); this.expr(e.a); this.expr(e.b);
        code.op('i32.mul').op('i32.add');
        return;
      case 'across': this.across(e.by, e.a); return;
      case 'dyadic':
        this.product(e.acc, e.m); this.expr(e.c[0]);
        code.op('i64.add'); this.count(e.shift, 'i64');
        code.op('i64.shr_s').op('i32.wrap_i64');
        return;
      case 'dyadic2':
        this.product(e.x, e.mx); this.product(e.y, e.my);
        code.op('i64.add'); this.expr(e.c[0]);
        code.op('i64.add'); this.count(e.shift, 'i64');
        code.op('i64.shr_s').op('i32.wrap_i64');
        return;
      case 'splat': case 'pick': case 'broadcast': case 'widen': case 'pack': case 'zip': case 'reduce':
        throw new LoopError(`${e.op} of a scalar`);
    }
  }
  /** a·b of two i32 as i64 */
  private product(a: Expr, b: Expr): void {
    this.expr(a); this.code.op('i64.extend_i32_s');
    if (b.op === 'const') this.code.i64(b.value);
    else { this.expr(b); this.code.op('i64.extend_i32_s'); }
    this.code.op('i64.mul');
  }
  private scalarLoad(at: Address, to: Elem, extra: { readonly low: number; push(): void } | null): void {
    const from = at.buffer.e;
    const offset = this.address(at, extra);
    const width = bitsOf(from);
    const p = to === 'i64' ? 'i64' : 'i32';
    this.code.memory((width === (p === 'i64' ? 64 : 32) ? `${p}.load` : `${p}.load${width}_${sign(from)}`) as MemoryOp, offset, width / 8);
  }
  /** An index lane as an i32 to be added to an address. */
  private laneIndex(index: Expr, push: () => void): { readonly low: number; push(): void } {
    return { low: this.range(index)[0], push: () => { push(); if (index.type.e === 'i64') this.code.op('i32.wrap_i64'); } };
  }
  /** The lesser or greater of two scalars. */
  private least(op: 'min' | 'max', a: Local, b: Local, e: Elem): void {
    this.code.get(a).get(b).get(a).get(b).op(plain(`${a.type}.${op === 'min' ? 'lt' : 'gt'}_${sign(e)}`)).op('select');
  }
  /** The signed scalar on the stack, limited to an element; an i64 becomes an i32. */
  private saturate(p: 'i32' | 'i64', e: Elem): void {
    const [low, high] = limitsOf(e);
    const value = this.code.local(p);
    this.code.set(value);
    for (const [bound, comparison] of [[low, 'lt_s'], [high, 'gt_s']] as const) {
      if (p === 'i32' && bound > 0x7fffffffn) continue;
      const push = (): unknown => (p === 'i64' ? this.code.i64(bound) : this.code.i32(Number(bound)));
      push();
      this.code.get(value).get(value);
      push();
      this.code.op(`${p}.${comparison}`).op('select').set(value);
    }
    this.code.get(value);
    if (p === 'i64') this.code.op('i32.wrap_i64');
  }
  private convertScalar(a: Expr, to: Elem): void {
    const from = a.type.e;
    this.expr(a);
    if (to === 'i64') { this.code.op(isSigned(from) ? 'i64.extend_i32_s' : 'i64.extend_i32_u'); return; }
    if (from === 'i64') this.code.op('i32.wrap_i64');
    const kept = bitsOf(to) === 32 || (limitsOf(to)[0] <= limitsOf(from)[0] && limitsOf(to)[1] >= limitsOf(from)[1]);
    if (!kept) this.normalise(to);
  }

  // ---- vectors

  private vector(e: Expr): void {
    const { code } = this;
    valueType(e.type);
    const elem = e.type.e;
    const shape = shapeOf(elem);
    switch (e.op) {
      case 'var': code.get(this.localOf(e)); return;
      case 'const': code.v128(lanesOf(e.value, elem)); return;
      case 'load': this.vectorLoad(e.at, e.type); return;
      case 'splat': this.splat(e.at, e.k, elem); return;
      case 'broadcast': this.expr(e.a); code.op(`${shape}.splat`); return;
      case 'lookup': this.lookup(e); return;
      // a word whose upper byte is 0 gets the table's first entry, 0, as its upper byte
      case 'pick': this.expr(e.table); this.expr(e.index); code.op('i8x16.swizzle'); return;
      case 'add': case 'sub': case 'addWrap': case 'subWrap':
        this.expr(e.a); this.expr(e.b);
        code.op(plain(`${shape}.${e.op.slice(0, 3)}`));
        return;
      case 'mul': case 'mulWrap': this.multiply(e.a, e.b, elem); return;
      case 'addSat': case 'subSat':
        this.expr(e.a); this.expr(e.b);
        code.op(plain(`${shape}.${e.op.slice(0, 3)}_sat_${sign(elem)}`));
        return;
      case 'min': case 'max':
        if (elem === 'i64') { const [a, b] = [this.held(e.a), this.held(e.b)]; code.get(a).get(b).get(a).get(b).op(e.op === 'min' ? 'i64x2.lt_s' : 'i64x2.gt_s').op('v128.bitselect'); return; }
        this.expr(e.a); this.expr(e.b);
        code.op(plain(`${shape}.${e.op}_${sign(elem)}`));
        return;
      case 'and': case 'or': case 'xor':
        this.expr(e.a); this.expr(e.b);
        code.op(`v128.${e.op}`);
        return;
      case 'shl': case 'shr': case 'shru':
        this.expr(e.a); this.expr(e.by);
        code.op(plain(`${shape}.${e.op === 'shl' ? 'shl' : `shr_${e.op === 'shru' ? 'u' : sign(elem)}`}`));
        return;
      case 'select': {
        const compared = e.a.type.e;
        this.expr(e.x); this.expr(e.y); this.expr(e.a); this.expr(e.b);
        code.op(plain(`${shapeOf(compared)}.${e.compare}${e.compare === 'eq' || e.compare === 'ne' ? '' : `_${sign(compared)}`}`)).op('v128.bitselect');
        return;
      }
      case 'mulQ15': this.expr(e.a); this.expr(e.b); code.op('i16x8.q15mulr_sat_s'); return;
      case 'convert': this.expr(e.a); this.extend(e.a.type.e, elem); return;
      case 'widen':
        this.expr(e.a);
        if (e.half === 1 && sizeOf(e.a.type) < REGISTER) this.lower(sizeOf(e.a.type) / 2);
        code.op(plain(`${shape}.extend_${e.half === 1 && sizeOf(e.a.type) === REGISTER ? 'high' : 'low'}_${shapeOf(e.a.type.e)}_${sign(e.a.type.e)}`));
        return;
      case 'narrow': {
        let from: Elem = e.a.type.e;
        this.expr(e.a);
        for (let to: Elem = from === 'i32' && bitsOf(elem) === 8 ? 'i16' : elem; from !== elem; from = to, to = elem) {
          const value = code.local('v128');
          code.tee(value).get(value).op(plain(`${shapeOf(to)}.narrow_${shapeOf(from)}_${sign(to)}`));
        }
        return;
      }
      case 'pack': this.expr(e.a); this.expr(e.b); code.op(plain(`${shape}.narrow_${shapeOf(e.a.type.e)}_${sign(elem)}`)); return;
      case 'zip': {
        const unit = e.unit * bytesOf(elem), half = REGISTER / unit;
        this.expr(e.a); this.expr(e.b);
        code.shuffle(groups(unit, Array.from({ length: half }, (_, i) => (i % 2) * half + e.half * (half / 2) + (i >> 1))));
        return;
      }
      case 'dot':
        if (e.d === 4) throw new LoopError('WebAssembly has no dot product of bytes in fours that is the same in every engine');
        if (elem === 'i16') {
          // sums of two products with 0…127 are the same in every engine: no |a·b + c·d| reaches 2^15
          const begun = e.acc.op === 'const' && Number(e.acc.value) === 0;
          if (!begun) this.expr(e.acc);
          this.expr(e.a); this.expr(e.b);
          code.op('i16x8.relaxed_dot_i8x16_i7x16_s');
          if (!begun) code.op('i16x8.add');
          return;
        }
        this.expr(e.acc); this.expr(e.a); this.expr(e.b);
        code.op(e.d === 2 ? 'i32x4.dot_i16x8_s' : 'i32x4.mul').op('i32x4.add');
        return;
      case 'reduce': this.reduce(e.parts); return;
      case 'dyadic': this.dyadic([[e.acc, e.m]], e); return;
      case 'dyadic2': this.dyadic([[e.x, e.mx], [e.y, e.my]], e); return;
      case 'clz': case 'across': throw new LoopError(`${e.op} of a vector`);
    }
  }

  /** Moves the bytes from `from` on down to byte 0. */
  private lower(from: number): void {
    const value = this.code.local('v128');
    this.code.tee(value).get(value).shuffle(bytes(0, REGISTER).map((i) => (i + from) % REGISTER));
  }
  /** Widens the lowest lanes of the vector on the stack; of equal width it stays. */
  private extend(from: Elem, to: Elem): void {
    for (let width = bitsOf(from); width < bitsOf(to); width = (width * 2) as 16 | 32 | 64) {
      this.code.op(plain(`${shapes[(width * 2) as 16 | 32 | 64]}.extend_low_${shapes[width]}_${sign(from)}`));
    }
  }
  /** Consecutive bytes into the lowest lanes. */
  private loadBytes(at: Address, size: number): void {
    const offset = this.address(at);
    const op = size === REGISTER ? 'v128.load' : size === 8 ? 'v128.load64_zero' : size === 4 ? 'v128.load32_zero' : size === 2 ? 'v128.load16_splat' : 'v128.load8_splat';
    this.code.memory(op, offset, bytesOf(at.buffer.e));
  }
  private vectorLoad(at: Address, { e, n }: Type): void {
    const from = at.buffer.e;
    const size = n * bytesOf(from);
    if (bitsOf(e) === 2 * bitsOf(from) && size === 8) {
      this.code.memory(`v128.load${bitsOf(from)}x${n}_${sign(from)}` as MemoryOp, this.address(at), bytesOf(from));
      return;
    }
    this.loadBytes(at, size);
    this.extend(from, e);
  }
  private splat(at: Address, k: number, to: Elem): void {
    const from = at.buffer.e;
    const size = k * bytesOf(from);
    if (size === REGISTER) this.loadBytes(at, size);
    else this.code.memory(`v128.load${(size * 8) as 8 | 16 | 32 | 64}_splat`, this.address(at), bytesOf(from));
    this.extend(from, to);
  }
  private lookup({ at, index, type }: Extract<Expr, { op: 'lookup' }>): void {
    const lanes = this.held(index);
    const shape = shapeOf(type.e);
    const extract = shapeOf(index.type.e);
    const same = at.buffer.e === type.e;
    const result = this.code.local('v128');
    if (!same) this.code.v128(new Uint8Array(REGISTER));
    for (let lane = 0; lane < type.n; lane++) {
      const at_ = this.laneIndex(index, () => this.code.get(lanes).lane(`${extract}.extract_lane${bitsOf(index.type.e) < 32 ? `_${sign(index.type.e)}` : ''}` as LaneOp, lane));
      if (same) {
        const offset = this.address(at, at_);
        this.code.get(result).memoryLane(`v128.load${bitsOf(type.e)}_lane`, lane, offset, bytesOf(type.e)).set(result);
      } else {
        this.scalarLoad(at, type.e, at_);
        this.code.lane(`${shape}.replace_lane`, lane);
      }
    }
    if (same) this.code.get(result);
  }
  private multiply(a: Expr, b: Expr, e: Elem): void {
    if (bitsOf(e) === 8) throw new LoopError('WebAssembly has no product of byte lanes');
    const widened = a.op === 'widen' && b.op === 'widen' && a.half === b.half && a.a.type.e === b.a.type.e && sizeOf(a.a.type) === REGISTER;
    if (widened) {
      this.expr(a.a); this.expr(b.a);
      this.code.op(plain(`${shapeOf(e)}.extmul_${a.half === 0 ? 'low' : 'high'}_${shapeOf(a.a.type.e)}_${sign(a.a.type.e)}`));
      return;
    }
    this.expr(a); this.expr(b);
    this.code.op(plain(`${shapeOf(e)}.mul`));
  }
  /** Sums of neighbours: pairs of vectors are halved until one is left. */
  private reduce(parts: readonly Expr[]): void {
    if (![2, 4].includes(parts.length) || parts[0].type.n !== 4) throw new LoopError(`WebAssembly reduces 2 or 4 vectors of i32x4, not ${parts.length} of ${showType(parts[0].type)}`);
    let vectors = parts.map((part) => this.held(part));
    while (vectors.length > 1) {
      vectors = Array.from({ length: vectors.length / 2 }, (_, i) => {
        const [a, b] = [vectors[2 * i], vectors[2 * i + 1]];
        const halved = this.code.local('v128');
        this.code.get(a).get(b).shuffle(EVEN_WORDS).get(a).get(b).shuffle(ODD_WORDS).op('i32x4.add').set(halved);
        return halved;
      });
    }
    this.code.get(vectors[0]);
  }
  private across(by: 'add' | 'min' | 'max', a: Expr): void {
    const shape = shapeOf(a.type.e);
    const value = this.code.local('v128');
    this.expr(a);
    this.code.set(value);
    for (let half = sizeOf(a.type) / 2; half >= bytesOf(a.type.e); half /= 2) {
      this.code.get(value).get(value).get(value).shuffle(bytes(0, REGISTER).map((i) => (i + half) % REGISTER));
      if (by === 'add') this.code.op(plain(`${shape}.add`));
      else if (shape === 'i64x2') {
        const other = this.code.local('v128');
        this.code.tee(other).get(value).get(other).op(by === 'min' ? 'i64x2.lt_s' : 'i64x2.gt_s').op('v128.bitselect');
      } else this.code.op(plain(`${shape}.${by}_${sign(a.type.e)}`));
      this.code.set(value);
    }
    const narrow = bitsOf(a.type.e) < 32 ? `_${sign(a.type.e)}` : '';
    this.code.get(value).lane(`${shape}.extract_lane${narrow}` as LaneOp, 0);
  }
  /** Σ products + c in 64-bit lanes, shifted, the low words joined. */
  private dyadic(products: readonly (readonly [Expr, Expr])[], { shift, pairing, c, type }: Extract<Expr, { op: 'dyadic' | 'dyadic2' }>): void {
    if (type.n !== 4 || pairing !== 'halves') throw new LoopError(`WebAssembly scales i32x4 by halves, not ${showType(type)} by ${pairing}`);
    const { code } = this;
    const factors = products.map(([x, m]) => [this.held(x), this.held(m)] as const);
    const [least, most] = this.range(shift);
    // below 32 the words are bits n to n + 31 of the sums; what is left of a greater shift moves the upper words on as 32-bit lanes
    const count = least < 32 ? this.held(shift) : null;
    const few = (): unknown => (most <= 32 ? code.get(count!) : code.get(count!).i32(32).get(count!).i32(32).op('i32.lt_s').op('select'));
    (['low', 'high'] as const).forEach((half, i) => {
      factors.forEach(([x, m], j) => {
        code.get(x).get(m).op(`i64x2.extmul_${half}_i32x4_s`);
        if (j > 0) code.op('i64x2.add');
      });
      this.expr(c[i]);
      code.op('i64x2.add');
      if (least < 32) { few(); code.op('i64x2.shr_u'); }
    });
    code.shuffle(least < 32 ? EVEN_WORDS : ODD_WORDS);
    if (least < 32) {
      if (most > 32) { code.get(count!); few(); code.op('i32.sub').op('i32x4.shr_s'); }
      return;
    }
    if (shift.op === 'const') { if (Number(shift.value) > 32) code.i32(Number(shift.value) - 32).op('i32x4.shr_s'); }
    else { this.expr(shift); code.i32(32).op('i32.sub').op('i32x4.shr_s'); }
  }
}

/** Sixteen bytes with the value in every lane. */
const lanesOf = (value: number | bigint, e: Elem): Uint8Array => {
  const out = new Uint8Array(REGISTER);
  const view = new DataView(out.buffer);
  const pattern = BigInt.asUintN(64, BigInt(value));
  for (let at = 0; at < REGISTER; at += bytesOf(e)) for (let i = 0; i < bytesOf(e); i++) view.setUint8(at + i, Number((pattern >> BigInt(8 * i)) & 255n));
  return out;
};
