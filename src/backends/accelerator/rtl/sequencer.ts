/**
 * The sequencer: one word of the program a cycle, checked, collected into instructions and given to the queue of its engine. It stops at a
 * full queue; as every wait points back in the program, the engines then still make room. The checksum is taken on the way and compared
 * after the last word.
 */
import { formats, OP_BITS, WORD_BITS } from '../encode.ts';
import { engines, isa } from '../isa.ts';
import { coreOps, decoderFunctions, errorConstants } from './declaration.ts';

/** Instructions that wait in the queue of an engine. The cycle model counts with queues that never fill; with 16, programs of many small tiles lose several per cent. */
export const QUEUE_DEPTH = 32;
const POINTER_BITS = Math.log2(QUEUE_DEPTH);

export const queueText = (): string => `\
// Instructions on their way to an engine; the oldest stands in \`head\` until \`take\`.
module lb1_queue #(parameter BITS = 128) (
  input clk, input clear, input put, input [BITS-1:0] entry, input take, output [BITS-1:0] head, output valid, output full
);
  reg [BITS-1:0] entries [0:${QUEUE_DEPTH - 1}];
  reg [${POINTER_BITS - 1}:0] first, next;
  reg [${POINTER_BITS}:0] count;
  assign head = entries[first];
  assign valid = count != 0;
  assign full = count == ${QUEUE_DEPTH};
  always @(posedge clk) begin
    if (clear) begin
      first <= 0;
      next <= 0;
      count <= 0;
    end else begin
      if (put) begin
        entries[next] <= entry;
        next <= next + 1;
      end
      if (take) first <= first + 1;
      count <= count + (put ? 1 : 0) - (take ? 1 : 0);
    end
  end
endmodule
`;

const longest = WORD_BITS * Math.max(...coreOps.map((op) => formats[op].words));

export const sequencerText = (): string => `\
// Reads the program: a word each cycle while \`program_read\`, which comes a cycle later and stays until the next.
module lb1_sequencer (
  input clk, input clear, input go,
  output program_read, output [31:0] program_address, input [${WORD_BITS - 1}:0] program_data,
  output [${engines.length - 1}:0] put, output [${longest - 1}:0] instruction, output [31:0] place, input [${engines.length - 1}:0] full,
  output stalled, output finished, output reg [7:0] error
);
${errorConstants()}
${decoderFunctions()}
  function [31:0] checksum(input [31:0] start, input [${WORD_BITS - 1}:0] word);
    integer bit_;
    reg [31:0] rest;
    begin
      rest = start;
      for (bit_ = 0; bit_ < ${WORD_BITS}; bit_ = bit_ + 1) rest = (rest >> 1) ^ (rest[0] ^ word[bit_] ? 32'hedb88320 : 0);
      checksum = rest;
    end
  endfunction
  reg asked, headed, ended;
  // \`address\`: the word that comes next; words are counted from the header
  reg [31:0] address, total, expected, rest;
  reg [2:0] have;
  reg [${longest - 1}:0] words;
  wire [${OP_BITS - 1}:0] code = have == 0 ? program_data[${OP_BITS - 1}:0] : words[${OP_BITS - 1}:0];
  wire [2:0] need = words_of(code);
  wire arrived = asked && headed;
  wire complete = arrived && have + 1 == need;
  wire [1:0] engine = engine_of(code);
  wire blocked = complete && full[engine];
  reg [${longest - 1}:0] collected;
  integer w;
  always @* begin
    collected = words;
    for (w = 0; w < ${longest / WORD_BITS}; w = w + 1) if ({29'd0, have} == w) collected[${WORD_BITS} * w +: ${WORD_BITS}] = program_data;
  end
  assign instruction = collected;
  assign place = address - {29'd0, need} - 1;
  wire sound = error == E_NONE;
  assign put = complete && !blocked && sound ? ${engines.length}'d1 << engine : 0;
  assign stalled = blocked;
  wire over = headed && address == total + 1;
  wire read_on = go && sound && !blocked && !(headed && address > total);
  assign program_read = read_on;
  assign program_address = address;
  assign finished = ended;
  wire [31:0] sum_now = checksum(rest, program_data);
  always @* begin
    error = E_NONE;
    if (asked && !headed && (program_data[31:0] != 32'h0031424c || program_data[63:32] == 0 || program_data[127:96] != 0)) error = E_HEADER;
    if (arrived) begin
      if (need == 0) error = known(code) ? E_UNSUPPORTED : E_OPCODE;
      else if (malformed(code, have, program_data)) error = E_OPCODE;
      else if (complete && (code == ${isa.END.code}) != over) error = E_PROGRAM;
      else if (over && !complete) error = E_PROGRAM;
      else if (over && ~sum_now != expected) error = E_CHECKSUM;
    end
  end
  always @(posedge clk) begin
    if (clear) begin
      asked <= 0;
      headed <= 0;
      ended <= 0;
      address <= 0;
      have <= 0;
      rest <= 32'hffffffff;
    end else if (go && sound && !blocked) begin
      asked <= read_on;
      if (read_on) address <= address + 1;
      if (asked && !headed) begin
        headed <= 1;
        total <= program_data[63:32];
        expected <= program_data[95:64];
      end
      if (arrived) begin
        rest <= sum_now;
        if (complete) have <= 0;
        else begin
          have <= have + 1;
          words <= collected;
        end
        if (over) ended <= 1;
      end
    end
  end
endmodule
`;
