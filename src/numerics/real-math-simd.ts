/**
 * The functions of real-math.ts on arrays of float32, two numbers at a time. Each performs the same operations in the same order as the
 * function it is named after, so that a result rounded to float32 has the same bits; arguments beyond the range of float32 results are
 * limited first instead of taking a branch.
 */
import { ERF_INTERVALS_PER_UNIT, ERF_ONE_FROM, ERF_TERMS, LN2_HIGH, LN2_INVERSE, LN2_LOW, TWO_OVER_ROOT_PI_LOW } from './real-math.ts';
import type { Code, Local, Module } from '../wasm/index.ts';
import { advance, copyLocal, whilePositive } from './wasm-loops.ts';

/** Pushes a vector of two doubles. */
type Pair = () => unknown;

/** Expressions over pairs of doubles; constants wait in locals, so that loops do not make them anew. */
class Pairs {
  private readonly code: Code;
  private readonly constants = new Map<number, Local>();
  constructor(code: Code, constants: readonly number[]) {
    this.code = code;
    for (const value of constants) {
      const local = code.local('v128');
      code.f64(value).op('f64x2.splat').set(local);
      this.constants.set(value, local);
    }
  }
  constant(value: number): Pair {
    const local = this.constants.get(value);
    return local === undefined ? () => this.code.f64(value).op('f64x2.splat') : () => this.code.get(local);
  }
  private binary(op: 'add' | 'sub' | 'mul' | 'div' | 'min' | 'max' | 'lt' | 'ge'): (a: Pair, b: Pair) => Pair {
    return (a, b) => () => { a(); b(); this.code.op(`f64x2.${op}`); };
  }
  readonly add = this.binary('add');
  readonly sub = this.binary('sub');
  readonly mul = this.binary('mul');
  readonly div = this.binary('div');
  readonly min = this.binary('min');
  readonly max = this.binary('max');
  readonly less = this.binary('lt');
  readonly atLeast = this.binary('ge');
  readonly floor = (a: Pair): Pair => () => { a(); this.code.op('f64x2.floor'); };
  readonly abs = (a: Pair): Pair => () => { a(); this.code.op('f64x2.abs'); };
  /** a where the mask holds, else b */
  readonly select = (mask: Pair, a: Pair, b: Pair): Pair => () => { a(); b(); mask(); this.code.op('v128.bitselect'); };
  /** |a| with the sign of b */
  readonly copySign = (a: Pair, b: Pair): Pair => this.select(() => this.code.i64(1n << 63n).op('i64x2.splat'), b, a);
  /** Computes the pair now, to be used several times. */
  hold(a: Pair): Pair {
    const local = this.code.local('v128');
    a();
    this.code.set(local);
    return () => this.code.get(local);
  }

  /** Adding 3·2^51 leaves a whole number in the low bits of each double. */
  private wholeBits(k: Pair): Pair {
    return this.add(k, this.constant(6755399441055744));
  }
  /** 2^k for whole k of at most 1010 in size. */
  private power(k: Pair): Pair {
    return () => {
      this.wholeBits(k)();
      this.code.i64(1023).op('i64x2.splat').op('i64x2.add').i32(52).op('i64x2.shl');
    };
  }
  private tail(r: Pair): Pair {
    const { add, mul, constant } = this;
    const c = (n: number): Pair => constant.call(this, 1 / n);
    const r2 = this.hold(mul(r, r));
    const r4 = this.hold(mul(r2, r2));
    const middle = add(add(c(720), mul(r, c(5040))), mul(r2, add(c(40320), mul(r, c(362880)))));
    const end = add(add(add(c(3628800), mul(r, c(39916800))), mul(r2, add(c(479001600), mul(r, c(6227020800))))), mul(r4, c(87178291200)));
    const start = add(add(c(2), mul(r, c(6))), mul(r2, add(c(24), mul(r, c(120)))));
    return mul(r2, this.hold(add(add(start, mul(r4, middle)), mul(mul(r4, r4), end))));
  }
  private reduced(x: Pair): { readonly k: Pair; readonly r: Pair; readonly tail: Pair } {
    const k = this.hold(this.floor(this.add(this.mul(x, this.constant(LN2_INVERSE)), this.constant(0.5))));
    const rest = this.hold(this.sub(x, this.mul(k, this.constant(LN2_HIGH))));
    const correction = this.hold(this.sub(this.constant(0), this.mul(k, this.constant(LN2_LOW))));
    const r = this.hold(this.add(rest, correction));
    return { k, r, tail: this.add(this.tail(r), this.add(this.sub(rest, r), correction)) };
  }
  /** e^x; beyond ±700 the result is 0 or infinite as float32. */
  exp(x: Pair): Pair {
    const { k, r, tail } = this.reduced(this.hold(this.min(this.max(x, this.constant(-700)), this.constant(700))));
    return this.hold(this.mul(this.add(this.constant(1), this.add(r, tail)), this.power(k)));
  }
  /** e^x − 1 for 0 ≤ x ≤ 40. */
  private expm1(x: Pair): Pair {
    const { k, r, tail } = this.reduced(x);
    const power = this.hold(this.power(k));
    return this.hold(this.add(this.sub(power, this.constant(1)), this.mul(power, this.add(r, tail))));
  }
  tanh(x: Pair): Pair {
    const size = this.hold(this.min(this.abs(x), this.constant(20)));
    const t = this.expm1(this.hold(this.mul(this.constant(2), size)));
    const sum = this.hold(this.add(t, this.constant(2)));
    const large = this.sub(this.constant(1), this.div(this.constant(2), sum));
    return this.hold(this.copySign(this.select(this.less(size, this.constant(1)), this.div(t, sum), large), x));
  }
  sigmoid(x: Pair): Pair {
    const e = this.exp(this.hold(this.sub(this.constant(0), this.abs(x))));
    return this.hold(this.div(this.select(this.less(x, this.constant(0)), e, this.constant(1)), this.add(this.constant(1), e)));
  }
  /** The error function; `table` is the address of erfTable. */
  erf(x: Pair, table: Local): Pair {
    const { add, mul } = this;
    const size = this.hold(this.abs(x));
    const inside = this.hold(this.min(size, this.constant(ERF_ONE_FROM - 2 ** -40)));
    const interval = this.hold(this.floor(mul(inside, this.constant(ERF_INTERVALS_PER_UNIT))));
    const numbers = this.hold(this.wholeBits(interval));
    const rows = [0, 2].map((lane) => {
      const row = this.code.local('i32');
      numbers();
      this.code.lane('i32x4.extract_lane', lane).i32(ERF_TERMS * 8).op('i32.mul').get(table).op('i32.add').set(row);
      return row;
    });
    const c = (n: number): Pair => () => {
      this.code.get(rows[1]);
      this.code.get(rows[0]).memory('v128.load64_splat', n * 8, 8);
      this.code.memoryLane('v128.load64_lane', 1, n * 8, 8);
    };
    const first = this.hold(this.less(interval, this.constant(1)));
    const centred = this.sub(inside, this.mul(add(interval, this.constant(0.5)), this.constant(1 / ERF_INTERVALS_PER_UNIT)));
    const h = this.hold(this.select(first, mul(inside, inside), centred));
    const h2 = this.hold(mul(h, h));
    const h4 = this.hold(mul(h2, h2));
    const middle = this.hold(add(add(c(4), mul(h, c(5))), mul(h2, add(c(6), mul(h, c(7))))));
    const end = this.hold(add(add(add(c(8), mul(h, c(9))), mul(h2, add(c(10), mul(h, c(11))))), mul(h4, add(add(c(12), mul(h, c(13))), mul(h2, c(14))))));
    const start = add(c(1), mul(h, add(c(2), mul(h, c(3)))));
    const value = this.hold(add(c(0), mul(h, add(start, mul(mul(h, h2), add(middle, mul(h4, end)))))));
    const small = add(mul(inside, value), mul(inside, this.constant(TWO_OVER_ROOT_PI_LOW)));
    const either = this.select(first, small, value);
    return this.hold(this.copySign(this.select(this.atLeast(size, this.constant(ERF_ONE_FROM)), this.constant(1), either), x));
  }
}

/** Constants that every use of `exp` reads. */
const EXP_CONSTANTS: readonly number[] = [
  LN2_INVERSE, LN2_HIGH, LN2_LOW, 0, 0.5, 1, 6755399441055744, -700, 700,
  ...[6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600, 6227020800, 87178291200].map((n) => 1 / n),
];
const ERF_CONSTANTS: readonly number[] = [ERF_ONE_FROM, ERF_ONE_FROM - 2 ** -40, ERF_INTERVALS_PER_UNIT, 1 / ERF_INTERVALS_PER_UNIT, 0.5, 1, 6755399441055744, TWO_OVER_ROOT_PI_LOW];

/** √½, √(2/π) and the cubic coefficient of the forms of GELU, as the op declares them. */
const HALF_ROOT = Math.SQRT1_2;
const GELU_SLOPE = 0.7978845608028654;
const GELU_CUBE = 0.044715;

/** Functions of one number that have a kernel: (x, out, length, parameter, table). `table` is the address of erfTable where erf is used. */
export const realFunctions = ['exp', 'tanh', 'sigmoid', 'silu', 'erf', 'geluErf', 'geluTanh'] as const;
export type RealFunction = (typeof realFunctions)[number];

const bodies: Readonly<Record<RealFunction, (p: Pairs, x: Pair, parameter: Pair, table: Local) => Pair>> = {
  exp: (p, x) => p.exp(x),
  tanh: (p, x) => p.tanh(x),
  sigmoid: (p, x) => p.sigmoid(x),
  silu: (p, x, slope) => p.mul(x, p.sigmoid(p.hold(p.mul(slope, x)))),
  erf: (p, x, _, table) => p.erf(x, table),
  geluErf: (p, x, _, table) => p.mul(p.mul(p.constant(0.5), x), p.add(p.constant(1), p.erf(p.hold(p.mul(x, p.constant(HALF_ROOT))), table))),
  geluTanh: (p, x) => {
    const cube = p.mul(p.mul(p.mul(p.constant(GELU_CUBE), x), x), x);
    return p.mul(p.mul(p.constant(0.5), x), p.add(p.constant(1), p.tanh(p.hold(p.mul(p.constant(GELU_SLOPE), p.add(x, cube))))));
  },
};

export const writeRealFunctions = (module: Module): void => {
  for (const name of realFunctions) {
    module.func(name, ['i32', 'i32', 'i32', 'f64', 'i32'], [], (code, x, out, length, parameter, table) => {
      const pairs = new Pairs(code, name === 'erf' || name === 'geluErf' ? [...ERF_CONSTANTS, HALF_ROOT] : [...EXP_CONSTANTS, 2, 20]);
      const given = pairs.hold(() => code.get(parameter).op('f64x2.splat'));
      whilePositive(code, length, () => {
        const pair = pairs.hold(() => code.get(x).memory('v128.load64_splat', 0, 4).op('f64x2.promote_low_f32x4'));
        const result = pairs.hold(bodies[name](pairs, pair, given, table));
        code.get(out);
        result();
        code.op('f32x4.demote_f64x2_zero').memoryLane('v128.store64_lane', 0, 0, 4);
        advance(code, x, 8);
        advance(code, out, 8);
        advance(code, length, -2);
      });
    }, { export: true });
  }
};

/**
 * out[r, i] = e^(scale·x[r, i] − m)/Σ_i of the same, m the greatest scale·x[r, i]; scale > 0. The sum of the even and of the odd
 * elements is taken apart and then together. x and out may be the same.
 */
export const writeSoftmax = (module: Module): void => {
  module.func('softmax', ['i32', 'i32', 'i32', 'i32', 'f64'], [], (code, x, out, rows, length, scale) => {
    const pairs = new Pairs(code, EXP_CONSTANTS);
    const [left, at, to] = [code.local('i32'), code.local('i32'), code.local('i32')];
    const [most, greatest, total, factor, power] = [code.local('f32'), code.local('v128'), code.local('v128'), code.local('v128'), code.local('v128')];
    const factors = pairs.hold(() => code.get(scale).op('f64x2.splat'));
    whilePositive(code, rows, () => {
      copyLocal(code, at, x);
      copyLocal(code, left, length);
      code.f32(-Infinity).set(most);
      whilePositive(code, left, () => {
        code.get(most).get(at).memory('f32.load', 0, 4).op('f32.max').set(most);
        advance(code, at, 4);
        advance(code, left, -1);
      });
      code.get(most).op('f64.promote_f32').get(scale).op('f64.mul').op('f64x2.splat').set(greatest);
      code.f64(0).op('f64x2.splat').set(total);
      /** Stores both numbers, or the first alone at the end of an odd row, since the second is the next row's. */
      const store = (): void => {
        code.get(left).i32(1).op('i32.eq').if(
          () => code.get(to).get(power).op('f32x4.demote_f64x2_zero').memoryLane('v128.store32_lane', 0, 0, 4),
          () => code.get(to).get(power).op('f32x4.demote_f64x2_zero').memoryLane('v128.store64_lane', 0, 0, 4),
        );
        advance(code, at, 8);
        advance(code, to, 8);
        advance(code, left, -2);
      };
      copyLocal(code, at, x);
      copyLocal(code, to, out);
      copyLocal(code, left, length);
      whilePositive(code, left, () => {
        const z = pairs.hold(() => {
          pairs.mul(factors, () => code.get(at).memory('v128.load64_splat', 0, 4).op('f64x2.promote_low_f32x4'))();
          code.get(greatest).op('f64x2.sub');
        });
        pairs.exp(z)();
        code.set(power);
        code.get(left).i32(1).op('i32.eq').if(() => code.get(power).f64(0).lane('f64x2.replace_lane', 1).set(power));
        code.get(total).get(power).op('f64x2.add').set(total);
        store();
      });
      code.f64(1).get(total).lane('f64x2.extract_lane', 0).get(total).lane('f64x2.extract_lane', 1).op('f64.add').op('f64.div').op('f64x2.splat').set(factor);
      copyLocal(code, at, out);
      copyLocal(code, to, out);
      copyLocal(code, left, length);
      whilePositive(code, left, () => {
        code.get(at).memory('v128.load64_splat', 0, 4).op('f64x2.promote_low_f32x4').get(factor).op('f64x2.mul').set(power);
        store();
      });
      [x, out].forEach((pointer) => code.get(pointer).get(length).i32(4).op('i32.mul').op('i32.add').set(pointer));
      advance(code, rows, -1);
    });
  }, { export: true });
};
