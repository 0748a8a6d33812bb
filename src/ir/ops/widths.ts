/** Widths that were chosen for a single layer: an attribute of the ops that multiply, read by the passes that round. */
import type { Attr } from '../op.ts';

const form = /^(?:w([2-8]))?a([2-8]|16)$/;

export const widthsAttr: Attr<string> = {
  doc: "bits of the weights, where the layer has some, and of the activations it multiplies: w4a8, a8; empty for those of the whole network",
  fallback: '',
  expected: 'w4a8 or a8',
  check: (value): value is string => value === '' || (typeof value === 'string' && form.test(value)),
};

export interface ChosenWidths {
  /** null where both operands are activations */
  readonly weights: number | null;
  readonly activations: number;
}

/** `w4a8` → 4 and 8; null for the empty text. */
export const parseWidths = (text: string): ChosenWidths | null => {
  const found = form.exec(text);
  return found === null ? null : { weights: found[1] === undefined ? null : Number(found[1]), activations: Number(found[2]) };
};
export const printWidths = ({ weights, activations }: ChosenWidths): string => `${weights === null ? '' : `w${weights}`}a${activations}`;

/** The widths chosen for a node; null where none were. */
export const widthsOf = ({ attrs }: { readonly attrs: Readonly<Record<string, unknown>> }): ChosenWidths | null =>
  (typeof attrs['widths'] === 'string' ? parseWidths(attrs['widths']) : null);
