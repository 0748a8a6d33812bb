/** Widths that were chosen for a single layer: an attribute of the ops that multiply, read by the passes that round. */
import type { Attr } from '../op.ts';

/**
 * What codes of weights stand for. `uniform`: multiples of a step for each output channel, 2^b − 1 of them. `codebook`: entries of a list of
 * 2^b levels for the whole layer, each a multiple of that step; stored as their places in the list.
 */
export type WeightFormat = 'uniform' | 'codebook';
/** Widths that codes of a codebook may have: its entries are looked up in one register of 16 bytes. */
export const codebookBits: readonly number[] = [2, 3, 4];

const form = /^(?:w(?:([2-8])|([2-4])c))?a([2-8]|16)$/;

export const widthsAttr: Attr<string> = {
  doc: "bits of the weights, where the layer has some, and of the activations it multiplies: w4a8, w4ca8 (c: weights by codebook), a8; empty for those of the whole network",
  fallback: '',
  expected: 'w4a8, w4ca8 or a8',
  check: (value): value is string => value === '' || (typeof value === 'string' && form.test(value)),
};

/** Width of weights, and what their codes stand for. */
export interface WeightWidth {
  readonly bits: number;
  readonly format: WeightFormat;
}
export interface ChosenWidths {
  /** null where both operands are activations */
  readonly weights: WeightWidth | null;
  readonly activations: number;
}

export const uniformWidth = (bits: number): WeightWidth => ({ bits, format: 'uniform' });

/** `w4` or `w4c` */
export const printWeights = ({ bits, format }: WeightWidth): string => `w${bits}${format === 'codebook' ? 'c' : ''}`;

/** For an order: a codebook stands above uniform codes of its bits, which it nearly always betters, and below those of one bit more. */
export const fineness = ({ bits, format }: WeightWidth): number => (format === 'codebook' ? bits + 0.5 : bits);

/** Whether a width surely loses no more than another: more bits, or the same ones. Formats of the same bits suit one layer or another. */
export const isAtLeast = (a: WeightWidth | null, b: WeightWidth | null): boolean => b === null || (a !== null && (a.bits > b.bits || (a.bits === b.bits && a.format === b.format)));

/** `w4a8` → 4 and 8; null for the empty text. */
export const parseWidths = (text: string): ChosenWidths | null => {
  const found = form.exec(text);
  if (found === null) return null;
  const [, plain, indexed, activations] = found;
  const weights = plain !== undefined ? uniformWidth(Number(plain)) : indexed !== undefined ? { bits: Number(indexed), format: 'codebook' } as const : null;
  return { weights, activations: Number(activations) };
};
export const printWidths = ({ weights, activations }: ChosenWidths): string => `${weights === null ? '' : printWeights(weights)}a${activations}`;

/** The widths chosen for a node; null where none were. */
export const widthsOf = ({ attrs }: { readonly attrs: Readonly<Record<string, unknown>> }): ChosenWidths | null =>
  (typeof attrs['widths'] === 'string' ? parseWidths(attrs['widths']) : null);
