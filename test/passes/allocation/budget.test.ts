/** Budgets as text, and which layers must share a width. */
import { describe, expect, it } from 'vitest';
import { parseGraph } from '../../../src/ir/parse.ts';
import type { Graph } from '../../../src/ir/graph.ts';
import { uniformWidth } from '../../../src/ir/ops/widths.ts';
import { parseBudget } from '../../../src/passes/allocation/budget.ts';
import { bitOperations, layersOf, tiedByReading, withWidths } from '../../../src/passes/allocation/layers.ts';

describe('budgets', () => {
  it('have units', () => {
    expect(parseBudget('size=96K, ram=1.5M,latency=20ms,bops=1.2G,drop=0.5%')).toEqual({ size: 98304, ram: 1572864, latency: 20000, bops: 1.2e9, drop: 0.005 });
    expect(parseBudget('size=1000,latency=250us,drop=.01')).toMatchObject({ size: 1000, latency: 250, drop: 0.01, ram: null });
  });
  it.each([
    ['size', 'a name, a number and a unit are expected'], ['flash=3K', 'there is no resource "flash"'], ['latency=3', 'the unit is missing'], ['size=3ms', '"ms" is no unit of it'],
    ['size=1,size=2', 'given twice'], ['', 'limits nothing'], ['drop=100%', 'below 100 %'], ['size=-4', 'a name, a number'],
  ])('"%s" is refused: %s', (text, why) => { expect(() => parseBudget(text)).toThrow(why); });
});

const block = parseGraph(`
graph @block : float (%x: f32[1, 8, 8, 4]) -> (%sum) {
  %w0 = const splat(0.5) : f32[4, 3, 3, 4]
  %w1 = const splat(0.25) : f32[4, 3, 3, 4]
  %w2 = const splat(1) : f32[4, 1, 1, 4]
  %a = conv(%x, %w0) {pads: [1, 1, 1, 1]} : f32[1, 8, 8, 4]
  %r = relu(%a) : f32[1, 8, 8, 4]
  %b = conv(%r, %w1) {pads: [1, 1, 1, 1]} : f32[1, 8, 8, 4]
  %s = conv(%x, %w2) : f32[1, 8, 8, 4]
  %sum = add(%b, %s) : f32[1, 8, 8, 4]
}`) as Graph<'float'>;

describe('layers', () => {
  it('that read one value share its width: both ways round a residual block', () => {
    const layers = layersOf(block);
    expect(layers.map(({ name, parameters, macs }) => [name, parameters, macs])).toEqual([['a', 144, 9216], ['b', 144, 9216], ['s', 16, 1024]]);
    expect(tiedByReading(block, layers)).toEqual([[0, 2], [1]]);
  });
  it('carry their widths as an attribute', () => {
    const marked = withWidths(block, new Map([['a', { weights: { bits: 3, format: 'codebook' }, activations: 8 }], ['b', { weights: uniformWidth(4), activations: 6 }]]));
    expect(marked.nodes.map(({ attrs }) => attrs['widths'])).toEqual(['w3ca8', undefined, 'w4a6', '', undefined]);
  });
  it('count bit operations', () => {
    expect(bitOperations(layersOf(block)[2], { weights: uniformWidth(4), activations: 8 })).toBe(1024 * 32);
    // levels of a codebook are multiplied as bytes
    expect(bitOperations(layersOf(block)[2], { weights: { bits: 4, format: 'codebook' }, activations: 8 })).toBe(1024 * 64);
  });
});
