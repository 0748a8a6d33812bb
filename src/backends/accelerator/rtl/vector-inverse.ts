/**
 * The reciprocals of VE: of the total of a row, and of the root of its spread. Both are normalised, looked up, and refined by Newton steps, one
 * action a cycle, with the numbers of `numerics/reciprocal.ts` and `numerics/rsqrt.ts`.
 */
import { reciprocalSeeds } from '../../../numerics/reciprocal.ts';
import { rsqrtSeeds } from '../../../numerics/rsqrt.ts';

/** Cycles of a row beyond its passes, for the reciprocal of a sum and for a reciprocal root. */
const RECIPROCAL_CYCLES = 16;
const ROOT_CYCLES = 24;
/** The first seed of a reciprocal root belongs to this part of its range. */
const FIRST_ROOT = 64;

export const inverseDeclarations = (): string => `\
  // ---- the reciprocal of the total: normalised, a seed, Newton steps, and the factor of the row
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
  // ---- the reciprocal root of the spread of a row: normalised by an even number of bits, a seed, Newton steps
  reg signed [63:0] spread;
  reg [5:0] root_bits; // half of the bits of the spread, rounded up
  reg [32:0] root_square;
  reg signed [31:0] row_drop;
  function [31:0] root_seed(input [7:0] part);
    case (part)
${Array.from(rsqrtSeeds, (seed, i) => `      8'd${FIRST_ROOT + i}: root_seed = 32'd${seed};`).join('\n')}
      default: root_seed = 0;
    endcase
  endfunction
  function [6:0] bits_of(input [63:0] word);
    integer z;
    begin
      bits_of = 0;
      for (z = 0; z < 64; z = z + 1) if (word[z]) bits_of = z[6:0] + 7'd1;
    end
  endfunction
  wire [6:0] spread_bits = bits_of(spread) + 7'd1;
  wire [63:0] squared = {32'd0, y} * {32'd0, y};
  wire [64:0] narrowed = {32'd0, root_square} * {33'd0, divisor};
  wire [63:0] improved = {32'd0, y} * {32'd0, 32'hc0000000 - root_square[31:0]};
  wire [63:0] spread_at = root_bits <= 16 ? spread << (6'd32 - (root_bits << 1)) : spread >> ((root_bits << 1) - 6'd32);

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
`;

/** What a cycle of the pass INVERT does; part of the clocked block. */
export const inverseSteps = (): string => `\
      if (by_rows && !issued && stage == INVERT) begin
        inverse <= inverse + 1;
        if (is_lnrm) case (inverse)
          0, 1: ; // the last elements are on their way to the sums
          2: spread <= $signed({32'd0, f_length}) * row_squares - row_sum * row_sum + f_epsilon;
          3: root_bits <= spread_bits[6:1];
          4: divisor <= spread_at[31:0];
          5: y <= root_seed(divisor[31:24]);
          6, 9: root_square <= squared[62:30];
          7, 10: root_square <= narrowed[64:32];
          8: if (f_newton[1:0] != 0) y <= improved[62:31];
          11: if (f_newton[1:0] == 2) y <= improved[62:31];
          12: row_drop <= 30 + $signed({26'd0, root_bits}) - $signed(f_fraction);
          ${ROOT_CYCLES - 1}: stage_kept <= RESCALE;
          default: ;
        endcase else case (inverse)
          // the last exponentials are on their way to the total, or the total of NRM comes
          0, 2: ;
          1: if (is_nrm) total <= y_data[31:0];
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
          ${RECIPROCAL_CYCLES - 1}: stage_kept <= RESCALE;
          default: ;
        endcase
      end`;
