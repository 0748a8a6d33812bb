/** The core around its parts: queues, semaphores, memories, the clock, and the registers `done`, `error` and `cycles`. */
import { engines, type ChipMemory } from '../isa.ts';
import { formats, MASK_BITS, OP_BITS, WORD_BITS } from '../encode.ts';
import type { Machine } from '../machine.ts';
import { arrayText } from './array.ts';
import { buffersText } from './buffers.ts';
import { coreOps, errorConstants, instructionBits, memoryIndex, mostLanes, wideLanes } from './declaration.ts';
import { loaderText, storerText, walkerText } from './movement.ts';
import { queueText, sequencerText } from './sequencer.ts';
import { vectorText } from './vector.ts';

/** Tokens that a semaphore can hold. */
const TOKEN_BITS = 8;
const E = engines.length;
const longest = WORD_BITS * Math.max(...coreOps.map((op) => formats[op].words));

const engineWires = (): string => engines.map((engine, e) => `\
  wire [${instructionBits(engine) - 1}:0] head_${engine};
  wire [31:0] place_${engine};
  wire [7:0] error_${engine};
  lb1_queue #(.BITS(${instructionBits(engine) + 32})) queue_${engine} (
    .clk(clk), .clear(clear), .put(put[${e}] && running), .entry({place, instruction[${instructionBits(engine) - 1}:0]}), .take(last[${e}] && work[${e}]), .head({place_${engine}, head_${engine}}), .valid(valid[${e}]), .full(full[${e}])
  );
  assign waits[${E * e} +: ${E}] = head_${engine}[${OP_BITS + MASK_BITS - 1}:${OP_BITS}];
  assign signals[${E * e} +: ${E}] = head_${engine}[${OP_BITS + 2 * MASK_BITS - 1}:${OP_BITS + MASK_BITS}];`).join('\n');

export const coreText = (machine: Machine): string => {
  const { array: { rows: R, columns: C }, dma: { bytesPerCycle: B }, vector: { lanes: V } } = machine;
  const L = mostLanes(machine);
  const H = Math.max(1, wideLanes(machine));
  const mover = (memory: ChipMemory): string => `    .mv_on(move_memory == ${memoryIndex(memory)} ? move_on : ${B}'d0), .mv_addresses(move_addresses), .mv_data(write_data)`;
  const operand = (name: 'x' | 'y'): string => `\
  wire [${V - 1}:0] ${name}_on;
  wire [1:0] ${name}_memory;
  wire [31:0] ${name}_bytes;
  wire [${32 * V - 1}:0] ${name}_addresses, ${name}_from_abuf, ${name}_from_obuf;`;
  return `\
// LB1 core "${machine.name}", made from its description; see SPEC.md beside this folder.
module lb1_core (
  input clk,
  input clear, // one cycle before a run
  input go, // held while it runs
  input [31:0] outside_bytes, // size of the memory outside
  // program: a read answers a cycle later and stays until the next
  output program_read, output [31:0] program_address, input [${WORD_BITS - 1}:0] program_data,
  // memory outside, up to ${B} bytes from any byte address: reads are answered in order, writes acknowledged in order
  output read_valid, output [31:0] read_address, output [31:0] read_count, input read_ready, input [${8 * B - 1}:0] read_data,
  output write_valid, output [31:0] write_address, output [31:0] write_count, output [${8 * B - 1}:0] write_data, input write_done,
  output reg done, output reg [7:0] error, output reg [31:0] error_place, output reg [31:0] cycles
);
${errorConstants()}
  wire running = go && !done && error == E_NONE;
  wire [${E - 1}:0] put, full, valid, last;
  wire [${E * E - 1}:0] waits, signals;
  wire [${longest - 1}:0] instruction;
  wire [31:0] place;
  wire stalled, finished;
  wire [7:0] error_sequencer;
  lb1_sequencer sequencer (
    .clk(clk), .clear(clear), .go(running), .program_read(program_read), .program_address(program_address), .program_data(program_data),
    .put(put), .instruction(instruction), .place(place), .full(full), .stalled(stalled), .finished(finished), .error(error_sequencer)
  );
${engineWires()}

  // ---- semaphores: tokens from engine i to engine j at ${E}·i + j
  reg [${TOKEN_BITS * E * E - 1}:0] tokens;
  reg [${E - 1}:0] busy, ready;
  wire [${E - 1}:0] begins = running ? valid & ~busy & ready : 0;
  wire [${E - 1}:0] work = running ? busy | begins : 0;
  wire [${E - 1}:0] ends = last & work;
  integer i, j;
  always @* begin
    ready = ~${E}'d0;
    for (i = 0; i < ${E}; i = i + 1) for (j = 0; j < ${E}; j = j + 1) if (waits[${E} * j + i] && tokens[${TOKEN_BITS} * (${E} * i + j) +: ${TOKEN_BITS}] == 0) ready[j] = 0;
  end
  reg overflow;
  always @* begin
    overflow = 0;
    for (i = 0; i < ${E * E}; i = i + 1) if (tokens[${TOKEN_BITS} * i +: ${TOKEN_BITS}] == ${2 ** TOKEN_BITS - 1}) overflow = 1;
  end

  // ---- engines
  wire [${B - 1}:0] load_on;
  wire [1:0] load_memory;
  wire [${32 * B - 1}:0] load_addresses;
  wire [${8 * B - 1}:0] load_data;
  lb1_loader loader (
    .clk(clk), .clear(clear), .work(work[${engines.indexOf('LD')}]), .head(head_LD), .last(last[${engines.indexOf('LD')}]), .error(error_LD), .outside_bytes(outside_bytes),
    .read_valid(read_valid), .read_address(read_address), .read_count(read_count), .read_ready(read_ready), .read_data(read_data),
    .write_on(load_on), .write_memory(load_memory), .write_addresses(load_addresses), .write_data(load_data)
  );
  wire store_on, ended;
  wire [1:0] store_memory, move_memory;
  wire [${B - 1}:0] move_on;
  wire [${32 * B - 1}:0] move_addresses;
  wire [${32 * B - 1}:0] store_addresses;
  wire [${8 * B - 1}:0] store_from_abuf, store_from_obuf;
  lb1_storer storer (
    .clk(clk), .clear(clear), .work(work[${engines.indexOf('ST')}]), .head(head_ST), .last(last[${engines.indexOf('ST')}]), .error(error_ST), .ends(ended), .outside_bytes(outside_bytes),
    .read_on(store_on), .read_memory(store_memory), .read_addresses(store_addresses), .read_data(store_memory == ${memoryIndex('OBUF')} ? store_from_obuf : store_from_abuf),
    .write_valid(write_valid), .write_address(write_address), .write_count(write_count), .write_data(write_data), .write_done(write_done),
    .move_on(move_on), .move_memory(move_memory), .move_addresses(move_addresses)
  );
  wire a_on, a_nibbles, a_channelwise, w_on, o_read, o_write;
  wire [${R * L - 1}:0] a_lanes;
  wire [${32 * R - 1}:0] a_rows;
  wire [${32 * L - 1}:0] a_steps, w_steps;
  wire [${8 * R * L - 1}:0] a_data;
  wire [${8 * R * L * Math.max(1, C - 1) - 1}:0] a_more;
  wire [${8 * R * H - 1}:0] a_high;
  wire [${L - 1}:0] w_lanes;
  wire [${C - 1}:0] w_channels;
  wire [${32 * C - 1}:0] w_columns;
  wire [${8 * C * L - 1}:0] w_data;
  wire [${R * C - 1}:0] o_lanes;
  wire [${32 * R * C - 1}:0] o_addresses, o_data, o_sums;
  lb1_array array (
    .clk(clk), .clear(clear), .work(work[${engines.indexOf('MM')}]), .head(head_MM), .last(last[${engines.indexOf('MM')}]), .error(error_MM),
    .a_on(a_on), .a_nibbles(a_nibbles), .a_channelwise(a_channelwise), .a_lanes(a_lanes), .a_rows(a_rows), .a_steps(a_steps), .a_data(a_data), .a_more(a_more), .a_high(a_high),
    .w_on(w_on), .w_lanes(w_lanes), .w_channels(w_channels), .w_columns(w_columns), .w_steps(w_steps), .w_data(w_data),
    .o_read(o_read), .o_write(o_write), .o_lanes(o_lanes), .o_addresses(o_addresses), .o_data(o_data), .o_sums(o_sums)
  );
${operand('x')}
${operand('y')}
  wire [${V - 1}:0] records_on, fine_on, coarse_on, z_on;
  wire [${32 * V - 1}:0] records_addresses, fine_addresses, coarse_addresses, fine_data, coarse_data, z_addresses, z_data;
  wire [${128 * V - 1}:0] records_data;
  wire [31:0] fine_bytes, z_bytes;
  wire [1:0] z_memory;
  wire z_nibbles, total_on;
  wire [31:0] total_address, total_data;
  lb1_vector vector (
    .clk(clk), .clear(clear), .work(work[${engines.indexOf('VE')}]), .head(head_VE), .last(last[${engines.indexOf('VE')}]), .error(error_VE),
    .x_on(x_on), .x_memory(x_memory), .x_bytes(x_bytes), .x_addresses(x_addresses), .x_data(x_memory == ${memoryIndex('OBUF')} ? x_from_obuf : x_from_abuf),
    .y_on(y_on), .y_memory(y_memory), .y_bytes(y_bytes), .y_addresses(y_addresses), .y_data(y_memory == ${memoryIndex('OBUF')} ? y_from_obuf : y_from_abuf),
    .records_on(records_on), .records_addresses(records_addresses), .records_data(records_data),
    .fine_on(fine_on), .fine_bytes(fine_bytes), .fine_addresses(fine_addresses), .fine_data(fine_data),
    .coarse_on(coarse_on), .coarse_addresses(coarse_addresses), .coarse_data(coarse_data),
    .total_on(total_on), .total_address(total_address), .total_data(total_data),
    .z_on(z_on), .z_memory(z_memory), .z_bytes(z_bytes), .z_nibbles(z_nibbles), .z_addresses(z_addresses), .z_data(z_data)
  );

  // ---- memories
  lb1_abuf abuf (
    .clk(clk), .x_on(x_memory == ${memoryIndex('ABUF')} ? x_on : ${V}'d0), .x_addresses(x_addresses), .x_bytes(x_bytes), .x_data(x_from_abuf),
    .y_on(y_memory == ${memoryIndex('ABUF')} ? y_on : ${V}'d0), .y_addresses(y_addresses), .y_bytes(y_bytes), .y_data(y_from_abuf),
    .st_on({${B}{store_on && store_memory == ${memoryIndex('ABUF')}}}), .st_addresses(store_addresses), .st_data(store_from_abuf),
    .a_on(a_on), .a_nibbles(a_nibbles), .a_channelwise(a_channelwise), .a_used(w_lanes), .a_lanes(a_lanes), .a_rows(a_rows), .a_steps(a_steps), .a_data(a_data), .a_more(a_more), .a_high(a_high),
    .ld_on(load_memory == ${memoryIndex('ABUF')} ? load_on : ${B}'d0), .ld_addresses(load_addresses), .ld_data(load_data),
${mover('ABUF')},
    .z_on(z_memory == ${memoryIndex('ABUF')} ? z_on : ${V}'d0), .z_addresses(z_addresses), .z_bytes(z_bytes), .z_nibbles(z_nibbles), .z_data(z_data)
  );
  lb1_wbuf wbuf (
    .clk(clk), .w_on(w_on), .w_lanes(w_lanes), .w_channels(w_channels), .w_columns(w_columns), .w_steps(w_steps), .w_data(w_data),
    .ld_on(load_memory == ${memoryIndex('WBUF')} ? load_on : ${B}'d0), .ld_addresses(load_addresses), .ld_data(load_data),
${mover('WBUF')}
  );
  lb1_pbuf pbuf (
    .clk(clk), .records_on(records_on), .records_addresses(records_addresses), .records_data(records_data),
    .fine_on(fine_on), .fine_addresses(fine_addresses), .fine_bytes(fine_bytes), .fine_data(fine_data),
    .coarse_on(coarse_on), .coarse_addresses(coarse_addresses), .coarse_bytes(32'd4), .coarse_data(coarse_data),
    .ld_on(load_memory == ${memoryIndex('PBUF')} ? load_on : ${B}'d0), .ld_addresses(load_addresses), .ld_data(load_data)
  );
  lb1_obuf obuf (
    .clk(clk), .x_on(x_memory == ${memoryIndex('OBUF')} ? x_on : ${V}'d0), .x_addresses(x_addresses), .x_bytes(x_bytes), .x_data(x_from_obuf),
    .y_on(y_memory == ${memoryIndex('OBUF')} ? y_on : ${V}'d0), .y_addresses(y_addresses), .y_bytes(y_bytes), .y_data(y_from_obuf),
    .st_on({${B}{store_on && store_memory == ${memoryIndex('OBUF')}}}), .st_addresses(store_addresses), .st_data(store_from_obuf),
    .o_on(o_read ? o_lanes : ${R * C}'d0), .o_addresses(o_addresses), .o_data(o_data),
    .ld_on(load_memory == ${memoryIndex('OBUF')} ? load_on : ${B}'d0), .ld_addresses(load_addresses), .ld_data(load_data),
    .z_on(z_memory == ${memoryIndex('OBUF')} ? z_on : ${V}'d0), .z_addresses(z_addresses), .z_bytes(z_bytes), .z_nibbles(z_nibbles), .z_data(z_data),
    .total_on(total_on), .total_addresses(total_address), .total_data(total_data),
    .sums_on(o_write ? o_lanes : ${R * C}'d0), .sums_addresses(o_addresses), .sums_data(o_sums)
  );

  // ---- the clock and the end
  reg end_seen;
  always @(posedge clk) begin
    if (clear) begin
      tokens <= 0;
      busy <= 0;
      done <= 0;
      error <= E_NONE;
      error_place <= 0;
      cycles <= 0;
      end_seen <= 0;
    end else if (running) begin
      cycles <= cycles + 1;
      busy <= work & ~last;
      if (ends != 0 || begins != 0) for (i = 0; i < ${E}; i = i + 1) for (j = 0; j < ${E}; j = j + 1)
        tokens[${TOKEN_BITS} * (${E} * i + j) +: ${TOKEN_BITS}] <= tokens[${TOKEN_BITS} * (${E} * i + j) +: ${TOKEN_BITS}]
          + (ends[i] && signals[${E} * i + j] ? ${TOKEN_BITS}'d1 : ${TOKEN_BITS}'d0) - (begins[j] && waits[${E} * j + i] ? ${TOKEN_BITS}'d1 : ${TOKEN_BITS}'d0);
      if (ended) end_seen <= 1;
${engines.map((engine, e) => `\
      if (work[${e}] && error_${engine} != E_NONE) begin
        error <= error_${engine};
        error_place <= place_${engine};
      end`).join('\n')}
      if (error_sequencer != E_NONE) begin
        error <= error_sequencer;
        error_place <= place;
      end else if (overflow) error <= E_SEMAPHORE;
      else if (work == 0 && put == 0 && (finished || stalled)) begin
        if (!(end_seen && valid == 0)) error <= E_DEADLOCK;
        else begin
          cycles <= cycles;
          done <= 1;
          if (tokens != 0) error <= E_SEMAPHORE;
        end
      end
    end
  end
endmodule

${[sequencerText(), queueText(), walkerText(machine), loaderText(machine), storerText(machine), arrayText(machine), vectorText(machine), buffersText(machine)].join('\n')}`;
};
