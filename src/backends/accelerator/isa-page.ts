/** `docs/lb1.md`: the reference of the instruction set, from its declaration. */
import { EXT, formats, MASK_BITS, OP_BITS, WORD_BITS } from './encode.ts';
import { chipMemories, elements, engines, isa, opNames, type Field } from './isa.ts';
import { machineFormat, numberRules } from './machine.ts';
import { presets } from './presets.ts';

const typeOf = (field: Field): string => (field.kind === 'choice' ? field.choices.map((choice, i) => `${i} ${choice}`).join(', ') : field.kind === 'unsigned' ? 'unsigned' : 'signed');

export const isaPage = (): string => `\
# LB1

The instruction set of the target \`accel\`. This page is made from the declaration in \`src/backends/accelerator/isa.ts\`.

## The machine

Four engines, each with a queue of its own that runs in order: ${engines.map((engine, i) => `${engine} (${i})`).join(', ')}. The sequencer reads the program once and gives each instruction to the queue of its engine.
Between every ordered pair of engines stands a counting semaphore. An instruction begins when, for each engine in its mask \`wait\` (bit = number of the engine), the semaphore from that engine to its own holds a token, and takes one from each.
When it ends it puts one token into the semaphore to each engine in its mask \`signal\`. All semaphores are empty at the start and at the end.

Memories on chip: ${chipMemories.join(', ')}: activations, weights, parameters and tables, 32-bit sums. One memory outside. All are addressed by bytes, little endian; an element stands at a multiple of its size.
Elements on chip are ${elements.join(', ')}. Two of four bits share a byte, the even one in its low half; other codes of fewer than eight bits take a byte each among activations. Weights take their own number of bits, low bits first.
An image on chip has no border: what a window reads outside of it is a field of the instruction. Rows of channels may lie apart by a pitch, so that a tile is written where it belongs in a tensor.
An instruction counts as reading or writing every byte from the first to the last of each operand. Two instructions that run at the same time must not touch the same bytes unless both read. Nothing is read that was not written before.

Products have 64 bits, \`>>\` is the floor shift, \`clamp\` limits to [low, high]. The rescaling of v by 1/S: with (y, lz) the reciprocal of S (\`docs/kernels.md\`), M = (y·mulOut) >> 31 and s = shiftOut + 31 − lz: clamp(((v·M + 2^(s−1)) >> s) + zero, low, high).

## The program

A header of 16 bytes: \`LB1\` and a zero byte, the number of words (u32), the CRC-32 of the words (u32), 0 (u32). Then words of ${WORD_BITS} bits, little endian.
The first word of an instruction holds op (bits 0 to ${OP_BITS - 1}), wait (${MASK_BITS} bits) and signal (${MASK_BITS} bits); further words begin with op ${EXT} (EXT). Unused bits are 0. A machine traps on words that no instruction has.

## Instructions

${opNames.map((name) => `### ${name}

Op ${isa[name].code}, engine ${isa[name].engine}, ${formats[name].words} ${formats[name].words === 1 ? 'word' : 'words'}: ${isa[name].summary}.

${isa[name].meaning}
${formats[name].slots.length === 0 ? '' : `
| field | word | bits | type | meaning |
|---|---|---|---|---|
${formats[name].slots.map(({ name: field, field: declared, word, bit }) => `| ${field} | ${word} | ${bit}…${bit + declared.bits - 1} | ${typeOf(declared)} | ${declared.doc} |`).join('\n')}
`}`).join('\n')}
## Time

An instruction occupies its engine for so many cycles, with the numbers of the machine description; engines work at the same time as far as the semaphores let them.

| instruction | cycles |
|---|---|
| LD, ST | latency + beats |
| MV | start + beats |
| GATHER | latency + count · ceil(run / bytesPerCycle) |
| FILL | ceil(bytes / bytesPerCycle) |
| MM | ceil(P / rows) · ceil(O / columns) · (max(ceil(K / perCycle), F) + fill): P = rows · columns of the instruction, O = outputs, K = products of a sum; F = ceil(tapRows · columnStride · aBits / 8) where depthwise, else 0 |
| MMV | start + ceil(P · O · K / lanes) |
| RQ, CLIP, LUT, RED | start + ceil(n / lanes) |
| ADD2, MUL2, LUTI | start + 2 · ceil(n / lanes) |
| POOL | start + taps · ceil(n / lanes) |
| EXPS | start + 2 · ceil(n / lanes) |
| NRM | start + ceil(n / lanes) + 16 a row |
| SMAX | start + 3 · ceil(n / lanes) + 16 a row |
| LNRM | start + 3 · ceil(n / lanes) + 24 a row |
| END | 1 |

Beats: n0 · n1 times those of the inner dimension. Outside, a beat is bytesPerCycle contiguous bytes; on chip there are as many banks of a byte. Where the inner dimension is contiguous outside (f2 = run), it takes
ceil(max(n2 · run / bytesPerCycle, n2 / t)) beats, t being the runs that meet different banks: with g = gcd(c2, bytesPerCycle), bytesPerCycle / g if g ≥ run, else 1; just ceil(n2 · run / bytesPerCycle) where c2 = run too.
Otherwise each run takes ceil(run / bytesPerCycle). For MV both sides are banks: runs of a byte or more go min(t of both sides, floor(bytesPerCycle / run)) at a time.

Filters of single channels: a cycle brings one byte to each element of the array, a tap row of the windows of its pixels, while the lanes of an element work on different taps.

## Machine descriptions

\`target.json\`, as given to \`--target accel:my.json\`, has the JSON schema [machine.schema.json](machine.schema.json): \`format\` (${JSON.stringify(machineFormat)}), \`name\`, \`ops\` (the instructions that the machine has),
\`lanes\` (a list of \`{ weightBits: 2, 4, 8 or 16, activationBits: 4, 8 or 16, perCycle }\`: products that one element of the array adds up in a cycle; widths in between use the fastest entry that holds them, ternary
weights count as two bits), and these whole numbers. Products that no entry of \`lanes\` holds go to the vector engine where \`ops\` has MMV; whatever else a machine lacks is an error that names the node.

| field | meaning | from | to |${presets.map(({ name }) => ` ${name} |`).join('')}
|---|---|---|---|${presets.map(() => '---|').join('')}
${numberRules.map(({ path, least, most, doc }) => `| ${path.join('.')} | ${doc} | ${least} | ${most} |${presets.map((preset) => ` ${String(path.reduce<unknown>((at, key) => (at as Record<string, unknown>)[key], preset))} |`).join('')}`).join('\n')}

Products per element and cycle of the presets:

| weight bits | activation bits |${presets.map(({ name }) => ` ${name} |`).join('')}
|---|---|${presets.map(() => '---|').join('')}
${presets[0].lanes.map(({ weightBits, activationBits }, i) => `| ${weightBits} | ${activationBits} |${presets.map(({ lanes }) => ` ${lanes[i].perCycle} |`).join('')}`).join('\n')}
`;
