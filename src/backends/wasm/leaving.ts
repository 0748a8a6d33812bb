/**
 * Which vectors go through memory on their way out of a loop. V8 has a value for which registers run out in memory from its definition
 * on, even where they run out later: sums that a loop defines, and that a rescale behind it has too few registers for, would be stored
 * in every iteration. The printer puts them into globals instead as the loop ends, and brings each back where it is read: engines
 * neither move that into the loop nor see through it. Globals are an instance's own, so each thread has its own.
 */
import type { Stmt, Var } from '../../loops/types.ts';
import { expressionsOf, visit, visitStatements } from '../../loops/walk.ts';
import type { Code, Global, Local } from '../../wasm/code.ts';

type Loop = Extract<Stmt, { s: 'for' }>;

/** With fewer vectors registers do not run out, and fewer iterations are not worth the way through memory. */
const [MANY_VECTORS, MANY_TURNS] = [2, 8];
const turnsOf = ({ index, body }: Loop): number => index.count * Math.max(1, ...body.map((stmt) => (stmt.s === 'for' ? turnsOf(stmt) : 1)));

/** Vectors that a loop sets and that a statement behind it reads, beyond storing them as they are; none where that does not pay. */
export const leaving = (over: Loop, behind: readonly Stmt[]): readonly Var[] => {
  const made = new Set<Var>();
  if (turnsOf(over) >= MANY_TURNS) visitStatements(over.body, (stmt) => { if (stmt.s === 'set' && stmt.v.type.n > 1) made.add(stmt.v); });
  const read = new Set<Var>();
  const follow = (stmts: readonly Stmt[]): void => {
    for (const stmt of stmts) {
      for (const top of expressionsOf(stmt)) if (!(stmt.s === 'store' && top.op === 'var')) visit(top, (e) => { if (e.op === 'var' && made.has(e)) read.add(e); });
      if (stmt.s === 'for') follow(stmt.body);
      if (stmt.s === 'set' && !read.has(stmt.v)) made.delete(stmt.v);
    }
  };
  if (made.size >= MANY_VECTORS) follow(behind);
  return read.size < MANY_VECTORS ? [] : [...read];
};

/** Where vectors are that have left a loop and were not read yet. */
export type InGlobals = ReadonlyMap<Var, Global>;

/** The way into globals and back. */
export class Away {
  private readonly code: Code;
  private readonly localOf: (v: Var) => Local;
  private readonly globalOf: (number: number) => Global;

  constructor(code: Code, localOf: (v: Var) => Local, globalOf: (number: number) => Global) {
    this.code = code;
    this.localOf = localOf;
    this.globalOf = globalOf;
  }
  put(vectors: readonly Var[]): InGlobals {
    return new Map(vectors.map((v, i) => {
      const global = this.globalOf(i);
      this.code.get(this.localOf(v)).globalSet(global);
      return [v, global];
    }));
  }
  /** Brings back what a statement reads; before a loop or a call, all. Returns what is left. */
  broughtBack(away: InGlobals, stmt: Stmt): InGlobals {
    if (away.size === 0) return away;
    const left = new Map(away);
    const bring = (v: Var): void => {
      this.code.globalGet(left.get(v)!).set(this.localOf(v));
      left.delete(v);
    };
    if (stmt.s === 'for' || stmt.s === 'call') for (const v of away.keys()) bring(v);
    else for (const top of expressionsOf(stmt)) visit(top, (e) => { if (e.op === 'var' && left.has(e)) bring(e); });
    return left;
  }
}
