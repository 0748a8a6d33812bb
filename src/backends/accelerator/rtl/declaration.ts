/**
 * What the Verilog takes from the declarations: where fields lie, how elements are coded, which lanes the machine has, and the list of
 * error codes. No position, opcode or size is written by hand in the templates.
 */
import { EXT, formats, MASK_BITS, OP_BITS, WORD_BITS } from '../encode.ts';
import { chipMemories, elements, engines, fieldEntries, isa, opNames, type ChipMemory, type Engine, type FieldsOf, type OpName } from '../isa.ts';
import { lanesFor, type Machine } from '../machine.ts';

/** Number of a memory, as fields name it. */
export const memoryIndex = (name: ChipMemory): number => chipMemories.indexOf(name);

/** The instructions that the core has; it traps on the others. */
export const coreOps = ['END', 'LD', 'FILL', 'ST', 'MM', 'RQ', 'ADD2', 'MUL2', 'CLIP', 'LUT', 'LUTI', 'POOL', 'RED', 'SMAX', 'EXPS', 'NRM', 'LNRM', 'MV'] as const satisfies readonly OpName[];
export type CoreOp = (typeof coreOps)[number];
export const coreOpsOf = (engine: Engine): readonly CoreOp[] => coreOps.filter((op) => isa[op].engine === engine);

/** What the register `error` may hold when the core stops. */
export const coreErrors = [
  ['NONE', 'no error'],
  ['HEADER', 'the program does not begin with "LB1" or has no words'],
  ['CHECKSUM', 'the checksum of the program is wrong'],
  ['OPCODE', 'no instruction has this word'],
  ['UNSUPPORTED', 'an instruction, element, width or place that this core does not have'],
  ['FIELD', 'a field holds a value that means nothing'],
  ['PROGRAM', 'END is not the last instruction'],
  ['CHIP', 'an address beyond the end of a memory on chip'],
  ['OUTSIDE', 'an address beyond the end of the memory outside'],
  ['MISALIGNED', 'an element that does not stand at a multiple of its size'],
  ['SHIFT', 'a shift outside its range'],
  ['DIVISION', 'the reciprocal of 0'],
  ['SEMAPHORE', 'a semaphore that holds too many tokens, or some at the end'],
  ['DEADLOCK', 'every engine waits for a token that nobody gives'],
] as const;
export type CoreError = (typeof coreErrors)[number][0];
export const errorCode = (name: CoreError): number => coreErrors.findIndex(([known]) => known === name);
export const errorConstants = (): string => coreErrors.map(([name, meaning], code) => `localparam [7:0] E_${name} = ${code}; // ${meaning}`).join('\n');

/** Bits of the longest instruction of an engine. */
export const instructionBits = (engine: Engine): number => WORD_BITS * Math.max(...coreOpsOf(engine).map((op) => formats[op].words));

export const opConstants = (engine: Engine): string => coreOpsOf(engine).map((op) => `localparam [${OP_BITS - 1}:0] OP_${op} = ${isa[op].code};`).join('\n');

/** The index of a choice, checked against the declaration. */
export const choiceIndex = <N extends OpName, K extends string & keyof FieldsOf<N>>(op: N, name: K, choice: FieldsOf<N>[K] & string): number => {
  const field = fieldEntries(op).find(([known]) => known === name)?.[1];
  return field?.kind === 'choice' ? field.choices.indexOf(choice) : -1;
};

type FieldName<N extends OpName> = N extends OpName ? string & keyof FieldsOf<N> : never;
/**
 * Wires `f_<field>` of the instruction in `head` for the ops of an engine: 32 bits (40 for longer ones, 64 for constants), the sign
 * extended, 0 where the op at hand has no such field. `names` are the fields that the engine uses.
 */
export const fieldWires = (ops: readonly CoreOp[], names: readonly FieldName<CoreOp>[]): string => [
  `wire [${OP_BITS - 1}:0] op = head[${OP_BITS - 1}:0];`,
  ...names.map((name) => {
    const having = ops.flatMap((op) => formats[op].slots.filter((slot) => slot.name === name).map((slot) => ({ op, ...slot })));
    const width = having.some(({ field }) => field.kind === 'wide') ? 64 : 32;
    const arm = ({ op, field, word, bit }: (typeof having)[number]): string => {
      const top = WORD_BITS * word + bit + field.bits - 1;
      const bits = `head[${top}:${WORD_BITS * word + bit}]`;
      const rest = width - field.bits;
      const wide = rest === 0 ? bits : field.kind === 'signed' ? `{{${rest}{head[${top}]}}, ${bits}}` : `{${rest}'d0, ${bits}}`;
      return having.length === ops.length && having.length === 1 ? wide : `op == OP_${op} ? ${wide} : `;
    };
    const arms = having.map(arm);
    return `wire [${width - 1}:0] f_${name} = ${arms.length === 1 && ops.length === 1 ? arms[0] : `${arms.join('\n    ')}${width}'d0`};`;
  }),
].join('\n');

/** Functions over the coding of elements; sizes are in units of four bits. */
export const elementFunctions = (): string => `\
function [31:0] nibbles_of(input [31:0] element);
  case (element)
${elements.map((element, i) => `    ${i}: nibbles_of = ${Number(element.slice(1)) / 4}; // ${element}`).join('\n')}
    default: nibbles_of = 1;
  endcase
endfunction
function [31:0] extended(input [31:0] raw, input [31:0] element);
  case (element)
${elements.map((element, i) => {
    const bits = Number(element.slice(1));
    const value = bits === 32 ? 'raw' : element.startsWith('i') ? `{{${32 - bits}{raw[${bits - 1}]}}, raw[${bits - 1}:0]}` : `{${32 - bits}'d0, raw[${bits - 1}:0]}`;
    return `    ${i}: extended = ${value};`;
  }).join('\n')}
    default: extended = 0;
  endcase
endfunction`;

/** Bits of every word of an op that mean nothing. */
const reservedBits = (op: OpName, word: number): bigint => {
  const used = formats[op].slots.filter((slot) => slot.word === word).reduce((mask, { bit, field }) => mask | (((1n << BigInt(field.bits)) - 1n) << BigInt(bit)), 0n);
  const head = (1n << BigInt(word === 0 ? OP_BITS + 2 * MASK_BITS : OP_BITS)) - 1n;
  return BigInt.asUintN(WORD_BITS, ~(used | head));
};
const hex = (value: bigint): string => `${WORD_BITS}'h${value.toString(16)}`;

/** Cases of the decoder: words, engine, and what a word of the op must not have. */
export const decoderFunctions = (): string => `\
function [2:0] words_of(input [${OP_BITS - 1}:0] code);
  case (code)
${coreOps.map((op) => `    ${isa[op].code}: words_of = ${formats[op].words}; // ${op}`).join('\n')}
    default: words_of = 0;
  endcase
endfunction
function known(input [${OP_BITS - 1}:0] code);
  case (code)
    ${opNames.map((op) => isa[op].code).join(', ')}: known = 1;
    default: known = 0;
  endcase
endfunction
function [1:0] engine_of(input [${OP_BITS - 1}:0] code);
  case (code)
${coreOps.map((op) => `    ${isa[op].code}: engine_of = ${engines.indexOf(isa[op].engine)};`).join('\n')}
    default: engine_of = 0;
  endcase
endfunction
// bits that mean nothing, or a choice that names nothing
function malformed(input [${OP_BITS - 1}:0] code, input [2:0] index, input [${WORD_BITS - 1}:0] word);
  case ({code, index})
${coreOps.flatMap((op) => Array.from({ length: formats[op].words }, (_, word) => {
    const choices = formats[op].slots.flatMap(({ word: at, bit, field }) => (at === word && field.kind === 'choice' && field.choices.length < 2 ** field.bits
      ? [` || word[${bit + field.bits - 1}:${bit}] > ${field.bits}'d${field.choices.length - 1}`] : []));
    const ext = word === 0 ? '' : ` || word[${OP_BITS - 1}:0] != ${OP_BITS}'d${EXT}`;
    return `    {${OP_BITS}'d${isa[op].code}, 3'd${word}}: malformed = (word & ${hex(reservedBits(op, word))}) != 0${ext}${choices.join('')};`;
  })).join('\n')}
    default: malformed = 1;
  endcase
endfunction`;

export const weightWidths = [8, 4, 2] as const;
export const activationWidths = [16, 8, 4] as const;
/** Products a cycle of an element of the array; 0 where the machine has no such mode. */
export const perCycle = (machine: Machine, weightBits: number, activationBits: number): number => lanesFor(machine, weightBits, activationBits)?.perCycle ?? 0;
/** Lanes that can read two bytes of activations. */
export const wideLanes = (machine: Machine): number => Math.max(0, ...weightWidths.map((w) => perCycle(machine, w, 16)));
export const mostLanes = (machine: Machine): number => Math.max(1, ...weightWidths.flatMap((w) => activationWidths.map((a) => perCycle(machine, w, a))));

/** Why a machine has no core, or null. */
export const coreObstacle = (machine: Machine): string | null =>
  machine.array.fill < 2 ? 'a sum takes two cycles to be added and written: array.fill must be at least 2'
    : machine.vector.start < 4 ? 'the vector engine has four stages: vector.start must be at least 4'
      : machine.dma.latency < 1 ? 'memories answer a cycle later at the earliest: dma.latency must be at least 1'
        : !Number.isInteger(Math.log2(machine.dma.bytesPerCycle)) || machine.dma.bytesPerCycle < 2 ? 'banks are picked by address bits: dma.bytesPerCycle must be a power of two from 2' : null;
