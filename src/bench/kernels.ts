/** Layers as shapes and widths, the same for a float graph and for the kernel graph it becomes, and one-kernel programs made of them. */
import { Builder } from '../ir/build.ts';
import { staticShape } from '../ir/dim.ts';
import { allocate, bitsOf, rangeOf, type IntegerDType } from '../ir/dtype.ts';
import type { Graph, Node, Value } from '../ir/graph.ts';
import { convAcc, linearAcc, matmulAcc } from '../ir/ops/kernel-accumulate.ts';
import { attentionInt, EXP_LENGTH } from '../ir/ops/kernel-normalize.ts';
import { requantize } from '../ir/ops/kernel-requantize.ts';
import { noSite } from '../ir/op.ts';
import { tensor, tensorType } from '../ir/type.ts';
import { exp } from '../numerics/real-math.ts';
import { GREATEST_LEVEL } from '../numerics/codebook.ts';
import { createRandom } from '../numerics/random.ts';

/** x [rows, depth] times a constant [columns, depth]ᵀ. */
export interface LinearShape {
  readonly op: 'linear';
  readonly rows: number;
  readonly depth: number;
  readonly columns: number;
}
/** x [batch, height, width, channels] and filters [outputs, kernel…, channels/group]; group = channels: depthwise. */
export interface ConvShape {
  readonly op: 'conv';
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly outputs: number;
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  /** top, left, bottom, right */
  readonly pads: readonly number[];
  readonly dilations: readonly number[];
  readonly group: number;
}
/** a [batch, rows, depth] times b [batch, depth, columns], or [batch, columns, depth] where transposed. */
export interface MatmulShape {
  readonly op: 'matmul';
  readonly batch: number;
  readonly rows: number;
  readonly depth: number;
  readonly columns: number;
  readonly transposeB: boolean;
}
/** q [batch, rows, heads·depth], k [batch, keys, heads·depth], v [batch, keys, heads·valueDepth]. */
export interface AttentionShape {
  readonly op: 'attention';
  readonly batch: number;
  readonly rows: number;
  readonly keys: number;
  readonly heads: number;
  readonly depth: number;
  readonly valueDepth: number;
}
export type KernelShape = LinearShape | ConvShape | MatmulShape | AttentionShape;

export interface Kernel {
  readonly shape: KernelShape;
  /** as stored; null where both operands are activations */
  readonly weightBits: number | null;
  /** whether weights are stored as places in a codebook; false where nothing is said */
  readonly codebook?: boolean;
  readonly activationBits: number;
}

/** Equal for kernels that are timed alike. */
export const kernelKey = ({ shape, weightBits, codebook = false, activationBits }: Kernel): string =>
  JSON.stringify([weightBits, codebook, activationBits, Object.entries(shape).sort(([a], [b]) => (a < b ? -1 : 1))]);

/** Multiply-accumulates of one run. */
export const macsOf = (shape: KernelShape): number => {
  switch (shape.op) {
    case 'linear': return shape.rows * shape.depth * shape.columns;
    case 'conv': {
      const [height, width] = outputSize(shape);
      return (shape.batch * height * width * shape.outputs * shape.kernel[0] * shape.kernel[1] * shape.channels) / shape.group;
    }
    case 'matmul': return shape.batch * shape.rows * shape.depth * shape.columns;
    case 'attention': return shape.batch * shape.rows * shape.keys * shape.heads * (shape.depth + shape.valueDepth);
  }
};
const outputSize = ({ height, width, kernel, strides, pads, dilations }: ConvShape): readonly [number, number] => {
  const along = (size: number, axis: number): number => Math.floor((size + pads[axis] + pads[axis + 2] - dilations[axis] * (kernel[axis] - 1) - 1) / strides[axis]) + 1;
  return [along(height, 0), along(width, 1)];
};

/** `conv 56x56x64 3x3 64`, for tables. */
export const describe = (shape: KernelShape): string => {
  switch (shape.op) {
    case 'linear': return `linear ${shape.rows}x${shape.depth}x${shape.columns}`;
    case 'conv': {
      const { height, width, channels, outputs, kernel, strides, group } = shape;
      const name = group === 1 ? 'conv' : group === channels && outputs === channels ? 'depthwise' : `conv in ${group} groups`;
      return `${name} ${height}x${width}x${channels} ${kernel.join('x')}${strides.every((s) => s === 1) ? '' : ` stride ${strides[0] === strides[1] ? strides[0] : strides.join('x')}`}${name === 'depthwise' ? '' : ` → ${outputs}`}`;
    }
    case 'matmul': return `matmul ${shape.batch === 1 ? '' : `${shape.batch} × `}${shape.rows}x${shape.depth}x${shape.columns}`;
    case 'attention': return `attention ${shape.heads} × ${shape.rows}x${shape.keys}x${shape.depth}`;
  }
};

/** The layer that a node is, of a float graph or of a kernel graph; null where it does not multiply or its sizes are open. */
export const kernelOf = ({ op, inputs, attrs, output }: Node): Kernel | null => {
  const sizes = (slot: string): readonly number[] => staticShape((inputs[slot] as Value).type.shape);
  const width = (slot: string): number => bitsOf((inputs[slot] as Value).type.dtype);
  const list = (name: string): readonly number[] => [...attrs[name] as readonly number[]];
  const product = (numbers: readonly number[]): number => numbers.reduce((a, b) => a * b, 1);
  const indexBits = Number(attrs['indexBits'] ?? 0);
  const weighted = (shape: KernelShape): Kernel => ({ shape, weightBits: indexBits || width('weight'), ...(indexBits > 0 ? { codebook: true } : {}), activationBits: width('x') });
  switch (op) {
    case 'linear': case 'linear_acc': {
      const [columns, depth] = sizes('weight');
      return weighted({ op: 'linear', rows: product(sizes('x')) / depth, depth, columns });
    }
    case 'conv': case 'conv_acc': {
      const [batch, height, wide, channels] = sizes('x');
      const [outputs, ...kernel] = sizes('weight').slice(0, 3);
      return weighted({
        op: 'conv', batch, height, width: wide, channels, outputs, kernel, strides: list('strides'), pads: list('pads'), dilations: list('dilations'), group: Number(attrs['group']),
      });
    }
    case 'matmul': case 'matmul_acc': {
      const [result, a] = [staticShape(output.type.shape), sizes('a')];
      return {
        shape: { op: 'matmul', batch: product(result.slice(0, -2)), rows: result.at(-2)!, depth: a.at(-1)!, columns: result.at(-1)!, transposeB: attrs['transposeB'] === true },
        weightBits: null, activationBits: Math.max(width('a'), width('b')),
      };
    }
    case 'attention': case 'attention_int': {
      const [[batch, rows, channels], [, keys, values]] = [sizes('q'), sizes('v')];
      const heads = Number(attrs['heads']);
      return { shape: { op: 'attention', batch, rows, keys, heads, depth: channels / heads, valueDepth: values / heads }, weightBits: null, activationBits: width('q') };
    }
    default: return null;
  }
};

/** Codes of an activation: a byte for up to eight bits, else a word. */
const storage = (bits: number): IntegerDType => (bits <= 8 ? 'i8' : 'i16');

/** A program of this kernel alone, its sums rescaled to bytes channel by channel, with made-up weights. */
export const kernelGraph = ({ shape, weightBits, codebook = false, activationBits }: Kernel): Graph<'kernel'> => {
  const b = new Builder();
  const random = createRandom(1);
  const x = storage(activationBits);
  const input = (name: string, ...sizes: readonly number[]): Value => b.input(name, tensorType(x, sizes));
  const weight = (...sizes: readonly number[]): Value => {
    const dtype = codebook ? 'i8' : `i${weightBits ?? 8}` as IntegerDType;
    const data = allocate(dtype, sizes.reduce((p, n) => p * n, 1));
    const code = codebook ? (): number => levels[random.below(levels.length)] : (): number => random.below(2 * most + 1) - most;
    for (let i = 0; i < data.length; i++) data[i] = code();
    return b.constant('weight', tensor(tensorType(dtype, sizes), data));
  };
  const indexBits = codebook ? weightBits ?? 0 : 0;
  const most = codebook ? GREATEST_LEVEL : rangeOf(`i${weightBits ?? 8}` as IntegerDType)[1];
  // unevenly, as they lie in real ones
  const levels = Array.from({ length: 2 ** indexBits }, (_, i) => Math.round(most * ((2 * i + 1) / 2 ** indexBits - 1) ** 3) || (i % 2 === 0 ? -1 : 1));
  const result = products();
  return b.finish('kernel', 'kernel', [{ name: 'y', value: result }]);

  function products(): Value {
    switch (shape.op) {
      case 'linear': {
        const { rows, depth, columns } = shape;
        return rescaled(b.emit(linearAcc, { x: input('x', rows, depth), weight: weight(columns, depth) }, { bound: bound(depth), indexBits }), columns);
      }
      case 'conv': {
        const { batch, height, width, channels, outputs, kernel, strides, pads, dilations, group } = shape;
        const [kh, kw] = kernel;
        const per = channels / group;
        return rescaled(b.emit(convAcc, { x: input('x', batch, height, width, channels), weight: weight(outputs, kh, kw, per) }, { strides, pads, dilations, group, bound: bound(kh * kw * per), indexBits }), outputs);
      }
      case 'matmul': {
        const { batch, rows, depth, columns, transposeB } = shape;
        const right = transposeB ? input('b', batch, columns, depth) : input('b', batch, depth, columns);
        return rescaled(b.emit(matmulAcc, { a: input('a', batch, rows, depth), b: right }, { transposeB, bound: bound(depth) }), 1);
      }
      case 'attention': {
        const { batch, rows, keys, heads, depth, valueDepth } = shape;
        const table = allocate('i16', EXP_LENGTH);
        for (let z = 0; z < EXP_LENGTH - 1; z++) table[z] = Math.floor(32767 * exp(-z / 256) + 0.5);
        return b.emit(attentionInt, {
          q: input('q', batch, rows, heads * depth), k: input('k', batch, keys, heads * depth), v: b.input('v', tensorType('i8', [batch, keys, heads * valueDepth])), mask: null,
          exp: b.constant('exp', tensor(tensorType('i16', [EXP_LENGTH]), table)),
        }, { heads, mulLogit: 1 << 20, addLogit: 1n << 31n, shiftLogit: 32, eShift: 2, newtonSteps: 1, mulOut: 2 ** 30, shiftOut: 30, zero: 0, low: -128, high: 127, to: 'i8' });
      }
    }
  }
  function bound(terms: number): readonly number[] {
    const reach = Math.min(2 ** 31 - 1, terms * 2 ** (activationBits - 1) * (weightBits === null ? 2 ** (activationBits - 1) : most));
    return [-reach, reach];
  }
  function rescaled(sums: Value, channels: number): Value {
    const mul = new Int32Array(channels).fill(2 ** 30);
    const add = new BigInt64Array(channels).fill(1n << 39n);
    return b.emit(requantize, {
      x: sums, mul: b.constant('mul', tensor(tensorType('i32', [channels]), mul)), add: b.constant('add', tensor(tensorType('i64', [channels]), add)),
    }, { shift: 40, preShift: 0, low: -128, high: 127 }, { site: noSite });
  }
};
