/**
 * `certificate.json`: evidence that a compiled program computes with integers and never divides. Three scans: the kernel graph (no
 * real type, every accumulator inside its proven interval, every rescale in words with its proven error), the WebAssembly (every instruction decoded), the C (every token outside
 * comments). Host code, which turns real numbers into codes before and after the program, is not part of it: the `.mjs` module, and
 * the scale macros of the C header, which no C file uses.
 */
import type { Artefact } from '../backends/backend.ts';
import { isInteger } from '../ir/dtype.ts';
import type { Graph } from '../ir/graph.ts';
import { WORDS_ERROR_UNIT } from '../ir/ops/kernel-requantize.ts';
import { verify } from '../ir/verify.ts';
import { scan } from '../wasm/index.ts';

/** An accumulating node, the interval of its 32-bit sums over the real weights, and the bits that it leaves unused. */
export interface AccumulatorProof {
  readonly name: string;
  readonly low: number;
  readonly high: number;
  readonly spareBits: number;
}
/** A rescale in 32-bit words, and how far it is proven to stay from the real numbers before it rounds, in steps of its output. */
export interface RescaleProof {
  readonly name: string;
  readonly error: number;
}
export interface FileScan {
  readonly path: string;
  readonly kind: 'c' | 'wasm';
  /** instructions, or tokens */
  readonly scanned: number;
  /** what computes with real numbers, or divides, with the number of its occurrences */
  readonly float: Readonly<Record<string, number>>;
  readonly division: Readonly<Record<string, number>>;
}
export interface Certificate {
  readonly integerOnly: boolean;
  readonly graph: { readonly nodes: number; readonly realValues: readonly string[]; readonly faults: readonly string[]; readonly accumulators: readonly AccumulatorProof[]; readonly rescalesInWords?: readonly RescaleProof[] };
  readonly files: readonly FileScan[];
}

export const certify = (graph: Graph<'kernel'>, files: readonly Artefact[]): Certificate => {
  const scans = files.flatMap(scanFile);
  const values = [...graph.inputs, ...graph.nodes.map(({ output }) => output)];
  const realValues = values.filter(({ type }) => !isInteger(type.dtype)).map(({ name }) => name);
  const faults = verify(graph).map(({ code, message }) => `${code}: ${message}`);
  const clean = scans.every(({ float, division }) => Object.keys(float).length === 0 && Object.keys(division).length === 0);
  return {
    integerOnly: clean && realValues.length === 0 && faults.length === 0,
    graph: { nodes: graph.nodes.length, realValues, faults, accumulators: accumulatorsOf(graph), ...rescalesOf(graph) },
    files: scans,
  };
};

export const sameCertificate = (a: Certificate, b: Certificate): boolean => JSON.stringify(a) === JSON.stringify(b);

const accumulatorsOf = (graph: Graph<'kernel'>): readonly AccumulatorProof[] => graph.nodes.flatMap(({ attrs, output }) => {
  const bound = attrs['bound'];
  if (!Array.isArray(bound)) return [];
  const [low, high] = bound as readonly number[];
  return [{ name: output.name, low, high, spareBits: 32 - signedBits(low, high) }];
});

const rescalesOf = (graph: Graph<'kernel'>): Pick<Certificate['graph'], 'rescalesInWords'> => {
  const proofs = graph.nodes.flatMap(({ op, attrs, output }) => (op === 'requantize_words' ? [{ name: output.name, error: Number(attrs['error']) * WORDS_ERROR_UNIT }] : []));
  return proofs.length === 0 ? {} : { rescalesInWords: proofs };
};

/** Bits of the narrowest two's complement that holds [low, high]. */
const signedBits = (low: number, high: number): number => {
  let bits = 1;
  while (low < -(2 ** (bits - 1)) || high >= 2 ** (bits - 1)) bits++;
  return bits;
};

const scanFile = ({ path, bytes }: Artefact): readonly FileScan[] =>
  path.endsWith('.wasm') ? [scanWasm(path, bytes)] : /\.[ch]$/.test(path) ? [scanC(path, new TextDecoder().decode(bytes))] : [];

const scanWasm = (path: string, bytes: Uint8Array): FileScan => {
  const { instructions, counts } = scan(bytes);
  const pick = (pattern: RegExp): Readonly<Record<string, number>> => Object.fromEntries([...counts].filter(([name]) => pattern.test(name)).sort());
  return { path, kind: 'wasm', scanned: instructions, float: pick(/f32|f64/), division: pick(/\.(div|rem)/) };
};

const commentsAndTexts = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/g;
/** Names of files, and the macros that tell the host a scale. */
const hostLines = /^[ \t]*#[ \t]*(?:include[^\n]*|define[ \t]+\w+_SCALE[ \t]+[^\n]*)$/gm;
const cToken = /0[xX][\da-fA-F]+[uUlL]*|(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?\w*|\d+[eE][+-]?\d+\w*|\d+\w*|[A-Za-z_]\w*|<<=|>>=|[-+*/%&|^!=<>]=|<<|>>|&&|\|\||->|\+\+|--|\S/g;
const realNumber = /^(?:\d+\.\d*|\.\d+|\d+[eE])/;
const realWord = /^(?:float|double|_Float\w*|__fp16|_Complex|__aeabi_[fd]\w*|\w*math\w*)$/;

const scanC = (path: string, text: string): FileScan => {
  const [float, division] = [new Map<string, number>(), new Map<string, number>()];
  const count = (counts: Map<string, number>, token: string): void => { counts.set(token, (counts.get(token) ?? 0) + 1); };
  const code = text.replace(commentsAndTexts, ' ').replace(hostLines, '');
  let scanned = 0;
  for (const [token] of code.matchAll(cToken)) {
    scanned++;
    if (realNumber.test(token) || realWord.test(token)) count(float, token);
    if (token === '/' || token === '%' || token === '/=' || token === '%=') count(division, token);
  }
  return { path, kind: 'c', scanned, float: Object.fromEntries([...float].sort()), division: Object.fromEntries([...division].sort()) };
};
