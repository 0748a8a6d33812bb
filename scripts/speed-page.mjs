// What bench:nets and bench:kernels measured, kept in docs/measured/speed.json, as the page docs/speed.md.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { root } from './models.mjs';

const store = join(root, 'docs', 'measured', 'speed.json');
const file = join(root, 'docs', 'speed.md');
export const readSpeed = () => ({ nets: {}, words: {}, kernels: null, others: {}, ...(existsSync(store) ? JSON.parse(readFileSync(store, 'utf8')) : {}) });
/** What was measured on another processor goes to a place of its own before it is measured here. */
const moved = (speed, machine, own) => {
  const { nets = {}, kernels = null } = speed.others[machine.cpu] ?? {};
  return { ...speed.others, [machine.cpu]: own({ nets, kernels }) };
};
export const withNet = (speed, name, net) => {
  const old = speed.nets[name];
  const others = old === undefined || old.machine.cpu === net.machine.cpu ? speed.others
    : moved(speed, old.machine, (other) => ({ ...other, nets: { ...other.nets, [name]: { macs: old.macs, instructions: old.instructions, results: old.results, lineMs: old.lineMs, goal: old.goal, day: old.day } } }));
  return { ...speed, nets: { ...speed.nets, [name]: net }, others };
};
export const withKernels = (speed, kernels) => {
  const old = speed.kernels;
  return { ...speed, kernels, others: old === null || old.machine.cpu === kernels.machine.cpu ? speed.others : moved(speed, old.machine, (other) => ({ ...other, kernels: old })) };
};
const keep = (speed) => {
  mkdirSync(dirname(store), { recursive: true });
  writeFileSync(store, `${JSON.stringify(speed, null, 1)}\n`);
};
export const writeSpeed = (speed) => {
  keep(speed);
  writeFileSync(file, page(speed));
};
/** The section on words anew; the rest of the page stays as it is, whether or not what it shows still lies in the store. */
export const writeWords = (speed) => {
  keep(speed);
  const text = readFileSync(file, 'utf8');
  const [at, next] = [text.indexOf(WORDS), text.indexOf(RELAXED)];
  if (next < 0) throw new Error(`${file} has no section "${RELAXED}", before which rescales in words stand`);
  writeFileSync(file, `${text.slice(0, at < 0 ? next : at)}${words(speed.words)}\n${text.slice(next)}`);
};
const [WORDS, RELAXED] = ['## Rescales in words\n', '## Relaxed SIMD\n'];

const ms = (time) => (time === undefined ? '–' : time >= 100 ? time.toFixed(1) : time >= 1 ? time.toFixed(2) : time.toFixed(4));
const times = (ratio) => (ratio >= 100 ? ratio.toFixed(0) : ratio.toPrecision(3));
const percent = (share) => (share === null || share === undefined ? '–' : `${(100 * share).toFixed(0)} %`);
const kilobytes = (bytes) => (bytes === undefined || bytes === null ? '–' : (bytes / 1000).toFixed(1));
const row = (cells) => `| ${cells.join(' | ')} |`;
const table = (head, alignment, rows) => [row(head), `|${alignment}|`, ...rows.map(row)].join('\n');

const of = ({ results }, name) => results.find((result) => result.name === name);
const sides = {
  cpu: { title: 'C against onnxruntime-node', peer: 'onnxruntime', name: 'C' },
  wasm: { title: 'WebAssembly in Node against onnxruntime-web', peer: 'onnxruntime-web', name: 'WASM' },
};

/** What was timed of one side and of its peers, and how often as fast the side is as the faster of them; null where one is missing. */
const ratioOf = (net, target) => {
  const own = of(net, target);
  const peers = ['float', 'int8'].map((form) => of(net, `${sides[target].peer} ${form}`)).filter((side) => side !== undefined);
  return own === undefined || peers.length === 0 ? null : { own, ratio: Math.min(...peers.map(({ bestMs }) => bestMs)) / own.bestMs };
};

const versus = (nets, target) => {
  const { title, peer, name } = sides[target];
  const entries = Object.entries(nets).filter(([, net]) => of(net, target) !== undefined);
  if (entries.length === 0) return '';
  const rows = entries.map(([net, found]) => {
    const own = of(found, target);
    const [float, int8] = ['float', 'int8'].map((form) => of(found, `${peer} ${form}`));
    const { ratio } = ratioOf(found, target) ?? { ratio: null };
    const byCpu = [own, float, int8].every((side) => side?.cpuMs) ? Math.min(float.cpuMs, int8.cpuMs) / own.cpuMs : null;
    const line = found.lineMs[target];
    return [
      net, (found.macs / 1e6).toFixed(1), ms(own.bestMs), ms(own.medianMs), own.gmacs.toFixed(1), line === null ? '–' : ms(line), line === null ? '–' : percent(line / own.bestMs), ms(float?.bestMs), ms(int8?.bestMs),
      ratio === null ? '–' : times(ratio), byCpu === null ? '–' : times(byCpu), `≥ ${found.goal[target]}`,
    ];
  });
  return `## ${title}

${table(['net', 'MMAC', `${name} best ms`, 'median', 'GMAC/s', 'line ms', 'of the line', `${peer} float`, `${peer} int8`, 'ratio to the faster', 'by CPU time', 'goal'], '---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:', rows)}
`;
};

const starts = (nets) => {
  const rows = Object.entries(nets).map(([net, found]) => {
    const start = (name) => of(found, name)?.start.bestMs;
    const [cpu, wasm, node, web] = [start('cpu'), start('wasm'), start('onnxruntime int8'), start('onnxruntime-web int8')];
    const ratio = (peer, own) => (peer === undefined || own === undefined ? '–' : times(peer / own));
    const [cpuRun, wasmRun] = ['cpu', 'wasm'].map((name) => of(found, name)?.bestMs);
    return [net, ms(cpu), ms(node), ratio(node, cpu), ratio(node, cpuRun), ms(wasm), ms(web), ratio(web, wasm), ratio(web, wasmRun)];
  });
  return `## First output

Milliseconds from just before loading (the C: from the first call, in a process that is up; the others: before the module or package is imported) to the first output; best of
several fresh processes. The peers run the int8 model. No first output comes before one inference is done: "at most" is the ratio of an inference that starts at once.

${table(['net', 'C', 'onnxruntime', 'ratio', 'at most', 'WASM', 'onnxruntime-web', 'ratio', 'at most'], '---|--:|--:|--:|--:|--:|--:|--:|--:', rows)}
`;
};

/** Several threads, where they were timed. */
const threads = (nets) => {
  const rows = Object.entries(nets).filter(([, { threads: t }]) => t?.found !== undefined).flatMap(([net, { threads: { count, found, load } }]) =>
    Object.entries(found).map(([target, t]) => [net, target, `${count}`, ms(t.oneMs), ms(t.bestMs), ms(t.medianMs), times(t.oneMs / t.bestMs), `${load.before}–${load.after}`]));
  return `## Threads

\`make THREADS=n\` in the folder of the C, or \`-fopenmp -D<NAME>_THREADS=n\` for all files, lets n threads share the layers that are large enough; codes are the same with any number, and one is
the default. Each thread takes scratch memory of its own out of the arena (\`<NAME>_ARENA_BYTES\` counts it).

The WebAssembly of \`--target wasm:threads\` does the same with workers on one shared memory: \`await load(undefined, { threads: n })\`, in Node and in pages that are cross-origin isolated
(others have one thread). The plain target keeps its memory inside and runs on one thread.
${rows.length === 0 ? '' : `
All in turns; load average in the last column. Threads of OpenMP wait for each other awake for a while, as is its default: on a quiet machine that is fastest. Where other programs
hold the cores that they wait for, \`OMP_WAIT_POLICY=passive\` lets them sleep instead, which lengthens small layers most. Workers of WebAssembly look out for
a tenth of a millisecond or two before they sleep. Small nets have too little in a layer to share.

${table(['net', 'target', 'threads', 'one thread, best ms', 'best ms', 'median', 'faster', 'load'], '---|---|--:|--:|--:|--:|--:|--:', rows)}
`}`;
};

/** Exact rescales against rescales in words, where that was timed. */
const words = (nets) => {
  const rows = Object.entries(nets).flatMap(([net, { found, load }]) => Object.entries(found).map(([target, { exactMs, wordsMs }]) =>
    [net, sides[target].name, ms(exactMs), ms(wordsMs), times(exactMs / wordsMs), `${load.before}–${load.after}`]));
  if (rows.length === 0) return '';
  const { machine, lowbitc, day } = Object.values(nets).at(-1);
  return `${WORDS}
\`--rescale words\` lets a rescale to codes of at most 8 bits take one product of 32 bits, \`((x >> d)·m + a) >> t\`, in place of the exact one of 64 bits, wherever the value before rounding is proven to lie within
a 32nd of a code of the real number that the exact form stands for, for every sum that the weights allow, and no product or sum can leave 32 bits. Other rescales of the net stay exact. The bound that
was proven stands in each \`requantize_words\` of the kernel graph, whose meaning all targets share and keep bit for bit (docs/kernels.md). Codes differ from those of the exact form only where a value
lies that near to a half, so the option is not the default. Both forms took turns in one run: \`npm run bench:nets -- --words\`; ${machine.cpu}, ${machine.cores} cores, Node ${machine.node}; lowbitc ${lowbitc}, ${day}.

${table(['net', 'target', 'exact, best ms', 'words, best ms', 'faster', 'load'], '---|---|--:|--:|--:|--:', rows)}
`;
};

const relaxed = `${RELAXED}
\`--target wasm:relaxed\` writes a second module, \`<name>.relaxed.wasm\`, beside the plain one. Its linear layers and convolutions with weights of at most 7 bits, 16 outputs or more and 32 taps or more
multiply pairs of bytes (\`i16x8.relaxed_dot_i8x16_i7x16_s\`): weights stand without sign, in 0 … 127, where the instruction means the same in every engine and no pair leaves 16 bits, and sums stay
in 16 bits for as many steps as surely fit (8 with 4 bits, 2 with 6, 1 with 7). All else is as in the plain module: with weights of 8 bits, or where none of this holds, there is nothing to gain. Codes are the same.

\`load()\` takes the second module where the engine has the instruction and computes a small test as it should (\`relaxed\` of the ES module says so), else the plain one; only one of them is fetched.
Browsers with relaxed SIMD and Node from version 22 on have it, Node 20 with \`--experimental-wasm-relaxed-simd\`. Rows named WebAssembly relaxed SIMD under "Kernels" tell what it gains.
\`npm run bench:kernels -- --only WebAssembly\` times these and the plain ones alone.
`;

const sizes = (nets) => `## Size and compile time

${table(['net', 'C code kB', 'WASM code kB', 'constants kB', 'WASM and loader, gzip kB', 'lowbitc s', 'cc -O2 s'], '---|---|--:|--:|--:|--:|--:', Object.entries(nets).map(([net, { sizes: s }]) => [
  net, Object.entries(s.cCode ?? {}).filter(([, bytes]) => bytes >= 100).map(([variant, bytes]) => `${variant} ${kilobytes(bytes)}`).join(', ') || '–', kilobytes(s.wasmCode), kilobytes(s.weightBytes), kilobytes(s.wasmGzip), s.compileSeconds.toFixed(1), s.ccSeconds === undefined ? '–' : s.ccSeconds.toFixed(1),
]))}

Code is the text section of the object file of each instruction set at \`-O2\`, and the bytes of the module beyond its constants.
`;

const losses = (nets) => `## Where the time goes

For each net what loses most time against the line, steps of equal shape together.

${Object.keys(sides).map((target) => {
  const rows = Object.entries(nets).flatMap(([net, { layers }]) => (layers[target] ?? []).map(({ what, bestMs, part, gmacs, share }, i) => [
    i === 0 ? net : '', what, ms(bestMs), percent(part), gmacs === null ? '' : gmacs.toFixed(1), percent(share),
  ]));
  return rows.length === 0 ? '' : `### ${sides[target].name}\n\n${table(['net', 'step', 'ms', 'of the net', 'GMAC/s', 'of the line'], '---|---|--:|--:|--:|--:', rows)}`;
}).filter((text) => text !== '').join('\n\n')}
`;

/** Nets and kernels as they were timed on other processors. */
const elsewhere = (others) => Object.entries(others).map(([cpu, { nets, kernels }]) => {
  const rows = Object.entries(nets).map(([name, net]) => [name, ...Object.keys(sides).flatMap((target) => {
    const found = ratioOf(net, target);
    return found === null ? ['–', '–', '–', '–'] : [ms(found.own.bestMs), net.lineMs[target] === null ? '–' : percent(net.lineMs[target] / found.own.bestMs), times(found.ratio), `≥ ${net.goal[target]}`];
  })]);
  const [{ instructions, day } = {}] = Object.values(nets);
  return `## On another processor: ${cpu}

Timed in the same way${instructions === undefined ? '' : ` (${instructions}; ${day})`}: the ratio is that to the faster of both peers.
${rows.length === 0 ? '' : `
${table(['net', 'C best ms', 'of the line', 'ratio', 'goal', 'WASM best ms', 'of the line', 'ratio', 'goal'], '---|--:|--:|--:|--:|--:|--:|--:|--:', rows)}
`}${kernels === null ? '' : `
Limits of kernels there: ${limitList([...kernels.limits.cpu, ...kernels.limits.wasm])}.

${kernelTable({ rows: kernels.rows.filter((found) => goalOf(found) !== null), limits: kernels.limits })}
`}`;
}).join('\n');

/** Where a ratio is below its goal: how much of the time lies beyond the line, and in which steps. */
const shortfalls = (nets) => {
  const rows = Object.entries(sides).flatMap(([target, { name }]) => Object.entries(nets).flatMap(([net, found]) => {
    const timed = ratioOf(found, target);
    if (timed === null || timed.ratio >= found.goal[target]) return [];
    const { own, ratio } = timed;
    const line = found.lineMs[target];
    const steps = (found.layers[target] ?? []).map(({ what, bestMs, share }) => `${what} (${ms(bestMs * (1 - Math.min(1, share ?? 0)))})`);
    return [[`${net}, ${name}`, times(ratio), `≥ ${found.goal[target]}`, line === null ? '–' : times((ratio * own.bestMs) / line), steps.join('; ')]];
  }));
  if (rows.length === 0) return '';
  return `## Where a ratio falls short

The ratio that the line itself would reach shows what is possible here at all, as long as every tap is a product of its own; beside each step, the milliseconds that it spends beyond the line.

${table(['net', 'ratio', 'goal', 'ratio of the line', 'steps that lose most, ms beyond the line'], '---|--:|--:|--:|---', rows)}

Machines with AVX2 alone multiply bytes by \`vpmaddubsw\`, whose sums of two products saturate at 16 bits. ONNX Runtime takes it as it is, and documents that results may differ there; results
that equal the reference bit for bit take words (\`vpmaddwd\`), which need more instructions for the same products. 3×3 convolutions of stride 1 make up for it by Winograd's form (16 products
for four outputs instead of 36, exact in integers), and so may pass the line; products of stride 2, of one tap and of matrices cannot. The exact rescale takes two 64-bit products for two codes,
which decides layers with few input channels.
`;
};

const goals = {
  'linear 64x768x768 AVX-512': 200, 'linear 64x768x768 AVX2': 80, 'linear 64x768x768 WebAssembly': 38, 'depthwise 56x56x144 3x3 AVX-512': 52, 'depthwise 56x56x144 3x3 WebAssembly': 10,
  'linear 1x768x768 AVX-512': 95, 'linear 1x768x768 WebAssembly': 28,
};
/** What bounds the kernels of an instruction set, by the names of the limits, and GMAC/s and G codes/s of both on the processor that the goals were set on, a Zen 4 at 3.63 GHz. */
const bounds = {
  'AVX-512 VNNI': { dot: 'vpdpbusd 512', rescale: 'vpmuldq 512', there: [231.7, 11.0] },
  AVX2: { dot: 'vpmaddwd 256', rescale: 'vpmuldq 256', there: [110.1, 10.2] },
  'WebAssembly SIMD128': { dot: 'i32x4.dot_i16x8_s 128', rescale: 'i64x2.extmul_i32x4_s 128', there: [44, 3.85] },
};
/** Multiply-accumulates of a kernel for each code that it rescales. */
const depthOf = (kernel) => Number(/^linear \d+x(\d+)x/.exec(kernel)?.[1] ?? 0) || (/^depthwise .* 3x3$/.test(kernel) ? 9 : null);
const lineOf = (depth, [dot, rescale]) => 1 / (1 / dot + 1 / (depth * rescale));
/** The line of a kernel in GMAC/s, here and on the processor of the goals; null where it is not known. */
const linesOf = ({ kernel, instructions }, limits) => {
  const [bound, depth] = [bounds[instructions], depthOf(kernel)];
  const here = bound === undefined ? [] : [bound.dot, bound.rescale].map((name) => limits.find(({ primitive }) => primitive === name)?.rate);
  return bound === undefined || depth === null || here.includes(undefined) ? null : { here: lineOf(depth, here), there: lineOf(depth, bound.there) };
};
const goalOf = ({ kernel, instructions, weightBits }) => goals[Object.keys(goals).find((name) => weightBits === 8 && `${kernel} ${instructions}`.startsWith(name))] ?? null;
export const kernelTable = ({ rows, limits }) => table(['kernel', 'weights', 'instructions', 'compiler', 'best µs', 'median µs', 'GMAC/s', 'of the line', 'goal', 'of the line there'], '---|--:|---|---|--:|--:|--:|--:|--:|--:',
  [...rows].sort((a, b) => (a.kernel === b.kernel ? b.weightBits - a.weightBits : 0)).map((found) => {
    const [goal, line] = [goalOf(found), linesOf(found, [...limits.cpu, ...limits.wasm])];
    return [
      found.kernel, `${found.weightBits} bits`, found.instructions, found.compiler ?? '', (1000 * found.bestMs).toFixed(2), (1000 * found.medianMs).toFixed(2), found.gmacs.toFixed(1), line === null ? '' : percent(found.gmacs / line.here),
      goal === null ? '' : `≥ ${goal}`, goal === null || line === null ? '' : percent(goal / line.there),
    ];
  }));

const limitList = (limits) => limits.map(({ primitive, kind, rate }) => `${primitive} ${rate.toFixed(kind === 'dot' ? 0 : 1)} ${kind === 'dot' ? 'GMAC/s' : 'G codes/s'}`).join(', ');
const machineText = ({ machine, lowbitc, load, day }) =>
  `${machine.cpu}, ${machine.cores} cores, ${machine.platform} ${machine.architecture}, Node ${machine.node}, ${machine.compiler ?? 'no C compiler'}; lowbitc ${lowbitc}, ${day}; load average ${load.before} before and ${load.after} after`;

/** The machine of several rows, and their loads. */
const machines = (nets) => {
  const found = new Map();
  for (const [name, net] of Object.entries(nets)) {
    const text = machineText({ ...net, load: { before: '', after: '' } }).replace(/; load average.*/, '');
    found.set(text, [...(found.get(text) ?? []), `${name} ${net.load.before}–${net.load.after}`]);
  }
  return [...found].map(([text, list]) => `- ${text}. Load average before and after: ${list.join(', ')}.`).join('\n');
};

const page = ({ nets, words: inWords, kernels, others }) => {
  const last = Object.values(nets).at(-1);
  return `# Speed

<!-- made by npm run bench:nets and npm run bench:kernels -->

True-shape nets with random weights, W8A8, batch 1, one thread everywhere. All sides of a net take turns in one run; times are wall time of one inference. Other processes lengthen
medians more than bests, so on a loaded machine compare best with best. ONNX Runtime runs the float model, and the same net quantized with bytes for activations (unsigned) and weights
(signed, per channel) in QuantizeLinear/DequantizeLinear form; the ratio is the faster of both by ours, once with best wall times and once with the least mean CPU time of the thread,
which waiting for a core does not lengthen.

The line is the time of all multiply-accumulates at the speed of the machine's fastest integer dot product, and of all rescaled codes at the speed of its fastest exact rescale, both
measured by loops that do nothing else. Memory, borders, pooling, normalisation and softmax are not in it; nor is Winograd's form, which takes fewer products, so that a step may pass the line.
${last === undefined ? '' : `
${machines(nets)}
${Object.values(nets).some(({ machine, load }) => load.before > machine.cores) ? `- Loads above the number of cores: other programs took cores and caches from all sides. Wall times of large nets, first outputs and seconds of compilation are longer than on a quiet
  machine, and the ratio of one net has differed by a third from run to run; of small nets, which stay within a core's own caches, by a tenth.
` : ''}- C: ${last.instructions ?? 'none'}, \`-O3\`. Limits: ${limitList(last.limits.cpu ?? [])}.
${/AVX-512/.test(last.instructions ?? '') || last.machine.architecture !== 'x64' ? '' : `- The processor has no AVX-512: that version of the C, and those for Arm, are compared with the reference code by code (Arm under qemu, AVX-512 as a loop program), not timed.
`}- WebAssembly: SIMD128 in Node. Limits: ${limitList(last.limits.wasm ?? [])}.

${[versus(nets, 'cpu'), versus(nets, 'wasm'), starts(nets), threads(nets), words(inWords), relaxed, sizes(nets), shortfalls(nets), losses(nets)].filter((text) => text !== '').join('\n')}`}${kernels === null ? '' : `
## Kernels

Each alone and over and over, codes of 8 bits, with the exact rescale to bytes, \`-O3\`. ${machineText(kernels)}; ${Object.entries(kernels.compilers).map(([name, text]) => `${name}: ${text}`).join('; ')}.
Limits: ${limitList([...kernels.limits.cpu, ...kernels.limits.wasm])}.

Goals were set on an AMD Zen 4 at 3.63 GHz (\`vpdpbusd\` 232 GMAC/s, \`vpmaddwd\` of 256 bits 110, \`i32x4.dot_i16x8_s\` 44; exact rescales 11.0, 10.2 and 3.85 G codes/s). What share of that machine's line they are stands beside
what share of the line of this machine is reached, each line made of the instructions that the row may use. Memory is in neither: one row is bounded by the way of its weights to the core.

${kernelTable(kernels)}
`}${Object.keys(others).length === 0 ? '' : `
${elsewhere(others)}`}`;
};
