/**
 * Dimensions: integers, or linear expressions over named symbols (`N`, `2*N+1`). A symbol stands for one unknown positive integer
 * of the whole graph, so equal names are equal sizes.
 */
export interface SymbolicDim {
  readonly constant: number;
  /** symbol → non-zero integer coefficient, in name order */
  readonly terms: readonly (readonly [string, number])[];
}
export type Dim = number | SymbolicDim;
export type Shape = readonly Dim[];
export type StaticShape = readonly number[];

const normal = (constant: number, terms: ReadonlyMap<string, number>): Dim => {
  const kept = [...terms].filter(([, k]) => k !== 0).sort(([a], [b]) => (a < b ? -1 : 1));
  return kept.length === 0 ? constant : { constant, terms: kept };
};
const parts = (dim: Dim): SymbolicDim => (typeof dim === 'number' ? { constant: dim, terms: [] } : dim);

export const symbol = (name: string): Dim => ({ constant: 0, terms: [[name, 1]] });
export const isStatic = (dim: Dim): dim is number => typeof dim === 'number';

export const addDims = (a: Dim, b: Dim): Dim => {
  const [x, y] = [parts(a), parts(b)];
  const terms = new Map(x.terms);
  for (const [name, k] of y.terms) terms.set(name, (terms.get(name) ?? 0) + k);
  return normal(x.constant + y.constant, terms);
};
export const scaleDim = (a: Dim, factor: number): Dim => {
  const x = parts(a);
  return normal(x.constant * factor, new Map(x.terms.map(([name, k]) => [name, k * factor])));
};
export const subDims = (a: Dim, b: Dim): Dim => addDims(a, scaleDim(b, -1));

/** Product, or null where it would not be linear. */
export const mulDims = (a: Dim, b: Dim): Dim | null =>
  isStatic(b) ? scaleDim(a, b) : isStatic(a) ? scaleDim(b, a) : null;

/** Exact quotient by an integer, or the ratio of two equal or proportional expressions; null where it is not known to be exact. */
export const divDims = (a: Dim, b: Dim): Dim | null => {
  if (isStatic(b)) {
    if (b === 0) return null;
    const x = parts(a);
    const exact = [x.constant, ...x.terms.map(([, k]) => k)].every((k) => k % b === 0);
    return exact ? normal(x.constant / b, new Map(x.terms.map(([name, k]) => [name, k / b]))) : null;
  }
  const y = parts(b);
  const x = parts(a);
  const ratio = (x.terms[0]?.[1] ?? NaN) / (y.terms[0]?.[1] ?? NaN);
  return Number.isInteger(ratio) && equalDims(a, scaleDim(b, ratio)) ? ratio : null;
};

export const equalDims = (a: Dim, b: Dim): boolean => {
  const difference = subDims(a, b);
  return isStatic(difference) && difference === 0;
};
export const equalShapes = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((dim, i) => equalDims(dim, b[i]));

/** Replaces symbols by integers; symbols without a binding stay. */
export const bindDim = (dim: Dim, bindings: ReadonlyMap<string, number>): Dim => {
  if (isStatic(dim)) return dim;
  return dim.terms.reduce<Dim>(
    (sum, [name, k]) => addDims(sum, scaleDim(bindings.get(name) ?? symbol(name), k)),
    dim.constant,
  );
};

export const symbolsOf = (shape: Shape): readonly string[] =>
  [...new Set(shape.flatMap((dim) => (isStatic(dim) ? [] : dim.terms.map(([name]) => name))))];

export const isStaticShape = (shape: Shape): shape is StaticShape => shape.every(isStatic);

/** The shape as integers. Callers hold a graph whose symbols are bound, which the verifier checks from the quant stage on. */
export const staticShape = (shape: Shape): StaticShape => {
  if (!isStaticShape(shape)) throw new RangeError(`the shape [${printShape(shape)}] still has symbols`);
  return shape;
};

export const sizeOf = (shape: Shape): number => staticShape(shape).reduce((product, dim) => product * dim, 1);

/** Row-major strides in elements. */
export const stridesOf = (shape: StaticShape): readonly number[] => {
  const strides = new Array<number>(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1] * shape[axis + 1];
  return strides;
};

/** ONNX (numpy) broadcasting of two shapes; null where they do not match. A symbol broadcasts only against itself and 1. */
export const broadcastShapes = (a: Shape, b: Shape): Shape | null => {
  const rank = Math.max(a.length, b.length);
  const out: Dim[] = [];
  for (let axis = 0; axis < rank; axis++) {
    const x = a[axis - rank + a.length] ?? 1;
    const y = b[axis - rank + b.length] ?? 1;
    if (equalDims(x, y) || y === 1) out.push(x);
    else if (x === 1) out.push(y);
    else return null;
  }
  return out;
};

/** A negative axis counted from the end, checked against the rank; null when out of range. */
export const normalAxis = (axis: number, rank: number): number | null => {
  const positive = axis < 0 ? axis + rank : axis;
  return Number.isInteger(axis) && positive >= 0 && positive < rank ? positive : null;
};

export const printDim = (dim: Dim): string => {
  if (isStatic(dim)) return String(dim);
  const terms = dim.terms.map(([name, k]) => (k === 1 ? name : `${k}*${name}`));
  const text = [...terms, ...(dim.constant === 0 ? [] : [String(dim.constant)])].join('+');
  return text.replaceAll('+-', '-');
};
export const printShape = (shape: Shape): string => shape.map(printDim).join(', ');
