/** Every ONNX op that is understood: one handler each, by op name, those of other domains as `domain.Name`. */
import type { Handlers } from '../node.ts';
import { elementwise } from './elementwise.ts';
import { layout } from './layout.ts';
import { linears } from './linear.ts';
import { normalizers } from './normalize.ts';
import { quantizers } from './quantize.ts';
import { recurrent } from './recurrent.ts';
import { reductions } from './reduce.ts';
import { shapes } from './shape.ts';
import { windows } from './window.ts';

export const handlers: Handlers = { ...elementwise, ...layout, ...linears, ...normalizers, ...quantizers, ...recurrent, ...reductions, ...shapes, ...windows };
