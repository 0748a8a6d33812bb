/** Sizes of the panels of quads.ts. */

/** Columns of a panel, and neighbours along K that stand together. */
export const PANEL = 16;
export const QUAD = 4;
/** Codes of a step: a quad of every column. */
export const STEP = PANEL * QUAD;
