/** The time of a program by layers, from the simulator's clock. */
import { sizeOf, staticShape } from '../../ir/dim.ts';
import type { Value } from '../../ir/graph.ts';
import type { Step } from '../group.ts';
import { laneBits } from './cycles.ts';
import type { LayerTime, ScheduleFile } from './files.ts';
import { engineOf, engines, type Engine, type Synchronised } from './isa.ts';
import { lanesFor, type Machine } from './machine.ts';
import type { Timeline } from './simulate.ts';

/** Products of a step in the real network, border included. */
const macsOf = ({ root }: Step): number => {
  const shape = (slot: string): readonly number[] => staticShape((root.inputs[slot] as Value).type.shape);
  const outputs = sizeOf(root.output.type.shape);
  switch (root.op) {
    case 'conv_acc': return outputs * sizeOf(shape('weight').slice(1));
    case 'linear_acc': return outputs * shape('weight')[1];
    case 'matmul_acc': return outputs * shape('a')[shape('a').length - 1];
    case 'attention_int': {
      const [batch, rows, width] = shape('q');
      const [, keys, widthV] = shape('v');
      return batch * rows * keys * (width + widthV);
    }
    default: return 0;
  }
};

const utilisationOf = (machine: Machine, program: readonly Synchronised[], macs: number, cycles: number): number => {
  const product = program.find(({ op }) => op === 'MM');
  if (product?.op !== 'MM' || cycles === 0) return 0;
  const mode = lanesFor(machine, laneBits(product.fields.wBits), Number(product.fields.aBits))!;
  return macs / (cycles * machine.array.rows * machine.array.columns * mode.perCycle);
};

const boundOf = ({ LD, MM, VE, ST }: Readonly<Record<Engine, number>>, cycles: number): LayerTime['bound'] => {
  const most = Math.max(LD, MM, VE, ST);
  return 2 * most < cycles || most === 0 ? 'latency' : MM === most ? 'array' : VE === most ? 'vector' : 'bandwidth';
};

export const scheduleOf = (machine: Machine, program: readonly Synchronised[], { start, end, cycles }: Timeline, stepOf: readonly number[], steps: readonly Step[]): ScheduleFile => {
  let done = 0;
  /** cycles that each engine works from one moment to another, for whatever layer */
  const queues = engines.map((engine) => program.flatMap((one, i) => (engineOf(one) === engine && end[i] > start[i] ? [{ start: start[i], end: end[i] }] : [])));
  const workIn = (from: number, to: number): Readonly<Record<Engine, number>> => Object.fromEntries(engines.map((engine, e) =>
    [engine, queues[e].reduce((sum, one) => sum + Math.max(0, Math.min(to, one.end) - Math.max(from, one.start)), 0)])) as Record<Engine, number>;
  const layers = steps.map((step, index): LayerTime => {
    const first = stepOf.indexOf(index);
    const own = program.flatMap((one, i) => (stepOf[i] === index ? [{ one, i }] : []));
    const finished = own.reduce((latest, { i }) => Math.max(latest, end[i]), done);
    const busy = Object.fromEntries(engines.map((engine) => [engine, own.reduce((sum, { one, i }) => sum + (engineOf(one) === engine ? end[i] - start[i] : 0), 0)])) as Record<Engine, number>;
    const moved = (op: 'LD' | 'ST'): number => own.reduce((sum, { one }) => sum + (one.op === op ? one.fields.run * one.fields.n0 * one.fields.n1 * one.fields.n2 : op === 'LD' && one.op === 'GATHER' ? one.fields.run * one.fields.count : 0), 0);
    const macs = macsOf(step);
    const nodes = [step.root, step.rescale, step.table].filter((node) => node !== null);
    const layer: LayerTime = {
      name: step.output.name, ops: nodes.map(({ op }) => op), from: [...new Set(nodes.flatMap(({ site }) => site.origins))], firstInstruction: Math.max(0, first), instructions: own.length,
      cycles: finished - done, busy, macs, utilisation: Math.round(1e4 * utilisationOf(machine, own.map(({ one }) => one), macs, Math.max(finished - done, busy.MM))) / 1e4,
      bytesLoaded: moved('LD'), bytesStored: moved('ST'), bound: boundOf(workIn(done, finished), finished - done),
    };
    done = finished;
    return layer;
  });
  return { machine: machine.name, cycles, microseconds: Math.round((1000 * cycles) / machine.clockMHz) / 1000, layers, instructions: program.map(({ op }, i) => [op, start[i], end[i]]) };
};
