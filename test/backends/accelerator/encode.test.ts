/** Words, text and the page of LB1 come from one declaration; programs with wrong bits trap. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assemble, printInstruction } from '../../../src/backends/accelerator/assembly.ts';
import { decodeProgram, decodeWords, encodeProgram } from '../../../src/backends/accelerator/encode.ts';
import { acceleratorFor } from '../../../src/backends/accelerator/emit.ts';
import { Memories } from '../../../src/backends/accelerator/execute.ts';
import { isaPage } from '../../../src/backends/accelerator/isa-page.ts';
import { fieldEntries, opNames, type Field, type Synchronised } from '../../../src/backends/accelerator/isa.ts';
import { machineSchema } from '../../../src/backends/accelerator/machine-schema.ts';
import { checkMachine } from '../../../src/backends/accelerator/machine.ts';
import { presets } from '../../../src/backends/accelerator/presets.ts';
import { compileProgram } from '../../../src/backends/accelerator/program.ts';
import { checkMemory } from '../../../src/backends/accelerator/run.ts';
import { simulate } from '../../../src/backends/accelerator/simulate.ts';
import { programOf } from '../../../src/backends/index.ts';
import { Builder } from '../../../src/ir/build.ts';
import { CompileError } from '../../../src/ir/diagnostic.ts';
import { cases, sceneOf } from '../kernel-cases.ts';

const [tiny, mid] = presets;

const anyValue = (field: Field): fc.Arbitrary<unknown> => {
  if (field.kind === 'choice') return fc.constantFrom(...field.choices);
  const [low, high] = field.kind === 'unsigned' ? [0n, 2n ** BigInt(field.bits) - 1n] : [-(2n ** BigInt(field.bits - 1)), 2n ** BigInt(field.bits - 1) - 1n];
  const value = fc.oneof(fc.bigInt({ min: low, max: high }), fc.constantFrom(low, high));
  return field.kind === 'wide' ? value : value.map(Number);
};
const anyInstruction: fc.Arbitrary<Synchronised> = fc.constantFrom(...opNames).chain((op) =>
  fc.record({ op: fc.constant(op), fields: fc.record(Object.fromEntries(fieldEntries(op).map(([name, field]) => [name, anyValue(field)]))), wait: fc.nat(15), signal: fc.nat(15) }) as fc.Arbitrary<never>);

describe('LB1', () => {
  it('decodes what it encodes', () => {
    fc.assert(fc.property(fc.array(anyInstruction, { maxLength: 20 }), (program) => { expect(decodeProgram(encodeProgram(program))).toEqual(program); }));
  });
  it('reads what it prints', () => {
    fc.assert(fc.property(fc.array(anyInstruction, { maxLength: 20 }), (program) => { expect(assemble(program.map(printInstruction).join('\n'))).toEqual(program); }));
  });
  it('docs/lb1.md is made from the declaration (npx vitest -u renews it)', async () => {
    await expect(isaPage()).toMatchFileSnapshot('../../../docs/lb1.md');
  });
});

const sample = (() => {
  const b = new Builder();
  const chosen = cases.filter(({ name }) => /^conv .*one$|^linear .*residual$/.test(name)).slice(0, 6);
  const graph = b.finish('kernel', 'few', chosen.map(({ name, build }, i) => ({ name: `${i} ${name}`, value: build(sceneOf(b, `${i}`, i)) })));
  return compileProgram(programOf(graph), tiny);
})();

const trapOf = (run: () => unknown): string => {
  try {
    run();
    return 'none';
  } catch (cause) {
    if (!(cause instanceof CompileError)) throw cause;
    return cause.diagnostics[0].message;
  }
};
const runOn = (program: readonly Synchronised[]): void => {
  const memories = new Memories(tiny, sample.memory.bytes);
  const outside = memories.of('outside');
  sample.memory.blobs.forEach(({ address, file }) => outside.putBytes(address, sample.blobs[file.replace('.bin', '') as 'weights']));
  for (const { address, bytes } of sample.memory.inputs) outside.putBytes(address, new Uint8Array(bytes));
  simulate(program, tiny, memories);
};
const traps = (program: readonly Synchronised[]): string => /trapped \((.*?)\)/.exec(trapOf(() => runOn(program)))?.[1] ?? 'none';

describe('broken programs', () => {
  it('the sample runs', () => { expect(traps(sample.program)).toBe('none'); });
  it('any flipped bit of program.bin is found', () => {
    const bytes = encodeProgram(sample.program);
    fc.assert(fc.property(fc.nat(bytes.length * 8 - 1), (bit) => {
      const broken = bytes.slice();
      broken[bit >> 3] ^= 1 << (bit & 7);
      expect(trapOf(() => decodeProgram(broken))).toMatch(/undecodable/);
    }));
  });
  it('flipped bits with the right checksum never leave the memories: a trap, or a program that ends', () => {
    const plain = encodeProgram(sample.program).slice(16);
    let trapped = 0;
    fc.assert(fc.property(fc.nat(plain.length * 8 - 1), (bit) => {
      const broken = plain.slice();
      broken[bit >> 3] ^= 1 << (bit & 7);
      const view = new DataView(broken.buffer);
      const words = Array.from({ length: broken.length / 16 }, (_, i) => view.getBigUint64(16 * i, true) | (view.getBigUint64(16 * i + 8, true) << 64n));
      if (trapOf(() => runOn(decodeWords(words))) !== 'none') trapped++;
    }), { numRuns: 150 });
    expect(trapped).toBeGreaterThan(30);
  }, 240_000);
  it('says what is wrong', () => {
    const edit = (op: string, change: (one: Synchronised) => Synchronised): readonly Synchronised[] => {
      const at = sample.program.findIndex((one) => one.op === op);
      return sample.program.map((one, i) => (i === at ? change(one) : one));
    };
    const fields = (change: object) => (one: Synchronised): Synchronised => ({ ...one, fields: { ...one.fields, ...change } } as Synchronised);
    expect(traps(edit('LD', fields({ far: 2 ** 32 - 1 })))).toBe('out of bounds');
    expect(traps(edit('LD', fields({ chip: 2 ** 23 })))).toBe('out of bounds');
    expect(traps(edit('MM', fields({ w: 12000 })))).toBe('uninitialised read');
    expect(traps(edit('MM', (one) => ({ ...one, wait: 15 })))).toBe('deadlock');
    expect(traps(edit('MM', (one) => ({ ...one, wait: 0 })))).toMatch(/uninitialised read|race/);
    expect(traps(edit('END', (one) => ({ ...one, signal: 1 })))).toBe('unbalanced semaphore');
    expect(traps(edit('RQ', fields({ shift: 3 })))).toBe('bad shift');
    expect(traps(sample.program.slice(0, -1))).toBe('undecodable program');
  });
});

describe('machine descriptions', () => {
  const refusal = (change: object): string => trapOf(() => checkMachine({ ...mid, ...change }, 'mine'));
  it('the presets are valid', () => presets.forEach((preset) => expect(checkMachine(JSON.parse(JSON.stringify(preset)), 'preset')).toEqual(preset)));
  it('faults are named', () => {
    expect(refusal({ memories: { ...mid.memories, OBUF: 0 } })).toContain('memories.OBUF must be a whole number from 1024');
    expect(refusal({ speed: 3 })).toContain('speed is not known');
    expect(refusal({ array: { rows: 2, columns: 2 } })).toContain('array.fill is missing');
    expect(refusal({ ops: ['END', 'LD', 'ST', 'JMP'] })).toContain('"JMP"');
    expect(refusal({ lanes: [] })).toContain('lanes');
    expect(trapOf(() => acceleratorFor(mid).configure!('huge'))).toContain('it is no preset');
    expect(trapOf(() => acceleratorFor(mid).configure!('{'))).toContain('cannot be used');
  });
  it('docs/machine.schema.json is made from the rules that check a description (npx vitest -u renews it)', async () => {
    await expect(`${JSON.stringify(machineSchema(), null, 2)}\n`).toMatchFileSnapshot('../../../docs/machine.schema.json');
  });
  it('a machine without an instruction or with too little room refuses by name', () => {
    const b = new Builder();
    const { build } = cases.find(({ name }) => name.startsWith('softmax'))!;
    const program = programOf(b.finish('kernel', 'one', [{ name: 'y', value: build(sceneOf(b, 'one', 1)) }]));
    expect(trapOf(() => compileProgram(program, { ...mid, ops: mid.ops.filter((op) => op !== 'SMAX') }))).toContain('has no instruction SMAX');
    expect(trapOf(() => compileProgram(program, { ...mid, memories: { ...mid.memories, PBUF: 1024 } }))).toContain('bytes of PBUF');
  });
  it('overlapping places of memory.json are refused', () => {
    const fail = (why: string): never => { throw new Error(why); };
    const [first] = sample.memory.inputs;
    expect(() => checkMemory(sample.memory, fail)).not.toThrow();
    expect(() => checkMemory({ ...sample.memory, outputs: sample.memory.outputs.map((port) => ({ ...port, address: first.address })) }, fail)).toThrow('overlap');
    expect(() => checkMemory({ ...sample.memory, bytes: 0 }, fail)).toThrow('bytes must be');
  });
});
