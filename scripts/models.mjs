// The labelled models that accuracy is measured on, as data. The glyph models ship with the repository; the others lie in a folder of
// models beside it (LOWBITC_MODELS, or ../shared/models) and are left out by name when it is absent.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const beside = process.env.LOWBITC_MODELS ?? join(root, '..', 'shared', 'models');
const examples = join(root, 'examples');

const glyph = (name) => ({
  name, model: join(examples, 'models', `${name}.onnx`), data: join(examples, 'data'), mean: [127.5], std: [127.5],
});
const other = (name, { folder = name, file = 'model.onnx', data = folder, ...rest } = {}) => {
  const about = join(beside, folder, 'data.json');
  const { mean, std } = existsSync(about) ? JSON.parse(readFileSync(about, 'utf8')) : {};
  return { name, model: join(beside, folder, file), data: join(beside, data), mean, std, ...rest };
};

export const models = [
  glyph('glyph-cnn'),
  glyph('glyph-vit'),
  glyph('glyph-vit-outlier'),
  other('mlperf-tiny-ic'),
  other('mlperf-tiny-kws'),
  other('mobilenet-v1-0.25-224'),
  other('kwt1'),
  other('resnet20', { data: 'cifar10' }),
  other('resnet20-skew', { data: 'cifar10' }),
  other('cct', { data: 'cifar10' }),
  other('cct-outlier', { data: 'cifar10' }),
  other('cct-opset13', { folder: 'cct', file: 'model_opset13.onnx', data: 'cifar10', copyOf: 'cct' }),
  other('cct-opset13-b1', { folder: 'cct', file: 'model_opset13_b1.onnx', data: 'cifar10', copyOf: 'cct' }),
  other('charlm'),
].map((entry) => ({ ...entry, present: existsSync(entry.model) && existsSync(entry.data) }));

/** Arguments of `lowbitc compile` for one of them. */
export const compileArguments = ({ model, data, mean, std }, out) => [
  'compile', model, '-o', out, '--calib', join(data, 'calib.npy'), ...(mean ? ['--mean', mean.join(','), '--std', std.join(',')] : []),
];
/** Arguments of `lowbitc eval` over its labelled set. */
export const evalArguments = ({ data }, out) => ['eval', out, '--input', join(data, 'eval.npy'), '--labels', join(data, 'eval_labels.npy')];
