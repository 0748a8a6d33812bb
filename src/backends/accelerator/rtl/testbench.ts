/** A test bench for one program: memories with the latency of the description, the files of the folder, cycles and errors on the screen. */
import { WORD_BITS } from '../encode.ts';
import type { MemoryFile } from '../files.ts';
import type { Machine } from '../machine.ts';
import { coreErrors } from './declaration.ts';

/** What the bench needs of `memory.json`. */
export type Placed = Pick<MemoryFile, 'bytes' | 'blobs' | 'inputs' | 'outputs'>;

const WORD_BYTES = WORD_BITS / 8;
const padded = (i: number): string => String(i).padStart(3, '0');
/** Cycles without an end after which the bench gives up; a run may say `+limit=`. */
const MOST_CYCLES = 100_000_000;

export const testbenchText = ({ dma: { bytesPerCycle: B, latency } }: Machine, memory: Placed, programBytes: number): string => {
  const load = (folder: string, file: string, address: number, bytes: number): string[] => (bytes === 0 ? [] : [`    load({${folder}, "${file}"}, ${address}, ${bytes});`]);
  const outputBytes = Math.max(...memory.outputs.map(({ bytes }) => bytes));
  return `\
// Runs the program beside this folder on lb1_core:
//   +folder=../          where program.bin, weights.bin, params.bin and luts.bin lie
//   +inputs=../golden/   where input-000.bin, … lie
//   +outputs=./          where output-000.bin, … are written
//   +limit=N             cycles after which it gives up
\`timescale 1ns / 1ps
module lb1_tb;
  localparam B = ${B}, LATENCY = ${latency}, BYTES = ${memory.bytes}, PROGRAM = ${programBytes};
  reg clk = 0, clear = 1, go = 0;
  wire program_read, read_valid, write_valid, write_done, done;
  wire [31:0] program_address, read_address, read_count, write_address, write_count, error_place, cycles;
  wire [7:0] error;
  wire [8*B-1:0] write_data;
  reg [${WORD_BITS - 1}:0] program_data = 0;
  reg [8*B-1:0] read_data = 0;
  reg read_ready = 0;
  lb1_core core (
    .clk(clk), .clear(clear), .go(go), .outside_bytes(BYTES), .program_read(program_read), .program_address(program_address), .program_data(program_data),
    .read_valid(read_valid), .read_address(read_address), .read_count(read_count), .read_ready(read_ready), .read_data(read_data),
    .write_valid(write_valid), .write_address(write_address), .write_count(write_count), .write_data(write_data), .write_done(write_done),
    .done(done), .error(error), .error_place(error_place), .cycles(cycles)
  );
  always #5 clk = ~clk;

  // ---- the program and the memory outside; an answer comes LATENCY cycles after its request, counted from the read on chip for writes
  reg [7:0] code [0:PROGRAM-1];
  reg [7:0] outside [0:BYTES-1];
  reg [LATENCY-1:0] waiting = 0;
  reg [31:0] asked [0:LATENCY-1];
  reg [31:0] turn = 0, due = 0, place = 0;
  integer b;
  always @(posedge clk) begin
    if (program_read) for (b = 0; b < ${WORD_BYTES}; b = b + 1) begin
      place = ${WORD_BYTES} * program_address + b;
      program_data[8 * b +: 8] <= place < PROGRAM ? code[place] : 8'd0;
    end
    waiting[turn] = read_valid;
    asked[turn] = read_address;
    due = turn + 1 == LATENCY ? 0 : turn + 1;
    read_ready <= waiting[due];
    if (waiting[due]) for (b = 0; b < B; b = b + 1) begin
      place = asked[due] + b;
      if (place < BYTES) read_data[8 * b +: 8] <= outside[place];
    end
    turn = due;
    if (write_valid) for (b = 0; b < B; b = b + 1) if (b < write_count) begin
      place = write_address + b;
      outside[place] = write_data[8 * b +: 8];
    end
  end
${latency === 1 ? '  assign write_done = write_valid;' : `\
  reg [${latency - 2}:0] writing = 0;
  assign write_done = writing[${latency - 2}];
  always @(posedge clk) writing <= ${latency === 2 ? 'write_valid' : `{writing[${latency - 3}:0], write_valid}`};`}

  // ---- files
  reg [8*512-1:0] folder, inputs, outputs;
  reg [7:0] expected [0:${Math.max(1, outputBytes) - 1}];
  reg [31:0] limit;
  integer file, got, wrong, at;
  task open(input [8*560-1:0] name, input [15:0] mode);
    begin
      file = $fopen(name, mode);
      if (file == 0) begin
        $display("cannot open %0s", name);
        $finish;
      end
    end
  endtask
  task load(input [8*560-1:0] name, input integer start, input integer count);
    begin
      open(name, "rb");
      if (file != 0) begin
        got = $fread(outside, file, start, count);
        $fclose(file);
        if (got != count) $display("%0s has %0d bytes, not %0d", name, got, count);
      end
    end
  endtask
  task compare(input [8*560-1:0] name, input integer start, input integer count);
    begin
      file = $fopen(name, "rb");
      if (file != 0) begin
        got = $fread(expected, file, 0, count);
        $fclose(file);
        wrong = 0;
        for (at = 0; at < count; at = at + 1) if (expected[at] !== outside[start + at]) wrong = wrong + 1;
        if (wrong == 0 && got == count) $display("equal %0s", name);
        else $display("different %0s: %0d of %0d bytes", name, wrong, count);
      end
    end
  endtask
  task save(input [8*560-1:0] name, input integer start, input integer count);
    begin
      open(name, "wb");
      if (file != 0) begin
        for (at = 0; at < count; at = at + 1) $fwrite(file, "%c", outside[start + at]);
        $fclose(file);
      end
    end
  endtask

  initial begin
    if (!$value$plusargs("folder=%s", folder)) folder = "../";
    if (!$value$plusargs("inputs=%s", inputs)) inputs = "../golden/";
    if (!$value$plusargs("outputs=%s", outputs)) outputs = "./";
    if (!$value$plusargs("limit=%d", limit)) limit = ${MOST_CYCLES};
    for (at = 0; at < BYTES; at = at + 1) outside[at] = 0;
    open({folder, "program.bin"}, "rb");
    if (file != 0) begin
      got = $fread(code, file);
      $fclose(file);
    end
${[...memory.blobs.flatMap(({ file, address, bytes }) => load('folder', file, address, bytes)), ...memory.inputs.flatMap(({ address, bytes }, i) => load('inputs', `input-${padded(i)}.bin`, address, bytes))].join('\n')}
    @(posedge clk);
    @(posedge clk);
    clear <= 0;
    go <= 1;
    @(posedge clk);
    while (!done && error == 0 && cycles < limit) @(posedge clk);
    $display("cycles %0d", cycles);
    case (error)
${coreErrors.map(([name, meaning], i) => `      ${i}: $display("error ${i} ${name}: ${meaning.replaceAll('"', "'")}");`).join('\n')}
      default: $display("error %0d", error);
    endcase
    if (error != 0) $display("place %0d", error_place);
    else if (!done) $display("gave up");
    else begin
${memory.outputs.map(({ address, bytes }, i) => `\
      compare({inputs, "output-${padded(i)}.bin"}, ${address}, ${bytes});
      save({outputs, "output-${padded(i)}.bin"}, ${address}, ${bytes});`).join('\n')}
    end
    $finish;
  end
endmodule
`;
};
