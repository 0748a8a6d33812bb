/**
 * `attention_int`: for each sample and head, keys and values are packed once; a block of query rows then makes its logits (a product),
 * its exponentials (row by row), the weighted sums (a product), and one rescale with the factor and shift of the row.
 */
import type { Value } from '../../ir/graph.ts';
import {
  across, add, and, at, broadcast, buffer, call, convert, dot, dyadic, fn, index, list, literal, load, loop, max, min, moved, mul, parameter, select, set, shr, store,
  sub, subWrap, variable,
} from '../../loops/build.ts';
import type { Address, Elem, Expr, Fn, Index, Stmt } from '../../loops/types.ts';
import { fillRows, multiply, panelLength, panelStarts, targetFor, walkOf, widenRows, type Walk } from './gemm.ts';
import { constant, elemOf, limits, operand, packed, scratch, shapeOf, type Binding, type Schedule, type ScheduleContext } from './kernel.ts';
import { collapse, overNest } from './nest.ts';
import { packAtRunTime } from './panels.ts';
import { reciprocalBinding, reciprocalBuffer, rowHalf, rowScale, rowShift } from './reciprocal.ts';
import { makeRescale, type RescaleClass } from './rescale.ts';
import { markFor, once } from './split.ts';
import type { Target } from './target.ts';
import { boundsOf, readWords, runOf, toCodes, writeCodes } from './words.ts';

/** Entries of the exponential table; the last one is 0. */
const EXP_LENGTH = 2816;
/** The same followed by zeros: a mask in place of a bound keeps every look-up within it. */
const EXP_PADDED = 4096;

/** Heads that threads share about evenly, as many as there are likely to be. */
const MANY_HEADS = 8;

interface Shape {
  readonly batch: number;
  readonly rows: number;
  readonly keys: number;
  readonly heads: number;
  readonly depth: number;
  readonly depthV: number;
  readonly q: Elem;
  readonly k: Elem;
  readonly v: Elem;
  readonly out: Elem;
  readonly masked: boolean;
  readonly newtonSteps: number;
  /** whether every difference of logits that matters fits 31 bits */
  readonly capped: boolean;
  /** whether the shift of the exponent is 32 or more */
  readonly wide: boolean;
  /** whether exponentials are shifted to the right */
  readonly shifted: boolean;
  /** query rows done together */
  readonly block: number;
}
interface AttentionAttrs {
  readonly heads: number;
  readonly mulLogit: number;
  readonly addLogit: bigint;
  readonly shiftLogit: number;
  readonly eShift: number;
  readonly newtonSteps: number;
  readonly mulOut: number;
  readonly shiftOut: number;
  readonly zero: number;
  readonly low: number;
  readonly high: number;
}

/** Rows of queries whose logits are kept at a time: whole tiles of products, about a dozen. */
const blockRows = ({ tile: [height] }: Target): number => height * Math.max(1, Math.floor(12 / height));

export const attention: Schedule = ({ root, output }, context) => {
  const [q, k, v] = ['q', 'k', 'v'].map((slot) => root.inputs[slot] as Value);
  const mask = root.inputs['mask'] as Value | null;
  const attrs = root.attrs as unknown as AttentionAttrs;
  const [batch, rows, width] = shapeOf(q);
  const [, keys, widthV] = shapeOf(v);
  const cap = exponentCap(attrs);
  const key: Shape = {
    batch, rows, keys, heads: attrs.heads, depth: width / attrs.heads, depthV: widthV / attrs.heads, q: elemOf(q.type.dtype), k: elemOf(k.type.dtype), v: elemOf(v.type.dtype),
    out: elemOf(output.type.dtype), masked: mask !== null, newtonSteps: attrs.newtonSteps, capped: cap !== null, wide: attrs.shiftLogit >= 32, shifted: attrs.eShift > 0,
    block: Math.min(rows, blockRows(context.target)),
  };
  const sizes = sizesOf(key, context.target);
  const buffers: readonly Binding[] = [
    { kind: 'value', value: output }, operand(q), operand(k), operand(v), packed((root.inputs['exp'] as Value).name, paddedTable(constant(root.inputs['exp'] as Value).data as Int16Array)), reciprocalBinding,
    ...(mask === null ? [] : [{ kind: 'constant', name: mask.name, data: Uint8Array.from(constant(mask).data as Uint8Array) } as const]),
    scratch('i16', sizes.keyPanels), scratch('i16', sizes.valuePanels), scratch('i16', sizes.queries), scratch('i32', sizes.logits), scratch('i16', sizes.weights), scratch('i32', sizes.sums),
    scratch('i32', 2 * key.block),
  ];
  return {
    fn: context.share('attention', key, attentionFn(context)), buffers,
    values: [attrs.mulLogit, attrs.addLogit, attrs.shiftLogit, cap ?? 0, ...(key.shifted ? [attrs.eShift] : []), attrs.mulOut, attrs.shiftOut, attrs.zero, attrs.low, attrs.high],
  };
};

const paddedTable = (exp: Int16Array): Int16Array => {
  const all = new Int16Array(EXP_PADDED);
  all.set(exp);
  return all;
};

/**
 * The least difference d of logits with (d·mulLogit + addLogit) >> shiftLogit ≥ 2815: beyond it the exponential is 0 and d may be cut,
 * which keeps it in 31 bits. Null where it does not fit.
 */
const exponentCap = ({ mulLogit, addLogit, shiftLogit }: AttentionAttrs): number | null => {
  if (mulLogit === 0) return 0;
  const needed = (BigInt(EXP_LENGTH - 1) << BigInt(shiftLogit)) - addLogit;
  const cap = needed <= 0n ? 0n : (needed + BigInt(mulLogit) - 1n) / BigInt(mulLogit);
  return cap < 2n ** 31n ? Number(cap) : null;
};

interface Sizes {
  readonly logitTarget: Target;
  readonly sumTarget: Target;
  readonly logitWalk: Walk;
  readonly sumWalk: Walk;
  readonly keyPanels: number;
  readonly valuePanels: number;
  readonly queries: number;
  readonly logits: number;
  readonly weights: number;
  readonly sums: number;
}
const sizesOf = ({ keys, depth, depthV, block }: Shape, target: Target): Sizes => {
  const [logitTarget, sumTarget] = [targetFor(target, keys), targetFor(target, depthV)];
  const [logitWalk, sumWalk] = [walkOf([], [], depth, logitTarget), walkOf([], [], keys, sumTarget)];
  return {
    logitTarget, sumTarget, logitWalk, sumWalk,
    keyPanels: panelStarts(keys, logitTarget).length * panelLength(logitWalk, logitTarget), valuePanels: panelStarts(depthV, sumTarget).length * panelLength(sumWalk, sumTarget),
    queries: block * logitWalk.padded, logits: block * keys, weights: block * sumWalk.padded, sums: block * depthV,
  };
};

const plain: RescaleClass = { kind: 'none', preShifted: false, wide: true, narrow: false, drops: false, y: null, code: 'i32', natural: true, table: null, out: 'i32' };

const attentionFn = ({ share, target }: ScheduleContext) => (name: string, shape: Shape): Fn => {
  const { batch, rows, keys, heads, depth, depthV, masked, block } = shape;
  const [width, widthV] = [heads * depth, heads * depthV];
  const sizes = sizesOf(shape, target);
  const result = buffer('out', shape.out, batch * rows * widthV, 'out');
  const [q, k, v] = [buffer('q', shape.q, batch * rows * width, 'in'), buffer('k', shape.k, batch * keys * width, 'in'), buffer('v', shape.v, batch * keys * widthV, 'in')];
  const [exp, seeds, mask] = [buffer('exp', 'i16', EXP_PADDED, 'const'), reciprocalBuffer(), buffer('mask', 'u8', rows * keys, 'const')];
  const [keyPanels, valuePanels] = [buffer('keyPanels', 'i16', sizes.keyPanels, 'temp'), buffer('valuePanels', 'i16', sizes.valuePanels, 'temp')];
  const [queries, logits] = [buffer('queries', 'i16', sizes.queries, 'temp'), buffer('logits', 'i32', sizes.logits, 'temp')];
  const [weights, sums, scales] = [buffer('e', 'i16', sizes.weights, 'temp'), buffer('sums', 'i32', sizes.sums, 'temp'), buffer('scales', 'i32', 2 * block, 'temp')];
  const values = [
    parameter('mulLogit', 'i32'), parameter('addLogit', 'i64'), parameter('shiftLogit', 'i32', shape.wide ? 32 : 1, shape.wide ? 62 : 31), parameter('cap', 'i32'),
    ...(shape.shifted ? [parameter('eShift', 'i32', 0, 14)] : []), parameter('mulOut', 'i32'), parameter('shiftOut', 'i32', 1, 62), parameter('zero', 'i32'),
    parameter('low', 'i32', ...limits(shape.out)), parameter('high', 'i32', ...limits(shape.out)),
  ];
  const [zero, low, high] = values.slice(-3);
  const none = makeRescale(plain, target, { channels: 0, y: 0 });
  const [b, h] = [index('sample', batch), index('head', heads)];
  const product = (walk: Walk, own: Target, rowOut: number) => ({ walk, rowA: walk.padded, rowOut, a: 'i16' as const, b: 'i16' as const, rescale: plain, inPlace: false, target: own });
  const row = share('attention_row', { keys, padded: sizes.sumWalk.padded, masked, newtonSteps: shape.newtonSteps, capped: shape.capped, wide: shape.wide, shifted: shape.shifted, target }, rowFn);

  /** One block of query rows; `from` gives where it begins in rows of a stride. */
  const pass = (count: number, from: (stride: number) => readonly [number, readonly (readonly [Index, number])[]]): readonly Stmt[] => {
    const place = (to: typeof q, perRow: number, extra: number): Address => {
      const [offset, terms] = from(perRow);
      return at(to, offset, [b, rows * perRow], ...terms, [h, extra]);
    };
    const [r, o] = [index('row', count), index('out', count)];
    const [maskOffset, maskTerms] = from(keys);
    const out = place(result, widthV, depthV);
    const bounds = new Map([1, runOf(target.lanes)].map((run) => [run, boundsOf(low, high, shape.out, run, false)]));
    const [factor, shift, half] = [variable('factor', 'i32'), variable('shift', 'i32'), variable('half', 'i64')];
    return [
      ...widenRows(place(q, width, depth), at(queries), count, depth, width, sizes.logitWalk.padded, 0, target),
      ...(sizes.logitWalk.padded === depth ? [] : fillRows(at(queries, depth), count, sizes.logitWalk.padded - depth, sizes.logitWalk.padded, 0, target)),
      ...multiply(product(sizes.logitWalk, sizes.logitTarget, keys), count, keys, none, { out: at(logits), a: at(queries), b: at(keyPanels), y: null, channel: [] }, share),
      loop(r, [call(row, [
        at(weights, 0, [r, sizes.sumWalk.padded]), at(scales, 0, [r, 2]), at(logits, 0, [r, keys]), exp, seeds, ...(masked ? [at(mask, maskOffset, ...maskTerms, [r, keys])] : []),
      ], [], values.slice(0, -3))]),
      ...multiply(product(sizes.sumWalk, sizes.sumTarget, depthV), count, depthV, none, { out: at(sums), a: at(weights), b: at(valuePanels), y: null, channel: [] }, share),
      ...[...bounds.values()].flatMap(({ setup }) => setup),
      loop(o, [
        set(factor, load(at(scales, 0, [o, 2]))), set(shift, rowShift(load(at(scales, 1, [o, 2])))), set(half, rowHalf(shift)),
        ...overNest({ shape: [depthV], strides: [[1]] }, runOf(target.lanes), (run, locate) => {
          const words = readWords(moved(locate(0, sums), 0, [o, depthV]), 1, run);
          const n = words.parts[0].type.n;
          const addends = n === 1 ? [half] : [broadcast(half, n / 2), broadcast(half, n / 2)];
          const scaled = words.parts.map((part) => add(dyadic(shift, target.pairing, part, broadcast(factor, n), addends), broadcast(zero, n)));
          const to = locate(0, result);
          return [...words.setup, ...writeCodes(moved(out, to.offset, ...to.terms, [o, widthV]), toCodes(scaled, shape.out, bounds.get(run)!))];
        }),
      ]),
    ];
  };
  const blocks = Math.floor(rows / block);
  const i = index('block', blocks);
  const mark = markFor(batch * heads * rows * keys * (depth + depthV), batch * heads * rows * (keys + depthV), target);
  // few heads are shared unevenly; then every thread packs the keys and values of each, and blocks of rows are shared
  const [perHead, perBlock] = batch * heads < MANY_HEADS && blocks >= 2 * batch * heads ? [null, mark] : [mark, null];
  const body = [
    ...packAtRunTime(at(k, 0, [b, keys * width], [h, depth]), at(keyPanels), keys, sizes.logitWalk, 1, width, 0, sizes.logitTarget),
    ...packAtRunTime(at(v, 0, [b, keys * widthV], [h, depthV]), at(valuePanels), depthV, sizes.sumWalk, widthV, 1, 0, sizes.sumTarget),
    loop(i, pass(block, (stride) => [0, [[i, block * stride]]]), perBlock),
    ...(rows % block === 0 ? [] : once(pass(rows % block, (stride) => [blocks * block * stride, []]), perBlock)),
  ];
  return fn(name, { buffers: [result, q, k, v, exp, seeds, ...(masked ? [mask] : []), keyPanels, valuePanels, queries, logits, weights, sums, scales], values }, [loop(b, [loop(h, body, perHead)])]);
};

interface RowShape {
  readonly keys: number;
  readonly padded: number;
  readonly masked: boolean;
  readonly newtonSteps: number;
  readonly capped: boolean;
  readonly wide: boolean;
  readonly shifted: boolean;
  readonly target: Target;
}

/** Look-ups of one iteration: their work is little beside that of a loop. */
const SIDE_BY_SIDE = 4;

/** Logits of one row to exponentials, and the factor and shift that divide by their sum. */
const rowFn = (name: string, { keys, padded, masked, newtonSteps, capped, wide, shifted, target }: RowShape): Fn => {
  const [weights, scales] = [buffer('e', 'i16', padded, 'out'), buffer('scale', 'i32', 2, 'out')];
  const logits = buffer('logits', 'i32', keys, 'temp');
  const [exp, seeds, mask] = [buffer('exp', 'i16', EXP_PADDED, 'const'), reciprocalBuffer(), buffer('mask', 'u8', keys, 'const')];
  const [factor, addend] = [parameter('mulLogit', 'i32'), parameter('addLogit', 'i64')];
  const [shiftLogit, cap] = [parameter('shiftLogit', 'i32', wide ? 32 : 1, wide ? 62 : 31), parameter('cap', 'i32')];
  const [eShift, mulOut, shiftOut] = [parameter('eShift', 'i32', 0, 14), parameter('mulOut', 'i32'), parameter('shiftOut', 'i32', 1, 62)];
  const j = index('j', keys);
  const [top, total] = [variable('top', 'i32'), variable('total', 'i64')];
  const lowest = -(2 ** 31);
  const allowed = load(at(mask, 0, [j, 1]), 1, 'i32');

  const { lanes } = target;
  const whole = masked || lanes === 1 ? 0 : Math.floor(keys / lanes);
  const tops = variable('tops', 'i32', lanes);
  const [w, rest] = [index('w', Math.max(1, whole)), index('rest', Math.max(1, keys - whole * lanes))];
  const greatest: readonly Stmt[] = masked
    ? [set(top, literal(lowest, 'i32')), loop(j, [set(top, max(top, select('ne', allowed, 0, load(at(logits, 0, [j, 1])), lowest)))])]
    : [
      set(top, literal(lowest, 'i32')),
      ...(whole === 0 ? [] : [set(tops, literal(lowest, 'i32', lanes)), loop(w, [set(tops, max(tops, load(at(logits, 0, [w, lanes]), lanes)))]), set(top, across('max', tops))]),
      ...(keys === whole * lanes ? [] : [loop(rest, [set(top, max(top, load(at(logits, whole * lanes, [rest, 1]))))])]),
    ];
  /** Differences up to 2^32 − 1, cut to `cap` as unsigned words; masked logits may lie above the maximum and are dropped later. */
  const exponents: readonly Stmt[] = overNest(collapse([keys], [[1]]), capped ? runOf(lanes) : 1, (run, locate) => {
    const words = readWords(locate(0, logits), 1, run);
    const made = words.parts.map((part) => {
      const n = part.type.n;
      if (!capped) {
        const difference = sub(convert('i64', top), convert('i64', part));
        return convert('i32', min(shr(add(mul(max(difference, 0), convert('i64', factor)), addend), shiftLogit), EXP_LENGTH - 1));
      }
      const difference = convert('u32', subWrap(broadcast(top, n), part));
      const cut = convert('i32', min(difference, convert('u32', broadcast(cap, n))));
      const addends = n === 1 ? [addend] : [broadcast(addend, n / 2), broadcast(addend, n / 2)];
      return min(dyadic(shiftLogit, target.pairing, cut, broadcast(factor, n), addends), EXP_LENGTH - 1);
    });
    return [...words.setup, ...writeCodes(locate(0, logits), made)];
  });
  const scale = rowScale(total, seeds, newtonSteps, mulOut, shiftOut);
  /** The exponential of key `key` (and `terms`); what a mask drops may stand for anything. */
  const found = (key: number, ...terms: readonly (readonly [Index, number])[]): Expr => {
    const entry = load(at(exp, 0, [and(load(at(logits, key, ...terms)), EXP_PADDED - 1), 1]), 1, 'i32');
    return shifted ? shr(entry, eShift) : entry;
  };
  const one = (key: number, ...terms: readonly (readonly [Index, number])[]): readonly Stmt[] => {
    const sure = masked ? select('ne', load(at(mask, key, ...terms), 1, 'i32'), 0, found(key, ...terms), 0) : found(key, ...terms);
    return [store(at(weights, key, ...terms), convert('i16', sure))];
  };
  const together = Math.floor(keys / SIDE_BY_SIDE);
  const [several, left] = [index('several', Math.max(1, together)), index('left', Math.max(1, keys - together * SIDE_BY_SIDE))];
  // the sum by dot products with 1, where it fits the lanes
  const run = runOf(lanes);
  const runs = lanes === 1 || keys * 32767 >= 2 ** 31 ? 0 : Math.floor(keys / run);
  const [t, after, partial] = [index('t', Math.max(1, runs)), index('after', Math.max(1, keys - runs * run)), variable('partial', 'i32', lanes)];
  const summed: readonly Stmt[] = [
    ...(runs === 0 ? [set(total, literal(0, 'i64'))] : [
      set(partial, literal(0, 'i32', lanes)), loop(t, [set(partial, dot(2, partial, load(at(weights, 0, [t, run]), run), literal(1, 'i16', run)))]),
      set(total, convert('i64', across('add', partial))),
    ]),
    ...(keys === runs * run ? [] : [loop(after, [set(total, add(total, load(at(weights, runs * run, [after, 1]), 1, 'i64')))])]),
  ];
  return fn(name, {
    buffers: [weights, scales, logits, exp, seeds, ...(masked ? [mask] : [])], values: [factor, addend, shiftLogit, cap, ...(shifted ? [eShift] : []), mulOut, shiftOut],
  }, [
    ...greatest, ...exponents,
    ...(together === 0 ? [] : [loop(several, list(SIDE_BY_SIDE, (i) => one(i, [several, SIDE_BY_SIDE])).flat())]),
    ...(keys === together * SIDE_BY_SIDE ? [] : [loop(left, one(together * SIDE_BY_SIDE, [left, 1]))]), ...summed,
    ...(padded === keys ? [] : [store(at(weights, keys), 0)]),
    ...scale.setup,
    store(at(scales, 0), scale.factor), store(at(scales, 1), scale.shift),
  ]);
};
