/** What VE holds its instruction to: every element within its memory and aligned, fields and shifts in their ranges, divisors above 0. */
import { EXP_ENTRIES } from '../accesses.ts';
import { elements } from '../isa.ts';
import type { Machine } from '../machine.ts';
import { memoryIndex } from './declaration.ts';

export const checksText = ({ memories: { ABUF, PBUF, OBUF } }: Machine): string => `\
  // ---- what must hold
  function [31:0] end_of(input [31:0] memory);
    end_of = memory == ${memoryIndex('ABUF')} ? ${2 * ABUF} : ${2 * OBUF};
  endfunction
  function misplaced(input [31:0] memory);
    misplaced = memory != ${memoryIndex('ABUF')} && memory != ${memoryIndex('OBUF')};
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
          if ((recorded || is_lnrm) && lane_record[32 * e +: 32] > ${PBUF - 16}) outside = 1;
          if (is_exps && f_masked[0] && lane_record[32 * e +: 32] > ${PBUF - 1}) outside = 1;
        end
        if (s1_on[e] && looks_up && (fine_addresses[32 * e +: 32] > ${PBUF} - fine_bytes || (is_smax && f_two[0] && coarse_addresses[32 * e +: 32] > ${PBUF - 4}))) outside = 1;
      end
      if ((is_exps || is_nrm) && (f_sum > ${OBUF} || (f_count << 2) > ${OBUF} - f_sum)) outside = 1;
      if (is_exps && f_lut > ${PBUF - 2 * EXP_ENTRIES}) outside = 1;
      if (outside || too_far) error = E_CHIP;
      if (crooked || ((recorded || is_lnrm) && f_par[1:0] != 0) || (is_exps && f_lut[0]) || ((is_exps || is_nrm) && f_sum[1:0] != 0) || (is_lut && table_size == 2 && f_lut[0]) || (is_luti && f_lut[0]) || (is_smax && (f_fine[1:0] != 0 || (f_two[0] && f_coarse[1:0] != 0)))) error = E_MISALIGNED;
      if ((is_rq || is_lnrm) && (f_shift < 32 || f_shift > 62)) error = E_SHIFT;
      if (is_exps && (f_shiftLogit < 1 || f_shiftLogit > 62)) error = E_SHIFT;
      if (is_lnrm && stage == RESCALE && (row_drop < 1 || row_drop > 62)) error = E_SHIFT;
      if (is_lnrm && stage == INVERT && inverse == 3 && spread < 1) error = E_DIVISION;
      if ((is_add2 || is_mul2) && (f_shift < 1 || f_shift > 62)) error = E_SHIFT;
      if ((is_smax || is_nrm) && stage == RESCALE && (row_shift < 1 || row_shift > 62)) error = E_SHIFT;
      if ((is_smax || is_nrm) && stage == INVERT && inverse == 3 && total == 0) error = E_DIVISION;
      if ((recorded || is_lut) && f_channels == 0) error = E_FIELD;
      if (is_lut && (x_size > 2 || z_size > 4 || f_rows == 0)) error = E_FIELD;
      if (is_luti && x_element != ${elements.indexOf('i16')}) error = E_FIELD;
      if (by_rows && (f_newton > 2 || f_count == 0)) error = E_FIELD;
      if (length == 0 || (is_pool && (f_tapRows == 0 || f_tapColumns == 0)) || (is_red && f_reduce == 0)) error = E_FIELD;
      if (misplaced(f_xMemory) || misplaced(f_zMemory) || (takes_y && !is_red && misplaced(f_yMemory))) error = E_UNSUPPORTED;
    end
  end`;
