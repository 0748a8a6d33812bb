/** Steps over whole rows: softmax and layer norm on the vector engine; attention as two products with the exponentials between them. */
import { staticShape } from '../../../ir/dim.ts';
import { isSigned, storageBytes } from '../../../ir/dtype.ts';
import type { Value } from '../../../ir/graph.ts';
import type { Step } from '../../group.ts';
import { alignUp } from '../blobs.ts';
import { denseStrides, elementOf, emit, lacking, move, moveBytes, Shelf, Slots, tooLarge, turns, type Stream } from '../stream.ts';
import { lanesFor } from '../machine.ts';
import { fittingTiles, loadTile, pairs, storeTile } from './elements.ts';
import { activationBits, bytesIn, recordsOf } from './finish.ts';

interface RowAttrs { readonly newtonSteps: number; readonly mulOut: number; readonly shiftOut: number; readonly zero: number; readonly low: number; readonly high: number; readonly eShift: number }
const rowFields = ({ newtonSteps, mulOut, shiftOut, zero, low, high }: RowAttrs) => ({ newton: newtonSteps, mulOut, shiftOut, zero, low, high });

export const softmaxStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const [x, fine, coarse] = [node.inputs['x'] as Value, node.inputs['fine'] as Value, node.inputs['coarse'] as Value | null];
  const attrs = node.attrs as unknown as RowAttrs;
  const shape = staticShape(x.type.shape);
  const length = shape[shape.length - 1];
  const [xBytes, zBytes] = [storageBytes(x.type.dtype), storageBytes(step.output.type.dtype)];
  const tiles = fittingTiles(stream, shape, xBytes + zBytes, 1, node);
  const most = Math.max(...tiles.map(({ size }) => size));
  const pbuf = new Shelf(stream, 'PBUF', [1024, 1024], node);
  const tables = [fine, coarse].map((value) => {
    const place = pbuf.take(1024);
    if (value !== null) moveBytes(stream, 'LD', 'PBUF', 1024, stream.put('luts', bytesIn(value)), place, node);
    return place;
  });
  const [nextX, nextZ] = pairs(stream, [most * xBytes, most * zBytes], node);
  for (const tile of tiles) {
    const [at, z] = [nextX(), nextZ()];
    loadTile(stream, x, shape, tile, at, node);
    emit(stream, 'SMAX', {
      xMemory: 'ABUF', x: at, xElement: elementOf(x.type.dtype), zMemory: 'ABUF', z, zElement: elementOf(step.output.type.dtype), count: tile.size / length, length,
      fine: tables[0], coarse: tables[1], two: coarse === null ? 0 : 1, eShift: attrs.eShift, ...rowFields(attrs),
    }, node);
    storeTile(stream, step.output, tile, z, node);
  }
};

export const layerNormStep = (stream: Stream, step: Step): void => {
  const node = step.root;
  const x = node.inputs['x'] as Value;
  const { epsilon, newtonSteps, fraction, shift, low, high } = node.attrs as { epsilon: bigint; newtonSteps: number; fraction: number; shift: number; low: number; high: number };
  const shape = staticShape(x.type.shape);
  const length = shape[shape.length - 1];
  const [xBytes, zBytes] = [storageBytes(x.type.dtype), storageBytes(step.output.type.dtype)];
  const records = recordsOf(stream, node);
  const par = new Shelf(stream, 'PBUF', [16 * records.count], node).take(16 * records.count);
  moveBytes(stream, 'LD', 'PBUF', 16 * records.count, records.address, par, node);
  const tiles = fittingTiles(stream, shape, xBytes + zBytes, 1, node);
  const most = Math.max(...tiles.map(({ size }) => size));
  const [nextX, nextZ] = pairs(stream, [most * xBytes, most * zBytes], node);
  for (const tile of tiles) {
    const [at, z] = [nextX(), nextZ()];
    loadTile(stream, x, shape, tile, at, node);
    emit(stream, 'LNRM', {
      xMemory: 'ABUF', x: at, xElement: elementOf(x.type.dtype), zMemory: 'ABUF', z, zElement: elementOf(step.output.type.dtype), count: tile.size / length, length,
      par, perChannel: records.count > 1 ? 1 : 0, epsilon, newton: newtonSteps, fraction, shift, low, high,
    }, node);
    storeTile(stream, step.output, tile, z, node);
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
  const [qBytes, kBytes, vBytes, outBytes] = [q, k, v, step.output].map((value) => storageBytes(value.type.dtype));
  const weightBits = (bytes: number): 8 | 16 => (bytes === 1 ? 8 : 16);
  if (lanesFor(machine, weightBits(kBytes), activationBits(q)) === null || lanesFor(machine, weightBits(vBytes), 16) === null) throw lacking(stream, 'products of the widths that attention needs', node);

  const needs = (rows: number): Readonly<Record<'ABUF' | 'OBUF' | 'PBUF', number>> => ({
    ABUF: 2 * (alignUp(rows * depth * qBytes) + alignUp(rows * keys * 2) + alignUp(rows * depthV * outBytes)),
    OBUF: 2 * (alignUp(4 * rows * keys) + alignUp(4 * rows) + alignUp(4 * rows * depthV)),
    PBUF: alignUp(2 * 2816) + (mask === null ? 0 : 2 * alignUp(rows * keys)),
  });
  let rows = Math.min(queries, Math.max(1, 2 * machine.array.rows));
  while (rows > 1 && (['ABUF', 'OBUF', 'PBUF'] as const).some((name) => needs(rows)[name] > machine.memories[name])) rows = Math.ceil(rows / 2);
  for (const name of ['ABUF', 'OBUF', 'PBUF'] as const) if (needs(rows)[name] > machine.memories[name]) throw tooLarge(stream, name, needs(rows)[name], node);

  const [keyBytes, valueBytes] = [keys * depth * kBytes, keys * depthV * vBytes];
  const single = alignUp(keyBytes) + alignUp(valueBytes);
  const places = 2 * single <= machine.memories.WBUF ? 2 : 1;
  const wbuf = new Shelf(stream, 'WBUF', Array.from({ length: places }, () => [keyBytes, valueBytes]).flat(), node);
  const [keySlots, valueSlots] = [keyBytes, valueBytes].map((bytes) => new Slots(Array.from({ length: places }, () => wbuf.take(bytes))));
  const [nextQ, nextE, nextZ] = pairs(stream, [rows * depth * qBytes, rows * keys * 2, rows * depthV * outBytes], node);
  const obufSizes = [4 * rows * keys, 4 * rows, 4 * rows * depthV];
  const obuf = new Shelf(stream, 'OBUF', obufSizes.flatMap((bytes) => [bytes, bytes]), node);
  const [nextLogits, nextTotals, nextSums] = obufSizes.map((bytes) => turns([obuf.take(bytes), obuf.take(bytes)]));
  const maskBytes = mask === null ? 0 : rows * keys;
  const pbuf = new Shelf(stream, 'PBUF', [2 * 2816, maskBytes, maskBytes], node);
  const lut = pbuf.take(2 * 2816);
  moveBytes(stream, 'LD', 'PBUF', 2 * 2816, stream.put('luts', bytesIn(exp)), lut, node);
  const masks = new Slots([pbuf.take(maskBytes), pbuf.take(maskBytes)]);
  const flat = { rowStride: 0, columns: 1, columnStride: 0, tapRows: 1, tapColumns: 1, tapRowStride: 0, tapColumnStride: 0, aZero: 0, wZero: 0, depthwise: 0, accumulate: 0 } as const;

  for (let b = 0; b < batch; b++) for (let h = 0; h < attrs.heads; h++) {
    const head = (value: Value, length: number, whole: number, own: number, bytes: number, place: number): void =>
      move(stream, 'LD', 'WBUF', bytes, [length, own], { address: stream.addressOf(value) + (b * length * whole + h * own) * bytes, strides: [whole * bytes, bytes] }, { address: place, strides: denseStrides([length, own], bytes) }, node);
    const w = keySlots.take(`${b},${h}`, (place) => head(k, keys, width, depth, kBytes, place));
    const wv = valueSlots.take(`${b},${h}`, (place) => head(v, keys, widthV, depthV, vBytes, place));
    for (let t = 0; t < queries; t += rows) {
      const count = Math.min(rows, queries - t);
      const [a, e, z, logits, totals, sums] = [nextQ(), nextE(), nextZ(), nextLogits(), nextTotals(), nextSums()];
      move(stream, 'LD', 'ABUF', qBytes, [count, depth], { address: stream.addressOf(q) + ((b * queries + t) * width + h * depth) * qBytes, strides: [width * qBytes, qBytes] }, { address: a, strides: denseStrides([count, depth], qBytes) }, node);
      const allowed = mask === null ? 0 : masks.take(String(t), (place) => moveBytes(stream, 'LD', 'PBUF', count * keys, stream.put('luts', bytesIn(mask)) + t * keys, place, node));
      emit(stream, 'MM', {
        ...flat, a, w, o: logits, aElement: elementOf(q.type.dtype), aBits: String(activationBits(q)) as '8', wBits: String(weightBits(kBytes)) as '8', wSigned: isSigned(k.type.dtype) ? 1 : 0,
        rows: count, rowStride: depth * qBytes, depth, outputs: keys, wChannel: depth, wTap: 1, pitch: keys,
      }, node);
      emit(stream, 'EXPS', {
        xMemory: 'OBUF', x: logits, zMemory: 'ABUF', z: e, sum: totals, count, length: keys, masked: mask === null ? 0 : 1, mask: allowed, lut,
        mulLogit: attrs.mulLogit, addLogit: attrs.addLogit, shiftLogit: attrs.shiftLogit, eShift: attrs.eShift,
      }, node);
      emit(stream, 'MM', {
        ...flat, a: e, w: wv, o: sums, aElement: 'i16', aBits: '16', wBits: String(weightBits(vBytes)) as '8', wSigned: isSigned(v.type.dtype) ? 1 : 0,
        rows: count, rowStride: keys * 2, depth: keys, outputs: depthV, wChannel: 1, wTap: depthV, pitch: depthV,
      }, node);
      emit(stream, 'NRM', { xMemory: 'OBUF', x: sums, zMemory: 'ABUF', z, zElement: elementOf(step.output.type.dtype), sum: totals, count, length: depthV, ...rowFields(attrs) }, node);
      move(stream, 'ST', 'ABUF', outBytes, [count, depthV], { address: stream.addressOf(step.output) + ((b * queries + t) * widthV + h * depthV) * outBytes, strides: [widthV * outBytes, outBytes] }, { address: z, strides: denseStrides([count, depthV], outBytes) }, node);
    }
  }
};
