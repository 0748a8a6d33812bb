/**
 * The factor L of a positive definite matrix a = L·Lᵀ in WebAssembly, float64, row by row in place:
 *
 *     L_ij = (a_ij − Σ_(k<j) L_ik·L_jk) / L_jj for j < i,     L_ii = √(a_ii − Σ_(k<i) L_ik²)
 *
 * Every sum runs in four interleaved parts s₀…s₃ over k modulo 4, what is left of the last four in s₀, and is s₀ + s₁ + (s₂ + s₃): the order
 * of the plain loops in linalg.ts, so both give the same bits. Four rows go through the columns before them together, as one chain of
 * additions alone would wait for itself.
 */
import { growTo, onOwnMemory } from './own-memory.ts';
import { functionOf, Module, type Code, type Local, type Memory } from '../wasm/index.ts';
import { advance, copyLocal, whilePositive } from './wasm-loops.ts';

/** Rows that share the loads of the row that they are multiplied with. */
const ROWS = 4;
const BYTES = Float64Array.BYTES_PER_ELEMENT;

let shared: { readonly memory: Memory; readonly factor: (matrix: number, n: number) => number } | null = null;

/** L, zeros above; null where the matrix is not positive definite. Only the lower triangle of `a` is read. */
export const factorInKernel = (a: Float64Array, n: number): Float64Array | null => {
  if (shared === null) {
    const { memory, instance } = onOwnMemory(code());
    shared = { memory, factor: functionOf(instance, 'factor') as (matrix: number, n: number) => number };
  }
  const { memory, factor } = shared;
  growTo(memory, n * n * BYTES);
  const l = new Float64Array(memory.buffer, 0, n * n);
  for (let i = 0; i < n; i++) {
    l.set(a.subarray(i * n, i * n + i + 1), i * n);
    l.fill(0, i * n + i + 1, (i + 1) * n);
  }
  return factor(0, n) === 1 ? l.slice() : null;
};

const code = (): Uint8Array => {
  const module = new Module();
  module.importMemory('env', 'memory', { initial: 1 });
  const i32 = 'i32' as const;
  const locals = (body: Code, type: 'i32' | 'f64' | 'v128', count: number): readonly Local[] => Array.from({ length: count }, () => body.local(type));

  /** Registers of the sums of some rows with one other row. */
  interface Sums {
    readonly even: readonly Local[];
    readonly odd: readonly Local[];
    readonly results: readonly Local[];
    readonly pointers: readonly Local[];
    readonly other: Local;
    readonly count: Local;
    readonly right: readonly [Local, Local];
  }
  const sumsOf = (body: Code, rows: number): Sums => ({
    even: locals(body, 'v128', rows), odd: locals(body, 'v128', rows), results: locals(body, 'f64', rows), pointers: locals(body, i32, rows),
    other: body.local(i32), count: body.local(i32), right: [body.local('v128'), body.local('v128')],
  });
  /** results[r] = Σ_(k<length) row r · other row, from the starts of the rows, `bytes` apart */
  const multiply = (body: Code, { even, odd, results, pointers, other, count, right }: Sums, row: Local, bytes: Local, otherRow: Local, length: Local): void => {
    pointers.forEach((p, r) => { if (r === 0) copyLocal(body, p, row); else body.get(pointers[r - 1]).get(bytes).op('i32.add').set(p); });
    copyLocal(body, other, otherRow);
    for (const sum of [...even, ...odd]) body.f64(0).op('f64x2.splat').set(sum);
    body.get(length).i32(2).op('i32.shr_u').set(count);
    whilePositive(body, count, () => {
      right.forEach((one, half) => body.get(other).memory('v128.load', 16 * half, 8).set(one));
      pointers.forEach((p, r) => {
        body.get(even[r]).get(p).memory('v128.load', 0, 8).get(right[0]).op('f64x2.mul').op('f64x2.add').set(even[r]);
        body.get(odd[r]).get(p).memory('v128.load', 16, 8).get(right[1]).op('f64x2.mul').op('f64x2.add').set(odd[r]);
        advance(body, p, 4 * BYTES);
      });
      advance(body, other, 4 * BYTES);
      advance(body, count, -1);
    });
    results.forEach((result, r) => body.get(even[r]).lane('f64x2.extract_lane', 0).set(result));
    body.get(length).i32(3).op('i32.and').set(count);
    whilePositive(body, count, () => {
      pointers.forEach((p, r) => {
        body.get(results[r]).get(p).memory('f64.load').get(other).memory('f64.load').op('f64.mul').op('f64.add').set(results[r]);
        advance(body, p, BYTES);
      });
      advance(body, other, BYTES);
      advance(body, count, -1);
    });
    results.forEach((result, r) => body.get(result).get(even[r]).lane('f64x2.extract_lane', 1).op('f64.add')
      .get(odd[r]).lane('f64x2.extract_lane', 0).get(odd[r]).lane('f64x2.extract_lane', 1).op('f64.add').op('f64.add').set(result));
  };

  module.func('factor', [i32, i32], [i32], (body, matrix, n) => {
    const [i, row, bytes, j, otherRow, at, step, left, corner] = locals(body, i32, 9);
    const pivot = body.local('f64');
    const [block, single] = [sumsOf(body, ROWS), sumsOf(body, 1)];
    body.get(n).i32(BYTES).op('i32.mul').set(bytes);
    body.get(bytes).i32(BYTES).op('i32.add').set(step);
    copyLocal(body, row, matrix);
    body.i32(0).set(i);
    /** at = the place of L_jj */
    const diagonal = (): Code => body.get(j).get(step).op('i32.mul').get(matrix).op('i32.add').set(at);
    /** the number at column j of the row at `start` becomes (it − sum)/L_jj */
    const settle = (start: Local, sum: Local, again: Local): void => {
      body.get(j).i32(BYTES).op('i32.mul').get(start).op('i32.add').set(again);
      body.get(again).get(again).memory('f64.load').get(sum).op('f64.sub').get(at).memory('f64.load').op('f64.div').memory('f64.store');
    };
    const [place, start] = locals(body, i32, 2);
    body.block((done) => body.loop((next) => {
      body.get(i).get(n).op('i32.ge_s').brIf(done);
      // columns before the block, for as many rows as there are together
      body.get(n).get(i).op('i32.sub').set(left);
      body.i32(0).set(corner);
      body.get(left).i32(ROWS).op('i32.ge_s').if(() => {
        copyLocal(body, corner, i);
        body.i32(0).set(j);
        copyLocal(body, otherRow, matrix);
        body.block((out) => body.loop((again) => {
          body.get(j).get(i).op('i32.ge_s').brIf(out);
          multiply(body, block, row, bytes, otherRow, j);
          diagonal();
          copyLocal(body, start, row);
          block.results.forEach((sum) => { settle(start, sum, place); advance(body, start, bytes); });
          advance(body, otherRow, bytes);
          advance(body, j, 1);
          body.br(again);
        }));
        body.i32(ROWS).set(left);
      });
      // what is left of each row, up to its pivot; rows that are not in a block begin at column 0
      whilePositive(body, left, () => {
        copyLocal(body, j, corner);
        body.get(j).get(bytes).op('i32.mul').get(matrix).op('i32.add').set(otherRow);
        body.block((out) => body.loop((again) => {
          body.get(j).get(i).op('i32.ge_s').brIf(out);
          multiply(body, single, row, bytes, otherRow, j);
          diagonal();
          settle(row, single.results[0], place);
          advance(body, otherRow, bytes);
          advance(body, j, 1);
          body.br(again);
        }));
        multiply(body, single, row, bytes, row, i);
        diagonal();
        body.get(at).memory('f64.load').get(single.results[0]).op('f64.sub').set(pivot);
        body.get(pivot).f64(0).op('f64.gt').op('i32.eqz').if(() => body.i32(0).op('return'));
        body.get(at).get(pivot).op('f64.sqrt').memory('f64.store');
        advance(body, row, bytes);
        advance(body, i, 1);
        advance(body, left, -1);
      });
      body.br(next);
    }));
    body.i32(1);
  }, { export: true });
  return module.encode();
};
