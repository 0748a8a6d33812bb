/** Contenders against each other, in rounds that alternate; layers one by one; the limits of the machine. */
import { layerCosts, totalMacs } from '../ir/cost.ts';
import { programOf } from '../backends/backend.ts';
import { simd128 } from '../backends/schedules/target.ts';
import type { Graph } from '../ir/graph.ts';
import type { Variant } from '../backends/c/variants.ts';
import { titleOf } from './instructions.ts';
import { cPeakItems, cPeaks, lineMs, rescaledBy, wasmPeakItems, wasmPeaks, type Limit } from './limits.ts';
import { joined, middleOf, type Side, type Times } from './side.ts';
import { cSide, cSteps, wasmSide, wasmSteps, type Contender } from './sides.ts';

export interface Effort {
  readonly rounds: number;
  /** of each contender in each round */
  readonly ms: number;
  /** processes started to time the first output; the last one goes on */
  readonly starts: number;
}
export type Progress = (label: string, done: number, total: number) => void;

export interface Result extends Times {
  readonly name: string;
  readonly kind: Contender['kind'];
  /** 10^9 multiply-accumulates a second at the best time */
  readonly gmacs: number;
  /** from just before loading to the first output */
  readonly start: { readonly runs: number; readonly bestMs: number; readonly medianMs: number };
}

/** Multiply-accumulates in some milliseconds as 10^9 a second. */
export const rate = (macs: number, ms: number): number => macs / (ms * 1e6);

/** An engine compiles what runs often: rounds go on until two in turn gain less than this. */
const WARM_GAIN = 0.02;
const WARM_MS = 250;
const WARM_MOST_MS = 10_000;

const warmUp = async (side: Side): Promise<void> => {
  let best = Infinity;
  let idle = 0;
  for (const end = performance.now() + WARM_MOST_MS; idle < 2 && performance.now() < end;) {
    const { bestMs } = (await side.each(0, WARM_MS))!;
    idle = bestMs < best * (1 - WARM_GAIN) ? 0 : idle + 1;
    best = Math.min(best, bestMs);
  }
};

export const compete = async (contenders: readonly Contender[], macs: number, { rounds, ms, starts }: Effort, progress: Progress = () => undefined): Promise<readonly Result[]> => {
  const sides: Side[] = [];
  try {
    const startTimes: number[][] = [];
    for (const contender of contenders) {
      const times: number[] = [];
      for (let i = 0; i < starts; i++) {
        progress(`start ${contender.name}`, i, starts);
        const side = await contender.start();
        times.push(side.startMs);
        if (i < starts - 1) side.close();
        else sides.push(side);
      }
      startTimes.push(times);
    }
    for (const [i, { warmsUp, name }] of contenders.entries()) {
      progress(`warm up ${name}`, 0, 0);
      if (warmsUp) await warmUp(sides[i]);
    }
    const found = contenders.map((): Times[] => []);
    for (let round = 0; round < rounds; round++) {
      for (const [i, side] of sides.entries()) {
        progress('round', round * sides.length + i, rounds * sides.length);
        found[i].push((await side.each(0, ms))!);
      }
    }
    return contenders.map(({ name, kind }, i) => {
      const times = joined(found[i]);
      return {
        name, kind, ...times, gmacs: rate(macs, times.bestMs),
        start: { runs: starts, bestMs: Math.min(...startTimes[i]), medianMs: middleOf(startTimes[i]) },
      };
    });
  } finally {
    sides.forEach((side) => side.close());
  }
};

/** A step of the compiled program: what it computes, and how long it takes inside the whole. */
export interface LayerResult extends Times {
  readonly name: string;
  /** kernel ops that the step joins */
  readonly ops: readonly string[];
  /** ONNX nodes it came from */
  readonly from: readonly string[];
  readonly macs: number;
  /** null where it multiplies nothing */
  readonly gmacs: number | null;
  /** of the machine's limits: the time that the step takes at least, by the time it takes; null where it neither multiplies nor rescales */
  readonly share: number | null;
}
export interface Layers {
  /** instruction set, or the engine's */
  readonly instructions: string;
  readonly limits: readonly Limit[];
  readonly steps: readonly LayerResult[];
}

/** What kernels are printed for in WebAssembly. */
export const wasmTitle = simd128.name;

/** Times every step of a program, one after another as the program runs them. */
export const timeLayers = async (
  graph: Graph<'kernel'>, target: Variant | 'wasm', limits: readonly Limit[], { rounds, ms }: Effort, flags: readonly string[], progress: Progress = () => undefined,
): Promise<Layers> => {
  const side = await (target === 'wasm' ? wasmSteps([graph]) : cSteps([graph], target, flags));
  const instructions = target === 'wasm' ? wasmTitle : titleOf(target);
  try {
    if (target === 'wasm') for (let i = 0; i < 3; i++) await side.chain(WARM_MS);
    const found: (readonly Times[])[] = [];
    for (let round = 0; round < rounds; round++) {
      progress(`layers in ${instructions}`, round, rounds);
      found.push(await side.chain(ms));
    }
    const macs = new Map(layerCosts(graph).map((layer) => [layer.name, layer.macs]));
    const { steps } = programOf(graph);
    const rows = found[0].map((_, i): LayerResult => {
      const times = joined(found.map((round) => round[i]));
      const step = steps[i];
      if (step === undefined) return { ...times, name: `copy ${i - steps.length + 1}`, ops: [], from: [], macs: 0, gmacs: null, share: null };
      const nodes = [step.root, step.rescale, step.table].filter((node) => node !== null);
      const own = macs.get(step.root.output.name) ?? 0;
      const gmacs = own === 0 ? null : rate(own, times.bestMs);
      const least = lineMs(limits, own, rescaledBy(step));
      return {
        ...times, name: step.output.name, ops: nodes.map(({ op }) => op), from: [...new Set(nodes.flatMap(({ site }) => site.origins))], macs: own, gmacs,
        share: least === null || least === 0 ? null : least / times.bestMs,
      };
    });
    return { instructions, limits, steps: rows };
  } finally {
    side.close();
  }
};

/** Spent on each peak loop in each round. */
const PEAK_MS = 15;
const PEAK_ROUNDS = 12;

export const measureLimits = async (target: 'cpu' | 'wasm'): Promise<readonly Limit[]> => {
  const items = target === 'cpu' ? cPeakItems : wasmPeakItems;
  const side = await (target === 'cpu' ? cSide('peak loops', cPeaks(), ['-O2'], items.length) : wasmSide('peak loops', wasmPeaks(), wasmPeakItems.map(({ name }) => name)));
  try {
    const limits: Limit[] = [];
    for (const [i, { primitive, kind, perRun }] of items.entries()) {
      const rounds = [];
      for (let round = 0; round < PEAK_ROUNDS; round++) rounds.push(await side.each(i, PEAK_MS));
      const found = rounds.filter((times) => times !== null);
      if (found.length > 0) limits.push({ primitive, kind, rate: perRun / (joined(found).bestMs * 1e6) });
    }
    return limits;
  } finally {
    side.close();
  }
};

/** The time that a whole program takes at least. */
export const programLineMs = (graph: Graph<'kernel'>, limits: readonly Limit[]): number | null =>
  lineMs(limits, totalMacs(layerCosts(graph)), programOf(graph).steps.reduce((sum, step) => sum + rescaledBy(step), 0));
