/**
 * Kernels on float32 in plain WebAssembly SIMD, written with our own encoder: products of matrices (and through them convolution),
 * depthwise convolution, and functions of one or two arrays. Every result is a fixed sequence of IEEE operations, so its bits do not
 * depend on engine, machine or how rows are grouped. Addresses, strides and lengths of taps are in bytes; all other sizes in elements.
 *
 * Vectors may read and write up to three elements behind an array, so each array needs `SLACK_BYTES` after it.
 */
import { engine, functionOf, Module, type Code, type Label, type Local, type Memory, type PlainOp } from '../wasm/index.ts';
import { realFunctions, writeRealFunctions, writeSoftmax, type RealFunction } from './real-math-simd.ts';
import { advance, copyLocal, whilePositive } from './wasm-loops.ts';

/** Columns of one panel of packed weights: two vectors. */
export const PANEL = 8;
export const SLACK_BYTES = 64;
/** Space that `gemm` needs for a tile whose last columns do not fill a panel. */
export const SCRATCH_BYTES = 4 * PANEL * 4;
export const PAGE_BYTES = 65536;

type Call<P extends readonly string[]> = (...args: { [K in keyof P]: number }) => void;

export interface F32Kernels extends Readonly<Record<RealFunction, Call<['x', 'out', 'length', 'parameter', 'erfTable']>>> {
  /**
   * c[r, n] = bias[n] + Σ_k a(r, k)·b[k, n] for r < rows, n < columns. k runs over outerTaps × innerTaps × length: row r of `a` begins at
   * a + r·aStride and its element (i, j, l) lies i·outerStride + j·innerStride + 4·l behind. b is packed by `packPanels`; bias has
   * a whole number of panels. Terms are added in the order of k, in float32.
   */
  readonly gemm: Call<['a', 'aStride', 'b', 'bias', 'c', 'cStride', 'rows', 'columns', 'outerTaps', 'outerStride', 'innerTaps', 'innerStride', 'length', 'scratch']>;
  /** Packs b(k, n) at b + k·depthStride + n·columnStride, as `packPanels` does, from memory. */
  readonly pack: Call<['b', 'depthStride', 'columnStride', 'depth', 'columns', 'to']>;
  /**
   * out[y, x, c] = bias[c] + Σ_(i, j) w[i, j, c]·in(y, x, i, j, c), the element of the input at y·yStride + x·xStride + i·iStride + j·jStride + 4·c.
   * w and bias have their channels filled up to a multiple of 4.
   */
  readonly depthwise: Call<['x', 'weight', 'bias', 'out', 'rows', 'columns', 'channels', 'yStride', 'xStride', 'kernelRows', 'kernelColumns', 'iStride', 'jStride']>;
  /** out[i] = min(max(x[i], low), high) */
  readonly clamp: Call<['x', 'out', 'length', 'low', 'high']>;
  /** out[r, i] = x[r, i] ∘ y[r, i]; yStride is 0 where one row of y serves all rows, in bytes. */
  readonly add: Binary;
  readonly sub: Binary;
  readonly mul: Binary;
  readonly div: Binary;
  readonly min: Binary;
  readonly max: Binary;
  /** out = softmax(scale·x) for each row, scale > 0; x and out may be the same. */
  readonly softmax: Call<['x', 'out', 'rows', 'length', 'scale']>;
  /** x[i] = (clamp(floor(x[i]/scale + 1/2) + zero, low, high) − zero)·scale in float64, rounded to float32, in place. */
  readonly roundToCodes: Call<['x', 'length', 'scale', 'zero', 'low', 'high']>;
}
type Binary = Call<['x', 'xStride', 'y', 'yStride', 'out', 'rows', 'length']>;

const binaries = ['add', 'sub', 'mul', 'div', 'min', 'max'] as const;

/** Elements of packed weights for a product of this depth. */
export const packedLength = (depth: number, columns: number): number => Math.ceil(columns / PANEL) * PANEL * depth;

/** Writes b(k, n) panel by panel: PANEL columns side by side for each k, columns beyond the last zero. */
export const packPanels = (at: (k: number, n: number) => number, depth: number, columns: number, to: Float32Array): void => {
  let i = 0;
  for (let first = 0; first < columns; first += PANEL) {
    for (let k = 0; k < depth; k++) for (let n = first; n < first + PANEL; n++) to[i++] = n < columns ? at(k, n) : 0;
  }
};

const bytes = (): Uint8Array => {
  const module = new Module();
  module.importMemory('env', 'memory', { initial: 1 });
  writeGemm(module);
  writePack(module);
  writeDepthwise(module);
  writeClamp(module);
  binaries.forEach((name) => writeBinary(module, name, `f32x4.${name}`));
  writeRoundToCodes(module);
  writeRealFunctions(module);
  writeSoftmax(module);
  return module.encode();
};

let compiled: InstanceType<typeof engine.Module> | null = null;

/** The kernels on a memory of at least one page. */
export const f32Kernels = (memory: Memory): F32Kernels => {
  compiled ??= new engine.Module(bytes());
  const instance = new engine.Instance(compiled, { env: { memory } });
  const names = ['gemm', 'pack', 'depthwise', 'clamp', ...binaries, 'roundToCodes', ...realFunctions, 'softmax'] as const;
  return Object.fromEntries(names.map((name) => [name, functionOf(instance, name)])) as unknown as F32Kernels;
};

// ---- the code

const exported = { export: true };

const writeGemm = (module: Module): void => {
  const i32 = 'i32' as const;
  module.func('gemm', [i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32], [], (code, ...params) => {
    const [a, aStride, b, bias, c, cStride, rows, columns, outerTaps, outerStride, innerTaps, innerStride, length, scratch] = params;
    const [rowsLeft, aRow, cRow, bAt, outer, inner, terms, tapStart, tapAt, store, storeStride, lane] = Array.from({ length: 12 }, () => code.local(i32));
    const pointers = Array.from({ length: 4 }, () => code.local(i32));
    const sums = Array.from({ length: 4 }, () => [code.local('v128'), code.local('v128')] as const);
    const [left, right, factor] = [code.local('v128'), code.local('v128'), code.local('v128')];

    /** One term for each of `count` rows. Several in a turn would need more registers than there are. */
    const term = (count: number): void => {
      code.get(bAt).memory('v128.load', 0, 16).set(left).get(bAt).memory('v128.load', 16, 16).set(right);
      for (let r = 0; r < count; r++) {
        code.get(pointers[r]).memory('v128.load32_splat', 0, 4).set(factor);
        [left, right].forEach((half, h) => code.get(sums[r][h]).get(factor).get(half).op('f32x4.mul').op('f32x4.add').set(sums[r][h]));
      }
    };
    const step = (count: number): void => {
      for (let r = 0; r < count; r++) advance(code, pointers[r], 4);
      advance(code, bAt, PANEL * 4);
      advance(code, terms, -1);
    };
    const tile = (count: number): void => {
      for (let r = 0; r < count; r++) [0, 16].forEach((offset, h) => code.get(bias).memory('v128.load', offset, 16).set(sums[r][h]));
      copyLocal(code, bAt, b);
      copyLocal(code, tapStart, aRow);
      copyLocal(code, outer, outerTaps);
      whilePositive(code, outer, () => {
        copyLocal(code, tapAt, tapStart);
        copyLocal(code, inner, innerTaps);
        whilePositive(code, inner, () => {
          copyLocal(code, pointers[0], tapAt);
          for (let r = 1; r < count; r++) code.get(pointers[r - 1]).get(aStride).op('i32.add').set(pointers[r]);
          copyLocal(code, terms, length);
          whilePositive(code, terms, () => { term(count); step(count); });
          advance(code, tapAt, innerStride);
          advance(code, inner, -1);
        });
        advance(code, tapStart, outerStride);
        advance(code, outer, -1);
      });
      // a panel that is not full goes through scratch, since a whole vector would overwrite the next row
      code.get(columns).i32(PANEL).op('i32.lt_s');
      code.if(() => copyLocal(code, store, scratch).i32(PANEL * 4).set(storeStride), () => { copyLocal(code, store, cRow); copyLocal(code, storeStride, cStride); });
      for (let r = 0; r < count; r++) {
        [0, 16].forEach((offset, h) => code.get(store).get(sums[r][h]).memory('v128.store', offset, 4));
        if (r + 1 < count) advance(code, store, storeStride);
      }
      code.get(columns).i32(PANEL).op('i32.lt_s').if(() => {
        for (let r = 0; r < count; r++) {
          code.i32(0).set(lane);
          code.loop((again) => {
            code.get(cRow).get(cStride).i32(r).op('i32.mul').op('i32.add').get(lane).op('i32.add');
            code.get(scratch).get(lane).op('i32.add').memory('f32.load', r * PANEL * 4, 4).memory('f32.store', 0, 4);
            advance(code, lane, 4);
            code.get(lane).get(columns).i32(4).op('i32.mul').op('i32.lt_s').brIf(again);
          });
        }
      });
      code.get(aRow).get(aStride).i32(count).op('i32.mul').op('i32.add').set(aRow);
      code.get(cRow).get(cStride).i32(count).op('i32.mul').op('i32.add').set(cRow);
      advance(code, rowsLeft, -count);
    };

    whilePositive(code, columns, () => {
      copyLocal(code, aRow, a);
      copyLocal(code, cRow, c);
      copyLocal(code, rowsLeft, rows);
      for (const count of [4, 2, 1]) {
        code.block((done) => code.loop((again: Label) => {
          code.get(rowsLeft).i32(count).op('i32.lt_s').brIf(done);
          tile(count);
          code.br(again);
        }));
      }
      // the next panel begins behind all terms of this one
      code.get(b).get(outerTaps).get(innerTaps).op('i32.mul').get(length).op('i32.mul').i32(PANEL * 4).op('i32.mul').op('i32.add').set(b);
      advance(code, bias, PANEL * 4);
      advance(code, c, PANEL * 4);
      advance(code, columns, -PANEL);
    });
  }, exported);
};

const writePack = (module: Module): void => {
  module.func('pack', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], [], (code, b, depthStride, columnStride, depth, columns, to) => {
    const [k, n, at, row] = [code.local('i32'), code.local('i32'), code.local('i32'), code.local('i32')];
    whilePositive(code, columns, () => {
      copyLocal(code, row, b);
      copyLocal(code, k, depth);
      whilePositive(code, k, () => {
        copyLocal(code, at, row);
        code.i32(0).set(n);
        code.loop((again) => {
          code.get(to);
          code.get(n).get(columns).op('i32.lt_s').if(() => code.get(at).memory('f32.load', 0, 4), () => code.f32(0), 'f32');
          code.memory('f32.store', 0, 4);
          advance(code, to, 4);
          advance(code, at, columnStride);
          advance(code, n, 1);
          code.get(n).i32(PANEL).op('i32.lt_s').brIf(again);
        });
        advance(code, row, depthStride);
        advance(code, k, -1);
      });
      code.get(b).get(columnStride).i32(PANEL).op('i32.mul').op('i32.add').set(b);
      advance(code, columns, -PANEL);
    });
  }, exported);
};

const writeDepthwise = (module: Module): void => {
  const i32 = 'i32' as const;
  module.func('depthwise', [i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32], [], (code, ...params) => {
    const [x, weight, bias, out, rows, columns, channels, yStride, xStride, kernelRows, kernelColumns, iStride, jStride] = params;
    const [pixel, column, channel, tapRow, tap, i, j, w, widthBytes, weightStride] = Array.from({ length: 10 }, () => code.local(i32));
    const sum = code.local('v128');
    code.get(channels).i32(4).op('i32.mul').set(widthBytes);
    code.get(channels).i32(3).op('i32.add').i32(-4).op('i32.and').i32(4).op('i32.mul').set(weightStride);
    whilePositive(code, rows, () => {
      copyLocal(code, pixel, x);
      copyLocal(code, column, columns);
      whilePositive(code, column, () => {
        code.i32(0).set(channel);
        code.loop((again) => {
          code.get(bias).get(channel).op('i32.add').memory('v128.load', 0, 16).set(sum);
          code.get(weight).get(channel).op('i32.add').set(w);
          code.get(pixel).get(channel).op('i32.add').set(tapRow);
          copyLocal(code, i, kernelRows);
          code.loop((nextRow) => {
            copyLocal(code, tap, tapRow);
            copyLocal(code, j, kernelColumns);
            code.loop((nextTap) => {
              code.get(sum).get(tap).memory('v128.load', 0, 4).get(w).memory('v128.load', 0, 16).op('f32x4.mul').op('f32x4.add').set(sum);
              advance(code, tap, jStride);
              advance(code, w, weightStride);
              advance(code, j, -1);
              code.get(j).brIf(nextTap);
            });
            advance(code, tapRow, iStride);
            advance(code, i, -1);
            code.get(i).brIf(nextRow);
          });
          // lanes behind the last channel are overwritten by the next pixel
          code.get(out).get(channel).op('i32.add').get(sum).memory('v128.store', 0, 4);
          advance(code, channel, 16);
          code.get(channel).get(widthBytes).op('i32.lt_s').brIf(again);
        });
        advance(code, out, widthBytes);
        advance(code, pixel, xStride);
        advance(code, column, -1);
      });
      advance(code, x, yStride);
      advance(code, rows, -1);
    });
  }, exported);
};

/** Four elements at a time; the last vector may run into the slack. */
const eachVector = (code: Code, left: Local, body: () => unknown): Code =>
  whilePositive(code, left, () => { body(); advance(code, left, -4); });

const writeClamp = (module: Module): void => {
  module.func('clamp', ['i32', 'i32', 'i32', 'f32', 'f32'], [], (code, x, out, length, low, high) => {
    eachVector(code, length, () => {
      code.get(out).get(x).memory('v128.load', 0, 4).get(low).op('f32x4.splat').op('f32x4.max').get(high).op('f32x4.splat').op('f32x4.min').memory('v128.store', 0, 4);
      advance(code, x, 16);
      advance(code, out, 16);
    });
  }, exported);
};

const writeBinary = (module: Module, name: string, op: PlainOp): void => {
  const i32 = 'i32' as const;
  module.func(name, [i32, i32, i32, i32, i32, i32, i32], [], (code, x, xStride, y, yStride, out, rows, length) => {
    const [left, xAt, yAt, outAt] = Array.from({ length: 4 }, () => code.local(i32));
    whilePositive(code, rows, () => {
      copyLocal(code, left, length);
      copyLocal(code, xAt, x);
      copyLocal(code, yAt, y);
      copyLocal(code, outAt, out);
      // rows follow each other, so what a vector writes behind its row is overwritten by the next
      eachVector(code, left, () => {
        code.get(outAt).get(xAt).memory('v128.load', 0, 4).get(yAt).memory('v128.load', 0, 4).op(op).memory('v128.store', 0, 4);
        [xAt, yAt, outAt].forEach((pointer) => advance(code, pointer, 16));
      });
      advance(code, x, xStride);
      advance(code, y, yStride);
      code.get(out).get(length).i32(4).op('i32.mul').op('i32.add').set(out);
      advance(code, rows, -1);
    });
  }, exported);
};

const writeRoundToCodes = (module: Module): void => {
  module.func('roundToCodes', ['i32', 'i32', 'f64', 'f64', 'f64', 'f64'], [], (code, x, length, scale, zero, low, high) => {
    const rounded = (swap: boolean): void => {
      code.get(x).memory('v128.load64_splat', swap ? 8 : 0, 4).op('f64x2.promote_low_f32x4').get(scale).op('f64x2.splat').op('f64x2.div');
      code.f64(0.5).op('f64x2.splat').op('f64x2.add').op('f64x2.floor').get(zero).op('f64x2.splat').op('f64x2.add');
      code.get(low).op('f64x2.splat').op('f64x2.max').get(high).op('f64x2.splat').op('f64x2.min');
      code.get(zero).op('f64x2.splat').op('f64x2.sub').get(scale).op('f64x2.splat').op('f64x2.mul').op('f32x4.demote_f64x2_zero');
    };
    eachVector(code, length, () => {
      code.get(x);
      rounded(false);
      rounded(true);
      code.shuffle([0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]).memory('v128.store', 0, 4);
      advance(code, x, 16);
    });
  }, exported);
};
