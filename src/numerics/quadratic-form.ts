/**
 * Rounding and regression under a quadratic form: for a symmetric matrix A = gram + λ·I, find x with A·x = b, or integers q for which
 * (w − s·q)·A·(w − s·q)ᵀ is small.
 *
 * With A = L·Lᵀ the form of δ = w − s·q is Σ_i ((δ·L)_i)², and (δ·L)_i depends on δ_i and on later places alone. Rounded from the last
 * place to the first, each q_i makes its own term as small as it can be:
 *
 *     q_i = round((w_i + Σ_(k>i) δ_k·L_ki / L_ii) / s)
 *
 * This is Babai's nearest plane algorithm. It gives the codes of GPTQ (Frantar et al. 2022), whose inverse of A it does not need
 * (Chen et al. 2025, The Geometry of LLM Quantization: GPTQ as Babai's nearest plane algorithm). Columns of large variance are rounded
 * first, while the others can still make up for their errors.
 *
 * The loops are WebAssembly: eight right sides or eight steps s at a time, float64, in a fixed order.
 */
import { dampedCholesky } from './linalg.ts';
import { growTo, onOwnMemory } from './own-memory.ts';
import { functionOf, Module, type Code, type Local, type Memory } from '../wasm/index.ts';
import { advance, copyLocal, whilePositive } from './wasm-loops.ts';

export interface RoundedRow {
  readonly codes: Int8Array;
  readonly step: number;
  /** (w − step·codes)·A·(w − step·codes)ᵀ */
  readonly loss: number;
}

export interface QuadraticForm {
  /** λ, which grows from what was asked for until the matrix is positive definite */
  readonly damping: number;
  /** x with A·x = b for each row b of [rows, n] */
  solve(rows: Float64Array): Float64Array;
  /** codes among ascending levels, at most 16 unless they are neighbours, for the row w of n numbers, with the step of least loss among these; of equal ones the first */
  roundRow(w: Float64Array, steps: readonly number[], levels: Int8Array): RoundedRow;
}

/** Columns of the panel that a kernel works on at once: four vectors. */
const LANES = 8;
/** Levels of a table that weights are rounded to. */
const MOST_LEVELS = 16;
const LANE_BYTES = LANES * Float64Array.BYTES_PER_ELEMENT;

/** `gram` is [n, n], row-major; λ is `share` of its mean diagonal. */
export const quadraticForm = (gram: Float64Array, n: number, share: number): QuadraticForm => {
  // place → column: the last place is rounded first
  const order = Int32Array.from({ length: n }, (_, i) => i).sort((a, b) => gram[a * n + a] - gram[b * n + b] || b - a);
  const ordered = new Float64Array(n * n);
  for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) ordered[i * n + j] = gram[order[i] * n + order[j]];
  const { factor, damping } = dampedCholesky(ordered, n, share);
  // row i holds L[k, i] for k ≥ i, so that the kernels run along memory
  const upper = ordered;
  for (let i = 0; i < n; i++) for (let k = 0; k < n; k++) upper[i * n + k] = k < i ? 0 : factor[k * n + i];
  return {
    damping,
    solve(rows) {
      const solved = new Float64Array(rows.length);
      const { kernels, places, panel } = bench(upper, n);
      for (let first = 0; first * n < rows.length; first += LANES) {
        const lanes = Math.min(LANES, rows.length / n - first);
        panel.fill(0);
        for (let i = 0; i < n; i++) for (let lane = 0; lane < lanes; lane++) panel[i * LANES + lane] = rows[(first + lane) * n + order[i]];
        kernels.solve(places.matrix, n, places.panel);
        for (let i = 0; i < n; i++) for (let lane = 0; lane < lanes; lane++) solved[(first + lane) * n + order[i]] = panel[i * LANES + lane];
      }
      return solved;
    },
    roundRow(w, steps, levels) {
      const even = levels.length - 1 === levels[levels.length - 1] - levels[0];
      const { kernels, places, row, panel, codes, bounds, lanes: { steps: tried, losses } } = bench(upper, n);
      if (!even) {
        // bounds that no value passes fill the list
        bounds.fill(Infinity);
        for (let i = 0; i + 1 < levels.length; i++) { bounds[2 * i] = (levels[i] + levels[i + 1]) / 2; bounds[2 * i + 1] = levels[i + 1] - levels[i]; }
      }
      for (let i = 0; i < n; i++) row[i] = w[order[i]];
      let best: RoundedRow | null = null;
      for (let first = 0; first < steps.length; first += LANES) {
        for (let lane = 0; lane < LANES; lane++) tried[lane] = steps[Math.min(first + lane, steps.length - 1)];
        panel.fill(0);
        kernels[even ? 'round' : 'roundLevels'](places.matrix, n, places.row, places.steps, levels[0], even ? levels[levels.length - 1] : levels.length - 1, places.bounds, places.panel, places.codes, places.losses);
        const lane = losses.indexOf(Math.min(...losses));
        if (best !== null && losses[lane] >= best.loss) continue;
        const chosen = new Int8Array(n);
        for (let i = 0; i < n; i++) chosen[order[i]] = codes[i * LANES + lane];
        best = { codes: chosen, step: tried[lane], loss: losses[lane] };
      }
      return best!;
    },
  };
};

type Round = (matrix: number, n: number, row: number, steps: number, low: number, high: number, bounds: number, panel: number, codes: number, losses: number) => void;
interface Kernels {
  /** x becomes A⁻¹·x, for each lane of the panel [n, 8] */
  readonly solve: (matrix: number, n: number, panel: number) => void;
  readonly round: Round;
  readonly roundLevels: Round;
}
interface Places {
  readonly matrix: number;
  readonly row: number;
  readonly panel: number;
  readonly codes: number;
  readonly steps: number;
  readonly losses: number;
  readonly bounds: number;
}

let shared: { readonly memory: Memory; readonly kernels: Kernels } | null = null;
/** The matrix that lies in the memory. */
let loaded: Float64Array | null = null;

/** The kernels, and a memory that holds the matrix and room for one panel. */
const bench = (upper: Float64Array, n: number) => {
  if (shared === null) {
    const { memory, instance } = onOwnMemory(code());
    shared = { memory, kernels: { solve: functionOf(instance, 'solve') as Kernels['solve'], round: functionOf(instance, 'round') as Round, roundLevels: functionOf(instance, 'roundLevels') as Round } };
  }
  const { memory, kernels } = shared;
  const sizes = { panel: n * LANE_BYTES, codes: n * LANE_BYTES, steps: LANE_BYTES, losses: LANE_BYTES, bounds: MOST_LEVELS * 16, row: n * 8 + (n % 2) * 8, matrix: n * n * 8 };
  const places: Record<string, number> = {};
  let bytes = 0;
  for (const [name, size] of Object.entries(sizes)) { places[name] = bytes; bytes += size; }
  growTo(memory, bytes);
  const view = (name: keyof typeof sizes): Float64Array => new Float64Array(memory.buffer, places[name], sizes[name] / 8);
  if (loaded !== upper) view('matrix').set(upper);
  loaded = upper;
  return { kernels, places: places as unknown as Places, row: view('row'), panel: view('panel'), codes: view('codes'), bounds: view('bounds'), lanes: { steps: view('steps'), losses: view('losses') } };
};

const code = (): Uint8Array => {
  const module = new Module();
  module.importMemory('env', 'memory', { initial: 1 });
  const i32 = 'i32' as const;
  const vectors = (body: Code): readonly Local[] => Array.from({ length: LANES / 2 }, () => body.local('v128'));
  const zero = (body: Code, list: readonly Local[]): void => list.forEach((one) => body.f64(0).op('f64x2.splat').set(one));
  const load = (body: Code, list: readonly Local[], from: Local): void => list.forEach((one, v) => body.get(from).memory('v128.load', 16 * v, 8).set(one));
  const store = (body: Code, list: readonly Local[], to: Local): void => list.forEach((one, v) => body.get(to).get(one).memory('v128.store', 16 * v, 8));
  /** place `at` + index·bytes */
  const address = (body: Code, to: Local, at: Local, index: Local, bytes: number): Code => body.get(index).i32(bytes).op('i32.mul').get(at).op('i32.add').set(to);
  /** sums += Σ matrix[k]·panel[k] over `count` places from both addresses, which move on */
  const accumulate = (body: Code, sums: readonly Local[], matrix: Local, panel: Local, count: Local): void => {
    const factor = body.local('v128');
    whilePositive(body, count, () => {
      body.get(matrix).memory('v128.load64_splat', 0, 8).set(factor);
      sums.forEach((sum, v) => body.get(sum).get(factor).get(panel).memory('v128.load', 16 * v, 8).op('f64x2.mul').op('f64x2.add').set(sum));
      advance(body, matrix, 8);
      advance(body, panel, LANE_BYTES);
      advance(body, count, -1);
    });
  };

  /** For every row of the upper triangle from the last one up: `each` gets the row's number, its place in the panel, its pivot and the sums of the row behind it. */
  const eachRowUp = (body: Code, matrix: Local, n: Local, panel: Local, each: (i: Local, at: Local, pivot: Local, sums: readonly Local[]) => void): void => {
    const [i, at, row, other, count] = Array.from({ length: 5 }, () => body.local(i32));
    const [pivot, sums] = [body.local('v128'), vectors(body)];
    copyLocal(body, i, n);
    whilePositive(body, i, () => {
      advance(body, i, -1);
      body.get(i).get(n).op('i32.mul').get(i).op('i32.add').set(row);
      address(body, row, matrix, row, 8);
      address(body, at, panel, i, LANE_BYTES);
      body.get(row).memory('v128.load64_splat', 0, 8).set(pivot);
      advance(body, row, 8);
      body.get(at).i32(LANE_BYTES).op('i32.add').set(other);
      body.get(n).get(i).op('i32.sub').i32(1).op('i32.sub').set(count);
      zero(body, sums);
      accumulate(body, sums, row, other, count);
      each(i, at, pivot, sums);
    });
  };

  module.func('solve', [i32, i32, i32], [], (body, matrix, n, panel) => {
    const [i, at, row, other, count] = Array.from({ length: 5 }, () => body.local(i32));
    const [pivot, factor] = [body.local('v128'), body.local('v128')];
    const x = vectors(body);
    // L·y = b: each y_i is taken from the places behind it
    body.i32(0).set(i);
    copyLocal(body, row, matrix);
    copyLocal(body, at, panel);
    body.block((done) => body.loop((again) => {
      body.get(i).get(n).op('i32.ge_s').brIf(done);
      load(body, x, at);
      body.get(row).memory('v128.load64_splat', 0, 8).set(pivot);
      x.forEach((one) => body.get(one).get(pivot).op('f64x2.div').set(one));
      store(body, x, at);
      body.get(n).get(i).op('i32.sub').i32(1).op('i32.sub').set(count);
      body.get(at).i32(LANE_BYTES).op('i32.add').set(other);
      advance(body, row, 8);
      whilePositive(body, count, () => {
        body.get(row).memory('v128.load64_splat', 0, 8).set(factor);
        x.forEach((one, v) => body.get(other).get(other).memory('v128.load', 16 * v, 8).get(factor).get(one).op('f64x2.mul').op('f64x2.sub').memory('v128.store', 16 * v, 8));
        advance(body, row, 8);
        advance(body, other, LANE_BYTES);
        advance(body, count, -1);
      });
      // row i ends at its last column; row i + 1 begins at its diagonal
      body.get(i).i32(1).op('i32.add').tee(i).i32(8).op('i32.mul').get(row).op('i32.add').set(row);
      advance(body, at, LANE_BYTES);
      body.br(again);
    }));
    // Lᵀ·x = y, from the last place
    eachRowUp(body, matrix, n, panel, (_, at, pivot, sums) => {
      sums.forEach((sum, v) => body.get(at).get(at).memory('v128.load', 16 * v, 8).get(sum).op('f64x2.sub').get(pivot).op('f64x2.div').memory('v128.store', 16 * v, 8));
    });
  }, { export: true });

  const rounding = (name: string, even: boolean): unknown => module.func(name, [i32, i32, i32, i32, 'f64', 'f64', i32, i32, i32, i32], [], (body, matrix, n, weights, steps, lowest, highest, bounds, panel, codes, losses) => {
    const place = body.local(i32);
    const [weight, high, low, wanted, rounded] = Array.from({ length: 5 }, () => body.local('v128'));
    const [step, loss] = [vectors(body), vectors(body)];
    load(body, step, steps);
    zero(body, loss);
    body.get(highest).op('f64x2.splat').set(high);
    body.get(lowest).op('f64x2.splat').set(low);
    eachRowUp(body, matrix, n, panel, (i, at, pivot, sums) => {
      address(body, place, weights, i, 8);
      body.get(place).memory('v128.load64_splat', 0, 8).set(weight);
      address(body, place, codes, i, LANE_BYTES);
      sums.forEach((sum, v) => {
        // q nearest to t = (w + sum/pivot)/step, δ = w − q·step, loss += (δ·pivot + sum)²
        body.get(weight).get(sum).get(pivot).op('f64x2.div').op('f64x2.add').get(step[v]).op('f64x2.div');
        if (even) body.f64(0.5).op('f64x2.splat').op('f64x2.add').op('f64x2.floor').get(high).op('f64x2.min').get(low).op('f64x2.max').set(rounded);
        else {
          // the lowest level, and the way to the next one for every bound below t
          body.set(wanted).get(low).set(rounded);
          for (let k = 0; k < MOST_LEVELS - 1; k++) {
            body.get(rounded).get(wanted).get(bounds).memory('v128.load64_splat', 16 * k, 8).op('f64x2.gt');
            body.get(bounds).memory('v128.load64_splat', 16 * k + 8, 8).op('v128.and').op('f64x2.add').set(rounded);
          }
        }
        body.get(place).get(rounded).memory('v128.store', 16 * v, 8);
        body.get(weight).get(rounded).get(step[v]).op('f64x2.mul').op('f64x2.sub').set(rounded);
        body.get(at).get(rounded).memory('v128.store', 16 * v, 8);
        body.get(rounded).get(pivot).op('f64x2.mul').get(sum).op('f64x2.add').set(rounded);
        body.get(loss[v]).get(rounded).get(rounded).op('f64x2.mul').op('f64x2.add').set(loss[v]);
      });
    });
    store(body, loss, losses);
  }, { export: true });
  rounding('round', true);
  rounding('roundLevels', false);
  return module.encode();
};
