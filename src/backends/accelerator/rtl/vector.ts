/**
 * VE: `lanes` elements a cycle through three stages. Stage 0 forms addresses, stage 1 multiplies (or looks up, or joins), stage 2 adds,
 * stage 3 shifts, limits and writes. Two passes over a group of elements give two products to one multiplier. What works on rows takes them one
 * by one, in passes:
 *
 *     SMAX   greatest element; exponentials and their sum; the reciprocal; exponentials again and rescaled
 *     EXPS   greatest element; exponentials and their sum, written behind the last
 *     NRM    the reciprocal of the sum; the row rescaled
 *     LNRM   sums of the elements and their squares; the reciprocal root; normalised and rescaled, two products an element
 *
 * A reciprocal takes the sixteen cycles of the cycle model, a root the twenty-four. An element is written three cycles after it is read (four
 * where an exponential is looked up in between), so z may lie on x only where its elements are not larger.
 */
import { EXP_ENTRIES } from '../accesses.ts';
import { elements } from '../isa.ts';
import type { Machine } from '../machine.ts';
import { choiceIndex, coreOpsOf, elementFunctions, errorConstants, fieldWires, instructionBits, memoryIndex, opConstants } from './declaration.ts';
import { addressesText } from './vector-addresses.ts';
import { checksText } from './vector-checks.ts';
import { inverseDeclarations, inverseSteps } from './vector-inverse.ts';

const fields = [
  'xMemory', 'x', 'xElement', 'xPitch', 'yMemory', 'y', 'yElement', 'yPitch', 'zMemory', 'z', 'zElement', 'zPitch', 'n', 'channels', 'par', 'perChannel', 'preShift', 'shift', 'low', 'high',
  'zeroX', 'zeroY', 'mul', 'add', 'lut', 'rows', 'kind', 'columns', 'imageRows', 'imageColumns', 'rowPitch', 'columnPitch', 'firstRow', 'firstColumn', 'rowStride', 'columnStride',
  'tapRows', 'tapColumns', 'rowDilation', 'columnDilation', 'border', 'depth', 'outer', 'reduce', 'inner', 'accumulate', 'count', 'length', 'fine', 'coarse', 'two', 'eShift', 'newton', 'mulOut', 'shiftOut', 'zero',
  'sum', 'masked', 'mask', 'mulLogit', 'addLogit', 'shiftLogit', 'epsilon', 'fraction',
] as const;

const nibblesOf = (element: (typeof elements)[number]): number => Number(element.slice(1)) / 4;
const isAny = (field: string, test: (element: (typeof elements)[number]) => boolean): string => elements.flatMap((element, i) => (test(element) ? [`${field} == ${i}`] : [])).join(' || ') || '1\'b0';

const elementIndex = (element: (typeof elements)[number]): number => elements.indexOf(element);

export const vectorText = (machine: Machine): string => {
  const V = machine.vector.lanes;
  return `\
// The engine VE: ${V} elements at a time.
module lb1_vector (
  input clk, input clear, input work, input [${instructionBits('VE') - 1}:0] head, output last, output reg [7:0] error,
  output [${V - 1}:0] x_on, output [1:0] x_memory, output [31:0] x_bytes, output [${32 * V - 1}:0] x_addresses, input [${32 * V - 1}:0] x_data,
  output [${V - 1}:0] y_on, output [1:0] y_memory, output [31:0] y_bytes, output [${32 * V - 1}:0] y_addresses, input [${32 * V - 1}:0] y_data,
  output [${V - 1}:0] records_on, output [${32 * V - 1}:0] records_addresses, input [${128 * V - 1}:0] records_data,
  output [${V - 1}:0] fine_on, output [31:0] fine_bytes, output reg [${32 * V - 1}:0] fine_addresses, input [${32 * V - 1}:0] fine_data,
  output [${V - 1}:0] coarse_on, output reg [${32 * V - 1}:0] coarse_addresses, input [${32 * V - 1}:0] coarse_data,
  output reg total_on, output reg [31:0] total_address, output reg [31:0] total_data,
  output [${V - 1}:0] z_on, output [1:0] z_memory, output [31:0] z_bytes, output z_nibbles, output [${32 * V - 1}:0] z_addresses, output reg [${32 * V - 1}:0] z_data
);
  localparam V = ${V};
  function signed [63:0] wide(input [31:0] word);
    wide = {{32{word[31]}}, word};
  endfunction
${errorConstants()}
${opConstants('VE')}
${elementFunctions()}
${fieldWires(coreOpsOf('VE'), fields)}
  wire is_rq = op == OP_RQ, is_add2 = op == OP_ADD2, is_mul2 = op == OP_MUL2, is_clip = op == OP_CLIP, is_lut = op == OP_LUT;
  wire is_luti = op == OP_LUTI, is_pool = op == OP_POOL, is_red = op == OP_RED, is_smax = op == OP_SMAX;
  wire is_exps = op == OP_EXPS, is_nrm = op == OP_NRM, is_lnrm = op == OP_LNRM;
  wire by_rows = is_smax || is_exps || is_nrm || is_lnrm;
  // where the instruction does not say: sums, and exponentials of two bytes
  wire [31:0] x_element = is_exps || is_nrm ? ${elementIndex('i32')} : f_xElement;
  wire [31:0] y_element = f_yElement;
  wire [31:0] z_element = is_exps ? ${elementIndex('i16')} : f_zElement;
  wire folding = is_pool || is_red;
  wire twice = is_add2 || is_mul2 || is_luti || (is_lnrm && stage == RESCALE);
  wire recorded = is_rq || is_add2;
  wire greatest = f_kind == ${choiceIndex('RED', 'kind', 'max')};

  // the pass over a row; NRM has no other than the last two
  localparam [1:0] GREATEST = 0, TOTAL = 1, INVERT = 2, RESCALE = 3;
  reg [1:0] stage_kept;
  wire [1:0] stage = is_nrm && stage_kept == GREATEST ? INVERT : stage_kept;
  reg [31:0] row, row_elements, x_row_start;
  reg signed [31:0] top;
  reg top_known;
  reg [31:0] total;
  reg [4:0] inverse;

${addressesText()}
  // ---- rows one by one
  wire row_read = w_left <= V;
  wire issue = work && !issued && !(by_rows && stage == INVERT);
  wire [31:0] row_start = w_left == f_length ? w_x_at : x_row_start;
  wire row_done = issue && last_tap && row_read && (is_exps ? stage == TOTAL : stage == RESCALE);
  wire [V-1:0] on = issue ? lane_on : 0;

  wire takes_y = is_add2 || is_mul2 || (is_red && f_accumulate[0]);
  assign x_on = error == E_NONE ? on & ~lane_border : 0;
  // NRM reads the sum of its row
  wire sum_on = work && !issued && is_nrm && stage == INVERT && inverse == 0;
  assign y_on = error != E_NONE ? 0 : sum_on ? 1 : takes_y && (!is_red || (w_tr == 0)) ? on : 0;
  assign records_on = error == E_NONE && (recorded || is_lnrm || (is_exps && f_masked[0])) ? on : 0;
  assign x_memory = f_xMemory[1:0];
  assign y_memory = is_nrm ? ${memoryIndex('OBUF')} : is_red ? f_zMemory[1:0] : f_yMemory[1:0];
  assign x_bytes = (x_size + 1) >> 1;
  assign y_bytes = is_nrm ? 4 : is_red ? (z_size + 1) >> 1 : (y_size + 1) >> 1;
  assign x_addresses = lane_x;
  wire [31:0] sum_at = (f_sum << 1) + (row << 3);
  assign y_addresses = is_nrm ? ${V === 1 ? 'sum_at' : `{${32 * (V - 1)}'d0, sum_at}`} : lane_y;
  assign records_addresses = lane_record;

  wire group_done = issue && last_tap;
  wire all_done = by_rows ? row_done && row + 1 == f_count : issue && last_tap && row_read;

  // ---- what stages 2 and 3 keep
  reg s2_pass, s2_write, s2_end;
  reg [V-1:0] s2_allowed, s3_allowed;
  reg [1:0] s2_stage;
  reg [V-1:0] s2_on;
  reg [32*V-1:0] s2_z;
  reg [64*V-1:0] adds, sums;
  reg [7*V-1:0] offsets;
  reg [16*V-1:0] knots;
  reg signed [31:0] entry;
  // stage 3, and a stage more of exponentials
  reg s3_write, s3_end, s4_write;
  reg [1:0] s3_stage;
  reg [V-1:0] s3_on, s4_on;
  reg [32*V-1:0] s3_z, s4_z;
  reg [64*V-1:0] results, exponents;
  reg [63:0] exponential;
  reg [31:0] row_total, totals;

  // ---- stage 1
  reg s1_pass, s1_write, s1_first, s1_end;
  reg [1:0] s1_stage;
  reg [V-1:0] s1_on, s1_border;
  reg [32*V-1:0] s1_z, s1_table;
  reg [31:0] value [0:V-1];
  reg signed [31:0] xv, yv, zero_less;
  reg signed [63:0] multiplicand, multiplier;
  reg [64*V-1:0] products;
  reg [32*V-1:0] folded;
  reg signed [31:0] next_top;
  reg known_now;
  reg [V-1:0] allowed;
  reg signed [63:0] row_sum, row_squares, next_sum, next_squares;
  reg [31:0] difference;
  reg too_far;
  wire [31:0] table_size = ${isAny('z_element', (element) => nibblesOf(element) === 4)} ? 2 : 1;
  // exponentials of a lane: addresses of its table entries
  integer s;
  reg signed [63:0] index;
  always @* begin
    fine_addresses = 0;
    coarse_addresses = 0;
    too_far = 0;
    difference = 0;
    index = 0;
    for (s = 0; s < V; s = s + 1) if (is_exps) begin
      if (s2_on[s]) begin
        index = $signed(products[64 * s +: 64] + f_addLogit) >>> f_shiftLogit[5:0];
        fine_addresses[32 * s +: 32] = f_lut + (index < 0 ? 0 : index > ${EXP_ENTRIES - 1} ? ${2 * (EXP_ENTRIES - 1)} : index[31:0] << 1);
      end
    end else if (s1_on[s]) begin
      if (is_lut) fine_addresses[32 * s +: 32] = f_lut + ((s1_table[32 * s +: 32] << 8) + extended(x_data[32 * s +: 32], x_element) + (${isAny('x_element', (element) => element.startsWith('i'))} ? 128 : 0)) * table_size;
      else if (is_luti) fine_addresses[32 * s +: 32] = f_lut + ((((extended(x_data[32 * s +: 32], x_element) + 32768) >> 7) + (s1_pass ? 1 : 0)) << 1);
      else if (is_smax) begin
        difference = top - extended(x_data[32 * s +: 32], x_element);
        if (f_two[0]) begin
          fine_addresses[32 * s +: 32] = f_fine + {22'd0, difference[7:0], 2'd0};
          coarse_addresses[32 * s +: 32] = f_coarse + {22'd0, difference[15:8], 2'd0};
        end else fine_addresses[32 * s +: 32] = f_fine + {22'd0, difference[7:0], 2'd0};
        if (s1_stage != GREATEST && (f_two[0] ? difference[31:16] != 0 : difference[31:8] != 0)) too_far = 1;
      end
    end
  end
  wire looks_up = is_lut || is_luti || (is_smax && s1_stage != GREATEST);
  assign fine_on = error != E_NONE ? 0 : is_exps ? s2_allowed : looks_up ? s1_on : 0;
  assign fine_bytes = is_smax ? 4 : is_luti || is_exps ? 2 : table_size;
  assign coarse_on = is_smax && f_two[0] && s1_stage != GREATEST && error == E_NONE ? s1_on : 0;

${inverseDeclarations()}
  integer l;
  always @(posedge clk) begin
    // stage 0 → 1
    s1_on <= on;
    s1_border <= lane_border;
    s1_pass <= pass;
    s1_first <= folding ? w_tr == 0 && (is_red || w_tq == 0) : 1;
    s1_write <= last_tap && (!by_rows || stage == (is_exps ? TOTAL : RESCALE));
    s1_end <= row_done;
    s1_stage <= stage;
    s1_z <= lane_z;
    s1_table <= lane_table;

    // stage 1 → 2
    s2_on <= s1_on;
    s2_pass <= s1_pass;
    s2_write <= s1_write;
    s2_end <= s1_end;
    s2_stage <= s1_stage;
    s2_z <= s1_z;
    next_top = top;
    known_now = top_known;
    next_sum = row_sum;
    next_squares = row_squares;
    for (l = 0; l < V; l = l + 1) allowed[l] = s1_on[l] && (!is_exps || !f_masked[0] || records_data[128 * l +: 8] != 0);
    s2_allowed <= allowed;
    if (s1_on != 0) for (l = 0; l < V; l = l + 1) if (s1_on[l]) begin
      // outside the image the greatest element is none
      xv = s1_border[l] ? (greatest ? 32'h80000000 : f_border) : extended(x_data[32 * l +: 32], x_element);
      yv = extended(y_data[32 * l +: 32], is_red ? z_element : f_yElement);
      if (folding) begin
        zero_less = !s1_first ? folded[32 * l +: 32] : is_red && f_accumulate[0] ? yv : greatest ? 32'h80000000 : 0;
        folded[32 * l +: 32] <= !greatest ? zero_less + xv : xv > zero_less ? xv : zero_less;
      end else if (is_smax || (is_exps && s1_stage == GREATEST)) begin
        if (allowed[l] && (!known_now || xv > next_top)) begin
          next_top = xv;
          known_now = 1;
        end
      end else if (is_lnrm && s1_stage == GREATEST) begin
        next_sum = next_sum + wide(xv);
        next_squares = next_squares + wide(xv) * wide(xv);
      end else begin
        multiplicand = wide(xv);
        multiplier = 1;
        if (is_exps) begin
          multiplicand = wide(top) - wide(xv);
          multiplier = {32'd0, f_mulLogit};
        end else if (is_nrm) multiplier = {32'd0, row_mul};
        else if (is_lnrm) begin
          if (s1_pass) begin
            multiplicand = $signed(products[64 * l +: 64] + (64'd1 << (row_drop[5:0] - 6'd1))) >>> row_drop[5:0];
            zero_less = records_data[128 * l +: 32];
            multiplier = wide(zero_less);
          end else begin
            multiplicand = $signed({32'd0, f_length}) * wide(xv) - row_sum;
            multiplier = {32'd0, y};
          end
        end
        if (is_rq) begin
          zero_less = xv << f_preShift[4:0];
          multiplicand = wide(zero_less);
          zero_less = records_data[128 * l +: 32];
          multiplier = wide(zero_less);
        end else if (is_add2) begin
          multiplicand = s1_pass ? wide(yv) : wide(xv);
          zero_less = s1_pass ? records_data[128 * l + 32 +: 32] : records_data[128 * l +: 32];
          multiplier = wide(zero_less);
        end else if (is_mul2) begin
          if (s1_pass) begin
            zero_less = products[64 * l +: 32];
            multiplicand = wide(zero_less);
            multiplier = {32'd0, f_mul};
          end else begin
            multiplicand = wide(xv) - wide(f_zeroX);
            multiplier = wide(yv) - wide(f_zeroY);
          end
        end
        products[64 * l +: 64] <= multiplicand * multiplier;
        adds[64 * l +: 64] <= recorded || is_lnrm ? records_data[128 * l + 64 +: 64] : is_mul2 ? f_add : is_nrm ? 64'd1 << (row_shift[5:0] - 6'd1) : 64'd0;
        offsets[7 * l +: 7] <= xv[6:0];
      end
    end
    if (s1_on != 0 && (is_smax || is_exps) && s1_stage == GREATEST) begin
      top <= next_top;
      top_known <= known_now;
    end
    row_sum <= next_sum;
    row_squares <= next_squares;

    // stage 2 → 3
    s3_on <= s2_on;
    s3_write <= s2_write;
    s3_end <= s2_end;
    s3_allowed <= s2_allowed;
    s3_stage <= s2_stage;
    s3_z <= s2_z;
    if (s2_on != 0) for (l = 0; l < V; l = l + 1) if (s2_on[l]) begin
      if (folding) results[64 * l +: 64] <= wide(folded[32 * l +: 32]);
      else if (is_lut) begin
        entry = extended(fine_data[32 * l +: 32], ${elements.includes('i4' as never) ? `z_element == ${elements.indexOf('i4' as never)} ? ${elements.indexOf('i8')} : z_element == ${elements.indexOf('u4' as never)} ? ${elements.indexOf('u8')} : ` : ''}z_element);
        results[64 * l +: 64] <= wide(entry);
      end else if (is_luti) begin
        entry = {{16{fine_data[32 * l + 15]}}, fine_data[32 * l +: 16]};
        if (!s2_pass) knots[16 * l +: 16] <= fine_data[32 * l +: 16];
        zero_less = {{16{knots[16 * l + 15]}}, knots[16 * l +: 16]};
        entry = zero_less + (((entry - zero_less) * $signed({25'd0, offsets[7 * l +: 7]}) + 64) >>> 7);
        results[64 * l +: 64] <= wide(entry);
      end else if (is_smax) begin
        exponents[64 * l +: 64] <= f_two[0] ? wide(fine_data[32 * l +: 32]) * wide(coarse_data[32 * l +: 32]) : wide(fine_data[32 * l +: 32]);
      end else begin
        if (is_add2 && !s2_pass) sums[64 * l +: 64] <= products[64 * l +: 64] + adds[64 * l +: 64];
        results[64 * l +: 64] <= products[64 * l +: 64] + (is_add2 ? sums[64 * l +: 64] : adds[64 * l +: 64]);
      end
    end

    // stage 3 of exponentials
    s4_write <= 0;
    s4_on <= s3_on;
    s4_z <= s3_z;
    row_total = total;
    if (is_smax && s3_on != 0 && s3_stage != GREATEST) for (l = 0; l < V; l = l + 1) if (s3_on[l]) begin
      exponential = exponents[64 * l +: 64];
      if (f_two[0]) exponential = $signed(exponential + 64'd536870912) >>> 30;
      exponential = $signed(exponential) >>> f_eShift[4:0];
      if (s3_stage == TOTAL) row_total = row_total + exponential[31:0];
      else results[64 * l +: 64] <= exponential * {32'd0, row_mul} + (64'd1 << (row_shift[5:0] - 6'd1));
    end
    if (is_exps && s3_on != 0 && s3_stage == TOTAL) for (l = 0; l < V; l = l + 1) begin
      exponential = s3_allowed[l] ? {{48{fine_data[32 * l + 15]}}, fine_data[32 * l +: 16]} : 64'd0;
      exponential = $signed(exponential) >>> f_eShift[4:0];
      if (s3_on[l]) begin
        results[64 * l +: 64] <= exponential;
        row_total = row_total + exponential[31:0];
      end
    end
    if (s3_on != 0 && (is_smax ? s3_stage == RESCALE : is_exps)) s4_write <= s3_write;
    total <= is_exps && s3_on != 0 && s3_end ? 32'd0 : row_total;
    total_on <= is_exps && s3_on != 0 && s3_end && error == E_NONE;
    total_data <= row_total;
    total_address <= f_sum + (totals << 2);
    if (is_exps && s3_on != 0 && s3_end) totals <= totals + 1;

    // issue
    if (clear || last) begin
      placed <= 0;
      issued <= 0;
      tapped <= 0;
      pass <= 0;
      waited <= 0;
      stage_kept <= GREATEST;
      row <= 0;
      row_elements <= 0;
      total <= 0;
      totals <= 0;
      row_sum <= 0;
      row_squares <= 0;
      top_known <= 0;
      inverse <= 0;
      if (clear) begin
        total_on <= 0;
        s1_on <= 0;
        s2_on <= 0;
        s3_on <= 0;
        s4_on <= 0;
      end
    end else if (work) begin
      if (issued) waited <= waited + 1;
      if (issue) begin
        pass <= twice && !pass;
        if (folding && !last_tap) begin
          tapped <= 1;
          if (is_red || w_tq + 1 == f_tapColumns) begin
            tr <= w_tr + 1;
            tq <= 0;
            dx <= 0;
            dy <= w_dy + $signed(f_rowDilation);
            tap_row <= w_tap_row + $signed(is_red ? fold_step : f_rowDilation * f_rowPitch);
            tap_at <= w_tap_row + $signed(is_red ? fold_step : f_rowDilation * f_rowPitch);
          end else begin
            tr <= w_tr;
            tq <= w_tq + 1;
            dy <= w_dy;
            dx <= w_dx + $signed(f_columnDilation);
            tap_row <= w_tap_row;
            tap_at <= w_tap_at + $signed(f_columnDilation) * $signed(f_columnPitch);
          end
        end
        if (group_done) begin
          placed <= 1;
          tapped <= 0;
          left <= w_left - V;
          channel <= by_rows && row_read ? 0 : c_channel;
          row_elements <= row_done ? w_row_elements + f_length : w_row_elements;
          table_row <= c_table_row;
          x_at <= n_x_at; x_row <= n_x_row;
          y_at <= n_y_at; y_row <= n_y_row;
          z_at <= by_rows && stage != (is_exps ? TOTAL : RESCALE) ? w_z_at : n_z_at;
          z_row <= n_z_row;
          pj <= n_pj; pc <= n_pc; ri <= n_ri;
          py <= n_py; px <= n_px; p_row <= n_p_row; p_at <= n_p_at;
          if (by_rows) begin
            x_row_start <= row_start;
            if (row_read) begin
              left <= f_length;
              if (row_done) begin
                stage_kept <= is_nrm ? INVERT : GREATEST;
                row <= row + 1;
                if (!is_exps) total <= 0;
                row_sum <= 0;
                row_squares <= 0;
                top_known <= 0;
              end else begin
                x_at <= row_start;
                stage_kept <= is_lnrm ? INVERT : stage + 1;
              end
              inverse <= 0;
            end
          end
        end
        if (all_done) issued <= 1;
      end
${inverseSteps()}
    end
  end

  // ---- the last stage
  wire late = is_smax || is_exps;
  wire [V-1:0] done_on = late ? (s4_write ? s4_on : 0) : s3_write ? s3_on : 0;
  reg signed [63:0] shifted;
  integer f;
  wire [5:0] shift = is_rq || is_add2 || is_mul2 || is_lnrm ? f_shift[5:0] : is_smax || is_nrm ? row_shift[5:0] : 6'd0;
  wire limited = recorded || is_mul2 || is_clip || is_smax || is_nrm || is_lnrm;
  always @* begin
    z_data = 0;
    shifted = 0;
    for (f = 0; f < V; f = f + 1) if (done_on[f]) begin
      shifted = $signed(results[64 * f +: 64]) >>> shift;
      if (is_smax || is_nrm) shifted = shifted + wide(f_zero);
      if (limited && shifted < wide(f_low)) shifted = wide(f_low);
      else if (limited && shifted > wide(f_high)) shifted = wide(f_high);
      z_data[32 * f +: 32] = shifted[31:0];
    end
  end
  assign z_on = error == E_NONE ? done_on : 0;
  assign z_memory = f_zMemory[1:0];
  assign z_addresses = late ? s4_z : s3_z;
  assign z_nibbles = z_size == 1;
  assign z_bytes = (z_size + 1) >> 1;
  assign last = work && issued && waited == ${machine.vector.start - 1};

${checksText(machine)}
endmodule
`;
};
