/** `SPEC.md`: what a hardware engineer reads first. */
import type { ScheduleFile } from './files.ts';
import type { Machine } from './machine.ts';
import type { Compiled } from './program.ts';
import { coreObstacle, missingFrom } from './rtl/index.ts';

const kib = (bytes: number): string => `${Math.round((bytes / 1024) * 10) / 10} KiB`;

const verilog = (machine: Machine, program: Compiled['program']): string => {
  const obstacle = coreObstacle(machine);
  if (obstacle !== null) return `There is no core for this machine: ${obstacle}.`;
  const missing = missingFrom(program);
  return `\
In \`rtl/\`: \`iverilog -g2005 -o core lb1_core.v lb1_tb.v && vvp core\` runs the program on the golden input, prints the cycles and compares the output. What the core has and lacks:
\`docs/rtl.md\` of lowbitc. ${missing.length === 0 ? 'It has everything that this program uses.' : `It stops at this program, which uses ${missing.join(', ')}.`}`;
};

export const specText = (name: string, machine: Machine, { program, memory, blobs }: Compiled, schedule: ScheduleFile): string => `\
# ${name} on the accelerator "${machine.name}"

Integers only, made by lowbitc. To run it: copy the blobs below into the memory outside, copy the inputs to their addresses, start the four
engines on \`program.bin\`, wait until all queues are empty, read the outputs at their addresses. The instruction set is LB1 (\`docs/lb1.md\` of
lowbitc); \`program.lst\` is the program as text, one instruction a line with the index of its word.

All files and memories are little endian. A tensor holds codes in row-major order, channels last for images inside the network; the real number of a code is (code − zero) · scale. Who has real numbers for an input
writes floor(x / scale + 1/2) + zero, limited to the codes of its type; who has data as the table below names them writes these as they are.

## Files

| file | content |
|---|---|
| target.json | the machine that the program was made for |
| memory.json | addresses of blobs, inputs, outputs and every tensor with the steps during which it is alive |
| weights.bin | packed weights: a row for each output channel, its taps in the order row, column, input channel; 2, 4 or 8 bits, low bits first, ternary ones five to a byte; each row begins with a byte |
| params.bin | records of 16 bytes: M i32, second M i32 or 0, C i64; one for each output channel, or one for all |
| luts.bin | tables of 256 entries, and those of exponentials |
| program.bin | header of 16 bytes, then 128-bit words, little endian |
| schedule.json | start and end of each instruction, cycles, utilisation and bytes of each layer |
| golden/ | one sample of random codes: inputs, the result of every layer, outputs, a code in each element of the type that \`golden/index.json\` names |
${coreObstacle(machine) === null ? '| rtl/ | `lb1_core.v`, this machine in Verilog, and `lb1_tb.v`, a test bench for this program |\n' : ''}
## Finding a fault

Run \`golden/input-*.bin\`. When the last instruction of a layer has ended (\`firstInstruction\` and \`instructions\` of schedule.json), its result stands where \`tensors\` of memory.json says, in the element named there
(i4 and u4: two codes to a byte, the even one in its low half), and must be equal to \`golden/step-*.bin\` of the same name; it stays there until the step \`last\`. \`lowbitc verify <folder> --target accel\` does this with the
simulator on the files as they are when an output differs, and names the first layer that does; it also traps what the program must not do: bytes out of bounds or never written, races, deadlocks, fields that mean nothing.

## Verilog

${verilog(machine, program)}

## Machine

${machine.array.rows} × ${machine.array.columns} array at ${machine.clockMHz} MHz; ABUF ${kib(machine.memories.ABUF)}, WBUF ${kib(machine.memories.WBUF)}, PBUF ${kib(machine.memories.PBUF)}, OBUF ${kib(machine.memories.OBUF)}; ${machine.dma.bytesPerCycle} bytes a cycle from outside, latency ${machine.dma.latency}; ${machine.vector.lanes} vector lanes; multipliers of ${machine.multiplierBits} bits.

| weight bits | activation bits | products an element and cycle |
|---|---|---|
${machine.lanes.map(({ weightBits, activationBits, perCycle }) => `| ${weightBits} | ${activationBits} | ${perCycle} |`).join('\n')}

## Memory outside

${memory.bytes} bytes. ${memory.blobs.map(({ file, address, bytes }) => `${file} at ${address} (${bytes} bytes)`).join(', ')}.

| tensor | role | type | address | bytes | real number |
|---|---|---|---|---|---|
${[...memory.inputs.map((port) => ({ port, role: 'input' })), ...memory.outputs.map((port) => ({ port, role: 'output' }))]
    .map(({ port, role }) => `| ${port.name} | ${role} | ${port.dtype}[${port.shape.join(', ')}] | ${port.address} | ${port.bytes} | ${port.scale === null ? 'the code itself' : `(code − ${port.zero}) · ${port.scale}`} |`).join('\n')}

## Time

${program.length} instructions, ${blobs.weights.length} bytes of weights, ${schedule.cycles} cycles (${schedule.microseconds} µs).

| layer | ops | instructions | cycles | array in use | bytes in | bytes out | bound by |
|---|---|---|---|---|---|---|---|
${schedule.layers.map(({ name: layer, ops, firstInstruction, instructions, cycles, utilisation, bytesLoaded, bytesStored, bound }) => `| ${layer} | ${ops.join(', ')} | ${instructions === 0 ? '' : `${firstInstruction}–${firstInstruction + instructions - 1}`} | ${cycles} | ${(100 * utilisation).toFixed(1)} % | ${bytesLoaded} | ${bytesStored} | ${bound} |`).join('\n')}
`;
