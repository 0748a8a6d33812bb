/**
 * The glyphs: drawn digits of 32 by 32 pixels, made from nothing but this file, the same bytes on every machine.
 *
 *     node examples/data/generate.mjs calibration 256 more.npy       images 0 … 255 of a split as uint8 [256, 1, 32, 32]
 *     node examples/data/generate.mjs --check                        compares calib.npy, eval.npy and eval_labels.npy
 *
 * The class of image i is i mod 10; a split has no end. All arithmetic is IEEE binary64 with + − × ÷ √ in the order written here and
 * 32-bit integer hashing, so no library function can change a bit. The order of the draws is part of the format.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

/** Pixels of a side. */
export const side = 32;
/** Seeds of the splits. */
export const splits = { training: 1, test: 2, calibration: 3, fresh: 4 };

/** Polylines of each class on a grid x −3…3, y −4…4 (downwards); `3-2` is the point (3, −2). */
const strokes = [
  ['-1-4 1-4 3-2 3+2 1+4 -1+4 -3+2 -3-2 -1-4'],
  ['-2-2 0-4 0+4'],
  ['-3-2 -1-4 1-4 3-2 3-1 -3+4 3+4'],
  ['-3-3 -1-4 1-4 3-2 1+0 -1+0', '1+0 3+2 1+4 -1+4 -3+3'],
  ['1+4 1-4 -3+1 3+1'],
  ['3-4 -2-4 -3+0 1-1 3+1 3+2 1+4 -1+4 -3+3'],
  ['2-4 -1-3 -3+0 -3+2 -1+4 1+4 3+2 1+0 -1+0 -3+2'],
  ['-3-4 3-4 -1+4'],
  ['0+0 -2-1 -2-3 -1-4 1-4 2-3 2-1 0+0 -3+1 -3+3 -1+4 1+4 3+3 3+1 0+0'],
  ['-2+4 1+3 3+0 3-2 1-4 -1-4 -3-2 -1+0 1+0 3-2'],
].map((lines) => lines.map((line) => line.split(' ').map((point) => [Number(point.slice(0, -2)), Number(point.slice(-2))])));

/** A mixing function of 32-bit integers; the constants are those published as lowbias32. */
export const hash32 = (x) => {
  x ^= x >>> 16;
  x = Math.imul(x, 0x7feb352d);
  x ^= x >>> 15;
  x = Math.imul(x, 0x846ca68b);
  x ^= x >>> 16;
  return x >>> 0;
};

const unit = (v) => Math.min(Math.max(v, 0), 1);

/** Draws of one image: number k is hash32(key xor hash32(k)) / 2^32, uniform on [0, 1). */
const drawsOf = (seed, index) => {
  const key = hash32((hash32(seed) + index) >>> 0);
  let k = 0;
  return (low = 0, high = 1) => low + (high - low) * (hash32((key ^ hash32(++k)) >>> 0) / 4294967296);
};

/** Squared distance from a point to the segment a → b. */
const toSegment = (ax, ay, bx, by) => {
  const dx = bx - ax;
  const dy = by - ay;
  const length2 = Math.max(dx * dx + dy * dy, 1e-6);
  return (x, y) => {
    const t = unit(((x - ax) * dx + (y - ay) * dy) / length2);
    const ex = x - (ax + t * dx);
    const ey = y - (ay + t * dy);
    return ex * ex + ey * ey;
  };
};

/** Lays a stroke over the image: each pixel moves towards `value` by its coverage, a linear ramp at the stroke's edge. */
const paint = (image, distance2, width, value) => {
  for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) {
    const at = y * side + x;
    const cover = unit(0.5 + width * 0.5 - Math.sqrt(distance2(x + 0.5, y + 0.5)));
    image[at] = image[at] + cover * (value - image[at]);
  }
};

/** A grid of 4 by 4 grey values, interpolated bilinearly. */
const paintBackground = (image, base, draw) => {
  const contrast = draw(0, 0.4);
  const grid = Array.from({ length: 4 }, () => Array.from({ length: 4 }, () => base + contrast * (draw() - 0.5)));
  for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) {
    const gy = ((y + 0.5) / side) * 3;
    const gx = ((x + 0.5) / side) * 3;
    const j = Math.min(Math.floor(gy), 2);
    const i = Math.min(Math.floor(gx), 2);
    const top = grid[j][i] + (gx - i) * (grid[j][i + 1] - grid[j][i]);
    const bottom = grid[j + 1][i] + (gx - i) * (grid[j + 1][i + 1] - grid[j + 1][i]);
    image[y * side + x] = top + (gy - j) * (bottom - top);
  }
};

/** Image `index` of the split with this seed: side · side bytes, row by row. */
export const glyph = (seed, index) => {
  const draw = drawsOf(seed, index);
  const image = new Float64Array(side * side);
  const base = draw(0.3, 0.7);
  paintBackground(image, base, draw);

  for (let n = 0; n < 3; n++) {
    const ax = draw(0, side);
    const ay = draw(0, side);
    const bx = ax + draw(-10, 10);
    const by = ay + draw(-10, 10);
    const width = draw(0.8, 2.2);
    paint(image, toSegment(ax, ay, bx, by), width, base + draw(-1, 1) * 0.3);
  }

  // the glyph: every point jittered, scaled, sheared and turned; the angle is drawn as the tangent of its half
  const scaleY = draw(1.8, 2.9);
  const scaleX = scaleY * draw(0.7, 1.15);
  const shear = draw(-0.35, 0.35);
  const tangent = draw(-0.18, 0.18);
  const cosine = (1 - tangent * tangent) / (1 + tangent * tangent);
  const sine = (2 * tangent) / (1 + tangent * tangent);
  const centreX = side / 2 + draw(-3, 3);
  const centreY = side / 2 + draw(-3, 3);
  const width = draw(1.2, 3.2);
  const contrast = draw(0.17, 0.48);
  const sign = draw() < 0.5 ? -1 : 1;
  const segments = strokes[index % 10].flatMap((line) => {
    const points = line.map(([gx, gy]) => {
      const flat = (gx + draw(-0.38, 0.38)) * scaleX;
      const y = (gy + draw(-0.38, 0.38)) * scaleY;
      const x = flat + shear * y;
      return [centreX + (cosine * x - sine * y), centreY + (sine * x + cosine * y)];
    });
    return points.slice(1).map((end, i) => toSegment(...points[i], ...end));
  });
  paint(image, (x, y) => Math.min(1e9, ...segments.map((segment) => segment(x, y))), width, base + sign * contrast);

  for (let n = 0; n < 2; n++) {
    const middleX = centreX + draw(-7, 7);
    const middleY = centreY + draw(-7, 7);
    const dx = draw(-9, 9);
    const dy = draw(-9, 9);
    const thickness = draw(0.8, 2.2);
    paint(image, toSegment(middleX - dx, middleY - dy, middleX + dx, middleY + dy), thickness, base + draw(-1, 1) * contrast);
  }

  const sigma = draw(0.02, 0.11);
  const noise = new Float64Array(side * side);
  for (let n = 0; n < 3; n++) for (let at = 0; at < side * side; at++) noise[at] += draw();
  return Uint8Array.from(image, (v, at) => Math.floor(unit(v + sigma * 2 * (noise[at] - 1.5)) * 255 + 0.5));
};

/** A .npy file (format 1.0, row-major) of raw little-endian bytes. */
const npy = (descr, shape, bytes) => {
  const entries = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape.join(', ')}${shape.length === 1 ? ',' : ''}), }`;
  const header = entries.padEnd(Math.ceil((entries.length + 11) / 64) * 64 - 11) + '\n';
  const prefix = Buffer.from([0x93, ...Buffer.from('NUMPY'), 1, 0, header.length & 255, header.length >> 8]);
  return Buffer.concat([prefix, Buffer.from(header, 'latin1'), bytes]);
};

/** Images 0 … count − 1 of a split as a .npy file. */
export const imagesFile = (seed, count) =>
  npy('|u1', [count, 1, side, side], Buffer.concat(Array.from({ length: count }, (_, index) => glyph(seed, index))));

/** Their classes, int32. */
export const labelsFile = (count) => npy('<i4', [count], Buffer.from(Int32Array.from({ length: count }, (_, i) => i % 10).buffer));

/** The files beside this one, made anew. */
export const files = {
  'calib.npy': () => imagesFile(splits.calibration, 256),
  'eval.npy': () => imagesFile(splits.test, 2000),
  'eval_labels.npy': () => labelsFile(2000),
};

const main = ([split, count, path]) => {
  if (split === '--check') {
    for (const [name, make] of Object.entries(files)) {
      const same = make().equals(readFileSync(new URL(name, import.meta.url)));
      console.log(`${name}: ${same ? 'equal' : 'DIFFERENT'}`);
      if (!same) process.exitCode = 1;
    }
  } else if (split in splits && Number(count) > 0 && path) {
    writeFileSync(path, imagesFile(splits[split], Number(count)));
  } else {
    console.error(`usage: node generate.mjs ${Object.keys(splits).join('|')} <count> <file.npy>, or --check`);
    process.exitCode = 2;
  }
};

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) main(process.argv.slice(2));
