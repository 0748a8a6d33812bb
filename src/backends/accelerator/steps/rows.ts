/** Steps over whole rows: softmax and layer norm on the vector engine; attention as two products with the exponentials between them. */
import { staticShape } from '../../../ir/dim.ts';
import { isSigned, storageBytes } from '../../../ir/dtype.ts';
import type { Value } from '../../../ir/graph.ts';
import type { Step } from '../../group.ts';
import { alignUp } from '../blobs.ts';
import { bytesFor } from '../isa.ts';
import { lanesFor } from '../machine.ts';
import { denseStrides, emit, lacking, loadBytes, move, moveElements, NoRoom, roomIn, Shelf, Slots, turns, type Stream } from '../stream.ts';
import { stageOf } from './elements.ts';
import { bytesIn, recordsOf } from './finish.ts';

interface RowAttrs { readonly newtonSteps: number; readonly mulOut: number; readonly shiftOut: number; readonly zero: number; readonly low: number; readonly high: number; readonly eShift: number }
const rowFields = ({ newtonSteps, mulOut, shiftOut, zero, low, high }: RowAttrs) => ({ newton: newtonSteps, mulOut, shiftOut, zero, low, high });

export const softmaxStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const [x, fine, coarse] = [node.inputs['x'] as Value, node.inputs['fine'] as Value, node.inputs['coarse'] as Value | null];
  const attrs = node.attrs as unknown as RowAttrs;
  const shape = staticShape(x.type.shape);
  const length = shape[shape.length - 1];
  const pbuf = new Shelf(stream, 'PBUF', [1024, 1024], node);
  const tables = [fine, coarse].map((value) => {
    const place = pbuf.take(1024);
    if (value !== null) loadBytes(stream, 'PBUF', 1024, stream.put('luts', bytesIn(value)), place, node);
    return place;
  });
  const stage = stageOf(stream, node, [x], step.output, { whole: 1 });
  for (const tile of stage.tiles) {
    const at = stage.read(0, tile);
    const z = stage.write(tile);
    emit(stream, 'SMAX', {
      xMemory: 'ABUF', x: at, xElement: stream.elementOf(x), zMemory: 'ABUF', z, zElement: stream.elementOf(step.output), count: tile.size / length, length,
      fine: tables[0], coarse: tables[1], two: coarse === null ? 0 : 1, eShift: attrs.eShift, ...rowFields(attrs),
    }, node);
    stage.leave(tile, z);
  }
};

export const layerNormStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const x = node.inputs['x'] as Value;
  const { epsilon, newtonSteps, fraction, shift, low, high } = node.attrs as { epsilon: bigint; newtonSteps: number; fraction: number; shift: number; low: number; high: number };
  const shape = staticShape(x.type.shape);
  const length = shape[shape.length - 1];
  const records = recordsOf(stream, node);
  const par = new Shelf(stream, 'PBUF', [16 * records.count], node).take(16 * records.count);
  loadBytes(stream, 'PBUF', 16 * records.count, records.address, par, node);
  const stage = stageOf(stream, node, [x], step.output, { whole: 1 });
  for (const tile of stage.tiles) {
    const at = stage.read(0, tile);
    const z = stage.write(tile);
    emit(stream, 'LNRM', {
      xMemory: 'ABUF', x: at, xElement: stream.elementOf(x), zMemory: 'ABUF', z, zElement: stream.elementOf(step.output), count: tile.size / length, length,
      par, perChannel: records.count > 1 ? 1 : 0, epsilon, newton: newtonSteps, fraction, shift, low, high,
    }, node);
    stage.leave(tile, z);
  }
};

/**
 * For each sample and head the keys and the values stand in WBUF, and a block of queries goes through
 * MM (queries × keys) → EXPS → MM (exponentials × values) → NRM.
 */
export const attentionStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const { machine } = stream;
  const attrs = node.attrs as unknown as RowAttrs & { heads: number; mulLogit: number; addLogit: bigint; shiftLogit: number };
  const [q, k, v, exp, mask] = [node.inputs['q'] as Value, node.inputs['k'] as Value, node.inputs['v'] as Value, node.inputs['exp'] as Value, node.inputs['mask'] as Value | null];
  const [batch, queries, width] = staticShape(q.type.shape);
  const [, keys, widthV] = staticShape(v.type.shape);
  const [depth, depthV] = [width / attrs.heads, widthV / attrs.heads];
  const [kBytes, vBytes] = [k, v].map((value) => storageBytes(value.type.dtype));
  const [qElement, out] = [stream.elementOf(q), stream.elementOf(step.output)];
  const [qHome, outHome] = [stream.homeOf(q), stream.homeOf(step.output)];
  const qOnChip = qHome.memory === 'ABUF';
  const weightBits = (bytes: number): 8 | 16 => (bytes === 1 ? 8 : 16);
  const fallback = (weights: 8 | 16, activations: 4 | 8 | 16): 'MM' | 'MMV' => {
    if (lanesFor(machine, weights, activations) !== null) return 'MM';
    if (machine.ops.includes('MMV')) return 'MMV';
    throw lacking(stream, `products of ${weights}-bit weights and ${activations}-bit activations, on the array or on the vector engine (MMV)`, node);
  };
  const [first, second] = [fallback(weightBits(kBytes), stream.activationBits(q)), fallback(weightBits(vBytes), 16)];

  const tileBytes = (rows: number): readonly number[] => [qOnChip ? 0 : bytesFor(qElement, rows * depth), rows * keys * 2, bytesFor(out, rows * depthV)];
  const needs = (rows: number): Readonly<Record<'ABUF' | 'OBUF' | 'PBUF', number>> => ({
    ABUF: 2 * tileBytes(rows).reduce((sum, bytes) => sum + alignUp(bytes), 0),
    OBUF: 2 * (alignUp(4 * rows * keys) + alignUp(4 * rows) + alignUp(4 * rows * depthV)),
    PBUF: alignUp(2 * 2816) + (mask === null ? 0 : 2 * alignUp(rows * keys)),
  });
  let rows = Math.min(queries, Math.max(1, 2 * machine.array.rows));
  while (rows > 1 && (['ABUF', 'OBUF', 'PBUF'] as const).some((name) => needs(rows)[name] > roomIn(stream, name))) rows = Math.ceil(rows / 2);
  for (const name of ['ABUF', 'OBUF', 'PBUF'] as const) if (needs(rows)[name] > roomIn(stream, name)) throw new NoRoom(stream, name, needs(rows)[name], node);

  const [keyBytes, valueBytes] = [keys * depth * kBytes, keys * depthV * vBytes];
  const single = alignUp(keyBytes) + alignUp(valueBytes);
  const places = 2 * single <= machine.memories.WBUF ? 2 : 1;
  const wbuf = new Shelf(stream, 'WBUF', Array.from({ length: places }, () => [keyBytes, valueBytes]).flat(), node);
  const [keySlots, valueSlots] = [keyBytes, valueBytes].map((bytes) => new Slots(Array.from({ length: places }, () => wbuf.take(bytes))));
  const abuf = new Shelf(stream, 'ABUF', tileBytes(rows).flatMap((bytes) => [bytes, bytes]), node);
  const [nextQ, nextE, nextZ] = tileBytes(rows).map((bytes) => turns([abuf.take(bytes), abuf.take(bytes)]));
  const obufSizes = [4 * rows * keys, 4 * rows, 4 * rows * depthV];
  const obuf = new Shelf(stream, 'OBUF', obufSizes.flatMap((bytes) => [bytes, bytes]), node);
  const [nextLogits, nextTotals, nextSums] = obufSizes.map((bytes) => turns([obuf.take(bytes), obuf.take(bytes)]));
  const maskBytes = mask === null ? 0 : rows * keys;
  const pbuf = new Shelf(stream, 'PBUF', [2 * 2816, maskBytes, maskBytes], node);
  const lut = pbuf.take(2 * 2816);
  loadBytes(stream, 'PBUF', 2 * 2816, stream.put('luts', bytesIn(exp)), lut, node);
  const masks = new Slots([pbuf.take(maskBytes), pbuf.take(maskBytes)]);
  /** rows of a matrix as an image of one column */
  const flat = (rows: number, rowPitch: number) => ({
    rows, columns: 1, imageRows: rows, imageColumns: 1, rowPitch, columnPitch: rowPitch, firstRow: 0, firstColumn: 0, rowStride: 1, columnStride: 1, tapRows: 1, tapColumns: 1, rowDilation: 1, columnDilation: 1, border: 0,
    aZero: 0, wZero: 0, depthwise: 0, accumulate: 0,
  });
  for (let b = 0; b < batch; b++) for (let h = 0; h < attrs.heads; h++) {
    const head = (value: Value, length: number, whole: number, own: number, bytes: number, place: number): void => {
      const { memory, address } = stream.homeOf(value);
      move(stream, bytes, [length, own], { memory, address: address + (b * length * whole + h * own) * bytes, strides: [whole * bytes, bytes] }, { memory: 'WBUF', address: place, strides: denseStrides([length, own], bytes) }, node);
    };
    const w = keySlots.take(`${b},${h}`, (place) => head(k, keys, width, depth, kBytes, place));
    const wv = valueSlots.take(`${b},${h}`, (place) => head(v, keys, widthV, depthV, vBytes, place));
    for (let t = 0; t < queries; t += rows) {
      const count = Math.min(rows, queries - t);
      const [e, z, logits, totals, sums] = [nextE(), nextZ(), nextLogits(), nextTotals(), nextSums()];
      const queriesAt = { memory: qHome.memory, address: qHome.address + bytesFor(qElement, (b * queries + t) * width + h * depth), strides: [width, 1] };
      const a = qOnChip ? queriesAt.address : nextQ();
      if (!qOnChip) moveElements(stream, qElement, [count, depth], queriesAt, { memory: 'ABUF', address: a, strides: [depth, 1] }, node);
      const allowed = mask === null ? 0 : masks.take(String(t), (place) => loadBytes(stream, 'PBUF', count * keys, stream.put('luts', bytesIn(mask)) + t * keys, place, node));
      emit(stream, first, {
        ...flat(count, bytesFor(qElement, qOnChip ? width : depth)), a, w, o: logits, aElement: qElement, aBits: String(stream.activationBits(q)) as '8', wBits: String(weightBits(kBytes)) as '8', wSigned: isSigned(k.type.dtype) ? 1 : 0,
        depth, outputs: keys, wChannel: depth, wTap: 1, pitch: keys,
      }, node);
      emit(stream, 'EXPS', {
        xMemory: 'OBUF', x: logits, zMemory: 'ABUF', z: e, sum: totals, count, length: keys, masked: mask === null ? 0 : 1, mask: allowed, lut,
        mulLogit: attrs.mulLogit, addLogit: attrs.addLogit, shiftLogit: attrs.shiftLogit, eShift: attrs.eShift,
      }, node);
      emit(stream, second, {
        ...flat(count, keys * 2), a: e, w: wv, o: sums, aElement: 'i16', aBits: '16', wBits: String(weightBits(vBytes)) as '8', wSigned: isSigned(v.type.dtype) ? 1 : 0,
        depth: keys, outputs: depthV, wChannel: 1, wTap: depthV, pitch: depthV,
      }, node);
      emit(stream, 'NRM', { xMemory: 'OBUF', x: sums, zMemory: 'ABUF', z, zElement: out, sum: totals, count, length: depthV, ...rowFields(attrs) }, node);
      moveElements(stream, out, [count, depthV], { memory: 'ABUF', address: z, strides: [depthV, 1] },
        { memory: outHome.memory, address: outHome.address + bytesFor(out, (b * queries + t) * widthV + h * depthV), strides: [widthV, 1] }, node);
    }
  }
};
