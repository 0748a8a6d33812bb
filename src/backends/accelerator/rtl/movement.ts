/**
 * LD and ST: boxes of bytes, beat by beat, between the chip and the outside or (MV) between two places on chip. A walker stands on one side of a box and says where the bytes of the next beat lie; the loader
 * asks with one walker and stores answers with another, so it works with a memory of any latency. A beat carries as many bytes as the
 * cycle model counts (`cycles.ts`): `chunk` of a row, a row being one run, or all runs of the inner dimension where these are contiguous outside.
 */
import { coreOpsOf, errorConstants, fieldWires, elementFunctions, instructionBits, opConstants } from './declaration.ts';
import { chipMemories } from '../isa.ts';
import type { Machine } from '../machine.ts';

const memoryConstants = chipMemories.map((name, i) => `localparam [1:0] ${name} = ${i};`).join('\n');
const sizeFunction = ({ memories }: Machine): string => `\
function [31:0] size_of(input [31:0] memory);
  case (memory[1:0])
${chipMemories.map((name) => `    ${name}: size_of = ${memories[name]};`).join('\n')}
  endcase
endfunction`;

/** Runs that meet different banks of a byte, times the run: the bytes of a beat. */
const chunkFunction = (bytes: number): string => `\
// bytes of a beat whose runs lie \`stride\` apart: those in different banks of a byte, at most ${bytes}
function [31:0] chunk_of(input [31:0] run, input [31:0] stride);
  reg [31:0] shared, together, many;
  begin
    shared = ${bytes};
${Array.from({ length: Math.log2(bytes) }, (_, bit) => Math.log2(bytes) - 1 - bit).map((bit) => `    if (stride[${bit}]) shared = ${2 ** bit};`).join('\n')}
    together = 1;
${Array.from({ length: Math.log2(bytes) + 1 }, (_, bit) => `    if (shared == ${2 ** bit} && run <= ${2 ** bit}) together = ${bytes / 2 ** bit};`).join('\n')}
    many = together * run;
    chunk_of = run >= ${bytes} || many >= ${bytes} ? ${bytes} : many;
  end
endfunction`;

export const walkerText = ({ dma: { bytesPerCycle: bytes } }: Machine): string => `\
// One side of a box: the byte addresses of the next beat.
module lb1_walker (
  input clk, input clear, input run_walk, input step,
  input signed [39:0] base, input [31:0] run, input [31:0] n0, input [31:0] n1, input [31:0] n2,
  input signed [39:0] s0, input signed [39:0] s1, input signed [39:0] s2,
  input joined, input [31:0] chunk,
  output reg [${bytes * 40 - 1}:0] addresses, output reg [31:0] count, output reg closing
);
  localparam B = ${bytes};
  reg loaded;
  reg [31:0] i0, i1, i2, offset, left;
  reg signed [39:0] a0, a1, a2;
  // where the walk stands: at the beginning of the box until the first step
  wire [31:0] row_length = joined ? n2 * run : run;
  wire [31:0] w_left = loaded ? left : row_length;
  wire [31:0] w_offset = loaded ? offset : 0;
  wire [31:0] w_i2 = loaded ? i2 : 0;
  wire [31:0] w_i1 = loaded ? i1 : 0;
  wire [31:0] w_i0 = loaded ? i0 : 0;
  wire signed [39:0] w_a2 = loaded ? a2 : base;
  wire signed [39:0] w_a1 = loaded ? a1 : base;
  wire signed [39:0] w_a0 = loaded ? a0 : base;
  reg [31:0] c_offset, c_i2;
  reg signed [39:0] c_a2;
  integer b;
  always @* begin
    count = w_left < chunk ? w_left : chunk;
    c_offset = w_offset;
    c_i2 = w_i2;
    c_a2 = w_a2;
    addresses = 0;
    for (b = 0; b < B; b = b + 1) if (b < count) begin
      addresses[40 * b +: 40] = c_a2 + $signed({8'd0, c_offset});
      c_offset = c_offset + 1;
      if (c_offset == run) begin
        c_offset = 0;
        c_i2 = c_i2 + 1;
        c_a2 = c_a2 + s2;
      end
    end
    closing = w_left <= chunk && c_i2 == n2 && w_i1 + 1 == n1 && w_i0 + 1 == n0;
  end
  always @(posedge clk) begin
    if (clear) loaded <= 0;
    else if (run_walk && step) begin
      loaded <= !closing;
      left <= w_left > chunk ? w_left - chunk : row_length;
      offset <= c_offset;
      i2 <= c_i2;
      a2 <= c_a2;
      i1 <= w_i1;
      a1 <= w_a1;
      i0 <= w_i0;
      a0 <= w_a0;
      if (w_left <= chunk && c_i2 == n2) begin
        i2 <= 0;
        if (w_i1 + 1 == n1) begin
          i1 <= 0;
          i0 <= w_i0 + 1;
          a0 <= w_a0 + s0;
          a1 <= w_a0 + s0;
          a2 <= w_a0 + s0;
        end else begin
          i1 <= w_i1 + 1;
          a1 <= w_a1 + s1;
          a2 <= w_a1 + s1;
        end
      end
    end
  end
endmodule
`;

const boxFields = ['memory', 'chip', 'run', 'n0', 'n1', 'n2', 'far', 'f0', 'f1', 'f2', 'c0', 'c1', 'c2'] as const;
const signed40 = (name: string): string => `{{8{f_${name}[31]}}, f_${name}}`;
const plain40 = (name: string): string => `{8'd0, f_${name}}`;

/**
 * The walker of one side of the box in flight, with the wires of its name: addresses outside have signed strides, those on chip do not. With
 * `mayMove` the side `chip` is the source of MV too (signed strides), and `far` its target (strides without sign).
 */
const walker = (machine: Machine, instance: string, side: 'far' | 'chip', step: string, mayMove = false): string => {
  const own = (n: number): string => (side === 'far' ? signed40(`f${n}`) : plain40(`c${n}`));
  const stride = (n: number): string => (mayMove ? `moves ? ${side === 'far' ? plain40(`d${n}`) : signed40(`s${n}`)} : ${own(n)}` : own(n));
  const base = mayMove ? `moves ? ${plain40(side === 'far' ? 'to' : 'from')} : ${plain40(side)}` : plain40(side);
  return `  wire [${40 * machine.dma.bytesPerCycle - 1}:0] ${side};
  wire [31:0] ${side}_count;
  wire ${side}_final;
  lb1_walker ${instance} (
    .clk(clk), .clear(clear), .run_walk(work && boxed), .step(${step}), .base(${base}), .run(f_run), .n0(f_n0), .n1(f_n1), .n2(f_n2),
    .s0(${stride(0)}), .s1(${stride(1)}), .s2(${stride(2)}), .joined(joined), .chunk(chunk), .addresses(${side}), .count(${side}_count), .closing(${side}_final)
  );`;
};
const badBox = 'f_run == 0 || f_n0 == 0 || f_n1 == 0 || f_n2 == 0';

export const loaderText = (machine: Machine): string => `\
// The engine LD: boxes from outside, and runs of one value.
module lb1_loader (
  input clk, input clear, input work, input [${instructionBits('LD') - 1}:0] head, output last, output reg [7:0] error,
  input [31:0] outside_bytes,
  output read_valid, output [31:0] read_address, output [31:0] read_count, input read_ready, input [${8 * machine.dma.bytesPerCycle - 1}:0] read_data,
  output [${machine.dma.bytesPerCycle - 1}:0] write_on, output [1:0] write_memory, output reg [${32 * machine.dma.bytesPerCycle - 1}:0] write_addresses, output reg [${8 * machine.dma.bytesPerCycle - 1}:0] write_data
);
  localparam B = ${machine.dma.bytesPerCycle};
${errorConstants()}
${memoryConstants}
${opConstants('LD')}
${elementFunctions()}
${sizeFunction(machine)}
${chunkFunction(machine.dma.bytesPerCycle)}
${fieldWires(coreOpsOf('LD'), [...boxFields, 'element', 'count', 'value'])}
  wire boxed = op == OP_LD;
  wire joined = f_f2 == f_run;
  wire [31:0] chunk = joined && f_n2 != 1 && f_c2 != f_run ? chunk_of(f_run, f_c2) : B;

  // requests
  reg asked;
${walker(machine, 'asking', 'far', 'read_valid')}
  assign read_valid = work && boxed && !asked;
  assign read_address = far[31:0];
  assign read_count = far_count;
  // answers
${walker(machine, 'storing', 'chip', 'read_ready')}
  // a run of one value
  reg [31:0] filled;
  wire [31:0] size = nibbles_of(f_element);
  wire [31:0] total = (f_count * size + 1) >> 1;
  wire [63:0] pattern = size == 1 ? {16{f_value[3:0]}} : size == 2 ? {8{f_value[7:0]}} : size == 4 ? {4{f_value[15:0]}} : {2{f_value}};
  wire [31:0] rest = total - filled;
  wire [31:0] bytes = boxed ? chip_count : rest < B ? rest : B;
  wire writing = boxed ? read_ready : work;
  assign last = work && (boxed ? read_ready && chip_final : rest <= B);
  assign write_memory = f_memory[1:0];
  reg [B-1:0] held;
  reg [31:0] at;
  integer b;
  always @* begin
    write_addresses = 0;
    write_data = read_data;
    error = E_NONE;
    held = 0;
    at = 0;
    if (work) begin
      for (b = 0; b < B; b = b + 1) begin
        at = boxed ? chip[40 * b +: 32] : f_chip + filled + b;
        write_addresses[32 * b +: 32] = at;
        if (!boxed) write_data[8 * b +: 8] = pattern[8 * ((filled + b) & 7) +: 8];
        if (writing && b < bytes) begin
          held[b] = 1;
          if (at >= size_of(f_memory) || (boxed && chip[40 * b + 32 +: 8] != 0)) error = E_CHIP;
        end
      end
      if (read_valid && (far[39:32] != 0 || far[31:0] > outside_bytes || outside_bytes - far[31:0] < far_count)) error = E_OUTSIDE;
      if (boxed ? ${badBox} : f_count == 0) error = E_FIELD;
      if (!boxed && (f_chip & ((size >> 1) - 1)) != 0 && size > 2) error = E_MISALIGNED;
    end
  end
  assign write_on = error == E_NONE ? held : 0;
  always @(posedge clk) begin
    if (clear || last) begin
      asked <= 0;
      filled <= 0;
    end else if (work) begin
      if (read_valid && far_final) asked <= 1;
      if (!boxed) filled <= filled + B;
    end
  end
endmodule
`;

export const storerText = (machine: Machine): string => `\
// The engine ST: boxes to the outside or to another place on chip, and END.
module lb1_storer (
  input clk, input clear, input work, input [${instructionBits('ST') - 1}:0] head, output last, output reg [7:0] error, output ends,
  input [31:0] outside_bytes,
  output read_on, output [1:0] read_memory, output reg [${32 * machine.dma.bytesPerCycle - 1}:0] read_addresses, input [${8 * machine.dma.bytesPerCycle - 1}:0] read_data,
  output reg write_valid, output reg [31:0] write_address, output reg [31:0] write_count, output [${8 * machine.dma.bytesPerCycle - 1}:0] write_data, input write_done,
  output reg [${machine.dma.bytesPerCycle - 1}:0] move_on, output reg [1:0] move_memory, output reg [${32 * machine.dma.bytesPerCycle - 1}:0] move_addresses
);
  localparam B = ${machine.dma.bytesPerCycle};
${errorConstants()}
${memoryConstants}
${opConstants('ST')}
${sizeFunction(machine)}
${chunkFunction(machine.dma.bytesPerCycle)}
${fieldWires(coreOpsOf('ST'), [...boxFields, 'fromMemory', 'from', 'toMemory', 'to', 's0', 's1', 's2', 'd0', 'd1', 'd2'])}
  wire moves = op == OP_MV;
  wire boxed = op == OP_ST || moves;
  assign ends = work && op == OP_END;
  // both sides: on chip, and outside or on chip too
  wire [31:0] near_step = moves ? f_s2 : f_c2;
  wire [31:0] chunk_near = chunk_of(f_run, near_step);
  wire [31:0] chunk_far = chunk_of(f_run, f_d2);
  wire dense = moves ? f_s2 == f_run && f_d2 == f_run : f_c2 == f_run;
  // runs that are shorter than a beat go several at a time as far as they meet different banks, on both sides
  wire joined = moves ? dense || f_run < B : f_f2 == f_run;
  wire [31:0] chunk = !joined || dense || (!moves && f_n2 == 1) ? B : moves && chunk_far < chunk_near ? chunk_far : chunk_near;
  reg issued;
  reg [31:0] pending, waited;
  wire issue = work && boxed && !issued;
${walker(machine, 'reading', 'chip', 'issue', true)}
${walker(machine, 'writing', 'far', 'issue', true)}
  assign read_memory = moves ? f_fromMemory[1:0] : f_memory[1:0];
  assign read_on = issue && error == E_NONE;
  assign write_data = read_data;
  assign last = ends || (work && boxed && issued && (moves ? waited == ${machine.vector.start - 1} : write_done && pending == 1));
  reg [31:0] at;
  integer b;
  always @* begin
    error = E_NONE;
    read_addresses = 0;
    at = 0;
    if (issue) begin
      for (b = 0; b < B; b = b + 1) begin
        at = chip[40 * b +: 32];
        // a lane without a byte reads address 0
        read_addresses[32 * b +: 32] = at;
        if (b < chip_count && (at >= size_of(moves ? f_fromMemory : f_memory) || chip[40 * b + 32 +: 8] != 0)) error = E_CHIP;
        if (moves && b < far_count && (far[40 * b +: 32] >= size_of(f_toMemory) || far[40 * b + 32 +: 8] != 0)) error = E_CHIP;
      end
      if (!moves) if (far[39:32] != 0 || far[31:0] > outside_bytes || outside_bytes - far[31:0] < far_count) error = E_OUTSIDE;
      if (read_memory == WBUF || read_memory == PBUF || (moves && (f_toMemory[1:0] == PBUF || f_toMemory[1:0] == OBUF))) error = E_UNSUPPORTED;
      if (${badBox}) error = E_FIELD;
    end
  end
  always @(posedge clk) begin
    write_valid <= 0;
    move_on <= 0;
    if (clear) begin
      issued <= 0;
      pending <= 0;
      waited <= 0;
    end else if (work && boxed) begin
      pending <= moves ? 0 : pending + (issue ? 1 : 0) - (write_done ? 1 : 0);
      waited <= issued && !last ? waited + 1 : 0;
      if (last) issued <= 0;
      else if (issue && chip_final) issued <= 1;
      write_valid <= read_on && !moves;
      if (read_on && moves) for (b = 0; b < B; b = b + 1) begin
        move_on[b] <= b < far_count;
        move_addresses[32 * b +: 32] <= far[40 * b +: 32];
      end
      move_memory <= f_toMemory[1:0];
      write_address <= far[31:0];
      write_count <= far_count;
    end
  end
endmodule
`;
