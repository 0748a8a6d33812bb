/** What `report.json` says about chosen bits: choices, costs and losses of every layer, what each limit is worth, and the front over size. */
import { printWidths } from '../../ir/ops/widths.ts';
import { CompileError } from '../../ir/diagnostic.ts';
import { bitOperations } from './layers.ts';
import type { Allocation, Workings } from './allocate.ts';
import { realCost, sizeOf, type Candidate } from './candidates.ts';
import type { Budget, Resource } from './budget.ts';
import { metersOf, type Meter } from './costs.ts';
import type { Judgement } from './judge.ts';
import { programmeOf, widthsOf } from './modelling.ts';
import type { LossTable } from './sensitivity.ts';
import { extremeSize } from './smallest.ts';
import { defaultSolverOptions, solve, type Solution } from './solver.ts';

export interface LayerExplanation {
  readonly name: string;
  readonly from: readonly string[];
  readonly parameters: number;
  readonly macs: number;
  readonly chosen: string;
  /** set by a rule of the user, not by the programme */
  readonly kept: boolean;
  readonly choices: readonly { readonly widths: string; readonly loss: number; readonly costs: Readonly<Record<string, number>> }[];
  readonly why: string;
}
export interface LimitExplanation {
  readonly label: string;
  readonly resource: Resource;
  readonly most: number;
  readonly predicted: number;
  /** of the compiled program; null for bit operations, which are counted */
  readonly real: number | null;
  /** share of the loss that a tenth more of this resource would save; 0 where the limit does not bind */
  readonly tenthMoreSaves: number;
  /** loss saved by one more unit, from the same solve */
  readonly shadowPrice: number;
}
export interface Explanation {
  readonly budget: Budget;
  readonly measure: string;
  readonly engine: string;
  readonly samples: number;
  /** what the outputs lose: predicted as a sum over the layers, and measured on the network as a whole */
  readonly loss: { readonly kind: 'kl' | 'noise'; readonly predicted: number | null; readonly measured: number; readonly bound: number | null; readonly gap: number | null; /** the solver ran out of time */ readonly stopped: boolean };
  /** `refined`: layers whose bits measuring around the answer of the programme has changed */
  readonly candidates: readonly { readonly name: string; readonly refined: number; readonly sizeBytes: number; readonly kl: number | null; readonly noise: number; readonly chosen: boolean }[];
  readonly drop: Allocation['drop'];
  /** embeddings with narrower codes than the sums that their rows enter */
  readonly tables: readonly { readonly name: string; readonly bits: number }[];
  readonly limits: readonly LimitExplanation[];
  readonly layers: readonly LayerExplanation[];
  /** least predicted loss for sizes between the fewest and the most bits everywhere */
  readonly front: readonly { readonly sizeBytes: number; readonly loss: number; readonly meanBits: number }[];
}

const FRONT_POINTS = 9;

const lossOf = ({ kl, noise }: Judgement): number => kl ?? noise;

export const explanationOf = async (allocation: Allocation, budget: Budget, options: { readonly gap: number; readonly seconds: number }): Promise<Explanation> => {
  const { chosen, candidates, table, workings, drop, tables } = allocation;
  const { meters, layers, choices, kept, engine, judge } = workings;
  const settings = { ...defaultSolverOptions, ...options };
  const solved = (limits: readonly number[], over: Workings = workings): Promise<Solution | null> => solve(programmeOf(over, table, limits).programme, engine, settings).catch((cause: unknown) => {
    if (cause instanceof CompileError && cause.kind === 'budget') return null;
    throw cause;
  });
  const most = meters.map((meter) => meter.most);
  const predicted = predictedLoss(table, workings, chosen);
  const binding = await Promise.all(meters.map(async (meter, r) => {
    if (!Number.isFinite(meter.most)) return { saves: 0, price: 0 };
    const more = await solved(most.map((limit, other) => (other === r ? limit * 1.1 : limit)));
    const gain = more === null || predicted === null ? 0 : Math.max(0, predicted - more.loss);
    return { saves: predicted === null || predicted === 0 ? 0 : gain / predicted, price: gain / (0.1 * meter.most) };
  }));
  return {
    budget, measure: table.name, engine: engine.name, samples: judge.count,
    loss: {
      kind: judge.classes === null ? 'noise' : 'kl', predicted, measured: lossOf(chosen.judgement),
      bound: chosen.solution?.bound ?? null, gap: chosen.solution?.gap ?? null, stopped: chosen.solution?.stopped ?? false,
    },
    tables: [...tables].map(([name, bits]) => ({ name, bits })),
    candidates: candidates.map((one) => ({ name: one.name, refined: one.refined, sizeBytes: sizeOf(one), kl: one.judgement.kl, noise: one.judgement.noise, chosen: one === chosen })),
    drop,
    limits: meters.map((meter, r) => ({
      label: meter.label, resource: meter.resource, most: meter.most, predicted: spentOn(meter, workings, chosen), real: realCost(chosen, meter),
      tenthMoreSaves: binding[r].saves, shadowPrice: binding[r].price,
    })).filter(({ most: limit }) => Number.isFinite(limit)),
    layers: layers.map((layer, i) => {
      const own = chosen.widths.get(layer.name)!;
      const list = choices[i].map((widths) => ({ widths: printWidths(widths), loss: table.loss(i, widths), costs: Object.fromEntries([...meters.map((meter) => [meter.label, meter.cost(layer, widths)] as const), ['bops', bitOperations(layer, widths)]]) }));
      return {
        name: layer.name, from: layer.node.site.origins, parameters: layer.parameters, macs: layer.macs, chosen: printWidths(own), kept: kept[i] !== null, choices: list,
        why: whyOf(printWidths(own), kept[i] !== null, list, meters),
      };
    }),
    front: await frontOf(table, workings, solved),
  };
};

const predictedLoss = (table: LossTable, { layers }: Workings, { widths }: Candidate): number | null => {
  const losses = layers.map(({ name }, i) => table.loss(i, widths.get(name)!));
  return losses.every(Number.isFinite) ? losses.reduce((sum, loss) => sum + loss, 0) : null;
};

const spentOn = (meter: Meter, { layers }: Workings, { widths }: Candidate): number => meter.fixed + layers.reduce((sum, layer) => sum + meter.cost(layer, widths.get(layer.name)!), 0);

/** One sentence: what fewer bits would cost, and what more would buy. */
const whyOf = (chosen: string, kept: boolean, list: LayerExplanation['choices'], meters: readonly Meter[]): string => {
  if (kept) return 'kept by a rule';
  if (list.length === 1) return 'no other width costs less on these targets';
  const at = list.findIndex(({ widths }) => widths === chosen);
  if (at < 0) return 'tied to another layer';
  const label = meters[0]?.label ?? 'bops';
  const own = list[at];
  const relative = (other: (typeof list)[number], verb: string): string => `${other.widths} would ${verb} ${Math.abs(other.costs[label] - own.costs[label]).toFixed(0)} of ${label} and ${other.loss > own.loss ? 'lose' : 'gain'} ${Math.abs(other.loss - own.loss).toPrecision(2)}`;
  const cheaper = list.filter(({ costs }) => costs[label] < own.costs[label]).sort((a, b) => b.costs[label] - a.costs[label])[0];
  const dearer = list.filter(({ costs }) => costs[label] > own.costs[label]).sort((a, b) => a.costs[label] - b.costs[label])[0];
  return [cheaper && relative(cheaper, 'save'), dearer && relative(dearer, 'take')].filter((one) => one !== undefined).join('; ') || 'the only width';
};

/** The front by repeated solves, the size on all targets limited and nothing else. */
const frontOf = async (table: LossTable, workings: Workings, solved: (limits: readonly number[], over: Workings) => Promise<Solution | null>): Promise<Explanation['front']> => {
  const { layers, prices } = workings;
  const { meters } = metersOf({ size: Infinity, ram: null, latency: null, bops: null, drop: null }, layers, prices);
  if (meters.length === 0) return [];
  const over: Workings = { ...workings, meters };
  const ends = [Math.min, Math.max].map((pick) => extremeSize(over, pick));
  const parameters = layers.reduce((sum, layer) => sum + layer.parameters, 0) || 1;
  const points: { sizeBytes: number; loss: number; meanBits: number }[] = [];
  for (let n = 0; n < FRONT_POINTS; n++) {
    const sizeBytes = Math.ceil(ends[0] + ((ends[1] - ends[0]) * n) / (FRONT_POINTS - 1));
    const solution = await solved(meters.map(() => sizeBytes), over);
    if (solution === null) continue;
    const model = programmeOf(over, table, meters.map(() => sizeBytes));
    const widths = widthsOf(over, model, solution.assignment);
    points.push({ sizeBytes, loss: solution.loss, meanBits: layers.reduce((sum, { name, parameters: own }) => sum + ((widths.get(name)!.weights?.bits ?? 0) * own) / parameters, 0) });
  }
  return points;
};
