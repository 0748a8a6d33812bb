/**
 * Addresses of a function. A static buffer has a fixed byte address, a buffer parameter is an i32. Every distinct sum of terms index·stride
 * has a local, its cursor: entering a loop copies the cursor of the outer terms, the end of an iteration adds the stride. Constants go to
 * the offset field of the instruction; so no loop multiplies to find an address. That field and the cursor are added as non-negative
 * numbers, so where a stride, a constant or a computed term is negative the whole sum is made in wrapping i32 arithmetic instead.
 */
import { bytesOf } from '../../loops/build.ts';
import type { Address, Affine, Buffer, Expr, Index, Stmt } from '../../loops/types.ts';
import { operandsOf } from '../../loops/walk.ts';
import type { Code, Local } from '../../wasm/code.ts';

/** Where a buffer begins: at a fixed address, or at that in a local, or some bytes on from there. */
export type Base = number | Local | { readonly local: Local; readonly offset: number };

/** Where an address comes from: a cursor (or nothing), and the constant added to it in the instruction. */
export interface Place {
  readonly base: Local | null;
  readonly offset: number;
}
/** A sum of terms that lives in a local; `outer` is the sum without the innermost term. */
export interface Cursor {
  readonly local: Local;
  readonly outer: Place;
  readonly stride: number;
}

export class Cursors {
  private readonly code: Code;
  private readonly baseOf: (b: Buffer) => Base;
  private readonly cursors = new Map<string, Cursor>();
  private readonly moved = new Map<Index, Cursor[]>();
  /** parameters, then loops from the outside in, as bound at the statement in hand */
  private readonly bound: Index[];
  private readonly numbers = new Map<object, number>();

  constructor(code: Code, baseOf: (b: Buffer) => Base, parameters: Iterable<Index>) {
    this.code = code;
    this.baseOf = baseOf;
    this.bound = [...parameters];
  }

  /** The cursors that a loop or an index parameter moves. */
  movedBy(index: Index): readonly Cursor[] {
    return this.moved.get(index) ?? [];
  }
  /** Does what lies inside a loop. */
  within(index: Index, work: () => void): void {
    this.bound.push(index);
    work();
    this.bound.pop();
  }
  private number(x: object): number {
    const known = this.numbers.get(x) ?? this.numbers.size;
    this.numbers.set(x, known);
    return known;
  }
  /** The cursor of an affine sum in bytes over a base; made on first sight, which must be inside its loops. */
  private place(base: Local | null, offset: number, terms: readonly (readonly [Index, number])[], folded: boolean): Place {
    if (folded && terms.length > 0) return this.cursor(base, offset, [...terms].sort((a, b) => this.depth(a[0]) - this.depth(b[0])));
    return { base: this.cursor(base, 0, [...terms].sort((a, b) => this.depth(a[0]) - this.depth(b[0]))).base, offset };
  }
  private depth(i: Index): number {
    return this.bound.indexOf(i);
  }
  private cursor(base: Local | null, start: number, terms: readonly (readonly [Index, number])[]): Place {
    const last = terms.at(-1);
    if (last === undefined) return { base, offset: start };
    const key = `${base?.index ?? ''}+${start}${terms.map(([i, s]) => `+${this.number(i)}*${s}`).join('')}`;
    let found = this.cursors.get(key);
    if (found === undefined) {
      found = { outer: this.cursor(base, start, terms.slice(0, -1)), local: this.code.local('i32'), stride: last[1] };
      this.cursors.set(key, found);
      this.moved.set(last[0], [...(this.moved.get(last[0]) ?? []), found]);
    }
    return { base: found.local, offset: 0 };
  }
  placeOf(a: Address): Place {
    const size = bytesOf(a.buffer.e);
    const base = this.baseOf(a.buffer);
    const [local, start] = typeof base === 'number' ? [null, base] : 'local' in base ? [base.local, base.offset] : [base, 0];
    const folded = a.offset < 0 || a.terms.some(([, s]) => s < 0);
    return this.place(local, start + a.offset * size, a.terms.map(([i, s]) => [i, s * size] as const), folded);
  }
  /** Of an index argument: Σ terms, the offset left out. */
  placeOfIndex({ offset, terms }: Affine): Place {
    return this.place(null, offset, terms, false);
  }
  push({ base, offset }: Place): void {
    if (base === null) { this.code.i32(offset); return; }
    this.code.get(base);
    if (offset !== 0) this.code.i32(offset).op('i32.add');
  }

  /** Makes every cursor before code is written, so that a loop knows at its entry what it moves. */
  plan(body: readonly Stmt[]): void {
    const see = (e: Expr): void => {
      if (e.op === 'load' || e.op === 'splat' || e.op === 'lookup') this.placeOf(e.at);
      operandsOf(e).forEach(see);
    };
    const seeAddress = (a: Address): void => {
      this.placeOf(a);
      if (a.computed !== null) see(a.computed.value);
    };
    for (const stmt of body) {
      switch (stmt.s) {
        case 'set': see(stmt.e); break;
        case 'store': seeAddress(stmt.at); see(stmt.e); break;
        case 'for':
          this.within(stmt.index, () => { this.plan(stmt.body); });
          break;
        case 'call':
          stmt.args.buffers.forEach(seeAddress);
          stmt.args.indices.forEach((i) => this.placeOfIndex(i));
          stmt.args.values.forEach(see);
      }
    }
  }
}
