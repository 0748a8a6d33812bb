/** What layers cost: products, and the widths that they are counted under. */
import { expect, it } from 'vitest';
import { layerCosts, macsByWidth } from '../../src/ir/cost.ts';
import { parseGraph } from '../../src/ir/parse.ts';

const linearOf = (codes: string): ReturnType<typeof parseGraph> => parseGraph(`graph @g : kernel (%x: ${codes}[2, 3]) -> (%y) {
  %w = const [1, -2, 3] : i4<1, -7..7>[1, 3]
  %y = linear_acc(%x, %w) {bound: [-20000, 20000]} : i32[2, 1]
}
`);

it.each([
  ['i8<1, -8..7>', 'w4a4'], ['i8<1>', 'w4a8'], ['u8<1, 0..63>', 'w4a6'], ['u8<1, 0..4>', 'w4a3'], ['i8<1, -127..127>', 'w4a8'], ['u8', 'w4a8'],
])('codes %s count as %s, whatever element they lie in', (codes, width) => {
  expect(macsByWidth(layerCosts(linearOf(codes)))).toEqual({ [width]: 6 });
});
