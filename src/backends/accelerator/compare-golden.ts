/**
 * A program in a folder against the golden vectors beside it, layer by layer: the golden input is run, and when the last instruction of a
 * layer has run, what stands in the home of its output is compared. The output is still there: whoever overwrites it reads it first, or waits for its readers.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CompileError } from '../../ir/diagnostic.ts';
import { allocate, isDType, type TypedArray } from '../../ir/dtype.ts';
import { errors } from '../../ir/errors.ts';
import type { Codes } from '../run.ts';
import type { ScheduleFile } from './files.ts';
import type { GoldenFile } from './golden.ts';
import { elements, type Element } from './isa.ts';
import { loadProgram, runProgram } from './run.ts';

export interface LayerDifference {
  readonly layer: string;
  /** index in row-major order */
  readonly element: number;
  readonly expected: number;
  readonly found: number;
}

/** The first layer, in the order of the program, whose output differs from golden/; null where all are equal. */
export const firstDifferingLayer = (folder: string): LayerDifference | null => {
  const damaged = (file: string, why: string): never => { throw new CompileError(errors.damagedArtefact(join(folder, file), why)); };
  const jsonOf = <T>(file: string): T => {
    try {
      return JSON.parse(readFileSync(join(folder, file), 'utf8')) as T;
    } catch {
      return damaged(file, 'it is missing or not JSON');
    }
  };
  const loaded = loadProgram(folder);
  const { layers } = jsonOf<ScheduleFile>('schedule.json');
  const golden = jsonOf<readonly Omit<GoldenFile, 'bytes'>[]>('golden/index.json');
  const codesOf = ({ file, dtype, shape }: Omit<GoldenFile, 'bytes'>): TypedArray => {
    const codes = isDType(dtype) ? allocate(dtype, shape.reduce((size, dim) => size * dim, 1)) : damaged('golden/index.json', `there is no type ${dtype}`);
    const bytes = existsSync(join(folder, file)) ? readFileSync(join(folder, file)) : damaged(file, 'it is missing');
    if (bytes.length !== codes.byteLength) damaged(file, `it has ${bytes.length} bytes, ${codes.byteLength} are expected`);
    new Uint8Array(codes.buffer).set(bytes);
    return codes;
  };
  const places = new Map(loaded.memory.tensors.map((tensor) => [tensor.name, tensor]));
  const left = layers.map(({ instructions }) => instructions);
  const layerOf = layers.flatMap(({ instructions }, layer) => Array.from({ length: instructions }, () => layer));
  const steps = golden.filter(({ role }) => role === 'step');
  const differences: (LayerDifference | null)[] = layers.map(() => null);
  const inputs: Codes = Object.fromEntries(golden.filter(({ role }) => role === 'input').map((one) => [one.name, codesOf(one)]));
  runProgram(loaded, inputs, (index, memories) => {
    const layer = layerOf[index];
    if (layer === undefined || --left[layer] > 0) return;
    const step = steps.find(({ name }) => name === layers[layer].name);
    const place = places.get(layers[layer].name);
    if (step === undefined || place === undefined || !(elements as readonly string[]).includes(place.element)) return;
    const expected = codesOf(step);
    const found = memories.of(place.memory).codes(place.element as Element, place.address, expected.length);
    // 32-bit codes are compared as bits
    const element = found.findIndex((code, i) => code !== (Number(expected[i]) | 0));
    if (element >= 0) differences[layer] = { layer: layers[layer].name, element, expected: Number(expected[element]), found: found[element] };
  });
  return differences.find((one) => one !== null) ?? null;
};
