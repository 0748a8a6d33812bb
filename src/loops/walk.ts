/** Traversal and rewriting of loop programs. */
import { affine, at } from './build.ts';
import type { Address, Affine, Expr, Fn, Index, Program, Stmt } from './types.ts';

/** The expressions that an expression is made of, the values of computed addresses included. */
export const operandsOf = (e: Expr): readonly Expr[] => {
  switch (e.op) {
    case 'var': case 'const': return [];
    case 'load': case 'splat': return e.at.computed === null ? [] : [e.at.computed.value];
    case 'lookup': return e.at.computed === null ? [e.index] : [e.index, e.at.computed.value];
    case 'pick': return [e.table, e.index];
    case 'broadcast': case 'clz': case 'convert': case 'widen': case 'narrow': case 'across': return [e.a];
    case 'shl': case 'shr': case 'shru': return [e.a, e.by];
    case 'select': return [e.a, e.b, e.x, e.y];
    case 'dot': return [e.acc, e.a, e.b];
    case 'reduce': return e.parts;
    case 'dyadic': return [e.shift, e.acc, e.m, ...e.c];
    case 'dyadic2': return [e.shift, e.x, e.mx, e.y, e.my, ...e.c];
    default: return [e.a, e.b];
  }
};

/** The address that an expression itself reads. */
export const addressOf = (e: Expr): Address | null => (e.op === 'load' || e.op === 'splat' || e.op === 'lookup' ? e.at : null);

/** Every expression of a tree, operands before users. */
export const visit = (e: Expr, see: (e: Expr) => void): void => {
  for (const operand of operandsOf(e)) visit(operand, see);
  see(e);
};

/** The top expressions of one statement, without those of nested statements. */
export const expressionsOf = (stmt: Stmt): readonly Expr[] => {
  const computed = (a: Address): readonly Expr[] => (a.computed === null ? [] : [a.computed.value]);
  switch (stmt.s) {
    case 'set': return [stmt.e];
    case 'store': return [...computed(stmt.at), stmt.e];
    case 'for': return [];
    case 'call': return [...stmt.args.buffers.flatMap(computed), ...stmt.args.values];
  }
};

/** Every statement, outer before inner. */
export const visitStatements = (body: readonly Stmt[], see: (stmt: Stmt) => void): void => {
  for (const stmt of body) {
    see(stmt);
    if (stmt.s === 'for') visitStatements(stmt.body, see);
  }
};

/** The functions that a body reaches, callees before callers, each once. */
export const functionsOf = (body: readonly Stmt[]): readonly Fn[] => {
  const found = new Set<Fn>();
  const reach = (stmts: readonly Stmt[]): void => visitStatements(stmts, (stmt) => {
    if (stmt.s !== 'call' || found.has(stmt.fn)) return;
    reach(stmt.fn.body);
    found.add(stmt.fn);
  });
  reach(body);
  return [...found];
};

/** The expression with every operand sent through `f` and every address through `place`. */
const mapExpr = (e: Expr, f: (e: Expr) => Expr, place: (a: Address) => Address): Expr => {
  switch (e.op) {
    case 'var': case 'const': return e;
    case 'load': case 'splat': return { ...e, at: place(e.at) };
    case 'lookup': return { ...e, at: place(e.at), index: f(e.index) };
    case 'pick': return { ...e, table: f(e.table), index: f(e.index) };
    case 'broadcast': case 'clz': case 'convert': case 'widen': case 'narrow': case 'across': return { ...e, a: f(e.a) };
    case 'shl': case 'shr': case 'shru': return { ...e, a: f(e.a), by: f(e.by) };
    case 'select': return { ...e, a: f(e.a), b: f(e.b), x: f(e.x), y: f(e.y) };
    case 'dot': return { ...e, acc: f(e.acc), a: f(e.a), b: f(e.b) };
    case 'reduce': return { ...e, parts: e.parts.map(f) };
    case 'dyadic': return { ...e, shift: f(e.shift), acc: f(e.acc), m: f(e.m), c: e.c.map(f) };
    case 'dyadic2': return { ...e, shift: f(e.shift), x: f(e.x), mx: f(e.mx), y: f(e.y), my: f(e.my), c: e.c.map(f) };
    default: return { ...e, a: f(e.a), b: f(e.b) };
  }
};

/** The body with one index replaced by a number. */
const bound = (body: readonly Stmt[], index: Index, value: number): readonly Stmt[] => {
  const fixed = (a: Affine): Affine => affine(
    a.offset + a.terms.reduce((s, [i, stride]) => (i === index ? s + value * stride : s), 0), ...a.terms.filter(([i]) => i !== index));
  const place = (a: Address): Address => {
    const moved = fixed(a);
    return a.computed === null ? at(a.buffer, moved.offset, ...moved.terms) : at(a.buffer, moved.offset, ...moved.terms, [value_(a.computed.value), a.computed.stride]);
  };
  const value_ = (e: Expr): Expr => mapExpr(e, value_, place);
  const statement = (stmt: Stmt): Stmt => {
    switch (stmt.s) {
      case 'set': return { ...stmt, e: value_(stmt.e) };
      case 'store': return { ...stmt, at: place(stmt.at), e: value_(stmt.e) };
      case 'for': return { ...stmt, body: stmt.body.map(statement) };
      case 'call': return { ...stmt, args: { buffers: stmt.args.buffers.map(place), indices: stmt.args.indices.map(fixed), values: stmt.args.values.map(value_) } };
    }
  };
  return body.map(statement);
};

/**
 * Repeats the bodies of loops marked `unroll` and of loops of one iteration, so that printers meet loops only. Where threads share loops
 * (`shared`), one iteration that is marked is one thread's and stays.
 */
export const unrolled = (body: readonly Stmt[], shared = false): readonly Stmt[] => body.flatMap((stmt) => {
  if (stmt.s !== 'for') return [stmt];
  const inner = unrolled(stmt.body, shared);
  if (stmt.mark !== 'unroll' && (stmt.index.count > 1 || (shared && stmt.mark === 'parallel'))) return [{ ...stmt, body: inner }];
  return Array.from({ length: stmt.index.count }, (_, i) => bound(inner, stmt.index, i)).flat();
});

/** Whether a function has loops that threads share. */
export const isShared = ({ body }: Fn): boolean => {
  let found = false;
  visitStatements(body, (stmt) => { found ||= stmt.s === 'for' && stmt.mark === 'parallel'; });
  return found;
};

/** The body without settings of variables that nothing reads. */
export const withoutUnread = (body: readonly Stmt[]): readonly Stmt[] => {
  const read = new Set<Expr>();
  let dropped = false;
  visitStatements(body, (stmt) => {
    for (const top of expressionsOf(stmt)) visit(top, (e) => { if (e.op === 'var') read.add(e); });
  });
  const kept = (stmts: readonly Stmt[]): readonly Stmt[] => stmts.flatMap((stmt): readonly Stmt[] => {
    if (stmt.s === 'for') return [{ ...stmt, body: kept(stmt.body) }];
    if (stmt.s !== 'set' || read.has(stmt.v)) return [stmt];
    dropped = true;
    return [];
  });
  const rest = kept(body);
  return dropped ? withoutUnread(rest) : body;
};

/**
 * Merges functions that are equal but for names, so that layers of equal shape call one copy. The first of a kind stays, with its name
 * and its note.
 */
export const shareFunctions = (program: Program): Program => {
  const kept = new Map<Fn, Fn>();
  const byMeaning = new Map<string, Fn>();
  const relinked = (body: readonly Stmt[]): readonly Stmt[] => body.map((stmt) =>
    stmt.s === 'for' ? { ...stmt, body: relinked(stmt.body) } : stmt.s === 'call' ? { ...stmt, fn: kept.get(stmt.fn)! } : stmt);
  for (const original of functionsOf(program.body)) {
    const fn: Fn = { ...original, body: relinked(original.body) };
    const key = meaningOf(fn, byMeaning);
    const known = byMeaning.get(key) ?? fn;
    byMeaning.set(key, known);
    kept.set(original, known);
  }
  return { ...program, body: relinked(program.body) };
};

/** Text that two functions share exactly when they differ in names and notes only. */
const meaningOf = (fn: Fn, known: ReadonlyMap<string, Fn>): string => {
  const numbers = new Map<object, number>();
  const number = (x: object): number => {
    const found = numbers.get(x) ?? numbers.size;
    numbers.set(x, found);
    return found;
  };
  const callees = [...known.values()];
  const replace = (key: string, value: unknown): unknown => {
    if (key === 'name' || key === 'note') return undefined;
    if (typeof value === 'bigint') return `${value}n`;
    if (typeof value !== 'object' || value === null) return value;
    if (key === 'fn') return callees.indexOf(value as Fn);
    const x = value as { readonly op?: string; readonly role?: string; readonly count?: number };
    if (x.op === 'var') { const v = x as Extract<Expr, { op: 'var' }>; return ['v', number(x), v.type.e, v.type.n, v.range]; }
    if (x.role !== undefined) { const b = x as Address['buffer']; return ['b', number(x), b.e, b.length, b.role === 'in' || b.role === 'const']; }
    if (x.count !== undefined) return ['i', number(x), x.count];
    return value;
  };
  return JSON.stringify([fn.buffers, fn.indices, fn.values, fn.body], replace);
};
