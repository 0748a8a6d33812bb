/**
 * Program → loops: schedules every step for a target, plans the memory, and joins the calls into one loop program whose buffers have
 * places. What a target emits is this program printed.
 */
import type { Node, Value } from '../ir/graph.ts';
import { CompileError } from '../ir/diagnostic.ts';
import { errors } from '../ir/errors.ts';
import { buffer, bytesOf, call, elementOf, program as loopProgram } from '../loops/build.ts';
import { LoopError, type Buffer, type Contents, type Fn, type Program as Loops, type Stmt } from '../loops/types.ts';
import { withoutUnread } from '../loops/walk.ts';
import { verify } from '../loops/verify.ts';
import type { Program } from './backend.ts';
import { planMemory, type Place, type Plan } from './plan.ts';
import { overwritable, schedules } from './schedules/index.ts';
import { elemOf, product, shapeOf, type Binding, type Kernel, type ScheduleContext } from './schedules/kernel.ts';
import { copy } from './schedules/layout.ts';
import type { Target } from './schedules/target.ts';

export interface LoweredProgram {
  readonly loops: Loops;
  readonly plan: Plan;
  /** where each buffer of `loops` stands; constants have no place but contents */
  readonly placeOf: (buffer: Buffer) => Place | null;
  /** constant buffers, each content once */
  readonly constants: readonly Buffer[];
  readonly weightBytes: number;
  /** constants that each step reads, in the order of the steps */
  readonly constantsOf: readonly (readonly Buffer[])[];
  /** bytes of scratch memory of the step that needs most: what one more thread needs */
  readonly scratchBytes: number;
}

/** Every scratch buffer of a step begins at a multiple of this. */
const SCRATCH_ALIGNMENT = 16;

export const lower = ({ graph, steps, viewOf }: Program, target: Target): LoweredProgram => {
  const shared = new Map<string, Fn>();
  const named = new Map<string, number>();
  const share: ScheduleContext['share'] = (stem, key, build) => {
    const text = `${stem} ${JSON.stringify(key)}`;
    const known = shared.get(text);
    if (known !== undefined) return known;
    const number = (named.get(stem) ?? 0) + 1;
    named.set(stem, number);
    const whole = build(`${stem}_${number}`, key);
    const made: Fn = { ...whole, body: withoutUnread(whole.body) };
    shared.set(text, made);
    return made;
  };
  const scheduled = (step: Program['steps'][number], inPlace: Value | null): Kernel => {
    const schedule = schedules[step.root.op as keyof typeof schedules];
    try {
      return schedule(step, { target, inPlace, share });
    } catch (cause) {
      throw cause instanceof LoopError ? fault(step.root, cause) : cause;
    }
  };
  const first = steps.map((step) => scheduled(step, null));
  const plan = planMemory(graph, { steps, viewOf }, {
    scratchBytes: first.map(({ buffers }) => scratchOf(buffers).bytes), overwrites: steps.map((step) => overwritable(step, target, viewOf)), alignment: 16,
  });
  shared.clear();
  named.clear();

  const places = new Map<Buffer, Place | null>();
  const made = new Map<Value, Buffer>();
  const constants = new ConstantPool(places);
  const bufferOf = (value: Value): Buffer => {
    const known = made.get(value);
    if (known !== undefined) return known;
    const place = plan.placeOf(value);
    const role = place.memory === 'input' ? 'in' : place.memory === 'output' ? 'out' : 'temp';
    const own = buffer(value.name, elemOf(value.type.dtype), product(shapeOf(value)), role);
    made.set(value, own);
    places.set(own, place);
    return own;
  };
  let read: Buffer[] = [];
  const invoke = ({ fn, buffers, values }: Kernel, scratchPlace: Place | null, note: string): Stmt => {
    const { offsets } = scratchOf(buffers);
    const args = buffers.map((binding, i): Buffer => {
      if (binding.kind === 'value') return bufferOf(binding.value);
      if (binding.kind === 'constant') {
        const constant = constants.of(binding.name, binding.data);
        read.push(constant);
        return constant;
      }
      const own = buffer('scratch', binding.e, binding.length, 'temp');
      places.set(own, { memory: 'arena', index: 0, offset: scratchPlace!.offset + offsets[i], bytes: binding.length * bytesOf(binding.e), own: offsets[i] });
      return own;
    });
    return call(fn, args, [], values, note);
  };
  const constantsOf: Buffer[][] = [];
  const calls = steps.map((step, i) => { constantsOf.push(read = []); return invoke(scheduled(step, plan.inPlace[i]), plan.scratch[i], `${step.output.name} (${[step.root, step.rescale, step.table].flatMap((node) => node?.op ?? []).join(', ')})`); });
  for (const { from, output } of plan.copies) {
    const { name } = graph.outputs[output];
    const to: Value = { ...from, name, def: { op: 'input' } };
    const own = buffer(name, elemOf(from.type.dtype), product(shapeOf(from)), 'out');
    made.set(to, own);
    places.set(own, { memory: 'output', index: output, offset: 0, bytes: own.length * bytesOf(own.e) });
    calls.push(invoke(copy(from, to, { target, inPlace: null, share }), null, `${name} (copy)`));
  }
  const loops = loopProgram('run', [...places.keys()], calls);
  try {
    verify(loops);
  } catch (cause) {
    throw cause instanceof LoopError ? new CompileError(errors.internal(`the ${target.name} schedule is unsafe: ${cause.message}`, graph.name), 'internal') : cause;
  }
  return { loops, plan, placeOf: (one) => places.get(one) ?? null, constants: constants.all, weightBytes: constants.bytes, constantsOf, scratchBytes: Math.max(0, ...plan.scratch.map((place) => place?.bytes ?? 0)) };
};

const fault = (node: Node, cause: LoopError): CompileError =>
  new CompileError(errors.internal(`the schedule of "${node.op}" is wrong: ${cause.message}`, node.output.name), 'internal');

/** Byte offsets of the scratch buffers of a step, by position among its bindings, and their total. */
const scratchOf = (bindings: readonly Binding[]): { readonly offsets: readonly number[]; readonly bytes: number } => {
  let bytes = 0;
  const offsets = bindings.map((binding) => {
    const offset = bytes;
    if (binding.kind === 'scratch') bytes += Math.ceil((binding.length * bytesOf(binding.e)) / SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT;
    return offset;
  });
  return { offsets, bytes };
};

/** Constants by content: tables and weights that several steps read are stored once. */
class ConstantPool {
  readonly all: Buffer[] = [];
  bytes = 0;
  private readonly byHash = new Map<string, Buffer[]>();
  private readonly places: Map<Buffer, Place | null>;
  constructor(places: Map<Buffer, Place | null>) {
    this.places = places;
  }
  of(name: string, data: Contents): Buffer {
    const own: Buffer = { name, e: elementOf(data), length: data.length, role: 'const', data };
    const key = `${own.e} ${data.length} ${hashOf(data)}`;
    const rivals = this.byHash.get(key) ?? [];
    const known = rivals.find((rival) => sameContents(rival.data!, data));
    if (known !== undefined) return known;
    this.byHash.set(key, [...rivals, own]);
    this.all.push(own);
    this.bytes += data.byteLength;
    this.places.set(own, null);
    return own;
  }
}
const bytesIn = (data: Contents): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
const sameContents = (a: Contents, b: Contents): boolean => {
  const [x, y] = [bytesIn(a), bytesIn(b)];
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return false;
  return true;
};
/** FNV-1a over the bytes. */
const hashOf = (data: Contents): number => {
  let hash = 0x811c9dc5;
  for (const byte of bytesIn(data)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
};
