/**
 * The memories on chip: arrays of bytes with a port for every reader and writer, as the cycle model counts them. Reads answer a cycle
 * later, with what stood there before the writes of their cycle: reads come first in the text, and writes block. Synthesis builds such
 * memories from registers or copies of RAM; whoever has RAM with fewer ports puts banks in place of these modules.
 */
import { laneGroups } from './array.ts';
import { mostLanes, wideLanes } from './declaration.ts';
import type { Machine } from '../machine.ts';

interface Port {
  readonly name: string;
  readonly lanes: number;
  /** bytes a lane moves, with the wire that counts them where that is not always all */
  readonly bytes: number;
  readonly counted: boolean;
  /** bits that addresses count in: 8, 4 or 2 */
  readonly unit: 8 | 4 | 2;
}
const drop = (unit: number): number => Math.log2(8 / unit);

/** Ports: `<name>_on` a bit for each lane, `<name>_addresses`, `<name>_bytes`, `<name>_data`; values stand at the low end. */
const readPort = ({ name, lanes, bytes, counted }: Port): string =>
  `  input [${lanes - 1}:0] ${name}_on, input [${32 * lanes - 1}:0] ${name}_addresses, ${counted ? `input [31:0] ${name}_bytes, ` : ''}output reg [${8 * bytes * lanes - 1}:0] ${name}_data`;
const writePort = ({ name, lanes, bytes, counted }: Port): string =>
  `  input [${lanes - 1}:0] ${name}_on, input [${32 * lanes - 1}:0] ${name}_addresses, ${counted ? `input [31:0] ${name}_bytes, input ${name}_nibbles, ` : ''}input [${8 * bytes * lanes - 1}:0] ${name}_data`;

/** Bytes from the highest to the lowest, joined. */
const joined = (bytes: number, top: number): string => {
  const parts = Array.from({ length: bytes }, (_, i) => (i === bytes - 1 ? `bytes[byte_at[${top}:0]]` : `bytes[byte_at[${top}:0] + ${bytes - 1 - i}]`));
  return bytes === 1 ? parts[0] : `{${parts.join(', ')}}`;
};
const read = ({ name, lanes, bytes, counted, unit }: Port, top: number): string => {
  const to = `${name}_data[${8 * bytes} * l +: ${8 * bytes}] <= `;
  const low = unit === 8 ? joined(1, top) : `${joined(1, top)} >> {at[${drop(unit) - 1}:0], ${Math.log2(unit)}'d0}`;
  return `\
    if (${name}_on != 0) for (l = 0; l < ${lanes}; l = l + 1) if (${name}_on[l]) begin
      at = ${name}_addresses[32 * l +: 32];
      byte_at = at >> ${drop(unit)};
${counted ? `\
      if (${name}_bytes == 1) ${to}{24'd0, ${low}};
      else if (${name}_bytes == 2) ${to}{16'd0, ${joined(2, top)}};
      else ${to}${joined(4, top)};` : `      ${to}${bytes === 1 ? low : joined(bytes, top)};`}
    end`;
};
const write = ({ name, lanes, bytes, counted, unit }: Port, top: number): string => `\
    if (${name}_on != 0) for (l = 0; l < ${lanes}; l = l + 1) if (${name}_on[l]) begin
      at = ${name}_addresses[32 * l +: 32];
${counted ? `      byte_at = at >> ${drop(unit)};
      if (${name}_nibbles) bytes[byte_at[${top}:0]][4 * at[0] +: 4] = ${name}_data[${8 * bytes} * l +: 4];
      else ` : '      '}for (b = 0; b < ${bytes}; b = b + 1)${counted ? ` if (b < ${name}_bytes)` : ''} begin
        byte_at = (at >> ${drop(unit)}) + b;
        bytes[byte_at[${top}:0]] = ${name}_data[${8 * bytes} * l + 8 * b +: 8];
      end
    end`;

const bufferText = (name: string, size: number, reads: readonly Port[], writes: readonly Port[], more: { readonly ports: string; readonly text: string } | null = null): string => {
  const top = Math.ceil(Math.log2(size)) - 1;
  return `\
module lb1_${name} (
  input clk,
${[...reads.map(readPort), ...(more === null ? [] : [more.ports]), ...writes.map(writePort)].join(',\n')}
);
  reg [7:0] bytes [0:${size - 1}];
  reg [31:0] at, byte_at;
  integer l, r, b;
  always @(posedge clk) begin
${[...reads.map((port) => read(port, top)), ...(more === null ? [] : [more.text]), ...writes.map((port) => write(port, top))].join('\n')}
  end
endmodule
`;
};

export const buffersText = (machine: Machine): string => {
  const { array: { rows: R, columns: C }, dma: { bytesPerCycle }, vector: { lanes: V }, memories } = machine;
  const L = mostLanes(machine);
  const H = wideLanes(machine);
  const [topA, topW] = [memories.ABUF, memories.WBUF].map((size) => Math.ceil(Math.log2(size)) - 1);
  const port = (name: string, lanes: number, bytes: number, unit: Port['unit'] = 8, counted = false): Port => ({ name, lanes, bytes, unit, counted });
  const vector = (name: string): Port => port(name, V, 4, 4, true);
  const more = Math.max(1, C - 1);
  // a lane of the array reads one element, or one for each column
  const activations = {
    ports: `  input a_on, input a_nibbles, input a_channelwise, input [${L - 1}:0] a_used, input [${R * L - 1}:0] a_lanes, input [${32 * R - 1}:0] a_rows, input [${32 * L - 1}:0] a_steps, output reg [${8 * R * L - 1}:0] a_data, output reg [${8 * R * L * more - 1}:0] a_more, output reg [${8 * R * Math.max(1, H) - 1}:0] a_high`,
    text: laneGroups(machine).map(({ from, to }) => `\
    if (a_on && a_used[${from}]) for (l = ${from}; l < ${to}; l = l + 1) for (r = 0; r < ${R}; r = r + 1) if (a_lanes[r * ${L} + l]) begin
      at = a_rows[32 * r +: 32] + a_steps[32 * l +: 32];
      byte_at = at >> 1;
${from < H ? `      a_high[8 * (r * ${H} + l) +: 8] <= bytes[byte_at[${topA}:0] + 1];
` : ''}      a_data[8 * (r * ${L} + l) +: 8] <= a_nibbles ? bytes[byte_at[${topA}:0]] >> {at[0], 2'd0} : bytes[byte_at[${topA}:0]];
      if (a_channelwise) for (b = 1; b < ${C}; b = b + 1) begin
        at = at + (a_nibbles ? 1 : 2);
        byte_at = at >> 1;
        a_more[8 * ((r * ${L} + l) * ${more} + b - 1) +: 8] <= a_nibbles ? bytes[byte_at[${topA}:0]] >> {at[0], 2'd0} : bytes[byte_at[${topA}:0]];
      end
    end`).join('\n'),
  };
  const weights = {
    ports: `  input w_on, input [${L - 1}:0] w_lanes, input [${C - 1}:0] w_channels, input [${32 * C - 1}:0] w_columns, input [${32 * L - 1}:0] w_steps, output reg [${8 * C * L - 1}:0] w_data`,
    text: laneGroups(machine).map(({ from, to }) => `\
    if (w_on && w_lanes[${from}]) for (l = ${from}; l < ${to}; l = l + 1) if (w_lanes[l]) for (r = 0; r < ${C}; r = r + 1) if (w_channels[r]) begin
      at = w_columns[32 * r +: 32] + w_steps[32 * l +: 32];
      byte_at = at >> 2;
      w_data[8 * (r * ${L} + l) +: 8] <= bytes[byte_at[${topW}:0]] >> {at[1:0], 1'd0};
    end`).join('\n'),
  };
  return [
    bufferText('abuf', memories.ABUF, [vector('x'), vector('y'), port('st', bytesPerCycle, 1)], [port('ld', bytesPerCycle, 1), port('mv', bytesPerCycle, 1), vector('z')], activations),
    bufferText('wbuf', memories.WBUF, [], [port('ld', bytesPerCycle, 1), port('mv', bytesPerCycle, 1)], weights),
    bufferText('pbuf', memories.PBUF, [port('records', V, 16), port('fine', V, 4, 8, true), port('coarse', V, 4, 8, true)], [port('ld', bytesPerCycle, 1)]),
    bufferText('obuf', memories.OBUF, [vector('x'), vector('y'), port('st', bytesPerCycle, 1), port('o', R * C, 4)], [port('ld', bytesPerCycle, 1), vector('z'), port('total', 1, 4), port('sums', R * C, 4)]),
  ].join('\n');
};
