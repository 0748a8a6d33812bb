/**
 * The weights of every layer at several widths, each layer rounded by itself as the pipeline would round it: on the nearest plane under the
 * moments of what the layer reads where the pipeline fits weights, else to the nearest code. The moments are those of the float graph, and
 * so they are taken once for all widths.
 */
import { constantOf, type Graph, type Value } from '../../ir/graph.ts';
import { printWeights, type WeightWidth } from '../../ir/ops/widths.ts';
import type { Tensor } from '../../ir/type.ts';
import { dequantized } from '../../calibration/executor.ts';
import { frontierBytes, openFrontier, type Frontier } from '../../calibration/frontier.ts';
import { quadraticForm, type QuadraticForm } from '../../numerics/quadratic-form.ts';
import { dampingShare, deepestPlanes } from '../fit-weights.ts';
import type { PassContext } from '../pass.ts';
import { quantizeRows } from '../quantize-weights.ts';
import { layerRows, type LayerRows } from '../reconstruction/layer-rows.ts';
import { layerSums, variancesOf } from '../reconstruction/layer-sums.ts';
import { weightGrid, weightTensor } from '../weight-grids.ts';
import type { Layer } from './layers.ts';

export interface Rounding {
  readonly weight: Tensor;
  /** of the error in the weights under the moments of what they multiply; in its own unit where the pipeline rounds to the nearest code */
  readonly loss: number;
}
/** Weights of a layer by their width, as `printWeights` writes it. */
export type Roundings = ReadonlyMap<string, Rounding>;

/** Samples, rows for each number of a row, and steps of a channel: fewer than for the network that comes out, for only widths are compared. */
const SAMPLES = 32;
const ROWS_PER_NUMBER = 8;
const FEWEST_ROWS = 2048;
const STEPS = 8;
/** Most bytes of values held at once. */
const HELD_BYTES = 2 ** 29;
/** Damping where the pipeline's own is not known. */
const DAMPING = 0.01;

export const roundWeights = (graph: Graph<'float'>, layers: readonly Layer[], offered: readonly WeightWidth[], context: PassContext): ReadonlyMap<string, Roundings> => {
  const found = new Map<string, Roundings>();
  const weighted = new Map(layers.filter(({ parameters }) => parameters > 0).map((layer) => [layer.node, layer]));
  const fitted = context.rest.find(({ pass }) => pass.name === 'fit-weights')?.options as { readonly damping?: number } | undefined;
  const plain = (weight: Tensor): Roundings => new Map(offered.map((width) => {
    const rounded = quantizeRows(weight, width);
    return [printWeights(width), { weight: rounded, loss: squaredError(weight, rounded) }];
  }));
  if (fitted === undefined) {
    for (const { name, node } of weighted.values()) found.set(name, plain(weightOf(node)));
    return found;
  }
  const { samples } = context.calibration!;
  const frontier = openFrontier(graph, samples, Math.max(1, Math.min(SAMPLES, samples.count, Math.floor(HELD_BYTES / frontierBytes(graph)))));
  let left = weighted.size;
  for (const [index, node] of graph.nodes.entries()) {
    if (left === 0) break;
    context.progress('round weights', index, graph.nodes.length);
    const layer = weighted.get(node);
    if (layer !== undefined) {
      const rows = layerRows(node);
      found.set(layer.name, rows.depth > deepestPlanes ? plain(weightOf(node)) : rounded(weightOf(node), rows, formsOf(node.inputs['x'] as Value, rows, frontier, fitted.damping || DAMPING), offered));
      left--;
    }
    frontier.settle(node, frontier.evaluate(node));
  }
  return found;
};

const squaredError = (exact: Tensor, rounded: Tensor): number => {
  const found = dequantized(rounded).data as Float32Array;
  return (exact.data as Float32Array).reduce((sum, w, i) => sum + (w - found[i]) ** 2, 0);
};

const weightOf = ({ inputs }: Layer['node']): Tensor => constantOf(inputs['weight'] as Value)!;

/** Moments of what a group reads: the damped form, and the variance of each entry of a row. */
interface GroupForm {
  readonly form: QuadraticForm;
  readonly variances: Float64Array;
}

/** At evenly spread positions of each sample. */
const formsOf = (x: Value, rows: LayerRows, frontier: Frontier, damping: number): readonly GroupForm[] => {
  const { depth, groups, positions } = rows;
  const count = Math.min(positions, Math.ceil(Math.max(FEWEST_ROWS, ROWS_PER_NUMBER * depth) / frontier.count));
  const sums = Array.from({ length: groups }, () => layerSums(depth, 0));
  const read = new Float32Array(count * depth);
  for (let i = 0; i < frontier.count; i++) {
    const chosen = Int32Array.from({ length: count }, (_, k) => (Math.floor((k * positions) / count) + (count === positions ? 0 : i)) % positions);
    const { data } = frontier.realsOf(x, i);
    for (let group = 0; group < groups; group++) {
      rows.gather(data as Float32Array, group, chosen, read);
      sums[group].add(read);
    }
  }
  return sums.map((own) => {
    const covariance = own.covariance();
    return { variances: variancesOf(covariance, depth), form: quadraticForm(covariance, depth, dampingShare(damping, depth, own.rows)) };
  });
};

const rounded = (weight: Tensor, { depth, outputs }: LayerRows, groups: readonly GroupForm[], offered: readonly WeightWidth[]): Roundings => {
  const real = Float64Array.from(weight.data as Float32Array);
  const rows = Array.from({ length: real.length / depth }, (_, channel) => ({ row: real.subarray(channel * depth, (channel + 1) * depth), group: groups[Math.floor(channel / outputs)] }));
  return new Map(offered.map((width) => {
    const grid = weightGrid(width, () => rows.map(({ row, group }) => ({ row, importances: group.variances })));
    const codes = new Int8Array(real.length);
    let loss = 0;
    const scales = rows.map(({ row, group }, channel) => {
      const found = group.form.roundRow(row, grid.steps(row, STEPS), grid.levels);
      codes.set(found.codes, channel * depth);
      loss += found.loss;
      return found.step;
    });
    return [printWeights(width), { weight: weightTensor(grid, weight.type.shape, scales, codes), loss }];
  }));
};
