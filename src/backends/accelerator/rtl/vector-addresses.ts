/**
 * Stage 0 of VE: which elements a cycle takes, and where they lie. Operands walk through memory in rows of `channels` elements, windows by
 * the taps of each output, folds along an axis by the elements that are folded. Addresses count nibbles, so that elements of 4 bits have one.
 */
const operand = (name: 'x' | 'y' | 'z'): string => `\
  reg [31:0] ${name}_at, ${name}_row;
  wire [31:0] w_${name}_at = placed ? ${name}_at : f_${name} << 1;
  wire [31:0] w_${name}_row = placed ? ${name}_row : f_${name} << 1;
  wire [31:0] ${name}_size = nibbles_of(${name}_element);
  reg [31:0] n_${name}_at, n_${name}_row;
  reg [32*V-1:0] lane_${name};`;
const step = (name: 'x' | 'y' | 'z'): string => `\
          if (c_channel == 0 && f_${name}Pitch != 0) begin
            n_${name}_row = n_${name}_row + (f_${name}Pitch << 1);
            n_${name}_at = n_${name}_row;
          end else n_${name}_at = n_${name}_at + ${name}_size;`;

/** Declarations and the block that forms `lane_…` of this cycle and `n_…` of the next. */
export const addressesText = (): string => `\
  // ---- stage 0: which elements, and where they lie; addresses count nibbles
  reg placed;
  reg issued; // nothing is left to begin
  reg [31:0] left, channel, table_row, waited;
  reg pass;
  wire [31:0] length = by_rows ? f_length : is_pool ? f_rows * f_columns * f_depth : is_red ? f_outer * f_inner : f_n;
  wire [31:0] w_left = placed ? left : length;
  wire [31:0] w_channel = placed ? channel : 0;
  wire [31:0] w_table_row = placed ? table_row : 0;
  wire [31:0] w_row_elements = placed ? row_elements : 0;
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
        lane_record[32 * a +: 32] = is_exps ? f_mask + w_row_elements + c_channel : f_par + (f_perChannel[0] ? c_channel << 4 : 0);
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
`;
