import { describe, expect, it } from 'vitest';
import loadWabt from 'wabt';
import { accessBytes, Module, opcodes, scan, type LaneMemoryOp, type LaneOp, type MemoryOp, type PlainOp } from '../../src/wasm/index.ts';

const wabt = await loadWabt();
const features = { simd: true, relaxed_simd: true, threads: true, bulk_memory: true, sat_float_to_int: true, sign_extension: true };
/** Reads without type-checking, so that one instruction may stand alone. */
const disassemble = (bytes: Uint8Array): string => wabt.readWasm(bytes, { readDebugNames: false, ...features }).toText({ foldExprs: false, inlineExport: false });

const byImmediate = (...kinds: string[]): string[] => [...opcodes].filter(([, { immediate }]) => kinds.includes(immediate)).map(([name]) => name);
const structural = new Set(['end', 'else', 'return']);

describe('every instruction has the opcode that wabt reads', () => {
  const single = (write: Parameters<Module['func']>[3]): string => {
    const module = new Module();
    module.memory({ initial: 1, maximum: 2, shared: true });
    module.func('f', [], [], write);
    return disassemble(module.encode());
  };
  it('plain', () => {
    for (const name of byImmediate('none', 'zero', 'zeroZero').filter((n) => !structural.has(n))) {
      expect(single((code) => code.op(name as PlainOp)).split('\n').map((line) => line.trim().replace(/[()]/g, ''))).toContain(name);
    }
  });
  it('memory, with offset and natural alignment', () => {
    for (const name of byImmediate('memory')) {
      const text = single((code) => code.memory(name as MemoryOp, 1000, accessBytes(name)));
      expect(text).toContain(`${name} offset=1000`);
      expect(text).not.toContain('align=');
    }
  });
  it('lanes', () => {
    for (const name of byImmediate('lane')) expect(single((code) => code.lane(name as LaneOp, 1))).toMatch(new RegExp(`${name.replace('.', '\\.')} 1\\b`));
    for (const name of byImmediate('memoryLane')) {
      expect(single((code) => code.memoryLane(name as LaneMemoryOp, 1, 8, accessBytes(name)))).toMatch(new RegExp(`${name.replace('.', '\\.')} offset=8 1\\b`));
    }
  });
  it('covers the fixed-width vector instructions and one of the relaxed ones', () => {
    expect([...opcodes.values()].filter(({ prefix }) => prefix === 0xfd)).toHaveLength(236 + 1);
  });
});

describe('scan', () => {
  it('sees each instruction that was written, and none that was not', () => {
    for (const name of byImmediate('none', 'zero', 'zeroZero').filter((n) => !structural.has(n))) {
      const module = new Module();
      module.func('f', [], [], (code) => code.op(name as PlainOp));
      expect([...scan(module.encode()).counts.keys()].sort()).toEqual([...new Set([name, 'end'])].sort());
    }
  });
});
