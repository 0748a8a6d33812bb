/** Ops that move elements. */
import { divDims, equalDims, isStatic, mulDims, printDim, printShape, type Dim, type Shape } from '../../ir/dim.ts';
import type { Value } from '../../ir/graph.ts';
import { concat, expand, gather, pad, reshape, slice, transpose } from '../../ir/ops/index.ts';
import { isKnown, known, type Term } from '../known.ts';
import type { Handler, Handlers, OnnxNode } from '../node.ts';

export const shapeOf = (term: Term): Shape => (isKnown(term) ? term.shape : term.type.shape);

/** The size that makes `shape` (its -1 left out) hold as many elements as `source`. */
const missingSize = (n: OnnxNode, source: Shape, rest: Shape): Dim => {
  const left = [...source];
  const others = rest.filter((dim) => {
    const twin = isStatic(dim) ? -1 : left.findIndex((one) => equalDims(one, dim));
    if (twin >= 0) left.splice(twin, 1);
    return twin < 0;
  });
  const product = (shape: Shape): Dim | null => shape.reduce<Dim | null>((all, dim) => (all === null ? null : mulDims(all, dim)), 1);
  const [total, given] = [product(left), product(others)];
  return (total !== null && given !== null ? divDims(total, given) : null)
    ?? n.fail(`the shape [${printShape(source)}] cannot become [${printShape(rest)}] and one more size`);
};

const reshapeTo: Handler = (n) => {
  const target = n.version < 5 ? n.ints('shape') : n.dims(1);
  const allowZero = n.int('allowzero', 0) !== 0;
  n.ignore('consumed_inputs');
  const source = n.shape(0);
  const sizes = target.map((dim, i) => (dim === 0 && !allowZero ? source[i] ?? n.fail(`size 0 at ${i} copies an axis that is not there`) : dim));
  const unknown = sizes.indexOf(-1);
  if (sizes.some((dim, i) => typeof dim === 'number' && dim < 0 && i !== unknown)) n.fail(`the shape [${printShape(sizes)}] is not possible`);
  const shape = unknown < 0 ? sizes : sizes.map((dim, i) => (i === unknown ? missingSize(n, source, sizes.filter((_, j) => j !== unknown)) : dim));
  return n.move(reshape, { x: n.term(0) }, { shape });
};

const flatten: Handler = (n) => {
  const shape = n.shape(0);
  const at = n.int('axis', 1);
  const axis = at < 0 ? at + shape.length : at;
  if (axis < 0 || axis > shape.length) n.fail(`axis ${at} is outside a tensor of rank ${shape.length}`);
  const product = (part: Shape): Dim => part.reduce<Dim>((all, dim) => mulDims(all, dim) ?? n.refuse(`the product of ${printShape(part)}; bind the symbols with --dim`), 1);
  return n.move(reshape, { x: n.term(0) }, { shape: [product(shape.slice(0, axis)), product(shape.slice(axis))] });
};

const squeeze: Handler = (n) => {
  const shape = n.shape(0);
  const given = n.version < 13 ? (n.hasAttr('axes') ? n.ints('axes') : null) : n.intsFrom('axes', 1);
  const axes = given === null ? shape.flatMap((dim, i) => (dim === 1 ? [i] : [])) : n.axes(given, shape.length);
  for (const axis of axes) if (isStatic(shape[axis]) && shape[axis] !== 1) n.fail(`axis ${axis} of [${printShape(shape)}] cannot be squeezed`);
  return n.move(reshape, { x: n.term(0) }, { shape: shape.filter((_, i) => !axes.includes(i)) });
};

const unsqueeze: Handler = (n) => {
  const shape = n.shape(0);
  const given = n.version < 13 ? n.ints('axes') : n.intsFrom('axes', 1) ?? n.fail('the axes are missing');
  const rank = shape.length + given.length;
  const axes = new Set(n.axes(given, rank));
  if (axes.size !== given.length) n.fail(`axes [${given.join(', ')}] name one axis twice`);
  const rest = [...shape];
  const sizes = Array.from({ length: rank }, (_, i) => (axes.has(i) ? 1 : rest.shift() as Dim));
  return n.move(reshape, { x: n.term(0) }, { shape: sizes });
};

const permute: Handler = (n) => {
  const rank = n.rank(0);
  const perm = n.ints('perm', Array.from({ length: rank }, (_, i) => rank - 1 - i));
  return n.move(transpose, { x: n.term(0) }, { perm });
};

const join: Handler = (n) => {
  const terms = n.inputs.map((_, i) => n.term(i)).filter((term) => !shapeOf(term).some((dim, _i, all) => dim === 0 && all.length === 1));
  const axis = n.version < 4 ? n.int('axis', 1) : n.int('axis');
  if (terms.length === 0) return n.term(0);
  return n.move(concat, { xs: terms }, { axis: n.axis(axis, shapeOf(terms[0]).length) });
};

const split: Handler = (n) => {
  const shape = n.shape(0);
  const axis = n.axis(n.int('axis', 0), shape.length);
  const size = shape[axis];
  const parts = n.outputCount;
  if (n.version >= 18 && n.int('num_outputs', parts) !== parts) n.fail(`"num_outputs" is not the ${parts} outputs of the node`);
  const even = (): readonly number[] => {
    if (!isStatic(size)) return n.refuse(`the axis of size ${printDim(size)}; bind it with --dim`);
    const chunk = Math.ceil(size / parts);
    return Array.from({ length: parts }, (_, i) => Math.max(0, Math.min(chunk, size - i * chunk)));
  };
  const lengths = (n.version < 13 ? (n.hasAttr('split') ? n.ints('split') : null) : n.intsFrom('split', 1)) ?? even();
  if (lengths.length < n.outputCount) n.fail(`${lengths.length} parts for ${n.outputCount} outputs`);
  if (lengths.some((length) => length < 0)) n.fail('a part has a negative size');
  let start = 0;
  return lengths.map((length, i) => {
    const from = start;
    start += length;
    return n.move(slice, { x: n.term(0) }, { axis, start: from, end: start, step: 1 }, i);
  });
};

const cut: Handler = (n) => {
  const shape = n.shape(0);
  const list = (name: string, input: number): readonly number[] | null =>
    n.version < 10 ? n.clampedInts(name) : n.has(input) ? n.numbers(input) : null;
  const starts = list('starts', 1) ?? n.fail('the starts are missing');
  const ends = list('ends', 2) ?? n.fail('the ends are missing');
  const axes = n.axes(list('axes', 3) ?? starts.map((_, i) => i), shape.length);
  const steps = list('steps', 4) ?? starts.map(() => 1);
  if ([ends, axes, steps].some((one) => one.length !== starts.length)) n.fail('starts, ends, axes and steps differ in length');
  return axes.reduce<Term>((x, axis, i) => {
    const size = shape[axis];
    const step = steps[i];
    if (step === 0) n.fail('the step is 0');
    if (step === 1 && starts[i] === 0 && (ends[i] >= 2 ** 31 - 1 || ends[i] === size)) return x;
    // Symbolic axes can be cut from the front by known numbers only.
    if (!isStatic(size)) {
      if (starts[i] < 0 || ends[i] < 0 || ends[i] >= 2 ** 31 - 1 || step < 1) return n.refuse(`the axis of size ${printDim(size)}; bind it with --dim`);
      return n.move(slice, { x }, { axis, start: starts[i], end: ends[i], step }, i === axes.length - 1 ? 0 : `axis${axis}`);
    }
    const limit = (at: number, low: number, high: number): number => Math.min(high, Math.max(low, at < 0 ? at + size : at));
    const start = step > 0 ? limit(starts[i], 0, size) : limit(starts[i], 0, size - 1);
    const end = step > 0 ? Math.max(start, limit(ends[i], 0, size)) : Math.min(start, ends[i] < -size ? -1 : limit(ends[i], -1, size - 1));
    return n.move(slice, { x }, { axis, start, end, step }, i === axes.length - 1 ? 0 : `axis${axis}`);
  }, n.term(0));
};

/** A known scalar index becomes a slice and a reshape; known indices are counted from the start. */
const take: Handler = (n) => {
  const shape = n.shape(0);
  const axis = n.axis(n.int('axis', 0), shape.length);
  const size = shape[axis];
  const indices = n.term(1);
  if (!isKnown(indices)) return n.emit(gather, { table: n.value(0), indices }, { axis });
  if (!isStatic(size)) return n.refuse(`the axis of size ${printDim(size)}; bind it with --dim`);
  const positions = n.numbers(1).map((at) => {
    const index = at < 0 ? at + size : at;
    return index >= 0 && index < size ? index : n.fail(`index ${at} lies outside axis ${axis} of [${printShape(shape)}]`);
  });
  const [first] = positions;
  const consecutive = positions.length > 0 && positions.every((at, i) => at === first + i);
  if (consecutive) {
    const part = n.move(slice, { x: n.term(0) }, { axis, start: first, end: first + positions.length, step: 1 }, 'taken');
    return n.move(reshape, { x: part }, { shape: [...shape.slice(0, axis), ...indices.shape, ...shape.slice(axis + 1)] });
  }
  return n.move(gather, { table: n.term(0), indices: known(indices.elementType, indices.shape, positions) }, { axis, bits: 0 });
};

const border: Handler = (n) => {
  const mode = n.string('mode', 'constant');
  const shape = n.shape(0);
  const given = n.version < 11 ? n.ints(n.version < 2 ? 'paddings' : 'pads') : n.numbers(1);
  const value = n.version < 11 ? n.float('value', 0) : n.has(2) ? n.scalar(2) : 0;
  const axes = n.has(3) ? n.axes(n.numbers(3), shape.length) : shape.map((_, i) => i);
  if (given.length !== 2 * axes.length) n.fail(`${given.length} pads for ${axes.length} axes`);
  const pads = new Array<number>(2 * shape.length).fill(0);
  axes.forEach((axis, i) => {
    pads[axis] = given[i];
    pads[axis + shape.length] = given[i + axes.length];
  });
  // Negative pads crop.
  const cropped = shape.reduce<Term>((x, size, axis) => {
    const [before, after] = [Math.min(0, pads[axis]), Math.min(0, pads[axis + shape.length])];
    if (before === 0 && after === 0) return x;
    return isStatic(size) ? n.move(slice, { x }, { axis, start: -before, end: size + after, step: 1 }, `cropped${axis}`) : n.refuse('a symbolic axis is cropped');
  }, n.term(0));
  const positive = pads.map((one) => Math.max(0, one));
  if (mode === 'constant') return n.move(pad, { x: cropped }, { pads: positive, value });
  if (mode !== 'edge' && mode !== 'reflect') return n.refuse(`mode ${mode}`);
  return shape.reduce<Term>((x, _, axis) => mirror(n, x, axis, positive[axis], positive[axis + shape.length], mode), cropped);
};

/** Pads one axis by slices of its own border: the first element again (edge), or its neighbours in reverse (reflect). */
const mirror = (n: OnnxNode, x: Term, axis: number, before: number, after: number, mode: 'edge' | 'reflect'): Term => {
  if (before === 0 && after === 0) return x;
  const size = shapeOf(x)[axis];
  if (!isStatic(size)) return n.refuse(`the axis of size ${printDim(size)}; bind it with --dim`);
  if (mode === 'reflect' && Math.max(before, after) >= size) n.fail(`axis ${axis} is too short to be reflected`);
  const piece = (start: number, end: number, step: number): Term => n.move(slice, { x }, { axis, start, end, step }, `axis${axis}.border`);
  const repeat = (count: number, at: number): readonly Term[] => (count === 0 ? [] : copies(n, piece(at, at + 1, 1), count));
  const left = mode === 'edge' ? repeat(before, 0) : before === 0 ? [] : [piece(before, 0, -1)];
  const right = mode === 'edge' ? repeat(after, size - 1) : after === 0 ? [] : [piece(size - 2, size - 2 - after, -1)];
  return n.move(concat, { xs: [...left, x, ...right] }, { axis }, `axis${axis}.padded`);
};

const widen: Handler = (n) => {
  const x = n.term(0);
  const [from, to] = [shapeOf(x), n.dims(1)];
  const rank = Math.max(from.length, to.length);
  const shape = Array.from({ length: rank }, (_, i): Dim => {
    const [a, b] = [from[i - rank + from.length] ?? 1, to[i - rank + to.length] ?? 1];
    return b === 1 ? a : a === 1 || equalDims(a, b) ? b : n.fail(`[${printShape(from)}] does not expand to [${printShape(to)}]`);
  });
  return shape.length === from.length && shape.every((dim, i) => equalDims(dim, from[i])) ? x : n.move(expand, { x }, { shape });
};

/** Most copies that one axis is repeated in, each an operand of a concatenation. */
const MAX_COPIES = 4096;
const copies = (n: OnnxNode, x: Term, count: number): readonly Term[] =>
  count <= MAX_COPIES ? new Array<Term>(count).fill(x) : n.refuse(`${count} copies along one axis`);

const tile: Handler = (n) => {
  const repeats = n.numbers(1);
  if (repeats.length !== n.rank(0) || repeats.some((count) => count < 1)) return n.refuse(`repeats [${repeats.join(', ')}]`);
  return repeats.reduce<Term>((x, count, axis) => (count === 1 ? x : n.move(concat, { xs: copies(n, x, count) }, { axis }, `axis${axis}`)), n.term(0));
};

/** [N, C·b², H, W] -> [N, C, H·b, W·b]: the new axes move beside height and width (Shi et al., 2016). */
const depthToSpace: Handler = (n) => {
  const block = n.int('blocksize');
  const mode = n.string('mode', 'DCR');
  const [batch, channels, height, width] = spatial(n);
  if (channels % block ** 2 !== 0) n.fail(`${channels} channels do not split into blocks of ${block}×${block}`);
  const depth = channels / block ** 2;
  const [split, perm] = mode === 'CRD'
    ? [[batch, depth, block, block, height, width], [0, 1, 4, 2, 5, 3]]
    : [[batch, block, block, depth, height, width], [0, 3, 4, 1, 5, 2]];
  const parts = n.emit(reshape, { x: n.value(0) }, { shape: split }, 'blocks');
  return n.emit(reshape, { x: n.emit(transpose, { x: parts }, { perm }, 'moved') }, { shape: [batch, depth, times(n, height, block), times(n, width, block)] });
};
const spaceToDepth: Handler = (n) => {
  const block = n.int('blocksize');
  const [batch, channels, height, width] = spatial(n);
  const [rows, columns] = [height, width].map((size) => divDims(size, block) ?? n.fail(`the size ${printDim(size)} is no multiple of ${block}`));
  const parts = n.emit(reshape, { x: n.value(0) }, { shape: [batch, channels, rows, block, columns, block] }, 'blocks');
  const moved = n.emit(transpose, { x: parts }, { perm: [0, 3, 5, 1, 2, 4] }, 'moved');
  return n.emit(reshape, { x: moved }, { shape: [batch, channels * block ** 2, rows, columns] });
};
const spatial = (n: OnnxNode): readonly [Dim, number, Dim, Dim] => {
  const [batch, channels, height, width] = n.rank(0) === 4 ? n.shape(0) : n.fail('it takes a tensor of rank 4');
  return [batch, isStatic(channels) ? channels : n.refuse('the number of channels is not known'), height, width];
};
const times = (n: OnnxNode, dim: Dim, factor: number): Dim => mulDims(dim, factor) ?? n.refuse('a symbolic size');

/** Nearest neighbour by whole factors: every element is repeated. Other modes and factors are refused. */
const resize: Handler = (n) => {
  const upsample = n.opType === 'Upsample';
  const mode = n.string('mode', 'nearest');
  const place = upsample || n.version < 11 ? 'asymmetric' : n.string('coordinate_transformation_mode', 'half_pixel');
  const rounding = upsample || n.version < 11 ? 'floor' : n.string('nearest_mode', 'round_prefer_floor');
  n.ignore('cubic_coeff_a', 'exclude_outside', 'extrapolation_value', 'antialias', 'keep_aspect_ratio_policy');
  const shape = n.shape(0);
  const factors = resizeFactors(n, shape, upsample);
  if (mode !== 'nearest') return n.refuse(`mode ${mode}`);
  const whole = factors.every((factor) => Number.isInteger(factor) && factor >= 1);
  // With whole factors these pairs all repeat each element `factor` times.
  const repeats = place === 'asymmetric' ? rounding === 'floor' : place === 'half_pixel' && rounding.startsWith('round');
  if (!whole || !repeats) return n.refuse(`nearest with factors [${factors.join(', ')}], ${place}, ${rounding}`);
  return factors.reduce<Value>((x, factor, axis) => {
    if (factor === 1) return x;
    const { shape: from } = x.type;
    const single = n.emit(reshape, { x }, { shape: [...from.slice(0, axis + 1), 1, ...from.slice(axis + 1)] }, `axis${axis}.single`);
    const repeated = n.emit(concat, { xs: copies(n, single, factor) as readonly Value[] }, { axis: axis + 1 }, `axis${axis}.repeated`);
    return n.emit(reshape, { x: repeated }, { shape: from.map((dim, i) => (i === axis ? times(n, dim, factor) : dim)) }, `axis${axis}`);
  }, n.value(0));
};
const resizeFactors = (n: OnnxNode, shape: Shape, upsample: boolean): readonly number[] => {
  const axes = !upsample && n.version >= 18 && n.hasAttr('axes') ? n.axes(n.ints('axes'), shape.length) : shape.map((_, i) => i);
  const scalesAt = upsample || n.version < 11 ? 1 : 2;
  const scales = upsample && n.version < 9 ? n.floats('scales') : n.has(scalesAt) ? Array.from(n.constant(scalesAt).data, Number) : [];
  const factors = new Array<number>(shape.length).fill(1);
  if (scales !== null && scales.length > 0) axes.forEach((axis, i) => { factors[axis] = scales[i]; });
  else n.numbers(3).forEach((size, i) => {
    const from = shape[axes[i]];
    factors[axes[i]] = isStatic(from) ? size / from : n.refuse('a symbolic size is resized; bind it with --dim');
  });
  return factors;
};

export const layout: Handlers = {
  Reshape: reshapeTo, Flatten: flatten, Squeeze: squeeze, Unsqueeze: unsqueeze, Transpose: permute, Concat: join, Split: split, Slice: cut,
  Gather: take, Pad: border, Expand: widen, Tile: tile, DepthToSpace: depthToSpace, SpaceToDepth: spaceToDepth, Resize: resize, Upsample: resize,
};
