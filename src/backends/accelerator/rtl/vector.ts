/**
 * VE: `lanes` elements a cycle through three stages. Stage 0 forms addresses, stage 1 multiplies (or looks up, or joins), stage 2 adds,
 * stage 3 shifts, limits and writes. Two passes over a group of elements give two products to one multiplier. Softmax takes its rows one by
 * one: greatest element, exponentials and their sum, reciprocal, exponentials again and rescaled; the reciprocal's cycles are the sixteen of
 * the cycle model. An element is written three cycles after it is read, so z may lie on x only where its elements are not larger.
 */
import { reciprocalSeeds } from '../../../numerics/reciprocal.ts';
import { chipMemories, elements } from '../isa.ts';
import type { Machine } from '../machine.ts';
import { choiceIndex, coreOpsOf, elementFunctions, errorConstants, fieldWires, instructionBits, opConstants } from './declaration.ts';

const fields = [
  'xMemory', 'x', 'xElement', 'xPitch', 'yMemory', 'y', 'yElement', 'yPitch', 'zMemory', 'z', 'zElement', 'zPitch', 'n', 'channels', 'par', 'perChannel', 'preShift', 'shift', 'low', 'high',
  'zeroX', 'zeroY', 'mul', 'add', 'lut', 'rows', 'kind', 'columns', 'imageRows', 'imageColumns', 'rowPitch', 'columnPitch', 'firstRow', 'firstColumn', 'rowStride', 'columnStride',
  'tapRows', 'tapColumns', 'rowDilation', 'columnDilation', 'border', 'depth', 'outer', 'reduce', 'inner', 'accumulate', 'count', 'length', 'fine', 'coarse', 'two', 'eShift', 'newton', 'mulOut', 'shiftOut', 'zero',
] as const;

/** Cycles of a row of softmax beyond three passes. */
const RECIPROCAL_CYCLES = 16;
const nibblesOf = (element: (typeof elements)[number]): number => Number(element.slice(1)) / 4;
const isAny = (field: string, test: (element: (typeof elements)[number]) => boolean): string => elements.flatMap((element, i) => (test(element) ? [`${field} == ${i}`] : [])).join(' || ') || '1\'b0';

export const vectorText = (machine: Machine): string => {
  const V = machine.vector.lanes;
  const { ABUF, PBUF, OBUF } = machine.memories;
  const index = (name: (typeof chipMemories)[number]): number => chipMemories.indexOf(name);
  const operand = (name: 'x' | 'y' | 'z'): string => `\
  reg [31:0] ${name}_at, ${name}_row;
  wire [31:0] w_${name}_at = placed ? ${name}_at : f_${name} << 1;
  wire [31:0] w_${name}_row = placed ? ${name}_row : f_${name} << 1;
  wire [31:0] ${name}_size = nibbles_of(f_${name}Element);
  reg [31:0] n_${name}_at, n_${name}_row;
  reg [32*V-1:0] lane_${name};`;
  const step = (name: 'x' | 'y' | 'z'): string => `\
          if (c_channel == 0 && f_${name}Pitch != 0) begin
            n_${name}_row = n_${name}_row + (f_${name}Pitch << 1);
            n_${name}_at = n_${name}_row;
          end else n_${name}_at = n_${name}_at + ${name}_size;`;
  return `\
// The engine VE: ${V} elements at a time.
module lb1_vector (
  input clk, input clear, input work, input [${instructionBits('VE') - 1}:0] head, output last, output reg [7:0] error,
  output [${V - 1}:0] x_on, output [1:0] x_memory, output [31:0] x_bytes, output [${32 * V - 1}:0] x_addresses, input [${32 * V - 1}:0] x_data,
  output [${V - 1}:0] y_on, output [1:0] y_memory, output [31:0] y_bytes, output [${32 * V - 1}:0] y_addresses, input [${32 * V - 1}:0] y_data,
  output [${V - 1}:0] records_on, output [${32 * V - 1}:0] records_addresses, input [${128 * V - 1}:0] records_data,
  output [${V - 1}:0] fine_on, output [31:0] fine_bytes, output reg [${32 * V - 1}:0] fine_addresses, input [${32 * V - 1}:0] fine_data,
  output [${V - 1}:0] coarse_on, output reg [${32 * V - 1}:0] coarse_addresses, input [${32 * V - 1}:0] coarse_data,
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
  wire folding = is_pool || is_red;
  wire twice = is_add2 || is_mul2 || is_luti;
  wire recorded = is_rq || is_add2;
  wire greatest = f_kind == ${choiceIndex('RED', 'kind', 'max')};

  // ---- stage 0: which elements, and where they lie; addresses count nibbles
  reg placed;
  reg issued; // nothing is left to begin
  reg [31:0] left, channel, table_row, waited;
  reg pass;
  wire [31:0] length = is_smax ? f_length : is_pool ? f_rows * f_columns * f_depth : is_red ? f_outer * f_inner : f_n;
  wire [31:0] w_left = placed ? left : length;
  wire [31:0] w_channel = placed ? channel : 0;
  wire [31:0] w_table_row = placed ? table_row : 0;
${(['x', 'y', 'z'] as const).map(operand).join('\n')}
  reg [31:0] c_channel, c_table_row;
  reg [V-1:0] lane_on, lane_border;
  reg [32*V-1:0] lane_record, lane_table;
  // of windows: output (pi, pj, pc), the image position and address under its first tap; of folds along an axis: inner index, address
  reg [31:0] pj, pc, ri;
  reg signed [31:0] py, px, p_row, p_at;
  reg [31:0] w_pj, w_pc, w_ri;
  reg signed [31:0] w_py, w_px, w_p_row, w_p_at;
  reg [31:0] n_pj, n_pc, n_ri;
  reg signed [31:0] n_py, n_px, n_p_row, n_p_at;
  // taps
  reg tapped;
  reg [31:0] tr, tq;
  reg signed [31:0] dy, dx, tap_row, tap_at;
  wire [31:0] w_tr = tapped ? tr : 0;
  wire [31:0] w_tq = tapped ? tq : 0;
  wire signed [31:0] w_dy = tapped ? dy : 0;
  wire signed [31:0] w_dx = tapped ? dx : 0;
  wire signed [31:0] w_tap_row = tapped ? tap_row : 0;
  wire signed [31:0] w_tap_at = tapped ? tap_at : 0;
  wire signed [31:0] origin = $signed(f_x) + $signed(f_firstRow) * $signed(f_rowPitch) + $signed(f_firstColumn) * $signed(f_columnPitch);
  wire signed [31:0] row_step = f_rowStride * f_rowPitch;
  wire signed [31:0] column_step = f_columnStride * f_columnPitch;
  wire [31:0] fold_step = f_inner * x_size;
  wire [31:0] outer_step = f_reduce * fold_step;
  wire last_tap = is_pool ? w_tq + 1 == f_tapColumns && w_tr + 1 == f_tapRows : is_red ? w_tr + 1 == f_reduce : !twice || pass;
  reg signed [31:0] iy, ix;
  integer a;
  always @* begin
    n_x_at = w_x_at; n_x_row = w_x_row;
    n_y_at = w_y_at; n_y_row = w_y_row;
    n_z_at = w_z_at; n_z_row = w_z_row;
    c_channel = w_channel;
    c_table_row = w_table_row;
    lane_on = 0; lane_border = 0; lane_record = 0; lane_table = 0;
    lane_x = 0; lane_y = 0; lane_z = 0;
    w_pj = placed ? pj : 0;
    w_pc = placed ? pc : 0;
    w_ri = placed ? ri : 0;
    w_py = placed ? py : $signed(f_firstRow);
    w_px = placed ? px : $signed(f_firstColumn);
    w_p_row = placed ? p_row : is_pool ? origin : $signed(f_x << 1);
    w_p_at = placed ? p_at : is_pool ? origin : $signed(f_x << 1);
    n_pj = w_pj; n_pc = w_pc; n_ri = w_ri;
    n_py = w_py; n_px = w_px; n_p_row = w_p_row; n_p_at = w_p_at;
    iy = 0; ix = 0;
    if (work && !issued) for (a = 0; a < V; a = a + 1) if (a < w_left) begin
      lane_on[a] = 1;
      lane_z[32 * a +: 32] = n_z_at;
      lane_y[32 * a +: 32] = is_red ? n_z_at : n_y_at;
      if (is_pool) begin
        iy = n_py + w_dy;
        ix = n_px + w_dx;
        if (iy < 0 || ix < 0 || iy >= $signed(f_imageRows) || ix >= $signed(f_imageColumns)) lane_border[a] = 1;
        lane_x[32 * a +: 32] = ((n_p_at + w_tap_at) << 1) + n_pc * x_size;
        n_z_at = n_z_at + z_size;
        n_pc = n_pc + 1;
        if (n_pc == f_depth) begin
          n_pc = 0;
          n_pj = n_pj + 1;
          n_px = n_px + $signed(f_columnStride);
          n_p_at = n_p_at + column_step;
          if (n_pj == f_columns) begin
            n_pj = 0;
            n_px = $signed(f_firstColumn);
            n_py = n_py + $signed(f_rowStride);
            n_p_row = n_p_row + row_step;
            n_p_at = n_p_row;
          end
        end
      end else if (is_red) begin
        lane_x[32 * a +: 32] = n_p_at + w_tap_at;
        n_z_at = n_z_at + z_size;
        n_ri = n_ri + 1;
        n_p_at = n_p_at + $signed(x_size);
        if (n_ri == f_inner) begin
          n_ri = 0;
          n_p_row = n_p_row + $signed(outer_step);
          n_p_at = n_p_row;
        end
      end else begin
        lane_x[32 * a +: 32] = n_x_at;
        lane_record[32 * a +: 32] = f_par + (f_perChannel[0] ? c_channel << 4 : 0);
        lane_table[32 * a +: 32] = c_table_row;
        c_channel = c_channel + 1;
        c_table_row = c_table_row + 1 == f_rows ? 0 : c_table_row + 1;
        if ((recorded || is_lut) && c_channel == f_channels) begin
          c_channel = 0;
          c_table_row = 0;
        end
${(['x', 'y', 'z'] as const).map((name) => step(name)).join('\n')}
      end
    end
  end

  // ---- softmax: rows one by one
  localparam [1:0] GREATEST = 0, TOTAL = 1, INVERT = 2, RESCALE = 3;
  reg [1:0] stage;
  reg [31:0] row, row_wait, x_row_start;
  reg signed [31:0] top;
  reg top_known;
  reg [31:0] total;
  wire row_read = w_left <= V;
  wire issue = work && !issued && !(is_smax && (stage == INVERT || (stage == RESCALE && row_wait != 0)));
  wire [V-1:0] on = issue ? lane_on : 0;

  wire takes_y = is_add2 || is_mul2 || (is_red && f_accumulate[0]);
  assign x_on = error == E_NONE ? on & ~lane_border : 0;
  assign y_on = error == E_NONE && takes_y && (!is_red || (w_tr == 0)) ? on : 0;
  assign records_on = error == E_NONE && recorded ? on : 0;
  assign x_memory = f_xMemory[1:0];
  assign y_memory = is_red ? f_zMemory[1:0] : f_yMemory[1:0];
  assign x_bytes = (x_size + 1) >> 1;
  assign y_bytes = is_red ? (z_size + 1) >> 1 : (y_size + 1) >> 1;
  assign x_addresses = lane_x;
  assign y_addresses = lane_y;
  assign records_addresses = lane_record;

  wire group_done = issue && (is_smax || last_tap);
  wire all_done = issue && last_tap && row_read && (!is_smax || (stage == RESCALE && row + 1 == f_count));

  // ---- stage 1
  reg s1_pass, s1_write, s1_first;
  reg [1:0] s1_stage;
  reg [V-1:0] s1_on, s1_border;
  reg [32*V-1:0] s1_z, s1_table;
  reg [31:0] value [0:V-1];
  reg signed [31:0] xv, yv, zero_less;
  reg signed [63:0] multiplicand, multiplier;
  reg [64*V-1:0] products;
  reg [32*V-1:0] folded;
  reg signed [31:0] next_top;
  reg [31:0] difference;
  reg too_far;
  wire [31:0] table_size = ${isAny('f_zElement', (element) => nibblesOf(element) === 4)} ? 2 : 1;
  // exponentials of a lane: addresses of its table entries
  integer s;
  reg signed [31:0] top_now;
  always @* begin
    fine_addresses = 0;
    coarse_addresses = 0;
    too_far = 0;
    difference = 0;
    for (s = 0; s < V; s = s + 1) if (s1_on[s]) begin
      if (is_lut) fine_addresses[32 * s +: 32] = f_lut + ((s1_table[32 * s +: 32] << 8) + extended(x_data[32 * s +: 32], f_xElement) + (${isAny('f_xElement', (element) => element.startsWith('i'))} ? 128 : 0)) * table_size;
      else if (is_luti) fine_addresses[32 * s +: 32] = f_lut + ((((extended(x_data[32 * s +: 32], f_xElement) + 32768) >> 7) + (s1_pass ? 1 : 0)) << 1);
      else if (is_smax) begin
        difference = top - extended(x_data[32 * s +: 32], f_xElement);
        if (f_two[0]) begin
          fine_addresses[32 * s +: 32] = f_fine + {22'd0, difference[7:0], 2'd0};
          coarse_addresses[32 * s +: 32] = f_coarse + {22'd0, difference[15:8], 2'd0};
        end else fine_addresses[32 * s +: 32] = f_fine + {22'd0, difference[7:0], 2'd0};
        if (s1_stage != GREATEST && (f_two[0] ? difference[31:16] != 0 : difference[31:8] != 0)) too_far = 1;
      end
    end
  end
  wire looks_up = is_lut || is_luti || (is_smax && s1_stage != GREATEST);
  assign fine_on = looks_up && error == E_NONE ? s1_on : 0;
  assign fine_bytes = is_smax ? 4 : is_luti ? 2 : table_size;
  assign coarse_on = is_smax && f_two[0] && s1_stage != GREATEST && error == E_NONE ? s1_on : 0;

  // ---- stage 2
  reg s2_pass, s2_write;
  reg [1:0] s2_stage;
  reg [V-1:0] s2_on;
  reg [32*V-1:0] s2_z;
  reg [64*V-1:0] adds, sums;
  reg [7*V-1:0] offsets;
  reg [16*V-1:0] knots;
  reg signed [31:0] entry;
  // ---- stage 3, and a stage more of softmax
  reg s3_write, s4_write;
  reg [1:0] s3_stage;
  reg [V-1:0] s3_on, s4_on;
  reg [32*V-1:0] s3_z, s4_z;
  reg [64*V-1:0] results, exponents;
  reg [63:0] exponential;
  reg [31:0] row_total;

  // ---- the reciprocal of the total: normalised, a seed, Newton steps, and the factor of the row
  reg [3:0] inverse;
  reg [5:0] zeros;
  reg [31:0] divisor, y;
  reg [32:0] correction;
  reg [31:0] row_mul;
  reg signed [31:0] row_shift;
  function [31:0] seed_of(input [7:0] part);
    case (part)
${Array.from(reciprocalSeeds, (seed, i) => `      8'd${i}: seed_of = 32'd${seed};`).join('\n')}
    endcase
  endfunction
  function [5:0] zeros_of(input [31:0] word);
    integer z;
    begin
      zeros_of = 32;
      for (z = 0; z < 32; z = z + 1) if (word[z]) zeros_of = 6'd31 - z[5:0];
    end
  endfunction
  wire [64:0] corrected = {32'd0, correction} * {33'd0, y};
  wire [63:0] divided = {32'd0, divisor} * {32'd0, y};
  wire [63:0] scaled = {32'd0, y} * {32'd0, f_mulOut};

  integer l;
  always @(posedge clk) begin
    // stage 0 → 1
    s1_on <= on;
    s1_border <= lane_border;
    s1_pass <= pass;
    s1_first <= folding ? w_tr == 0 && (is_red || w_tq == 0) : 1;
    s1_write <= is_smax ? stage == RESCALE : last_tap;
    s1_stage <= stage;
    s1_z <= lane_z;
    s1_table <= lane_table;

    // stage 1 → 2
    s2_on <= s1_on;
    s2_pass <= s1_pass;
    s2_write <= s1_write;
    s2_stage <= s1_stage;
    s2_z <= s1_z;
    next_top = top;
    if (s1_on != 0) for (l = 0; l < V; l = l + 1) if (s1_on[l]) begin
      // outside the image the greatest element is none
      xv = s1_border[l] ? (greatest ? 32'h80000000 : f_border) : extended(x_data[32 * l +: 32], f_xElement);
      yv = extended(y_data[32 * l +: 32], is_red ? f_zElement : f_yElement);
      if (folding) begin
        zero_less = !s1_first ? folded[32 * l +: 32] : is_red && f_accumulate[0] ? yv : greatest ? 32'h80000000 : 0;
        folded[32 * l +: 32] <= !greatest ? zero_less + xv : xv > zero_less ? xv : zero_less;
      end else if (is_smax) begin
        if (l == 0 && !top_known) next_top = xv;
        else if (xv > next_top) next_top = xv;
      end else begin
        multiplicand = wide(xv);
        multiplier = 1;
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
        adds[64 * l +: 64] <= recorded ? records_data[128 * l + 64 +: 64] : is_mul2 ? f_add : 64'd0;
        offsets[7 * l +: 7] <= xv[6:0];
      end
    end
    if (s1_on != 0 && is_smax && s1_stage == GREATEST) begin
      top <= next_top;
      top_known <= 1;
    end

    // stage 2 → 3
    s3_on <= s2_on;
    s3_write <= s2_write;
    s3_stage <= s2_stage;
    s3_z <= s2_z;
    if (s2_on != 0) for (l = 0; l < V; l = l + 1) if (s2_on[l]) begin
      if (folding) results[64 * l +: 64] <= wide(folded[32 * l +: 32]);
      else if (is_lut) begin
        entry = extended(fine_data[32 * l +: 32], ${elements.includes('i4' as never) ? `f_zElement == ${elements.indexOf('i4' as never)} ? ${elements.indexOf('i8')} : f_zElement == ${elements.indexOf('u4' as never)} ? ${elements.indexOf('u8')} : ` : ''}f_zElement);
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

    // stage 3 of softmax
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
    if (is_smax && s3_stage == RESCALE) s4_write <= s3_write && s3_on != 0;
    total <= row_total;

    // issue
    if (clear || last) begin
      placed <= 0;
      issued <= 0;
      tapped <= 0;
      pass <= 0;
      waited <= 0;
      stage <= GREATEST;
      row <= 0;
      row_wait <= 0;
      total <= 0;
      top_known <= 0;
      inverse <= 0;
      if (clear) begin
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
          channel <= c_channel;
          table_row <= c_table_row;
          x_at <= n_x_at; x_row <= n_x_row;
          y_at <= n_y_at; y_row <= n_y_row;
          z_at <= is_smax && stage != RESCALE ? w_z_at : n_z_at;
          z_row <= n_z_row;
          pj <= n_pj; pc <= n_pc; ri <= n_ri;
          py <= n_py; px <= n_px; p_row <= n_p_row; p_at <= n_p_at;
          if (is_smax) begin
            if (!placed || (stage == GREATEST && w_left == f_length)) x_row_start <= w_x_at;
            if (row_read) begin
              left <= f_length;
              if (stage == GREATEST) begin
                stage <= TOTAL;
                x_at <= w_left == f_length ? w_x_at : x_row_start;
              end else if (stage == TOTAL) begin
                stage <= INVERT;
                inverse <= 0;
                x_at <= x_row_start;
              end else begin
                // the next row begins when the sixteen cycles are over
                stage <= GREATEST;
                row <= row + 1;
                total <= 0;
                top_known <= 0;
              end
            end
          end
        end
        if (all_done) issued <= 1;
      end
      if (is_smax && stage == INVERT) begin
        inverse <= inverse + 1;
        case (inverse)
          0, 1, 2: ; // the last exponentials are on their way to the total
          3: begin
            zeros <= zeros_of(total);
            divisor <= total << zeros_of(total);
          end
          4: y <= seed_of(divisor[30:23]);
          5, 7: correction <= 33'h100000000 - {1'b0, divided[62:31]};
          6: if (f_newton[1:0] != 0) y <= corrected[62:31];
          8: if (f_newton[1:0] == 2) y <= corrected[62:31];
          9: begin
            row_mul <= scaled[62:31];
            row_shift <= $signed(f_shiftOut) + 31 - $signed({26'd0, zeros});
          end
          ${RECIPROCAL_CYCLES - 1}: stage <= RESCALE;
          default: ;
        endcase
      end
    end
  end

  // ---- the last stage
  wire [V-1:0] done_on = is_smax ? (s4_write ? s4_on : 0) : s3_write ? s3_on : 0;
  reg signed [63:0] shifted;
  integer f;
  wire [5:0] shift = is_rq || is_add2 || is_mul2 ? f_shift[5:0] : is_smax ? row_shift[5:0] : 6'd0;
  wire limited = recorded || is_mul2 || is_clip || is_smax;
  always @* begin
    z_data = 0;
    shifted = 0;
    for (f = 0; f < V; f = f + 1) if (done_on[f]) begin
      shifted = $signed(results[64 * f +: 64]) >>> shift;
      if (is_smax) shifted = shifted + wide(f_zero);
      if (limited && shifted < wide(f_low)) shifted = wide(f_low);
      else if (limited && shifted > wide(f_high)) shifted = wide(f_high);
      z_data[32 * f +: 32] = shifted[31:0];
    end
  end
  assign z_on = error == E_NONE ? done_on : 0;
  assign z_memory = f_zMemory[1:0];
  assign z_addresses = is_smax ? s4_z : s3_z;
  assign z_nibbles = z_size == 1;
  assign z_bytes = (z_size + 1) >> 1;
  assign last = work && issued && waited == ${machine.vector.start - 1};

  // ---- what must hold
  function [31:0] end_of(input [31:0] memory);
    end_of = memory == ${index('ABUF')} ? ${2 * ABUF} : ${2 * OBUF};
  endfunction
  function misplaced(input [31:0] memory);
    misplaced = memory != ${index('ABUF')} && memory != ${index('OBUF')};
  endfunction
  reg outside, crooked;
  integer e;
  always @* begin
    error = E_NONE;
    outside = 0;
    crooked = 0;
    if (work) begin
      for (e = 0; e < V; e = e + 1) begin
        if (on[e] && !lane_border[e]) begin
          if (lane_x[32 * e +: 32] > end_of(f_xMemory) - x_size) outside = 1;
          if ((lane_x[32 * e +: 32] & (x_size - 1)) != 0) crooked = 1;
        end
        if (on[e] && takes_y) begin
          if (lane_y[32 * e +: 32] > end_of(is_red ? f_zMemory : f_yMemory) - (is_red ? z_size : y_size)) outside = 1;
          if ((lane_y[32 * e +: 32] & ((is_red ? z_size : y_size) - 1)) != 0) crooked = 1;
        end
        if (on[e]) begin
          if (lane_z[32 * e +: 32] > end_of(f_zMemory) - z_size) outside = 1;
          if ((lane_z[32 * e +: 32] & (z_size - 1)) != 0) crooked = 1;
          if (recorded && lane_record[32 * e +: 32] > ${PBUF - 16}) outside = 1;
        end
        if (s1_on[e] && looks_up && (fine_addresses[32 * e +: 32] > ${PBUF} - fine_bytes || (is_smax && f_two[0] && coarse_addresses[32 * e +: 32] > ${PBUF - 4}))) outside = 1;
      end
      if (outside || too_far) error = E_CHIP;
      if (crooked || (recorded && f_par[1:0] != 0) || (is_lut && table_size == 2 && f_lut[0]) || (is_luti && f_lut[0]) || (is_smax && (f_fine[1:0] != 0 || (f_two[0] && f_coarse[1:0] != 0)))) error = E_MISALIGNED;
      if (is_rq && (f_shift < 32 || f_shift > 62)) error = E_SHIFT;
      if ((is_add2 || is_mul2) && (f_shift < 1 || f_shift > 62)) error = E_SHIFT;
      if (is_smax && stage == RESCALE && (row_shift < 1 || row_shift > 62)) error = E_SHIFT;
      if (is_smax && stage == INVERT && inverse == 3 && total == 0) error = E_DIVISION;
      if ((recorded || is_lut) && f_channels == 0) error = E_FIELD;
      if (is_lut && (x_size > 2 || z_size > 4 || f_rows == 0)) error = E_FIELD;
      if (is_luti && f_xElement != ${elements.indexOf('i16')}) error = E_FIELD;
      if (is_smax && (f_newton > 2 || f_count == 0)) error = E_FIELD;
      if (length == 0 || (is_pool && (f_tapRows == 0 || f_tapColumns == 0)) || (is_red && f_reduce == 0)) error = E_FIELD;
      if (misplaced(f_xMemory) || misplaced(f_zMemory) || (takes_y && !is_red && misplaced(f_yMemory))) error = E_UNSUPPORTED;
    end
  end
endmodule
`;
};
