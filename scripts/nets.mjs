// True-shape nets with random weights as ONNX models, for speed only: He-scaled weights from a seed, ranges by decree. Each comes as float
// and as QuantizeLinear/DequantizeLinear around every operator, the way quantizers export for ONNX Runtime: bytes without sign for
// activations, bytes with sign and a scale for each output channel for weights.
import { encodeModel } from '../dist/onnx/protobuf.js';
import { createRandom } from '../dist/numerics/random.js';

const FLOAT = 1, UINT8 = 2, INT8 = 3, INT32 = 6, INT64 = 7;
/** Activations lie between 0 and this, or between its negative and it. */
const RANGE = 6;

/** A tensor of the net: `positive` after a ReLU; `codes` once it is quantized. */
class Tensor {
  constructor(name, shape, positive) {
    Object.assign(this, { name, shape, positive, codes: null });
  }
}

class Net {
  constructor(form) {
    this.quantized = form === 'int8';
    this.random = createRandom(7);
    this.nodes = [];
    this.constants = [];
    this.names = 0;
  }
  name(stem) { return `${stem}${++this.names}`; }
  constant(dataType, dims, data) {
    const name = this.name('c');
    this.constants.push({ name, dims, dataType, rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) });
    return name;
  }
  scalar(value) { return this.constant(FLOAT, [], Float32Array.of(value)); }
  integers(...values) { return this.constant(INT64, [values.length], BigInt64Array.from(values, BigInt)); }
  normals(dims, scale) {
    const data = new Float32Array(dims.reduce((a, b) => a * b, 1));
    for (let i = 0; i < data.length; i++) data[i] = this.random.normal() * scale;
    return data;
  }
  node(opType, input, attributes = {}, outputs = 1) {
    const output = Array.from({ length: outputs }, () => this.name('t'));
    const attribute = Object.entries(attributes).map(([name, value]) => Array.isArray(value) ? { name, ints: value, type: 7 } : Number.isInteger(value) ? { name, i: value, type: 2 } : { name, f: value, type: 1 });
    this.nodes.push({ opType, input, output, name: this.name(opType), domain: '', attribute });
    return output;
  }
  op(opType, inputs, shape, attributes = {}, positive = false) {
    return new Tensor(this.node(opType, inputs.map((x) => x.name ?? x), attributes)[0], shape, positive);
  }

  // ---- quantization

  /** Scale and zero point of an activation, as names. */
  parameters({ positive }) {
    this.ranges ??= new Map();
    if (!this.ranges.has(positive)) {
      const scale = positive ? RANGE / 255 : RANGE / 128;
      this.ranges.set(positive, { scale, names: [this.scalar(scale), this.constant(UINT8, [], Uint8Array.of(positive ? 0 : 128))] });
    }
    return this.ranges.get(positive);
  }
  /** What an operator reads: the tensor, or its codes made real again, a DequantizeLinear of its own for each reader. */
  read(x) {
    if (!this.quantized) return x;
    const { names } = this.parameters(x);
    x.codes ??= this.node('QuantizeLinear', [x.name, ...names])[0];
    return new Tensor(this.node('DequantizeLinear', [x.codes, ...names])[0], x.shape, x.positive);
  }
  /** A weight, or its codes made real; and the scales of its output channels. */
  weight(data, dims, axis) {
    if (!this.quantized) return { name: this.constant(FLOAT, dims, data), scales: null };
    const channels = dims[axis];
    const inner = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
    const channelOf = (i) => Math.floor(i / inner) % channels;
    const scales = new Float32Array(channels);
    data.forEach((w, i) => { scales[channelOf(i)] = Math.max(scales[channelOf(i)], Math.abs(w)); });
    scales.forEach((most, c) => { scales[c] = most / 127; });
    const codes = Int8Array.from(data, (w, i) => Math.round(w / scales[channelOf(i)]));
    const name = this.node('DequantizeLinear', [this.constant(INT8, dims, codes), this.constant(FLOAT, [channels], scales), this.constant(INT8, [channels], new Int8Array(channels))], { axis })[0];
    return { name, scales };
  }
  bias(count, x, scales) {
    const data = this.normals([count], 0.1);
    if (!this.quantized) return this.constant(FLOAT, [count], data);
    const steps = scales.map((s) => s * this.parameters(x).scale);
    const codes = Int32Array.from(data, (b, c) => Math.round(b / steps[c]));
    return this.node('DequantizeLinear', [this.constant(INT32, [count], codes), this.constant(FLOAT, [count], steps), this.constant(INT32, [count], new Int32Array(count))], { axis: 0 })[0];
  }

  // ---- layers

  activate(x, activation) {
    if (activation === 'relu') return this.op('Relu', [x], x.shape, {}, true);
    if (activation === 'relu6') return this.op('Clip', [x, this.scalar(0), this.scalar(6)], x.shape, {}, true);
    return x;
  }
  conv(x, outputs, kernel, { stride = 1, pads, group = 1, activation } = {}) {
    const [n, channels, height, width] = x.shape;
    const [kh, kw] = [kernel].flat().length === 2 ? kernel : [kernel, kernel];
    const border = pads ?? [Math.floor(kh / 2), Math.floor(kw / 2), Math.floor(kh / 2), Math.floor(kw / 2)];
    const along = (size, k, before, after) => Math.floor((size + before + after - k) / stride) + 1;
    const dims = [outputs, channels / group, kh, kw];
    const { name, scales } = this.weight(this.normals(dims, Math.sqrt(2 / (dims[1] * kh * kw))), dims, 0);
    const shape = [n, outputs, along(height, kh, border[0], border[2]), along(width, kw, border[1], border[3])];
    const y = this.op('Conv', [this.read(x), name, this.bias(outputs, x, scales)], shape, { kernel_shape: [kh, kw], strides: [stride, stride], pads: border, group });
    return this.activate(y, activation);
  }
  depthwise(x, stride, activation) { return this.conv(x, x.shape[1], 3, { stride, group: x.shape[1], activation }); }
  add(a, b, activation) { return this.activate(this.op('Add', [this.read(a), this.read(b)], a.shape), activation); }
  maxPool(x, kernel, stride, border) {
    const [n, channels, ...sizes] = x.shape;
    const shape = [n, channels, ...sizes.map((size) => Math.floor((size + 2 * border - kernel) / stride) + 1)];
    return this.op('MaxPool', [this.read(x)], shape, { kernel_shape: [kernel, kernel], strides: [stride, stride], pads: [border, border, border, border] }, x.positive);
  }
  pooled(x) {
    const [n, channels] = x.shape;
    const mean = this.op('GlobalAveragePool', [this.read(x)], [n, channels, 1, 1], {}, x.positive);
    return this.op('Flatten', [this.read(mean)], [n, channels], {}, x.positive);
  }
  gemm(x, outputs) {
    const [rows, depth] = x.shape;
    const { name, scales } = this.weight(this.normals([outputs, depth], 1 / Math.sqrt(depth)), [outputs, depth], 0);
    return this.read(this.op('Gemm', [this.read(x), name, this.bias(outputs, x, scales)], [rows, outputs], { transB: 1 }));
  }
  /** MatMul and Add, as transformers are exported. */
  linear(x, outputs) {
    const depth = x.shape.at(-1);
    const { name } = this.weight(this.normals([depth, outputs], 1 / Math.sqrt(depth)), [depth, outputs], 1);
    const shape = [...x.shape.slice(0, -1), outputs];
    const product = this.read(this.op('MatMul', [this.read(x), name], shape));
    return this.op('Add', [product, this.constant(FLOAT, [outputs], this.normals([outputs], 0.1))], shape);
  }
  product(a, b, shape) { return this.read(this.op('MatMul', [this.read(a), this.read(b)], shape)); }
  layerNorm(x) {
    const channels = x.shape.at(-1);
    return this.op('LayerNormalization', [x, this.constant(FLOAT, [channels], new Float32Array(channels).fill(1)), this.constant(FLOAT, [channels], new Float32Array(channels))], x.shape, { axis: -1, epsilon: 1e-6 });
  }

  input(shape) {
    this.inputShape = shape;
    return new Tensor('x', shape, false);
  }
  encode(result) {
    const value = (name, dims) => ({ name, type: { tensorType: { elemType: FLOAT, shape: { dim: dims.map((dimValue) => ({ dimValue })) } } } });
    return encodeModel({
      irVersion: 8, producerName: 'lowbitc-bench', opsetImport: [{ domain: '', version: 17 }],
      graph: { name: 'net', node: this.nodes, input: [value('x', this.inputShape)], output: [value(result.name, result.shape)], initializer: this.constants },
    });
  }
}

const resnet18 = (net) => {
  let x = net.maxPool(net.conv(net.input([1, 3, 224, 224]), 64, 7, { stride: 2, activation: 'relu' }), 3, 2, 1);
  for (const [channels, stride] of [[64, 1], [64, 1], [128, 2], [128, 1], [256, 2], [256, 1], [512, 2], [512, 1]]) {
    const skip = stride === 1 ? x : net.conv(x, channels, 1, { stride });
    x = net.add(net.conv(net.conv(x, channels, 3, { stride, activation: 'relu' }), channels, 3), skip, 'relu');
  }
  return net.gemm(net.pooled(x), 1000);
};
const mobileNetV2 = (net) => {
  let x = net.conv(net.input([1, 3, 224, 224]), 32, 3, { stride: 2, activation: 'relu6' });
  for (const [expansion, channels, repeats, firstStride] of [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]) {
    for (let i = 0; i < repeats; i++) {
      const stride = i === 0 ? firstStride : 1;
      const wide = expansion === 1 ? x : net.conv(x, x.shape[1] * expansion, 1, { activation: 'relu6' });
      const y = net.conv(net.depthwise(wide, stride, 'relu6'), channels, 1);
      x = stride === 1 && x.shape[1] === channels ? net.add(x, y) : y;
    }
  }
  return net.gemm(net.pooled(net.conv(x, 1280, 1, { activation: 'relu6' })), 1000);
};
const mobileNetV1Quarter = (net) => {
  let x = net.conv(net.input([1, 3, 96, 96]), 8, 3, { stride: 2, activation: 'relu' });
  for (const [channels, stride] of [[64, 1], [128, 2], [128, 1], [256, 2], [256, 1], [512, 2], ...Array(5).fill([512, 1]), [1024, 2], [1024, 1]]) {
    x = net.conv(net.depthwise(x, stride, 'relu'), channels / 4, 1, { activation: 'relu' });
  }
  return net.gemm(net.pooled(x), 2);
};
const resnet8 = (net) => {
  let x = net.conv(net.input([1, 3, 32, 32]), 16, 3, { activation: 'relu' });
  for (const [channels, stride] of [[16, 1], [32, 2], [64, 2]]) {
    const skip = stride === 1 ? x : net.conv(x, channels, 1, { stride });
    x = net.add(net.conv(net.conv(x, channels, 3, { stride, activation: 'relu' }), channels, 3), skip, 'relu');
  }
  return net.gemm(net.pooled(x), 10);
};
const dsCnn = (net) => {
  let x = net.conv(net.input([1, 1, 49, 10]), 64, [10, 4], { stride: 2, pads: [4, 1, 5, 1], activation: 'relu' });
  for (let i = 0; i < 4; i++) x = net.conv(net.depthwise(x, 1, 'relu'), 64, 1, { activation: 'relu' });
  return net.gemm(net.pooled(x), 12);
};
const deitTiny = (net) => {
  const [channels, heads, blocks, patches] = [192, 3, 12, 196];
  const tokens = patches + 1;
  const depth = channels / heads;
  let x = net.read(net.conv(net.input([1, 3, 224, 224]), channels, 16, { stride: 16, pads: [0, 0, 0, 0] }));
  x = net.op('Transpose', [net.op('Reshape', [x, net.integers(1, channels, patches)], [1, channels, patches])], [1, patches, channels], { perm: [0, 2, 1] });
  x = net.op('Concat', [net.constant(FLOAT, [1, 1, channels], new Float32Array(channels)), x], [1, tokens, channels], { axis: 1 });
  x = net.op('Add', [x, net.constant(FLOAT, [1, tokens, channels], net.normals([1, tokens, channels], 0.02))], [1, tokens, channels]);
  for (let block = 0; block < blocks; block++) {
    let y = net.linear(net.layerNorm(x), 3 * channels);
    y = net.op('Transpose', [net.op('Reshape', [y, net.integers(1, tokens, 3, heads, depth)], [])], [3, 1, heads, tokens, depth], { perm: [2, 0, 3, 1, 4] });
    const parts = net.node('Split', [y.name, net.integers(1, 1, 1)], { axis: 0 }, 3);
    const [q, k, v] = parts.map((part) => net.op('Squeeze', [part, net.integers(0)], [1, heads, tokens, depth]));
    const scaled = net.op('Mul', [q, net.scalar(depth ** -0.5)], q.shape);
    const logits = net.product(scaled, net.op('Transpose', [k], [1, heads, depth, tokens], { perm: [0, 1, 3, 2] }), [1, heads, tokens, tokens]);
    const mixed = net.product(net.op('Softmax', [logits], logits.shape, { axis: -1 }, true), v, [1, heads, tokens, depth]);
    const joined = net.op('Reshape', [net.op('Transpose', [mixed], [], { perm: [0, 2, 1, 3] }), net.integers(1, tokens, channels)], [1, tokens, channels]);
    x = net.op('Add', [x, net.linear(joined, channels)], x.shape);
    const h = net.linear(net.layerNorm(x), 4 * channels);
    const e = net.op('Add', [net.op('Erf', [net.op('Div', [h, net.scalar(Math.SQRT2)], h.shape)], h.shape), net.scalar(1)], h.shape);
    const gelu = net.op('Mul', [net.op('Mul', [h, e], h.shape), net.scalar(0.5)], h.shape);
    x = net.op('Add', [x, net.linear(gelu, channels)], x.shape);
  }
  return net.gemm(net.op('Gather', [net.layerNorm(x), net.constant(INT64, [], BigInt64Array.of(0n))], [1, channels], { axis: 1 }), 1000);
};

/** Name → how to build it, and the ratios to reach against the faster of the peer's float and int8: C by onnxruntime-node, WASM by onnxruntime-web. */
export const nets = {
  'resnet18-224': { build: resnet18, goal: { cpu: 1, wasm: 1.3 } },
  'mobilenetv2-224': { build: mobileNetV2, goal: { cpu: 1.5, wasm: 3 } },
  'deit-tiny-224': { build: deitTiny, goal: { cpu: 2, wasm: 2 } },
  'resnet8-32': { build: resnet8, goal: { cpu: 1.7, wasm: 2 } },
  'ds-cnn-49x10': { build: dsCnn, goal: { cpu: 2.3, wasm: 4 } },
  'mobilenetv1-0.25-96': { build: mobileNetV1Quarter, goal: { cpu: 3, wasm: 3.5 } },
};

/** The model file of a net; `form` is float or int8. */
export const modelOf = (name, form) => {
  const net = new Net(form);
  return net.encode(nets[name].build(net));
};
