/**
 * The invariants of a graph. `verify` looks at all of them and returns every fault; it runs on import, after each pass and before
 * emission.
 *
 * At every stage
 * - LB0210 each input, constant and node has a name of its own; graph outputs too.
 * - LB0211 every operand, and every output, is an input, a constant or the result of an earlier node.
 * - LB0212 a node has exactly the operands of its declaration.
 * - LB0213 a node has exactly the attributes of its declaration, each with a value that it allows.
 * - LB0214 the stored type is what inference finds: shape always, dtype unless the value is quantised at the quant stage.
 * - LB0215 a quantisation fits its dtype and shape: positive float32 scales, one or one for each index of the axis, codes inside the dtype.
 * - LB0216 the op belongs to the stage: real ops and plugin ops up to the quant stage, kernels alone after it; no quantised type in a float graph.
 * - LB0217 from the quant stage on no shape holds a symbol.
 * - LB0222 constants hold codes of their type.
 *
 * In kernel graphs
 * - LB0218 no real numbers; 64-bit integers only as constants.
 * - LB0219 accumulators: the attribute `bound` holds the interval recomputed from the weights, and no sum can leave 32 bits.
 * - LB0220 rescaling: multipliers in range, and no product or sum that can leave 64 bits (32 where the shift is below 32).
 * - LB0221 multipliers, weights, tables and masks are constants.
 * - LB0223 rows: sums of exponentials, deviations and run-time shifts stay in the widths of `softmax`, `attention_int`, `layer_norm_int`.
 * - LB0224 a mask lets every query attend to some key.
 * - LB0225 a weight that is stored as indices has no more levels than they tell apart.
 */
import { factOf } from './analysis.ts';
import { accumulatorBounds, hullOf, type Interval } from './bounds.ts';
import type { Diagnostic } from './diagnostic.ts';
import { equalShapes, isStatic, isStaticShape, printShape, staticShape } from './dim.ts';
import { isInteger, rangeOf } from './dtype.ts';
import { errors } from './errors.ts';
import { constantOf, constantsOf, isNode, operandsOf, type Graph, type Node, type Value } from './graph.ts';
import { Misuse, noSite } from './op.ts';
import type { KernelNode } from './ops/kernels.ts';
import { opsOfStage } from './ops/stages.ts';
import { levelsOf, realType, tensorType, type Tensor, type TensorType } from './type.ts';

type Code = Diagnostic['code'];
type Report = (code: Code, why: string, value: Value) => void;

/** All faults of the graph; none for a valid one. */
export const verify = (graph: Graph): readonly Diagnostic[] => {
  const faults: Diagnostic[] = [];
  const report: Report = (code, why, value) =>
    faults.push(errors.invalidGraph(code, why, value.name, isNode(value.def) ? value.def.site : noSite));
  checkNames(graph, report);
  checkOrder(graph, report);
  for (const value of [...graph.inputs, ...constantsOf(graph), ...graph.nodes.map(({ output }) => output)]) checkType(value, graph, report);
  for (const constant of constantsOf(graph)) checkCodes(constant, report);
  for (const node of graph.nodes) checkNode(node, graph, report);
  // intervals mean something only in a graph that is otherwise sound
  if (graph.stage === 'kernel' && faults.length === 0) checkKernels(graph, report);
  return faults;
};

const checkNames = (graph: Graph, report: Report): void => {
  const taken = new Set<string>();
  for (const value of [...graph.inputs, ...constantsOf(graph), ...graph.nodes.map(({ output }) => output)]) {
    if (taken.has(value.name)) report('LB0210', 'another value has this name', value);
    taken.add(value.name);
  }
  const outputs = new Set<string>();
  for (const { name, value } of graph.outputs) {
    if (outputs.has(name)) report('LB0210', `another graph output is called "${name}"`, value);
    outputs.add(name);
  }
};

const checkOrder = (graph: Graph, report: Report): void => {
  const known = new Set<Value>(graph.inputs);
  const isKnown = (value: Value): boolean => value.def.op === 'const' || known.has(value);
  for (const node of graph.nodes) {
    for (const operand of operandsOf(node).filter((value) => !isKnown(value))) {
      report('LB0211', `it reads %${operand.name}, which is not defined before it`, node.output);
    }
    known.add(node.output);
  }
  for (const { value } of graph.outputs) if (!isKnown(value)) report('LB0211', 'it is an output but the graph does not compute it', value);
};

const checkType = (value: Value, { stage }: Graph, report: Report): void => {
  const { dtype, shape, quant } = value.type;
  if (stage !== 'float' && !isStaticShape(shape)) report('LB0217', `its shape [${printShape(shape)}] has symbols`, value);
  if (stage === 'kernel' && dtype === 'f32') report('LB0218', 'it holds real numbers in a kernel graph', value);
  if (stage === 'kernel' && dtype === 'i64' && value.def.op !== 'const') {
    report('LB0218', 'it holds 64-bit integers in a kernel graph and is no constant', value);
  }
  if (quant === null) return;
  if (stage === 'float') report('LB0216', 'it is quantised in a float graph', value);
  const fault = (why: string): void => report('LB0215', why, value);
  if (!isInteger(dtype)) return fault(`${dtype} has no codes to quantise`);
  const [least, greatest] = rangeOf(dtype);
  if (!(quant.low <= quant.high && quant.low >= least && quant.high <= greatest)) fault(`its codes ${quant.low}..${quant.high} do not fit ${dtype}`);
  const [scales, zeros] = [[quant.scale].flat(), [quant.zero].flat()];
  if (!scales.every((scale) => scale > 0 && Number.isFinite(scale) && Math.fround(scale) === scale)) fault('a scale is no positive float32 number');
  if (!zeros.every((zero) => Number.isInteger(zero) && zero >= least && zero <= greatest)) fault(`a zero point is no code of ${dtype}`);
  const length = quant.axis === null ? 1 : shape[quant.axis];
  if (length === undefined) return fault(`it has no axis ${quant.axis}`);
  for (const list of [quant.scale, quant.zero]) {
    if (typeof list !== 'number' && (quant.axis === null || !isStatic(length) || list.length !== length)) {
      fault(`${list.length} scales or zero points do not fit the axis ${quant.axis} of [${printShape(shape)}]`);
    }
  }
};

/** Constants are shared by the graphs of a compilation; each is looked at once. */
const sound = new WeakSet<Tensor>();
const checkCodes = (value: Value, report: Report): void => {
  const tensor = constantOf(value)!;
  const { type, data } = tensor;
  if (sound.has(tensor) || !isInteger(type.dtype) || type.dtype === 'i64') return;
  const [low, high] = type.quant === null ? rangeOf(type.dtype) : [type.quant.low, type.quant.high];
  const outside = (data as Int32Array).findIndex((code) => code < low || code > high);
  if (outside < 0) sound.add(tensor);
  else report('LB0222', `element ${outside} is ${data[outside]}, outside ${low}..${high}`, value);
};

const checkNode = (node: Node, { stage }: Graph, report: Report): void => {
  const { decl, output } = node;
  const isPlugin = stage !== 'kernel' && node.op.includes('.');
  if (!isPlugin && opsOfStage[stage].get(node.op) !== decl) report('LB0216', `"${node.op}" is no op of a ${stage} graph`, output);
  let complete = true;
  for (const [slot, arity] of Object.entries<string>(decl.operands)) {
    const operand = node.inputs[slot] ?? null;
    const fits = arity === 'many' ? Array.isArray(operand) : operand === null ? arity === 'optional' : !Array.isArray(operand);
    if (!fits) report('LB0212', `operand "${slot}" of "${node.op}" must be ${arity === 'many' ? 'a list' : 'one value'}`, output);
    complete &&= fits;
  }
  for (const slot of Object.keys(node.inputs)) if (!(slot in decl.operands)) report('LB0212', `"${node.op}" has no operand "${slot}"`, output);
  for (const [key, attr] of Object.entries<{ readonly expected: string; check(value: unknown): boolean }>(decl.attrs)) {
    const fits = attr.check(node.attrs[key]);
    if (!fits) report('LB0213', `attribute "${key}" of "${node.op}" must be ${attr.expected}`, output);
    complete &&= fits;
  }
  for (const key of Object.keys(node.attrs)) if (!(key in decl.attrs)) report('LB0213', `"${node.op}" has no attribute "${key}"`, output);
  if (complete) checkInference(node, stage === 'kernel', report);
};

const checkInference = (node: Node, codes: boolean, report: Report): void => {
  const { type } = node.output;
  const seen = ({ type }: Value): TensorType => (codes ? tensorType(type.dtype, type.shape) : realType(type));
  const types = Object.fromEntries(Object.entries(node.inputs).map(([slot, operand]) =>
    [slot, operand === null ? null : Array.isArray(operand) ? (operand as readonly Value[]).map(seen) : seen(operand as Value)]));
  let inferred: TensorType;
  try {
    inferred = node.decl.infer(types as never, node.attrs as never);
  } catch (cause) {
    if (!(cause instanceof Misuse)) throw cause;
    return report('LB0214', `"${node.op}": ${cause.message}`, node.output);
  }
  const differs = (what: string, own: string, found: string): void => report('LB0214', `its ${what} ${own}, "${node.op}" gives ${found}`, node.output);
  if (!equalShapes(inferred.shape, type.shape)) differs('shape is', `[${printShape(type.shape)}]`, `[${printShape(inferred.shape)}]`);
  if (inferred.dtype !== type.dtype && (codes || type.quant === null)) differs('elements are', type.dtype, inferred.dtype);
};

const TWO31 = 2 ** 31;
const LIMIT_64 = 1n << 63n;
const fitsWord = (low: number, high: number): boolean => low >= -TWO31 && high < TWO31;
const magnitude = (low: number, high: number): number => Math.max(-low, high);
const absolute = (value: bigint): bigint => (value < 0n ? -value : value);

interface Check {
  readonly of: (value: Value) => Interval;
  readonly fault: (code: Code, why: string) => void;
}
type Rule<N extends KernelNode> = (node: N, check: Check) => void;

const checkKernels = (graph: Graph, report: Report): void => {
  const bounds = factOf(graph, accumulatorBounds);
  for (const node of graph.nodes as readonly Node[] as readonly unknown[] as readonly KernelNode[]) {
    let ready = true;
    const fault = (code: Code, why: string): void => {
      ready = false;
      report(code, why, node.output);
    };
    for (const slot of constantSlots[node.op] ?? []) {
      const operand = (node.inputs as Node['inputs'])[slot] as Value | null;
      if (operand !== null && constantOf(operand) === null) fault('LB0221', `operand "${slot}" of "${node.op}" must be a constant`);
    }
    if (ready) (rules[node.op] as Rule<KernelNode> | undefined)?.(node, { of: (value) => bounds.get(value)!, fault });
  }
};

/** Operands whose values the proofs and the backends need at compile time. */
const constantSlots: Partial<Readonly<Record<KernelNode['op'], readonly string[]>>> = {
  conv_acc: ['weight'], linear_acc: ['weight'], requantize: ['mul', 'add'], requantize_words: ['mul', 'add'], requantize_add: ['mulX', 'mulY', 'add'], table: ['values'],
  table_interpolated: ['values'], softmax: ['fine', 'coarse'], attention_int: ['mask', 'exp'], layer_norm_int: ['mul', 'add'],
};

const accumulator = (node: Extract<KernelNode, { readonly op: 'conv_acc' | 'linear_acc' | 'matmul_acc' }>, { of, fault }: Check): void => {
  const [low, high] = hullOf(of(node.output));
  const [least, greatest] = node.attrs.bound;
  if (low < least || high > greatest) fault('LB0219', `accumulators reach ${low}..${high}, "bound" says ${least}..${greatest}`);
  const [all, most] = [Math.min(low, least), Math.max(high, greatest)];
  if (!fitsWord(all, most)) fault('LB0219', `accumulators of ${all}..${most} do not fit 32 bits`);
};
const product: Rule<Extract<KernelNode, { readonly op: 'conv_acc' | 'linear_acc' }>> = (node, check) => {
  accumulator(node, check);
  const { indexBits } = node.attrs;
  if (indexBits === 0) return;
  const levels = levelsOf(constantOf(node.inputs.weight)!).length;
  if (levels > 2 ** indexBits) check.fault('LB0225', `weight %${node.inputs.weight.name} takes ${levels} levels, of which indices of ${indexBits} bits tell ${2 ** indexBits} apart`);
};
const plainSum = (node: KernelNode, { of, fault }: Check): void => {
  const [low, high] = hullOf(of(node.output));
  if (!fitsWord(low, high)) fault('LB0219', `sums of ${low}..${high} do not fit 32 bits`);
};

/** One summand of a rescaling: an interval for each channel and its multipliers. */
interface Summand {
  readonly interval: Interval;
  readonly muls: ArrayLike<number>;
}
/** Σ |v|·|mul| + |add| stays below 2^63 on every channel, and within 32 bits after a shift below 32. */
const rescaling = (summands: readonly Summand[], adds: ArrayLike<bigint>, shift: number, { fault }: Check): void => {
  const count = Math.max(adds.length, ...summands.flatMap(({ interval, muls }) => [interval.low.length, muls.length]));
  const entry = <T>(list: ArrayLike<T>, c: number): T => list[list.length === 1 ? 0 : c];
  for (let c = 0; c < count; c++) {
    const add = entry(adds, c);
    let [size, low, high] = [absolute(add), add, add];
    for (const { interval, muls } of summands) {
      const mul = BigInt(entry(muls, c));
      const [a, b] = [BigInt(entry(interval.low, c)) * mul, BigInt(entry(interval.high, c)) * mul];
      size += absolute(a) > absolute(b) ? absolute(a) : absolute(b);
      low += a < b ? a : b;
      high += a < b ? b : a;
    }
    if (size >= LIMIT_64) return fault('LB0220', `channel ${c}: a sum of products can reach 2^63`);
    const shifted = (sum: bigint): number => Number(sum >> BigInt(shift));
    if (shift < 32 && !fitsWord(shifted(low), shifted(high))) return fault('LB0220', `channel ${c}: a shifted sum can leave 32 bits`);
  }
};
const dataOf = <T>(value: Value): ArrayLike<T> => constantOf(value)!.data as unknown as ArrayLike<T>;
const positive = (muls: ArrayLike<number>, { fault }: Check): void => {
  if (!within(muls, Infinity)) fault('LB0220', 'a multiplier is negative');
};
/** Whether all entries lie in 0…most. */
const within = (entries: ArrayLike<number>, most: number): boolean => Array.from(entries).every((entry) => entry >= 0 && entry <= most);
const spread = ({ low, high }: Interval): Interval => {
  const [least, greatest] = hullOf({ low, high });
  return { low: Float64Array.of(least), high: Float64Array.of(greatest) };
};

/** Run-time shifts and sums of rows whose exponentials sum to leastSum…greatestSum. */
const rowRescale = ({ shiftOut }: { readonly shiftOut: number }, leastSum: number, greatestSum: number, { fault }: Check): void => {
  if (leastSum < 1) return fault('LB0223', 'the greatest exponential of a row is 0');
  if (greatestSum >= 2 ** 32) return fault('LB0223', `exponentials of a row sum up to ${greatestSum}, which does not fit 32 bits`);
  const [least, greatest] = [shiftOut + 31 - Math.clz32(leastSum), shiftOut + 31 - Math.clz32(greatestSum)];
  if (least < 32 || greatest > 62) fault('LB0223', `shifts of rows reach ${least}…${greatest}, outside 32…62`);
};

const rules: { readonly [K in KernelNode['op']]?: Rule<Extract<KernelNode, { readonly op: K }>> } = {
  conv_acc: product,
  linear_acc: product,
  matmul_acc: accumulator,
  sum_pool: plainSum,
  reduce_sum: plainSum,
  requantize: ({ inputs: { x, mul, add }, attrs: { shift, preShift } }, check) => {
    const muls = dataOf<number>(mul);
    positive(muls, check);
    const { low, high } = check.of(x);
    const interval: Interval = { low: low.map((v) => v * 2 ** preShift), high: high.map((v) => v * 2 ** preShift) };
    if (!fitsWord(...hullOf(interval))) return check.fault('LB0220', `x shifted left by ${preShift} does not fit 32 bits`);
    rescaling([{ interval, muls }], dataOf(add), shift, check);
  },
  requantize_words: ({ inputs: { x, mul, add }, attrs: { drop } }, { of, fault }) => {
    const [muls, adds] = [dataOf<number>(mul), dataOf<number>(add)];
    positive(muls, { of, fault });
    const { low, high } = of(x);
    const entry = (list: ArrayLike<number>, c: number): number => list[list.length === 1 ? 0 : c];
    for (let c = 0; c < Math.max(low.length, muls.length, adds.length); c++) {
      const product = (v: number): number => Math.floor(v / 2 ** drop) * entry(muls, c);
      const [a, b] = [product(entry(low, c)), product(entry(high, c))];
      const add = entry(adds, c);
      // both products and both sums are below 2^53 wherever a product is below 2^52
      if (!fitsWord(a, b) || !fitsWord(a + add, b + add)) return fault('LB0220', `channel ${c}: a product or a sum can leave 32 bits`);
    }
  },
  requantize_add: ({ inputs: { x, y, mulX, mulY, add }, attrs: { shift } }, check) => {
    const alike = equalShapes(x.type.shape.slice(-1), y.type.shape.slice(-1));
    const second = alike ? check.of(y) : spread(check.of(y));
    rescaling([{ interval: check.of(x), muls: dataOf(mulX) }, { interval: second, muls: dataOf(mulY) }], dataOf(add), shift, check);
  },
  requantize_mul: ({ inputs: { x, y }, attrs: { zeroX, zeroY, mul, add, shift } }, check) => {
    const [a, b] = [hullOf(check.of(x)), hullOf(check.of(y))];
    const products = [0, 1, 2, 3].map((i) => (a[i >> 1] - zeroX) * (b[i & 1] - zeroY));
    const interval: Interval = { low: Float64Array.of(Math.min(...products)), high: Float64Array.of(Math.max(...products)) };
    if (!fitsWord(...hullOf(interval))) return check.fault('LB0220', `products of ${hullOf(interval).join('..')} do not fit 32 bits`);
    rescaling([{ interval, muls: [mul] }], [add], shift, check);
  },
  softmax: ({ inputs: { x, fine, coarse }, attrs }, check) => {
    const one = 2 ** 30;
    const tables = [fine, ...(coarse === null ? [] : [coarse])].map((table) => dataOf<number>(table));
    if (tables.some((table) => !within(table, one))) return check.fault('LB0223', 'a table has an entry outside 0…2^30');
    const first = Math.floor(tables.reduce((product, table) => (product * table[0]) / one, one)) >> attrs.eShift;
    rowRescale(attrs, first, (staticShape(x.type.shape).at(-1)!) * (one >> attrs.eShift), check);
  },
  attention_int: ({ inputs: { q, k, v, mask, exp }, attrs }, check) => {
    const [, rows, width] = staticShape(q.type.shape);
    const keys = staticShape(k.type.shape)[1];
    const [[a, b], [c, d]] = [hullOf(check.of(q)), hullOf(check.of(k))];
    const products = [a * c, a * d, b * c, b * d];
    const depth = width / attrs.heads;
    const [low, high] = [Math.min(0, ...products) * depth, Math.max(0, ...products) * depth];
    if (!fitsWord(low, high)) return check.fault('LB0219', `logits of ${low}..${high} do not fit 32 bits`);
    if (BigInt(high - low) * BigInt(attrs.mulLogit) + attrs.addLogit >= LIMIT_64) check.fault('LB0220', 'an exponent can reach 2^63');
    const table = dataOf<number>(exp);
    if (!within(table, table[0])) return check.fault('LB0223', 'an entry of the exponential table is negative or above the first');
    const first = table[0] >> attrs.eShift;
    if (keys * first * magnitude(...hullOf(check.of(v))) >= TWO31) check.fault('LB0219', 'weighted sums of v do not fit 32 bits; raise "eShift"');
    rowRescale(attrs, first, keys * first, check);
    if (mask !== null) {
      const allowed = dataOf<number>(mask);
      for (let t = 0; t < rows; t++) {
        const row = Array.from({ length: keys }, (_, j) => allowed[t * keys + j]);
        if (!row.includes(1)) return check.fault('LB0224', `query ${t} may attend to no key`);
      }
    }
  },
  layer_norm_int: ({ inputs: { x, mul, add }, attrs: { epsilon, newtonSteps, fraction, shift } }, check) => {
    const channels = staticShape(x.type.shape).at(-1)!;
    const [low, high] = hullOf(check.of(x));
    const span = high - low;
    if (channels * span >= TWO31) return check.fault('LB0223', `a row of ${channels} codes of ${low}..${high} does not fit 32 bits`);
    const deviation = BigInt(channels * span) ** 2n / 4n + epsilon;
    if (deviation >= LIMIT_64) return check.fault('LB0223', 'the deviation of a row does not fit 63 bits');
    const rootBits = (33 - Math.clz32(channels - 1)) >> 1;
    if (fraction + rootBits > 30) return check.fault('LB0223', `normalised values with ${fraction} binary digits do not fit 32 bits`);
    // one step brings the reciprocal root below its true value; the seed may lie above it by 2^-8
    const reach = 2 ** (fraction + rootBits) * (newtonSteps === 0 ? 1 + 2 ** -7 : 1);
    rescaling([{ interval: { low: Float64Array.of(-reach), high: Float64Array.of(reach) }, muls: dataOf(mul) }], dataOf(add), shift, check);
  },
};
