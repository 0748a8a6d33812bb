/**
 * MM: an array of rows × columns elements, rows of pixels by columns of channels, each with as many lanes as the machine counts for the
 * widths at hand. A tile takes max(⌈K / lanes⌉, feed) + fill cycles: in each of the first a step of the window is read, a cycle later it is
 * multiplied and added, and when the last is in, the sums go to OBUF. Lanes that only narrow modes use have narrow multipliers.
 */
import { activationWidths, choiceIndex, coreOpsOf, elementFunctions, errorConstants, fieldWires, instructionBits, mostLanes, opConstants, perCycle, weightWidths, wideLanes } from './declaration.ts';
import { elements } from '../isa.ts';
import type { Machine } from '../machine.ts';

const fields = [
  'a', 'w', 'o', 'aElement', 'aBits', 'wBits', 'wSigned', 'rows', 'columns', 'imageRows', 'imageColumns', 'rowPitch', 'columnPitch', 'firstRow', 'firstColumn', 'rowStride', 'columnStride',
  'tapRows', 'tapColumns', 'rowDilation', 'columnDilation', 'border', 'depth', 'outputs', 'wChannel', 'wTap', 'pitch', 'aZero', 'wZero', 'depthwise', 'accumulate',
] as const;

/** Bits of both factors of a lane: those of the widest mode that uses it, and one for the zero point. */
const factorBits = (machine: Machine, lane: number): readonly [activation: number, weight: number] => {
  const modes = weightWidths.flatMap((w) => activationWidths.filter((a) => perCycle(machine, w, a) > lane).map((a) => [a, w] as const));
  return [Math.max(1, ...modes.map(([a]) => a)) + 1, Math.max(1, ...modes.map(([, w]) => w)) + 1];
};

interface LaneGroup { readonly from: number; readonly to: number; readonly a: number; readonly w: number }
/** Neighbouring lanes of equal multipliers that every mode uses all or none of. */
export const laneGroups = (machine: Machine): readonly LaneGroup[] => {
  const groups: { from: number; to: number; a: number; w: number }[] = [];
  const ends = new Set(weightWidths.flatMap((w) => activationWidths.map((a) => perCycle(machine, w, a))));
  for (let lane = 0; lane < mostLanes(machine); lane++) {
    const [a, w] = factorBits(machine, lane);
    const open = groups.at(-1);
    if (open !== undefined && open.a === a && open.w === w && !ends.has(lane)) open.to = lane + 1; else groups.push({ from: lane, to: lane + 1, a, w });
  }
  return groups;
};

export const arrayText = (machine: Machine): string => {
  const { rows: R, columns: C, fill } = machine.array;
  const L = mostLanes(machine);
  const { ABUF, WBUF, OBUF } = machine.memories;
  const widthCases = weightWidths.flatMap((w) => activationWidths.map((a) =>
    `    {32'd${choiceIndex('MM', 'wBits', String(w) as '8')}, 32'd${choiceIndex('MM', 'aBits', String(a) as '8')}}: lanes = ${perCycle(machine, w, a)}; // ${w}-bit weights, ${a}-bit activations`));
  const H = wideLanes(machine);
  const narrow = elements.filter((element) => Number(element.slice(1)) <= 16);
  const groups = laneGroups(machine);
  const factors = ({ from, to, a }: LaneGroup): string => `
      if (s1_lanes > ${from}) for (xl = ${from}; xl < ${to}; xl = xl + 1) if (s1_lane[xl]) begin
        x = s1_border[gr * L + xl] ? border : code_of({${from < H ? `a_high[8 * (gr * ${H} + xl) +: 8]` : '8\'d0'}, a_data[8 * (gr * L + xl) +: 8]}) - f_aZero;
        x_${from}[${a * C} * (xl - ${from}) +: ${a}] = x[${a - 1}:0];
        if (f_depthwise[0]) for (xc = 1; xc < C; xc = xc + 1) begin
          if (!s1_border[gr * L + xl]) x = code_of({8'd0, a_more[8 * ((gr * L + xl) * ${Math.max(1, C - 1)} + xc - 1) +: 8]}) - f_aZero;
          x_${from}[${a * C} * (xl - ${from}) + ${a} * xc +: ${a}] = x[${a - 1}:0];
        end
      end`;
  const weights = ({ from, to, w }: LaneGroup): string => `
    if (s1_valid && s1_lanes > ${from}) for (yl = ${from}; yl < ${to}; yl = yl + 1) if (s1_lane[yl]) for (yc = 0; yc < C; yc = yc + 1) begin
      y = weight_of(w_data[8 * (yc * L + yl) +: 8]) - f_wZero;
      y_${from}[${w} * ((yl - ${from}) * C + yc) +: ${w}] = y[${w - 1}:0];
    end`;
  const products = ({ from, to, a, w }: LaneGroup): string => `
        if (s1_lanes > ${from}) begin${Array.from({ length: to - from }, (_, l) => `
          if (s1_lane[${from + l}]) begin
            product_${from} = $signed(x_${from}[${a * C * l} + (f_depthwise[0] ? ${a} * gc : 0) +: ${a}]) * $signed(y_${from}[${w * C * l} + ${w} * gc +: ${w}]);
            sum = sum + {{${32 - a - w}{product_${from}[${a + w - 1}]}}, product_${from}};
          end`).join('')}
        end`;
  const more = Math.max(1, C - 1);
  return `\
// The engine MM: ${R} × ${C} sums at a time.
module lb1_array (
  input clk, input clear, input work, input [${instructionBits('MM') - 1}:0] head, output last, output reg [7:0] error,
  // lane l of row r reads the element at a_rows[r] + a_steps[l], for filters of single channels the next ones too; lane l of column c the weight at w_columns[c] + w_steps[l]
  output a_on, output a_nibbles, output a_channelwise, output reg [${R * L - 1}:0] a_lanes, output [${32 * R - 1}:0] a_rows, output [${32 * L - 1}:0] a_steps, input [${8 * R * L - 1}:0] a_data, input [${8 * R * L * more - 1}:0] a_more, input [${8 * R * Math.max(1, H) - 1}:0] a_high,
  output w_on, output [${L - 1}:0] w_lanes, output [${C - 1}:0] w_channels, output [${32 * C - 1}:0] w_columns, output [${32 * L - 1}:0] w_steps, input [${8 * C * L - 1}:0] w_data,
  output o_read, output o_write, output reg [${R * C - 1}:0] o_lanes, output reg [${32 * R * C - 1}:0] o_addresses, input [${32 * R * C - 1}:0] o_data, output reg [${32 * R * C - 1}:0] o_sums
);
  localparam R = ${R}, C = ${C}, L = ${L};
${errorConstants()}
${opConstants('MM')}
${elementFunctions()}
${fieldWires(coreOpsOf('MM'), fields)}
  reg [31:0] lanes;
  always @* case ({f_wBits, f_aBits})
${widthCases.join('\n')}
    default: lanes = 0;
  endcase
  // bits of a weight; crumbs (two bits) of it
  wire [31:0] crumbs = ${weightWidths.filter((w) => w > 2).map((w) => `f_wBits == ${choiceIndex('MM', 'wBits', String(w) as '8')} ? ${w / 2} : `).join('')}1;
  wire [31:0] size = nibbles_of(f_aElement);
  wire signed_codes = ${narrow.filter((element) => element.startsWith('i')).map((element) => `f_aElement == ${elements.indexOf(element)}`).join(' || ')};
  function signed [31:0] weight_of(input [7:0] raw);
    if (crumbs == 4) weight_of = {f_wSigned[0] ? {24{raw[7]}} : 24'd0, raw};
    else if (crumbs == 2) weight_of = {f_wSigned[0] ? {28{raw[3]}} : 28'd0, raw[3:0]};
    else weight_of = {f_wSigned[0] ? {30{raw[1]}} : 30'd0, raw[1:0]};
  endfunction
  function signed [31:0] code_of(input [15:0] raw);
    if (size == 1) code_of = {signed_codes ? {28{raw[3]}} : 28'd0, raw[3:0]};
    else if (size == 2) code_of = {signed_codes ? {24{raw[7]}} : 24'd0, raw[7:0]};
    else code_of = {signed_codes ? {16{raw[15]}} : 16'd0, raw};
  endfunction

  // Constants of the instruction. Positions are signed; addresses of activations are counted in nibbles, of weights in crumbs.
  wire signed [31:0] row_step = f_rowStride * f_rowPitch;
  wire signed [31:0] column_step = f_columnStride * f_columnPitch;
  wire signed [31:0] tap_row_step = f_rowDilation * f_rowPitch;
  wire signed [31:0] tap_column_step = f_columnDilation * f_columnPitch;
  wire signed [31:0] origin = $signed(f_a) + $signed(f_firstRow) * $signed(f_rowPitch) + $signed(f_firstColumn) * $signed(f_columnPitch);
  wire signed [31:0] border = $signed(f_border) - $signed(f_aZero);
  wire [31:0] feed = f_depthwise[0] ? (f_tapRows * f_columnStride * (f_aBits == ${choiceIndex('MM', 'aBits', '4')} ? 4 : f_aBits == ${choiceIndex('MM', 'aBits', '8')} ? 8 : 16) + 7) >> 3 : 0;

  // ---- where the tile stands: pixels from (i, j), channels from n
  reg placed;
  reg [31:0] i, j, n, weights, sums;
  reg signed [31:0] y0, x0, row_at, pixel_at;
  wire [31:0] w_i = placed ? i : 0;
  wire [31:0] w_j = placed ? j : 0;
  wire [31:0] w_n = placed ? n : 0;
  wire [31:0] w_weights = placed ? weights : (f_w << 2);
  wire [31:0] w_sums = placed ? sums : f_o;
  wire signed [31:0] w_y0 = placed ? y0 : $signed(f_firstRow);
  wire signed [31:0] w_x0 = placed ? x0 : $signed(f_firstColumn);
  wire signed [31:0] w_row_at = placed ? row_at : origin;
  wire signed [31:0] w_pixel_at = placed ? pixel_at : origin;
  // the pixels of the tile, and those that follow
  reg [31:0] p_i, p_j, p_sums;
  reg signed [31:0] p_y, p_x, p_row, p_at;
  reg [R-1:0] row_on;
  reg [32*R-1:0] row_y, row_x, row_address, row_sums;
  wire [31:0] channel_at = f_depthwise[0] ? w_n * size : 0;
  integer pr;
  always @* begin
    p_i = w_i;
    p_j = w_j;
    p_sums = w_sums;
    p_y = w_y0;
    p_x = w_x0;
    p_row = w_row_at;
    p_at = w_pixel_at;
    for (pr = 0; pr < R; pr = pr + 1) begin
      row_on[pr] = p_i < f_rows;
      row_y[32 * pr +: 32] = p_y;
      row_x[32 * pr +: 32] = p_x;
      row_address[32 * pr +: 32] = (p_at << 1) + channel_at;
      row_sums[32 * pr +: 32] = p_sums;
      p_sums = p_sums + (f_pitch << 2);
      if (p_j + 1 == f_columns) begin
        p_j = 0;
        p_i = p_i + 1;
        p_y = p_y + $signed(f_rowStride);
        p_x = $signed(f_firstColumn);
        p_row = p_row + row_step;
        p_at = p_row;
      end else begin
        p_j = p_j + 1;
        p_x = p_x + $signed(f_columnStride);
        p_at = p_at + column_step;
      end
    end
  end
  wire more_channels = w_n + C < f_outputs;
  wire more_pixels = p_i < f_rows;

  // ---- the step of the window: lanes from tap (tr, tq), element tk
  reg draining, stepped, ran_out;
  reg [31:0] drained, steps, tr, tq, tk, tap_weights;
  reg signed [31:0] dy, dx, tap_row, tap_at;
  wire reading = work && !draining && !ran_out;
  wire [31:0] now_step = stepped ? steps : 0;
  reg [31:0] q_r, q_q, q_k, q_weights;
  reg signed [31:0] q_dy, q_dx, q_row, q_at;
  reg [L-1:0] lane_on;
  reg [32*L-1:0] lane_y, lane_x, lane_at, lane_weight;
  integer ql;
  always @* begin
    q_r = stepped ? tr : 0;
    q_q = stepped ? tq : 0;
    q_k = stepped ? tk : 0;
    q_weights = stepped ? tap_weights : 0;
    q_dy = stepped ? dy : 0;
    q_dx = stepped ? dx : 0;
    q_row = stepped ? tap_row : 0;
    q_at = stepped ? tap_at : 0;
    lane_on = 0;
    lane_y = 0;
    lane_x = 0;
    lane_at = 0;
    lane_weight = 0;
${laneGroups(machine).map(({ from, to }) => `    if (reading && lanes > ${from}) for (ql = ${from}; ql < ${to}; ql = ql + 1) if (q_r < f_tapRows) begin
      lane_on[ql] = 1;
      lane_y[32 * ql +: 32] = q_dy;
      lane_x[32 * ql +: 32] = q_dx;
      lane_at[32 * ql +: 32] = (q_at << 1) + (f_depthwise[0] ? 0 : q_k * size);
      lane_weight[32 * ql +: 32] = q_weights;
      q_weights = q_weights + f_wTap * crumbs;
      if (f_depthwise[0] || q_k + 1 == f_depth) begin
        q_k = 0;
        if (q_q + 1 == f_tapColumns) begin
          q_q = 0;
          q_r = q_r + 1;
          q_dy = q_dy + $signed(f_rowDilation);
          q_dx = 0;
          q_row = q_row + tap_row_step;
          q_at = q_row;
        end else begin
          q_q = q_q + 1;
          q_dx = q_dx + $signed(f_columnDilation);
          q_at = q_at + tap_column_step;
        end
      end else q_k = q_k + 1;
    end`).join('\n')}
  end
  wire all_read = q_r >= f_tapRows;
  wire enough = now_step + 1 >= feed;

  // ---- addresses of a step
  reg [R*L-1:0] on_border;
  reg signed [31:0] ay, ax;
  reg [31:0] at;
  reg beyond;
  integer ar, al;
  always @* begin
    a_lanes = 0;
    on_border = 0;
    beyond = 0;
    ay = 0;
    ax = 0;
    at = 0;
${laneGroups(machine).map(({ from, to }) => `    if (reading && lanes > ${from}) for (al = ${from}; al < ${to}; al = al + 1) if (lane_on[al]) begin
      for (ar = 0; ar < R; ar = ar + 1) if (row_on[ar]) begin
        ay = $signed(row_y[32 * ar +: 32]) + $signed(lane_y[32 * al +: 32]);
        ax = $signed(row_x[32 * ar +: 32]) + $signed(lane_x[32 * al +: 32]);
        if (ay < 0 || ax < 0 || ay >= $signed(f_imageRows) || ax >= $signed(f_imageColumns)) on_border[ar * L + al] = 1;
        else begin
          a_lanes[ar * L + al] = 1;
          at = row_address[32 * ar +: 32] + lane_at[32 * al +: 32] + last_channel;
          if (at > ${2 * ABUF} - size) beyond = 1;
        end
      end
      at = column_base[32 * C - 32 +: 32] + lane_weight[32 * al +: 32];
      if (at >= ${4 * WBUF}) beyond = 1;
    end`).join('\n')}
  end
  // the columns of the tile; those beyond the last channel stand at it
  reg [C-1:0] column_on;
  reg [32*C-1:0] column_base;
  reg [31:0] k_base;
  integer kc;
  always @* begin
    k_base = w_weights;
    for (kc = 0; kc < C; kc = kc + 1) begin
      column_on[kc] = w_n + kc < f_outputs;
      column_base[32 * kc +: 32] = k_base;
      if (w_n + kc + 1 < f_outputs) k_base = k_base + f_wChannel * crumbs;
    end
  end
  wire [31:0] channels_left = f_outputs - w_n;
  // nibbles from the first channel that a lane reads to the last
  wire [31:0] last_channel = !f_depthwise[0] ? 0 : channels_left < C ? (channels_left - 1) * size : (C - 1) * size;
  assign a_rows = row_address;
  assign a_steps = lane_at;
  assign w_lanes = lane_on;
  assign w_channels = column_on;
  assign w_columns = column_base;
  assign w_steps = lane_weight;
  assign a_on = reading && error == E_NONE;
  assign w_on = a_on;
  assign a_nibbles = size == 1;
  assign a_channelwise = f_depthwise[0];

  // ---- a cycle later: multiply and add
  reg s1_valid;
  reg [31:0] s1_lanes;
  reg [L-1:0] s1_lane;
  reg [R-1:0] s1_row;
  reg [R*L-1:0] s1_border;
  wire [32*R*C-1:0] total;
  wire restart = a_on && !stepped;
  always @(posedge clk) begin
    s1_valid <= a_on;
    if (a_on) begin
      s1_lanes <= lanes;
      s1_lane <= lane_on;
      s1_row <= row_on;
      s1_border <= on_border;
    end
  end
  // weights less their zero point
${groups.map(({ from, to, w }) => `  reg [${w * C * (to - from) - 1}:0] y_${from};`).join('\n')}
  reg signed [31:0] y;
  integer yl, yc;
  always @* begin
    y = 0;
${groups.map(({ from }) => `    y_${from} = 0;`).join('\n')}${groups.map(weights).join('')}
  end
  genvar gr, gc;
  generate for (gr = 0; gr < R; gr = gr + 1) begin : row
    // activations of the row less their zero point
${groups.map(({ from, to, a }) => `    reg [${a * C * (to - from) - 1}:0] x_${from};`).join('\n')}
    reg signed [31:0] x;
    integer xl, xc;
    always @* begin
      x = 0;
${groups.map(({ from }) => `      x_${from} = 0;`).join('\n')}
      if (s1_valid && s1_row[gr]) begin${groups.map(factors).join('').replaceAll('\n', '\n  ')}
      end
    end
    for (gc = 0; gc < C; gc = gc + 1) begin : column
      reg signed [31:0] sum;
${groups.map(({ from, a, w }) => `      reg signed [${a + w - 1}:0] product_${from};`).join('\n')}
      assign total[32 * (gr * C + gc) +: 32] = sum;
      always @(posedge clk) if (restart) sum = 0;
      else if (s1_valid) begin${groups.map(products).join('')}
      end
    end
  end endgenerate

  // ---- the sums of a tile
  integer or_, oc;
  reg sums_beyond;
  always @* begin
    o_lanes = 0;
    o_addresses = 0;
    o_sums = total;
    sums_beyond = 0;
    if (work && draining) for (or_ = 0; or_ < R; or_ = or_ + 1) for (oc = 0; oc < C; oc = oc + 1) if (row_on[or_] && w_n + oc < f_outputs) begin
      o_lanes[or_ * C + oc] = 1;
      o_addresses[32 * (or_ * C + oc) +: 32] = row_sums[32 * or_ +: 32] + ((w_n + oc) << 2);
      if (row_sums[32 * or_ +: 32] + ((w_n + oc) << 2) > ${OBUF - 4}) sums_beyond = 1;
      if (f_accumulate[0]) o_sums[32 * (or_ * C + oc) +: 32] = total[32 * (or_ * C + oc) +: 32] + o_data[32 * (or_ * C + oc) +: 32];
    end
  end
  assign o_read = work && draining && drained == 0 && f_accumulate[0] && error == E_NONE;
  assign o_write = work && draining && drained == 1 && error == E_NONE;
  wire tile_done = draining && drained == ${fill - 1};
  assign last = work && tile_done && !more_channels && !more_pixels;

  // zero points and the border lie among the codes of their elements, so differences have one bit more than these
  wire signed [31:0] most = $signed(size == 1 ? 15 : size == 2 ? 255 : 65535);
  wire signed [31:0] least_code = signed_codes ? -((most + 1) >>> 1) : 0;
  wire odd_zero = $signed(f_aZero) < least_code || $signed(f_aZero) > least_code + most || $signed(f_border) < least_code || $signed(f_border) > least_code + most;
  wire signed [31:0] w_most = crumbs == 4 ? 255 : crumbs == 2 ? 15 : 3;
  wire signed [31:0] w_least = f_wSigned[0] ? -((w_most + 1) >>> 1) : 0;
  wire odd_weight_zero = $signed(f_wZero) < w_least || $signed(f_wZero) > w_least + w_most;
  always @* begin
    error = E_NONE;
    if (work) begin
      if (beyond || sums_beyond) error = E_CHIP;
      if (f_o[1:0] != 0) error = E_MISALIGNED;
      if (f_rows == 0 || f_columns == 0 || f_tapRows == 0 || f_tapColumns == 0 || f_outputs == 0 || (!f_depthwise[0] && f_depth == 0)) error = E_FIELD;
      if (lanes == 0 || size > 4 || (size == 4 && (f_depthwise[0] || f_aBits != ${choiceIndex('MM', 'aBits', '16')})) || odd_zero || odd_weight_zero) error = E_UNSUPPORTED;
    end
  end

  always @(posedge clk) begin
    if (clear || last) begin
      placed <= 0;
      stepped <= 0;
      ran_out <= 0;
      draining <= 0;
      drained <= 0;
    end else if (work) begin
      if (!draining) begin
        steps <= now_step + 1;
        stepped <= 1;
        tr <= q_r;
        tq <= q_q;
        tk <= q_k;
        tap_weights <= q_weights;
        dy <= q_dy;
        dx <= q_dx;
        tap_row <= q_row;
        tap_at <= q_at;
        if (reading && all_read) ran_out <= 1;
        if ((ran_out || all_read) && enough) draining <= 1;
      end else if (!tile_done) drained <= drained + 1;
      else begin
        draining <= 0;
        drained <= 0;
        ran_out <= 0;
        stepped <= 0;
        placed <= 1;
        if (more_channels) begin
          n <= w_n + C;
          weights <= w_weights + C * f_wChannel * crumbs;
          i <= w_i;
          j <= w_j;
          sums <= w_sums;
          y0 <= w_y0;
          x0 <= w_x0;
          row_at <= w_row_at;
          pixel_at <= w_pixel_at;
        end else begin
          n <= 0;
          weights <= f_w << 2;
          i <= p_i;
          j <= p_j;
          sums <= p_sums;
          y0 <= p_y;
          x0 <= p_x;
          row_at <= p_row;
          pixel_at <= p_at;
        end
      end
    end
  end
endmodule
`;
};
