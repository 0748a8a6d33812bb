/**
 * Proves that a loop program is safe to run. Types are right by construction (build.ts); here:
 *
 * - every index in use is bound by an enclosing loop or is a parameter, and no loop binds one twice;
 * - every variable is set before it is read; parameters are never set;
 * - every access lies inside its buffer for all values of the indices and of the computed term;
 * - only `out` and `temp` buffers are written; functions touch nothing but their parameters;
 * - an argument covers the whole parameter, has elements of its width, and may be written if the callee writes it; a written argument
 *   does not overlap another argument of the same call;
 * - index arguments lie in [0, count) and value arguments in their range;
 * - shift counts lie in [0, bits), those of `dyadic` in [0, 62]; indices of `pick` in [0, 15];
 * - no function calls itself, directly or through others.
 *
 * **Ranges.** Computed terms and shift counts are bounded by interval arithmetic over the expression: constants, element types, `min`,
 * `max`, `and`, shifts, `narrow`, `clz`, and variables as the union over everything the function sets them to. What the exact
 * operations promise (see types.ts) is taken as given.
 */
import { bitsOf, bytesOf, isSigned, limitsOf, showType, TABLE_BYTES } from './build.ts';
import { LoopError, type Address, type Affine, type Buffer, type Elem, type Expr, type Fn, type Index, type Program, type Stmt, type Var } from './types.ts';
import { addressOf, expressionsOf, operandsOf, visit, visitStatements } from './walk.ts';

export type Interval = readonly [number, number];

const ofElement = (e: Elem): Interval => {
  const [low, high] = limitsOf(e);
  return [Number(low), Number(high)];
};
const union = (a: Interval, b: Interval): Interval => [Math.min(a[0], b[0]), Math.max(a[1], b[1])];
const clamped = (a: Interval, [low, high]: Interval): Interval => [Math.min(Math.max(a[0], low), high), Math.min(Math.max(a[1], low), high)];
const inside = (a: Interval, b: Interval): boolean => a[0] >= b[0] && a[1] <= b[1];
/** Bits needed for 0 … high. */
const bitLength = (high: number): number => (high <= 0 ? 0 : Math.floor(Math.log2(high)) + 1);

/** Bounds of the expressions of one body. */
export type Ranges = (e: Expr) => Interval;
export const rangesOf = (body: readonly Stmt[]): Ranges => {
  const settings = new Map<Var, Expr[]>();
  visitStatements(body, (stmt) => { if (stmt.s === 'set') settings.set(stmt.v, [...(settings.get(stmt.v) ?? []), stmt.e]); });
  const known = new Map<Expr, Interval>();
  const range: Ranges = (e) => {
    const found = known.get(e);
    if (found !== undefined) return found;
    const whole = ofElement(e.type.e);
    known.set(e, whole);                                              // for variables that depend on themselves
    const computed = compute(e, whole);
    const result: Interval = Math.abs(computed[0]) <= Number.MAX_SAFE_INTEGER && Math.abs(computed[1]) <= Number.MAX_SAFE_INTEGER ? computed : whole;
    known.set(e, result);
    return result;
  };
  const compute = (e: Expr, whole: Interval): Interval => {
    const fitting = (a: Interval): Interval => (inside(a, whole) ? a : whole);
    switch (e.op) {
      case 'var': {
        const all = settings.get(e);
        if (e.range !== null) return e.range;
        return all === undefined ? whole : all.map(range).reduce(union);
      }
      case 'const': return [Number(e.value), Number(e.value)];
      case 'load': case 'splat': case 'lookup': return ofElement(e.at.buffer.e);
      case 'pick': return range(e.table);
      case 'broadcast': case 'widen': return range(e.a);
      case 'convert': return fitting(range(e.a));
      case 'narrow': return clamped(range(e.a), whole);
      case 'pack': return clamped(union(range(e.a), range(e.b)), whole);
      case 'zip': return union(range(e.a), range(e.b));
      case 'select': return union(range(e.x), range(e.y));
      case 'clz': {
        const [low, high] = range(e.a);
        const bits = bitsOf(e.type.e);
        return low < 0 ? [0, bits] : [bits - bitLength(high), bits - bitLength(low)];
      }
      case 'across': return e.by === 'add' ? clamped([range(e.a)[0] * e.a.type.n, range(e.a)[1] * e.a.type.n], whole) : range(e.a);
      case 'mulQ15': case 'dot': case 'reduce': return whole;
      case 'dyadic': case 'dyadic2': {
        const s = range(e.shift)[0];
        return s <= 32 ? whole : [-(2 ** (63 - s)), 2 ** (63 - s) - 1];
      }
      case 'shl': case 'shr': case 'shru': return shifted(e.op, range(e.a), clamped(range(e.by), [0, bitsOf(e.type.e) - 1]), e.type.e);
      default: return joined(e.op, range(e.a), range(e.b), whole);
    }
  };
  return range;
};

const corners = (a: Interval, b: Interval, f: (x: number, y: number) => number): Interval => {
  const all = [f(a[0], b[0]), f(a[0], b[1]), f(a[1], b[0]), f(a[1], b[1])];
  return [Math.min(...all), Math.max(...all)];
};
const shifted = (op: 'shl' | 'shr' | 'shru', a: Interval, by: Interval, e: Elem): Interval => {
  const whole = ofElement(e);
  if (op === 'shl') {
    const scaled = corners(a, by, (x, n) => x * 2 ** n);
    return inside(scaled, whole) ? scaled : whole;
  }
  if (op === 'shr' || a[0] >= 0) return corners(a, by, (x, n) => Math.floor(x / 2 ** n));
  return by[0] === 0 && isSigned(e) ? whole : [0, 2 ** (bitsOf(e) - by[0]) - 1];
};
const joined = (op: Extract<Expr, { readonly a: Expr; readonly b: Expr }>['op'], a: Interval, b: Interval, whole: Interval): Interval => {
  const fitting = (x: Interval): Interval => (inside(x, whole) ? x : whole);
  const sum: Interval = [a[0] + b[0], a[1] + b[1]];
  const difference: Interval = [a[0] - b[1], a[1] - b[0]];
  switch (op) {
    case 'add': case 'addSat': return clamped(sum, whole);
    case 'sub': case 'subSat': return clamped(difference, whole);
    case 'mul': return clamped(corners(a, b, (x, y) => x * y), whole);
    case 'addWrap': return fitting(sum);
    case 'subWrap': return fitting(difference);
    case 'mulWrap': return fitting(corners(a, b, (x, y) => x * y));
    case 'min': return [Math.min(a[0], b[0]), Math.min(a[1], b[1])];
    case 'max': return [Math.max(a[0], b[0]), Math.max(a[1], b[1])];
    case 'and': return a[0] >= 0 && b[0] >= 0 ? [0, Math.min(a[1], b[1])] : a[0] >= 0 ? [0, a[1]] : b[0] >= 0 ? [0, b[1]] : whole;
    case 'or': case 'xor': return a[0] >= 0 && b[0] >= 0 ? [0, 2 ** bitLength(Math.max(a[1], b[1])) - 1] : whole;
    default: return whole;
  }
};

/** Bounds of an affine expression over all values of its indices. */
export const affineRange = ({ offset, terms }: Affine): Interval =>
  terms.reduce<Interval>(([low, high], [i, stride]) => {
    const reach = (i.count - 1) * stride;
    return [low + Math.min(0, reach), high + Math.max(0, reach)];
  }, [offset, offset]);

const writable = (b: Buffer): boolean => b.role === 'out' || b.role === 'temp';
const showAddress = (a: Address): string =>
  `${a.buffer.name}[${[`${a.offset}`, ...a.terms.map(([i, s]) => `${i.name}*${s}`), ...(a.computed === null ? [] : [`value*${a.computed.stride}`])].join(' + ')}]`;

/** Throws LoopError at the first fault. */
export const verify = (program: Program): void => {
  const done = new Set<Fn>();
  const active: Fn[] = [];
  const check = (place: string, body: readonly Stmt[], buffers: readonly Buffer[], indices: readonly Index[], values: readonly Var[]): void => {
    const refuse = (why: string): never => { throw new LoopError(`${place}: ${why}`); };
    const seen = new Set<Buffer>(buffers);
    if (seen.size < buffers.length) refuse('a buffer is declared twice');
    const range = rangesOf(body);
    const assigned = new Set<Var>(values);
    const bound = new Set<Index>(indices);

    const bounded = (a: Affine): Interval => {
      for (const [i] of a.terms) if (!bound.has(i)) refuse(`index ${i.name} is not bound here`);
      return affineRange(a);
    };
    const extent = (a: Address, length: number, lanes: Interval = [0, 0]): void => {
      if (!seen.has(a.buffer)) refuse(`buffer ${a.buffer.name} is not declared here`);
      const [low, high] = bounded(a);
      const moved: Interval = a.computed === null ? [0, 0] : corners(range(a.computed.value), [a.computed.stride, a.computed.stride], (x, y) => x * y);
      const total: Interval = [low + moved[0] + lanes[0], high + moved[1] + lanes[1] + length - 1];
      if (!inside(total, [0, a.buffer.length - 1])) refuse(`${showAddress(a)} reaches ${total[0]} … ${total[1]} of ${a.buffer.length} elements`);
    };
    const shiftIn = (by: Expr, high: number): void => {
      if (!inside(range(by), [0, high])) refuse(`a shift count lies in ${range(by).join(' … ')}, not in 0 … ${high}`);
    };
    const expression = (top: Expr): void => visit(top, (e) => {
      if (e.op === 'var' && !assigned.has(e)) refuse(`variable ${e.name} is read before it is set`);
      const from = addressOf(e);
      if (from !== null) extent(from, e.op === 'splat' ? e.k : e.op === 'load' ? e.type.n : 1, e.op === 'lookup' ? range(e.index) : [0, 0]);
      if (e.op === 'shl' || e.op === 'shr' || e.op === 'shru') shiftIn(e.by, bitsOf(e.type.e) - 1);
      if (e.op === 'dyadic' || e.op === 'dyadic2') shiftIn(e.shift, 62);
      if (e.op === 'pick' && !inside(range(e.index), [0, TABLE_BYTES - 1])) refuse(`an index lies in ${range(e.index).join(' … ')}, not in 0 … ${TABLE_BYTES - 1}`);
    });

    const statement = (stmt: Stmt): void => {
      expressionsOf(stmt).forEach(expression);
      switch (stmt.s) {
        case 'set':
          if (values.includes(stmt.v)) refuse(`parameter ${stmt.v.name} is set`);
          assigned.add(stmt.v);
          return;
        case 'store':
          if (!writable(stmt.at.buffer)) refuse(`buffer ${stmt.at.buffer.name} is read only`);
          extent(stmt.at, stmt.e.type.n);
          return;
        case 'for':
          if (bound.has(stmt.index)) refuse(`index ${stmt.index.name} is bound twice`);
          bound.add(stmt.index);
          stmt.body.forEach(statement);
          bound.delete(stmt.index);
          return;
        case 'call': callee(stmt);
      }
    };
    const callee = ({ fn, args }: Extract<Stmt, { s: 'call' }>): void => {
      const to = (what: string): string => `call of ${fn.name}: ${what}`;
      fn.buffers.forEach((param, i) => {
        const arg = args.buffers[i];
        if (bytesOf(arg.buffer.e) !== bytesOf(param.e)) refuse(to(`${param.name} has ${param.e} elements, ${arg.buffer.name} ${arg.buffer.e}`));
        if (writable(param) && !writable(arg.buffer)) refuse(to(`${arg.buffer.name} is read only, but ${param.name} is written`));
        extent(arg, param.length);
        fn.buffers.forEach((other, j) => {
          if (i === j || !writable(param) || args.buffers[j].buffer !== arg.buffer) return;
          if (!apart(arg, param.length, args.buffers[j], other.length)) refuse(to(`${param.name} is written and may overlap ${other.name}`));
        });
      });
      fn.indices.forEach((param, i) => {
        const reach = bounded(args.indices[i]);
        if (!inside(reach, [0, param.count - 1])) refuse(to(`index ${param.name} gets ${reach.join(' … ')} of ${param.count}`));
      });
      fn.values.forEach((param, i) => {
        const given = range(args.values[i]);
        if (param.type.e !== args.values[i].type.e || args.values[i].type.n !== 1) refuse(to(`${param.name} is ${showType(param.type)}, not ${showType(args.values[i].type)}`));
        if (param.range !== null && !inside(given, param.range)) refuse(to(`${param.name} gets ${given.join(' … ')}, not in ${param.range.join(' … ')}`));
      });
      if (active.includes(fn)) refuse(to('recursion'));
      if (done.has(fn)) return;
      active.push(fn);
      check(`${program.name}, function ${fn.name}`, fn.body, fn.buffers, fn.indices, fn.values);
      active.pop();
      done.add(fn);
    };
    body.forEach(statement);
  };
  check(program.name, program.body, program.buffers, [], []);
};

/** Whether two stretches of one buffer never overlap, the indices having the same values in both. */
const apart = (a: Address, lengthA: number, b: Address, lengthB: number): boolean => {
  if (a.computed !== null || b.computed !== null) return false;
  const terms = new Map<Index, number>();
  for (const [i, stride] of b.terms) terms.set(i, stride);
  for (const [i, stride] of a.terms) terms.set(i, (terms.get(i) ?? 0) - stride);
  const [low, high] = affineRange({ offset: b.offset - a.offset, terms: [...terms] });
  return low >= lengthA || high <= -lengthB;
};

/** Whether a body contains an expression of this kind: for tests and reports. */
export const uses = (body: readonly Stmt[], op: Expr['op']): boolean => {
  const has = (e: Expr): boolean => e.op === op || operandsOf(e).some(has);
  return body.some((stmt) => expressionsOf(stmt).some(has) || (stmt.s === 'for' && uses(stmt.body, op)) || (stmt.s === 'call' && uses(stmt.fn.body, op)));
};
